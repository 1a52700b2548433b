//! Making a task final: its state, its audit entry and the payload of its one result, in one transaction.

use dispatch_core::policy::admission::Billing;
use dispatch_core::policy::lifecycle::{TaskEvent, TaskState};
use dispatch_core::policy::money::Usd;
use dispatch_core::protocol::names::NodeName;
use dispatch_core::protocol::parts::{AuditHead, Cost, CostBasis};
use dispatch_core::protocol::payload::Payload as _;
use dispatch_core::protocol::result::{
    AgentInfo, AttemptSummary, BackendInfo, Containment, Reason, Status, Subject, TaskResult, Usage,
};
use dispatch_ledger::{AttemptRow, Entry, LedgerError, TaskKey, TaskRow, Tx};
use dispatch_node::job::{Outcome, OutcomeStatus};
use serde_json::json;

use crate::home::Home;
use crate::recipes;

/// How a task ends.
#[derive(Clone, Debug)]
pub(crate) struct End {
    pub(crate) status: Status,
    pub(crate) reason: Option<Reason>,
    /// What the last attempt's executor said, where there is one.
    pub(crate) outcome: Option<Outcome>,
    /// Whose decision it was, where it was one.
    pub(crate) decided_by: Vec<String>,
}

impl End {
    /// An end that nothing ran for.
    pub(crate) fn plain(status: Status, reason: Option<Reason>) -> End {
        End { status, reason, outcome: None, decided_by: Vec::new() }
    }

    /// The end of a task whose last attempt came to this.
    pub(crate) fn of_attempt(status: Status, outcome: Option<&Outcome>) -> End {
        let why = match outcome.and_then(|outcome| outcome.reason.as_ref()) {
            Some(told) => reason(&told.code, told.text.clone(), told.help.clone()),
            None if status == Status::Unknown => reason(
                "unknown",
                "the node or its executor died while the agent ran; it may or may not have run to its end",
                "look at what it was to do before sending it again",
            ),
            None => None,
        };
        End { status, reason: why, outcome: outcome.cloned(), decided_by: Vec::new() }
    }
}

/// A reason, in words.
pub(crate) fn reason(code: &str, what: impl Into<String>, help: impl Into<String>) -> Option<Reason> {
    Some(Reason { code: code.to_owned(), text: what.into(), help: help.into() })
}

/// The event that a status is in the life of a task (architecture, "States").
fn event_of(state: TaskState, status: Status) -> TaskEvent {
    let before_approval = matches!(state, TaskState::Received | TaskState::AwaitingApproval);
    match status {
        Status::Ok | Status::Verified => TaskEvent::Succeeded,
        Status::Denied if before_approval => TaskEvent::Denied,
        Status::Rejected if before_approval => TaskEvent::Refused,
        Status::Denied
        | Status::Rejected
        | Status::Refuted
        | Status::Error
        | Status::Timeout
        | Status::Silent
        | Status::OverBudget
        | Status::Killed
        | Status::Cancelled
        | Status::Expired
        | Status::Unknown => TaskEvent::Failed,
    }
}

/// Ends a task. Its reservation is closed by whoever knows what it cost, before this.
pub(crate) fn finish(tx: &mut Tx<'_>, home: &Home, key: &TaskKey, end: &End) -> Result<(), LedgerError> {
    let row = tx.task(key)?.ok_or_else(|| LedgerError::UnknownTask { key: key.clone() })?;
    let attempts = tx.attempts(key)?;
    let code = end.reason.as_ref().map(|reason| reason.code.clone());
    let mut entry = Entry::of("final").task(key).data(json!({"status": end.status.as_str()}));
    if let Some(code) = &code {
        entry = entry.code(code);
    }
    if let Some(last) = attempts.last() {
        entry = entry.epoch(last.epoch);
    }
    let head = tx.audit(&entry)?;
    let audit = AuditHead { chain: head.chain, seq: head.seq, head: head.head };
    let result = result_of(tx, home, &row, &attempts, end, audit)?;
    tx.finish(key, event_of(row.state, end.status), end.status, code.as_deref(), &result)?;
    Ok(())
}

/// Ends a task that has run and gets no further attempt: as its last one ended.
pub(crate) fn finish_as_it_ran(tx: &mut Tx<'_>, home: &Home, key: &TaskKey) -> Result<(), LedgerError> {
    let attempts = tx.attempts(key)?;
    let last = attempts.iter().rev().find(|attempt| attempt.started_at.is_some());
    let outcome = last.and_then(|attempt| serde_json::from_str::<Outcome>(attempt.outcome.as_deref()?).ok());
    let status = last.and_then(|attempt| attempt.status).unwrap_or(Status::Unknown);
    finish(tx, home, key, &End::of_attempt(status, outcome.as_ref()))
}

