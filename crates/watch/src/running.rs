//! Settling, leasing, launching: the ledger's part in the life of an attempt.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use dispatch_core::explain;
use dispatch_core::planner::attempt::{self, Money, Next, StopWanted, TaskFacts};
use dispatch_core::planner::queue::{Candidate, choose};
use dispatch_core::policy::admission::{Admission, Billing};
use dispatch_core::policy::lifecycle::TaskState;
use dispatch_core::policy::money::Usd;
use dispatch_core::policy::settlement::{self, Known};
use dispatch_core::protocol::names::{Digest, NodeName, TaskId};
use dispatch_core::protocol::parts::CostBasis;
use dispatch_core::protocol::result::Status;
use dispatch_core::protocol::time::{SECOND_MS, Timestamp};
use dispatch_ledger::{
    AttemptEnd, AttemptRow, Closing, Ending, Entry, LedgerError, NewLease, NewReservation, QueuedTask,
    Reserving, TaskKey, TaskRow, Tx,
};
use dispatch_node::ids;
use dispatch_node::job::{self, JobDir, Metered, Order, Outcome, OutcomeStatus};
use serde_json::json;
use uuid::Uuid;

use crate::attempts::{Came, Ended};
use crate::budget;
use crate::ending::{self, End, finish, finish_as_it_ran, reason};
use crate::forward;
use crate::guards::{self, Guards};
use crate::home::Home;
use crate::pass::contain;
use crate::{recipes, routing};

/// Tasks that are sent on in one transaction; the rest follow in the next.
const FORWARDS_PER_PASS: usize = 64;
/// An attempt that could not be launched is looked at again after so long.
const NOT_STARTED_PAUSE_MS: i64 = SECOND_MS;

/// A lease whose executor is to be started, once the transaction that gave it is committed.
#[derive(Debug)]
pub(crate) struct Launch {
    pub(crate) key: TaskKey,
    pub(crate) attempt: AttemptRow,
    /// What its agent may send tasks with; only its digest is in the ledger.
    pub(crate) token: Option<String>,
}

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

/// Whose turn it may be.
pub(crate) struct Turn<'a> {
    /// How many attempts may begin.
    pub(crate) free: usize,
    /// Only this task, whoever sent it.
    pub(crate) only: Option<TaskId>,
    /// Senders whose tasks may not start now.
    pub(crate) is_held: &'a dyn Fn(&NodeName) -> bool,
}

/// Leases what may start now, in the order of the rules. A task that cannot be handled costs nobody else a turn.
pub(crate) fn lease(
    tx: &mut Tx<'_>,
    home: &Home,
    turn: &Turn<'_>,
    failed: &mut Vec<TaskKey>,
) -> Result<Vec<Launch>, LedgerError> {
    let mut launches = Vec::new();
    if turn.free == 0 && !routing::may_forward(&home.config) {
        return Ok(launches);
    }
    let mut forwarded = 0_usize;
    let (now, mut guards) = (tx.now(), Guards::of(tx)?);
    let queue: BTreeMap<TaskKey, QueuedTask> = tx
        .queue(now)?
        .into_iter()
        .filter(|task| task.stop.is_none() && turn.only.is_none_or(|only| only == task.key.id))
        .filter(|task| !is_late(task, now) && !(turn.is_held)(&task.key.from))
        .map(|task| (task.key.clone(), task))
        .collect();
    let due: Vec<Candidate<TaskKey>> = queue.values().map(candidate).collect();
    let mut places = routing::places(tx, &home.config)?;
    // More candidates than free places are asked, because one without money gives its place to the next.
    for task in choose(&due, due.len(), now).iter().filter_map(|key| queue.get(key)) {
        // Another node's places are its own: what is sent on waits for none here.
        let is_forward = routing::may_forward(&home.config) && forward::is_due(tx, &task.key)?;
        let is_full = if is_forward { forwarded >= FORWARDS_PER_PASS } else { launches.len() >= turn.free };
        if is_full {
            continue;
        }
        let place = place_of(tx, &task.key, &places)?;
        let mut started = Started::Not;
        contain(tx, failed, &task.key, |tx| {
            started = start_one(tx, home, task, &mut guards, &place)?;
            Ok(())
        })?;
        let takes_place = match started {
            Started::Here(launch) => {
                launches.push(*launch);
                true
            }
            Started::Elsewhere => {
                forwarded = forwarded.saturating_add(1);
                true
            }
            // One that waits for something else takes no place from those behind it.
            Started::Not => false,
        };
        if takes_place
            && let Place::Free(Some(backend)) = place
            && let Some(left) = places.get_mut(&backend)
        {
            *left = left.saturating_sub(1);
        }
    }
    Ok(launches)
}

/// What became of a task whose turn it was.
enum Started {
    /// It has a lease, and its executor is to be started.
    Here(Box<Launch>),
    /// It was sent on.
    Elsewhere,
    /// It waits, or has ended.
    Not,
}

