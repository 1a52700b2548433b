//! What admission answers.

use std::fmt;

use crate::policy::gate::GateReason;
use crate::policy::lineage::LineageError;
use crate::policy::money::Usd;
use crate::policy::routing::WhyNot;
use crate::policy::window::{Payer, WindowKey, WindowKeys};
use crate::protocol::time::Timestamp;

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
    /// Which of the windows it is made in.
    pub payer: Payer,
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
    /// Why not each backend of the node, in configured order, where none is eligible.
    pub backends: Vec<(String, WhyNot)>,
    /// Whether it is a cap of this node that has no room, or a bound that came with the task.
    pub bound: Bound,
    /// What is wrong with its lineage, where it is that.
    pub lineage: Option<LineageError>,
}

impl Refusal {
    /// A refusal that no window is about.
    #[must_use]
    pub const fn plain(code: RefusalCode) -> Refusal {
        Refusal {
            code,
            window: None,
            limit: None,
            left: None,
            asked: None,
            resets_at: None,
            backends: Vec::new(),
            bound: Bound::Cap,
            lineage: None,
        }
    }
}

/// Who set the limit that a task does not fit into.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Bound {
    /// This node's configuration.
    #[default]
    Cap,
    /// Whoever sent the task, or a task above it: what it and all below it may cost.
    Branch,
}

/// Which rule of policy refuses a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RefusalCode {
    /// Its lineage contradicts itself, or claims more than its parent had.
    LineageExceeded,
    /// It wants the unrestricted mode, and this node does not allow that to its sender.
    DangerousNotAllowed,
    /// Its profile is paid by use, and this node does not allow that to its sender.
    MeteredNotAllowed,
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
    pub const ALL: [RefusalCode; 10] = [
        RefusalCode::LineageExceeded,
        RefusalCode::DangerousNotAllowed,
        RefusalCode::MeteredNotAllowed,
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
            RefusalCode::MeteredNotAllowed => "metered_not_allowed",
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
