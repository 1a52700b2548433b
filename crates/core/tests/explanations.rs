//! Every sentence that explains where a task is: each says what, why, and what to do now.
//!
//! The lists below name every variant. Where one is added, a `match` here stops compiling until it has its place and text.
#![expect(
    clippy::unwrap_used,
    reason = "what is written here is well formed, and a test that finds otherwise must fail"
)]

use dispatch_core::explain::{
    self, CostFacts, Explanation, Flusher, PeerSays, Sent, Standing, SwitchFile, Told, WindowFacts,
};
use dispatch_core::planner::queue::Holdback;
use dispatch_core::policy::admission::{Billing, Bound, Refusal, RefusalCode, RoomWait, WaitCause};
use dispatch_core::policy::breaker::{BreakerCause, Opened};
use dispatch_core::policy::gate::GateReason;
use dispatch_core::policy::hold::Hold;
use dispatch_core::policy::lifecycle::TaskState;
use dispatch_core::policy::lineage::LineageError;
use dispatch_core::policy::money::Usd;
use dispatch_core::policy::routing::WhyNot;
use dispatch_core::policy::velocity::VelocityTrip;
use dispatch_core::policy::window::{Balance, WindowKey};
use dispatch_core::protocol::heartbeat::{KillMode, NodeState};
use dispatch_core::protocol::names::{NodeName, TaskId};
use dispatch_core::protocol::reason::ReasonCode;
use dispatch_core::protocol::result::{Reason, Status};
use dispatch_core::protocol::time::Timestamp;

fn usd(text: &str) -> Usd {
    Usd::from_wire(text).unwrap()
}

fn at(text: &str) -> Timestamp {
    Timestamp::parse(text).unwrap()
}

fn noon() -> Timestamp {
    at("2026-11-21T12:00:00.000Z")
}

/// One text as a block of the snapshot.
fn block(name: &str, text: &Explanation) -> String {
    whole(name, text);
    format!("[{name}]\nwhat: {}\nwhy:  {}\nnow:  {}\n", text.what, text.why, text.next)
}

