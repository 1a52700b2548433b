//! Opening directories from the root down.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::PosixShare;
use super::errno::{failed, no_directory};
use crate::layout::{Area, Dir};
use crate::share::{Op, ShareError};

/// How every directory is opened.
pub(super) fn directory_flags() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC
}

impl PosixShare {
    /// Opens a directory of the tree anew, from the root.
    pub(super) fn open(&self, dir: &Dir) -> Result<OwnedFd, ShareError> {
        let mut fd = rustix::fs::open(&self.root, directory_flags(), Mode::empty())
            .map_err(|source| no_directory(PathBuf::new(), source))?;
        let components = dir.components();
        for (depth, component) in (1_usize..).zip(&components) {
            fd = rustix::fs::openat(&fd, component.as_str(), directory_flags(), Mode::empty()).map_err(
                |source| {
                    let path = components.iter().take(depth).collect();
                    match dir {
                        // The archive's months are made when they are needed.
                        Dir::Lane(_, Area::ArchiveMonth(_))
                            if source == Errno::NOENT && depth == components.len() =>
                        {
                            failed(Op::OpenDir, path, source)
                        }
                        Dir::Root
                        | Dir::Tmp
                        | Dir::Heartbeats
                        | Dir::Logs
                        | Dir::Metrics
                        | Dir::Rejected
                        | Dir::Lane(..) => no_directory(path, source),
                    }
                },
            )?;
        }
        Ok(fd)
    }

    /// Opens a directory into which something is moved, making it if it is a month of the archive.
    pub(super) fn open_target(&self, dir: &Dir) -> Result<OwnedFd, ShareError> {
        if let Dir::Lane(lane, Area::ArchiveMonth(month)) = dir {
            let archive = self.open(&Dir::lane(lane, Area::Archive))?;
            match rustix::fs::mkdirat(&archive, month.to_string(), Mode::RWXU) {
                Ok(()) => {
                    let mode =
                        mode_of(&archive).map_err(|source| failed(Op::CreateDir, dir.path(), source))?;
                    let month = self.open(dir)?;
                    rustix::fs::fchmod(&month, mode)
                        .and_then(|()| rustix::fs::fsync(&archive))
                        .map_err(|source| failed(Op::CreateDir, dir.path(), source))?;
                }
                Err(Errno::EXIST) => {}
                Err(source) => return Err(failed(Op::CreateDir, dir.path(), source)),
            }
        }
        self.open(dir)
    }
}

/// The permissions of an open file or directory.
pub(super) fn mode_of(fd: &OwnedFd) -> Result<Mode, Errno> {
    Ok(Mode::from_raw_mode(rustix::fs::fstat(fd)?.st_mode & 0o7777))
}

/// The permissions of a new file in a directory: its owner's, and to read for whom the directory lets read.
pub(super) fn file_mode(directory: Mode) -> Mode {
    Mode::RUSR | Mode::WUSR | (directory & (Mode::RGRP | Mode::ROTH))
}
