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
        end_attempts(tx, &task.key, closing.now)?;
        end(tx, &task.key, closing, costs)?;
    }
    Ok(open.len())
}

/// Charges the whole of every open reservation of a task; answers what that was.
fn settle(tx: &mut Tx<'_>, key: &TaskKey) -> Result<Cost, LedgerError> {
    let mut charged: Option<Usd> = None;
    for reservation in tx.open_reservations()?.into_iter().filter(|one| one.key == *key) {
        let (Closed::Now | Closed::Before) =
            tx.settle(reservation.id, reservation.amount, CostBasis::Reserved)?;
        charged =
            Some(charged.and_then(|sum| sum.checked_add(reservation.amount)).unwrap_or(reservation.amount));
    }
    Ok(match charged {
        Some(usd) => Cost { usd: Some(usd), basis: CostBasis::Reserved, reserved_usd: usd },
        None => Cost::NOTHING,
    })
}

fn end_attempts(tx: &mut Tx<'_>, key: &TaskKey, now: Timestamp) -> Result<(), LedgerError> {
    for attempt in tx.attempts(key)?.into_iter().filter(|attempt| attempt.ended_at.is_none()) {
        if attempt.started_at.is_none() {
            tx.revoke(attempt.epoch)?;
            continue;
        }
        let end = AttemptEnd {
            started_at: None,
            ended_at: now,
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
    let paid_off = carried.paid_work == PaidWork::MonthClosed;
    tx.set_paid_off_until(paid_off.then(|| closing.now.next_month()))?;
    Ok(Carried { raised, paid_off })
}