fn result_of(
    tx: &Tx<'_>,
    home: &Home,
    row: &TaskRow,
    attempts: &[AttemptRow],
    end: &End,
    audit: AuditHead,
) -> Result<Vec<u8>, LedgerError> {
    let subject = Subject {
        cluster: home.cluster,
        from: row.key.from.clone(),
        to: home.node.clone(),
        task: row.key.id,
        task_sha256: row.digest,
    };
    let mut result = TaskResult::never_ran(subject, end.status, end.reason.clone(), audit);
    result.accepted_at = Some(row.accepted_at);
    result.decided_by.clone_from(&end.decided_by);
    if result.decided_by.is_empty() {
        let consumed = tx.decisions(&row.key)?.into_iter().filter(|decision| decision.consumed_at.is_some());
        result.decided_by = consumed.map(|decision| decision.decision.author).collect();
        result.decided_by.extend(tx.standing_authors(&row.key)?);
    }
    let ran: Vec<&AttemptRow> = attempts.iter().filter(|attempt| attempt.started_at.is_some()).collect();
    for attempt in &ran {
        result.attempts.push(AttemptSummary {
            attempt: attempt.n,
            epoch: attempt.epoch,
            status: attempt.status.unwrap_or(Status::Unknown),
            started_at: attempt.started_at,
            ended_at: attempt.ended_at,
            cost: attempt_cost(tx, row, attempt)?,
        });
    }
    if let Some(last) = ran.last() {
        result.epoch = last.epoch;
        result.attempt = last.n;
        result.started_at = last.started_at;
        result.ended_at = last.ended_at;
        result.queue_wait_ms =
            last.started_at.and_then(|at| u64::try_from(at.since_ms(row.accepted_at)).ok());
        result.cost = total(&result.attempts, row);
        let recipe = tx.recipe(&row.key)?.and_then(|text| recipes::parse(&text));
        if let Some(recipe) = recipe {
            result.backend = Some(BackendInfo { name: recipe.backend, kind: recipe.backend_kind });
            result.permission_mode = recipe.permission_mode;
        }
        result.via = via_of(tx, last)?;
    }
    if let Some(outcome) = &end.outcome {
        tell_outcome(&mut result, outcome);
    }
    Ok(result.fitted().to_payload())
}

/// The nodes that ran, or sent on, what a forwarded attempt stands for.
fn via_of(tx: &Tx<'_>, attempt: &AttemptRow) -> Result<Vec<NodeName>, LedgerError> {
    let Some(child) = attempt.child else { return Ok(Vec::new()) };
    let Some(row) = tx.child(child)? else { return Ok(Vec::new()) };
    let answer = tx.child_result(child)?.and_then(|payload| TaskResult::from_stored(&payload).ok());
    Ok([row.receiver].into_iter().chain(answer.into_iter().flat_map(|answer| answer.via)).collect())
}

/// What the executor saw, as the result tells it.
fn tell_outcome(result: &mut TaskResult, outcome: &Outcome) {
    result.exit_code = outcome.exit_code;
    result.signal = outcome.signal;
    if outcome.started_at.is_some() {
        result.started_at = outcome.started_at;
        result.ended_at = outcome.ended_at;
    }
    result.elapsed_ms = outcome.elapsed_ms;
    result.final_text.clone_from(&outcome.final_text);
    result.output_tail.clone_from(&outcome.output_tail);
    result.output_bytes = outcome.output_bytes;
    result.log_bytes = outcome.log_bytes;
    result.log_sha256 = outcome.log_sha256;
    result.truncated = outcome.truncated;
    result.usage = outcome.usage.map(|usage| Usage {
        input_tokens: usage.input_tokens,
        output_tokens: usage.output_tokens,
        cache_read_tokens: usage.cache_read_tokens,
        cache_write_tokens: usage.cache_write_tokens,
    });
    result.agent = outcome.agent.as_ref().map(|agent| AgentInfo {
        profile: agent.profile.clone(),
        kind: recipes::kind_word(agent.kind).to_owned(),
        version: agent.version.clone(),
        session_id: agent.session_id.clone(),
    });
    result.permission_denials.clone_from(&outcome.permission_denials);
    result.containment = outcome.containment.map(|held| Containment {
        mechanism: held.mechanism.to_string(),
        descendants_left: held.descendants_left,
    });
}

fn attempt_cost(tx: &Tx<'_>, row: &TaskRow, attempt: &AttemptRow) -> Result<Cost, LedgerError> {
    let reserved = match attempt.reservation {
        Some(id) => tx.reservation(id)?.map_or(Usd::ZERO, |reservation| reservation.amount),
        None => Usd::ZERO,
    };
    let basis = attempt.basis.unwrap_or(CostBasis::None);
    let usd = if row.billing == Billing::Metered { attempt.cost } else { attempt.cost.or(Some(Usd::ZERO)) };
    Ok(Cost { usd, basis, reserved_usd: reserved })
}

/// All attempts together: their sum, on the weakest basis any of them has.
fn total(attempts: &[AttemptSummary], row: &TaskRow) -> Cost {
    let sum = |of: fn(&Cost) -> Option<Usd>| {
        attempts.iter().filter_map(|attempt| of(&attempt.cost)).try_fold(Usd::ZERO, Usd::checked_add)
    };
    let weakness = |basis: CostBasis| match basis {
        CostBasis::None => 0,
        CostBasis::Reported => 1,
        CostBasis::Derived => 2,
        CostBasis::Reserved => 3,
    };
    let basis = attempts.iter().map(|attempt| attempt.cost.basis).max_by_key(|basis| weakness(*basis));
    let unpaid = row.billing == Billing::Metered && attempts.iter().all(|attempt| attempt.cost.usd.is_none());
    Cost {
        usd: if unpaid { None } else { sum(|cost| cost.usd) },
        basis: basis.unwrap_or(CostBasis::None),
        reserved_usd: sum(|cost| Some(cost.reserved_usd)).unwrap_or(Usd::ZERO),
    }
}

/// The status that an executor's word is in a result; `None` for `not_started`, which is none.
pub(crate) fn status_of(outcome: OutcomeStatus) -> Option<Status> {
    match outcome {
        OutcomeStatus::Ok => Some(Status::Ok),
        OutcomeStatus::Refuted => Some(Status::Refuted),
        OutcomeStatus::Error => Some(Status::Error),
        OutcomeStatus::Timeout => Some(Status::Timeout),
        OutcomeStatus::Silent => Some(Status::Silent),
        OutcomeStatus::OverBudget => Some(Status::OverBudget),
        OutcomeStatus::Killed => Some(Status::Killed),
        OutcomeStatus::Cancelled => Some(Status::Cancelled),
        OutcomeStatus::NotStarted => None,
    }
}
