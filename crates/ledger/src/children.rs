//! Tasks that this node sends for tasks it runs: forwarded ones, and those that agents ask for.
//!
//! A child exists from the transaction that makes its row; sealing and publishing it follow, as often as a crash demands.

use dispatch_core::policy::money::Usd;
use dispatch_core::protocol::names::{Digest, NodeName, TaskId};
use dispatch_core::protocol::result::Status;
use dispatch_core::protocol::time::Timestamp;
use rusqlite::Row;
use uuid::Uuid;

use crate::column::{get, get_opt, micros};
use crate::error::LedgerError;
use crate::reader::Reader;
use crate::tx::Tx;

/// Why a child was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChildKind {
    /// It stands in an executor's place: its result is its attempt's.
    Forwarded,
    /// The agent of an attempt asked for it.
    Sent,
}

impl ChildKind {
    /// The word in the ledger, and in the audit.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            ChildKind::Forwarded => "forwarded",
            ChildKind::Sent => "sent",
        }
    }

    /// The kind of that word.
    #[must_use]
    pub fn parse(text: &str) -> Option<ChildKind> {
        [ChildKind::Forwarded, ChildKind::Sent].into_iter().find(|kind| kind.as_str() == text)
    }
}

/// A child to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewChild {
    /// Its own id, freshly drawn.
    pub id: TaskId,
    /// The node that is to run it.
    pub receiver: NodeName,
    /// Why it is made.
    pub kind: ChildKind,
    /// The attempt it is made in.
    pub epoch: u64,
    /// The id of that attempt's task.
    pub parent: TaskId,
    /// How many tasks it may send itself.
    pub fanout: u32,
    /// What it and everything below it may cost; `None` is no bound.
    pub budget_usd: Option<Usd>,
    /// What is set aside for it; `None` where its attempt's reservation holds it, or it has no bound.
    pub reservation: Option<Uuid>,
    /// Its payload, but for its place in a stream.
    pub payload: Vec<u8>,
    /// Until when its answer can come.
    pub answer_by: Timestamp,
}

/// A child as the ledger has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildRow {
    /// Its id.
    pub id: TaskId,
    /// The node that is to run it.
    pub receiver: NodeName,
    /// Why it was made.
    pub kind: ChildKind,
    /// The attempt it was made in.
    pub epoch: u64,
    /// The id of that attempt's task.
    pub parent: TaskId,
    /// How many tasks it may send itself.
    pub fanout: u32,
    /// What it and everything below it may cost.
    pub budget_usd: Option<Usd>,
    /// What is set aside for it.
    pub reservation: Option<Uuid>,
    /// Until when its answer can come.
    pub answer_by: Timestamp,
    /// When it was made.
    pub made_at: Timestamp,
    /// When it was sealed and kept in the sender's outbox; `None` = not yet.
    pub kept_at: Option<Timestamp>,
    /// The digest of its payload as it was sealed.
    pub task_sha256: Option<Digest>,
    /// When its answer was believed, or given up; `None` = it is open.
    pub ended_at: Option<Timestamp>,
    /// What the answer said; `None` with an end: none came in time.
    pub status: Option<Status>,
}

const CHILD: &str =
    "SELECT id, receiver, kind, epoch, parent, fanout, budget, reservation, answer_by, made_at,
                     kept_at, task_sha256, ended_at, status FROM children";

impl Reader {
    /// A child.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn child(&self, id: TaskId) -> Result<Option<ChildRow>, LedgerError> {
        self.one("read a child", &format!("{CHILD} WHERE id = ?1"), [id.to_string()], read_child)
    }

    /// The children of a task, whichever attempt made them, oldest first.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn children_of(&self, parent: TaskId) -> Result<Vec<ChildRow>, LedgerError> {
        let sql = format!("{CHILD} WHERE parent = ?1 ORDER BY n");
        self.all("read the children", &sql, [parent.to_string()], read_child)
    }

    /// The children of one attempt, oldest first.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn children_of_attempt(&self, epoch: u64) -> Result<Vec<ChildRow>, LedgerError> {
        let sql = format!("{CHILD} WHERE epoch = ?1 ORDER BY n");
        self.all("read the children", &sql, [epoch], read_child)
    }

    /// Children without an answer, oldest first.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn open_children(&self) -> Result<Vec<ChildRow>, LedgerError> {
        let sql = format!("{CHILD} INDEXED BY children_open WHERE ended_at IS NULL ORDER BY n");
        self.all("read the open children", &sql, (), read_child)
    }

    /// How many of the tasks that a task may send are used up: one for each child, and what that may send itself.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn fanout_given(&self, parent: TaskId) -> Result<i64, LedgerError> {
        // A forwarded child is the task itself, at another node: what it may send, the task may not send here any more.
        let sql = "SELECT coalesce(sum(fanout + 1), 0) FROM children WHERE parent = ?1";
        Ok(self.one("count the children", sql, [parent.to_string()], |row| row.get(0))?.unwrap_or(0))
    }

    /// A child's own payload, but for its place in a stream.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn child_payload(&self, id: TaskId) -> Result<Option<Vec<u8>>, LedgerError> {
        let sql = "SELECT payload FROM children WHERE id = ?1";
        self.one("read a child", sql, [id.to_string()], |row| row.get(0))
    }

    /// The payload of a child's answer, where one was believed lately.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn child_result(&self, id: TaskId) -> Result<Option<Vec<u8>>, LedgerError> {
        let sql = "SELECT result FROM children WHERE id = ?1";
        Ok(self.one("read a child's answer", sql, [id.to_string()], |row| row.get(0))?.flatten())
    }
}

