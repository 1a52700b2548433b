//! What an attempt came to, and what follows for its task: architecture, "Life and death of an attempt".

use crate::policy::lease;
use crate::protocol::result::Status;
use crate::protocol::time::SECOND_MS;

/// Attempts in a row that could not even start before the task is given up.
pub const LAUNCH_FAILURES_MAX: u32 = 5;
/// Back-off after the first attempt that could not start.
pub const BACK_OFF_FIRST_MS: i64 = SECOND_MS;
/// Longest back-off.
pub const BACK_OFF_LAST_MS: i64 = 60 * SECOND_MS;
/// An executor so long past its last deadline is killed.
pub const OVERDUE_MS: i64 = 60 * SECOND_MS;

/// Who holds the lock of the job directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lock {
    /// An executor: it lives.
    Held,
    /// We took it: the executor is dead or never came, and none can start from here on.
    Ours,
}

/// What stands in a job directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobFacts {
    /// `outcome.json` can be read.
    pub outcome: bool,
    /// `started.json` is there: an agent may have been started.
    pub started: bool,
}

/// What to do about an attempt that the ledger holds as leased or started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptAction {
    /// Its executor lives: look again later.
    Wait,
    /// Its executor is long past every deadline: kill it, if pid and start time still match.
    KillExecutor,
    /// Settle what `outcome.json` says.
    Settle,
    /// The executor died while the agent may have run: end what is left of the tree, sync `revoked`, then it is unknown.
    DeclareDead,
    /// Nothing ever started: sync `revoked` and lease again.
    Revoke,
}

/// Decides about one open attempt. `overdue_ms` is how long it is past its last deadline (negative: not yet).
#[must_use]
pub fn inspect(lock: Lock, facts: JobFacts, overdue_ms: i64) -> AttemptAction {
    match lock {
        Lock::Held if overdue_ms > OVERDUE_MS => AttemptAction::KillExecutor,
        Lock::Held => AttemptAction::Wait,
        Lock::Ours if facts.outcome => AttemptAction::Settle,
        Lock::Ours if facts.started => AttemptAction::DeclareDead,
        Lock::Ours => AttemptAction::Revoke,
    }
}

/// How an attempt ended, as the node knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The agent ran and `outcome.json` says how.
    Ran(Status),
    /// The executor was stopped before the spawn (`not_started`).
    NotStarted,
    /// The executor could not start the agent at all (missing program, bad directory).
    CannotStart,
    /// It may or may not have run to its end.
    Unknown,
    /// No executor ever began: revoked before `started.json`.
    NeverBegan,
}

/// Why a task is to be stopped, as recorded in the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopWanted {
    /// Nobody asked.
    No,
    /// A cancel was recorded.
    Cancel,
}

/// What the task has behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskFacts {
    /// Attempts that started an agent, the one that just ended included.
    pub attempts_started: u32,
    /// The sender's `max_attempts`.
    pub max_attempts: u32,
    /// Attempts in a row that never began, the one that just ended not included.
    pub launch_failures: u32,
    /// A recorded cancel.
    pub stop: StopWanted,
}

/// What becomes of the attempt's reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Money {
    /// Close it: settled at the outcome's figure, else at the whole reservation.
    Settle,
    /// Close it: given back unspent, because no agent was ever spawned.
    Release,
    /// Keep it for the next lease of the same attempt.
    Keep,
}

/// What follows for the task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The task is final.
    Final {
        /// Its status.
        status: Status,
        /// What becomes of the reservation.
        money: Money,
    },
    /// Another attempt, with a reservation of its own; where none is to be had, the task is final with `otherwise`.
    Again {
        /// The status when no further attempt can be reserved.
        otherwise: Status,
    },
    /// Back to the queue with the same reservation; this lease counts as no attempt.
    Requeue {
        /// Milliseconds before it may be leased again.
        back_off_ms: i64,
        /// Launch failures in a row from now on.
        launch_failures: u32,
    },
}

/// Milliseconds to wait after so many launches in a row that failed: 1 s, doubled each time, at most 60 s.
#[must_use]
pub fn back_off_ms(failures: u32) -> i64 {
    let doublings = failures.saturating_sub(1).min(6);
    BACK_OFF_FIRST_MS.saturating_mul(1_i64 << doublings).min(BACK_OFF_LAST_MS)
}

/// What follows for a task when its attempt has ended.
#[must_use]
pub fn after(task: TaskFacts, ending: Ending) -> Next {
    match ending {
        Ending::Ran(status) => ran(task, status),
        Ending::Unknown => ran(task, Status::Unknown),
        // The program is missing now; it will be missing in a second, too. Only the sender's word makes it worth a try.
        Ending::CannotStart => match ran(task, Status::Error) {
            Next::Final { status, .. } => Next::Final { status, money: Money::Release },
            again @ (Next::Again { .. } | Next::Requeue { .. }) => again,
        },
        Ending::NotStarted | Ending::NeverBegan if task.stop == StopWanted::Cancel => {
            Next::Final { status: Status::Cancelled, money: Money::Release }
        }
        Ending::NotStarted => Next::Requeue { back_off_ms: 0, launch_failures: task.launch_failures },
        Ending::NeverBegan => {
            let failures = task.launch_failures.saturating_add(1);
            if failures >= LAUNCH_FAILURES_MAX {
                Next::Final { status: Status::Error, money: Money::Release }
            } else {
                Next::Requeue { back_off_ms: back_off_ms(failures), launch_failures: failures }
            }
        }
    }
}

