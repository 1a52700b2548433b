//! The one place where a process reads variables of its own environment to pass them on: an order's to its agent, the watcher's
//! to the program that tells people.

use std::ffi::OsString;

/// The value of a variable of this process, or `None`. It may be a secret: it goes to the program it is meant for and nowhere else.
#[must_use]
pub fn passed_on(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}
