//! What an agent asks for at its door, on a real ledger.

use std::collections::BTreeMap;

use dispatch_core::policy::admission::Cost;
use dispatch_core::policy::lifecycle::AttemptState;
use dispatch_core::policy::money::Usd;
use dispatch_core::policy::window::RunName;
use dispatch_core::protocol::fraction::Fraction;
use dispatch_core::protocol::heartbeat::{
    Backpressure, BudgetLevels, Heartbeat, KillMode, KillswitchState, Load, NodeState, Trend, WatchInfo,
    WindowLevel,
};
use dispatch_core::protocol::names::{Digest, NodeName};
use dispatch_core::protocol::parts::AuditHead;
use dispatch_core::protocol::payload::Payload as _;
use dispatch_core::protocol::task::{Lineage, Task};
use dispatch_core::protocol::time::{SECOND_MS, Timestamp};
use dispatch_ledger::Advance;
use dispatch_node::job::door::{ChildAnswer, ChildClaim, ChildRequest, ChildWanted};
use serde_json::Value;
use uuid::Uuid;

use super::{Bench, bench, bench_with, devbox, id, now};
use crate::agents_door::{Answered, Audit, Knock, apply};
use crate::attempts::{Came, Ended};
use crate::leasing::Launch;
use crate::recipes;
use crate::running;
use crate::tripping::Stopped;

/// A task of devbox that may send `fanout` tasks, and its lease.
fn launched(bench: &mut Bench, fanout: u32) -> Launch {
    let task = sending(bench, fanout);
    bench.take(&task);
    bench.lease(now()).pop().unwrap()
}

/// Another one, of another tree.
fn second(bench: &mut Bench) -> Launch {
    let mut task = Task { id: id(2), seq: 2, ..sending(bench, 9) };
    task.lineage = task.lineage.map(|lineage| Lineage { root: id(2), ..lineage });
    bench.take(&task);
    bench.lease(now()).pop().unwrap()
}

fn sending(bench: &Bench, fanout: u32) -> Task {
    let lineage = Lineage {
        root: id(1),
        parent: None,
        depth: 0,
        fanout_left: fanout,
        budget_usd: None,
        via: Vec::new(),
    };
    Task { lineage: Some(lineage), ..bench.task(1) }
}

/// A request of its agent, numbered, as it is taken at its door.
fn knock(launch: &Launch, number: u128) -> Knock {
    let request = ChildRequest {
        id: Uuid::from_u128(number),
        token: launch.token.clone().unwrap(),
        wanted: ChildWanted::new(devbox(), "echo child".to_owned()),
        made: now(),
        expires: now().plus_ms(60 * SECOND_MS),
    };
    let claim = ChildClaim { id: request.id, request: Ok(request) };
    Knock { row: launch.attempt.clone(), started: Some(now()), claim, audit: Audit::Each }
}

fn answer(bench: &mut Bench, stopped: &Stopped, knock: &Knock, at: Timestamp) -> Answered {
    let knocks = std::slice::from_ref(knock);
    bench.write(at, |tx, home| apply(tx, home, stopped, knocks)).pop().unwrap()
}

fn code(answered: &Answered) -> &str {
    match &answered.answer {
        ChildAnswer::Made(_) => "made",
        ChildAnswer::Refused(error) => &error.code,
    }
}

fn asked(bench: &mut Bench, knock: &Knock) -> String {
    code(&answer(bench, &Stopped::default(), knock, now())).to_owned()
}

fn children(bench: &Bench) -> usize {
    bench.ledger.children_of(id(1)).unwrap().len()
}

fn audited(bench: &Bench, kind: &str) -> usize {
    let lines = bench.ledger.audit_lines(0, usize::MAX >> 1).unwrap();
    let entries = lines.iter().map(|line| serde_json::from_str::<Value>(&line.line).unwrap());
    entries.filter(|entry| entry["kind"] == kind).count()
}

