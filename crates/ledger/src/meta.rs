//! What the ledger says about itself and about its node: one row, and the counters that never go back.

use dispatch_core::protocol::heartbeat::NodeState;
use dispatch_core::protocol::names::{Digest, NodeName};
use dispatch_core::protocol::parts::AuditHead;
use dispatch_core::protocol::time::Timestamp;
use rusqlite::Row;
use serde_json::json;
use uuid::Uuid;

use crate::audit::{Entry, NO_HEAD};
use crate::column::{get, get_opt, ms};
use crate::error::{Damage, LedgerError};
use crate::file::{Birth, Whole};
use crate::reader::Reader;
use crate::tx::Tx;

/// The one row about the ledger and its node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    /// This ledger.
    pub ledger: Uuid,
    /// The cluster it belongs to.
    pub cluster: Uuid,
    /// The node whose truth it holds.
    pub node: NodeName,
    /// When it was made.
    pub created_at: Timestamp,
    /// Whether it is complete.
    pub whole: Whole,
    /// Tasks `created` before this are `before_ledger`; `None` = no floor.
    pub accept_after: Option<Timestamp>,
    /// A task whose `expires` is not after this is `expired`, whatever the clock says; `None` = nothing was purged.
    pub forgotten_until: Option<Timestamp>,
    /// The current audit chain and its last entry.
    pub head: AuditHead,
    /// What was shown of this node by a newer ledger than this one, until a person has accepted the rollback.
    pub recovery: Option<ShownHead>,
    /// The latest agreement of wall clock and boot-time clock.
    pub clock: ClockMarks,
    /// Whether the node takes and starts work.
    pub drain: Drain,
    /// Paid work is off until then (policy section 1, "a lost or older ledger").
    pub paid_off_until: Option<Timestamp>,
}

/// A head of an audit chain of this node, as somebody was shown it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShownHead {
    /// The chain.
    pub chain: Uuid,
    /// The position of its last entry.
    pub seq: u64,
    /// The hash of that entry.
    pub head: Digest,
    /// When this ledger was told.
    pub noted_at: Timestamp,
}

/// Where the two clocks stood at the same moment (policy section 1, "a suspect clock").
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClockMarks {
    /// The latest wall time that agreed.
    pub wall: Timestamp,
    /// Milliseconds of the machine's boot-time clock at that moment.
    pub boot_ms: i64,
    /// Which start of the machine that clock counts from; empty in a new ledger.
    pub host_boot_id: String,
}

/// Whether the node takes and starts work, as heartbeats say it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drain {
    /// The state; never `recovery`, which [`Meta::recovery`] says.
    pub state: NodeState,
    /// Since when.
    pub since: Timestamp,
    /// Until when running tasks may go on while it drains.
    pub grace_until: Option<Timestamp>,
}

/// A number that only grows and is never given twice, also not after a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// Epochs of attempts. Drawn by [`Tx::lease`].
    Epoch,
    /// Positions of progress reports and other sealed messages that count.
    Message,
}

impl Counter {
    const fn name(self) -> &'static str {
        match self {
            Counter::Epoch => "epoch",
            Counter::Message => "message",
        }
    }
}

impl Reader {
    /// What the ledger says about itself.
    ///
    /// # Errors
    /// A ledger without this row, or with an impossible one, is corrupt.
    pub fn meta(&self) -> Result<Meta, LedgerError> {
        self.one("read what the ledger says about itself", "SELECT * FROM ledger", (), read_meta)?
            .ok_or(LedgerError::corrupt(Damage::MissingRow { table: "ledger" }))
    }

    /// The last number a counter gave; 0 before the first.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn counter(&self, counter: Counter) -> Result<u64, LedgerError> {
        let sql = "SELECT value FROM counters WHERE name = ?1";
        Ok(self.one("read a counter", sql, [counter.name()], |row| row.get(0))?.unwrap_or(0))
    }
}

