//! From what a person wrote to the one task that waits, verified.

use std::thread::sleep;
use std::time::{Duration, Instant};

use dispatch_core::protocol::names::{Lane, TaskId};
use dispatch_node::clock;
use dispatch_node::report::Report;
use dispatch_spool::layout::{Area, Dir, File};
use dispatch_spool::root::LIST_ENTRIES_MAX;

use crate::args::Door;
use crate::desk::{Desk, LaneHere};
use crate::error::{Elsewhere, FindError};
use crate::waiting::{self, Parked, Waits};
use crate::which::IdPart;

/// How long the watcher has to set a file right that does not verify (protocol section 1, squatting).
const PATIENCE: Duration = Duration::from_secs(5);
/// From one look to the next.
const PAUSE: Duration = Duration::from_millis(100);

/// The one task that waits under this name.
pub(crate) fn find<'a>(desk: &'a Desk, part: &IdPart) -> Result<(&'a LaneHere, TaskId), Report> {
    let mut found: Vec<(&LaneHere, TaskId)> = Vec::new();
    for here in &desk.lanes {
        let ids = waiting::ids(desk.share(), &here.lane)?;
        found.extend(ids.into_keys().filter(|id| part.names(*id)).map(|id| (here, id)));
    }
    match found.as_slice() {
        [one] => Ok(*one),
        [] => Err(not_waiting(desk, part)?.into()),
        [_, _, ..] => {
            let found = found.iter().map(|(here, id)| (here.lane.clone(), *id)).collect();
            Err(FindError::Ambiguous { part: part.text().to_owned(), found }.into())
        }
    }
}

/// Where the task is instead, as far as the share shows it.
fn not_waiting(desk: &Desk, part: &IdPart) -> Result<FindError, Report> {
    let places = [
        (Area::Done, Elsewhere::Done),
        (Area::Processing, Elsewhere::Processing),
        (Area::Inbox, Elsewhere::Inbox),
    ];
    for here in &desk.lanes {
        for (area, at) in places {
            if is_in(desk, &here.lane, area, part)? {
                return Ok(FindError::NotWaiting { part: part.text().to_owned(), at });
            }
        }
    }
    Ok(FindError::Unknown { part: part.text().to_owned() })
}

fn is_in(desk: &Desk, lane: &Lane, area: Area, part: &IdPart) -> Result<bool, Report> {
    let listing = desk.share().list(&Dir::lane(lane, area), LIST_ENTRIES_MAX)?;
    Ok(listing.files().filter_map(|(file, _)| File::task(file)).any(|id| part.names(id)))
}

/// Opens what stands under the id. What does not verify gets a moment: a running watcher sets it right.
pub(crate) fn open(args: &Door, desk: &Desk, here: &LaneHere, id: TaskId) -> Result<Waits, Report> {
    let end = Instant::now() + PATIENCE;
    loop {
        let unverified = match waiting::open(desk, here, id, clock::now())? {
            Parked::Waits(waits) => return Ok(*waits),
            Parked::Gone => return Err(Report::from(FindError::Unknown { part: id.short() }).about(id)),
            Parked::Unverified(unverified) => unverified,
        };
        if args.no_wait || Instant::now() >= end {
            let (part, code, text) = (unverified.part.as_str(), unverified.why.code(), unverified.why.text());
            return Err(Report::from(FindError::Unverified { part, code, text }).about(id));
        }
        sleep(PAUSE);
    }
}
