//! What scripted agents did, written by themselves to a file that no node knows.
//!
//! The `command` agent runs a shell; the request is its standard input. So a test's request is a script, and one that
//! begins with [`Runs::mark`] leaves a line each time it starts: the count that every "ran once" rests on.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// A file to which every start of a scripted agent appends one line.
#[derive(Clone, Debug)]
pub struct Runs {
    file: PathBuf,
}

impl Runs {
    pub(crate) fn in_dir(dir: &Path) -> Self {
        let file = dir.join("runs");
        fs::write(&file, "").unwrap();
        Self { file }
    }

    /// Shell text that notes one run of `label` (one short append: whole lines, also from several processes).
    #[must_use]
    pub fn mark(&self, label: &str) -> String {
        format!("printf '%s\\n' '{label}' >> '{}'\n", self.file.display())
    }

    /// How often `label` was noted.
    #[must_use]
    pub fn of(&self, label: &str) -> usize {
        self.all().get(label).copied().unwrap_or(0)
    }

    /// Every label with how often it was noted.
    #[must_use]
    pub fn all(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for label in self.order() {
            *counts.entry(label).or_insert(0) += 1;
        }
        counts
    }

    /// The labels in the order in which they were noted.
    #[must_use]
    pub fn order(&self) -> Vec<String> {
        fs::read_to_string(&self.file).unwrap_or_default().lines().map(ToOwned::to_owned).collect()
    }
}
