//! A person's yes in advance: the payload `standing.v1` (protocol section 5, policy section 3).

use uuid::Uuid;

use crate::policy::money::Usd;
use crate::protocol::limits;
use crate::protocol::members::{self, FormError, Members};
use crate::protocol::names::{Name, NodeName, TaskId};
use crate::protocol::payload::{Kind, Payload};
use crate::protocol::time::Timestamp;
use crate::protocol::writer::Object;

/// A person's yes to tasks to come. It lies in the receiver's configuration, never on the share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The cluster.
    pub cluster: Uuid,
    /// The node it holds for.
    pub node: NodeName,
    /// Its own id, a uuid of version 7; its file's name is free.
    pub id: TaskId,
    /// The principal whose key signed, 1 to 256 bytes.
    pub author: String,
    /// Why, 1 byte to 4 KiB.
    pub reason: String,
    /// When it was made.
    pub made: Timestamp,
    /// Void from here on; a standing approval has no longest life.
    pub expires: Timestamp,
    /// The sender it answers for.
    pub from: NodeName,
    /// The profile it answers for.
    pub profile: Name,
    /// The workspace it answers for; `None` = a fresh one.
    pub workspace: Option<Name>,
    /// The highest ceiling of one task.
    pub max_cost_usd: Usd,
    /// What all tasks may cost together.
    pub total_usd: Usd,
    /// How many tasks.
    pub uses: u64,
}

impl Payload for Standing {
    const KIND: Kind = Kind::Standing;

    fn read_members(members: &mut Members<'_, '_>) -> Result<Standing, FormError> {
        Ok(Standing {
            cluster: members.required("cluster", members::uuid)?,
            node: members.required("node", members::node)?,
            id: members.required("id", members::task_id)?,
            author: members.required("author", members::text_of_bytes(1..=limits::AUTHOR_BYTES_MAX))?,
            reason: members
                .required("reason", members::text_of_bytes(1..=limits::DECISION_REASON_BYTES_MAX))?,
            made: members.required("made", members::time)?,
            expires: members.required("expires", members::time)?,
            from: members.required("from", members::node)?,
            profile: members.required("profile", members::name)?,
            workspace: members.nullable("workspace", members::name)?,
            max_cost_usd: members.required("max_cost_usd", members::money)?,
            total_usd: members.required("total_usd", members::money)?,
            uses: members.required("uses", members::count)?,
        })
    }

    fn write_members(&self, object: &mut Object<'_>) {
        object
            .put("cluster", &self.cluster)
            .put("node", &self.node)
            .put("id", &self.id)
            .put("author", &self.author)
            .put("reason", &self.reason)
            .put("made", &self.made)
            .put("expires", &self.expires)
            .put("from", &self.from)
            .put("profile", &self.profile)
            .put("workspace", &self.workspace)
            .put("max_cost_usd", &self.max_cost_usd)
            .put("total_usd", &self.total_usd)
            .put("uses", &self.uses);
    }
}
