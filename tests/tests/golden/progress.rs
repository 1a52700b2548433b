//! `processing/<id>.progress.json`: what the node that has a task tells its sender meanwhile.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use dispatch_testkit::cluster::{find, names};
use dispatch_testkit::{Cluster, check, eventually};
use serde_json::Value;

use crate::{cluster, wait_for};

/// What stands at the message's name in lane a-to-b, if it verifies.
fn told(cluster: &Cluster, id: &str) -> Option<Value> {
    let opened = cluster.opened("a", "b", &format!("processing/{id}.progress.json"))?;
    (opened.verified && opened.kind == "progress.v1").then_some(opened.value)
}

/// Waits until the node says that the task is in this phase.
#[track_caller]
fn phase(cluster: &Cluster, id: &str, phase: &str) -> Value {
    eventually(&format!("{id} is said to be {phase}"), || {
        told(cluster, id).filter(|told| told["phase"] == phase)
    })
}

fn file(cluster: &Cluster, id: &str) -> PathBuf {
    cluster.lane("a", "b").join(format!("processing/{id}.progress.json"))
}

/// `--wait -v` without a terminal: one line per change on standard error.
fn waiter(cluster: &Cluster, request: &Path, words: &[&str], err: &Path) -> Child {
    let mut command = cluster.a().command("dispatch-send");
    command.args(["--to", "b", "--wait", "-v", "--file"]).arg(request).args(words);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(fs::File::create(err).unwrap());
    command.spawn().unwrap()
}

fn lines_of(err: &Path) -> Vec<String> {
    fs::read_to_string(err).unwrap_or_default().lines().map(ToOwned::to_owned).collect()
}

#[test]
fn a_running_task_is_told_of_until_it_is_final() {
    let cluster = cluster();
    let _b = cluster.b().watch();
    let gate = cluster.outside().join("gate");
    let request = format!("echo working\n{}", wait_for(&cluster, "long", &gate));
    let id = cluster.a().send("b", &request, &[]);
    let first = phase(&cluster, &id, "running");
    let shapes = [("from", "a"), ("to", "b"), ("task", id.as_str())];
    shapes.into_iter().for_each(|(member, value)| assert_eq!(first[member], value, "{first:#}"));
    let later = eventually("its last line is told", || {
        told(&cluster, &id).filter(|told| told["last_line"] == "working")
    });
    assert!(later["epoch"].as_u64() > Some(0) && later["elapsed_ms"].is_u64(), "{later:#}");
    fs::write(&gate, "").unwrap();
    cluster.answered(&id, "ok");
    eventually("it is told of no longer", || !file(&cluster, &id).exists());
    check::one_result_each(&cluster, "a", "b", &[id]);
}

#[test]
fn a_queued_task_is_told_its_place_and_a_parked_one_that_it_waits() {
    let cluster = cluster();
    cluster.b().configure("[exec]\nmax_parallel = 1");
    let _b = cluster.b().watch();
    let gate = cluster.outside().join("gate");
    let first = cluster.a().send("b", &wait_for(&cluster, "first", &gate), &[]);
    phase(&cluster, &first, "running");
    let low = cluster.a().send("b", "echo low", &["--priority", "low"]);
    assert_eq!(phase(&cluster, &low, "queued")["position"], 1);
    let high = cluster.a().send("b", "echo high", &["--priority", "high"]);
    assert_eq!(phase(&cluster, &high, "queued")["position"], 1);
    eventually("the other one is told of its new place", || {
        told(&cluster, &low).is_some_and(|told| told["position"] == 2)
    });
    let parked = cluster.a().send("b", "echo parked", &["--require-ack"]);
    let said = phase(&cluster, &parked, "waiting");
    assert!(said["position"].is_null() && said["epoch"] == 0, "{said:#}");
    // Whoever asks a node about its own tasks is told the same.
    let shown = |node: &dispatch_testkit::Node, id: &str| node.ctl(["show", id]).ok().out;
    for node in [cluster.a(), cluster.b()] {
        assert!(shown(node, &low).contains("queued 2nd"), "{}", shown(node, &low));
        assert!(shown(node, &parked).contains("waiting for a decision"), "{}", shown(node, &parked));
        assert!(shown(node, &first).contains("running "), "{}", shown(node, &first));
        let list = node.ctl(["list"]).ok().out;
        assert!(list.contains("queued 1st") && list.contains("queued 2nd"), "{list}");
    }
    fs::write(&gate, "").unwrap();
    cluster.answered(&low, "ok");
    drop(cluster.a().ctl(["cancel", &parked]).ok());
    cluster.answered(&parked, "cancelled");
    eventually("nothing is told any longer", || names(&cluster.lane("a", "b").join("processing")).is_empty());
}

