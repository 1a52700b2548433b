//! People are told, each thing once, and whoever tells them can hurt nobody.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use dispatch_testkit::bins::write_script;
use dispatch_testkit::wait::throughout;
use dispatch_testkit::{Cluster, Node, check, eventually, process};
use serde_json::Value;

use crate::{cluster, note};

/// Where the programs of a node write down what they were told: one document a line.
fn heard_by(node: &Node) -> PathBuf {
    node.home.join("heard")
}

/// Lets the node tell people by a shell script, which finds the document on its standard input.
fn tells_by(node: &Node, script: &str) {
    let program = node.home.join("tell-me");
    write_script(&program, &format!("#!/bin/sh\n{script}\n"));
    node.configure(&format!("[notify]\nargv = [\"{}\"]\n", program.display()));
}

/// Lets the node write down what people are told.
fn writes_down(node: &Node) {
    tells_by(node, &format!("line=$(cat); printf '%s\\n' \"$line\" >>'{}'", heard_by(node).display()));
}

fn heard(node: &Node) -> Vec<Value> {
    let text = fs::read_to_string(heard_by(node)).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).expect("one document a line")).collect()
}

fn heard_of(node: &Node, kind: &str) -> Vec<Value> {
    heard(node).into_iter().filter(|document| document["kind"] == kind).collect()
}

/// The members that every document has, whatever its kind.
fn has_all_members(document: &Value) {
    let members: Vec<&str> = document.as_object().unwrap().keys().map(String::as_str).collect();
    let mut wanted = [
        "schema",
        "kind",
        "node",
        "at",
        "text",
        "help",
        "task",
        "from",
        "to",
        "peer",
        "status",
        "first_line",
    ];
    wanted.sort_unstable();
    assert_eq!(members, wanted, "{document:#}");
    assert_eq!(document["schema"], 1);
}

#[test]
fn a_task_that_waits_is_told_once_also_after_a_restart() {
    let cluster = cluster();
    writes_down(cluster.b());
    let b = cluster.b().watch();
    let hostile = "say \u{1b}[2J hello\nthe second line is nobody's business";
    let id = cluster.a().send("b", hostile, &["--require-ack"]);
    let told = eventually("somebody is told", || heard_of(cluster.b(), "waiting").pop());
    has_all_members(&told);
    assert_eq!(
        (told["task"].as_str(), told["from"].as_str(), told["to"].as_str()),
        (Some(&*id), Some("a"), Some("b"))
    );
    assert!(told["help"].as_str().unwrap().contains(&format!("dispatch-ack {id}")));
    let text = told.to_string();
    assert!(!text.contains("\\u001b") && !text.contains("nobody's business"), "{text}");
    assert_eq!(b.stop(), 0);
    let _b = cluster.b().watch();
    let other = cluster.a().send("b", "echo other", &["--require-ack"]);
    eventually("the other one is told", || {
        heard_of(cluster.b(), "waiting").iter().any(|one| one["task"] == *other)
    });
    assert_eq!(heard_of(cluster.b(), "waiting").len(), 2);
    check::audit_verifies(cluster.b());
}

#[test]
fn an_answer_is_told_where_the_sender_asked_for_it() {
    let cluster = cluster();
    writes_down(cluster.a());
    let a = cluster.a().watch();
    let _b = cluster.b().watch();
    let quiet = cluster.a().send("b", "echo quiet", &[]);
    let sent = cluster.a().try_send("b", "exit 3", &["--callback", "notify"]).ok();
    assert!(!sent.err.contains("nobody will be told"), "{}", sent.err);
    let id = sent.out.split('\t').next().unwrap().to_owned();
    let told = eventually("somebody is told", || heard_of(cluster.a(), "done").pop());
    has_all_members(&told);
    assert_eq!((&told["task"], &told["status"], &told["to"]), (&id.into(), &"error".into(), &"b".into()));
    drop(cluster.answered(&quiet, "ok"));
    // One whose answer a waiting command saw first is told all the same, and nothing is told again after a restart.
    let waited = cluster.a().try_send("b", "echo waited", &["--callback", "notify", "--wait", "--json"]).ok();
    let waited: Value = serde_json::from_str(waited.out.lines().last().unwrap()).unwrap();
    assert_eq!(a.stop(), 0);
    let _a = cluster.a().watch();
    eventually("the second one is told", || heard_of(cluster.a(), "done").len() == 2);
    let third = cluster.a().send("b", "echo third", &["--callback", "notify"]);
    eventually("the third one is told", || {
        heard_of(cluster.a(), "done").iter().any(|one| one["task"] == *third)
    });
    assert_eq!(heard_of(cluster.a(), "done").len(), 3, "{waited}");
}

