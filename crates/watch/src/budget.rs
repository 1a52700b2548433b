//! What the rules of money are asked with: the ledger's balances and this node's caps.

use dispatch_core::policy::admission::{
    Admission, BackendFacts, Billing, BudgetView, Look, PaidWork, Proposal, Refusal, RefusalCode,
    RunStanding, admit,
};
use dispatch_core::policy::budget::{self, Pricing};
use dispatch_core::policy::gate::{GateLimits, PeerGate};
use dispatch_core::policy::lineage::Lineage;
use dispatch_core::policy::money::Usd;
use dispatch_core::policy::window::{RunName, WindowKeys};
use dispatch_core::protocol::names::{NodeName, TaskId};
use dispatch_core::protocol::task::Task;
use dispatch_core::protocol::time::{DAY_MS, Timestamp};
use dispatch_ledger::{LedgerError, QueuedTask, TaskRow, Tx};
use dispatch_node::config::{Peer, Profile};

use crate::guards;
use crate::home::Home;
use crate::lineage;
use crate::recipes;
use crate::routing::{self, Route, Routed};

/// Whose windows are asked.
struct Asked<'a> {
    sender: &'a NodeName,
    run: Option<&'a str>,
    root: TaskId,
}

fn view(tx: &Tx<'_>, home: &Home, asked: &Asked<'_>) -> Result<BudgetView, LedgerError> {
    let now = tx.now();
    // A run's name was checked when its task was read; one that is none belongs to the run of the day.
    let run = asked.run.and_then(|name| RunName::new(name).ok());
    let keys = WindowKeys::of(asked.sender, run.as_ref(), asked.root, now);
    let standing = match tx.window(&keys.run)? {
        Some(window) if window.closed_at.is_some() => RunStanding::Closed,
        Some(_) => RunStanding::Open,
        None if run.is_none() => RunStanding::Open,
        None => RunStanding::New { opened_today: tx.runs_opened(asked.sender, start_of_day(now))? },
    };
    let paid_work = paid_work(tx, home, asked.sender, &keys)?;
    Ok(BudgetView {
        balances: tx.balances(&keys)?,
        keys,
        caps: home.caps(),
        run: standing,
        runs_per_day: home.config.budget.runs_per_day,
        paid_work,
    })
}

fn start_of_day(now: Timestamp) -> Timestamp {
    now.next_day().plus_ms(-DAY_MS)
}

fn paid_work(
    tx: &Tx<'_>,
    home: &Home,
    sender: &NodeName,
    keys: &WindowKeys,
) -> Result<PaidWork, LedgerError> {
    let paid_off = tx.meta()?.paid_off_until.is_some_and(|until| tx.now() < until);
    if home.clock_suspect {
        Ok(PaidWork::ClockSuspect)
    } else if paid_off {
        Ok(PaidWork::MonthClosed)
    } else if tx.window(&keys.day)?.is_some_and(|day| day.closed_at.is_some()) {
        Ok(PaidWork::DayClosed)
    } else {
        guards::paid_work(tx, sender)
    }
}

/// The windows of a task in the queue.
pub(crate) fn view_of(tx: &Tx<'_>, home: &Home, task: &QueuedTask) -> Result<BudgetView, LedgerError> {
    view(tx, home, &Asked { sender: &task.key.from, run: task.run.as_deref(), root: task.root })
}

/// How deep a task may lie to run on a route: what is forwarded lies one step deeper there.
fn depth_max(home: &Home, route: Option<&Route<'_>>) -> i64 {
    let forwards = route.is_some_and(|route| route.forwards_to().is_some());
    i64::from(home.config.lineage.depth_max).saturating_sub(i64::from(forwards))
}

