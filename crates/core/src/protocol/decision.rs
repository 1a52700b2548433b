//! A person's yes or no: the payload `decision.v1` (protocol section 5).

use uuid::Uuid;

use crate::policy::money::Usd;
use crate::protocol::limits;
use crate::protocol::members::{self, FormError, Members};
use crate::protocol::names::{Digest, NodeName, TaskId};
use crate::protocol::payload::{Kind, Payload};
use crate::protocol::time::Timestamp;
use crate::protocol::writer::Object;

crate::protocol::words::words! {
    /// What the person decided.
    pub enum DecisionOutcome {
        /// Yes.
        Approved = "approved",
        /// No: it ends the task.
        Rejected = "rejected",
    }
}

/// A person's yes or no, bound to the task and to its terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The cluster.
    pub cluster: Uuid,
    /// The task's sender.
    pub from: NodeName,
    /// The node that asks.
    pub to: NodeName,
    /// The task.
    pub task: TaskId,
    /// The digest of the task's payload.
    pub task_sha256: Digest,
    /// The digest of the terms' payload.
    pub terms_sha256: Digest,
    /// Yes or no.
    pub outcome: DecisionOutcome,
    /// The principal whose key signed, 1 to 256 bytes.
    pub author: String,
    /// Why, 1 byte to 4 KiB.
    pub reason: String,
    /// When; per principal the last one counts.
    pub decided_at: Timestamp,
    /// Void from here on.
    pub expires: Timestamp,
    /// A lower ceiling; the lowest of all wins.
    pub max_cost_usd: Option<Usd>,
}

impl Payload for Decision {
    const KIND: Kind = Kind::Decision;

    fn read_members(members: &mut Members<'_, '_>) -> Result<Decision, FormError> {
        Ok(Decision {
            cluster: members.required("cluster", members::uuid)?,
            from: members.required("from", members::node)?,
            to: members.required("to", members::node)?,
            task: members.required("task", members::any_task_id)?,
            task_sha256: members.required("task_sha256", members::digest)?,
            terms_sha256: members.required("terms_sha256", members::digest)?,
            outcome: members.required("outcome", members::word)?,
            author: members.required("author", members::text_of_bytes(1..=limits::AUTHOR_BYTES_MAX))?,
            reason: members
                .required("reason", members::text_of_bytes(1..=limits::DECISION_REASON_BYTES_MAX))?,
            decided_at: members.required("decided_at", members::time)?,
            expires: members.required("expires", members::time)?,
            max_cost_usd: members.optional("max_cost_usd", members::money)?,
        })
    }

    fn write_members(&self, object: &mut Object<'_>) {
        object
            .put("cluster", &self.cluster)
            .put("from", &self.from)
            .put("to", &self.to)
            .put("task", &self.task)
            .put("task_sha256", &self.task_sha256)
            .put("terms_sha256", &self.terms_sha256)
            .put("outcome", &self.outcome)
            .put("author", &self.author)
            .put("reason", &self.reason)
            .put("decided_at", &self.decided_at)
            .put("expires", &self.expires)
            .put_some("max_cost_usd", self.max_cost_usd.as_ref());
    }
}
