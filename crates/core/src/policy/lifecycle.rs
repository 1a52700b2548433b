//! The life of a task and of an attempt: one total function each, used live and when a ledger is read back.

use std::fmt;

/// Where a task is (policy section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TaskState {
    /// Verified and not yet decided on.
    Received,
    /// Parked until a person decides.
    AwaitingApproval,
    /// A person said yes; the budget is asked again.
    Approved,
    /// Accepted; waits for room in a window, or for a free place to run.
    Queued,
    /// An attempt has started. It stays here between its attempts.
    Running,
    /// Final: it ended `ok` or `verified`.
    Succeeded,
    /// Final: everything else that was approved, or needed no approval.
    Failed,
    /// Final: refused before approval, or denied.
    Rejected,
}

impl TaskState {
    /// All states, in the order of a task's life.
    pub const ALL: [TaskState; 8] = [
        TaskState::Received,
        TaskState::AwaitingApproval,
        TaskState::Approved,
        TaskState::Queued,
        TaskState::Running,
        TaskState::Succeeded,
        TaskState::Failed,
        TaskState::Rejected,
    ];

    /// The name in the ledger, in `--json` and in `policy eval`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            TaskState::Received => "received",
            TaskState::AwaitingApproval => "awaiting_approval",
            TaskState::Approved => "approved",
            TaskState::Queued => "queued",
            TaskState::Running => "running",
            TaskState::Succeeded => "succeeded",
            TaskState::Failed => "failed",
            TaskState::Rejected => "rejected",
        }
    }

    /// The state of that name.
    #[must_use]
    pub fn parse(text: &str) -> Option<TaskState> {
        TaskState::ALL.into_iter().find(|state| state.as_str() == text)
    }

    /// True for states that nothing leaves.
    #[must_use]
    pub const fn is_final(self) -> bool {
        match self {
            TaskState::Succeeded | TaskState::Failed | TaskState::Rejected => true,
            TaskState::Received
            | TaskState::AwaitingApproval
            | TaskState::Approved
            | TaskState::Queued
            | TaskState::Running => false,
        }
    }

    /// True where the table of policy section 5 has an arrow. No state leads to itself.
    #[must_use]
    pub const fn can_transition(self, to: TaskState) -> bool {
        match self {
            TaskState::Received => matches!(
                to,
                TaskState::AwaitingApproval | TaskState::Queued | TaskState::Rejected | TaskState::Failed
            ),
            TaskState::AwaitingApproval => {
                matches!(to, TaskState::Approved | TaskState::Rejected | TaskState::Failed)
            }
            TaskState::Approved => matches!(to, TaskState::Queued | TaskState::Failed),
            TaskState::Queued => matches!(to, TaskState::Running | TaskState::Failed),
            TaskState::Running => matches!(to, TaskState::Succeeded | TaskState::Failed),
            TaskState::Succeeded | TaskState::Failed | TaskState::Rejected => false,
        }
    }

    /// The state after a fact.
    ///
    /// # Errors
    /// A fact that this state does not allow; the state is then unchanged.
    pub const fn apply(self, event: TaskEvent) -> Result<TaskState, IllegalTransition> {
        let next = match event {
            TaskEvent::Parked => Some(TaskState::AwaitingApproval),
            TaskEvent::Admitted => match self {
                TaskState::Received | TaskState::Approved => Some(TaskState::Queued),
                TaskState::AwaitingApproval
                | TaskState::Queued
                | TaskState::Running
                | TaskState::Succeeded
                | TaskState::Failed
                | TaskState::Rejected => None,
            },
            TaskEvent::Refused => self.after_refusal(),
            TaskEvent::Approved => Some(TaskState::Approved),
            TaskEvent::Denied => match self {
                TaskState::AwaitingApproval => Some(TaskState::Rejected),
                TaskState::Received
                | TaskState::Approved
                | TaskState::Queued
                | TaskState::Running
                | TaskState::Succeeded
                | TaskState::Failed
                | TaskState::Rejected => None,
            },
            TaskEvent::Started => match self {
                // A further attempt of a task that is between attempts.
                TaskState::Running => return Ok(TaskState::Running),
                TaskState::Received
                | TaskState::AwaitingApproval
                | TaskState::Approved
                | TaskState::Queued
                | TaskState::Succeeded
                | TaskState::Failed
                | TaskState::Rejected => Some(TaskState::Running),
            },
            TaskEvent::Succeeded => Some(TaskState::Succeeded),
            TaskEvent::Failed => Some(TaskState::Failed),
        };
        match next {
            Some(to) if self.can_transition(to) => Ok(to),
            Some(_) | None => Err(IllegalTransition { from: self, event }),
        }
    }

    /// Where a refusal by policy leads: `rejected` before approval, `failed` after it or in the queue.
    const fn after_refusal(self) -> Option<TaskState> {
        match self {
            TaskState::Received | TaskState::AwaitingApproval => Some(TaskState::Rejected),
            TaskState::Approved | TaskState::Queued => Some(TaskState::Failed),
            TaskState::Running | TaskState::Succeeded | TaskState::Failed | TaskState::Rejected => None,
        }
    }
}

