//! The shared directory as one node sees it: the layout of the tree, publishing, safe reading, fresh listings, moves that
//! tell "failed" from "failed but happened", the killswitch, and hints.
//!
//! The share is a carrier (protocol section 1). Nothing here decides anything: values come back, errors name their remedy.
#![forbid(unsafe_code)]

pub mod facts;
pub mod hint;
pub mod killswitch;
pub mod layout;
pub mod posix;
pub mod root;
pub mod share;
pub mod upkeep;

pub use facts::{FileSystem, MountFacts, Place};
pub use hint::{Hints, Rings, Strategy, strategy_for};
pub use killswitch::{Trip, TripMode};
pub use layout::{Area, Dir, File, LaneFile, Name};
pub use posix::{Ability, Failed, PosixShare, TreeAccess, Tried, create_directories};
pub use root::{LIST_ENTRIES_MAX, RootLook, RootSeen, Unreachable};
pub use share::{
    Copied, Disposition, Entry, EntryKind, ErrorKind, Evidence, Listing, ListingEnd, Moved, Op, Part,
    Published, Removed, SetAside, Share, ShareError, Space, Stamp, Standing, Stat,
};

#[cfg(test)]
mod tests;
