//! What the peer's heartbeat shows of its keys: it is signed with each that it verifies with, the one that signs first.

use dispatch_core::protocol::keys::{PairKey, SealingKey as _};
use dispatch_core::protocol::limits::SMALL_ENVELOPE_BYTES_MAX;
use dispatch_core::protocol::names::NodeName;
use dispatch_core::protocol::payload::Kind;
use dispatch_core::protocol::seal::{RawEnvelope, pae};
use dispatch_node::config::Config;
use dispatch_spool::{Dir, File, LIST_ENTRIES_MAX, Share as _};

use crate::context::share;

/// A heartbeat of the peer, by its signatures; nothing in it is believed but what verifies.
pub(crate) struct Beat {
    /// What a signature covers.
    message: Vec<u8>,
    signatures: Vec<Vec<u8>>,
}

impl Beat {
    /// The one that lies on the share; `None` where there is none that could be read.
    pub(crate) fn of(config: &Config, peer: &NodeName) -> Option<Beat> {
        let (share, file) = (share(config), File::Heartbeat(peer.clone()));
        // Listed first: opened by name, a replaced file may be an old version of itself on NFS.
        if !share.list(&Dir::Heartbeats, LIST_ENTRIES_MAX).ok()?.holds(&file) {
            return None;
        }
        let limit = u64::try_from(SMALL_ENVELOPE_BYTES_MAX).unwrap_or(u64::MAX);
        let envelope = RawEnvelope::read(Kind::Heartbeat, &share.read(&file, limit).ok()?).ok()?;
        Some(Beat {
            message: pae(Kind::Heartbeat, envelope.unverified_payload()),
            signatures: envelope.unverified_signatures().iter().map(|one| one.sig.clone()).collect(),
        })
    }

    /// At which place this key's signature stands; `None` where it signed nothing.
    pub(crate) fn place_of(&self, key: &PairKey) -> Option<usize> {
        let parts = [self.message.as_slice()];
        self.signatures.iter().position(|signature| key.verifies_any(&parts, &[signature.as_slice()]))
    }
}
