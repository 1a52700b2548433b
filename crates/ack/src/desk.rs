//! What the command starts from: configuration, share, and the lanes whose keys this node holds.

use dispatch_core::protocol::keys::{KeyRing, LaneRing};
use dispatch_core::protocol::names::{Lane, NodeName};
use dispatch_node::config::Config;
use dispatch_node::keys::{self, Keys};
use dispatch_node::report::Report;
use dispatch_spool::root::look;
use dispatch_spool::{PosixShare, RootLook, Share};

use crate::args::Door;

/// A lane and what verifies on it.
#[derive(Debug)]
pub(crate) struct LaneHere {
    pub(crate) lane: Lane,
    pub(crate) ring: LaneRing,
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
    let here = |(peer, ring): (&NodeName, &KeyRing)| {
        let lane = Lane::new(peer.clone(), config.node.clone());
        LaneHere { ring: ring.lane(&lane), lane }
    };
    Ok(keys.iter().map(here).collect())
}

fn outgoing(config: &Config) -> Result<Vec<LaneHere>, Report> {
    let here = |peer: &NodeName| {
        let lane = Lane::new(config.node.clone(), peer.clone());
        Ok(LaneHere { ring: keys::outgoing(config, peer)?, lane })
    };
    config.peers.keys().map(here).collect()
}
