//! What a mount can do, tried in the share's own `tmp/` and measured. Every file it makes has the name of a half-written one,
//! so that even a probe that dies leaves nothing which is not cleared away.

use std::fs;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::PosixShare;
use super::errno::failed;
use crate::layout::{Dir, File, Hex16, TmpName};
use crate::root::LIST_ENTRIES_MAX;
use crate::share::{Op, Share as _, ShareError};

/// How long a new name may stay invisible before that is said.
const VISIBLE_WITHIN: Duration = Duration::from_secs(5);
/// From one listing to the next.
const PAUSE: Duration = Duration::from_millis(5);
/// Size of the file that is synced.
const BYTES: usize = 4 * 1024;

/// Something that publishing and moving rest on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ability {
    /// A file is made only where none is (`O_EXCL`).
    Exclusive,
    /// A file's bytes are on the server's disk when it says so (`fsync`).
    Sync,
    /// A file gets a second name only where none is (`link`).
    Link,
    /// The number of a file's names is told.
    LinkCount,
    /// A new name is seen by a fresh listing.
    Listing,
    /// A file moves in one step (`rename`).
    Rename,
    /// A directory's names are on the server's disk when it says so.
    SyncDir,
    /// A file is removed.
    Remove,
}

/// What trying one ability came to.
#[derive(Debug)]
pub struct Tried {
    /// Which.
    pub ability: Ability,
    /// How long it took, or why it failed.
    pub done: Result<Duration, Failed>,
}

/// An ability that is not there.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// The file system refused.
    #[error("it was refused")]
    Refused(#[source] ShareError),
    /// It did something else than it should.
    #[error("{0}")]
    Wrong(&'static str),
}

/// One step of the probe.
type Step<'a> = fn(&Scene<'a>) -> Result<(), Failed>;

impl PosixShare {
    /// Tries every ability once. Stops at the first that the others need and that is not there.
    ///
    /// # Errors
    /// The share's `tmp/` cannot be opened.
    pub fn probe(&self) -> Result<Vec<Tried>, ShareError> {
        let scene = Scene {
            share: self,
            tmp: self.open(&Dir::Tmp)?,
            first: name(self),
            second: name(self),
            third: name(self),
        };
        let steps: [(Ability, Step<'_>); 8] = [
            (Ability::Exclusive, Scene::exclusive),
            (Ability::Sync, Scene::sync),
            (Ability::Link, Scene::link),
            (Ability::LinkCount, Scene::link_count),
            (Ability::Listing, Scene::listing),
            (Ability::Rename, Scene::rename),
            (Ability::SyncDir, Scene::sync_dir),
            (Ability::Remove, Scene::remove),
        ];
        let mut tried = Vec::new();
        for (ability, step) in steps {
            let begun = Instant::now();
            let done = step(&scene).map(|()| begun.elapsed());
            let needed = matches!(ability, Ability::Exclusive) && done.is_err();
            tried.push(Tried { ability, done });
            if needed {
                break;
            }
        }
        Ok(tried)
    }
}

/// Three names, of which each step uses those it needs. What is left of them goes with it.
struct Scene<'a> {
    share: &'a PosixShare,
    tmp: OwnedFd,
    first: TmpName,
    second: TmpName,
    third: TmpName,
}

impl Drop for Scene<'_> {
    fn drop(&mut self) {
        for name in [&self.first, &self.second, &self.third] {
            // Absent is what is wanted; what stays is cleared away a day later.
            rustix::fs::unlinkat(&self.tmp, name.to_string(), AtFlags::empty()).unwrap_or_default();
        }
    }
}

fn name(share: &PosixShare) -> TmpName {
    let mut random = [0_u8; 8];
    // Without randomness the name may be taken: O_EXCL says so then.
    let random = getrandom::fill(&mut random).map_or(0, |()| u64::from_be_bytes(random));
    let (node, pid) = (share.node().clone(), std::process::id());
    TmpName { of: "probe".to_owned(), node, pid, random: Hex16::from_number(random) }
}

fn refused(op: Op, name: &TmpName) -> impl FnOnce(Errno) -> Failed {
    let path = Dir::Tmp.path().join(name.to_string());
    move |source| Failed::Refused(failed(op, path, source))
}

impl Scene<'_> {
    fn make(&self, name: &TmpName) -> Result<OwnedFd, Errno> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&self.tmp, name.to_string(), flags, Mode::RUSR | Mode::WUSR)
    }

    fn exclusive(&self) -> Result<(), Failed> {
        self.make(&self.first).map_err(refused(Op::Publish, &self.first))?;
        match self.make(&self.first) {
            Err(Errno::EXIST) => Ok(()),
            Ok(_) => Err(Failed::Wrong("a file that was there was made a second time")),
            Err(other) => Err(refused(Op::Publish, &self.first)(other)),
        }
    }

    fn sync(&self) -> Result<(), Failed> {
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.tmp, self.first.to_string(), flags, Mode::empty())
            .map_err(refused(Op::Publish, &self.first))?;
        let mut file = fs::File::from(fd);
        let written = file.write_all(&[b'.'; BYTES]).and_then(|()| file.sync_all());
        written.map_err(|source| {
            let errno = Errno::from_io_error(&source).unwrap_or(Errno::IO);
            refused(Op::Sync, &self.first)(errno)
        })
    }

    fn link_as_second(&self) -> Result<(), Errno> {
        let (from, to) = (self.first.to_string(), self.second.to_string());
        rustix::fs::linkat(&self.tmp, from, &self.tmp, to, AtFlags::empty())
    }

    fn link(&self) -> Result<(), Failed> {
        self.link_as_second().map_err(refused(Op::Link, &self.second))?;
        match self.link_as_second() {
            Err(Errno::EXIST) => Ok(()),
            Ok(()) => Err(Failed::Wrong("a name that was taken was given a second time")),
            Err(other) => Err(refused(Op::Link, &self.second)(other)),
        }
    }

    fn link_count(&self) -> Result<(), Failed> {
        let seen = rustix::fs::statat(&self.tmp, self.first.to_string(), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(refused(Op::Stat, &self.first))?;
        if seen.st_nlink == 2 { Ok(()) } else { Err(Failed::Wrong("a file of two names does not say so")) }
    }

    fn listing(&self) -> Result<(), Failed> {
        let wanted = File::Tmp(self.second.clone());
        let begun = Instant::now();
        while begun.elapsed() < VISIBLE_WITHIN {
            let listing = self.share.list(&Dir::Tmp, LIST_ENTRIES_MAX).map_err(Failed::Refused)?;
            if listing.holds(&wanted) {
                return Ok(());
            }
            std::thread::sleep(PAUSE);
        }
        Err(Failed::Wrong("a new name was not in a fresh listing for 5 seconds"))
    }

    fn rename(&self) -> Result<(), Failed> {
        rustix::fs::renameat(&self.tmp, self.second.to_string(), &self.tmp, self.third.to_string())
            .map_err(refused(Op::Move, &self.third))?;
        match rustix::fs::statat(&self.tmp, self.second.to_string(), AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => Ok(()),
            Ok(_) => Err(Failed::Wrong("a file that was moved is still at its old name")),
            Err(other) => Err(refused(Op::Move, &self.second)(other)),
        }
    }

    fn sync_dir(&self) -> Result<(), Failed> {
        rustix::fs::fsync(&self.tmp).map_err(refused(Op::Sync, &self.first))
    }

    fn remove(&self) -> Result<(), Failed> {
        rustix::fs::unlinkat(&self.tmp, self.first.to_string(), AtFlags::empty())
            .map_err(refused(Op::Remove, &self.first))
    }
}
