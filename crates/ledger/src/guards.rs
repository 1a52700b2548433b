//! What holds tasks back beside their money (policy section 2): breakers, held senders, the spending review, and how often
//! something happened in the last hour.

use dispatch_core::policy::breaker::{Breaker, BreakerCause, Opened};
use dispatch_core::policy::money::Usd;
use dispatch_core::policy::safeguards::SpendAction;
use dispatch_core::policy::velocity::VelocityTrip;
use dispatch_core::policy::window::{Month, WindowKey};
use dispatch_core::protocol::names::{Digest, NodeName, TaskId};
use dispatch_core::protocol::time::Timestamp;
use rusqlite::Row;

use crate::column::{get, get_opt, usd};
use crate::error::LedgerError;
use crate::reader::Reader;
use crate::tasks::{TaskKey, read_key};
use crate::tx::Tx;

/// A breaker that is not as new.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BreakerRow {
    /// Of which profile.
    pub profile: String,
    /// On which backend.
    pub backend: String,
    /// Where it stands.
    pub breaker: Breaker,
    /// Since when.
    pub changed_at: Timestamp,
}

/// A sender whose paid work waits for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HoldRow {
    /// The sender.
    pub sender: NodeName,
    /// The tree whose free tasks wait too.
    pub root: Option<TaskId>,
    /// What tripped.
    pub trip: VelocityTrip,
    /// When.
    pub at: Timestamp,
}

/// What the spending review last came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReviewRow {
    /// What to do.
    pub action: SpendAction,
    /// Why, with its figures as they were last: the body of the alert that its change made, as JSON text.
    pub alert: String,
    /// Since when that is to be done.
    pub at: Timestamp,
}

impl Reader {
    /// Breakers of which something is known, by profile.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn breakers(&self) -> Result<Vec<BreakerRow>, LedgerError> {
        self.all("read the breakers", "SELECT * FROM breakers ORDER BY profile, backend", (), read_breaker)
    }

    /// A breaker; one of which nothing is known is closed.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn breaker(&self, profile: &str, backend: &str) -> Result<Breaker, LedgerError> {
        let sql = "SELECT * FROM breakers WHERE profile = ?1 AND backend = ?2";
        let row = self.one("read a breaker", sql, (profile, backend), read_breaker)?;
        Ok(row.map(|row| row.breaker).unwrap_or_default())
    }

    /// Holds that nobody lifted, oldest first.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn open_holds(&self) -> Result<Vec<HoldRow>, LedgerError> {
        self.all("read the holds", "SELECT * FROM holds WHERE resumed_at IS NULL ORDER BY n", (), read_hold)
    }

    /// When a person last let a sender go on.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn last_resumed(&self, sender: &NodeName) -> Result<Option<Timestamp>, LedgerError> {
        let sql = "SELECT max(resumed_at) AS at FROM holds WHERE sender = ?1 AND resumed_at IS NOT NULL";
        Ok(self.one("read a hold", sql, [sender.as_str()], |row| get_opt(row, "at"))?.flatten())
    }

    /// What the spending review last came to.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn spend_review(&self) -> Result<Option<ReviewRow>, LedgerError> {
        let sql = "SELECT * FROM spend_review";
        self.one("read the spending review", sql, (), |row| {
            Ok(ReviewRow { action: get(row, "action")?, alert: row.get("alert")?, at: get(row, "at")? })
        })
    }

    /// Tasks of a tree that were accepted at `since` or later.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn tasks_of_tree(&self, root: TaskId, since: Timestamp) -> Result<u32, LedgerError> {
        let sql = "SELECT count(*) FROM tasks INDEXED BY tasks_tree WHERE root = ?1 AND accepted_at >= ?2";
        self.count("count a tree", sql, (root.to_string(), since.unix_ms()))
    }

    /// Paid requests of a sender for the same content at `since` or later.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn same_requests(
        &self,
        sender: &NodeName,
        content: Digest,
        since: Timestamp,
    ) -> Result<u32, LedgerError> {
        let sql = "SELECT count(*) FROM requests_paid WHERE sender = ?1 AND content = ?2 AND at >= ?3";
        let params = (sender.as_str(), content.to_string(), since.unix_ms());
        self.count("count equal requests", sql, params)
    }

    /// What a sender was charged from `since` on, over the end of a month.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn charged_to(
        &self,
        sender: &NodeName,
        since: Timestamp,
        now: Timestamp,
    ) -> Result<Usd, LedgerError> {
        let key = |at| WindowKey::Sender { sender: sender.clone(), month: Month::of(at) }.to_string();
        let sql = "SELECT coalesce(sum(amount), 0) FROM postings
                   WHERE key IN (?1, ?2) AND target = 'spent' AND why = 'settle' AND at >= ?3";
        let params = (key(since), key(now), since.unix_ms());
        let spent = self.one("read what a sender spent", sql, params, |row| row.get::<_, i64>(0))?;
        Ok(usd(spent.unwrap_or(0)))
    }

    /// Paid attempts that are leased and not ended.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn open_paid_attempts(&self) -> Result<u32, LedgerError> {
        let sql = "SELECT count(*) FROM attempts JOIN tasks ON tasks.n = attempts.task
                   WHERE attempts.state IN ('leased', 'started') AND tasks.billing = 'metered'";
        self.count("count paid attempts", sql, ())
    }

    /// Tasks of a profile of which an attempt is leased and not ended.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn running_of(&self, profile: &str) -> Result<Vec<TaskKey>, LedgerError> {
        let sql =
            "SELECT sender, id FROM attempts INDEXED BY attempts_open JOIN tasks ON tasks.n = attempts.task
                   WHERE attempts.state IN ('leased', 'started') AND tasks.profile = ?1";
        self.all("read what runs of a profile", sql, [profile], read_key)
    }

    fn count(&self, op: &'static str, sql: &str, params: impl rusqlite::Params) -> Result<u32, LedgerError> {
        Ok(self.one(op, sql, params, |row| row.get(0))?.unwrap_or(0))
    }
}

