//! The commands under their real names, in one directory, as an installation has them.
//!
//! Cargo names only the binaries of the package under test, so the tests crate builds shims that call the same
//! `main()`. The watcher starts the `dispatch-exec` that lies beside it, so the shims are linked to a directory under
//! the names people know.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// A directory that holds the five commands.
#[derive(Clone, Debug)]
pub struct Bins {
    dir: PathBuf,
}

/// The five commands, from the shims of the crate that calls this (its integration tests only).
#[macro_export]
macro_rules! bins {
    () => {
        $crate::Bins::linked(
            ::std::path::Path::new(env!("CARGO_TARGET_TMPDIR")),
            &[
                ("dispatch-send", env!("CARGO_BIN_EXE_shim-dispatch-send")),
                ("dispatch-watch", env!("CARGO_BIN_EXE_shim-dispatch-watch")),
                ("dispatch-exec", env!("CARGO_BIN_EXE_shim-dispatch-exec")),
                ("dispatch-ack", env!("CARGO_BIN_EXE_shim-dispatch-ack")),
                ("dispatchctl", env!("CARGO_BIN_EXE_shim-dispatchctl")),
            ],
        )
    };
}

impl Bins {
    /// Links each command into `<below>/bin` under its real name; several tests may do so at once.
    ///
    /// # Panics
    /// When a command cannot be linked.
    #[must_use]
    pub fn linked(below: &Path, commands: &[(&str, &str)]) -> Self {
        let dir = below.join("bin");
        fs::create_dir_all(&dir).unwrap();
        for (name, built) in commands {
            link_over(Path::new(built), &dir.join(name))
                .unwrap_or_else(|why| panic!("cannot link {name}: {why}"));
        }
        Self { dir }
    }

    /// The commands that lie in `dir`, for runs against an installation.
    #[must_use]
    pub fn in_dir(dir: &Path) -> Self {
        Self { dir: dir.to_path_buf() }
    }

    /// Where `command` lies.
    #[must_use]
    pub fn path(&self, command: &str) -> PathBuf {
        self.dir.join(command)
    }

    /// A copy of this directory at `to` in which `command` is the shell script `script`, run with `$REAL` naming the
    /// command it stands in for: how a test comes between the watcher and its executor.
    ///
    /// # Panics
    /// When the directory cannot be made.
    #[must_use]
    pub fn with_wrapper(&self, to: &Path, command: &str, script: &str) -> Self {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(&self.dir).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name != command && !name.starts_with('.') {
                fs::hard_link(entry.path(), to.join(&*name))
                    .or_else(|_| fs::copy(entry.path(), to.join(&*name)).map(drop))
                    .unwrap();
            }
        }
        let text = format!("#!/bin/sh\nREAL='{}'\n{script}\n", self.path(command).display());
        write_script(&to.join(command), &text);
        Self { dir: to.to_path_buf() }
    }
}

/// Writes an executable script, whole or not at all.
///
/// # Panics
/// When it cannot be written.
pub fn write_script(path: &Path, text: &str) {
    let fresh = path.with_extension(format!("new-{}", std::process::id()));
    fs::write(&fresh, text).unwrap();
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(&fresh, path).unwrap();
}

fn link_over(from: &Path, to: &Path) -> io::Result<()> {
    let built = fs::metadata(from)?;
    if fs::metadata(to).is_ok_and(|there| there.ino() == built.ino() && there.dev() == built.dev()) {
        return Ok(());
    }
    let name = to.file_name().unwrap_or_default().to_string_lossy();
    let fresh =
        to.with_file_name(format!(".{name}.{}.{:?}", std::process::id(), std::thread::current().id()));
    fs::hard_link(from, &fresh).or_else(|_| fs::copy(from, &fresh).map(drop))?;
    fs::rename(&fresh, to)
}
