//! Bringing a record's messages to the share.

use dispatch_core::protocol::accept::Me;
use dispatch_core::protocol::control::ControlVerb;
use dispatch_core::protocol::keys::LaneRing;
use dispatch_core::protocol::limits::{LIFETIME_MS_MAX, TEXT_BYTES_MAX};
use dispatch_core::protocol::names::{Lane, NodeName, TaskId};
use dispatch_core::protocol::payload::{Payload, PayloadError};
use dispatch_core::protocol::seal::{RawEnvelope, seal};
use dispatch_core::protocol::text::first_bytes;
use dispatch_core::protocol::time::Timestamp;
use dispatch_core::protocol::v2::FlatRing;
use dispatch_core::protocol::{Control, Task};
use dispatch_spool::{ErrorKind, File, Share};
use uuid::Uuid;

use super::error::OutgoingError;
use super::flat;
use super::record::{Record, RecordPlace};
use super::{Outgoing, touch};

/// The share with what it takes to send on one lane. Whoever makes one has looked at the root before: on a share that is
/// not ours nothing may be published.
#[derive(Clone, Copy)]
pub struct Mailbox<'a> {
    /// The share.
    pub share: &'a dyn Share,
    /// The keys of the outgoing lane; none for a version-2 peer.
    pub keys: &'a LaneRing,
    /// The keys of a version-2 peer; `None` for one of version 3.
    pub flat: Option<&'a FlatRing>,
    /// The cluster.
    pub cluster: Uuid,
    /// This node.
    pub node: &'a NodeName,
    /// This node's clock.
    pub now: Timestamp,
}

/// What delivering found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Delivered {
    /// The message stands at its name.
    Published,
    /// Something else stands there; its reader sets it aside in its next pass.
    Conflict,
    /// It was not published: its id stands somewhere on the lane of a version-2 peer, which runs a file again whenever it
    /// reappears. Whether it ran, or will, is not known.
    Unknown,
}

impl Mailbox<'_> {
    pub(super) fn me(&self) -> Me<'_> {
        Me { cluster: self.cluster, node: self.node, now: self.now }
    }

    /// Publishes a record's cancel, if there is one, and then its task: so even a task that is only published now ends
    /// cancelled, and its position in the stream is filled.
    pub(super) fn deliver(&self, lane: &Lane, record: &Record) -> Result<Delivered, OutgoingError> {
        if record.is_flat() {
            return flat::deliver(self.share, lane, record, self.now);
        }
        if let Some(control) = &record.cancel
            && self.publish::<Control>(lane, &File::cancel(lane, record.id), control)? != Delivered::Published
        {
            return Ok(Delivered::Conflict);
        }
        self.publish::<Task>(lane, &File::inbox(lane, record.id), &record.payload()?)
    }

    /// Publishes a payload, sealed with today's key.
    fn publish<T: Payload>(
        &self,
        lane: &Lane,
        file: &File,
        payload: &[u8],
    ) -> Result<Delivered, OutgoingError> {
        let key = self.keys.signing().ok_or_else(|| OutgoingError::NoKey { lane: lane.clone() })?;
        match self.share.publish_once(file, &seal(T::KIND, payload, &[key])) {
            Ok(_) => Ok(Delivered::Published),
            Err(error) => match error.kind {
                ErrorKind::Conflict(_) if self.is_mine::<T>(file, payload) => Ok(Delivered::Published),
                ErrorKind::Conflict(_) => Ok(Delivered::Conflict),
                ErrorKind::Absent
                | ErrorKind::Denied
                | ErrorKind::NoSpace
                | ErrorKind::NotRegular(_)
                | ErrorKind::TooLarge { .. }
                | ErrorKind::Stale
                | ErrorKind::Unreachable
                | ErrorKind::Io => Err(error.into()),
            },
        }
    }

    /// Other bytes can be the same message, sealed with the key of another day: "mine" = the same verified payload.
    fn is_mine<T: Payload>(&self, file: &File, payload: &[u8]) -> bool {
        let limit = u64::try_from(T::KIND.envelope_bytes_max()).unwrap_or(u64::MAX);
        let Ok(bytes) = self.share.read(file, limit) else { return false };
        RawEnvelope::read(T::KIND, &bytes)
            .ok()
            .and_then(|envelope| envelope.verify_lane(self.keys).ok())
            .and_then(|verified| verified.parse::<T>().ok())
            .is_some_and(|opened| opened.bytes() == payload)
    }
}

impl Outgoing {
    /// Puts an unanswered task back, sealed with today's key, and its cancel with it. The receiver removes a copy that it
    /// does not need, and publishes its answer again if that went missing.
    ///
    /// # Errors
    /// The share's refusal; a task for a version-2 peer, which would run it again.
    pub fn put_back(&self, mail: &Mailbox<'_>, record: &Record) -> Result<Delivered, OutgoingError> {
        if record.is_flat() {
            return Err(OutgoingError::NeverPutBack { id: record.id, peer: self.lane.to.clone() });
        }
        let delivered = mail.deliver(&self.lane, record)?;
        if record.place == RecordPlace::Sent {
            touch(&self.sent_path(record.id), mail.now)?;
        }
        Ok(delivered)
    }

    /// Asks the receiver to cancel a task: recorded, synced, and then published. A task that is still kept goes out with
    /// its cancel before it, so that it ends `cancelled` without ever running and leaves no gap in the stream.
    ///
    /// # Errors
    /// No such task, one that was answered already, or the share's refusal; the cancel is then kept and goes out later.
    pub fn cancel(&self, mail: &Mailbox<'_>, id: TaskId, reason: &str) -> Result<Cancelled, OutgoingError> {
        let locked = self.lock()?;
        let record = self.record(id)?.ok_or(OutgoingError::NoSuchTask { id })?;
        if record.is_flat() {
            return Err(OutgoingError::NoCancel { id, peer: self.lane.to.clone() });
        }
        if record.answered.is_some() {
            return Ok(Cancelled::AnsweredBefore);
        }
        let control = match &record.cancel {
            Some(control) => control.clone(),
            None => {
                let made = self.control(mail, &record, reason);
                made.to_checked_payload().map_err(|error| self.not_sealable(id, error))?
            }
        };
        locked.update(id, |record| record.cancel = Some(control.clone()))?;
        match record.place {
            RecordPlace::Outbox => {
                let record = Record { cancel: Some(control), ..record };
                locked.publish(mail, &record).map(Cancelled::Asked)
            }
            RecordPlace::Sent => mail
                .publish::<Control>(&self.lane, &File::cancel(&self.lane, id), &control)
                .map(Cancelled::Asked),
        }
    }

    fn control(&self, mail: &Mailbox<'_>, record: &Record, reason: &str) -> Control {
        Control {
            cluster: mail.cluster,
            from: self.lane.from.clone(),
            to: self.lane.to.clone(),
            task: record.id,
            task_sha256: record.task_sha256,
            verb: ControlVerb::Cancel,
            reason: first_bytes(reason, TEXT_BYTES_MAX).to_owned(),
            created: mail.now,
            expires: record.answer_by.min(mail.now.plus_ms(LIFETIME_MS_MAX)),
        }
    }

    fn not_sealable(&self, id: TaskId, error: PayloadError) -> OutgoingError {
        OutgoingError::Damaged { path: self.sent_path(id), source: error.into() }
    }
}

/// What asking for a cancel did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Cancelled {
    /// The request is on the share, or cannot get there yet because something else stands at its name.
    Asked(Delivered),
    /// Too late: the answer is here.
    AnsweredBefore,
}
