//! The order of checks for a flat task, with the codes of protocol section 4.

use uuid::Uuid;

use crate::protocol::accept::{
    About, Me, Place, Reader, Refusal, RefusedTask, TaskRules, TaskVerdict, check_place, judge_opened,
};
use crate::protocol::json;
use crate::protocol::limits;
use crate::protocol::members::Breaches;
use crate::protocol::names::{Digest, Lane};
use crate::protocol::payload::{Form, Kind, PayloadError};
use crate::protocol::seal::{EnvelopeError, OpenError, Opened, RawEnvelope, SignatureError};
use crate::protocol::task::Task;
use crate::protocol::v2::key::FlatRing;
use crate::protocol::v2::task::{self, FlatTask};

/// What the receiver allows a version-2 peer where its signature leaves a member open: the file can only ask for less.
/// `require_ack` and `require_dangerous` are the peer's gate and `allow_dangerous`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Longest wall clock, in seconds, 1 to [`limits::TIMEOUT_S_MAX`].
    pub timeout_s: u32,
    /// Largest log cap, in bytes, [`limits::OUTPUT_BYTES_MIN`] to [`limits::OUTPUT_BYTES_MAX`].
    pub max_output_bytes: u64,
}

impl Bounds {
    /// What is allowed where nobody says more: for a task of a peer that speaks another version by now.
    pub const TIGHTEST: Bounds =
        Bounds { timeout_s: limits::TIMEOUT_S_DEFAULT, max_output_bytes: limits::OUTPUT_BYTES_DEFAULT };
}

/// True for the flat JSON of version 2: an object with `hmac` and no member of an envelope.
#[must_use]
pub fn is_flat(file: &[u8]) -> bool {
    matches!(RawEnvelope::read(Kind::Task, file), Err(EnvelopeError::Version2))
}

/// Judges a flat task in the inbox of a version-2 peer, steps 1 to 9, as
/// [`accept_task`](crate::protocol::accept::accept_task) does a sealed one; there is no cluster and no stream in it.
pub fn accept_flat(
    file: &[u8],
    place: Place<'_>,
    me: &Me<'_>,
    keys: &FlatRing,
    bounds: Bounds,
    seen: Option<Digest>,
    rules: &TaskRules<'_>,
) -> TaskVerdict {
    match open(file, place, me, keys, bounds) {
        Ok(opened) => judge_opened(opened, place, me, seen, rules),
        Err(refusal) => TaskVerdict::Refused(Box::new(RefusedTask { refusal, known: None, answer: None })),
    }
}

/// The task in bytes that were verified when they were taken, under the bounds of today. `None` for anything else.
#[must_use]
pub fn read_stored(file: &[u8], cluster: Uuid, bounds: Bounds) -> Option<(Task, Vec<u8>)> {
    let value = json::parse(file).ok()?;
    let signature = task::read_signature(&value).ok()?;
    let breaches = Breaches::default();
    let flat = task::read_members(&value, &breaches).ok()?;
    breaches.into_first().is_none().then(|| (to_task(flat, cluster, bounds), signature.signed))
}

/// Steps 1 to 5.
fn open(
    file: &[u8],
    place: Place<'_>,
    me: &Me<'_>,
    keys: &FlatRing,
    bounds: Bounds,
) -> Result<Opened<Task>, Refusal> {
    match RawEnvelope::read(Kind::Task, file) {
        // Whoever sealed it: no key of a version-2 peer opens a message of version 3.
        Ok(_) => return Err(SignatureError::Bad.into()),
        Err(EnvelopeError::Version2) => {}
        Err(other) => return Err(other.into()),
    }
    let value = json::parse(file).map_err(EnvelopeError::NotJson)?;
    let signature = task::read_signature(&value).map_err(EnvelopeError::Form)?;
    verify(keys, &signature)?;
    if let Some(error) = signature.unsafe_member {
        return Err(OpenError::Payload(PayloadError::Form(error)).into());
    }
    let breaches = Breaches::default();
    let flat = task::read_members(&value, &breaches).map_err(OpenError::Payload)?;
    let about = About::of(me.cluster, &flat.from, &flat.to, flat.id);
    check_place(me, place, &about, Reader::Receiver)?;
    let form = Form::of(to_task(flat, me.cluster, bounds), breaches.into_first());
    Ok(Opened::of_version_2(form, signature.signed))
}

fn verify(keys: &FlatRing, signature: &task::Signature) -> Result<(), SignatureError> {
    let by =
        |keys: &[super::FlatKey]| keys.iter().any(|key| key.verifies(&signature.signed, &signature.hmac));
    if by(&keys.accepted) {
        Ok(())
    } else if by(&keys.retired) {
        Err(SignatureError::Retired)
    } else {
        Err(SignatureError::Bad)
    }
}

/// The task that a flat one is here. What is not signed is taken from the file only where it is the stricter value.
fn to_task(flat: FlatTask, cluster: Uuid, bounds: Bounds) -> Task {
    let lane = Lane::new(flat.from, flat.to);
    // Nothing of version 2 has a place in a stream; the receiver notes none.
    let mut task = Task::new(cluster, &lane, flat.id, flat.created, (Uuid::nil(), 1), flat.request);
    let latest = flat.created.plus_ms(limits::LIFETIME_MS_DEFAULT);
    task.expires = flat.expires.map_or(latest, |expires| expires.min(latest));
    task.priority = flat.priority;
    task.callback = flat.callback;
    task.require_ack = flat.require_ack;
    task.require_dangerous = flat.require_dangerous;
    task.timeout_s = u32::try_from(flat.timeout_s).unwrap_or(u32::MAX).min(bounds.timeout_s);
    task.max_output_bytes =
        u64::try_from(flat.max_output_bytes).unwrap_or(u64::MAX).min(bounds.max_output_bytes);
    task
}
