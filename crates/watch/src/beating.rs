//! Heartbeats: mine, my peers', and what they say about my ledger (protocol section 7).

use std::collections::BTreeMap;
use std::path::Path;

use dispatch_core::planner::rollback::{Head, Held, is_rolled_back};
use dispatch_core::policy::capacity::{self, CapacityLimits, LaneLoad};
use dispatch_core::policy::continuity;
use dispatch_core::policy::lifecycle::TaskState;
use dispatch_core::policy::money::Usd;
use dispatch_core::policy::safeguards::SpendAction;
use dispatch_core::policy::window::{Month, Window, WindowKey};
use dispatch_core::protocol::accept::{Me, Verdict, accept_heartbeat};
use dispatch_core::protocol::fraction::Fraction;
use dispatch_core::protocol::heartbeat::{
    Backpressure, BudgetLevels, Heartbeat, Load, NodeState, PeerEcho, Trend, WatchInfo, WindowLevel,
};
use dispatch_core::protocol::names::NodeName;
use dispatch_core::protocol::parts::{AuditHead, CostBasis};
use dispatch_core::protocol::payload::{Kind, Payload as _};
use dispatch_core::protocol::reason::ReasonCode;
use dispatch_core::protocol::seal::{RawEnvelope, Verified};
use dispatch_core::protocol::time::Timestamp;
use dispatch_ledger::{Advance, Entry, LedgerError, Reader, ShownHead, Tx, WindowRow, Witnessing};
use serde_json::json;

use crate::home::Home;
use crate::owning::seal_for_peers;
use crate::routing;
use crate::tripping::Stopped;

/// What only the loop knows about itself.
pub(crate) struct Pulse {
    pub(crate) seq: u64,
    pub(crate) now: Timestamp,
    pub(crate) state: NodeState,
    pub(crate) stopped: Stopped,
    pub(crate) strategy: &'static str,
    pub(crate) poll_ms: u64,
    pub(crate) last_queued: u64,
}

/// Counts that the heartbeat shows.
pub(crate) struct Counts {
    pub(crate) queued: u64,
    pub(crate) waiting: u64,
    pub(crate) running: u64,
}

/// Counts tasks that are not final.
pub(crate) fn counts(reader: &Reader) -> Result<Counts, LedgerError> {
    let (mut queued, mut waiting) = (0_u64, 0_u64);
    for row in reader.open_counts()? {
        match row.state {
            TaskState::AwaitingApproval => waiting = waiting.saturating_add(row.count),
            TaskState::Received | TaskState::Approved | TaskState::Queued => {
                queued = queued.saturating_add(row.count);
            }
            TaskState::Running | TaskState::Succeeded | TaskState::Failed | TaskState::Rejected => {}
        }
    }
    let running = u64::try_from(reader.open_attempts()?.len()).unwrap_or(u64::MAX);
    Ok(Counts { queued: queued.saturating_sub(running.min(queued)), waiting, running })
}

/// Whether senders are asked to wait. Places are a lane's: the fullest one is what a sender can run into.
pub(crate) fn backpressure(reader: &Reader, home: &Home) -> Result<Backpressure, LedgerError> {
    let mut lanes: BTreeMap<NodeName, LaneLoad> = BTreeMap::new();
    for row in reader.open_counts()? {
        let count = u32::try_from(row.count).unwrap_or(u32::MAX);
        let lane = lanes.entry(row.from).or_default();
        lane.accepted = lane.accepted.saturating_add(count);
        if row.state == TaskState::AwaitingApproval {
            lane.waiting = lane.waiting.saturating_add(count);
        }
    }
    let limits = home.config.limits;
    let limits = CapacityLimits { max_queued: limits.max_queued, max_waiting: limits.max_waiting };
    let empty = capacity::backpressure(LaneLoad::default(), limits);
    let fullest = lanes.into_values().map(|lane| capacity::backpressure(lane, limits));
    Ok(fullest.chain([empty]).max_by_key(|pressure| pressure.level).unwrap_or(empty))
}

/// What the node can do: its profiles, and a word on paid work where the safeguards hold it back.
fn capabilities(reader: &Reader, home: &Home) -> Result<Vec<String>, LedgerError> {
    let mut words: Vec<String> = home.config.profiles.keys().map(ToString::to_string).collect();
    let action = reader.spend_review()?.map_or(SpendAction::Allow, |row| row.action);
    if action != SpendAction::Allow {
        words.push(format!("paid_work:{action}"));
    }
    Ok(words)
}

