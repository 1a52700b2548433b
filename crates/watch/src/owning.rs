//! Becoming the one owner of a node: protocol section 7, "One owner per node".

use std::thread;
use std::time::{Duration, Instant};

use dispatch_core::planner::ownership::{
    Known, Place, Shown, Wait, foreign, newcomer, next_boot, wait_before_owning,
};
use dispatch_core::protocol::accept::{Me, Verdict, accept_boot};
use dispatch_core::protocol::boot::BootRecord;
use dispatch_core::protocol::keys::{KeyRing, SealingKey};
use dispatch_core::protocol::limits::SMALL_ENVELOPE_BYTES_MAX;
use dispatch_core::protocol::names::Lane;
use dispatch_core::protocol::payload::{Kind, Payload as _};
use dispatch_core::protocol::seal::seal;
use dispatch_core::protocol::time::Timestamp;
use dispatch_ledger::{Entry, Fence, Ledger, LedgerError, NewBoot};
use dispatch_node::state::WatchLock;
use dispatch_node::{clock, files};
use dispatch_spool::layout::{Dir, File};
use dispatch_spool::root::{self, Unreachable};
use dispatch_spool::share::{Share, ShareError};
use serde_json::json;
use uuid::Uuid;

use crate::filing::{self, Holds, IsMine, WhatStands};
use crate::home::Home;

/// Names read of `heartbeats/`.
const NAMES_MAX: usize = 100_000;

