use dispatch_core::policy::lifecycle::TaskState;
use dispatch_core::policy::money::Usd;
use dispatch_core::policy::safeguards::SpendAction;
use dispatch_core::policy::window::Caps;
use dispatch_core::protocol::names::Digest;
use dispatch_core::protocol::result::Status;
use dispatch_core::protocol::task::{Lineage, Task};
use dispatch_core::protocol::time::{HOUR_MS, SECOND_MS, Timestamp};
use dispatch_ledger::AttemptRow;
use dispatch_node::job::{Cost, CostBasis, Outcome, OutcomeStatus, Reason};
use serde_json::Value;

use super::{Bench, bench, bench_with, devbox, key, now};
use crate::attempts::{Came, Ended};
use crate::guards;
use crate::running::{self, settle};

fn usd(text: &str) -> Usd {
    Usd::from_wire(text).unwrap()
}

/// Caps that only the safeguards stand before.
fn rich() -> Bench {
    enriched(bench())
}

fn enriched(mut bench: Bench) -> Bench {
    bench.home.config.budget.caps =
        Caps { run: usd("1000"), month: usd("1000"), day: None, sender: None, tree: None };
    bench
}

/// The outcome of an agent that ran for a second.
fn outcome(attempt: &AttemptRow, status: OutcomeStatus, code: Option<&str>, cost: Option<&str>) -> Outcome {
    let reason =
        code.map(|code| Reason { code: code.to_owned(), text: "said so".to_owned(), help: String::new() });
    Outcome {
        epoch: attempt.epoch,
        spawned: true,
        status,
        reason,
        exit_code: Some(0),
        signal: None,
        started_at: Some(now()),
        ended_at: Some(now()),
        elapsed_ms: Some(1_000),
        final_text: None,
        output_tail: None,
        output_bytes: 0,
        log_bytes: 0,
        log_sha256: Some(Digest::of(b"")),
        truncated: false,
        cost: cost.map(|text| Cost { usd: usd(text), basis: CostBasis::Reported }),
        metered: None,
        usage: None,
        agent: None,
        resets_at: None,
        permission_denials: Vec::new(),
        containment: None,
    }
}

/// Takes a task, leases it, and ends its attempt as `end` says.
fn run(bench: &mut Bench, task: &Task, at: Timestamp, end: impl FnOnce(&AttemptRow) -> Outcome) {
    bench.take(task);
    let launches = bench.lease(at);
    let [launch] = launches.as_slice() else { panic!("{} leases", launches.len()) };
    let outcome = end(&launch.attempt);
    let ended = Ended { row: launch.attempt.clone(), came: Came::Outcome(Box::new(outcome)) };
    bench.write(at, |tx, home| settle(tx, home, &ended));
}

fn alerts(bench: &Bench) -> Vec<(String, String, String)> {
    let lines = bench.ledger.audit_lines(0, usize::MAX >> 1).unwrap();
    let entries = lines.iter().map(|line| serde_json::from_str::<Value>(&line.line).unwrap());
    let text = |value: &Value, name: &str| value[name].as_str().unwrap().to_owned();
    let bodies = entries.filter(|entry| entry["kind"] == "alert").map(|entry| entry["data"].clone());
    bodies.map(|body| (text(&body, "service"), text(&body, "action"), text(&body, "reason"))).collect()
}

fn alert(service: &str, action: &str, reason: &str) -> (String, String, String) {
    (service.to_owned(), action.to_owned(), reason.to_owned())
}

fn wait_reason(bench: &Bench, number: u32) -> String {
    bench.row(number).wait_reason.unwrap_or_default()
}

