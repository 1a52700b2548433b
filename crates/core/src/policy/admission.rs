//! The answer to "may this task run, and what is set aside for it": asked when a task passed verification, again when
//! it is approved, and whenever it needs a reservation it could not get before (policy sections 1, 3, 6).

use crate::policy::budget::{self, Admits, EstimateError, Pricing};
use crate::policy::gate::{self, GateFacts, GateReason};
use crate::policy::lineage::{self, LineageError};
use crate::policy::money::Usd;
use crate::policy::window::{Payer, WhenFull, Window, WindowKey};

mod answer;
mod facts;
#[cfg(test)]
mod tests;

pub use answer::{Admission, Bound, Cost, Refusal, RefusalCode, Reservation, RoomWait, WaitCause};
pub use facts::{BackendFacts, Billing, BudgetView, Look, PaidWork, Proposal, RUNS_PER_DAY, RunStanding};

/// Decides on a task.
///
/// On acceptance the order is lineage, backend, rights, price, windows, gate: a task that a run, sender or tree has no
/// room for is refused before a person is asked, one that only the day or month has no room for is parked first and
/// asked about again when it is approved.
pub fn admit(proposal: &Proposal<'_>, budget: &BudgetView, look: Look) -> Admission {
    match decide(proposal, budget, look) {
        Ok(admission) => admission,
        Err(refusal) => Admission::Refuse(*refusal),
    }
}

fn decide(proposal: &Proposal<'_>, budget: &BudgetView, look: Look) -> Result<Admission, Box<Refusal>> {
    let backend = match look {
        Look::Acceptance => acceptable(proposal)?,
        Look::Budget => proposal.backend.ok_or_else(|| no(RefusalCode::NoEligibleBackend))?,
    };
    let cost = price(proposal, &backend)?;
    let room = match cost.estimate_usd {
        Some(estimate) => ask_windows(estimate, proposal, backend.payer, budget)?,
        None => Room::NotAsked,
    };
    let gates = match look {
        Look::Acceptance => gates(proposal, &backend, cost, budget),
        Look::Budget => Vec::new(),
    };
    if !gates.is_empty() {
        return Ok(Admission::Park { cost, gates });
    }
    Ok(match room {
        Room::NotAsked => Admission::Queue { cost, reservation: None },
        Room::Enough(reservation) => Admission::Queue { cost, reservation: Some(reservation) },
        Room::None(wait) => Admission::WaitForRoom { cost, wait },
    })
}

/// A refusal that no window is about.
fn no(code: RefusalCode) -> Box<Refusal> {
    Box::new(Refusal::plain(code))
}

fn misplaced(error: LineageError) -> Box<Refusal> {
    Box::new(Refusal { lineage: Some(error), ..Refusal::plain(RefusalCode::LineageExceeded) })
}

/// Lineage, backend and rights: what is decided once.
fn acceptable(proposal: &Proposal<'_>) -> Result<BackendFacts, Box<Refusal>> {
    lineage::check(proposal.id, &proposal.lineage, proposal.parent).map_err(misplaced)?;
    if proposal.comes_back {
        return Err(misplaced(LineageError::ComesBack));
    }
    if proposal.lineage.depth > proposal.depth_max {
        return Err(misplaced(LineageError::TooDeep { depth_max: proposal.depth_max }));
    }
    let backend = proposal.backend.ok_or_else(|| no(RefusalCode::NoEligibleBackend))?;
    if proposal.require_dangerous && !proposal.dangerous_allowed {
        return Err(no(RefusalCode::DangerousNotAllowed));
    }
    // A machine that is paid by use costs whatever the profile on it does.
    let is_metered = [proposal.billing, backend.billing].contains(&Billing::Metered);
    if is_metered && !proposal.metered_allowed {
        return Err(no(RefusalCode::MeteredNotAllowed));
    }
    Ok(backend)
}

/// What the task may cost. A metered task without a price above 0 is refused, never free.
fn price(proposal: &Proposal<'_>, backend: &BackendFacts) -> Result<Cost, Box<Refusal>> {
    let mut pricing = Pricing {
        task_max_cost_usd: proposal.task_max_cost_usd,
        profile_max_cost_usd: proposal.profile_max_cost_usd,
        approved_max_cost_usd: proposal.approved_max_cost_usd,
        overshoot_usd: proposal.overshoot_usd,
        machine: backend.machine,
    };
    let ceiling_usd = pricing.ceiling();
    if proposal.billing.is_zero_cost() && backend.billing.is_zero_cost() {
        return Ok(Cost { ceiling_usd, estimate_usd: None });
    }
    if proposal.billing.is_zero_cost() {
        // Only the machine is paid by use; a ceiling on tokens says nothing about it.
        pricing = Pricing { machine: pricing.machine, ..Pricing::default() };
    }
    if backend.billing.is_zero_cost() {
        pricing.machine = None;
    }
    if (backend.billing == Billing::Metered && pricing.machine.is_none())
        || (proposal.billing == Billing::Metered && ceiling_usd.is_none())
    {
        // Half a price is none: what is metered and not estimated could cost anything.
        return Err(no(RefusalCode::NoEstimate));
    }
    let code = |error: EstimateError| match error {
        EstimateError::CeilingTooLow => RefusalCode::CeilingTooLow,
        EstimateError::MissingOvershoot
        | EstimateError::NegativeOvershoot
        | EstimateError::NegativeRate
        | EstimateError::NegativeIdleTail
        | EstimateError::NegativeRuntime
        | EstimateError::NegativeVcpus
        | EstimateError::NegativeMemory
        | EstimateError::NoEstimate
        | EstimateError::OutOfRange => RefusalCode::NoEstimate,
    };
    let estimate = budget::estimate(&pricing).map_err(|error| no(code(error)))?;
    if estimate.is_positive() {
        Ok(Cost { ceiling_usd, estimate_usd: Some(estimate) })
    } else {
        Err(no(RefusalCode::NoEstimate))
    }
}

