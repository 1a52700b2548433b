//! Tasks for a version-2 peer: published once or not at all, because it runs a file again whenever it reappears (protocol
//! section 9).

use dispatch_core::protocol::names::{Lane, TaskId};
use dispatch_core::protocol::time::Timestamp;
use dispatch_spool::{Area, Dir, ErrorKind, File, LIST_ENTRIES_MAX, ListingEnd, Name, Share};

use super::error::OutgoingError;
use super::mail::Delivered;
use super::record::Record;

/// Where a file of a task may stand, in the order in which the kit moves it on.
const AREAS: [Area; 5] = [Area::Inbox, Area::PendingAck, Area::Processing, Area::Done, Area::Rejected];
/// A file that moves from one directory to another while they are listed is sometimes in neither; it is in the next round.
const ROUNDS: usize = 2;

/// What fresh listings of a lane show of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    Nowhere,
    /// In the inbox, as far as anybody moved it.
    Inbox,
    Elsewhere,
}

/// Publishes a flat task if its id stands nowhere on the lane. What stands in the inbox already is looked at: my own bytes
/// are there because an earlier try did get them there.
///
/// One whose time is over is never published: the kit knows no such time and would run it however late it comes.
pub(super) fn deliver(
    share: &dyn Share,
    lane: &Lane,
    record: &Record,
    now: Timestamp,
) -> Result<Delivered, OutgoingError> {
    let file = File::inbox(lane, record.id);
    match shown(share, lane, record.id)? {
        Shown::Elsewhere => return Ok(Delivered::Unknown),
        Shown::Inbox => {
            let limit = u64::try_from(record.envelope.len()).unwrap_or(u64::MAX);
            let is_mine = share.read(&file, limit).is_ok_and(|bytes| bytes == record.envelope);
            return Ok(if is_mine { Delivered::Published } else { Delivered::Unknown });
        }
        Shown::Nowhere if now >= record.expires => return Ok(Delivered::Unknown),
        Shown::Nowhere => {}
    }
    match share.publish_once(&file, &record.envelope) {
        Ok(_) => Ok(Delivered::Published),
        // Somebody's bytes came there between the listing and now. The kit sets nothing aside, so nobody waits for that.
        Err(error) if matches!(error.kind, ErrorKind::Conflict(_)) => Ok(Delivered::Unknown),
        Err(error) => Err(error.into()),
    }
}

fn shown(share: &dyn Share, lane: &Lane, id: TaskId) -> Result<Shown, OutgoingError> {
    for _ in 0..ROUNDS {
        for area in AREAS {
            if holds(share, &Dir::lane(lane, area), id)? {
                return Ok(if area == Area::Inbox { Shown::Inbox } else { Shown::Elsewhere });
            }
        }
        for month in months(share, lane)? {
            if holds(share, &month, id)? {
                return Ok(Shown::Elsewhere);
            }
        }
    }
    Ok(Shown::Nowhere)
}

fn months(share: &dyn Share, lane: &Lane) -> Result<Vec<Dir>, OutgoingError> {
    let archive = match share.list(&Dir::lane(lane, Area::Archive), LIST_ENTRIES_MAX) {
        Ok(archive) => archive,
        Err(error) if error.kind == ErrorKind::Absent => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    Ok(archive
        .entries
        .iter()
        .filter_map(|entry| match &entry.name {
            Name::Dir(dir) => Some(dir.clone()),
            Name::File(_) => None,
        })
        .collect())
}

/// Whether any file of a directory bears the task's id. One that was not read to its end is taken to hold it: nothing is
/// published on a guess.
fn holds(share: &dyn Share, dir: &Dir, id: TaskId) -> Result<bool, OutgoingError> {
    let listing = share.list(dir, LIST_ENTRIES_MAX)?;
    if listing.end == ListingEnd::Limit {
        return Ok(true);
    }
    Ok(listing.files().any(|(file, _)| file.task() == Some(id)))
}