impl Tx<'_> {
    /// Makes a child: from here on it is sent, whatever happens.
    ///
    /// # Errors
    /// An id that was used, an unknown attempt, or a ledger that cannot be written.
    pub fn insert_child(&mut self, new: &NewChild) -> Result<(), LedgerError> {
        let sql = "INSERT INTO children (id, receiver, kind, epoch, parent, fanout, budget, reservation, payload, answer_by, made_at)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";
        let params = (
            new.id.to_string(),
            new.receiver.as_str(),
            new.kind.as_str(),
            new.epoch,
            new.parent.to_string(),
            new.fanout,
            new.budget_usd.map(micros).transpose()?,
            new.reservation.map(|id| id.to_string()),
            &new.payload,
            new.answer_by.unix_ms(),
            self.now().unix_ms(),
        );
        self.run("make a child", sql, params).map(|_| ())
    }

    /// Notes that a child is sealed and kept in the sender's outbox. Noting it again changes nothing; true the first time.
    ///
    /// # Errors
    /// The ledger cannot be written.
    pub fn mark_child_kept(&mut self, id: TaskId, task_sha256: Digest) -> Result<bool, LedgerError> {
        let sql = "UPDATE children SET kept_at = ?2, task_sha256 = ?3 WHERE id = ?1 AND kept_at IS NULL";
        let params = (id.to_string(), self.now().unix_ms(), task_sha256.to_string());
        Ok(self.run("note a child", sql, params)? > 0)
    }

    /// Ends a child: with the answer that was believed, or without one. Ending it again changes nothing; true the first
    /// time.
    ///
    /// # Errors
    /// The ledger cannot be written.
    pub fn end_child(
        &mut self,
        id: TaskId,
        status: Option<Status>,
        result: Option<&[u8]>,
    ) -> Result<bool, LedgerError> {
        let sql =
            "UPDATE children SET ended_at = ?2, status = ?3, result = ?4 WHERE id = ?1 AND ended_at IS NULL";
        let params = (id.to_string(), self.now().unix_ms(), status.map(Status::as_str), result);
        Ok(self.run("end a child", sql, params)? > 0)
    }

    /// Forgets the answers of children that ended at `upto` or earlier: their agents are long over. Answers how many.
    ///
    /// # Errors
    /// The ledger cannot be written.
    pub fn purge_child_results(&mut self, upto: Timestamp) -> Result<usize, LedgerError> {
        let sql = "UPDATE children SET result = NULL WHERE result IS NOT NULL AND ended_at <= ?1";
        self.run("purge answers of children", sql, [upto.unix_ms()])
    }
}

fn read_child(row: &Row<'_>) -> rusqlite::Result<ChildRow> {
    Ok(ChildRow {
        id: get(row, "id")?,
        receiver: get(row, "receiver")?,
        kind: get(row, "kind")?,
        epoch: row.get("epoch")?,
        parent: get(row, "parent")?,
        fanout: row.get("fanout")?,
        budget_usd: get_opt(row, "budget")?,
        reservation: get_opt(row, "reservation")?,
        answer_by: get(row, "answer_by")?,
        made_at: get(row, "made_at")?,
        kept_at: get_opt(row, "kept_at")?,
        task_sha256: get_opt(row, "task_sha256")?,
        ended_at: get_opt(row, "ended_at")?,
        status: get_opt(row, "status")?,
    })
}
