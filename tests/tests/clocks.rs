//! A wall clock that jumps, under watchers that are alive and under ones that start (policy section 1, "a suspect clock"):
//! no fresh cap, nothing purged, paid work waits and says why, free work goes on.

use std::collections::BTreeSet;
use std::time::Duration;

use dispatch_ledger::TaskKey;
use dispatch_testkit::cluster::names;
use dispatch_testkit::wait::throughout;
use dispatch_testkit::{Cluster, Node, Wall, Watcher, bins, books, check, eventually};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const DAY: Duration = Duration::from_secs(24 * 3600);
/// Whatever the date, the clock is then in another month.
const NEXT_MONTH: Duration = DAY.saturating_mul(31);
const FORTY_DAYS: Duration = DAY.saturating_mul(40);
const TWO_HOURS: Duration = Duration::from_secs(2 * 3600);
/// Passes enough: the heartbeat, and with it a look at everything, comes every second.
const WHILE: Duration = Duration::from_millis(2_500);
/// What a paid attempt is reserved for and settled at, in millionths of a dollar.
const ATTEMPT: u64 = 1_000_000;

/// Two nodes on machines with the same clock; `b` may spend two dollars a month, and each paid task takes one.
struct Machines {
    cluster: Cluster,
    wall: Wall,
    a: Node,
    b: Node,
    watchers: Option<(Watcher, Watcher)>,
    sent: Vec<String>,
}

/// What a jump must leave alone.
#[derive(Debug, PartialEq, Eq)]
struct Kept {
    seen: usize,
    sent: Vec<String>,
    jobs: usize,
    windows: BTreeSet<String>,
    forgotten: bool,
}

impl Machines {
    fn new() -> Self {
        let cluster = Cluster::new(&bins!());
        let wall = Wall::in_dir(&cluster.outside());
        let [a, b] = [cluster.a(), cluster.b()].map(|node| node.with_wall(&wall));
        for node in [&a, &b] {
            node.configure("[watch]\nheartbeat_s = 1\n");
        }
        b.only_caps();
        b.configure(
            "[budget]\nrun_usd = \"1000\"\nmonth_usd = \"2\"\n[exec]\nmax_parallel = 2\n\
             [profile.default]\nbilling = \"metered\"\nmax_cost_usd = \"0.75\"\novershoot_usd = \"0.25\"\n\
             [profile.free]\nagent = \"command\"\nargv = [\"/bin/sh\", \"-eu\"]\nbilling = \"free\"\n",
        );
        let mut machines = Self { cluster, wall, a, b, watchers: None, sent: Vec::new() };
        machines.start();
        machines
    }

    fn start(&mut self) {
        self.watchers = Some((self.a.watch(), self.b.watch()));
    }

    fn stop(&mut self) {
        let (a, b) = self.watchers.take().unwrap();
        assert_eq!((a.stop(), b.stop()), (0, 0));
    }

    /// Lets the watcher of `b` read its configuration again.
    fn reload(&self) {
        let (_, b) = self.watchers.as_ref().unwrap();
        kill_process(Pid::from_raw(b.pid()).unwrap(), Signal::HUP).unwrap();
    }

    fn send(&mut self, label: &str, words: &[&str]) -> String {
        let request = format!("{}echo did {label}\n", self.cluster.runs.mark(label));
        let id = self.a.send("b", &request, words);
        self.sent.push(id.clone());
        id
    }

    fn free(&mut self, label: &str) {
        let id = self.send(label, &["--profile", "free"]);
        self.cluster.answered(&id, "ok");
    }

    /// Spends `dollars` of the month.
    fn spend(&mut self, dollars: usize) {
        for n in 0..dollars {
            let id = self.send(&format!("spent-{n}"), &[]);
            self.cluster.answered(&id, "ok");
        }
        eventually("it is settled", || {
            books::months(&self.b) == (0, ATTEMPT * u64::try_from(dollars).unwrap())
        });
    }

    fn explained(&self, id: &str) -> Value {
        let said = self.b.ctl(["explain", id, "--json"]);
        serde_json::from_str(&said.out).unwrap_or_default()
    }

    /// The words for programs of all that `explain` says of a task.
    fn codes(&self, id: &str) -> Vec<String> {
        let document = self.explained(id);
        let also = document["also"].as_array().map(Vec::as_slice).unwrap_or_default();
        let codes = std::iter::once(&document).chain(also).filter_map(|told| told["code"].as_str());
        codes.map(ToOwned::to_owned).collect()
    }

