//! What ordinary caps do not see: a month that will not last, a spike, a rate too hot, a backend that keeps failing
//! (policy section 2). All exact: nothing is rounded before it is compared.

use crate::policy::dec::{Dec, ONE, Ratio, Wide};

mod decision;
mod review;

pub use decision::{
    BreakerState, SpendAction, SpendDecision, SpendReason, SpendSigns, circuit_breaker, spend_policy,
};
pub use review::{AnomalyMethod, DAYS, HOURS, ReviewLimits, SpendFacts, SpendReview, review};

/// Input that a safeguard does not work with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SafeguardError {
    /// A limit of 0 or less.
    #[error("the limit is not above 0")]
    LimitNotPositive,
    /// A warning ratio outside (0, 1].
    #[error("the warning ratio is not above 0 and at most 1")]
    WarningRatioOutOfRange,
    /// Spend so far below nothing.
    #[error("the current spend is negative")]
    NegativeCurrent,
    /// Fewer than two points.
    #[error("the series has fewer than two points")]
    SeriesTooShort,
    /// A multiplier of 1 or less.
    #[error("the multiplier is not above 1")]
    MultiplierNotAboveOne,
    /// A least baseline below nothing.
    #[error("min_baseline is negative")]
    NegativeMinBaseline,
    /// A point below nothing.
    #[error("a point of the series is negative")]
    NegativeSpend,
    /// A z threshold of 0 or less.
    #[error("z_threshold is not above 0")]
    ZThresholdNotPositive,
    /// A least deviation below nothing.
    #[error("min_mad is negative")]
    NegativeMinMad,
    /// A percentile outside (0, 1).
    #[error("the percentile is not between 0 and 1")]
    PercentileOutOfRange,
    /// No period has passed.
    #[error("no period has elapsed")]
    PeriodsElapsedNotPositive,
    /// There are no periods.
    #[error("there are no periods")]
    TotalPeriodsNotPositive,
    /// More periods have passed than there are.
    #[error("more periods have elapsed than there are")]
    PeriodsElapsedExceedsTotal,
    /// Failures below nothing.
    #[error("consecutive_failures is negative")]
    NegativeFailures,
    /// A threshold of 0 or less.
    #[error("failure_threshold is not above 0")]
    FailureThresholdNotPositive,
    /// A cooldown below nothing.
    #[error("the cooldown is negative")]
    NegativeCooldown,
}

impl SafeguardError {
    /// The code in `policy eval`.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            SafeguardError::LimitNotPositive => "limit_not_positive",
            SafeguardError::WarningRatioOutOfRange => "warning_ratio_out_of_range",
            SafeguardError::NegativeCurrent => "negative_current",
            SafeguardError::SeriesTooShort => "series_too_short",
            SafeguardError::MultiplierNotAboveOne => "multiplier_not_above_one",
            SafeguardError::NegativeMinBaseline => "negative_min_baseline",
            SafeguardError::NegativeSpend => "negative_spend",
            SafeguardError::ZThresholdNotPositive => "z_threshold_not_positive",
            SafeguardError::NegativeMinMad => "negative_min_mad",
            SafeguardError::PercentileOutOfRange => "percentile_out_of_range",
            SafeguardError::PeriodsElapsedNotPositive => "periods_elapsed_not_positive",
            SafeguardError::TotalPeriodsNotPositive => "total_periods_not_positive",
            SafeguardError::PeriodsElapsedExceedsTotal => "periods_elapsed_exceeds_total",
            SafeguardError::NegativeFailures => "negative_failures",
            SafeguardError::FailureThresholdNotPositive => "failure_threshold_not_positive",
            SafeguardError::NegativeCooldown => "negative_cooldown",
        }
    }
}

const ONE_UNITS: u128 = ONE.unsigned_abs();

/// How much of a budget is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BudgetCheck {
    /// Spend by limit.
    pub usage_ratio: Ratio,
    /// What is left, negative when overdrawn.
    pub remaining: Dec,
    /// The ratio has reached the warning.
    pub is_warning: bool,
    /// The spend has reached the limit.
    pub is_breached: bool,
}

