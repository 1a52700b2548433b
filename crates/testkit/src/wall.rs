//! A wall clock that a test sets, for commands that are alive: what a wrong time server or a dead clock battery does to a
//! machine, without touching the machine. The clock since boot goes on as it is, as it would there.
//!
//! A library of twenty lines is put before the system's own (`LD_PRELOAD`); the C compiler that links these tests
//! builds it.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::process::Ended;

/// The clock of one or more nodes.
#[derive(Clone, Debug)]
pub struct Wall {
    library: PathBuf,
    moved: PathBuf,
}

impl Wall {
    /// A clock that agrees with this machine's; its files lie in `dir`.
    ///
    /// # Panics
    /// When there is no C compiler (`cc`).
    #[must_use]
    pub fn in_dir(dir: &Path) -> Self {
        let (source, library, moved) = (dir.join("wall.c"), dir.join("wall.so"), dir.join("wall"));
        fs::write(&source, include_str!("wall.c")).unwrap();
        let mut command = Command::new("cc");
        command.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(&source);
        drop(Ended::of(command, b"").ok());
        fs::write(&moved, 0_i64.to_ne_bytes()).unwrap();
        Self { library, moved }
    }

    /// Puts the clock ahead of this machine's, at once and for all that live.
    ///
    /// # Panics
    /// When its file is gone.
    pub fn ahead(&self, by: Duration) {
        self.set(i64::try_from(by.as_secs()).unwrap());
    }

    /// Puts the clock behind this machine's.
    ///
    /// # Panics
    /// When its file is gone.
    pub fn behind(&self, by: Duration) {
        self.set(-i64::try_from(by.as_secs()).unwrap());
    }

    /// Lets the clock agree again.
    ///
    /// # Panics
    /// When its file is gone.
    pub fn agrees(&self) {
        self.set(0);
    }

    fn set(&self, seconds: i64) {
        // In place: who is alive has the file mapped.
        let file = OpenOptions::new().write(true).open(&self.moved).unwrap();
        file.write_all_at(&seconds.to_ne_bytes(), 0).unwrap();
    }

    /// What a command needs to have this clock.
    pub(crate) fn environment(&self) -> [(&'static str, OsString); 2] {
        [("LD_PRELOAD", self.library.clone().into()), ("TESTKIT_WALL", self.moved.clone().into())]
    }
}
