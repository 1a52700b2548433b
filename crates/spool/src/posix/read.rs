//! Reading: what may be read is decided by type and size, before the first byte.

use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, OwnedFd};

use dispatch_core::protocol::names::Digest;
use dispatch_core::protocol::time::Timestamp;
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::PosixShare;
use super::errno::failed;
use super::listing::kind_of;
use crate::layout::File;
use crate::share::{EntryKind, ErrorKind, Op, Part, ShareError, Standing, Stat};

/// A file opened for reading, with the size it had.
pub(super) struct Opened {
    pub(super) file: fs::File,
    pub(super) bytes: u64,
}

/// Opens a name afresh, and only if a regular file stands there: neither a symlink nor a FIFO nor a device is touched.
pub(super) fn open_regular(share: &PosixShare, file: &File, op: Op) -> Result<Opened, ShareError> {
    let dir = share.open(&file.dir())?;
    // NONBLOCK: opening a planted FIFO must not wait for its writer.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(&dir, file.name(), flags, Mode::empty())
        .map_err(|source| failed(op, file.path(), source))?;
    let stat = rustix::fs::fstat(&fd).map_err(|source| failed(op, file.path(), source))?;
    let kind = kind_of(FileType::from_raw_mode(stat.st_mode));
    if kind != EntryKind::Regular {
        return Err(ShareError::new(op, file.path(), ErrorKind::NotRegular(kind)));
    }
    Ok(Opened { file: fs::File::from(fd), bytes: u64::try_from(stat.st_size).unwrap_or(0) })
}

/// What an error of the standard library is in our kinds.
pub(super) fn io_failed(op: Op, file: &File, source: io::Error) -> ShareError {
    match source.raw_os_error() {
        Some(number) => failed(op, file.path(), Errno::from_raw_os_error(number)),
        None => ShareError { op, path: file.path(), kind: ErrorKind::Io, source: Some(source) },
    }
}

pub(super) fn read(share: &PosixShare, file: &File, limit: u64) -> Result<Vec<u8>, ShareError> {
    let too_large = |bytes| ShareError::new(Op::Read, file.path(), ErrorKind::TooLarge { bytes, limit });
    let opened = open_regular(share, file, Op::Read)?;
    if opened.bytes > limit {
        return Err(too_large(opened.bytes));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(opened.bytes.saturating_add(1)).unwrap_or(0));
    // One byte more than allowed, so that a file that grew meanwhile is noticed and not cut.
    opened
        .file
        .take(limit.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|source| io_failed(Op::Read, file, source))?;
    let length = length(&bytes);
    if length > limit { Err(too_large(length)) } else { Ok(bytes) }
}

pub(super) fn read_part(share: &PosixShare, file: &File, from: u64, limit: u64) -> Result<Part, ShareError> {
    let failed = |source| io_failed(Op::Read, file, source);
    let mut opened = open_regular(share, file, Op::Read)?;
    opened.file.seek(SeekFrom::Start(from)).map_err(failed)?;
    let mut bytes = Vec::new();
    opened.file.take(limit).read_to_end(&mut bytes).map_err(failed)?;
    Ok(Part { bytes, length: opened.bytes })
}

/// What stands at a name of an open directory.
pub(super) fn stat_at(dir: &OwnedFd, name: &str) -> Result<Stat, Errno> {
    let stat = rustix::fs::statat(dir.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW)?;
    let millis = i64::try_from(stat.st_mtime_nsec).unwrap_or(0) / 1_000_000;
    Ok(Stat {
        kind: kind_of(FileType::from_raw_mode(stat.st_mode)),
        bytes: u64::try_from(stat.st_size).unwrap_or(0),
        modified: Timestamp::from_unix_ms(stat.st_mtime.saturating_mul(1_000).saturating_add(millis)),
        inode: stat.st_ino,
    })
}

/// What I wanted to stand at a name.
pub(super) struct Mine {
    pub(super) bytes: u64,
    pub(super) digest: Digest,
}

impl Mine {
    pub(super) fn of(bytes: &[u8]) -> Mine {
        Mine { bytes: length(bytes), digest: Digest::of(bytes) }
    }
}

/// What stands at a name, compared with what should.
pub(super) enum Found {
    Mine,
    Other(Standing),
    Nothing,
}

/// Opens the final name afresh and compares (protocol section 1, publishing once). A second error on the way is the answer:
/// then nothing is known.
pub(super) fn read_back(share: &PosixShare, file: &File, mine: &Mine) -> Result<Found, ShareError> {
    let opened = match open_regular(share, file, Op::Read) {
        Ok(opened) => opened,
        Err(error) => {
            return match error.kind {
                ErrorKind::Absent => Ok(Found::Nothing),
                ErrorKind::NotRegular(kind) => Ok(Found::Other(Standing::NotRegular(kind))),
                ErrorKind::Denied => Ok(Found::Other(Standing::Unreadable)),
                ErrorKind::Conflict(_)
                | ErrorKind::NoSpace
                | ErrorKind::TooLarge { .. }
                | ErrorKind::Stale
                | ErrorKind::Unreachable
                | ErrorKind::Io => Err(error),
            };
        }
    };
    if opened.bytes > mine.bytes {
        return Ok(Found::Other(Standing::Bytes { bytes: opened.bytes, digest: None }));
    }
    let (bytes, digest) =
        digest_of(opened.file, mine.bytes).map_err(|source| io_failed(Op::Read, file, source))?;
    if bytes == mine.bytes && digest == mine.digest {
        Ok(Found::Mine)
    } else {
        Ok(Found::Other(Standing::Bytes { bytes, digest: Some(digest) }))
    }
}

fn digest_of(file: fs::File, limit: u64) -> io::Result<(u64, Digest)> {
    let mut sink = super::copy::Digesting::new(io::sink());
    let bytes = io::copy(&mut file.take(limit.saturating_add(1)), &mut sink)?;
    Ok((bytes, sink.digest()))
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}
