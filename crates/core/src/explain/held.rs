//! Sentences for what holds a queued task back.

use super::{Explanation, OPERATOR};
use crate::policy::breaker::BreakerCause;
use crate::policy::hold::Hold;
use crate::policy::velocity::VelocityTrip;

/// Why a queued task does not start now.
#[must_use]
pub fn held(hold: &Hold) -> Explanation {
    match hold {
        Hold::BreakerOpen { profile, opened } => {
            let (what, why) = match opened.cause {
                BreakerCause::QuotaWall => (
                    "waits for a quota to reset",
                    format!(
                        "the account behind the profile `{profile}` has reached a limit, which resets at {}",
                        opened.until
                    ),
                ),
                BreakerCause::Failures => (
                    "waits because its profile keeps failing",
                    format!(
                        "the profile `{profile}` failed as often in a row as `failure_threshold` allows and rests until {}",
                        opened.until
                    ),
                ),
            };
            let next = format!(
                "nothing: one task tries it at {}; sooner when {OPERATOR} mends it and runs \
                 `dispatchctl budget resume --profile {profile}`",
                opened.until
            );
            Explanation::new(what, why, next)
        }
        Hold::Probing { profile } => Explanation::new(
            "waits for another task to try its profile",
            format!("the profile `{profile}` was failing or at its limit, and one task alone tries it now"),
            format!(
                "nothing: it goes on by itself when that task succeeds; sooner when {OPERATOR} runs \
                 `dispatchctl budget resume --profile {profile}`"
            ),
        ),
        Hold::OneAtATime => Explanation::new(
            "waits for another paid task to end",
            "the receiving node's budget is nearly used up, or spent unusually fast, so paid tasks run one at a time",
            one_at_a_time(),
        ),
        Hold::TreeHeld { root, sender } => Explanation::new(
            "waits because its tree was stopped",
            format!(
                "the tree of task {} sent more tasks in an hour than `tasks_per_hour` allows, which is how a loop looks",
                root.short()
            ),
            format!(
                "it does not end by itself: {OPERATOR} looks at what it sent, then runs `dispatchctl budget resume {sender}`"
            ),
        ),
        Hold::SenderHeld { sender, trips, since } => {
            let whys: Vec<&str> = trips.iter().map(|trip| trip_clause(*trip)).collect();
            Explanation::new(
                "waits because its sender is held",
                format!("since {since} paid work of {sender} waits for a person: {}", whys.join(", ")),
                format!(
                    "it does not end by itself: {OPERATOR} looks at what it sent, then runs `dispatchctl budget resume {sender}`"
                ),
            )
        }
    }
}

/// The word for programs.
pub(super) const fn code(hold: &Hold) -> &'static str {
    match hold {
        Hold::BreakerOpen { opened, .. } => match opened.cause {
            BreakerCause::QuotaWall => "quota_wall",
            BreakerCause::Failures => "breaker_open",
        },
        Hold::Probing { .. } => "probing",
        Hold::OneAtATime => "one_at_a_time",
        Hold::TreeHeld { .. } => "tree_held",
        Hold::SenderHeld { .. } => "sender_held",
    }
}

/// The word for programs and what to do about a hold that is known by the line in the ledger alone.
pub(super) fn noted(what: &str) -> Option<(&'static str, String)> {
    let known = match what {
        "waits for a quota to reset" => (
            "quota_wall",
            format!(
                "nothing: one task tries it when the limit resets; sooner when {OPERATOR} runs \
                 `dispatchctl budget resume --profile PROFILE`"
            ),
        ),
        "waits because its profile keeps failing" => (
            "breaker_open",
            format!(
                "nothing: one task tries it after the rest; sooner when {OPERATOR} mends it and runs \
                 `dispatchctl budget resume --profile PROFILE`"
            ),
        ),
        "waits for another task to try its profile" => {
            let next = format!(
                "nothing: it goes on by itself when that task succeeds; sooner when {OPERATOR} runs \
                 `dispatchctl budget resume --profile PROFILE`"
            );
            ("probing", next)
        }
        "waits for another paid task to end" => ("one_at_a_time", one_at_a_time()),
        "waits because its tree was stopped" => (
            "tree_held",
            format!(
                "it does not end by itself: {OPERATOR} looks at what it sent, then runs `dispatchctl budget resume SENDER`"
            ),
        ),
        _ if what.starts_with("waits for a place on ") => (
            "backend_busy",
            format!(
                "nothing: it goes on when one of them ends, or sooner when {OPERATOR} raises `max_parallel`"
            ),
        ),
        _ => return None,
    };
    Some(known)
}

fn one_at_a_time() -> String {
    format!(
        "nothing: its turn comes when that one ends; {OPERATOR} sees the figures in `dispatchctl budget`, and raises a cap \
         under [budget] or a limit under [safeguards]"
    )
}

/// What a sender did that tripped, one clause.
#[must_use]
pub const fn trip_clause(trip: VelocityTrip) -> &'static str {
    match trip {
        VelocityTrip::SpendPerHour => "it spent more in an hour than `spend_per_hour_usd` allows",
        VelocityTrip::TasksPerHour => {
            "one of its trees sent more tasks in an hour than `tasks_per_hour` allows"
        }
        VelocityTrip::IdenticalRequests => {
            "it sent the same paid request more often in an hour than `identical_requests` allows"
        }
    }
}
