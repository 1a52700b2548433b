//! Placeholder prologue.
#![forbid(unsafe_code)]

use std::process::ExitCode;

/// Runs the command.
#[must_use]
pub fn main() -> ExitCode {
    ExitCode::SUCCESS
}
