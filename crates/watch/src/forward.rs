//! Backends of kind `lan_worker`: a task sent on to another node (policy section 4).
//!
//! A forward is an attempt without an executor. The child that stands in its place is made in the leasing transaction, and
//! the attempt ends when the child's answer is believed, or when its time is over. The node that runs it pays; here what it
//! may cost counts against its tree.

use dispatch_core::explain;
use dispatch_core::planner::attempt;
use dispatch_core::policy::admission::{Billing, Refusal, RefusalCode};
use dispatch_core::policy::lineage::{Left, Lineage, LineageError, forward};
use dispatch_core::policy::money::Usd;
use dispatch_core::policy::settlement;
use dispatch_core::protocol::limits::LIFETIME_MS_MAX;
use dispatch_core::protocol::names::{Name, NodeName};
use dispatch_core::protocol::parts::CostBasis;
use dispatch_core::protocol::reason::ReasonCode;
use dispatch_core::protocol::result::{AgentInfo, Reason, Status, TaskResult};
use dispatch_core::protocol::task::{Callback, Task};
use dispatch_core::protocol::time::MINUTE_MS;
use dispatch_ledger::{
    AttemptEnd, AttemptRow, ChildKind, ChildRow, Entry, LedgerError, NewLease, TaskKey, TaskRow, Tx,
};
use dispatch_node::ids;
use dispatch_node::job::{self, AgentSeen, Outcome, OutcomeStatus, Usage};
use serde_json::json;

use crate::attempts::{Came, Ended};
use crate::children::{self, LogKept, Making};
use crate::ending::{End, finish, finish_as_it_ran};
use crate::home::Home;
use crate::running::{self, Closed};
use crate::{lineage, recipes};

/// A later attempt of a task whose own time is over is still taken for so long.
const LEAST_LIFE_MS: i64 = 10 * MINUTE_MS;

/// The node that a task's recipe sends it on to.
fn receiver_of(tx: &Tx<'_>, key: &TaskKey) -> Result<Option<NodeName>, LedgerError> {
    let recipe = tx.recipe(key)?.and_then(|text| recipes::parse(&text));
    Ok(recipe.and_then(|recipe| recipe.forward).and_then(|node| NodeName::new(&node).ok()))
}

/// True where a task is not for this node to run.
pub(crate) fn is_due(tx: &Tx<'_>, key: &TaskKey) -> Result<bool, LedgerError> {
    Ok(receiver_of(tx, key)?.is_some())
}

/// Leases a task whose recipe forwards it, and makes the child in its place.
pub(crate) fn lease(tx: &mut Tx<'_>, home: &Home, key: &TaskKey) -> Result<(), LedgerError> {
    let unknown = || LedgerError::UnknownTask { key: key.clone() };
    let row = tx.task(key)?.ok_or_else(unknown)?;
    let (Some(to), Some(task)) = (receiver_of(tx, key)?, lineage::task_of(tx, home, &row)?) else {
        return Err(unknown());
    };
    if !home.peers.contains_key(&to) {
        return give_up(tx, home, &row, explain::code_reason(ReasonCode::TermsChanged));
    }
    let (Ok(mark), Ok(id)) = (ids::hex_256(), ids::task_id(tx.now())) else { return Ok(()) };
    let own = Lineage::of_task(&task);
    let left = Left {
        fanout: lineage::left_of(tx, home, task.id, &own)?.fanout,
        // What is set aside for this attempt is all there is for it, and nothing at all for what is not paid by use here.
        budget_usd: Some(running::reserved(tx, row.reservation)?.unwrap_or(Usd::ZERO)),
    };
    let depth_max = i64::from(home.config.lineage.depth_max);
    let Ok(lineage) = forward(task.id, &own, &left, depth_max) else {
        let wrong = LineageError::TooDeep { depth_max };
        let refusal = Refusal { lineage: Some(wrong), ..Refusal::plain(RefusalCode::LineageExceeded) };
        return give_up(tx, home, &row, explain::refusal_reason(&refusal));
    };
    let mut via = task.lineage.as_ref().map_or_else(Vec::new, |lineage| lineage.via.clone());
    via.push(task.from.clone());
    let least = tx.now().plus_ms(LEAST_LIFE_MS);
    let body = Task {
        id,
        to,
        expires: task.expires.max(least).min(tx.now().plus_ms(LIFETIME_MS_MAX)),
        max_cost_usd: row.cost.ceiling_usd,
        // Another attempt is this node's to make: with money of its own, and in the open.
        max_attempts: 1,
        callback: Callback::None,
        ..task
    };
    if let Err(no) = children::fits(&body, &via) {
        return give_up(tx, home, &row, Reason { code: no.code.to_owned(), text: no.text, help: no.help });
    }
    let lease = NewLease {
        key: key.clone(),
        mark,
        reservation: row.reservation,
        token_sha256: None,
        child: Some(id),
    };
    let attempt = tx.lease(&lease)?;
    tx.audit(&Entry::of("leased").task(key).epoch(attempt.epoch))?;
    let made = Making { kind: ChildKind::Forwarded, epoch: attempt.epoch, lineage, via };
    children::insert(tx, home, body, &made, None).map(drop)
}

