//! Keys and approvers change while work goes on.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use dispatch_testkit::cluster::{find, ssh_key};
use dispatch_testkit::{Cluster, Ended, Node, check, eventually};
use serde_json::Value;

use crate::craft::{deliver, fresh, id_of, sealed, template};
use crate::{cluster, note};

fn json(ended: Ended) -> Value {
    let ended = ended.ok();
    serde_json::from_str(&ended.out).unwrap_or_else(|why| panic!("{why}: {}", ended.out))
}

fn listed(node: &Node) -> Vec<Value> {
    let listed = json(node.ctl(["keys", "list", "--json"]));
    listed["peers"][0]["keys"].as_array().unwrap().clone()
}

/// Role and what the peer does, of each key of the only peer.
fn roles(node: &Node) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    listed(node).iter().map(|key| (text(&key["role"]), text(&key["peer"]))).collect()
}

/// One task each way, its answer believed by its sender with the keys that it has then.
fn tasks_flow(cluster: &Cluster, label: &str) {
    let there = cluster.a().send("b", &note(cluster, label), &[]);
    let back = cluster.b().send("a", &note(cluster, &format!("{label} back")), &[]);
    for (sender, id) in [(cluster.a(), there), (cluster.b(), back)] {
        assert_eq!(answered(sender, &id), "ok", "{label}");
    }
}

/// The status of a task as its sender believes it.
fn answered(sender: &Node, id: &str) -> String {
    eventually(&format!("an answer to {id}"), || {
        let result = sender.ctl(["result", id, "--json"]);
        let result: Value = serde_json::from_str(&result.out).ok()?;
        let believed = result["verified"] == true;
        result["status"].as_str().filter(|_| believed).map(str::to_owned)
    })
}

fn nothing_was_refused(cluster: &Cluster) {
    for node in ["a", "b"] {
        for code in
            ["bad_signature", "retired_key", "refused", "squatted", "unanswered", "heartbeat_replayed"]
        {
            assert!(!cluster.audited(node, code), "{node} audited {code}");
        }
    }
}

fn beating_fast(cluster: &Cluster) {
    for node in [cluster.a(), cluster.b()] {
        node.configure("[watch]\nheartbeat_s = 1\n");
    }
}

