//! The copies of the peers' chains on the share, read piece by piece. They are hints: anybody who writes the share may
//! have changed them.

use dispatch_core::protocol::names::NodeName;
use dispatch_node::config::Config;
use dispatch_spool::{Dir, File, LIST_ENTRIES_MAX, PosixShare, Share as _};

use crate::context::share;

/// How much of a copy is read at most, from its end.
const COPY_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The copies, and how far each was read.
pub(super) struct Copies {
    share: Option<PosixShare>,
    read: Vec<(NodeName, u64)>,
}

impl Copies {
    pub(super) const fn none() -> Copies {
        Copies { share: None, read: Vec::new() }
    }

    pub(super) fn of_peers(config: &Config) -> Copies {
        Copies {
            share: Some(share(config)),
            read: config.peers.keys().map(|peer| (peer.clone(), 0)).collect(),
        }
    }

    /// Whole lines that came since the last reading; what cannot be read is left for the next.
    pub(super) fn read(&mut self) -> Vec<String> {
        let Some(share) = &self.share else { return Vec::new() };
        let mut lines = Vec::new();
        for (peer, from) in &mut self.read {
            lines.extend(read_on(share, peer, from).unwrap_or_default());
        }
        lines
    }
}

/// The whole lines behind `from`, which is moved behind them.
fn read_on(share: &PosixShare, peer: &NodeName, from: &mut u64) -> Option<Vec<String>> {
    let file = File::AuditCopy(peer.clone());
    if *from == 0 && !share.list(&Dir::Logs, LIST_ENTRIES_MAX).ok()?.holds(&file) {
        return None;
    }
    let length = share.stat(&file).ok()?.bytes;
    // A copy that was repaired may be shorter than what was read.
    let start = if *from > length { 0 } else { (*from).max(length.saturating_sub(COPY_BYTES_MAX)) };
    let part = share.read_part(&file, start, COPY_BYTES_MAX).ok()?;
    let whole = part.bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at.saturating_add(1));
    *from = start.saturating_add(u64::try_from(whole).unwrap_or(0));
    let text = String::from_utf8_lossy(part.bytes.get(..whole).unwrap_or_default()).into_owned();
    Some(text.lines().map(str::to_owned).collect())
}
