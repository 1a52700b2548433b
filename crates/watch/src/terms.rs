//! When the configuration changes under tasks that were accepted (protocol section 5).

use dispatch_core::policy::admission::Admission;
use dispatch_core::policy::lifecycle::TaskState;
use dispatch_core::protocol::payload::Payload as _;
use dispatch_core::protocol::reason::ReasonCode;
use dispatch_core::protocol::result::Status;
use dispatch_core::protocol::task::Task;
use dispatch_core::protocol::terms::Terms;
use dispatch_ledger::{Entry, LedgerError, TaskKey, TaskRow, Tx};
use serde_json::json;

use crate::acting::stored_task;
use crate::ending::{End, finish};
use crate::home::Home;
use crate::pass::contain;
use crate::{budget, recipes, routing, running, taking};

/// Holds what waits and what is queued against the configuration as it is now: what waits is parked again under the
/// terms of today, what was let through keeps its recipe unless that has lost its ground.
pub(crate) fn recheck(tx: &mut Tx<'_>, home: &Home, failed: &mut Vec<TaskKey>) -> Result<(), LedgerError> {
    for row in tx.waiting()? {
        let Some(task) = task_of(tx, home, &row.key)? else { continue };
        contain(tx, failed, &row.key, |tx| {
            if is_gone(home, &task) {
                return end(tx, home, &row);
            }
            park_again(tx, home, &row, &task)?;
            // No terms of today took the place of those whose backend went.
            if lost_backend(tx, home, &row.key)? { end(tx, home, &row) } else { Ok(()) }
        })?;
    }
    for queued in tx.whole_queue()? {
        let Some(task) = task_of(tx, home, &queued.key)? else { continue };
        // Between two attempts it is running, not queued: it ends as it began.
        if queued.state == TaskState::Queued
            && (is_gone(home, &task) || lost_backend(tx, home, &queued.key)?)
            && let Some(row) = tx.task(&queued.key)?
        {
            contain(tx, failed, &row.key, |tx| end(tx, home, &row))?;
        }
    }
    Ok(())
}

fn task_of(tx: &Tx<'_>, home: &Home, key: &TaskKey) -> Result<Option<Task>, LedgerError> {
    Ok(tx.envelope(key)?.and_then(|envelope| stored_task(home, key, &envelope)))
}

fn is_gone(home: &Home, task: &Task) -> bool {
    let config = &home.config;
    let workspace_gone = task.workspace.as_ref().is_some_and(|name| !config.workspaces.contains_key(name));
    !config.profiles.contains_key(&task.profile) || config.peer(&task.from).is_none() || workspace_gone
}

/// True when the backend that the task's recipe names is gone or forbidden.
fn lost_backend(tx: &Tx<'_>, home: &Home, key: &TaskKey) -> Result<bool, LedgerError> {
    let recipe = tx.recipe(key)?.and_then(|text| recipes::parse(&text));
    Ok(recipe.is_some_and(|recipe| routing::is_gone(&home.config, &recipe)))
}

fn end(tx: &mut Tx<'_>, home: &Home, row: &TaskRow) -> Result<(), LedgerError> {
    running::release(tx, row.reservation)?;
    let why = dispatch_core::explain::code_reason(ReasonCode::TermsChanged);
    finish(tx, home, &row.key, &End::plain(Status::Rejected, Some(why)))
}

fn park_again(tx: &mut Tx<'_>, home: &Home, row: &TaskRow, task: &Task) -> Result<(), LedgerError> {
    let (Some(profile), Some(peer)) = (home.config.profiles.get(&task.profile), home.config.peer(&task.from))
    else {
        return Ok(());
    };
    let (cost, gates) = match budget::look(tx, home, task, profile, peer)? {
        Admission::Park { cost, gates } => (cost, gates),
        // Today it would not be gated or taken: it was parked, and only a person or its time lets it go.
        Admission::Queue { .. } | Admission::WaitForRoom { .. } | Admission::Refuse(_) => return Ok(()),
    };
    let terms = taking::terms_of(home, task, row.digest, cost, &gates, tx.now());
    let stored = tx.terms(&row.key)?.and_then(|payload| Terms::from_stored(&payload).ok());
    let today = terms.payload.as_deref().and_then(|payload| Terms::from_stored(payload).ok());
    if stored.zip(today).is_some_and(|(stored, today)| stored.same_but_made(&today)) {
        return Ok(());
    }
    tx.replace_terms(&row.key, &terms)?;
    let digest = terms.sha256.map(|digest| digest.to_string());
    tx.audit(&Entry::of("parked").task(&row.key).data(json!({"terms_sha256": digest, "again": true})))
        .map(drop)
}
