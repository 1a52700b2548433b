//! What can be wrong with a configuration, and what to do about it.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use crate::files::FileError;
use crate::report::{Exit, Explain};
use crate::state::PlaceError;

/// The configuration does not hold: where, and why.
#[derive(Debug, thiserror::Error)]
#[error("the configuration {} does not hold", place(file, *line))]
pub struct ConfigError {
    /// The file.
    pub file: PathBuf,
    /// The line, counted from 1, where it is known.
    pub line: Option<usize>,
    /// What is wrong there.
    #[source]
    pub problem: Problem,
}

fn place(file: &Path, line: Option<usize>) -> String {
    match line {
        Some(line) => format!("`{}` line {line}", file.display()),
        None => format!("`{}`", file.display()),
    }
}

/// What can be wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// There is none.
    #[error("there is no such file")]
    NotFound {
        /// Where it was looked for.
        searched: Vec<PathBuf>,
    },
    /// It cannot be read.
    #[error(transparent)]
    Unreadable(#[from] FileError),
    /// Others than its owner may write it, or a stranger owns it.
    #[error("other people may write it")]
    Loose,
    /// It is not TOML.
    #[error("not TOML: {message}")]
    NotToml {
        /// What the parser says.
        message: String,
    },
    /// A key nobody knows.
    #[error("unknown key `{key}`")]
    UnknownKey {
        /// The key.
        key: String,
        /// The known key that was most likely meant.
        nearest: Option<&'static str>,
    },
    /// A key that must be there.
    #[error("`{key}` is missing")]
    Missing {
        /// The key.
        key: String,
    },
    /// A value of another type.
    #[error("`{key}` must be {wanted}, not {found}")]
    WrongType {
        /// The key.
        key: String,
        /// What it takes.
        wanted: &'static str,
        /// What stands there.
        found: &'static str,
    },
    /// A value that breaks the key's rule.
    #[error("`{key}`: {rule}")]
    Value {
        /// The key.
        key: String,
        /// The rule, as a clause.
        rule: String,
    },
    /// A variable of the environment that breaks the rule of what it overrides.
    #[error("the environment variable `{name}`: {rule}")]
    Variable {
        /// The variable.
        name: &'static str,
        /// The rule, as a clause.
        rule: String,
    },
    /// A directory of this node lies where it must not.
    #[error(transparent)]
    Place(#[from] PlaceError),
}

impl Problem {
    pub(super) fn value(key: String, why: &dyn Display) -> Problem {
        Problem::Value { key, rule: why.to_string() }
    }
}

impl Explain for ConfigError {
    fn exit(&self) -> Exit {
        Exit::Config
    }

    fn help(&self) -> Option<String> {
        match &self.problem {
            Problem::NotFound { searched } if searched.is_empty() => Some("name an existing file with --config".to_owned()),
            Problem::NotFound { .. } => Some(
                "make one with `dispatchctl init --root DIR --node NAME --peer NAME`, or name one with --config".to_owned(),
            ),
            Problem::Loose => Some(format!("run: chown \"$(id -u)\" {0} && chmod go-w {0}", self.file.display())),
            Problem::UnknownKey { nearest: Some(nearest), .. } => Some(format!("did you mean `{nearest}`?")),
            Problem::Place(place) => place.help(),
            Problem::Unreadable(_)
            | Problem::NotToml { .. }
            | Problem::UnknownKey { nearest: None, .. }
            | Problem::Missing { .. }
            | Problem::WrongType { .. }
            | Problem::Value { .. }
            | Problem::Variable { .. } => None,
        }
    }
}
