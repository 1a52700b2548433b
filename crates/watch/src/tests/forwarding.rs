use dispatch_core::policy::lifecycle::{TaskEvent, TaskState};
use dispatch_core::policy::money::Usd;
use dispatch_core::policy::window::WindowKey;
use dispatch_core::protocol::limits::PAYLOAD_BYTES_MAX;
use dispatch_core::protocol::names::Digest;
use dispatch_core::protocol::parts::{AuditHead, Cost, CostBasis};
use dispatch_core::protocol::payload::Payload as _;
use dispatch_core::protocol::result::{Status, Subject, TaskResult};
use dispatch_core::protocol::task::{self, Task};
use dispatch_core::protocol::time::MINUTE_MS;
use dispatch_ledger::ChildRow;

use super::{Bench, bench_with, key, now};
use crate::children::{ChildNews, LogKept};
use crate::leasing::{self, Turn};
use crate::{children, deciding, running};

const FAR: &str =
    "[peer.farbox]\nkeys = [\"devbox.key\"]\n[backend.far]\nkind = \"lan_worker\"\nnode = \"farbox\"\n";

/// A paid task that a person said yes to, leased: its child waits to be sent.
fn forwarded(bench: &mut Bench, attempts: u32) -> ChildRow {
    let mut task = bench.paid(1);
    task.max_attempts = attempts;
    forwarded_as(bench, &task)
}

fn forwarded_as(bench: &mut Bench, task: &Task) -> ChildRow {
    assert_eq!(bench.take(task).state, TaskState::AwaitingApproval);
    approved(bench);
    next_child(bench)
}

fn approved(bench: &mut Bench) {
    bench.write(now(), |tx, home| {
        assert!(matches!(running::reserve(tx, home, &key(1))?, running::Reserved::Yes));
        tx.apply(&key(1), TaskEvent::Approved)?;
        tx.apply(&key(1), TaskEvent::Admitted).map(drop)
    });
}

fn next_child(bench: &mut Bench) -> ChildRow {
    assert_eq!(bench.lease(now()).len(), 0, "no executor is started");
    bench.ledger.open_children().unwrap().pop().unwrap()
}

fn told(bench: &mut Bench, child: &ChildRow, news: &ChildNews) {
    let child = bench.ledger.child(child.id).unwrap().unwrap();
    bench.write(now(), |tx, home| children::note(tx, home, &child, news));
}

fn task_of(bench: &Bench, child: &ChildRow) -> Task {
    Task::from_stored(&bench.ledger.child_payload(child.id).unwrap().unwrap()).unwrap()
}

fn digest_of(bench: &Bench, child: &ChildRow) -> Digest {
    Digest::of(&bench.ledger.child_payload(child.id).unwrap().unwrap())
}

