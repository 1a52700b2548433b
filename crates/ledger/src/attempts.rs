//! Attempts: the right to run a task once, under an epoch that is never given again (architecture, "Epochs").

use dispatch_core::policy::lifecycle::{AttemptEvent, AttemptState, TaskEvent, TaskState};
use dispatch_core::policy::money::Usd;
use dispatch_core::protocol::names::{Digest, TaskId};
use dispatch_core::protocol::parts::CostBasis;
use dispatch_core::protocol::result::Status;
use dispatch_core::protocol::time::Timestamp;
use rusqlite::Row;
use uuid::Uuid;

use crate::column::{get, get_opt, micros, ms};
use crate::error::LedgerError;
use crate::meta::Counter;
use crate::reader::Reader;
use crate::tasks::{TaskKey, read_key};
use crate::tx::Tx;

/// A lease to be given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewLease {
    /// The task.
    pub key: TaskKey,
    /// What the sweep finds its processes by.
    pub mark: String,
    /// The money set aside for it; `None` where it costs nothing.
    pub reservation: Option<Uuid>,
    /// The digest of the token that its agent may send tasks with; `None` where it may send none.
    pub token_sha256: Option<Digest>,
    /// The task of another node that stands in an executor's place; `None` where this node runs it.
    pub child: Option<TaskId>,
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptEnd {
    /// When its agent was started; `None` = it never was. Counts as a start where none was noted before.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Timestamp,
    /// Its status; `None` = not started.
    pub status: Option<Status>,
    /// What it cost; `None` where that has no meaning.
    pub cost: Option<Usd>,
    /// Where that figure comes from.
    pub basis: Option<CostBasis>,
    /// Its `outcome.json`, or what stands for it.
    pub outcome: String,
}

/// Whether an outcome ended its attempt.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It did: settle it in this transaction.
    Ended,
    /// It was ended before; nothing changed.
    Before,
    /// The attempt was revoked, or a newer one exists: kept as evidence, settles nothing.
    Superseded,
}

/// An attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptRow {
    /// Its fencing number.
    pub epoch: u64,
    /// Its task.
    pub key: TaskKey,
    /// Which start of the task it is or would be, from 1.
    pub n: u32,
    /// Where it is in its life.
    pub state: AttemptState,
    /// What the sweep finds its processes by.
    pub mark: String,
    /// The money set aside for it.
    pub reservation: Option<Uuid>,
    /// The digest of the token that its agent may send tasks with.
    pub token_sha256: Option<Digest>,
    /// The task of another node that stands in an executor's place.
    pub child: Option<TaskId>,
    /// What its executor was told, once that was made.
    pub order_json: Option<String>,
    /// When it was leased.
    pub leased_at: Timestamp,
    /// When its agent was started.
    pub started_at: Option<Timestamp>,
    /// When it ended or was revoked.
    pub ended_at: Option<Timestamp>,
    /// The executor's process id and start time, when they are known.
    pub executor: Option<(u32, u64)>,
    /// Its status, when it ended and was started.
    pub status: Option<Status>,
    /// What it cost.
    pub cost: Option<Usd>,
    /// Where that figure comes from.
    pub basis: Option<CostBasis>,
    /// Its outcome, or what came of a superseded one.
    pub outcome: Option<String>,
}

const ATTEMPT: &str = "SELECT attempts.*, tasks.sender AS sender, tasks.id AS id FROM attempts \
                       JOIN tasks ON tasks.n = attempts.task";