#[test]
fn an_unusual_hour_throttles_and_tells_once() {
    let mut bench = rich();
    bench.home.config.safeguards.review.baseline = Some(usd("1"));
    let task = bench.paid(1);
    run(&mut bench, &task, now(), |attempt| outcome(attempt, OutcomeStatus::Ok, None, Some("1.75")));
    for _ in 0..3 {
        bench.write(now(), guards::review);
    }
    assert_eq!(bench.ledger.spend_review().unwrap().map(|row| row.action), Some(SpendAction::Throttle));
    assert_eq!(alerts(&bench), [alert("paid_work", "throttle", "spend_spike")]);
    let later = now().plus_ms(24 * HOUR_MS);
    bench.write(later, guards::review);
    bench.write(later, guards::review);
    assert_eq!(
        alerts(&bench),
        [alert("paid_work", "throttle", "spend_spike"), alert("paid_work", "allow", "")]
    );
}

#[test]
fn the_figures_behind_a_decision_are_those_of_now_and_told_only_when_it_changes() {
    let mut bench = rich();
    bench.home.config.safeguards.review.baseline = Some(usd("1"));
    let review = |bench: &Bench| {
        let row = bench.ledger.spend_review().unwrap().unwrap();
        (row.action, row.at, serde_json::from_str::<Value>(&row.alert).unwrap())
    };
    bench.write(now(), guards::review);
    let (action, _, figures) = review(&bench);
    assert_eq!((action, &figures["budget"]["remaining"]), (SpendAction::Allow, &"1000".into()));
    bench.take(&bench.paid(1));
    bench.take(&bench.paid(2));
    for (launch, at) in bench.lease(now()).into_iter().zip([now(), now().plus_ms(SECOND_MS)]) {
        let came = outcome(&launch.attempt, OutcomeStatus::Ok, None, Some("1.75"));
        let ended = Ended { row: launch.attempt, came: Came::Outcome(Box::new(came)) };
        bench.write(at, |tx, home| settle(tx, home, &ended));
        bench.write(at, guards::review);
    }
    let (action, since, figures) = review(&bench);
    assert_eq!((action, since), (SpendAction::Throttle, now()), "since it became so");
    assert_eq!(figures["budget"]["remaining"], "996.5", "{figures:#}");
    assert_eq!(figures["action"], "throttle");
    assert_eq!(alerts(&bench), [alert("paid_work", "throttle", "spend_spike")]);
}

#[test]
fn while_throttled_a_paid_task_is_gated_and_one_runs_at_a_time() {
    let mut bench = rich();
    bench.take(&bench.paid(1));
    bench.take(&bench.paid(2));
    bench.take(&bench.task(3));
    bench.write(now(), |tx, _| tx.set_spend_review(SpendAction::Throttle, "{}"));
    let launches = bench.lease(now());
    let keys: Vec<_> = launches.iter().map(|launch| launch.key.clone()).collect();
    assert_eq!(keys, [key(1), key(3)], "one that costs, and what is free");
    assert!(wait_reason(&bench, 2).contains("one at a time"), "{}", wait_reason(&bench, 2));
    let gated = bench.take(&bench.paid(4));
    assert_eq!((gated.state, gated.gates.as_str()), (TaskState::AwaitingApproval, "[\"throttled\"]"));
}

#[test]
fn while_blocked_nothing_paid_starts_even_with_its_money_set_aside() {
    let mut bench = rich();
    let row = bench.take(&bench.paid(1));
    assert!(row.reservation.is_some());
    bench.write(now(), |tx, _| tx.set_spend_review(SpendAction::Block, "{}"));
    assert!(bench.lease(now()).is_empty());
    assert_eq!(bench.row(1).state, TaskState::Queued);
    assert!(wait_reason(&bench, 1).contains("blocked"), "{}", wait_reason(&bench, 1));
    bench.take(&bench.task(2));
    assert_eq!(bench.lease(now()).len(), 1, "what is free starts");
    bench.write(now(), |tx, _| tx.set_spend_review(SpendAction::Allow, "{}"));
    assert_eq!(bench.lease(now()).len(), 1, "and it goes on by itself");
    assert_eq!(bench.row(1).wait_reason, None);
}

