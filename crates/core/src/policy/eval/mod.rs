//! The rules on JSON lines, as `dispatchctl policy eval` answers them (policy section 7).
//!
//! The shapes, names and codes are a contract of their own, `crates/core/tests/vectors/policy-eval.md`; every line of
//! `policy.jsonl` beside it is a test.

mod input;
mod json;
mod money;
mod other;
mod output;
mod safeguards;

use input::{Failure, Fields};
use output::Answer;

/// What a rule makes of its input: members of `ok`, or a failure.
type RuleResult = Result<(), Failure>;

/// Answers one request line, `{"rule": …, "input": {…}}`, with `{"ok": {…}}` or `{"error": …}`, without a line end.
///
/// Every line has an answer, an empty or malformed one too.
#[must_use]
pub fn answer(line: &str) -> String {
    let mut ok = Answer::new();
    match evaluate(line, &mut ok) {
        Ok(()) => ok.finish(),
        Err(failure) => output::failure(&failure),
    }
}

/// The answer to a line that is not even UTF-8.
#[must_use]
pub fn answer_bytes(line: &[u8]) -> String {
    std::str::from_utf8(line).map_or_else(|_| output::failure(&Failure::Code("malformed")), answer)
}

fn evaluate(line: &str, ok: &mut Answer) -> RuleResult {
    let request = json::parse(line).map_err(|json::Malformed| "malformed")?;
    let members = Fields::of(&request, &["rule", "input"])?;
    let (rule, input) = (members.required("rule")?, members.required("input")?);
    let rule = input::text(rule)?;
    // A wrong type of `input` is a fault of the line, and comes before a rule that does not exist.
    if !matches!(input, json::Json::Object(_)) {
        return Err("not_an_object".into());
    }
    match rule {
        "budget.admits" => money::admits(input, ok),
        "budget.estimate" => money::estimate(input, ok),
        "budget.reserve" => money::reserve(input, ok),
        "budget.reconcile" => money::reconcile(input, ok),
        "budget.release" => money::release(input, ok),
        "routing.select" => other::select(input, ok),
        "routing.vram_fits" => other::vram_fits(input, ok),
        "safeguards.check_budget" => safeguards::check_budget(input, ok),
        "safeguards.anomaly_spike" => safeguards::anomaly_spike(input, ok),
        "safeguards.anomaly_robust" => safeguards::anomaly_robust(input, ok),
        "safeguards.burn_rate" => safeguards::burn_rate(input, ok),
        "safeguards.forecast" => safeguards::forecast(input, ok),
        "safeguards.circuit_breaker" => safeguards::circuit_breaker(input, ok),
        "safeguards.spend_policy" => safeguards::spend_policy(input, ok),
        "lifecycle.can_transition" => other::can_transition(input, ok),
        "lease.is_stale" => other::is_stale(input, ok),
        "lease.should_give_up" => other::should_give_up(input, ok),
        "fleet.worker_health" => other::worker_health(input, ok),
        "fleet.summarize" => other::summarize(input, ok),
        "pace.real_time_factor" => other::real_time_factor(input, ok),
        "pace.is_overrunning" => other::is_overrunning(input, ok),
        _ => Err("unknown_rule".into()),
    }
}
