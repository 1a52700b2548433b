use dispatch_core::policy::lifecycle::TaskState;
use dispatch_core::protocol::result::Status;
use dispatch_core::protocol::task::Priority;
use dispatch_core::protocol::time::{HOUR_MS, SECOND_MS, Timestamp};
use dispatch_ledger::AttemptRow;

use super::{Bench, bench, key, now};
use crate::attempts::{Came, Ended};
use crate::deciding;
use crate::leasing::{self, Turn};
use crate::running;

fn settle(bench: &mut Bench, row: AttemptRow, came: Came, at: Timestamp) {
    let ended = Ended { row, came };
    bench.write(at, |tx, home| running::settle(tx, home, &ended));
}

#[test]
fn no_more_is_leased_than_there_are_places_and_high_goes_first() {
    let mut bench = bench();
    for number in 1..=3 {
        let mut task = bench.task(number);
        task.priority = if number == 3 { Priority::High } else { Priority::Normal };
        bench.take(&task);
    }
    let leased: Vec<_> = bench.lease(now()).into_iter().map(|launch| launch.key).collect();
    assert_eq!(leased, [key(3), key(1)]);
}

#[test]
fn a_sender_that_is_held_back_keeps_nobody_else_waiting_and_starts_nothing() {
    let mut bench = bench();
    bench.take(&bench.task(1));
    let turn = Turn { free: 2, only: None, is_held: &|from| from.as_str() == "devbox" };
    let launches = bench.write(now(), |tx, home| leasing::lease(tx, home, &turn, &mut Vec::new()));
    assert_eq!(launches.len(), 0);
    assert_eq!(bench.row(1).state, TaskState::Queued);
}

#[test]
fn five_leases_that_never_began_end_the_task_with_ever_longer_pauses() {
    let mut bench = bench();
    bench.take(&bench.paid(1));
    let mut at = now();
    let mut pauses = Vec::new();
    for _ in 0..5 {
        let launch = bench.lease(at).pop().unwrap();
        settle(&mut bench, launch.attempt, Came::NeverBegan, at);
        if let Some(not_before) = bench.row(1).not_before {
            pauses.push(not_before.since_ms(at));
            assert_eq!(bench.lease(at).len(), 0);
            at = not_before;
        }
    }
    let row = bench.row(1);
    assert_eq!(pauses, [SECOND_MS, 2 * SECOND_MS, 4 * SECOND_MS, 8 * SECOND_MS]);
    assert_eq!((row.status, row.code.as_deref()), (Some(Status::Error), Some("cannot_start")));
    assert_eq!((row.attempts_started, row.reservation), (0, None));
}

#[test]
fn a_dead_attempt_is_unknown_and_settled_at_its_reservation_and_never_again() {
    let mut bench = bench();
    bench.take(&bench.paid(1));
    let launch = bench.lease(now()).pop().unwrap();
    let reservation = launch.attempt.reservation.unwrap();
    settle(&mut bench, launch.attempt.clone(), Came::Dead { started_at: now() }, now());
    let row = bench.row(1);
    assert_eq!(row.status, Some(Status::Unknown));
    let closed = bench.ledger.reservation(reservation).unwrap().unwrap();
    assert_eq!(closed.actual, Some(closed.amount));
    assert_eq!(bench.lease(now().plus_ms(HOUR_MS)).len(), 0);
}

#[test]
fn a_task_that_may_run_again_gets_a_new_epoch_and_a_reservation_of_its_own() {
    let mut bench = bench();
    let mut task = bench.paid(1);
    task.max_attempts = 2;
    bench.take(&task);
    let first = bench.lease(now()).pop().unwrap().attempt;
    settle(&mut bench, first.clone(), Came::Dead { started_at: now() }, now());
    assert_eq!(bench.row(1).state, TaskState::Running);
    let second = bench.lease(now()).pop().unwrap().attempt;
    assert!(second.epoch > first.epoch && second.n == 2);
    assert!(second.reservation.is_some() && second.reservation != first.reservation);
    settle(&mut bench, second, Came::Dead { started_at: now() }, now());
    assert_eq!(bench.row(1).status, Some(Status::Unknown));
}

