use std::sync::Arc;

use dispatch_core::protocol::keys::LaneRing;
use dispatch_core::protocol::names::Lane;
use dispatch_core::protocol::payload::{Kind, Payload as _};
use dispatch_core::protocol::seal::seal;
use dispatch_core::protocol::task::Task;
use dispatch_core::protocol::time::Timestamp;
use dispatch_node::outgoing::{Outgoing, Sealed};
use dispatch_spool::PosixShare;

use super::*;
use crate::tests::{Bench, bench, devbox, id, now};

/// A task that this node sent to devbox, and nobody answered.
fn sent(bench: &Bench, share: &dyn Share) -> (Outgoing, Timestamp) {
    let peer = &bench.home.peers[&devbox()];
    let lane: &Lane = &peer.lane_out;
    let outgoing = Outgoing::open(&bench.home.config.state, lane).unwrap();
    let locked = outgoing.lock().unwrap();
    let at = locked.next().unwrap();
    let task = Task::new(bench.home.cluster, lane, id(1), now(), (at.stream, at.seq), "true".to_owned());
    let payload = task.to_payload();
    let envelope = seal(Kind::Task, &payload, &[peer.ring_out.signing().unwrap()]);
    let record = locked.enqueue(Sealed::of(&task, &payload, envelope)).unwrap();
    let round = round(bench, now(), Told::default());
    assert_eq!(locked.publish(&round.mail(share), &record).unwrap(), Delivered::Published);
    drop(locked);
    (outgoing, record.answer_by)
}

fn round(bench: &Bench, now: Timestamp, told: Told) -> Round {
    let peer = &bench.home.peers[&devbox()];
    let ring = || LaneRing { accepted: Vec::new(), retired: Vec::new() };
    Round {
        state: bench.home.config.state.clone(),
        lane_in: peer.lane_in.clone(),
        lane_out: peer.lane_out.clone(),
        keys: peer.ring_out.clone(),
        flat: None,
        cluster: bench.home.cluster,
        node: bench.home.node.clone(),
        now,
        expected: Vec::new(),
        waiting: Vec::new(),
        keys_in: ring(),
        keys_terms: ring(),
        pending: None,
        clear: Clear::No,
        told: Arc::new(told),
        clock: ClockTrust::Trusted,
        looked_at: None,
    }
}

fn audited(bench: &Bench, kind: &str) -> usize {
    let lines = bench.ledger.audit_lines(0, usize::MAX >> 1).unwrap();
    lines.iter().filter(|line| line.line.contains(&format!("\"kind\":\"{kind}\""))).count()
}

#[test]
fn what_stays_unanswered_is_audited_before_it_is_marked_and_once_however_often_a_watcher_dies() {
    let mut bench = bench();
    let share = PosixShare::new(bench.home.config.root.clone(), bench.home.node.clone());
    let (outgoing, answer_by) = sent(&bench, &share);
    let mark = || outgoing.record(id(1)).unwrap().unwrap().unanswered_at;
    let look = |bench: &Bench, at: Timestamp, told: Told| {
        let mut upkeep = Upkeep::default();
        round(bench, at, told).own_tasks(&share, &mut upkeep).unwrap();
        News { peer: devbox(), upkeep, missing: Vec::new(), done: Vec::new() }
    };
    assert_eq!(look(&bench, answer_by.plus_ms(-1), Told::default()).upkeep.unanswered, []);
    // The watcher dies before its transaction: nothing is marked, so the next one finds it.
    assert_eq!(look(&bench, answer_by, Told::default()).upkeep.unanswered, [id(1)]);
    assert_eq!(mark(), None);
    // It dies after it: the next one finds it again, and the ledger knows it.
    for _ in 0..2 {
        let news = [look(&bench, answer_by, Told::default())];
        bench.write(answer_by, |tx, home| note(tx, home, &news));
        assert_eq!((audited(&bench, "unanswered"), mark()), (1, None));
    }
    // It lives, and marks.
    let mut told = Told::default();
    told.add(&look(&bench, answer_by, Told::default()).upkeep);
    assert_eq!(look(&bench, answer_by, told.clone()).upkeep.unanswered, []);
    assert_eq!(mark(), Some(answer_by));
    assert_eq!(look(&bench, answer_by, told).upkeep.unanswered, []);
}

#[test]
fn what_a_waiting_command_marked_as_unanswered_is_audited_too() {
    let bench = bench();
    let share = PosixShare::new(bench.home.config.root.clone(), bench.home.node.clone());
    let (outgoing, answer_by) = sent(&bench, &share);
    outgoing.mark_unanswered(id(1), answer_by).unwrap();
    let mut upkeep = Upkeep::default();
    round(&bench, answer_by, Told::default()).own_tasks(&share, &mut upkeep).unwrap();
    assert_eq!(upkeep.unanswered, [id(1)]);
}

#[test]
fn a_clock_that_is_not_believed_makes_nothing_overdue() {
    let bench = bench();
    let share = PosixShare::new(bench.home.config.root.clone(), bench.home.node.clone());
    let (outgoing, answer_by) = sent(&bench, &share);
    let mut told = Told::default();
    told.unanswered.insert(id(1));
    for told in [Told::default(), told] {
        let mut upkeep = Upkeep::default();
        let round = Round { clock: ClockTrust::Suspect, ..round(&bench, answer_by, told) };
        round.own_tasks(&share, &mut upkeep).unwrap();
        assert_eq!(upkeep.unanswered, []);
        assert_eq!(outgoing.record(id(1)).unwrap().unwrap().unanswered_at, None);
    }
}
