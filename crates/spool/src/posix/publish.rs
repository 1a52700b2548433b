//! Making a file visible, whole and lasting (protocol section 1).
//!
//! A `link` or `rename` over NFS may report failure after it succeeded, so every answer but plain success is checked by
//! opening the final name afresh. A message counts only after its directory is synced, so that is never skipped either.

use std::fs;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::PosixShare;
use super::errno::failed;
use super::read::{Found, Mine, io_failed, read_back};
use super::walk::{file_mode, mode_of};
use crate::layout::{Dir, File, Hex16, TmpName};
use crate::share::{EntryKind, ErrorKind, Op, Published, ShareError, Standing};

/// The two directories of one publication.
pub(super) struct Slot {
    dir: Dir,
    target: OwnedFd,
    tmp: OwnedFd,
    mode: Mode,
}

impl Slot {
    pub(super) fn open(share: &PosixShare, dir: Dir) -> Result<Slot, ShareError> {
        let target = share.open(&dir)?;
        let tmp = share.open(&dir.tmp())?;
        let mode = mode_of(&target).map_err(|source| failed(Op::Publish, dir.path(), source))?;
        Ok(Slot { dir, target, tmp, mode: file_mode(mode) })
    }

    pub(super) fn sync(&self) -> Result<(), ShareError> {
        rustix::fs::fsync(&self.target).map_err(|source| failed(Op::Sync, self.dir.path(), source))
    }

    /// A new file in `tmp/`; its bytes are synced by [`Half::finish`].
    pub(super) fn begin(&self, share: &PosixShare, file: &File, op: Op) -> Result<Half<'_>, ShareError> {
        let name = tmp_name(share, file);
        let path = self.dir.tmp().path().join(&name);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.tmp, name.as_str(), flags, self.mode)
            .map_err(|source| failed(op, path.clone(), source))?;
        let half = Half { slot: self, name, path, file: fs::File::from(fd) };
        if !(self.mode & (Mode::RGRP | Mode::ROTH)).is_empty() {
            // The umask may have taken what the directory's readers need.
            rustix::fs::fchmod(&half.file, self.mode)
                .map_err(|source| failed(op, half.path.clone(), source))?;
        }
        Ok(half)
    }
}

/// A half-written file. It goes when this goes, so that no error on the way leaves one behind.
pub(super) struct Half<'slot> {
    slot: &'slot Slot,
    name: String,
    path: PathBuf,
    pub(super) file: fs::File,
}

impl Drop for Half<'_> {
    fn drop(&mut self) {
        // It may be gone already, after a rename; what stays is removed a day later.
        rustix::fs::unlinkat(&self.slot.tmp, self.name.as_str(), AtFlags::empty()).unwrap_or_default();
    }
}

impl Half<'_> {
    pub(super) fn sync(&self, op: Op) -> Result<(), ShareError> {
        rustix::fs::fsync(&self.file).map_err(|source| failed(op, self.path.clone(), source))
    }

    fn link(self, file: &File) -> Result<(), ShareError> {
        let slot = self.slot;
        rustix::fs::linkat(&slot.tmp, self.name.as_str(), &slot.target, file.name(), AtFlags::empty())
            .map_err(|source| match source {
                Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS => ShareError {
                    op: Op::Link,
                    path: file.path(),
                    kind: ErrorKind::Denied,
                    source: Some(source.into()),
                },
                other => failed(Op::Publish, file.path(), other),
            })
    }

    pub(super) fn rename(self, file: &File, op: Op) -> Result<(), ShareError> {
        let slot = self.slot;
        rustix::fs::renameat(&slot.tmp, self.name.as_str(), &slot.target, file.name()).map_err(|source| {
            match source {
                Errno::ISDIR | Errno::NOTEMPTY | Errno::EXIST => {
                    let standing = Standing::NotRegular(EntryKind::Directory);
                    let kind = ErrorKind::Conflict(standing);
                    ShareError { op, path: file.path(), kind, source: Some(source.into()) }
                }
                other => failed(op, file.path(), other),
            }
        })
    }
}

