use dispatch_core::policy::lifecycle::TaskState;
use dispatch_core::policy::money::Usd;
use dispatch_core::policy::window::{Day, WindowKey};
use dispatch_core::protocol::control::ControlVerb;
use dispatch_core::protocol::names::Digest;
use dispatch_core::protocol::result::Status;
use dispatch_core::protocol::time::{DAY_MS, HOUR_MS, SECOND_MS};
use dispatch_ledger::{NewControl, Recorded};

use super::{Bench, bench, key, now};
use crate::taking::{self, Judged};

#[test]
fn the_same_bytes_again_are_a_replay_and_other_bytes_under_the_id_are_evidence() {
    let mut bench = bench();
    let mut task = bench.task(1);
    bench.take(&task);
    assert!(matches!(bench.judge(1, bench.sealed(&task), now()), Judged::Replayed { .. }));
    task.request = "echo other".to_owned();
    let judged = bench.judge(1, bench.sealed(&task), now());
    assert!(matches!(judged, Judged::Refused { code: "id_reused", key: Some(_), .. }));
}

#[test]
fn a_changed_byte_is_evidence_and_gets_no_answer() {
    let bench = bench();
    let mut bytes = bench.sealed(&bench.task(1));
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    assert!(matches!(bench.judge(1, bytes, now()), Judged::Refused { .. }));
}

#[test]
fn an_expired_task_is_answered_once_and_is_seen() {
    let mut bench = bench();
    let task = bench.task(1);
    let late = task.expires;
    let judged = bench.judge(1, bench.sealed(&task), late);
    let Judged::Answered { file, known, status, why } = judged else { panic!("not answered") };
    assert_eq!(status, Status::Expired);
    bench.write(late, |tx, home| taking::answer(tx, home, &file, &known, status, &why));
    assert_eq!(bench.row(1).status, Some(Status::Expired));
    assert!(matches!(bench.judge(1, bench.sealed(&task), late), Judged::Replayed { .. }));
}

#[test]
fn a_task_refused_for_a_quantity_leaves_no_gap_in_its_stream() {
    let mut bench = bench();
    bench.take(&bench.task(1));
    let mut second = bench.task(2);
    second.max_attempts = 11;
    let Judged::Answered { file, known, status, why } = bench.judge(2, bench.sealed(&second), now()) else {
        panic!("not answered")
    };
    bench.write(now(), |tx, home| taking::answer(tx, home, &file, &known, status, &why));
    bench.take(&bench.task(3));
    assert_eq!(bench.ledger.open_gaps(now().plus_ms(DAY_MS)).unwrap(), Vec::new());
}

#[test]
fn paid_work_is_reserved_when_it_is_taken_until_the_cap_is_full() {
    let mut bench = bench();
    let rows: Vec<_> = (1..=3).map(|number| bench.take(&bench.paid(number))).collect();
    assert!(rows[0].reservation.is_some() && rows[1].reservation.is_some());
    assert_eq!(rows[0].cost.estimate_usd, Usd::from_wire("4").ok());
    // 4 + 4 of 10 are set aside; the run has no room for a third.
    assert_eq!((rows[2].reservation, rows[2].status), (None, Some(Status::Rejected)));
}

fn early_cancel(bench: &mut Bench, digest: Digest, lives_ms: i64) {
    let control = NewControl {
        key: key(1),
        verb: ControlVerb::Cancel,
        task_sha256: digest,
        reason: "changed my mind".to_owned(),
        expires: now().plus_ms(lives_ms),
    };
    let recorded = bench.write(now().plus_ms(-SECOND_MS), |tx, _| tx.record_control(&control));
    assert_eq!(recorded, Recorded::New);
}

#[test]
fn a_cancel_that_came_first_cancels_these_very_bytes_only_and_only_while_it_holds() {
    let mut held = bench();
    let digest = held.digest(&held.task(1));
    early_cancel(&mut held, digest, SECOND_MS);
    assert_eq!(held.take(&held.task(1)).status, Some(Status::Cancelled));

    let mut void = bench();
    early_cancel(&mut void, digest, 0);
    assert_eq!(void.take(&void.task(1)).state, TaskState::Queued);

    let mut other = bench();
    early_cancel(&mut other, Digest::of(b"other bytes"), SECOND_MS);
    assert_eq!(other.take(&other.task(1)).state, TaskState::Queued);
}

/// A recovery closes the day: what is paid waits for the next one and says so, in words.
#[test]
fn a_day_that_a_recovery_closed_is_named_and_the_next_one_takes_the_task() {
    let mut bench = bench();
    let day = WindowKey::Day(Day::of(now()));
    bench.write(now(), |tx, _| tx.close_window(&day, "recovery"));
    bench.take(&bench.paid(1));
    assert_eq!(bench.lease(now()).len(), 0);
    let row = bench.row(1);
    let why = row.wait_reason.unwrap();
    assert!(why.starts_with("waits for another day's budget"), "{why}");
    assert!(why.contains("the day 2026-11-21") && why.contains("2026-11-22T00:00:00.000Z"), "{why}");
    assert_eq!((row.state, row.reservation), (TaskState::Queued, None));
    bench.take(&bench.task(2));
    assert_eq!(bench.lease(now()).len(), 1, "what is free goes on");
    assert_eq!(bench.lease(now().plus_ms(14 * HOUR_MS)).len(), 1);
}
