//! One attempt from the lock to its outcome (architecture, "The path of a task", steps 8 and 9).

use std::io;
use std::time::Duration;

use dispatch_node::clock;
use dispatch_node::job::{JobDir, JobError, LOCK_WAIT_MS_MAX, Locked, Order, Outcome, Presence, Started};

use crate::agent::{self, Agent};
use crate::contain::Containing;
use crate::launch::{CannotStart, Launch};
use crate::log::CappedLog;
use crate::mirror::Mirror;
use crate::outcome;
use crate::output::Output;
use crate::stops::Stops;
use crate::supervise::Supervisor;

/// Tries of writing the outcome: a full disk may have room again in a while.
const OUTCOME_TRIES: u32 = 30;
/// Time between two of them.
const OUTCOME_RETRY: Duration = Duration::from_secs(1);

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Ran {
    /// The outcome is written.
    ToOutcome,
    /// The attempt was revoked or begun before; nothing was written.
    NothingToDo,
    /// Somebody else holds the lock; nothing was written.
    LockBusy,
}

/// An attempt that could not be brought to an outcome.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AttemptError {
    /// The job directory fails.
    #[error("cannot use the job directory")]
    Job(#[from] JobError),
    /// The order is not for this directory.
    #[error("the order in this directory is for task {task}, epoch {epoch}")]
    Misplaced {
        /// The order's task.
        task: String,
        /// The order's epoch.
        epoch: u64,
    },
    /// The kernel refuses what supervising needs.
    #[error("cannot {op}")]
    Kernel {
        /// What was asked of it.
        op: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// Which boot this is cannot be read.
    #[error("cannot tell this boot from others")]
    Boot(#[from] clock::NoBootId),
}

/// Runs the attempt of a job directory.
pub(crate) fn run(job: &JobDir) -> Result<Ran, AttemptError> {
    // A session of its own: no terminal's hang-up reaches it. Whoever leads one already keeps it.
    rustix::process::setsid().ok();
    let mut lock = match job.try_lock(Duration::from_millis(LOCK_WAIT_MS_MAX))? {
        Locked::Held(lock) => lock,
        Locked::Busy(_) => return Ok(Ran::LockBusy),
    };
    lock.write_holder()?;
    if job.revoked()? == Presence::Present || is_begun(job)? {
        return Ok(Ran::NothingToDo);
    }
    let order = job.read_order()?;
    if (&order.from, order.task, order.epoch) != (job.from(), job.id(), job.epoch()) {
        return Err(AttemptError::Misplaced { task: order.task.to_string(), epoch: order.epoch });
    }
    let outcome = attempt(job, &order)?;
    write(job, &outcome)?;
    drop(lock);
    Ok(Ran::ToOutcome)
}

/// True where an executor was here before: an agent may have run, and none runs a second time for one lease.
fn is_begun(job: &JobDir) -> Result<bool, JobError> {
    Ok(job.started()? == Presence::Present || job.outcome()? == Presence::Present)
}

fn attempt(job: &JobDir, order: &Order) -> Result<Outcome, AttemptError> {
    // First of all, because the first look at the share takes its time while the rest is made ready.
    let mut stops = Stops::watch(job, order).map_err(kernel("watch for stops"))?;
    let prepared = prepare(job, order);
    if let Some(stop) = stops.before_start()? {
        return Ok(outcome::not_started(order, &stop));
    }
    let (agent, launch) = match prepared {
        Ok(prepared) => prepared,
        Err(cannot) => return Ok(outcome::cannot_start(order, &cannot)),
    };
    let containing = Containing::new(&order.mark).map_err(kernel("become the reaper of the agent's tree"))?;
    let log = CappedLog::create(&job.log_path(), order.max_output_bytes).map_err(kernel("create the log"))?;
    job.write_started(&Started {
        epoch: order.epoch,
        at: clock::now(),
        boot_id: clock::host_boot_id()?,
        mechanism: containing.mechanism(),
    })?;
    let started_at = clock::now();
    let spawned = match launch.spawn(&containing) {
        Ok(spawned) => spawned,
        Err(cannot) => {
            containing.remove();
            return Ok(outcome::cannot_start(order, &cannot));
        }
    };
    let mirror = Mirror::new(job.log_path(), &order.killswitch.lane, order.task);
    let output = Output::new(spawned.stdout, spawned.stderr, log, mirror);
    let seen = Supervisor::new(job, order, agent, containing, stops, output, spawned.pid).run();
    Ok(outcome::spawned(order, started_at, seen))
}

fn prepare(job: &JobDir, order: &Order) -> Result<(Box<dyn Agent>, Launch), CannotStart> {
    let agent = agent::adapter(order)?;
    let launch = Launch::prepare(job, order, agent.as_ref())?;
    Ok((agent, launch))
}

fn kernel(op: &'static str) -> impl FnOnce(io::Error) -> AttemptError {
    move |source| AttemptError::Kernel { op, source }
}

/// The last act. Without it the attempt counts as `unknown`, so a disk that is full gets some time.
fn write(job: &JobDir, outcome: &Outcome) -> Result<(), JobError> {
    let mut tries = 1_u32;
    loop {
        match job.write_outcome(outcome) {
            Err(_) if tries < OUTCOME_TRIES => {
                tries = tries.saturating_add(1);
                std::thread::sleep(OUTCOME_RETRY);
            }
            other => return other,
        }
    }
}
