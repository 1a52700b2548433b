//! Reserve, meter, reconcile: what may be set aside, and what becomes of it (policy section 1).

use rust_decimal::{Decimal, RoundingStrategy};

use crate::policy::dec::Dec;
use crate::policy::money::{Usd, WIRE_FRACTION_DIGITS_MAX};
use crate::policy::window::{Balance, Balances, Caps, Payer, Window};

/// Results of this many dollars or more are out of range.
const RESULT_LIMIT: Decimal = Decimal::from_parts(3_567_587_328, 232, 0, false, 0);

/// Whether an estimate fits into every window.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admits {
    /// It fits.
    WithinBudget,
    /// It does not; the first window that refuses, in the order of asking.
    OverCap {
        /// The window.
        window: Window,
        /// Its cap.
        limit: Usd,
        /// What is left of it, never below nothing.
        left: Usd,
    },
    /// An estimate below nothing is refused, whatever the windows hold.
    NegativeEstimate,
}

/// Input that no budget rule works with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BudgetError {
    /// A balance below nothing: in a ledger, corruption.
    #[error("a window's balance is negative")]
    NegativeState,
    /// A cap below nothing.
    #[error("a cap is negative")]
    NegativeCap,
    /// An estimate below nothing.
    #[error("the estimate is negative")]
    NegativeEstimate,
    /// An actual cost below nothing.
    #[error("the actual cost is negative")]
    NegativeActual,
    /// A result of 10^12 dollars or more.
    #[error("the amount is out of range")]
    OutOfRange,
}

impl BudgetError {
    /// The code in `policy eval`.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            BudgetError::NegativeState => "negative_state",
            BudgetError::NegativeCap => "negative_cap",
            BudgetError::NegativeEstimate => "negative_estimate",
            BudgetError::NegativeActual => "negative_actual",
            BudgetError::OutOfRange => "out_of_range",
        }
    }
}

/// Asks every window whether `reserved + spent + estimate` stays within its cap.
///
/// # Errors
/// A negative balance, then a negative cap. A negative estimate is no error but an answer.
pub fn admits(estimate: Usd, balances: &Balances, caps: &Caps) -> Result<Admits, BudgetError> {
    admits_for(Payer::Here, estimate, balances, caps)
}

/// The same for an attempt that this or another node pays for: only the windows that it is charged in are asked.
///
/// # Errors
/// As [`admits`].
pub fn admits_for(
    payer: Payer,
    estimate: Usd,
    balances: &Balances,
    caps: &Caps,
) -> Result<Admits, BudgetError> {
    if balances.iter().any(|(_, balance)| is_negative(balance)) {
        return Err(BudgetError::NegativeState);
    }
    if Window::ALL.into_iter().any(|window| caps.get(window).is_some_and(Usd::is_negative)) {
        return Err(BudgetError::NegativeCap);
    }
    if estimate.is_negative() {
        return Ok(Admits::NegativeEstimate);
    }
    for (window, balance) in balances.iter() {
        let Some(limit) = caps.for_payer(payer, window) else { continue };
        let committed = balance.committed().ok_or(BudgetError::OutOfRange)?;
        let after = committed.checked_add(estimate).ok_or(BudgetError::OutOfRange)?;
        if after > limit {
            let left = limit.checked_sub(committed).ok_or(BudgetError::OutOfRange)?.max(Usd::ZERO);
            return Ok(Admits::OverCap { window, limit, left });
        }
    }
    Ok(Admits::WithinBudget)
}

/// Adds an estimate to what is reserved. No cap is looked at here: [`admits`] does that, in the same transaction.
///
/// # Errors
/// A negative balance or estimate; a sum out of range.
pub fn reserve(balance: Balance, estimate: Usd) -> Result<Balance, BudgetError> {
    check(&balance, estimate)?;
    in_range(Balance { reserved: add(balance.reserved, estimate)?, spent: balance.spent })
}

/// Settles: the reservation goes (never below nothing), the actual cost comes, whole, also above the estimate.
///
/// # Errors
/// A negative balance, estimate or actual; a sum out of range.
pub fn reconcile(balance: Balance, estimate: Usd, actual: Usd) -> Result<Balance, BudgetError> {
    check(&balance, estimate)?;
    if actual.is_negative() {
        return Err(BudgetError::NegativeActual);
    }
    in_range(Balance { reserved: less(balance.reserved, estimate)?, spent: add(balance.spent, actual)? })
}

/// Gives a reservation back unspent (never below nothing).
///
/// # Errors
/// A negative balance or estimate.
pub fn release(balance: Balance, estimate: Usd) -> Result<Balance, BudgetError> {
    check(&balance, estimate)?;
    in_range(Balance { reserved: less(balance.reserved, estimate)?, spent: balance.spent })
}

fn is_negative(balance: &Balance) -> bool {
    balance.reserved.is_negative() || balance.spent.is_negative()
}

