//! What one pass sees of the share: read on the share's threads, judged by nobody here.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dispatch_core::protocol::limits::{ENVELOPE_BYTES_MAX, SMALL_ENVELOPE_BYTES_MAX};
use dispatch_core::protocol::names::{Lane, NodeName, TaskId};
use dispatch_spool::layout::{Area, Dir, File, Hex16, LaneFile};
use dispatch_spool::root::{self, RootSeen, Unreachable};
use dispatch_spool::share::{EntryKind, ErrorKind, Listing, ListingEnd, Share, ShareError};
use uuid::Uuid;

/// A task's file at most.
const TASK_BYTES_MAX: u64 = wide(ENVELOPE_BYTES_MAX);
/// Any other message's file at most.
const SMALL_BYTES_MAX: u64 = wide(SMALL_ENVELOPE_BYTES_MAX);

/// Names read of one inbox before the lane counts as flooded (protocol section 4).
pub(crate) const INBOX_NAMES_MAX: usize = 200_000;
/// Names read of an inbox that nothing is taken from: enough to see whether something waits there. A full lane with a
/// hundred thousand names behind it costs no more than an empty one.
const NAMES_MAX_WITHOUT_ROOM: usize = 64;
/// Names read of every other directory.
const NAMES_MAX: usize = 100_000;
/// Bytes of tasks read in one pass (protocol section 4).
const PASS_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// How long reading one inbox goes on in one pass: a slow share is no hung one.
const READING_MAX: Duration = Duration::from_secs(3);
/// How many files are read beyond the room there is: as many as a pass refuses.
const JUNK_MAX: usize = 100;
/// Controls and decisions read in one pass; the rest come in the next.
const SMALL_FILES_MAX: usize = 200;

/// One fresh look at the root and at the lanes' own directories.
#[derive(Debug)]
pub(crate) enum RootLook {
    /// The share is there and is ours.
    Here(Here),
    /// It is not, or it is another cluster's.
    Gone(Unreachable),
}

/// What the root of our share holds.
#[derive(Debug)]
pub(crate) struct Here {
    pub(crate) switches: RootSeen,
    /// Boot records of this node that are numbered above the one asked about, with their bytes.
    pub(crate) boots: Vec<(u64, Vec<u8>)>,
    /// Every number of a boot record of this node.
    pub(crate) boot_numbers: Vec<u64>,
    /// Heartbeats, where they were asked for.
    pub(crate) heartbeats: Vec<(NodeName, Vec<u8>)>,
}

/// What to look for below the root.
#[derive(Clone, Debug)]
pub(crate) struct RootAsk {
    pub(crate) cluster: Uuid,
    pub(crate) node: NodeName,
    /// The lanes whose directories must be there.
    pub(crate) lanes: Vec<Lane>,
    /// Boot records above this number are read.
    pub(crate) above_boot: u64,
    /// Whose heartbeats to read. This node's own must not be missed where it is there: it is about to be replaced.
    pub(crate) heartbeats_of: Vec<NodeName>,
}

/// Looks at the root: one fresh listing says whether the share is there and whether it is tripped.
pub(crate) fn root(share: &dyn Share, ask: &RootAsk) -> RootLook {
    let switches = match root::look(share, ask.cluster, &ask.lanes) {
        root::RootLook::Reachable(seen) => seen,
        root::RootLook::Unreachable(why) => return RootLook::Gone(why),
    };
    match beside_the_root(share, ask, switches) {
        Ok(here) => RootLook::Here(here),
        Err(error) => RootLook::Gone(Unreachable::Failed(error)),
    }
}

