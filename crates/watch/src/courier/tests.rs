use dispatch_core::protocol::names::{Digest, Lane};
use dispatch_core::protocol::parts::AuditHead;
use dispatch_core::protocol::result::{Status, Subject};
use dispatch_core::protocol::seal::seal;
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

/// What a courier makes of an answer that says of its log what `says` is, where `lies` is what lies there.
fn log_of(says: (u64, &[u8]), lies: &[u8]) -> (LogKept, Vec<u8>) {
    let bench = bench();
    let job = JobDir::at(&bench.dir.path().join("state"), &devbox(), id(9), 7);
    let mine = || Parcel { job: Some(job.clone()), ..parcel(child(&bench, 1)) };
    assert_eq!(brought(&bench, &errand(&bench, vec![mine()], now(), ClockTrust::Trusted)), [("kept", id(1))]);
    let peer = &bench.home.peers[&devbox()];
    let record = Outgoing::at(&bench.home.config.state, &peer.lane_out).record(id(1)).unwrap().unwrap();
    let subject = Subject {
        cluster: bench.home.cluster,
        from: bench.home.node.clone(),
        to: devbox(),
        task: id(1),
        task_sha256: record.task_sha256,
    };
    let head = AuditHead { chain: Uuid::from_u128(5), seq: 1, head: Digest::of(b"x") };
    let mut result = TaskResult::never_ran(subject, Status::Ok, None, head);
    (result.log_bytes, result.log_sha256, result.ended_at) = (says.0, Some(Digest::of(says.1)), Some(now()));
    let done = bench.dir.path().join("share/gpubox-to-devbox/done");
    let envelope = seal(Kind::Result, &result.to_payload(), &[peer.ring_out.signing().unwrap()]);
    std::fs::write(done.join(format!("{}.result.json", id(1))), envelope).unwrap();
    std::fs::write(done.join(format!("{}.log", id(1))), lies).unwrap();
    let share = PosixShare::new(bench.dir.path().join("share"), bench.home.node.clone());
    let (mut news, mut cancelled) = (Vec::new(), Vec::new());
    let again = || vec![Parcel { task: None, ..mine() }];
    let soon = now().plus_ms(SECOND_MS);
    errand(&bench, again(), soon, ClockTrust::Trusted).run(&share, &mut news, &mut cancelled).unwrap();
    if news.is_empty() {
        let later = now().plus_ms(LOG_WAIT_MS);
        errand(&bench, again(), later, ClockTrust::Trusted).run(&share, &mut news, &mut cancelled).unwrap();
    }
    let [ChildNews::Answered { log, .. }] = news.as_slice() else { panic!("{news:?}") };
    (*log, std::fs::read(job.log_path()).unwrap())
}

#[test]
fn a_log_is_kept_only_if_it_is_the_one_its_answer_names_and_no_longer_than_its_task_allowed() {
    let good = b"did it\n".as_slice();
    assert_eq!(log_of((7, good), good), (LogKept::Yes, good.to_vec()));
    assert_eq!(log_of((7, good), b"did no\n"), (LogKept::No, Vec::new()));
    assert_eq!(log_of((7, good), b"did it\nand more\n"), (LogKept::No, Vec::new()));
    assert_eq!(log_of((u64::from(u32::MAX) << 20, good), good), (LogKept::No, Vec::new()));
}