fn told_block(name: &str, told: &Told) -> String {
    assert!(told.code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{}", told.code);
    block(&format!("{name} = {} ({:?})", told.code, told.who), &told.text)
}

/// Three sentences, none of them empty, each one line without a full stop.
#[track_caller]
fn whole(name: &str, text: &Explanation) {
    for part in [&text.what, &text.why, &text.next] {
        assert!(!part.trim().is_empty(), "{name}: {text:?}");
        assert!(!part.ends_with('.') && !part.contains('\n') && !part.contains("  "), "{name}: {part}");
    }
}

fn room(cause: WaitCause, key: &str, limit: &str) -> RoomWait {
    let window = WindowKey::parse(key).unwrap();
    RoomWait {
        cause,
        resets_at: window.resets_at(),
        window: Some(window),
        limit: Some(usd(limit)),
        left: Some(usd("1")),
        asked: Some(usd("2.5")),
    }
}

fn standings() -> Vec<(&'static str, Standing)> {
    let reason = || Reason { code: "over_cap".into(), text: "no room".into(), help: "ask for less".into() };
    let switch = |place: &str, mode, reason: &str, file| Standing::Killswitch {
        place: place.to_owned(),
        mode,
        reason: reason.to_owned(),
        file,
    };
    vec![
        ("received", Standing::Received),
        (
            "waiting",
            Standing::Waiting {
                gates: vec![GateReason::RequireAck],
                approvals: 0,
                required: 1,
                expires: noon(),
            },
        ),
        (
            "waiting for two",
            Standing::Waiting { gates: GateReason::ALL.to_vec(), approvals: 1, required: 2, expires: noon() },
        ),
        ("approved", Standing::Approved),
        ("stopping", Standing::Stopping { why: "cancelled".into(), by: "devbox".into() }),
        ("no watcher", Standing::NoWatcher),
        ("held: tripped", Standing::Held(Holdback::Tripped)),
        ("held: share", Standing::Held(Holdback::ShareUnreachable)),
        ("held: draining", Standing::Held(Holdback::Draining)),
        ("held: recovery", Standing::Held(Holdback::Recovery)),
        ("held: superseded", Standing::Held(Holdback::Superseded)),
        ("killswitch: root", switch("root", KillMode::Halt, "runaway", SwitchFile::There)),
        ("killswitch: node", switch("node", KillMode::Kill, "", SwitchFile::There)),
        ("killswitch: lane", switch("devbox-to-gpubox", KillMode::Halt, "noise", SwitchFile::Gone)),
        ("room: month", Standing::Room(room(WaitCause::OverCap, "month:2026-11", "100"))),
        ("room: never", Standing::Room(room(WaitCause::OverCap, "month:2026-11", "2"))),
        ("held by a safeguard", Standing::Hold(Hold::OneAtATime)),
        ("back-off", Standing::BackOff { until: noon(), failures: 2 }),
        ("behind: next", Standing::Behind { ahead: 0, running: 2, places: 2 }),
        ("behind: one", Standing::Behind { ahead: 1, running: 2, places: 2 }),
        ("behind: many", Standing::Behind { ahead: 17, running: 2, places: 2 }),
        ("due", Standing::Due),
        ("running", Standing::Running { for_ms: 72_000, timeout_s: Some(3_600), attempt: 1, attempts: 1 }),
        ("running again", Standing::Running { for_ms: 500, timeout_s: None, attempt: 2, attempts: 3 }),
        (
            "forwarded",
            Standing::Forwarded {
                to: "gpubox".into(),
                child: "dacaf1ff".into(),
                for_ms: 72_000,
                answer_by: noon(),
            },
        ),
        ("starting", Standing::Starting),
        ("between attempts", Standing::BetweenAttempts { started: 1, attempts: 3 }),
        ("ended with a reason", Standing::Ended { status: Status::Rejected, reason: Some(reason()) }),
        ("ended", Standing::Ended { status: Status::Ok, reason: None }),
        ("unpublished", Standing::Unpublished),
    ]
}

/// A number for each variant, so that the list above can be counted.
fn standing_number(standing: &Standing) -> usize {
    match standing {
        Standing::Received => 0,
        Standing::Waiting { .. } => 1,
        Standing::Approved => 2,
        Standing::Stopping { .. } => 3,
        Standing::NoWatcher => 4,
        Standing::Held(_) => 5,
        Standing::Killswitch { .. } => 6,
        Standing::Room(_) => 7,
        Standing::BackOff { .. } => 8,
        Standing::Behind { .. } => 9,
        Standing::Due => 10,
        Standing::Running { .. } => 11,
        Standing::Starting => 12,
        Standing::BetweenAttempts { .. } => 13,
        Standing::Ended { .. } => 14,
        Standing::Unpublished => 15,
        Standing::Hold(_) => 16,
        Standing::Forwarded { .. } => 17,
    }
}

fn sents() -> Vec<(&'static str, Sent)> {
    vec![
        ("kept, watched", Sent::Kept(Flusher::Watcher)),
        ("kept, not watched", Sent::Kept(Flusher::NextSend)),
        ("no share", Sent::NoShare("the share has no CLUSTER".into())),
        ("in the inbox", Sent::InInbox),
        ("waiting", Sent::Waiting(vec![GateReason::Dangerous])),
        ("queued", Sent::Queued { position: None }),
        ("queued first", Sent::Queued { position: Some(1) }),
        ("queued third", Sent::Queued { position: Some(3) }),
        ("running", Sent::Running { elapsed_ms: Some(72_000), usd: Some(usd("0.14")) }),
        ("unseen", Sent::Unseen),
        ("conflict", Sent::Conflict),
        ("cancel asked", Sent::CancelAsked),
        ("late", Sent::Late { answer_by: noon() }),
        ("unanswered", Sent::Unanswered { answer_by: noon() }),
        ("not believed", Sent::NotBelieved { code: Some(ReasonCode::BadSignature) }),
        ("no file", Sent::NotBelieved { code: None }),
        ("in doubt", Sent::InDoubt),
        ("unsigned", Sent::Unsigned { says: "done".into() }),
        ("answered", Sent::Answered { status: Status::Timeout, reason: None }),
    ]
}

fn sent_number(sent: &Sent) -> usize {
    match sent {
        Sent::Kept(_) => 0,
        Sent::NoShare(_) => 1,
        Sent::InInbox => 2,
        Sent::Waiting(_) => 3,
        Sent::Queued { .. } => 4,
        Sent::Running { .. } => 5,
        Sent::Unseen => 6,
        Sent::Conflict => 7,
        Sent::CancelAsked => 8,
        Sent::Late { .. } => 9,
        Sent::Unanswered { .. } => 10,
        Sent::NotBelieved { .. } => 11,
        Sent::Answered { .. } => 12,
        Sent::InDoubt => 13,
        Sent::Unsigned { .. } => 14,
    }
}

fn peers() -> Vec<(String, PeerSays)> {
    let mut all = vec![
        ("never".to_owned(), PeerSays::Never),
        ("stale".to_owned(), PeerSays::Stale { age_ms: 45_000 }),
        ("dead".to_owned(), PeerSays::Dead { age_ms: 7_500_000 }),
        ("stopped".to_owned(), PeerSays::Stopped { reason: "runaway".into() }),
        ("full".to_owned(), PeerSays::Full { retry_after_s: Some(30) }),
        ("full, no time".to_owned(), PeerSays::Full { retry_after_s: None }),
        ("healthy".to_owned(), PeerSays::Healthy),
    ];
    all.extend(NodeState::ALL.iter().map(|state| (state.to_string(), PeerSays::NotActive(*state))));
    all
}

fn peer_number(says: &PeerSays) -> usize {
    match says {
        PeerSays::Never => 0,
        PeerSays::Stale { .. } => 1,
        PeerSays::Dead { .. } => 2,
        PeerSays::Stopped { .. } => 3,
        PeerSays::Full { .. } => 4,
        PeerSays::NotActive(_) => 5,
        PeerSays::Healthy => 6,
    }
}

fn holds() -> Vec<(&'static str, Hold)> {
    let root = TaskId::parse("01a1f89c-fb83-734b-96bb-78a1dacaf1ff").unwrap();
    let sender = NodeName::new("devbox").unwrap();
    let profile = "default".to_owned();
    let opened = |cause| Opened { cause, until: noon() };
    vec![
        (
            "quota wall",
            Hold::BreakerOpen { profile: profile.clone(), opened: opened(BreakerCause::QuotaWall) },
        ),
        ("failures", Hold::BreakerOpen { profile: profile.clone(), opened: opened(BreakerCause::Failures) }),
        ("probing", Hold::Probing { profile }),
        ("one at a time", Hold::OneAtATime),
        ("tree held", Hold::TreeHeld { root, sender: sender.clone() }),
        (
            "sender held",
            Hold::SenderHeld {
                sender,
                trips: vec![
                    VelocityTrip::SpendPerHour,
                    VelocityTrip::TasksPerHour,
                    VelocityTrip::IdenticalRequests,
                ],
                since: noon(),
            },
        ),
    ]
}

fn hold_number(hold: &Hold) -> usize {
    match hold {
        Hold::BreakerOpen { opened: Opened { cause: BreakerCause::QuotaWall, .. }, .. } => 0,
        Hold::BreakerOpen { opened: Opened { cause: BreakerCause::Failures, .. }, .. } => 1,
        Hold::Probing { .. } => 2,
        Hold::OneAtATime => 3,
        Hold::TreeHeld { .. } => 4,
        Hold::SenderHeld { .. } => 5,
    }
}

/// Every number from 0 on is there: nothing of the list was left out.
#[track_caller]
fn complete(numbers: impl Iterator<Item = usize>, count: usize) {
    let found: std::collections::BTreeSet<usize> = numbers.collect();
    assert_eq!(found, (0..count).collect());
}

#[test]
fn every_place_of_a_received_task_is_explained() {
    let all = standings();
    complete(all.iter().map(|(_, standing)| standing_number(standing)), 18);
    let text: Vec<String> = all.iter().map(|(name, standing)| told_block(name, &standing.told())).collect();
    insta::assert_snapshot!(text.join("\n"));
}

#[test]
fn every_place_of_a_sent_task_is_explained() {
    let all = sents();
    complete(all.iter().map(|(_, sent)| sent_number(sent)), 15);
    let text: Vec<String> = all.iter().map(|(name, sent)| told_block(name, &sent.told())).collect();
    insta::assert_snapshot!(text.join("\n"));
}

#[test]
fn everything_a_receiver_says_of_itself_is_explained() {
    let all = peers();
    complete(all.iter().map(|(_, says)| peer_number(says)), 7);
    let text: Vec<String> = all.iter().map(|(name, says)| told_block(name, &says.told())).collect();
    insta::assert_snapshot!(text.join("\n"));
}

#[test]
fn everything_that_holds_a_queued_task_is_explained_also_by_its_noted_line() {
    let all = holds();
    complete(all.iter().map(|(_, hold)| hold_number(hold)), 6);
    for (_, hold) in &all {
        let noted = explain::noted_wait(&explain::held(hold).line());
        assert_eq!(Standing::Hold(hold.clone()).told().code, noted.code, "one word for one hold");
    }
    let mut text: Vec<String> = all.iter().map(|(name, hold)| block(name, &explain::held(hold))).collect();
    text.push(block("backend", &explain::backend_busy("gpu")));
    let lines = all.iter().map(|(_, hold)| explain::held(hold)).chain([explain::backend_busy("gpu")]);
    for said in lines {
        let told = explain::noted_wait(&said.line());
        assert_eq!((&told.text.what, &told.text.why), (&said.what, &said.why));
        assert_ne!(told.code, "waits", "a word of its own: {said}");
        text.push(told_block("noted", &told));
    }
    insta::assert_snapshot!(text.join("\n"));
}

#[test]
fn every_state_of_a_task_is_explained() {
    let text: Vec<String> =
        TaskState::ALL.iter().map(|state| told_block(state.as_str(), &explain::passing(*state))).collect();
    insta::assert_snapshot!(text.join("\n"));
}

#[test]
fn every_status_is_explained() {
    let text: Vec<String> =
        Status::ALL.iter().map(|status| block(status.as_str(), &explain::status(*status))).collect();
    insta::assert_snapshot!(text.join("\n"));
}

#[test]
fn every_code_of_the_protocol_is_explained() {
    let text: Vec<String> = ReasonCode::ALL
        .iter()
        .map(|code| block(&format!("{code} ({:?})", code.who()), &explain::code(*code)))
        .collect();
    insta::assert_snapshot!(text.join("\n"));
}

#[test]
fn every_refusal_of_policy_is_explained() {
    let window = WindowKey::parse("run:devbox/nightly").unwrap();
    let full = |code| Refusal {
        window: Some(window.clone()),
        limit: Some(usd("5")),
        left: Some(usd("1.25")),
        asked: Some(usd("2.5")),
        ..Refusal::plain(code)
    };
    let mut text: Vec<String> =
        RefusalCode::ALL.iter().map(|code| block(code.as_str(), &explain::refusal(&full(*code)))).collect();
    let unfit = Refusal {
        backends: vec![("local".to_owned(), WhyNot::NoGpu), ("big".to_owned(), WhyNot::VramTooSmall)],
        ..Refusal::plain(RefusalCode::NoEligibleBackend)
    };
    text.push(block("no_eligible_backend of two", &explain::refusal(&unfit)));
    let branch = Refusal { bound: Bound::Branch, ..full(RefusalCode::OverCap) };
    text.push(block("over_cap of its branch", &explain::refusal(&branch)));
    for error in [
        LineageError::Inconsistent,
        LineageError::OtherRoot,
        LineageError::Depth,
        LineageError::Fanout,
        LineageError::Budget,
        LineageError::TooDeep { depth_max: 8 },
        LineageError::ComesBack,
    ] {
        let refusal = Refusal { lineage: Some(error), ..Refusal::plain(RefusalCode::LineageExceeded) };
        text.push(block(&format!("lineage_exceeded: {error:?}"), &explain::refusal(&refusal)));
    }
    for key in OTHER_WINDOWS {
        let window = WindowKey::parse(key).unwrap();
        let refusal =
            Refusal { resets_at: window.resets_at(), window: Some(window), ..full(RefusalCode::OverCap) };
        text.push(block(&format!("over_cap {key}"), &explain::refusal(&refusal)));
    }
    insta::assert_snapshot!(text.join("\n"));
}

/// Windows that refuse, beside a run that its sender named.
const OTHER_WINDOWS: [&str; 5] = [
    "run:devbox/2026-11-21@day",
    "day:2026-11-21",
    "month:2026-11",
    "sender:devbox/2026-11",
    "tree:01a1f89c-fb83-734b-96bb-78a1dacaf1ff",
];

/// What a no must say: which limit, what is left of it, when it resets, who lifts it; `""` where there is none.
type Four = [&'static str; 4];

#[track_caller]
fn says(name: &str, text: &Explanation, [limit, left, resets, lifts]: Four) -> String {
    for (part, words) in [("limit", limit), ("left", left), ("resets", resets), ("lifts", lifts)] {
        assert!(text.to_string().contains(words), "{name}: the {part}, `{words}`, is not in: {text}");
    }
    let or = |words: &'static str| if words.is_empty() { "-" } else { words };
    format!(
        "{name}\n  limit:  {limit}\n  left:   {}\n  resets: {}\n  lifts:  {}\n",
        or(left),
        or(resets),
        or(lifts)
    )
}

const OPERATOR: &str = "whoever runs the receiving node";

/// No `_` arm: a new refusal does not compile before it says its four.
fn four_of_refusal(code: RefusalCode) -> Four {
    match code {
        RefusalCode::LineageExceeded => {
            ["`depth_max` (now 8)", "deeper than 8 steps", "never resets", OPERATOR]
        }
        RefusalCode::DangerousNotAllowed => ["`allow_dangerous`", "", "", OPERATOR],
        RefusalCode::MeteredNotAllowed => ["`allow_metered`", "", "", OPERATOR],
        RefusalCode::NoEligibleBackend => ["no backend", "", "", OPERATOR],
        RefusalCode::CeilingTooLow => ["the ceiling", "not above 0", "", OPERATOR],
        RefusalCode::NoEstimate => ["`max_cost_usd` and `overshoot_usd`", "nothing above 0", "", OPERATOR],
        RefusalCode::RunClosed => {
            ["the run `nightly` of devbox", "closed", "does not open again", "another --run"]
        }
        RefusalCode::TooManyRuns => {
            ["`runs_per_day`", "none of today's", "after 2026-11-22T00:00:00.000Z", OPERATOR]
        }
        RefusalCode::OverCap => ["`run_usd`", "1.25 of 5 USD left", "does not reset by itself", OPERATOR],
        RefusalCode::BudgetInvalid => ["negative balance or cap", "", "", OPERATOR],
    }
}

fn four_of_window(window: &WindowKey) -> Four {
    let left = "1.25 of 5 USD left";
    match window {
        WindowKey::Run { .. } => ["`run_usd`", left, "does not reset by itself", OPERATOR],
        WindowKey::RunOfDay { .. } => ["`run_usd`", left, "after 2026-11-22T00:00:00.000Z", OPERATOR],
        WindowKey::Day(_) => ["`day_usd`", left, "after 2026-11-22T00:00:00.000Z", OPERATOR],
        WindowKey::Month(_) => ["`month_usd`", left, "after 2026-12-01T00:00:00.000Z", OPERATOR],
        WindowKey::Sender { .. } => ["`sender_usd`", left, "after 2026-12-01T00:00:00.000Z", OPERATOR],
        WindowKey::Tree(_) => ["`tree_usd`", left, "does not reset by itself", OPERATOR],
    }
}

fn four_of_wait(cause: WaitCause) -> Four {
    let month = "by itself after 2026-12-01T00:00:00.000Z";
    match cause {
        WaitCause::OverCap | WaitCause::SpendBlocked => ["`month_usd`", "1 of 100 USD left", month, OPERATOR],
        WaitCause::ClockSuspect => ["clock", "not known", "by itself once that agrees", "--accept-clock"],
        WaitCause::DayClosed => {
            ["the day", "nothing of the day", "by itself after 2026-11-22T00:00:00.000Z", "nobody"]
        }
        WaitCause::MonthClosed => ["the month", "what is left, is not known", month, "--month-spent USD"],
        WaitCause::SenderHeld => ["too fast", "", "does not end by itself", "`dispatchctl budget resume`"],
    }
}

fn four_of_hold(hold: &Hold) -> Four {
    let noon = "2026-11-21T12:00:00.000Z";
    match hold {
        Hold::BreakerOpen { opened, .. } => match opened.cause {
            BreakerCause::QuotaWall => ["a limit", "has reached", noon, "--profile default"],
            BreakerCause::Failures => ["`failure_threshold`", "as often in a row", noon, "--profile default"],
        },
        Hold::Probing { .. } => ["one task alone", "", "when that task succeeds", "--profile default"],
        Hold::OneAtATime => ["[safeguards]", "nearly used up", "when that one ends", OPERATOR],
        Hold::TreeHeld { .. } => {
            ["`tasks_per_hour`", "more tasks", "does not end by itself", "resume devbox"]
        }
        Hold::SenderHeld { .. } => {
            ["`spend_per_hour_usd`", "more in an hour", "does not end by itself", "resume devbox"]
        }
    }
}

/// Policy: every no names the limit, what is left of it, when it resets, and who can lift it.
#[test]
fn every_refusal_and_every_hold_names_the_limit_what_is_left_when_it_resets_and_who_lifts_it() {
    let full = |key: &str, code| {
        let window = WindowKey::parse(key).unwrap();
        Refusal {
            resets_at: window.resets_at(),
            window: Some(window),
            limit: Some(usd("5")),
            left: Some(usd("1.25")),
            asked: Some(usd("2.5")),
            ..Refusal::plain(code)
        }
    };
    let mut text = Vec::new();
    for code in RefusalCode::ALL {
        let refusal = match code {
            // What ends a lack of runs is the day, not the run.
            RefusalCode::TooManyRuns => Refusal {
                resets_at: Some(at("2026-11-22T00:00:00.000Z")),
                ..full("run:devbox/nightly", code)
            },
            RefusalCode::LineageExceeded => {
                Refusal { lineage: Some(LineageError::TooDeep { depth_max: 8 }), ..Refusal::plain(code) }
            }
            RefusalCode::DangerousNotAllowed
            | RefusalCode::MeteredNotAllowed
            | RefusalCode::NoEligibleBackend
            | RefusalCode::CeilingTooLow
            | RefusalCode::NoEstimate
            | RefusalCode::RunClosed
            | RefusalCode::OverCap
            | RefusalCode::BudgetInvalid => full("run:devbox/nightly", code),
        };
        text.push(says(code.as_str(), &explain::refusal(&refusal), four_of_refusal(code)));
    }
    for key in OTHER_WINDOWS {
        let refusal = full(key, RefusalCode::OverCap);
        let four = four_of_window(&WindowKey::parse(key).unwrap());
        text.push(says(&format!("over_cap {key}"), &explain::refusal(&refusal), four));
    }
    for cause in WaitCause::ALL {
        let key = if cause == WaitCause::DayClosed { "day:2026-11-21" } else { "month:2026-11" };
        text.push(says(cause.as_str(), &explain::wait(&room(cause, key, "100")), four_of_wait(cause)));
    }
    for (name, hold) in holds() {
        text.push(says(name, &explain::held(&hold), four_of_hold(&hold)));
    }
    insta::assert_snapshot!(text.join("\n"));
}

#[test]
fn every_wait_for_money_is_explained() {
    let text: Vec<String> = WaitCause::ALL
        .iter()
        .map(|cause| {
            let key = if *cause == WaitCause::DayClosed { "day:2026-11-21" } else { "month:2026-11" };
            block(cause.as_str(), &explain::wait(&room(*cause, key, "100")))
        })
        .collect();
    insta::assert_snapshot!(text.join("\n"));
}

#[test]
fn every_reason_to_ask_a_person_and_every_unfit_backend_is_explained() {
    let gates = GateReason::ALL.iter().map(|reason| format!("{reason}: {}", explain::gate(*reason)));
    let backends = [
        WhyNot::SdkNotAllowed,
        WhyNot::NoGpu,
        WhyNot::VramTooSmall,
        WhyNot::ImageNotOffered,
        WhyNot::ToolNotOffered,
        WhyNot::CameThrough,
    ];
    let backends = backends.iter().map(|why| format!("{why:?}: {}", explain::why_not(*why)));
    let text: Vec<String> = gates.chain(backends).collect();
    assert!(text.iter().all(|line| !line.ends_with(": ") && !line.ends_with('.')));
    insta::assert_snapshot!(text.join("\n"));
}

#[test]
fn a_noted_wait_is_explained_by_its_line_alone() {
    for cause in WaitCause::ALL {
        let wait = explain::wait(&room(cause, "month:2026-11", "100"));
        let told = explain::noted_wait(&wait.line());
        assert_eq!((&told.text.what, &told.text.why), (&wait.what, &wait.why), "{cause}");
        assert_eq!(told.code, cause.as_str(), "one word for one wait");
        whole(cause.as_str(), &told.text);
    }
    assert_eq!(explain::noted_wait("month:2026-11").code, "over_cap");
    let foreign = explain::noted_wait("something that a later release waits for");
    whole("foreign", &foreign.text);
    assert_eq!(foreign.text.why, "something that a later release waits for");
}

#[test]
fn what_a_task_costs_is_said_in_words() {
    let facts = |billing, ceiling: Option<&str>, estimate: Option<&str>| CostFacts {
        billing,
        ceiling_usd: ceiling.map(usd),
        estimate_usd: estimate.map(usd),
    };
    let month = WindowKey::parse("month:2026-11").unwrap();
    let run = WindowKey::parse("run:devbox/nightly").unwrap();
    let level = |key, reserved: &str, spent: &str, cap: Option<&str>| {
        let balance = Balance { reserved: usd(reserved), spent: usd(spent) };
        explain::window_line(&WindowFacts { key, balance, cap: cap.map(usd) })
    };
    let text = [
        explain::cost(&facts(Billing::Free, None, None)),
        explain::cost(&facts(Billing::Subscription, None, None)),
        explain::cost(&facts(Billing::Metered, Some("2"), Some("4"))),
        explain::cost(&facts(Billing::Metered, None, None)),
        explain::sent_cost(None, None),
        explain::sent_cost(Some(usd("2")), Some(usd("4"))),
        level(&month, "1", "2.5", Some("100")),
        level(&month, "1", "99", Some("100")),
        level(&month, "0", "0", Some("0")),
        level(&run, "0", "0.5", None),
    ];
    insta::assert_snapshot!(text.join("\n"));
}
