//! Tests of the ledger as its callers use it, on real files.

mod chain;
mod door;
mod file;
mod guards;
mod life;
mod money;
mod streams;
mod tellings;

use std::path::PathBuf;

use dispatch_core::policy::admission::{Billing, Cost};
use dispatch_core::policy::money::Usd;
use dispatch_core::policy::window::{Caps, Payer, WindowKeys};
use dispatch_core::protocol::names::{Digest, NodeName, TaskId};
use dispatch_core::protocol::parts::{AuditHead, CostBasis};
use dispatch_core::protocol::result::Status;
use dispatch_core::protocol::task::Priority;
use dispatch_core::protocol::time::{DAY_MS, Timestamp};
use tempfile::TempDir;
use uuid::Uuid;

use crate::*;

pub(crate) fn now() -> Timestamp {
    Timestamp::parse("2026-11-21T10:00:00.000Z").unwrap()
}

pub(crate) fn node(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

pub(crate) fn birth() -> Birth {
    Birth {
        ledger: Uuid::from_u128(1),
        cluster: Uuid::from_u128(2),
        node: node("gpubox"),
        chain: Uuid::from_u128(3),
        whole: Whole::Yes,
        accept_after: None,
    }
}

/// A ledger on a disk of its own, held by boot 1.
pub(crate) struct Desk {
    pub(crate) directory: TempDir,
    pub(crate) ledger: Ledger,
}

pub(crate) fn desk() -> Desk {
    let directory = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::create(&directory.path().join("ledger.db"), &birth(), now()).unwrap();
    hold(&mut ledger, 1);
    Desk { directory, ledger }
}

pub(crate) fn hold(ledger: &mut Ledger, boot: u64) {
    let instance = Uuid::from_u128(u128::from(boot) + 1_000);
    let new = NewBoot { boot, instance, host_boot_id: "host".to_owned(), dev: u64::MAX, ino: 1 << 63 };
    ledger.write(Fence::NONE, now(), |tx| tx.note_boot(&new)).unwrap();
    ledger.write(Fence::NONE, now(), |tx| tx.hold_boot(boot, instance)).unwrap();
}

impl Desk {
    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("ledger.db")
    }

    /// Writes as boot 1.
    pub(crate) fn write<T>(
        &mut self,
        change: impl FnOnce(&mut Tx<'_>) -> Result<T, LedgerError>,
    ) -> Result<T, LedgerError> {
        self.ledger.write(Fence::of(1), now(), change)
    }
}

pub(crate) fn key(number: u32) -> TaskKey {
    let id = Uuid::from_u128(0x01a1_f89c_fb83_734b_96bb_0000_0000_0000 + u128::from(number));
    TaskKey { from: node("devbox"), id: TaskId::from_uuid(id) }
}

pub(crate) fn terms() -> Terms {
    Terms {
        recipe: "{\"argv\":[\"/bin/true\"]}".to_owned(),
        payload: None,
        sha256: None,
        gates: "[]".to_owned(),
        cost: Cost::default(),
        billing: Billing::Free,
        required_approvals: 1,
    }
}

pub(crate) fn task(number: u32) -> NewTask {
    NewTask {
        key: key(number),
        digest: Digest::of(&number.to_be_bytes()),
        envelope: format!("envelope {number}").into_bytes(),
        priority: Priority::Normal,
        created: now(),
        expires: now().plus_ms(DAY_MS),
        run: None,
        root: key(number).id,
        parent: None,
        depth: 0,
        profile: "default".to_owned(),
        workspace: None,
        max_attempts: 1,
        terms: terms(),
        first_line: "do it".to_owned(),
        labels: "{}".to_owned(),
    }
}

pub(crate) fn usd(text: &str) -> Usd {
    Usd::from_wire(text).unwrap()
}

pub(crate) fn windows(number: u32) -> WindowKeys {
    WindowKeys::of(&node("devbox"), None, key(number).id, now())
}

pub(crate) fn caps(run: &str, month: &str) -> Caps {
    Caps { run: usd(run), month: usd(month), ..Caps::default() }
}
