//! What neither a lost ledger nor a wrong clock may forget (policy section 1).

use crate::policy::admission::PaidWork;
use crate::policy::money::Usd;
use crate::protocol::time::{HOUR_MS, MINUTE_MS, Timestamp};

/// How far the wall clock may run ahead of what is expected.
const AHEAD_MS: i64 = HOUR_MS;
/// How far it may fall behind.
const BEHIND_MS: i64 = 5 * MINUTE_MS;

/// Whether the wall clock can be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockTrust {
    /// It agrees with the ledger.
    Trusted,
    /// It jumped: no window is opened and nothing is purged until it agrees again or a person accepts it.
    Suspect,
}

/// Judges the wall clock by the ledger's latest time and what a clock that nobody sets counted since then.
#[must_use]
pub const fn clock_trust(wall: Timestamp, ledger_latest: Timestamp, counted_since_ms: i64) -> ClockTrust {
    // Nobody's clock runs backwards: a count below nothing is none.
    let counted = if counted_since_ms < 0 { 0 } else { counted_since_ms };
    let off = wall.since_ms(ledger_latest).saturating_sub(counted);
    if off > AHEAD_MS || off < -BEHIND_MS { ClockTrust::Suspect } else { ClockTrust::Trusted }
}

/// What a new ledger starts this month with.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Carried {
    /// To add to the month's `spent`, basis `reserved`; nothing where the ledger already has as much.
    pub add_to_month: Usd,
    /// Whether paid work may go on this month. The day stays closed either way.
    pub paid_work: PaidWork,
}

/// What is carried over when a ledger was lost or put back: the month's spend is raised to the highest that this node
/// already showed, or to what a person says. With neither, nothing paid starts until the month is over.
pub fn carry_over(ledger_spent: Usd, shown_committed: Option<Usd>, told_spent: Option<Usd>) -> Carried {
    let Some(known) = shown_committed.max(told_spent) else {
        return Carried { add_to_month: Usd::ZERO, paid_work: PaidWork::MonthClosed };
    };
    let missing = known.checked_sub(ledger_spent).unwrap_or(known).max(Usd::ZERO);
    Carried { add_to_month: missing, paid_work: PaidWork::DayClosed }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_suspect_an_hour_ahead_or_five_minutes_behind() {
        let latest = Timestamp::parse("2026-11-21T12:00:00.000Z").unwrap();
        let trust = |wall_ms, counted_ms| clock_trust(latest.plus_ms(wall_ms), latest, counted_ms);
        assert_eq!(trust(0, 0), ClockTrust::Trusted);
        assert_eq!(trust(24 * HOUR_MS, 24 * HOUR_MS), ClockTrust::Trusted);
        assert_eq!(trust(AHEAD_MS, 0), ClockTrust::Trusted);
        assert_eq!(trust(AHEAD_MS + 1, 0), ClockTrust::Suspect);
        assert_eq!(trust(-BEHIND_MS, 0), ClockTrust::Trusted);
        assert_eq!(trust(-BEHIND_MS - 1, 0), ClockTrust::Suspect);
        assert_eq!(trust(0, BEHIND_MS + 1), ClockTrust::Suspect);
        assert_eq!(trust(0, -1_000_000_000), ClockTrust::Trusted);
    }

    #[test]
    fn a_lost_ledger_forgets_no_spending() {
        let usd = |text| Usd::from_wire(text).unwrap();
        let carry = |shown, told| carry_over(usd("1"), shown, told);
        assert_eq!(carry(Some(usd("7")), None).add_to_month, usd("6"));
        assert_eq!(carry(Some(usd("7")), Some(usd("9"))).add_to_month, usd("8"));
        assert_eq!(carry(Some(usd("0.5")), None).add_to_month, Usd::ZERO);
        assert_eq!(carry(Some(usd("7")), None).paid_work, PaidWork::DayClosed);
        assert_eq!(carry(None, None).paid_work, PaidWork::MonthClosed);
    }
}
