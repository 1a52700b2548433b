//! Tasks that this node sends for tasks it runs: made in the transaction that promises them, ended in the one that knows
//! what came of them. In between, `courier` brings them to the share (policy sections 1 and 4; protocol section 3).

use dispatch_core::policy::lineage::{Excess, GrantError, Lineage, Share, asks_for_more, grant};
use dispatch_core::policy::money::Usd;
use dispatch_core::policy::settlement;
use dispatch_core::policy::window::{Payer, RunName, WindowKeys};
use dispatch_core::protocol::limits::PAYLOAD_BYTES_MAX;
use dispatch_core::protocol::names::{Digest, NodeName, TaskId};
use dispatch_core::protocol::payload::Payload as _;
use dispatch_core::protocol::result::{Status, TaskResult};
use dispatch_core::protocol::task::{self, Task};
use dispatch_ledger::{
    AttemptRow, ChildKind, ChildRow, Closing, Entry, LedgerError, NewChild, NewReservation, Reserving,
    TaskKey, Tx,
};
use dispatch_node::ids;
use dispatch_node::outgoing::answer_by;
use dispatch_node::report::one_line;
use serde_json::json;
use uuid::Uuid;

use crate::home::Home;
use crate::{forward, lineage, running};

/// What an agent asks for: a task as it would be sent, without what only this node may say of it.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// The task. Its id, sender, times' order and place in a stream are this node's to say, and so is its lineage.
    pub(crate) task: Task,
    /// What it asks of its parent's lineage.
    pub(crate) share: Share,
}

/// A no to whoever asked, with what can be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) code: &'static str,
    pub(crate) text: String,
    pub(crate) help: String,
}

impl Refused {
    pub(crate) fn new(code: &'static str, text: impl Into<String>, help: impl Into<String>) -> Refused {
        Refused { code, text: text.into(), help: help.into() }
    }
}

/// Makes the child that the agent of an attempt asks for. Whoever calls has found the agent's token to be this attempt's.
pub(crate) fn make(
    tx: &mut Tx<'_>,
    home: &Home,
    attempt: &AttemptRow,
    wanted: Wanted,
) -> Result<Result<ChildRow, Refused>, LedgerError> {
    let Some(row) = tx.task(&attempt.key)? else {
        return Err(LedgerError::UnknownTask { key: attempt.key.clone() });
    };
    let Some(parent) = lineage::task_of(tx, home, &row)? else {
        return Ok(Err(Refused::new(
            "unknown_task",
            "the sending task cannot be read back",
            "send it by hand",
        )));
    };
    if let Some(no) = not_this_one(home, &parent, &wanted.task) {
        return Ok(Err(no));
    }
    let (id, lineage) = (parent.id, Lineage::of_task(&parent));
    let left = lineage::left_of(tx, home, id, &lineage)?;
    let depth_max = i64::from(home.config.lineage.depth_max);
    let given = match grant(id, &lineage, &left, &wanted.share, depth_max) {
        Ok(given) => given,
        Err(error) => return Ok(Err(not_granted(home, &error, lineage.fanout_left))),
    };
    let Ok(child) = ids::task_id(tx.now()) else {
        return Ok(Err(Refused::new("no_randomness", "no id can be drawn", "try again")));
    };
    let body = Task { id: child, run: parent.run, ..wanted.task };
    if let Err(no) = fits(&body, &[]) {
        return Ok(Err(no));
    }
    let made = Making { kind: ChildKind::Sent, epoch: attempt.epoch, lineage: given, via: Vec::new() };
    let reservation = match set_aside(tx, home, &attempt.key, child, &given)? {
        Ok(reservation) => reservation,
        Err(no) => return Ok(Err(no)),
    };
    insert(tx, home, body, &made, reservation).map(Ok)
}

