//! Starts of this node's watcher: noted before their record is published, held once it stood unopposed (protocol 7).

use dispatch_core::protocol::time::Timestamp;
use rusqlite::Row;
use uuid::Uuid;

use crate::column::{get, get_opt};
use crate::error::LedgerError;
use crate::reader::Reader;
use crate::tx::Tx;

/// A start of the watcher, to be noted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewBoot {
    /// Its number.
    pub boot: u64,
    /// The uuid drawn at this start.
    pub instance: Uuid,
    /// Which start of the machine this is.
    pub host_boot_id: String,
    /// Device of `watch.lock`.
    pub dev: u64,
    /// Inode of `watch.lock`.
    pub ino: u64,
}

/// A start of the watcher that was noted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootRow {
    /// What was noted.
    pub boot: NewBoot,
    /// When.
    pub noted_at: Timestamp,
    /// When it became the owner; `None` = it never did.
    pub held_at: Option<Timestamp>,
}

impl Reader {
    /// The newest boot that became the owner of this node.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn highest_held(&self) -> Result<Option<u64>, LedgerError> {
        let sql = "SELECT max(boot) FROM boots WHERE held_at IS NOT NULL";
        Ok(self.one("read the boots", sql, (), |row| row.get(0))?.flatten())
    }

    /// The start that drew this instance, if it was one of this ledger.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn boot_of(&self, instance: Uuid) -> Result<Option<BootRow>, LedgerError> {
        let sql = "SELECT * FROM boots WHERE instance = ?1";
        self.one("read a boot", sql, [instance.to_string()], read_boot)
    }

    /// The starts noted under a number. More than one is possible: a start that crashed before it published its record.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn noted(&self, boot: u64) -> Result<Vec<BootRow>, LedgerError> {
        let sql = "SELECT * FROM boots WHERE boot = ?1 ORDER BY noted_at";
        self.all("read a boot", sql, [boot], read_boot)
    }

    /// All starts, newest first, at most `limit`.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn boots(&self, limit: usize) -> Result<Vec<BootRow>, LedgerError> {
        let sql = "SELECT * FROM boots ORDER BY boot DESC, noted_at DESC LIMIT ?1";
        self.all("read the boots", sql, [limit], read_boot)
    }
}

impl Tx<'_> {
    /// Notes a start, before anything of it is published.
    ///
    /// # Errors
    /// An instance that was noted already, or a ledger that cannot be written.
    pub fn note_boot(&mut self, boot: &NewBoot) -> Result<(), LedgerError> {
        let sql = "INSERT INTO boots (instance, boot, host_boot, dev, ino, noted_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        let params = (
            boot.instance.to_string(),
            boot.boot,
            &boot.host_boot_id,
            boot.dev.to_string(),
            boot.ino.to_string(),
            self.now().unix_ms(),
        );
        self.run("note a boot", sql, params).map(|_| ())
    }

    /// Makes a noted start the owner: from now on only its writes pass the fence.
    ///
    /// # Errors
    /// [`LedgerError::Fenced`] unless its number is above every boot held before; an instance that noted no such boot.
    pub fn hold_boot(&mut self, boot: u64, instance: Uuid) -> Result<(), LedgerError> {
        let newest = self.highest_held()?;
        if newest.is_some_and(|held| held >= boot) {
            return Err(LedgerError::Fenced { boot, newest });
        }
        let sql = "UPDATE boots SET held_at = ?1 WHERE boot = ?2 AND instance = ?3";
        match self.run("hold a boot", sql, (self.now().unix_ms(), boot, instance.to_string()))? {
            0 => Err(LedgerError::UnknownBoot { boot, instance }),
            _ => Ok(()),
        }
    }
}

fn read_boot(row: &Row<'_>) -> rusqlite::Result<BootRow> {
    let number = |name: &str| -> rusqlite::Result<u64> {
        row.get::<_, String>(name)?
            .parse()
            .map_err(|_| rusqlite::Error::InvalidColumnType(0, name.to_owned(), rusqlite::types::Type::Text))
    };
    Ok(BootRow {
        boot: NewBoot {
            boot: row.get("boot")?,
            instance: get(row, "instance")?,
            host_boot_id: row.get("host_boot")?,
            dev: number("dev")?,
            ino: number("ino")?,
        },
        noted_at: get(row, "noted_at")?,
        held_at: get_opt(row, "held_at")?,
    })
}
