//! A ledger that is lost, and one that was put back to an older copy.

use std::fs;
use std::path::Path;
use std::time::Duration;

use dispatch_testkit::cluster::{list, name_of, names};
use dispatch_testkit::wait::throughout;
use dispatch_testkit::{Cluster, Node, check, eventually};

use crate::craft::place;
use crate::{cluster, note, note_and_stay};

fn is_ledger(path: &Path) -> bool {
    name_of(path).starts_with("ledger.db")
}

fn lose_ledger(node: &Node) {
    for path in list(&node.state_dir()).into_iter().filter(|path| is_ledger(path)) {
        fs::remove_file(path).unwrap();
    }
}

/// Copies the ledger's files to `to` (no watcher runs).
fn save_ledger(node: &Node, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for path in list(&node.state_dir()).into_iter().filter(|path| is_ledger(path)) {
        fs::copy(&path, to.join(name_of(&path))).unwrap();
    }
}

fn put_back_ledger(node: &Node, from: &Path) {
    lose_ledger(node);
    for path in list(from) {
        fs::copy(&path, node.state_dir().join(name_of(&path))).unwrap();
    }
}

fn inbox_bytes(cluster: &Cluster, id: &str) -> Vec<u8> {
    fs::read(cluster.lane("a", "b").join(format!("inbox/{id}.json"))).unwrap()
}

/// Starts the watcher, expecting it to end with `code`, and yields what it said.
fn refuses(node: &Node, code: i32) -> String {
    let mut watcher = node.start_watch(&[], &[]);
    assert_eq!(watcher.wait(), code, "{}", fs::read_to_string(node.log()).unwrap_or_default());
    fs::read_to_string(node.log()).unwrap_or_default()
}

#[test]
fn a_lost_ledger_is_never_replaced_silently() {
    let cluster = cluster();
    let done = cluster.a().send("b", &note(&cluster, "done"), &[]);
    let bytes = inbox_bytes(&cluster, &done);
    let b = cluster.b().watch();
    cluster.answered(&done, "ok");
    let running = cluster.a().send("b", &note_and_stay(&cluster, "running"), &[]);
    eventually("it runs", || cluster.runs.of("running") == 1);
    b.crash();
    lose_ledger(cluster.b());
    for _ in 0..2 {
        let said = refuses(cluster.b(), 78);
        assert!(said.contains("--new-ledger"), "{said}");
    }
    drop(cluster.b().ctl(["init", "--new-ledger"]).ok());
    check::no_process_with_mark_left(cluster.b());
    let _b = cluster.b().watch();
    // Both come again, as a sender that heard nothing would send them: neither runs again.
    place(&cluster, &cluster.lane("a", "b").join(format!("inbox/{done}.json")), &bytes);
    drop(cluster.a().ctl(["resend", &running]).ok());
    let result = cluster.answer("a", "b", &running);
    assert_eq!(result["status"], "unknown", "{result:#}");
    eventually("the copy is judged", || !cluster.lane("a", "b").join(format!("inbox/{done}.json")).exists());
    check::none_ran_twice(&cluster);
    check::audit_verifies(cluster.b());
}

#[test]
fn a_task_sent_before_the_new_ledger_is_answered_unknown() {
    let cluster = cluster();
    let b = cluster.b().watch();
    assert_eq!(b.stop(), 0);
    let id = cluster.a().send("b", &note(&cluster, "before"), &[]);
    lose_ledger(cluster.b());
    drop(cluster.b().ctl(["init", "--new-ledger"]).ok());
    let _b = cluster.b().watch();
    let result = cluster.answered(&id, "unknown");
    assert_eq!(result["reason"]["code"], "before_ledger");
    assert_eq!(cluster.runs.of("before"), 0);
}

/// One task answered and one running, both unknown to the ledger, which was put back; the watcher is dead.
struct Rollback {
    cluster: Cluster,
    answered: String,
    running: String,
}

/// When the copy was made that the ledger is put back to.
#[derive(Clone, Copy, PartialEq)]
enum Copied {
    /// Under the watcher that wrote what is lost.
    SameBoot,
    /// Before that watcher started: its boot is lost too.
    BootBefore,
}

