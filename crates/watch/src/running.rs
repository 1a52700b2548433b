//! Settling: the ledger's part in what an attempt came to, and in what its task may still cost.

use dispatch_core::explain;
use dispatch_core::planner::attempt::{self, Money, Next, StopWanted, TaskFacts};
use dispatch_core::policy::admission::{Admission, Billing};
use dispatch_core::policy::lifecycle::TaskState;
use dispatch_core::policy::money::Usd;
use dispatch_core::policy::settlement::{self, Known};
use dispatch_core::protocol::parts::CostBasis;
use dispatch_core::protocol::result::Status;
use dispatch_core::protocol::time::{SECOND_MS, Timestamp};
use dispatch_ledger::{
    AttemptEnd, AttemptRow, Closing, Ending, Entry, LedgerError, NewReservation, QueuedTask, Reserving,
    TaskKey, TaskRow, Tx,
};
use dispatch_node::ids;
use dispatch_node::job::{self, Metered, Outcome, OutcomeStatus};
use serde_json::json;
use uuid::Uuid;

use crate::attempts::{Came, Ended};
use crate::budget;
use crate::ending::{self, End, finish, finish_as_it_ran, reason};
use crate::guards::{self};
use crate::home::Home;
use crate::{recipes, routing};

/// An attempt that could not be launched is looked at again after so long.
const NOT_STARTED_PAUSE_MS: i64 = SECOND_MS;

/// Settles what ended: its reservation, its task, or its next attempt.
pub(crate) fn settle(tx: &mut Tx<'_>, home: &Home, ended: &Ended) -> Result<(), LedgerError> {
    let row = &ended.row;
    let Some(task) = tx.task(&row.key)? else {
        return Err(LedgerError::UnknownTask { key: row.key.clone() });
    };
    match &ended.came {
        Came::NeverBegan => give_back(tx, home, row, &task, None),
        Came::Outcome(outcome) if outcome.status == OutcomeStatus::NotStarted => {
            give_back(tx, home, row, &task, Some(outcome))
        }
        Came::Outcome(outcome) => ran(tx, home, row, &task, outcome),
        Came::Dead { started_at } => {
            let end = AttemptEnd {
                started_at: Some(*started_at),
                ended_at: tx.now(),
                status: Some(Status::Unknown),
                cost: None,
                basis: None,
                outcome: "{}".to_owned(),
            };
            close(tx, home, row, &task, &Closed { ending: attempt::Ending::Unknown, end, outcome: None })
        }
    }
}

/// A lease that came to no start: the right to run goes back, and so does the place in the queue.
fn give_back(
    tx: &mut Tx<'_>,
    home: &Home,
    row: &AttemptRow,
    task: &TaskRow,
    outcome: Option<&Outcome>,
) -> Result<(), LedgerError> {
    tx.revoke(row.epoch)?;
    let ending = if outcome.is_some() { attempt::Ending::NotStarted } else { attempt::Ending::NeverBegan };
    let why = outcome.and_then(|outcome| outcome.reason.as_ref()).map(|reason| reason.code.clone());
    tx.audit(
        &Entry::of("revoked").task(&row.key).epoch(row.epoch).code(why.as_deref().unwrap_or("never_began")),
    )?;
    match attempt::after(facts(task, task.attempts_started), ending) {
        Next::Requeue { back_off_ms, launch_failures } if launch_failures > task.launch_failures => {
            tx.note_launch_failure(&row.key, tx.now().plus_ms(back_off_ms))
        }
        Next::Requeue { .. } => tx.set_not_before(&row.key, Some(tx.now().plus_ms(NOT_STARTED_PAUSE_MS))),
        Next::Final { status, .. } => {
            release(tx, task.reservation)?;
            let why = if status == Status::Cancelled {
                cancelled_reason(task)
            } else {
                reason(
                    "cannot_start",
                    "the executor could not be started five times in a row",
                    "look at the watcher's journal on the node that runs it, then send the task again",
                )
            };
            finish(tx, home, &row.key, &End::plain(status, why))
        }
        Next::Again { otherwise } => finish(tx, home, &row.key, &End::plain(otherwise, None)),
    }
}

