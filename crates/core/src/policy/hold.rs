//! Why a queued task may not start now although nothing is wrong with itself (policy sections 2 and 6).

use crate::policy::breaker::{Breaker, Opened, Stand};
use crate::policy::velocity::VelocityTrip;
use crate::protocol::names::{NodeName, TaskId};
use crate::protocol::time::Timestamp;

/// What holds a task back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hold {
    /// Its profile's breaker is open.
    BreakerOpen {
        /// The profile.
        profile: String,
        /// Why, and until when.
        opened: Opened,
    },
    /// Its profile's breaker is half open, and another task tries.
    Probing {
        /// The profile.
        profile: String,
    },
    /// Paid work goes on one at a time, and another one runs.
    OneAtATime,
    /// Its tree was stopped for its rate.
    TreeHeld {
        /// The tree.
        root: TaskId,
        /// Whose tree.
        sender: NodeName,
    },
    /// Its sender was stopped for its speed.
    SenderHeld {
        /// The sender.
        sender: NodeName,
        /// What tripped.
        trips: Vec<VelocityTrip>,
        /// Since when.
        since: Timestamp,
    },
}

/// What runs already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Running {
    /// Attempts of the same profile on the same backend: those that one breaker stands before.
    pub behind_breaker: u64,
    /// Paid attempts of this node.
    pub paid: u64,
}

/// Whether the breaker of a profile and backend lets one more attempt start.
#[must_use]
pub fn by_breaker(breaker: &Breaker, profile: &str, running: Running, now: Timestamp) -> Option<Hold> {
    match breaker.stand(now) {
        Stand::Closed => None,
        Stand::HalfOpen if running.behind_breaker == 0 => None,
        Stand::HalfOpen => Some(Hold::Probing { profile: profile.to_owned() }),
        Stand::Open(opened) => Some(Hold::BreakerOpen { profile: profile.to_owned(), opened }),
    }
}

/// Whether a throttled node starts one more paid attempt.
#[must_use]
pub const fn by_throttle(running: Running) -> Option<Hold> {
    if running.paid == 0 { None } else { Some(Hold::OneAtATime) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::breaker::{BreakerEvent, BreakerLimits};

    #[test]
    fn a_half_open_breaker_lets_one_through_and_holds_the_next() {
        let now = Timestamp::from_unix_ms(1_800_000_000_000);
        let limits = BreakerLimits { failure_threshold: 1, ..BreakerLimits::default() };
        let breaker = Breaker::default().apply(BreakerEvent::Failed, now, &limits);
        let idle = Running::default();
        assert!(matches!(by_breaker(&breaker, "x", idle, now), Some(Hold::BreakerOpen { .. })));
        let later = now.plus_ms(limits.cooldown_ms);
        assert_eq!(by_breaker(&breaker, "x", idle, later), None);
        let one = Running { behind_breaker: 1, paid: 1 };
        assert_eq!(by_breaker(&breaker, "x", one, later), Some(Hold::Probing { profile: "x".to_owned() }));
    }

    #[test]
    fn a_throttled_node_runs_one_paid_task_at_a_time() {
        assert_eq!(by_throttle(Running { behind_breaker: 3, paid: 0 }), None);
        assert_eq!(by_throttle(Running { behind_breaker: 0, paid: 1 }), Some(Hold::OneAtATime));
    }
}