#[test]
fn a_month_that_is_spent_blocks_and_names_limit_rest_and_reset() {
    let mut bench = rich();
    bench.home.config.budget.caps.month = usd("4");
    bench.home.config.safeguards.spend_per_hour = Some(usd("100"));
    let task = bench.paid(1);
    run(&mut bench, &task, now(), |attempt| outcome(attempt, OutcomeStatus::Ok, None, Some("4")));
    bench.write(now(), guards::review);
    assert_eq!(alerts(&bench), [alert("paid_work", "block", "budget_breached")]);
    let row = bench.take(&bench.paid(2));
    assert_eq!(row.state, TaskState::Queued);
    let why = row.wait_reason.unwrap();
    assert!(why.contains("the month 2026-11 has 0 of 4 USD left"), "{why}");
    let next_month = Timestamp::parse("2026-12-01T00:00:00.000Z").unwrap();
    bench.write(next_month, guards::review);
    assert_eq!(bench.ledger.spend_review().unwrap().map(|row| row.action), Some(SpendAction::Allow));
}

#[test]
fn a_quota_wall_holds_its_profile_until_the_reset_and_retries_nothing() {
    let mut bench = rich();
    let resets = now().plus_ms(2 * HOUR_MS);
    let mut first = bench.paid(1);
    first.max_attempts = 3;
    run(&mut bench, &first, now(), |attempt| Outcome {
        resets_at: Some(resets),
        ..outcome(attempt, OutcomeStatus::Error, Some("quota_wall"), Some("0"))
    });
    assert_eq!(bench.row(1).state, TaskState::Running, "it waits for its next attempt");
    bench.take(&bench.paid(2));
    bench.take(&bench.task(3));
    let free = bench.lease(now());
    assert_eq!(free.len(), 1, "another profile is not behind that wall");
    for number in [1, 2] {
        assert!(wait_reason(&bench, number).contains(&resets.to_string()), "{}", wait_reason(&bench, number));
    }
    assert!(bench.lease(resets.plus_ms(-1)).is_empty());
    let probe = bench.lease(resets);
    assert_eq!(probe.len(), 1, "one tries it, the other waits for that");
    assert_eq!(alerts(&bench), [alert("profile:paid", "block", "breaker_open")]);
    let [probe] = probe.as_slice() else { panic!() };
    let ended = Ended {
        row: probe.attempt.clone(),
        came: Came::Outcome(Box::new(outcome(&probe.attempt, OutcomeStatus::Ok, None, Some("1")))),
    };
    bench.write(resets, |tx, home| settle(tx, home, &ended));
    assert_eq!(bench.lease(resets).len(), 1, "its success lets everybody go on");
    assert_eq!(alerts(&bench).last(), Some(&alert("profile:paid", "allow", "recovered")));
}

#[test]
fn a_profile_that_keeps_failing_rests_and_a_person_can_end_that() {
    let mut bench = rich();
    for number in 1..=3 {
        let task = bench.paid(number);
        run(&mut bench, &task, now(), |attempt| {
            outcome(attempt, OutcomeStatus::Error, Some("api_error"), Some("0"))
        });
    }
    bench.take(&bench.paid(4));
    assert!(bench.lease(now()).is_empty());
    assert!(wait_reason(&bench, 4).contains("its profile keeps failing"), "{}", wait_reason(&bench, 4));
    assert!(bench.lease(now().plus_ms(299 * SECOND_MS)).is_empty());
    assert!(bench.write(now(), |tx, home| guards::close_breaker(tx, home, "paid")));
    assert_eq!(bench.lease(now()).len(), 1);
}