impl Tx<'_> {
    /// The next number of a counter, from 1.
    ///
    /// # Errors
    /// The ledger cannot be written.
    pub fn next(&mut self, counter: Counter) -> Result<u64, LedgerError> {
        let sql = "INSERT INTO counters (name, value) VALUES (?1, 1)
                   ON CONFLICT (name) DO UPDATE SET value = value + 1 RETURNING value";
        self.one("advance a counter", sql, [counter.name()], |row| row.get(0))?
            .ok_or(LedgerError::corrupt(Damage::MissingRow { table: "counters" }))
    }

    /// Moves a counter up to at least this number: after a rollback, above every epoch that has a job directory.
    ///
    /// # Errors
    /// The ledger cannot be written.
    pub fn raise(&mut self, counter: Counter, at_least: u64) -> Result<(), LedgerError> {
        let sql = "INSERT INTO counters (name, value) VALUES (?1, ?2)
                   ON CONFLICT (name) DO UPDATE SET value = max(value, excluded.value)";
        self.run("raise a counter", sql, (counter.name(), at_least)).map(|_| ())
    }

    /// Marks the ledger complete or incomplete.
    ///
    /// # Errors
    /// The ledger cannot be written.
    pub fn set_whole(&mut self, whole: Whole) -> Result<(), LedgerError> {
        let whole = i64::from(whole == Whole::Yes);
        self.set("mark the ledger whole", "UPDATE ledger SET whole = ?1", [whole])
    }

    /// Sets the floor below which tasks are `before_ledger`.
    ///
    /// # Errors
    /// The ledger cannot be written.
    pub fn set_accept_after(&mut self, at: Timestamp) -> Result<(), LedgerError> {
        self.set("set the floor of acceptance", "UPDATE ledger SET accept_after = ?1", [at.unix_ms()])
    }

    /// Remembers, or forgets again, that a newer ledger of this node was shown to somebody (protocol section 7).
    ///
    /// # Errors
    /// The ledger cannot be written.
    pub fn set_recovery(&mut self, shown: Option<&ShownHead>) -> Result<(), LedgerError> {
        let sql = "UPDATE ledger SET recovery_chain = ?1, recovery_seq = ?2, recovery_head = ?3, recovery_noted_at = ?4";
        let params = (
            shown.map(|head| head.chain.to_string()),
            shown.map(|head| head.seq),
            shown.map(|head| head.head.to_string()),
            shown.map(|head| head.noted_at.unix_ms()),
        );
        self.set("note a recovery", sql, params)
    }

    /// Stores where the clocks agreed last.
    ///
    /// # Errors
    /// The ledger cannot be written.
    pub fn set_clock(&mut self, marks: &ClockMarks) -> Result<(), LedgerError> {
        let sql = "UPDATE ledger SET clock_wall = ?1, clock_boot_ms = ?2, clock_host_boot = ?3";
        self.set("note the clocks", sql, (marks.wall.unix_ms(), marks.boot_ms, &marks.host_boot_id))
    }

    /// Stores whether the node takes and starts work.
    ///
    /// # Errors
    /// The ledger cannot be written.
    pub fn set_drain(&mut self, drain: &Drain) -> Result<(), LedgerError> {
        let sql = "UPDATE ledger SET drain_state = ?1, drain_since = ?2, drain_grace_until = ?3";
        self.set("note the drain", sql, (drain.state.as_str(), drain.since.unix_ms(), ms(drain.grace_until)))
    }

    /// Switches paid work off until a moment, or on again.
    ///
    /// # Errors
    /// The ledger cannot be written.
    pub fn set_paid_off_until(&mut self, until: Option<Timestamp>) -> Result<(), LedgerError> {
        self.set("switch paid work off", "UPDATE ledger SET paid_off_until = ?1", [ms(until)])
    }

    pub(crate) fn birth(&mut self, birth: &Birth) -> Result<(), LedgerError> {
        let sql = "INSERT INTO ledger (one, ledger, cluster, node, created_at, whole, accept_after, chain, chain_seq,
                     chain_head, clock_wall, clock_boot_ms, clock_host_boot, drain_state, drain_since)
                   VALUES (1, ?1, ?2, ?3, ?4, ?5, ?6, ?7, 0, ?8, ?4, 0, '', 'active', ?4)";
        let now = self.now().unix_ms();
        let params = (
            birth.ledger.to_string(),
            birth.cluster.to_string(),
            birth.node.as_str(),
            now,
            i64::from(birth.whole == Whole::Yes),
            ms(birth.accept_after),
            birth.chain.to_string(),
            NO_HEAD.to_string(),
        );
        self.set("make the ledger", sql, params)?;
        let data = json!({
            "ledger": birth.ledger.to_string(),
            "cluster": birth.cluster.to_string(),
            "accept_after": birth.accept_after.map(|at| at.to_string()),
        });
        self.audit(&Entry::of("ledger_created").data(data))?;
        Ok(())
    }

    /// Changes the one row.
    pub(crate) fn set(
        &mut self,
        op: &'static str,
        sql: &str,
        params: impl rusqlite::Params,
    ) -> Result<(), LedgerError> {
        match self.run(op, sql, params)? {
            1 => Ok(()),
            _ => Err(LedgerError::corrupt(Damage::MissingRow { table: "ledger" })),
        }
    }
}

fn read_meta(row: &Row<'_>) -> rusqlite::Result<Meta> {
    let whole = if row.get::<_, bool>("whole")? { Whole::Yes } else { Whole::No };
    Ok(Meta {
        ledger: get(row, "ledger")?,
        cluster: get(row, "cluster")?,
        node: get(row, "node")?,
        created_at: get(row, "created_at")?,
        whole,
        accept_after: get_opt(row, "accept_after")?,
        forgotten_until: get_opt(row, "forgotten_until")?,
        head: AuditHead {
            chain: get(row, "chain")?,
            seq: row.get("chain_seq")?,
            head: get(row, "chain_head")?,
        },
        recovery: read_recovery(row)?,
        clock: ClockMarks {
            wall: get(row, "clock_wall")?,
            boot_ms: row.get("clock_boot_ms")?,
            host_boot_id: row.get("clock_host_boot")?,
        },
        drain: Drain {
            state: get(row, "drain_state")?,
            since: get(row, "drain_since")?,
            grace_until: get_opt(row, "drain_grace_until")?,
        },
        paid_off_until: get_opt(row, "paid_off_until")?,
    })
}

fn read_recovery(row: &Row<'_>) -> rusqlite::Result<Option<ShownHead>> {
    let Some(chain) = get_opt(row, "recovery_chain")? else { return Ok(None) };
    Ok(Some(ShownHead {
        chain,
        seq: row.get("recovery_seq")?,
        head: get(row, "recovery_head")?,
        noted_at: get(row, "recovery_noted_at")?,
    }))
}
