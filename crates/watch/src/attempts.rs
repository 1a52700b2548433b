//! What became of the attempts: job directories looked at, before the transaction that settles them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::Path;
use std::process::Child;
use std::time::Duration;

use dispatch_core::planner::attempt::{AttemptAction, JobFacts, Lock, OVERDUE_MS, inspect};
use dispatch_core::protocol::time::{SECOND_MS, Timestamp};
use dispatch_ledger::{AttemptRow, TaskKey};
use dispatch_node::clock;
use dispatch_node::job::{JobDir, JobError, Locked, NearCeiling, Outcome, Presence};
use dispatch_node::tree::{self, Scope, Tree, start_ticks};
use rustix::process::{Pid, Signal, kill_process};

use crate::near;

/// How long ending the tree of a dead executor may take in one pass.
const SWEEP_LIMIT: Duration = Duration::from_secs(2);
/// Ladder and sweep at the end of an attempt, beyond its time-out.
const ENDING_MS: i64 = 20 * SECOND_MS;
/// One tick of `/proc/<pid>/stat`: the kernel shows hundredths of a second whatever it counts in.
const TICK_MS: i64 = 10;

/// Attempts that are remembered as told to be near their ceiling.
const TOLD_NEAR_MAX: usize = 1_024;

/// A shorter attempt is not worth a transaction that says it runs: the one that settles it says so too.
pub(crate) const START_NOTED_AFTER_MS: i64 = 200;

/// How closely to look at executors that are known to be alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Care {
    /// Not at all.
    Endings,
    /// Whether they are past their deadlines.
    Deadlines,
}

/// What an attempt came to, as its directory tells.
#[derive(Debug)]
pub(crate) enum Came {
    /// The executor's own word.
    Outcome(Box<Outcome>),
    /// The executor died after it may have started the agent; nothing of the tree is left.
    Dead { started_at: Timestamp },
    /// No executor ever began, and none can any more.
    NeverBegan,
}

/// An attempt that ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) row: AttemptRow,
    pub(crate) came: Came,
}

/// What a look at the open attempts found.
#[derive(Debug, Default)]
pub(crate) struct Looked {
    pub(crate) ended: Vec<Ended>,
    /// Attempts whose agent may be alive by now, with the time their directory gives.
    pub(crate) started: Vec<(TaskKey, u64, Timestamp)>,
    /// Attempts whose agent has spent most of its ceiling.
    pub(crate) near: Vec<(TaskKey, NearCeiling)>,
    /// Attempts that live under an executor this watcher did not start.
    pub(crate) adopted: usize,
    /// Attempts whose directory could not be looked at; they are looked at again.
    pub(crate) failed: Vec<(u64, JobError)>,
}

/// The executors this watcher started and has not reaped.
#[derive(Default)]
pub(crate) struct Executors {
    children: BTreeMap<u64, Child>,
    /// Attempts whose ceiling is near and of which that was told.
    told_near: BTreeSet<u64>,
}

impl Executors {
    /// Takes charge of a child.
    pub(crate) fn insert(&mut self, epoch: u64, child: Child) {
        self.children.insert(epoch, child);
    }

    /// Reaps what has ended.
    pub(crate) fn reap(&mut self) {
        self.children.retain(|_, child| matches!(child.try_wait(), Ok(None)));
    }

    /// Remembers that it was told that an attempt's ceiling is near.
    pub(crate) fn told_near(&mut self, epoch: u64) {
        self.told_near.insert(epoch);
        // Epochs grow: the lowest are long over. One that is asked about again finds its entry in the audit.
        while self.told_near.len() > TOLD_NEAR_MAX {
            self.told_near.pop_first();
        }
    }

    fn is_told_near(&self, epoch: u64) -> bool {
        self.told_near.contains(&epoch)
    }

    /// True while a child of ours runs this attempt.
    fn runs(&self, epoch: u64) -> bool {
        self.children.contains_key(&epoch)
    }

    /// How many children live.
    pub(crate) fn len(&self) -> usize {
        self.children.len()
    }
}

/// Looks at every open attempt whose executor is not known to be alive.
///
/// A lock is tried only where this watcher is not the parent of a living executor; the exception is an executor that is
/// long overdue, which can be hung before it ever took its lock.
pub(crate) fn look(
    state: &Path,
    open: Vec<AttemptRow>,
    ours: &Executors,
    now: Timestamp,
    care: Care,
) -> Looked {
    let mut looked = Looked::default();
    for row in open {
        let epoch = row.epoch;
        let job = JobDir::at(state, &row.key.from, row.key.id, epoch);
        if row.started_at.is_none() && now.since_ms(row.leased_at) > START_NOTED_AFTER_MS {
            note_start(&job, &row, &mut looked);
        }
        if !ours.is_told_near(epoch) {
            looked.near.extend(near::seen(&job, epoch).map(|near| (row.key.clone(), near)));
        }
        let overdue =
            || care == Care::Deadlines && overdue_ms(&job, now.since_ms(row.leased_at)) > OVERDUE_MS;
        if ours.runs(epoch) && !overdue() {
            continue;
        }
        match look_at(&job, &row, now) {
            Ok(Some(came)) => looked.ended.push(Ended { row, came }),
            Ok(None) => looked.adopted = looked.adopted.saturating_add(1),
            Err(error) => looked.failed.push((epoch, error)),
        }
    }
    looked
}

