//! The life of a circuit breaker: one for each profile and backend (policy section 2).
//!
//! It opens when attempts fail in a row, or at once at a quota wall, and stays open until its time is over. Then it is half
//! open: one attempt alone tries. Its success closes the breaker, its failure opens it again.

use crate::policy::safeguards::circuit_breaker;
use crate::protocol::result::Status;
use crate::protocol::time::{DAY_MS, HOUR_MS, SECOND_MS, Timestamp};

/// The reason code of an attempt that ran into a limit of its account.
pub const QUOTA_WALL: &str = "quota_wall";

/// No wall is believed to stand longer than this: agents print times, and nothing vouches for them.
pub const WALL_MS_MAX: i64 = 31 * DAY_MS;

/// Endings that say nothing about the profile: the sender's limits, or somebody's will.
const NEUTRAL_CODES: [&str; 4] = ["max_turns", "aborted", "interrupted", "no_model_call"];

/// When a breaker opens, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerLimits {
    /// Failures in a row that open it; 0 = none ever do.
    pub failure_threshold: u32,
    /// How long it stays open after them, in milliseconds.
    pub cooldown_ms: i64,
    /// How long it stays open at a wall that does not say when it goes, in milliseconds.
    pub wall_ms: i64,
}

impl Default for BreakerLimits {
    /// 3 failures, 300 s, an hour.
    fn default() -> BreakerLimits {
        BreakerLimits { failure_threshold: 3, cooldown_ms: 300 * SECOND_MS, wall_ms: HOUR_MS }
    }
}

/// Why a breaker opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BreakerCause {
    /// Attempts failed in a row.
    Failures,
    /// A limit of the account is reached.
    QuotaWall,
}

impl BreakerCause {
    /// All causes.
    pub const ALL: [BreakerCause; 2] = [BreakerCause::Failures, BreakerCause::QuotaWall];

    /// The word in the ledger and in alerts.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            BreakerCause::Failures => "failures",
            BreakerCause::QuotaWall => QUOTA_WALL,
        }
    }

    /// The cause of that word.
    #[must_use]
    pub fn parse(text: &str) -> Option<BreakerCause> {
        BreakerCause::ALL.into_iter().find(|cause| cause.as_str() == text)
    }
}

/// Until when nothing starts, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Why.
    pub cause: BreakerCause,
    /// Half open from here on.
    pub until: Timestamp,
}

/// A breaker, as the ledger keeps it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Breaker {
    /// Failures since the last success.
    pub failures: u32,
    /// It opened, and nothing has succeeded since.
    pub opened: Option<Opened>,
}

/// What the end of an attempt says about its profile and backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerEvent {
    /// It did what it should.
    Succeeded,
    /// It did not.
    Failed,
    /// A limit of the account is reached.
    Walled {
        /// When it resets, where it says so.
        resets_at: Option<Timestamp>,
    },
}

impl BreakerEvent {
    /// What an ending says; `None` where it says nothing. Where nobody pays, nothing but a wall counts: a script that
    /// fails is its sender's affair.
    #[must_use]
    pub fn of(
        status: Status,
        code: Option<&str>,
        resets_at: Option<Timestamp>,
        who_pays: WhoPays,
    ) -> Option<BreakerEvent> {
        if code == Some(QUOTA_WALL) {
            return Some(BreakerEvent::Walled { resets_at });
        }
        match status {
            Status::Ok | Status::Verified | Status::Refuted | Status::OverBudget => {
                Some(BreakerEvent::Succeeded)
            }
            Status::Error | Status::Silent
                if who_pays == WhoPays::Somebody
                    && !code.is_some_and(|code| NEUTRAL_CODES.contains(&code)) =>
            {
                Some(BreakerEvent::Failed)
            }
            Status::Error
            | Status::Silent
            | Status::Timeout
            | Status::Killed
            | Status::Cancelled
            | Status::Rejected
            | Status::Denied
            | Status::Expired
            | Status::Unknown => None,
        }
    }
}

/// Whether an attempt uses up money or a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhoPays {
    /// It is metered, or counts against a subscription.
    Somebody,
    /// It is free.
    Nobody,
}

/// What a breaker lets through.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stand {
    /// Everything.
    Closed,
    /// One attempt at a time, which decides.
    HalfOpen,
    /// Nothing before its time is over.
    Open(Opened),
}

fn is_wall(opened: &Opened, now: Timestamp) -> bool {
    opened.cause == BreakerCause::QuotaWall && opened.until > now
}

impl Breaker {
    /// The breaker after an attempt ended.
    #[must_use]
    pub fn apply(self, event: BreakerEvent, now: Timestamp, limits: &BreakerLimits) -> Breaker {
        match event {
            // One that began before the wall says nothing about it: only its reset does.
            BreakerEvent::Succeeded => {
                Breaker { failures: 0, opened: self.opened.filter(|opened| is_wall(opened, now)) }
            }
            BreakerEvent::Failed => {
                let failures = self.failures.saturating_add(1);
                let opens = limits.failure_threshold > 0
                    && (failures >= limits.failure_threshold || self.opened.is_some());
                let until = now.plus_ms(limits.cooldown_ms.max(0));
                let opened = opens.then_some(Opened { cause: BreakerCause::Failures, until });
                Breaker { failures, opened: later(self.opened, opened) }
            }
            BreakerEvent::Walled { resets_at } => {
                let farthest = now.plus_ms(WALL_MS_MAX);
                // A time that is over says nothing about a wall that was hit just now.
                let until = resets_at
                    .filter(|at| *at > now)
                    .unwrap_or_else(|| now.plus_ms(limits.wall_ms.max(0)))
                    .min(farthest);
                let opened = Some(Opened { cause: BreakerCause::QuotaWall, until });
                Breaker { opened: later(self.opened, opened), ..self }
            }
        }
    }