/// Compares the spend of a window with its limit.
///
/// # Errors
/// A limit, ratio or spend out of range, asked in that order.
pub fn check_budget(current: Dec, limit: Dec, warning_ratio: Dec) -> Result<BudgetCheck, SafeguardError> {
    if !limit.is_positive() {
        return Err(SafeguardError::LimitNotPositive);
    }
    if !warning_ratio.is_positive() || warning_ratio > Dec::ONE {
        return Err(SafeguardError::WarningRatioOutOfRange);
    }
    if current.is_negative() {
        return Err(SafeguardError::NegativeCurrent);
    }
    let (spent, cap) = (current.magnitude(), limit.magnitude());
    Ok(BudgetCheck {
        usage_ratio: Ratio::of(spent, cap),
        remaining: Dec::from_units(limit.units().saturating_sub(current.units())),
        is_warning: Wide::product(spent, ONE_UNITS) >= Wide::product(warning_ratio.magnitude(), cap),
        is_breached: current >= limit,
    })
}

/// Whether the last point of a series stands out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpikeCheck {
    /// What is usual: the mean, median or percentile of the points before the last.
    pub baseline: Ratio,
    /// What the last point must exceed.
    pub threshold: Ratio,
    /// It does.
    pub is_spike: bool,
}

/// A spike is more than so many times the mean of the points before it (or of a least baseline).
///
/// # Errors
/// A series, multiplier, baseline or point out of range, asked in that order.
pub fn check_anomaly_spike(
    series: &[Dec],
    spike_multiplier: Dec,
    min_baseline: Dec,
) -> Result<SpikeCheck, SafeguardError> {
    let (last, history) = split(series)?;
    if spike_multiplier <= Dec::ONE {
        return Err(SafeguardError::MultiplierNotAboveOne);
    }
    if min_baseline.is_negative() {
        return Err(SafeguardError::NegativeMinBaseline);
    }
    refuse_negative_spend(series)?;
    let (sum, count) = (total(history), size(history));
    let floored = sum.max(min_baseline.magnitude().saturating_mul(count));
    // sum / count x multiplier, over the denominator count x 10^12 (of the sum) x 10^12 (of the multiplier).
    let threshold = Wide::product(floored, spike_multiplier.magnitude());
    let units = count.saturating_mul(ONE_UNITS);
    Ok(SpikeCheck {
        baseline: Ratio::of(sum, units),
        threshold: Ratio::new(threshold, units.saturating_mul(ONE_UNITS)),
        is_spike: Wide::product(last.magnitude(), units) > threshold,
    })
}

/// How [`check_anomaly_robust`] finds out what is usual.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RobustMethod {
    /// Median and median absolute deviation: one outlier in the history moves neither.
    Mad {
        /// How many deviations count as unusual.
        z_threshold: Dec,
        /// The least deviation assumed.
        min_mad: Dec,
    },
    /// A percentile of the history.
    Percentile {
        /// Between 0 and 1.
        percentile: Dec,
    },
}

/// A spike by a measure that earlier spikes do not move.
///
/// # Errors
/// A series, point or baseline out of range, then what the method asks.
pub fn check_anomaly_robust(
    series: &[Dec],
    method: RobustMethod,
    min_baseline: Dec,
) -> Result<SpikeCheck, SafeguardError> {
    let (last, history) = robust_input(series, min_baseline)?;
    match method {
        RobustMethod::Mad { z_threshold, min_mad } => {
            if !z_threshold.is_positive() {
                return Err(SafeguardError::ZThresholdNotPositive);
            }
            if min_mad.is_negative() {
                return Err(SafeguardError::NegativeMinMad);
            }
            Ok(by_mad(last, history, [z_threshold, min_mad, min_baseline].map(Dec::magnitude)))
        }
        RobustMethod::Percentile { percentile } => {
            if !percentile.is_positive() || percentile >= Dec::ONE {
                return Err(SafeguardError::PercentileOutOfRange);
            }
            Ok(by_percentile(last, history, percentile.magnitude(), min_baseline.magnitude()))
        }
    }
}

