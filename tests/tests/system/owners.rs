//! One owner per node: a second watcher ends with 73, whatever state directory it has.

use std::fs;

use dispatch_testkit::cluster::copy_tree;
use dispatch_testkit::{Cluster, Node, check, eventually};

use crate::{cluster, note};

fn tasks(cluster: &Cluster, count: usize) -> (Vec<String>, Vec<String>) {
    let labels: Vec<String> = (0..count).map(|number| format!("task-{number}")).collect();
    let ids = labels.iter().map(|label| cluster.a().send("b", &note(cluster, label), &[])).collect();
    (labels, ids)
}

/// Node b from another home.
fn elsewhere(cluster: &Cluster, name: &str) -> Node {
    cluster.b().at_home(&cluster.outside().join(name))
}

#[test]
fn second_daemon_of_a_node_refuses() {
    let cluster = cluster();
    let _b = cluster.b().watch();
    let mut second = cluster.b().start_watch(&[], &[]);
    assert_eq!(second.wait(), 73);
    let (labels, ids) = tasks(&cluster, 5);
    check::one_result_each(&cluster, "a", "b", &ids);
    check::each_ran_once(&cluster, &labels);
}

#[test]
fn two_daemons_one_share_do_no_harm() {
    let cluster = cluster();
    let fresh_home = cluster.outside().join("fresh");
    copy_tree(&cluster.b().home, &fresh_home);
    let _b = cluster.b().watch();
    // Another state directory for the same node: its ledger never knew the first watcher's boot.
    let other = elsewhere(&cluster, "fresh");
    let mut second = other.start_watch(&[], &[]);
    assert_eq!(second.wait(), 73, "{}", fs::read_to_string(other.log()).unwrap_or_default());
    let (labels, ids) = tasks(&cluster, 5);
    check::one_result_each(&cluster, "a", "b", &ids);
    check::each_ran_once(&cluster, &labels);
    check::audit_verifies(cluster.b());
}

#[test]
fn a_copy_of_a_running_state_directory_refuses() {
    let cluster = cluster();
    cluster.b().configure("[watch]\nheartbeat_s = 1");
    let b = cluster.b().watch();
    let (mut labels, mut ids) = tasks(&cluster, 3);
    check::one_result_each(&cluster, "a", "b", &ids);
    let copy = cluster.outside().join("copy");
    copy_tree(&cluster.b().home, &copy);
    let other = elsewhere(&cluster, "copy");
    let mut second = other.start_watch(&[], &[]);
    assert_eq!(second.wait(), 73, "{}", fs::read_to_string(other.log()).unwrap_or_default());
    let more = note(&cluster, "more");
    ids.push(cluster.a().send("b", &more, &[]));
    labels.push("more".to_owned());
    check::one_result_each(&cluster, "a", "b", &ids);
    check::each_ran_once(&cluster, &labels);
    assert_eq!(b.stop(), 0);
}

#[test]
fn two_watchers_that_start_at_once_leave_one() {
    let cluster = cluster();
    let mut watchers: Vec<_> = (0..4).map(|_| cluster.b().start_watch(&[], &[])).collect();
    let (labels, ids) = tasks(&cluster, 5);
    check::one_result_each(&cluster, "a", "b", &ids);
    check::each_ran_once(&cluster, &labels);
    let codes = eventually("three of four have ended", || {
        let codes: Vec<i32> = watchers.iter_mut().filter_map(dispatch_testkit::Watcher::ended).collect();
        (codes.len() == 3).then_some(codes)
    });
    assert_eq!(codes, [73, 73, 73]);
}

#[test]
fn an_ordinary_restart_takes_no_wait() {
    let cluster = cluster();
    let b = cluster.b().watch();
    b.crash();
    let begun = std::time::Instant::now();
    let _b = cluster.b().watch();
    assert!(begun.elapsed().as_secs() < 10, "two heartbeat intervals are for machines that are not this one");
}

#[test]
fn a_watcher_that_is_told_of_a_newer_one_stops() {
    let cluster = cluster();
    let mut b = cluster.b().watch();
    let beats = cluster.share().join("heartbeats");
    let record = dispatch_testkit::cluster::names(&beats)
        .into_iter()
        .find(|name| name.starts_with("b.boot-"))
        .unwrap();
    let bytes = fs::read(beats.join(&record)).unwrap();
    let pair = cluster.pair("a", "b");
    let mut boot = dispatch_testkit::mail::open(&bytes, &pair.bytes()).unwrap().value;
    let number = boot["boot"].as_u64().unwrap() + 1000;
    boot["boot"] = serde_json::json!(number);
    boot["instance"] = serde_json::json!("11111111-2222-4333-8444-555555555555");
    let sealed = dispatch_testkit::mail::seal("boot.v1", boot.to_string().as_bytes(), &pair.bytes());
    crate::craft::place(&cluster, &beats.join(format!("b.boot-{number}.json")), &sealed);
    assert_eq!(b.wait(), 73);
}