#[test]
fn a_probe_of_one_backend_does_not_wait_for_what_runs_on_another() {
    let backends =
        ["one", "two"].map(|name| format!("[backend.{name}]\nkind = \"local\"\ntools = [\"{name}\"]\n"));
    let mut bench = enriched(bench_with(&backends.concat()));
    let on = |bench: &Bench, number: u32, backend: &str| {
        let mut task = bench.paid(number);
        task.requires.tool = Some(backend.to_owned());
        task
    };
    for number in 1..=3 {
        let task = on(&bench, number, "one");
        run(&mut bench, &task, now(), |attempt| {
            outcome(attempt, OutcomeStatus::Error, Some("api_error"), Some("0"))
        });
    }
    bench.take(&on(&bench, 4, "two"));
    assert_eq!(bench.lease(now()).len(), 1, "the other backend never failed");
    bench.take(&on(&bench, 5, "one"));
    assert!(bench.lease(now()).is_empty(), "this one rests");
    let rested = now().plus_ms(300 * SECOND_MS);
    bench.take(&on(&bench, 6, "one"));
    let probes: Vec<_> = bench.lease(rested).into_iter().map(|launch| launch.key).collect();
    assert_eq!(probes, [key(5)], "one tries it, whatever runs elsewhere");
    assert!(wait_reason(&bench, 6).contains("one task alone tries it"), "{}", wait_reason(&bench, 6));
}

#[test]
fn a_free_profile_that_fails_is_never_left_alone() {
    let mut bench = rich();
    for number in 1..=5 {
        let task = bench.task(number);
        run(&mut bench, &task, now(), |attempt| {
            outcome(attempt, OutcomeStatus::Error, Some("exit_code"), None)
        });
    }
    assert_eq!(bench.ledger.breakers().unwrap(), []);
}

#[test]
fn the_same_paid_request_over_and_over_holds_its_sender_until_a_person_looks() {
    let mut bench = rich();
    for number in 1..=10 {
        let row = bench.take(&bench.paid(number));
        assert!(row.reservation.is_some(), "{number}");
    }
    let held = bench.take(&bench.paid(11));
    assert_eq!((held.state, held.reservation), (TaskState::Queued, None));
    assert!(bench.lease(now()).is_empty(), "what is queued already waits too");
    assert!(wait_reason(&bench, 1).contains("same paid request"), "{}", wait_reason(&bench, 1));
    let mut other = bench.paid(12);
    other.request = "something else".to_owned();
    assert_eq!(bench.take(&other).reservation, None, "held is the sender, not the request");
    let free = bench.take(&bench.task(13));
    assert_eq!(bench.lease(now()).len(), 1, "what costs nothing goes on: {:?}", free.wait_reason);
    assert_eq!(alerts(&bench), [alert("sender:devbox", "block", "identical_requests")]);
    assert_eq!(bench.write(now(), |tx, home| guards::resume(tx, home, Some(&devbox()), "ann")), 1);
    assert_eq!(bench.lease(now()).len(), 2);
    let again = bench.take(&bench.paid(14));
    assert!(again.reservation.is_some(), "it is counted anew from then on");
}

#[test]
fn identical_requests_of_another_hour_are_not_counted() {
    let mut bench = rich();
    for number in 1..=10 {
        bench.take(&bench.paid(number));
    }
    let later = now().plus_ms(HOUR_MS + 1);
    let task = bench.paid(11);
    let profile = bench.home.config.profiles[&task.profile].clone();
    bench.write(later, |tx, home| guards::note_request(tx, home, &task, &profile));
    assert_eq!(bench.ledger.open_holds().unwrap(), []);
}

#[test]
fn money_that_goes_too_fast_holds_its_sender() {
    let mut bench = rich();
    bench.home.config.safeguards.spend_per_hour = Some(usd("3"));
    for number in 1..=2 {
        let mut task = bench.paid(number);
        task.request = format!("work {number}");
        run(&mut bench, &task, now(), |attempt| outcome(attempt, OutcomeStatus::Ok, None, Some("2")));
    }
    assert_eq!(alerts(&bench), [alert("sender:devbox", "block", "spend_per_hour")]);
    bench.take(&bench.paid(3));
    assert!(bench.lease(now()).is_empty());
    assert_eq!(bench.row(1).status, Some(Status::Ok));
}

