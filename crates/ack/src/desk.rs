//! What the command starts from: configuration, share, and the lanes whose keys this node holds.

use dispatch_core::protocol::keys::LaneRing;
use dispatch_core::protocol::names::{Lane, NodeName};
use dispatch_core::protocol::v2::{Bounds, FlatRing};
use dispatch_node::config::{Config, Peer};
use dispatch_node::keys::{self, Keys};
use dispatch_node::report::Report;
use dispatch_spool::root::look;
use dispatch_spool::{PosixShare, RootLook, Share};

use crate::args::Door;

/// A lane and what verifies on it.
#[derive(Debug)]
pub(crate) struct LaneHere {
    pub(crate) lane: Lane,
    /// What verifies its tasks; empty for a version-2 peer.
    pub(crate) ring: LaneRing,
    /// What verifies the terms shown on it.
    pub(crate) terms: LaneRing,
    /// The keys of a version-2 peer's tasks, and what bounds them here.
    pub(crate) flat: Option<(FlatRing, Bounds)>,
}

/// Configuration, share and lanes.
pub(crate) struct Desk {
    pub(crate) config: Config,
    share: PosixShare,
    /// Those ending in this node first.
    pub(crate) lanes: Vec<LaneHere>,
}

impl Desk {
    /// Opens what the options ask for: a list looks at the lanes ending here unless it is told otherwise, a decision
    /// at every lane with a key, because a person may well approve from the sender's side.
    ///
    /// # Errors
    /// A configuration or key that does not hold, a peer that is not configured, a share that is not there.
    pub(crate) fn open(args: &Door) -> Result<Desk, Report> {
        let config = Config::load(args.common.config.as_deref())?;
        let share = PosixShare::new(config.root.clone(), config.node.clone());
        let mut lanes = incoming(&config)?;
        if args.all || args.id.is_some() {
            lanes.extend(outgoing(&config)?);
        }
        if let Some(from) = &args.from {
            lanes.retain(|here| here.lane.from == *from);
            if lanes.is_empty() {
                return Err(keys::KeyError::NoPeer { peer: from.clone() }.into());
            }
        }
        let names: Vec<Lane> = lanes.iter().map(|here| here.lane.clone()).collect();
        match look(&share, config.cluster, &names) {
            RootLook::Reachable(_) => Ok(Desk { config, share, lanes }),
            RootLook::Unreachable(why) => Err(why.into()),
        }
    }

    pub(crate) fn share(&self) -> &dyn Share {
        &self.share
    }
}

fn incoming(config: &Config) -> Result<Vec<LaneHere>, Report> {
    let keys = Keys::load(config)?;
    let here = |(peer, entry): (&NodeName, &Peer)| {
        let lane = Lane::new(peer.clone(), config.node.clone());
        let ring = keys.lane(&config.node, &lane);
        let flat = keys.flat(peer).cloned();
        let terms = flat.as_ref().map_or_else(|| ring.clone(), |flat| flat.terms(&lane));
        LaneHere { flat: flat.zip(entry.version_2().map(|allowed| allowed.bounds)), terms, ring, lane }
    };
    Ok(config.peers.iter().map(here).collect())
}

fn outgoing(config: &Config) -> Result<Vec<LaneHere>, Report> {
    let here = |peer: &NodeName| {
        let lane = Lane::new(config.node.clone(), peer.clone());
        let ring = keys::outgoing(config, peer)?;
        Ok(LaneHere { terms: ring.clone(), ring, flat: None, lane })
    };
    // A version-2 peer shows no terms: nobody decides about its tasks from here.
    config.peers.iter().filter(|(_, peer)| peer.version_2().is_none()).map(|(name, _)| here(name)).collect()
}
