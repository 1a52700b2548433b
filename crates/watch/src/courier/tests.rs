use dispatch_core::protocol::names::Lane;
use dispatch_core::protocol::time::HOUR_MS;
use dispatch_node::outgoing::answer_by;
use dispatch_spool::posix::PosixShare;

use super::*;
use crate::tests::{Bench, bench, devbox, id, now};

fn child(bench: &Bench, number: u32) -> Task {
    let lane = bench.home.peers[&devbox()].lane_out.clone();
    let Lane { from, to } = lane;
    Task { id: id(number), from, to, stream: Uuid::nil(), seq: 1, ..bench.task(number) }
}

fn parcel(task: Task) -> Parcel {
    Parcel { id: task.id, answer_by: answer_by(&task), task: Some(task), stop: None, job: None }
}

fn errand(bench: &Bench, parcels: Vec<Parcel>, at: Timestamp, clock: ClockTrust) -> Errand {
    let peer = &bench.home.peers[&devbox()];
    Errand {
        parcels,
        state: bench.home.config.state.clone(),
        lane: peer.lane_out.clone(),
        keys: peer.ring_out.clone(),
        cluster: bench.home.cluster,
        node: bench.home.node.clone(),
        now: at,
        clock,
    }
}

/// What a courier brings, in a word and the child's id.
fn brought(bench: &Bench, errand: &Errand) -> Vec<(&'static str, TaskId)> {
    let share = PosixShare::new(bench.dir.path().join("share"), bench.home.node.clone());
    let (mut news, mut cancelled) = (Vec::new(), Vec::new());
    errand.run(&share, &mut news, &mut cancelled).unwrap();
    let word = |news: &ChildNews| match news {
        ChildNews::Kept { .. } => "kept",
        ChildNews::Answered { .. } => "answered",
        ChildNews::Unanswered { .. } => "unanswered",
        ChildNews::NotSent { .. } => "not sent",
    };
    news.iter().map(|news| (word(news), news.id())).collect()
}

fn in_inbox(bench: &Bench) -> usize {
    std::fs::read_dir(bench.dir.path().join("share/gpubox-to-devbox/inbox")).unwrap().count()
}

#[test]
fn a_child_whose_time_is_over_is_unanswered_unless_the_clock_is_not_believed() {
    let bench = bench();
    std::fs::create_dir(bench.dir.path().join("share/gpubox-to-devbox/done/archive")).unwrap();
    let first = errand(&bench, vec![parcel(child(&bench, 1))], now(), ClockTrust::Trusted);
    assert_eq!(brought(&bench, &first), [("kept", id(1))]);
    assert_eq!(in_inbox(&bench), 1);
    let over = answer_by(&child(&bench, 1)).plus_ms(HOUR_MS);
    let kept = || vec![Parcel { task: None, ..parcel(child(&bench, 1)) }];
    assert_eq!(brought(&bench, &errand(&bench, kept(), over, ClockTrust::Suspect)), []);
    assert_eq!(brought(&bench, &errand(&bench, kept(), over, ClockTrust::Trusted)), [("unanswered", id(1))]);
}

#[test]
fn a_child_that_cannot_be_sealed_stops_no_other_and_ends_when_its_time_is_over() {
    let bench = bench();
    let unsealable = || Task { request: String::new(), ..child(&bench, 1) };
    let both = || vec![parcel(unsealable()), parcel(child(&bench, 2))];
    assert_eq!(brought(&bench, &errand(&bench, both(), now(), ClockTrust::Trusted)), [("kept", id(2))]);
    let over = answer_by(&unsealable()).plus_ms(HOUR_MS);
    let alone = errand(&bench, vec![parcel(unsealable())], over, ClockTrust::Trusted);
    assert_eq!(brought(&bench, &alone), [("unanswered", id(1))]);
}

#[test]
fn what_is_stopped_before_it_is_sealed_never_reaches_the_share() {
    let bench = bench();
    let stopped = || vec![Parcel { stop: Some("wrong one".to_owned()), ..parcel(child(&bench, 1)) }];
    let errand = errand(&bench, stopped(), now(), ClockTrust::Trusted);
    assert_eq!(brought(&bench, &errand), [("not sent", id(1))]);
    assert_eq!(in_inbox(&bench), 0);
}
