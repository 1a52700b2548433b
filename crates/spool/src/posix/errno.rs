//! From what the kernel says to a kind of error.

use std::path::PathBuf;

use rustix::io::Errno;

use crate::share::{EntryKind, ErrorKind, Op, ShareError};

/// An operation on a file failed.
pub(super) fn failed(op: Op, path: PathBuf, source: Errno) -> ShareError {
    let kind = match source {
        Errno::NOENT => ErrorKind::Absent,
        Errno::LOOP => ErrorKind::NotRegular(EntryKind::Symlink),
        Errno::ISDIR => ErrorKind::NotRegular(EntryKind::Directory),
        // What opening a FIFO for writing without a reader, or a socket, says.
        Errno::NXIO => ErrorKind::NotRegular(EntryKind::Special),
        other => common(other),
    };
    ShareError { op, path, kind, source: Some(source.into()) }
}

/// Opening a directory failed. Those of the tree are always there, unless the share is not.
pub(super) fn no_directory(path: PathBuf, source: Errno) -> ShareError {
    let kind = match source {
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP => ErrorKind::Unreachable,
        other => common(other),
    };
    ShareError { op: Op::OpenDir, path, kind, source: Some(source.into()) }
}

const fn common(source: Errno) -> ErrorKind {
    match source {
        Errno::ACCESS | Errno::PERM | Errno::ROFS => ErrorKind::Denied,
        Errno::NOSPC | Errno::DQUOT => ErrorKind::NoSpace,
        Errno::STALE => ErrorKind::Stale,
        Errno::NOTCONN
        | Errno::TIMEDOUT
        | Errno::HOSTDOWN
        | Errno::HOSTUNREACH
        | Errno::NETDOWN
        | Errno::NETUNREACH
        | Errno::CONNREFUSED
        | Errno::CONNRESET
        | Errno::CONNABORTED
        | Errno::NODEV => ErrorKind::Unreachable,
        _ => ErrorKind::Io,
    }
}
