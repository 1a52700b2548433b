//! Sending: one task into the outbox, from there to the share.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use dispatch_core::protocol::names::{NodeName, TaskId};
use dispatch_core::protocol::task::Callback;
use dispatch_node::clock;
use dispatch_node::config::Config;
use dispatch_node::desk::Desk;
use dispatch_node::document::Document;
use dispatch_node::ids::task_id;
use dispatch_node::outgoing::{Delivered, Record};
use dispatch_node::report::{Exit, Form, Report, say, tell};
use dispatch_node::state::{Watched, watched};
use dispatch_node::term::{Breaks, visible};
use dispatch_spool::{RootLook, Unreachable};

use crate::args::Cli;
use crate::choose::{AUTO, choose};
use crate::{peer, task, wait};

/// How long a place that holds something else is tried again, before that is said (protocol section 1).
const CONFLICT_FOR: Duration = Duration::from_secs(30);
const CONFLICT_PAUSE: Duration = Duration::from_millis(200);

/// A task that is on the share.
pub(crate) struct Sent {
    pub(crate) desk: Arc<Desk>,
    pub(crate) record: Record,
    pub(crate) inbox: PathBuf,
    pub(crate) notes: Vec<String>,
}

impl Sent {
    /// What a program is told of it, before there is a result.
    pub(crate) fn document(&self) -> Document {
        Document::sent(&self.desk.lane, &self.record, &self.inbox, &self.notes)
    }
}

/// Runs the command.
pub(crate) fn run(cli: &Cli) -> Result<Exit, Report> {
    task::refuse_what_is_not_there(cli)?;
    let config = Config::load(cli.common.config.as_deref())?;
    let to = receiver(cli, &config)?;
    let request = task::read_request(cli)?;
    let sent = send(cli, &config, Arc::new(Desk::open(&config, &to)?), request)?;
    if cli.wait {
        return wait::wait(cli, &sent);
    }
    match cli.common.form() {
        Form::Text => say(&format!("{}\t{}", sent.record.id, sent.inbox.display()))?,
        Form::Json => say(&sent.document().to_json())?,
    }
    Ok(Exit::Done)
}

fn receiver(cli: &Cli, config: &Config) -> Result<NodeName, Report> {
    let usage = |what: String| Report::new(Exit::Usage, what);
    if let Some(from) = cli.from.as_ref().filter(|from| **from != config.node) {
        return Err(usage(format!("this node is `{}`, not `{from}`", config.node))
            .help("leave --from out, or name the configuration of that node with --config"));
    }
    if cli.to == AUTO {
        return choose(cli, config);
    }
    let to = NodeName::new(&cli.to).map_err(|error| Report::of(Exit::Usage, &error).while_doing("--to"))?;
    if config.peer(&to).is_some() {
        return Ok(to);
    }
    let known: Vec<&str> = config.peers.keys().map(NodeName::as_str).collect();
    Err(usage(format!("no node `{to}` is configured here")).help(format!("known: {}", known.join(", "))))
}

/// A line for a person, beside the result.
fn note(cli: &Cli, notes: &mut Vec<String>, text: String) {
    if !cli.common.quiet && cli.common.form() == Form::Text {
        tell(&visible(&text, Breaks::Show));
    }
    notes.push(text);
}

fn send(cli: &Cli, config: &Config, desk: Arc<Desk>, request: String) -> Result<Sent, Report> {
    let mut notes = Vec::new();
    let unreachable = match desk.look() {
        RootLook::Reachable(root) => {
            let says = peer::ask(&desk, &root, clock::now());
            if let (Some(full), false) = (says.full, cli.force) {
                return Err(full.report(&desk));
            }
            for text in says.notes {
                note(cli, &mut notes, text);
            }
            None
        }
        RootLook::Unreachable(why) => Some(why),
    };
    if unreachable.is_none() && watched(&desk.state).is_ok_and(|watched| watched == Watched::Free) {
        look_after(cli, &desk, &mut notes);
    }
    if cli.callback == Some(Callback::Notify)
        && let Some(text) = untold(&desk, config)
    {
        note(cli, &mut notes, text);
    }
    let (record, delivered) = put(cli, &desk, request, unreachable)?;
    match delivered {
        Delivered::Published => {}
        Delivered::Conflict => retry_conflict(&desk, &record)?,
        Delivered::Unknown => return Err(in_doubt(&desk, record.id)),
    }
    let inbox = desk.inbox_path(record.id);
    Ok(Sent { desk, record, inbox, notes })
}