    /// Waits until a paid task says that it waits for the clock, to programs and to people, and the node says so of itself.
    fn waits_for_the_clock(&self, id: &str) {
        eventually(&format!("{id} waits for the clock"), || {
            self.codes(id).iter().any(|code| code == "clock_suspect")
        });
        let text = self.b.ctl(["explain", id]).ok().out;
        assert!(text.contains("clock that can be believed"), "{text}");
        assert!(text.contains("dispatchctl recover --accept-clock"), "{text}");
        let status = self.b.ctl(["status"]).ok().out;
        assert!(status.contains("the clock jumped"), "{status}");
        assert!(status.contains("dispatchctl recover --accept-clock"), "{status}");
        assert_eq!(self.status()["clock"]["suspect"], true);
    }

    fn status(&self) -> Value {
        serde_json::from_str(&self.b.ctl(["status", "--json"]).ok().out).unwrap()
    }

    /// Waits until the watcher itself noted why a paid task does not start.
    fn noted_the_clock(&self, id: &str) {
        eventually("the watcher noted that it waits for the clock", || {
            let queue = &self.status()["queue"];
            queue.as_array().unwrap().iter().any(|task| {
                task["id"] == id && task["wait_reason"].as_str().is_some_and(|why| why.contains("clock"))
            })
        });
    }

    fn kept(&self) -> Kept {
        let ledger = books::ledger(&self.b);
        let key = |id: &String| {
            let name = dispatch_core::protocol::names::NodeName::new("a").unwrap();
            TaskKey { from: name, id: dispatch_core::protocol::names::TaskId::parse(id).unwrap() }
        };
        let seen = self.sent.iter().filter(|id| ledger.seen(&key(id)).unwrap().is_some()).count();
        let jobs = self.sent.iter().map(|id| self.b.jobs("a", id).len()).sum();
        let windows = ledger.windows().unwrap();
        Kept {
            seen,
            sent: names(&self.a.state_dir().join("send/a-to-b/sent")),
            jobs,
            windows: windows.iter().map(|row| row.key.to_string()).collect(),
            forgotten: ledger.meta().unwrap().forgotten_until.is_some(),
        }
    }

    /// Looks for a while, with the watchers as they are and then with ones that start under this clock: nothing is forgotten,
    /// no window is opened and nothing is spent.
    fn stays(&mut self, kept: &Kept) {
        let committed = books::months(&self.b);
        let look = |machines: &Self| {
            let still = machines.kept();
            assert_eq!(&still, kept);
            assert_eq!(books::months(&machines.b), committed);
            true
        };
        throughout(WHILE, "nothing is purged or spent", || look(self));
        self.stop();
        self.start();
        throughout(WHILE, "nothing is purged or spent after a restart", || look(self));
    }

    fn ends_well(&self, spent: u64) {
        let results = check::one_result_each(&self.cluster, "a", "b", &self.sent);
        assert!(results.iter().all(|result| result["status"] == "ok"), "{results:#?}");
        check::none_ran_twice(&self.cluster);
        books::closed(&self.b);
        books::hold(&self.b);
        assert_eq!(books::months(&self.b), (0, spent));
        check::audit_verifies(&self.b);
    }
}

#[test]
fn a_clock_in_the_next_month_opens_no_fresh_cap_and_its_return_ends_the_wait() {
    let mut at = Machines::new();
    at.spend(2);
    let over = at.send("over", &[]);
    eventually("it waits for the month", || at.codes(&over).iter().any(|code| code == "over_cap"));
    at.wall.ahead(NEXT_MONTH);
    at.waits_for_the_clock(&over);
    let late = at.send("late", &[]);
    at.waits_for_the_clock(&late);
    at.noted_the_clock(&late);
    at.free("free");
    let kept = at.kept();
    assert_eq!((kept.seen, kept.sent.len(), kept.jobs, kept.forgotten), (5, 5, 3, false), "{kept:?}");
    at.stays(&kept);
    at.wall.agrees();
    eventually("the node believes its clock", || at.status()["clock"]["suspect"] == false);
    for id in [&over, &late] {
        eventually("it waits for the month again", || at.codes(id).iter().any(|code| code == "over_cap"));
    }
    at.b.configure("[budget]\nmonth_usd = \"4\"\n");
    at.reload();
    for id in [&over, &late] {
        at.cluster.answered(id, "ok");
    }
    at.ends_well(4 * ATTEMPT);
}