fn cancelled_reason(task: &TaskRow) -> Option<dispatch_core::protocol::result::Reason> {
    let by = task.stop.as_ref().map_or("its sender", |stop| stop.by.as_str());
    reason("cancelled", format!("cancelled by {by} before it started"), "send it again if it is still wanted")
}

/// An attempt that was started and is over, whatever became of it.
pub(crate) struct Closed<'a> {
    pub(crate) ending: attempt::Ending,
    pub(crate) end: AttemptEnd,
    pub(crate) outcome: Option<&'a Outcome>,
}

fn ran(
    tx: &mut Tx<'_>,
    home: &Home,
    row: &AttemptRow,
    task: &TaskRow,
    outcome: &Outcome,
) -> Result<(), LedgerError> {
    let status = ending::status_of(outcome.status).unwrap_or(Status::Unknown);
    let (cost, basis) = cost_of(tx, row, task, outcome)?;
    let ended_at = outcome.ended_at.unwrap_or_else(|| tx.now());
    let end = AttemptEnd {
        started_at: Some(outcome.started_at.unwrap_or(row.started_at.unwrap_or(ended_at))),
        ended_at,
        status: Some(status),
        cost,
        basis: Some(basis),
        outcome: serde_json::to_string(outcome).unwrap_or_else(|_| "{}".to_owned()),
    };
    let ending = if outcome.spawned { attempt::Ending::Ran(status) } else { attempt::Ending::CannotStart };
    close(tx, home, row, task, &Closed { ending, end, outcome: Some(outcome) })
}

/// What an attempt cost, and how that is known (policy section 1, "basis of the actual").
fn cost_of(
    tx: &Tx<'_>,
    row: &AttemptRow,
    task: &TaskRow,
    outcome: &Outcome,
) -> Result<(Option<Usd>, CostBasis), LedgerError> {
    if task.billing != Billing::Metered || !outcome.spawned {
        return Ok((None, CostBasis::None));
    }
    let told = outcome.cost.map(|cost| match cost.basis {
        job::CostBasis::Reported => (cost.usd, CostBasis::Reported),
        job::CostBasis::Derived => (cost.usd, CostBasis::Derived),
    });
    let ended_well = outcome.status == OutcomeStatus::Ok;
    let known = Known {
        told,
        machine: if ended_well { machine_cost(tx, row, outcome)? } else { None },
        metered: outcome.metered.as_ref().map(|metered| metered.usd),
    };
    Ok(settlement::actual(reserved(tx, row.reservation)?, &known))
}

/// What the machine of a backend cost, where nothing else of the task is paid by use.
fn machine_cost(tx: &Tx<'_>, row: &AttemptRow, outcome: &Outcome) -> Result<Option<Usd>, LedgerError> {
    let recipe = tx.recipe(&row.key)?.and_then(|text| recipes::parse(&text));
    let recipe = recipe.filter(|recipe| recipe.billing != Billing::Metered.as_str());
    Ok(recipe
        .zip(outcome.elapsed_ms)
        .and_then(|(recipe, elapsed_ms)| routing::machine_cost(&recipe, elapsed_ms)))
}

/// What a reservation sets aside, where there is one.
pub(crate) fn reserved(tx: &Tx<'_>, reservation: Option<Uuid>) -> Result<Option<Usd>, LedgerError> {
    match reservation {
        Some(id) => Ok(tx.reservation(id)?.map(|reservation| reservation.amount)),
        None => Ok(None),
    }
}