fn note_start(job: &JobDir, row: &AttemptRow, looked: &mut Looked) {
    if let Ok(Some(started)) = job.read_started() {
        looked.started.push((row.key.clone(), row.epoch, started.at));
    }
}

fn look_at(job: &JobDir, row: &AttemptRow, now: Timestamp) -> Result<Option<Came>, JobError> {
    if is_absent(job)? {
        return without_directory(row);
    }
    let (lock, held) = match job.try_lock(Duration::ZERO)? {
        Locked::Busy(holder) => (Lock::Held, Err(holder)),
        Locked::Held(lock) => (Lock::Ours, Ok(lock)),
    };
    // Read after the lock was tried: only what is read under it counts.
    let outcome = match lock {
        Lock::Ours => outcome_of(job, row.epoch)?,
        Lock::Held => None,
    };
    let facts = JobFacts { outcome: outcome.is_some(), started: job.started()? == Presence::Present };
    let overdue = match &held {
        // How long the executor itself has lived: a wall clock that jumps ends nobody.
        Err(Some(holder)) => overdue_ms(job, lived_ms(holder.start_ticks)),
        Err(None) | Ok(_) => overdue_ms(job, now.since_ms(row.leased_at)),
    };
    match inspect(lock, facts, overdue) {
        AttemptAction::Wait => Ok(None),
        AttemptAction::KillExecutor => {
            if let Err(Some(holder)) = held {
                kill_if_same(holder.pid, holder.start_ticks);
            }
            Ok(None)
        }
        AttemptAction::Settle => Ok(outcome.map(|outcome| Came::Outcome(Box::new(outcome)))),
        AttemptAction::DeclareDead => {
            if end_tree(&row.mark).descendants_left > 0 {
                // Something cannot be killed yet (uninterruptible I/O): the attempt is not over before it is gone.
                return Ok(None);
            }
            job.revoke()?;
            let started_at = job.read_started().ok().flatten().map_or(row.leased_at, |started| started.at);
            Ok(Some(Came::Dead { started_at }))
        }
        AttemptAction::Revoke => {
            job.revoke()?;
            Ok(Some(Came::NeverBegan))
        }
    }
}

/// True where the directory is certainly not there. A disk that cannot say so proves nothing: the executor may be alive
/// behind it.
fn is_absent(job: &JobDir) -> Result<bool, JobError> {
    match std::fs::symlink_metadata(job.path()) {
        Ok(_) => Ok(false),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
        Err(source) => Err(JobError::Io { op: "look at", path: job.path().to_owned(), source }),
    }
}

/// A lease without its directory: the crash came before it was made, and no executor can have begun; or somebody removed
/// it, and then what carries the attempt's mark is ended, and nobody knows how far it came.
fn without_directory(row: &AttemptRow) -> Result<Option<Came>, JobError> {
    let ended = end_tree(&row.mark);
    if ended.descendants_left > 0 {
        return Ok(None);
    }
    let ran = row.started_at.is_some() || ended.killed > 0;
    Ok(Some(if ran {
        Came::Dead { started_at: row.started_at.unwrap_or(row.leased_at) }
    } else {
        Came::NeverBegan
    }))
}

/// The outcome; a torn or foreign one is none, so that what it hides counts as unknown and not as done.
fn outcome_of(job: &JobDir, epoch: u64) -> Result<Option<Outcome>, JobError> {
    match job.read_outcome() {
        Err(error) if error.is_malformed() => Ok(None),
        Ok(outcome) => Ok(outcome.filter(|outcome| outcome.epoch == epoch)),
        Err(error) => Err(error),
    }
}

/// How long an attempt of this age is past its last deadline; negative while it is not. One that has not even started
/// has no time-out to wait for.
fn overdue_ms(job: &JobDir, age_ms: i64) -> i64 {
    let started = job.started().is_ok_and(|there| there == Presence::Present);
    let timeout_ms = match job.read_order() {
        Ok(order) if started => i64::try_from(order.timeout_s).unwrap_or(i64::MAX).saturating_mul(SECOND_MS),
        Ok(_) => 0,
        // Without its order nobody knows its deadlines.
        Err(_) => return i64::MIN,
    };
    age_ms.saturating_sub(timeout_ms).saturating_sub(ENDING_MS)
}

/// Milliseconds since a process started, by the clock that nobody sets.
fn lived_ms(start_ticks: u64) -> i64 {
    let started_ms = i64::try_from(start_ticks).unwrap_or(i64::MAX).saturating_mul(TICK_MS);
    clock::boot_ms().saturating_sub(started_ms)
}

/// Ends what carries a mark. A process table that cannot be read leaves something alive, for all we know.
fn end_tree(mark: &str) -> tree::Ended {
    let tree = Tree::new(mark, Scope::Marked);
    tree.kill(SWEEP_LIMIT).unwrap_or(tree::Ended { descendants_left: 1, killed: 0 })
}

/// Kills a process if it still is the one that wrote itself into the lock.
fn kill_if_same(pid: u32, start: u64) {
    let Ok(stat) = std::fs::read(format!("/proc/{pid}/stat")) else { return };
    if start_ticks(&stat) != Some(start) {
        return;
    }
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return };
    if let Err(error) = kill_process(pid, Signal::KILL) {
        // Gone meanwhile is what was wanted; anything else is tried again.
        tracing::debug!(%error, "an overdue executor could not be killed");
    }
}
