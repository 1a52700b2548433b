//! Tasks taken durably into a ledger, several in a transaction: what an admission costs the disk. Shared with the bench.

use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};

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

const ENVELOPE_BYTES: usize = 2_048;

/// How it went.
pub(crate) struct Taken {
    /// Tasks a second.
    pub(crate) rate: f64,
    /// How long opening and checking that ledger takes afterwards.
    pub(crate) opened: Duration,
}

/// Takes so many tasks into a fresh ledger in `place`, `group` in a transaction. Each is seen, has its row, its position, its
/// reservation in five windows, a lease, and two audit entries.
pub(crate) fn taken(place: &Path, tasks: u32, group: u32) -> Result<Taken, Box<dyn Error>> {
    let now = Timestamp::parse("2026-11-21T10:00:00.000Z")?;
    let from = NodeName::new("devbox")?;
    let cap = Usd::from_wire("1000000")?;
    let caps = Caps { run: cap, month: cap, day: Some(cap), sender: Some(cap), tree: Some(cap) };
    let directory = tempfile::tempdir_in(place)?;
    let path = directory.path().join("ledger.db");
    let mut ledger = made(&path, now)?;
    let (begun, mut done) = (Instant::now(), 0);
    while done < tasks {
        let upto = done.saturating_add(group).min(tasks);
        ledger.write(Fence::of(1), now, |tx| {
            (done..upto).try_for_each(|number| take(tx, &task(&from, number, now), &caps))
        })?;
        done = upto;
    }
    let rate = f64::from(done) / begun.elapsed().as_secs_f64();
    drop(ledger);
    let begun = Instant::now();
    drop(Ledger::open(&path)?);
    Ok(Taken { rate, opened: begun.elapsed() })
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
fn take(tx: &mut Tx<'_>, new: &NewTask, caps: &Caps) -> Result<(), LedgerError> {
    let (key, now) = (&new.key, tx.now());
    tx.insert_seen(key, Seen { digest: new.digest, until: Some(now.plus_ms(2 * DAY_MS)) })?;
    let order_no = tx.insert_task(new)?;
    tx.note_position(&key.from, Uuid::from_u128(5), order_no, new.digest)?;
    let reservation = NewReservation {
        id: Uuid::from_u128(u128::from(order_no)),
        key: key.clone(),
        nth: 1,
        amount: Usd::from_wire("0.01").unwrap_or(Usd::ZERO),
        windows: WindowKeys::of(&key.from, None, key.id, now),
        payer: Payer::Here,
    };
    if tx.reserve_within(&reservation, caps)? == Reserving::Reserved {
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
