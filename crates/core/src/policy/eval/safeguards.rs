//! `safeguards.*`

use crate::policy::dec::{Dec, ONE};
use crate::policy::eval::RuleResult;
use crate::policy::eval::input::{Failure, Fields, dec, text};
use crate::policy::eval::json::Json;
use crate::policy::eval::output::Answer;
use crate::policy::safeguards::{self, RobustMethod, SafeguardError, SpendSigns, SpikeCheck};

impl From<SafeguardError> for Failure {
    fn from(error: SafeguardError) -> Failure {
        Failure::Code(error.code())
    }
}

/// So many hundredths.
const fn hundredths(count: i128) -> Dec {
    Dec::from_units(ONE / 100 * count)
}

fn series(fields: &Fields<'_, '_>) -> Result<Vec<Dec>, &'static str> {
    fields.list("series")?.iter().map(dec).collect()
}

pub(super) fn check_budget(input: &Json<'_>, ok: &mut Answer) -> RuleResult {
    let fields = Fields::of(input, &["current", "limit", "warning_ratio"])?;
    let (current, limit) = (fields.dec("current")?, fields.dec("limit")?);
    let check = safeguards::check_budget(current, limit, fields.dec_or("warning_ratio", hundredths(90))?)?;
    ok.ratio("usage_ratio", &check.usage_ratio);
    ok.dec("remaining", check.remaining);
    ok.bool("is_warning", check.is_warning);
    ok.bool("is_breached", check.is_breached);
    Ok(())
}

pub(super) fn anomaly_spike(input: &Json<'_>, ok: &mut Answer) -> RuleResult {
    let fields = Fields::of(input, &["series", "spike_multiplier", "min_baseline"])?;
    let series = series(&fields)?;
    let multiplier = fields.dec_or("spike_multiplier", hundredths(150))?;
    let min_baseline = fields.dec_or("min_baseline", Dec::ZERO)?;
    write_spike(&safeguards::check_anomaly_spike(&series, multiplier, min_baseline)?, ok);
    Ok(())
}

pub(super) fn anomaly_robust(input: &Json<'_>, ok: &mut Answer) -> RuleResult {
    const KNOWN: [&str; 6] = ["series", "method", "z_threshold", "min_mad", "percentile", "min_baseline"];
    let fields = Fields::of(input, &KNOWN)?;
    let series = series(&fields)?;
    let method = fields.given("method").map_or(Ok("mad"), text)?;
    let mad = RobustMethod::Mad {
        z_threshold: fields.dec_or("z_threshold", hundredths(350))?,
        min_mad: fields.dec_or("min_mad", Dec::ZERO)?,
    };
    let percentile = RobustMethod::Percentile { percentile: fields.dec_or("percentile", hundredths(95))? };
    let min_baseline = fields.dec_or("min_baseline", Dec::ZERO)?;
    let method = match method {
        "mad" => mad,
        "percentile" => percentile,
        _ => {
            // The series and the baseline are asked before the method.
            safeguards::robust_input(&series, min_baseline)?;
            return Err("unknown_method".into());
        }
    };
    write_spike(&safeguards::check_anomaly_robust(&series, method, min_baseline)?, ok);
    Ok(())
}

fn write_spike(check: &SpikeCheck, ok: &mut Answer) {
    ok.ratio("baseline", &check.baseline);
    ok.ratio("threshold", &check.threshold);
    ok.bool("is_spike", check.is_spike);
}

pub(super) fn burn_rate(input: &Json<'_>, ok: &mut Answer) -> RuleResult {
    let fields = Fields::of(input, &["series", "hot_multiplier"])?;
    let series = series(&fields)?;
    let burn = safeguards::check_burn_rate(&series, fields.dec_or("hot_multiplier", hundredths(140))?)?;
    ok.ratio("average", &burn.average);
    ok.ratio("ratio", &burn.ratio);
    ok.bool("is_hot", burn.is_hot);
    Ok(())
}

pub(super) fn forecast(input: &Json<'_>, ok: &mut Answer) -> RuleResult {
    let fields = Fields::of(input, &["current", "limit", "periods_elapsed", "total_periods"])?;
    let (current, limit) = (fields.dec("current")?, fields.dec("limit")?);
    let (elapsed, total) = (fields.int("periods_elapsed")?, fields.int("total_periods")?);
    let forecast = safeguards::forecast(current, limit, elapsed, total)?;
    ok.ratio("projected", &forecast.projected);
    ok.ratio("overrun", &forecast.overrun);
    ok.bool("will_breach", forecast.will_breach);
    Ok(())
}

pub(super) fn circuit_breaker(input: &Json<'_>, ok: &mut Answer) -> RuleResult {
    const KNOWN: [&str; 3] = ["consecutive_failures", "failure_threshold", "cooldown_steps_remaining"];
    let fields = Fields::of(input, &KNOWN)?;
    let failures = fields.int("consecutive_failures")?;
    let threshold = fields.int_or("failure_threshold", 3)?;
    let cooldown = fields.int_or("cooldown_steps_remaining", 0)?;
    let breaker = safeguards::circuit_breaker(failures, threshold, cooldown)?;
    ok.bool("is_open", breaker.is_open);
    ok.int("retry_after", breaker.retry_after);
    Ok(())
}

pub(super) fn spend_policy(input: &Json<'_>, ok: &mut Answer) -> RuleResult {
    let fields = Fields::of(input, &["budget", "anomaly", "burn_rate", "breakers"])?;
    let budget = Fields::of(fields.required("budget")?, &["is_warning", "is_breached"])?;
    let anomaly = Fields::of(fields.required("anomaly")?, &["is_spike"])?;
    let burn_rate_hot = match fields.given("burn_rate") {
        Some(value) => Fields::of(value, &["is_hot"])?.bool("is_hot")?,
        None => false,
    };
    let mut breaker_open = false;
    for breaker in fields.given("breakers").map_or(Ok([].as_slice()), |_| fields.list("breakers"))? {
        breaker_open |= Fields::of(breaker, &["is_open"])?.bool("is_open")?;
    }
    let decision = safeguards::spend_policy(&SpendSigns {
        budget_warning: budget.bool("is_warning")?,
        budget_breached: budget.bool("is_breached")?,
        spend_spike: anomaly.bool("is_spike")?,
        burn_rate_hot,
        breaker_open,
    });
    ok.word("action", decision.action.as_str());
    ok.word("severity", decision.action.severity());
    ok.words("reasons", decision.reasons.iter().map(|reason| reason.as_str()));
    Ok(())
}
