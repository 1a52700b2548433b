//! Words for developers: `tracing` on standard error, off unless asked for by `-vv` or `DISPATCH_LOG`.

use std::io;

use tracing_subscriber::EnvFilter;

/// Turns on the developers' words where somebody asked for them; once per process, the first call counts.
///
/// `-vv` shows debug, `-vvv` trace; `DISPATCH_LOG` is a filter like `dispatch_spool=trace`.
pub fn init(verbose: u8) {
    let filter = match (std::env::var("DISPATCH_LOG"), verbose) {
        (Ok(filter), _) if !filter.is_empty() => EnvFilter::new(filter),
        (_, 0 | 1) => return,
        (_, 2) => EnvFilter::new("debug"),
        (_, _) => EnvFilter::new("trace"),
    };
    let started = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).try_init();
    // Already on: the first call counts.
    drop(started);
}
