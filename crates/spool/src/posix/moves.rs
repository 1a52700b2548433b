//! Moving and removing. The recipient owns what lies in a lane; these are the only ways anything leaves its place.

use std::os::fd::{AsRawFd, OwnedFd};

use dispatch_core::protocol::names::Digest;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::PosixShare;
use super::errno::failed;
use super::read::stat_at;
use super::tree::remove_tree;
use crate::layout::{EvidencePart, File, Hex16, LaneFile};
use crate::share::{
    EntryKind, ErrorKind, Evidence, Moved, Op, Removed, SetAside, ShareError, Standing, Stat,
};

/// What stands at a file's name now, seen through directories opened anew.
fn look(share: &PosixShare, file: &File, op: Op) -> Result<Option<Stat>, ShareError> {
    let dir = match share.open(&file.dir()) {
        Err(error) if error.kind == ErrorKind::Absent => return Ok(None),
        other => other?,
    };
    match stat_at(&dir, &file.name()) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(source) => Err(failed(op, file.path(), source)),
    }
}

fn sync_both(from: &OwnedFd, to: &OwnedFd, file: &File) -> Result<(), ShareError> {
    rustix::fs::fsync(to)
        .and_then(|()| rustix::fs::fsync(from))
        .map_err(|source| failed(Op::Sync, file.path(), source))
}

pub(super) fn move_to(share: &PosixShare, from: &File, to: &File) -> Result<Moved, ShareError> {
    let Some(moving) = look(share, from, Op::Move)? else { return Ok(Moved::Absent) };
    let source = share.open(&from.dir())?;
    let target = share.open_target(&to.dir())?;
    if let Some(standing) = look(share, to, Op::Move)? {
        let standing = match standing.kind {
            EntryKind::Regular => Standing::Bytes { bytes: standing.bytes, digest: None },
            kind @ (EntryKind::Directory | EntryKind::Symlink | EntryKind::Special | EntryKind::Unknown) => {
                Standing::NotRegular(kind)
            }
        };
        return Err(ShareError::new(Op::Move, to.path(), ErrorKind::Conflict(standing)));
    }
    if let Err(error) = rustix::fs::renameat(&source, from.name(), &target, to.name()) {
        match happened(share, from, to, &moving)? {
            Happened::Yes => {}
            Happened::Gone => return Ok(Moved::Absent),
            Happened::No => return Err(failed(Op::Move, from.path(), error)),
        }
    }
    sync_both(&source, &target, to)?;
    Ok(Moved::Moved)
}

enum Happened {
    Yes,
    No,
    Gone,
}

/// Whether a rename that reported failure took place: the reply may have been lost, not the request.
fn happened(share: &PosixShare, from: &File, to: &File, moving: &Stat) -> Result<Happened, ShareError> {
    if look(share, from, Op::Move)?.is_some() {
        return Ok(Happened::No);
    }
    // No inode number: some servers give a file a new one with its new name.
    let same = |there: Stat| there.kind == moving.kind && there.bytes == moving.bytes;
    Ok(if look(share, to, Op::Move)?.is_some_and(same) { Happened::Yes } else { Happened::Gone })
}

pub(super) fn set_aside(share: &PosixShare, file: &File, by: Evidence) -> Result<SetAside, ShareError> {
    let Some(standing) = look(share, file, Op::SetAside)? else { return Ok(SetAside::Absent) };
    let digest16 = match by {
        Evidence::Bytes(digest) => Hex16::of(&digest),
        Evidence::Unread => unread(file, &standing),
    };
    // A second name, in case somebody planted a directory at the first, which can be foretold.
    let mut random = [0_u8; 8];
    let second = getrandom::fill(&mut random).map_or(0, |()| u64::from_be_bytes(random));
    let denied = || ShareError::new(Op::SetAside, file.path(), ErrorKind::Denied);
    let mut last = None;
    for digest16 in [digest16, Hex16::from_number(second)] {
        let evidence = file.evidence(digest16).ok_or_else(denied)?;
        match rename_any(share, file, &evidence, &standing) {
            Ok(Moved::Moved) => return Ok(SetAside::Moved { evidence }),
            Ok(Moved::Absent) => return Ok(SetAside::Absent),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(denied))
}

fn rename_any(share: &PosixShare, from: &File, to: &File, moving: &Stat) -> Result<Moved, ShareError> {
    let source = share.open(&from.dir())?;
    let target = share.open(&to.dir())?;
    let rename = || rustix::fs::renameat(&source, from.name(), &target, to.name());
    let renamed = match rename() {
        // Moving a directory writes its `..`, which one planted without permissions forbids even to its owner.
        Err(Errno::ACCESS) if moving.kind == EntryKind::Directory => {
            open_up(&source, from).and_then(|()| rename())
        }
        other => other,
    };
    if let Err(error) = renamed {
        match happened(share, from, to, moving)? {
            Happened::Yes => {}
            Happened::Gone => return Ok(Moved::Absent),
            Happened::No => return Err(failed(Op::SetAside, from.path(), error)),
        }
    }
    sync_both(&source, &target, to)?;
    Ok(Moved::Moved)
}

/// Gives the owner of a planted directory its rights back, through a handle that cannot be a symlink.
fn open_up(parent: &OwnedFd, file: &File) -> Result<(), Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(parent, file.name(), flags, Mode::empty())?;
    rustix::fs::chmod(format!("/proc/self/fd/{}", fd.as_raw_fd()), Mode::RWXU)
}

/// `digest16` of what was not read (protocol section 4).
fn unread(file: &File, standing: &Stat) -> Hex16 {
    let Stat { kind, bytes, modified, inode } = standing;
    Hex16::of(&Digest::of(format!("{} {kind:?} {bytes} {modified} {inode}", file.name()).as_bytes()))
}

pub(super) fn remove(share: &PosixShare, file: &File) -> Result<Removed, ShareError> {
    let dir = match share.open(&file.dir()) {
        Err(error) if error.kind == ErrorKind::Absent => return Ok(Removed::Absent),
        other => other?,
    };
    match rustix::fs::unlinkat(&dir, file.name(), AtFlags::empty()) {
        Ok(()) => Ok(Removed::Removed),
        Err(Errno::NOENT) => Ok(Removed::Absent),
        Err(Errno::ISDIR) if is_evidence(file) => {
            remove_tree(&dir, &file.name()).map_err(|source| failed(Op::Remove, file.path(), source))?;
            Ok(Removed::Removed)
        }
        Err(source) => Err(failed(Op::Remove, file.path(), source)),
    }
}

/// Evidence may be a directory that somebody planted and filled.
const fn is_evidence(file: &File) -> bool {
    matches!(
        file,
        File::Evidence { part: EvidencePart::Itself, .. }
            | File::Lane(_, LaneFile::Evidence { part: EvidencePart::Itself, .. })
    )
}
