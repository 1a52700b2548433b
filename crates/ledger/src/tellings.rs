//! What people are told: each thing once, over all starts of the watcher.
//!
//! A telling is made in the transaction that makes it true, and taken in one that is committed before the program is
//! started: a crash in between leaves it taken and not ended, and nobody is told twice.

use dispatch_core::protocol::names::NodeName;
use dispatch_core::protocol::result::Status;
use dispatch_core::protocol::time::Timestamp;
use rusqlite::Row;

use crate::column::{get, get_opt};
use crate::error::LedgerError;
use crate::reader::Reader;
use crate::tasks::{TaskRow, read_task};
use crate::tx::Tx;

/// Something a person is to be told, or was being told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TellingRow {
    /// Its number, ascending in the order of making.
    pub n: u64,
    /// What kind of thing it is.
    pub kind: String,
    /// Which one of its kind.
    pub name: String,
    /// What the program gets on its standard input.
    pub document: String,
    /// When it became true.
    pub made_at: Timestamp,
    /// When it was handed to the program.
    pub taken_at: Option<Timestamp>,
}

/// What became of a telling that was to be made.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Made {
    /// It is due.
    Due,
    /// It was known before: nobody is told again.
    Known,
    /// Too many are due: it counts as over, and nobody is told.
    Dropped,
}

/// How many final tasks ended with a status and a reason code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutcomeCount {
    /// The status.
    pub status: Status,
    /// The reason code, where there was something to say.
    pub code: Option<String>,
    /// How many.
    pub count: u64,
}

impl Reader {
    /// Tellings that are not over, oldest first: due ones and those that were handed to the program.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn open_tellings(&self) -> Result<Vec<TellingRow>, LedgerError> {
        let sql = "SELECT * FROM tellings INDEXED BY tellings_open WHERE ended_at IS NULL ORDER BY n";
        self.all("read what people are to be told", sql, (), read_telling)
    }

    /// True when a telling of that kind and name was ever made.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn is_telling_known(&self, kind: &str, name: &str) -> Result<bool, LedgerError> {
        let sql = "SELECT 1 FROM tellings WHERE kind = ?1 AND name = ?2";
        Ok(self.one("look for a telling", sql, (kind, name), |_| Ok(()))?.is_some())
    }

    /// Tasks that wait for a person and of which nobody was told under that kind, oldest first, at most `limit`.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn untold_waiting(&self, kind: &str, limit: usize) -> Result<Vec<TaskRow>, LedgerError> {
        let sql = "SELECT * FROM tasks WHERE state = 'awaiting_approval' AND final_at IS NULL
                     AND NOT EXISTS (SELECT 1 FROM tellings WHERE kind = ?1 AND name = sender || '/' || id)
                   ORDER BY n LIMIT ?2";
        self.all("look for what nobody was told of", sql, (kind, limit), read_task)
    }

    /// How many final tasks ended with each status and reason code.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn outcomes(&self) -> Result<Vec<OutcomeCount>, LedgerError> {
        let sql = "SELECT status, code, count(*) AS many FROM tasks INDEXED BY tasks_outcomes
                   WHERE final_at IS NOT NULL AND status IS NOT NULL GROUP BY status, code";
        self.all("count outcomes", sql, (), |row| {
            Ok(OutcomeCount { status: get(row, "status")?, code: row.get("code")?, count: row.get("many")? })
        })
    }

    /// Peers of which the telling `gone` was made and `back`, under the same name, was not. A name begins with the peer's
    /// and a slash.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn told_gone(&self, gone: &str, back: &str) -> Result<Vec<(NodeName, String)>, LedgerError> {
        let sql = "SELECT substr(name, 1, instr(name, '/') - 1) AS peer, name FROM tellings
                   WHERE kind = ?1 AND instr(name, '/') > 1 AND name NOT IN (SELECT name FROM tellings WHERE kind = ?2)";
        self.all("look for peers that were told to be gone", sql, (gone, back), |row| {
            Ok((get(row, "peer")?, row.get("name")?))
        })
    }
}

impl Tx<'_> {
    /// Makes a telling, unless it was ever made before; over at once where `open_max` others are not over.
    ///
    /// # Errors
    /// The ledger cannot be written.
    pub fn make_telling(
        &mut self,
        kind: &str,
        name: &str,
        document: &str,
        open_max: u64,
    ) -> Result<Made, LedgerError> {
        let sql = "INSERT INTO tellings (kind, name, document, made_at, ended_at)
                   SELECT ?1, ?2, ?3, ?4, CASE WHEN
                     (SELECT count(*) FROM tellings INDEXED BY tellings_open WHERE ended_at IS NULL) >= ?5
                     THEN ?4 END
                   WHERE NOT EXISTS (SELECT 1 FROM tellings WHERE kind = ?1 AND name = ?2)
                   RETURNING ended_at";
        let params = (kind, name, document, self.now().unix_ms(), open_max);
        let made = self.one("make a telling", sql, params, |row| row.get::<_, Option<i64>>(0))?;
        Ok(match made {
            None => Made::Known,
            Some(None) => Made::Due,
            Some(Some(_)) => Made::Dropped,
        })
    }

    /// Notes that something of this kind and name was written down, and tells nobody. True the first time, over all starts
    /// of the watcher.
    ///
    /// # Errors
    /// The ledger cannot be written.
    pub fn note_once(&mut self, kind: &str, name: &str) -> Result<bool, LedgerError> {
        Ok(self.make_telling(kind, name, "{}", 0)? != Made::Known)
    }

    /// Marks a telling as handed to the program.
    ///
    /// # Errors
    /// The ledger cannot be written.
    pub fn take_telling(&mut self, n: u64) -> Result<(), LedgerError> {
        let sql = "UPDATE tellings SET taken_at = ?2 WHERE n = ?1";
        self.run("take a telling", sql, (n, self.now().unix_ms())).map(|_| ())
    }

    /// Marks a telling as over.
    ///
    /// # Errors
    /// The ledger cannot be written.
    pub fn end_telling(&mut self, n: u64) -> Result<(), LedgerError> {
        let sql = "UPDATE tellings SET ended_at = ?2 WHERE n = ?1";
        self.run("end a telling", sql, (n, self.now().unix_ms())).map(|_| ())
    }

    /// Forgets tellings that were over at `upto` or earlier. Answers how many.
    ///
    /// # Errors
    /// The ledger cannot be written.
    pub fn purge_tellings(&mut self, upto: Timestamp) -> Result<usize, LedgerError> {
        self.run("purge tellings", "DELETE FROM tellings WHERE ended_at <= ?1", [upto.unix_ms()])
    }
}

fn read_telling(row: &Row<'_>) -> rusqlite::Result<TellingRow> {
    Ok(TellingRow {
        n: row.get("n")?,
        kind: row.get("kind")?,
        name: row.get("name")?,
        document: row.get("document")?,
        made_at: get(row, "made_at")?,
        taken_at: get_opt(row, "taken_at")?,
    })
}