/// Why nobody will be told of the answer: telling people is the work of the watcher of this very state directory.
fn untold(desk: &Desk, config: &Config) -> Option<String> {
    let instead = "dispatchctl wait ID waits for the answer";
    if watched(&desk.state).is_ok_and(|watched| watched == Watched::Free) {
        let state = desk.state.path().display();
        return Some(format!(
            "nobody will be told when the answer comes: no watcher runs with the state directory `{state}`; {instead}"
        ));
    }
    config.notify.is_none().then(|| {
        format!("nobody will be told when the answer comes: the configuration has no [notify]; {instead}")
    })
}

/// What a watcher would do, where there is none.
fn look_after(cli: &Cli, desk: &Desk, notes: &mut Vec<String>) {
    match desk.outgoing.upkeep(&desk.mail()) {
        Ok(upkeep) => {
            for id in &upkeep.flushed.published {
                note(cli, notes, format!("sent {id}, which was kept from before"));
            }
            for id in &upkeep.flushed.unknown {
                note(cli, notes, in_doubt(desk, *id).one_line());
            }
            for damaged in &upkeep.flushed.damaged {
                note(cli, notes, format!("a task that was kept cannot be sent: {damaged}"));
            }
            for id in &upkeep.unanswered {
                note(cli, notes, format!("unanswered: no result of {id} came in time"));
            }
            if let Err(error) = desk.outgoing.mark_told(&upkeep, clock::now()) {
                note(cli, notes, format!("that could not be noted, and is said again: {error}"));
            }
        }
        // It is tried again with the next send; this send must not fail for the sake of another.
        Err(error) => note(cli, notes, format!("earlier tasks were not looked after: {error}")),
    }
}

/// Under the lane's lock: what is kept goes out first, then this task is kept and goes out.
fn put(
    cli: &Cli,
    desk: &Desk,
    request: String,
    unreachable: Option<Unreachable>,
) -> Result<(Record, Delivered), Report> {
    let locked = desk.outgoing.lock()?;
    let position = locked.next()?;
    let now = clock::now();
    let id = task_id(now)?;
    let task = task::build(cli, desk, request, position, (id, now));
    task::refuse_what_version_2_cannot_carry(cli, desk, &task)?;
    let sealed = task::seal_task(&task, desk)?;
    let record = locked.enqueue(sealed)?;
    if let Some(why) = unreachable {
        return Err(kept(desk, &record, Report::from(why)));
    }
    let mail = desk.mail();
    // This task is the last of what is flushed; those before it are older and go first.
    let flushed = locked.flush(&mail, Duration::ZERO)?;
    if flushed.published.contains(&id) {
        return Ok((record, Delivered::Published));
    }
    if flushed.conflicts.contains(&id) {
        return Ok((record, Delivered::Conflict));
    }
    if flushed.unknown.contains(&id) {
        return Ok((record, Delivered::Unknown));
    }
    let why = match flushed.stuck {
        Some((stuck, error)) if stuck == id => Report::from(error),
        Some((_, error)) => Report::from(error).while_doing("an older task could not be sent"),
        None => Report::new(Exit::Bug, "the task is nowhere in the outbox"),
    };
    Err(kept(desk, &record, why))
}

/// A task for a version-2 peer whose id stood on the lane before it was published.
fn in_doubt(desk: &Desk, id: TaskId) -> Report {
    let what =
        format!("unknown: its id stands on the lane of `{}` already, and it was not published", desk.lane.to);
    Report::new(Exit::TaskFailed, what).about(id).help(format!(
        "look on `{}` whether it ran: it speaks version 2 and would run it again; send it anew if it did not",
        desk.lane.to
    ))
}

/// The end of a send whose task exists and is not on the share yet.
fn kept(desk: &Desk, record: &Record, why: Report) -> Report {
    let id = record.id;
    if desk.flat.is_some() {
        let who = desk.who_flushes();
        return why.about(id).help(format!("kept as {id}: it goes out {who}; do not send it again"));
    }
    why.about(id).help(format!(
        "kept as {id}: it goes out {}; do not send it again; dispatchctl cancel {id} takes it back",
        desk.who_flushes()
    ))
}

/// Somebody's junk lies at this task's name. The receiver sets such things aside in its next pass.
fn retry_conflict(desk: &Desk, record: &Record) -> Result<(), Report> {
    let started = Instant::now();
    while started.elapsed() < CONFLICT_FOR {
        thread::sleep(CONFLICT_PAUSE);
        match desk.outgoing.put_back(&desk.mail(), record) {
            Ok(Delivered::Published) => return Ok(desk.outgoing.mark_delivered(record.id)?),
            Ok(Delivered::Conflict | Delivered::Unknown) => {}
            Err(error) => return Err(kept(desk, record, Report::from(error))),
        }
    }
    let id = record.id;
    Err(Report::new(Exit::ShareUnreachable, "something else lies at this task's name in the inbox")
        .about(id)
        .help(format!(
            "kept as {id}: it is put back every ten minutes until it can be taken; do not send it again"
        )))
}
