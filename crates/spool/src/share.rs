//! What a node can do with the share, and how it fails: the trait that the directory and its simulation both are.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use dispatch_core::protocol::names::Digest;
use dispatch_core::protocol::time::Timestamp;

use crate::facts::MountFacts;
use crate::layout::{Dir, File, Name};

/// The share, as one node sees it. Every call may block for as long as a mount may hang; the caller keeps deadlines.
///
/// # Errors
/// Every operation fails with a [`ShareError`] only. [`ErrorKind::Absent`] means that a directory which is there does not
/// hold the file; a directory that is not there is [`ErrorKind::Unreachable`], because only `init` creates directories.
#[expect(clippy::missing_errors_doc, reason = "said once, above, for all operations")]
pub trait Share: Send + Sync {
    /// Opens the directory anew and reads at most `limit` of its entries.
    fn list(&self, dir: &Dir, limit: usize) -> Result<Listing, ShareError>;

    /// Reads a regular file of at most `limit` bytes; a larger one is refused by its size, unread.
    fn read(&self, file: &File, limit: u64) -> Result<Vec<u8>, ShareError>;

    /// Reads at most `limit` bytes of a regular file from byte `from` on, whatever its size.
    fn read_part(&self, file: &File, from: u64, limit: u64) -> Result<Part, ShareError>;

    /// What stands at a name, without opening it.
    fn stat(&self, file: &File) -> Result<Stat, ShareError>;

    /// Publishes a file that is written once (protocol section 1). Whatever went wrong on the way, and whoever else was
    /// faster: my bytes at the final name are [`Published::AlreadyPresent`], anything else there is
    /// [`ErrorKind::Conflict`], which says what stands there.
    fn publish_once(&self, file: &File, bytes: &[u8]) -> Result<Published, ShareError>;

    /// Publishes several files as [`Share::publish_once`] does, syncing each directory once, at the end. The answers are in
    /// the order of the files. What a message means only counts after this has returned, as with a single one.
    fn publish_many(&self, files: &[(File, Vec<u8>)]) -> Vec<Result<Published, ShareError>> {
        files.iter().map(|(file, bytes)| self.publish_once(file, bytes)).collect()
    }

    /// Publishes a file in place of an older version of it.
    fn replace(&self, file: &File, bytes: &[u8]) -> Result<(), ShareError>;

    /// Moves a file to another name of the tree, where nothing may stand.
    fn move_to(&self, from: &File, to: &File) -> Result<Moved, ShareError>;

    /// Moves whatever stands at a name, of whatever type, to the evidence. The caller publishes the reason beside it
    /// ([`File::reason`] of the answer).
    fn set_aside(&self, file: &File, by: Evidence) -> Result<SetAside, ShareError>;

    /// Removes a file. Not synced: what comes back after a crash is removed again.
    fn remove(&self, file: &File) -> Result<Removed, ShareError>;

    /// Appends to a file that only this node writes and answers its length after that. Not synced: these are copies.
    fn append_own(&self, file: &File, bytes: &[u8]) -> Result<u64, ShareError>;

    /// Copies a regular file of at most `limit` bytes into a local one, digesting it on the way.
    fn copy_in(&self, file: &File, limit: u64, local: &mut dyn io::Write) -> Result<Copied, ShareError>;

    /// Copies at most `limit` bytes of a local file to the share, replacing what was there, digesting them on the way.
    fn copy_out(&self, local: &mut dyn io::Read, limit: u64, file: &File) -> Result<Copied, ShareError>;

    /// A writer at the end of a file, through which a log is mirrored as it comes.
    fn mirror(&self, file: &File) -> Result<Box<dyn io::Write + Send>, ShareError>;

    /// The directory's modification time, asked of the server and not of a cache.
    fn stamp(&self, dir: &Dir) -> Result<Stamp, ShareError>;

    /// How much room the share has.
    fn free_space(&self) -> Result<Space, ShareError>;

    /// What kind of mount the share is on.
    fn facts(&self) -> Result<MountFacts, ShareError>;
}