/// What the windows say to an estimate.
enum Room {
    /// Nothing is paid, nothing is asked.
    NotAsked,
    Enough(Reservation),
    None(RoomWait),
}

fn ask_windows(
    estimate: Usd,
    proposal: &Proposal<'_>,
    payer: Payer,
    budget: &BudgetView,
) -> Result<Room, Box<Refusal>> {
    if let Some(wait) = held(estimate, budget) {
        return Ok(Room::None(wait));
    }
    check_run(estimate, budget)?;
    let own = [proposal.lineage.budget_usd, proposal.branch_left].into_iter().flatten().min();
    if let Some(own) = own.filter(|own| estimate > *own) {
        // The sender's own bound for this branch of the tree; it lowers the tree's cap and never raises it.
        let limit = proposal.lineage.budget_usd.unwrap_or(own);
        let full = full(&budget.keys.tree, limit, own.max(Usd::ZERO), estimate);
        return Err(Box::new(Refusal { bound: Bound::Branch, ..*full }));
    }
    match budget::admits_for(payer, estimate, &budget.balances, &budget.caps) {
        Ok(Admits::WithinBudget) => {
            Ok(Room::Enough(Reservation { windows: budget.keys.clone(), amount: estimate, payer }))
        }
        Ok(Admits::OverCap { window, limit, left }) => {
            let key = budget.keys.get(window);
            match window.when_full() {
                WhenFull::Refuse => Err(full(key, limit, left, estimate)),
                WhenFull::Wait => Ok(Room::None(RoomWait {
                    cause: WaitCause::OverCap,
                    window: Some(key.clone()),
                    limit: Some(limit),
                    left: Some(left),
                    asked: Some(estimate),
                    resets_at: key.resets_at(),
                })),
            }
        }
        Ok(Admits::NegativeEstimate) => Err(no(RefusalCode::NoEstimate)),
        Err(_) => Err(no(RefusalCode::BudgetInvalid)),
    }
}

fn full(key: &WindowKey, limit: Usd, left: Usd, asked: Usd) -> Box<Refusal> {
    Box::new(Refusal {
        window: Some(key.clone()),
        limit: Some(limit),
        left: Some(left),
        asked: Some(asked),
        resets_at: key.resets_at(),
        ..Refusal::plain(RefusalCode::OverCap)
    })
}

/// Why nothing paid starts now, whatever the windows hold: what has its money set aside does not start either.
#[must_use]
pub fn held(estimate: Usd, budget: &BudgetView) -> Option<RoomWait> {
    let wait = |cause, window: Option<Window>| {
        let key = window.map(|window| budget.keys.get(window).clone());
        let resets_at = key.as_ref().and_then(WindowKey::resets_at);
        Some(RoomWait { cause, window: key, limit: None, left: None, asked: Some(estimate), resets_at })
    };
    match budget.paid_work {
        PaidWork::Open | PaidWork::Throttled => None,
        PaidWork::ClockSuspect => wait(WaitCause::ClockSuspect, None),
        PaidWork::DayClosed => wait(WaitCause::DayClosed, Some(Window::Day)),
        PaidWork::MonthClosed => wait(WaitCause::MonthClosed, Some(Window::Month)),
        PaidWork::Blocked => Some(blocked(estimate, budget)),
        PaidWork::SenderHeld => wait(WaitCause::SenderHeld, None),
    }
}

/// The window that is used up: of the day and the month the one that frees later.
fn blocked(estimate: Usd, budget: &BudgetView) -> RoomWait {
    let spent_up = |window: &Window| {
        let cap = budget.caps.get(*window);
        cap.is_some_and(|cap| budget.balances.get(*window).spent >= cap)
    };
    let window = [Window::Month, Window::Day].into_iter().find(spent_up);
    let key = window.map(|window| budget.keys.get(window).clone());
    let limit = window.and_then(|window| budget.caps.get(window));
    RoomWait {
        cause: WaitCause::SpendBlocked,
        resets_at: key.as_ref().and_then(WindowKey::resets_at),
        window: key,
        limit,
        left: limit.map(|_| Usd::ZERO),
        asked: Some(estimate),
    }
}

fn check_run(estimate: Usd, budget: &BudgetView) -> Result<(), Box<Refusal>> {
    let refuse = |code, resets_at| Refusal {
        resets_at,
        window: Some(budget.keys.run.clone()),
        asked: Some(estimate),
        ..Refusal::plain(code)
    };
    match budget.run {
        RunStanding::Open => Ok(()),
        RunStanding::New { opened_today } if opened_today < budget.runs_per_day => Ok(()),
        RunStanding::New { .. } => {
            Err(Box::new(refuse(RefusalCode::TooManyRuns, budget.keys.day.resets_at())))
        }
        RunStanding::Closed => Err(Box::new(refuse(RefusalCode::RunClosed, None))),
    }
}

fn gates(
    proposal: &Proposal<'_>,
    backend: &BackendFacts,
    cost: Cost,
    budget: &BudgetView,
) -> Vec<GateReason> {
    let facts = GateFacts {
        require_ack: proposal.require_ack,
        require_dangerous: proposal.require_dangerous,
        backend_is_local: backend.is_local,
        ceiling_usd: cost.ceiling_usd.or(cost.estimate_usd),
        peer_gate: proposal.peer_gate,
        throttled: cost.estimate_usd.is_some() && budget.paid_work == PaidWork::Throttled,
        depth: proposal.lineage.depth,
    };
    gate::reasons(&facts, &proposal.gate_limits)
}
