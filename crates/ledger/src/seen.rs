//! The seen-set: what must not be taken twice. It never forgets silently (protocol section 4).

use dispatch_core::protocol::names::Digest;
use dispatch_core::protocol::time::Timestamp;

use crate::column::{get, get_opt};
use crate::error::LedgerError;
use crate::reader::Reader;
use crate::tasks::TaskKey;
use crate::tx::Tx;

/// What was seen under a task's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The digest of its payload bytes: the same = `replayed`, another = `id_reused`.
    pub digest: Digest,
    /// Until when this is kept; `None` = for ever (version-2 peers).
    pub until: Option<Timestamp>,
}

impl Reader {
    /// Whether a task with this key was seen, and with which bytes.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn seen(&self, key: &TaskKey) -> Result<Option<Seen>, LedgerError> {
        let sql = "SELECT digest, until FROM seen WHERE sender = ?1 AND id = ?2";
        self.one("read the seen-set", sql, (key.from.as_str(), key.id.to_string()), |row| {
            Ok(Seen { digest: get(row, "digest")?, until: get_opt(row, "until")? })
        })
    }
}

impl Tx<'_> {
    /// Adds a key that was not seen before.
    ///
    /// # Errors
    /// [`LedgerError::KnownTask`] when it was; a ledger that cannot be written.
    pub fn insert_seen(&mut self, key: &TaskKey, seen: Seen) -> Result<(), LedgerError> {
        let sql =
            "INSERT INTO seen (sender, id, digest, until) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING";
        let until = seen.until.map(Timestamp::unix_ms);
        let params = (key.from.as_str(), key.id.to_string(), seen.digest.to_string(), until);
        match self.run("add to the seen-set", sql, params)? {
            0 => Err(LedgerError::KnownTask { key: key.clone() }),
            _ => Ok(()),
        }
    }

    /// Forgets what was to be kept until `upto` or less, and says so for ever: `forgotten_until` becomes `upto`, unless
    /// it is later already. Positions of streams noted before `upto - 31 days` go too: their tasks have expired.
    /// Answers how many keys were forgotten.
    ///
    /// # Errors
    /// The ledger cannot be written.
    pub fn purge_seen(&mut self, upto: Timestamp) -> Result<usize, LedgerError> {
        let upto_ms = upto.unix_ms();
        let gone = self.run(
            "purge the seen-set",
            "DELETE FROM seen WHERE until IS NOT NULL AND until <= ?1",
            [upto_ms],
        )?;
        let sql = "UPDATE ledger SET forgotten_until = max(coalesce(forgotten_until, ?1), ?1)";
        self.set("note what was forgotten", sql, [upto_ms])?;
        self.purge_positions(upto)?;
        Ok(gone)
    }
}
