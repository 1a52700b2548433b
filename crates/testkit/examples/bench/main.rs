//! What a task costs, measured on the release binaries beside what the disk and the kernel cost alone.
//!
//! Run by `scripts/bench.sh`. Every figure is taken between two samples of the floor (write + fsync + rename + fsync of the
//! directory, and spawn + wait of a trivial program, in the same directory), because the machine may be busy with
//! something else: the ratio says more than the milliseconds.

mod measure;
mod scene;
mod table;

use std::path::PathBuf;

use crate::scene::Scene;

/// How much is measured.
pub struct Plan {
    /// Single tasks.
    pub singles: usize,
    /// Tasks of a backlog.
    pub backlog: usize,
    /// Backlogs.
    pub drains: usize,
    /// How long an idle watcher is looked at, in seconds.
    pub idle_s: u64,
}

const FULL: Plan = Plan { singles: 150, backlog: 500, drains: 3, idle_s: 60 };
const QUICK: Plan = Plan { singles: 40, backlog: 200, drains: 1, idle_s: 10 };

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [bins, agent, rest @ ..] = words.as_slice() else {
        eprintln!("usage: bench <directory of the binaries> <agent> [--quick]; see scripts/bench.sh");
        std::process::exit(2);
    };
    let plan = if rest.iter().any(|word| word == "--quick") { QUICK } else { FULL };
    let mut scene = Scene::new(&PathBuf::from(bins), &PathBuf::from(agent));
    println!("{}\n", measure::machine(scene.dir()));
    table::head();
    scene.send(&plan);
    scene.single(&plan);
    scene.round_trips(&plan);
    scene.drain(&plan);
    scene.idle(&plan);
    println!("\nload average at the end: {}", measure::load());
}