impl fmt::Display for TaskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Something that happened to a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TaskEvent {
    /// Something gates it: it waits for a person.
    Parked,
    /// Nothing gates it, or nothing any more: it stands in the queue, with or without a reservation.
    Admitted,
    /// Policy said no: on acceptance, at the second look, or later because its terms are gone.
    Refused,
    /// The decision that completes the approvals it needs.
    Approved,
    /// A person said no.
    Denied,
    /// An attempt started. Legal while running too: a further attempt, which changes nothing here.
    Started,
    /// Its last attempt ended `ok` or `verified`.
    Succeeded,
    /// It ended any other way: error, time-out, expiry, cancel, kill, unknown.
    Failed,
}

impl TaskEvent {
    /// All events.
    pub const ALL: [TaskEvent; 8] = [
        TaskEvent::Parked,
        TaskEvent::Admitted,
        TaskEvent::Refused,
        TaskEvent::Approved,
        TaskEvent::Denied,
        TaskEvent::Started,
        TaskEvent::Succeeded,
        TaskEvent::Failed,
    ];

    /// The name in audit entries.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            TaskEvent::Parked => "parked",
            TaskEvent::Admitted => "admitted",
            TaskEvent::Refused => "refused",
            TaskEvent::Approved => "approved",
            TaskEvent::Denied => "denied",
            TaskEvent::Started => "started",
            TaskEvent::Succeeded => "succeeded",
            TaskEvent::Failed => "failed",
        }
    }
}

impl fmt::Display for TaskEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An event that a task's state does not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a task that is {from} cannot be {event}")]
pub struct IllegalTransition {
    /// Where the task is.
    pub from: TaskState,
    /// What was said to have happened.
    pub event: TaskEvent,
}

/// Where an attempt is (architecture, "States").
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AttemptState {
    /// The right to run was given, under an epoch of its own.
    Leased,
    /// Its executor has said that the agent may be alive from now on.
    Started,
    /// Final: its outcome is settled.
    Ended,
    /// Final: the right was taken back; an executor that comes late finds that out and stops.
    Revoked,
}

impl AttemptState {
    /// All states, in the order of an attempt's life.
    pub const ALL: [AttemptState; 4] =
        [AttemptState::Leased, AttemptState::Started, AttemptState::Ended, AttemptState::Revoked];

    /// The name in the ledger.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            AttemptState::Leased => "leased",
            AttemptState::Started => "started",
            AttemptState::Ended => "ended",
            AttemptState::Revoked => "revoked",
        }
    }

    /// The state of that name.
    #[must_use]
    pub fn parse(text: &str) -> Option<AttemptState> {
        AttemptState::ALL.into_iter().find(|state| state.as_str() == text)
    }

    /// True for states that nothing leaves.
    #[must_use]
    pub const fn is_final(self) -> bool {
        match self {
            AttemptState::Ended | AttemptState::Revoked => true,
            AttemptState::Leased | AttemptState::Started => false,
        }
    }

    /// True where an event leads from this state to that one.
    #[must_use]
    pub const fn can_transition(self, to: AttemptState) -> bool {
        match self {
            // An outcome may be the first thing a watcher sees of an attempt.
            AttemptState::Leased => {
                matches!(to, AttemptState::Started | AttemptState::Ended | AttemptState::Revoked)
            }
            AttemptState::Started => matches!(to, AttemptState::Ended | AttemptState::Revoked),
            AttemptState::Ended | AttemptState::Revoked => false,
        }
    }

    /// The state after a fact about *this* attempt; a fact of another epoch never belongs here (see `lease`).
    ///
    /// # Errors
    /// A fact that this state does not allow; the state is then unchanged.
    pub const fn apply(self, event: AttemptEvent) -> Result<AttemptState, IllegalAttemptTransition> {
        let to = match event {
            AttemptEvent::Started => AttemptState::Started,
            AttemptEvent::Ended => AttemptState::Ended,
            AttemptEvent::Revoked => AttemptState::Revoked,
        };
        if self.can_transition(to) { Ok(to) } else { Err(IllegalAttemptTransition { from: self, event }) }
    }
}

impl fmt::Display for AttemptState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Something that happened to an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AttemptEvent {
    /// `started.json` was seen.
    Started,
    /// An outcome was settled, `not_started` and `unknown` included.
    Ended,
    /// `revoked` was synced into its directory.
    Revoked,
}

