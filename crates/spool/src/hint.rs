//! Hints: a doorbell that rings when a watched directory changed.
//!
//! It carries no fact, may ring for nothing and may stay silent: inotify never sees what another host did on a network
//! mount. So the caller looks at every tick anyway; a bell only makes it look earlier. This is the one place that uses
//! `notify`.

use std::path::{Path, PathBuf};

use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};

use crate::facts::{MountFacts, Place};
use crate::layout::Dir;

/// How a node learns of changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Strategy {
    /// The kernel rings; the tick stays as a safety net.
    Inotify,
    /// The caller's tick alone.
    Poll,
}

/// The strategy for a mount: inotify only where every change passes through this kernel.
#[must_use]
pub const fn strategy_for(facts: &MountFacts) -> Strategy {
    match facts.file_system.place() {
        Place::Local => Strategy::Inotify,
        Place::Network | Place::Unknown => Strategy::Poll,
    }
}

/// Watching could not be set up; the tick still looks.
#[derive(Debug, thiserror::Error)]
#[error("cannot watch `{}`", path.display())]
pub struct HintError {
    /// The directory.
    pub path: PathBuf,
    /// What the kernel said.
    #[source]
    pub source: notify::Error,
}

/// Watched directories. Dropping it ends the watching.
#[derive(Debug)]
pub struct Hints {
    watcher: RecommendedWatcher,
}

impl Hints {
    /// Calls `bell` for every change from now on, on a thread of its own and at once: it must not block, and whoever
    /// wants one wake-up for many rings lets it set a flag or fill a channel of one place.
    ///
    /// # Errors
    /// No inotify instance is to be had (`fs.inotify.max_user_instances`).
    pub fn new(bell: impl Fn() + Send + 'static) -> Result<Hints, HintError> {
        let handler = move |event: notify::Result<notify::Event>| {
            // An error is an overflow or a directory that went: both are reasons to look.
            if event.as_ref().map_or(true, |event| is_change(event.kind)) {
                bell();
            }
        };
        notify::recommended_watcher(handler)
            .map(|watcher| Hints { watcher })
            .map_err(|source| HintError { path: PathBuf::new(), source })
    }

    /// Watches a directory of this machine; what is below it is not watched.
    ///
    /// # Errors
    /// It is not there, or there are too many watches (`fs.inotify.max_user_watches`).
    pub fn watch(&mut self, path: &Path) -> Result<(), HintError> {
        self.watcher
            .watch(path, RecursiveMode::NonRecursive)
            .map_err(|source| HintError { path: path.to_owned(), source })
    }

    /// Watches a directory of the share mounted at `root`.
    ///
    /// # Errors
    /// As [`Hints::watch`].
    pub fn watch_dir(&mut self, root: &Path, dir: &Dir) -> Result<(), HintError> {
        self.watch(&root.join(dir.path()))
    }

    /// Stops watching a directory; not an error when it was not watched.
    pub fn unwatch(&mut self, path: &Path) {
        self.watcher.unwatch(path).unwrap_or_default();
    }
}

/// Whether an event can mean that somebody changed something. Opening and reading are reported too, and a look at a
/// directory must not be the reason for the next look. Growing files (mirrored logs) are nobody's message either.
const fn is_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Create(_) | EventKind::Remove(_) | EventKind::Any | EventKind::Other => true,
        EventKind::Access(access) => matches!(access, AccessKind::Close(AccessMode::Write)),
        EventKind::Modify(modify) => {
            matches!(modify, ModifyKind::Name(_) | ModifyKind::Any | ModifyKind::Other)
        }
    }
}
