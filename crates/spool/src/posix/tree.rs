//! Creating the tree, and removing what somebody planted as one.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use dispatch_core::protocol::names::Lane;
use rustix::fs::{AtFlags, Mode, RawDir};
use rustix::io::Errno;

use super::errno::{failed, no_directory};
use super::walk::directory_flags;
use crate::layout::{Dir, LANE_AREAS, ROOT_DIRS};
use crate::share::{Op, ShareError};

/// Who may use the tree, besides what the mount itself allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TreeAccess {
    /// One user, on both sides: 0700.
    Owner,
    /// A group: 2770, so that what is made in it belongs to the group.
    Group,
}

impl TreeAccess {
    const fn mode(self) -> Mode {
        match self {
            TreeAccess::Owner => Mode::RWXU,
            TreeAccess::Group => Mode::RWXU.union(Mode::RWXG).union(Mode::SGID),
        }
    }
}

/// Creates what is missing of the root, its directories and those of the lanes, and syncs them. What is there keeps its
/// permissions. Only `init` may call this: a missing directory means an unreachable share to everybody else.
///
/// # Errors
/// A directory that cannot be made, or something else at its name.
pub fn create_directories(root: &Path, lanes: &[Lane], access: TreeAccess) -> Result<(), ShareError> {
    match rustix::fs::mkdir(root, Mode::RWXU) {
        Ok(()) => rustix::fs::chmod(root, access.mode())
            .map_err(|source| failed(Op::CreateDir, PathBuf::new(), source))?,
        Err(Errno::EXIST) => {}
        Err(source) => return Err(failed(Op::CreateDir, PathBuf::new(), source)),
    }
    let root = rustix::fs::open(root, directory_flags(), Mode::empty())
        .map_err(|source| no_directory(PathBuf::new(), source))?;
    for dir in &ROOT_DIRS {
        create(&root, dir, access)?;
    }
    for lane in lanes {
        for area in LANE_AREAS {
            create(&root, &Dir::lane(lane, area), access)?;
        }
    }
    rustix::fs::fsync(&root).map_err(|source| failed(Op::Sync, PathBuf::new(), source))
}

/// Creates one directory in its parent, which was created before.
fn create(root: &OwnedFd, dir: &Dir, access: TreeAccess) -> Result<(), ShareError> {
    let failed = |source| failed(Op::CreateDir, dir.path(), source);
    let components = dir.components();
    let Some((name, parents)) = components.split_last() else { return Ok(()) };
    let mut parent = root.try_clone().map_err(|source| ShareError {
        op: Op::CreateDir,
        path: dir.path(),
        kind: crate::share::ErrorKind::Io,
        source: Some(source),
    })?;
    for component in parents {
        parent = open_in(&parent, component).map_err(|source| no_directory(dir.path(), source))?;
    }
    match rustix::fs::mkdirat(&parent, name.as_str(), Mode::RWXU) {
        Ok(()) => {
            let made = open_in(&parent, name).map_err(|source| no_directory(dir.path(), source))?;
            rustix::fs::fchmod(&made, access.mode()).map_err(failed)?;
            rustix::fs::fsync(&parent).map_err(failed)
        }
        Err(Errno::EXIST) => {
            open_in(&parent, name).map(drop).map_err(|source| no_directory(dir.path(), source))
        }
        Err(source) => Err(failed(source)),
    }
}

fn open_in(parent: impl AsFd, name: &str) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(parent, name, directory_flags(), Mode::empty())
}

/// How many entries of planted evidence are removed in one call; more of them wait for the next.
const REMOVED_MAX: usize = 100_000;
/// How deep planted evidence is followed.
const DEPTH_MAX: usize = 64;

/// Removes a directory that was set aside, with what is in it, following nothing.
pub(super) fn remove_tree(parent: &OwnedFd, name: &str) -> Result<(), Errno> {
    let mut left = REMOVED_MAX;
    remove_below(parent, name.as_bytes(), DEPTH_MAX, &mut left)
}

fn remove_below(parent: &OwnedFd, name: &[u8], depth: usize, left: &mut usize) -> Result<(), Errno> {
    let (Some(depth), Some(fewer)) = (depth.checked_sub(1), left.checked_sub(1)) else {
        return Err(Errno::TOOBIG);
    };
    *left = fewer;
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => {}
        other => return other,
    }
    let dir = rustix::fs::openat(parent, name, directory_flags(), Mode::empty())?;
    let mut names: Vec<Vec<u8>> = Vec::new();
    let mut buffer = Vec::with_capacity(8 * 1024);
    let mut entries = RawDir::new(&dir, buffer.spare_capacity_mut());
    while let Some(entry) = entries.next() {
        let name = entry?.file_name().to_bytes().to_vec();
        if !matches!(name.as_slice(), b"." | b"..") && names.len() < *left {
            names.push(name);
        }
    }
    for name in &names {
        remove_below(&dir, name, depth, left)?;
    }
    rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)
}
