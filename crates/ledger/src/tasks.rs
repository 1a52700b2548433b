//! Tasks this node answers for: what came, where it stands, what it led to.

use std::fmt;

use dispatch_core::policy::admission::{Billing, Cost};
use dispatch_core::policy::lifecycle::{TaskEvent, TaskState};
use dispatch_core::protocol::names::{Digest, NodeName, TaskId};
use dispatch_core::protocol::result::Status;
use dispatch_core::protocol::task::Priority;
use dispatch_core::protocol::time::Timestamp;
use rusqlite::Row;
use uuid::Uuid;

use crate::column::{get, get_opt, micros, ms};
use crate::error::LedgerError;
use crate::reader::Reader;
use crate::tx::Tx;

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

impl Tx<'_> {
    /// Takes a task, in state `received`, and answers its place in the order of acceptance. The node owes an answer
    /// from the commit on. The seen-set is a call of its own.
    ///
    /// # Errors
    /// A task that is there already, or a ledger that cannot be written.
    pub fn insert_task(&mut self, new: &NewTask) -> Result<u64, LedgerError> {
        let sql = "INSERT INTO tasks (sender, id, digest, state, priority, accepted_at, created, expires, run, root,
                     parent, depth, profile, workspace, terms_sha256, gates, estimate, ceiling, billing,
                     required_approvals, max_attempts, first_line, labels)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20,
                     ?21, ?22, ?23)
                   ON CONFLICT (sender, id) DO NOTHING RETURNING n";
        let terms = &new.terms;
        let params = rusqlite::params![
            new.key.from.as_str(),
            new.key.id.to_string(),
            new.digest.to_string(),
            TaskState::Received.as_str(),
            new.priority.as_str(),
            self.now().unix_ms(),
            new.created.unix_ms(),
            new.expires.unix_ms(),
            new.run,
            new.root.to_string(),
            new.parent.map(|id| id.to_string()),
            new.depth,
            new.profile,
            new.workspace,
            terms.sha256.map(|digest| digest.to_string()),
            terms.gates,
            terms.cost.estimate_usd.map(micros).transpose()?,
            terms.cost.ceiling_usd.map(micros).transpose()?,
            terms.billing.as_str(),
            terms.required_approvals,
            new.max_attempts,
            new.first_line,
            new.labels,
        ];
        let task = self
            .one("take a task", sql, params, |row| row.get::<_, u64>(0))?
            .ok_or_else(|| LedgerError::KnownTask { key: new.key.clone() })?;
        self.keep_paper(task, "envelope", &new.envelope)?;
        self.keep_terms(task, terms)?;
        Ok(task)
    }

    /// Moves a task along its life: the only door to its state. What was filed for another directory is unfiled.
    ///
    /// # Errors
    /// An unknown task; a fact its state does not allow, which changes nothing.
    pub fn apply(&mut self, key: &TaskKey, event: TaskEvent) -> Result<TaskState, LedgerError> {
        let (task, old) = self.known_task(key)?;
        let state = old.apply(event).map_err(|source| LedgerError::Illegal { key: key.clone(), source })?;
        let refiled = filed_as(old) != filed_as(state);
        let sql = "UPDATE tasks SET state = ?2,
                     final_at = CASE WHEN ?3 THEN coalesce(final_at, ?5) ELSE final_at END,
                     queued_at = CASE WHEN ?2 = 'queued' THEN coalesce(queued_at, ?5) ELSE queued_at END,
                     filed = CASE WHEN ?4 THEN 0 ELSE filed END
                   WHERE n = ?1";
        let params = (task, state.as_str(), state.is_final(), refiled, self.now().unix_ms());
        self.run("change a task's state", sql, params)?;
        Ok(state)
    }

    /// Makes a task final, with the payload of its one result, in the transaction that makes it so.
    ///
    /// # Errors
    /// An unknown task; an event that does not end it, or that its state does not allow.
    pub fn finish(
        &mut self,
        key: &TaskKey,
        event: TaskEvent,
        status: Status,
        code: Option<&str>,
        result: &[u8],
    ) -> Result<TaskState, LedgerError> {
        let state = self.apply(key, event)?;
        let (task, _) = self.known_task(key)?;
        let sql =
            "UPDATE tasks SET status = ?2, code = ?3, wait_reason = NULL, not_before = NULL WHERE n = ?1";
        self.run("finish a task", sql, (task, status.as_str(), code))?;
        self.keep_paper(task, "result", result)?;
        Ok(state)
    }

    /// Replaces what would run: a reload changed it while the task waits. It has to be filed again, under new terms.
    ///
    /// # Errors
    /// An unknown task, or a ledger that cannot be written.
    pub fn replace_terms(&mut self, key: &TaskKey, terms: &Terms) -> Result<(), LedgerError> {
        let (task, _) = self.known_task(key)?;
        let sql = "UPDATE tasks SET terms_sha256 = ?2, gates = ?3, estimate = ?4, ceiling = ?5, billing = ?6,
                     required_approvals = ?7, filed = 0 WHERE n = ?1";
        let params = (
            task,
            terms.sha256.map(|digest| digest.to_string()),
            &terms.gates,
            terms.cost.estimate_usd.map(micros).transpose()?,
            terms.cost.ceiling_usd.map(micros).transpose()?,
            terms.billing.as_str(),
            terms.required_approvals,
        );
        self.run("replace a task's terms", sql, params)?;
        self.run("replace a task's terms", "DELETE FROM papers WHERE task = ?1 AND kind = 'terms'", [task])?;
        self.keep_terms(task, terms)
    }

    /// Changes what a task may cost: an approver allowed less, or the second look at the budget says more exactly.
    ///
    /// # Errors
    /// An unknown task, or a ledger that cannot be written.
    pub fn set_cost(&mut self, key: &TaskKey, cost: Cost) -> Result<(), LedgerError> {
        let (estimate, ceiling) =
            (cost.estimate_usd.map(micros).transpose()?, cost.ceiling_usd.map(micros).transpose()?);
        let sql = "UPDATE tasks SET estimate = ?3, ceiling = ?4 WHERE sender = ?1 AND id = ?2";
        self.change_task(key, sql, (key.from.as_str(), key.id.to_string(), estimate, ceiling))
    }

    /// Says what a queued task waits for, or that it waits for nothing any more.
    ///
    /// # Errors
    /// An unknown task, or a ledger that cannot be written.
    pub fn set_wait_reason(&mut self, key: &TaskKey, reason: Option<&str>) -> Result<(), LedgerError> {
        let sql = "UPDATE tasks SET wait_reason = ?3 WHERE sender = ?1 AND id = ?2";
        self.change_task(key, sql, (key.from.as_str(), key.id.to_string(), reason))
    }

    /// Counts a lease that came to no start and holds the next one back until then.
    ///
    /// # Errors
    /// An unknown task, or a ledger that cannot be written.
    pub fn note_launch_failure(&mut self, key: &TaskKey, not_before: Timestamp) -> Result<(), LedgerError> {
        let sql = "UPDATE tasks SET launch_failures = launch_failures + 1, not_before = ?3
                   WHERE sender = ?1 AND id = ?2";
        self.change_task(key, sql, (key.from.as_str(), key.id.to_string(), not_before.unix_ms()))
    }

    /// Holds the next lease of a task back, without counting anything; `None` lets it go.
    ///
    /// # Errors
    /// An unknown task, or a ledger that cannot be written.
    pub fn set_not_before(&mut self, key: &TaskKey, at: Option<Timestamp>) -> Result<(), LedgerError> {
        let sql = "UPDATE tasks SET not_before = ?3 WHERE sender = ?1 AND id = ?2";
        self.change_task(key, sql, (key.from.as_str(), key.id.to_string(), ms(at)))
    }

    /// Records that a task is to stop: it is never leased again. The first stop stands: it is what the result says.
    ///
    /// # Errors
    /// An unknown task, or a ledger that cannot be written.
    pub fn record_stop(&mut self, key: &TaskKey, why: &str, by: &str) -> Result<(), LedgerError> {
        let sql = "UPDATE tasks SET stop_by = CASE WHEN stop_at IS NULL THEN ?4 ELSE stop_by END,
                     stop_why = coalesce(stop_why, ?3), stop_at = coalesce(stop_at, ?5)
                   WHERE sender = ?1 AND id = ?2";
        let params = (key.from.as_str(), key.id.to_string(), why, by, self.now().unix_ms());
        self.change_task(key, sql, params)
    }

    /// Marks a task as lying where its state says. Answers false, and changes nothing, when its state has moved on to
    /// another directory meanwhile.
    ///
    /// # Errors
    /// An unknown task, or a ledger that cannot be written.
    #[must_use = "a task whose state moved on has to be filed again"]
    pub fn mark_filed(&mut self, key: &TaskKey, filed: Filed) -> Result<bool, LedgerError> {
        let (task, state) = self.known_task(key)?;
        if filed_as(state) != Some(filed) {
            return Ok(false);
        }
        self.run("mark a task as filed", "UPDATE tasks SET filed = 1 WHERE n = ?1", [task])?;
        Ok(true)
    }

    /// Marks the result of a task as published.
    ///
    /// # Errors
    /// An unknown task, or a ledger that cannot be written.
    pub fn mark_published(&mut self, key: &TaskKey) -> Result<(), LedgerError> {
        let sql = "UPDATE tasks SET published_at = coalesce(published_at, ?3), filed = 1
                   WHERE sender = ?1 AND id = ?2";
        self.change_task(key, sql, (key.from.as_str(), key.id.to_string(), self.now().unix_ms()))
    }

    /// Asks for the result of a final task to be published again (`resend`).
    ///
    /// # Errors
    /// An unknown task, or a ledger that cannot be written.
    pub fn unmark_published(&mut self, key: &TaskKey) -> Result<(), LedgerError> {
        let sql = "UPDATE tasks SET published_at = NULL WHERE sender = ?1 AND id = ?2";
        self.change_task(key, sql, (key.from.as_str(), key.id.to_string()))
    }

    /// Drops the long bytes (not the results) of tasks whose result was published at `upto` or earlier and that the
    /// seen-set has forgotten: nothing asks for them any more. Answers how many rows went.
    ///
    /// # Errors
    /// The ledger cannot be written.
    pub fn purge_papers(&mut self, upto: Timestamp) -> Result<usize, LedgerError> {
        let sql = "DELETE FROM papers WHERE kind <> 'result' AND task IN (
                     SELECT n FROM tasks WHERE published_at <= ?1
                       AND NOT EXISTS (SELECT 1 FROM seen WHERE seen.sender = tasks.sender AND seen.id = tasks.id))";
        self.run("purge papers", sql, [upto.unix_ms()])
    }

    fn keep_terms(&mut self, task: u64, terms: &Terms) -> Result<(), LedgerError> {
        self.keep_paper(task, "recipe", terms.recipe.as_bytes())?;
        terms.payload.as_deref().map_or(Ok(()), |payload| self.keep_paper(task, "terms", payload))
    }

    fn keep_paper(&mut self, task: u64, kind: &str, bytes: &[u8]) -> Result<(), LedgerError> {
        let sql = "INSERT INTO papers (task, kind, bytes) VALUES (?1, ?2, ?3)
                   ON CONFLICT (task, kind) DO UPDATE SET bytes = excluded.bytes";
        self.run("keep a task's bytes", sql, (task, kind, bytes)).map(|_| ())
    }

    fn change_task(
        &mut self,
        key: &TaskKey,
        sql: &str,
        params: impl rusqlite::Params,
    ) -> Result<(), LedgerError> {
        match self.run("change a task", sql, params)? {
            0 => Err(LedgerError::UnknownTask { key: key.clone() }),
            _ => Ok(()),
        }
    }
}

/// Where a task in this state lies on the share; final ones lie in `done/`.
const fn filed_as(state: TaskState) -> Option<Filed> {
    match state {
        TaskState::AwaitingApproval => Some(Filed::PendingAck),
        TaskState::Received | TaskState::Approved | TaskState::Queued | TaskState::Running => {
            Some(Filed::Processing)
        }
        TaskState::Succeeded | TaskState::Failed | TaskState::Rejected => None,
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
