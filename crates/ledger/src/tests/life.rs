//! The life of a task and its attempts.

use dispatch_core::policy::lifecycle::{AttemptState, TaskEvent, TaskState};

use super::*;

fn queued(desk: &mut Desk, number: u32) {
    desk.write(|tx| {
        tx.insert_task(&task(number))?;
        tx.apply(&key(number), TaskEvent::Admitted)
    })
    .unwrap();
}

fn lease(desk: &mut Desk, number: u32) -> Result<AttemptRow, LedgerError> {
    let lease = NewLease {
        key: key(number),
        mark: "mark".to_owned(),
        reservation: None,
        token_sha256: None,
        child: None,
    };
    desk.write(|tx| tx.lease(&lease))
}

fn end(status: Status, started_at: Option<Timestamp>) -> AttemptEnd {
    AttemptEnd {
        started_at,
        ended_at: now(),
        status: Some(status),
        cost: None,
        basis: None,
        outcome: format!("{{\"status\":\"{status}\"}}"),
    }
}

fn row(desk: &Desk, number: u32) -> TaskRow {
    desk.ledger.task(&key(number)).unwrap().unwrap()
}

#[test]
fn a_task_goes_from_the_queue_to_its_result() {
    let mut desk = desk();
    queued(&mut desk, 1);
    assert_eq!(desk.ledger.queue(now()).unwrap().len(), 1);
    let attempt = lease(&mut desk, 1).unwrap();
    assert_eq!((attempt.epoch, attempt.n, attempt.state), (1, 1, AttemptState::Leased));
    assert_eq!(desk.ledger.queue(now()).unwrap(), []);
    desk.write(|tx| tx.set_order(1, "{}")).unwrap();
    desk.write(|tx| tx.mark_started(1, now())).unwrap();
    desk.write(|tx| tx.mark_started(1, now())).unwrap();
    assert_eq!((row(&desk, 1).state, row(&desk, 1).attempts_started), (TaskState::Running, 1));
    desk.write(|tx| {
        assert_eq!(tx.end_attempt(1, &end(Status::Ok, Some(now())))?, Ending::Ended);
        tx.finish(&key(1), TaskEvent::Succeeded, Status::Ok, None, b"result")
    })
    .unwrap();
    let done = row(&desk, 1);
    assert_eq!(
        (done.state, done.status, done.final_at),
        (TaskState::Succeeded, Some(Status::Ok), Some(now()))
    );
    assert_eq!((done.attempts_started, done.open_epoch), (1, None));
    assert_eq!(desk.ledger.result(&key(1)).unwrap().unwrap(), b"result");
    assert_eq!(desk.ledger.unpublished(9).unwrap().len(), 1);
    desk.write(|tx| tx.mark_published(&key(1))).unwrap();
    assert_eq!(desk.ledger.unpublished(9).unwrap(), []);
    desk.write(|tx| tx.unmark_published(&key(1))).unwrap();
    assert_eq!(desk.ledger.unpublished(9).unwrap().len(), 1);
}

#[test]
fn an_outcome_that_comes_first_counts_as_a_start_too() {
    let mut desk = desk();
    queued(&mut desk, 1);
    let epoch = lease(&mut desk, 1).unwrap().epoch;
    assert_eq!(
        desk.write(|tx| tx.end_attempt(epoch, &end(Status::Error, Some(now())))).unwrap(),
        Ending::Ended
    );
    assert_eq!((row(&desk, 1).state, row(&desk, 1).attempts_started), (TaskState::Running, 1));
    assert_eq!(desk.write(|tx| tx.end_attempt(epoch, &end(Status::Ok, None))).unwrap(), Ending::Before);
    assert_eq!(desk.ledger.attempt(epoch).unwrap().unwrap().status, Some(Status::Error));
    let again = lease(&mut desk, 1).unwrap();
    assert_eq!((again.epoch, again.n), (2, 2));
}

#[test]
fn an_outcome_of_an_older_epoch_is_kept_and_ends_nothing() {
    let mut desk = desk();
    queued(&mut desk, 1);
    let old = lease(&mut desk, 1).unwrap().epoch;
    desk.write(|tx| tx.revoke(old)).unwrap();
    desk.write(|tx| tx.revoke(old)).unwrap();
    let new = lease(&mut desk, 1).unwrap();
    assert_eq!((new.epoch > old, new.n), (true, 1));
    assert_eq!(
        desk.write(|tx| tx.end_attempt(old, &end(Status::Ok, Some(now())))).unwrap(),
        Ending::Superseded
    );
    let kept = desk.ledger.attempt(old).unwrap().unwrap();
    assert_eq!((kept.state, kept.outcome.is_some()), (AttemptState::Revoked, true));
    assert_eq!((row(&desk, 1).state, row(&desk, 1).open_epoch), (TaskState::Queued, Some(new.epoch)));
    assert_eq!(desk.ledger.open_attempts().unwrap(), [new]);
}