/// My heartbeat, sealed for every peer.
pub(crate) fn make(reader: &Reader, home: &Home, pulse: &Pulse) -> Result<Vec<u8>, LedgerError> {
    let counts = counts(reader)?;
    let capacity = u64::from(home.config.exec.max_parallel);
    let meta = reader.meta()?;
    let month = reader.balance(&WindowKey::Month(Month::of(pulse.now)))?;
    let caps = home.caps();
    let heartbeat = Heartbeat {
        cluster: home.cluster,
        node: home.node.clone(),
        instance: home.instance,
        boot: home.boot,
        seq: pulse.seq,
        ts: pulse.now,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        state: pulse.state,
        load: load(&counts, capacity, pulse.last_queued, home.config.state.path()),
        backpressure: backpressure(reader, home)?,
        capabilities: capabilities(reader, home)?,
        backends: routing::offers(&home.config),
        budget: BudgetLevels {
            run: WindowLevel { committed: fullest_run(reader, pulse.now)?, cap: caps.run },
            month: WindowLevel { committed: month.committed().unwrap_or(Usd::ZERO), cap: caps.month },
        },
        killswitch: pulse.stopped.state(),
        watch: WatchInfo { strategy: pulse.strategy.to_owned(), poll_ms: pulse.poll_ms },
        audit: meta.head,
        peers_seen: peers_seen(reader)?,
    };
    Ok(seal_for_peers(home, Kind::Heartbeat, &heartbeat.to_payload()))
}

/// What the fullest run holds that still takes tasks: the one that a sender runs into first.
fn fullest_run(reader: &Reader, now: Timestamp) -> Result<Usd, LedgerError> {
    let is_open = |row: &WindowRow| {
        row.key.window() == Window::Run
            && row.closed_at.is_none()
            && row.key.resets_at().is_none_or(|resets_at| now < resets_at)
    };
    let runs = reader.windows()?.into_iter().filter(is_open);
    Ok(runs.filter_map(|row| row.balance.committed()).max().unwrap_or(Usd::ZERO))
}

fn load(counts: &Counts, capacity: u64, last_queued: u64, state: &Path) -> Load {
    let machine = machine();
    let disk = disk(state);
    Load {
        queued: counts.queued,
        waiting: counts.waiting,
        running: counts.running,
        capacity,
        saturation: Fraction::from_thousandths(
            counts.running.saturating_mul(1000).checked_div(capacity.max(1)).unwrap_or(0),
        ),
        trend: match counts.queued.cmp(&last_queued) {
            std::cmp::Ordering::Greater => Trend::Rising,
            std::cmp::Ordering::Equal => Trend::Steady,
            std::cmp::Ordering::Less => Trend::Falling,
        },
        cpu_load_1m: machine.cpu_load_1m,
        mem_used_bytes: machine.mem_used_bytes,
        mem_total_bytes: machine.mem_total_bytes,
        disk_used_bytes: disk.used_bytes,
        disk_total_bytes: disk.total_bytes,
    }
}

/// The disk that holds this node's own state.
#[derive(Default)]
struct Disk {
    used_bytes: u64,
    total_bytes: u64,
}

/// One that cannot be asked shows nothing, as the rest of the machine does.
fn disk(state: &Path) -> Disk {
    let Ok(seen) = rustix::fs::statvfs(state) else { return Disk::default() };
    let total_bytes = seen.f_blocks.saturating_mul(seen.f_frsize);
    let free_bytes = seen.f_bfree.saturating_mul(seen.f_frsize);
    Disk { used_bytes: total_bytes.saturating_sub(free_bytes), total_bytes }
}

struct Machine {
    cpu_load_1m: Fraction,
    mem_used_bytes: u64,
    mem_total_bytes: u64,
}

fn machine() -> Machine {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let cpu =
        load.split(' ').next().and_then(|text| Fraction::from_wire(text).ok()).unwrap_or(Fraction::ZERO);
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = |name: &str| {
        memory
            .lines()
            .find_map(|line| {
                line.strip_prefix(name)?.trim_start_matches(':').trim().split(' ').next()?.parse::<u64>().ok()
            })
            .unwrap_or(0)
            .saturating_mul(1024)
    };
    let total = kib("MemTotal");
    Machine {
        cpu_load_1m: cpu,
        mem_used_bytes: total.saturating_sub(kib("MemAvailable")),
        mem_total_bytes: total,
    }
}

fn peers_seen(reader: &Reader) -> Result<BTreeMap<NodeName, PeerEcho>, LedgerError> {
    let mut seen = BTreeMap::new();
    for row in reader.peers()? {
        let Ok(beat) = Heartbeat::from_stored(&row.payload) else { continue };
        seen.insert(row.node.clone(), PeerEcho { boot: row.boot, seq: row.seq, audit: beat.audit });
    }
    Ok(seen)
}

/// A peer's heartbeat that advances, verified.
pub(crate) struct Heard {
    pub(crate) node: NodeName,
    pub(crate) beat: Verified<Heartbeat>,
}

/// What the bytes of a peer's heartbeat come to.
pub(crate) enum Hearing {
    /// The peer is alive.
    Advances(Box<Heard>),
    /// Sealed by the peer, and older than what it showed already: revives nobody.
    Replayed,
    /// The one known already, or none that counts.
    Nothing,
}

