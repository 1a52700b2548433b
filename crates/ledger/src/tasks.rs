//! Tasks this node answers for: what came, where it stands, what it led to.

use std::fmt;

use dispatch_core::policy::admission::{Billing, Cost};
use dispatch_core::policy::lifecycle::TaskState;
use dispatch_core::protocol::names::{Digest, NodeName, TaskId};
use dispatch_core::protocol::result::Status;
use dispatch_core::protocol::task::Priority;
use dispatch_core::protocol::time::Timestamp;
use rusqlite::Row;
use uuid::Uuid;

use crate::column::{get, get_opt};
use crate::error::LedgerError;
use crate::reader::Reader;

/// A task's key everywhere: another peer that copies an id gets a different task (protocol section 1).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskKey {
    /// The node it came from.
    pub from: NodeName,
    /// Its id.
    pub id: TaskId,
}

impl fmt::Display for TaskKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} from {}", self.id, self.from)
    }
}

/// What exactly would run, resolved on acceptance (protocol section 5). Opaque but for what is asked of it often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The recipe it is launched from, whatever the configuration says later.
    pub recipe: String,
    /// The payload of the sealed terms that approvers see; `None` where nothing gates it.
    pub payload: Option<Vec<u8>>,
    /// The digest of that payload.
    pub sha256: Option<Digest>,
    /// Why it waits for a person, as JSON text: a list of words.
    pub gates: String,
    /// What it may cost.
    pub cost: Cost,
    /// How it is paid for.
    pub billing: Billing,
    /// How many people have to say yes.
    pub required_approvals: u32,
}

/// A task to be taken: its state begins at `received`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTask {
    /// Its key.
    pub key: TaskKey,
    /// The digest of its payload bytes.
    pub digest: Digest,
    /// The file as it came, byte for byte.
    pub envelope: Vec<u8>,
    /// How urgent its sender says it is.
    pub priority: Priority,
    /// When its sender says it was made.
    pub created: Timestamp,
    /// From when on it must not start any more.
    pub expires: Timestamp,
    /// Its budget batch.
    pub run: Option<String>,
    /// The first task of its lineage; its own id for a task that no task sent.
    pub root: TaskId,
    /// The task that sent it.
    pub parent: Option<TaskId>,
    /// How many tasks stand between it and the root.
    pub depth: u32,
    /// Which of this node's profiles runs it.
    pub profile: String,
    /// In which of this node's working directories; `None` = a fresh one.
    pub workspace: Option<String>,
    /// How often it may be started.
    pub max_attempts: u32,
    /// What would run; for a task that is refused, what is known of it.
    pub terms: Terms,
    /// The first line of the request, shortened, for lists.
    pub first_line: String,
    /// Its labels, as JSON text.
    pub labels: String,
}

/// A stop that was asked for: the task is never leased again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stop {
    /// `cancelled` or `killed`.
    pub why: String,
    /// Who asked: a node, or the name a person gave.
    pub by: String,
    /// When.
    pub at: Timestamp,
}

/// Where a task that is not final lies on the share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filed {
    /// In `pending-ack/`: it waits for a person.
    PendingAck,
    /// In `processing/`.
    Processing,
}

/// A task as the ledger has it, without its long bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskRow {
    /// Its key.
    pub key: TaskKey,
    /// Its place in the order of acceptance.
    pub order_no: u64,
    /// The digest of its payload bytes.
    pub digest: Digest,
    /// Where it is in its life.
    pub state: TaskState,
    /// Its result's status, when it is final.
    pub status: Option<Status>,
    /// Its result's reason code, when there is something to say.
    pub code: Option<String>,
    /// How urgent its sender says it is.
    pub priority: Priority,
    /// When it was taken.
    pub accepted_at: Timestamp,
    /// When its sender says it was made.
    pub created: Timestamp,
    /// From when on it must not start any more.
    pub expires: Timestamp,
    /// Its budget batch.
    pub run: Option<String>,
    /// The first task of its lineage.
    pub root: TaskId,
    /// The task that sent it.
    pub parent: Option<TaskId>,
    /// How many tasks stand between it and the root.
    pub depth: u32,
    /// Which profile runs it.
    pub profile: String,
    /// In which working directory; `None` = a fresh one.
    pub workspace: Option<String>,
    /// The digest of the terms a person decides on.
    pub terms_sha256: Option<Digest>,
    /// Why it waits for a person, as JSON text.
    pub gates: String,
    /// What it may cost.
    pub cost: Cost,
    /// How it is paid for.
    pub billing: Billing,
    /// How many people have to say yes.
    pub required_approvals: u32,
    /// How often it may be started.
    pub max_attempts: u32,
    /// How often it was started.
    pub attempts_started: u32,
    /// Leases in a row that came to no start.
    pub launch_failures: u32,
    /// Back-off: not leased before then.
    pub not_before: Option<Timestamp>,
    /// The stop that was asked for.
    pub stop: Option<Stop>,
    /// What it waits for while it is queued without a reservation.
    pub wait_reason: Option<String>,
    /// The open reservation of its next or present attempt.
    pub reservation: Option<Uuid>,
    /// The epoch of its open attempt.
    pub open_epoch: Option<u64>,
    /// When it first joined the queue.
    pub queued_at: Option<Timestamp>,
    /// When it became final.
    pub final_at: Option<Timestamp>,
    /// True once it lies where its state says and its inbox file is gone.
    pub filed: bool,
    /// When its result was published.
    pub published_at: Option<Timestamp>,
    /// The first line of the request, for lists.
    pub first_line: String,
    /// Its labels, as JSON text.
    pub labels: String,
}

