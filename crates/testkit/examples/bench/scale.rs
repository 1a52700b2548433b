//! A watcher that knows very many tasks, and an inbox that holds very many names.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use dispatch_core::policy::admission::{Billing, Cost};
use dispatch_core::policy::lifecycle::TaskEvent;
use dispatch_core::protocol::names::{Digest, NodeName, TaskId};
use dispatch_core::protocol::result::Status;
use dispatch_core::protocol::task::Priority;
use dispatch_core::protocol::time::{DAY_MS, Timestamp};
use dispatch_ledger::{Entry, Fence, Ledger, LedgerError, NewTask, Seen, TaskKey, Terms, Tx};
use dispatch_testkit::{Bins, Cluster, Watcher, eventually};
use rustix::process::{Pid, Signal, kill_process};

use crate::Plan;
use crate::measure::{Memory, Samples, burst, ms, resident_mb};
use crate::table::{Goal, Row, Table};

/// Bytes of a sealed task of ordinary size.
const ENVELOPE_BYTES: usize = 1_200;
/// For so long at least a watcher is left alone after its start.
const SETTLING: Duration = Duration::from_secs(3);
/// Tasks written in one transaction.
const GROUP: u32 = 1_000;

/// What a pass costs with nothing known, with many tasks known, and with an inbox full of names.
pub fn all(plan: &Plan, bins: &Path, table: &mut Table) {
    let cluster = Cluster::new(&Bins::in_dir(bins));
    let b = started(&cluster);
    passes(plan, &b, "pass_empty", "a pass, nothing known", Goal::None, table);
    drop(b);

    know(&cluster, plan.known);
    let begun = Instant::now();
    let b = started(&cluster);
    let what = format!("start of a watcher that knows {} tasks", plan.known);
    table.add(&Row::new("start_known", what, "ms", ms(begun.elapsed())));
    let what = format!("a pass, {} tasks known, {} files in done/", plan.known, 2 * plan.known);
    passes(plan, &b, "pass_known", &what, Goal::AtMost(50.0), table);
    let memory = resident_mb(b.pid(), Memory::Now).unwrap_or(f64::NAN);
    table.add(&Row::new("pass_known_mb", "watcher after that: resident", "MB", memory));
    drop(b);

    // One task that waits for a person fills the only place there is.
    cluster.b().configure("[limits]\nmax_queued = 1\nmax_waiting = 1");
    let b = started(&cluster);
    let id = cluster.a().send("b", "true", &["--require-ack"]);
    let parked = cluster.lane("a", "b").join(format!("pending-ack/{id}.json"));
    eventually("the task waits", || parked.exists());
    drop(b);
    let inbox = cluster.lane("a", "b").join("inbox");
    for number in 0..plan.known {
        fs::write(inbox.join(format!("{}.json", id_of(number, Kind::Beyond))), "").unwrap();
    }
    let b = started(&cluster);
    let what = format!("a pass, {} names beyond capacity in an inbox", plan.known);
    passes(plan, &b, "pass_beyond", &what, Goal::AtMost(50.0), table);
}

fn started(cluster: &Cluster) -> Watcher {
    cluster.b().watch()
}

/// The passes that follow a signal which says that a child may have ended: one each.
fn passes(plan: &Plan, b: &Watcher, key: &'static str, what: &str, goal: Goal, table: &mut Table) {
    let pid = b.pid();
    // What a start leaves to be done at once; the audit is copied a piece with each heartbeat, which few passes meet.
    let begun = Instant::now();
    while begun.elapsed() < SETTLING || burst(pid, || ()).cpu_ms > 0.0 {
        assert!(begun.elapsed() < Duration::from_secs(60), "the watcher never rests");
    }
    let (mut wall, mut cpu) = (Samples::default(), Samples::default());
    for _ in 0..plan.passes {
        let burst = burst(pid, || kill_process(Pid::from_raw(pid).unwrap(), Signal::CHILD).unwrap());
        wall.push(burst.wall_ms);
        cpu.push(burst.cpu_ms);
    }
    // What else the machine does makes a pass longer, and takes no more of a processor.
    let what = format!("{what}: processor time (wall {:.1} ms)", wall.median());
    table.add(&Row::times(key, &what, &cpu, None).goal(goal));
}

/// Which of the made-up tasks.
#[derive(Clone, Copy)]
enum Kind {
    Known,
    Beyond,
}

fn id_of(number: u32, kind: Kind) -> TaskId {
    let kind = match kind {
        Kind::Known => 1,
        Kind::Beyond => 2,
    };
    TaskId::parse(&format!("01a1f89c-fb8{kind}-734b-96bb-{number:012x}")).unwrap()
}

/// Makes `count` tasks known to node b as answered long ago: rows in its ledger, two files each in the lane.
fn know(cluster: &Cluster, count: u32) {
    let done = cluster.lane("a", "b").join("done");
    let mut ledger = Ledger::open(&cluster.b().state_dir().join("ledger.db")).unwrap();
    let boot = ledger.highest_held().unwrap().unwrap();
    let from = NodeName::new("a").unwrap();
    let now = now();
    for first in (0..count).step_by(usize::try_from(GROUP).unwrap()) {
        let upto = count.min(first + GROUP);
        let written = ledger.write(Fence::of(boot), now, |tx| {
            (first..upto).try_for_each(|number| answered(tx, &task(&from, number, now)))
        });
        written.unwrap();
    }
    for number in 0..count {
        let id = id_of(number, Kind::Known);
        fs::write(done.join(format!("{id}.json")), "").unwrap();
        fs::write(done.join(format!("{id}.result.json")), "").unwrap();
    }
}

fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Timestamp::from_unix_ms(i64::try_from(since.as_millis()).unwrap())
}

/// A task from its acceptance to its published answer.
fn answered(tx: &mut Tx<'_>, new: &NewTask) -> Result<(), LedgerError> {
    let key = &new.key;
    tx.insert_seen(key, Seen { digest: new.digest, until: Some(new.expires.plus_ms(DAY_MS)) })?;
    tx.insert_task(new)?;
    tx.audit(&Entry::of("accepted").task(key))?;
    tx.audit(&Entry::of("final").task(key))?;
    let result = vec![b'x'; ENVELOPE_BYTES];
    tx.finish(key, TaskEvent::Refused, Status::Rejected, Some("bench"), &result)?;
    tx.mark_published(key)
}

fn task(from: &NodeName, number: u32, now: Timestamp) -> NewTask {
    let id = id_of(number, Kind::Known);
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
            recipe: "{}".to_owned(),
            payload: None,
            sha256: None,
            gates: "[]".to_owned(),
            cost: Cost::default(),
            billing: Billing::Free,
            required_approvals: 0,
        },
        first_line: "do it".to_owned(),
        labels: "{}".to_owned(),
    }
}
