//! One decision about a node's spending, from the figures its ledger keeps.
//!
//! The anomaly is looked for among hours, where a runaway shows first; the burn rate among days, where a habit shows. What
//! stays below the baseline is usual whatever went before: the first dollar after a quiet week is no runaway.

use crate::policy::dec::{Dec, ONE};
use crate::policy::money::Usd;
use crate::policy::safeguards::{
    BudgetCheck, BurnRate, RobustMethod, SpendDecision, SpendSigns, SpikeCheck, check_anomaly_robust,
    check_anomaly_spike, check_budget, check_burn_rate, spend_policy,
};
use crate::policy::window::{Balances, Caps, Window};

/// Hours that are looked at, the present one among them.
pub const HOURS: usize = 25;
/// Days that are looked at, the present one among them.
pub const DAYS: usize = 15;

/// How an unusual hour is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnomalyMethod {
    /// More than so many times the mean of the hours before.
    Mean,
    /// Median and median absolute deviation.
    Mad,
    /// A percentile of the hours before.
    Percentile,
}

impl AnomalyMethod {
    /// All methods.
    pub const ALL: [AnomalyMethod; 3] = [AnomalyMethod::Mean, AnomalyMethod::Mad, AnomalyMethod::Percentile];

    /// The word in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            AnomalyMethod::Mean => "mean",
            AnomalyMethod::Mad => "mad",
            AnomalyMethod::Percentile => "percentile",
        }
    }

    /// The method of that word.
    #[must_use]
    pub fn parse(text: &str) -> Option<AnomalyMethod> {
        AnomalyMethod::ALL.into_iter().find(|method| method.as_str() == text)
    }
}

/// From where on spending is nearly too much, or unusual.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReviewLimits {
    /// Share of a cap that warns, above 0 and at most 1.
    pub warning_ratio: Dec,
    /// How an unusual hour is told.
    pub method: AnomalyMethod,
    /// Times the mean, above 1, for [`AnomalyMethod::Mean`].
    pub spike_multiplier: Dec,
    /// Deviations, above 0, for [`AnomalyMethod::Mad`].
    pub z_threshold: Dec,
    /// Between 0 and 1, for [`AnomalyMethod::Percentile`].
    pub percentile: Dec,
    /// Times the mean of the days before, above 1.
    pub hot_multiplier: Dec,
    /// What an hour or a day may cost without being unusual; `None` = a tenth of the month's cap.
    pub baseline: Option<Usd>,
}

impl Default for ReviewLimits {
    /// The policy's: 0.9, the mean with 1.5, 3.5 deviations, 0.95, and 1.4.
    fn default() -> ReviewLimits {
        let hundredths = |count: i128| Dec::from_units(ONE.saturating_div(100).saturating_mul(count));
        ReviewLimits {
            warning_ratio: hundredths(90),
            method: AnomalyMethod::Mean,
            spike_multiplier: hundredths(150),
            z_threshold: hundredths(350),
            percentile: hundredths(95),
            hot_multiplier: hundredths(140),
            baseline: None,
        }
    }
}

/// What the ledger knows of a node's spending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpendFacts<'a> {
    /// What the windows hold now.
    pub balances: &'a Balances,
    /// How much they may.
    pub caps: &'a Caps,
    /// What was charged in each hour, the present one last.
    pub hours: &'a [Usd],
    /// What was charged on each day, today last.
    pub days: &'a [Usd],
}

/// A decision with everything that led to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpendReview {
    /// What to do, and why.
    pub decision: SpendDecision,
    /// The window that is used up most of the month's and the day's, where one has a cap above 0.
    pub budget: Option<(Window, BudgetCheck)>,
    /// This hour against those before.
    pub anomaly: Option<SpikeCheck>,
    /// Today against the days before.
    pub burn_rate: Option<BurnRate>,
}

impl SpendReview {
    /// What an open breaker of one profile adds: for that profile alone.
    #[must_use]
    pub fn signs(&self) -> SpendSigns {
        SpendSigns {
            budget_warning: self.budget.is_some_and(|(_, check)| check.is_warning),
            budget_breached: self.budget.is_some_and(|(_, check)| check.is_breached),
            spend_spike: self.anomaly.is_some_and(|check| check.is_spike),
            burn_rate_hot: self.burn_rate.is_some_and(|rate| rate.is_hot),
            breaker_open: false,
        }
    }
}

/// Asks every safeguard of a node's spending. What cannot be asked (no cap, no history) says nothing: the caps themselves
/// hold by admission, whatever is said here.
#[must_use]
pub fn review(facts: &SpendFacts<'_>, limits: &ReviewLimits) -> SpendReview {
    let baseline = baseline(facts, limits);
    let mut review = SpendReview {
        decision: spend_policy(&SpendSigns::default()),
        budget: fullest(facts, limits),
        anomaly: series(facts.hours).and_then(|hours| anomaly(&hours, limits, baseline)),
        burn_rate: series(facts.days).and_then(|days| burn_rate(&days, limits, baseline)),
    };
    review.decision = spend_policy(&review.signs());
    review
}

fn baseline(facts: &SpendFacts<'_>, limits: &ReviewLimits) -> Dec {
    let tenth = || facts.caps.month.decimal().checked_div(10.into()).map(Usd::from_decimal);
    limits.baseline.or_else(tenth).and_then(Dec::from_usd).unwrap_or(Dec::ZERO)
}

