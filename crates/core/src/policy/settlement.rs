//! Metering an attempt, and what it is charged when it ends (policy section 1).

use crate::policy::dec::{Dec, ONE, Wide};
use crate::policy::money::Usd;
use crate::protocol::parts::CostBasis;

/// What is known of an attempt's true cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Metered {
    /// The agent's own final figure.
    pub reported: Option<Usd>,
    /// What its streamed usage comes to.
    pub derived: Option<Usd>,
}

/// What becomes of a reservation when its attempt ends.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closing {
    /// The attempt cost nothing to anybody and had no reservation.
    NothingReserved,
    /// No agent was ever spawned: everything is given back.
    Release {
        /// The reservation.
        reserved: Usd,
    },
    /// The reservation goes, and this much is spent.
    Settle {
        /// The reservation.
        reserved: Usd,
        /// What is booked, also above the reservation.
        actual: Usd,
        /// Where the figure comes from.
        basis: CostBasis,
        /// More was spent than was reserved: booked as it is, and alarmed.
        exceeds_reservation: bool,
    },
}

/// Whether the agent of an attempt was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spawned {
    /// It was, or it cannot be known that it was not.
    Yes,
    /// It certainly was not.
    No,
}

/// Closes an attempt's reservation: `reported`, else `derived`, else the whole reservation. A killed or silent agent is
/// never booked at zero, and a figure below nothing is no figure.
pub fn close(reserved: Option<Usd>, spawned: Spawned, metered: Metered) -> Closing {
    let Some(reserved) = reserved else { return Closing::NothingReserved };
    if spawned == Spawned::No {
        return Closing::Release { reserved };
    }
    let usable = |figure: Option<Usd>| figure.filter(|usd| !usd.is_negative());
    let (actual, basis) = match (usable(metered.reported), usable(metered.derived)) {
        (Some(reported), _) => (reported, CostBasis::Reported),
        (None, Some(derived)) => (derived, CostBasis::Derived),
        (None, None) => (reserved, CostBasis::Reserved),
    };
    Closing::Settle { reserved, actual, basis, exceeds_reservation: actual > reserved }
}

/// Where a running agent's metered spend stands against its ceiling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CeilingReach {
    /// Below the soft ratio.
    Within,
    /// At the soft ratio or above: an audit event and a notification.
    Soft,
    /// At the ceiling or above: the process tree is ended, status `over_budget`.
    Exhausted,
}

/// Four fifths: where a running agent's spend is first worth a word.
pub const SOFT_RATIO: Dec = Dec::from_units(ONE / 10 * 8);

/// Compares metered spend with a ceiling.
#[must_use]
pub fn ceiling_reach(spent: Usd, ceiling: Usd, soft_ratio: Dec) -> CeilingReach {
    if spent >= ceiling {
        return CeilingReach::Exhausted;
    }
    let (Some(spent), Some(ceiling)) = (Dec::from_usd(spent), Dec::from_usd(ceiling)) else {
        // Finer than 10^-12 dollars: no price table has that, so say it rather than miss it.
        return CeilingReach::Soft;
    };
    let reached = Wide::product(spent.magnitude(), ONE.unsigned_abs())
        >= Wide::product(soft_ratio.magnitude(), ceiling.magnitude());
    if reached && !spent.is_negative() { CeilingReach::Soft } else { CeilingReach::Within }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usd(text: &str) -> Usd {
        Usd::from_wire(text).unwrap()
    }

    #[test]
    fn killed_or_silent_agents_are_never_booked_at_zero() {
        let closing = close(Some(usd("2")), Spawned::Yes, Metered::default());
        let (reserved, actual) = (usd("2"), usd("2"));
        let basis = CostBasis::Reserved;
        assert_eq!(closing, Closing::Settle { reserved, actual, basis, exceeds_reservation: false });
    }

    #[test]
    fn the_agents_own_figure_comes_before_the_metered_one() {
        let metered = Metered { reported: Some(usd("0.5")), derived: Some(usd("0.7")) };
        let reserved = usd("2");
        let settle = |actual, basis, exceeds_reservation| Closing::Settle {
            reserved,
            actual,
            basis,
            exceeds_reservation,
        };
        let close = |metered| close(Some(reserved), Spawned::Yes, metered);
        assert_eq!(close(metered), settle(usd("0.5"), CostBasis::Reported, false));
        let derived = Metered { reported: None, ..metered };
        assert_eq!(close(derived), settle(usd("0.7"), CostBasis::Derived, false));
        let above = Metered { reported: Some(usd("2.000001")), derived: None };
        assert_eq!(close(above), settle(usd("2.000001"), CostBasis::Reported, true));
        let below_nothing = Usd::ZERO.checked_sub(usd("1"));
        let nonsense = Metered { reported: below_nothing, derived: None };
        assert_eq!(close(nonsense), settle(usd("2"), CostBasis::Reserved, false));
    }

    #[test]
    fn what_never_ran_is_released_and_what_was_not_reserved_is_left() {
        let released = close(Some(usd("2")), Spawned::No, Metered::default());
        assert_eq!(released, Closing::Release { reserved: usd("2") });
        assert_eq!(close(None, Spawned::Yes, Metered::default()), Closing::NothingReserved);
    }

    #[test]
    fn a_running_agent_is_warned_at_four_fifths_and_ended_at_its_ceiling() {
        let reach = |spent| ceiling_reach(usd(spent), usd("1"), SOFT_RATIO);
        assert_eq!(reach("0.799999"), CeilingReach::Within);
        assert_eq!(reach("0.8"), CeilingReach::Soft);
        assert_eq!(reach("0.999999"), CeilingReach::Soft);
        assert_eq!(reach("1"), CeilingReach::Exhausted);
        assert_eq!(ceiling_reach(Usd::ZERO, Usd::ZERO, SOFT_RATIO), CeilingReach::Exhausted);
    }
}