/// Why this watcher does not own its node.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OwnError {
    #[error("another watcher owns this node: boot {boot}, instance {instance}")]
    Owned { boot: u64, instance: Uuid },
    #[error("another watcher of this node is alive: its heartbeat advances")]
    Alive,
    #[error("the share cannot be reached")]
    Unreachable(#[source] Unreachable),
    #[error("cannot read the share")]
    Share(#[from] ShareError),
    #[error("cannot use the ledger")]
    Ledger(#[from] LedgerError),
    #[error("cannot look at watch.lock")]
    Lock(#[from] files::FileError),
    #[error("cannot read this machine's boot id")]
    Machine(#[from] clock::NoBootId),
    #[error("this node has no peer with a key, so no boot record of it can be verified")]
    NoKey,
}

/// Every verified boot record of this node on the share.
pub(crate) fn shown(share: &dyn Share, home: &Home) -> Result<Vec<Shown>, ShareError> {
    let listing = share.list(&Dir::Heartbeats, NAMES_MAX)?;
    let mut records = Vec::new();
    for (file, _) in listing.files() {
        let File::Boot(node, boot) = file else { continue };
        if *node != home.node {
            continue;
        }
        // Unreadable is not verified, and only what verifies counts.
        let Ok(bytes) = share.read(file, u64::try_from(SMALL_ENVELOPE_BYTES_MAX).unwrap_or(u64::MAX)) else {
            continue;
        };
        if let Some(record) = verified(home, &bytes, *boot) {
            records.push(Shown { boot: record.boot, instance: record.instance });
        }
    }
    Ok(records)
}

/// A boot record of this node, if it verifies with a key of any of its peers.
pub(crate) fn verified(home: &Home, bytes: &[u8], boot: u64) -> Option<BootRecord> {
    let me = Me { cluster: home.cluster, node: &home.node, now: clock::now() };
    let rings: Vec<_> = home.rings().map(|(_, ring)| ring).collect();
    match accept_boot(bytes, &home.node, boot, &me, &rings) {
        Verdict::Accepted(record) => Some(record.into_parts().0),
        Verdict::Refused(_) => None,
    }
}

/// Tells this watcher's record from anything else that stands at its name.
pub(crate) fn is_mine(home: &Home, boot: u64) -> IsMine {
    let (cluster, node, instance) = (home.cluster, home.node.clone(), home.instance);
    // One that a key signed which was retired since is still this watcher's: nobody else has its instance.
    let ours = |ring: &KeyRing| KeyRing {
        accepted: ring.accepted.iter().chain(&ring.retired).cloned().collect(),
        retired: Vec::new(),
    };
    let rings: Vec<KeyRing> = home.rings().map(|(_, ring)| ours(ring)).collect();
    Box::new(move |bytes| {
        let me = Me { cluster, node: &node, now: clock::now() };
        let rings: Vec<&KeyRing> = rings.iter().collect();
        match accept_boot(bytes, &node, boot, &me, &rings) {
            Verdict::Accepted(record) if record.payload().instance == instance => WhatStands::Mine,
            Verdict::Accepted(_) => WhatStands::MineButOther,
            Verdict::Refused(_) => WhatStands::Foreign,
        }
    })
}

/// Whether a boot record of this watcher verifies with a key that holds now.
pub(crate) fn holds(home: &Home, boot: u64) -> Holds {
    let (cluster, node) = (home.cluster, home.node.clone());
    let rings: Vec<KeyRing> = home.rings().map(|(_, ring)| ring.clone()).collect();
    Box::new(move |bytes| {
        let me = Me { cluster, node: &node, now: clock::now() };
        let rings: Vec<&KeyRing> = rings.iter().collect();
        matches!(accept_boot(bytes, &node, boot, &me, &rings), Verdict::Accepted(_))
    })
}

/// The sealed boot record of this watcher.
pub(crate) fn record(home: &Home, ledger: Uuid, boot: u64, host_boot_id: Uuid, at: Timestamp) -> Vec<u8> {
    let record = BootRecord {
        cluster: home.cluster,
        node: home.node.clone(),
        ledger,
        boot,
        instance: home.instance,
        host_boot_id,
        at,
    };
    seal_for_peers(home, Kind::Boot, &record.to_payload())
}

/// Seals a payload for every peer that has a key: with the one that signs, and behind these with those that only verify, so
/// that a peer sees which keys this node has before it relies on them (`dispatchctl keys`).
pub(crate) fn seal_for_peers(home: &Home, kind: Kind, payload: &[u8]) -> Vec<u8> {
    let signing = home.rings().filter_map(|(_, ring)| ring.signing());
    let verifying = home.rings().flat_map(|(_, ring)| ring.accepted.iter().skip(1));
    let keys: Vec<&dyn SealingKey> =
        signing.chain(verifying).take(kind.signatures_max()).map(|key| -> &dyn SealingKey { key }).collect();
    seal(kind, payload, &keys)
}

/// Takes ownership, or says who has it. The caller holds `watch.lock`.
pub(crate) fn own(
    share: &dyn Share,
    home: &Home,
    ledger: &mut Ledger,
    lock: &WatchLock,
) -> Result<u64, OwnError> {
    if !home.rings().any(|(_, ring)| ring.signing().is_some()) {
        return Err(OwnError::NoKey);
    }
    let lanes: Vec<Lane> = home.peers.values().map(|peer| peer.lane_in.clone()).collect();
    if let root::RootLook::Unreachable(why) = root::look(share, home.cluster, &lanes) {
        return Err(OwnError::Unreachable(why));
    }
    let host = clock::host_boot_id()?;
    let (device, inode) = lock.device_and_inode()?;
    let today = Place { host_boot_id: host.to_string(), device, inode };
    let mut seen = shown(share, home)?;
    let known = known(ledger)?;
    refuse_foreign(&seen, &known)?;
    let noted_here = noted(ledger, &seen)?;
    if wait_before_owning(&seen, &known, noted_here.as_ref(), &today) == Wait::TwoHeartbeats {
        listen(share, home)?;
        seen = shown(share, home)?;
        refuse_foreign(&seen, &known)?;
    }
    let now = clock::now();
    let boot = next_boot(&seen, &known, u64::try_from(now.unix_ms().div_euclid(1_000)).unwrap_or(0));
    ledger.write(Fence::NONE, now, |tx| {
        tx.note_boot(&NewBoot {
            boot,
            instance: home.instance,
            host_boot_id: host.to_string(),
            dev: device,
            ino: inode,
        })
    })?;
    let mine = File::Boot(home.node.clone(), boot);
    let bytes = record(home, ledger.meta()?.ledger, boot, host, now);
    // A record of another instance under the same number stands: the last look finds it.
    let squatted = filing::keep_own(share, &mine, &bytes, &is_mine(home, boot))?;
    if let Some(rival) = newcomer(&seen, &shown(share, home)?, home.instance) {
        if rival.boot != boot {
            let _removed = share.remove(&mine)?;
        }
        return Err(OwnError::Owned { boot: rival.boot, instance: rival.instance });
    }
    ledger.write(Fence::NONE, clock::now(), |tx| {
        tx.hold_boot(boot, home.instance)?;
        for file in &squatted {
            let data = json!({"file": file.path().to_string_lossy()});
            tx.audit(&Entry::of("squatted").code("squatted").data(data))?;
        }
        tx.audit(&Entry::of("owned").data(json!({"instance": home.instance.to_string()}))).map(drop)
    })?;
    Ok(boot)
}

fn known(ledger: &Ledger) -> Result<Known, LedgerError> {
    Ok(Known {
        highest_held: ledger.highest_held()?.unwrap_or(0),
        instances: ledger
            .boots(usize::try_from(u32::MAX).unwrap_or(usize::MAX))?
            .into_iter()
            .map(|row| row.boot.instance)
            .collect(),
    })
}

/// Where the ledger noted the highest record on the share; the newest held boot where none is left there.
fn noted(ledger: &Ledger, seen: &[Shown]) -> Result<Option<Place>, LedgerError> {
    let row = match seen.iter().max_by_key(|record| record.boot) {
        Some(highest) => ledger.boot_of(highest.instance)?,
        None => match ledger.highest_held()? {
            Some(held) => ledger.noted(held)?.into_iter().find(|row| row.held_at.is_some()),
            None => None,
        },
    };
    Ok(row.map(|row| Place {
        host_boot_id: row.boot.host_boot_id,
        device: row.boot.dev,
        inode: row.boot.ino,
    }))
}

fn refuse_foreign(seen: &[Shown], known: &Known) -> Result<(), OwnError> {
    match foreign(seen, known) {
        Some(other) => Err(OwnError::Owned { boot: other.boot, instance: other.instance }),
        None => Ok(()),
    }
}

/// Waits two heartbeat intervals for a heartbeat of this node that changes.
fn listen(share: &dyn Share, home: &Home) -> Result<(), OwnError> {
    let file = File::Heartbeat(home.node.clone());
    let limit = u64::try_from(SMALL_ENVELOPE_BYTES_MAX).unwrap_or(u64::MAX);
    let look = || {
        // A fresh listing first: a name that was replaced elsewhere may be an old version for a cache's lifetime.
        share.list(&Dir::Heartbeats, NAMES_MAX).and_then(|_| share.read(&file, limit)).ok()
    };
    let first = look();
    let interval = home.config.watch.heartbeat;
    let until = Instant::now().checked_add(interval.saturating_mul(2));
    while until.is_some_and(|until| Instant::now() < until) {
        thread::sleep(Duration::from_millis(100).min(interval));
        if look() != first {
            return Err(OwnError::Alive);
        }
    }
    Ok(())
}
