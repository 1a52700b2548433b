//! Windows of the budget: what is reserved and spent in each, as sums of double-entry postings (policy section 1).
//!
//! Amounts are kept in whole millionths of a dollar; anything finer is rounded up.

use dispatch_core::policy::money::Usd;
use dispatch_core::policy::window::{Balance, Balances, Window, WindowKey, WindowKeys};
use dispatch_core::protocol::names::{NodeName, TaskId};
use dispatch_core::protocol::parts::CostBasis;
use dispatch_core::protocol::time::Timestamp;
use rusqlite::Row;
use uuid::Uuid;

use crate::column::{get, get_opt, micros, ms, usd};
use crate::error::LedgerError;
use crate::reader::Reader;
use crate::tx::Tx;

/// A window that was used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WindowRow {
    /// Which one.
    pub key: WindowKey,
    /// What it holds.
    pub balance: Balance,
    /// When it was first used.
    pub opened_at: Timestamp,
    /// When it was closed for good, before its time.
    pub closed_at: Option<Timestamp>,
    /// Why.
    pub closed_why: Option<String>,
}

/// What was charged in one stretch of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpendBucket {
    /// When the stretch began.
    pub start: Timestamp,
    /// What was charged in it.
    pub spent: Usd,
}

/// A movement within a window, from one of its accounts to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostingRow {
    /// When.
    pub at: Timestamp,
    /// In which window.
    pub key: WindowKey,
    /// Out of which account: `free` or `reserved`.
    pub source: String,
    /// Into which account: `free`, `reserved` or `spent`.
    pub target: String,
    /// How much.
    pub amount: Usd,
    /// For which reservation.
    pub reservation: Option<Uuid>,
    /// `reserve`, `settle`, `release` or `carry`.
    pub why: String,
    /// Where a charge comes from.
    pub basis: Option<CostBasis>,
}

/// Which movements a log shows; what is `None` does not narrow it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PostingFilter {
    /// In this window.
    pub window: Option<WindowKey>,
    /// In windows of this kind.
    pub kind: Option<Window>,
    /// Of this word: `reserve`, `settle`, `release` or `carry`.
    pub why: Option<String>,
    /// For this task.
    pub task: Option<TaskId>,
    /// At this moment or later.
    pub since: Option<Timestamp>,
    /// At most so many.
    pub limit: usize,
}

/// One movement to be posted.
pub(crate) struct Posting<'p> {
    pub(crate) window: &'p WindowKey,
    pub(crate) source: Account,
    pub(crate) target: Account,
    pub(crate) micros: i64,
    pub(crate) reservation: Option<Uuid>,
    pub(crate) why: &'static str,
    pub(crate) basis: Option<CostBasis>,
}

/// The accounts of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Account {
    Free,
    Reserved,
    Spent,
}

impl Account {
    const fn name(self) -> &'static str {
        match self {
            Account::Free => "free",
            Account::Reserved => "reserved",
            Account::Spent => "spent",
        }
    }

    /// How a movement of `amount` out of `source` into `target` changes this account.
    fn change(self, posting: &Posting<'_>) -> i64 {
        if posting.target == self {
            posting.micros
        } else if posting.source == self {
            posting.micros.saturating_neg()
        } else {
            0
        }
    }
}

impl Reader {
    /// What a task's windows hold; one that was never used holds nothing.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn balances(&self, keys: &WindowKeys) -> Result<Balances, LedgerError> {
        keys.try_map(|key| self.balance(key))
    }

    /// What a window holds.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn balance(&self, key: &WindowKey) -> Result<Balance, LedgerError> {
        Ok(self.window(key)?.map(|row| row.balance).unwrap_or_default())
    }

    /// A window, if it was used.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn window(&self, key: &WindowKey) -> Result<Option<WindowRow>, LedgerError> {
        self.one("read a window", "SELECT * FROM windows WHERE key = ?1", [key.to_string()], read_window)
    }

    /// Every window, in order of their keys' text.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn windows(&self) -> Result<Vec<WindowRow>, LedgerError> {
        self.all("read the windows", "SELECT * FROM windows ORDER BY key", (), read_window)
    }

    /// How many runs that a sender named were first used at `since` or later.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn runs_opened(&self, sender: &NodeName, since: Timestamp) -> Result<u32, LedgerError> {
        let sql = "SELECT count(*) FROM windows
                   WHERE key >= ?1 AND key < ?2 AND key NOT LIKE '%@day' AND opened_at >= ?3";
        // `0` is the character behind `/`: a range of the index, not a look at every window.
        let params = (format!("run:{sender}/"), format!("run:{sender}0"), since.unix_ms());
        Ok(self.one("count the runs", sql, params, |row| row.get(0))?.unwrap_or(0))
    }

    /// Movements, newest first. No more are read than are given out.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn postings(&self, filter: &PostingFilter) -> Result<Vec<PostingRow>, LedgerError> {
        // A window's own movements are found by its key, others by walking back from the newest.
        let in_window = if filter.window.is_some() { "key = ?1" } else { "?1 IS NULL" };
        let sql = format!(
            "SELECT * FROM postings
             WHERE {in_window} AND (?2 IS NULL OR key LIKE ?2 || ':%') AND (?3 IS NULL OR why = ?3)
               AND (?4 IS NULL OR reservation IN (SELECT id FROM reservations WHERE task = ?4))
               AND (?5 IS NULL OR at >= ?5)
             ORDER BY n DESC LIMIT ?6"
        );
        let params = (
            filter.window.as_ref().map(WindowKey::to_string),
            filter.kind.map(Window::as_str),
            &filter.why,
            filter.task.map(|id| id.to_string()),
            ms(filter.since),
            i64::try_from(filter.limit).unwrap_or(i64::MAX),
        );
        self.all("read the postings", &sql, params, read_posting)
    }

    /// What attempts were charged in a window from `since` on, in buckets of `bucket_ms`, oldest first. Buckets in which
    /// nothing was charged are left out, and so is what a lost ledger had spent: nobody knows when.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn spend_series(
        &self,
        window: &WindowKey,
        since: Timestamp,
        bucket_ms: i64,
    ) -> Result<Vec<SpendBucket>, LedgerError> {
        let sql = "SELECT at - ((at % ?3) + ?3) % ?3 AS start, sum(amount) AS spent FROM postings
                   WHERE key = ?1 AND target = 'spent' AND why = 'settle' AND at >= ?2 GROUP BY start ORDER BY start";
        self.all("read what was spent", sql, (window.to_string(), since.unix_ms(), bucket_ms.max(1)), |row| {
            Ok(SpendBucket { start: get(row, "start")?, spent: get(row, "spent")? })
        })
    }
}

