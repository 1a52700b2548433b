//! The share as a directory of this machine.
//!
//! Every operation opens the root and the directories below it anew, each `O_DIRECTORY|O_NOFOLLOW` relative to the one
//! above: a planted symlink redirects nothing, a handle kept over an NFS mount would answer from a cache for half a
//! minute, and a handle kept from before a remount would never see the share again.

mod copy;
mod errno;
mod listing;
mod moves;
mod probe;
mod publish;
mod read;
mod tree;
mod walk;

use std::io;
use std::path::{Path, PathBuf};

use dispatch_core::protocol::names::NodeName;
use rustix::fs::{AtFlags, StatxFlags};

use crate::facts::MountFacts;
use crate::layout::{Dir, File};
use crate::share::{
    Copied, Evidence, Listing, Moved, Op, Part, Published, Removed, SetAside, Share, ShareError, Space,
    Stamp, Stat,
};

use errno::failed;

pub use probe::{Ability, Failed, Tried};
pub use tree::{TreeAccess, create_directories};

/// The share through a directory that this machine mounts.
#[derive(Clone, Debug)]
pub struct PosixShare {
    root: PathBuf,
    node: NodeName,
}

impl PosixShare {
    /// The share at `root`, written in the name of `node`. Nothing is opened yet: a share that is not there now may come.
    #[must_use]
    pub const fn new(root: PathBuf, node: NodeName) -> PosixShare {
        PosixShare { root, node }
    }

    /// Where it is mounted.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The node in whose name half-written files are made.
    #[must_use]
    pub const fn node(&self) -> &NodeName {
        &self.node
    }
}

impl Share for PosixShare {
    fn list(&self, dir: &Dir, limit: usize) -> Result<Listing, ShareError> {
        listing::list(self, dir, limit)
    }

    fn read(&self, file: &File, limit: u64) -> Result<Vec<u8>, ShareError> {
        read::read(self, file, limit)
    }

    fn read_part(&self, file: &File, from: u64, limit: u64) -> Result<Part, ShareError> {
        read::read_part(self, file, from, limit)
    }

    fn stat(&self, file: &File) -> Result<Stat, ShareError> {
        let dir = self.open(&file.dir())?;
        read::stat_at(&dir, &file.name()).map_err(|source| failed(Op::Stat, file.path(), source))
    }

    fn publish_once(&self, file: &File, bytes: &[u8]) -> Result<Published, ShareError> {
        publish::publish_once(self, file, bytes)
    }

    fn publish_many(&self, files: &[(File, Vec<u8>)]) -> Vec<Result<Published, ShareError>> {
        publish::publish_many(self, files)
    }

    fn replace(&self, file: &File, bytes: &[u8]) -> Result<(), ShareError> {
        publish::replace(self, file, bytes)
    }

    fn move_to(&self, from: &File, to: &File) -> Result<Moved, ShareError> {
        moves::move_to(self, from, to)
    }

    fn set_aside(&self, file: &File, by: Evidence) -> Result<SetAside, ShareError> {
        moves::set_aside(self, file, by)
    }

    fn remove(&self, file: &File) -> Result<Removed, ShareError> {
        moves::remove(self, file)
    }

    fn append_own(&self, file: &File, bytes: &[u8]) -> Result<u64, ShareError> {
        copy::append_own(self, file, bytes)
    }

    fn copy_in(&self, file: &File, limit: u64, local: &mut dyn io::Write) -> Result<Copied, ShareError> {
        copy::copy_in(self, file, limit, local)
    }

    fn copy_out(&self, local: &mut dyn io::Read, limit: u64, file: &File) -> Result<Copied, ShareError> {
        copy::copy_out(self, local, limit, file)
    }

    fn mirror(&self, file: &File) -> Result<Box<dyn io::Write + Send>, ShareError> {
        copy::mirror(self, file)
    }

    fn stamp(&self, dir: &Dir) -> Result<Stamp, ShareError> {
        let fd = self.open(dir)?;
        let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_FORCE_SYNC;
        let seen = rustix::fs::statx(&fd, "", flags, StatxFlags::MTIME | StatxFlags::INO)
            .map_err(|source| failed(Op::Ask, dir.path(), source))?;
        let modified_ns = i128::from(seen.stx_mtime.tv_sec)
            .saturating_mul(1_000_000_000)
            .saturating_add(i128::from(seen.stx_mtime.tv_nsec));
        Ok(Stamp { modified_ns, inode: seen.stx_ino })
    }

    fn free_space(&self) -> Result<Space, ShareError> {
        let fd = self.open(&Dir::Root)?;
        let seen = rustix::fs::fstatvfs(&fd).map_err(|source| failed(Op::Ask, PathBuf::new(), source))?;
        Ok(Space {
            total_bytes: seen.f_blocks.saturating_mul(seen.f_frsize),
            free_bytes: seen.f_bavail.saturating_mul(seen.f_frsize),
        })
    }

    fn facts(&self) -> Result<MountFacts, ShareError> {
        let fd = self.open(&Dir::Root)?;
        MountFacts::of_handle(&fd).map_err(|source| failed(Op::Ask, PathBuf::new(), source))
    }
}
