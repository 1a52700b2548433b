//! How many tasks a second can be taken, durably: one transaction for each, and several in one (group commit).
//!
//! `cargo run --release -p dispatch-ledger --example admission [DIRECTORY]`; the directory decides which disk is
//! measured. Nothing is asserted: the figure depends on the machine.
#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Instant;

use dispatch_core::policy::admission::{Billing, Cost};
use dispatch_core::policy::lifecycle::TaskEvent;
use dispatch_core::policy::money::Usd;
use dispatch_core::policy::window::{Caps, Payer, WindowKeys};
use dispatch_core::protocol::names::{Digest, NodeName, TaskId};
use dispatch_core::protocol::task::Priority;
use dispatch_core::protocol::time::{DAY_MS, Timestamp};
use dispatch_ledger::{
    Birth, Entry, Fence, Ledger, LedgerError, NewBoot, NewLease, NewReservation, NewTask, Reserving, Seen,
    TaskKey, Terms, Tx, Whole,
};
use uuid::Uuid;

const TASKS: u32 = 2_048;
const GROUPS: [u32; 4] = [1, 8, 32, 128];
const ENVELOPE_BYTES: usize = 2_048;

fn main() -> Result<(), Box<dyn Error>> {
    let place = std::env::args_os().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let now = Timestamp::parse("2026-11-21T10:00:00.000Z")?;
    let from = NodeName::new("devbox")?;
    println!("{TASKS} tasks, each: seen, task, position, reservation in 5 windows, lease, 2 audit entries");
    for group in GROUPS {
        let directory = tempfile::tempdir_in(&place)?;
        let path = directory.path().join("ledger.db");
        let mut ledger = made(&path, now)?;
        let begun = Instant::now();
        let mut taken = 0;
        while taken < TASKS {
            let upto = taken.saturating_add(group);
            ledger.write(Fence::of(1), now, |tx| {
                (taken..upto).try_for_each(|number| take(tx, &task(&from, number, now)))
            })?;
            taken = upto;
        }
        let rate = f64::from(taken) / begun.elapsed().as_secs_f64();
        drop(ledger);
        let begun = Instant::now();
        drop(Ledger::open(&path)?);
        println!(
            "{group:>4} in a transaction: {rate:>6.0} a second; opened and checked in {:?}",
            begun.elapsed()
        );
    }
    Ok(())
}

fn made(path: &Path, now: Timestamp) -> Result<Ledger, Box<dyn Error>> {
    let birth = Birth {
        ledger: Uuid::from_u128(1),
        cluster: Uuid::from_u128(2),
        node: NodeName::new("gpubox")?,
        chain: Uuid::from_u128(3),
        whole: Whole::Yes,
        accept_after: None,
    };
    let mut ledger = Ledger::create(path, &birth, now)?;
    let instance = Uuid::from_u128(4);
    let boot = NewBoot { boot: 1, instance, host_boot_id: "bench".to_owned(), dev: 1, ino: 1 };
    ledger.write(Fence::NONE, now, |tx| {
        tx.note_boot(&boot)?;
        tx.hold_boot(1, instance)
    })?;
    Ok(ledger)
}

/// The whole accepting transaction of one task that nothing gates, and its lease.
fn take(tx: &mut Tx<'_>, new: &NewTask) -> Result<(), LedgerError> {
    let (key, now) = (&new.key, tx.now());
    tx.insert_seen(key, Seen { digest: new.digest, until: Some(now.plus_ms(2 * DAY_MS)) })?;
    let order_no = tx.insert_task(new)?;
    tx.note_position(&key.from, Uuid::from_u128(5), order_no, new.digest)?;
    let reservation = NewReservation {
        id: Uuid::from_u128(u128::from(order_no)),
        key: key.clone(),
        nth: 1,
        amount: Usd::ZERO,
        windows: WindowKeys::of(&key.from, None, key.id, now),
        payer: Payer::Here,
    };
    if tx.reserve_within(&reservation, &Caps::default())? == Reserving::Reserved {
        tx.apply(key, TaskEvent::Admitted)?;
        tx.audit(&Entry::of("accepted").task(key))?;
        let lease = NewLease {
            key: key.clone(),
            mark: "mark".to_owned(),
            reservation: Some(reservation.id),
            token_sha256: None,
            child: None,
        };
        let epoch = tx.lease(&lease)?.epoch;
        tx.audit(&Entry::of("leased").task(key).epoch(epoch))?;
    }
    Ok(())
}

fn task(from: &NodeName, number: u32, now: Timestamp) -> NewTask {
    let id = TaskId::from_uuid(Uuid::from_u128(u128::from(number).saturating_add(7 << 76)));
    NewTask {
        key: TaskKey { from: from.clone(), id },
        digest: Digest::of(&number.to_be_bytes()),
        envelope: vec![b'x'; ENVELOPE_BYTES],
        priority: Priority::Normal,
        created: now,
        expires: now.plus_ms(DAY_MS),
        run: None,
        root: id,
        parent: None,
        depth: 0,
        profile: "default".to_owned(),
        workspace: None,
        max_attempts: 1,
        terms: Terms {
            recipe: "{\"argv\":[\"/bin/true\"]}".to_owned(),
            payload: None,
            sha256: None,
            gates: "[]".to_owned(),
            cost: Cost::default(),
            billing: Billing::Metered,
            required_approvals: 1,
        },
        first_line: "do it".to_owned(),
        labels: "{}".to_owned(),
    }
}
