//! What exactly would run, shown to approvers: the payload `terms.v1` (protocol section 5).

use uuid::Uuid;

use crate::policy::money::Usd;
use crate::protocol::limits;
use crate::protocol::members::{self, FormError, Members};
use crate::protocol::names::{Digest, Name, NodeName, TaskId};
use crate::protocol::payload::{Kind, Payload};
use crate::protocol::time::Timestamp;
use crate::protocol::writer::Object;

/// What exactly would run, with what rights, for how much, and why a human is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The cluster.
    pub cluster: Uuid,
    /// The task's sender.
    pub from: NodeName,
    /// The node that would run it, and made these terms.
    pub to: NodeName,
    /// The task.
    pub task: TaskId,
    /// The digest of the task's payload.
    pub task_sha256: Digest,
    /// The profile that would run it.
    pub profile: Name,
    /// The kind of agent.
    pub agent: String,
    /// The digest of the command line.
    pub argv_sha256: Digest,
    /// The agent's permission mode, where it has one.
    pub permission_mode: Option<String>,
    /// The working directory; `None` = a fresh one.
    pub workspace_path: Option<String>,
    /// The backend.
    pub backend: Option<String>,
    /// What would be reserved.
    pub estimate_usd: Option<Usd>,
    /// Where it would be stopped.
    pub ceiling_usd: Option<Usd>,
    /// Why a human is asked, up to 16 reasons.
    pub gate: Vec<String>,
    /// When these terms were made.
    pub made: Timestamp,
}

impl Terms {
    /// True if the other terms say the same; when they were made does not count (protocol section 5).
    #[must_use]
    pub fn same_but_made(&self, other: &Terms) -> bool {
        Terms { made: other.made, ..self.clone() } == *other
    }
}

impl Payload for Terms {
    const KIND: Kind = Kind::Terms;

    fn read_members(members: &mut Members<'_, '_>) -> Result<Terms, FormError> {
        Ok(Terms {
            cluster: members.required("cluster", members::uuid)?,
            from: members.required("from", members::node)?,
            to: members.required("to", members::node)?,
            task: members.required("task", members::any_task_id)?,
            task_sha256: members.required("task_sha256", members::digest)?,
            profile: members.required("profile", members::name)?,
            agent: members.required("agent", members::text)?,
            argv_sha256: members.required("argv_sha256", members::digest)?,
            permission_mode: members.nullable("permission_mode", members::text)?,
            workspace_path: members.nullable("workspace_path", members::text)?,
            backend: members.nullable("backend", members::text)?,
            estimate_usd: members.nullable("estimate_usd", members::money)?,
            ceiling_usd: members.nullable("ceiling_usd", members::money)?,
            gate: members.required("gate", members::list(limits::GATE_REASONS_MAX, members::text))?,
            made: members.required("made", members::time)?,
        })
    }

    fn write_members(&self, object: &mut Object<'_>) {
        object
            .put("cluster", &self.cluster)
            .put("from", &self.from)
            .put("to", &self.to)
            .put("task", &self.task)
            .put("task_sha256", &self.task_sha256)
            .put("profile", &self.profile)
            .put("agent", &self.agent)
            .put("argv_sha256", &self.argv_sha256)
            .put("permission_mode", &self.permission_mode)
            .put("workspace_path", &self.workspace_path)
            .put("backend", &self.backend)
            .put("estimate_usd", &self.estimate_usd)
            .put("ceiling_usd", &self.ceiling_usd)
            .put("gate", &self.gate)
            .put("made", &self.made);
    }
}
