//! `dispatchctl retry`: a new task with the content of one that was sent from here.

use dispatch_core::policy::fleet::DEAD_AFTER_S;
use dispatch_core::protocol::limits::{LABELS_MAX, LIFETIME_MS_MAX};
use dispatch_core::protocol::names::TaskId;
use dispatch_core::protocol::result::Status;
use dispatch_core::protocol::task::{Lineage, Task};
use dispatch_core::protocol::time::Timestamp;
use dispatch_node::clock;
use dispatch_node::config::Config;
use dispatch_node::desk::Desk;
use dispatch_node::ids::task_id;
use dispatch_node::outgoing::{Delivered, Position, Record, RecordPlace};
use dispatch_node::report::{Exit, Report, after_help};
use serde_json::{Value, json};

use super::wait;
use crate::answer;
use crate::context::Context;
use crate::named::{Found, SentTask, find};
use crate::sender;

const EXAMPLES: &str = "  dispatchctl retry dacaf1ff
  dispatchctl retry dacaf1ff --wait
  dispatchctl retry dacaf1ff --force --json";

/// The label that names the task which is repeated.
const LABEL: &str = "retry-of";

/// Send the same content again as a new task: same request, profile and options, a new id, a new time to live
#[derive(Debug, clap::Args)]
#[command(after_help = after_help(EXAMPLES))]
pub(crate) struct Args {
    /// The task: its id, or at least 4 characters from its beginning or end
    id: String,
    /// Wait for the result, as `dispatch-send --wait` does
    #[arg(long)]
    wait: bool,
    /// Send it although the first one may still run, or the peer says that it is full
    #[arg(long)]
    force: bool,
    /// End as the answer of a version-2 peer says, although nobody signed it
    #[arg(long, requires = "wait")]
    accept_unverified: bool,
    /// Print control characters as they are, where standard output is no terminal
    #[arg(long, requires = "wait")]
    raw: bool,
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<Exit, Report> {
    let config = context.config()?;
    sender::care(&config, context);
    let first = match find(&config, &args.id)? {
        Found::Sent(sent) => *sent,
        Found::Received(row) => {
            return Err(Report::new(Exit::NotPermitted, "it was not sent from here")
                .about(row.key.id)
                .help(format!("run it on {}, where its sender is", row.key.from)));
        }
    };
    retry(args, &config, &first, context).map_err(|report| report.about(first.record.id))
}

fn retry(args: &Args, config: &Config, first: &SentTask, context: &Context) -> Result<Exit, Report> {
    let old = first.record.task().map_err(|error| {
        Report::from(error)
            .while_doing("what it asked for is not known here any more")
            .help("send it anew with dispatch-send")
    })?;
    let mut notes = vec![format!("repeats {}", old.id)];
    if let Some(lineage) = old.lineage.as_ref().filter(|lineage| lineage.parent.is_some()) {
        return Err(Report::new(
            Exit::NotPermitted,
            "a task that a task sent is not repeated by hand: nobody would count it",
        )
        .help(format!(
            "repeat the first one of its tree, {}, or send it anew with dispatch-send",
            lineage.root
        )));
    }
    match may_still_run(config, first)? {
        Some(why) if !args.force => {
            return Err(Report::new(Exit::NotPermitted, why).help(
                "wait for its result, or cancel it first; dispatchctl resend is safe; --force sends a second one \
                 all the same",
            ));
        }
        Some(why) => notes.push(format!("warning: {why}: both may run")),
        None => notes.extend(ended_note(config, first)?),
    }
    let desk = Desk::open(config, &first.outgoing.lane().to)?;
    sender::reachable(&desk)?;
    if let (Some(full), false) = (full(&desk), args.force) {
        return Err(full);
    }
    let record = send(&desk, &old, &mut notes)?;
    notes.push(format!("expires at {}; the first one did at {}", record.expires, old.expires));
    for note in &notes {
        context.tell(note);
    }
    let about = about(&desk, &record, old.id, &notes);
    if args.wait {
        context.tell(&format!("sent {}", record.id));
        let sent = SentTask { outgoing: desk.outgoing.clone(), record };
        let printed =
            wait::Printed { raw: args.raw, accept_unverified: args.accept_unverified, about: &about };
        return wait::for_answer(config, &sent, printed, context);
    }
    context.say_json(&about)?;
    context.say(&format!("{}\t{}", record.id, desk.inbox_path(record.id).display()))?;
    Ok(Exit::Done)
}

/// Why the first task may still run; `None` when it is over, as far as anybody can know.
fn may_still_run(config: &Config, first: &SentTask) -> Result<Option<String>, Report> {
    let record = &first.record;
    if record.answered.is_some() {
        return Ok(None);
    }
    if record.place == RecordPlace::Outbox {
        return Ok(Some("the first one is kept here and still goes out".to_owned()));
    }
    if record.unanswered_at.is_some() || clock::now() >= record.answer_by {
        return Ok(None);
    }
    if record.unknown {
        return Ok(Some("the first one may have run: its id stood on the lane already, or it was kept until its time was over".to_owned()));
    }
    // Nobody may have looked for its answer since it came.
    let again = SentTask { outgoing: first.outgoing.clone(), record: record.clone() };
    match answer::look(config, &Found::Sent(Box::new(again)))? {
        answer::Answering::Verified(_) => Ok(None),
        answer::Answering::Unsigned(_) => {
            Ok(Some("only an answer that nobody signed says that the first one ended".to_owned()))
        }
        answer::Answering::Unverified { .. } | answer::Answering::None => {
            Ok(Some("the first one may still run: it has no result yet".to_owned()))
        }
    }
}

/// What is worth knowing of how the first one ended.
fn ended_note(config: &Config, first: &SentTask) -> Result<Option<String>, Report> {
    let known = match first.record.answered {
        Some(answered) => Some(answered.status),
        None => {
            first.outgoing.record(first.record.id)?.and_then(|record| record.answered).map(|at| at.status)
        }
    };
    let lane = first.outgoing.lane();
    Ok(match known {
        Some(Status::Ok | Status::Verified) => {
            Some("the first one ended well: its work is done twice".to_owned())
        }
        Some(Status::Unknown) => {
            Some("the first one may have run to its end: check whether its work was done".to_owned())
        }
        None => Some(format!("nobody knows whether `{}` ran the first one on `{}`", lane.to, config.node)),
        Some(
            Status::Refuted
            | Status::Error
            | Status::Timeout
            | Status::Silent
            | Status::OverBudget
            | Status::Killed
            | Status::Cancelled
            | Status::Rejected
            | Status::Denied
            | Status::Expired,
        ) => None,
    })
}

/// The end of a retry to a receiver that asks not to be sent more.
fn full(desk: &Desk) -> Option<Report> {
    // A heartbeat that cannot be read is no reason not to send.
    let beat = desk.heartbeat().ok().flatten()?;
    let age_ms = clock::now().since_ms(beat.ts).saturating_abs();
    let fresh = age_ms < DEAD_AFTER_S.saturating_mul(1_000);
    (fresh && beat.backpressure.on).then(|| {
        let after = beat.backpressure.retry_after_s;
        let when = after.map_or_else(|| "later".to_owned(), |seconds| format!("in {seconds}s"));
        Report::new(Exit::TryLater, format!("`{}` is at capacity", desk.lane.to))
            .help(format!("try again {when}, or send anyway with --force"))
    })
}

/// The same content under a new id, at a new position of the stream.
fn again(old: &Task, desk: &Desk, (id, now): (TaskId, Timestamp), position: Position) -> Task {
    let lifetime_ms = old.expires.since_ms(old.created).clamp(1, LIFETIME_MS_MAX);
    let mut task = Task {
        cluster: desk.cluster,
        id,
        created: now,
        expires: now.plus_ms(lifetime_ms),
        stream: position.stream,
        seq: position.seq,
        // The first of a tree is its own root, under its new id too.
        lineage: old.lineage.clone().map(|lineage| Lineage { root: id, ..lineage }),
        ..old.clone()
    };
    // A flat task has no labels.
    let has_room = task.labels.len() < LABELS_MAX || task.labels.contains_key(LABEL);
    if desk.flat.is_none() && has_room {
        task.labels.insert(LABEL.to_owned(), old.id.to_string());
    }
    task
}

/// Under the lane's lock, like every send: what is kept goes out first, then this task is kept and goes out.
fn send(desk: &Desk, old: &Task, notes: &mut Vec<String>) -> Result<Record, Report> {
    let locked = desk.outgoing.lock()?;
    let now = clock::now();
    let id = task_id(now)?;
    let task = again(old, desk, (id, now), locked.next()?);
    if !task.labels.contains_key(LABEL) {
        notes.push("it has no room for a label more, so it does not name the first one".to_owned());
    }
    let record = locked.enqueue(desk.mail().seal(&task)?)?;
    let flushed = locked.flush(&desk.mail(), std::time::Duration::ZERO)?;
    if flushed.published.contains(&id) {
        return Ok(record);
    }
    if flushed.conflicts.contains(&id) {
        let publish = || desk.outgoing.put_back(&desk.mail(), &record);
        return match sender::past_squatting(publish, |delivered| *delivered == Delivered::Conflict)? {
            Delivered::Published => desk.outgoing.mark_delivered(id).map(|()| record).map_err(Report::from),
            Delivered::Unknown => Err(in_doubt(desk)),
            Delivered::Conflict => {
                Err(kept(desk, id, Report::new(Exit::ShareUnreachable, "something else lies at its name")))
            }
        };
    }
    if flushed.unknown.contains(&id) {
        return Err(in_doubt(desk));
    }
    let why = flushed.stuck.map_or_else(
        || Report::new(Exit::Bug, "the task is nowhere in the outbox"),
        |(_, error)| Report::from(error),
    );
    Err(kept(desk, id, why))
}

/// A task for a version-2 peer whose id stood on the lane before it was published.
fn in_doubt(desk: &Desk) -> Report {
    let to = &desk.lane.to;
    Report::new(Exit::TaskFailed, format!("unknown: its id stands on the lane of `{to}` already"))
        .help(format!("look on `{to}` whether it ran: it speaks version 2 and would run it again"))
}

fn kept(desk: &Desk, id: TaskId, why: Report) -> Report {
    let who = desk.who_flushes();
    if desk.flat.is_some() {
        return why.help(format!("kept as {id}: it goes out {who}; do not send it again"));
    }
    why.help(format!(
        "kept as {id}: it goes out {who}; do not send it again; dispatchctl cancel {id} takes it back"
    ))
}

/// As `dispatch-send --json` says it.
fn about(desk: &Desk, record: &Record, first: TaskId, notes: &[String]) -> Value {
    json!({
        "schema": 1,
        "task": record.id.to_string(),
        "short": record.id.short(),
        "retry_of": first.to_string(),
        "lane": desk.lane.to_string(),
        "seq": record.seq,
        "task_sha256": record.task_sha256.to_string(),
        "inbox": desk.inbox_path(record.id),
        "expires": record.expires.to_string(),
        "notes": notes,
        "status": null,
        "verified": null,
        "result": null,
    })
}
