//! What `budget` shows, as one document.

use dispatch_core::explain;
use dispatch_core::policy::hold::Hold;
use dispatch_core::policy::money::Usd;
use dispatch_core::policy::safeguards::SpendAction;
use dispatch_core::policy::window::{Balance, Caps, Day, Month, Window, WindowKey};
use dispatch_core::protocol::time::Timestamp;
use dispatch_ledger::{BreakerRow, HoldRow, ReadLedger, ReservationRow, StandingRow, WindowRow};
use dispatch_node::config::Config;
use dispatch_node::report::Report;
use serde_json::{Value, json};

/// Which windows are shown.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Those of now, and those with something set aside.
    InUse,
    /// Every one.
    All,
}

pub(super) fn gather(
    config: &Config,
    ledger: &ReadLedger,
    now: Timestamp,
    wanted: Wanted,
) -> Result<Value, Report> {
    let caps = &config.budget.caps;
    let mut rows = ledger.windows()?;
    for key in [WindowKey::Day(Day::of(now)), WindowKey::Month(Month::of(now))] {
        if !rows.iter().any(|row| row.key == key) {
            rows.push(WindowRow {
                key,
                balance: Balance::default(),
                opened_at: now,
                closed_at: None,
                closed_why: None,
            });
        }
    }
    rows.retain(|row| wanted == Wanted::All || is_in_use(row, now));
    rows.sort_by_key(|row| (row.key.window(), row.key.to_string()));
    let review = ledger.spend_review()?;
    let meta = ledger.meta()?;
    Ok(json!({
        "schema": 1,
        "node": config.node.as_str(),
        "at": now.to_string(),
        "off_by": Window::ALL.into_iter().filter(|of| caps.get(*of).is_some_and(|cap| !cap.is_positive()))
            .map(explain::cap_name).collect::<Vec<_>>(),
        "paid_off_until": meta.paid_off_until.filter(|until| now < *until).map(|at| at.to_string()),
        "action": review.as_ref().map_or(SpendAction::Allow, |row| row.action).as_str(),
        "since": review.as_ref().map(|row| row.at.to_string()),
        "alert": review.and_then(|row| serde_json::from_str::<Value>(&row.alert).ok()),
        "windows": rows.iter().map(|row| window(row, caps)).collect::<Vec<Value>>(),
        "reservations": ledger.open_reservations()?.iter().map(reservation).collect::<Vec<Value>>(),
        "holds": ledger.open_holds()?.iter().map(hold).collect::<Vec<Value>>(),
        "standing": ledger.standings()?.iter().map(standing).collect::<Vec<Value>>(),
        "breakers": ledger.breakers()?.iter().map(breaker).collect::<Vec<Value>>(),
    }))
}

/// A window that a task of today could be charged to.
fn is_in_use(row: &WindowRow, now: Timestamp) -> bool {
    if row.balance.reserved.is_positive() {
        return true;
    }
    match &row.key {
        WindowKey::Run { .. } => row.closed_at.is_none(),
        WindowKey::RunOfDay { day, .. } | WindowKey::Day(day) => *day == Day::of(now),
        WindowKey::Month(month) | WindowKey::Sender { month, .. } => *month == Month::of(now),
        WindowKey::Tree(_) => false,
    }
}

fn window(row: &WindowRow, caps: &Caps) -> Value {
    let cap = caps.get(row.key.window());
    let committed = row.balance.committed();
    let left =
        cap.zip(committed).and_then(|(cap, used)| cap.checked_sub(used)).map(|left| left.max(Usd::ZERO));
    json!({
        "key": row.key.to_string(),
        "kind": row.key.window().as_str(),
        "name": explain::window_name(&row.key),
        "reserved_usd": row.balance.reserved.to_string(),
        "spent_usd": row.balance.spent.to_string(),
        "committed_usd": committed.map(|usd| usd.to_string()),
        "cap_usd": cap.map(|usd| usd.to_string()),
        "left_usd": left.map(|usd| usd.to_string()),
        "resets_at": row.key.resets_at().map(|at| at.to_string()),
        "opened_at": row.opened_at.to_string(),
        "closed_at": row.closed_at.map(|at| at.to_string()),
        "closed_why": row.closed_why,
    })
}

fn reservation(row: &ReservationRow) -> Value {
    json!({
        "id": row.id.to_string(),
        "from": row.key.from.as_str(),
        "task": row.key.id.to_string(),
        "attempt": row.nth,
        "usd": row.amount.to_string(),
        "made_at": row.made_at.to_string(),
    })
}

fn hold(row: &HoldRow) -> Value {
    let told = explain::held(&match row.root {
        Some(root) => Hold::TreeHeld { root, sender: row.sender.clone() },
        None => Hold::SenderHeld { sender: row.sender.clone(), trips: vec![row.trip], since: row.at },
    });
    json!({
        "sender": row.sender.as_str(),
        "tree": row.root.map(|root| root.to_string()),
        "trip": row.trip.as_str(),
        "since": row.at.to_string(),
        "why": told.why,
        "next": told.next,
    })
}

fn standing(row: &StandingRow) -> Value {
    json!({
        "id": row.id.to_string(), "author": row.author, "uses": row.uses, "total_usd": row.total.to_string(),
        "last_at": row.last_at.to_string(),
    })
}

fn breaker(row: &BreakerRow) -> Value {
    json!({
        "profile": row.profile,
        "backend": row.backend,
        "is_open": row.breaker.opened.is_some(),
        "failures": row.breaker.failures,
        "cause": row.breaker.opened.map(|opened| opened.cause.as_str()),
        "open_until": row.breaker.opened.map(|opened| opened.until.to_string()),
    })
}
