//! The agent of the benchmark: notes when its first instruction ran, and ends.
//!
//! With a directory as its argument it leaves the moment there, in nanoseconds of the monotonic clock, in a file named
//! after the task. Without one it does nothing: then it is what a spawn alone costs.

use rustix::time::{ClockId, clock_gettime};

fn main() {
    let now = clock_gettime(ClockId::Monotonic);
    if let (Some(dir), Ok(task)) = (std::env::args_os().nth(1), std::env::var("DISPATCH_TASK")) {
        let text = format!("{}{:09}", now.tv_sec, now.tv_nsec);
        std::fs::write(std::path::Path::new(&dir).join(task), text).unwrap();
    }
}
