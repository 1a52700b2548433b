//! Liveness and capabilities of a node: the payload `heartbeat.v1` (protocol section 7).

use std::collections::BTreeMap;

use uuid::Uuid;

use crate::policy::money::Usd;
use crate::protocol::fraction::Fraction;
use crate::protocol::limits;
use crate::protocol::members::{self, FormError, Members};
use crate::protocol::names::NodeName;
use crate::protocol::parts::AuditHead;
use crate::protocol::payload::{Kind, Payload};
use crate::protocol::time::Timestamp;
use crate::protocol::writer::{Emit, Object, object};

crate::protocol::words::words! {
    /// What a node is doing.
    pub enum NodeState {
        /// It takes work.
        Active = "active",
        /// It drains.
        EnteringMaintenance = "entering_maintenance",
        /// It is drained.
        Maintenance = "maintenance",
        /// It comes back.
        ExitingMaintenance = "exiting_maintenance",
        /// Its drain ran out of grace.
        DrainFailed = "drain_failed",
        /// Its ledger is older than what it showed.
        Recovery = "recovery",
    }
}

crate::protocol::words::words! {
    /// Where the load goes.
    pub enum Trend {
        /// Up.
        Rising = "rising",
        /// Nowhere.
        Steady = "steady",
        /// Down.
        Falling = "falling",
    }
}

crate::protocol::words::words! {
    /// How a killswitch stops (protocol section 8).
    pub enum KillMode {
        /// Running agents finish.
        Halt = "halt",
        /// Running agents are ended too.
        Kill = "kill",
    }
}

/// How busy the node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Tasks that wait for a place.
    pub queued: u64,
    /// Tasks that wait for a human.
    pub waiting: u64,
    /// Attempts that run.
    pub running: u64,
    /// Attempts that may run at once.
    pub capacity: u64,
    /// running / capacity.
    pub saturation: Fraction,
    /// Where it goes.
    pub trend: Trend,
    /// The machine's load average over a minute.
    pub cpu_load_1m: Fraction,
    /// Memory in use.
    pub mem_used_bytes: u64,
    /// Memory in all.
    pub mem_total_bytes: u64,
    /// Disk in use.
    pub disk_used_bytes: u64,
    /// Disk in all.
    pub disk_total_bytes: u64,
}

impl Load {
    fn read(members: &mut Members<'_, '_>) -> Result<Load, FormError> {
        Ok(Load {
            queued: members.required("queued", members::count)?,
            waiting: members.required("waiting", members::count)?,
            running: members.required("running", members::count)?,
            capacity: members.required("capacity", members::count)?,
            saturation: members.required("saturation", members::fraction)?,
            trend: members.required("trend", members::word)?,
            cpu_load_1m: members.required("cpu_load_1m", members::fraction)?,
            mem_used_bytes: members.required("mem_used_bytes", members::count)?,
            mem_total_bytes: members.required("mem_total_bytes", members::count)?,
            disk_used_bytes: members.required("disk_used_bytes", members::count)?,
            disk_total_bytes: members.required("disk_total_bytes", members::count)?,
        })
    }
}

impl Emit for Load {
    fn emit(&self, out: &mut String) {
        object(out, |o| {
            o.put("queued", &self.queued)
                .put("waiting", &self.waiting)
                .put("running", &self.running)
                .put("capacity", &self.capacity)
                .put("saturation", &self.saturation)
                .put("trend", &self.trend)
                .put("cpu_load_1m", &self.cpu_load_1m)
                .put("mem_used_bytes", &self.mem_used_bytes)
                .put("mem_total_bytes", &self.mem_total_bytes)
                .put("disk_used_bytes", &self.disk_used_bytes)
                .put("disk_total_bytes", &self.disk_total_bytes);
        });
    }
}

/// Whether senders should wait (policy section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backpressure {
    /// True from 80 % of the places on.
    pub on: bool,
    /// 0 to 100.
    pub level: u8,
    /// When to try again, in seconds.
    pub retry_after_s: Option<u64>,
}

impl Backpressure {
    fn read(members: &mut Members<'_, '_>) -> Result<Backpressure, FormError> {
        let level_max = i64::from(limits::BACKPRESSURE_LEVEL_MAX);
        Ok(Backpressure {
            on: members.required("on", members::flag)?,
            level: members.required("level", members::int(0..=level_max))?,
            retry_after_s: members.nullable("retry_after_s", members::count)?,
        })
    }
}