#[test]
fn the_senders_own_bound_for_its_tree_holds_for_the_second_look_too() {
    use dispatch_core::policy::money::Usd;
    use dispatch_core::protocol::task::Lineage;
    let mut bench = bench();
    let mut task = bench.paid(1);
    task.require_ack = true;
    task.lineage = Some(Lineage {
        root: task.id,
        parent: None,
        depth: 0,
        fanout_left: 0,
        budget_usd: Usd::from_wire("4").ok(),
        via: Vec::new(),
    });
    bench.take(&task);
    // What was admitted under 4 is now asked for with more.
    let cost = dispatch_core::policy::admission::Cost {
        estimate_usd: Usd::from_wire("5").ok(),
        ceiling_usd: Usd::from_wire("3").ok(),
    };
    bench.write(now(), |tx, _| tx.set_cost(&key(1), cost));
    let reserved = bench.write(now(), |tx, home| running::reserve(tx, home, &key(1)));
    assert!(matches!(reserved, running::Reserved::No(_)));
}

#[test]
fn the_senders_own_bound_for_its_tree_holds_all_attempts_together() {
    use dispatch_core::policy::money::Usd;
    use dispatch_core::protocol::task::Lineage;
    let mut bench = bench();
    let mut task = bench.paid(1);
    task.max_attempts = 2;
    task.lineage = Some(Lineage {
        root: task.id,
        parent: None,
        depth: 0,
        fanout_left: 0,
        // Room for one attempt, at 4 dollars, and a half.
        budget_usd: Usd::from_wire("6").ok(),
        via: Vec::new(),
    });
    bench.take(&task);
    let first = bench.lease(now()).pop().unwrap().attempt;
    assert!(first.reservation.is_some());
    settle(&mut bench, first, Came::Dead { started_at: now() }, now());
    assert_eq!((bench.row(1).status, bench.row(1).reservation), (Some(Status::Unknown), None));
}

#[test]
fn a_cancel_ends_what_has_not_started_and_gives_its_money_back() {
    let mut bench = bench();
    let reservation = bench.take(&bench.paid(1)).reservation.unwrap();
    let epoch = bench.write(now(), |tx, home| deciding::cancel(tx, home, &key(1), "local", "enough"));
    assert_eq!(epoch, None);
    assert_eq!(bench.row(1).status, Some(Status::Cancelled));
    let closed = bench.ledger.reservation(reservation).unwrap().unwrap();
    assert_eq!((closed.closed_at, closed.actual), (Some(now()), None));
}

#[test]
fn a_cancel_of_a_leased_task_is_kept_and_it_is_never_leased_again() {
    let mut bench = bench();
    bench.take(&bench.task(1));
    let launch = bench.lease(now()).pop().unwrap();
    let epoch = bench.write(now(), |tx, home| deciding::cancel(tx, home, &key(1), "local", "enough"));
    assert_eq!(epoch, Some(launch.attempt.epoch));
    assert!(bench.row(1).stop.is_some());
    settle(&mut bench, launch.attempt, Came::NeverBegan, now());
    assert_eq!(bench.row(1).status, Some(Status::Cancelled));
}

#[test]
fn what_expires_before_its_first_start_is_not_leased_and_ends_expired() {
    let mut bench = bench();
    let expires = bench.take(&bench.paid(1)).expires;
    assert_eq!(bench.ledger.next_expiry().unwrap(), Some(expires));
    assert_eq!(bench.lease(expires).len(), 0);
    let queued = bench.ledger.whole_queue().unwrap().pop().unwrap();
    assert!(running::is_late(&queued, expires));
    bench.write(expires, |tx, home| running::expire(tx, home, &queued));
    assert_eq!((bench.row(1).status, bench.row(1).reservation), (Some(Status::Expired), None));
    assert_eq!(bench.ledger.next_expiry().unwrap(), None);
}
