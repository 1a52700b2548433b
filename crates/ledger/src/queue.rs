//! What a pass asks about many tasks at once: short rows, without the long bytes.

use dispatch_core::policy::admission::{Billing, Cost};
use dispatch_core::policy::lifecycle::TaskState;
use dispatch_core::protocol::names::{NodeName, TaskId};
use dispatch_core::protocol::result::Status;
use dispatch_core::protocol::task::Priority;
use dispatch_core::protocol::time::Timestamp;
use rusqlite::Row;
use uuid::Uuid;

use crate::column::{get, get_opt, ms};
use crate::error::LedgerError;
use crate::reader::Reader;
use crate::tasks::{Stop, TaskKey, TaskRow, read_cost, read_key, read_stop, read_task};

/// A task that could be leased: queued, or running and between two attempts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueuedTask {
    /// Its key.
    pub key: TaskKey,
    /// Its place in the order of acceptance.
    pub order_no: u64,
    /// `queued`, or `running` between attempts.
    pub state: TaskState,
    /// How urgent its sender says it is.
    pub priority: Priority,
    /// When it was taken.
    pub accepted_at: Timestamp,
    /// From when on it must not start any more.
    pub expires: Timestamp,
    /// Its budget batch.
    pub run: Option<String>,
    /// The first task of its lineage.
    pub root: TaskId,
    /// Which profile runs it.
    pub profile: String,
    /// What it may cost.
    pub cost: Cost,
    /// How it is paid for.
    pub billing: Billing,
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
    /// What it waits for without a reservation.
    pub wait_reason: Option<String>,
    /// The reservation of its next attempt.
    pub reservation: Option<Uuid>,
}

/// What a pass needs to know to move a task's files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskBrief {
    /// Its key.
    pub key: TaskKey,
    /// Its place in the order of acceptance.
    pub order_no: u64,
    /// Where it is in its life.
    pub state: TaskState,
    /// Its result's status, when it is final.
    pub status: Option<Status>,
    /// When it was taken.
    pub accepted_at: Timestamp,
    /// From when on it must not start any more.
    pub expires: Timestamp,
    /// The stop that was asked for.
    pub stop: Option<Stop>,
    /// The epoch of its open attempt.
    pub open_epoch: Option<u64>,
    /// True once it lies where its state says.
    pub filed: bool,
    /// When it became final.
    pub final_at: Option<Timestamp>,
    /// When its result was published.
    pub published_at: Option<Timestamp>,
}

/// How many tasks of a sender are in a state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateCount {
    /// The sender.
    pub from: NodeName,
    /// The state.
    pub state: TaskState,
    /// How many.
    pub count: u64,
}

/// Which tasks a list shows; what is `None` does not narrow it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskFilter {
    /// In this state.
    pub state: Option<TaskState>,
    /// With this status.
    pub status: Option<Status>,
    /// From this node.
    pub from: Option<NodeName>,
    /// Taken at this moment or later.
    pub since: Option<Timestamp>,
    /// At most so many; `None` = all.
    pub limit: Option<u32>,
}

// Where SQLite would rather walk over every task there ever was, `INDEXED BY` keeps a pass to those that are open.
const BRIEF: &str = "sender, id, n, state, status, accepted_at, expires, stop_why, stop_by, stop_at, open_epoch, filed, \
                     final_at, published_at";

