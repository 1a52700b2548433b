//! A sender's request about a task it sent: the payload `control.v1` (protocol section 5).

use uuid::Uuid;

use crate::protocol::members::{self, FormError, Members};
use crate::protocol::names::{Digest, NodeName, TaskId};
use crate::protocol::payload::{Kind, Payload};
use crate::protocol::time::Timestamp;
use crate::protocol::writer::Object;

crate::protocol::words::words! {
    /// What the sender asks.
    pub enum ControlVerb {
        /// End the task, or never start it.
        Cancel = "cancel",
    }
}

/// A sender's request about a task it sent; one that comes before its task is kept until it expires.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    /// The cluster.
    pub cluster: Uuid,
    /// The task's sender, who also asks this.
    pub from: NodeName,
    /// The node that has the task.
    pub to: NodeName,
    /// The task.
    pub task: TaskId,
    /// The digest of the task's payload.
    pub task_sha256: Digest,
    /// What is asked.
    pub verb: ControlVerb,
    /// Why, for people.
    pub reason: String,
    /// When it was made.
    pub created: Timestamp,
    /// Void from here on.
    pub expires: Timestamp,
}

impl Payload for Control {
    const KIND: Kind = Kind::Control;

    fn read_members(members: &mut Members<'_, '_>) -> Result<Control, FormError> {
        Ok(Control {
            cluster: members.required("cluster", members::uuid)?,
            from: members.required("from", members::node)?,
            to: members.required("to", members::node)?,
            task: members.required("task", members::task_id)?,
            task_sha256: members.required("task_sha256", members::digest)?,
            verb: members.required("verb", members::word)?,
            reason: members.required("reason", members::text)?,
            created: members.required("created", members::time)?,
            expires: members.required("expires", members::time)?,
        })
    }

    fn write_members(&self, object: &mut Object<'_>) {
        object
            .put("cluster", &self.cluster)
            .put("from", &self.from)
            .put("to", &self.to)
            .put("task", &self.task)
            .put("task_sha256", &self.task_sha256)
            .put("verb", &self.verb)
            .put("reason", &self.reason)
            .put("created", &self.created)
            .put("expires", &self.expires);
    }
}