/// Ends an attempt, and its task or the way to its next attempt.
pub(crate) fn close(
    tx: &mut Tx<'_>,
    home: &Home,
    row: &AttemptRow,
    task: &TaskRow,
    closed: &Closed<'_>,
) -> Result<(), LedgerError> {
    let mut end = closed.end.clone();
    if closed.outcome.is_none() && task.billing == Billing::Metered {
        // Killed or silent agents are never booked at zero.
        end.cost = reserved(tx, row.reservation)?;
        end.basis = Some(CostBasis::Reserved);
    }
    match tx.end_attempt(row.epoch, &end)? {
        Ending::Ended => {}
        Ending::Before => return Ok(()),
        Ending::Superseded => {
            tx.audit(&Entry::of("superseded").task(&row.key).epoch(row.epoch))?;
            return Ok(());
        }
    }
    if let Some(status) = end.status {
        guards::note_ending(tx, home, task, status, closed.outcome)?;
    }
    let mut entry = Entry::of("ended").task(&row.key).epoch(row.epoch).data(json!({
        "status": end.status.map(Status::as_str), "usd": end.cost.map(|usd| usd.to_string()),
        "basis": end.basis.map(CostBasis::as_str),
    }));
    if let Some(why) = closed.outcome.and_then(|outcome| outcome.reason.as_ref()) {
        entry = entry.code(&why.code);
    }
    tx.audit(&entry)?;
    if let Some(metered) = closed.outcome.and_then(|outcome| outcome.metered.as_ref()) {
        audit_unknown_models(tx, row, metered)?;
    }
    let started = tx.task(&row.key)?.map_or(task.attempts_started, |now| now.attempts_started);
    match attempt::after(facts(task, started), closed.ending) {
        Next::Final { status, money } => {
            pay(tx, home, row, &end, money)?;
            finish(tx, home, &row.key, &End::of_attempt(status, closed.outcome))
        }
        Next::Again { otherwise } => {
            let money = if end.cost.is_some() { Money::Settle } else { Money::Release };
            pay(tx, home, row, &end, money)?;
            match reserve(tx, home, &row.key)? {
                Reserved::Yes => Ok(()),
                // There may be room later, or a person lets it go on: it waits as one that never started does.
                Reserved::Waits(why) if home.clock_suspect || tx.now() < task.expires => {
                    note_wait(tx, &row.key, &why)
                }
                Reserved::Waits(_) | Reserved::No(_) => {
                    finish(tx, home, &row.key, &End::of_attempt(otherwise, closed.outcome))
                }
            }
        }
        Next::Requeue { .. } => Ok(()),
    }
}

/// A model without a price was paid at the dearest rates: somebody should give it its own.
fn audit_unknown_models(tx: &mut Tx<'_>, row: &AttemptRow, metered: &Metered) -> Result<(), LedgerError> {
    if !metered.unknown_models.is_empty() {
        let data = json!({"models": metered.unknown_models, "usd": metered.usd.to_string()});
        tx.audit(&Entry::of("price_unknown").task(&row.key).epoch(row.epoch).data(data))?;
    }
    Ok(())
}

/// Closes the reservation of an attempt, once.
fn pay(
    tx: &mut Tx<'_>,
    home: &Home,
    row: &AttemptRow,
    end: &AttemptEnd,
    money: Money,
) -> Result<(), LedgerError> {
    let Some(id) = row.reservation else { return Ok(()) };
    let closing = match (money, end.cost) {
        (Money::Settle, Some(cost)) => tx.settle(id, cost, end.basis.unwrap_or(CostBasis::Reserved))?,
        (Money::Settle, None) | (Money::Release, _) => tx.release(id)?,
        (Money::Keep, _) => return Ok(()),
    };
    let amount = tx.reservation(id)?.map(|reservation| reservation.amount);
    if closing == Closing::Now && end.cost.zip(amount).is_some_and(|(cost, amount)| cost > amount) {
        tx.audit(&Entry::of("cost_above_reservation").task(&row.key).epoch(row.epoch).data(json!({
            "usd": end.cost.map(|usd| usd.to_string()), "reserved_usd": amount.map(|usd| usd.to_string()),
        })))?;
    }
    if closing == Closing::Now { guards::note_charge(tx, home, &row.key.from) } else { Ok(()) }
}

/// Gives a reservation back, where there is one.
pub(crate) fn release(tx: &mut Tx<'_>, reservation: Option<Uuid>) -> Result<(), LedgerError> {
    if let Some(id) = reservation {
        // Closed before is closed: nothing is given back twice.
        let (Closing::Now | Closing::Before) = tx.release(id)?;
    }
    Ok(())
}

