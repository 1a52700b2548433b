//! A task that was sent here: the ledger knows where it is, and what holds it is looked at now.

use dispatch_core::explain::{self, CostFacts, Standing, SwitchFile, Told, noted_wait};
use dispatch_core::planner::queue::{Candidate, Holdback, choose};
use dispatch_core::planner::recipe::Recipe;
use dispatch_core::policy::admission::{RoomWait, WaitCause};
use dispatch_core::policy::budget::{Admits, admits_for};
use dispatch_core::policy::gate::GateReason;
use dispatch_core::policy::lifecycle::{AttemptState, TaskState};
use dispatch_core::policy::money::Usd;
use dispatch_core::policy::window::{Payer, RunName, Window, WindowKey, WindowKeys};
use dispatch_core::protocol::TaskResult;
use dispatch_core::protocol::decision::DecisionOutcome;
use dispatch_core::protocol::heartbeat::{KillMode, NodeState};
use dispatch_core::protocol::names::{Lane, NodeName};
use dispatch_core::protocol::payload::Payload as _;
use dispatch_core::protocol::result::Status;
use dispatch_core::protocol::time::Timestamp;
use dispatch_ledger::{AttemptRow, LedgerError, ReadLedger, TaskRow};
use dispatch_node::clock;
use dispatch_node::config::Config;
use dispatch_node::report::{Exit, Report};
use dispatch_node::state::{Watched, watched};
use dispatch_spool::root::look;
use dispatch_spool::{RootLook, Trip, TripMode, killswitch};
use serde_json::{Value, json};

use super::{Page, WindowNow};
use crate::beats::Beats;
use crate::context::share;
use crate::named;
use crate::views;

/// What one explanation rests on.
struct Facts<'a> {
    config: &'a Config,
    ledger: ReadLedger,
    row: &'a TaskRow,
    now: Timestamp,
}

pub(super) fn page(config: &Config, row: &TaskRow) -> Result<Page, Report> {
    let Some(ledger) = named::ledger(config)? else {
        return Err(Report::new(Exit::NoSuchTask, "the ledger went away"));
    };
    let facts = Facts { config, ledger, row, now: clock::now() };
    let (told, limit) = facts.told()?;
    let (cost, cost_facts) = facts.cost()?;
    Ok(Page {
        head: format!("task {} from {}: {}", row.key.id, row.key.from, views::standing(row, None)),
        about: json!({
            "task": row.key.id.to_string(),
            "direction": "received",
            "from": row.key.from.as_str(),
            "state": row.state.as_str(),
            "status": row.status.map(Status::as_str),
        }),
        told,
        limit,
        cost,
        cost_facts,
        windows: facts.windows()?,
    })
}

type Held = (Vec<Told>, Option<RoomWait>);