fn beside_the_root(share: &dyn Share, ask: &RootAsk, switches: RootSeen) -> Result<Here, ShareError> {
    let beats = share.list(&Dir::Heartbeats, NAMES_MAX)?;
    let boot_numbers: Vec<u64> = beats
        .files()
        .filter_map(|(file, _)| {
            let File::Boot(node, number) = file else { return None };
            (*node == ask.node).then_some(*number)
        })
        .collect();
    let higher = boot_numbers.iter().filter(|number| **number > ask.above_boot);
    let boots = higher
        .filter_map(|number| {
            share
                .read(&File::Boot(ask.node.clone(), *number), SMALL_BYTES_MAX)
                .ok()
                .map(|bytes| (*number, bytes))
        })
        .collect();
    let mut heartbeats = Vec::new();
    for node in &ask.heartbeats_of {
        let file = File::Heartbeat(node.clone());
        if !beats.holds(&file) {
            continue;
        }
        match share.read(&file, SMALL_BYTES_MAX) {
            Ok(bytes) => heartbeats.push((node.clone(), bytes)),
            Err(error) if *node == ask.node && may_pass(&error) => return Err(error),
            // Somebody's junk, or it is being replaced right now: the next look reads it.
            Err(_) => {}
        }
    }
    Ok(Here { switches, boots, boot_numbers, heartbeats })
}

/// True for failures that say nothing about what stands there.
fn may_pass(error: &ShareError) -> bool {
    match error.kind {
        ErrorKind::Denied | ErrorKind::Stale | ErrorKind::Unreachable | ErrorKind::Io => true,
        ErrorKind::Absent
        | ErrorKind::Conflict(_)
        | ErrorKind::NoSpace
        | ErrorKind::NotRegular(_)
        | ErrorKind::TooLarge { .. } => false,
    }
}

/// A file of the share that somebody else wrote.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) file: File,
    pub(crate) what: What,
}

/// What stands at its name.
#[derive(Debug)]
pub(crate) enum What {
    Bytes(Vec<u8>),
    NotRegular,
    TooLarge,
    Unreadable,
}

/// One look at the lane that a peer sends on.
#[derive(Debug)]
pub(crate) struct LaneLook {
    /// New files of the inbox, read.
    pub(crate) inbox: Vec<Found>,
    /// Whether the inbox was read to its end, and nothing of it was left for the next pass.
    pub(crate) rest: Rest,
    pub(crate) controls: Vec<Found>,
    pub(crate) decisions: Vec<(TaskId, Hex16, Found)>,
    /// Approvals that nobody signed: a version-2 peer's kit makes them.
    pub(crate) unsigned_acks: Vec<(TaskId, Found)>,
}

/// What of an inbox a look left unread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rest {
    /// Nothing.
    None,
    /// Files that the pass had no budget for: look again at once, from this name on.
    Behind(Option<TaskId>),
    /// Files that there is no room for.
    NoRoom,
    /// More names than are read.
    Flooded,
}

/// What to look for in a lane.
#[derive(Clone, Debug)]
pub(crate) struct LaneAsk {
    pub(crate) lane: Lane,
    /// How many tasks there is room for.
    pub(crate) room: usize,
    /// How many files at most.
    pub(crate) files_max: usize,
    /// Names whose files are being moved or removed already.
    pub(crate) busy: Arc<BTreeSet<TaskId>>,
    /// Where the last pass stopped.
    pub(crate) after: Option<TaskId>,
    /// Only this task.
    pub(crate) only: Option<TaskId>,
}

/// Looks at a lane.
pub(crate) fn lane(share: &dyn Share, ask: &LaneAsk) -> Result<LaneLook, ShareError> {
    let names_max = if ask.room == 0 { NAMES_MAX_WITHOUT_ROOM } else { INBOX_NAMES_MAX };
    let listing = share.list(&Dir::lane(&ask.lane, Area::Inbox), names_max)?;
    let (inbox, rest) = read_inbox(share, ask, &listing);
    let controls = share.list(&Dir::lane(&ask.lane, Area::Control), NAMES_MAX)?;
    let controls = controls
        .files()
        .filter(|(file, _)| matches!(file, File::Lane(_, LaneFile::Cancel(_))))
        .take(SMALL_FILES_MAX)
        .map(|(file, kind)| found(share, file, kind, SMALL_BYTES_MAX))
        .collect();
    let pending = share.list(&Dir::lane(&ask.lane, Area::PendingAck), NAMES_MAX)?;
    let decisions = pending
        .files()
        .filter_map(|(file, kind)| {
            let File::Lane(_, LaneFile::Decision(id, key16)) = file else { return None };
            Some((*id, *key16, file, kind))
        })
        .take(SMALL_FILES_MAX)
        .map(|(id, key16, file, kind)| (id, key16, found(share, file, kind, SMALL_BYTES_MAX)))
        .collect();
    let unsigned_acks = pending
        .files()
        .filter_map(|(file, kind)| {
            let File::Lane(_, LaneFile::UnsignedAck(id)) = file else { return None };
            Some((*id, found(share, file, kind, SMALL_BYTES_MAX)))
        })
        .take(SMALL_FILES_MAX)
        .collect();
    Ok(LaneLook { inbox, rest, controls, decisions, unsigned_acks })
}

