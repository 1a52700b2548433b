//! What the safeguards hold back, as the ledger has it now: breakers, held senders and trees, one paid task at a time.

use dispatch_core::planner::recipe::Recipe;
use dispatch_core::policy::admission::Billing;
use dispatch_core::policy::hold::{Hold, Running, by_breaker, by_throttle};
use dispatch_core::policy::safeguards::SpendAction;
use dispatch_core::protocol::time::Timestamp;
use dispatch_ledger::{HoldRow, LedgerError, ReadLedger, TaskKey, TaskRow};

/// The backend that a task was resolved to when it was accepted.
fn backend_of(ledger: &ReadLedger, key: &TaskKey) -> Result<String, LedgerError> {
    let recipe = ledger.recipe(key)?.and_then(|text| serde_json::from_str::<Recipe>(&text).ok());
    Ok(recipe.map_or_else(String::new, |recipe| recipe.backend))
}

/// Everything of theirs that keeps a queued task from starting.
pub(super) fn holds(ledger: &ReadLedger, row: &TaskRow, now: Timestamp) -> Result<Vec<Hold>, LedgerError> {
    let mut found = Vec::new();
    let paid = row.billing == Billing::Metered;
    let sender = &row.key.from;
    let rows = ledger.open_holds()?;
    if let Some(hold) = rows.iter().find(|hold| hold.root == Some(row.root)) {
        found.push(Hold::TreeHeld { root: row.root, sender: hold.sender.clone() });
    }
    let of_sender: Vec<&HoldRow> = rows.iter().filter(|hold| hold.sender == *sender).collect();
    if let (true, Some(first)) = (paid, of_sender.first()) {
        let trips = of_sender.iter().map(|hold| hold.trip).collect();
        found.push(Hold::SenderHeld { sender: sender.clone(), trips, since: first.at });
    }
    let backend = backend_of(ledger, &row.key)?;
    let mut running = Running { behind_breaker: 0, paid: ledger.open_paid_attempts()?.into() };
    for key in ledger.running_of(&row.profile)? {
        let is_behind = backend_of(ledger, &key)? == backend;
        running.behind_breaker = running.behind_breaker.saturating_add(is_behind.into());
    }
    let same = |profile: &str, of: &str| profile == row.profile && of == backend;
    for breaker in ledger.breakers()?.into_iter().filter(|one| same(&one.profile, &one.backend)) {
        found.extend(by_breaker(&breaker.breaker, &row.profile, running, now));
    }
    let action = ledger.spend_review()?.map_or(SpendAction::Allow, |review| review.action);
    if paid && action == SpendAction::Throttle {
        found.extend(by_throttle(running));
    }
    Ok(found)
}
