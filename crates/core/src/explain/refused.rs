//! Why policy says no, and who can do something about it.

use super::{Explanation, OPERATOR, over_cap_help, resets, room, window_name};
use crate::policy::admission::{Bound, Refusal, RefusalCode};
use crate::policy::lineage::LineageError;
use crate::policy::money::Usd;
use crate::policy::routing::WhyNot;
use crate::protocol::result::Reason;

/// A refusal by policy.
#[must_use]
pub fn refusal(refusal: &Refusal) -> Explanation {
    match refusal.code {
        RefusalCode::OverCap | RefusalCode::RunClosed | RefusalCode::TooManyRuns => window_refusal(refusal),
        RefusalCode::LineageExceeded => lineage_refusal(refusal.lineage),
        RefusalCode::DangerousNotAllowed => Explanation::new(
            "refused for the rights it asks for",
            "the receiving node does not allow this sender or profile the unrestricted mode",
            format!("send it without --dangerous, or {OPERATOR} sets `allow_dangerous` for this peer"),
        ),
        RefusalCode::MeteredNotAllowed => Explanation::new(
            "refused because it would be paid by use",
            "the receiving node runs nothing of this sender that costs money by use, which is the rule for a version-2 peer",
            format!(
                "{OPERATOR} makes `default` a profile, on a backend, that is not metered, or sets `allow_metered` for this peer"
            ),
        ),
        RefusalCode::NoEligibleBackend => Explanation::new(
            "refused because nothing there can run it",
            no_backend(&refusal.backends),
            format!("ask for less, or {OPERATOR} adds a backend that has it"),
        ),
        RefusalCode::CeilingTooLow => Explanation::new(
            "refused for its ceiling",
            "its profile is paid for, and the ceiling of what it may cost is not above 0",
            format!(
                "send it again with a --max-cost above 0, or {OPERATOR} raises `max_cost_usd` of the profile where that is 0"
            ),
        ),
        RefusalCode::NoEstimate => Explanation::new(
            "refused because its cost cannot be estimated",
            "its profile or backend is paid for, and there is nothing above 0 to reserve for it",
            format!(
                "{OPERATOR} sets `max_cost_usd` and `overshoot_usd` in the profile, or rates in the backend"
            ),
        ),
        RefusalCode::BudgetInvalid => Explanation::new(
            "refused because the books do not add up",
            "the receiving node's ledger has a negative balance or cap, and nothing paid starts on that",
            format!("{OPERATOR} looks at `dispatchctl status` and `dispatchctl audit verify`"),
        ),
    }
}

/// A refusal by policy, as a result carries it.
#[must_use]
pub fn refusal_reason(of: &Refusal) -> Reason {
    refusal(of).reason(of.code.as_str())
}

/// Which rule of lineage a task breaks.
fn lineage_refusal(error: Option<LineageError>) -> Explanation {
    const RULE: &str = "a task sent by a task may only pass on less than what its sender had: depth, fan-out and budget shrink";
    let why = error.map_or_else(|| RULE.to_owned(), |error| format!("{error}; {RULE}"));
    let next = match error {
        Some(LineageError::TooDeep { depth_max }) => format!(
            "send it as a task of its own; {OPERATOR} raises `depth_max` (now {depth_max}) in [lineage], and it never resets by itself"
        ),
        Some(LineageError::ComesBack) => {
            "whoever runs the node that forwarded it names another `node` for that backend".to_owned()
        }
        Some(
            LineageError::Inconsistent
            | LineageError::OtherRoot
            | LineageError::Depth
            | LineageError::Fanout
            | LineageError::Budget,
        )
        | None => {
            "send it with `dispatch-send` from within the task that it comes from, or as a task of its own"
                .to_owned()
        }
    };
    Explanation::new("refused for where it comes from", why, next)
}

fn window_refusal(refusal: &Refusal) -> Explanation {
    if refusal.bound == Bound::Branch {
        return branch_refusal(refusal);
    }
    let window = refusal.window.as_ref();
    let named = window.map_or_else(|| "its budget window".to_owned(), window_name);
    match refusal.code {
        RefusalCode::RunClosed => Explanation::new(
            "refused for its run",
            format!("{named} was closed"),
            "send it again with another --run, or with none: a closed run does not open again",
        ),
        RefusalCode::TooManyRuns => Explanation::new(
            "refused for its run",
            format!(
                "its sender has none of today's `runs_per_day` left, and {named} would be one more new run"
            ),
            format!(
                "send it again with a --run that is open or with none{}, or {OPERATOR} raises `runs_per_day`",
                resets(refusal.resets_at, ", try again after ")
            ),
        ),
        RefusalCode::OverCap
        | RefusalCode::LineageExceeded
        | RefusalCode::DangerousNotAllowed
        | RefusalCode::MeteredNotAllowed
        | RefusalCode::NoEligibleBackend
        | RefusalCode::CeilingTooLow
        | RefusalCode::NoEstimate
        | RefusalCode::BudgetInvalid => Explanation::new(
            "refused by the budget",
            room(&named, refusal.limit, refusal.left, refusal.asked),
            over_cap_help(window, refusal.limit, refusal.left, refusal.resets_at),
        ),
    }
}

/// A bound that came with the task is full: no setting of this node lifts it.
fn branch_refusal(refusal: &Refusal) -> Explanation {
    let usd = |amount: Option<Usd>| amount.unwrap_or(Usd::ZERO);
    Explanation::new(
        "refused by the bound that came with it",
        format!(
            "of the {} USD that it and all it sends may cost, {} are left, and it needs {}",
            usd(refusal.limit),
            usd(refusal.left),
            usd(refusal.asked)
        ),
        "send it again with a lower --max-cost; it never resets: who sent the first task grants more with --budget, or, where \
         it was forwarded, who runs the node that did so gives its profile there a higher ceiling, or makes it metered",
    )
}

/// Every backend with what keeps it from running a task.
fn no_backend(backends: &[(String, WhyNot)]) -> String {
    let each: Vec<String> =
        backends.iter().map(|(name, reason)| format!("`{name}`: {}", why_not(*reason))).collect();
    if each.is_empty() {
        "no backend of the receiving node offers what the task requires".to_owned()
    } else {
        format!("no backend of the receiving node can ({})", each.join("; "))
    }
}

/// Why a backend cannot run a task, one clause.
#[must_use]
pub const fn why_not(reason: WhyNot) -> &'static str {
    match reason {
        WhyNot::SdkNotAllowed => "it is a hosted API, which the task or the node does not allow",
        WhyNot::NoGpu => "it has no GPU",
        WhyNot::VramTooSmall => "its GPU has too little memory",
        WhyNot::ImageNotOffered => "it does not run that image",
        WhyNot::ToolNotOffered => "it does not run that tool",
        WhyNot::CameThrough => "the task came through that node, or through as many as it may",
    }
}