#[test]
fn a_key_is_rotated_while_tasks_flow_and_none_is_refused() {
    let cluster = cluster();
    beating_fast(&cluster);
    let (a, b) = (cluster.a(), cluster.b());
    let (watch_a, watch_b) = (a.watch(), b.watch());
    tasks_flow(&cluster, "before");
    eventually("both know what the other signs with", || {
        [a, b].iter().all(|node| roles(node) == [("signs".to_owned(), "signs".to_owned())])
    });
    let old = listed(a)[0]["keyid"].as_str().unwrap().to_owned();

    let added = json(a.ctl(["keys", "rotate", "b", "--json"]));
    assert_eq!((&added["did"], &added["watcher"]), (&"added".into(), &"told".into()));
    let new = added["keyid"].as_str().unwrap().to_owned();
    let secret = fs::read_to_string(added["file"].as_str().unwrap()).unwrap();
    let join = PathBuf::from(added["join"].as_str().unwrap());
    for private in [added["file"].as_str().unwrap(), join.to_str().unwrap()] {
        assert_eq!(fs::metadata(private).unwrap().permissions().mode() & 0o7777, 0o600, "{private}");
    }
    tasks_flow(&cluster, "added here");
    // The peer does not have it yet: nothing is signed with it.
    let early = a.ctl(["keys", "rotate", "b"]).code(75).says("may not have the key");
    assert!(!early.out.contains(secret.trim()) && !early.err.contains(secret.trim()));

    let brought = b.ctl(["keys", "rotate", "a", "--join", join.to_str().unwrap()]).ok();
    assert!(brought.out.contains(&new) && !brought.out.contains(secret.trim()), "{}", brought.out);
    fs::remove_file(&join).unwrap();
    tasks_flow(&cluster, "added there");
    // In the way that it was told: first there, then here.
    eventually("it signs there", || b.ctl(["keys", "rotate", "a"]).code == 0);
    tasks_flow(&cluster, "first there");
    eventually("it signs here", || a.ctl(["keys", "rotate", "b"]).code == 0);
    tasks_flow(&cluster, "first here");
    let again = json(a.ctl(["keys", "rotate", "b", "--json"]));
    assert_eq!((&again["did"], again["keyid"].as_str()), (&"nothing".into(), Some(&*new)));

    drop(a.ctl(["keys", "retire", "b", &new]).code(78).says("the one that signs here"));
    eventually("the old one goes here", || a.ctl(["keys", "retire", "b", &old]).code == 0);
    tasks_flow(&cluster, "retired here");
    eventually("the old one goes there", || b.ctl(["keys", "retire", "a", &old]).code == 0);
    tasks_flow(&cluster, "retired there");
    for node in [a, b] {
        eventually("only the new one is used", || {
            let keys = listed(node);
            keys.len() == 2
                && (keys[0]["keyid"].as_str(), &keys[0]["role"], &keys[0]["peer"])
                    == (Some(&*new), &"signs".into(), &"signs".into())
                && (keys[1]["keyid"].as_str(), &keys[1]["role"], &keys[1]["peer"])
                    == (Some(&*old), &"retired".into(), &"not shown".into())
        });
    }
    nothing_was_refused(&cluster);
    assert_eq!((watch_a.stop(), watch_b.stop()), (0, 0));
    let (_a, _b) = (a.watch(), b.watch());
    tasks_flow(&cluster, "after a restart");
    nothing_was_refused(&cluster);
    for node in [a, b] {
        check::audit_verifies(node);
        let config = fs::read_to_string(node.config_file()).unwrap();
        assert!(config.contains("retired = ["), "{config}");
    }
    // What the old key seals is refused from now on, by its name: the scenario's own key is that of the first file.
    let task = fresh(&template(&cluster), &note(&cluster, "too late"));
    deliver(&cluster, &id_of(&task), &sealed(&cluster, "a", "b", &task));
    eventually("it is refused as retired", || cluster.audited("b", "retired_key"));
    assert_eq!(cluster.runs.of("too late"), 0);
}

#[test]
fn a_rotation_keeps_every_comment_and_the_mode_of_the_configuration() {
    let cluster = cluster();
    let a = cluster.a();
    let before = fs::read_to_string(a.config_file()).unwrap();
    fs::set_permissions(a.config_file(), fs::Permissions::from_mode(0o640)).unwrap();
    drop(a.ctl(["keys", "rotate", "b"]).ok());
    let after = fs::read_to_string(a.config_file()).unwrap();
    let changed: Vec<(&str, &str)> =
        before.lines().zip(after.lines()).filter(|(old, new)| old != new).collect();
    assert_eq!(before.lines().count(), after.lines().count());
    let [(old, new)] = changed[..] else { panic!("{changed:?}") };
    assert!(
        old == "keys = [\"keys/b.key\"]" && new.starts_with("keys = [\"keys/b.key\", \"keys/b."),
        "{new}"
    );
    assert_eq!(fs::metadata(a.config_file()).unwrap().permissions().mode() & 0o7777, 0o640);
    drop(a.ctl(["config", "check"]).ok());
}

#[test]
fn a_new_key_waits_until_a_rotation_takes_it() {
    let cluster = cluster();
    let a = cluster.a();
    let config = fs::read_to_string(a.config_file()).unwrap();
    let drawn = json(a.ctl(["keys", "new", "--peer", "b", "--json"]));
    assert_eq!(fs::read_to_string(a.config_file()).unwrap(), config);
    let again = json(a.ctl(["keys", "new", "--peer", "b", "--json"]));
    assert_eq!(drawn["keyid"], again["keyid"]);
    let rotated = json(a.ctl(["keys", "rotate", "b", "--json"]));
    assert_eq!(rotated["keyid"], drawn["keyid"]);
    drop(a.ctl(["keys", "rotate", "c"]).code(2));
    drop(a.ctl(["keys", "new", "--peer", "c"]).code(2));
    // A join file for another node, or with another's cluster, is taken by nobody.
    let join = drawn["join"].as_str().unwrap();
    drop(a.ctl(["keys", "rotate", "b", "--join", join]).code(78).says("is for `b`"));
    fs::set_permissions(join, fs::Permissions::from_mode(0o644)).unwrap();
    drop(cluster.b().ctl(["keys", "rotate", "a", "--join", join]).code(78).says("0644"));
}

