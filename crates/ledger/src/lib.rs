//! This node's durable truth: one SQLite file on the node's own disk.
//!
//! The ledger keeps what must outlive a crash (tasks with the bytes they came in, what was seen before, money, attempts
//! and their epochs, decisions, the audit chain) and decides nothing. `dispatch-watch` is its one writer, through
//! [`Ledger`]; everyone else reads, through [`ReadLedger`]. Both give the same [`Reader`], and so does a transaction.
//!
//! - Every change goes through [`Ledger::write`]: one transaction, synced when it returns, fenced by the boot that
//!   makes it. Many things may be done in one transaction (group commit); [`Tx::contained`] keeps a failing one from
//!   taking the others with it.
//! - Nothing is repaired silently. A file that is damaged, whose balances are not the sums of its postings, that is
//!   newer than this program, or that was never completed, is refused.
//! - A recipe, terms, an order, an outcome are opaque here: text or bytes, given back as they came.
#![forbid(unsafe_code)]

mod attempts;
mod audit;
mod boots;
mod children;
mod column;
mod controls;
mod decisions;
mod error;
mod file;
mod guards;
mod meta;
mod money;
mod peers;
mod progress;
mod queue;
mod reader;
mod requests;
mod reservations;
mod schema;
mod seen;
mod standing;
mod streams;
mod tasks;
mod tellings;
#[cfg(test)]
mod tests;
mod trips;
mod tx;
mod verify;

pub use attempts::{AttemptEnd, AttemptRow, Ending, NewLease};
pub use audit::{AuditLine, Entry, NO_HEAD};
pub use boots::{BootRow, NewBoot};
pub use children::{ChildKind, ChildRow, NewChild};
pub use controls::{ControlRow, NewControl};
pub use decisions::{DecisionRow, NewDecision, Recorded};
pub use error::{Damage, Disposition, LedgerError};
pub use file::{Birth, Ledger, ReadLedger, Whole};
pub use guards::{BreakerRow, HoldRow, ReviewRow};
pub use meta::{ClockMarks, Counter, Drain, Meta, ShownHead};
pub use money::{PostingFilter, PostingRow, SpendBucket, WindowRow};
pub use peers::{Advance, EchoRow, PeerRow, WitnessedRow, Witnessing};
pub use queue::{QueuedTask, StateCount, TaskBrief, TaskFilter};
pub use reader::Reader;
pub use requests::OutboxRow;
pub use reservations::{Closing, NewReservation, ReservationRow, Reserving};
pub use schema::SCHEMA;
pub use seen::Seen;
pub use standing::StandingRow;
pub use streams::{Gap, Position};
pub use tasks::{Filed, NewTask, Stop, TaskKey, TaskRow, Terms};
pub use tellings::{Made, OutcomeCount, TellingRow};
pub use trips::TripRow;
pub use tx::{Fence, Tx};
pub use verify::{ChainBreak, ChainCheck};
