//! Checking the ledger against itself: the file, the money, the audit chain.

use dispatch_core::protocol::names::Digest;
use dispatch_core::protocol::parts::AuditHead;
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use crate::audit::{AuditLine, CHAIN_BEGUN, NO_HEAD, named};
use crate::error::{Damage, LedgerError};
use crate::reader::Reader;

/// Lines read at a time.
const LINES: usize = 500;
/// What stands between a line's hashed bytes and its hash.
const HASH_MEMBER: &str = ",\"hash\":\"";

/// Whether the audit chain is what was written.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainCheck {
    /// Every link holds.
    Intact {
        /// How many entries there are, over all chains.
        entries: u64,
        /// The current chain's head.
        head: AuditHead,
    },
    /// The first entry that does not hold.
    Broken {
        /// Its chain.
        chain: Uuid,
        /// Its position there.
        seq: u64,
        /// What is wrong with it.
        fault: ChainBreak,
    },
}

/// What is wrong with an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainBreak {
    /// Its bytes do not have its hash.
    Altered,
    /// It does not follow the one before it: another `prev`, or a position left out.
    Unlinked,
    /// A chain that is not the first does not begin with an entry that names the end of the one before.
    NewChain,
    /// It is not the head that the ledger remembers.
    NotTheHead,
}

/// The members of a line that the check looks at.
#[derive(Deserialize)]
struct Line {
    chain: String,
    seq: u64,
    kind: String,
    data: Value,
    prev: String,
}

impl Reader {
    /// SQLite's own check of the whole file, and of every reference in it.
    ///
    /// # Errors
    /// What it finds is corruption.
    pub fn verify_file(&self) -> Result<(), LedgerError> {
        let op = "check the file";
        let report = self.one(op, "PRAGMA quick_check(1)", (), |row| row.get::<_, String>(0))?;
        match report {
            Some(report) if report != "ok" => Err(LedgerError::corrupt(Damage::File { report })),
            Some(_) | None => {
                let dangling = self.one(op, "PRAGMA foreign_key_check", (), |row| row.get::<_, String>(0))?;
                dangling.map_or(Ok(()), |table| Err(LedgerError::corrupt(Damage::Reference { table })))
            }
        }
    }

    /// Every balance is the sum of its postings, and what is reserved is the sum of the open reservations.
    ///
    /// # Errors
    /// A difference is corruption; so is a balance below nothing.
    pub fn verify_money(&self) -> Result<(), LedgerError> {
        let op = "check the balances";
        let balances = "WITH sums AS (
              SELECT key,
                     sum(CASE WHEN target = 'reserved' THEN amount WHEN source = 'reserved' THEN -amount ELSE 0 END)
                       AS reserved,
                     sum(CASE WHEN target = 'spent' THEN amount ELSE 0 END) AS spent
              FROM postings GROUP BY key)
            SELECT key FROM windows LEFT JOIN sums USING (key)
            WHERE windows.reserved <> coalesce(sums.reserved, 0) OR windows.spent <> coalesce(sums.spent, 0)
               OR windows.reserved < 0 OR windows.spent < 0
            LIMIT 1";
        if let Some(window) = self.one(op, balances, (), |row| row.get(0))? {
            return Err(LedgerError::corrupt(Damage::Balance { window }));
        }
        let reserved = "WITH sums AS (
              SELECT w.key AS key, sum(r.amount) AS amount
              FROM reservations r JOIN reservation_windows w ON w.reservation = r.id
              WHERE r.closed_at IS NULL GROUP BY w.key)
            SELECT key FROM windows LEFT JOIN sums USING (key)
            WHERE windows.reserved <> coalesce(sums.amount, 0) LIMIT 1";
        let wrong = self.one(op, reserved, (), |row| row.get(0))?;
        wrong.map_or(Ok(()), |window| Err(LedgerError::corrupt(Damage::Reserved { window })))
    }

    /// Walks the audit chain from its first entry to its head, over every new chain in it.
    ///
    /// # Errors
    /// The ledger cannot be read; a chain that does not hold is an answer.
    pub fn verify_chain(&self) -> Result<ChainCheck, LedgerError> {
        self.snapshot(|reader| {
            let mut walk = Walk { entries: 0, last: None, after: 0 };
            loop {
                let lines = reader.audit_lines(walk.after, LINES)?;
                if lines.is_empty() {
                    return Ok(walk.end(reader.head()?));
                }
                for line in &lines {
                    if let Some(fault) = walk.step(line) {
                        return Ok(ChainCheck::Broken { chain: line.chain, seq: line.seq, fault });
                    }
                }
            }
        })
    }
}

/// How far the walk along the chain has come.
struct Walk {
    entries: u64,
    last: Option<AuditHead>,
    after: u64,
}

impl Walk {
    /// Takes one entry, or says why not.
    fn step(&mut self, stored: &AuditLine) -> Option<ChainBreak> {
        let bytes_hold = stored
            .line
            .rsplit_once(HASH_MEMBER)
            .and_then(|(body, rest)| Some((Digest::of(body.as_bytes()), rest.strip_suffix("\"}")?)))
            .is_some_and(|(hash, written)| hash == stored.hash && hash.to_string() == written);
        let line = serde_json::from_str::<Line>(&stored.line)
            .ok()
            .filter(|line| bytes_hold && line.seq == stored.seq && line.chain == stored.chain.to_string());
        let Some(line) = line else { return Some(ChainBreak::Altered) };
        let follows = self.last.filter(|last| last.chain == stored.chain);
        let prev = follows.map_or(NO_HEAD, |last| last.head);
        let seq = follows.map_or(1, |last| last.seq.saturating_add(1));
        if line.prev != prev.to_string() || line.seq != seq {
            return Some(ChainBreak::Unlinked);
        }
        if let (None, Some(last)) = (follows, self.last)
            && (line.kind != CHAIN_BEGUN
                || line.data.get("old") != Some(&named(last.chain, last.seq, last.head)))
        {
            return Some(ChainBreak::NewChain);
        }
        self.entries = self.entries.saturating_add(1);
        self.after = stored.n;
        self.last = Some(AuditHead { chain: stored.chain, seq: stored.seq, head: stored.hash });
        None
    }

    fn end(self, head: AuditHead) -> ChainCheck {
        if self.last == Some(head) {
            return ChainCheck::Intact { entries: self.entries, head };
        }
        ChainCheck::Broken { chain: head.chain, seq: head.seq, fault: ChainBreak::NotTheHead }
    }
}