#[test]
fn a_bad_key_file_is_shown_and_a_bad_configuration_is_never_written() {
    let cluster = cluster();
    let a = cluster.a();
    let key = find(&a.config_dir(), &|name| name == "b.key").unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let config = fs::read_to_string(a.config_file()).unwrap();
    let listed = listed(a);
    assert_eq!((&listed[0]["mode"], &listed[0]["keyid"]), (&"0644".into(), &Value::Null));
    assert!(listed[0]["problem"].as_str().unwrap().contains("mode 0644"));
    drop(a.ctl(["keys", "rotate", "b"]).code(78).says("chmod 600"));
    assert_eq!(fs::read_to_string(a.config_file()).unwrap(), config);
}

#[test]
fn a_key_is_not_retired_while_something_is_under_way_with_it() {
    let cluster = cluster();
    beating_fast(&cluster);
    let (a, b) = (cluster.a(), cluster.b());
    drop(b.approver("ann"));
    let (_watch_a, _watch_b) = (a.watch(), b.watch());
    let parked = a.send("b", "echo parked", &["--require-ack"]);
    eventually("it is parked", || b.run("dispatch-ack", [""; 0]).out.contains(&parked[parked.len() - 8..]));
    let old = listed(a)[0]["keyid"].as_str().unwrap().to_owned();
    let join = json(a.ctl(["keys", "rotate", "b", "--json"]))["join"].as_str().unwrap().to_owned();
    drop(b.ctl(["keys", "rotate", "a", "--join", &join]).ok());
    drop(a.ctl(["keys", "retire", "b", "nope"]).code(2));
    eventually("it signs here", || a.ctl(["keys", "rotate", "b"]).code == 0);
    drop(a.ctl(["keys", "retire", "b", &old]).code(75).says("still signs"));
    eventually("it signs there", || b.ctl(["keys", "rotate", "a"]).code == 0);
    eventually("the sender is warned", || {
        let tried = a.ctl(["keys", "retire", "b", &old]);
        tried.code == 75 && tried.err.contains("have no answer yet")
    });
    eventually("the receiver is warned", || {
        let tried = b.ctl(["keys", "retire", "a", &old]);
        tried.code == 75 && tried.err.contains("wait for a decision")
    });
    drop(a.ctl(["cancel", &parked]).ok());
    assert_eq!(answered(a, &parked), "cancelled");
    eventually("nothing is under way", || a.ctl(["keys", "retire", "b", &old]).code == 0);
    eventually("nothing waits", || b.ctl(["keys", "retire", "a", &old]).code == 0);
    tasks_flow(&cluster, "after");
}

