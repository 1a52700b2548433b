//! Breakers, and what all safeguards say together.

use std::fmt;

use crate::policy::safeguards::SafeguardError;

/// Whether a profile or backend that keeps failing is left alone for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerState {
    /// Nothing is started on it.
    pub is_open: bool,
    /// Steps until it may be tried again.
    pub retry_after: i64,
}

/// Open while there were too many failures in a row, or while it cools down.
///
/// # Errors
/// A count out of range, asked in the order of the parameters.
pub const fn circuit_breaker(
    consecutive_failures: i64,
    failure_threshold: i64,
    cooldown_steps_remaining: i64,
) -> Result<BreakerState, SafeguardError> {
    if consecutive_failures < 0 {
        return Err(SafeguardError::NegativeFailures);
    }
    if failure_threshold <= 0 {
        return Err(SafeguardError::FailureThresholdNotPositive);
    }
    if cooldown_steps_remaining < 0 {
        return Err(SafeguardError::NegativeCooldown);
    }
    Ok(BreakerState {
        is_open: consecutive_failures >= failure_threshold || cooldown_steps_remaining > 0,
        retry_after: cooldown_steps_remaining,
    })
}

/// What the safeguards say together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SpendAction {
    /// Nothing paid starts.
    Block,
    /// One at a time, and every paid task is gated.
    Throttle,
    /// All is well.
    Allow,
}

impl SpendAction {
    /// All actions.
    pub const ALL: [SpendAction; 3] = [SpendAction::Block, SpendAction::Throttle, SpendAction::Allow];

    /// The action of that word.
    #[must_use]
    pub fn parse(text: &str) -> Option<SpendAction> {
        SpendAction::ALL.into_iter().find(|action| action.as_str() == text)
    }

    /// The word in alerts and `policy eval`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            SpendAction::Block => "block",
            SpendAction::Throttle => "throttle",
            SpendAction::Allow => "allow",
        }
    }

    /// How loud an alert about it is.
    #[must_use]
    pub const fn severity(self) -> &'static str {
        match self {
            SpendAction::Block => "critical",
            SpendAction::Throttle => "warning",
            SpendAction::Allow => "info",
        }
    }
}

impl fmt::Display for SpendAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What led to a spend action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SpendReason {
    /// The budget is used up.
    BudgetBreached,
    /// A breaker is open.
    BreakerOpen,
    /// The budget is nearly used up.
    BudgetWarning,
    /// The last bucket stands out.
    SpendSpike,
    /// Money goes faster than usual.
    BurnRateHot,
}

impl SpendReason {
    /// The word in alerts and `policy eval`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            SpendReason::BudgetBreached => "budget_breached",
            SpendReason::BreakerOpen => "breaker_open",
            SpendReason::BudgetWarning => "budget_warning",
            SpendReason::SpendSpike => "spend_spike",
            SpendReason::BurnRateHot => "burn_rate_hot",
        }
    }
}

impl fmt::Display for SpendReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What [`spend_policy`] looks at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpendSigns {
    /// From [`check_budget`](super::check_budget).
    pub budget_warning: bool,
    /// From [`check_budget`](super::check_budget).
    pub budget_breached: bool,
    /// From either of the spike checks.
    pub spend_spike: bool,
    /// From [`check_burn_rate`](super::check_burn_rate).
    pub burn_rate_hot: bool,
    /// Any breaker is open.
    pub breaker_open: bool,
}

/// A spend action and its reasons, in the order of [`SpendReason`]; none for allow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpendDecision {
    /// What to do.
    pub action: SpendAction,
    /// Why.
    pub reasons: Vec<SpendReason>,
}

/// Block beats throttle beats allow.
#[must_use]
pub fn spend_policy(signs: &SpendSigns) -> SpendDecision {
    let block = [
        (signs.budget_breached, SpendReason::BudgetBreached),
        (signs.breaker_open, SpendReason::BreakerOpen),
    ];
    let throttle = [
        (signs.budget_warning, SpendReason::BudgetWarning),
        (signs.spend_spike, SpendReason::SpendSpike),
        (signs.burn_rate_hot, SpendReason::BurnRateHot),
    ];
    let held = |signs: &[(bool, SpendReason)]| -> Vec<SpendReason> {
        signs.iter().filter(|(holds, _)| *holds).map(|(_, reason)| *reason).collect()
    };
    for (action, reasons) in [(SpendAction::Block, held(&block)), (SpendAction::Throttle, held(&throttle))] {
        if !reasons.is_empty() {
            return SpendDecision { action, reasons };
        }
    }
    SpendDecision { action: SpendAction::Allow, reasons: Vec::new() }
}
