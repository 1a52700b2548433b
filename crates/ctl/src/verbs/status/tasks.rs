//! The tasks of `status`: what runs, waits and ended last.

use dispatch_core::policy::lifecycle::TaskState;
use dispatch_core::protocol::TaskResult;
use dispatch_core::protocol::payload::Payload as _;
use dispatch_core::protocol::time::Timestamp;
use dispatch_ledger::{ReadLedger, TaskFilter, TaskKey, TaskRow};
use dispatch_node::config::Config;
use dispatch_node::progress::{HowFar, Places};
use dispatch_node::report::Report;
use serde_json::{Map, Value, json};

/// How many finished tasks are shown.
const LAST: u32 = 5;
/// How many queued tasks are shown.
const QUEUE_MAX: usize = 5;

/// Tasks that are not final.
pub(super) struct Open {
    pub(super) running: Vec<Value>,
    /// The first of the queue, in its order.
    pub(super) queue: Vec<Value>,
    pub(super) waiting: Vec<Value>,
}

impl Open {
    pub(super) fn of(config: &Config, ledger: &ReadLedger, now: Timestamp) -> Result<Open, Report> {
        let places = Places::of(ledger, now)?;
        let far = |key: &TaskKey| -> Result<Option<HowFar>, Report> {
            let open = ledger.brief(key)?.filter(|open| open.final_at.is_none());
            Ok(open.map(|open| HowFar::here(&config.state, &places, &open, now)))
        };
        let of_state = |state| -> Result<Vec<Value>, Report> {
            let rows = ledger.tasks(&TaskFilter { state: Some(state), ..TaskFilter::default() })?;
            // Oldest first: what was taken first is looked at first.
            rows.iter().rev().map(|row| Ok(task(row, far(&row.key)?.as_ref(), now))).collect()
        };
        let mut queue: Vec<(u64, TaskKey)> = ledger
            .whole_queue()?
            .into_iter()
            .filter_map(|queued| Some((places.place(&queued.key)?, queued.key)))
            .collect();
        queue.sort_unstable_by_key(|(place, _)| *place);
        let queue = queue.iter().take(QUEUE_MAX).filter_map(|(_, key)| ledger.task(key).transpose());
        Ok(Open {
            running: of_state(TaskState::Running)?,
            queue: queue
                .map(|row| {
                    let row = row?;
                    Ok(task(&row, far(&row.key)?.as_ref(), now))
                })
                .collect::<Result<_, Report>>()?,
            waiting: of_state(TaskState::AwaitingApproval)?,
        })
    }
}

fn task(row: &TaskRow, far: Option<&HowFar>, now: Timestamp) -> Value {
    json!({
        "id": row.key.id.to_string(),
        "from": row.key.from.as_str(),
        "state": row.state.as_str(),
        "status": row.status.map(dispatch_core::protocol::Status::as_str),
        "profile": row.profile,
        "accepted_at": row.accepted_at.to_string(),
        "age_ms": now.since_ms(row.accepted_at),
        "gates": serde_json::from_str::<Value>(&row.gates).unwrap_or(Value::Null),
        "progress": far.map(HowFar::to_json),
        "standing": far.map(HowFar::words),
        "final_at": row.final_at.map(|at| at.to_string()),
        "wait_reason": row.wait_reason,
        "stop": row.stop.as_ref().map(|stop| stop.why.clone()),
    })
}

pub(super) fn last(ledger: &ReadLedger, now: Timestamp) -> Result<Vec<Value>, Report> {
    let mut last: Vec<TaskRow> = Vec::new();
    for state in [TaskState::Succeeded, TaskState::Failed, TaskState::Rejected] {
        last.extend(ledger.tasks(&TaskFilter {
            state: Some(state),
            limit: Some(LAST),
            ..TaskFilter::default()
        })?);
    }
    last.sort_by_key(|row| std::cmp::Reverse(row.final_at));
    last.truncate(usize::try_from(LAST).unwrap_or(0));
    last.iter().map(|row| ended(ledger, row, now)).collect()
}

/// A finished task, with what its result says of time and money.
fn ended(ledger: &ReadLedger, row: &TaskRow, now: Timestamp) -> Result<Value, Report> {
    let result = ledger.result(&row.key)?.and_then(|payload| TaskResult::from_stored(&payload).ok());
    let mut value = task(row, None, now);
    if let Some(members) = value.as_object_mut() {
        let ran = result.as_ref().and_then(|result| result.elapsed_ms);
        let usd = result.as_ref().and_then(|result| result.cost.usd);
        let reason = result.as_ref().and_then(|result| result.reason.as_ref());
        members.insert("ended_ms_ago".into(), json!(row.final_at.map(|at| now.since_ms(at))));
        members.insert("elapsed_ms".into(), json!(ran));
        members.insert("usd".into(), json!(usd.map(|usd| usd.to_string())));
        members.insert("code".into(), json!(reason.map(|reason| &reason.code)));
    }
    Ok(value)
}

pub(super) fn counts(ledger: &ReadLedger) -> Result<Value, Report> {
    let mut counts = Map::new();
    for state in TaskState::ALL {
        counts.insert(state.as_str().to_owned(), json!(0));
    }
    for row in ledger.counts()? {
        let before = counts.get(row.state.as_str()).and_then(Value::as_u64).unwrap_or(0);
        counts.insert(row.state.as_str().to_owned(), json!(before.saturating_add(row.count)));
    }
    Ok(Value::Object(counts))
}
