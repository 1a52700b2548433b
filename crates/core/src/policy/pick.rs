//! `--to auto`: which peer a task is sent to, by what the peers last said of themselves (policy sections 4 to 6).

use std::cmp::Reverse;
use std::fmt;

use crate::policy::routing::{self, BackendKind, NegativeVram, Requirements, SdkUse, Selection};
use crate::protocol::fraction::Fraction;
use crate::protocol::heartbeat::{BackendOffer, Heartbeat, NodeState};
use crate::protocol::names::{Name, NodeName};

/// What is asked of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The profile it must have.
    pub profile: Name,
    /// What one of its backends must offer.
    pub requirements: Requirements,
    /// Whether the task consents to a hosted API. Whether the peer does is its own to say: it offers one only then.
    pub sdk: SdkUse,
}

/// A peer, as far as it is known.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// Its name.
    pub node: &'a NodeName,
    /// What it said last, where that is recent enough to count as alive.
    pub heartbeat: Option<&'a Heartbeat>,
}

/// Why a peer is passed by; the first that holds is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PassedBy {
    /// It shows no recent heartbeat.
    NotAlive,
    /// A killswitch stops it.
    Stopped,
    /// It drains, is in maintenance, or in recovery.
    NotActive,
    /// It asks not to be sent more.
    Full,
    /// It has no profile of that name.
    NoProfile,
    /// No backend of it offers what is required.
    NoBackend,
}

impl PassedBy {
    /// The word for programs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            PassedBy::NotAlive => "not_alive",
            PassedBy::Stopped => "stopped",
            PassedBy::NotActive => "not_active",
            PassedBy::Full => "full",
            PassedBy::NoProfile => "no_profile",
            PassedBy::NoBackend => "no_backend",
        }
    }
}

impl fmt::Display for PassedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PassedBy::NotAlive => "it shows no heartbeat of the last 90 s",
            PassedBy::Stopped => "a killswitch stops it",
            PassedBy::NotActive => "it drains or is in maintenance",
            PassedBy::Full => "it is at capacity",
            PassedBy::NoProfile => "it has no such profile",
            PassedBy::NoBackend => "no backend of it offers what is required",
        })
    }
}

/// The choice of a peer.
#[must_use]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pick<'a> {
    /// This one.
    Peer(&'a NodeName),
    /// None, and why not each of them.
    None(Vec<(&'a NodeName, PassedBy)>),
}

/// The best peer: by the kind of the backend that would run it, then a free place before none, then the shorter queue
/// for its places, then by name.
pub fn pick<'a>(peers: &[Known<'a>], wanted: &Wanted) -> Pick<'a> {
    let mut best: Option<(Rank<'a>, &'a NodeName)> = None;
    let mut passed = Vec::new();
    for peer in peers {
        match judge(peer, wanted) {
            Ok(rank) if best.as_ref().is_none_or(|(known, _)| rank < *known) => {
                best = Some((rank, peer.node));
            }
            Ok(_) => {}
            Err(why) => passed.push((peer.node, why)),
        }
    }
    best.map_or(Pick::None(passed), |(_, node)| Pick::Peer(node))
}

/// Smaller is better.
type Rank<'a> = (BackendKind, Reverse<bool>, u64, &'a NodeName);

fn judge<'a>(peer: &Known<'a>, wanted: &Wanted) -> Result<Rank<'a>, PassedBy> {
    let beat = peer.heartbeat.ok_or(PassedBy::NotAlive)?;
    if beat.killswitch.tripped {
        return Err(PassedBy::Stopped);
    }
    match beat.state {
        NodeState::Active => {}
        NodeState::EnteringMaintenance
        | NodeState::Maintenance
        | NodeState::ExitingMaintenance
        | NodeState::DrainFailed
        | NodeState::Recovery => return Err(PassedBy::NotActive),
    }
    if beat.backpressure.on {
        return Err(PassedBy::Full);
    }
    if !beat.capabilities.iter().any(|name| name == wanted.profile.as_str()) {
        return Err(PassedBy::NoProfile);
    }
    let kind = backend(&beat.backends, wanted).ok_or(PassedBy::NoBackend)?;
    let load = &beat.load;
    let ahead = load.queued.saturating_add(load.running);
    let has_place = Reverse(ahead < load.capacity);
    // Thousandths of a turn: how often its places must be filled before this task has one.
    let turns = ahead.saturating_mul(1_000).checked_div(load.capacity).unwrap_or(u64::MAX);
    Ok((kind, has_place, turns, peer.node))
}

/// The kind of the backend that would run it there.
fn backend(offers: &[BackendOffer], wanted: &Wanted) -> Option<BackendKind> {
    let offered: Vec<routing::Backend> = offers.iter().filter_map(of_offer).collect();
    match routing::select_backend(&offered, &wanted.requirements, wanted.sdk) {
        Ok(Selection::Backend(backend)) => Some(backend.kind),
        Ok(Selection::NoneEligible(_)) | Err(NegativeVram) => None,
    }
}