impl Facts<'_> {
    fn told(&self) -> Result<Held, Report> {
        if let Some(status) = self.row.status {
            return Ok((self.ended(status)?, None));
        }
        let mut told = Vec::new();
        if let Some(stop) = &self.row.stop {
            told.push(Standing::Stopping { why: stop.why.clone(), by: stop.by.clone() }.told());
        }
        let mut limit = None;
        match self.row.state {
            TaskState::Received => self.passing(&mut told, &Standing::Received)?,
            TaskState::Approved => self.passing(&mut told, &Standing::Approved)?,
            TaskState::AwaitingApproval => {
                told.push(self.waiting()?.told());
                told.extend(self.node_holds()?.iter().map(Standing::told));
            }
            TaskState::Queued if self.row.open_epoch.is_none() => limit = self.queued(&mut told)?,
            TaskState::Queued | TaskState::Running => limit = self.running(&mut told)?,
            // Their status is written with them; without one they say what their state alone can.
            TaskState::Succeeded | TaskState::Failed | TaskState::Rejected => {
                told.push(explain::passing(self.row.state));
            }
        }
        Ok((told, limit))
    }

    /// What holds the node comes first: what ends by itself else does not end then.
    fn passing(&self, told: &mut Vec<Told>, standing: &Standing) -> Result<(), Report> {
        told.extend(self.node_holds()?.iter().map(Standing::told));
        told.push(standing.told());
        Ok(())
    }

    fn ended(&self, status: Status) -> Result<Vec<Told>, Report> {
        let result = self.ledger.result(&self.row.key)?;
        let reason =
            result.and_then(|payload| TaskResult::from_stored(&payload).ok()).and_then(|of| of.reason);
        let mut told = vec![Standing::Ended { status, reason }.told()];
        if self.row.published_at.is_none() {
            told.push(Standing::Unpublished.told());
            told.extend(self.node_holds()?.iter().map(Standing::told));
        }
        Ok(told)
    }

    fn waiting(&self) -> Result<Standing, LedgerError> {
        let words: Vec<String> = serde_json::from_str(&self.row.gates).unwrap_or_default();
        let said = self.ledger.latest_decisions(&self.row.key)?;
        let yes = said.iter().filter(|row| {
            row.decision.outcome == DecisionOutcome::Approved && self.now < row.decision.expires
        });
        Ok(Standing::Waiting {
            gates: words.iter().filter_map(|word| GateReason::parse(word)).collect(),
            approvals: u32::try_from(yes.count()).unwrap_or(u32::MAX),
            required: self.row.required_approvals,
            expires: self.row.expires,
        })
    }

    fn queued(&self, told: &mut Vec<Told>) -> Result<Option<RoomWait>, Report> {
        told.extend(self.node_holds()?.iter().map(Standing::told));
        let room = self.room()?;
        let holds = super::guards::holds(&self.ledger, self.row, self.now)?;
        told.extend(holds.into_iter().map(|hold| Standing::Hold(hold).told()));
        told.extend(room.iter().map(|room| Standing::Room(room.clone()).told()));
        // What the watcher noted last says what cannot be looked at from here. What can, is as it is now.
        if let Some(noted) = self.row.wait_reason.as_deref().map(noted_wait) {
            let known = told.iter().any(|known| known.code == noted.code);
            let about_money = WaitCause::parse(&noted.code).is_some();
            if !known && !(about_money && (room.is_some() || self.row.reservation.is_some())) {
                told.push(noted);
            }
        }
        if let Some(until) = self.row.not_before.filter(|at| *at > self.now) {
            let failures = self.row.launch_failures;
            told.push(Standing::BackOff { until, failures }.told());
        }
        told.extend(self.behind()?.map(|standing| standing.told()));
        if told.is_empty() {
            told.push(Standing::Due.told());
        }
        Ok(room)
    }

    fn running(&self, told: &mut Vec<Told>) -> Result<Option<RoomWait>, Report> {
        let attempts = self.ledger.attempts(&self.row.key)?;
        let open = attempts.iter().find(|attempt| match attempt.state {
            AttemptState::Leased | AttemptState::Started => true,
            AttemptState::Ended | AttemptState::Revoked => false,
        });
        match open {
            Some(attempt) => {
                told.push(self.attempt(attempt)?.told());
                if watched(&self.config.state)? == Watched::Free {
                    told.push(Standing::NoWatcher.told());
                }
                Ok(None)
            }
            None => {
                let between = Standing::BetweenAttempts {
                    started: self.row.attempts_started,
                    attempts: self.row.max_attempts,
                };
                let mut held = Vec::new();
                let room = self.queued(&mut held)?;
                told.push(between.told());
                told.append(&mut held);
                Ok(room)
            }
        }
    }

    fn attempt(&self, attempt: &AttemptRow) -> Result<Standing, LedgerError> {
        if let Some(child) = attempt.child.map(|child| self.ledger.child(child)).transpose()?.flatten() {
            return Ok(Standing::Forwarded {
                to: child.receiver.to_string(),
                child: child.id.short(),
                for_ms: self.now.since_ms(child.made_at),
                answer_by: child.answer_by,
            });
        }
        let Some(started_at) = attempt.started_at else { return Ok(Standing::Starting) };
        let order = attempt.order_json.as_deref().and_then(|text| serde_json::from_str::<Value>(text).ok());
        Ok(Standing::Running {
            for_ms: self.now.since_ms(started_at),
            timeout_s: order.and_then(|order| order.get("timeout_s").and_then(Value::as_u64)),
            attempt: attempt.n,
            attempts: self.row.max_attempts,
        })
    }

    /// What keeps the whole node, or the lane, from starting anything.
    fn node_holds(&self) -> Result<Vec<Standing>, Report> {
        let mut holds = Vec::new();
        if watched(&self.config.state)? == Watched::Free {
            holds.push(Standing::NoWatcher);
        }
        let meta = self.ledger.meta()?;
        if meta.recovery.is_some() {
            holds.push(Standing::Held(Holdback::Recovery));
        }
        if self.is_superseded()? {
            holds.push(Standing::Held(Holdback::Superseded));
        }
        holds.extend(self.stops()?);
        match meta.drain.state {
            NodeState::Active | NodeState::Recovery => {}
            NodeState::EnteringMaintenance
            | NodeState::Maintenance
            | NodeState::ExitingMaintenance
            | NodeState::DrainFailed => holds.push(Standing::Held(Holdback::Draining)),
        }
        Ok(holds)
    }

    /// Another watcher of this node shows a higher number than this ledger ever gave out.
    fn is_superseded(&self) -> Result<bool, LedgerError> {
        let held = self.ledger.highest_held()?.unwrap_or(0);
        // Where keys or share cannot be read, other lines say so.
        let beat =
            Beats::of(self.config).ok().and_then(|beats| beats.read_alive(&self.config.node).ok().flatten());
        Ok(beat.is_some_and(|beat| beat.boot > held))
    }

    /// The killswitches that stop this task's sender here, and a share that is not there.
    fn stops(&self) -> Result<Vec<Standing>, LedgerError> {
        let lane = Lane::new(self.row.key.from.clone(), self.config.node.clone());
        let mut found = present(self.config, &lane);
        for trip in self.ledger.open_trips()? {
            let place = trip.scope.strip_prefix("lane:").unwrap_or(&trip.scope).to_owned();
            let ours = ["root", "node"].contains(&place.as_str()) || place == lane.to_string();
            let known = found.iter().any(
                |standing| matches!(standing, Standing::Killswitch { place: there, .. } if *there == place),
            );
            if ours && !known {
                found.push(Standing::Killswitch {
                    place,
                    mode: trip.mode,
                    reason: trip.reason,
                    file: SwitchFile::Gone,
                });
            }
        }
        Ok(found)
    }

    /// What the windows say to a paid task. What closes them holds one that has its money set aside, too; whether they have
    /// room is asked for one that has not.
    fn room(&self) -> Result<Option<RoomWait>, Report> {
        let Some(estimate) = self.row.cost.estimate_usd else { return Ok(None) };
        let keys = self.keys();
        let wait = |cause, window: Option<Window>| {
            let window = window.map(|window| keys.get(window).clone());
            let resets_at = window.as_ref().and_then(WindowKey::resets_at);
            RoomWait { cause, window, limit: None, left: None, asked: Some(estimate), resets_at }
        };
        let meta = self.ledger.meta()?;
        let boot = clock::host_boot_id()?.to_string();
        if clock::is_suspect(&meta.clock, self.now, &boot) {
            return Ok(Some(wait(WaitCause::ClockSuspect, None)));
        }
        if meta.paid_off_until.is_some_and(|until| self.now < until) {
            return Ok(Some(wait(WaitCause::MonthClosed, Some(Window::Month))));
        }
        if self.ledger.window(&keys.day)?.is_some_and(|day| day.closed_at.is_some()) {
            return Ok(Some(wait(WaitCause::DayClosed, Some(Window::Day))));
        }
        if self.row.reservation.is_some() {
            return Ok(None);
        }
        let caps = &self.config.budget.caps;
        let full = admits_for(self.payer()?, estimate, &self.ledger.balances(&keys)?, caps);
        Ok(match full {
            Ok(Admits::OverCap { window, limit, left }) => Some(RoomWait {
                limit: Some(limit),
                left: Some(left),
                ..wait(WaitCause::OverCap, Some(window))
            }),
            Ok(Admits::WithinBudget | Admits::NegativeEstimate) | Err(_) => None,
        })
    }

    /// Whether every place is taken, and how many go first.
    fn behind(&self) -> Result<Option<Standing>, LedgerError> {
        let open = self.ledger.open_attempts()?;
        let running = open.iter().filter(|attempt| attempt.child.is_none()).count();
        let places = self.config.exec.max_parallel;
        if running < usize::try_from(places).unwrap_or(usize::MAX) {
            return Ok(None);
        }
        let queue: Vec<Candidate<_>> = self
            .ledger
            .whole_queue()?
            .into_iter()
            // One whose attempt is leased has its place already, though its start is not noted yet.
            .filter(|task| task.stop.is_none() && open.iter().all(|attempt| attempt.key != task.key))
            .map(|task| Candidate {
                key: task.key,
                priority: task.priority,
                accepted_at: task.accepted_at,
                order_no: task.order_no,
                not_before: task.not_before,
            })
            .collect();
        let order = choose(&queue, queue.len(), self.now);
        let ahead = order.iter().position(|key| *key == self.row.key).unwrap_or(order.len());
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        Ok(Some(Standing::Behind { ahead: count(ahead), running: count(running), places: u64::from(places) }))
    }

    /// Whose money it spends: what is forwarded is asked of its tree alone.
    fn payer(&self) -> Result<Payer, LedgerError> {
        let recipe = self.ledger.recipe(&self.row.key)?;
        let recipe = recipe.and_then(|text| serde_json::from_str::<Recipe>(&text).ok());
        let is_forwarded = recipe.is_some_and(|recipe| recipe.forward.is_some());
        Ok(if is_forwarded { Payer::Elsewhere } else { Payer::Here })
    }

    fn keys(&self) -> WindowKeys {
        let run = self.row.run.as_deref().and_then(|name| RunName::new(name).ok());
        let sender: &NodeName = &self.row.key.from;
        WindowKeys::of(sender, run.as_ref(), self.row.root, self.now)
    }

    /// The windows that are asked for this task; none for what costs nothing, or is over.
    fn windows(&self) -> Result<Vec<WindowNow>, LedgerError> {
        if self.row.billing.is_zero_cost() || self.row.state.is_final() {
            return Ok(Vec::new());
        }
        let keys = self.keys();
        let balances = self.ledger.balances(&keys)?;
        let caps = &self.config.budget.caps;
        let all = keys.iter().map(|(window, key)| WindowNow {
            key: key.clone(),
            balance: *balances.get(window),
            cap: caps.get(window),
        });
        let payer = self.payer()?;
        // What has no cap, or is not asked, limits nothing.
        Ok(all.filter(|window| window.cap.is_some() && payer.asks(window.key.window())).collect())
    }

    fn cost(&self) -> Result<(String, Value), LedgerError> {
        let cost = &self.row.cost;
        let facts = CostFacts {
            billing: self.row.billing,
            ceiling_usd: cost.ceiling_usd,
            estimate_usd: cost.estimate_usd,
        };
        let attempts = self.ledger.attempts(&self.row.key)?;
        let spent = attempts.iter().filter_map(|attempt| attempt.cost).try_fold(Usd::ZERO, Usd::checked_add);
        let charged = spent.filter(|usd| usd.is_positive());
        let mut words = explain::cost(&facts);
        if let Some(usd) = charged {
            words = format!("{words}; {usd} USD were charged for it so far");
        }
        let reserved = match self.row.reservation {
            Some(id) => self.ledger.reservation(id)?.map(|row| row.amount.to_string()),
            None => None,
        };
        let members = json!({
            "billing": self.row.billing.as_str(),
            "ceiling_usd": cost.ceiling_usd.map(|usd| usd.to_string()),
            "estimate_usd": cost.estimate_usd.map(|usd| usd.to_string()),
            "reserved_usd": reserved,
            "charged_usd": charged.map(|usd| usd.to_string()),
        });
        Ok((words, members))
    }
}

/// The killswitch files that stand now, or that the share cannot be looked at.
pub(super) fn present(config: &Config, lane: &Lane) -> Vec<Standing> {
    let shown = |place: String, trip: &Trip| Standing::Killswitch {
        place,
        mode: match trip.mode {
            TripMode::Halt => KillMode::Halt,
            TripMode::Kill => KillMode::Kill,
        },
        reason: trip.reason.clone(),
        file: SwitchFile::There,
    };
    let mut found = Vec::new();
    if let Some(trip) = killswitch::local(&config.state.killswitch()) {
        found.push(shown("node".to_owned(), &trip));
    }
    match look(&share(config), config.cluster, std::slice::from_ref(lane)) {
        RootLook::Reachable(seen) => {
            found.extend(seen.killswitch.iter().map(|trip| shown("root".to_owned(), trip)));
            found.extend(seen.lanes.iter().map(|(lane, trip)| shown(lane.to_string(), trip)));
        }
        RootLook::Unreachable(_) => found.push(Standing::Held(Holdback::ShareUnreachable)),
    }
    found
}
