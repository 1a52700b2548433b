//! The doors of running agents: what they ask for is exchanged for sealed child tasks, in the pass's transaction.
//!
//! A request counts only at the door of the attempt whose token it carries, while that attempt is open and its agent runs.
//! Whoever shows another token is told no more than that. Whatever else agents lay there costs a few system calls of a pass.

use dispatch_core::policy::lifecycle::AttemptState;
use dispatch_core::policy::lineage::Share;
use dispatch_core::policy::velocity::VelocityTrip;
use dispatch_core::protocol::heartbeat::Heartbeat;
use dispatch_core::protocol::limits::LIFETIME_MS_MAX;
use dispatch_core::protocol::names::{Digest, Lane, TaskId};
use dispatch_core::protocol::payload::Payload as _;
use dispatch_core::protocol::task::{Requires, Task};
use dispatch_core::protocol::time::Timestamp;
use dispatch_ledger::{AttemptRow, ChildRow, Disposition, Entry, LedgerError, TaskRow, Tx};
use dispatch_node::door::DoorError;
use dispatch_node::job::door::{ChildAnswer, ChildClaim, ChildRequest, ChildWanted, Made};
use dispatch_node::report::one_line;
use dispatch_spool::layout::File;
use serde_json::{Value, json};
use uuid::{Builder, Uuid};

use crate::children::{self, Refused, Wanted};
use crate::home::Home;
use crate::tripping::Stopped;

mod care;
mod ears;

pub(crate) use care::AgentDoors;
pub(crate) use ears::DoorEars;

/// The verb under which replies are stored.
const VERB: &str = "child";

/// A request that was taken at the door of an attempt.
#[derive(Debug)]
pub(crate) struct Knock {
    pub(crate) row: AttemptRow,
    /// When its agent was started, as its directory says.
    pub(crate) started: Option<Timestamp>,
    pub(crate) claim: ChildClaim,
    /// How a refusal of it is noted.
    pub(crate) audit: Audit,
}

/// How a refusal is noted: an agent that is refused in a loop must not fill the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Audit {
    /// By an entry of its own.
    Each,
    /// Counted with others of its code.
    Counted,
}

/// What a request came to.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) epoch: u64,
    pub(crate) id: Uuid,
    pub(crate) answer: ChildAnswer,
    /// The code of a refusal that is still to be counted.
    pub(crate) counted: Option<&'static str>,
}

/// Applies every request once; one that was applied before gets the same reply again.
pub(crate) fn apply(
    tx: &mut Tx<'_>,
    home: &Home,
    stopped: &Stopped,
    knocks: &[Knock],
) -> Result<Vec<Answered>, LedgerError> {
    let mut answered = Vec::new();
    for knock in knocks {
        let id = knock.claim.id;
        let (answer, code) = match tx.contained(|tx| apply_one(tx, home, stopped, knock)) {
            Err(error) if error.disposition() == Disposition::Quarantine => {
                let why = one_line(&error);
                tracing::error!(request = %id, epoch = knock.row.epoch, error = %why, "an agent's request could not be applied");
                // The cause is this node's own: an agent is told that there is one.
                let no = Refused::new(
                    "failed",
                    "the watcher could not apply it",
                    "have a person look at the watcher's journal",
                );
                (refused(&no), None)
            }
            other => other?,
        };
        let counted = code.filter(|_| knock.audit == Audit::Counted);
        answered.push(Answered { epoch: knock.row.epoch, id, answer, counted });
    }
    Ok(answered)
}