/// It cannot be sent on: it ends, as its last attempt did where there was one.
fn give_up(tx: &mut Tx<'_>, home: &Home, row: &TaskRow, why: Reason) -> Result<(), LedgerError> {
    if row.attempts_started > 0 {
        return finish_as_it_ran(tx, home, &row.key);
    }
    running::release(tx, row.reservation)?;
    finish(tx, home, &row.key, &End::plain(Status::Rejected, Some(why)))
}

/// A forwarded child is sealed: from here on it may run.
pub(crate) fn kept(tx: &mut Tx<'_>, attempt: &AttemptRow) -> Result<(), LedgerError> {
    let now = tx.now();
    if is_open(attempt) { tx.mark_started(attempt.epoch, now) } else { Ok(()) }
}

/// It was stopped before it left: as an executor that found the stop before it started anything.
pub(crate) fn not_sent(tx: &mut Tx<'_>, home: &Home, attempt: &AttemptRow) -> Result<(), LedgerError> {
    if !is_open(attempt) {
        return Ok(());
    }
    let outcome = Outcome::bare(attempt.epoch, OutcomeStatus::NotStarted);
    running::settle(tx, home, &Ended { row: attempt.clone(), came: Came::Outcome(Box::new(outcome)) })
}

fn is_open(attempt: &AttemptRow) -> bool {
    attempt.ended_at.is_none()
}

/// The answer of the node that ran it is this attempt's outcome.
pub(crate) fn answered(
    tx: &mut Tx<'_>,
    home: &Home,
    row: &ChildRow,
    attempt: &AttemptRow,
    result: &TaskResult,
    log: LogKept,
) -> Result<(), LedgerError> {
    let Some(task) = tx.task(&attempt.key)? else {
        return Err(LedgerError::UnknownTask { key: attempt.key.clone() });
    };
    let outcome = outcome_of(attempt, result, log);
    let metered = task.billing == Billing::Metered;
    let spent = result.cost.usd.filter(|usd| usd.is_positive());
    if !metered && let Some(usd) = spent {
        // It was to cost nothing, and nothing is set aside that it could be charged to.
        let data = json!({"usd": usd.to_string(), "reserved_usd": "0"});
        tx.audit(&Entry::of("cost_above_reservation").task(&attempt.key).epoch(attempt.epoch).data(data))?;
    }
    let reserved = running::reserved(tx, attempt.reservation)?.unwrap_or(Usd::ZERO);
    let charged = if metered { settlement::child_actual(Some(result), reserved, row.fanout) } else { None };
    let end = AttemptEnd {
        started_at: Some(attempt.started_at.unwrap_or(tx.now())),
        ended_at: result.ended_at.unwrap_or(tx.now()),
        status: Some(result.status),
        cost: charged.map(|(usd, _)| usd),
        basis: Some(charged.map_or(CostBasis::None, |(_, basis)| basis)),
        outcome: serde_json::to_string(&outcome).unwrap_or_else(|_| "{}".to_owned()),
    };
    let ending = attempt::Ending::Ran(result.status);
    running::close(tx, home, attempt, &task, &Closed { ending, end, outcome: Some(&outcome) })
}