fn check(balance: &Balance, estimate: Usd) -> Result<(), BudgetError> {
    if is_negative(balance) {
        Err(BudgetError::NegativeState)
    } else if estimate.is_negative() {
        Err(BudgetError::NegativeEstimate)
    } else {
        Ok(())
    }
}

fn add(left: Usd, right: Usd) -> Result<Usd, BudgetError> {
    left.checked_add(right).ok_or(BudgetError::OutOfRange)
}

fn less(from: Usd, amount: Usd) -> Result<Usd, BudgetError> {
    Ok(from.checked_sub(amount).ok_or(BudgetError::OutOfRange)?.max(Usd::ZERO))
}

fn in_range(balance: Balance) -> Result<Balance, BudgetError> {
    if balance.reserved.decimal() < RESULT_LIMIT && balance.spent.decimal() < RESULT_LIMIT {
        Ok(balance)
    } else {
        Err(BudgetError::OutOfRange)
    }
}

/// What one second of a metered machine costs, in dollars.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MachineRates {
    /// For the machine with its GPU.
    pub gpu: Usd,
    /// For each virtual processor.
    pub vcpu: Usd,
    /// For each GiB of memory.
    pub gib: Usd,
    /// Seconds that are paid for after the work has ended.
    pub idle_tail_s: i64,
}

/// A metered machine and how much of it a task may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MachineUse {
    /// What it costs.
    pub rates: MachineRates,
    /// The longest it may run, in seconds.
    pub max_runtime_s: i64,
    /// Virtual processors.
    pub vcpus: i64,
    /// Memory in GiB.
    pub memory_gib: i64,
}

/// What an estimate is made from. What is absent does not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pricing {
    /// The most that the sender allows.
    pub task_max_cost_usd: Option<Usd>,
    /// The most that the profile allows.
    pub profile_max_cost_usd: Option<Usd>,
    /// The most that an approver allows.
    pub approved_max_cost_usd: Option<Usd>,
    /// The price of the responses that may arrive before metering can stop the agent.
    pub overshoot_usd: Option<Usd>,
    /// The metered machine it runs on.
    pub machine: Option<MachineUse>,
}

impl Pricing {
    /// The smallest of the ceilings that are given: everybody may lower it, nobody may raise it.
    #[must_use]
    pub fn ceiling(&self) -> Option<Usd> {
        [self.task_max_cost_usd, self.profile_max_cost_usd, self.approved_max_cost_usd]
            .into_iter()
            .flatten()
            .min()
    }
}

/// Why there is no estimate: then there is no run either.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EstimateError {
    /// A ceiling without an overshoot: the cap could not be kept.
    #[error("the profile has a ceiling but no overshoot_usd")]
    MissingOvershoot,
    /// A ceiling of nothing or less.
    #[error("the ceiling is not above 0")]
    CeilingTooLow,
    /// An overshoot below nothing.
    #[error("overshoot_usd is negative")]
    NegativeOvershoot,
    /// A rate below nothing.
    #[error("a rate is negative")]
    NegativeRate,
    /// An idle tail below nothing.
    #[error("idle_tail_s is negative")]
    NegativeIdleTail,
    /// A run time below nothing.
    #[error("max_runtime_s is negative")]
    NegativeRuntime,
    /// Processors below nothing.
    #[error("vcpus is negative")]
    NegativeVcpus,
    /// Memory below nothing.
    #[error("memory_gib is negative")]
    NegativeMemory,
    /// Neither a ceiling nor rates.
    #[error("there is neither a ceiling nor a rate to estimate from")]
    NoEstimate,
    /// An estimate of 10^12 dollars or more.
    #[error("the estimate is out of range")]
    OutOfRange,
}

impl EstimateError {
    /// The code in `policy eval`.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            EstimateError::MissingOvershoot => "missing_member",
            EstimateError::CeilingTooLow => "ceiling_too_low",
            EstimateError::NegativeOvershoot => "negative_overshoot",
            EstimateError::NegativeRate => "negative_rate",
            EstimateError::NegativeIdleTail => "negative_idle_tail",
            EstimateError::NegativeRuntime => "negative_runtime",
            EstimateError::NegativeVcpus => "negative_vcpus",
            EstimateError::NegativeMemory => "negative_memory",
            EstimateError::NoEstimate => "no_estimate",
            EstimateError::OutOfRange => "out_of_range",
        }
    }
}

/// The most that one attempt can cost: ceiling plus overshoot for tokens, time for a machine, or their sum, rounded up
/// to six places.
///
/// # Errors
/// The first of [`EstimateError`] that holds, in the order listed there.
pub fn estimate(pricing: &Pricing) -> Result<Usd, EstimateError> {
    let tokens = match pricing.ceiling() {
        Some(ceiling) => {
            let overshoot = pricing.overshoot_usd.ok_or(EstimateError::MissingOvershoot)?;
            if !ceiling.is_positive() {
                return Err(EstimateError::CeilingTooLow);
            }
            if overshoot.is_negative() {
                return Err(EstimateError::NegativeOvershoot);
            }
            Some(ceiling.checked_add(overshoot).ok_or(EstimateError::OutOfRange)?)
        }
        None => None,
    };
    let machine = pricing.machine.as_ref().map(machine_cost).transpose()?;
    let total = match (tokens, machine) {
        (Some(tokens), Some(machine)) => tokens.checked_add(machine?).ok_or(EstimateError::OutOfRange)?,
        (Some(only), None) => only,
        (None, Some(machine)) => machine?,
        (None, None) => return Err(EstimateError::NoEstimate),
    };
    round_up(total)
}

