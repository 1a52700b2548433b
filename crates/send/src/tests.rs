//! The command from its arguments to the share, in one process.

use std::fs;
use std::path::PathBuf;

use clap::Parser as _;
use dispatch_core::policy::money::Usd;
use dispatch_core::protocol::fraction::Fraction;
use dispatch_core::protocol::heartbeat::{
    Backpressure, BudgetLevels, Heartbeat, KillswitchState, Load, NodeState, Trend, WatchInfo, WindowLevel,
};
use dispatch_core::protocol::keys::PairKey;
use dispatch_core::protocol::names::{Digest, Lane, NodeName};
use dispatch_core::protocol::parts::AuditHead;
use dispatch_core::protocol::payload::{Kind, Payload as _};
use dispatch_core::protocol::seal::seal;
use dispatch_core::protocol::time::Timestamp;
use dispatch_node::clock;
use dispatch_node::outgoing::Outgoing;
use dispatch_node::report::{Exit, Report};
use dispatch_node::state::StateDir;
use dispatch_node::term::Colour;
use dispatch_spool::{Area, Dir, File, PosixShare, Share, TreeAccess, create_directories};
use uuid::Uuid;

use crate::args::Cli;
use crate::send;

const CLUSTER: &str = "00000000-0000-4000-8000-000000000001";
const KEY: &str = "kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk";

struct Node {
    dir: tempfile::TempDir,
    share: PosixShare,
    lane: Lane,
}

impl Node {
    fn new() -> Node {
        let dir = tempfile::tempdir().unwrap();
        let lane = Lane::parse("a-to-b").unwrap();
        let root = dir.path().join("share");
        create_directories(&root, &[lane.clone(), lane.reversed()], TreeAccess::Owner).unwrap();
        fs::write(root.join("CLUSTER"), format!("{CLUSTER}\n")).unwrap();
        let key = dir.path().join("b.key");
        fs::write(&key, KEY).unwrap();
        fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let text = format!(
            "root = {root:?}\nnode = \"a\"\nstate = {state:?}\ncluster = \"{CLUSTER}\"\n\n[peer.b]\nkeys = [\"b.key\"]\n",
            state = dir.path().join("state"),
        );
        fs::write(dir.path().join("dispatch.toml"), text).unwrap();
        let share = PosixShare::new(root, lane.from.clone());
        Node { dir, share, lane }
    }

    fn send(&self, words: &[&str]) -> Result<Exit, Report> {
        let config = self.dir.path().join("dispatch.toml");
        let start = ["dispatch-send", "--quiet", "--config", config.to_str().unwrap(), "--to", "b"];
        send::run(&Cli::try_parse_from(start.into_iter().chain(words.iter().copied())).unwrap())
    }

    fn refused(&self, words: &[&str]) -> (Exit, String) {
        let report = self.send(words).unwrap_err();
        (report.exit(), report.text(Colour::Off))
    }

    fn outgoing(&self) -> Outgoing {
        Outgoing::at(&StateDir::at(self.dir.path().join("state")), &self.lane)
    }

    fn in_inbox(&self) -> usize {
        self.share.list(&Dir::lane(&self.lane, Area::Inbox), 100).unwrap().entries.len()
    }

    fn away(&self) -> PathBuf {
        self.share.root().with_extension("away")
    }

    fn beat(&self, at: Timestamp, change: impl FnOnce(&mut Heartbeat)) {
        let mut heartbeat = heartbeat(at);
        change(&mut heartbeat);
        let key = PairKey::from_text(KEY).unwrap();
        let bytes = seal(Kind::Heartbeat, &heartbeat.to_payload(), &[&key]);
        self.share.replace(&File::Heartbeat(self.lane.to.clone()), &bytes).unwrap();
    }
}

fn heartbeat(ts: Timestamp) -> Heartbeat {
    let zero = || Fraction::from_wire("0").unwrap();
    let level = WindowLevel { committed: Usd::ZERO, cap: Usd::ZERO };
    Heartbeat {
        cluster: Uuid::parse_str(CLUSTER).unwrap(),
        node: NodeName::new("b").unwrap(),
        instance: Uuid::from_u128(1),
        boot: 1,
        seq: 1,
        ts,
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
        backpressure: Backpressure { on: false, level: 0, retry_after_s: None },
        capabilities: Vec::new(),
        backends: Vec::new(),
        budget: BudgetLevels { run: level, month: level },
        killswitch: KillswitchState { tripped: false, mode: None, reason: None },
        watch: WatchInfo { strategy: "poll".into(), poll_ms: 1_000 },
        audit: AuditHead { chain: Uuid::from_u128(2), seq: 1, head: Digest::of(b"") },
        peers_seen: [].into(),
    }
}

#[test]
fn a_task_is_on_the_share_when_the_command_ends() {
    let node = Node::new();
    assert_eq!(node.send(&["--request", "x"]).unwrap(), Exit::Done);
    assert_eq!(
        node.send(&["--request", "x", "--json", "--label", "a=b", "--timeout", "1m"]).unwrap(),
        Exit::Done
    );
    let records = node.outgoing().unanswered().unwrap();
    assert_eq!((records.len(), node.in_inbox()), (2, 2));
    let mut seqs: Vec<u64> = records.iter().map(|record| record.seq).collect();
    seqs.sort_unstable();
    assert_eq!(seqs, [1, 2]);
    let labelled = records.iter().map(|record| record.task().unwrap()).find(|task| !task.labels.is_empty());
    assert_eq!(labelled.unwrap().timeout_s, 60);
}

