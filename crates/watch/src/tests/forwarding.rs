use dispatch_core::policy::lifecycle::{TaskEvent, TaskState};
use dispatch_core::policy::money::Usd;
use dispatch_core::policy::window::WindowKey;
use dispatch_core::protocol::names::Digest;
use dispatch_core::protocol::payload::Payload as _;
use dispatch_core::protocol::result::{Status, TaskResult};
use dispatch_core::protocol::task::Task;
use dispatch_core::protocol::time::MINUTE_MS;
use dispatch_ledger::ChildRow;

use super::{Bench, bench_with, key, now};
use crate::children::ChildNews;
use crate::{forward, running};

const FAR: &str =
    "[peer.farbox]\nkeys = [\"devbox.key\"]\n[backend.far]\nkind = \"lan_worker\"\nnode = \"farbox\"\n";

/// A paid task that a person said yes to, leased: its child waits to be sent.
fn forwarded(bench: &mut Bench, attempts: u32) -> ChildRow {
    let mut task = bench.paid(1);
    task.max_attempts = attempts;
    assert_eq!(bench.take(&task).state, TaskState::AwaitingApproval);
    bench.write(now(), |tx, home| {
        assert!(matches!(running::reserve(tx, home, &key(1))?, running::Reserved::Yes));
        tx.apply(&key(1), TaskEvent::Approved)?;
        tx.apply(&key(1), TaskEvent::Admitted).map(drop)
    });
    next_child(bench)
}

fn next_child(bench: &mut Bench) -> ChildRow {
    assert_eq!(bench.lease(now()).len(), 0, "no executor is started");
    bench.ledger.open_children().unwrap().pop().unwrap()
}

fn told(bench: &mut Bench, child: &ChildRow, news: &ChildNews) {
    let child = bench.ledger.child(child.id).unwrap().unwrap();
    bench.write(now(), |tx, home| forward::note(tx, home, &child, news));
}

fn kept(bench: &mut Bench, child: &ChildRow) {
    let news = ChildNews::Kept { id: child.id, task_sha256: Digest::of(&child.payload) };
    told(bench, child, &news);
}

fn tree(bench: &Bench) -> (Usd, Usd) {
    let balance = bench.ledger.balance(&WindowKey::Tree(key(1).id)).unwrap();
    (balance.reserved, balance.spent)
}

fn usd(text: &str) -> Usd {
    Usd::from_wire(text).unwrap()
}

#[test]
fn a_forward_takes_no_place_of_an_executor_and_its_money_counts_in_its_tree_alone() {
    let mut bench = bench_with(FAR);
    let child = forwarded(&mut bench, 1);
    assert_eq!(
        (bench.ledger.open_attempts().unwrap().len(), bench.ledger.open_runs().unwrap().len()),
        (1, 0)
    );
    assert_eq!(tree(&bench), (usd("4"), Usd::ZERO));
    assert_eq!(bench.ledger.windows().unwrap().len(), 1, "the tree's");
    let task = Task::from_stored(&child.payload).unwrap();
    let lineage = task.lineage.unwrap();
    assert_eq!((lineage.depth, lineage.budget_usd), (1, Some(usd("4"))));
    assert_eq!((task.max_cost_usd, task.to.as_str()), (Some(usd("2")), "farbox"));
}

#[test]
fn a_forward_without_an_answer_is_unknown_and_all_that_was_set_aside_is_spent() {
    let mut bench = bench_with(FAR);
    let child = forwarded(&mut bench, 1);
    kept(&mut bench, &child);
    assert_eq!(bench.row(1).state, TaskState::Running);
    let task = Task::from_stored(&child.payload).unwrap();
    assert_eq!(child.answer_by, task.expires.plus_ms(i64::from(task.timeout_s) * 1_000 + 10 * MINUTE_MS));
    told(&mut bench, &child, &ChildNews::Unanswered { id: child.id });
    let row = bench.row(1);
    assert_eq!((row.status, row.code.as_deref()), (Some(Status::Unknown), Some("unanswered")));
    assert_eq!(tree(&bench), (Usd::ZERO, usd("4")));
    // What is told again changes nothing.
    told(&mut bench, &child, &ChildNews::Unanswered { id: child.id });
    assert_eq!(tree(&bench), (Usd::ZERO, usd("4")));
}

#[test]
fn a_forward_that_may_run_again_gets_another_child_and_money_of_its_own() {
    let mut bench = bench_with(FAR);
    let first = forwarded(&mut bench, 2);
    kept(&mut bench, &first);
    told(&mut bench, &first, &ChildNews::Unanswered { id: first.id });
    assert_eq!(bench.row(1).state, TaskState::Running);
    let second = next_child(&mut bench);
    assert!(second.id != first.id && second.epoch > first.epoch);
    assert_eq!(tree(&bench), (usd("4"), usd("4")));
}

#[test]
fn an_answer_that_names_no_cost_gives_back_what_was_set_aside() {
    let mut bench = bench_with(FAR);
    let child = forwarded(&mut bench, 1);
    kept(&mut bench, &child);
    let subject = dispatch_core::protocol::result::Subject {
        cluster: bench.home.cluster,
        from: bench.home.node.clone(),
        to: child.receiver.clone(),
        task: child.id,
        task_sha256: Digest::of(&child.payload),
    };
    let head = dispatch_core::protocol::parts::AuditHead {
        chain: uuid::Uuid::from_u128(5),
        seq: 1,
        head: Digest::of(b"x"),
    };
    let result = TaskResult::never_ran(subject, Status::Expired, None, head);
    let payload = result.to_payload();
    let news = ChildNews::Answered { id: child.id, result: Box::new(result), payload };
    told(&mut bench, &child, &news);
    assert_eq!(bench.row(1).status, Some(Status::Expired));
    assert_eq!(tree(&bench), (Usd::ZERO, Usd::ZERO));
    let own = bench.ledger.result(&key(1)).unwrap().unwrap();
    assert_eq!(TaskResult::from_stored(&own).unwrap().via, [child.receiver]);
}