impl Reader {
    /// Attempts that are leased or started, forwarded ones included.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn open_attempts(&self) -> Result<Vec<AttemptRow>, LedgerError> {
        // Every pass asks this: never over all attempts there ever were.
        let sql = "SELECT attempts.*, tasks.sender AS sender, tasks.id AS id
                   FROM attempts INDEXED BY attempts_open JOIN tasks ON tasks.n = attempts.task
                   WHERE attempts.state IN ('leased', 'started') ORDER BY epoch";
        self.all("read the open attempts", sql, (), read_attempt)
    }

    /// Those of them that an executor of this node runs: what `max_parallel` counts.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn open_runs(&self) -> Result<Vec<AttemptRow>, LedgerError> {
        let mut open = self.open_attempts()?;
        open.retain(|attempt| attempt.child.is_none());
        Ok(open)
    }

    /// An attempt.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn attempt(&self, epoch: u64) -> Result<Option<AttemptRow>, LedgerError> {
        let sql = format!("{ATTEMPT} WHERE epoch = ?1");
        self.one("read an attempt", &sql, [epoch], read_attempt)
    }

    /// The attempt whose agent holds the token of that digest, open or not.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn attempt_of_token(&self, token_sha256: Digest) -> Result<Option<AttemptRow>, LedgerError> {
        let sql = format!("{ATTEMPT} WHERE token_sha256 = ?1");
        self.one("read an attempt", &sql, [token_sha256.to_string()], read_attempt)
    }

    /// All attempts of a task, oldest first.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn attempts(&self, key: &TaskKey) -> Result<Vec<AttemptRow>, LedgerError> {
        let sql = format!("{ATTEMPT} WHERE tasks.sender = ?1 AND tasks.id = ?2 ORDER BY epoch");
        self.all("read a task's attempts", &sql, (key.from.as_str(), key.id.to_string()), read_attempt)
    }

    fn known_attempt(&self, epoch: u64) -> Result<AttemptRow, LedgerError> {
        self.attempt(epoch)?.ok_or(LedgerError::UnknownAttempt { epoch })
    }

    fn newest_epoch(&self, key: &TaskKey) -> Result<Option<u64>, LedgerError> {
        let sql = "SELECT max(epoch) FROM attempts JOIN tasks ON tasks.n = attempts.task
                   WHERE tasks.sender = ?1 AND tasks.id = ?2";
        let params = (key.from.as_str(), key.id.to_string());
        Ok(self.one("read a task's attempts", sql, params, |row| row.get(0))?.flatten())
    }
}