#[test]
fn the_ledger_has_the_digest_of_a_token_alone_and_who_may_send_nothing_gets_none() {
    let mut bench = bench();
    let launch = launched(&mut bench, 1);
    let token = launch.token.unwrap();
    assert_eq!(launch.attempt.token_sha256, Some(Digest::of(token.as_bytes())));
    let launch = launched(&mut self::bench(), 0);
    assert_eq!((launch.token, launch.attempt.token_sha256), (None, None));
    let bench = bench_with(
        "[backend.cloud]\nkind = \"cloud_worker\"\nbilling = \"free\"\nargv = [\"/bin/true\", \"{task}\"]\n",
    );
    let recipe = recipes::resolve(&bench.home.config, &sending(&bench, 1), Cost::default()).unwrap();
    assert_eq!((recipe.backend.as_str(), recipe.fanout), ("cloud", 1));
    assert!(!recipes::may_send(&recipe));
}

#[test]
fn nothing_is_sent_before_the_agent_runs_nor_after_its_end() {
    let mut bench = bench();
    let launch = launched(&mut bench, 4);
    let early = Knock { started: None, ..knock(&launch, 1) };
    assert_eq!(asked(&mut bench, &early), "bad_token");
    assert_eq!(asked(&mut bench, &knock(&launch, 2)), "made");
    let state = bench.ledger.attempt(launch.attempt.epoch).unwrap().unwrap().state;
    assert_eq!(state, AttemptState::Started, "what asks runs");
    let ended = Ended { row: launch.attempt.clone(), came: Came::Dead { started_at: now() } };
    bench.write(now(), |tx, home| running::settle(tx, home, &ended));
    assert_eq!(asked(&mut bench, &knock(&launch, 3)), "bad_token");
    assert_eq!(children(&bench), 1);
}

#[test]
fn the_same_request_is_the_same_child_and_the_same_id_at_another_door_is_another_request() {
    let mut bench = bench();
    let launch = launched(&mut bench, 9);
    let other = second(&mut bench);
    let first = answer(&mut bench, &Stopped::default(), &knock(&launch, 1), now());
    // Long after a fresh request would be refused.
    let late = now().plus_ms(600 * SECOND_MS);
    let again = answer(&mut bench, &Stopped::default(), &knock(&launch, 1), late);
    assert_eq!((code(&first), &first.answer), ("made", &again.answer));
    assert_eq!(children(&bench), 1);
    assert_eq!(asked(&mut bench, &knock(&other, 1)), "made");
    assert_eq!(bench.ledger.open_children().unwrap().len(), 2);
    let stale = answer(&mut bench, &Stopped::default(), &knock(&launch, 2), late);
    assert_eq!(code(&stale), "expired");
}

#[test]
fn under_a_killswitch_nothing_is_sent() {
    let mut bench = bench();
    let launch = launched(&mut bench, 9);
    let node = Stopped { node: Some((KillMode::Halt, String::new())), lanes: BTreeMap::new() };
    let lane = Stopped { node: None, lanes: [(devbox(), KillMode::Halt)].into() };
    let other = NodeName::new("other").unwrap();
    let another = Stopped { node: None, lanes: [(other, KillMode::Halt)].into() };
    for (number, stopped, wanted) in [(1, node, "killswitch"), (2, lane, "killswitch"), (3, another, "made")]
    {
        let answered = answer(&mut bench, &stopped, &knock(&launch, number), now());
        assert_eq!(code(&answered), wanted);
    }
    assert_eq!(children(&bench), 1);
}

#[test]
fn a_tree_that_waits_for_a_person_sends_nothing_meanwhile() {
    let mut bench = bench();
    bench.home.config.safeguards.tasks_per_hour = 1;
    let launch = launched(&mut bench, 9);
    assert_eq!(asked(&mut bench, &knock(&launch, 1)), "made");
    // Another of its tree comes back to this node: one too many.
    let lineage = Lineage {
        root: id(1),
        parent: Some(id(1)),
        depth: 1,
        fanout_left: 0,
        budget_usd: None,
        via: Vec::new(),
    };
    bench.take(&Task { lineage: Some(lineage), ..bench.task(2) });
    let answered = answer(&mut bench, &Stopped::default(), &knock(&launch, 2), now());
    let ChildAnswer::Refused(no) = &answered.answer else { panic!("{answered:?}") };
    assert_eq!(no.code, "rate_exceeded");
    assert!(no.help.as_deref().unwrap().contains("dispatchctl budget resume devbox"), "{no:?}");
    bench.write(now(), |tx, home| crate::guards::resume(tx, home, None, "ann"));
    assert_eq!(asked(&mut bench, &knock(&launch, 3)), "made");
}