impl Reader {
    /// Every task that could be leased now, in order of acceptance: not those in back-off, nor those with an open
    /// attempt. A recorded stop does not hide it: somebody has to end it.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn queue(&self, now: Timestamp) -> Result<Vec<QueuedTask>, LedgerError> {
        self.queued(now.unix_ms())
    }

    /// As [`Reader::queue`], with those in back-off.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn whole_queue(&self) -> Result<Vec<QueuedTask>, LedgerError> {
        self.queued(i64::MAX)
    }

    /// When the first task expires that was never started, or that has run and waits for the money of its next attempt.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn next_expiry(&self) -> Result<Option<Timestamp>, LedgerError> {
        let sql = "SELECT min(expires) AS at FROM tasks INDEXED BY tasks_open
                   WHERE final_at IS NULL AND open_epoch IS NULL
                     AND (attempts_started = 0 OR (billing = 'metered' AND reservation IS NULL))";
        Ok(self.one("read the next expiry", sql, (), |row| get_opt(row, "at"))?.flatten())
    }

    /// When the first task in back-off may be leased again.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn next_due(&self, now: Timestamp) -> Result<Option<Timestamp>, LedgerError> {
        let sql = "SELECT min(not_before) AS at FROM tasks INDEXED BY tasks_open
                   WHERE final_at IS NULL AND open_epoch IS NULL AND not_before > ?1";
        Ok(self.one("read the end of a back-off", sql, [now.unix_ms()], |row| get_opt(row, "at"))?.flatten())
    }

    /// Tasks that wait for a person, oldest first.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn waiting(&self) -> Result<Vec<TaskRow>, LedgerError> {
        let sql = "SELECT * FROM tasks WHERE state = 'awaiting_approval' AND final_at IS NULL ORDER BY n";
        self.all("read what waits for a person", sql, (), read_task)
    }

    /// Tasks that are not final and do not lie yet where their state says, oldest first, at most `limit`.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn unfiled(&self, limit: usize) -> Result<Vec<TaskBrief>, LedgerError> {
        self.briefs("WHERE filed = 0 AND final_at IS NULL", limit)
    }

    /// Final tasks whose result is not published, oldest first, at most `limit`.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn unpublished(&self, limit: usize) -> Result<Vec<TaskBrief>, LedgerError> {
        self.briefs("WHERE final_at IS NOT NULL AND published_at IS NULL", limit)
    }

    /// Every task that is not final, oldest first: what the share must hold files of.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn open_tasks(&self) -> Result<Vec<TaskBrief>, LedgerError> {
        self.briefs("INDEXED BY tasks_open WHERE final_at IS NULL", usize::MAX)
    }

    /// A task, in short.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn brief(&self, key: &TaskKey) -> Result<Option<TaskBrief>, LedgerError> {
        let sql = format!("SELECT {BRIEF} FROM tasks WHERE sender = ?1 AND id = ?2");
        self.one("read a task", &sql, (key.from.as_str(), key.id.to_string()), read_brief)
    }

    /// Tasks for a list, newest first.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn tasks(&self, filter: &TaskFilter) -> Result<Vec<TaskRow>, LedgerError> {
        let sql = "SELECT * FROM tasks
                   WHERE (?1 IS NULL OR state = ?1) AND (?2 IS NULL OR status = ?2) AND (?3 IS NULL OR sender = ?3)
                     AND (?4 IS NULL OR accepted_at >= ?4)
                   ORDER BY n DESC LIMIT ?5";
        let params = (
            filter.state.map(TaskState::as_str),
            filter.status.map(Status::as_str),
            filter.from.as_ref().map(NodeName::as_str),
            ms(filter.since),
            filter.limit.map_or(i64::MAX, i64::from),
        );
        self.all("list tasks", sql, params, read_task)
    }

    /// How many tasks that are not final each sender has in each state: what a lane's places and backpressure count.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn open_counts(&self) -> Result<Vec<StateCount>, LedgerError> {
        self.counted("INDEXED BY tasks_open WHERE final_at IS NULL")
    }

    /// How many tasks each sender has in each state, final ones too.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn counts(&self) -> Result<Vec<StateCount>, LedgerError> {
        self.counted("")
    }

    fn queued(&self, upto: i64) -> Result<Vec<QueuedTask>, LedgerError> {
        let sql = "SELECT sender, id, n, state, priority, accepted_at, expires, run, root, profile, estimate, ceiling,
                     billing, max_attempts, attempts_started, launch_failures, not_before, stop_why, stop_by, stop_at,
                     wait_reason, reservation
                   FROM tasks
                   WHERE state IN ('queued', 'running') AND final_at IS NULL AND open_epoch IS NULL
                     AND (not_before IS NULL OR not_before <= ?1)
                   ORDER BY n";
        self.all("read the queue", sql, [upto], read_queued)
    }

    fn briefs(&self, which: &str, limit: usize) -> Result<Vec<TaskBrief>, LedgerError> {
        let sql = format!("SELECT {BRIEF} FROM tasks {which} ORDER BY n LIMIT ?1");
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.all("read tasks in short", &sql, [limit], read_brief)
    }

    fn counted(&self, which: &str) -> Result<Vec<StateCount>, LedgerError> {
        let sql = format!("SELECT sender, state, count(*) AS many FROM tasks {which} GROUP BY sender, state");
        self.all("count tasks", &sql, (), |row| {
            Ok(StateCount { from: get(row, "sender")?, state: get(row, "state")?, count: row.get("many")? })
        })
    }
}

fn read_queued(row: &Row<'_>) -> rusqlite::Result<QueuedTask> {
    Ok(QueuedTask {
        key: read_key(row)?,
        order_no: row.get("n")?,
        state: get(row, "state")?,
        priority: get(row, "priority")?,
        accepted_at: get(row, "accepted_at")?,
        expires: get(row, "expires")?,
        run: row.get("run")?,
        root: get(row, "root")?,
        profile: row.get("profile")?,
        cost: read_cost(row)?,
        billing: get(row, "billing")?,
        max_attempts: row.get("max_attempts")?,
        attempts_started: row.get("attempts_started")?,
        launch_failures: row.get("launch_failures")?,
        not_before: get_opt(row, "not_before")?,
        stop: read_stop(row)?,
        wait_reason: row.get("wait_reason")?,
        reservation: get_opt(row, "reservation")?,
    })
}

fn read_brief(row: &Row<'_>) -> rusqlite::Result<TaskBrief> {
    Ok(TaskBrief {
        key: read_key(row)?,
        order_no: row.get("n")?,
        state: get(row, "state")?,
        status: get_opt(row, "status")?,
        accepted_at: get(row, "accepted_at")?,
        expires: get(row, "expires")?,
        stop: read_stop(row)?,
        open_epoch: row.get("open_epoch")?,
        filed: row.get("filed")?,
        final_at: get_opt(row, "final_at")?,
        published_at: get_opt(row, "published_at")?,
    })
}
