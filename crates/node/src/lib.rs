//! Wiring shared by the commands: configuration, keys, the state directory, job directories, the clock, reports.
#![forbid(unsafe_code)]

pub mod job;
pub mod tree;