impl Tx<'_> {
    /// Raises what is spent in a window to at least this much, and says by how much: spending that a lost ledger knew
    /// of (policy section 1).
    ///
    /// # Errors
    /// A negative amount, or a ledger that cannot be written.
    pub fn raise_spent(
        &mut self,
        window: &WindowKey,
        at_least: Usd,
        basis: CostBasis,
    ) -> Result<Usd, LedgerError> {
        let wanted = micros(at_least)?;
        self.open_window(window)?;
        let missing = wanted.saturating_sub(self.spent_micros(window)?).max(0);
        if missing > 0 {
            self.post(&Posting {
                window,
                source: Account::Free,
                target: Account::Spent,
                micros: missing,
                reservation: None,
                why: "carry",
                basis: Some(basis),
            })?;
        }
        Ok(usd(missing))
    }

    /// Closes a window for good: nothing more is reserved in it. What is reserved there can still be settled.
    ///
    /// # Errors
    /// The ledger cannot be written.
    pub fn close_window(&mut self, window: &WindowKey, why: &str) -> Result<(), LedgerError> {
        self.open_window(window)?;
        let sql = "UPDATE windows SET closed_at = ?2, closed_why = ?3 WHERE key = ?1 AND closed_at IS NULL";
        self.run("close a window", sql, (window.to_string(), self.now().unix_ms(), why)).map(|_| ())
    }

    pub(crate) fn open_window(&mut self, window: &WindowKey) -> Result<(), LedgerError> {
        let sql = "INSERT INTO windows (key, reserved, spent, opened_at) VALUES (?1, 0, 0, ?2) ON CONFLICT DO NOTHING";
        self.run("open a window", sql, (window.to_string(), self.now().unix_ms())).map(|_| ())
    }

    /// Moves an amount and the balances with it. A balance below nothing breaks a rule of the schema and undoes all.
    pub(crate) fn post(&mut self, posting: &Posting<'_>) -> Result<(), LedgerError> {
        let sql = "INSERT INTO postings (at, key, source, target, amount, reservation, why, basis)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
        let params = (
            self.now().unix_ms(),
            posting.window.to_string(),
            posting.source.name(),
            posting.target.name(),
            posting.micros,
            posting.reservation.map(|id| id.to_string()),
            posting.why,
            posting.basis.map(CostBasis::as_str),
        );
        self.run("post an amount", sql, params)?;
        let sql = "UPDATE windows SET reserved = reserved + ?2, spent = spent + ?3 WHERE key = ?1";
        let changes = (Account::Reserved.change(posting), Account::Spent.change(posting));
        self.run("move a balance", sql, (posting.window.to_string(), changes.0, changes.1)).map(|_| ())
    }

    fn spent_micros(&self, window: &WindowKey) -> Result<i64, LedgerError> {
        let sql = "SELECT spent FROM windows WHERE key = ?1";
        Ok(self.one("read a balance", sql, [window.to_string()], |row| row.get(0))?.unwrap_or(0))
    }
}

fn read_window(row: &Row<'_>) -> rusqlite::Result<WindowRow> {
    Ok(WindowRow {
        key: get(row, "key")?,
        balance: Balance { reserved: get(row, "reserved")?, spent: get(row, "spent")? },
        opened_at: get(row, "opened_at")?,
        closed_at: get_opt(row, "closed_at")?,
        closed_why: row.get("closed_why")?,
    })
}

fn read_posting(row: &Row<'_>) -> rusqlite::Result<PostingRow> {
    Ok(PostingRow {
        at: get(row, "at")?,
        key: get(row, "key")?,
        source: row.get("source")?,
        target: row.get("target")?,
        amount: get(row, "amount")?,
        reservation: get_opt(row, "reservation")?,
        why: row.get("why")?,
        basis: get_opt(row, "basis")?,
    })
}