/// A task that failed once, costing more than its sender may spend in an hour, and may run once more.
fn held_between_attempts(bench: &mut Bench) {
    bench.home.config.safeguards.spend_per_hour = Some(usd("1"));
    let mut task = bench.paid(1);
    task.max_attempts = 2;
    run(bench, &task, now(), |attempt| {
        outcome(attempt, OutcomeStatus::Error, Some("exit_code"), Some("1.50"))
    });
    assert_eq!(alerts(bench), [alert("sender:devbox", "block", "spend_per_hour")]);
}

#[test]
fn a_task_whose_sender_is_held_between_its_attempts_waits_and_goes_on() {
    let mut bench = rich();
    held_between_attempts(&mut bench);
    let row = bench.row(1);
    assert_eq!((row.state, row.status, row.reservation), (TaskState::Running, None, None));
    assert!(bench.lease(now()).is_empty(), "held is held");
    assert!(wait_reason(&bench, 1).contains("budget resume devbox"), "{}", wait_reason(&bench, 1));
    assert_eq!(bench.write(now(), |tx, home| guards::resume(tx, home, None, "ann")), 1);
    let launches = bench.lease(now());
    let [launch] = launches.as_slice() else { panic!("{} leases", launches.len()) };
    assert!(launch.attempt.n == 2 && launch.attempt.reservation.is_some(), "{launch:?}");
}

#[test]
fn a_task_that_waits_between_its_attempts_ends_as_its_last_one_did_when_it_expires() {
    let mut bench = rich();
    held_between_attempts(&mut bench);
    let expires = bench.row(1).expires;
    assert_eq!(bench.ledger.next_expiry().unwrap(), Some(expires));
    let queued = bench.ledger.whole_queue().unwrap().pop().unwrap();
    assert!(!running::is_late(&queued, expires.plus_ms(-1)) && running::is_late(&queued, expires));
    assert!(bench.lease(expires).is_empty());
    bench.write(expires, |tx, home| running::expire(tx, home, &queued));
    let row = bench.row(1);
    assert_eq!((row.status, row.code.as_deref()), (Some(Status::Error), Some("exit_code")));
    assert_eq!(bench.ledger.next_expiry().unwrap(), None);
}

#[test]
fn a_task_without_room_for_its_next_attempt_waits_for_the_month() {
    let mut bench = rich();
    bench.home.config.budget.caps.month = usd("4");
    let mut task = bench.paid(1);
    task.max_attempts = 2;
    task.expires = now().plus_ms(20 * 24 * HOUR_MS);
    run(&mut bench, &task, now(), |attempt| {
        outcome(attempt, OutcomeStatus::Error, Some("exit_code"), Some("0.50"))
    });
    assert_eq!(bench.row(1).state, TaskState::Running);
    assert!(wait_reason(&bench, 1).contains("2026-11"), "{}", wait_reason(&bench, 1));
    let next_month = Timestamp::parse("2026-12-01T00:00:00.000Z").unwrap();
    assert_eq!(bench.lease(next_month).len(), 1);
}

#[test]
fn what_has_run_and_may_not_go_on_ends_as_it_did_and_never_as_if_it_had_not_run() {
    let mut bench = rich();
    bench.home.config.budget.caps.run = usd("5");
    held_between_attempts(&mut bench);
    assert_eq!(bench.write(now(), |tx, home| guards::resume(tx, home, None, "ann")), 1);
    bench.home.config.budget.caps.run = usd("1");
    assert!(bench.lease(now()).is_empty());
    assert_eq!(bench.row(1).status, Some(Status::Error));
}

fn waits_told(bench: &Bench) -> usize {
    let lines = bench.ledger.audit_lines(0, usize::MAX >> 1).unwrap();
    lines.iter().filter(|line| line.line.contains("\"kind\":\"waits\"")).count()
}