/// A heartbeat's lists cannot say "any": an empty one does.
fn of_offer(offer: &BackendOffer) -> Option<routing::Backend> {
    let listed = |names: &Vec<String>| (!names.is_empty()).then(|| names.clone());
    let vram = offer.vram_gb.or_else(|| offer.has_gpu.then_some(Fraction::ZERO));
    Some(routing::Backend {
        name: offer.name.clone(),
        kind: BackendKind::parse(&offer.kind)?,
        available_vram_gb: vram.map(routing::gigabytes),
        images: listed(&offer.images),
        tools: listed(&offer.tools),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use uuid::Uuid;

    use super::*;
    use crate::policy::dec::Dec;
    use crate::protocol::heartbeat::{Backpressure, BudgetLevels, KillswitchState, Load, Trend, WatchInfo};
    use crate::protocol::names::Digest;
    use crate::protocol::parts::AuditHead;
    use crate::protocol::time::Timestamp;

    fn node(name: &str) -> NodeName {
        NodeName::new(name).unwrap()
    }

    fn offer(kind: BackendKind, vram_gb: Option<u64>) -> BackendOffer {
        BackendOffer {
            name: kind.to_string(),
            kind: kind.to_string(),
            has_gpu: vram_gb.is_some(),
            vram_gb: vram_gb.map(|gb| Fraction::from_thousandths(gb * 1_000)),
            tools: vec![],
            images: vec![],
        }
    }

    /// A node with two places, of which so many are taken or waited for.
    fn beat(ahead: u64) -> Heartbeat {
        Heartbeat {
            cluster: Uuid::nil(),
            node: node("gpubox"),
            instance: Uuid::nil(),
            boot: 1,
            seq: 1,
            ts: Timestamp::from_unix_ms(0),
            version: "0.1.0".to_owned(),
            state: NodeState::Active,
            load: Load {
                queued: ahead,
                waiting: 0,
                running: 0,
                capacity: 2,
                saturation: Fraction::ZERO,
                trend: Trend::Steady,
                cpu_load_1m: Fraction::ZERO,
                mem_used_bytes: 0,
                mem_total_bytes: 0,
                disk_used_bytes: 0,
                disk_total_bytes: 0,
            },
            backpressure: Backpressure { on: false, level: 0, retry_after_s: None },
            capabilities: vec!["default".to_owned()],
            backends: vec![offer(BackendKind::Local, None)],
            budget: BudgetLevels::default(),
            killswitch: KillswitchState::default(),
            watch: WatchInfo { strategy: "poll".to_owned(), poll_ms: 1_000 },
            audit: AuditHead { chain: Uuid::nil(), seq: 0, head: Digest::of(b"") },
            peers_seen: BTreeMap::new(),
        }
    }

    fn wanted() -> Wanted {
        Wanted {
            profile: Name::new("default").unwrap(),
            requirements: Requirements::default(),
            sdk: SdkUse::Denied,
        }
    }

    /// The pick among `a`, `b`, …, in the order given.
    fn picked(beats: &[Heartbeat], wanted: &Wanted) -> Result<String, Vec<PassedBy>> {
        let names: Vec<NodeName> = ('a'..).take(beats.len()).map(|name| node(&name.to_string())).collect();
        let peers: Vec<Known<'_>> =
            names.iter().zip(beats).map(|(node, beat)| Known { node, heartbeat: Some(beat) }).collect();
        match pick(&peers, wanted) {
            Pick::Peer(node) => Ok(node.to_string()),
            Pick::None(passed) => Err(passed.into_iter().map(|(_, why)| why).collect()),
        }
    }

    #[test]
    fn the_peer_with_a_free_place_and_the_shorter_queue_is_picked() {
        assert_eq!(picked(&[beat(2), beat(1)], &wanted()).as_deref(), Ok("b"));
        assert_eq!(picked(&[beat(5), beat(4), beat(9)], &wanted()).as_deref(), Ok("b"));
        assert_eq!(picked(&[beat(1), beat(1)], &wanted()).as_deref(), Ok("a"));
    }

    #[test]
    fn a_local_backend_is_preferred_to_a_free_place_elsewhere() {
        let cloud = Heartbeat { backends: vec![offer(BackendKind::CloudWorker, None)], ..beat(0) };
        assert_eq!(picked(&[cloud, beat(7)], &wanted()).as_deref(), Ok("b"));
    }

    #[test]
    fn what_is_required_decides_first() {
        let gpu = Heartbeat { backends: vec![offer(BackendKind::Local, Some(24))], ..beat(9) };
        let min_vram_gb = Some(Dec::parse("16").unwrap());
        let wanted =
            Wanted { requirements: Requirements { min_vram_gb, ..Requirements::default() }, ..wanted() };
        assert_eq!(picked(&[beat(0), gpu], &wanted).as_deref(), Ok("b"));
        assert_eq!(picked(&[beat(0)], &wanted), Err(vec![PassedBy::NoBackend]));
    }

    #[test]
    fn a_peer_that_cannot_take_it_is_named_with_its_reason() {
        let tripped = KillswitchState { tripped: true, mode: None, reason: None };
        let beats = [
            Heartbeat { killswitch: tripped, ..beat(0) },
            Heartbeat { state: NodeState::Maintenance, ..beat(0) },
            Heartbeat { backpressure: Backpressure { on: true, level: 80, retry_after_s: None }, ..beat(0) },
            Heartbeat { capabilities: vec![], ..beat(0) },
            Heartbeat { backends: vec![offer(BackendKind::Sdk, None)], ..beat(0) },
        ];
        let whys = [
            PassedBy::Stopped,
            PassedBy::NotActive,
            PassedBy::Full,
            PassedBy::NoProfile,
            PassedBy::NoBackend,
        ];
        assert_eq!(picked(&beats, &wanted()), Err(whys.to_vec()));
        let name = node("a");
        let silent = [Known { node: &name, heartbeat: None }];
        assert_eq!(pick(&silent, &wanted()), Pick::None(vec![(&name, PassedBy::NotAlive)]));
    }

    #[test]
    fn a_hosted_api_is_picked_only_with_the_tasks_consent() {
        let hosted = [Heartbeat { backends: vec![offer(BackendKind::Sdk, None)], ..beat(0) }];
        assert_eq!(picked(&hosted, &Wanted { sdk: SdkUse::Allowed, ..wanted() }).as_deref(), Ok("a"));
    }
}