/// Whatever is wrong with a task is said now: once it is made, nobody could be told.
pub(crate) fn fits(task: &Task, via: &[NodeName]) -> Result<(), Refused> {
    let longest = Task {
        seq: i64::MAX.unsigned_abs(),
        lineage: Some(task::Lineage {
            root: task.id,
            parent: Some(task.id),
            depth: u32::MAX,
            fanout_left: u32::MAX,
            budget_usd: Usd::from_wire("999999999999.999999").ok(),
            via: via.to_vec(),
        }),
        ..task.clone()
    };
    let payload = longest
        .to_checked_payload()
        .map_err(|error| Refused::new("limit_exceeded", one_line(&error), "ask for what fits"))?;
    if payload.len() > PAYLOAD_BYTES_MAX {
        return Err(Refused::new(
            "limit_exceeded",
            format!("the task would be {} bytes, more than {PAYLOAD_BYTES_MAX}", payload.len()),
            "shorten the request, or put the material into a workspace of the receiver and name it there",
        ));
    }
    Ok(())
}

/// What no lineage could allow.
fn not_this_one(home: &Home, parent: &Task, wanted: &Task) -> Option<Refused> {
    let Some(peer) = home.peers.get(&wanted.to) else {
        let known: Vec<&str> = home.peers.keys().map(NodeName::as_str).collect();
        return Some(Refused::new(
            "unknown_peer",
            format!("no node `{}` is configured here", wanted.to),
            format!("known: {}", known.join(", ")),
        ));
    };
    if peer.flat.is_some() {
        return Some(Refused::new(
            "unsupported_peer",
            format!("`{}` speaks version 2, which cannot say where a task comes from", wanted.to),
            "send it to another node",
        ));
    }
    let option = match asks_for_more(parent, wanted)? {
        Excess::Run => return Some(another_run(parent)),
        Excess::Dangerous => "--dangerous",
        Excess::Sdk => "--allow-sdk",
    };
    Some(Refused::new(
        "lineage_exceeded",
        format!("the sending task was not allowed {option}, so nothing it sends is"),
        format!("send it without {option}; who sent the first task can allow it"),
    ))
}

fn another_run(parent: &Task) -> Refused {
    let whose = match &parent.run {
        Some(run) => format!("the run `{run}`"),
        None => "its sender's run of the day".to_owned(),
    };
    Refused::new(
        "lineage_exceeded",
        format!("the sending task belongs to {whose}, and so does what it sends"),
        "send it without --run",
    )
}

fn not_granted(home: &Home, error: &GrantError, granted: i64) -> Refused {
    let text = match error {
        GrantError::NoFanout => {
            let most = home.config.lineage.fanout_max;
            format!("{error}: it was granted {granted}, and this node lets no task send more than {most}")
        }
        GrantError::TooDeep { .. } | GrantError::Fanout { .. } | GrantError::Budget { .. } => {
            error.to_string()
        }
    };
    let help = match error {
        GrantError::TooDeep { .. } => {
            "do it in this task, or have it sent by hand; whoever runs this node raises `depth_max` in [lineage]"
        }
        GrantError::NoFanout => {
            "do it in this task, or have it sent by hand; it never resets: who sent the first task grants more with \
             --fanout, up to `fanout_max` in [lineage] of this node"
        }
        GrantError::Fanout { .. } => {
            "ask for less with --fanout; it never resets: who sent the first task grants more, up to `fanout_max` in \
             [lineage] of this node"
        }
        GrantError::Budget { .. } => {
            "ask for less with --budget; what earlier tasks that could send none (--fanout 0) did not spend comes back when \
             they are answered, and who sent the first task grants more"
        }
    };
    Refused::new("lineage_exceeded", text, help)
}

