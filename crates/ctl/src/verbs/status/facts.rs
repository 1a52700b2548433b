//! What `status` shows, as one document. What cannot be had is null with the reason beside it: a share that is away must
//! not keep anybody from seeing the node.

use dispatch_core::policy::fleet::{DEAD_AFTER_S, STALE_AFTER_S};
use dispatch_core::policy::money::Usd;
use dispatch_core::policy::window::{Balance, Day, Month, WindowKey};
use dispatch_core::protocol::Heartbeat;
use dispatch_core::protocol::heartbeat::NodeState;
use dispatch_core::protocol::names::Lane;
use dispatch_core::protocol::payload::Payload as _;
use dispatch_core::protocol::time::Timestamp;
use dispatch_ledger::{AttemptRow, ReadLedger, TripRow, Whole};
use dispatch_node::clock;
use dispatch_node::config::{Config, Peer};
use dispatch_node::outgoing::{Outgoing, RecordPlace};
use dispatch_node::report::Report;
use dispatch_node::state::{Watched, watched};
use dispatch_spool::root::look;
use dispatch_spool::{RootLook, Share as _, Trip, TripMode, killswitch};
use serde_json::{Value, json};

use super::tasks;
use crate::beats::Beats;
use crate::context::share;
use crate::named::{self, SentTask};
use crate::{here, views};

/// How many sent tasks are shown.
const SENT_MAX: usize = 5;

pub(super) fn gather(config: &Config) -> Result<Value, Report> {
    let now = clock::now();
    let running = watched(&config.state)? == Watched::Held;
    let mut document = json!({
        "node": config.node.as_str(),
        "cluster": config.cluster.to_string(),
        "config": config.file,
        "state_dir": config.state.path(),
        "version": env!("CARGO_PKG_VERSION"),
        "at": now.to_string(),
        "watcher": {"running": running},
        "share": share_facts(config),
        "killswitch": {"present": present(config)},
        "sending": sending(config, now)?,
        "watch": watch(config),
        "ledger": null,
    });
    if let Some(ledger) = named::ledger(config)? {
        let more = ledger_facts(config, &ledger, now)?;
        merge(&mut document, more);
    }
    Ok(document)
}