/// What one look at a directory found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// The names of the directory's closed list, in the directory's own order.
    pub entries: Vec<Entry>,
    /// How many entries were of no name of that list.
    pub strangers: usize,
    /// Whether there was more.
    pub end: ListingEnd,
}

/// How a listing ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListingEnd {
    /// The directory was read to its end.
    Reached,
    /// The limit came first.
    Limit,
}

/// One entry of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: Name,
    /// What it is; anybody may have put something else at a known name.
    pub kind: EntryKind,
}

impl Listing {
    /// The files of the listing with what stands there, whatever its type.
    pub fn files(&self) -> impl Iterator<Item = (&File, EntryKind)> {
        self.entries.iter().filter_map(|entry| match &entry.name {
            Name::File(file) => Some((file, entry.kind)),
            Name::Dir(_) => None,
        })
    }

    /// True when the listing holds this file's name, whatever stands there.
    #[must_use]
    pub fn holds(&self, file: &File) -> bool {
        self.files().any(|(found, _)| found == file)
    }
}

/// The type of a directory entry, not followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A FIFO, socket or device.
    Special,
    /// The file system did not say.
    Unknown,
}

/// What stands at a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Its type.
    pub kind: EntryKind,
    /// Its size in bytes.
    pub bytes: u64,
    /// When it was last written, by the clock of whoever serves the file.
    pub modified: Timestamp,
    /// Its inode number.
    pub inode: u64,
}

/// A part of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The bytes from where it was asked for; fewer than asked for at the end of the file.
    pub bytes: Vec<u8>,
    /// How long the file was when it was opened.
    pub length: u64,
}

/// How publishing went well.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Published {
    /// This call made the file.
    Created,
    /// The same bytes stood there, or stand there after a call that seemed to fail.
    AlreadyPresent,
}

/// What moving did.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moved {
    /// The file is at its new name.
    Moved,
    /// There was nothing to move.
    Absent,
}

/// By what a piece of evidence is named (protocol section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// By its bytes, which were read.
    Bytes(Digest),
    /// By name, type, size, modification time and inode: it could not or should not be read.
    Unread,
}

/// What setting aside did.
#[must_use]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetAside {
    /// It is there now.
    Moved {
        /// Where.
        evidence: File,
    },
    /// There was nothing to set aside.
    Absent,
}

/// What removing did.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removed {
    /// This call removed it.
    Removed,
    /// It was not there.
    Absent,
}

/// What was copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copied {
    /// How many bytes.
    pub bytes: u64,
    /// Their digest.
    pub digest: Digest,
}

/// When a directory changed last, for telling "the same" from "changed", nothing more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Modification time, nanoseconds since 1970.
    pub modified_ns: i128,
    /// Inode number.
    pub inode: u64,
}

/// Room on the share, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// All there is.
    pub total_bytes: u64,
    /// What this user may still fill.
    pub free_bytes: u64,
}

/// The operation that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// Opening a directory on the way.
    OpenDir,
    /// Listing a directory.
    List,
    /// Reading a file.
    Read,
    /// Looking at a name.
    Stat,
    /// Publishing once.
    Publish,
    /// Publishing by hard link on a file system that has none.
    Link,
    /// Replacing.
    Replace,
    /// Moving.
    Move,
    /// Setting aside.
    SetAside,
    /// Removing.
    Remove,
    /// Appending.
    Append,
    /// Copying from the share.
    CopyIn,
    /// Writing the local copy.
    WriteLocal,
    /// Copying to the share.
    CopyOut,
    /// Reading the local original.
    ReadLocal,
    /// Opening the mirror of a log.
    Mirror,
    /// Syncing a directory.
    Sync,
    /// Asking for a time, for room or for facts of the mount.
    Ask,
    /// Creating a directory.
    CreateDir,
    /// Watching a directory.
    Watch,
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Op::OpenDir => "open directory",
            Op::List => "list",
            Op::Read => "read",
            Op::Stat => "look at",
            Op::Publish => "publish",
            Op::Link => "publish, on a file system without hard links,",
            Op::Replace => "replace",
            Op::Move => "move",
            Op::SetAside => "set aside",
            Op::Remove => "remove",
            Op::Append => "append to",
            Op::CopyIn => "copy from the share",
            Op::WriteLocal => "write the local copy of",
            Op::CopyOut => "copy to the share",
            Op::ReadLocal => "read the local original of",
            Op::Mirror => "mirror a log to",
            Op::Sync => "sync",
            Op::Ask => "ask the file system about",
            Op::CreateDir => "create directory",
            Op::Watch => "watch",
        })
    }
}

