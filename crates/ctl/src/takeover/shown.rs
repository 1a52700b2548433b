//! What a node already showed of itself on the share: boot records, its own heartbeat, and what its peers echo of it.
//! Only what verifies counts.

use dispatch_core::planner::ownership;
use dispatch_core::planner::rollback::{Head, Held, is_rolled_back};
use dispatch_core::policy::money::Usd;
use dispatch_core::protocol::Heartbeat;
use dispatch_core::protocol::accept::{Me, Verdict, accept_boot, accept_heartbeat};
use dispatch_core::protocol::keys::KeyRing;
use dispatch_core::protocol::limits::SMALL_ENVELOPE_BYTES_MAX;
use dispatch_core::protocol::names::NodeName;
use dispatch_core::protocol::parts::AuditHead;
use dispatch_core::protocol::time::Timestamp;
use dispatch_ledger::{Ledger, LedgerError, ShownHead};
use dispatch_node::clock;
use dispatch_node::report::Report;
use dispatch_spool::{Dir, File, LIST_ENTRIES_MAX, Listing, Share as _, ShareError};
use uuid::Uuid;

use super::Takeover;

/// What this node showed.
#[derive(Debug, Default)]
pub(crate) struct Shows {
    /// What the month had committed by the node's own last heartbeat, and when that was.
    committed: Option<(Timestamp, Usd)>,
    /// Heads of its audit chain, in its own heartbeat and in its peers' echoes.
    heads: Vec<AuditHead>,
}

impl Shows {
    /// What this month had committed. A heartbeat of another month says nothing about this one: it may be an old copy.
    pub(super) fn committed_in(&self, now: Timestamp) -> Option<Usd> {
        self.committed.filter(|(at, _)| at.month_key() == now.month_key()).map(|(_, usd)| usd)
    }

    /// The head that the ledger, at this chain, has not come to or has another hash at.
    pub(super) fn newer_than(
        &self,
        ledger: &Ledger,
        chain: Uuid,
        now: Timestamp,
    ) -> Result<Option<ShownHead>, LedgerError> {
        for shown in &self.heads {
            let held = match ledger.audit_line(shown.chain, shown.seq)? {
                Some(line) => Held::Hash(line.hash),
                None => Held::Beyond,
            };
            let head = Head { chain: shown.chain, seq: shown.seq, head: shown.head };
            if is_rolled_back(chain, &head, held) {
                return Ok(Some(ShownHead {
                    chain: head.chain,
                    seq: head.seq,
                    head: head.head,
                    noted_at: now,
                }));
            }
        }
        Ok(None)
    }
}

pub(super) fn look(takeover: &Takeover<'_>) -> Result<Shows, Report> {
    let listing = heartbeats(takeover)?;
    let mut shows = Shows::default();
    let config = takeover.config;
    if let Some(own) = heartbeat(takeover, &listing, &config.node, &all_rings(takeover)) {
        shows.committed = Some((own.ts, own.budget.month.committed));
        shows.heads.push(own.audit);
    }
    for (peer, ring) in takeover.keys.iter() {
        let echo = heartbeat(takeover, &listing, peer, &[ring])
            .and_then(|heartbeat| heartbeat.peers_seen.get(&config.node).copied());
        shows.heads.extend(echo.map(|echo| echo.audit));
    }
    Ok(shows)
}

/// Every boot record of this node that verifies.
pub(super) fn boot_records(takeover: &Takeover<'_>) -> Result<Vec<ownership::Shown>, Report> {
    let config = takeover.config;
    let me = Me { cluster: config.cluster, node: &config.node, now: clock::now() };
    let rings = all_rings(takeover);
    let mut records = Vec::new();
    for (file, _) in heartbeats(takeover)?.files() {
        let File::Boot(node, boot) = file else { continue };
        if *node != config.node {
            continue;
        }
        let Ok(bytes) = takeover.share.read(file, bytes_max()) else { continue };
        if let Verdict::Accepted(record) = accept_boot(&bytes, node, *boot, &me, &rings) {
            records.push(ownership::Shown { boot: *boot, instance: record.into_parts().0.instance });
        }
    }
    Ok(records)
}

fn heartbeats(takeover: &Takeover<'_>) -> Result<Listing, ShareError> {
    takeover.share.list(&Dir::Heartbeats, LIST_ENTRIES_MAX)
}

fn all_rings<'a>(takeover: &'a Takeover<'_>) -> Vec<&'a KeyRing> {
    takeover.keys.iter().map(|(_, ring)| ring).collect()
}

fn heartbeat(
    takeover: &Takeover<'_>,
    listing: &Listing,
    node: &NodeName,
    rings: &[&KeyRing],
) -> Option<Heartbeat> {
    let file = File::Heartbeat(node.clone());
    if !listing.holds(&file) {
        return None;
    }
    let bytes = takeover.share.read(&file, bytes_max()).ok()?;
    let config = takeover.config;
    let me = Me { cluster: config.cluster, node: &config.node, now: clock::now() };
    match accept_heartbeat(&bytes, node, &me, rings, None) {
        Verdict::Accepted(verified) => Some(verified.into_parts().0),
        Verdict::Refused(_) => None,
    }
}

fn bytes_max() -> u64 {
    u64::try_from(SMALL_ENVELOPE_BYTES_MAX).unwrap_or(u64::MAX)
}
