//! Longer files: copied with their digest, appended to, mirrored.

use std::fs;
use std::io::{self, Read, Write};

use dispatch_core::protocol::names::Digest;
use rustix::fs::{FileType, OFlags};
use sha2::{Digest as _, Sha256};

use super::PosixShare;
use super::errno::failed;
use super::listing::kind_of;
use super::publish::Slot;
use super::read::{Found, Mine, io_failed, open_regular, read_back};
use super::walk::{file_mode, mode_of};
use crate::layout::File;
use crate::share::{Copied, EntryKind, ErrorKind, Op, ShareError};

const BUFFER_BYTES: usize = 64 * 1024;

/// A writer that digests what passes.
pub(super) struct Digesting<W> {
    inner: W,
    hasher: Sha256,
}

impl<W> Digesting<W> {
    pub(super) fn new(inner: W) -> Digesting<W> {
        Digesting { inner, hasher: Sha256::new() }
    }

    pub(super) fn digest(self) -> Digest {
        Digest::from_bytes(self.hasher.finalize().into())
    }
}

impl<W: Write> Write for Digesting<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hasher.update(bytes.get(..written).unwrap_or(bytes));
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Which side of a copy failed.
enum CopyFailed {
    Reading(io::Error),
    Writing(io::Error),
    TooLarge(u64),
}

fn copy(from: &mut dyn Read, limit: u64, to: &mut dyn Write) -> Result<Copied, CopyFailed> {
    let mut to = Digesting::new(to);
    let mut buffer = vec![0_u8; BUFFER_BYTES];
    let mut total = 0_u64;
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(CopyFailed::Reading(error)),
        };
        total = total.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
        if total > limit {
            return Err(CopyFailed::TooLarge(total));
        }
        to.write_all(buffer.get(..count).unwrap_or_default()).map_err(CopyFailed::Writing)?;
    }
    Ok(Copied { bytes: total, digest: to.digest() })
}

fn too_large(op: Op, file: &File, bytes: u64, limit: u64) -> ShareError {
    ShareError::new(op, file.path(), ErrorKind::TooLarge { bytes, limit })
}

pub(super) fn copy_in(
    share: &PosixShare,
    file: &File,
    limit: u64,
    local: &mut dyn Write,
) -> Result<Copied, ShareError> {
    let mut opened = open_regular(share, file, Op::CopyIn)?;
    if opened.bytes > limit {
        return Err(too_large(Op::CopyIn, file, opened.bytes, limit));
    }
    copy(&mut opened.file, limit, local).map_err(|error| match error {
        CopyFailed::Reading(source) => io_failed(Op::CopyIn, file, source),
        CopyFailed::Writing(source) => io_failed(Op::WriteLocal, file, source),
        CopyFailed::TooLarge(bytes) => too_large(Op::CopyIn, file, bytes, limit),
    })
}

pub(super) fn copy_out(
    share: &PosixShare,
    local: &mut dyn Read,
    limit: u64,
    file: &File,
) -> Result<Copied, ShareError> {
    let op = Op::CopyOut;
    let slot = Slot::open(share, file.dir())?;
    let mut half = slot.begin(share, file, op)?;
    let copied = copy(local, limit, &mut half.file).map_err(|error| match error {
        CopyFailed::Reading(source) => io_failed(Op::ReadLocal, file, source),
        CopyFailed::Writing(source) => io_failed(op, file, source),
        CopyFailed::TooLarge(bytes) => too_large(op, file, bytes, limit),
    })?;
    half.sync(op)?;
    if let Err(error) = half.rename(file, op) {
        let mine = Mine { bytes: copied.bytes, digest: copied.digest };
        match read_back(share, file, &mine) {
            Ok(Found::Mine) => {}
            Ok(Found::Other(_) | Found::Nothing) | Err(_) => return Err(error),
        }
    }
    slot.sync()?;
    Ok(copied)
}

/// Opens a file of this node's own at its end, making it if need be.
fn open_end(share: &PosixShare, file: &File, op: Op) -> Result<fs::File, ShareError> {
    let failed = |source| failed(op, file.path(), source);
    let dir = share.open(&file.dir())?;
    let mode = file_mode(mode_of(&dir).map_err(failed)?);
    // NONBLOCK: opening a planted FIFO must not wait for its reader.
    let flags = OFlags::WRONLY
        | OFlags::APPEND
        | OFlags::CREATE
        | OFlags::NOFOLLOW
        | OFlags::NONBLOCK
        | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(&dir, file.name(), flags, mode).map_err(failed)?;
    let kind = kind_of(FileType::from_raw_mode(rustix::fs::fstat(&fd).map_err(failed)?.st_mode));
    if kind != EntryKind::Regular {
        return Err(ShareError::new(op, file.path(), ErrorKind::NotRegular(kind)));
    }
    Ok(fs::File::from(fd))
}

pub(super) fn append_own(share: &PosixShare, file: &File, bytes: &[u8]) -> Result<u64, ShareError> {
    let failed = |source| io_failed(Op::Append, file, source);
    let mut end = open_end(share, file, Op::Append)?;
    end.write_all(bytes).map_err(failed)?;
    end.metadata().map(|now| now.len()).map_err(failed)
}

pub(super) fn mirror(share: &PosixShare, file: &File) -> Result<Box<dyn Write + Send>, ShareError> {
    Ok(Box::new(open_end(share, file, Op::Mirror)?))
}
