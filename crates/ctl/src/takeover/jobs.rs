//! Ending what an older ledger may have started: every job's lock is taken, its executor and agent ended, and where no
//! outcome stands, `revoked` is synced, so that nothing starts late.

use std::time::{Duration, Instant};

use dispatch_node::job::{Holder, JobDir, JobError, JobLock, Locked, Presence};
use dispatch_node::report::{Exit, Report};
use dispatch_node::state::StateDir;
use dispatch_node::tree::{Process, Scope, Tree};
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// How long one job's lock is waited for after its holder was killed.
const LOCK_WAIT: Duration = Duration::from_secs(5);
/// How long one agent's tree is given to be gone.
const TREE_LIMIT: Duration = Duration::from_secs(10);

/// Answers how many attempts were revoked.
pub(super) fn revoke_all(state: &StateDir) -> Result<usize, Report> {
    let mut revoked = 0_usize;
    for job in JobDir::list(state.path())?.jobs {
        let _lock = lock(&job)?;
        if has_outcome(&job)? || job.revoked()? == Presence::Present {
            continue;
        }
        end_agent(&job)?;
        job.revoke()?;
        revoked = revoked.saturating_add(1);
    }
    Ok(revoked)
}

/// An outcome that cannot be read is none: whether it ran to its end is not known either way.
fn has_outcome(job: &JobDir) -> Result<bool, JobError> {
    match job.read_outcome() {
        Ok(outcome) => Ok(outcome.is_some()),
        Err(error) if error.is_malformed() => Ok(false),
        Err(error) => Err(error),
    }
}

/// Takes the lock; whoever holds it is killed first.
fn lock(job: &JobDir) -> Result<JobLock, Report> {
    let until = Instant::now().checked_add(LOCK_WAIT);
    loop {
        match job.try_lock(Duration::from_millis(100))? {
            Locked::Held(lock) => return Ok(lock),
            Locked::Busy(holder) => {
                if until.is_none_or(|until| Instant::now() >= until) {
                    let what = format!("the executor of `{}` does not end", job.path().display());
                    return Err(Report::new(Exit::LocalIo, what)
                        .help("end that process by hand, then run this command again"));
                }
                if let Some(process) = holder.and_then(process) {
                    kill(process);
                }
            }
        }
    }
}

fn process(holder: Holder) -> Option<Process> {
    Process::noted(holder.pid, holder.start_ticks)
}

/// Kills exactly that process: a reused id is not hit, because the start time is read again while the handle is held.
fn kill(process: Process) {
    let Ok(handle) = pidfd_open(process.pid(), PidfdFlags::empty()) else { return };
    if process.is_still_there() {
        // It may have ended by itself; the lock tells.
        pidfd_send_signal(&handle, Signal::KILL).unwrap_or(());
    }
}

/// Ends what runs under the attempt's mark. Without an order nothing was ever launched from this directory.
fn end_agent(job: &JobDir) -> Result<(), Report> {
    let order = match job.read_order() {
        Ok(order) => order,
        Err(error) if error.is_malformed() || is_absent(&error) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let ended = Tree::new(&order.mark, Scope::Marked)
        .kill(TREE_LIMIT)
        .map_err(|error| Report::of(Exit::LocalIo, &error))?;
    if ended.descendants_left > 0 {
        let what = format!("{} processes of `{}` do not end", ended.descendants_left, job.path().display());
        return Err(Report::new(Exit::LocalIo, what)
            .about(job.id())
            .help("end them by hand, then run this command again"));
    }
    Ok(())
}

fn is_absent(error: &JobError) -> bool {
    match error {
        JobError::Io { source, .. } => source.kind() == std::io::ErrorKind::NotFound,
        JobError::Malformed { .. } | JobError::Schema { .. } | JobError::NotAJobFile { .. } => false,
    }
}