#[test]
fn a_refusal_is_audited_or_counted_and_never_both() {
    let mut bench = bench();
    let launch = launched(&mut bench, 1);
    let greedy = |number| {
        let mut knock = knock(&launch, number);
        if let Ok(request) = &mut knock.claim.request {
            request.wanted.fanout = Some(9);
        }
        knock
    };
    let each = answer(&mut bench, &Stopped::default(), &greedy(1), now());
    assert_eq!((code(&each), each.counted, audited(&bench, "child_refused")), ("lineage_exceeded", None, 1));
    let counted = Knock { audit: Audit::Counted, ..greedy(2) };
    let counted = answer(&mut bench, &Stopped::default(), &counted, now());
    assert_eq!(counted.counted, Some("lineage_exceeded"));
    assert_eq!(audited(&bench, "child_refused"), 1);
}

#[test]
fn a_token_counts_at_its_own_door_alone() {
    let mut bench = bench();
    let launch = launched(&mut bench, 9);
    let other = second(&mut bench);
    for (number, token) in [(1, other.token.clone().unwrap()), (2, "f".repeat(64)), (3, String::new())] {
        let mut knock = knock(&launch, number);
        if let Ok(request) = &mut knock.claim.request {
            request.token = token;
        }
        assert_eq!(asked(&mut bench, &knock), "bad_token");
    }
    assert_eq!(asked(&mut bench, &knock(&launch, 4)), "made");
    assert_eq!(children(&bench), 1);
}

/// What devbox shows of itself: full or not.
fn beat(bench: &Bench, seq: u64, backpressure: Backpressure) -> Vec<u8> {
    let zero = || Fraction::from_wire("0").unwrap();
    let level = WindowLevel { committed: Usd::ZERO, cap: Usd::ZERO };
    let beat = Heartbeat {
        cluster: bench.home.cluster,
        node: devbox(),
        instance: Uuid::from_u128(1),
        boot: 1,
        seq,
        ts: now(),
        version: "0".into(),
        state: NodeState::Active,
        load: Load {
            queued: 0,
            waiting: 0,
            running: 0,
            capacity: 1,
            saturation: zero(),
            trend: Trend::Steady,
            cpu_load_1m: zero(),
            mem_used_bytes: 0,
            mem_total_bytes: 0,
            disk_used_bytes: 0,
            disk_total_bytes: 0,
        },
        backpressure,
        capabilities: Vec::new(),
        backends: Vec::new(),
        budget: BudgetLevels { run: level, month: level },
        killswitch: KillswitchState { tripped: false, mode: None, reason: None },
        watch: WatchInfo { strategy: "poll".into(), poll_ms: 1_000 },
        audit: AuditHead { chain: Uuid::from_u128(2), seq: 1, head: Digest::of(b"") },
        peers_seen: [].into(),
    };
    beat.to_payload()
}

fn beats(bench: &mut Bench, seq: u64, backpressure: Backpressure) {
    let payload = beat(bench, seq, backpressure);
    let advance = bench.write(now(), |tx, _| tx.note_heartbeat(&devbox(), 1, seq, &payload));
    assert_eq!(advance, Advance::Advanced);
}

#[test]
fn a_peer_that_is_full_is_sent_nothing_until_it_has_room_or_is_silent() {
    let mut bench = bench();
    let launch = launched(&mut bench, 9);
    let full = Backpressure { on: true, level: 90, retry_after_s: Some(30) };
    let room = Backpressure { on: false, level: 10, retry_after_s: None };
    beats(&mut bench, 1, full);
    let answered = answer(&mut bench, &Stopped::default(), &knock(&launch, 1), now());
    let ChildAnswer::Refused(no) = &answered.answer else { panic!("{answered:?}") };
    assert_eq!((no.code.as_str(), no.help.as_deref()), ("at_capacity", Some("try again in 30s")));
    beats(&mut bench, 2, room);
    assert_eq!(asked(&mut bench, &knock(&launch, 2)), "made");
    beats(&mut bench, 3, full);
    let later = now().plus_ms(90 * SECOND_MS);
    let mut knock = knock(&launch, 3);
    if let Ok(request) = &mut knock.claim.request {
        (request.made, request.expires) = (later, later.plus_ms(60 * SECOND_MS));
    }
    let answered = answer(&mut bench, &Stopped::default(), &knock, later);
    assert_eq!(code(&answered), "made", "its last words are old");
}

