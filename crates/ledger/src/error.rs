//! What can go wrong with the ledger, and how badly.

use std::io;
use std::path::PathBuf;

use dispatch_core::policy::lifecycle::{IllegalAttemptTransition, IllegalTransition};
use dispatch_core::policy::money::Usd;
use uuid::Uuid;

use crate::tasks::TaskKey;

/// An operation on the ledger that failed. Whatever transaction it was part of has changed nothing.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The file system refused.
    #[error("cannot {op} `{}`", path.display())]
    File {
        /// What was tried.
        op: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// SQLite refused: the disk is full, the file is locked, a rule of the schema was broken.
    #[error("cannot {op} in the ledger")]
    Sql {
        /// What was tried.
        op: &'static str,
        /// Why not.
        source: rusqlite::Error,
    },
    /// There is no file at this place.
    #[error("there is no ledger at `{}`", path.display())]
    Absent {
        /// The place.
        path: PathBuf,
    },
    /// A new ledger was wanted where a file is already.
    #[error("there is a file at `{}` already", path.display())]
    Present {
        /// The place.
        path: PathBuf,
    },
    /// The file is something else.
    #[error("`{}` is not a ledger", path.display())]
    NotALedger {
        /// The place.
        path: PathBuf,
    },
    /// Written by a newer program: reading it with this one could lose what that one knows.
    #[error("the ledger has schema {found}, and this program knows schemas up to {known}")]
    Newer {
        /// The file's schema.
        found: u32,
        /// The newest schema this program knows.
        known: u32,
    },
    /// Written by an older program, and opened for reading only, which cannot migrate it.
    #[error("the ledger has schema {found}, and reading it without its watcher needs schema {known}")]
    Older {
        /// The file's schema.
        found: u32,
        /// The schema this program reads.
        known: u32,
    },
    /// Made by `init --new-ledger` or put back by `recover`, and that work did not come to its end (protocol section 7).
    #[error("the ledger at `{}` was never completed", path.display())]
    NotWhole {
        /// The place.
        path: PathBuf,
    },
    /// What is stored cannot be true.
    #[error("the ledger is corrupt")]
    Corrupt {
        /// In what way.
        #[source]
        damage: Damage,
    },
    /// The writer is not the newest watcher that held this ledger (architecture, "Epochs").
    #[error("boot {boot} no longer owns the ledger")]
    Fenced {
        /// Who wanted to write.
        boot: u64,
        /// Who holds it, if anyone ever did.
        newest: Option<u64>,
    },
    /// No such task.
    #[error("no task {key} in the ledger")]
    UnknownTask {
        /// Its key.
        key: TaskKey,
    },
    /// The node has this task already: a bug of the caller, since the seen-set is asked first.
    #[error("task {key} is in the ledger already")]
    KnownTask {
        /// Its key.
        key: TaskKey,
    },
    /// No such attempt.
    #[error("no attempt with epoch {epoch} in the ledger")]
    UnknownAttempt {
        /// Its epoch.
        epoch: u64,
    },
    /// No such reservation.
    #[error("no reservation {id} in the ledger")]
    UnknownReservation {
        /// Its id.
        id: Uuid,
    },
    /// No such start of this node's watcher was noted.
    #[error("no boot {boot} of instance {instance} in the ledger")]
    UnknownBoot {
        /// The boot.
        boot: u64,
        /// The instance that should have noted it.
        instance: Uuid,
    },
    /// Something happened to a task that cannot have happened to it.
    #[error("task {key} cannot change so")]
    Illegal {
        /// The task.
        key: TaskKey,
        /// The rule.
        source: IllegalTransition,
    },
    /// Something happened to an attempt that cannot have happened to it.
    #[error("attempt {epoch} cannot change so")]
    IllegalAttempt {
        /// The attempt.
        epoch: u64,
        /// The rule.
        source: IllegalAttemptTransition,
    },
    /// A lease for a task that has an open attempt, or that is not in the queue.
    #[error("task {key} cannot be leased now")]
    NotLeasable {
        /// The task.
        key: TaskKey,
    },
    /// An audit entry that JSON cannot hold.
    #[error("an audit entry cannot be written as JSON")]
    Entry {
        /// Why not.
        source: serde_json::Error,
    },
    /// A negative amount, or one too large for the ledger.
    #[error("an amount of {amount} cannot be held in the ledger")]
    Amount {
        /// The amount.
        amount: Usd,
    },
}

