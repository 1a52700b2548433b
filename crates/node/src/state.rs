//! The state directory: what a node keeps for itself on its own disk (architecture, "What a node keeps for itself").

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use dispatch_core::protocol::names::{Lane, NodeName, TaskId};
use dispatch_spool::{FileSystem, MountFacts, Place};
use rustix::fs::FlockOperation;

use crate::files::{FileError, create_private_dir, device_and_inode};
use crate::report::{Exit, Explain};

/// How long [`WatchLock::acquire`] tries: longer than anybody holds the lock just to look whether it is held.
const ACQUIRE_FOR: Duration = Duration::from_millis(500);

/// A directory of this node lies where it must not.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// On a file system that other machines may write.
    #[error("the {what} `{}` lies on a network file system ({kind})", path.display())]
    OnNetwork {
        /// What the directory is for.
        what: &'static str,
        /// The directory.
        path: PathBuf,
        /// The kind of file system.
        kind: FileSystem,
    },
    /// On the share itself.
    #[error("the {what} `{}` lies on the share `{}`", path.display(), root.display())]
    OnShare {
        /// What the directory is for.
        what: &'static str,
        /// The directory.
        path: PathBuf,
        /// The share's root.
        root: PathBuf,
    },
    /// The place cannot be looked at.
    #[error(transparent)]
    Unreadable(#[from] FileError),
}

impl Explain for PlaceError {
    fn exit(&self) -> Exit {
        Exit::Config
    }

    fn help(&self) -> Option<String> {
        let what = match self {
            PlaceError::OnNetwork { what, .. } | PlaceError::OnShare { what, .. } => what,
            PlaceError::Unreadable(_) => return None,
        };
        Some(format!(
            "keep the {what} on a disk of this machine: `state = \"/var/lib/dispatch\"` in dispatch.toml, or --config"
        ))
    }
}

/// Refuses a directory of this node on a network file system or on the share: what decides here must be this
/// machine's alone. The directory need not exist yet; its nearest existing parent is looked at.
///
/// # Errors
/// The two refusals, or a place that cannot be looked at.
pub fn check_place(what: &'static str, path: &Path, root: &Path) -> Result<(), PlaceError> {
    let there = nearest_existing(path)?;
    let facts = MountFacts::of(&there).map_err(FileError::of("look at the file system of", &there))?;
    let kind = facts.file_system;
    // A kind that nobody knows may well be a local disk: refusing it would keep people from working at all.
    if kind.place() == Place::Network {
        return Err(PlaceError::OnNetwork { what, path: path.to_owned(), kind });
    }
    let root_is_here = fs::canonicalize(root).is_ok_and(|root| there.starts_with(root));
    if root_is_here || path.starts_with(root) {
        return Err(PlaceError::OnShare { what, path: path.to_owned(), root: root.to_owned() });
    }
    Ok(())
}

/// The nearest directory on the way up that exists, without symlinks.
fn nearest_existing(path: &Path) -> Result<PathBuf, FileError> {
    let mut missing = None;
    for candidate in path.ancestors() {
        let candidate = if candidate == Path::new("") { Path::new(".") } else { candidate };
        match fs::canonicalize(candidate) {
            Ok(found) => return Ok(found),
            Err(error) if error.kind() == io::ErrorKind::NotFound => missing = Some(error),
            Err(source) => return Err(FileError { op: "look at", path: candidate.to_owned(), source }),
        }
    }
    let source = missing.unwrap_or_else(|| io::ErrorKind::NotFound.into());
    Err(FileError { op: "look at", path: path.to_owned(), source })
}

/// The state directory of one node, as paths. Only [`StateDir::create`] touches the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateDir {
    path: PathBuf,
}

impl StateDir {
    /// The state directory at this path.
    #[must_use]
    pub fn at(path: impl Into<PathBuf>) -> StateDir {
        StateDir { path: path.into() }
    }

    /// The directory itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The ledger.
    #[must_use]
    pub fn ledger_db(&self) -> PathBuf {
        self.path.join("ledger.db")
    }

    /// The lock whose holder is this node's watcher.
    #[must_use]
    pub fn watch_lock(&self) -> PathBuf {
        self.path.join("watch.lock")
    }

    /// Present in any form: this node spawns nothing.
    #[must_use]
    pub fn killswitch(&self) -> PathBuf {
        self.path.join("KILLSWITCH")
    }

    /// What the watcher knows of its peers, for one-shot commands.
    #[must_use]
    pub fn peers_json(&self) -> PathBuf {
        self.path.join("peers.json")
    }

    /// All attempts' directories.
    #[must_use]
    pub fn jobs(&self) -> PathBuf {
        self.path.join("jobs")
    }

    /// The directory of all attempts of one task.
    #[must_use]
    pub fn task_jobs(&self, from: &NodeName, task: TaskId) -> PathBuf {
        self.jobs().join(from.as_str()).join(task.to_string())
    }

    /// The directory of one attempt.
    #[must_use]
    pub fn job(&self, from: &NodeName, task: TaskId, epoch: u64) -> PathBuf {
        self.task_jobs(from, task).join(epoch.to_string())
    }

    /// The sender's half of one lane: its lock, stream, outbox and what was sent.
    #[must_use]
    pub fn send(&self, lane: &Lane) -> PathBuf {
        self.path.join("send").join(lane.to_string())
    }

    /// All lanes' sender halves.
    #[must_use]
    pub fn sends(&self) -> PathBuf {
        self.path.join("send")
    }