/// A no, as its agent reads it.
fn no(answered: &Answered) -> String {
    match &answered.answer {
        ChildAnswer::Made(made) => panic!("it was made: {made:?}"),
        ChildAnswer::Refused(no) => {
            let help = no.help.as_deref().unwrap_or_else(|| panic!("{no:?}"));
            format!("{}: {}\n  help: {help}\n", no.code, no.text)
        }
    }
}

/// A task with a bound, what it has sent, and the no to one more request of it.
fn refusal(more: &str, sent: u128, change: impl Fn(&mut ChildRequest)) -> String {
    let mut bench = bench_with(more);
    let lineage = Lineage {
        root: id(1),
        parent: None,
        depth: 0,
        fanout_left: 4,
        budget_usd: Usd::from_wire("3").ok(),
        via: Vec::new(),
    };
    bench.take(&Task { lineage: Some(lineage), ..bench.task(1) });
    let launch = bench.lease(now()).pop().unwrap();
    for number in 0..sent {
        let mut first = knock(&launch, 100 + number);
        if let Ok(request) = &mut first.claim.request {
            (request.wanted.fanout, request.wanted.budget_usd) = (Some(0), Usd::from_wire("0.5").ok());
        }
        assert_eq!(asked(&mut bench, &first), "made");
    }
    let mut last = knock(&launch, 1);
    if let Ok(request) = &mut last.claim.request {
        change(request);
    }
    no(&answer(&mut bench, &Stopped::default(), &last, now()))
}

#[test]
fn every_no_to_an_agent_names_the_limit_what_is_left_and_who_can_lift_it() {
    type Case<'a> = (&'a str, u128, &'a dyn Fn(&mut ChildRequest));
    let cases: [Case<'_>; 12] = [
        ("[lineage]\ndepth_max = 0\n", 0, &|_| {}),
        ("", 4, &|_| {}),
        ("", 1, &|request| request.wanted.fanout = Some(3)),
        ("", 2, &|request| request.wanted.budget_usd = Usd::from_wire("2.01").ok()),
        ("", 0, &|request| request.wanted.require_dangerous = true),
        ("", 0, &|request| request.wanted.allow_sdk = true),
        ("", 0, &|request| request.wanted.run = RunName::new("fresh").ok()),
        ("", 0, &|request| request.wanted.to = NodeName::new("nowhere").unwrap()),
        ("", 0, &|request| request.wanted.request = String::new()),
        ("", 0, &|request| request.wanted.timeout_s = Some(86_401)),
        ("", 0, &|request| request.wanted.expires_ms = Some(0)),
        ("", 0, &|request| request.token = "f".repeat(64)),
    ];
    let texts: Vec<String> = cases.iter().map(|(more, sent, change)| refusal(more, *sent, change)).collect();
    insta::assert_snapshot!(texts.concat());
}

#[test]
fn the_trees_cap_bounds_what_is_sent_from_it_and_says_so() {
    let mut bench = bench();
    bench.home.config.budget.caps.tree = Usd::from_wire("2").ok();
    let launch = launched(&mut bench, 9);
    let with = |number: u128, usd: &str| {
        let mut knock = knock(&launch, number);
        if let Ok(request) = &mut knock.claim.request {
            request.wanted.budget_usd = Usd::from_wire(usd).ok();
        }
        knock
    };
    assert_eq!(asked(&mut bench, &with(1, "1.5")), "made");
    let refused = answer(&mut bench, &Stopped::default(), &with(2, "0.6"), now());
    insta::assert_snapshot!(no(&refused));
    assert_eq!(asked(&mut bench, &with(3, "0.5")), "made");
}
