//! How often standing approvals were used, and for what (policy section 3).

use dispatch_core::policy::money::Usd;
use dispatch_core::policy::standing::StandingUsed;
use dispatch_core::protocol::names::TaskId;
use dispatch_core::protocol::time::Timestamp;

use crate::column::{get, micros};
use crate::error::LedgerError;
use crate::reader::Reader;
use crate::tasks::TaskKey;
use crate::tx::Tx;

/// A standing approval that was used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StandingRow {
    /// Its id.
    pub id: TaskId,
    /// Whose yes it is.
    pub author: String,
    /// Tasks it answered for.
    pub uses: u64,
    /// Estimates of those tasks.
    pub total: Usd,
    /// When it last answered.
    pub last_at: Timestamp,
}

impl Reader {
    /// Standing approvals that were used, in the order of their ids.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn standings(&self) -> Result<Vec<StandingRow>, LedgerError> {
        self.all("read the standing approvals", "SELECT * FROM standings ORDER BY id", (), |row| {
            Ok(StandingRow {
                id: get(row, "id")?,
                author: row.get("author")?,
                uses: row.get("uses")?,
                total: get(row, "total")?,
                last_at: get(row, "last_at")?,
            })
        })
    }

    /// What of a standing approval is used up.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn standing_used(&self, id: TaskId) -> Result<StandingUsed, LedgerError> {
        let sql = "SELECT uses, total FROM standings WHERE id = ?1";
        let used = self.one("read a standing approval", sql, [id.to_string()], |row| {
            Ok(StandingUsed { total_usd: get(row, "total")?, uses: row.get("uses")? })
        })?;
        Ok(used.unwrap_or_default())
    }

    /// Whose standing approvals answered for a task.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn standing_authors(&self, key: &TaskKey) -> Result<Vec<String>, LedgerError> {
        let sql = "SELECT standings.author FROM standing_answers
                   JOIN standings ON standings.id = standing_answers.standing
                   JOIN tasks ON tasks.n = standing_answers.task
                   WHERE tasks.sender = ?1 AND tasks.id = ?2 ORDER BY standing_answers.standing";
        self.all("read who answered", sql, (key.from.as_str(), key.id.to_string()), |row| row.get(0))
    }
}

impl Tx<'_> {
    /// Notes that a standing approval answered for a task, and what of it is used up then.
    ///
    /// # Errors
    /// An unknown task, one that it answered for before, or a ledger that cannot be written.
    pub fn use_standing(
        &mut self,
        key: &TaskKey,
        id: TaskId,
        author: &str,
        used: StandingUsed,
    ) -> Result<(), LedgerError> {
        let (task, _) = self.known_task(key)?;
        let now = self.now().unix_ms();
        let sql = "INSERT INTO standings (id, author, uses, total, last_at) VALUES (?1, ?2, ?3, ?4, ?5)
                   ON CONFLICT (id) DO UPDATE SET uses = excluded.uses, total = excluded.total,
                     last_at = excluded.last_at";
        let params = (id.to_string(), author, used.uses, micros(used.total_usd)?, now);
        self.run("use a standing approval", sql, params)?;
        let sql = "INSERT INTO standing_answers (task, standing, at) VALUES (?1, ?2, ?3)";
        self.run("use a standing approval", sql, (task, id.to_string(), now)).map(|_| ())
    }
}
