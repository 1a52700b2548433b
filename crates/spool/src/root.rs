//! The look at the root that comes before every decision: is this our share, and is it stopped.
//!
//! A share that is not there looks empty (protocol section 1), so `CLUSTER` and `KILLSWITCH` are read from one fresh listing:
//! a listing that does not show our cluster says nothing about killswitches either.

use std::collections::BTreeMap;

use dispatch_core::protocol::names::{Lane, canonical_uuid};
use uuid::Uuid;

use crate::killswitch::{self, Trip};
use crate::layout::{Area, Dir, File, Name};
use crate::share::{EntryKind, ErrorKind, Listing, ListingEnd, Op, Published, Share, ShareError, Standing};

/// How many names of a directory are read; more is a flood (protocol section 4).
pub const LIST_ENTRIES_MAX: usize = 200_000;

/// How much of `CLUSTER` is read.
const CLUSTER_BYTES_MAX: u64 = 256;

/// What a look at the root found.
#[derive(Debug)]
#[must_use]
pub enum RootLook {
    /// It is our share.
    Reachable(RootSeen),
    /// It is not there, or not ours: a halt, but no trip.
    Unreachable(Unreachable),
}

/// What stood in the root of our share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootSeen {
    /// The killswitch of all nodes.
    pub killswitch: Option<Trip>,
    /// The killswitches of those lanes that have one.
    pub lanes: BTreeMap<Lane, Trip>,
}

impl RootSeen {
    /// What stops a lane: its own killswitch or that of all nodes, the harder one first.
    #[must_use]
    pub fn stops(&self, lane: &Lane) -> Option<&Trip> {
        self.killswitch.iter().chain(self.lanes.get(lane)).max_by_key(|trip| trip.mode)
    }
}

/// Why a share is not reachable.
#[derive(Debug, thiserror::Error)]
pub enum Unreachable {
    /// The file system said no.
    #[error("the share cannot be looked at")]
    Failed(#[source] ShareError),
    /// An empty directory, most likely the mount point without its mount.
    #[error("the share has no CLUSTER: it is not mounted, or not set up")]
    NoCluster,
    /// `CLUSTER` says something else.
    #[error("the share belongs to another cluster")]
    OtherCluster {
        /// Its cluster; `None` where `CLUSTER` is no uuid.
        found: Option<Uuid>,
    },
    /// A lane that is configured has no directory.
    #[error("the share has no directory `{lane}`")]
    NoLane {
        /// The lane.
        lane: Lane,
    },
    /// So many names that the end was not reached, so nothing is known to be absent.
    #[error("a directory of the share holds more names than are read")]
    Flooded,
}

/// Looks at the root and at the lanes, each by a fresh listing. Lanes of `lanes` must be there.
pub fn look(share: &dyn Share, cluster: Uuid, lanes: &[Lane]) -> RootLook {
    match try_look(share, cluster, lanes) {
        Ok(seen) => RootLook::Reachable(seen),
        Err(why) => RootLook::Unreachable(why),
    }
}

fn try_look(share: &dyn Share, cluster: Uuid, lanes: &[Lane]) -> Result<RootSeen, Unreachable> {
    let root = list_whole(share, &Dir::Root)?;
    let Some(kind) = kind_of(&root, &File::Cluster) else { return Err(Unreachable::NoCluster) };
    let found = match kind {
        EntryKind::Regular | EntryKind::Unknown => cluster_text(share).map_err(Unreachable::Failed)?,
        EntryKind::Directory | EntryKind::Symlink | EntryKind::Special => None,
    };
    if found != Some(cluster) {
        return Err(Unreachable::OtherCluster { found });
    }
    let mut seen = RootSeen { killswitch: trip(share, &root, &File::Killswitch), lanes: BTreeMap::new() };
    for lane in lanes {
        let dir = Dir::lane(lane, Area::Top);
        if !root.entries.iter().any(|entry| matches!(&entry.name, Name::Dir(found) if *found == dir)) {
            return Err(Unreachable::NoLane { lane: lane.clone() });
        }
        let listing = list_whole(share, &dir)?;
        if let Some(trip) = trip(share, &listing, &File::lane_killswitch(lane)) {
            seen.lanes.insert(lane.clone(), trip);
        }
    }
    Ok(seen)
}

fn list_whole(share: &dyn Share, dir: &Dir) -> Result<Listing, Unreachable> {
    let listing = share.list(dir, LIST_ENTRIES_MAX).map_err(Unreachable::Failed)?;
    match listing.end {
        ListingEnd::Reached => Ok(listing),
        ListingEnd::Limit => Err(Unreachable::Flooded),
    }
}

fn kind_of(listing: &Listing, file: &File) -> Option<EntryKind> {
    listing.files().find(|(found, _)| *found == file).map(|(_, kind)| kind)
}

fn trip(share: &dyn Share, listing: &Listing, file: &File) -> Option<Trip> {
    kind_of(listing, file).map(|kind| killswitch::of_entry(share, file, kind))
}

/// `CLUSTER` as a uuid; `None` for any other text.
fn cluster_text(share: &dyn Share) -> Result<Option<Uuid>, ShareError> {
    let part = share.read_part(&File::Cluster, 0, CLUSTER_BYTES_MAX)?;
    let text = std::str::from_utf8(&part.bytes).ok();
    Ok(text.and_then(|text| canonical_uuid(text.strip_suffix('\n').unwrap_or(text)).ok()))
}

/// The cluster that a share says it belongs to, for `init`: `None` where nothing says so yet.
///
/// # Errors
/// A root that cannot be listed, a `CLUSTER` that cannot be read, or, as a conflict, one that holds no uuid.
pub fn read_cluster(share: &dyn Share) -> Result<Option<Uuid>, ShareError> {
    if !share.list(&Dir::Root, LIST_ENTRIES_MAX)?.holds(&File::Cluster) {
        return Ok(None);
    }
    match cluster_text(share)? {
        Some(cluster) => Ok(Some(cluster)),
        None => {
            let standing = Standing::Bytes { bytes: share.stat(&File::Cluster)?.bytes, digest: None };
            Err(ShareError::new(Op::Read, File::Cluster.path(), ErrorKind::Conflict(standing)))
        }
    }
}

/// Publishes `CLUSTER`, once: the last step of `init` (protocol section 1).
///
/// # Errors
/// Another cluster's there, or the share cannot be written.
pub fn publish_cluster(share: &dyn Share, cluster: Uuid) -> Result<Published, ShareError> {
    share.publish_once(&File::Cluster, format!("{}\n", cluster.hyphenated()).as_bytes())
}
