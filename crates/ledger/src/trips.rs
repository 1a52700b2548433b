//! Trips of the killswitch: a trip is a row until it is resumed (protocol section 8).

use dispatch_core::protocol::heartbeat::KillMode;
use dispatch_core::protocol::time::Timestamp;
use rusqlite::Row;

use crate::column::get;
use crate::error::LedgerError;
use crate::reader::Reader;
use crate::tx::Tx;

/// A trip that was not resumed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TripRow {
    /// Where the killswitch stood: `root`, `node`, or a lane's name.
    pub scope: String,
    /// What it stops.
    pub mode: KillMode,
    /// The text in it.
    pub reason: String,
    /// When it was found.
    pub at: Timestamp,
}

impl Reader {
    /// Trips that were not resumed, oldest first.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn open_trips(&self) -> Result<Vec<TripRow>, LedgerError> {
        self.all("read the trips", "SELECT * FROM trips WHERE resumed_at IS NULL ORDER BY n", (), read_trip)
    }
}

impl Tx<'_> {
    /// Records that a killswitch was found. Where that scope is tripped already, `halt` may become `kill`, never the
    /// other way round. Answers true when that changed something.
    ///
    /// # Errors
    /// The ledger cannot be written.
    pub fn trip(&mut self, scope: &str, mode: KillMode, reason: &str) -> Result<bool, LedgerError> {
        let sql = "INSERT INTO trips (scope, mode, reason, at) VALUES (?1, ?2, ?3, ?4)
                   ON CONFLICT (scope) WHERE resumed_at IS NULL DO UPDATE
                     SET mode = excluded.mode, reason = excluded.reason
                     WHERE trips.mode = 'halt' AND excluded.mode = 'kill'";
        let params = (scope, mode.as_str(), reason, self.now().unix_ms());
        self.run("record a trip", sql, params).map(|changed| changed > 0)
    }

    /// Ends the trip of a scope, or of all (`None`). Answers how many there were.
    ///
    /// # Errors
    /// The ledger cannot be written.
    pub fn resume(&mut self, scope: Option<&str>, by: &str) -> Result<usize, LedgerError> {
        let sql = "UPDATE trips SET resumed_at = ?3, resumed_by = ?2
                   WHERE resumed_at IS NULL AND (?1 IS NULL OR scope = ?1)";
        self.run("resume", sql, (scope, by, self.now().unix_ms()))
    }
}

fn read_trip(row: &Row<'_>) -> rusqlite::Result<TripRow> {
    Ok(TripRow {
        scope: row.get("scope")?,
        mode: get(row, "mode")?,
        reason: row.get("reason")?,
        at: get(row, "at")?,
    })
}