fn ran(task: TaskFacts, status: Status) -> Next {
    // Counts are never negative, so the rule always answers; giving up is the answer that cannot run anything twice.
    let give_up =
        lease::should_give_up(task.attempts_started.into(), task.max_attempts.into()).unwrap_or(true);
    let again = status.may_run_again() && task.stop == StopWanted::No && !give_up;
    if again { Next::Again { otherwise: status } } else { Next::Final { status, money: Money::Settle } }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONCE: TaskFacts =
        TaskFacts { attempts_started: 1, max_attempts: 1, launch_failures: 0, stop: StopWanted::No };

    #[test]
    fn a_held_lock_is_waited_for_until_its_executor_is_overdue() {
        let started = JobFacts { outcome: false, started: true };
        assert_eq!(inspect(Lock::Held, started, -1), AttemptAction::Wait);
        assert_eq!(inspect(Lock::Held, started, OVERDUE_MS), AttemptAction::Wait);
        assert_eq!(inspect(Lock::Held, started, OVERDUE_MS + 1), AttemptAction::KillExecutor);
    }

    #[test]
    fn an_outcome_beats_every_sign_of_death() {
        assert_eq!(inspect(Lock::Ours, JobFacts { outcome: true, started: true }, 0), AttemptAction::Settle);
        assert_eq!(
            inspect(Lock::Ours, JobFacts { outcome: false, started: true }, 0),
            AttemptAction::DeclareDead
        );
        assert_eq!(
            inspect(Lock::Ours, JobFacts { outcome: false, started: false }, 0),
            AttemptAction::Revoke
        );
    }

    #[test]
    fn a_task_that_may_run_once_is_final_after_it_ran() {
        for status in [Status::Ok, Status::Error, Status::Timeout, Status::Killed] {
            assert_eq!(after(ONCE, Ending::Ran(status)), Next::Final { status, money: Money::Settle });
        }
        assert_eq!(
            after(ONCE, Ending::Unknown),
            Next::Final { status: Status::Unknown, money: Money::Settle }
        );
    }

    #[test]
    fn only_error_and_unknown_run_again_and_only_as_often_as_the_sender_said() {
        let twice = TaskFacts { max_attempts: 2, ..ONCE };
        assert_eq!(after(twice, Ending::Ran(Status::Error)), Next::Again { otherwise: Status::Error });
        assert_eq!(after(twice, Ending::Unknown), Next::Again { otherwise: Status::Unknown });
        assert_eq!(
            after(twice, Ending::Ran(Status::Timeout)),
            Next::Final { status: Status::Timeout, money: Money::Settle }
        );
        let spent = TaskFacts { attempts_started: 2, ..twice };
        assert_eq!(
            after(spent, Ending::Unknown),
            Next::Final { status: Status::Unknown, money: Money::Settle }
        );
    }

    #[test]
    fn a_cancelled_task_is_never_leased_again() {
        let cancelled = TaskFacts { max_attempts: 5, stop: StopWanted::Cancel, ..ONCE };
        assert_eq!(
            after(cancelled, Ending::Ran(Status::Error)),
            Next::Final { status: Status::Error, money: Money::Settle }
        );
        for ending in [Ending::NotStarted, Ending::NeverBegan] {
            assert_eq!(
                after(cancelled, ending),
                Next::Final { status: Status::Cancelled, money: Money::Release }
            );
        }
    }

    #[test]
    fn launches_that_fail_back_off_and_give_up_after_five_in_a_row() {
        let mut task = TaskFacts { attempts_started: 0, ..ONCE };
        let mut waits = Vec::new();
        loop {
            match after(task, Ending::NeverBegan) {
                Next::Requeue { back_off_ms, launch_failures } => {
                    waits.push(back_off_ms);
                    task.launch_failures = launch_failures;
                }
                end @ (Next::Final { .. } | Next::Again { .. }) => {
                    assert_eq!(end, Next::Final { status: Status::Error, money: Money::Release });
                    break;
                }
            }
        }
        assert_eq!(waits, vec![1_000, 2_000, 4_000, 8_000]);
        assert_eq!(back_off_ms(40), BACK_OFF_LAST_MS);
    }

    #[test]
    fn an_executor_stopped_by_the_killswitch_goes_back_to_the_queue_with_its_reservation() {
        assert_eq!(after(ONCE, Ending::NotStarted), Next::Requeue { back_off_ms: 0, launch_failures: 0 });
    }
}