/// The answer, and the code of a refusal.
type Said = (ChildAnswer, Option<&'static str>);

fn apply_one(tx: &mut Tx<'_>, home: &Home, stopped: &Stopped, knock: &Knock) -> Result<Said, LedgerError> {
    let request = match &knock.claim.request {
        Ok(request) => request,
        Err(error) => {
            tracing::debug!(epoch = knock.row.epoch, error = %one_line(error), "a request of an agent cannot be read");
            let no = Refused::new(
                "malformed",
                "the request is not one that dispatch-send makes",
                "use dispatch-send",
            );
            return say_no(tx, knock, &no, Value::Null);
        }
    };
    if let Some((no, whose)) = not_this_token(tx, knock, request)? {
        return say_no(tx, knock, &no, json!({"token": whose}));
    }
    let stored = stored_as(knock.row.epoch, request.id);
    if let Some(text) = tx.reply(stored)? {
        let again = ChildAnswer::from_text(request.id, text.as_bytes()).unwrap_or_else(|_| {
            refused(&Refused::new("unknown", "the stored reply cannot be read", "ask a person of this node"))
        });
        return Ok((again, None));
    }
    if let (AttemptState::Leased, Some(at)) = (knock.row.state, knock.started) {
        // What asks runs: that is noted before what it asks for.
        tx.mark_started(knock.row.epoch, at)?;
    }
    let data = json!({"to": request.wanted.to.as_str()});
    let (answer, code) = match decide(tx, home, stopped, knock, request)? {
        Ok(row) => (made(home, stopped, &row, tx.child_payload(row.id)?.as_deref()), None),
        Err(no) => say_no(tx, knock, &no, data)?,
    };
    // An answer always has a text; one without is made again when it is asked for again, and refused as used then.
    let text = answer.to_text(request.id).unwrap_or_default();
    tx.answer_request(stored, VERB, &text)?;
    Ok((answer, code))
}

/// A child, or why there is none.
fn decide(
    tx: &mut Tx<'_>,
    home: &Home,
    stopped: &Stopped,
    knock: &Knock,
    request: &ChildRequest,
) -> Result<Result<ChildRow, Refused>, LedgerError> {
    if request.is_expired_at(tx.now()) {
        return Ok(Err(Refused::new("expired", "the request is older than 60 s", "run the command again")));
    }
    if stopped.stops(&knock.row.key.from) {
        return Ok(Err(Refused::new(
            "killswitch",
            "a killswitch stops this node: nothing new is sent from here",
            "whoever tripped it lifts it: dispatchctl resume",
        )));
    }
    let Some(sending) = tx.task(&knock.row.key)? else {
        return Err(LedgerError::UnknownTask { key: knock.row.key.clone() });
    };
    if let Some(no) = it_is_stopped(&sending) {
        return Ok(Err(no));
    }
    if let Some(no) = its_tree_is_held(tx, &sending)? {
        return Ok(Err(no));
    }
    let task = match task_of(home, &request.wanted, tx.now()) {
        Ok(task) => task,
        Err(no) => return Ok(Err(no)),
    };
    if let Some(no) = is_full(tx, home, &task)? {
        return Ok(Err(no));
    }
    let share = Share { fanout: request.wanted.fanout.map(i64::from), budget_usd: request.wanted.budget_usd };
    children::make(tx, home, &knock.row, Wanted { task, share })
}

/// Why a token does not open this door, and whose it is. The one who shows it is told the first alone.
fn not_this_token(
    tx: &Tx<'_>,
    knock: &Knock,
    request: &ChildRequest,
) -> Result<Option<(Refused, &'static str)>, LedgerError> {
    let shown = Digest::of(request.token.as_bytes());
    let is_its_own = knock.row.token_sha256.is_some_and(|own| is_same(&own, &shown));
    let now = tx.attempt(knock.row.epoch)?;
    let is_open = now.as_ref().is_some_and(|row| match row.state {
        AttemptState::Started => true,
        AttemptState::Leased => knock.started.is_some(),
        AttemptState::Ended | AttemptState::Revoked => false,
    });
    if is_its_own && is_open {
        return Ok(None);
    }
    let whose = match tx.attempt_of_token(shown)? {
        None => "unknown",
        Some(row) if matches!(row.state, AttemptState::Ended | AttemptState::Revoked) => {
            "of_an_ended_attempt"
        }
        Some(row) if row.epoch != knock.row.epoch => "of_another_attempt",
        Some(_) => "of_an_attempt_that_has_not_begun",
    };
    let no = Refused::new(
        "bad_token",
        "the token is not that of the attempt that runs here",
        "a task sends tasks only while it runs, and only as itself; a person sends them with dispatch-send outside a task",
    );
    Ok(Some((no, whose)))
}

/// Compares without telling by its time how much is the same.
fn is_same(one: &Digest, other: &Digest) -> bool {
    one.as_bytes().iter().zip(other.as_bytes()).fold(0, |differ, (one, other)| differ | (one ^ other)) == 0
}

/// The name of a request among all that was ever applied: an agent chooses its ids, so it could choose another's.
fn stored_as(epoch: u64, id: Uuid) -> Uuid {
    let digest = Digest::of(format!("{VERB} {epoch} {id}").as_bytes());
    let mut bytes = [0_u8; 16];
    bytes.iter_mut().zip(digest.as_bytes()).for_each(|(place, byte)| *place = *byte);
    Builder::from_random_bytes(bytes).into_uuid()
}

/// Refuses, and notes it.
fn say_no(tx: &mut Tx<'_>, knock: &Knock, no: &Refused, data: Value) -> Result<Said, LedgerError> {
    if knock.audit == Audit::Each {
        let entry = Entry::of("child_refused").task(&knock.row.key).epoch(knock.row.epoch).code(no.code);
        tx.audit(&if data.is_null() { entry } else { entry.data(data) })?;
    }
    Ok((refused(no), Some(no.code)))
}

fn refused(no: &Refused) -> ChildAnswer {
    let help = Some(no.help.clone()).filter(|help| !help.is_empty());
    ChildAnswer::Refused(DoorError { code: no.code.to_owned(), text: no.text.clone(), help })
}

/// A task that is being stopped sends nothing more.
fn it_is_stopped(sending: &TaskRow) -> Option<Refused> {
    let stop = sending.stop.as_ref()?;
    Some(Refused::new(
        "cancelled",
        format!("the sending task is being stopped ({} by {})", stop.why, stop.by),
        "nothing: it ends; send it by hand where it is still wanted",
    ))
}

/// A tree that sends too much waits for a person, and sends nothing meanwhile.
fn its_tree_is_held(tx: &Tx<'_>, sending: &TaskRow) -> Result<Option<Refused>, LedgerError> {
    let held = tx.open_holds()?.into_iter().find(|hold| hold.root == Some(sending.root));
    Ok(held.map(|hold| {
        let what = match hold.trip {
            VelocityTrip::TasksPerHour => "its tree has sent more tasks in an hour than this node lets it",
            VelocityTrip::SpendPerHour | VelocityTrip::IdenticalRequests => "its tree is held",
        };
        Refused::new(
            "rate_exceeded",
            format!("{what} (since {}); it waits for a person", hold.at),
            format!("whoever runs this node looks, then: dispatchctl budget resume {}", hold.sender),
        )
    }))
}

/// A peer that said lately that it is full is sent nothing from within a task.
fn is_full(tx: &Tx<'_>, home: &Home, task: &Task) -> Result<Option<Refused>, LedgerError> {
    let Some(peer) = tx.peer(&task.to)? else { return Ok(None) };
    // What a dead one last said speaks of a past (policy section 5).
    let dead_after_ms = i64::try_from(home.config.watch.dead_after.as_millis()).unwrap_or(i64::MAX);
    if tx.now().since_ms(peer.advanced_at).saturating_abs() >= dead_after_ms {
        return Ok(None);
    }
    let beat = Heartbeat::from_stored(&peer.payload).ok().filter(|beat| beat.backpressure.on);
    Ok(beat.map(|beat| {
        let after = beat.backpressure.retry_after_s;
        let when = after.map_or_else(|| "later".to_owned(), |seconds| format!("in {seconds}s"));
        Refused::new("at_capacity", format!("`{}` is at capacity", task.to), format!("try again {when}"))
    }))
}

/// The task that is asked for, as far as its agent has a say, within the limits of the wire.
fn task_of(home: &Home, wanted: &ChildWanted, now: Timestamp) -> Result<Task, Refused> {
    let lane = Lane::new(home.node.clone(), wanted.to.clone());
    // Its own id is drawn when it is made.
    let id = TaskId::from_uuid(Builder::from_unix_timestamp_millis(0, &[0; 10]).into_uuid());
    let mut task = Task::new(home.cluster, &lane, id, now, (Uuid::nil(), 1), wanted.request.clone());
    if let Some(expires_ms) = wanted.expires_ms {
        if !(1..=LIFETIME_MS_MAX).contains(&expires_ms) {
            return Err(Refused::new(
                "limit_exceeded",
                "a task lives longer than 0s and at most 30d",
                "give another --expires",
            ));
        }
        task.expires = now.plus_ms(expires_ms);
    }
    task.priority = wanted.priority.unwrap_or(task.priority);
    task.profile = wanted.profile.clone().unwrap_or(task.profile);
    task.workspace.clone_from(&wanted.workspace);
    task.require_ack = wanted.require_ack;
    task.require_dangerous = wanted.require_dangerous;
    task.timeout_s = wanted.timeout_s.unwrap_or(task.timeout_s);
    task.silence_timeout_s = wanted.silence_timeout_s;
    task.max_output_bytes = wanted.max_output_bytes.unwrap_or(task.max_output_bytes);
    task.max_cost_usd = wanted.max_cost_usd;
    task.run = wanted.run.as_ref().map(ToString::to_string);
    task.requires = Requires {
        tool: wanted.needs_tool.clone(),
        min_vram_gb: wanted.needs_vram_gb,
        image: wanted.needs_image.clone(),
    };
    task.allow_sdk = wanted.allow_sdk;
    task.max_attempts = wanted.max_attempts.unwrap_or(task.max_attempts);
    task.labels.clone_from(&wanted.labels);
    Ok(task)
}

/// What its agent is told of a child.
fn made(home: &Home, stopped: &Stopped, row: &ChildRow, payload: Option<&[u8]>) -> ChildAnswer {
    let lane = Lane::new(home.node.clone(), row.receiver.clone());
    let Some(task) = payload.and_then(|payload| Task::from_stored(payload).ok()) else {
        return refused(&Refused::new(
            "unknown",
            "the task that was made cannot be read back",
            "ask a person of this node",
        ));
    };
    let mut notes = Vec::new();
    if stopped.lanes.contains_key(&row.receiver) {
        notes.push(format!(
            "a killswitch stops what `{}` sends; whether it runs what it gets is its own to say",
            row.receiver
        ));
    }
    ChildAnswer::Made(Box::new(Made {
        task: row.id,
        inbox: home.config.root.join(File::inbox(&lane, row.id).path()),
        lane,
        expires: task.expires,
        answer_by: row.answer_by,
        root: task.root(),
        depth: task.lineage.as_ref().map_or(0, |lineage| lineage.depth),
        fanout_left: row.fanout,
        budget_usd: row.budget_usd,
        notes,
    }))
}