/// Whether a task's backend takes one more attempt.
enum Place {
    /// It does; its name, where it has a limit of its own.
    Free(Option<String>),
    /// It, by this name, does not.
    Taken(String),
}

fn place_of(tx: &Tx<'_>, key: &TaskKey, places: &BTreeMap<String, usize>) -> Result<Place, LedgerError> {
    if places.is_empty() {
        return Ok(Place::Free(None));
    }
    let Some(recipe) = tx.recipe(key)?.and_then(|text| recipes::parse(&text)) else {
        return Ok(Place::Free(None));
    };
    Ok(match places.get(&recipe.backend) {
        None => Place::Free(None),
        Some(0) => Place::Taken(recipe.backend),
        Some(_) => Place::Free(Some(recipe.backend)),
    })
}

fn start_one(
    tx: &mut Tx<'_>,
    home: &Home,
    task: &QueuedTask,
    guards: &mut Guards,
    place: &Place,
) -> Result<Started, LedgerError> {
    let key = &task.key;
    // What holds it is asked before its place: else what it waits for would change whenever a place comes or goes.
    if let Some(why) = guards.held(tx, home, task)? {
        return note_wait(tx, key, &why).map(|()| Started::Not);
    }
    match (reserve(tx, home, key)?, place) {
        (Reserved::Yes, Place::Taken(backend)) => {
            note_wait(tx, key, &explain::backend_busy(backend).line()).map(|()| Started::Not)
        }
        (Reserved::Yes, Place::Free(_)) => {
            if forward::is_due(tx, key)? {
                forward::lease(tx, home, key)?;
                return guards.note_start(tx, task).map(|()| Started::Elsewhere);
            }
            let launch = lease_one(tx, key)?;
            if launch.is_some() {
                guards.note_start(tx, task)?;
            }
            Ok(launch.map_or(Started::Not, |launch| Started::Here(Box::new(launch))))
        }
        (Reserved::Waits(why), _) => note_wait(tx, key, &why).map(|()| Started::Not),
        // Rejected says that it never ran.
        (Reserved::No(_), _) if task.attempts_started > 0 => {
            finish_as_it_ran(tx, home, key).map(|()| Started::Not)
        }
        (Reserved::No(refusal), _) => {
            let end = End::plain(Status::Rejected, Some(explain::refusal_reason(&refusal)));
            finish(tx, home, key, &end).map(|()| Started::Not)
        }
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

fn note_wait(tx: &mut Tx<'_>, key: &TaskKey, why: &str) -> Result<(), LedgerError> {
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

fn candidate(task: &QueuedTask) -> Candidate<TaskKey> {
    Candidate {
        key: task.key.clone(),
        priority: task.priority,
        accepted_at: task.accepted_at,
        order_no: task.order_no,
        not_before: task.not_before,
    }
}

fn lease_one(tx: &mut Tx<'_>, key: &TaskKey) -> Result<Option<Launch>, LedgerError> {
    let Ok(mark) = ids::hex_256() else { return Ok(None) };
    let reservation = tx.task(key)?.and_then(|task| task.reservation);
    let recipe = tx.recipe(key)?.and_then(|text| recipes::parse(&text));
    let token = match recipe.as_ref().is_some_and(recipes::may_send) {
        true => Some(ids::hex_256()).transpose(),
        false => Ok(None),
    };
    let Ok(token) = token else { return Ok(None) };
    let token_sha256 = token.as_ref().map(|token| Digest::of(token.as_bytes()));
    let attempt = tx.lease(&NewLease { key: key.clone(), mark, reservation, token_sha256, child: None })?;
    tx.audit(&Entry::of("leased").task(key).epoch(attempt.epoch))?;
    if let Some(endpoint) = recipe.and_then(|recipe| recipe.endpoint) {
        let data = json!({"endpoint": endpoint.name, "host": endpoint.host});
        tx.audit(&Entry::of("egress").task(key).epoch(attempt.epoch).data(data))?;
    }
    Ok(Some(Launch { key: key.clone(), attempt, token }))
}

/// Why an executor could not be started; the attempt is looked at again like any other that never began.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LaunchError {
    #[error("cannot prepare the job directory")]
    Job(#[from] job::JobError),
    #[error("cannot start `{program}`")]
    Spawn { program: String, source: std::io::Error },
}

/// Makes the job directory of a lease and starts its executor. The executor makes a session of its own, so that it
/// outlives this watcher.
pub(crate) fn launch(
    executor: &Path,
    state: &Path,
    order: &Order,
    request: &[u8],
) -> Result<Child, LaunchError> {
    let job = JobDir::create(state, order, request)?;
    let spawn_error =
        |source| LaunchError::Spawn { program: executor.to_string_lossy().into_owned(), source };
    let errors = File::create(job.file("executor.log")).map_err(spawn_error)?;
    Command::new(executor)
        .arg("--job")
        .arg(job.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(errors)
        .process_group(0)
        .spawn()
        .map_err(spawn_error)
}