impl Tx<'_> {
    /// Gives the right to run a task once, and answers the attempt with its fresh epoch.
    ///
    /// # Errors
    /// [`LedgerError::NotLeasable`]: the task has an open attempt or a recorded stop, or is neither queued nor between
    /// attempts. An unknown task; a ledger that cannot be written.
    pub fn lease(&mut self, lease: &NewLease) -> Result<AttemptRow, LedgerError> {
        let row =
            self.task(&lease.key)?.ok_or_else(|| LedgerError::UnknownTask { key: lease.key.clone() })?;
        let in_line = matches!(row.state, TaskState::Queued | TaskState::Running);
        if !in_line || row.open_epoch.is_some() || row.stop.is_some() {
            return Err(LedgerError::NotLeasable { key: lease.key.clone() });
        }
        let epoch = self.next(Counter::Epoch)?;
        let sql =
            "INSERT INTO attempts (epoch, task, n, state, mark, reservation, leased_at, token_sha256, child)
                   VALUES (?1, ?2, ?3, 'leased', ?4, ?5, ?6, ?7, ?8)";
        let params = (
            epoch,
            row.order_no,
            row.attempts_started.saturating_add(1),
            &lease.mark,
            lease.reservation.map(|id| id.to_string()),
            self.now().unix_ms(),
            lease.token_sha256.map(|digest| digest.to_string()),
            lease.child.map(|child| child.to_string()),
        );
        self.run("lease a task", sql, params)?;
        let sql = "UPDATE tasks SET open_epoch = ?2, not_before = NULL, wait_reason = NULL WHERE n = ?1";
        self.run("lease a task", sql, (row.order_no, epoch))?;
        self.known_attempt(epoch)
    }

    /// Keeps what the executor is told. The epoch in it comes from [`Tx::lease`], so it can only be made afterwards.
    ///
    /// # Errors
    /// An unknown attempt, or a ledger that cannot be written.
    pub fn set_order(&mut self, epoch: u64, order_json: &str) -> Result<(), LedgerError> {
        let sql = "UPDATE attempts SET order_json = ?2 WHERE epoch = ?1";
        self.change_attempt(epoch, sql, (epoch, order_json))
    }

    /// Keeps which process the executor is.
    ///
    /// # Errors
    /// An unknown attempt, or a ledger that cannot be written.
    pub fn note_executor(&mut self, epoch: u64, pid: u32, start: u64) -> Result<(), LedgerError> {
        let sql = "UPDATE attempts SET pid = ?2, pid_start = ?3 WHERE epoch = ?1";
        self.change_attempt(epoch, sql, (epoch, pid, start))
    }

    /// Notes that the agent may be alive: the attempt counts, and its task runs. Noting it again changes nothing.
    ///
    /// # Errors
    /// An unknown attempt, or one that ended or was revoked.
    pub fn mark_started(&mut self, epoch: u64, at: Timestamp) -> Result<(), LedgerError> {
        let row = self.known_attempt(epoch)?;
        if row.state == AttemptState::Started {
            return Ok(());
        }
        let state = next_state(&row, AttemptEvent::Started)?;
        let sql = "UPDATE attempts SET state = ?2, started_at = ?3 WHERE epoch = ?1";
        self.change_attempt(epoch, sql, (epoch, state.as_str(), at.unix_ms()))?;
        let sql = "UPDATE tasks SET attempts_started = attempts_started + 1, launch_failures = 0
                   WHERE sender = ?1 AND id = ?2";
        self.run("count a start", sql, (row.key.from.as_str(), row.key.id.to_string()))?;
        self.apply(&row.key, TaskEvent::Started).map(|_| ())
    }

    /// Ends an attempt with its outcome. Only an answer of [`Ending::Ended`] may be settled. The task's own state is
    /// another call: it may have a further attempt.
    ///
    /// # Errors
    /// An unknown attempt, or a ledger that cannot be written.
    pub fn end_attempt(&mut self, epoch: u64, end: &AttemptEnd) -> Result<Ending, LedgerError> {
        let row = self.known_attempt(epoch)?;
        if row.state == AttemptState::Ended {
            return Ok(Ending::Before);
        }
        if row.state == AttemptState::Revoked || self.newest_epoch(&row.key)? != Some(epoch) {
            let sql = "UPDATE attempts SET outcome = coalesce(outcome, ?2) WHERE epoch = ?1";
            self.change_attempt(epoch, sql, (epoch, &end.outcome))?;
            return Ok(Ending::Superseded);
        }
        if let Some(at) = end.started_at {
            self.mark_started(epoch, at)?;
        }
        let row = self.known_attempt(epoch)?;
        let state = next_state(&row, AttemptEvent::Ended)?;
        let sql =
            "UPDATE attempts SET state = ?2, ended_at = ?3, status = ?4, cost = ?5, basis = ?6, outcome = ?7
                   WHERE epoch = ?1";
        let params = (
            epoch,
            state.as_str(),
            end.ended_at.unix_ms(),
            end.status.map(Status::as_str),
            end.cost.map(micros).transpose()?,
            end.basis.map(CostBasis::as_str),
            &end.outcome,
        );
        self.change_attempt(epoch, sql, params)?;
        self.close_attempt(epoch)?;
        Ok(Ending::Ended)
    }

    /// Takes the right to run back. An executor that comes late finds `revoked` and stops; the task is in the queue
    /// again, with its reservation. Revoking again changes nothing.
    ///
    /// # Errors
    /// An unknown attempt, or one that ended.
    pub fn revoke(&mut self, epoch: u64) -> Result<(), LedgerError> {
        let row = self.known_attempt(epoch)?;
        if row.state == AttemptState::Revoked {
            return Ok(());
        }
        let state = next_state(&row, AttemptEvent::Revoked)?;
        let sql = "UPDATE attempts SET state = ?2, ended_at = ?3 WHERE epoch = ?1";
        self.change_attempt(epoch, sql, (epoch, state.as_str(), ms(Some(self.now()))))?;
        self.close_attempt(epoch)
    }

    fn close_attempt(&mut self, epoch: u64) -> Result<(), LedgerError> {
        let sql = "UPDATE tasks SET open_epoch = NULL WHERE open_epoch = ?1
                   AND n = (SELECT task FROM attempts WHERE epoch = ?1)";
        self.run("close an attempt", sql, [epoch]).map(|_| ())
    }

    fn change_attempt(
        &mut self,
        epoch: u64,
        sql: &str,
        params: impl rusqlite::Params,
    ) -> Result<(), LedgerError> {
        match self.run("change an attempt", sql, params)? {
            0 => Err(LedgerError::UnknownAttempt { epoch }),
            _ => Ok(()),
        }
    }
}

fn next_state(row: &AttemptRow, event: AttemptEvent) -> Result<AttemptState, LedgerError> {
    row.state.apply(event).map_err(|source| LedgerError::IllegalAttempt { epoch: row.epoch, source })
}

fn read_attempt(row: &Row<'_>) -> rusqlite::Result<AttemptRow> {
    let (pid, start): (Option<u32>, Option<u64>) = (row.get("pid")?, row.get("pid_start")?);
    Ok(AttemptRow {
        epoch: row.get("epoch")?,
        key: read_key(row)?,
        n: row.get("n")?,
        state: get(row, "state")?,
        mark: row.get("mark")?,
        reservation: get_opt(row, "reservation")?,
        token_sha256: get_opt(row, "token_sha256")?,
        child: get_opt(row, "child")?,
        order_json: row.get("order_json")?,
        leased_at: get(row, "leased_at")?,
        started_at: get_opt(row, "started_at")?,
        ended_at: get_opt(row, "ended_at")?,
        executor: pid.zip(start),
        status: get_opt(row, "status")?,
        cost: get_opt(row, "cost")?,
        basis: get_opt(row, "basis")?,
        outcome: row.get("outcome")?,
    })
}