#[test]
fn somebody_elses_bytes_at_its_name_are_evidence_and_the_message_stands_again() {
    let cluster = cluster();
    let _b = cluster.b().watch();
    let gate = cluster.outside().join("gate");
    let id = cluster.a().send("b", &wait_for(&cluster, "squatted", &gate), &[]);
    phase(&cluster, &id, "running");
    let place = file(&cluster, &id);
    let fresh = place.with_extension("junk");
    fs::write(&fresh, r#"{"phase": "running", "usd": "0"}"#).unwrap();
    fs::rename(&fresh, &place).unwrap();
    phase(&cluster, &id, "running");
    let evidence = |name: &str| name.starts_with(&format!("{id}.progress")) || name.contains(&id);
    assert!(find(&cluster.lane("a", "b").join("rejected"), &evidence).is_some());
    fs::remove_file(&place).unwrap();
    fs::create_dir(&place).unwrap();
    phase(&cluster, &id, "running");
    eventually("it is audited", || cluster.audited("b", "squatted"));
    fs::write(&gate, "").unwrap();
    cluster.answered(&id, "ok");
}

#[test]
fn what_an_earlier_watcher_left_of_a_final_task_is_cleared_away() {
    let cluster = cluster();
    let b = cluster.b().watch();
    let gate = cluster.outside().join("gate");
    let id = cluster.a().send("b", &wait_for(&cluster, "left", &gate), &[]);
    phase(&cluster, &id, "running");
    let message = fs::read(file(&cluster, &id)).unwrap();
    fs::write(&gate, "").unwrap();
    cluster.answered(&id, "ok");
    eventually("it is told of no longer", || !file(&cluster, &id).exists());
    b.crash();
    fs::write(file(&cluster, &id), message).unwrap();
    let other = cluster.outside().join("other");
    let _b = cluster.b().watch();
    let next = cluster.a().send("b", &wait_for(&cluster, "next", &other), &[]);
    phase(&cluster, &next, "running");
    assert!(!file(&cluster, &id).exists());
    fs::write(&other, "").unwrap();
    cluster.answered(&next, "ok");
}

#[test]
fn who_waits_without_a_terminal_and_asks_for_more_is_told_each_change_once() {
    let cluster = cluster();
    cluster.b().configure("[exec]\nmax_parallel = 1");
    let _b = cluster.b().watch();
    let (gate, own) = (cluster.outside().join("gate"), cluster.outside().join("own"));
    let first = cluster.a().send("b", &wait_for(&cluster, "first", &gate), &[]);
    phase(&cluster, &first, "running");
    let (request, err) = (cluster.outside().join("request"), cluster.outside().join("err"));
    fs::write(&request, wait_for(&cluster, "second", &own)).unwrap();
    let mut waiter = waiter(&cluster, &request, &[], &err);
    let says = |line: &str| {
        eventually(&format!("`{line}` is said"), || lines_of(&err).iter().any(|said| said.starts_with(line)));
    };
    says("queued 1st");
    fs::write(&gate, "").unwrap();
    says("running ");
    fs::write(&own, "").unwrap();
    assert!(waiter.wait().unwrap().success());
    let all = lines_of(&err);
    let distinct: std::collections::BTreeSet<&String> = all.iter().collect();
    assert_eq!(all.len(), distinct.len(), "{all:#?}");
    assert!(all.iter().all(|line| !line.contains('\r') && !line.contains('\u{1b}')), "{all:#?}");
}

#[test]
fn progress_that_does_not_verify_is_not_shown() {
    let cluster = cluster();
    let (request, err) = (cluster.outside().join("request"), cluster.outside().join("err"));
    fs::write(&request, "echo hello").unwrap();
    // No watcher runs: whatever lies at the name was made by somebody else.
    let mut waiter = waiter(&cluster, &request, &[], &err);
    let inbox = cluster.lane("a", "b").join("inbox");
    let name = eventually("it is sent", || names(&inbox).into_iter().find(|name| name.ends_with(".json")));
    let id = name.trim_end_matches(".json").to_owned();
    let forged = dispatch_testkit::mail::seal(
        "progress.v1",
        format!(r#"{{"schema":1,"phase":"running","task":"{id}"}}"#).as_bytes(),
        b"0123456789abcdef0123456789abcdef",
    );
    fs::write(file(&cluster, &id), forged).unwrap();
    fs::write(cluster.lane("a", "b").join(format!("processing/{id}.json")), "{}").unwrap();
    eventually("only a hint is shown", || lines_of(&err).iter().any(|line| line == "taken, it seems"));
    assert!(!lines_of(&err).iter().any(|line| line.starts_with("running")), "{:?}", lines_of(&err));
    waiter.kill().unwrap();
    waiter.wait().unwrap();
}
