//! One fresh look at a directory.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, FileType, RawDir};

use super::PosixShare;
use super::errno::failed;
use crate::layout::Dir;
use crate::share::{Entry, EntryKind, Listing, ListingEnd, Op, ShareError};

const BUFFER_BYTES: usize = 32 * 1024;

pub(super) fn list(share: &PosixShare, dir: &Dir, limit: usize) -> Result<Listing, ShareError> {
    let fd = share.open(dir)?;
    let mut listing = Listing { entries: Vec::new(), strangers: 0, end: ListingEnd::Reached };
    let mut seen = 0_usize;
    let mut buffer = Vec::with_capacity(BUFFER_BYTES);
    let mut entries = RawDir::new(&fd, buffer.spare_capacity_mut());
    while let Some(entry) = entries.next() {
        let entry = entry.map_err(|source| failed(Op::List, dir.path(), source))?;
        let found = entry.file_name();
        if matches!(found.to_bytes(), b"." | b"..") {
            continue;
        }
        if seen == limit {
            listing.end = ListingEnd::Limit;
            break;
        }
        seen = seen.saturating_add(1);
        let Some(name) = dir.name(OsStr::from_bytes(found.to_bytes())) else {
            listing.strangers = listing.strangers.saturating_add(1);
            continue;
        };
        let kind = match kind_of(entry.file_type()) {
            // Some file systems leave the type to a second question. Gone since then is fine: a listing is a moment.
            EntryKind::Unknown => rustix::fs::statat(&fd, found, AtFlags::SYMLINK_NOFOLLOW)
                .map_or(EntryKind::Unknown, |stat| kind_of(FileType::from_raw_mode(stat.st_mode))),
            kind @ (EntryKind::Regular | EntryKind::Directory | EntryKind::Symlink | EntryKind::Special) => {
                kind
            }
        };
        listing.entries.push(Entry { name, kind });
    }
    Ok(listing)
}

/// The type of an entry in our words.
pub(super) const fn kind_of(found: FileType) -> EntryKind {
    match found {
        FileType::RegularFile => EntryKind::Regular,
        FileType::Directory => EntryKind::Directory,
        FileType::Symlink => EntryKind::Symlink,
        FileType::Fifo | FileType::Socket | FileType::CharacterDevice | FileType::BlockDevice => {
            EntryKind::Special
        }
        FileType::Unknown => EntryKind::Unknown,
    }
}
