//! Heartbeats as this node can verify them, read once.

use dispatch_core::protocol::Heartbeat;
use dispatch_core::protocol::accept::{Me, Verdict, accept_heartbeat};
use dispatch_core::protocol::keys::KeyRing;
use dispatch_core::protocol::limits::SMALL_ENVELOPE_BYTES_MAX;
use dispatch_core::protocol::names::NodeName;
use dispatch_node::clock;
use dispatch_node::config::Config;
use dispatch_node::keys::Keys;
use dispatch_node::report::Report;
use dispatch_spool::{Dir, File, LIST_ENTRIES_MAX, PosixShare, Share as _, ShareError};

use crate::context::share;

/// A heartbeat whose own time is older than this comes from a node that is not there; a hint, since clocks differ.
const ALIVE_MS: i64 = 90_000;

/// Reads heartbeats of this node and its peers.
pub(crate) struct Beats<'a> {
    config: &'a Config,
    keys: Keys,
    share: PosixShare,
}

impl<'a> Beats<'a> {
    pub(crate) fn of(config: &'a Config) -> Result<Beats<'a>, Report> {
        Ok(Beats { config, keys: Keys::load(config)?, share: share(config) })
    }

    /// The heartbeat of a node, if one is there that verifies.
    pub(crate) fn read(&self, node: &NodeName) -> Result<Option<Heartbeat>, ShareError> {
        let file = File::Heartbeat(node.clone());
        // Listed first: a file replaced elsewhere and opened by name may be an old version of itself.
        if !self.share.list(&Dir::Heartbeats, LIST_ENTRIES_MAX)?.holds(&file) {
            return Ok(None);
        }
        let limit = u64::try_from(SMALL_ENVELOPE_BYTES_MAX).unwrap_or(u64::MAX);
        let Ok(bytes) = self.share.read(&file, limit) else { return Ok(None) };
        let rings: Vec<&KeyRing> = self
            .keys
            .iter()
            .filter(|(peer, _)| *node == self.config.node || *peer == node)
            .map(|(_, ring)| ring)
            .collect();
        let me = Me { cluster: self.config.cluster, node: &self.config.node, now: clock::now() };
        Ok(match accept_heartbeat(&bytes, node, &me, &rings, None) {
            Verdict::Accepted(verified) => Some(verified.into_parts().0),
            Verdict::Refused(_) => None,
        })
    }

    /// The same, only from a node that seems to be there.
    pub(crate) fn read_alive(&self, node: &NodeName) -> Result<Option<Heartbeat>, ShareError> {
        let alive = |beat: &Heartbeat| clock::now().since_ms(beat.ts) < ALIVE_MS;
        Ok(self.read(node)?.filter(alive))
    }
}
