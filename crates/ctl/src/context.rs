//! What every verb starts from.

use std::path::Path;

use dispatch_node::args::Common;
use dispatch_node::config::Config;
use dispatch_node::report::{Exit, Form, Report, say, tell};
use dispatch_node::state::{Acquired, WatchLock};
use dispatch_node::waiting::Shown;
use dispatch_spool::PosixShare;

/// The options of every command, and what they lead to.
#[derive(Debug)]
pub(crate) struct Context {
    common: Common,
}

impl Context {
    pub(crate) const fn new(common: Common) -> Context {
        Context { common }
    }

    pub(crate) const fn form(&self) -> Form {
        self.common.form()
    }

    /// How a line is shown that says where a task is.
    pub(crate) fn shown(&self) -> Shown {
        Shown::of(&self.common)
    }

    /// The file that `--config` names.
    pub(crate) fn config_option(&self) -> Option<&Path> {
        self.common.config.as_deref()
    }

    pub(crate) fn config(&self) -> Result<Config, Report> {
        Ok(Config::load(self.config_option())?)
    }

    /// A line for a person, beside the results; not with `--quiet` or `--json`.
    pub(crate) fn tell(&self, text: &str) {
        if !self.common.quiet && self.form() == Form::Text {
            tell(text);
        }
    }

    /// A result for a person; not with `--json`.
    pub(crate) fn say(&self, text: &str) -> Result<(), Report> {
        match self.form() {
            Form::Text => say(text),
            Form::Json => Ok(()),
        }
    }

    /// A result for a program: one line, only with `--json`.
    pub(crate) fn say_json(&self, value: &serde_json::Value) -> Result<(), Report> {
        match self.form() {
            Form::Text => Ok(()),
            Form::Json => say(&value.to_string()),
        }
    }
}

/// The share of this configuration.
pub(crate) fn share(config: &Config) -> PosixShare {
    PosixShare::new(config.root.clone(), config.node.clone())
}

/// Takes `watch.lock` for as long as the answer lives.
pub(crate) fn hold_lock(config: &Config) -> Result<WatchLock, Report> {
    match WatchLock::acquire(&config.state)? {
        Acquired::Held(lock) => Ok(lock),
        Acquired::ByAnother => Err(Report::new(
            Exit::AnotherWatcher,
            format!("a watcher holds `{}`", config.state.watch_lock().display()),
        )
        .help("stop it first (systemctl --user stop dispatch-watch)")),
    }
}
