//! The last transaction: what was not final ends `unknown`, settled at its reservation, and what was spent is carried over.

use dispatch_core::policy::admission::PaidWork;
use dispatch_core::policy::continuity;
use dispatch_core::policy::lifecycle::TaskEvent;
use dispatch_core::policy::money::Usd;
use dispatch_core::policy::window::{Day, Month, WindowKey};
use dispatch_core::protocol::parts::{AuditHead, Cost, CostBasis};
use dispatch_core::protocol::payload::Payload as _;
use dispatch_core::protocol::result::{AttemptSummary, Reason, Status, Subject, TaskResult};
use dispatch_core::protocol::time::Timestamp;
use dispatch_ledger::{AttemptEnd, AttemptRow, Closing as Closed, Ending, Entry, LedgerError, TaskKey, Tx};
use dispatch_node::config::Config;
use dispatch_node::job::JobDir;
use serde_json::json;

use super::{Shows, Why};

/// Reason code of tasks that a recovery ended.
const CODE: &str = "ledger_replaced";

/// What the transaction is told.
pub(super) struct Closing<'a> {
    pub(super) config: &'a Config,
    pub(super) shows: &'a Shows,
    pub(super) why: &'a Why<'a>,
    pub(super) now: Timestamp,
}

/// What was carried over.
pub(super) struct Carried {
    pub(super) raised: Usd,
    pub(super) paid_off: bool,
}

/// Ends every task that is not final; answers how many.
pub(super) fn end_all(tx: &mut Tx<'_>, closing: &Closing<'_>) -> Result<usize, LedgerError> {
    let open = tx.open_tasks()?;
    for task in &open {
        let costs = settle(tx, &task.key)?;
        end_attempts(tx, &task.key, closing)?;
        end(tx, &task.key, closing, costs)?;
    }
    Ok(open.len())
}

/// Charges the whole of every open reservation of a task; answers what the task cost, its earlier attempts with it.
fn settle(tx: &mut Tx<'_>, key: &TaskKey) -> Result<Cost, LedgerError> {
    let mut whole = Cost::NOTHING;
    for attempt in tx.attempts(key)? {
        if let (Some(usd), Some(basis)) = (attempt.cost, attempt.basis) {
            whole = together(whole, usd, basis);
        }
    }
    for reservation in tx.open_reservations()?.into_iter().filter(|one| one.key == *key) {
        let (Closed::Now | Closed::Before) =
            tx.settle(reservation.id, reservation.amount, CostBasis::Reserved)?;
        whole = together(whole, reservation.amount, CostBasis::Reserved);
    }
    Ok(whole)
}

/// Adds a charge; the sum is known no better than the worst of its parts.
fn together(cost: Cost, usd: Usd, basis: CostBasis) -> Cost {
    let weakness = |basis: CostBasis| match basis {
        CostBasis::None => 0,
        CostBasis::Reported => 1,
        CostBasis::Derived => 2,
        CostBasis::Reserved => 3,
    };
    let sum = |known: Usd| known.checked_add(usd).unwrap_or(known);
    Cost {
        usd: Some(cost.usd.map_or(usd, sum)),
        basis: if weakness(basis) > weakness(cost.basis) { basis } else { cost.basis },
        reserved_usd: sum(cost.reserved_usd),
    }
}

/// A start that the watcher had not noted yet counts by what its executor wrote: the agent may have run.
fn end_attempts(tx: &mut Tx<'_>, key: &TaskKey, closing: &Closing<'_>) -> Result<(), LedgerError> {
    let state = closing.config.state.path();
    for attempt in tx.attempts(key)?.into_iter().filter(|attempt| attempt.ended_at.is_none()) {
        let written = JobDir::at(state, &key.from, key.id, attempt.epoch).read_started().ok().flatten();
        let started_at = attempt.started_at.or(written.map(|started| started.at));
        if started_at.is_none() {
            tx.revoke(attempt.epoch)?;
            continue;
        }
        let end = AttemptEnd {
            started_at,
            ended_at: closing.now,
            status: Some(Status::Unknown),
            cost: None,
            basis: None,
            outcome: json!({"status": Status::Unknown.as_str(), "code": CODE}).to_string(),
        };
        let (Ending::Ended | Ending::Before | Ending::Superseded) = tx.end_attempt(attempt.epoch, &end)?;
    }
    Ok(())
}

