//! Setting up nodes with the built command.

mod lab;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use lab::Lab;

#[test]
fn two_nodes_are_set_up_and_share_a_cluster_and_a_key() {
    let lab = Lab::joined();
    let key = |node: &str, peer: &str| {
        fs::read_to_string(lab.config_dir(node).join(format!("keys/{peer}.key"))).unwrap()
    };
    assert_eq!(key("a", "b"), key("b", "a"));
    let cluster = fs::read_to_string(lab.share().join("CLUSTER")).unwrap();
    for node in ["a", "b"] {
        let config = fs::read_to_string(lab.config_dir(node).join("dispatch.toml")).unwrap();
        assert!(config.contains(&format!("cluster = \"{}\"", cluster.trim())));
        assert!(lab.state_dir(node).join("ledger.db").exists());
    }
    assert!(lab.share().join("a-to-b/inbox").is_dir() && lab.share().join("b-to-a/done/archive").is_dir());
}

#[test]
fn nothing_secret_is_printed_and_every_secret_is_private() {
    let lab = Lab::bare();
    let ended = lab.run("a", &["init", "--root", &lab.root(), "--node", "a", "--peer", "b"]).done();
    let key = fs::read_to_string(lab.config_dir("a").join("keys/b.key")).unwrap();
    assert!(!ended.out.contains(key.trim()) && !ended.err.contains(key.trim()));
    assert!(ended.out.contains("--join"));
    for file in ["keys/b.key", "join-b.json"] {
        let mode = fs::metadata(lab.config_dir("a").join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    assert_eq!(fs::metadata(lab.state_dir("a")).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn a_second_run_overwrites_nothing() {
    let lab = Lab::joined();
    let file = lab.config_dir("a").join("dispatch.toml");
    fs::write(&file, format!("{}# mine\n", fs::read_to_string(&file).unwrap())).unwrap();
    let before = fs::read_to_string(&file).unwrap();
    let key = fs::read(lab.config_dir("a").join("keys/b.key")).unwrap();
    lab.run("a", &["init", "--root", &lab.root(), "--node", "a", "--peer", "b"]).done();
    lab.run("b", &["init", "--join", &lab.join_file(), "--root", &lab.root()]).done();
    assert_eq!(fs::read_to_string(&file).unwrap(), before);
    assert_eq!(fs::read(lab.config_dir("a").join("keys/b.key")).unwrap(), key);
    lab.run("a", &["init", "--root", "/elsewhere", "--node", "a", "--peer", "b"]).refused(78, &["says root"]);
    lab.run("a", &["init", "--root", &lab.root(), "--node", "z", "--peer", "b"]).refused(78, &["says node"]);
}

#[test]
fn what_is_missing_on_the_share_is_added() {
    let lab = Lab::joined();
    fs::remove_dir_all(lab.share().join("a-to-b/inbox")).unwrap();
    fs::remove_file(lab.share().join("CLUSTER")).unwrap();
    lab.run("a", &["init"]).done();
    assert!(lab.share().join("a-to-b/inbox").is_dir() && lab.share().join("CLUSTER").is_file());
}

#[test]
fn a_further_peer_is_added_to_the_configuration() {
    let lab = Lab::joined();
    lab.run("a", &["init", "--peer", "c"]).done();
    assert!(lab.config_dir("a").join("join-c.json").exists());
    assert!(lab.share().join("c-to-a/inbox").is_dir());
    let config = fs::read_to_string(lab.config_dir("a").join("dispatch.toml")).unwrap();
    assert!(config.contains("[peer.b]") && config.contains("[peer.c]"));
}

#[test]
fn a_share_that_is_not_mounted_is_not_joined() {
    let lab = Lab::bare();
    lab.run("a", &["init", "--root", &lab.root(), "--node", "a", "--peer", "b"]).done();
    let elsewhere = lab.dir.path().join("empty");
    fs::create_dir(&elsewhere).unwrap();
    lab.run("b", &["init", "--join", &lab.join_file(), "--root", &elsewhere.display().to_string()])
        .refused(69, &["no CLUSTER", "mount the share"]);
    assert!(!lab.config_dir("b").exists() && fs::read_dir(&elsewhere).unwrap().next().is_none());
}

#[test]
fn a_share_of_another_cluster_is_refused() {
    let lab = Lab::joined();
    fs::write(lab.share().join("CLUSTER"), "7c0e3b52-6f0e-4a3e-9d52-0f6f2b8f7a11\n").unwrap();
    lab.run("a", &["init"]).refused(78, &["another cluster"]);
}

#[test]
fn a_lost_ledger_is_not_replaced_silently() {
    let lab = Lab::joined();
    fs::remove_file(lab.state_dir("b").join("ledger.db")).unwrap();
    lab.run("b", &["init"]).refused(78, &["is lost", "--new-ledger"]);
    let ended = lab.run("b", &["init", "--new-ledger", "--json"]).done();
    let said: serde_json::Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!(said["new_ledger"]["paid_work_off"], true);
    assert!(fs::read_dir(lab.share().join("heartbeats")).unwrap().count() == 1);
    lab.run("b", &["init"]).done();
    lab.run("b", &["init", "--new-ledger"]).refused(78, &["is not lost"]);
}

#[test]
fn a_node_set_up_again_where_a_watcher_ran_before_needs_to_be_told() {
    let lab = Lab::bare();
    lab.run("a", &["init", "--root", &lab.root(), "--node", "a", "--peer", "b"]).done();
    fs::write(lab.share().join("heartbeats/b.boot-7.json"), "{}").unwrap();
    let join = ["init", "--join", &lab.join_file(), "--root", &lab.root()];
    lab.run("b", &join).refused(78, &["--new-ledger"]);
    assert!(!lab.config_dir("b").join("dispatch.toml").exists());
    let told: Vec<&str> = join.into_iter().chain(["--new-ledger", "--month-spent", "12.5"]).collect();
    let ended = lab.run("b", &told).done();
    assert!(ended.out.contains("raised by 12.5 USD"), "{}", ended.out);
}

#[test]
fn a_running_watcher_keeps_its_ledger() {
    let lab = Lab::joined();
    let lock = fs::File::open(lab.state_dir("b").join("watch.lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    lab.run("b", &["recover", "--accept-rollback", "x"]).refused(73, &["watch.lock", "stop it first"]);
}

#[test]
fn a_ledger_that_is_not_behind_has_no_rollback_to_accept() {
    let lab = Lab::joined();
    lab.run("b", &["recover", "--accept-rollback", "x"]).refused(77, &["no rollback"]);
    lab.run("b", &["recover", "--accept-rollback", " "]).refused(2, &["reason is empty"]);
    lab.run("b", &["recover"]).refused(2, &["--accept-rollback"]);
    lab.run("b", &["recover", "--accept-clock", "it was wrong"]).done();
}