impl AttemptEvent {
    /// All events.
    pub const ALL: [AttemptEvent; 3] = [AttemptEvent::Started, AttemptEvent::Ended, AttemptEvent::Revoked];

    /// The name in audit entries.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            AttemptEvent::Started => "started",
            AttemptEvent::Ended => "ended",
            AttemptEvent::Revoked => "revoked",
        }
    }
}

impl fmt::Display for AttemptEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An event that an attempt's state does not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an attempt that is {from} cannot be {event}")]
pub struct IllegalAttemptTransition {
    /// Where the attempt is.
    pub from: AttemptState,
    /// What was said to have happened.
    pub event: AttemptEvent,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Policy section 5, written out.
    const ARROWS: [(TaskState, TaskState); 13] = [
        (TaskState::Received, TaskState::AwaitingApproval),
        (TaskState::Received, TaskState::Queued),
        (TaskState::Received, TaskState::Rejected),
        (TaskState::Received, TaskState::Failed),
        (TaskState::AwaitingApproval, TaskState::Approved),
        (TaskState::AwaitingApproval, TaskState::Rejected),
        (TaskState::AwaitingApproval, TaskState::Failed),
        (TaskState::Approved, TaskState::Queued),
        (TaskState::Approved, TaskState::Failed),
        (TaskState::Queued, TaskState::Running),
        (TaskState::Queued, TaskState::Failed),
        (TaskState::Running, TaskState::Succeeded),
        (TaskState::Running, TaskState::Failed),
    ];

    #[test]
    fn the_table_has_these_arrows_and_no_others() {
        for from in TaskState::ALL {
            for to in TaskState::ALL {
                assert_eq!(from.can_transition(to), ARROWS.contains(&(from, to)), "{from} -> {to}");
            }
        }
    }

    #[test]
    fn every_event_follows_an_arrow_or_is_illegal() {
        for from in TaskState::ALL {
            for event in TaskEvent::ALL {
                match from.apply(event) {
                    Ok(to) if to == from => {
                        assert_eq!((from, event), (TaskState::Running, TaskEvent::Started));
                    }
                    Ok(to) => assert!(from.can_transition(to), "{from} {event} {to}"),
                    Err(error) => assert_eq!(error, IllegalTransition { from, event }),
                }
            }
        }
    }

    #[test]
    fn every_arrow_is_reached_by_an_event() {
        for (from, to) in ARROWS {
            assert!(TaskEvent::ALL.iter().any(|event| from.apply(*event) == Ok(to)), "{from} -> {to}");
        }
    }

    #[test]
    fn a_task_refused_after_approval_has_failed_and_before_it_is_rejected() {
        let refused = |state: TaskState| state.apply(TaskEvent::Refused);
        assert_eq!(refused(TaskState::Received), Ok(TaskState::Rejected));
        assert_eq!(refused(TaskState::AwaitingApproval), Ok(TaskState::Rejected));
        assert_eq!(refused(TaskState::Approved), Ok(TaskState::Failed));
        assert_eq!(refused(TaskState::Queued), Ok(TaskState::Failed));
        assert!(refused(TaskState::Running).is_err());
    }

    #[test]
    fn nothing_leaves_a_final_state() {
        for state in TaskState::ALL.into_iter().filter(|state| state.is_final()) {
            for event in TaskEvent::ALL {
                assert!(state.apply(event).is_err(), "{state} {event}");
            }
        }
        for state in AttemptState::ALL.into_iter().filter(|state| state.is_final()) {
            for event in AttemptEvent::ALL {
                assert!(state.apply(event).is_err(), "{state} {event}");
            }
        }
    }

    #[test]
    fn every_state_that_is_not_final_can_fail_and_an_attempt_can_be_revoked() {
        for state in TaskState::ALL.into_iter().filter(|state| !state.is_final()) {
            assert_eq!(state.apply(TaskEvent::Failed), Ok(TaskState::Failed));
        }
        for state in AttemptState::ALL.into_iter().filter(|state| !state.is_final()) {
            assert_eq!(state.apply(AttemptEvent::Revoked), Ok(AttemptState::Revoked));
        }
    }

    #[test]
    fn an_attempt_starts_once() {
        assert_eq!(AttemptState::Leased.apply(AttemptEvent::Started), Ok(AttemptState::Started));
        assert!(AttemptState::Started.apply(AttemptEvent::Started).is_err());
    }

    #[test]
    fn states_survive_their_names() {
        for state in TaskState::ALL {
            assert_eq!(TaskState::parse(state.as_str()), Some(state));
        }
        for state in AttemptState::ALL {
            assert_eq!(AttemptState::parse(state.as_str()), Some(state));
        }
        assert_eq!((TaskState::parse("pending"), AttemptState::parse("running")), (None, None));
    }
}
