//! Requests of the local door that were applied, and what still has to be published besides results.

use dispatch_core::protocol::time::Timestamp;
use rusqlite::Row;
use uuid::Uuid;

use crate::column::get;
use crate::error::LedgerError;
use crate::reader::Reader;
use crate::tx::Tx;

/// Something to be published. The ledger gives it back until it is marked published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxRow {
    /// Its number, ascending in the order of making.
    pub n: u64,
    /// What it is.
    pub kind: String,
    /// What it is published as; one of a kind at most under each name.
    pub name: String,
    /// Its payload.
    pub payload: Vec<u8>,
    /// When it was made.
    pub made_at: Timestamp,
}

impl Reader {
    /// The reply to a request that was applied: the same again, however often it is asked (architecture, "the local door").
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn reply(&self, request: Uuid) -> Result<Option<String>, LedgerError> {
        let sql = "SELECT reply FROM requests WHERE id = ?1";
        self.one("read a reply", sql, [request.to_string()], |row| row.get(0))
    }

    /// What has to be published, oldest first, at most `limit`.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn outbox(&self, limit: usize) -> Result<Vec<OutboxRow>, LedgerError> {
        let sql = "SELECT * FROM outbox WHERE published_at IS NULL ORDER BY n LIMIT ?1";
        self.all("read the outbox", sql, [limit], read_outbox)
    }
}

impl Tx<'_> {
    /// Stores the reply to a request in the transaction that applies it.
    ///
    /// # Errors
    /// A request that was answered before, or a ledger that cannot be written.
    pub fn answer_request(&mut self, request: Uuid, verb: &str, reply: &str) -> Result<(), LedgerError> {
        let sql = "INSERT INTO requests (id, verb, reply, applied_at) VALUES (?1, ?2, ?3, ?4)";
        let params = (request.to_string(), verb, reply, self.now().unix_ms());
        self.run("answer a request", sql, params).map(|_| ())
    }

    /// Forgets replies to requests applied at `upto` or earlier. Answers how many.
    ///
    /// # Errors
    /// The ledger cannot be written.
    pub fn purge_replies(&mut self, upto: Timestamp) -> Result<usize, LedgerError> {
        self.run("purge replies", "DELETE FROM requests WHERE applied_at <= ?1", [upto.unix_ms()])
    }

    /// Puts something into the outbox, in the transaction that makes it due. What was there under the same kind and
    /// name is replaced and has to be published again.
    ///
    /// # Errors
    /// The ledger cannot be written.
    pub fn push_outbox(&mut self, kind: &str, name: &str, payload: &[u8]) -> Result<(), LedgerError> {
        let sql = "INSERT INTO outbox (kind, name, payload, made_at) VALUES (?1, ?2, ?3, ?4)
                   ON CONFLICT (kind, name) DO UPDATE SET payload = excluded.payload, made_at = excluded.made_at,
                     published_at = NULL";
        self.run("put into the outbox", sql, (kind, name, payload, self.now().unix_ms())).map(|_| ())
    }

    /// Marks something of the outbox as published, unless it was replaced since it was read.
    ///
    /// # Errors
    /// The ledger cannot be written.
    pub fn mark_sent(&mut self, row: &OutboxRow) -> Result<(), LedgerError> {
        let sql = "UPDATE outbox SET published_at = ?3 WHERE n = ?1 AND payload = ?2";
        self.run("mark the outbox", sql, (row.n, &row.payload, self.now().unix_ms())).map(|_| ())
    }
}

fn read_outbox(row: &Row<'_>) -> rusqlite::Result<OutboxRow> {
    Ok(OutboxRow {
        n: row.get("n")?,
        kind: row.get("kind")?,
        name: row.get("name")?,
        payload: row.get("payload")?,
        made_at: get(row, "made_at")?,
    })
}
