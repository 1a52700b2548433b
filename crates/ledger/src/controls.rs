//! Sealed requests of senders, kept until they expire: one may come before its task (protocol section 5).

use dispatch_core::protocol::control::ControlVerb;
use dispatch_core::protocol::names::Digest;
use dispatch_core::protocol::time::Timestamp;
use rusqlite::Row;

use crate::column::{get, get_opt};
use crate::decisions::Recorded;
use crate::error::LedgerError;
use crate::reader::Reader;
use crate::tasks::{TaskKey, read_key};
use crate::tx::Tx;

/// A verified request of a sender, to be recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewControl {
    /// The task it is about, which may not have come yet.
    pub key: TaskKey,
    /// What is asked.
    pub verb: ControlVerb,
    /// The digest of the task it means.
    pub task_sha256: Digest,
    /// Why.
    pub reason: String,
    /// From when on it is void.
    pub expires: Timestamp,
}

/// A request that was recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlRow {
    /// What is asked.
    pub control: NewControl,
    /// When it was seen.
    pub recorded_at: Timestamp,
    /// When it was applied to its task.
    pub applied_at: Option<Timestamp>,
}

impl Reader {
    /// The request of this kind about a task.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn control(&self, key: &TaskKey, verb: ControlVerb) -> Result<Option<ControlRow>, LedgerError> {
        let sql = "SELECT * FROM controls WHERE sender = ?1 AND id = ?2 AND verb = ?3";
        self.one("read a control", sql, (key.from.as_str(), key.id.to_string(), verb.as_str()), read_control)
    }

    /// Requests that were not applied to a task yet, oldest first.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn unapplied_controls(&self) -> Result<Vec<ControlRow>, LedgerError> {
        let sql = "SELECT * FROM controls WHERE applied_at IS NULL ORDER BY recorded_at";
        self.all("read the controls", sql, (), read_control)
    }
}

impl Tx<'_> {
    /// Records a verified request. The first of a kind about a task stands.
    ///
    /// # Errors
    /// The ledger cannot be written.
    pub fn record_control(&mut self, new: &NewControl) -> Result<Recorded, LedgerError> {
        let sql = "INSERT INTO controls (sender, id, verb, task_sha256, reason, expires, recorded_at)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO NOTHING";
        let params = (
            new.key.from.as_str(),
            new.key.id.to_string(),
            new.verb.as_str(),
            new.task_sha256.to_string(),
            &new.reason,
            new.expires.unix_ms(),
            self.now().unix_ms(),
        );
        match self.run("record a control", sql, params)? {
            0 => Ok(Recorded::Known),
            _ => Ok(Recorded::New),
        }
    }

    /// Marks a request as applied to its task.
    ///
    /// # Errors
    /// The ledger cannot be written.
    pub fn mark_control_applied(&mut self, key: &TaskKey, verb: ControlVerb) -> Result<(), LedgerError> {
        let sql = "UPDATE controls SET applied_at = coalesce(applied_at, ?4)
                   WHERE sender = ?1 AND id = ?2 AND verb = ?3";
        let params = (key.from.as_str(), key.id.to_string(), verb.as_str(), self.now().unix_ms());
        self.run("mark a control", sql, params).map(|_| ())
    }

    /// Forgets requests that are void: `expires` is not after `upto`. Answers how many.
    ///
    /// # Errors
    /// The ledger cannot be written.
    pub fn purge_controls(&mut self, upto: Timestamp) -> Result<usize, LedgerError> {
        self.run("purge controls", "DELETE FROM controls WHERE expires <= ?1", [upto.unix_ms()])
    }
}

fn read_control(row: &Row<'_>) -> rusqlite::Result<ControlRow> {
    Ok(ControlRow {
        control: NewControl {
            key: read_key(row)?,
            verb: get(row, "verb")?,
            task_sha256: get(row, "task_sha256")?,
            reason: row.get("reason")?,
            expires: get(row, "expires")?,
        },
        recorded_at: get(row, "recorded_at")?,
        applied_at: get_opt(row, "applied_at")?,
    })
}
