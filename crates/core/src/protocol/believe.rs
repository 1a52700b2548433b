//! What a sender believes of a result (protocol section 6).

use crate::protocol::accept::{About, Me, Place, Reader, Refusal, check_place, open_on_lane};
use crate::protocol::keys::LaneRing;
use crate::protocol::names::Digest;
use crate::protocol::payload::{Kind, Payload as _};
use crate::protocol::reason::ReasonCode;
use crate::protocol::result::TaskResult;
use crate::protocol::seal::{Opened, RawEnvelope, Verified};

/// Whether a result is the one true answer to what this node sent.
#[must_use]
#[derive(Debug)]
pub enum Belief {
    /// It is.
    Believed(Box<Verified<TaskResult>>),
    /// It is not; at most a hint, shown as `unverified` (exit 65).
    NotBelieved(Refusal),
}

/// Judges a result file. `place` is the lane and id it lies under; `sent` the digest in this node's *own* sent record
/// for that task, without which nothing is believed.
pub fn believe(file: &[u8], place: Place<'_>, me: &Me<'_>, keys: &LaneRing, sent: Option<Digest>) -> Belief {
    let judge = || {
        let opened: Opened<TaskResult> = open_on_lane(file, keys)?;
        let result = opened.peek();
        let about = About::of(result.cluster, &result.from, &result.to, result.task);
        check_place(me, place, &about, Reader::Anyone)?;
        match sent {
            None => Err(Refusal::plain(ReasonCode::UnknownTask)),
            Some(digest) if digest != result.task_sha256 => Err(Refusal::plain(ReasonCode::DigestMismatch)),
            Some(_) => opened.within_limits().map_err(Refusal::limit),
        }
    };
    match judge() {
        Ok(verified) => Belief::Believed(Box::new(verified)),
        Err(refusal) => Belief::NotBelieved(refusal),
    }
}

/// What a result file says, verified by nothing: a hint, to be shown as `unverified`.
#[must_use]
pub fn hint(file: &[u8]) -> Option<TaskResult> {
    let envelope = RawEnvelope::read(Kind::Result, file).ok()?;
    TaskResult::from_stored(envelope.unverified_payload()).ok()
}
