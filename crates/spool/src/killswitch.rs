//! The killswitches (protocol section 8): present in any form means tripped, and what can be read of it says why.

use std::fs::OpenOptions;
use std::io::{ErrorKind as IoErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;

use crate::layout::File;
use crate::share::{EntryKind, Share};

/// How much of a killswitch's text is read, whatever its size.
pub const KILLSWITCH_BYTES_MAX: u64 = 4 * 1024;

/// What a tripped killswitch asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TripMode {
    /// Nothing new starts; what runs finishes.
    Halt,
    /// What runs is ended too.
    Kill,
}

/// A tripped killswitch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trip {
    /// What it asks for.
    pub mode: TripMode,
    /// The first line of its text after the word `kill`; empty when it says nothing. Written by anybody who can write
    /// the share: make it visible before showing it.
    pub reason: String,
}

impl Trip {
    /// Reads a killswitch's text. Invalid UTF-8 is replaced: no text makes it any less a killswitch.
    #[must_use]
    pub fn from_text(bytes: &[u8]) -> Trip {
        let text = String::from_utf8_lossy(bytes);
        let mut lines = text.lines().map(str::trim).peekable();
        let mode = if lines.next_if_eq(&"kill").is_some() { TripMode::Kill } else { TripMode::Halt };
        Trip { mode, reason: lines.next().unwrap_or_default().to_owned() }
    }

    /// One whose text cannot be read: a directory, a symlink, a FIFO, a file without permission.
    #[must_use]
    pub fn unreadable() -> Trip {
        Trip { mode: TripMode::Halt, reason: "present, but not a file that can be read".to_owned() }
    }
}

/// The trip of a killswitch that a fresh listing of the share has found.
#[must_use]
pub fn of_entry(share: &dyn Share, file: &File, kind: EntryKind) -> Trip {
    match kind {
        EntryKind::Regular | EntryKind::Unknown => share
            .read_part(file, 0, KILLSWITCH_BYTES_MAX)
            .map_or_else(|_| Trip::unreadable(), |part| Trip::from_text(&part.bytes)),
        EntryKind::Directory | EntryKind::Symlink | EntryKind::Special => Trip::unreadable(),
    }
}

/// Looks at a killswitch on the node's own disk. `None` only where there is certainly nothing.
#[must_use]
pub fn local(path: &Path) -> Option<Trip> {
    let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits()).unwrap_or(0);
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == IoErrorKind::NotFound => return None,
        Err(_) => return Some(Trip::unreadable()),
    };
    if !file.metadata().is_ok_and(|found| found.is_file()) {
        return Some(Trip::unreadable());
    }
    let mut bytes = Vec::new();
    let read = file.take(KILLSWITCH_BYTES_MAX).read_to_end(&mut bytes);
    Some(read.map_or_else(|_| Trip::unreadable(), |_| Trip::from_text(&bytes)))
}
