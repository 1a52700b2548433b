//! Tasks as people and programs are shown them.

use dispatch_core::protocol::names::TaskId;
use dispatch_core::protocol::time::Timestamp;
use dispatch_ledger::TaskRow;
use dispatch_node::outgoing::{Record, RecordPlace};
use dispatch_node::progress::HowFar;
use dispatch_node::term::{Breaks, cut, visible};
use dispatch_node::waiting::Whereabouts;
use serde_json::{Value, json};

use crate::named::SentTask;

/// A stranger's text on one line of at most so many characters.
pub(crate) fn line(text: &str, chars_max: usize) -> String {
    cut(&visible(text, Breaks::Show), chars_max)
}

/// When a task was made: a version-7 id holds it. The beginning of time for others.
pub(crate) fn made_at(id: TaskId) -> Timestamp {
    let (seconds, nanos) = id.uuid().get_timestamp().map_or((0, 0), |stamp| stamp.to_unix());
    let ms = i64::try_from(seconds).unwrap_or(0).saturating_mul(1_000);
    Timestamp::from_unix_ms(ms.saturating_add(i64::from(nanos / 1_000_000)))
}

/// Where a received task stands, in a few words: its status when it is final, else how far it is.
pub(crate) fn standing(row: &TaskRow, far: Option<&HowFar>) -> String {
    let open = far.map_or_else(|| row.state.to_string(), HowFar::words);
    match (row.status, &row.stop) {
        (Some(status), _) => status.as_str().to_owned(),
        (None, Some(stop)) => format!("{open} ({} asked)", stop.why),
        (None, None) => open,
    }
}

/// Where a sent task stands, as far as this node knows by itself.
pub(crate) fn sent_standing(record: &Record, now: Timestamp) -> &'static str {
    match (record.answered, record.place) {
        (Some(answered), _) => answered.status.as_str(),
        (None, RecordPlace::Outbox) => "kept",
        (None, RecordPlace::Sent) if record.unknown => "unknown",
        (None, RecordPlace::Sent) if record.unanswered_at.is_some() || now >= record.answer_by => {
            "unanswered"
        }
        (None, RecordPlace::Sent) if record.conflict => "conflict",
        (None, RecordPlace::Sent) if record.cancel.is_some() => "cancel asked",
        (None, RecordPlace::Sent) => "sent",
    }
}

/// The same with how far the node that has it says it is.
pub(crate) fn sent_where(record: &Record, now: Timestamp, told: Option<&Whereabouts>) -> String {
    let standing = sent_standing(record, now);
    match told {
        Some(told) if standing == "sent" => told.words(),
        Some(told) if record.answered.is_none() => format!("{} ({standing})", told.words()),
        Some(_) | None => standing.to_owned(),
    }
}

/// What the node that has a task told, for programs.
pub(crate) fn told(told: Option<&Whereabouts>) -> Value {
    match told {
        Some(Whereabouts::Told { far, .. }) => far.to_json(),
        Some(
            Whereabouts::Inbox | Whereabouts::SeemsWaiting | Whereabouts::SeemsTaken | Whereabouts::Unseen,
        )
        | None => Value::Null,
    }
}

/// The version of the protocol that a task was sent in.
pub(crate) fn version(record: &Record) -> u8 {
    if record.is_flat() { 2 } else { 3 }
}

/// A received task for programs.
pub(crate) fn received(row: &TaskRow, far: Option<&HowFar>) -> Value {
    json!({
        "direction": "received",
        "id": row.key.id.to_string(),
        "from": row.key.from.as_str(),
        "state": row.state.as_str(),
        "status": row.status.map(dispatch_core::protocol::Status::as_str),
        "code": row.code,
        "priority": row.priority.as_str(),
        "profile": row.profile,
        "workspace": row.workspace,
        "run": row.run,
        "root": row.root.to_string(),
        "depth": row.depth,
        "task_sha256": row.digest.to_string(),
        "terms_sha256": row.terms_sha256.map(|digest| digest.to_string()),
        "gates": serde_json::from_str::<Value>(&row.gates).unwrap_or(Value::Null),
        "ceiling_usd": row.cost.ceiling_usd.map(|usd| usd.to_string()),
        "estimate_usd": row.cost.estimate_usd.map(|usd| usd.to_string()),
        "billing": row.billing.as_str(),
        "required_approvals": row.required_approvals,
        "attempts_started": row.attempts_started,
        "max_attempts": row.max_attempts,
        "created": row.created.to_string(),
        "accepted_at": row.accepted_at.to_string(),
        "queued_at": row.queued_at.map(|at| at.to_string()),
        "not_before": row.not_before.map(|at| at.to_string()),
        "expires": row.expires.to_string(),
        "final_at": row.final_at.map(|at| at.to_string()),
        "published_at": row.published_at.map(|at| at.to_string()),
        "progress": far.map(HowFar::to_json),
        "wait_reason": row.wait_reason,
        "stop": row.stop.as_ref().map(|stop| json!({"why": stop.why, "by": stop.by, "at": stop.at.to_string()})),
        "labels": serde_json::from_str::<Value>(&row.labels).unwrap_or(Value::Null),
    })
}

/// A sent task for programs.
pub(crate) fn sent(sent: &SentTask, now: Timestamp, whereabouts: Option<&Whereabouts>) -> Value {
    let record = &sent.record;
    let task = record.task().ok();
    json!({
        "direction": "sent",
        "id": record.id.to_string(),
        "from": sent.outgoing.lane().from.as_str(),
        "to": sent.outgoing.lane().to.as_str(),
        "standing": sent_standing(record, now),
        "version": version(record),
        "unknown": record.unknown,
        "status": record.answered.map(|answered| answered.status.as_str()),
        "answered_at": record.answered.map(|answered| answered.at.to_string()),
        "unanswered_at": record.unanswered_at.map(|at| at.to_string()),
        "progress": told(whereabouts),
        "cancel_asked": record.cancel.is_some(),
        "conflict": record.conflict,
        "stream": record.stream.to_string(),
        "seq": record.seq,
        "task_sha256": record.task_sha256.to_string(),
        "published_at": (record.place == RecordPlace::Sent).then(|| record.touched.to_string()),
        "expires": record.expires.to_string(),
        "answer_by": record.answer_by.to_string(),
        "profile": task.as_ref().map(|task| task.profile.to_string()),
    })
}
