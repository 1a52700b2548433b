//! What admission is asked with: the task's wishes, resolved, and what the ledger says about money.

use std::fmt;

use crate::policy::budget::MachineUse;
use crate::policy::gate::{GateLimits, PeerGate};
use crate::policy::lineage::Lineage;
use crate::policy::money::Usd;
use crate::policy::window::{Balances, Caps, Payer, WindowKeys};
use crate::protocol::names::TaskId;

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
    /// The deepest a task may lie in its tree to run on this node.
    pub depth_max: i64,
    /// It came through this very node before.
    pub comes_back: bool,
    /// What its own bound, and those of the tasks above it that this node knows, leave for it; `None` is no bound.
    pub branch_left: Option<Usd>,
    /// It asks for a person (or this node asks in its place).
    pub require_ack: bool,
    /// It wants its profile's unrestricted mode.
    pub require_dangerous: bool,
    /// This node allows that to the sender (`peer.allow_dangerous`).
    pub dangerous_allowed: bool,
    /// This node lets the sender's tasks run where profile or machine is paid by use (`peer.allow_metered`).
    pub metered_allowed: bool,
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
    /// Whose money is spent there.
    pub payer: Payer,
}

impl BackendFacts {
    /// This node itself, which costs nothing.
    pub const LOCAL: BackendFacts =
        BackendFacts { is_local: true, billing: Billing::Free, machine: None, payer: Payer::Here };
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
