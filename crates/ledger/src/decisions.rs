//! Decisions of people, recorded when they are seen and consumed once (protocol section 5).

use dispatch_core::policy::money::Usd;
use dispatch_core::protocol::decision::DecisionOutcome;
use dispatch_core::protocol::names::Digest;
use dispatch_core::protocol::time::Timestamp;
use rusqlite::Row;

use crate::column::{get, get_opt, micros};
use crate::error::LedgerError;
use crate::reader::Reader;
use crate::tasks::TaskKey;
use crate::tx::Tx;

/// A verified decision, to be recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewDecision {
    /// The task it is about.
    pub key: TaskKey,
    /// The principal whose key signed.
    pub author: String,
    /// The first 16 digits of the digest of that key.
    pub key16: String,
    /// Yes or no.
    pub outcome: DecisionOutcome,
    /// Why.
    pub reason: String,
    /// When its author decided.
    pub decided_at: Timestamp,
    /// From when on it is void.
    pub expires: Timestamp,
    /// The terms it is bound to.
    pub terms_sha256: Digest,
    /// The most the task may cost.
    pub max_cost_usd: Option<Usd>,
    /// The signed bytes.
    pub payload: Vec<u8>,
}

/// A decision that was recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecisionRow {
    /// Its number, ascending in the order of recording.
    pub n: u64,
    /// What was decided.
    pub decision: NewDecision,
    /// When it was seen.
    pub recorded_at: Timestamp,
    /// When it was consumed.
    pub consumed_at: Option<Timestamp>,
}

/// Whether a decision is a new one.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// It is.
    New,
    /// The same bytes were recorded before; nothing changed.
    Known,
}

impl Reader {
    /// All decisions about a task, in the order they were recorded.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn decisions(&self, key: &TaskKey) -> Result<Vec<DecisionRow>, LedgerError> {
        let sql = "SELECT decisions.*, tasks.sender AS sender, tasks.id AS id FROM decisions
                   JOIN tasks ON tasks.n = decisions.task
                   WHERE tasks.sender = ?1 AND tasks.id = ?2 ORDER BY decisions.n";
        self.all("read decisions", sql, (key.from.as_str(), key.id.to_string()), read_decision)
    }

    /// The last decision of each principal about a task, by `decided_at`; of two at the same moment the one recorded
    /// later. Which of them count (terms, expiry) is for the rules to say.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn latest_decisions(&self, key: &TaskKey) -> Result<Vec<DecisionRow>, LedgerError> {
        let mut latest: Vec<DecisionRow> = Vec::new();
        for row in self.decisions(key)? {
            match latest.iter_mut().find(|held| held.decision.author == row.decision.author) {
                Some(held) if held.decision.decided_at <= row.decision.decided_at => *held = row,
                Some(_) => {}
                None => latest.push(row),
            }
        }
        Ok(latest)
    }
}

impl Tx<'_> {
    /// Records a verified decision; its file may be removed afterwards.
    ///
    /// # Errors
    /// An unknown task, a negative amount, or a ledger that cannot be written.
    pub fn record_decision(&mut self, new: &NewDecision) -> Result<Recorded, LedgerError> {
        let (task, _) = self.known_task(&new.key)?;
        let sql =
            "INSERT INTO decisions (task, author, key16, outcome, reason, decided_at, expires, terms_sha256,
                     max_cost, payload, payload_sha256, recorded_at)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
                   ON CONFLICT (task, payload_sha256) DO NOTHING";
        let params = (
            task,
            &new.author,
            &new.key16,
            new.outcome.as_str(),
            &new.reason,
            new.decided_at.unix_ms(),
            new.expires.unix_ms(),
            new.terms_sha256.to_string(),
            new.max_cost_usd.map(micros).transpose()?,
            &new.payload,
            Digest::of(&new.payload).to_string(),
            self.now().unix_ms(),
        );
        match self.run("record a decision", sql, params)? {
            0 => Ok(Recorded::Known),
            _ => Ok(Recorded::New),
        }
    }

    /// Marks decisions as used. One that was used before stays as it was.
    ///
    /// # Errors
    /// The ledger cannot be written.
    pub fn consume_decisions(&mut self, numbers: &[u64]) -> Result<(), LedgerError> {
        let sql = "UPDATE decisions SET consumed_at = ?2 WHERE n = ?1 AND consumed_at IS NULL";
        let at = self.now().unix_ms();
        numbers.iter().try_for_each(|number| self.run("consume a decision", sql, (number, at)).map(|_| ()))
    }
}

fn read_decision(row: &Row<'_>) -> rusqlite::Result<DecisionRow> {
    Ok(DecisionRow {
        n: row.get("n")?,
        decision: NewDecision {
            key: crate::tasks::read_key(row)?,
            author: row.get("author")?,
            key16: row.get("key16")?,
            outcome: get(row, "outcome")?,
            reason: row.get("reason")?,
            decided_at: get(row, "decided_at")?,
            expires: get(row, "expires")?,
            terms_sha256: get(row, "terms_sha256")?,
            max_cost_usd: get_opt(row, "max_cost")?,
            payload: row.get("payload")?,
        },
        recorded_at: get(row, "recorded_at")?,
        consumed_at: get_opt(row, "consumed_at")?,
    })
}