/// Sets a child's bound aside in its tree, where it has one.
fn set_aside(
    tx: &mut Tx<'_>,
    home: &Home,
    parent: &TaskKey,
    child: TaskId,
    lineage: &Lineage,
) -> Result<Result<Option<Uuid>, Refused>, LedgerError> {
    let Some(amount) = lineage.budget_usd.filter(|amount| amount.is_positive()) else { return Ok(Ok(None)) };
    let Ok(id) = ids::uuid_v4() else {
        return Ok(Err(Refused::new("no_randomness", "no id can be drawn", "try again")));
    };
    let run: Option<&RunName> = None;
    let new = NewReservation {
        id,
        key: TaskKey { from: home.node.clone(), id: child },
        nth: 1,
        amount,
        windows: WindowKeys::of(&parent.from, run, lineage.root, tx.now()),
        payer: Payer::Elsewhere,
    };
    Ok(match tx.reserve_for_child(&new, &home.caps())? {
        Reserving::Reserved => Ok(Some(id)),
        Reserving::WouldExceed { window, balance } => {
            let cap = home.caps().get(window.window());
            let left = cap.zip(balance.committed()).and_then(|(cap, held)| cap.checked_sub(held));
            Err(Refused::new(
                "over_cap",
                format!(
                    "{window} has {} USD left of {}, and the child may cost {amount}",
                    left.unwrap_or(Usd::ZERO).max(Usd::ZERO),
                    cap.map_or_else(|| "its cap".to_owned(), |cap| format!("{cap} USD")),
                ),
                "ask for less with --budget; it never resets: whoever runs this node raises `tree_usd` in [budget]",
            ))
        }
        Reserving::Closed { window } => Err(Refused::new(
            "over_cap",
            format!("{window} is closed"),
            "whoever runs this node closed it: dispatchctl budget",
        )),
    })
}

/// What is the same for all that is sent for a task.
pub(crate) struct Making {
    pub(crate) kind: ChildKind,
    pub(crate) epoch: u64,
    pub(crate) lineage: Lineage,
    /// Nodes it came through.
    pub(crate) via: Vec<NodeName>,
}

/// Writes the child's row: from here on it is sent.
pub(crate) fn insert(
    tx: &mut Tx<'_>,
    home: &Home,
    body: Task,
    made: &Making,
    reservation: Option<Uuid>,
) -> Result<ChildRow, LedgerError> {
    let lineage = &made.lineage;
    let fanout = u32::try_from(lineage.fanout_left).unwrap_or(0);
    let task = Task {
        cluster: home.cluster,
        from: home.node.clone(),
        created: tx.now(),
        stream: Uuid::nil(),
        seq: 1,
        lineage: Some(task::Lineage {
            root: lineage.root,
            parent: lineage.parent,
            depth: u32::try_from(lineage.depth).unwrap_or(u32::MAX),
            fanout_left: fanout,
            budget_usd: lineage.budget_usd,
            via: made.via.clone(),
        }),
        ..body
    };
    let new = NewChild {
        id: task.id,
        receiver: task.to.clone(),
        kind: made.kind,
        epoch: made.epoch,
        parent: lineage.parent.unwrap_or(lineage.root),
        fanout,
        budget_usd: lineage.budget_usd,
        reservation,
        answer_by: answer_by(&task),
        payload: task.to_payload(),
    };
    tx.insert_child(&new)?;
    let attempt = tx.attempt(made.epoch)?.ok_or(LedgerError::UnknownAttempt { epoch: made.epoch })?;
    let data = json!({
        "child": task.id.to_string(), "to": task.to.as_str(), "depth": lineage.depth,
        "fanout_left": lineage.fanout_left, "budget_usd": lineage.budget_usd.map(|usd| usd.to_string()),
    });
    let kind = match made.kind {
        ChildKind::Forwarded => "forwarded",
        ChildKind::Sent => "child_made",
    };
    tx.audit(&Entry::of(kind).task(&attempt.key).epoch(made.epoch).data(data))?;
    tx.child(task.id)?.ok_or(LedgerError::UnknownTask { key: attempt.key })
}

/// Whether the log beside an answer is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogKept {
    /// It is, or there was none, or nobody waits for it.
    Yes,
    /// What lies there is not the log that the answer names.
    No,
}

/// What the courier learned of a child.
#[derive(Clone, Debug)]
pub(crate) enum ChildNews {
    /// It is sealed and lies in the outbox, or behind it.
    Kept { id: TaskId, task_sha256: Digest },
    /// Its answer was believed.
    Answered { id: TaskId, result: Box<TaskResult>, payload: Vec<u8>, log: LogKept },
    /// The time for an answer is over.
    Unanswered { id: TaskId },
    /// It was stopped before it was sealed, and never will be.
    NotSent { id: TaskId },
}