/// The window with the least left in proportion; of two alike the month.
fn fullest(facts: &SpendFacts<'_>, limits: &ReviewLimits) -> Option<(Window, BudgetCheck)> {
    let mut fullest: Option<(Window, BudgetCheck)> = None;
    for window in [Window::Month, Window::Day] {
        let Some(cap) = facts.caps.get(window).filter(|cap| cap.is_positive()) else { continue };
        let Some((spent, cap)) = Dec::from_usd(facts.balances.get(window).spent).zip(Dec::from_usd(cap))
        else {
            continue;
        };
        let Ok(check) = check_budget(spent, cap, limits.warning_ratio) else { continue };
        if fullest.is_none_or(|(_, known)| is_fuller(&check, &known)) {
            fullest = Some((window, check));
        }
    }
    fullest
}

/// A breach beats a warning beats neither.
fn is_fuller(one: &BudgetCheck, other: &BudgetCheck) -> bool {
    (one.is_breached, one.is_warning) > (other.is_breached, other.is_warning)
}

fn series(points: &[Usd]) -> Option<Vec<Dec>> {
    points.iter().map(|point| Dec::from_usd(*point)).collect()
}

fn anomaly(hours: &[Dec], limits: &ReviewLimits, baseline: Dec) -> Option<SpikeCheck> {
    let checked = match limits.method {
        AnomalyMethod::Mean => check_anomaly_spike(hours, limits.spike_multiplier, baseline),
        AnomalyMethod::Mad => check_anomaly_robust(
            hours,
            RobustMethod::Mad { z_threshold: limits.z_threshold, min_mad: Dec::ZERO },
            baseline,
        ),
        AnomalyMethod::Percentile => {
            check_anomaly_robust(hours, RobustMethod::Percentile { percentile: limits.percentile }, baseline)
        }
    };
    checked.ok()
}

/// Asked only of a day above the baseline that has days of spending to be compared with.
fn burn_rate(days: &[Dec], limits: &ReviewLimits, baseline: Dec) -> Option<BurnRate> {
    let first = days.iter().position(|day| day.is_positive())?;
    let since = days.get(first..)?;
    let today = since.last().copied()?;
    if since.len() < 2 || today <= baseline {
        return None;
    }
    check_burn_rate(since, limits.hot_multiplier).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::safeguards::{SpendAction, SpendReason};
    use crate::policy::window::Balance;

    fn usd(text: &str) -> Usd {
        Usd::from_wire(text).unwrap()
    }

    fn caps(month: &str, day: Option<&str>) -> Caps {
        Caps { run: usd("1000"), month: usd(month), day: day.map(usd), sender: None, tree: None }
    }

    fn balances(month: &str, day: &str) -> Balances {
        let spent = |text| Balance { reserved: usd("7"), spent: usd(text) };
        Balances { month: spent(month), day: spent(day), ..Balances::default() }
    }

    fn asked(balances: &Balances, caps: &Caps, hours: &[&str], days: &[&str]) -> SpendReview {
        let points = |texts: &[&str]| texts.iter().map(|text| usd(text)).collect::<Vec<Usd>>();
        let (hours, days) = (points(hours), points(days));
        review(&SpendFacts { balances, caps, hours: &hours, days: &days }, &ReviewLimits::default())
    }

    fn reasons(review: &SpendReview) -> (SpendAction, &[SpendReason]) {
        (review.decision.action, &review.decision.reasons)
    }

    #[test]
    fn a_budget_warns_at_nine_tenths_and_blocks_when_it_is_spent() {
        let caps = caps("100", None);
        let at = |month| asked(&balances(month, "0"), &caps, &[], &[]);
        assert_eq!(reasons(&at("89.999999")), (SpendAction::Allow, &[][..]));
        assert_eq!(reasons(&at("90")), (SpendAction::Throttle, &[SpendReason::BudgetWarning][..]));
        assert_eq!(reasons(&at("100")), (SpendAction::Block, &[SpendReason::BudgetBreached][..]));
    }

    #[test]
    fn a_day_that_is_spent_blocks_in_a_month_that_is_not() {
        let review = asked(&balances("10", "10"), &caps("100", Some("10")), &[], &[]);
        assert_eq!(review.decision.action, SpendAction::Block);
        assert_eq!(review.budget.map(|(window, _)| window), Some(Window::Day));
    }

    #[test]
    fn where_paid_work_is_off_nothing_is_warned_of() {
        assert_eq!(asked(&balances("0", "0"), &caps("0", None), &["0", "0"], &[]).budget, None);
    }

    #[test]
    fn an_hour_is_unusual_above_the_baseline_only() {
        let (balances, caps) = (balances("20", "20"), caps("100", None));
        let quiet = ["0", "0", "0"];
        let with = |last| [&quiet[..], &[last]].concat();
        assert_eq!(asked(&balances, &caps, &with("15"), &[]).decision.action, SpendAction::Allow);
        let spike = asked(&balances, &caps, &with("15.000001"), &[]);
        assert_eq!(reasons(&spike), (SpendAction::Throttle, &[SpendReason::SpendSpike][..]));
    }

    #[test]
    fn a_day_is_hot_against_days_that_cost_something() {
        let (balances, caps) = (balances("30", "20"), caps("100", None));
        let of = |days: &[&str]| asked(&balances, &caps, &[], days).decision.reasons;
        assert_eq!(of(&["0", "0", "20"]), [], "there is nothing to compare the first day with");
        assert_eq!(of(&["0", "10", "14"]), [SpendReason::BurnRateHot]);
        assert_eq!(of(&["0", "10", "13.999999"]), []);
        assert_eq!(of(&["0", "1", "9"]), [], "a day below the baseline is never hot");
    }
}