#[test]
fn a_revoked_attempt_never_starts_and_a_task_is_leased_once_at_a_time() {
    let mut desk = desk();
    queued(&mut desk, 1);
    let epoch = lease(&mut desk, 1).unwrap().epoch;
    assert!(matches!(lease(&mut desk, 1), Err(LedgerError::NotLeasable { .. })));
    desk.write(|tx| tx.revoke(epoch)).unwrap();
    let late = desk.write(|tx| tx.mark_started(epoch, now()));
    assert!(matches!(late, Err(LedgerError::IllegalAttempt { epoch: 1, .. })));
    assert_eq!(row(&desk, 1).attempts_started, 0);
}

#[test]
fn an_epoch_is_never_given_again() {
    let mut desk = desk();
    queued(&mut desk, 1);
    let first = lease(&mut desk, 1).unwrap().epoch;
    desk.write(|tx| tx.revoke(first)).unwrap();
    let path = desk.path();
    drop(desk.ledger);
    let mut ledger = Ledger::open(&path).unwrap();
    let lease =
        NewLease { key: key(1), mark: "mark".to_owned(), reservation: None, token_sha256: None, child: None };
    let second = ledger.write(Fence::of(1), now(), |tx| tx.lease(&lease)).unwrap().epoch;
    assert!(second > first);
    assert_eq!(ledger.counter(Counter::Epoch).unwrap(), second);
    let next = ledger.write(Fence::of(1), now(), |tx| {
        tx.raise(Counter::Epoch, 70)?;
        tx.raise(Counter::Epoch, 60)?;
        tx.next(Counter::Epoch)
    });
    assert_eq!(next.unwrap(), 71);
}

#[test]
fn a_task_with_a_recorded_stop_is_never_leased_again() {
    let mut desk = desk();
    queued(&mut desk, 1);
    desk.write(|tx| tx.record_stop(&key(1), "cancelled", "devbox")).unwrap();
    desk.write(|tx| tx.record_stop(&key(1), "killed", "jo")).unwrap();
    assert_eq!(row(&desk, 1).stop.unwrap().why, "cancelled");
    assert_eq!(desk.ledger.queue(now()).unwrap()[0].stop.as_ref().unwrap().by, "devbox");
    assert!(matches!(lease(&mut desk, 1), Err(LedgerError::NotLeasable { .. })));
}

#[test]
fn a_launch_failure_holds_the_next_lease_back() {
    let mut desk = desk();
    queued(&mut desk, 1);
    let later = now().plus_ms(1_000);
    desk.write(|tx| tx.note_launch_failure(&key(1), later)).unwrap();
    assert_eq!(desk.ledger.queue(now()).unwrap(), []);
    assert_eq!(desk.ledger.whole_queue().unwrap().len(), 1);
    assert_eq!(desk.ledger.queue(later).unwrap()[0].launch_failures, 1);
}

#[test]
fn a_state_changes_only_by_a_fact_that_it_allows() {
    let mut desk = desk();
    queued(&mut desk, 1);
    let illegal = desk.write(|tx| tx.apply(&key(1), TaskEvent::Approved));
    assert!(matches!(illegal, Err(LedgerError::Illegal { .. })));
    assert_eq!(row(&desk, 1).state, TaskState::Queued);
}

#[test]
fn a_task_is_filed_where_its_state_says_and_nowhere_else() {
    let mut desk = desk();
    desk.write(|tx| {
        tx.insert_task(&task(1))?;
        tx.apply(&key(1), TaskEvent::Parked)
    })
    .unwrap();
    assert_eq!(desk.ledger.waiting().unwrap().len(), 1);
    assert!(desk.write(|tx| tx.mark_filed(&key(1), Filed::PendingAck)).unwrap());
    assert_eq!(desk.ledger.unfiled(9).unwrap(), []);
    desk.write(|tx| {
        tx.apply(&key(1), TaskEvent::Approved)?;
        tx.apply(&key(1), TaskEvent::Admitted)
    })
    .unwrap();
    assert_eq!(desk.ledger.unfiled(9).unwrap().len(), 1);
    assert!(!desk.write(|tx| tx.mark_filed(&key(1), Filed::PendingAck)).unwrap());
    assert!(desk.write(|tx| tx.mark_filed(&key(1), Filed::Processing)).unwrap());
    assert_eq!(desk.ledger.unfiled(9).unwrap(), []);
}