impl Rollback {
    fn new(copied: Copied) -> Self {
        let cluster = cluster();
        cluster.b().configure("[watch]\nheartbeat_s = 1");
        let old = cluster.outside().join("old-ledger");
        let mut b = cluster.b().watch();
        let first = cluster.a().send("b", &note(&cluster, "first"), &[]);
        check::one_result_each(&cluster, "a", "b", &[first]);
        if copied == Copied::BootBefore {
            assert_eq!(b.stop(), 0);
            save_ledger(cluster.b(), &old);
            b = cluster.b().watch();
        } else {
            save_ledger(cluster.b(), &old);
        }
        let answered = cluster.a().send("b", &note(&cluster, "second"), &[]);
        check::one_result_each(&cluster, "a", "b", std::slice::from_ref(&answered));
        let running = cluster.a().send("b", &note_and_stay(&cluster, "running"), &[]);
        eventually("it runs", || cluster.runs.of("running") == 1);
        eventually("its heartbeat shows it", || {
            beat(&cluster)?["load"]["running"].as_u64().filter(|many| *many == 1)
        });
        b.crash();
        put_back_ledger(cluster.b(), &old);
        Self { cluster, answered, running }
    }

    /// The command that the node printed brings it back, and nothing runs again.
    fn recovers(&self) {
        let (a, b) = (self.cluster.a(), self.cluster.b());
        drop(b.ctl(["recover", "--accept-rollback", "restored from a backup"]).ok());
        let _b = b.watch();
        drop(a.ctl(["resend", &self.answered]).ok());
        drop(a.ctl(["resend", &self.running]).ok());
        let result = self.cluster.answer("a", "b", &self.running);
        assert_eq!(result["status"], "unknown", "{result:#}");
        let inbox = self.cluster.lane("a", "b").join("inbox");
        eventually("the copies are judged", || names(&inbox).is_empty());
        check::none_ran_twice(&self.cluster);
        check::no_process_with_mark_left(b);
        check::audit_verifies(b);
    }
}

/// The last heartbeat of `b`, verified.
fn beat(cluster: &Cluster) -> Option<serde_json::Value> {
    let bytes = fs::read(cluster.share().join("heartbeats/b.json")).ok()?;
    let beat = dispatch_testkit::mail::open(&bytes, &cluster.pair("a", "b").bytes())?;
    beat.verified.then_some(beat.value)
}

#[test]
fn an_older_ledger_accepts_nothing_until_a_person_says_so() {
    let scene = Rollback::new(Copied::SameBoot);
    let cluster = &scene.cluster;
    let sent = cluster.a().send("b", &note(cluster, "meanwhile"), &[]);
    // Restarted as often as one likes, it stays in recovery.
    for _ in 0..3 {
        let boot = beat(cluster).unwrap()["boot"].clone();
        let b = cluster.b().watch();
        eventually("it says that it is in recovery", || {
            let beat = beat(cluster)?;
            (beat["state"] == "recovery" && beat["boot"] != boot).then_some(())
        });
        throughout(Duration::from_millis(500), "nothing is taken in recovery", || {
            cluster.runs.of("meanwhile") == 0
        });
        b.crash();
    }
    let status = cluster.b().ctl(["status"]);
    assert!((status.out.clone() + &status.err).contains("recover --accept-rollback"), "{}", status.out);
    scene.recovers();
    let result = cluster.answered(&sent, "unknown");
    assert_eq!(result["reason"]["code"], "before_ledger", "{result:#}");
}

#[test]
fn a_ledger_from_before_the_last_boot_refuses_to_start() {
    let scene = Rollback::new(Copied::BootBefore);
    for _ in 0..2 {
        let said = refuses(scene.cluster.b(), 73);
        assert!(said.contains("recover --accept-rollback"), "{said}");
    }
    scene.recovers();
}

#[test]
fn what_was_spent_is_not_forgotten_with_the_ledger() {
    let cluster = cluster();
    crate::money::paid(&cluster, "10", "3");
    cluster.b().configure("[watch]\nheartbeat_s = 1");
    let b = cluster.b().watch();
    for number in 0..2 {
        let id = cluster.a().send("b", &note(&cluster, &format!("paid-{number}")), &["--run", "first"]);
        cluster.answered(&id, "ok");
    }
    let committed = || Some(check::micros(&beat(&cluster)?["budget"]["month"]["committed"]) >= 2_000_000);
    eventually("the heartbeat shows what is spent", || committed().filter(|shown| *shown));
    b.crash();
    lose_ledger(cluster.b());
    drop(cluster.b().ctl(["init", "--new-ledger"]).ok());
    let _b = cluster.b().watch();
    // A task from before the floor would be `before_ledger`; the figure itself is what counts.
    let status: serde_json::Value =
        serde_json::from_str(&cluster.b().ctl(["status", "--json"]).ok().out).unwrap();
    assert!(check::micros(&status["budget"]["month"]["spent"]) >= 2_000_000, "{status:#}");
}