    /// What it lets through now.
    pub fn stand(&self, now: Timestamp) -> Stand {
        let Some(opened) = self.opened else { return Stand::Closed };
        let left_ms = opened.until.since_ms(now).max(0);
        // The rule counts whole seconds; a part of one is not over yet.
        let left_s = left_ms.saturating_add(SECOND_MS.saturating_sub(1)).div_euclid(SECOND_MS);
        match circuit_breaker(0, 1, left_s) {
            Ok(state) if !state.is_open => Stand::HalfOpen,
            Ok(_) | Err(_) => Stand::Open(opened),
        }
    }
}

/// The one that stays open longer: a failure that comes late takes nothing away from a wall.
fn later(one: Option<Opened>, other: Option<Opened>) -> Option<Opened> {
    match (one, other) {
        (Some(one), Some(other)) if one.until > other.until => Some(one),
        (one, other) => other.or(one),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: BreakerLimits =
        BreakerLimits { failure_threshold: 3, cooldown_ms: 300 * SECOND_MS, wall_ms: HOUR_MS };

    fn at(s: i64) -> Timestamp {
        Timestamp::from_unix_ms(1_800_000_000_000 + s * SECOND_MS)
    }

    fn failed(times: u32) -> Breaker {
        (0..times).fold(Breaker::default(), |breaker, _| breaker.apply(BreakerEvent::Failed, at(0), &LIMITS))
    }

    #[test]
    fn failures_in_a_row_open_it_for_its_cooldown_and_one_success_closes_it() {
        assert_eq!(failed(2).stand(at(0)), Stand::Closed);
        let open = failed(3);
        let opened = Opened { cause: BreakerCause::Failures, until: at(300) };
        assert_eq!(open.stand(at(0)), Stand::Open(opened));
        assert_eq!(open.stand(at(299)), Stand::Open(opened));
        assert_eq!(open.stand(at(300)), Stand::HalfOpen);
        assert_eq!(open.apply(BreakerEvent::Succeeded, at(300), &LIMITS).stand(at(300)), Stand::Closed);
    }

    #[test]
    fn a_probe_that_fails_opens_it_again() {
        let again = failed(3).apply(BreakerEvent::Failed, at(301), &LIMITS);
        assert_eq!(
            again.stand(at(302)),
            Stand::Open(Opened { cause: BreakerCause::Failures, until: at(601) })
        );
    }

    #[test]
    fn quota_wall_opens_breaker_until_reset() {
        let walled = |resets_at| {
            Breaker::default().apply(BreakerEvent::Walled { resets_at }, at(0), &LIMITS).opened.unwrap().until
        };
        assert_eq!(walled(Some(at(86_400))), at(86_400));
        assert_eq!(walled(None), at(3_600), "a wall that does not say when it goes is tried in an hour");
        assert_eq!(walled(Some(at(-1))), at(3_600), "a reset that is over is none");
        assert_eq!(walled(Some(at(1_000_000_000))), at(0).plus_ms(WALL_MS_MAX));
    }

    #[test]
    fn a_failure_beside_a_wall_does_not_shorten_it() {
        let wall = failed(2).apply(BreakerEvent::Walled { resets_at: Some(at(10_000)) }, at(0), &LIMITS);
        let both = wall.apply(BreakerEvent::Failed, at(1), &LIMITS);
        assert_eq!(both.opened.map(|opened| opened.until), Some(at(10_000)));
    }

    #[test]
    fn only_what_the_profile_did_counts() {
        let of = |status, code, pays| BreakerEvent::of(status, code, None, pays);
        assert_eq!(of(Status::Error, None, WhoPays::Somebody), Some(BreakerEvent::Failed));
        assert_eq!(of(Status::Error, None, WhoPays::Nobody), None);
        assert_eq!(of(Status::Error, Some("max_turns"), WhoPays::Somebody), None);
        assert_eq!(of(Status::Cancelled, None, WhoPays::Somebody), None);
        assert_eq!(of(Status::Timeout, None, WhoPays::Somebody), None);
        assert_eq!(of(Status::Ok, None, WhoPays::Nobody), Some(BreakerEvent::Succeeded));
        let wall = Some(BreakerEvent::Walled { resets_at: None });
        assert_eq!(of(Status::Error, Some(QUOTA_WALL), WhoPays::Nobody), wall);
    }

    #[test]
    fn a_threshold_of_nothing_never_opens_it() {
        let limits = BreakerLimits { failure_threshold: 0, ..LIMITS };
        let breaker = (0..100)
            .fold(Breaker::default(), |breaker, _| breaker.apply(BreakerEvent::Failed, at(0), &limits));
        assert_eq!(breaker.stand(at(0)), Stand::Closed);
    }

    /// An attempt that began before the wall was hit and ends well after it.
    #[test]
    fn a_success_does_not_tear_down_a_wall_before_its_reset() {
        let (now, limits) = (Timestamp::from_unix_ms(1_000_000), BreakerLimits::default());
        let reset = now.plus_ms(4 * 3_600_000);
        let walled = Breaker::default().apply(BreakerEvent::Walled { resets_at: Some(reset) }, now, &limits);
        let after = walled.apply(BreakerEvent::Succeeded, now.plus_ms(2_000), &limits);
        assert!(matches!(after.stand(now.plus_ms(3_000)), Stand::Open(opened) if opened.until == reset));
        assert_eq!(after.apply(BreakerEvent::Succeeded, reset, &limits), Breaker::default());
    }
}