impl Emit for Backpressure {
    fn emit(&self, out: &mut String) {
        object(out, |o| {
            o.put("on", &self.on).put("level", &self.level).put("retry_after_s", &self.retry_after_s);
        });
    }
}

/// A backend that the node offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendOffer {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// Whether it has a GPU.
    pub has_gpu: bool,
    /// Its free GPU memory, in GB.
    pub vram_gb: Option<Fraction>,
    /// Tools it offers.
    pub tools: Vec<String>,
    /// Images it has.
    pub images: Vec<String>,
}

impl BackendOffer {
    fn read(members: &mut Members<'_, '_>) -> Result<BackendOffer, FormError> {
        let texts = || members::list(limits::LIST_LEN_MAX, members::text);
        Ok(BackendOffer {
            name: members.required("name", members::text)?,
            kind: members.required("kind", members::text)?,
            has_gpu: members.required("has_gpu", members::flag)?,
            vram_gb: members.nullable("vram_gb", members::fraction)?,
            tools: members.required("tools", texts())?,
            images: members.required("images", texts())?,
        })
    }
}

impl Emit for BackendOffer {
    fn emit(&self, out: &mut String) {
        object(out, |o| {
            o.put("name", &self.name)
                .put("kind", &self.kind)
                .put("has_gpu", &self.has_gpu)
                .put("vram_gb", &self.vram_gb)
                .put("tools", &self.tools)
                .put("images", &self.images);
        });
    }
}

/// What a window of the budget holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WindowLevel {
    /// Reserved and spent.
    pub committed: Usd,
    /// Its cap.
    pub cap: Usd,
}

impl WindowLevel {
    fn read(members: &mut Members<'_, '_>) -> Result<WindowLevel, FormError> {
        Ok(WindowLevel {
            committed: members.required("committed", members::money)?,
            cap: members.required("cap", members::money)?,
        })
    }
}

impl Emit for WindowLevel {
    fn emit(&self, out: &mut String) {
        object(out, |o| {
            o.put("committed", &self.committed).put("cap", &self.cap);
        });
    }
}

/// The windows of the budget that a node shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BudgetLevels {
    /// The run window.
    pub run: WindowLevel,
    /// The month window: what a lost ledger learns its spending from.
    pub month: WindowLevel,
}

impl BudgetLevels {
    fn read(members: &mut Members<'_, '_>) -> Result<BudgetLevels, FormError> {
        Ok(BudgetLevels {
            run: members.required("run", members::object(WindowLevel::read))?,
            month: members.required("month", members::object(WindowLevel::read))?,
        })
    }
}

impl Emit for BudgetLevels {
    fn emit(&self, out: &mut String) {
        object(out, |o| {
            o.put("run", &self.run).put("month", &self.month);
        });
    }
}

/// Whether the node is stopped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KillswitchState {
    /// True until it is resumed.
    pub tripped: bool,
    /// How it stops.
    pub mode: Option<KillMode>,
    /// What was written into the switch.
    pub reason: Option<String>,
}

impl KillswitchState {
    fn read(members: &mut Members<'_, '_>) -> Result<KillswitchState, FormError> {
        Ok(KillswitchState {
            tripped: members.required("tripped", members::flag)?,
            mode: members.nullable("mode", members::word)?,
            reason: members.nullable("reason", members::text)?,
        })
    }
}

impl Emit for KillswitchState {
    fn emit(&self, out: &mut String) {
        object(out, |o| {
            o.put("tripped", &self.tripped).put("mode", &self.mode).put("reason", &self.reason);
        });
    }
}

/// How the node watches the share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchInfo {
    /// `inotify`, `poll`, `smb-notify`.
    pub strategy: String,
    /// Milliseconds between its looks.
    pub poll_ms: u64,
}

impl WatchInfo {
    fn read(members: &mut Members<'_, '_>) -> Result<WatchInfo, FormError> {
        Ok(WatchInfo {
            strategy: members.required("strategy", members::text)?,
            poll_ms: members.required("poll_ms", members::count)?,
        })
    }
}

impl Emit for WatchInfo {
    fn emit(&self, out: &mut String) {
        object(out, |o| {
            o.put("strategy", &self.strategy).put("poll_ms", &self.poll_ms);
        });
    }
}

