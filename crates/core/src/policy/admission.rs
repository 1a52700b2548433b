//! The answer to "may this task run, and what is set aside for it": asked when a task passed verification, again when
//! it is approved, and whenever it needs a reservation it could not get before (policy sections 1, 3, 6).

use std::fmt;

use crate::policy::budget::{self, Admits, EstimateError, MachineUse, Pricing};
use crate::policy::gate::{self, GateFacts, GateLimits, GateReason, PeerGate};
use crate::policy::lineage::{self, Lineage};
use crate::policy::money::Usd;
use crate::policy::window::{Balances, Caps, WhenFull, Window, WindowKey, WindowKeys};
use crate::protocol::names::TaskId;
use crate::protocol::time::Timestamp;

/// How a profile or a backend is paid for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Billing {
    /// By use: every attempt is estimated, reserved and settled.
    Metered,
    /// At a flat price: turns and tokens are counted, dollars are not, and never end a run.
    Subscription,
    /// Not at all.
    Free,
}

impl Billing {
    /// The word in the configuration and in `order.json`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Billing::Metered => "metered",
            Billing::Subscription => "subscription",
            Billing::Free => "free",
        }
    }

    /// The billing of that word.
    #[must_use]
    pub fn parse(text: &str) -> Option<Billing> {
        [Billing::Metered, Billing::Subscription, Billing::Free]
            .into_iter()
            .find(|kind| kind.as_str() == text)
    }

    /// True for `free` and `subscription` and nothing else: such a task never asks the windows.
    #[must_use]
    pub const fn is_zero_cost(self) -> bool {
        match self {
            Billing::Metered => false,
            Billing::Subscription | Billing::Free => true,
        }
    }
}

impl fmt::Display for Billing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is known of a task when it is decided on: its own wishes, resolved against this node's configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proposal<'a> {
    /// The task.
    pub id: TaskId,
    /// Its place in its tree.
    pub lineage: Lineage,
    /// Its parent's, where this node knows the parent.
    pub parent: Option<&'a Lineage>,
    /// It asks for a person (or this node asks in its place).
    pub require_ack: bool,
    /// It wants its profile's unrestricted mode.
    pub require_dangerous: bool,
    /// This node allows that to the sender (`peer.allow_dangerous`).
    pub dangerous_allowed: bool,
    /// This node's gate for the sender.
    pub peer_gate: PeerGate,
    /// What runs unasked here.
    pub gate_limits: GateLimits,
    /// The backend it runs on, where one is eligible.
    pub backend: Option<BackendFacts>,
    /// How its profile is paid for.
    pub billing: Billing,
    /// The sender's ceiling.
    pub task_max_cost_usd: Option<Usd>,
    /// The profile's ceiling.
    pub profile_max_cost_usd: Option<Usd>,
    /// The lowest ceiling of those who approved it; `None` before approval.
    pub approved_max_cost_usd: Option<Usd>,
    /// The profile's overshoot.
    pub overshoot_usd: Option<Usd>,
}

/// What admission wants to know of the chosen backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackendFacts {
    /// It is of kind `local`.
    pub is_local: bool,
    /// How the machine itself is paid for.
    pub billing: Billing,
    /// The machine and how much of it is used, where it has rates.
    pub machine: Option<MachineUse>,
}

impl BackendFacts {
    /// This node itself, which costs nothing.
    pub const LOCAL: BackendFacts = BackendFacts { is_local: true, billing: Billing::Free, machine: None };
}

/// The sender's run, as the ledger has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RunStanding {
    /// It is open, or it is the run of the day.
    #[default]
    Open,
    /// A name this ledger has not seen yet from this sender, which opened so many new names today.
    New {
        /// New names of this sender on this UTC day, without this one.
        opened_today: u32,
    },
    /// Somebody closed it.
    Closed,
}

/// Whether anything paid may start at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PaidWork {
    /// It may, within the windows.
    #[default]
    Open,
    /// The wall clock disagrees with the ledger's: no window is opened.
    ClockSuspect,
    /// The ledger was replaced today; this day's window stays closed.
    DayClosed,
    /// The ledger was replaced and what this month spent is not known.
    MonthClosed,
    /// The spend policy says throttle: every paid task is gated when it is accepted.
    Throttled,
    /// The spend policy says block.
    Blocked,
    /// The sender repeated itself too often; a person has to resume it.
    SenderHeld,
}

