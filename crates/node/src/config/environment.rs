//! The variables that say where the configuration is or override it. Captured once, so that a check is a function of
//! what it is given.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

/// Variables that are looked at. The upper block is version 2's, with its meaning there.
const NAMES: [&str; 13] = [
    "DISPATCH_ROOT",
    "DISPATCH_NODE_A",
    "DISPATCH_NODE_B",
    "DISPATCH_POLL_SEC",
    "DISPATCH_MAX_PARALLEL",
    "DISPATCH_FROM",
    "DISPATCH_SIDE",
    "DISPATCH_AGENT_BIN",
    "DISPATCH_CONFIG",
    "STATE_DIRECTORY",
    "XDG_CONFIG_HOME",
    "XDG_STATE_HOME",
    "HOME",
];

/// The environment, as far as the configuration looks at it. Empty values count as unset.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    values: BTreeMap<&'static str, OsString>,
}

impl Environment {
    /// This process's environment.
    #[must_use]
    pub fn of_process() -> Environment {
        let set = |name| std::env::var_os(name).map(|value| (name, value));
        Environment { values: NAMES.into_iter().filter_map(set).collect() }
    }

    /// No environment, for checks that must not depend on it.
    #[must_use]
    pub fn empty() -> Environment {
        Environment::default()
    }

    /// The same with one more variable.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<OsString>) -> Environment {
        self.values.insert(name, value.into());
        self
    }

    /// The user's home directory.
    #[must_use]
    pub fn home(&self) -> Option<PathBuf> {
        self.get("HOME").map(PathBuf::from)
    }

    pub(super) fn get(&self, name: &str) -> Option<&OsStr> {
        self.values.get(name).map(OsString::as_os_str).filter(|value| !value.is_empty())
    }
}