/// Nobody knows what became of it: all that was set aside counts as spent.
pub(crate) fn unanswered(
    tx: &mut Tx<'_>,
    home: &Home,
    row: &ChildRow,
    attempt: &AttemptRow,
) -> Result<(), LedgerError> {
    let Some(task) = tx.task(&attempt.key)? else {
        return Err(LedgerError::UnknownTask { key: attempt.key.clone() });
    };
    let reserved = running::reserved(tx, attempt.reservation)?.filter(|_| task.billing == Billing::Metered);
    let outcome = Outcome {
        reason: Some(job::Reason {
            code: "unanswered".to_owned(),
            text: format!(
                "`{}`, which it was forwarded to, gave no answer by {}",
                row.receiver, row.answer_by
            ),
            help: format!("look on `{}` what became of {} before sending it again", row.receiver, row.id),
        }),
        spawned: true,
        ..Outcome::bare(attempt.epoch, OutcomeStatus::Error)
    };
    let end = AttemptEnd {
        started_at: Some(attempt.started_at.unwrap_or(attempt.leased_at)),
        ended_at: tx.now(),
        status: Some(Status::Unknown),
        cost: reserved,
        basis: Some(if reserved.is_some() { CostBasis::Reserved } else { CostBasis::None }),
        outcome: serde_json::to_string(&outcome).unwrap_or_else(|_| "{}".to_owned()),
    };
    let ending = attempt::Ending::Unknown;
    running::close(tx, home, attempt, &task, &Closed { ending, end, outcome: Some(&outcome) })
}

/// What the other node said of the run, in the place of an executor's word.
fn outcome_of(attempt: &AttemptRow, result: &TaskResult, log: LogKept) -> Outcome {
    let has_log = log == LogKept::Yes;
    Outcome {
        spawned: result.started_at.is_some(),
        reason: result.reason.as_ref().map(|reason| job::Reason {
            code: reason.code.clone(),
            text: reason.text.clone(),
            help: reason.help.clone(),
        }),
        exit_code: result.exit_code,
        signal: result.signal,
        started_at: result.started_at,
        ended_at: result.ended_at,
        elapsed_ms: result.elapsed_ms,
        final_text: result.final_text.clone(),
        output_tail: result.output_tail.clone(),
        output_bytes: result.output_bytes,
        log_bytes: if has_log { result.log_bytes } else { 0 },
        log_sha256: result.log_sha256.filter(|_| has_log),
        truncated: result.truncated || !has_log,
        usage: result.usage.map(|usage| Usage {
            input_tokens: usage.input_tokens,
            output_tokens: usage.output_tokens,
            cache_read_tokens: usage.cache_read_tokens,
            cache_write_tokens: usage.cache_write_tokens,
        }),
        agent: result.agent.as_ref().and_then(agent_of),
        permission_denials: result.permission_denials.clone(),
        ..Outcome::bare(attempt.epoch, status_of(result.status))
    }
}

fn agent_of(agent: &AgentInfo) -> Option<AgentSeen> {
    Some(AgentSeen {
        profile: Name::new(agent.profile.as_str()).ok()?,
        kind: recipes::kind_of(&agent.kind)?,
        version: agent.version.clone(),
        session_id: agent.session_id.clone(),
    })
}

/// The nearest word an executor has; the task's own status is the result's.
const fn status_of(status: Status) -> OutcomeStatus {
    match status {
        Status::Ok | Status::Verified => OutcomeStatus::Ok,
        Status::Refuted => OutcomeStatus::Refuted,
        Status::Timeout => OutcomeStatus::Timeout,
        Status::Silent => OutcomeStatus::Silent,
        Status::OverBudget => OutcomeStatus::OverBudget,
        Status::Killed => OutcomeStatus::Killed,
        Status::Cancelled => OutcomeStatus::Cancelled,
        Status::Error | Status::Rejected | Status::Denied | Status::Expired | Status::Unknown => {
            OutcomeStatus::Error
        }
    }
}