/// What the ledger says about money, for one task's windows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BudgetView {
    /// The windows.
    pub keys: WindowKeys,
    /// What is in them.
    pub balances: Balances,
    /// How much they may hold.
    pub caps: Caps,
    /// The state of the run.
    pub run: RunStanding,
    /// New run names a sender may open in a day.
    pub runs_per_day: u32,
    /// Whether anything paid may start.
    pub paid_work: PaidWork,
}

/// New run names a sender may open in a day, unless configured.
pub const RUNS_PER_DAY: u32 = 20;

/// Why the question is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// The task has just been verified: everything is looked at.
    Acceptance,
    /// It was approved, waits in the queue without a reservation, or needs one for its next attempt: only the budget is
    /// looked at, because everything else was decided on acceptance.
    Budget,
}

/// What a task may cost: what its terms show and what is reserved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// The most its agent may spend, where a ceiling is given.
    pub ceiling_usd: Option<Usd>,
    /// What is set aside for an attempt; `None` for what costs nothing.
    pub estimate_usd: Option<Usd>,
}

/// Money to set aside, in the transaction that acts on the admission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// The windows it is made in, and closed in.
    pub windows: WindowKeys,
    /// How much.
    pub amount: Usd,
}

/// Policy's answer.
#[must_use]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Nothing stands in its way: it joins the queue with its reservation, `None` for what costs nothing.
    Queue {
        /// What it may cost.
        cost: Cost,
        /// What to set aside.
        reservation: Option<Reservation>,
    },
    /// A person has to say yes first; nothing is set aside yet.
    Park {
        /// What it may cost.
        cost: Cost,
        /// Why a person is asked; never empty.
        gates: Vec<GateReason>,
    },
    /// It joins the queue without a reservation, and nothing is leased until it has one.
    WaitForRoom {
        /// What it may cost.
        cost: Cost,
        /// What it waits for.
        wait: RoomWait,
    },
    /// No.
    Refuse(Refusal),
}

/// What a queued task without a reservation waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoomWait {
    /// Why there is no room.
    pub cause: WaitCause,
    /// The window that has none, where it is one.
    pub window: Option<WindowKey>,
    /// Its cap.
    pub limit: Option<Usd>,
    /// What is left of it.
    pub left: Option<Usd>,
    /// What the task needs.
    pub asked: Option<Usd>,
    /// When there will be room again by itself.
    pub resets_at: Option<Timestamp>,
}

/// Why there is no room for paid work now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WaitCause {
    /// The window is full.
    OverCap,
    /// The wall clock is not trusted.
    ClockSuspect,
    /// The day is closed because the ledger was replaced.
    DayClosed,
    /// The month is closed because the ledger was replaced.
    MonthClosed,
    /// The spend policy blocks.
    SpendBlocked,
    /// The sender is held.
    SenderHeld,
}

impl WaitCause {
    /// All causes.
    pub const ALL: [WaitCause; 6] = [
        WaitCause::OverCap,
        WaitCause::ClockSuspect,
        WaitCause::DayClosed,
        WaitCause::MonthClosed,
        WaitCause::SpendBlocked,
        WaitCause::SenderHeld,
    ];

    /// The name in the ledger and in `--json`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            WaitCause::OverCap => "over_cap",
            WaitCause::ClockSuspect => "clock_suspect",
            WaitCause::DayClosed => "day_closed",
            WaitCause::MonthClosed => "month_closed",
            WaitCause::SpendBlocked => "spend_blocked",
            WaitCause::SenderHeld => "sender_held",
        }
    }

    /// The cause of that name.
    #[must_use]
    pub fn parse(text: &str) -> Option<WaitCause> {
        WaitCause::ALL.into_iter().find(|cause| cause.as_str() == text)
    }
}

impl fmt::Display for WaitCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Policy's no: step 10 of acceptance (protocol section 4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Which rule says no.
    pub code: RefusalCode,
    /// The window, where it is one.
    pub window: Option<WindowKey>,
    /// Its limit.
    pub limit: Option<Usd>,
    /// What is left of it.
    pub left: Option<Usd>,
    /// What the task needs.
    pub asked: Option<Usd>,
    /// When it resets by itself.
    pub resets_at: Option<Timestamp>,
}

