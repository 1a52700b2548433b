use dispatch_core::policy::lifecycle::TaskState;
use dispatch_core::protocol::decision::DecisionOutcome;
use dispatch_core::protocol::result::Status;
use dispatch_core::protocol::time::{HOUR_MS, Timestamp};
use dispatch_ledger::{NewDecision, TaskRow};

use super::{Bench, bench, key, now};
use crate::deciding;

/// A task that two people have to agree on.
fn parked() -> (Bench, TaskRow) {
    let mut bench = bench();
    bench.home.config.approve.required = 2;
    let mut task = bench.task(1);
    task.require_ack = true;
    let row = bench.take(&task);
    assert_eq!((row.state, row.required_approvals), (TaskState::AwaitingApproval, 2));
    (bench, row)
}

fn said(row: &TaskRow, author: &str, outcome: DecisionOutcome, expires: Timestamp) -> NewDecision {
    NewDecision {
        key: key(1),
        author: author.to_owned(),
        key16: "0123456789abcdef".to_owned(),
        outcome,
        reason: "because".to_owned(),
        decided_at: now(),
        expires,
        terms_sha256: row.terms_sha256.unwrap(),
        max_cost_usd: None,
        payload: format!("{author} {outcome:?} {expires}").into_bytes(),
    }
}

fn decide(bench: &mut Bench, at: Timestamp, decisions: &[NewDecision]) -> TaskRow {
    bench.write(at, |tx, home| {
        for decision in decisions {
            let _recorded = tx.record_decision(decision)?;
        }
        deciding::act_on(tx, home, &key(1))
    });
    bench.row(1)
}

#[test]
fn one_approval_of_two_lets_nothing_through_and_the_second_does() {
    let (mut bench, row) = parked();
    let later = now().plus_ms(HOUR_MS);
    let first = said(&row, "ann", DecisionOutcome::Approved, later);
    assert_eq!(decide(&mut bench, now(), &[first]).state, TaskState::AwaitingApproval);
    let second = said(&row, "bob", DecisionOutcome::Approved, later);
    assert_eq!(decide(&mut bench, now(), &[second]).state, TaskState::Queued);
    assert!(bench.ledger.decisions(&key(1)).unwrap().iter().all(|row| row.consumed_at.is_some()));
}

#[test]
fn the_same_person_twice_is_one_person() {
    let (mut bench, row) = parked();
    let yes = |hours| said(&row, "ann", DecisionOutcome::Approved, now().plus_ms(hours * HOUR_MS));
    assert_eq!(decide(&mut bench, now(), &[yes(1), yes(2)]).state, TaskState::AwaitingApproval);
}

#[test]
fn a_rejection_beside_the_approval_that_completes_the_quorum_ends_the_task() {
    let (mut bench, row) = parked();
    let later = now().plus_ms(HOUR_MS);
    let all = [
        said(&row, "ann", DecisionOutcome::Approved, later),
        said(&row, "bob", DecisionOutcome::Approved, later),
        said(&row, "eve", DecisionOutcome::Rejected, later),
    ];
    let row = decide(&mut bench, now(), &all);
    assert_eq!((row.state, row.status), (TaskState::Rejected, Some(Status::Denied)));
}

#[test]
fn an_approval_counts_neither_after_its_time_nor_for_other_terms() {
    let (mut bench, row) = parked();
    let soon = now().plus_ms(HOUR_MS);
    let ann = said(&row, "ann", DecisionOutcome::Approved, soon);
    assert_eq!(decide(&mut bench, now(), &[ann]).state, TaskState::AwaitingApproval);
    let bob = said(&row, "bob", DecisionOutcome::Approved, soon.plus_ms(HOUR_MS));
    assert_eq!(decide(&mut bench, soon, std::slice::from_ref(&bob)).state, TaskState::AwaitingApproval);
    let other = NewDecision {
        author: "cyd".to_owned(),
        terms_sha256: dispatch_core::protocol::names::Digest::of(b"other terms"),
        payload: b"other".to_vec(),
        ..bob
    };
    assert_eq!(decide(&mut bench, soon, &[other]).state, TaskState::AwaitingApproval);
}

#[test]
fn what_nobody_decides_on_ends_expired() {
    let (mut bench, row) = parked();
    bench.write(row.expires, |tx, home| deciding::expire(tx, home, &row));
    assert_eq!(bench.row(1).status, Some(Status::Expired));
}