/// What [`check_anomaly_robust`] asks before it looks at the method: the last point, and those before it.
///
/// # Errors
/// A series, point or baseline out of range, asked in that order.
pub(crate) fn robust_input(series: &[Dec], min_baseline: Dec) -> Result<(Dec, &[Dec]), SafeguardError> {
    let parts = split(series)?;
    refuse_negative_spend(series)?;
    if min_baseline.is_negative() {
        return Err(SafeguardError::NegativeMinBaseline);
    }
    Ok(parts)
}

fn by_mad(last: Dec, history: &[Dec], [z_threshold, min_mad, min_baseline]: [u128; 3]) -> SpikeCheck {
    /// 0.6745 in ten-thousandths: what makes the deviation comparable to a standard deviation.
    const SCALE: u128 = 6_745;
    const TEN_THOUSAND: u128 = 10_000;
    let mut sorted: Vec<u128> = history.iter().map(|point| point.magnitude()).collect();
    let median2 = doubled_median(&mut sorted);
    let mut distances2: Vec<u128> =
        history.iter().map(|point| point.magnitude().saturating_mul(2).abs_diff(median2)).collect();
    // Quarters of units: a median of an even number of medians of an even number.
    let deviation4 = doubled_median(&mut distances2).max(min_mad.saturating_mul(4));
    let location4 = median2.saturating_mul(2).max(min_baseline.saturating_mul(4));
    // location + z x deviation / 0.6745, over the denominator 4 x 6745 x 10^12 (of the points) x 10^12 (of z).
    let units = SCALE.saturating_mul(4).saturating_mul(ONE_UNITS);
    let spread = Wide::product(z_threshold.saturating_mul(TEN_THOUSAND), deviation4);
    let threshold =
        Wide::product(location4, SCALE.saturating_mul(ONE_UNITS)).plus(spread).unwrap_or_default();
    SpikeCheck {
        baseline: Ratio::of(median2, ONE_UNITS.saturating_mul(2)),
        threshold: Ratio::new(threshold, units.saturating_mul(ONE_UNITS)),
        is_spike: Wide::product(last.magnitude(), units) > threshold,
    }
}

fn by_percentile(last: Dec, history: &[Dec], percentile: u128, min_baseline: u128) -> SpikeCheck {
    let mut sorted: Vec<u128> = history.iter().map(|point| point.magnitude()).collect();
    sorted.sort_unstable();
    let rank = percentile.saturating_mul(size(history).saturating_sub(1));
    let (below, weight) = (rank / ONE_UNITS, rank % ONE_UNITS);
    let below = usize::try_from(below).unwrap_or(usize::MAX);
    let at = |place: usize| sorted.get(place).copied().unwrap_or_default();
    let low = at(below).saturating_mul(ONE_UNITS.saturating_sub(weight));
    let baseline = low.saturating_add(at(below.saturating_add(1)).saturating_mul(weight));
    let threshold = baseline.max(min_baseline.saturating_mul(ONE_UNITS));
    let denominator = ONE_UNITS.saturating_mul(ONE_UNITS);
    SpikeCheck {
        baseline: Ratio::of(baseline, denominator),
        threshold: Ratio::of(threshold, denominator),
        is_spike: last.magnitude().saturating_mul(ONE_UNITS) > threshold,
    }
}

/// How fast money goes, against the mean of what went before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BurnRate {
    /// The mean of the points before the last.
    pub average: Ratio,
    /// The last point by that mean; infinite after nothing at all, 1 for nothing after nothing.
    pub ratio: Ratio,
    /// The ratio has reached the multiplier.
    pub is_hot: bool,
}

