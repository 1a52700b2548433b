//! A decision of the same key that stands there already.

use dispatch_core::protocol::accept::{Me, Place, Verdict, Waiting, accept_decision};
use dispatch_core::protocol::time::Timestamp;
use dispatch_core::protocol::{Decision, Kind};
use dispatch_spool::layout::File;

use crate::desk::Desk;
use crate::key::Signer;
use crate::waiting::Waits;

/// The decision that stands at this signer's name for the task, if it would count: one for other terms, or junk, is
/// the watcher's to set aside.
pub(crate) fn standing(desk: &Desk, waits: &Waits, signer: &Signer, now: Timestamp) -> Option<Decision> {
    let file = File::decision(&waits.lane, waits.id(), signer.key16);
    let limit = u64::try_from(Kind::Decision.envelope_bytes_max()).unwrap_or(u64::MAX);
    let bytes = desk.share().read(&file, limit).ok()?;
    let place = Place { lane: &waits.lane, id: waits.id() };
    let me = Me { cluster: desk.config.cluster, node: &waits.lane.to, now };
    let waiting =
        Waiting::Waits { task_sha256: waits.task.digest(), terms_sha256: Some(waits.terms.digest()) };
    let key16 = signer.key16.to_string();
    match accept_decision(&bytes, place, &key16, &me, &signer.approvers, waiting) {
        Verdict::Accepted(decision) => Some(decision.into_parts().0),
        Verdict::Refused(_) => None,
    }
}
