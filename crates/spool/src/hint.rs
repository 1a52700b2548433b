//! Hints: a doorbell that rings when something appeared in a watched directory.
//!
//! It carries no fact, may ring for nothing and may stay silent: inotify never sees what another host did on a network
//! mount. So the caller looks at every tick anyway; a bell only makes it look earlier.
//!
//! The kernel is asked for no more than what can be news: a look at a directory, a growing file, and what the node itself
//! takes away would otherwise wake it for nothing, some of them hundreds of times for one task.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};

use crate::facts::{MountFacts, Place};
use crate::layout::{Area, Dir};

/// Bytes of events read at once.
const EVENTS_BYTES: usize = 8 * 1024;
/// Stack of the thread that listens.
const STACK_BYTES: usize = 128 * 1024;

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

/// What in a directory rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rings {
    /// Whatever appears in it.
    Appearing,
    /// What appears with one of these endings.
    Ending(&'static str),
    /// These names, when they appear, change or go.
    Named(&'static [&'static str]),
}

impl Rings {
    /// What is news in a directory of the share.
    #[must_use]
    pub const fn of(dir: &Dir) -> Rings {
        match dir {
            Dir::Root => Rings::Named(&["KILLSWITCH", "CLUSTER"]),
            Dir::Lane(_, Area::Top) => Rings::Named(&["KILLSWITCH"]),
            // The rest of it is the node's own.
            Dir::Lane(_, Area::PendingAck) => Rings::Ending(".ack"),
            Dir::Tmp
            | Dir::Heartbeats
            | Dir::Logs
            | Dir::Metrics
            | Dir::Rejected
            | Dir::Lane(
                _,
                Area::Tmp
                | Area::Inbox
                | Area::Attachments
                | Area::Control
                | Area::Processing
                | Area::Done
                | Area::Archive
                | Area::ArchiveMonth(_)
                | Area::Artifacts
                | Area::Rejected,
            ) => Rings::Appearing,
        }
    }

    fn flags(self) -> WatchFlags {
        let appears = WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::CLOSE_WRITE;
        let itself = WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF | WatchFlags::ONLYDIR;
        match self {
            Rings::Appearing | Rings::Ending(_) => appears | itself,
            Rings::Named(_) => appears | WatchFlags::DELETE | WatchFlags::MOVED_FROM | itself,
        }
    }

    fn rings_for(self, name: &[u8]) -> bool {
        match self {
            Rings::Appearing => true,
            Rings::Ending(ending) => name.ends_with(ending.as_bytes()),
            Rings::Named(names) => names.iter().any(|known| known.as_bytes() == name),
        }
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
    pub source: io::Error,
}

/// Watched directories. Dropping it ends the watching.
#[derive(Debug)]
pub struct Hints {
    ear: Arc<Ear>,
    /// The listening thread ends when this end of its pipe closes.
    _listening: OwnedFd,
}

impl Hints {
    /// Calls `bell` for what appears from now on, on a thread of its own and at once, one time for all that is there when
    /// it looks. It must not block.
    ///
    /// # Errors
    /// No inotify instance is to be had (`fs.inotify.max_user_instances`), or no thread.
    pub fn new(bell: impl Fn() + Send + 'static) -> Result<Hints, HintError> {
        let failed = |source: io::Error| HintError { path: PathBuf::new(), source };
        let ear = Arc::new(Ear::new().map_err(|error| failed(error.into()))?);
        let (ended, listening) = pipe_with(PipeFlags::CLOEXEC).map_err(|error| failed(error.into()))?;
        let listener = Arc::clone(&ear);
        thread::Builder::new()
            .name("hints".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || listener.listen(&ended, &bell))
            .map_err(failed)?;
        Ok(Hints { ear, _listening: listening })
    }

    /// Watches a directory of this machine; what is below it is not watched.
    ///
    /// # Errors
    /// It is not there, or there are too many watches (`fs.inotify.max_user_watches`).
    pub fn watch(&mut self, path: &Path, rings: Rings) -> Result<(), HintError> {
        self.ear
            .watch(path, rings)
            .map_err(|source| HintError { path: path.to_owned(), source: source.into() })
    }

    /// Watches a directory no longer, whatever became of it. One that was not watched is no matter.
    pub fn unwatch(&mut self, path: &Path) {
        self.ear.unwatch(path);
    }

    /// Watches a directory of the share mounted at `root`, for what is news in it.
    ///
    /// # Errors
    /// As [`Hints::watch`].
    pub fn watch_dir(&mut self, root: &Path, dir: &Dir) -> Result<(), HintError> {
        self.watch(&root.join(dir.path()), Rings::of(dir))
    }
}

/// The kernel's queue of events, and what of them is news.
#[derive(Debug)]
pub(crate) struct Ear {
    kernel: OwnedFd,
    watched: Mutex<BTreeMap<i32, (PathBuf, Rings)>>,
}

impl Ear {
    pub(crate) fn new() -> Result<Ear, Errno> {
        let kernel = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        Ok(Ear { kernel, watched: Mutex::default() })
    }

    pub(crate) fn watch(&self, path: &Path, rings: Rings) -> Result<(), Errno> {
        // Held until the watch is known, so that its first event finds it.
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let watch = inotify::add_watch(&self.kernel, path, rings.flags())?;
        watched.insert(watch, (path.to_owned(), rings));
        Ok(())
    }

    pub(crate) fn unwatch(&self, path: &Path) {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let found = watched.iter().find(|(_, (known, _))| known == path).map(|(watch, _)| *watch);
        if let Some(watch) = found {
            watched.remove(&watch);
            // The kernel forgot it already where the directory is gone.
            inotify::remove_watch(&self.kernel, watch).ok();
        }
    }

    /// Waits for events until the other end of the pipe closes.
    fn listen(&self, ended: &OwnedFd, bell: &impl Fn()) {
        loop {
            let mut waits = [PollFd::new(&self.kernel, PollFlags::IN), PollFd::new(ended, PollFlags::IN)];
            match poll(&mut waits, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => return,
            }
            if waits.last().is_some_and(|end| !end.revents().is_empty()) {
                return;
            }
            if self.has_news() {
                bell();
            }
        }
    }

    /// Takes every event that is there and says whether one of them is news.
    pub(crate) fn has_news(&self) -> bool {
        let mut buffer = [MaybeUninit::uninit(); EVENTS_BYTES];
        let mut events = inotify::Reader::new(&self.kernel, &mut buffer);
        let mut news = false;
        while let Ok(event) = events.next() {
            let watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
            // The end of a watch: what made it end was told before, or was our own doing.
            if event.events().contains(ReadFlags::IGNORED) {
                continue;
            }
            let rings = watched.get(&event.wd()).map(|(_, rings)| *rings);
            // An event without a name is an overflow or a directory that went: reasons to look as well.
            let name = event.file_name().map(CStr::to_bytes);
            news |= rings.zip(name).is_none_or(|(rings, name)| rings.rings_for(name));
        }
        news
    }
}