#[test]
fn a_root_says_what_it_may_send_and_spend_only_where_that_was_asked_for() {
    let node = Node::new();
    let lineage_of = |words: &[&str]| {
        node.send(&[&["--request", "x"], words].concat()).unwrap();
        let records = node.outgoing().unanswered().unwrap();
        let newest = records.iter().max_by_key(|record| record.seq).unwrap();
        let task = newest.task().unwrap();
        (task.id, task.lineage)
    };
    assert_eq!(lineage_of(&[]).1, None);
    let (id, lineage) = lineage_of(&["--fanout", "3", "--budget", "2.5"]);
    let lineage = lineage.unwrap();
    assert_eq!((lineage.root, lineage.parent, lineage.depth, lineage.via.len()), (id, None, 0, 0));
    assert_eq!((lineage.fanout_left, lineage.budget_usd), (3, Usd::from_wire("2.5").ok()));
    assert_eq!(lineage_of(&["--budget", "1"]).1.unwrap().fanout_left, 0);
    assert_eq!(lineage_of(&["--fanout", "1"]).1.unwrap().budget_usd, None);
}

#[test]
fn what_cannot_be_sent_is_refused_and_leaves_nothing() {
    let node = Node::new();
    let cases: [&[&str]; 11] = [
        &["--request", ""],
        &["--request", "x", "--attach", "f"],
        &["--request", "x", "--accept", "tests"],
        &["--request", "x", "--timeout", "0s"],
        &["--request", "x", "--timeout", "25h"],
        &["--request", "x", "--max-attempts", "11"],
        &["--request", "x", "--expires", "31d"],
        &["--request", "x", "--expires", "0s"],
        &["--request", "x", "--from", "c"],
        &["--request", "x", "--max-output", "1"],
        &["--request", "x", "--run", "Not A Name"],
    ];
    for words in cases {
        let (exit, text) = node.refused(words);
        assert_eq!(exit, Exit::Usage, "{words:?}: {text}");
        assert!(text.starts_with("error: "), "{text}");
    }
    let long = "x".repeat(512 * 1024 + 1);
    let (exit, text) = node.refused(&["--request", &long]);
    assert!(exit == Exit::Usage && text.contains("attachments are not in this release"), "{text}");
    let file = node.dir.path().join("latin1");
    fs::write(&file, b"\xe4").unwrap();
    assert_eq!(node.refused(&["--file", file.to_str().unwrap()]).0, Exit::Usage);
    assert_eq!(node.refused(&["--file", "/nonexistent"]).0, Exit::LocalIo);
    assert_eq!(node.in_inbox(), 0);
    assert!(node.outgoing().kept().unwrap_or_default().is_empty());
}

#[test]
fn a_task_that_cannot_reach_the_share_is_kept_and_goes_first_next_time() {
    let node = Node::new();
    fs::rename(node.share.root(), node.away()).unwrap();
    fs::create_dir(node.share.root()).unwrap();
    let (exit, text) = node.refused(&["--request", "first"]);
    assert_eq!(exit, Exit::ShareUnreachable);
    let kept = node.outgoing().kept().unwrap();
    let [(1, id)] = kept.as_slice() else { panic!("{kept:?}") };
    assert!(
        text.contains(&format!(
            "kept as {id}: it goes out with the next send from here; do not send it again"
        )),
        "{text}"
    );
    assert_eq!(fs::read_dir(node.share.root()).unwrap().count(), 0, "an unmounted root stays empty");
    fs::remove_dir(node.share.root()).unwrap();
    fs::rename(node.away(), node.share.root()).unwrap();
    assert_eq!(node.send(&["--request", "second"]).unwrap(), Exit::Done);
    assert_eq!((node.in_inbox(), node.outgoing().kept().unwrap().len()), (2, 0));
}

#[test]
fn a_full_receiver_is_sent_nothing_unless_forced() {
    let node = Node::new();
    let full = |heartbeat: &mut Heartbeat| {
        heartbeat.backpressure = Backpressure { on: true, level: 90, retry_after_s: Some(30) };
    };
    node.beat(clock::now(), full);
    let (exit, text) = node.refused(&["--request", "x"]);
    assert!(exit == Exit::TryLater && text.contains("try again in 30s"), "{text}");
    assert_eq!(node.in_inbox(), 0);
    assert_eq!(node.send(&["--request", "x", "--force"]).unwrap(), Exit::Done);
    // A dead receiver's last words, and words that nobody sealed, hold nobody back.
    node.beat(clock::now().plus_ms(-600_000), full);
    assert_eq!(node.send(&["--request", "x"]).unwrap(), Exit::Done);
    node.share.replace(&File::Heartbeat(node.lane.to.clone()), b"{}").unwrap();
    assert_eq!(node.send(&["--request", "x"]).unwrap(), Exit::Done);
    assert_eq!(node.in_inbox(), 3);
}

#[test]
fn a_killswitch_does_not_keep_a_task_from_being_sent() {
    let node = Node::new();
    fs::write(node.share.root().join("KILLSWITCH"), "stop").unwrap();
    assert_eq!(node.send(&["--request", "x"]).unwrap(), Exit::Done);
    assert_eq!(node.in_inbox(), 1);
}

#[test]
fn without_a_usable_key_nothing_is_sealed() {
    let node = Node::new();
    fs::write(node.dir.path().join("b.key"), "").unwrap();
    assert_eq!(node.refused(&["--request", "x"]).0, Exit::Config);
    assert_eq!(node.in_inbox(), 0);
}
