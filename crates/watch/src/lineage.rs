//! A task's family as this node knows it: who sent it, and what the bounds above it leave (policy section 1; protocol
//! section 3, `lineage`).

use dispatch_core::policy::lineage::{Left, Lineage};
use dispatch_core::policy::money::Usd;
use dispatch_core::policy::window::WindowKey;
use dispatch_core::protocol::names::TaskId;
use dispatch_core::protocol::payload::Payload as _;
use dispatch_core::protocol::task::Task;
use dispatch_ledger::{LedgerError, Reader, TaskRow};

use crate::acting::stored_task;
use crate::home::Home;

/// Steps to the root of a tree at most: what lies deeper was refused.
const STEPS_MAX: usize = 64;

/// A task that this node knows.
enum Known {
    /// It was sent from here, for a task of this node.
    Sent { lineage: Lineage },
    /// It runs, or ran, here.
    Here { lineage: Lineage },
}

fn known(reader: &Reader, home: &Home, id: TaskId) -> Result<Option<Known>, LedgerError> {
    if let Some(payload) = reader.child_payload(id)? {
        let task = Task::from_stored(&payload).ok();
        return Ok(task.map(|task| Known::Sent { lineage: Lineage::of_task(&task) }));
    }
    for row in reader.tasks_of_id(id)? {
        if let Some(task) = task_of(reader, home, &row)? {
            return Ok(Some(Known::Here { lineage: Lineage::of_task(&task) }));
        }
    }
    Ok(None)
}

/// The task of a row, as it was accepted.
pub(crate) fn task_of(reader: &Reader, home: &Home, row: &TaskRow) -> Result<Option<Task>, LedgerError> {
    Ok(reader.envelope(&row.key)?.and_then(|envelope| stored_task(home, &row.key, &envelope)))
}

/// The lineage of a task's parent, where this node knows it.
pub(crate) fn parent_of(
    reader: &Reader,
    home: &Home,
    lineage: &Lineage,
) -> Result<Option<Lineage>, LedgerError> {
    let Some(parent) = lineage.parent else { return Ok(None) };
    Ok(known(reader, home, parent)?.map(|known| match known {
        Known::Sent { lineage } | Known::Here { lineage } => lineage,
    }))
}

/// What a task may still set aside of its own bound and of those above it; `None` where nobody set one. What it and the
/// tasks below have set aside and spent here counts, and so does all that is set aside for a child that runs elsewhere.
pub(crate) fn branch_left(
    reader: &Reader,
    home: &Home,
    id: TaskId,
    lineage: &Lineage,
) -> Result<Option<Usd>, LedgerError> {
    let mut left: Option<Usd> = None;
    let mut lower = |bound: Option<Usd>, committed: Usd| {
        let here = bound.map(|bound| bound.checked_sub(committed).unwrap_or(Usd::ZERO).max(Usd::ZERO));
        left = [left, here].into_iter().flatten().min();
    };
    if lineage.budget_usd.is_some() {
        lower(lineage.budget_usd, reader.branch_committed(id)?);
    }
    let mut above = lineage.parent;
    for _ in 0..STEPS_MAX {
        let Some(parent) = above else { break };
        above = match known(reader, home, parent)? {
            // Its own bound is all set aside for it above: what came back of it counts in that alone.
            Some(Known::Sent { lineage }) => {
                lower(lineage.budget_usd, reader.committed_below(parent)?);
                None
            }
            Some(Known::Here { lineage }) => {
                if lineage.budget_usd.is_some() {
                    lower(lineage.budget_usd, reader.branch_committed(parent)?);
                }
                lineage.parent
            }
            None => None,
        };
    }
    Ok(left)
}

/// What this node's own cap leaves for the tree; `None` without one.
fn tree_left(reader: &Reader, home: &Home, lineage: &Lineage) -> Result<Option<Usd>, LedgerError> {
    let Some(cap) = home.caps().tree else { return Ok(None) };
    let committed = reader.balance(&WindowKey::Tree(lineage.root))?.committed();
    let left = committed.and_then(|committed| cap.checked_sub(committed)).unwrap_or(Usd::ZERO);
    Ok(Some(left.max(Usd::ZERO)))
}

/// What a task of this node has left to give to those it sends.
pub(crate) fn left_of(
    reader: &Reader,
    home: &Home,
    id: TaskId,
    lineage: &Lineage,
) -> Result<Left, LedgerError> {
    let granted = lineage.fanout_left.min(i64::from(home.config.lineage.fanout_max));
    let branch = branch_left(reader, home, id, lineage)?;
    Ok(Left {
        fanout: granted.saturating_sub(reader.fanout_given(id)?).max(0),
        budget_usd: [branch, tree_left(reader, home, lineage)?].into_iter().flatten().min(),
    })
}
