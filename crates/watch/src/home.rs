//! What this watcher is: its node, its peers' keys, its boot.

use std::collections::BTreeMap;

use dispatch_core::policy::window::Caps;
use dispatch_core::protocol::keys::{KeyRing, LaneRing};
use dispatch_core::protocol::names::{Lane, NodeName};
use dispatch_core::protocol::reason::ReasonCode;
use dispatch_core::protocol::v2::{Bounds, FlatRing};
use dispatch_node::config::{Config, Peer, Version2};
use dispatch_node::keys::{self, KeyError, Keys};
use uuid::Uuid;

/// One peer, as its messages are judged and answered.
pub(crate) struct PeerHome {
    /// The lane it sends on.
    pub(crate) lane_in: Lane,
    /// The lane this node sends on.
    pub(crate) lane_out: Lane,
    /// Keys of the lane it sends on: its tasks, my results.
    pub(crate) ring_in: LaneRing,
    /// Keys of the lane this node sends on: my tasks, its results.
    pub(crate) ring_out: LaneRing,
    /// Keys that this node's terms on that lane are sealed with: those of the lane, or what is made of a version-2 key.
    pub(crate) ring_terms: LaneRing,
    /// Only for a peer of version 2; the rings of its lanes are empty, so that nothing of version 3 opens.
    pub(crate) flat: Option<FlatPeer>,
}

/// A peer that speaks version 2.
pub(crate) struct FlatPeer {
    pub(crate) ring: FlatRing,
    pub(crate) allowed: Version2,
}

/// This watcher.
pub(crate) struct Home {
    pub(crate) config: Config,
    pub(crate) node: NodeName,
    pub(crate) cluster: Uuid,
    pub(crate) instance: Uuid,
    pub(crate) boot: u64,
    pub(crate) keys: Keys,
    pub(crate) peers: BTreeMap<NodeName, PeerHome>,
    /// The approvers' file, as it was read; read again with the configuration.
    pub(crate) approvers: String,
    /// The wall clock disagrees with the ledger's.
    pub(crate) clock_suspect: bool,
}

impl Home {
    /// Reads keys and approvers for a configuration.
    pub(crate) fn new(config: Config, instance: Uuid) -> Result<Home, KeyError> {
        let keys = Keys::load(&config)?;
        let approvers = keys::approvers_text(&config)?;
        let mut peers = BTreeMap::new();
        for name in config.peers.keys() {
            let lane_in = Lane::new(name.clone(), config.node.clone());
            let lane_out = lane_in.reversed();
            let ring = keys.flat(name).cloned();
            let ring_in = keys.lane(&config.node, &lane_in);
            let home = PeerHome {
                ring_terms: ring.as_ref().map_or_else(|| ring_in.clone(), |ring| ring.terms(&lane_in)),
                flat: ring
                    .zip(config.peer(name).and_then(Peer::version_2))
                    .map(|(ring, allowed)| FlatPeer { ring, allowed }),
                ring_in,
                ring_out: keys.lane(&config.node, &lane_out),
                lane_in,
                lane_out,
            };
            peers.insert(name.clone(), home);
        }
        Ok(Home {
            node: config.node.clone(),
            cluster: config.cluster,
            instance,
            boot: 0,
            keys,
            peers,
            approvers,
            clock_suspect: false,
            config,
        })
    }

    /// This node's caps.
    pub(crate) fn caps(&self) -> Caps {
        self.config.budget.caps
    }

    /// True where only the time speaks against a file and nobody here knows the time: it lies there until the clock agrees.
    pub(crate) fn cannot_tell(&self, code: ReasonCode) -> bool {
        self.clock_suspect && matches!(code, ReasonCode::Expired | ReasonCode::FromTheFuture)
    }

    /// What bounds a version-2 peer's tasks; `None` for a peer of version 3 and for one that is no peer any more.
    pub(crate) fn bounds(&self, from: &NodeName) -> Option<Bounds> {
        self.peers.get(from)?.flat.as_ref().map(|flat| flat.allowed.bounds)
    }

    /// Every peer's pair keys.
    pub(crate) fn rings(&self) -> impl Iterator<Item = (&NodeName, &KeyRing)> {
        self.keys.iter()
    }
}