#[test]
fn a_sender_is_told_where_nobody_will_be_told() {
    let cluster = cluster();
    writes_down(cluster.a());
    let alone = cluster.a().try_send("b", "echo alone", &["--callback", "notify"]).ok();
    assert!(alone.err.contains("nobody will be told") && alone.err.contains("no watcher"), "{}", alone.err);
    let json = cluster.a().try_send("b", "echo alone", &["--callback", "notify", "--json"]).ok();
    assert!(json.out.contains("nobody will be told"), "{}", json.out);
    let plain = cluster.a().try_send("b", "echo plain", &[]).ok();
    assert!(!plain.err.contains("nobody will be told"), "{}", plain.err);
    // A watcher that has no program tells nobody either.
    let _b = cluster.b().watch();
    let back = cluster.b().try_send("a", "echo back", &["--callback", "notify"]).ok();
    assert!(back.err.contains("nobody will be told") && back.err.contains("[notify]"), "{}", back.err);
}

#[test]
fn a_trip_is_told_once() {
    let cluster = cluster();
    writes_down(cluster.b());
    let b = cluster.b().watch();
    let switch = cluster.share().join("KILLSWITCH");
    fs::write(&switch, "the disk is full\n").unwrap();
    let told = eventually("somebody is told", || heard_of(cluster.b(), "tripped").pop());
    has_all_members(&told);
    assert!(told["text"].as_str().unwrap().contains("the disk is full"), "{told:#}");
    assert_eq!(b.stop(), 0);
    let b = cluster.b().watch();
    fs::remove_file(&switch).unwrap();
    eventually("it goes on", || cluster.b().ctl(["resume"]).code == 0);
    assert_eq!(heard_of(cluster.b(), "tripped").len(), 1);
    fs::write(&switch, "again\n").unwrap();
    eventually("the next trip is told", || heard_of(cluster.b(), "tripped").len() == 2);
    assert_eq!(b.stop(), 0);
}

#[test]
fn a_dead_peer_is_told_once_and_its_return_too() {
    let cluster = cluster();
    writes_down(cluster.b());
    cluster.b().configure("[watch]\nstale_after_s = 2\ndead_after_s = 3\nheartbeat_s = 1\n");
    cluster.a().configure("[watch]\nheartbeat_s = 1\n");
    let a = cluster.a().watch();
    let b = cluster.b().watch();
    eventually("the peer is heard of", || cluster.b().ctl(["status", "--json"]).out.contains("healthy"));
    assert_eq!(a.stop(), 0);
    let told = eventually("its death is told", || heard_of(cluster.b(), "peer_dead").pop());
    has_all_members(&told);
    assert_eq!(told["peer"], "a");
    assert_eq!(b.stop(), 0);
    let _b = cluster.b().watch();
    throughout(Duration::from_secs(5), "a death that was told is not told again", || {
        heard_of(cluster.b(), "peer_dead").len() == 1
    });
    let _a = cluster.a().watch();
    let back = eventually("its return is told", || heard_of(cluster.b(), "peer_alive").pop());
    assert_eq!(back["peer"], "a");
    assert_eq!(heard_of(cluster.b(), "peer_dead").len(), 1);
}

/// A task goes round while the program does its worst; then the watcher leaves as always, and nothing is left behind.
fn goes_on_with(name: &str, set_up: impl Fn(&Cluster, &Node)) {
    let cluster = cluster();
    let node = cluster.b().clone();
    set_up(&cluster, &node);
    let b = node.watch();
    let parked: Vec<String> =
        (0..3).map(|_| cluster.a().send("b", "echo parked", &["--require-ack"])).collect();
    let id = cluster.a().send("b", &note(&cluster, name), &[]);
    cluster.answered(&id, "ok");
    eventually(&format!("{name}: the failures are audited"), || {
        cluster.audit("b").iter().filter(|entry| entry["kind"] == "notify_failed").count() >= 2
    });
    for id in &parked {
        drop(cluster.a().ctl(["cancel", id]).ok());
        cluster.answered(id, "cancelled");
    }
    let after = cluster.a().send("b", &note(&cluster, "after"), &[]);
    cluster.answered(&after, "ok");
    assert_eq!(b.stop(), 0, "{name}");
    let home = node.home.display().to_string();
    eventually(&format!("{name}: nothing is left alive"), || process::holding(&home).is_empty());
    check::audit_verifies(&node);
}