impl ChildNews {
    pub(crate) const fn id(&self) -> TaskId {
        match self {
            ChildNews::Kept { id, .. }
            | ChildNews::Answered { id, .. }
            | ChildNews::Unanswered { id }
            | ChildNews::NotSent { id } => *id,
        }
    }
}

/// Notes what came of a child: what it cost is charged to its tree, by itself where an agent sent it, as its attempt's where
/// it was forwarded.
pub(crate) fn note(
    tx: &mut Tx<'_>,
    home: &Home,
    row: &ChildRow,
    news: &ChildNews,
) -> Result<(), LedgerError> {
    let attempt = tx.attempt(row.epoch)?.ok_or(LedgerError::UnknownAttempt { epoch: row.epoch })?;
    let (status, answer) = match news {
        ChildNews::Kept { id, task_sha256 } => {
            let first = tx.mark_child_kept(*id, *task_sha256)?;
            return match row.kind {
                ChildKind::Forwarded if first => forward::kept(tx, &attempt),
                ChildKind::Forwarded | ChildKind::Sent => Ok(()),
            };
        }
        ChildNews::Answered { result, payload, .. } => (Some(result.status), Some((&**result, payload))),
        ChildNews::Unanswered { .. } => (None, None),
        ChildNews::NotSent { .. } => (Some(Status::Cancelled), None),
    };
    if !tx.end_child(row.id, status, answer.map(|(_, payload)| payload.as_slice()))? {
        return Ok(());
    }
    audit_end(tx, row, &attempt, answer.map(|(result, _)| result))?;
    match (row.kind, news) {
        (_, ChildNews::Kept { .. }) => Ok(()),
        (ChildKind::Sent, ChildNews::Answered { result, .. }) => pay(tx, row, Some(result)),
        (ChildKind::Sent, ChildNews::Unanswered { .. }) => pay(tx, row, None),
        (ChildKind::Sent, ChildNews::NotSent { .. }) => running::release(tx, row.reservation),
        (ChildKind::Forwarded, ChildNews::Answered { result, log, .. }) => {
            forward::answered(tx, home, row, &attempt, result, *log)
        }
        (ChildKind::Forwarded, ChildNews::Unanswered { .. }) => forward::unanswered(tx, home, row, &attempt),
        (ChildKind::Forwarded, ChildNews::NotSent { .. }) => forward::not_sent(tx, home, &attempt),
    }
}

/// Closes what was set aside for a child. Without an answer nobody knows, and all of it counts as spent.
fn pay(tx: &mut Tx<'_>, row: &ChildRow, result: Option<&TaskResult>) -> Result<(), LedgerError> {
    let Some(id) = row.reservation else { return Ok(()) };
    let Some(reservation) = tx.reservation(id)? else { return Err(LedgerError::UnknownReservation { id }) };
    let closing = match settlement::child_actual(result, reservation.amount, row.fanout) {
        Some((usd, basis)) => tx.settle(id, usd, basis)?,
        None => tx.release(id)?,
    };
    let above = result.and_then(|result| result.cost.usd).filter(|usd| *usd > reservation.amount);
    if let (Closing::Now, Some(usd)) = (closing, above) {
        let data = json!({
            "child": row.id.to_string(), "usd": usd.to_string(), "reserved_usd": reservation.amount.to_string(),
        });
        tx.audit(&Entry::of("cost_above_reservation").epoch(row.epoch).data(data))?;
    }
    Ok(())
}

fn audit_end(
    tx: &mut Tx<'_>,
    row: &ChildRow,
    attempt: &AttemptRow,
    result: Option<&TaskResult>,
) -> Result<(), LedgerError> {
    let data = json!({
        "child": row.id.to_string(), "to": row.receiver.as_str(),
        "status": result.map(|result| result.status.as_str()),
        "usd": result.and_then(|result| result.cost.usd).map(|usd| usd.to_string()),
    });
    tx.audit(&Entry::of("child_ended").task(&attempt.key).epoch(row.epoch).data(data)).map(drop)
}