impl Refusal {
    /// A refusal that no window is about.
    #[must_use]
    pub const fn plain(code: RefusalCode) -> Refusal {
        Refusal { code, window: None, limit: None, left: None, asked: None, resets_at: None }
    }
}

/// Which rule of policy refuses a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RefusalCode {
    /// Its lineage contradicts itself, or claims more than its parent had.
    LineageExceeded,
    /// It wants the unrestricted mode, and this node does not allow that to its sender.
    DangerousNotAllowed,
    /// No backend of this node can run it.
    NoEligibleBackend,
    /// Its ceiling is 0 or less, and it is metered.
    CeilingTooLow,
    /// It is paid, and there is nothing above 0 to estimate its cost from.
    NoEstimate,
    /// Its run is closed.
    RunClosed,
    /// Its sender opened as many runs today as it may.
    TooManyRuns,
    /// It does not fit into its run's, sender's or tree's window.
    OverCap,
    /// The ledger's figures make no sense; nothing paid starts on them.
    BudgetInvalid,
}

impl RefusalCode {
    /// All codes.
    pub const ALL: [RefusalCode; 9] = [
        RefusalCode::LineageExceeded,
        RefusalCode::DangerousNotAllowed,
        RefusalCode::NoEligibleBackend,
        RefusalCode::CeilingTooLow,
        RefusalCode::NoEstimate,
        RefusalCode::RunClosed,
        RefusalCode::TooManyRuns,
        RefusalCode::OverCap,
        RefusalCode::BudgetInvalid,
    ];

    /// The code in results, audit entries and `--json`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            RefusalCode::LineageExceeded => "lineage_exceeded",
            RefusalCode::DangerousNotAllowed => "dangerous_not_allowed",
            RefusalCode::NoEligibleBackend => "no_eligible_backend",
            RefusalCode::CeilingTooLow => "ceiling_too_low",
            RefusalCode::NoEstimate => "no_estimate",
            RefusalCode::RunClosed => "run_closed",
            RefusalCode::TooManyRuns => "too_many_runs",
            RefusalCode::OverCap => "over_cap",
            RefusalCode::BudgetInvalid => "budget_invalid",
        }
    }

    /// The code of that name.
    #[must_use]
    pub fn parse(text: &str) -> Option<RefusalCode> {
        RefusalCode::ALL.into_iter().find(|code| code.as_str() == text)
    }
}

impl fmt::Display for RefusalCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

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
        Some(estimate) => ask_windows(estimate, proposal, budget)?,
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

/// Lineage, backend and rights: what is decided once.
fn acceptable(proposal: &Proposal<'_>) -> Result<BackendFacts, Box<Refusal>> {
    lineage::check(proposal.id, &proposal.lineage, proposal.parent)
        .map_err(|_| no(RefusalCode::LineageExceeded))?;
    let backend = proposal.backend.ok_or_else(|| no(RefusalCode::NoEligibleBackend))?;
    if proposal.require_dangerous && !proposal.dangerous_allowed {
        return Err(no(RefusalCode::DangerousNotAllowed));
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

fn ask_windows(estimate: Usd, proposal: &Proposal<'_>, budget: &BudgetView) -> Result<Room, Box<Refusal>> {
    if let Some(wait) = held(estimate, budget) {
        return Ok(Room::None(wait));
    }
    check_run(estimate, budget)?;
    if let Some(own) = proposal.lineage.budget_usd.filter(|own| estimate > *own) {
        // The sender's own bound for this branch of the tree; it lowers the tree's cap and never raises it.
        return Err(full(&budget.keys.tree, own, own.max(Usd::ZERO), estimate));
    }
    match budget::admits(estimate, &budget.balances, &budget.caps) {
        Ok(Admits::WithinBudget) => {
            Ok(Room::Enough(Reservation { windows: budget.keys.clone(), amount: estimate }))
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
        code: RefusalCode::OverCap,
        window: Some(key.clone()),
        limit: Some(limit),
        left: Some(left),
        asked: Some(asked),
        resets_at: key.resets_at(),
    })
}

/// Why nothing paid starts now, whatever the windows hold.
fn held(estimate: Usd, budget: &BudgetView) -> Option<RoomWait> {
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
        PaidWork::Blocked => wait(WaitCause::SpendBlocked, None),
        PaidWork::SenderHeld => wait(WaitCause::SenderHeld, None),
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