#[test]
fn approvers_come_and_go_and_a_running_watcher_knows() {
    let cluster = cluster();
    let b = cluster.b();
    let file = b.config_dir().join("approvers");
    let watch = b.watch();
    let key = ssh_key(&cluster.outside(), "ann");
    let public = key.with_extension("pub").display().to_string();
    let head = fs::read_to_string(&file).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    let added = json(b.ctl([
        "approvers",
        "add",
        &public,
        "--principal",
        "ann@desk",
        "--valid-before",
        "20991231",
        "--json",
    ]));
    assert_eq!(added["watcher"], "told");
    let fingerprint = added["fingerprint"].as_str().unwrap().to_owned();
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o640);
    assert!(fs::read_to_string(&file).unwrap().starts_with(&head), "what a person wrote stays");
    drop(b.ctl(["approvers", "add", &public]).code(78).says("lists this key already"));
    let listed = json(b.ctl(["approvers", "list", "--json"]));
    let one = &listed["approvers"][0];
    assert_eq!(
        (&one["principals"][0], &one["key_type"], &one["state"], &one["valid_before"]),
        (&"ann@desk".into(), &"ssh-ed25519".into(), &"valid".into(), &"2099-12-31T00:00:00.000Z".into())
    );
    let id = cluster.a().send("b", &note(&cluster, "decided"), &["--require-ack"]);
    let secret = key.display().to_string();
    eventually("ann may decide", || {
        b.run("dispatch-ack", ["--yes", "--key", &secret, &id, "--reason", "fine"]).code == 0
    });
    cluster.answered(&id, "ok");

    drop(b.ctl(["approvers", "remove", "nobody"]).code(2));
    drop(b.ctl(["approvers", "remove", &fingerprint]).ok());
    assert_eq!(fs::read_to_string(&file).unwrap(), head);
    let other = cluster.a().send("b", &note(&cluster, "never"), &["--require-ack"]);
    eventually("it waits", || b.run("dispatch-ack", [""; 0]).out.contains(&other[other.len() - 8..]));
    assert_ne!(b.run("dispatch-ack", ["--yes", "--key", &secret, &other, "--reason", "no more"]).code, 0);
    let reasons: Vec<Value> =
        cluster.audit("b").into_iter().filter(|entry| entry["kind"] == "request").collect();
    assert!(
        reasons
            .iter()
            .any(|entry| entry["data"]["reason"] == format!("approvers add ann@desk {fingerprint}")),
        "{reasons:?}"
    );
    assert_eq!(cluster.runs.of("never"), 0);
    assert_eq!(watch.stop(), 0);
}

#[test]
fn an_approver_that_would_not_count_is_not_added_and_a_spoiled_line_is_shown() {
    let cluster = cluster();
    let b = cluster.b();
    let file = b.config_dir().join("approvers");
    let good = ssh_key(&cluster.outside(), "good").with_extension("pub");
    let rsa = cluster.outside().join("weak");
    let mut keygen = std::process::Command::new("ssh-keygen");
    keygen.args(["-q", "-t", "rsa", "-b", "2048", "-N", "", "-C", "weak", "-f"]).arg(&rsa);
    drop(Ended::of(keygen, b"").ok());
    let before = fs::read_to_string(&file).unwrap();
    let add = |path: &std::path::Path, words: &[&str]| {
        let mut all = vec!["approvers".to_owned(), "add".to_owned(), path.display().to_string()];
        all.extend(words.iter().map(|word| (*word).to_owned()));
        b.ctl(all)
    };
    drop(add(&rsa.with_extension("pub"), &[]).code(78).says("3072"));
    drop(add(&rsa, &[]).code(78).says("not an OpenSSH public key"));
    for principal in ["*", "ann*", "!ann", "", "cert-authority ann", "ann\"", "#ann", "a,*b"] {
        drop(add(&good, &["--principal", principal]).code(78));
    }
    drop(add(&good, &["--valid-before", "tomorrow"]).code(2));
    drop(add(&good, &["--valid-before", "20261399"]).code(78).says("date"));
    drop(add(&good, &["--valid-after", "20300101", "--valid-before", "20290101"]).code(78).says("date"));
    assert_eq!(fs::read_to_string(&file).unwrap(), before);

    drop(add(&good, &["--principal", "ann,anne"]).ok());
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.clone() + "x@y cert-authority ssh-ed25519 AAAA\n").unwrap();
    let listed = json(b.ctl(["approvers", "list", "--json"]));
    assert_eq!(listed["approvers"].as_array().unwrap().len(), 1);
    assert!(listed["spoiled"][0]["problem"].as_str().unwrap().contains("certificate authorities"));
    assert!(b.ctl(["approvers", "list"]).ok().out.contains("counts for nobody"));
    drop(b.ctl(["approvers", "remove", "ann"]).code(2).says("together"));
    let fingerprint = listed["approvers"][0]["fingerprint"].as_str().unwrap();
    drop(b.ctl(["approvers", "remove", fingerprint]).ok());
    assert_eq!(fs::read_to_string(&file).unwrap(), before + "x@y cert-authority ssh-ed25519 AAAA\n");
}
