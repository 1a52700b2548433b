use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dispatch_core::protocol::names::{Lane, NodeName};
use dispatch_spool::posix::PosixShare;
use dispatch_spool::share::Share;

use super::{Bench, bench, id, key};
use crate::attempts::Care;
use crate::look::{self, LaneAsk, Rest};
use crate::node::{Node, Reach};
use crate::reply::Reply;
use crate::wake::{Wake, Wakes};
use crate::workers::{Done, Place, Workers};

struct Watched {
    node: Node,
    wakes: Wakes,
    share: PathBuf,
    _dir: tempfile::TempDir,
}

fn watched(bench: Bench) -> Watched {
    let Bench { dir, home, ledger } = bench;
    let share = dir.path().join("share");
    let posix: Arc<dyn Share> = Arc::new(PosixShare::new(share.clone(), home.node.clone()));
    let wakes = Wakes::new();
    let workers = Workers::new(posix, wakes.sender(), Duration::from_secs(10));
    // No executor is there: a launch fails, and no process is ever started.
    let node = Node::new(home, ledger, workers, dir.path().join("no-executor"));
    Watched { node, wakes, share, _dir: dir }
}

impl Watched {
    fn inbox(&self, number: u32) -> PathBuf {
        self.share.join("devbox-to-gpubox/inbox").join(format!("{}.json", id(number)))
    }

    /// One round of looks with its pass.
    fn round(&mut self) {
        self.node.start_round().unwrap();
        let until = Instant::now() + Duration::from_secs(20);
        while !self.node.round_is_late() {
            match self.wakes.next(until) {
                Some(Wake::Share(done)) => drop(self.node.answered(*done)),
                Some(_) => {}
                None => panic!("the round does not end"),
            }
        }
        self.node.pass(Care::Endings).unwrap();
    }
}

/// A task as it is sent now: the pass reads the machine's clock.
fn sent(bench: &Bench, number: u32) -> Vec<u8> {
    let mut task = bench.task(number);
    let now = dispatch_node::clock::now();
    task.created = now;
    task.expires = now.plus_ms(60_000);
    bench.sealed(&task)
}

#[test]
fn a_task_in_the_inbox_is_taken_filed_and_gone_from_it() {
    let bench = bench();
    let bytes = sent(&bench, 1);
    let mut watched = watched(bench);
    fs::write(watched.inbox(1), bytes).unwrap();
    watched.round();
    assert!(watched.node.ledger.task(&key(1)).unwrap().is_some());
    let until = Instant::now() + Duration::from_secs(20);
    while watched.inbox(1).exists() {
        assert!(Instant::now() < until, "the file stays in the inbox");
        watched.round();
    }
    assert!(watched.share.join(format!("devbox-to-gpubox/processing/{}.json", id(1))).exists());
}

#[test]
fn nothing_is_taken_under_a_killswitch_whatever_it_is_made_of() {
    let bench = bench();
    let bytes = sent(&bench, 1);
    let mut watched = watched(bench);
    fs::write(watched.inbox(1), bytes).unwrap();
    fs::create_dir(watched.share.join("KILLSWITCH")).unwrap();
    watched.round();
    watched.round();
    assert!(watched.node.ledger.task(&key(1)).unwrap().is_none());
    assert!(watched.inbox(1).exists());
}

#[test]
fn a_share_of_another_cluster_is_not_touched() {
    let bench = bench();
    let mut watched = watched(bench);
    fs::write(watched.share.join("CLUSTER"), "11111111-1111-4111-8111-111111111111\n").unwrap();
    fs::write(watched.inbox(1), "junk").unwrap();
    fs::write(watched.share.join(format!("devbox-to-gpubox/control/{}.cancel.json", id(1))), "junk").unwrap();
    watched.round();
    watched.round();
    assert!(matches!(watched.node.reach, Reach::Unreachable(_)));
    assert!(watched.inbox(1).exists());
    assert_eq!(fs::read_dir(watched.share.join("devbox-to-gpubox/rejected")).unwrap().count(), 0);
}

#[test]
fn an_answer_to_an_older_round_is_no_look_of_this_one() {
    let mut watched = watched(bench());
    watched.node.start_round().unwrap();
    watched.node.again = false;
    let gone = look::RootLook::Gone(dispatch_spool::root::Unreachable::NoCluster);
    let complete = watched.node.answered(Done {
        place: Place::Root,
        reply: Reply::Root { round: 0, look: gone, took: Duration::ZERO },
    });
    assert!(!complete && watched.node.again);
    assert_eq!(watched.node.reach, Reach::Here);
}

#[test]
fn junk_before_a_good_task_keeps_it_waiting_for_no_pass() {
    let bench = bench();
    let bytes = sent(&bench, 200);
    let mut watched = watched(bench);
    for number in 1..=120 {
        fs::write(watched.inbox(number), "junk").unwrap();
    }
    fs::write(watched.inbox(200), bytes).unwrap();
    watched.round();
    assert!(watched.node.ledger.task(&key(200)).unwrap().is_some());
    // A hundred are set aside by one pass; the rest is worth a look at once.
    assert!(watched.node.again);
}

#[test]
fn a_lane_without_room_is_not_read_through() {
    let watched = watched(bench());
    let share = PosixShare::new(watched.share.clone(), NodeName::new("gpubox").unwrap());
    let ask = LaneAsk {
        lane: Lane::parse("devbox-to-gpubox").unwrap(),
        room: 0,
        files_max: 256,
        busy: Arc::new(BTreeSet::new()),
        after: None,
        only: None,
    };
    assert_eq!(look::lane(&share, &ask).unwrap().rest, Rest::None, "nothing waits");
    // Names of no task, more than are read: what lies behind them is unknown, and no reason to read on.
    for number in 0..200 {
        fs::write(watched.share.join(format!("devbox-to-gpubox/inbox/{number}.stranger")), "").unwrap();
    }
    let seen = look::lane(&share, &ask).unwrap();
    assert_eq!((seen.inbox.len(), seen.rest), (0, Rest::NoRoom));
    let seen = look::lane(&share, &LaneAsk { room: 1, ..ask }).unwrap();
    assert_eq!((seen.inbox.len(), seen.rest), (0, Rest::None), "with room it is read to its end");
}
