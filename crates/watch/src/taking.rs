//! Taking what lies in an inbox: steps 1 to 9 of acceptance outside, step 10 and the row inside the transaction.

use dispatch_core::explain;
use dispatch_core::policy::admission::{Admission, Billing, Cost};
use dispatch_core::policy::gate::GateReason;
use dispatch_core::policy::lifecycle::TaskEvent;
use dispatch_core::protocol::accept::{
    Detail, KnownTask, Me, Place, RefusedTask, TaskRules, TaskVerdict, accept_task,
};
use dispatch_core::protocol::names::Digest;
use dispatch_core::protocol::payload::Payload as _;
use dispatch_core::protocol::reason::ReasonCode;
use dispatch_core::protocol::result::{Reason, Status};
use dispatch_core::protocol::seal::Verified;
use dispatch_core::protocol::task::{Priority, Task, TaskMember};
use dispatch_core::protocol::terms;
use dispatch_core::protocol::text::first_chars;
use dispatch_core::protocol::time::{DAY_MS, Timestamp};
use dispatch_core::protocol::v2::accept_flat;
use dispatch_ledger::{
    Entry, LedgerError, NewReservation, NewTask, Position, Reader, Reserving, Seen, TaskKey, Terms, Tx,
};
use dispatch_node::ids;
use dispatch_spool::layout::File;
use serde_json::json;
use uuid::Uuid;

use crate::budget;
use crate::deciding;
use crate::ending::{End, finish, reason};
use crate::guards;
use crate::home::{Home, PeerHome};
use crate::look::{Found, What};
use crate::routing::{self, Routed};
use crate::{recipes, standing};

/// What this release cannot serve: refused as `unsupported_here`, never ignored.
pub(crate) const UNSUPPORTED: &[TaskMember] = &[TaskMember::Attachments, TaskMember::Accept];

/// Characters of the request's first line that lists show.
const FIRST_LINE_CHARS: usize = 120;