/// Judges the bytes of a peer's heartbeat.
pub(crate) fn hear(
    reader: &Reader,
    home: &Home,
    node: &NodeName,
    bytes: &[u8],
    now: Timestamp,
) -> Result<Hearing, LedgerError> {
    let known = reader.peer(node)?;
    let highest = known.as_ref().map(|row| (row.boot, row.seq));
    let me = Me { cluster: home.cluster, node: &home.node, now };
    let ring = home.keys.ring(node);
    match accept_heartbeat(bytes, node, &me, &[&ring], highest) {
        Verdict::Accepted(beat) => Ok(Hearing::Advances(Box::new(Heard { node: node.clone(), beat }))),
        Verdict::Refused(refusal) if refusal.code == ReasonCode::HeartbeatReplayed => {
            let raw = RawEnvelope::read(Kind::Heartbeat, bytes).ok();
            let same = known.zip(raw).is_some_and(|(known, raw)| known.payload == raw.unverified_payload());
            Ok(if same { Hearing::Nothing } else { Hearing::Replayed })
        }
        Verdict::Refused(_) => Ok(Hearing::Nothing),
    }
}

/// Notes a peer's heartbeat: alive, its chain's head witnessed, and what it saw of me kept.
pub(crate) fn note(tx: &mut Tx<'_>, home: &Home, heard: &Heard) -> Result<(), LedgerError> {
    let beat = heard.beat.payload();
    if tx.note_heartbeat(&heard.node, beat.boot, beat.seq, heard.beat.bytes())? != Advance::Advanced {
        return Ok(());
    }
    if let Witnessing::Contradicted { known } = tx.witness(&heard.node, beat.audit)? {
        tx.audit(&Entry::of("chain_contradicted").from(&heard.node).data(json!({
            "chain": known.chain.to_string(), "seq": known.seq,
        })))?;
    }
    if let Some(echo) = beat.peers_seen.get(&home.node) {
        tx.note_echo(&heard.node, echo.boot, echo.seq, echo.audit)?;
        remember_if_rolled_back(tx, echo.audit)?;
    }
    Ok(())
}

/// Whether a head of mine that was shown proves this ledger older than it.
pub(crate) fn rolled_back(reader: &Reader, shown: AuditHead) -> Result<bool, LedgerError> {
    let current = reader.head()?;
    let held = match reader.audit_line(shown.chain, shown.seq)? {
        Some(line) => Held::Hash(line.hash),
        None if shown.seq == 0 => Held::Hash(shown.head),
        None => Held::Beyond,
    };
    let shown = Head { chain: shown.chain, seq: shown.seq, head: shown.head };
    Ok(is_rolled_back(current.chain, &shown, held))
}

/// Enters recovery where a shown head proves the ledger older; stored before any heartbeat is written.
pub(crate) fn remember_if_rolled_back(tx: &mut Tx<'_>, shown: AuditHead) -> Result<(), LedgerError> {
    if tx.meta()?.recovery.is_some() || !rolled_back(tx, shown)? {
        return Ok(());
    }
    tx.set_recovery(Some(&ShownHead {
        chain: shown.chain,
        seq: shown.seq,
        head: shown.head,
        noted_at: tx.now(),
    }))
}

/// What my own last heartbeat showed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OwnShown {
    /// The head of the audit chain then.
    pub(crate) head: AuditHead,
    /// When.
    at: Timestamp,
    /// What the month had reserved and spent.
    committed: Usd,
}

/// My own last heartbeat, if it verifies.
pub(crate) fn own_shown(home: &Home, bytes: &[u8], now: Timestamp) -> Option<OwnShown> {
    let me = Me { cluster: home.cluster, node: &home.node, now };
    let rings: Vec<_> = home.rings().map(|(_, ring)| ring).collect();
    match accept_heartbeat(bytes, &home.node, &me, &rings, None) {
        Verdict::Accepted(beat) => {
            let beat = beat.payload();
            Some(OwnShown { head: beat.audit, at: beat.ts, committed: beat.budget.month.committed })
        }
        Verdict::Refused(_) => None,
    }
}

/// Keeps what an older ledger does not know to be spent, before the next heartbeat replaces the only one that says it. With
/// no heartbeat that does, paid work is off until the month is over (policy section 1).
pub(crate) fn keep_spending(tx: &mut Tx<'_>, own: Option<&OwnShown>) -> Result<(), LedgerError> {
    let now = tx.now();
    // One of another month says nothing about this one.
    let Some(own) = own.filter(|own| own.at.month_key() == now.month_key()) else {
        return tx.set_paid_off_until(Some(now.next_month()));
    };
    let month = WindowKey::Month(Month::of(now));
    let balance = tx.balance(&month)?;
    let known = balance.spent.checked_add(balance.reserved).unwrap_or(balance.spent);
    let missing = continuity::carry_over(known, Some(own.committed), None).add_to_month;
    if let Some(least) = balance.spent.checked_add(missing) {
        // What is reserved is spent when the recovery ends its tasks.
        let _raised = tx.raise_spent(&month, least, CostBasis::Reserved)?;
    }
    Ok(())
}