fn tmp_name(share: &PosixShare, file: &File) -> String {
    let mut random = [0_u8; 8];
    // Without randomness the name may be taken: O_EXCL says so then, nothing worse.
    let random = getrandom::fill(&mut random).map_or(0, |()| u64::from_be_bytes(random));
    let random = Hex16::from_number(random);
    TmpName { of: file.name(), node: share.node().clone(), pid: std::process::id(), random }.to_string()
}

fn write(share: &PosixShare, slot: &Slot, file: &File, bytes: &[u8], op: Op) -> Result<(), ShareError> {
    let mut half = slot.begin(share, file, op)?;
    half.file.write_all(bytes).map_err(|source| io_failed(op, file, source))?;
    half.sync(op)?;
    if op == Op::Publish { half.link(file) } else { half.rename(file, op) }
}

/// What an error of publishing turned out to be.
fn judge(share: &PosixShare, file: &File, bytes: &[u8], error: ShareError) -> Result<Published, ShareError> {
    match read_back(share, file, &Mine::of(bytes)) {
        Ok(Found::Mine) => Ok(Published::AlreadyPresent),
        Ok(Found::Other(standing)) => {
            let kind = ErrorKind::Conflict(standing);
            Err(ShareError { op: Op::Publish, path: file.path(), kind, source: error.source })
        }
        // Nothing is there, or nothing is known: the first error says more.
        Ok(Found::Nothing) | Err(_) => Err(error),
    }
}

fn place(share: &PosixShare, slot: &Slot, file: &File, bytes: &[u8]) -> Result<Published, ShareError> {
    match write(share, slot, file, bytes, Op::Publish) {
        Ok(()) => Ok(Published::Created),
        Err(error) => judge(share, file, bytes, error),
    }
}

pub(super) fn publish_once(share: &PosixShare, file: &File, bytes: &[u8]) -> Result<Published, ShareError> {
    let slot = Slot::open(share, file.dir())?;
    let published = place(share, &slot, file, bytes)?;
    slot.sync()?;
    Ok(published)
}

pub(super) fn publish_many(
    share: &PosixShare,
    files: &[(File, Vec<u8>)],
) -> Vec<Result<Published, ShareError>> {
    let mut slots: Vec<Slot> = Vec::new();
    let mut answers = Vec::with_capacity(files.len());
    for (file, bytes) in files {
        let dir = file.dir();
        let answer = match slots.iter().find(|slot| slot.dir == dir) {
            Some(slot) => place(share, slot, file, bytes),
            None => Slot::open(share, dir).and_then(|slot| {
                let answer = place(share, &slot, file, bytes);
                slots.push(slot);
                answer
            }),
        };
        answers.push(answer);
    }
    for slot in slots {
        if slot.sync().is_ok() {
            continue;
        }
        for ((file, _), answer) in files.iter().zip(&mut answers) {
            if answer.is_ok() && file.dir() == slot.dir {
                // Asked again for each: an error says its own file, and the second sync may well succeed.
                *answer = answer_after_sync(&slot, answer);
            }
        }
    }
    answers
}

fn answer_after_sync(slot: &Slot, answer: &Result<Published, ShareError>) -> Result<Published, ShareError> {
    slot.sync()?;
    Ok(answer.as_ref().copied().unwrap_or(Published::AlreadyPresent))
}

pub(super) fn replace(share: &PosixShare, file: &File, bytes: &[u8]) -> Result<(), ShareError> {
    let slot = Slot::open(share, file.dir())?;
    if let Err(error) = write(share, &slot, file, bytes, Op::Replace) {
        match read_back(share, file, &Mine::of(bytes)) {
            Ok(Found::Mine) => {}
            Ok(Found::Other(_) | Found::Nothing) | Err(_) => return Err(error),
        }
    }
    slot.sync()
}