/// What stands where somebody else's bytes should not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// A regular file of other bytes. Larger than mine: unread, so its digest is not known.
    Bytes {
        /// Its size.
        bytes: u64,
        /// Its digest, if it was read.
        digest: Option<Digest>,
    },
    /// No regular file.
    NotRegular(EntryKind),
    /// A file that may not be read.
    Unreadable,
}

/// Why an operation failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The directory does not hold that file.
    Absent,
    /// Something else stands there.
    Conflict(Standing),
    /// Not allowed.
    Denied,
    /// No room, or over quota.
    NoSpace,
    /// Not a regular file.
    NotRegular(EntryKind),
    /// Larger than the limit that was given.
    TooLarge {
        /// The size it has.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// The handle went stale between two steps: the next try opens anew.
    Stale,
    /// The share, or a directory that `init` makes, is not there.
    Unreachable,
    /// Anything else that the file system said.
    Io,
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ErrorKind::Absent => f.write_str("it is not there"),
            ErrorKind::Conflict(_) => f.write_str("something else stands there"),
            ErrorKind::Denied => f.write_str("not permitted"),
            ErrorKind::NoSpace => f.write_str("no room"),
            ErrorKind::NotRegular(_) => f.write_str("not a regular file"),
            ErrorKind::TooLarge { bytes, limit } => write!(f, "{bytes} bytes, more than {limit}"),
            ErrorKind::Stale => f.write_str("stale file handle"),
            ErrorKind::Unreachable => f.write_str("share unreachable"),
            ErrorKind::Io => f.write_str("input/output"),
        }
    }
}

/// What the loop does about a failed operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// Plan again in the next pass.
    Retry,
    /// Set the file aside and go on.
    Quarantine,
    /// Start nothing until a person or the share mends it.
    Halt,
}

/// A path below the root; the root itself is the dot.
fn shown(path: &Path) -> std::path::Display<'_> {
    if path.as_os_str().is_empty() { Path::new(".").display() } else { path.display() }
}

/// A failed operation on the share.
#[derive(Debug, thiserror::Error)]
#[error("cannot {op} `{}`: {kind}", shown(path))]
pub struct ShareError {
    /// The operation.
    pub op: Op,
    /// The path, below the share's root.
    pub path: PathBuf,
    /// Why.
    pub kind: ErrorKind,
    /// What the file system said, where it said something.
    #[source]
    pub source: Option<io::Error>,
}

impl ShareError {
    /// An error that no system call reported.
    #[must_use]
    pub const fn new(op: Op, path: PathBuf, kind: ErrorKind) -> ShareError {
        ShareError { op, path, kind, source: None }
    }

    /// What to do about it.
    #[must_use]
    pub const fn disposition(&self) -> Disposition {
        match self.kind {
            ErrorKind::Absent | ErrorKind::NoSpace | ErrorKind::Stale | ErrorKind::Io => Disposition::Retry,
            ErrorKind::Conflict(_) | ErrorKind::NotRegular(_) | ErrorKind::TooLarge { .. } => {
                Disposition::Quarantine
            }
            // A file that cannot be read is its planter's fault, a directory that cannot be written is the set-up's.
            ErrorKind::Denied => match self.op {
                Op::Read | Op::CopyIn => Disposition::Quarantine,
                Op::OpenDir
                | Op::List
                | Op::Stat
                | Op::Publish
                | Op::Link
                | Op::Replace
                | Op::Move
                | Op::SetAside
                | Op::Remove
                | Op::Append
                | Op::WriteLocal
                | Op::CopyOut
                | Op::ReadLocal
                | Op::Mirror
                | Op::Sync
                | Op::Ask
                | Op::CreateDir
                | Op::Watch => Disposition::Halt,
            },
            ErrorKind::Unreachable => Disposition::Halt,
        }
    }
}
