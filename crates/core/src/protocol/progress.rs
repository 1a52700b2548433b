//! How far a task is: the payload `progress.v1` (protocol section 6).

use uuid::Uuid;

use crate::policy::money::Usd;
use crate::protocol::members::{self, FormError, Members};
use crate::protocol::names::{NodeName, TaskId};
use crate::protocol::payload::{Kind, Payload};
use crate::protocol::time::Timestamp;
use crate::protocol::writer::Object;

crate::protocol::words::words! {
    /// Where a task is that is not final.
    pub enum Phase {
        /// It waits for a place.
        Queued = "queued",
        /// It waits for a human.
        Waiting = "waiting",
        /// Its agent runs.
        Running = "running",
    }
}

/// How far a task is; replaced while it waits and runs. `None` where unknown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The cluster.
    pub cluster: Uuid,
    /// The task's sender.
    pub from: NodeName,
    /// The node that has the task.
    pub to: NodeName,
    /// The task.
    pub task: TaskId,
    /// The epoch of the running attempt; 0 before the first.
    pub epoch: u64,
    /// Counts the replacements.
    pub seq: u64,
    /// When it was made.
    pub at: Timestamp,
    /// Where the task is.
    pub phase: Phase,
    /// Place in the queue, from 1.
    pub position: Option<u64>,
    /// Milliseconds since the agent started.
    pub elapsed_ms: Option<u64>,
    /// Turns of the agent.
    pub turns: Option<u64>,
    /// The tool it used last.
    pub last_tool: Option<String>,
    /// Tokens so far.
    pub tokens: Option<u64>,
    /// Cost so far.
    pub usd: Option<Usd>,
    /// The last line of its output.
    pub last_line: Option<String>,
}

impl Payload for Progress {
    const KIND: Kind = Kind::Progress;

    fn read_members(members: &mut Members<'_, '_>) -> Result<Progress, FormError> {
        Ok(Progress {
            cluster: members.required("cluster", members::uuid)?,
            from: members.required("from", members::node)?,
            to: members.required("to", members::node)?,
            task: members.required("task", members::task_id)?,
            epoch: members.required("epoch", members::count)?,
            seq: members.required("seq", members::count)?,
            at: members.required("at", members::time)?,
            phase: members.required("phase", members::word)?,
            position: members.nullable("position", members::count)?,
            elapsed_ms: members.nullable("elapsed_ms", members::count)?,
            turns: members.nullable("turns", members::count)?,
            last_tool: members.nullable("last_tool", members::text)?,
            tokens: members.nullable("tokens", members::count)?,
            usd: members.nullable("usd", members::money)?,
            last_line: members.nullable("last_line", members::text)?,
        })
    }

    fn write_members(&self, object: &mut Object<'_>) {
        object
            .put("cluster", &self.cluster)
            .put("from", &self.from)
            .put("to", &self.to)
            .put("task", &self.task)
            .put("epoch", &self.epoch)
            .put("seq", &self.seq)
            .put("at", &self.at)
            .put("phase", &self.phase)
            .put("position", &self.position)
            .put("elapsed_ms", &self.elapsed_ms)
            .put("turns", &self.turns)
            .put("last_tool", &self.last_tool)
            .put("tokens", &self.tokens)
            .put("usd", &self.usd)
            .put("last_line", &self.last_line);
    }
}
