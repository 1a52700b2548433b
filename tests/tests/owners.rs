//! One owner per node (protocol section 7), and a share that goes back in time (section 4): two watchers of one node on
//! one state directory, on two, on a copied one; a share put back to an older copy, or emptied.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dispatch_testkit::cluster::{copy_tree, list, names};
use dispatch_testkit::mix::{self, ATTEMPT_MICROS, all_is_true, noting};
use dispatch_testkit::{Bins, Cluster, Node, Watcher, bins, books, check, eventually, mail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

fn bins() -> Bins {
    bins!()
}

/// Some tasks for `b`, by label.
fn send(cluster: &Cluster, labels: &[&str]) -> Vec<String> {
    labels
        .iter()
        .map(|label| cluster.a().send("b", &noting(cluster, label, "true"), &["--profile", "paid"]))
        .collect()
}

/// Each of them ran once, and everything is right.
fn ran_once(cluster: &Cluster, ids: &[String], labels: &[&str]) {
    let results = check::one_result_each(cluster, "a", "b", ids);
    check::each_ran_once(cluster, &labels.iter().map(|label| format!("{label}.1")).collect::<Vec<_>>());
    all_is_true(cluster, &results);
}

/// Node `b` from a copy of its home, as it is now.
fn copied(cluster: &Cluster, name: &str) -> Node {
    let home = cluster.outside().join(name);
    copy_tree(&cluster.b().home, &home);
    fs::remove_file(home.join("watch.log")).ok();
    cluster.b().at_home(&home)
}

/// It ends with 73 and says what to do.
fn refuses(node: &Node, mut watcher: Watcher) {
    let code = watcher.wait();
    let said = fs::read_to_string(node.log()).unwrap_or_default();
    assert_eq!(code, 73, "{said}");
    assert!(said.contains("another watcher") && said.contains("help:"), "{said}");
}

/// agi-cli PR 2329: 78 daemons on one box, each firing everything.
#[test]
fn second_daemon_of_a_node_refuses() {
    let cluster = mix::cluster(&bins());
    let _b = cluster.b().watch();
    let ids = send(&cluster, &["one", "two"]);
    for _ in 0..3 {
        refuses(cluster.b(), cluster.b().start_watch(&[], &[]));
    }
    assert_eq!(cluster.b().once(&[]).code, 73, "--once is a watcher too");
    let more = send(&cluster, &["three"]);
    ran_once(&cluster, &[ids, more].concat(), &["one", "two", "three"]);
}

/// mcp_agent_mail#123: two servers on one store corrupt it. Here the second has a state directory of its own, whose
/// ledger never saw the first one's boot.
#[test]
fn two_daemons_one_share_do_no_harm() {
    let cluster = mix::cluster(&bins());
    let other = copied(&cluster, "other");
    let _b = cluster.b().watch();
    let ids = send(&cluster, &["one", "two"]);
    refuses(&other, other.start_watch(&[], &[]));
    assert_eq!(other.once(&[]).code, 73);
    let more = send(&cluster, &["three"]);
    ran_once(&cluster, &[ids, more].concat(), &["one", "two", "three"]);
}

#[test]
fn a_copy_of_a_living_watchers_state_directory_refuses() {
    let cluster = mix::cluster(&bins());
    let _b = cluster.b().watch();
    let gate = cluster.outside().join("gate");
    let wait = format!("while [ ! -e '{}' ]; do sleep 0.02; done", gate.display());
    let runs = cluster.a().send("b", &noting(&cluster, "runs", &wait), &["--profile", "paid"]);
    eventually("it runs", || cluster.runs.of("runs.1") == 1);
    // The copy holds the attempt and its job directory, whose lock nobody holds there.
    let copy = copied(&cluster, "copy");
    refuses(&copy, copy.start_watch(&[], &[]));
    let more = send(&cluster, &["more"]);
    fs::write(&gate, "").unwrap();
    ran_once(&cluster, &[vec![runs], more].concat(), &["runs", "more"]);
}

/// Whoever wins, and be it nobody: no two of them work, and the node can be started again.
#[test]
fn watchers_that_start_at_once_on_many_state_directories_do_no_harm() {
    for round in 0..3 {
        let cluster = mix::cluster(&bins());
        let mut homes: Vec<Node> = (0..3).map(|n| copied(&cluster, &format!("copy-{n}"))).collect();
        homes.push(cluster.b().clone());
        let ids = send(&cluster, &["one", "two", "three"]);
        let mut watchers: Vec<Watcher> = homes.iter().map(|home| home.start_watch(&[], &[])).collect();
        let mut codes = vec![None; watchers.len()];
        eventually("all but one have ended", || {
            for (code, watcher) in codes.iter_mut().zip(&mut watchers) {
                *code = code.or_else(|| watcher.ended());
            }
            codes.iter().flatten().count() >= homes.len() - 1
        });
        assert!(codes.iter().flatten().all(|code| *code == 73), "round {round}: {codes:?}");
        let winner = eventually("one owns it", || {
            let stays =
                watchers.iter_mut().position(|watcher| watcher.ended().is_none() && watcher.is_ready());
            let none = codes.iter().all(Option::is_some)
                || watchers.iter_mut().all(|watcher| watcher.ended().is_some());
            stays.map(Some).or(none.then_some(None))
        });
        let _again = winner.is_none().then(|| cluster.b().watch());
        let results = check::one_result_each(&cluster, "a", "b", &ids);
        check::none_ran_twice(&cluster);
        assert!(results.iter().all(|result| result["status"] == "ok"), "round {round}: {results:#?}");
        books::hold(winner.map_or(cluster.b(), |winner| &homes[winner]));
    }
}

/// A watcher that hangs is taken for dead by a copy of its state directory; when it goes on, it is the one that goes.
#[test]
fn a_watcher_that_was_taken_over_while_it_hung_does_nothing_more_and_ends() {
    let cluster = mix::cluster(&bins());
    let mut first = cluster.b().watch();
    let runs = cluster.a().send("b", &noting(&cluster, "runs", "exec sleep 100000"), &["--profile", "paid"]);
    let waits = cluster.a().send("b", &noting(&cluster, "waits", "true"), &["--require-ack"]);
    eventually("it runs", || cluster.runs.of("runs.1") == 1);
    eventually("the other waits", || {
        cluster.lane("a", "b").join(format!("pending-ack/{waits}.json")).exists()
    });
    let settled = |node: &Node| books::ledger(node).unfiled(10).unwrap().is_empty();
    eventually("nothing is under way", || settled(cluster.b()));
    signal(first.pid(), Signal::STOP);
    let copy = copied(&cluster, "copy");
    let _second = copy.watch();
    // Its attempt cannot be adopted from here, so it is ended and answered for.
    let result = cluster.answered(&runs, "unknown");
    signal(first.pid(), Signal::CONT);
    let ids = send(&cluster, &["after"]);
    assert_eq!(first.wait(), 73, "{}", fs::read_to_string(cluster.b().log()).unwrap_or_default());
    cluster.answered(&ids[0], "ok");
    assert_eq!(cluster.answered(&runs, "unknown"), result, "answered once");
    check::each_ran_once(&cluster, &["runs.1", "after.1"].map(ToOwned::to_owned));
    assert!(!cluster.audited("b", "result_conflict"));
    books::hold(&copy);
    // And it does not come back, until a person takes ownership there.
    refuses(cluster.b(), cluster.b().start_watch(&[], &[]));
}

#[test]
fn a_watcher_that_sees_a_higher_boot_record_of_its_name_takes_nothing_and_ends() {
    let cluster = mix::cluster(&bins());
    let mut b = cluster.b().watch();
    let key = cluster.pair("a", "b").bytes();
    let beats = cluster.share().join("heartbeats");
    let own = names(&beats).into_iter().find(|name| name.starts_with("b.boot-")).unwrap();
    let mut record = mail::open(&fs::read(beats.join(own)).unwrap(), &key).unwrap().value;
    let higher = record["boot"].as_u64().unwrap() + 1_000;
    record["boot"] = json!(higher);
    record["instance"] = json!("11111111-2222-4333-8444-555555555555");
    place(
        &cluster,
        &beats.join(format!("b.boot-{higher}.json")),
        &mail::seal("boot.v1", record.to_string().as_bytes(), &key),
    );
    let ids = send(&cluster, &["one"]);
    let begun = Instant::now();
    assert_eq!(b.wait(), 73);
    assert!(begun.elapsed() > Duration::from_secs(5), "it gives the other one 10 s to go away again");
    assert_eq!(cluster.runs.of("one.1"), 0);
    let inbox = cluster.lane("a", "b").join(format!("inbox/{}.json", ids[0]));
    assert!(inbox.exists(), "nothing was accepted");
}

#[test]
fn an_ordinary_restart_on_the_same_machine_takes_no_wait() {
    let cluster = Cluster::new(&bins());
    for round in 0..3 {
        let b = cluster.b().watch();
        let begun = Instant::now();
        if round == 1 {
            b.crash();
        } else {
            assert_eq!(b.stop(), 0);
        }
        let _b = cluster.b().watch();
        // Two heartbeat intervals are 20 s here.
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    }
    eventually("one boot record is left", || {
        names(&cluster.share().join("heartbeats")).iter().filter(|name| name.starts_with("b.boot-")).count()
            == 1
    });
}

// A share that goes back in time.

/// Tasks in every state: done, running, queued (one runs at a time), waiting for a person.
struct States {
    cluster: Cluster,
    key: String,
    gate: PathBuf,
    done: String,
    runs: String,
    queued: String,
    waits: String,
    /// Copies of the share: empty of tasks, with all of them in the inbox, with one done.
    copies: [PathBuf; 3],
    watcher: Watcher,
}

impl States {
    fn new() -> Self {
        let cluster = mix::cluster(&bins());
        cluster.b().configure("[exec]\nmax_parallel = 1");
        let key = cluster.b().approver("ann").display().to_string();
        let gate = cluster.outside().join("gate");
        let copies = ["copy-0", "copy-1", "copy-2"].map(|name| cluster.outside().join(name));
        copy_tree(&cluster.share(), &copies[0]);
        let wait = format!("while [ ! -e '{}' ]; do sleep 0.02; done", gate.display());
        let send = |label: &str, script: &str, words: &[&str]| {
            cluster.a().send("b", &noting(&cluster, label, script), &[&["--profile", "paid"], words].concat())
        };
        let done = send("done", "true", &["--priority", "high"]);
        let runs = send("runs", &wait, &[]);
        let queued = send("queued", "true", &["--priority", "low"]);
        let waits = send("waits", "true", &["--require-ack"]);
        copy_tree(&cluster.share(), &copies[1]);
        let watcher = cluster.b().watch();
        cluster.answered(&done, "ok");
        eventually("the next one runs", || cluster.runs.of("runs.1") == 1);
        let lane = cluster.lane("a", "b");
        for place in [
            format!("processing/{queued}.json"),
            format!("processing/{runs}.json"),
            format!("pending-ack/{waits}.terms.json"),
        ] {
            eventually(&place, || lane.join(&place).exists());
        }
        eventually("the inbox is taken", || names(&lane.join("inbox")).is_empty());
        copy_tree(&cluster.share(), &copies[2]);
        Self { cluster, key, gate, done, runs, queued, waits, copies, watcher }
    }

    /// The share is another directory now, at the same place.
    fn put_back(&self, copy: &Path) {
        let share = self.cluster.share();
        let aside = self.cluster.outside().join(format!("aside-{}", list(&self.cluster.outside()).len()));
        let fresh = self.cluster.outside().join("fresh");
        copy_tree(copy, &fresh);
        fs::rename(&share, &aside).unwrap();
        fs::rename(&fresh, &share).unwrap();
    }

    /// The share stays the same directory, and what is in it goes.
    fn empty(&self) {
        for path in list(&self.cluster.share()) {
            if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
        }
    }

    /// Opens the gate and approves what waits; every sender gets its answer, by asking again where it must.
    fn end_well(&self) {
        let lane = self.cluster.lane("a", "b");
        let terms = lane.join(format!("pending-ack/{}.terms.json", self.waits));
        eventually("the terms stand there again", || {
            terms.exists() && lane.join(format!("pending-ack/{}.json", self.waits)).exists()
        });
        let words = ["--yes", "--no-wait", "--key", &self.key, "--reason", "fine", &self.waits];
        drop(self.cluster.b().run("dispatch-ack", words).ok());
        fs::write(&self.gate, "").unwrap();
        let ids = [&self.done, &self.runs, &self.queued, &self.waits].map(Clone::clone);
        for id in &ids[1..] {
            self.cluster.answered(id, "ok");
        }
        if self.cluster.result("a", "b", &self.done).is_none() {
            drop(self.cluster.a().ctl(["resend", &self.done]).ok());
        }
        let results = check::one_result_each(&self.cluster, "a", "b", &ids);
        assert!(results.iter().all(|result| result["status"] == "ok"), "{results:#?}");
        for id in &ids {
            let told = self.cluster.a().ctl(["result", id, "--json"]).ok();
            let told: Value = serde_json::from_str(&told.out).unwrap();
            assert!(told.to_string().contains("\"ok\""), "the sender believes it: {told:#}");
        }
        check::each_ran_once(
            &self.cluster,
            &["done.1", "runs.1", "queued.1", "waits.1"].map(ToOwned::to_owned),
        );
        all_is_true(&self.cluster, &results);
        assert_eq!(books::months(self.cluster.b()), (0, 4 * ATTEMPT_MICROS), "paid once each");
        self.audit_is_whole();
    }

    /// The copy of the audit on the share begins with the first entry and leaves out none.
    fn audit_is_whole(&self) {
        eventually("the copy of the audit is whole again", || {
            let seqs: Vec<u64> =
                self.cluster.audit("b").iter().filter_map(|line| line["seq"].as_u64()).collect();
            !seqs.is_empty() && seqs.iter().copied().eq(1..=u64::try_from(seqs.len()).unwrap())
        });
    }
}

fn goes_back(which: usize) {
    let states = States::new();
    states.put_back(&states.copies[which]);
    states.end_well();
}

#[test]
fn a_share_put_back_to_before_any_task_was_sent_runs_nothing_again() {
    goes_back(0);
}

#[test]
fn a_share_put_back_to_when_all_lay_in_the_inbox_runs_nothing_again() {
    goes_back(1);
}

#[test]
fn a_share_put_back_to_a_moment_ago_runs_nothing_again() {
    goes_back(2);
}

#[test]
fn a_share_put_back_while_no_watcher_lives_runs_nothing_again() {
    let mut states = States::new();
    let (share, copy) = (states.cluster.share(), states.copies[1].clone());
    signal(states.watcher.pid(), Signal::KILL);
    assert_eq!(states.watcher.wait(), 137);
    fs::remove_dir_all(&share).unwrap();
    copy_tree(&copy, &share);
    states.watcher = states.cluster.b().watch();
    states.end_well();
}

#[test]
fn an_emptied_share_starts_nothing_and_is_filled_again_by_init() {
    let states = States::new();
    states.empty();
    eventually("the node says so", || {
        let status = states.cluster.b().ctl(["status", "--json"]).out;
        let status: Value = serde_json::from_str(&status).unwrap_or_default();
        status["share"]["reachable"] == json!(false)
    });
    fs::write(&states.gate, "").unwrap();
    eventually("what runs ends", || states.cluster.b().pids("dispatch-exec").is_empty());
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(1_500) {
        assert_eq!(states.cluster.runs.of("queued.1"), 0, "nothing starts on a share that is not there");
        std::thread::yield_now();
    }
    assert!(names(&states.cluster.share()).is_empty(), "only init creates directories");
    drop(states.cluster.b().ctl(["init"]).ok());
    drop(states.cluster.a().ctl(["init"]).ok());
    states.end_well();
}

fn signal(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

/// Puts a whole file there at once.
fn place(cluster: &Cluster, path: &Path, bytes: &[u8]) {
    let aside = cluster.outside().join("placed");
    fs::write(&aside, bytes).unwrap();
    fs::rename(aside, path).unwrap();
}