/// `(max_runtime_s + idle_tail_s) x (gpu + vcpu x vcpus + gib x memory_gib)`, exact; the inner error is a product that
/// is out of range, told apart because it comes after everything that is wrong with the input.
fn machine_cost(machine: &MachineUse) -> Result<Result<Usd, EstimateError>, EstimateError> {
    let rates = &machine.rates;
    if [rates.gpu, rates.vcpu, rates.gib].into_iter().any(Usd::is_negative) {
        return Err(EstimateError::NegativeRate);
    }
    let negative = [
        (rates.idle_tail_s, EstimateError::NegativeIdleTail),
        (machine.max_runtime_s, EstimateError::NegativeRuntime),
        (machine.vcpus, EstimateError::NegativeVcpus),
        (machine.memory_gib, EstimateError::NegativeMemory),
    ];
    if let Some((_, error)) = negative.into_iter().find(|(size, _)| *size < 0) {
        return Err(error);
    }
    let seconds = i128::from(machine.max_runtime_s).saturating_add(i128::from(rates.idle_tail_s));
    if seconds == 0 {
        // No time costs nothing, also where a second would be out of range.
        return Ok(Ok(Usd::ZERO));
    }
    Ok(product(machine, seconds).ok_or(EstimateError::OutOfRange))
}

fn product(machine: &MachineUse, seconds: i128) -> Option<Usd> {
    let units = |usd: Usd| Dec::from_usd(usd).map(Dec::units);
    let vcpus = units(machine.rates.vcpu)?.checked_mul(i128::from(machine.vcpus))?;
    let memory = units(machine.rates.gib)?.checked_mul(i128::from(machine.memory_gib))?;
    let second = units(machine.rates.gpu)?.checked_add(vcpus)?.checked_add(memory)?;
    Dec::from_units(second.checked_mul(seconds)?).to_usd()
}

fn round_up(total: Usd) -> Result<Usd, EstimateError> {
    let places = u32::try_from(WIRE_FRACTION_DIGITS_MAX).unwrap_or(0);
    let rounded = total.decimal().round_dp_with_strategy(places, RoundingStrategy::ToPositiveInfinity);
    if rounded < RESULT_LIMIT { Ok(Usd::from_decimal(rounded)) } else { Err(EstimateError::OutOfRange) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usd(text: &str) -> Usd {
        Usd::from_wire(text).unwrap()
    }

    #[test]
    fn the_result_limit_is_ten_to_the_twelfth() {
        assert_eq!(RESULT_LIMIT.to_string(), "1000000000000");
    }

    #[test]
    fn the_smallest_ceiling_of_those_given_counts() {
        let pricing = Pricing {
            task_max_cost_usd: Some(usd("0.5")),
            profile_max_cost_usd: Some(usd("2")),
            approved_max_cost_usd: Some(usd("0.25")),
            overshoot_usd: Some(usd("1")),
            machine: None,
        };
        assert_eq!(estimate(&pricing), Ok(usd("1.25")));
        assert_eq!(Pricing { approved_max_cost_usd: None, ..pricing }.ceiling(), Some(usd("0.5")));
        assert_eq!(Pricing::default().ceiling(), None);
    }

    #[test]
    fn no_time_on_an_unpayable_machine_costs_nothing() {
        let rates = MachineRates { gpu: usd("1"), vcpu: usd("999999999999"), gib: Usd::ZERO, idle_tail_s: 0 };
        let machine = MachineUse { rates, max_runtime_s: 0, vcpus: 9_007_199_254_740_991, memory_gib: 1 };
        let free = Pricing { machine: Some(machine), ..Pricing::default() };
        assert_eq!(estimate(&free), Ok(Usd::ZERO));
        let second = MachineUse { max_runtime_s: 1, ..machine };
        let dear = Pricing { machine: Some(second), ..Pricing::default() };
        assert_eq!(estimate(&dear), Err(EstimateError::OutOfRange));
    }

    #[test]
    fn what_is_left_of_an_overdrawn_window_is_nothing() {
        let balances =
            Balances { run: Balance { reserved: Usd::ZERO, spent: usd("7") }, ..Balances::default() };
        let caps = Caps { run: usd("5"), month: usd("100"), ..Caps::default() };
        let answer = admits(usd("1"), &balances, &caps);
        assert_eq!(answer, Ok(Admits::OverCap { window: Window::Run, limit: usd("5"), left: Usd::ZERO }));
    }
}
