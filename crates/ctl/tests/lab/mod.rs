//! Two nodes in a temporary directory, driven by the built command.
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::path::PathBuf;
use std::process::{Command, Output};

pub(crate) struct Lab {
    pub(crate) dir: tempfile::TempDir,
}

pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Lab {
    /// A share and two homes, nothing set up.
    pub(crate) fn bare() -> Lab {
        let dir = tempfile::tempdir().unwrap();
        for name in ["share", "a", "b"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        Lab { dir }
    }

    /// Two nodes that know each other.
    pub(crate) fn joined() -> Lab {
        let lab = Lab::bare();
        lab.run("a", &["init", "--root", &lab.root(), "--node", "a", "--peer", "b"]).done();
        lab.run("b", &["init", "--join", &lab.join_file(), "--root", &lab.root()]).done();
        lab
    }

    pub(crate) fn root(&self) -> String {
        self.share().display().to_string()
    }

    pub(crate) fn share(&self) -> PathBuf {
        self.dir.path().join("share")
    }

    pub(crate) fn home(&self, node: &str) -> PathBuf {
        self.dir.path().join(node)
    }

    pub(crate) fn config_dir(&self, node: &str) -> PathBuf {
        self.home(node).join(".config/dispatch")
    }

    pub(crate) fn state_dir(&self, node: &str) -> PathBuf {
        self.home(node).join(".local/state/dispatch").join(node)
    }

    pub(crate) fn join_file(&self) -> String {
        self.config_dir("a").join("join-b.json").display().to_string()
    }

    pub(crate) fn run(&self, node: &str, words: &[&str]) -> Ended {
        let output: Output = Command::new(env!("CARGO_BIN_EXE_dispatchctl"))
            .args(words)
            .current_dir(self.home(node))
            .env_clear()
            .env("HOME", self.home(node))
            .env("PATH", "/usr/bin:/bin")
            .output()
            .unwrap();
        Ended {
            code: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Ended {
    #[track_caller]
    pub(crate) fn done(self) -> Ended {
        assert_eq!(self.code, 0, "{}{}", self.out, self.err);
        self
    }

    #[track_caller]
    pub(crate) fn refused(self, code: i32, words: &[&str]) -> Ended {
        assert_eq!(self.code, code, "{}{}", self.out, self.err);
        for word in words {
            assert!(self.err.contains(word), "`{word}` is not in: {}", self.err);
        }
        self
    }
}
