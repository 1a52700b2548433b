//! What it takes to send on one lane and to hear the answers: for `dispatch-send`, and for `dispatchctl` where it speaks
//! as the sender of a task.

use std::path::PathBuf;

use dispatch_core::protocol::accept::{Me, Verdict, accept_heartbeat};
use dispatch_core::protocol::heartbeat::Heartbeat;
use dispatch_core::protocol::keys::{KeyRing, LaneRing};
use dispatch_core::protocol::limits::SMALL_ENVELOPE_BYTES_MAX;
use dispatch_core::protocol::names::{Lane, NodeName, TaskId};
use dispatch_core::protocol::time::Timestamp;
use dispatch_core::protocol::v2::FlatRing;
use dispatch_spool::{Dir, File, LIST_ENTRIES_MAX, PosixShare, RootLook, Share, root};
use uuid::Uuid;

use crate::clock;
use crate::config::Config;
use crate::keys::{self, KeyError};
use crate::outgoing::{Mailbox, Outgoing, OutgoingError};
use crate::report::Report;
use crate::state::{StateDir, Watched, watched};

/// One lane as its sender has it.
#[derive(Clone, Debug)]
pub struct Desk {
    /// This node.
    pub node: NodeName,
    /// The cluster.
    pub cluster: Uuid,
    /// The lane.
    pub lane: Lane,
    /// The share.
    pub share: PosixShare,
    /// The keys of the lane.
    pub keys: LaneRing,
    /// The keys of a version-2 peer; `None` for one of version 3.
    pub flat: Option<FlatRing>,
    /// The keys shared with the peer; `None` for people who hold the outgoing lane's key only.
    pub pair: Option<KeyRing>,
    /// The state directory.
    pub state: StateDir,
    /// The sender's half.
    pub outgoing: Outgoing,
}

impl Desk {
    /// Reads the keys of the lane to a peer and makes what is missing of the sender's half.
    ///
    /// # Errors
    /// A peer or key that is not usable, a state directory that may not be where it is or cannot be made.
    pub fn open(config: &Config, peer: &NodeName) -> Result<Desk, Report> {
        config.state.create(&config.root)?;
        let lane = Lane::new(config.node.clone(), peer.clone());
        let (keys, pair) = keys_of(config, peer, &lane)?;
        Ok(Desk {
            node: config.node.clone(),
            cluster: config.cluster,
            share: PosixShare::new(config.root.clone(), config.node.clone()),
            keys,
            flat: keys::flat_ring(config, peer)?,
            pair,
            outgoing: Outgoing::open(&config.state, &lane)?,
            state: config.state.clone(),
            lane,
        })
    }

    /// The share with what it takes to send, now.
    #[must_use]
    pub fn mail(&self) -> Mailbox<'_> {
        Mailbox {
            share: &self.share,
            keys: &self.keys,
            flat: self.flat.as_ref(),
            cluster: self.cluster,
            node: &self.node,
            now: clock::now(),
        }
    }

    /// Looks whether the share is ours and whether something stops the lane.
    pub fn look(&self) -> RootLook {
        root::look(&self.share, self.cluster, std::slice::from_ref(&self.lane))
    }

    /// Where a task of this lane is put; for messages.
    #[must_use]
    pub fn inbox_path(&self, id: TaskId) -> PathBuf {
        self.share.root().join(File::inbox(&self.lane, id).path())
    }

    /// Who brings kept tasks to the share later, as the end of a sentence.
    #[must_use]
    pub fn who_flushes(&self) -> &'static str {
        match watched(&self.state) {
            Ok(Watched::Held) => "by itself or with the next send",
            Ok(Watched::Free) | Err(_) => "with the next send from here",
        }
    }

    /// The last heartbeat of the peer, if it verifies and this process holds the key for that. How old it is nobody can say
    /// who does not watch: its own clock is in it.
    ///
    /// # Errors
    /// The share's refusal.
    pub fn heartbeat(&self) -> Result<Option<Heartbeat>, OutgoingError> {
        let Some(pair) = &self.pair else { return Ok(None) };
        let file = File::Heartbeat(self.lane.to.clone());
        // Listed first: opened by name, a replaced file may be an old version of itself on NFS.
        if !self.share.list(&Dir::Heartbeats, LIST_ENTRIES_MAX)?.holds(&file) {
            return Ok(None);
        }
        let limit = u64::try_from(SMALL_ENVELOPE_BYTES_MAX).unwrap_or(u64::MAX);
        // A heartbeat that cannot be read says nothing, like one that does not verify.
        let Ok(bytes) = self.share.read(&file, limit) else { return Ok(None) };
        match accept_heartbeat(&bytes, &self.lane.to, &self.me(clock::now()), &[pair], None) {
            Verdict::Accepted(heartbeat) => Ok(Some(heartbeat.into_parts().0)),
            Verdict::Refused(_) => Ok(None),
        }
    }

    fn me(&self, now: Timestamp) -> Me<'_> {
        Me { cluster: self.cluster, node: &self.node, now }
    }
}

fn keys_of(config: &Config, peer: &NodeName, lane: &Lane) -> Result<(LaneRing, Option<KeyRing>), KeyError> {
    match config.peer(peer) {
        Some(entry) if entry.lane_key.is_some() => Ok((keys::outgoing(config, peer)?, None)),
        Some(_) | None => {
            let pair = keys::ring(config, peer)?;
            Ok((pair.lane(lane), Some(pair)))
        }
    }
}
