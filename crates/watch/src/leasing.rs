//! Leasing and launching: whose turn it is, and what starts or is sent on.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use dispatch_core::explain;
use dispatch_core::planner::queue::{Candidate, choose};
use dispatch_core::protocol::names::{Digest, NodeName, TaskId};
use dispatch_core::protocol::result::Status;
use dispatch_ledger::{AttemptRow, Entry, LedgerError, NewLease, QueuedTask, TaskKey, Tx};
use dispatch_node::ids;
use dispatch_node::job::{self, JobDir, Order};
use serde_json::json;

use crate::ending::{End, finish, finish_as_it_ran};
use crate::forward;
use crate::guards::Guards;
use crate::home::Home;
use crate::pass::contain;
use crate::running::{Reserved, is_late, note_wait, reserve};
use crate::{recipes, routing};

/// Tasks that are sent on in one transaction; the rest follow in the next.
const FORWARDS_PER_PASS: usize = 64;

/// A lease whose executor is to be started, once the transaction that gave it is committed.
#[derive(Debug)]
pub(crate) struct Launch {
    pub(crate) key: TaskKey,
    pub(crate) attempt: AttemptRow,
    /// What its agent may send tasks with; only its digest is in the ledger.
    pub(crate) token: Option<String>,
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
