//! `[safeguards]`: what stops spending that no cap stops yet.

use dispatch_core::policy::breaker::BreakerLimits;
use dispatch_core::policy::dec::{Dec, ONE};
use dispatch_core::policy::money::Usd;
use dispatch_core::policy::safeguards::{AnomalyMethod, ReviewLimits};
use dispatch_core::policy::velocity::VelocityLimits;
use dispatch_core::protocol::time::SECOND_MS;

use super::Effective;
use super::error::ConfigError;
use super::section::Section;
use super::values::positive_usd;

/// Most tasks or requests that a limit counts.
const COUNT_MAX: u64 = 1_000_000;
/// Longest rest of a breaker.
const REST_S_MAX: u64 = 7 * 86_400;

/// `[safeguards]`: limits on how fast and how unusually money goes, and on trying what keeps failing.
#[derive(Clone, Copy, Debug)]
pub struct Safeguards {
    /// What is nearly too much, or unusual.
    pub review: ReviewLimits,
    /// When a profile is left alone.
    pub breaker: BreakerLimits,
    /// What one sender may charge in an hour; `None` = a fifth of the month's cap.
    pub spend_per_hour: Option<Usd>,
    /// Tasks of one tree in an hour.
    pub tasks_per_hour: u32,
    /// Equal paid requests of one sender in an hour.
    pub identical_requests: u32,
}

impl Safeguards {
    /// What counts as a runaway under a month's cap.
    #[must_use]
    pub fn velocity(&self, month_cap: Usd) -> VelocityLimits {
        let defaults = VelocityLimits::of_month_cap(month_cap);
        VelocityLimits {
            spend_per_hour: self.spend_per_hour.or(defaults.spend_per_hour),
            tasks_per_hour_of_tree: self.tasks_per_hour,
            identical_requests: self.identical_requests,
        }
    }
}

pub(super) fn safeguards(
    mut section: Section<'_>,
    effective: &mut Vec<Effective>,
) -> Result<Safeguards, ConfigError> {
    let review = ReviewLimits {
        warning_ratio: section.text_or("warning_ratio", "0.9", ratio)?,
        method: section.text_or("anomaly", "mean", method)?,
        spike_multiplier: section.text_or("spike_multiplier", "1.5", multiplier)?,
        z_threshold: section.text_or("z_threshold", "3.5", positive)?,
        percentile: section.text_or("percentile", "0.95", percentile)?,
        hot_multiplier: section.text_or("hot_multiplier", "1.4", multiplier)?,
        baseline: section.text("baseline_usd", Usd::from_wire)?,
    };
    let milliseconds = |seconds: u32| i64::from(seconds).saturating_mul(SECOND_MS);
    let breaker = BreakerLimits {
        failure_threshold: section.number_or("failure_threshold", 0..=COUNT_MAX, 3)?,
        cooldown_ms: milliseconds(section.number_or("cooldown_s", 1..=REST_S_MAX, 300)?),
        wall_ms: milliseconds(section.number_or("quota_wait_s", 1..=REST_S_MAX, 3_600)?),
    };
    let safeguards = Safeguards {
        review,
        breaker,
        spend_per_hour: section.text("spend_per_hour_usd", positive_usd)?,
        tasks_per_hour: section.number_or("tasks_per_hour", 1..=COUNT_MAX, 60)?,
        identical_requests: section.number_or("identical_requests", 1..=COUNT_MAX, 10)?,
    };
    effective.append(&mut section.finish()?);
    Ok(safeguards)
}

fn method(text: &str) -> Result<AnomalyMethod, &'static str> {
    AnomalyMethod::parse(text).ok_or("one of mean, mad, percentile")
}

fn within(text: &str, rule: &'static str, fits: impl FnOnce(Dec) -> bool) -> Result<Dec, &'static str> {
    Dec::parse(text).ok().filter(|number| fits(*number)).ok_or(rule)
}

fn ratio(text: &str) -> Result<Dec, &'static str> {
    within(text, "a number above 0 and at most 1", |number| number.is_positive() && number <= Dec::ONE)
}

fn multiplier(text: &str) -> Result<Dec, &'static str> {
    within(text, "a number above 1", |number| number > Dec::ONE)
}

fn positive(text: &str) -> Result<Dec, &'static str> {
    within(text, "a number above 0", Dec::is_positive)
}

fn percentile(text: &str) -> Result<Dec, &'static str> {
    within(text, "a number between 0 and 1", |number| number.is_positive() && number < Dec::from_units(ONE))
}