#[test]
fn new_terms_take_the_place_of_the_old_ones_and_are_filed_again() {
    let mut desk = desk();
    let gated =
        Terms { payload: Some(b"old terms".to_vec()), sha256: Some(Digest::of(b"old terms")), ..terms() };
    desk.write(|tx| {
        tx.insert_task(&NewTask { terms: gated, ..task(1) })?;
        tx.apply(&key(1), TaskEvent::Parked)?;
        tx.mark_filed(&key(1), Filed::PendingAck)
    })
    .unwrap();
    let cost = Cost { ceiling_usd: Some(usd("1")), estimate_usd: Some(usd("3")) };
    let new = Terms {
        recipe: "{}".to_owned(),
        payload: Some(b"new terms".to_vec()),
        sha256: Some(Digest::of(b"new terms")),
        gates: "[\"asked\"]".to_owned(),
        cost,
        billing: Billing::Metered,
        required_approvals: 2,
    };
    desk.write(|tx| tx.replace_terms(&key(1), &new)).unwrap();
    let changed = row(&desk, 1);
    assert_eq!((changed.filed, changed.terms_sha256, changed.cost), (false, new.sha256, cost));
    assert_eq!(desk.ledger.terms(&key(1)).unwrap().unwrap(), b"new terms");
    assert_eq!(desk.ledger.recipe(&key(1)).unwrap().unwrap(), "{}");
}

#[test]
fn the_bytes_of_a_task_stay_until_its_result_is_out_and_its_key_is_forgotten() {
    let mut desk = desk();
    queued(&mut desk, 1);
    desk.write(|tx| {
        tx.insert_seen(&key(1), Seen { digest: task(1).digest, until: Some(now()) })?;
        tx.finish(&key(1), TaskEvent::Failed, Status::Cancelled, None, b"result")
    })
    .unwrap();
    assert_eq!(desk.write(|tx| tx.purge_papers(now())).unwrap(), 0);
    desk.write(|tx| tx.mark_published(&key(1))).unwrap();
    assert_eq!(desk.write(|tx| tx.purge_papers(now())).unwrap(), 0);
    desk.write(|tx| tx.purge_seen(now())).unwrap();
    assert_eq!(desk.write(|tx| tx.purge_papers(now())).unwrap(), 2);
    assert_eq!(desk.ledger.envelope(&key(1)).unwrap(), None);
    assert_eq!(desk.ledger.result(&key(1)).unwrap().unwrap(), b"result");
}

#[test]
fn a_task_is_found_by_either_end_of_its_id() {
    let mut desk = desk();
    queued(&mut desk, 0xabc);
    queued(&mut desk, 0xdef);
    let found = |part: &str| desk.ledger.tasks_named(part, 9).unwrap().len();
    assert_eq!((found("00000abc"), found("01a1f89c-fb83"), found("abcd")), (1, 2, 0));
    assert_eq!((found("%"), found("_"), found("")), (0, 0, 0));
}

#[test]
fn lists_and_counts_show_what_is_asked_for() {
    let mut desk = desk();
    for number in 1..=3 {
        queued(&mut desk, number);
    }
    desk.write(|tx| tx.finish(&key(2), TaskEvent::Failed, Status::Cancelled, None, b"r")).unwrap();
    let ask = |filter: TaskFilter| {
        desk.ledger.tasks(&filter).unwrap().iter().map(|row| row.order_no).collect::<Vec<_>>()
    };
    assert_eq!(ask(TaskFilter::default()), [3, 2, 1]);
    assert_eq!(
        ask(TaskFilter { state: Some(TaskState::Queued), limit: Some(1), ..TaskFilter::default() }),
        [3]
    );
    assert_eq!(ask(TaskFilter { status: Some(Status::Cancelled), ..TaskFilter::default() }), [2]);
    assert!(ask(TaskFilter { from: Some(node("other")), ..TaskFilter::default() }).is_empty());
    assert!(ask(TaskFilter { since: Some(now().plus_ms(1)), ..TaskFilter::default() }).is_empty());
    let open = StateCount { from: node("devbox"), state: TaskState::Queued, count: 2 };
    assert_eq!(desk.ledger.open_counts().unwrap(), [open]);
    assert_eq!(desk.ledger.counts().unwrap().len(), 2);
}

#[test]
fn a_reservation_stays_with_its_task_until_it_is_closed() {
    let mut desk = desk();
    queued(&mut desk, 1);
    let id = Uuid::from_u128(9);
    let new =
        NewReservation { id, key: key(1), nth: 1, amount: usd("1"), windows: windows(1), payer: Payer::Here };
    assert_eq!(desk.write(|tx| tx.reserve_within(&new, &caps("5", "5"))).unwrap(), Reserving::Reserved);
    assert_eq!(desk.ledger.queue(now()).unwrap()[0].reservation, Some(id));
    let lease = NewLease {
        key: key(1),
        mark: "m".to_owned(),
        reservation: Some(id),
        token_sha256: None,
        child: None,
    };
    let epoch = desk.write(|tx| tx.lease(&lease)).unwrap().epoch;
    desk.write(|tx| tx.revoke(epoch)).unwrap();
    assert_eq!(desk.ledger.queue(now()).unwrap()[0].reservation, Some(id));
    assert_eq!(desk.write(|tx| tx.release(id)).unwrap(), Closing::Now);
    assert_eq!(desk.ledger.queue(now()).unwrap()[0].reservation, None);
}