/// Compares the last point with the mean of the rest.
///
/// # Errors
/// A series, multiplier or point out of range, asked in that order.
pub fn check_burn_rate(series: &[Dec], hot_multiplier: Dec) -> Result<BurnRate, SafeguardError> {
    let (last, history) = split(series)?;
    if hot_multiplier <= Dec::ONE {
        return Err(SafeguardError::MultiplierNotAboveOne);
    }
    refuse_negative_spend(series)?;
    let (sum, count) = (total(history), size(history));
    let average = Ratio::of(sum, count.saturating_mul(ONE_UNITS));
    if sum == 0 {
        let is_hot = last.is_positive();
        return Ok(BurnRate { average, ratio: if is_hot { Ratio::INFINITE } else { Ratio::ONE }, is_hot });
    }
    let scaled = last.magnitude().saturating_mul(count);
    Ok(BurnRate {
        average,
        ratio: Ratio::of(scaled, sum),
        is_hot: Wide::product(scaled, ONE_UNITS) >= Wide::product(hot_multiplier.magnitude(), sum),
    })
}

/// Where the spend will stand at the end of the period if it goes on like this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forecast {
    /// The spend at the end.
    pub projected: Ratio,
    /// How far that is above the limit, never below nothing.
    pub overrun: Ratio,
    /// The projection reaches the limit.
    pub will_breach: bool,
}

/// Projects the spend of the periods that have passed on all of them.
///
/// # Errors
/// Spend, limit or periods out of range, asked in that order.
pub fn forecast(
    current: Dec,
    limit: Dec,
    periods_elapsed: i64,
    total_periods: i64,
) -> Result<Forecast, SafeguardError> {
    if current.is_negative() {
        return Err(SafeguardError::NegativeCurrent);
    }
    if !limit.is_positive() {
        return Err(SafeguardError::LimitNotPositive);
    }
    let positive = |periods: i64| u64::try_from(periods).ok().filter(|count| *count > 0).map(u128::from);
    let elapsed = positive(periods_elapsed).ok_or(SafeguardError::PeriodsElapsedNotPositive)?;
    let all = positive(total_periods).ok_or(SafeguardError::TotalPeriodsNotPositive)?;
    if elapsed > all {
        return Err(SafeguardError::PeriodsElapsedExceedsTotal);
    }
    let projected = Wide::product(current.magnitude(), all);
    let allowed = Wide::product(limit.magnitude(), elapsed);
    let denominator = elapsed.saturating_mul(ONE_UNITS);
    Ok(Forecast {
        projected: Ratio::new(projected, denominator),
        overrun: Ratio::new(projected.minus_or_zero(allowed), denominator),
        will_breach: projected >= allowed,
    })
}

/// The last point of a series, and those before it.
fn split(series: &[Dec]) -> Result<(Dec, &[Dec]), SafeguardError> {
    match series.split_last() {
        Some((last, history)) if !history.is_empty() => Ok((*last, history)),
        Some(_) | None => Err(SafeguardError::SeriesTooShort),
    }
}

fn refuse_negative_spend(series: &[Dec]) -> Result<(), SafeguardError> {
    if series.iter().any(|point| point.is_negative()) { Err(SafeguardError::NegativeSpend) } else { Ok(()) }
}

/// The sum in units. 2^47 points would be needed to pass 128 bits.
fn total(points: &[Dec]) -> u128 {
    points.iter().fold(0_u128, |sum, point| sum.saturating_add(point.magnitude()))
}

fn size(points: &[Dec]) -> u128 {
    u64::try_from(points.len()).unwrap_or(u64::MAX).into()
}

/// Twice the median, which is then whole; 0 for no values.
fn doubled_median(values: &mut [u128]) -> u128 {
    values.sort_unstable();
    let middle = values.len() / 2;
    let upper = values.get(middle).copied().unwrap_or_default();
    let lower = if values.len() % 2 == 1 {
        upper
    } else {
        middle.checked_sub(1).and_then(|below| values.get(below)).copied().unwrap_or_default()
    };
    upper.saturating_add(lower)
}