/// A file of an inbox, judged.
pub(crate) enum Judged {
    /// It passed steps 1 to 9.
    Good { file: Vec<u8>, task: Box<Verified<Task>> },
    /// Refused from step 7 on: it gets an answer.
    Answered { file: Vec<u8>, known: Box<KnownTask>, status: Status, why: Reason },
    /// The same bytes again: the safe retry.
    Replayed { key: TaskKey, file: File },
    /// Evidence.
    Refused { file: File, digest: Option<Digest>, code: &'static str, key: Option<TaskKey> },
    /// It could not be read now, or the clock that speaks against it cannot be believed.
    Later,
}

/// Judges one file.
pub(crate) fn judge(
    reader: &Reader,
    home: &Home,
    peer: &PeerHome,
    found: Found,
    now: Timestamp,
) -> Result<Judged, LedgerError> {
    let Found { file, what } = found;
    let refused = |file: File, digest, code: ReasonCode| Judged::Refused {
        file,
        digest,
        code: code.as_str(),
        key: None,
    };
    let bytes = match what {
        What::Bytes(bytes) => bytes,
        What::NotRegular => return Ok(refused(file, None, ReasonCode::NotARegularFile)),
        What::TooLarge => return Ok(refused(file, None, ReasonCode::TooLarge)),
        What::Unreadable => return Ok(Judged::Later),
    };
    let Some(id) = file.task() else { return Ok(Judged::Later) };
    let key = TaskKey { from: peer.lane_in.from.clone(), id };
    let meta = reader.meta()?;
    let seen = reader.seen(&key)?.map(|seen| seen.digest);
    let config = &home.config;
    let rules = TaskRules {
        accept_after: meta.accept_after,
        forgotten_until: meta.forgotten_until,
        has_profile: &|name| config.profiles.contains_key(name),
        has_workspace: &|name| config.workspaces.contains_key(name),
        unsupported: UNSUPPORTED,
    };
    let me = Me { cluster: home.cluster, node: &home.node, now };
    let place = Place { lane: &peer.lane_in, id };
    let verdict = match &peer.flat {
        Some(flat) => accept_flat(&bytes, place, &me, &flat.ring, flat.allowed.bounds, seen, &rules),
        None => accept_task(&bytes, place, &me, &peer.ring_in, seen, &rules),
    };
    Ok(match verdict {
        TaskVerdict::Accepted(task) => Judged::Good { file: bytes, task },
        TaskVerdict::Refused(refused) if home.cannot_tell(refused.refusal.code) => Judged::Later,
        TaskVerdict::Refused(refused) => judged_refusal(*refused, bytes, file, key),
    })
}

fn judged_refusal(refused: RefusedTask, bytes: Vec<u8>, file: File, key: TaskKey) -> Judged {
    let code = refused.refusal.code;
    match (refused.answer, refused.known) {
        (Some(status), Some(known)) => {
            let why = Reason {
                code: code.as_str().to_owned(),
                text: detailed(code, refused.refusal.detail.as_ref()),
                help: code.help().to_owned(),
            };
            Judged::Answered { file: bytes, known: Box::new(known), status, why }
        }
        _ if code == ReasonCode::Replayed => Judged::Replayed { key, file },
        _ => {
            let key = (code == ReasonCode::IdReused).then_some(key);
            Judged::Refused { file, digest: Some(Digest::of(&bytes)), code: code.as_str(), key }
        }
    }
}

fn detailed(code: ReasonCode, detail: Option<&Detail>) -> String {
    match detail {
        Some(Detail::Member(member)) => format!("{}: {member}", code.text()),
        Some(other) => match other.as_error() {
            Some(error) => format!("{}: {error}", code.text()),
            None => code.text().to_owned(),
        },
        None => code.text().to_owned(),
    }
}

/// Takes a good task: everything that makes the node owe an answer, in the caller's transaction.
pub(crate) fn take(
    tx: &mut Tx<'_>,
    home: &Home,
    file: &[u8],
    verified: &Verified<Task>,
) -> Result<(), LedgerError> {
    let task = verified.payload();
    let key = TaskKey { from: task.from.clone(), id: task.id };
    let (Some(profile), Some(peer)) = (home.config.profiles.get(&task.profile), home.config.peer(&task.from))
    else {
        // Steps 3 and 9 looked both up in this very configuration.
        return Err(LedgerError::UnknownTask { key });
    };
    if !is_flat(home, &key) {
        note_position(tx, &key, (task.stream, task.seq), verified.digest())?;
    }
    tx.insert_seen(&key, Seen { digest: verified.digest(), until: seen_until(home, &key, task.expires) })?;
    guards::note_request(tx, home, task, profile)?;
    let admission = budget::look(tx, home, task, profile, peer)?;
    let (cost, gates) = match &admission {
        Admission::Queue { cost, .. } | Admission::WaitForRoom { cost, .. } => (*cost, &[][..]),
        Admission::Park { cost, gates } => (*cost, gates.as_slice()),
        Admission::Refuse(_) => (Cost::default(), &[][..]),
    };
    let terms = terms_of(home, task, verified.digest(), cost, gates, tx.now());
    tx.insert_task(&new_task(verified, file, terms, &key))?;
    if let Some(control) = deciding::early_cancel(tx, &key, verified.digest())? {
        tx.record_stop(&key, "cancelled", control.key.from.as_str())?;
        let why = reason(
            "cancelled",
            format!("cancelled by {} before it came: {}", control.key.from, control.reason),
            "send it again if it is still wanted",
        );
        return finish(tx, home, &key, &End::plain(Status::Cancelled, why));
    }
    tx.audit(&Entry::of("accepted").task(&key).data(json!({
        "task_sha256": verified.digest().to_string(), "profile": task.profile.as_str(),
    })))?;
    admitted(tx, home, &key, admission)?;
    standing::answer(tx, home, task, cost)
}

fn admitted(tx: &mut Tx<'_>, home: &Home, key: &TaskKey, admission: Admission) -> Result<(), LedgerError> {
    match admission {
        Admission::Queue { reservation, .. } => {
            tx.apply(key, TaskEvent::Admitted)?;
            let Some(wanted) = reservation else { return Ok(()) };
            let Ok(id) = ids::uuid_v4() else { return tx.set_wait_reason(key, Some("no randomness")) };
            let new = NewReservation {
                id,
                key: key.clone(),
                nth: 1,
                amount: wanted.amount,
                windows: wanted.windows,
                payer: wanted.payer,
            };
            match tx.reserve_within(&new, &home.caps())? {
                Reserving::Reserved => Ok(()),
                Reserving::WouldExceed { window, .. } | Reserving::Closed { window } => {
                    tx.set_wait_reason(key, Some(&window.to_string()))
                }
            }
        }
        Admission::Park { gates, .. } => {
            tx.apply(key, TaskEvent::Parked)?;
            let words: Vec<&str> = gates.iter().map(|gate| gate.as_str()).collect();
            tx.audit(&Entry::of("parked").task(key).data(json!({"gate": words})))?;
            Ok(())
        }
        Admission::WaitForRoom { wait, .. } => {
            tx.apply(key, TaskEvent::Admitted)?;
            let text = explain::wait_line(&wait);
            tx.audit(&Entry::of("waits").task(key).data(json!({"for": text})))?;
            tx.set_wait_reason(key, Some(&text))
        }
        Admission::Refuse(refusal) => {
            finish(tx, home, key, &End::plain(Status::Rejected, Some(explain::refusal_reason(&refusal))))
        }
    }
}

/// Whether a task came from a version-2 peer: it has no place in a stream.
fn is_flat(home: &Home, key: &TaskKey) -> bool {
    home.bounds(&key.from).is_some()
}

/// Until when a key is kept in the seen-set. One of a version-2 peer is kept for ever: its file says nothing that ends it.
fn seen_until(home: &Home, key: &TaskKey, expires: Timestamp) -> Option<Timestamp> {
    (!is_flat(home, key)).then(|| expires.plus_ms(DAY_MS))
}

fn note_position(
    tx: &mut Tx<'_>,
    key: &TaskKey,
    (stream, seq): (Uuid, u64),
    digest: Digest,
) -> Result<(), LedgerError> {
    if tx.note_position(&key.from, stream, seq, digest)? == Position::Fork {
        let data = json!({"stream": stream.to_string(), "seq": seq});
        tx.audit(&Entry::of("stream_fork").task(key).code("stream_fork").data(data))?;
    }
    Ok(())
}

/// Recipe and terms of a task under this configuration.
pub(crate) fn terms_of(
    home: &Home,
    task: &Task,
    digest: Digest,
    cost: Cost,
    gates: &[GateReason],
    now: Timestamp,
) -> Terms {
    let recipe = recipes::resolve(&home.config, task, cost);
    let routed = routing::route(&home.config, task);
    let route = routed.as_ref().and_then(Routed::route);
    let payload = recipe.as_ref().filter(|_| !gates.is_empty()).map(|recipe| {
        terms::Terms {
            cluster: home.cluster,
            from: task.from.clone(),
            to: home.node.clone(),
            task: task.id,
            task_sha256: digest,
            profile: task.profile.clone(),
            agent: recipe.kind.clone(),
            argv_sha256: recipe.argv_digest(),
            permission_mode: recipe.permission_mode.clone(),
            workspace_path: recipe.workspace_path.clone(),
            backend: Some(recipe.backend.clone()),
            estimate_usd: cost.estimate_usd,
            ceiling_usd: cost.ceiling_usd,
            gate: gates.iter().map(|gate| gate.as_str().to_owned()).collect(),
            made: now,
        }
        .to_payload()
    });
    let required =
        route.and_then(|route| route.profile.required).unwrap_or(0).max(home.config.approve.required);
    Terms {
        recipe: recipe.as_ref().map_or_else(|| "{}".to_owned(), recipes::write),
        sha256: payload.as_deref().map(Digest::of),
        payload,
        gates: json!(gates.iter().map(|gate| gate.as_str()).collect::<Vec<_>>()).to_string(),
        cost,
        billing: route.map_or(Billing::Free, |route| route.billing()),
        required_approvals: required,
    }
}

fn new_task(verified: &Verified<Task>, file: &[u8], terms: Terms, key: &TaskKey) -> NewTask {
    let task = verified.payload();
    let first_line = task.request.lines().find(|line| !line.trim().is_empty()).unwrap_or("");
    NewTask {
        key: key.clone(),
        digest: verified.digest(),
        envelope: file.to_vec(),
        priority: task.priority,
        created: task.created,
        expires: task.expires,
        run: task.run.clone(),
        root: task.root(),
        parent: task.lineage.as_ref().and_then(|lineage| lineage.parent),
        depth: task.lineage.as_ref().map_or(0, |lineage| lineage.depth),
        profile: task.profile.to_string(),
        workspace: task.workspace.as_ref().map(ToString::to_string),
        max_attempts: task.max_attempts,
        terms,
        first_line: first_chars(first_line, FIRST_LINE_CHARS).to_owned(),
        labels: json!(task.labels).to_string(),
    }
}

/// Answers a task that is refused from step 7 on: it is final, seen, and in the ledger like any other.
pub(crate) fn answer(
    tx: &mut Tx<'_>,
    home: &Home,
    file: &[u8],
    known: &KnownTask,
    status: Status,
    why: &Reason,
) -> Result<(), LedgerError> {
    let key = TaskKey { from: known.lane.from.clone(), id: known.id };
    tx.insert_seen(
        &key,
        Seen { digest: known.payload_sha256, until: seen_until(home, &key, known.expires) },
    )?;
    // A position out of range is shown as 1, and would look like a fork of the first task of the stream.
    if !is_flat(home, &key) && (known.task.is_some() || known.seq != 1) {
        note_position(tx, &key, (known.stream, known.seq), known.payload_sha256)?;
    }
    tx.insert_task(&NewTask {
        key: key.clone(),
        digest: known.payload_sha256,
        envelope: file.to_vec(),
        priority: Priority::Normal,
        created: known.created,
        expires: known.expires,
        run: None,
        root: known.id,
        parent: None,
        depth: 0,
        profile: known.task.as_ref().map_or_else(String::new, |task| task.profile.to_string()),
        workspace: None,
        max_attempts: 1,
        terms: Terms {
            recipe: "{}".to_owned(),
            payload: None,
            sha256: None,
            gates: "[]".to_owned(),
            cost: Cost::default(),
            billing: Billing::Free,
            required_approvals: 0,
        },
        first_line: String::new(),
        labels: "{}".to_owned(),
    })?;
    let end = End::plain(status, Some(why.clone()));
    finish(tx, home, &key, &end)
}