#[test]
fn broken_notifier_never_stops_the_watcher() {
    goes_on_with("missing", |_, node| node.configure("[notify]\nargv = [\"/nowhere/tell-me\"]\n"));
    goes_on_with("not executable", |_, node| {
        fs::write(node.home.join("text"), "no program").unwrap();
        node.configure(&format!("[notify]\nargv = [\"{}\"]\n", node.home.join("text").display()));
    });
    goes_on_with("a directory", |_, node| {
        node.configure(&format!("[notify]\nargv = [\"{}\"]\n", node.home.display()));
    });
    goes_on_with("fails", |_, node| tells_by(node, "exit 1"));
    goes_on_with("closes its input", |_, node| tells_by(node, "exec <&-; exit 7"));
    goes_on_with("dies", |_, node| tells_by(node, "kill -9 $$"));
}

#[test]
fn a_notifier_that_prints_a_gigabyte_costs_nothing() {
    goes_on_with("prints", |_, node| {
        tells_by(node, "head -c 1000000000 /dev/zero; head -c 1000000000 /dev/zero >&2; exit 1");
    });
}

#[test]
fn a_notifier_that_hangs_is_ended_with_all_it_started() {
    let home_of = |node: &Node| node.home.display().to_string();
    goes_on_with("hangs", |_, node| {
        let at = home_of(node);
        tells_by(
            node,
            &format!("cd '{at}'; sleep 100000 & setsid sleep 100000 & trap '' TERM INT HUP; sleep 100000"),
        );
    });
}

#[test]
fn a_notifier_that_forks_leaves_nothing_behind() {
    goes_on_with("forks", |_, node| {
        tells_by(node, "for n in 1 2 3 4 5; do sleep 100000 & setsid sleep 100000 & done; exit 1");
    });
}

#[test]
fn what_was_being_told_when_the_watcher_was_killed_is_audited_and_not_told_again() {
    let cluster = cluster();
    let node = cluster.b();
    let started = node.home.join("started");
    tells_by(node, &format!("echo x >>'{}'; sleep 100000", started.display()));
    let b = node.watch();
    drop(cluster.a().send("b", "echo parked", &["--require-ack"]));
    eventually("the program runs", || started.exists());
    b.crash();
    let b = node.watch();
    eventually("it is audited", || cluster.audited("b", "notify_interrupted"));
    assert_eq!(fs::read_to_string(&started).unwrap().lines().count(), 1);
    let marks = "DISPATCH_MARK=notify-".to_owned();
    eventually("what it left is ended", || {
        process::holding(&node.home.display().to_string()).iter().all(|pid| {
            !fs::read(format!("/proc/{pid}/environ"))
                .is_ok_and(|text| String::from_utf8_lossy(&text).contains(&marks))
        })
    });
    assert_eq!(b.stop(), 0);
}

#[test]
fn a_flood_of_things_to_tell_is_cut_counted_and_audited() {
    let cluster = cluster();
    let node = cluster.b();
    let gate = node.home.join("gate");
    tells_by(node, &format!("while [ ! -e '{}' ]; do sleep 0.05; done", gate.display()));
    let ids: Vec<String> =
        (0..70).map(|_| cluster.a().send("b", "echo parked", &["--require-ack"])).collect();
    let _b = node.watch();
    let dropped = |cluster: &Cluster| {
        cluster.audit("b").iter().filter(|entry| entry["kind"] == "notify_dropped").count()
    };
    // 64 are due at most; the rest is dropped, and said so.
    eventually("what is too much is dropped", || dropped(&cluster) == ids.len() - 64);
    fs::write(&gate, "").unwrap();
    let id = cluster.a().send("b", &note(&cluster, "after"), &[]);
    cluster.answered(&id, "ok");
    assert_eq!(dropped(&cluster), ids.len() - 64);
}
