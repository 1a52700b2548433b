//! Metering an attempt, and what it is charged when it ends (policy section 1).

use crate::policy::dec::{Dec, ONE, Wide};
use crate::policy::money::Usd;
use crate::protocol::parts::CostBasis;
use crate::protocol::result::{Status, TaskResult};

/// What is known of an attempt's true cost, each figure where there is one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// The agent's final figure, or the sum of its usage once that is complete.
    pub told: Option<(Usd, CostBasis)>,
    /// What the machine took, where nothing else is paid by use and its client came to a good end: only that says that
    /// nothing goes on elsewhere.
    pub machine: Option<Usd>,
    /// What the meter had come to when the attempt ended before its agent had summed up.
    pub metered: Option<Usd>,
}

/// What a metered attempt is charged: what was told, else what its machine took, else the whole reservation. A killed or
/// silent agent is never booked at zero; what is known to be spent beyond the reservation is booked as it is.
#[must_use]
pub fn actual(reserved: Option<Usd>, known: &Known) -> (Option<Usd>, CostBasis) {
    if let Some((usd, basis)) = known.told {
        return (Some(usd), basis);
    }
    if known.machine.is_some() {
        return (known.machine, CostBasis::Derived);
    }
    if known.metered > reserved {
        return (known.metered, CostBasis::Derived);
    }
    (reserved, CostBasis::Reserved)
}

/// What a child that another node ran is charged here, `None` for nothing: only where it certainly never ran. An answer
/// names what the child itself cost; where it could send tasks, what it passed on to them may still be spent, so all that
/// was set aside counts. So it does without an answer.
#[must_use]
pub fn child_actual(answer: Option<&TaskResult>, reserved: Usd, fanout: u32) -> Option<(Usd, CostBasis)> {
    let whole = Some((reserved, CostBasis::Reserved));
    let Some(answer) = answer else { return whole };
    let never_ran = match answer.status {
        Status::Rejected | Status::Denied | Status::Expired => true,
        Status::Cancelled => answer.attempt == 0,
        Status::Ok
        | Status::Verified
        | Status::Refuted
        | Status::Error
        | Status::Timeout
        | Status::Silent
        | Status::OverBudget
        | Status::Killed
        | Status::Unknown => false,
    };
    match answer.cost.usd {
        None if never_ran => None,
        None => whole,
        Some(usd) if fanout > 0 && usd < reserved => whole,
        Some(usd) => Some((usd, answer.cost.basis)),
    }
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
        let reserved = Some(usd("2"));
        assert_eq!(actual(reserved, &Known::default()), (reserved, CostBasis::Reserved));
        let some = Known { metered: Some(usd("0.5")), ..Known::default() };
        assert_eq!(actual(reserved, &some), (reserved, CostBasis::Reserved));
        let more = Known { metered: Some(usd("2.000001")), ..Known::default() };
        assert_eq!(actual(reserved, &more), (Some(usd("2.000001")), CostBasis::Derived));
    }

    #[test]
    fn what_was_told_comes_before_the_machine_and_that_before_the_reservation() {
        let all = Known {
            told: Some((usd("2.5"), CostBasis::Reported)),
            machine: Some(usd("0.7")),
            metered: Some(usd("3")),
        };
        assert_eq!(actual(Some(usd("2")), &all), (Some(usd("2.5")), CostBasis::Reported));
        let machine = Known { told: None, ..all };
        assert_eq!(actual(Some(usd("2")), &machine), (Some(usd("0.7")), CostBasis::Derived));
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
