//! One transaction: fenced, all or nothing, and able to contain the failure of a part.

use std::ops::Deref;

use dispatch_core::protocol::time::Timestamp;
use rusqlite::{Transaction, TransactionBehavior};

use crate::error::LedgerError;
use crate::reader::Reader;

/// Who writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fence {
    /// The watcher's boot; it must be the newest one this ledger has held. `None` = a command that holds `watch.lock`
    /// while there is no owner (`init`, `recover`, the start of a watcher).
    pub boot: Option<u64>,
}

impl Fence {
    /// No boot: for `init`, `recover` and a watcher that is about to become the owner.
    pub const NONE: Fence = Fence { boot: None };

    /// The watcher that holds this boot.
    #[must_use]
    pub const fn of(boot: u64) -> Fence {
        Fence { boot: Some(boot) }
    }
}

/// An open transaction. Dereferences to a [`Reader`] that sees what was written in it.
#[derive(Debug)]
pub struct Tx<'l> {
    reader: &'l Reader,
    held: Transaction<'l>,
    now: Timestamp,
    boot: u64,
}

impl Deref for Tx<'_> {
    type Target = Reader;

    fn deref(&self) -> &Reader {
        self.reader
    }
}

impl<'l> Tx<'l> {
    pub(crate) fn begin(reader: &'l Reader, fence: Fence, now: Timestamp) -> Result<Tx<'l>, LedgerError> {
        let held = Transaction::new_unchecked(&reader.connection, TransactionBehavior::Immediate)
            .map_err(|source| LedgerError::sql("begin a transaction", source))?;
        // Asked inside the transaction: from here on nobody else can become the owner before it ends.
        let newest = reader.highest_held()?;
        match fence.boot {
            Some(boot) if newest != Some(boot) => Err(LedgerError::Fenced { boot, newest }),
            Some(_) | None => Ok(Tx { reader, held, now, boot: newest.unwrap_or(0) }),
        }
    }

    pub(crate) fn commit(self) -> Result<(), LedgerError> {
        self.held.commit().map_err(|source| LedgerError::sql("commit", source))
    }

    /// The moment everything in this transaction is said to happen at.
    #[must_use]
    pub const fn now(&self) -> Timestamp {
        self.now
    }

    /// The newest boot that held this ledger, 0 before the first.
    #[must_use]
    pub const fn boot(&self) -> u64 {
        self.boot
    }

    /// Does a part of the transaction that may fail by itself: when it does, what it wrote is undone, and the rest of
    /// the transaction stands.
    ///
    /// # Errors
    /// What the closure answers.
    pub fn contained<T>(
        &mut self,
        part: impl FnOnce(&mut Tx<'l>) -> Result<T, LedgerError>,
    ) -> Result<T, LedgerError> {
        self.run("mark a part", "SAVEPOINT part", ())?;
        let answer = part(self);
        if answer.is_err() {
            self.run("undo a part", "ROLLBACK TO part", ())?;
        }
        self.run("end a part", "RELEASE part", ())?;
        answer
    }
}