fn facts(task: &TaskRow, attempts_started: u32) -> TaskFacts {
    TaskFacts {
        attempts_started,
        max_attempts: task.max_attempts,
        launch_failures: task.launch_failures,
        stop: if task.stop.is_some() { StopWanted::Cancel } else { StopWanted::No },
    }
}

/// Whether the money of the next attempt is set aside.
pub(crate) enum Reserved {
    /// It is, or it costs nothing.
    Yes,
    /// The windows have no room now.
    Waits(String),
    /// They never will.
    No(Box<dispatch_core::policy::admission::Refusal>),
}

/// Sets aside what the next attempt of a task may cost, if the budget still says yes.
pub(crate) fn reserve(tx: &mut Tx<'_>, home: &Home, key: &TaskKey) -> Result<Reserved, LedgerError> {
    let Some(row) = tx.task(key)? else { return Err(LedgerError::UnknownTask { key: key.clone() }) };
    if row.billing != Billing::Metered || row.reservation.is_some() {
        return Ok(Reserved::Yes);
    }
    match budget::look_again(tx, home, &row)? {
        Admission::Queue { reservation: None, .. } => Ok(Reserved::Yes),
        Admission::Queue { reservation: Some(wanted), cost } => {
            let new = NewReservation {
                id: match ids::uuid_v4() {
                    Ok(id) => id,
                    // Without randomness nothing is reserved, and so nothing runs.
                    Err(_) => return Ok(Reserved::Waits("no randomness".to_owned())),
                },
                key: key.clone(),
                nth: row.attempts_started.saturating_add(1),
                amount: wanted.amount,
                windows: wanted.windows,
                payer: wanted.payer,
            };
            match tx.reserve_within(&new, &home.caps())? {
                Reserving::Reserved => {
                    tx.set_cost(key, cost)?;
                    Ok(Reserved::Yes)
                }
                Reserving::WouldExceed { window, .. } | Reserving::Closed { window } => {
                    Ok(Reserved::Waits(window.to_string()))
                }
            }
        }
        Admission::WaitForRoom { wait, .. } => Ok(Reserved::Waits(explain::wait_line(&wait))),
        Admission::Refuse(refusal) => Ok(Reserved::No(Box::new(refusal))),
        // A look at the budget alone never asks a person.
        Admission::Park { .. } => Ok(Reserved::Waits("a person".to_owned())),
    }
}

/// Ends what is still queued past its time (protocol section 4), whatever keeps it from starting, and what has run and
/// waits for the money of its next attempt.
pub(crate) fn expire(tx: &mut Tx<'_>, home: &Home, task: &QueuedTask) -> Result<(), LedgerError> {
    if task.attempts_started > 0 {
        return finish_as_it_ran(tx, home, &task.key);
    }
    release(tx, task.reservation)?;
    finish(tx, home, &task.key, &End::plain(Status::Expired, expired_reason(task)))
}

pub(crate) fn note_wait(tx: &mut Tx<'_>, key: &TaskKey, why: &str) -> Result<(), LedgerError> {
    if tx.task(key)?.is_some_and(|task| task.wait_reason.as_deref() != Some(why)) {
        tx.set_wait_reason(key, Some(why))?;
        tx.audit(&Entry::of("waits").task(key).data(json!({"for": why})))?;
    }
    Ok(())
}

/// Past its time before its first start; what has started once may go on (protocol section 4), but waits no longer for
/// money that it does not have (policy section 1).
pub(crate) fn is_late(task: &QueuedTask, now: Timestamp) -> bool {
    let never_started = task.state == TaskState::Queued && task.attempts_started == 0;
    let waits_for_money =
        task.state == TaskState::Running && task.billing == Billing::Metered && task.reservation.is_none();
    (never_started || waits_for_money) && now >= task.expires
}

fn expired_reason(task: &QueuedTask) -> Option<dispatch_core::protocol::result::Reason> {
    reason(
        "expired",
        format!("it was still queued at {}, when it expired", task.expires),
        "send it again with a longer --expires, or when the node has room",
    )
}
