//! What keeps the tree small: leftovers, evidence, the archive. None of it is urgent, so none of it runs in every pass.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use dispatch_core::protocol::names::{Lane, NodeName, TaskId};
use dispatch_core::protocol::time::{DAY_MS, Timestamp};

use crate::layout::{Area, Dir, File, LaneFile, Month, Name};
use crate::root::LIST_ENTRIES_MAX;
use crate::share::{EntryKind, ErrorKind, Moved, Removed, Share, ShareError, Stat};

/// A half-written file of mine that is older than this is nobody's any more.
pub const LEFTOVER_AGE_MS: i64 = DAY_MS;
/// How many files `done/` itself keeps, counted in tasks.
pub const DONE_TASKS_KEPT: usize = 1_000;
/// What is younger than this stays in `done/`.
pub const DONE_AGE_MS: i64 = DAY_MS;
/// How many pieces of evidence one directory keeps.
pub const EVIDENCE_FILES_MAX: usize = 10_000;
/// How much evidence one directory keeps.
pub const EVIDENCE_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// Removes the half-written files of `node` in one of the `tmp/` directories that are older than a day; others' never.
/// Answers how many went.
///
/// # Errors
/// The directory cannot be listed. What cannot be removed stays for the next time.
pub fn remove_leftovers(
    share: &dyn Share,
    tmp: &Dir,
    node: &NodeName,
    now: Timestamp,
) -> Result<usize, ShareError> {
    let listing = share.list(tmp, LIST_ENTRIES_MAX)?;
    let mut removed = 0_usize;
    for (file, _) in listing.files() {
        let (File::Tmp(tmp) | File::Lane(_, LaneFile::Tmp(tmp))) = file else { continue };
        let old = |stat: Stat| now.since_ms(stat.modified) > LEFTOVER_AGE_MS;
        if tmp.node == *node
            && share.stat(file).is_ok_and(old)
            && share.remove(file).is_ok_and(|done| done == Removed::Removed)
        {
            removed = removed.saturating_add(1);
        }
    }
    Ok(removed)
}

/// Brings one `rejected/` back under its limits, oldest first. Answers how many files went.
///
/// # Errors
/// The directory cannot be listed. What cannot be removed stays for the next time.
pub fn trim_evidence(share: &dyn Share, rejected: &Dir) -> Result<usize, ShareError> {
    trim_evidence_to(share, rejected, EVIDENCE_FILES_MAX, EVIDENCE_BYTES_MAX)
}

pub(crate) fn trim_evidence_to(
    share: &dyn Share,
    rejected: &Dir,
    files_max: usize,
    bytes_max: u64,
) -> Result<usize, ShareError> {
    let listing = share.list(rejected, LIST_ENTRIES_MAX)?;
    let mut found: Vec<(Timestamp, u64, &File)> = listing
        .files()
        .filter_map(|(file, _)| share.stat(file).ok().map(|stat| (stat.modified, stat.bytes, file)))
        .collect();
    found.sort();
    let mut files = found.len();
    let mut bytes = found.iter().fold(0_u64, |sum, (_, bytes, _)| sum.saturating_add(*bytes));
    let mut removed = 0_usize;
    for (_, size, file) in found {
        if files <= files_max && bytes <= bytes_max {
            break;
        }
        if share.remove(file).is_ok() {
            files = files.saturating_sub(1);
            bytes = bytes.saturating_sub(size);
            removed = removed.saturating_add(1);
        }
    }
    Ok(removed)
}

/// Moves finished tasks of a lane to the archive, by the month of their result: all but the newest 1 000 and those of the
/// last day. A task without a result is not finished and stays. Answers how many tasks moved.
///
/// # Errors
/// `done/` cannot be listed, or moving failed; the tasks before that one are archived.
pub fn archive_done(share: &dyn Share, lane: &Lane, now: Timestamp) -> Result<usize, ShareError> {
    archive_done_beyond(share, lane, now, DONE_TASKS_KEPT)
}

pub(crate) fn archive_done_beyond(
    share: &dyn Share,
    lane: &Lane,
    now: Timestamp,
    kept: usize,
) -> Result<usize, ShareError> {
    let listing = share.list(&Dir::lane(lane, Area::Done), LIST_ENTRIES_MAX)?;
    let mut tasks: BTreeMap<TaskId, Vec<&File>> = BTreeMap::new();
    for (file, kind) in listing.files() {
        if let (Some(id), EntryKind::Regular) = (file.task(), kind) {
            tasks.entry(id).or_default().push(file);
        }
    }
    if tasks.len() <= kept {
        return Ok(0);
    }
    let mut finished: Vec<(Timestamp, TaskId, Vec<&File>)> = tasks
        .into_iter()
        .filter_map(|(id, files)| {
            let result = share.stat(&File::result(lane, id)).ok()?;
            Some((result.modified, id, files))
        })
        .collect();
    finished.sort_by_key(|(at, id, _)| Reverse((*at, *id)));
    let mut moved = 0_usize;
    for (at, id, mut files) in finished.into_iter().skip(kept) {
        if now.since_ms(at) <= DONE_AGE_MS {
            continue;
        }
        // The result last: a reader that finds it in the archive finds the others there too.
        files.sort_by_key(|file| **file == File::result(lane, id));
        for file in files {
            let Some(target) = file.archived(Month::of(at)) else { continue };
            match share.move_to(file, &target)? {
                Moved::Moved | Moved::Absent => {}
            }
        }
        moved = moved.saturating_add(1);
    }
    Ok(moved)
}

/// Reads a result from wherever it is: `done/` by a fresh listing, then the archive, newest month first. `None` is "not in
/// either now", which proves nothing about a moment ago.
///
/// # Errors
/// What stands at its name is no file, too large, or cannot be read.
pub fn find_result(
    share: &dyn Share,
    lane: &Lane,
    id: TaskId,
    limit: u64,
) -> Result<Option<Vec<u8>>, ShareError> {
    let file = File::result(lane, id);
    if share.list(&Dir::lane(lane, Area::Done), LIST_ENTRIES_MAX)?.holds(&file) {
        match share.read(&file, limit) {
            Err(error) if error.kind == ErrorKind::Absent => {}
            other => return other.map(Some),
        }
    }
    let months = share.list(&Dir::lane(lane, Area::Archive), LIST_ENTRIES_MAX)?;
    let mut months: Vec<Month> = months
        .entries
        .iter()
        .filter_map(|entry| match &entry.name {
            Name::Dir(Dir::Lane(_, Area::ArchiveMonth(month))) => Some(*month),
            Name::Dir(_) | Name::File(_) => None,
        })
        .collect();
    months.sort();
    for month in months.into_iter().rev() {
        match share.read(&File::in_lane(lane, LaneFile::ArchivedResult(month, id)), limit) {
            Err(error) if error.kind == ErrorKind::Absent => {}
            other => return other.map(Some),
        }
    }
    Ok(None)
}