/// In what way stored facts contradict each other or themselves.
#[derive(Debug, thiserror::Error)]
pub enum Damage {
    /// SQLite's own check of the file found something.
    #[error("SQLite's check says `{report}`")]
    File {
        /// Its first finding.
        report: String,
    },
    /// SQLite cannot read the file.
    #[error("SQLite cannot read it")]
    Unreadable {
        /// Why not.
        source: rusqlite::Error,
    },
    /// A column holds a value that is none of its kind.
    #[error("a value read to {op} is not of its kind")]
    Value {
        /// What was read.
        op: &'static str,
        /// Which column, and what is wrong.
        source: rusqlite::Error,
    },
    /// A row that is always there is not.
    #[error("a row of `{table}` is missing")]
    MissingRow {
        /// The table.
        table: &'static str,
    },
    /// A balance is not the sum of its postings, or is negative.
    #[error("the balance of window `{window}` is not the sum of its postings")]
    Balance {
        /// The window's key.
        window: String,
    },
    /// What is reserved in a window is not the sum of the open reservations there.
    #[error("what window `{window}` has reserved is not the sum of its open reservations")]
    Reserved {
        /// The window's key.
        window: String,
    },
    /// A reference leads nowhere.
    #[error("a row of `{table}` refers to a row that is not there")]
    Reference {
        /// The table.
        table: String,
    },
}

/// What a failure asks of the loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// The same again later: somebody else held the file, or the disk was full.
    Retry,
    /// It concerns one task, or one request: leave that alone, go on with the others.
    Quarantine,
    /// The ledger, or this process's right to it, is gone.
    Halt,
}

impl LedgerError {
    /// What this failure asks of the loop.
    #[must_use]
    pub fn disposition(&self) -> Disposition {
        match self {
            LedgerError::Sql { .. } if self.is_busy() || self.is_disk_full() => Disposition::Retry,
            LedgerError::Sql { .. } if self.breaks_a_rule() => Disposition::Quarantine,
            LedgerError::UnknownTask { .. }
            | LedgerError::KnownTask { .. }
            | LedgerError::UnknownAttempt { .. }
            | LedgerError::UnknownReservation { .. }
            | LedgerError::Illegal { .. }
            | LedgerError::IllegalAttempt { .. }
            | LedgerError::NotLeasable { .. }
            | LedgerError::Entry { .. }
            | LedgerError::Amount { .. } => Disposition::Quarantine,
            LedgerError::Sql { .. }
            | LedgerError::File { .. }
            | LedgerError::Absent { .. }
            | LedgerError::Present { .. }
            | LedgerError::NotALedger { .. }
            | LedgerError::Newer { .. }
            | LedgerError::Older { .. }
            | LedgerError::NotWhole { .. }
            | LedgerError::Corrupt { .. }
            | LedgerError::Fenced { .. }
            | LedgerError::UnknownBoot { .. } => Disposition::Halt,
        }
    }

    fn breaks_a_rule(&self) -> bool {
        self.sqlite_code() == Some(rusqlite::ErrorCode::ConstraintViolation)
    }

    /// True when the same operation may succeed later although nobody changes anything: the file was busy.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.sqlite_code().is_some_and(|code| {
            matches!(code, rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked)
        })
    }

    /// True when the disk has no room for the transaction.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        self.sqlite_code() == Some(rusqlite::ErrorCode::DiskFull)
    }

    /// True when the file must not be used any further.
    #[must_use]
    pub const fn is_corruption(&self) -> bool {
        matches!(self, LedgerError::Corrupt { .. })
    }

    /// True when another watcher has taken the ledger over.
    #[must_use]
    pub const fn is_fenced(&self) -> bool {
        matches!(self, LedgerError::Fenced { .. })
    }

    fn sqlite_code(&self) -> Option<rusqlite::ErrorCode> {
        if let LedgerError::Sql { source, .. } = self { source.sqlite_error_code() } else { None }
    }

    pub(crate) const fn corrupt(damage: Damage) -> LedgerError {
        LedgerError::Corrupt { damage }
    }

    /// Classes an error of SQLite: a damaged file and a damaged value are corruption, everything else is a failure.
    pub(crate) fn sql(op: &'static str, source: rusqlite::Error) -> LedgerError {
        let is_value = matches!(
            source,
            rusqlite::Error::FromSqlConversionFailure(..)
                | rusqlite::Error::IntegralValueOutOfRange(..)
                | rusqlite::Error::InvalidColumnType(..)
                | rusqlite::Error::Utf8Error(..)
        );
        if is_value {
            return LedgerError::corrupt(Damage::Value { op, source });
        }
        match source.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase) => {
                LedgerError::corrupt(Damage::Unreadable { source })
            }
            Some(_) | None => LedgerError::Sql { op, source },
        }
    }
}