/// Everything about a fresh task: step 10 of acceptance.
pub(crate) fn look(
    tx: &Tx<'_>,
    home: &Home,
    task: &Task,
    profile: &Profile,
    peer: &Peer,
) -> Result<Admission, LedgerError> {
    let lineage = Lineage::of_task(task);
    let parent = lineage::parent_of(tx, home, &lineage)?;
    let via = task.lineage.as_ref().map_or(&[][..], |lineage| &lineage.via);
    let routed = routing::route(&home.config, task);
    let route = routed.as_ref().and_then(Routed::route);
    // Where nothing can run it, the task's own profile says what is left to say.
    let profile = route.map_or(profile, |route| route.profile);
    let proposal = Proposal {
        id: task.id,
        lineage,
        parent: parent.as_ref(),
        depth_max: depth_max(home, route.as_ref()),
        comes_back: via.contains(&home.node),
        branch_left: lineage::branch_left(tx, home, task.id, &lineage)?,
        require_ack: task.require_ack,
        require_dangerous: task.require_dangerous,
        dangerous_allowed: peer.allow_dangerous && profile.has_unrestricted_mode(),
        metered_allowed: peer.allow_metered,
        peer_gate: peer.gate,
        gate_limits: home.config.approve.gate,
        backend: route.map(|route| route.facts(recipes::limits(profile, task).timeout_s)),
        billing: profile.billing,
        task_max_cost_usd: task.max_cost_usd,
        profile_max_cost_usd: profile.max_cost,
        approved_max_cost_usd: None,
        overshoot_usd: profile.overshoot,
    };
    let asked = Asked { sender: &task.from, run: task.run.as_deref(), root: task.root() };
    Ok(match (admit(&proposal, &view(tx, home, &asked)?, Look::Acceptance), routed) {
        (Admission::Refuse(refusal), Some(Routed::Nowhere(backends)))
            if refusal.code == RefusalCode::NoEligibleBackend =>
        {
            Admission::Refuse(Refusal { backends, ..refusal })
        }
        (answer, _) => answer,
    })
}

/// The budget alone, for a task that was accepted before: on approval, for its turn in the queue, for its next attempt.
pub(crate) fn look_again(tx: &Tx<'_>, home: &Home, row: &TaskRow) -> Result<Admission, LedgerError> {
    let lowest = tx.latest_decisions(&row.key)?.iter().filter_map(|row| row.decision.max_cost_usd).min();
    let recipe = tx.recipe(&row.key)?.and_then(|text| recipes::parse(&text));
    let backend = recipe.as_ref().map_or(BackendFacts::LOCAL, routing::facts_of);
    let billing = recipe.as_ref().and_then(|recipe| Billing::parse(&recipe.billing)).unwrap_or(row.billing);
    // What the estimate holds beside the ceiling and the machine is the overshoot it was made with.
    let machine = backend
        .machine
        .and_then(|machine| budget::estimate(&Pricing { machine: Some(machine), ..Pricing::default() }).ok());
    let overshoot = row
        .cost
        .estimate_usd
        .zip(row.cost.ceiling_usd)
        .and_then(|(estimate, ceiling)| estimate.checked_sub(ceiling))
        .and_then(|rest| rest.checked_sub(machine.unwrap_or(Usd::ZERO)));
    let proposal = Proposal {
        id: row.key.id,
        lineage: Lineage { root: row.root, ..Lineage::of_root(row.key.id) },
        parent: None,
        depth_max: i64::MAX,
        comes_back: false,
        branch_left: None,
        require_ack: false,
        require_dangerous: false,
        dangerous_allowed: false,
        metered_allowed: true,
        peer_gate: PeerGate::Policy,
        gate_limits: GateLimits::default(),
        backend: Some(backend),
        billing,
        task_max_cost_usd: None,
        profile_max_cost_usd: row.cost.ceiling_usd,
        approved_max_cost_usd: lowest,
        overshoot_usd: if billing == Billing::Metered { overshoot } else { None },
    };
    let asked = Asked { sender: &row.key.from, run: row.run.as_deref(), root: row.root };
    let view = view(tx, home, &asked)?;
    let answer = admit(&proposal, &view, Look::Budget);
    if !matches!(answer, Admission::Queue { reservation: Some(_), .. }) {
        return Ok(answer);
    }
    // The bounds for this branch of the tree hold for every attempt, not for the first look alone. They only make the
    // answer stricter, so they are read when there is something to lose.
    let Some(task) = lineage::task_of(tx, home, row)? else { return Ok(answer) };
    Ok(match lineage::branch_left(tx, home, row.key.id, &Lineage::of_task(&task))? {
        Some(left) => admit(&Proposal { branch_left: Some(left), ..proposal }, &view, Look::Budget),
        None => answer,
    })
}
