//! The one place where an executor reads its own environment: for variables that an order passes on to its agent.

use std::ffi::OsString;

/// The value of a variable of this process, or `None`. It may be a secret: it goes to the agent and nowhere else.
#[must_use]
pub fn passed_on(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}