#[test]
fn a_clock_that_went_back_a_month_opens_no_fresh_cap() {
    let mut at = Machines::new();
    at.spend(2);
    let over = at.send("over", &[]);
    eventually("it waits for the month", || at.codes(&over).iter().any(|code| code == "over_cap"));
    at.wall.behind(NEXT_MONTH);
    let early = at.send("early", &["--expires", "1h"]);
    for id in [&over, &early] {
        at.waits_for_the_clock(id);
        at.noted_the_clock(id);
    }
    at.free("free");
    let kept = at.kept();
    assert_eq!((kept.seen, kept.sent.len(), kept.jobs, kept.forgotten), (5, 5, 3, false), "{kept:?}");
    at.stays(&kept);
    at.wall.agrees();
    // Made a month ago by its own sender's clock, for an hour: now that is over.
    at.cluster.answered(&early, "expired");
    at.sent.retain(|id| *id != early);
    at.b.configure("[budget]\nmonth_usd = \"3\"\n");
    at.reload();
    at.cluster.answered(&over, "ok");
    at.ends_well(3 * ATTEMPT);
}

/// Money that was set aside before the jump starts nothing either: which month it would be spent in is not known.
#[test]
fn what_has_its_money_set_aside_waits_for_the_clock_too() {
    let mut at = Machines::new();
    at.b.configure("[exec]\nmax_parallel = 1\n");
    at.reload();
    let gate = at.cluster.outside().join("gate");
    let wait = format!("while [ ! -e '{}' ]; do sleep 0.02; done\n", gate.display());
    let runs = at.a.send("b", &format!("{}{wait}", at.cluster.runs.mark("runs")), &[]);
    at.sent.push(runs.clone());
    eventually("the first runs", || at.cluster.runs.of("runs") == 1);
    let behind = at.send("behind", &[]);
    eventually("both have their money", || books::months(&at.b) == (2 * ATTEMPT, 0));
    // Far enough not to be believed, and not so far that the task would be too old to start.
    at.wall.ahead(TWO_HOURS);
    eventually("the node does not believe its clock", || at.status()["clock"]["suspect"] == true);
    std::fs::write(&gate, "").unwrap();
    // What runs goes on, and is charged to the month that it was reserved in.
    at.cluster.answered(&runs, "ok");
    at.waits_for_the_clock(&behind);
    throughout(WHILE, "it does not start", || at.cluster.runs.of("behind") == 0);
    assert_eq!(books::months(&at.b), (ATTEMPT, ATTEMPT));
    at.wall.agrees();
    at.cluster.answered(&behind, "ok");
    at.ends_well(2 * ATTEMPT);
}

#[test]
fn a_person_believes_the_clock_and_only_then_is_it_another_month() {
    let mut at = Machines::new();
    at.spend(2);
    let before = at.kept();
    at.wall.ahead(FORTY_DAYS);
    let paid = at.send("paid", &[]);
    at.waits_for_the_clock(&paid);
    at.noted_the_clock(&paid);
    at.free("free");
    let kept = at.kept();
    assert_eq!((kept.seen, kept.sent.len(), kept.jobs, kept.forgotten), (4, 4, 3, false), "{kept:?}");
    assert_eq!(kept.windows, before.windows);
    at.stays(&kept);
    at.stop();
    drop(at.b.ctl(["recover", "--accept-clock", "it was wrong for years and is right now"]).ok());
    at.start();
    at.cluster.answered(&paid, "ok");
    assert!(at.cluster.audited("b", "clock_accepted"));
    let months: Vec<String> =
        at.kept().windows.into_iter().filter(|window| window.starts_with("month:")).collect();
    assert_eq!(months.len(), 2, "the old month and the new one: {months:?}");
    at.ends_well(3 * ATTEMPT);
}

/// Only the receiver's clock is wrong: what its peer sends lies there, neither refused nor run, until the clock agrees.
#[test]
fn what_only_a_wrong_clock_speaks_against_is_not_refused() {
    let mut at = Machines::new();
    at.free("first");
    at.a = at.cluster.a().clone();
    at.stop();
    for wrong in [Wall::ahead, Wall::behind] {
        wrong(&at.wall, FORTY_DAYS);
        at.start();
        let (free, paid) = (at.send("free", &["--profile", "free"]), at.send("paid", &[]));
        eventually("the node does not believe its clock", || at.status()["clock"]["suspect"] == true);
        let inbox = at.cluster.lane("a", "b").join("inbox");
        throughout(WHILE, "both lie there", || names(&inbox).len() == 2);
        at.wall.agrees();
        for id in [&free, &paid] {
            at.cluster.answered(id, "ok");
        }
        at.stop();
    }
    at.start();
    let results = check::one_result_each(&at.cluster, "a", "b", &at.sent);
    assert!(results.iter().all(|result| result["status"] == "ok"), "{results:#?}");
    assert_eq!(books::months(&at.b), (0, 2 * ATTEMPT));
}