impl Reader {
    /// A task.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn task(&self, key: &TaskKey) -> Result<Option<TaskRow>, LedgerError> {
        let sql = "SELECT * FROM tasks WHERE sender = ?1 AND id = ?2";
        self.one("read a task", sql, (key.from.as_str(), key.id.to_string()), read_task)
    }

    /// The tasks of that id, whoever sent them, oldest first.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn tasks_of_id(&self, id: TaskId) -> Result<Vec<TaskRow>, LedgerError> {
        let sql = "SELECT * FROM tasks WHERE id = ?1 ORDER BY n";
        self.all("read the tasks of an id", sql, [id.to_string()], read_task)
    }

    /// The tasks whose id begins or ends with `part` (hexadecimal digits and hyphens), newest first, at most `limit`.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn tasks_named(&self, part: &str, limit: usize) -> Result<Vec<TaskRow>, LedgerError> {
        // Nothing else can be in an id, and so nothing reaches the pattern that means more than itself.
        if part.is_empty() || !part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'-')) {
            return Ok(Vec::new());
        }
        let sql = "SELECT * FROM tasks WHERE id LIKE ?1 OR id LIKE ?2 ORDER BY n DESC LIMIT ?3";
        self.all("look for a task", sql, (format!("{part}%"), format!("%{part}"), limit), read_task)
    }

    /// The file a task came in, byte for byte.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn envelope(&self, key: &TaskKey) -> Result<Option<Vec<u8>>, LedgerError> {
        self.paper(key, "envelope")
    }

    /// What a task is launched from.
    ///
    /// # Errors
    /// The ledger cannot be read, or holds no text there.
    pub fn recipe(&self, key: &TaskKey) -> Result<Option<String>, LedgerError> {
        let sql = "SELECT CAST(bytes AS TEXT) FROM papers JOIN tasks ON n = task
                   WHERE sender = ?1 AND id = ?2 AND kind = 'recipe'";
        self.one("read a recipe", sql, (key.from.as_str(), key.id.to_string()), |row| row.get(0))
    }

    /// The payload of a task's sealed terms.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn terms(&self, key: &TaskKey) -> Result<Option<Vec<u8>>, LedgerError> {
        self.paper(key, "terms")
    }

    /// The payload of a task's result.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn result(&self, key: &TaskKey) -> Result<Option<Vec<u8>>, LedgerError> {
        self.paper(key, "result")
    }

    fn paper(&self, key: &TaskKey, kind: &str) -> Result<Option<Vec<u8>>, LedgerError> {
        let sql =
            "SELECT bytes FROM papers JOIN tasks ON n = task WHERE sender = ?1 AND id = ?2 AND kind = ?3";
        self.one("read a task's bytes", sql, (key.from.as_str(), key.id.to_string(), kind), |row| row.get(0))
    }

    /// A task that must be there, by its row number and state.
    pub(crate) fn known_task(&self, key: &TaskKey) -> Result<(u64, TaskState), LedgerError> {
        let sql = "SELECT n, state FROM tasks WHERE sender = ?1 AND id = ?2";
        let params = (key.from.as_str(), key.id.to_string());
        self.one("read a task", sql, params, |row| Ok((row.get("n")?, get(row, "state")?)))?
            .ok_or_else(|| LedgerError::UnknownTask { key: key.clone() })
    }
}

pub(crate) fn read_key(row: &Row<'_>) -> rusqlite::Result<TaskKey> {
    Ok(TaskKey { from: get(row, "sender")?, id: get(row, "id")? })
}

pub(crate) fn read_cost(row: &Row<'_>) -> rusqlite::Result<Cost> {
    Ok(Cost { ceiling_usd: get_opt(row, "ceiling")?, estimate_usd: get_opt(row, "estimate")? })
}

pub(crate) fn read_stop(row: &Row<'_>) -> rusqlite::Result<Option<Stop>> {
    let Some(why) = row.get("stop_why")? else { return Ok(None) };
    Ok(Some(Stop { why, by: row.get("stop_by")?, at: get(row, "stop_at")? }))
}

pub(crate) fn read_task(row: &Row<'_>) -> rusqlite::Result<TaskRow> {
    Ok(TaskRow {
        key: read_key(row)?,
        order_no: row.get("n")?,
        digest: get(row, "digest")?,
        state: get(row, "state")?,
        status: get_opt(row, "status")?,
        code: row.get("code")?,
        priority: get(row, "priority")?,
        accepted_at: get(row, "accepted_at")?,
        created: get(row, "created")?,
        expires: get(row, "expires")?,
        run: row.get("run")?,
        root: get(row, "root")?,
        parent: get_opt(row, "parent")?,
        depth: row.get("depth")?,
        profile: row.get("profile")?,
        workspace: row.get("workspace")?,
        terms_sha256: get_opt(row, "terms_sha256")?,
        gates: row.get("gates")?,
        cost: read_cost(row)?,
        billing: get(row, "billing")?,
        required_approvals: row.get("required_approvals")?,
        max_attempts: row.get("max_attempts")?,
        attempts_started: row.get("attempts_started")?,
        launch_failures: row.get("launch_failures")?,
        not_before: get_opt(row, "not_before")?,
        stop: read_stop(row)?,
        wait_reason: row.get("wait_reason")?,
        reservation: get_opt(row, "reservation")?,
        open_epoch: row.get("open_epoch")?,
        queued_at: get_opt(row, "queued_at")?,
        final_at: get_opt(row, "final_at")?,
        filed: row.get("filed")?,
        published_at: get_opt(row, "published_at")?,
        first_line: row.get("first_line")?,
        labels: row.get("labels")?,
    })
}