/// Puts members in, objects member by member.
fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (name, value) in from {
                merge(into.entry(name).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

fn lanes(config: &Config) -> Vec<Lane> {
    let both = |peer: &dispatch_core::protocol::names::NodeName| {
        let lane = Lane::new(config.node.clone(), peer.clone());
        [lane.reversed(), lane]
    };
    config.peers.keys().flat_map(both).collect()
}

fn share_facts(config: &Config) -> Value {
    let share = share(config);
    let problem = match look(&share, config.cluster, &lanes(config)) {
        RootLook::Reachable(_) => None,
        RootLook::Unreachable(why) => Some(Report::from(why).one_line()),
    };
    json!({
        "root": config.root,
        "reachable": problem.is_none(),
        "problem": problem,
        "file_system": share.facts().ok().map(|facts| facts.file_system.to_string()),
    })
}

/// How the watcher looks at the share, by its own last heartbeat; null where that cannot be read or verified.
fn watch(config: &Config) -> Value {
    let beat = Beats::of(config).ok().and_then(|beats| beats.read(&config.node).ok().flatten());
    beat.map_or(Value::Null, |beat| json!({"strategy": beat.watch.strategy, "poll_ms": beat.watch.poll_ms}))
}

/// The killswitches that stand somewhere now.
fn present(config: &Config) -> Vec<Value> {
    let shown = |place: String, trip: &Trip| {
        let mode = match trip.mode {
            TripMode::Halt => "halt",
            TripMode::Kill => "kill",
        };
        json!({"place": place, "mode": mode, "reason": trip.reason})
    };
    let mut present = Vec::new();
    if let Some(trip) = killswitch::local(&config.state.killswitch()) {
        present.push(shown("node".to_owned(), &trip));
    }
    if let RootLook::Reachable(seen) = look(&share(config), config.cluster, &lanes(config)) {
        present.extend(seen.killswitch.iter().map(|trip| shown("root".to_owned(), trip)));
        present.extend(seen.lanes.iter().map(|(lane, trip)| shown(lane.to_string(), trip)));
    }
    present
}

/// What was sent from this state directory.
fn sending(config: &Config, now: Timestamp) -> Result<Value, Report> {
    let (mut kept, mut open, mut unanswered) = (0_usize, Vec::new(), Vec::new());
    for lane in Outgoing::lanes(&config.state)? {
        let outgoing = Outgoing::at(&config.state, &lane);
        kept = kept.saturating_add(outgoing.kept()?.len());
        for record in outgoing.unanswered()?.into_iter().filter(|record| record.place == RecordPlace::Sent) {
            if now >= record.answer_by {
                unanswered.push(record.id.to_string());
            } else {
                open.push(SentTask { outgoing: outgoing.clone(), record });
            }
        }
    }
    let told = here::whereabouts_of_many(config, open.iter());
    let shown: Vec<Value> = open
        .iter()
        .rev()
        .take(SENT_MAX)
        .map(|sent| {
            let whereabouts = told.get(&sent.record.id);
            json!({
                "id": sent.record.id.to_string(),
                "to": sent.outgoing.lane().to.as_str(),
                "standing": views::sent_where(&sent.record, now, whereabouts),
                "age_ms": now.since_ms(views::made_at(sent.record.id)),
                "progress": views::told(whereabouts),
            })
        })
        .collect();
    Ok(json!({"kept": kept, "open": open.len(), "tasks": shown, "unanswered": unanswered}))
}

fn ledger_facts(config: &Config, ledger: &ReadLedger, now: Timestamp) -> Result<Value, Report> {
    let meta = ledger.meta()?;
    let trips = ledger.open_trips()?;
    let open = tasks::Open::of(config, ledger, now)?;
    Ok(json!({
        "watcher": {"boot": ledger.highest_held()?},
        "ledger": {
            "id": meta.ledger.to_string(),
            "whole": meta.whole == Whole::Yes,
            "recovery": meta.recovery.as_ref().map(|shown| json!({
                "chain": shown.chain.to_string(), "seq": shown.seq, "head": shown.head.to_string(),
                "noted_at": shown.noted_at.to_string(),
            })),
            "accept_after": meta.accept_after.map(|at| at.to_string()),
        },
        "clock": {
            "suspect": clock::is_suspect(&meta.clock, now, &clock::host_boot_id()?.to_string()),
            "agreed_at": meta.clock.wall.to_string(),
        },
        "audit": {"chain": meta.head.chain.to_string(), "seq": meta.head.seq, "head": meta.head.head.to_string()},
        "killswitch": {"tripped": !trips.is_empty(), "trips": trips.iter().map(trip).collect::<Vec<Value>>()},
        "state": meta.drain.state.to_string(),
        "state_since": meta.drain.since.to_string(),
        "still_running": still_running(ledger, meta.drain.state)?,
        "peers": peers(config, ledger, now)?,
        "tasks": tasks::counts(ledger)?,
        "running": open.running,
        "queue": open.queue,
        "waiting": open.waiting,
        "last": tasks::last(ledger, now)?,
        "budget": budget(config, ledger, now, meta.paid_off_until)?,
    }))
}

/// What a drain that ran out of its grace still waits for.
fn still_running(ledger: &ReadLedger, state: NodeState) -> Result<Vec<Value>, Report> {
    if state != NodeState::DrainFailed {
        return Ok(Vec::new());
    }
    let shown = |row: AttemptRow| json!({"from": row.key.from.as_str(), "id": row.key.id.to_string()});
    Ok(ledger.open_attempts()?.into_iter().map(shown).collect())
}

fn trip(row: &TripRow) -> Value {
    json!({"scope": row.scope, "mode": row.mode.as_str(), "reason": row.reason, "at": row.at.to_string()})
}

/// Every configured peer, with its last heartbeat that counted and its age by this node's clock.
fn peers(config: &Config, ledger: &ReadLedger, now: Timestamp) -> Result<Vec<Value>, Report> {
    let mut peers = Vec::new();
    for name in config.peers.keys() {
        if config.peer(name).and_then(Peer::version_2).is_some() {
            // It writes no heartbeat: nothing is known of it, and nothing is wrong.
            peers.push(json!({"node": name.as_str(), "health": "version 2"}));
            continue;
        }
        let Some(row) = ledger.peer(name)? else {
            peers.push(json!({"node": name.as_str(), "health": "unknown"}));
            continue;
        };
        let age_ms = now.since_ms(row.advanced_at);
        let health = match age_ms.div_euclid(1_000) {
            age if age < STALE_AFTER_S => "healthy",
            age if age < DEAD_AFTER_S => "stale",
            _ => "dead",
        };
        let mut peer = json!({
            "node": name.as_str(), "health": health, "age_ms": age_ms, "boot": row.boot, "seq": row.seq,
        });
        if let Ok(beat) = Heartbeat::from_stored(&row.payload) {
            merge(&mut peer, of_heartbeat(&beat));
        }
        peers.push(peer);
    }
    Ok(peers)
}

fn of_heartbeat(beat: &Heartbeat) -> Value {
    json!({
        "version": beat.version,
        "state": beat.state.as_str(),
        "queued": beat.load.queued,
        "waiting": beat.load.waiting,
        "running": beat.load.running,
        "capacity": beat.load.capacity,
        "backpressure": beat.backpressure.on,
        "killswitch": beat.killswitch.tripped,
        "killswitch_reason": beat.killswitch.reason,
    })
}

fn budget(
    config: &Config,
    ledger: &ReadLedger,
    now: Timestamp,
    paid_off_until: Option<Timestamp>,
) -> Result<Value, Report> {
    let caps = &config.budget.caps;
    let month = ledger.balance(&WindowKey::Month(Month::of(now)))?;
    let day = ledger.balance(&WindowKey::Day(Day::of(now)))?;
    Ok(json!({
        "month": window(month, Some(caps.month)),
        "day": window(day, caps.day),
        "run_cap": caps.run.to_string(),
        "action": ledger.spend_review()?.map_or("allow", |row| row.action.as_str()),
        "paid_off_until": paid_off_until.map(|at| at.to_string()),
    }))
}

fn window(balance: Balance, cap: Option<Usd>) -> Value {
    json!({
        "reserved": balance.reserved.to_string(),
        "spent": balance.spent.to_string(),
        "committed": balance.committed().map(|usd| usd.to_string()),
        "cap": cap.map(|usd| usd.to_string()),
    })
}
