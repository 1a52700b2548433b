//! Positions in senders' streams: what is missing, what came late, what was sent twice under one number (protocol 4).

use dispatch_core::protocol::names::{Digest, NodeName};
use dispatch_core::protocol::time::{DAY_MS, Timestamp};
use rusqlite::Row;
use uuid::Uuid;

use crate::column::{get, get_opt};
use crate::error::LedgerError;
use crate::reader::Reader;
use crate::tx::Tx;

/// A task lives at most 30 days; a day more for its seen row.
const POSITION_KEPT_MS: i64 = 31 * DAY_MS;

/// What a task's position in its stream says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// The next one.
    InOrder,
    /// Positions `missing_from` up to the one before this have not come yet: an open gap.
    Gap {
        /// The first of them.
        missing_from: u64,
    },
    /// It fills a gap, or a part of one.
    Late,
    /// This very message was noted before; nothing changed.
    Known,
    /// Another message stood at this position: somebody went on from a copy of the sender's state.
    Fork,
}

/// Positions of a stream that did not come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The sender.
    pub from: NodeName,
    /// Its stream.
    pub stream: Uuid,
    /// The first missing position.
    pub first: u64,
    /// The last missing position.
    pub last: u64,
    /// When a later one came.
    pub noted_at: Timestamp,
    /// When it was reported.
    pub reported_at: Option<Timestamp>,
}

impl Reader {
    /// Gaps noted at `before` or earlier that nobody has accepted, oldest first.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn open_gaps(&self, before: Timestamp) -> Result<Vec<Gap>, LedgerError> {
        let sql = "SELECT * FROM gaps WHERE accepted_at IS NULL AND noted_at <= ?1 ORDER BY noted_at, first";
        self.all("read the gaps", sql, [before.unix_ms()], read_gap)
    }

    /// The highest position that came in a stream.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn highest_position(&self, from: &NodeName, stream: Uuid) -> Result<Option<u64>, LedgerError> {
        let sql = "SELECT highest FROM streams WHERE sender = ?1 AND stream = ?2";
        self.one("read a stream", sql, (from.as_str(), stream.to_string()), |row| row.get(0))
    }
}

impl Tx<'_> {
    /// Notes the position of an accepted or refused task.
    ///
    /// # Errors
    /// The ledger cannot be written.
    pub fn note_position(
        &mut self,
        from: &NodeName,
        stream: Uuid,
        seq: u64,
        digest: Digest,
    ) -> Result<Position, LedgerError> {
        let place = (from.as_str(), stream.to_string(), seq);
        let sql = "SELECT digest FROM positions WHERE sender = ?1 AND stream = ?2 AND seq = ?3";
        let known: Option<Digest> =
            self.one("read a position", sql, (place.0, &place.1, place.2), |row| get(row, "digest"))?;
        if let Some(known) = known {
            return Ok(if known == digest { Position::Known } else { Position::Fork });
        }
        let highest = self.highest_position(from, stream)?.unwrap_or(0);
        let position = if seq > highest {
            self.advance_stream(&place, highest)?
        } else if self.fill_gap(&place)? {
            Position::Late
        } else {
            // Used before, and so long ago that its digest is forgotten: these cannot be the same bytes.
            return Ok(Position::Fork);
        };
        self.run(
            "note a position",
            "INSERT INTO positions (sender, stream, seq, digest, at) VALUES (?1, ?2, ?3, ?4, ?5)",
            (place.0, &place.1, place.2, digest.to_string(), self.now().unix_ms()),
        )?;
        Ok(position)
    }

    /// Marks a gap as reported, so that it is reported once.
    ///
    /// # Errors
    /// The ledger cannot be written.
    pub fn mark_gap_reported(&mut self, gap: &Gap) -> Result<(), LedgerError> {
        let sql = "UPDATE gaps SET reported_at = ?1 WHERE sender = ?2 AND stream = ?3 AND first = ?4";
        let params = (self.now().unix_ms(), gap.from.as_str(), gap.stream.to_string(), gap.first);
        self.run("mark a gap", sql, params).map(|_| ())
    }

    /// Accepts every open gap of a stream, or of all streams of a sender: it is no longer open, and what comes late is
    /// still [`Position::Late`]. Answers how many there were.
    ///
    /// # Errors
    /// The ledger cannot be written.
    pub fn accept_gaps(&mut self, from: &NodeName, stream: Option<Uuid>) -> Result<usize, LedgerError> {
        let sql = "UPDATE gaps SET accepted_at = ?1
                   WHERE sender = ?2 AND accepted_at IS NULL AND (?3 IS NULL OR stream = ?3)";
        let params = (self.now().unix_ms(), from.as_str(), stream.map(|stream| stream.to_string()));
        self.run("accept a gap", sql, params)
    }

    pub(crate) fn purge_positions(&mut self, upto: Timestamp) -> Result<(), LedgerError> {
        let sql = "DELETE FROM positions WHERE at <= ?1";
        self.run("purge positions", sql, [upto.plus_ms(-POSITION_KEPT_MS).unix_ms()]).map(|_| ())
    }

    fn advance_stream(&mut self, place: &(&str, String, u64), highest: u64) -> Result<Position, LedgerError> {
        let (from, stream, seq) = (place.0, &place.1, place.2);
        let sql = "INSERT INTO streams (sender, stream, highest) VALUES (?1, ?2, ?3)
                   ON CONFLICT (sender, stream) DO UPDATE SET highest = excluded.highest";
        self.run("advance a stream", sql, (from, stream, seq))?;
        let missing_from = highest.saturating_add(1);
        if missing_from >= seq {
            return Ok(Position::InOrder);
        }
        let sql = "INSERT INTO gaps (sender, stream, first, last, noted_at) VALUES (?1, ?2, ?3, ?4, ?5)";
        self.run(
            "note a gap",
            sql,
            (from, stream, missing_from, seq.saturating_sub(1), self.now().unix_ms()),
        )?;
        Ok(Position::Gap { missing_from })
    }

    /// Takes one position out of the gap it lies in. What is left keeps the gap's history, on both sides.
    fn fill_gap(&mut self, place: &(&str, String, u64)) -> Result<bool, LedgerError> {
        let (from, stream, seq) = (place.0, &place.1, place.2);
        let op = "fill a gap";
        let within =
            "SELECT first FROM gaps WHERE sender = ?1 AND stream = ?2 AND first <= ?3 AND last >= ?3";
        let first: Option<u64> = self.one(op, within, (from, stream, seq), |row| row.get(0))?;
        let Some(first) = first else { return Ok(false) };
        let after = "INSERT INTO gaps SELECT sender, stream, ?4 + 1, last, noted_at, reported_at, accepted_at
                     FROM gaps WHERE sender = ?1 AND stream = ?2 AND first = ?3 AND last > ?4";
        self.run(op, after, (from, stream, first, seq))?;
        if first == seq {
            let whole = "DELETE FROM gaps WHERE sender = ?1 AND stream = ?2 AND first = ?3";
            self.run(op, whole, (from, stream, first))?;
        } else {
            let before = "UPDATE gaps SET last = ?4 - 1 WHERE sender = ?1 AND stream = ?2 AND first = ?3";
            self.run(op, before, (from, stream, first, seq))?;
        }
        Ok(true)
    }
}

fn read_gap(row: &Row<'_>) -> rusqlite::Result<Gap> {
    Ok(Gap {
        from: get(row, "sender")?,
        stream: get(row, "stream")?,
        first: row.get("first")?,
        last: row.get("last")?,
        noted_at: get(row, "noted_at")?,
        reported_at: get_opt(row, "reported_at")?,
    })
}