/// The last a node saw of a peer: an echo, from which come round trips, one-way outages and witnesses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerEcho {
    /// The boot of its highest heartbeat.
    pub boot: u64,
    /// The seq of its highest heartbeat.
    pub seq: u64,
    /// The audit head in it.
    pub audit: AuditHead,
}

impl PeerEcho {
    fn read(members: &mut Members<'_, '_>) -> Result<PeerEcho, FormError> {
        Ok(PeerEcho {
            boot: members.required("boot", members::count)?,
            seq: members.required("seq", members::count)?,
            audit: members.required("audit", members::object(AuditHead::read))?,
        })
    }
}

impl Emit for PeerEcho {
    fn emit(&self, out: &mut String) {
        object(out, |o| {
            o.put("boot", &self.boot).put("seq", &self.seq).put("audit", &self.audit);
        });
    }
}

/// Liveness and capabilities of a node, written every 10 s and on every change of `state`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// The cluster.
    pub cluster: Uuid,
    /// The node.
    pub node: NodeName,
    /// Drawn at random at every start of a watcher.
    pub instance: Uuid,
    /// The number of this start.
    pub boot: u64,
    /// Counts the heartbeats of this start.
    pub seq: u64,
    /// The node's clock.
    pub ts: Timestamp,
    /// The release it runs.
    pub version: String,
    /// What it is doing.
    pub state: NodeState,
    /// How busy it is.
    pub load: Load,
    /// Whether senders should wait.
    pub backpressure: Backpressure,
    /// What it can do.
    pub capabilities: Vec<String>,
    /// Backends it offers.
    pub backends: Vec<BackendOffer>,
    /// Its budget.
    pub budget: BudgetLevels,
    /// Whether it is stopped.
    pub killswitch: KillswitchState,
    /// How it watches the share.
    pub watch: WatchInfo,
    /// Where its audit chain stands.
    pub audit: AuditHead,
    /// What it saw of its peers.
    pub peers_seen: BTreeMap<NodeName, PeerEcho>,
}

impl Heartbeat {
    /// (boot, seq): a peer is alive when this exceeds the highest ever seen.
    #[must_use]
    pub const fn position(&self) -> (u64, u64) {
        (self.boot, self.seq)
    }
}

impl Payload for Heartbeat {
    const KIND: Kind = Kind::Heartbeat;

    fn read_members(members: &mut Members<'_, '_>) -> Result<Heartbeat, FormError> {
        let backends = members::list(limits::LIST_LEN_MAX, members::object(BackendOffer::read));
        Ok(Heartbeat {
            cluster: members.required("cluster", members::uuid)?,
            node: members.required("node", members::node)?,
            instance: members.required("instance", members::uuid)?,
            boot: members.required("boot", members::count)?,
            seq: members.required("seq", members::count)?,
            ts: members.required("ts", members::time)?,
            version: members.required("version", members::text)?,
            state: members.required("state", members::word)?,
            load: members.required("load", members::object(Load::read))?,
            backpressure: members.required("backpressure", members::object(Backpressure::read))?,
            capabilities: members
                .required("capabilities", members::list(limits::LIST_LEN_MAX, members::text))?,
            backends: members.required("backends", backends)?,
            budget: members.required("budget", members::object(BudgetLevels::read))?,
            killswitch: members.required("killswitch", members::object(KillswitchState::read))?,
            watch: members.required("watch", members::object(WatchInfo::read))?,
            audit: members.required("audit", members::object(AuditHead::read))?,
            peers_seen: members.required("peers_seen", members::node_map(PeerEcho::read))?,
        })
    }

    fn write_members(&self, object: &mut Object<'_>) {
        object
            .put("cluster", &self.cluster)
            .put("node", &self.node)
            .put("instance", &self.instance)
            .put("boot", &self.boot)
            .put("seq", &self.seq)
            .put("ts", &self.ts)
            .put("version", &self.version)
            .put("state", &self.state)
            .put("load", &self.load)
            .put("backpressure", &self.backpressure)
            .put("capabilities", &self.capabilities)
            .put("backends", &self.backends)
            .put("budget", &self.budget)
            .put("killswitch", &self.killswitch)
            .put("watch", &self.watch)
            .put("audit", &self.audit)
            .put("peers_seen", &self.peers_seen);
    }
}
