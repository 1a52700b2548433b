//! `dispatch-exec`: one attempt, as ordered.
//!
//! It knows job directories only: the order in one, the lock that makes it the only executor there, and the outcome that
//! it leaves as its last act. It holds no lane key, opens no ledger and publishes nothing but a live copy of the log. It
//! outlives the watcher that started it, and its agent does not outlive it.

mod agent;
mod args;
mod attempt;
mod ceiling;
mod contain;
mod dry_run;
mod ending;
mod environment;
mod launch;
mod log;
mod meter;
mod mirror;
mod outcome;
mod output;
mod stops;
mod supervise;
mod switches;
mod tail;

pub use args::{command, main};
