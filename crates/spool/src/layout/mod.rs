//! Where everything lies on the share (protocol section 1), as typed values.
//!
//! Nothing in this crate takes a path as text: a [`Dir`] or a [`File`] can only name a place of the tree, so no id, name or
//! planted entry leads outside of it. What a listing finds is read back into the same types by [`Dir::name`]; every
//! directory has its closed list of names, and anything else in it is a stranger.

mod dir;
mod file;
mod parse;
mod parts;

pub use dir::{Area, Dir};
pub(crate) use dir::{LANE_AREAS, ROOT_DIRS};
pub use file::{File, LaneFile};
pub use parts::{EvidenceOf, EvidencePart, Hex16, Month, TmpName};

/// A name of a directory's closed list: a file or one of its directories.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Name {
    /// One of the files of the tree.
    File(File),
    /// One of the directories of the tree.
    Dir(Dir),
}