fn end(tx: &mut Tx<'_>, key: &TaskKey, closing: &Closing<'_>, cost: Cost) -> Result<(), LedgerError> {
    let row = tx.task(key)?.ok_or_else(|| LedgerError::UnknownTask { key: key.clone() })?;
    let entry = Entry::of("final").task(key).code(CODE).data(json!({"status": Status::Unknown.as_str()}));
    let head = tx.audit(&entry)?;
    let subject = Subject {
        cluster: closing.config.cluster,
        from: key.from.clone(),
        to: closing.config.node.clone(),
        task: key.id,
        task_sha256: row.digest,
    };
    let reason = Reason {
        code: CODE.to_owned(),
        text: "this node's ledger was replaced; whether the task ran to its end is not known".to_owned(),
        help: "look at what it may have done before you send it again".to_owned(),
    };
    let audit = AuditHead { chain: head.chain, seq: head.seq, head: head.head };
    let mut result = TaskResult::never_ran(subject, Status::Unknown, Some(reason), audit);
    result.accepted_at = Some(row.accepted_at);
    result.cost = cost;
    tell_attempts(&mut result, &tx.attempts(key)?);
    tx.finish(key, TaskEvent::Failed, Status::Unknown, Some(CODE), &result.to_payload())?;
    Ok(())
}

/// Lists those attempts of the older ledger that were started. There may have been others since.
fn tell_attempts(result: &mut TaskResult, attempts: &[AttemptRow]) {
    for attempt in attempts.iter().filter(|attempt| attempt.started_at.is_some()) {
        result.attempts.push(AttemptSummary {
            attempt: attempt.n,
            epoch: attempt.epoch,
            status: attempt.status.unwrap_or(Status::Unknown),
            started_at: attempt.started_at,
            ended_at: attempt.ended_at,
            cost: match (attempt.cost, attempt.basis) {
                (Some(usd), Some(basis)) => Cost { usd: Some(usd), basis, reserved_usd: usd },
                (_, _) => Cost::NOTHING,
            },
        });
    }
    if let Some(last) = result.attempts.last() {
        result.epoch = last.epoch;
        result.attempt = last.attempt;
        result.started_at = last.started_at;
        result.ended_at = last.ended_at;
    }
}

/// Raises what the month has spent to what the node showed or a person says; closes the day and the runs that were
/// open. With nothing known, paid work is off until the month is over (policy section 1).
pub(super) fn carry_over(tx: &mut Tx<'_>, closing: &Closing<'_>) -> Result<Carried, LedgerError> {
    let month = WindowKey::Month(Month::of(closing.now));
    let day = WindowKey::Day(Day::of(closing.now));
    let balance = tx.balance(&month)?;
    let shown = closing.shows.committed_in(closing.now);
    let carried = continuity::carry_over(balance.spent, shown, closing.why.month_spent);
    let raised = match balance.spent.checked_add(carried.add_to_month) {
        Some(least) => tx.raise_spent(&month, least, CostBasis::Reserved)?,
        None => Usd::ZERO,
    };
    tx.close_window(&day, CODE)?;
    for window in tx.windows()?.into_iter().filter(|window| window.closed_at.is_none()) {
        if matches!(window.key, WindowKey::Run { .. } | WindowKey::RunOfDay { .. }) {
            tx.close_window(&window.key, CODE)?;
        }
    }
    // Off already, because nothing tells what was spent: what the node showed since then does not tell it either.
    let was_off = tx.meta()?.paid_off_until.is_some_and(|until| closing.now < until);
    let stays_off = was_off && closing.why.month_spent.is_none();
    let paid_off = stays_off || carried.paid_work == PaidWork::MonthClosed;
    tx.set_paid_off_until(paid_off.then(|| closing.now.next_month()))?;
    Ok(Carried { raised, paid_off })
}