impl Tx<'_> {
    /// Stores where a breaker stands.
    ///
    /// # Errors
    /// The ledger cannot be written.
    pub fn set_breaker(&mut self, profile: &str, backend: &str, breaker: Breaker) -> Result<(), LedgerError> {
        let sql = "INSERT INTO breakers (profile, backend, failures, cause, open_until, changed_at)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                   ON CONFLICT (profile, backend) DO UPDATE SET failures = excluded.failures,
                     cause = excluded.cause, open_until = excluded.open_until, changed_at = excluded.changed_at";
        let params = (
            profile,
            backend,
            breaker.failures,
            breaker.opened.map(|opened| opened.cause.as_str()),
            breaker.opened.map(|opened| opened.until.unix_ms()),
            self.now().unix_ms(),
        );
        self.run("store a breaker", sql, params).map(|_| ())
    }

    /// Holds a sender; answers true when it was not held for that before.
    ///
    /// # Errors
    /// The ledger cannot be written.
    pub fn hold(
        &mut self,
        sender: &NodeName,
        root: Option<TaskId>,
        trip: VelocityTrip,
    ) -> Result<bool, LedgerError> {
        let sql = "INSERT INTO holds (sender, root, trip, at) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING";
        let params =
            (sender.as_str(), root.map(|root| root.to_string()), trip.as_str(), self.now().unix_ms());
        self.run("hold a sender", sql, params).map(|changed| changed > 0)
    }

    /// Lets a sender, or all of them (`None`), go on. Answers how many holds there were.
    ///
    /// # Errors
    /// The ledger cannot be written.
    pub fn lift_holds(&mut self, sender: Option<&NodeName>, by: &str) -> Result<usize, LedgerError> {
        let sql = "UPDATE holds SET resumed_at = ?3, resumed_by = ?2
                   WHERE resumed_at IS NULL AND (?1 IS NULL OR sender = ?1)";
        self.run("lift holds", sql, (sender.map(NodeName::as_str), by, self.now().unix_ms()))
    }

    /// Notes a paid request by what it asks for.
    ///
    /// # Errors
    /// The ledger cannot be written.
    pub fn note_paid_request(&mut self, sender: &NodeName, content: Digest) -> Result<(), LedgerError> {
        let sql = "INSERT INTO requests_paid (sender, content, at) VALUES (?1, ?2, ?3)";
        let params = (sender.as_str(), content.to_string(), self.now().unix_ms());
        self.run("note a request", sql, params).map(|_| ())
    }

    /// Forgets paid requests from before a moment.
    ///
    /// # Errors
    /// The ledger cannot be written.
    pub fn purge_paid_requests(&mut self, before: Timestamp) -> Result<usize, LedgerError> {
        self.run("forget old requests", "DELETE FROM requests_paid WHERE at < ?1", [before.unix_ms()])
    }

    /// Stores what the spending review came to. The moment stays where only the figures behind it are others.
    ///
    /// # Errors
    /// The ledger cannot be written.
    pub fn set_spend_review(&mut self, action: SpendAction, alert: &str) -> Result<(), LedgerError> {
        let sql = "INSERT INTO spend_review (one, action, alert, at) VALUES (1, ?1, ?2, ?3)
                   ON CONFLICT (one) DO UPDATE SET action = excluded.action, alert = excluded.alert,
                     at = CASE WHEN spend_review.action = excluded.action THEN spend_review.at ELSE excluded.at END";
        self.run("store the spending review", sql, (action.as_str(), alert, self.now().unix_ms())).map(|_| ())
    }
}

fn read_breaker(row: &Row<'_>) -> rusqlite::Result<BreakerRow> {
    let cause: Option<BreakerCause> = get_opt(row, "cause")?;
    let opened = cause.zip(get_opt(row, "open_until")?).map(|(cause, until)| Opened { cause, until });
    Ok(BreakerRow {
        profile: row.get("profile")?,
        backend: row.get("backend")?,
        breaker: Breaker { failures: row.get("failures")?, opened },
        changed_at: get(row, "changed_at")?,
    })
}

fn read_hold(row: &Row<'_>) -> rusqlite::Result<HoldRow> {
    Ok(HoldRow {
        sender: get(row, "sender")?,
        root: get_opt(row, "root")?,
        trip: get(row, "trip")?,
        at: get(row, "at")?,
    })
}