fn kept(bench: &mut Bench, child: &ChildRow) {
    let news = ChildNews::Kept { id: child.id, task_sha256: digest_of(bench, child) };
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
    let task = task_of(&bench, &child);
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
    let task = task_of(&bench, &child);
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

/// The believed answer of the node that was to run it.
fn answer(bench: &Bench, child: &ChildRow, status: Status, cost: Option<&str>) -> ChildNews {
    let subject = Subject {
        cluster: bench.home.cluster,
        from: bench.home.node.clone(),
        to: child.receiver.clone(),
        task: child.id,
        task_sha256: digest_of(bench, child),
    };
    let head = AuditHead { chain: uuid::Uuid::from_u128(5), seq: 1, head: Digest::of(b"x") };
    let mut result = TaskResult::never_ran(subject, status, None, head);
    if let Some(cost) = cost {
        result.cost = Cost { usd: Some(usd(cost)), basis: CostBasis::Reported, reserved_usd: usd("4") };
    }
    let payload = result.to_payload();
    ChildNews::Answered { id: child.id, result: Box::new(result), payload, log: LogKept::Yes }
}

#[test]
fn what_certainly_never_ran_elsewhere_gives_back_what_was_set_aside_and_nothing_else_does() {
    for (status, spent) in [
        (Status::Expired, "0"),
        (Status::Rejected, "0"),
        (Status::Denied, "0"),
        (Status::Cancelled, "0"),
        // It may have run: a node that lost its ledger knows no figure.
        (Status::Unknown, "4"),
        (Status::Error, "4"),
    ] {
        let mut bench = bench_with(FAR);
        let child = forwarded(&mut bench, 1);
        kept(&mut bench, &child);
        let news = answer(&bench, &child, status, None);
        told(&mut bench, &child, &news);
        assert_eq!(bench.row(1).status, Some(status));
        assert_eq!(tree(&bench), (Usd::ZERO, usd(spent)), "{status}");
        let own = bench.ledger.result(&key(1)).unwrap().unwrap();
        assert_eq!(TaskResult::from_stored(&own).unwrap().via, [child.receiver]);
    }
}

#[test]
fn a_child_that_could_send_tasks_itself_counts_with_all_that_was_set_aside() {
    for (fanout, spent) in [(0, "0.1"), (3, "4")] {
        let mut bench = bench_with(FAR);
        let mut task = bench.paid(1);
        task.lineage = Some(task::Lineage {
            root: task.id,
            parent: None,
            depth: 0,
            fanout_left: fanout,
            budget_usd: None,
            via: Vec::new(),
        });
        let child = forwarded_as(&mut bench, &task);
        kept(&mut bench, &child);
        let news = answer(&bench, &child, Status::Ok, Some("0.1"));
        told(&mut bench, &child, &news);
        assert_eq!(tree(&bench), (Usd::ZERO, usd(spent)), "fan-out {fanout}");
    }
}

#[test]
fn a_forward_that_is_stopped_before_it_left_ends_cancelled_and_unpaid() {
    let mut bench = bench_with(FAR);
    let child = forwarded(&mut bench, 1);
    bench.write(now(), |tx, home| deciding::cancel(tx, home, &key(1), "ann", "wrong one").map(drop));
    told(&mut bench, &child, &ChildNews::NotSent { id: child.id });
    assert_eq!(bench.row(1).status, Some(Status::Cancelled));
    assert_eq!(tree(&bench), (Usd::ZERO, Usd::ZERO));
    assert!(bench.ledger.open_children().unwrap().is_empty());
}

#[test]
fn a_node_takes_no_more_forwards_at_once_than_its_backend_says_whatever_runs_here() {
    let mut bench = bench_with(&format!("{FAR}max_parallel = 1\n"));
    for number in 1..=3 {
        bench.take(&bench.task(number));
        bench.write(now(), |tx, _| {
            tx.apply(&key(number), TaskEvent::Approved)?;
            tx.apply(&key(number), TaskEvent::Admitted).map(drop)
        });
    }
    let turn = Turn { free: 0, only: None, is_held: &|_| false };
    for _ in 0..2 {
        bench.write(now(), |tx, home| leasing::lease(tx, home, &turn, &mut Vec::new()).map(drop));
        assert_eq!(bench.ledger.open_children().unwrap().len(), 1);
    }
}

#[test]
fn a_task_that_grows_too_long_on_the_way_is_refused_and_not_tried_for_ever() {
    let mut bench = bench_with(FAR);
    let mut task = bench.paid(1);
    // Every quote is written as two bytes.
    let room = PAYLOAD_BYTES_MAX - task.to_payload().len();
    task.request.push_str(&"\"".repeat(room / 2));
    assert_eq!(bench.take(&task).state, TaskState::AwaitingApproval);
    approved(&mut bench);
    assert_eq!(bench.lease(now()).len(), 0);
    let row = bench.row(1);
    assert_eq!((row.status, row.code.as_deref()), (Some(Status::Rejected), Some("limit_exceeded")));
    assert_eq!((tree(&bench), bench.ledger.open_children().unwrap().len()), ((Usd::ZERO, Usd::ZERO), 0));
}