fn read_inbox(share: &dyn Share, ask: &LaneAsk, listing: &Listing) -> (Vec<Found>, Rest) {
    let mut names: Vec<(TaskId, &File, EntryKind)> = listing
        .files()
        .filter_map(|(file, kind)| {
            let File::Lane(_, LaneFile::Inbox(id)) = file else { return None };
            Some((*id, file, kind))
        })
        .filter(|(id, _, _)| !ask.busy.contains(id) && ask.only.is_none_or(|only| only == *id))
        .collect();
    names.sort_unstable_by_key(|(id, _, _)| *id);
    // Where the last pass ran out of budget this one goes on, so that junk at the front starves nobody.
    let start = ask.after.map_or(0, |after| names.partition_point(|(id, _, _)| *id <= after));
    names.rotate_left(start);
    // Junk takes no place, so a little more is read than there is room for; what is good beyond the room stays unseen.
    let files_max = ask.room.saturating_add(JUNK_MAX).min(ask.files_max);
    let began = Instant::now();
    let (mut inbox, mut bytes, mut rest, mut last) = (Vec::new(), 0_u64, Rest::None, None);
    for (id, file, kind) in names {
        if ask.room == 0 {
            rest = Rest::NoRoom;
            break;
        }
        if inbox.len() >= files_max || bytes >= PASS_BYTES_MAX || began.elapsed() >= READING_MAX {
            rest = Rest::Behind(last);
            break;
        }
        last = Some(id);
        let found = found(share, file, kind, TASK_BYTES_MAX);
        match &found.what {
            // It may be readable in the next pass; until then it is no reason to read less.
            What::Unreadable => continue,
            What::Bytes(read) => bytes = bytes.saturating_add(u64::try_from(read.len()).unwrap_or(u64::MAX)),
            What::NotRegular | What::TooLarge => {}
        }
        inbox.push(found);
    }
    if listing.end == ListingEnd::Limit && rest == Rest::None {
        // Strangers fill what was listed. Without room it was little, and says nothing of a flood.
        rest = if ask.room == 0 { Rest::NoRoom } else { Rest::Flooded };
    }
    (inbox, rest)
}

fn found(share: &dyn Share, file: &File, kind: EntryKind, limit: u64) -> Found {
    let what = match kind {
        EntryKind::Directory | EntryKind::Symlink | EntryKind::Special => What::NotRegular,
        EntryKind::Regular | EntryKind::Unknown => match share.read(file, limit) {
            Ok(bytes) => What::Bytes(bytes),
            Err(error) => match error.kind {
                ErrorKind::NotRegular(_) => What::NotRegular,
                ErrorKind::TooLarge { .. } => What::TooLarge,
                ErrorKind::Absent
                | ErrorKind::Conflict(_)
                | ErrorKind::Denied
                | ErrorKind::NoSpace
                | ErrorKind::Stale
                | ErrorKind::Unreachable
                | ErrorKind::Io => What::Unreadable,
            },
        },
    };
    Found { file: file.clone(), what }
}

#[expect(clippy::as_conversions, reason = "a constant far below both types' limits; `From` is not const")]
const fn wide(bytes: usize) -> u64 {
    bytes as u64
}
