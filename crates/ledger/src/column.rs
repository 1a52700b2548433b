//! How values lie in the ledger's columns. Each has one stored form; any other is corruption, never a default.

use dispatch_core::policy::admission::Billing;
use dispatch_core::policy::breaker::BreakerCause;
use dispatch_core::policy::lifecycle::{AttemptState, TaskState};
use dispatch_core::policy::money::Usd;
use dispatch_core::policy::safeguards::SpendAction;
use dispatch_core::policy::velocity::VelocityTrip;
use dispatch_core::policy::window::WindowKey;
use dispatch_core::protocol::control::ControlVerb;
use dispatch_core::protocol::decision::DecisionOutcome;
use dispatch_core::protocol::heartbeat::{KillMode, NodeState};
use dispatch_core::protocol::names::{Digest, NodeName, TaskId, canonical_uuid};
use dispatch_core::protocol::parts::CostBasis;
use dispatch_core::protocol::result::Status;
use dispatch_core::protocol::task::Priority;
use dispatch_core::protocol::time::Timestamp;
use rusqlite::Row;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ValueRef};
use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive as _;
use uuid::Uuid;

use crate::children::ChildKind;
use crate::error::LedgerError;

/// Places behind the point that the ledger keeps: millionths of a dollar.
const MONEY_PLACES: u32 = 6;

/// A value on its way out of a column.
pub(crate) struct Col<T>(pub(crate) T);

/// A stored value that is none of its kind.
#[derive(Debug, thiserror::Error)]
#[error("not a valid {0}")]
struct NotOfItsKind(&'static str);

pub(crate) fn bad(kind: &'static str) -> FromSqlError {
    FromSqlError::Other(Box::new(NotOfItsKind(kind)))
}

/// A name or number with one spelling.
macro_rules! text_column {
    ($type:ty, $kind:literal, $parse:expr) => {
        impl FromSql for Col<$type> {
            fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
                $parse(value.as_str()?).map(Col).map_err(|_| bad($kind))
            }
        }
    };
}

text_column!(Uuid, "uuid", canonical_uuid);
text_column!(TaskId, "task id", TaskId::parse_any_version);
text_column!(NodeName, "node name", NodeName::new);
text_column!(Digest, "digest", Digest::parse);

/// A word of a closed list.
macro_rules! word_column {
    ($type:ty, $kind:literal) => {
        impl FromSql for Col<$type> {
            fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
                <$type>::parse(value.as_str()?).map(Col).ok_or_else(|| bad($kind))
            }
        }
    };
}

word_column!(WindowKey, "budget window");
word_column!(Billing, "kind of billing");
word_column!(TaskState, "state of a task");
word_column!(AttemptState, "state of an attempt");
word_column!(Priority, "priority");
word_column!(Status, "status");
word_column!(CostBasis, "basis of a cost");
word_column!(DecisionOutcome, "outcome of a decision");
word_column!(ControlVerb, "verb of a control");
word_column!(NodeState, "state of a node");
word_column!(KillMode, "mode of a killswitch");
word_column!(SpendAction, "spend action");
word_column!(BreakerCause, "cause of a breaker");
word_column!(VelocityTrip, "trip");
word_column!(ChildKind, "kind of child");

impl FromSql for Col<Timestamp> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let ms = value.as_i64()?;
        let at = Timestamp::from_unix_ms(ms);
        if at.unix_ms() == ms { Ok(Col(at)) } else { Err(bad("time")) }
    }
}

impl FromSql for Col<Usd> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let micros = value.as_i64()?;
        if micros < 0 { Err(bad("amount of money")) } else { Ok(Col(usd(micros))) }
    }
}

/// The amount of so many millionths.
pub(crate) fn usd(micros: i64) -> Usd {
    Usd::from_decimal(Decimal::new(micros, MONEY_PLACES))
}

/// Whole millionths of an amount, rounded up: what is booked is never less than what was spent.
pub(crate) fn micros(amount: Usd) -> Result<i64, LedgerError> {
    let refused = || LedgerError::Amount { amount };
    if amount.is_negative() {
        return Err(refused());
    }
    let scaled = amount.decimal().checked_mul(Decimal::new(1_000_000, 0)).ok_or_else(refused)?;
    scaled.ceil().to_i64().ok_or_else(refused)
}

/// Reads one column.
pub(crate) fn get<T>(row: &Row<'_>, name: &str) -> rusqlite::Result<T>
where
    Col<T>: FromSql,
{
    row.get::<_, Col<T>>(name).map(|value| value.0)
}

/// Reads one column that may be empty.
pub(crate) fn get_opt<T>(row: &Row<'_>, name: &str) -> rusqlite::Result<Option<T>>
where
    Col<T>: FromSql,
{
    row.get::<_, Option<Col<T>>>(name).map(|value| value.map(|inner| inner.0))
}

/// What an optional time is stored as.
pub(crate) fn ms(at: Option<Timestamp>) -> Option<i64> {
    at.map(Timestamp::unix_ms)
}