    /// Requests to the watcher.
    #[must_use]
    pub fn requests(&self) -> PathBuf {
        self.path.join("requests")
    }

    /// Its replies.
    #[must_use]
    pub fn replies(&self) -> PathBuf {
        self.path.join("replies")
    }

    /// Makes what is missing of the directories, mode 0700, after checking their place.
    ///
    /// # Errors
    /// A place on a network file system or on the share, a file in the way, the system's refusal.
    pub fn create(&self, root: &Path) -> Result<(), PlaceError> {
        check_place("state directory", &self.path, root)?;
        for dir in [self.path.clone(), self.jobs(), self.sends(), self.requests(), self.replies()] {
            create_private_dir(&dir)?;
        }
        Ok(())
    }
}

/// The right to be this state directory's watcher; given back when dropped.
#[derive(Debug)]
pub struct WatchLock {
    file: File,
    path: PathBuf,
}

/// What trying for the lock found.
#[derive(Debug)]
#[must_use]
pub enum Acquired {
    /// It is ours.
    Held(WatchLock),
    /// Another process holds it.
    ByAnother,
}

impl WatchLock {
    /// Tries for the lock for half a second, so that somebody who only looks does not turn a watcher away.
    ///
    /// # Errors
    /// The lock file cannot be made or locked.
    pub fn acquire(state: &StateDir) -> Result<Acquired, FileError> {
        let path = state.watch_lock();
        let file = open_lock(&path)?;
        let started = Instant::now();
        loop {
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Acquired::Held(WatchLock { file, path })),
                Err(rustix::io::Errno::WOULDBLOCK) if started.elapsed() < ACQUIRE_FOR => {
                    thread::sleep(Duration::from_millis(20));
                }
                Err(rustix::io::Errno::WOULDBLOCK) => return Ok(Acquired::ByAnother),
                Err(errno) => return Err(FileError { op: "lock", path, source: errno.into() }),
            }
        }
    }

    /// Device and inode of the lock file: the same pair in the same boot of the machine is the same directory
    /// (protocol section 7).
    ///
    /// # Errors
    /// The file cannot be looked at.
    pub fn device_and_inode(&self) -> Result<(u64, u64), FileError> {
        device_and_inode(&self.file, &self.path)
    }
}

/// Whether some process holds `watch.lock`: a watcher, `init --new-ledger` or `recover`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Watched {
    /// Somebody holds it.
    Held,
    /// Nobody does, or there is no lock file yet.
    Free,
}

/// Looks whether `watch.lock` is held, without keeping anybody from taking it for longer than a moment.
///
/// # Errors
/// The lock file is there and cannot be opened or locked.
pub fn watched(state: &StateDir) -> Result<Watched, FileError> {
    let path = state.watch_lock();
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Watched::Free),
        Err(source) => return Err(FileError { op: "open", path, source }),
    };
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(Watched::Free),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(Watched::Held),
        Err(errno) => Err(FileError { op: "look at the lock", path, source: errno.into() }),
    }
}

fn open_lock(path: &Path) -> Result<File, FileError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(FileError::of("open", path))
}

/// Tasks that have a directory of attempts here, for whoever cleans up or adopts: (sender, task), skipping names that
/// are neither.
///
/// # Errors
/// A directory that cannot be listed.
pub fn tasks_with_jobs(state: &StateDir) -> Result<Vec<(NodeName, TaskId)>, FileError> {
    let mut found = Vec::new();
    for from in names_in(&state.jobs())? {
        let Ok(from) = NodeName::new(&from) else { continue };
        for task in names_in(&state.jobs().join(from.as_str()))? {
            if let Ok(task) = TaskId::parse_any_version(&task) {
                found.push((from.clone(), task));
            }
        }
    }
    Ok(found)
}

/// The UTF-8 names in a directory, sorted; none where the directory is missing.
///
/// # Errors
/// The directory is there and cannot be listed.
pub fn names_in(dir: &Path) -> Result<Vec<String>, FileError> {
    let op = "list";
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(FileError { op, path: dir.to_owned(), source }),
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(FileError::of(op, dir))?.file_name();
        names.extend(utf8(&name));
    }
    names.sort();
    Ok(names)
}

fn utf8(name: &OsStr) -> Option<String> {
    std::str::from_utf8(name.as_bytes()).ok().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn state() -> (tempfile::TempDir, StateDir) {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::at(dir.path().join("state/a"));
        state.create(&dir.path().join("share")).unwrap();
        (dir, state)
    }

    #[test]
    fn the_directories_are_private() {
        let (_dir, state) = state();
        for path in [state.path().to_owned(), state.requests(), state.replies(), state.jobs()] {
            assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o700);
        }
    }

    #[test]
    fn a_state_directory_on_the_share_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("share");
        fs::create_dir(&root).unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&root, &link).unwrap();
        for path in [root.join("state"), link.join("state/a"), root.clone()] {
            let refused = StateDir::at(path).create(&root);
            assert!(matches!(refused, Err(PlaceError::OnShare { .. })));
        }
    }

    #[test]
    fn one_process_holds_the_lock_and_others_can_tell() {
        let (_dir, state) = state();
        assert_eq!(watched(&state).unwrap(), Watched::Free);
        let Acquired::Held(lock) = WatchLock::acquire(&state).unwrap() else { panic!("it is free") };
        assert_eq!(watched(&state).unwrap(), Watched::Held);
        assert!(matches!(WatchLock::acquire(&state).unwrap(), Acquired::ByAnother));
        drop(lock);
        assert_eq!(watched(&state).unwrap(), Watched::Free);
    }
}