#[test]
fn what_waits_for_a_window_is_told_once_whatever_is_settled_meanwhile() {
    let mut bench = rich();
    bench.home.config.budget.caps.month = usd("6");
    let first = bench.paid(1);
    bench.take(&first);
    let launch = bench.lease(now()).pop().unwrap();
    for number in 2..=60 {
        let mut task = bench.paid(number);
        task.request = format!("work {number}");
        bench.take(&task);
    }
    let told = wait_reason(&bench, 60);
    assert!(told.contains("the month 2026-11") && told.contains("6 USD"), "window and limit: {told}");
    assert!(told.contains("2026-12-01T00:00:00.000Z"), "reset: {told}");
    assert!(bench.lease(now()).is_empty());
    let before = waits_told(&bench);
    assert_eq!(before, 59, "each of them once");
    // A dollar of four is spent, so another one fits, and what is left is another figure for all.
    let came = Came::Outcome(Box::new(outcome(&launch.attempt, OutcomeStatus::Ok, None, Some("1"))));
    let ended = Ended { row: launch.attempt, came };
    bench.write(now(), |tx, home| settle(tx, home, &ended));
    assert_eq!(bench.lease(now()).len(), 1);
    assert_eq!((waits_told(&bench), wait_reason(&bench, 60)), (before, told));
    // Another limit is another reason.
    bench.home.config.budget.caps.month = usd("5.5");
    assert!(bench.lease(now()).is_empty());
    assert_eq!(waits_told(&bench), before + 58);
}

#[test]
fn a_task_without_money_says_so_also_while_its_backend_is_taken() {
    let backend = "[backend.one]\nkind = \"local\"\nmax_parallel = 1\n";
    let mut bench = enriched(bench_with(backend));
    bench.home.config.budget.caps.month = usd("1");
    bench.take(&bench.task(1));
    bench.take(&bench.paid(2));
    bench.take(&bench.task(3));
    assert_eq!(bench.lease(now()).len(), 1);
    let told = wait_reason(&bench, 2);
    assert!(told.contains("the month 2026-11"), "{told}");
    assert!(wait_reason(&bench, 3).contains("a place on `one`"), "{}", wait_reason(&bench, 3));
    assert!(bench.lease(now()).is_empty());
    assert_eq!((wait_reason(&bench, 2), waits_told(&bench)), (told, 2));
}

/// A free task of the tree of task 1.
fn child(bench: &Bench, number: u32) -> Task {
    let root = super::id(1);
    let mut task = bench.task(number);
    task.lineage = Some(Lineage {
        root,
        parent: Some(root),
        depth: 1,
        fanout_left: 100,
        budget_usd: None,
        via: Vec::new(),
    });
    task
}

#[test]
fn a_tree_that_sends_too_fast_is_stopped_whole_although_it_is_free() {
    let mut bench = rich();
    bench.home.config.safeguards.tasks_per_hour = 3;
    let mut root = bench.task(1);
    root.lineage =
        Some(Lineage { parent: None, depth: 0, fanout_left: 101, ..child(&bench, 1).lineage.unwrap() });
    bench.take(&root);
    for number in 2..=4 {
        bench.take(&child(&bench, number));
    }
    assert_eq!(alerts(&bench), [alert("sender:devbox", "block", "tasks_per_hour")]);
    bench.take(&bench.task(5));
    let launches = bench.lease(now());
    assert_eq!(launches.iter().map(|launch| launch.key.clone()).collect::<Vec<_>>(), [key(5)]);
    assert!(wait_reason(&bench, 4).contains("budget resume devbox"), "{}", wait_reason(&bench, 4));
    assert_eq!(bench.take(&bench.paid(6)).reservation, None, "and paid work of its sender waits too");
    assert_eq!(bench.write(now(), |tx, home| guards::resume(tx, home, None, "ann")), 1);
    assert!(!bench.lease(now()).is_empty());
}
