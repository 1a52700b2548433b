//! `dispatchctl explain`, `doctor` and `retry` through the real commands.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use dispatch_testkit::{Cluster, Node, eventually};
use serde_json::Value;

use crate::money::paid;
use crate::{cluster, note, note_and_stay, note_and_wait_for};

/// The explanation of a task on a node, as its document; what a person is shown says the same.
fn explain(node: &Node, id: &str) -> Value {
    let said = node.ctl(["explain", id, "--json"]).ok();
    let document: Value = serde_json::from_str(&said.out).unwrap();
    let shown = node.ctl(["explain", id]).ok().out;
    for name in ["code", "who", "what", "why", "next"] {
        assert!(document[name].as_str().is_some_and(|text| !text.is_empty()), "{name}: {document:#}");
    }
    assert!(shown.contains(document["what"].as_str().unwrap()), "{shown}\n{document:#}");
    document
}

/// Whether the explanation names `code`, first or among the rest.
fn names(document: &Value, code: &str) -> bool {
    document["code"] == code
        || document["also"].as_array().is_some_and(|also| also.iter().any(|told| told["code"] == code))
}

#[test]
fn a_task_that_waits_for_a_person_is_explained_on_both_sides() {
    let cluster = cluster();
    let _b = cluster.b().watch();
    let id = cluster.a().send("b", &note(&cluster, "never"), &["--require-ack"]);
    eventually("it waits", || {
        let there = cluster.b().ctl(["explain", &id, "--json"]);
        there.code == 0 && there.out.contains("awaiting_approval")
    });
    let here = explain(cluster.b(), &id);
    assert_eq!((&here["code"], &here["who"]), (&"awaiting_approval".into(), &"approver".into()), "{here:#}");
    assert!(here["why"].as_str().unwrap().contains("asks for a person's yes"), "{here:#}");
    assert!(here["next"].as_str().unwrap().contains("dispatch-ack"), "{here:#}");
    let sent = eventually("its sender knows why", || {
        let sent = explain(cluster.a(), &id);
        (sent["code"] == "awaiting_approval").then_some(sent)
    });
    assert!(sent["why"].as_str().unwrap().contains("asks for a person's yes"), "{sent:#}");
}

#[test]
fn a_task_behind_a_full_node_is_explained_with_its_place() {
    let cluster = cluster();
    cluster.b().configure("[exec]\nmax_parallel = 1\n");
    let _b = cluster.b().watch();
    let gate = cluster.outside().join("gate");
    let first = cluster.a().send("b", &note_and_wait_for(&cluster, "first", &gate), &[]);
    eventually("the first runs", || cluster.runs.of("first") == 1);
    let second = cluster.a().send("b", &note(&cluster, "second"), &[]);
    let third = cluster.a().send("b", &note(&cluster, "third"), &[]);
    let queued = |id: &str| {
        eventually("it is queued", || {
            let said = cluster.b().ctl(["explain", id, "--json"]);
            let document: Value = serde_json::from_str(&said.out).ok()?;
            (document["state"] == "queued").then_some(document)
        })
    };
    let (next, after) = (queued(&second), queued(&third));
    assert_eq!(next["code"], "capacity", "{next:#}");
    assert!(
        next["why"].as_str().unwrap().contains("1 of at most 1 tasks run there, and it is the next one"),
        "{next:#}"
    );
    assert!(after["why"].as_str().unwrap().contains("1 queued task goes first"), "{after:#}");
    assert!(after["next"].as_str().unwrap().contains("max_parallel"), "{after:#}");
    // A start is noted a moment after it.
    eventually("the first is told to run", || {
        let said = cluster.b().ctl(["explain", &first, "--json"]);
        serde_json::from_str::<Value>(&said.out).is_ok_and(|document| document["code"] == "running")
    });
    fs::write(&gate, "").unwrap();
    cluster.answered(&third, "ok");
    let done = explain(cluster.a(), &third);
    assert_eq!((&done["code"], &done["status"]), (&"ok".into(), &"ok".into()), "{done:#}");
}

#[test]
fn a_killswitch_is_named_as_what_holds_a_task_on_both_sides() {
    let cluster = cluster();
    let _b = cluster.b().watch();
    drop(cluster.a().ctl(["kill", "runaway"]).ok());
    let id = cluster.a().try_send("b", &note(&cluster, "never"), &[]).ok();
    let id = id.out.split('\t').next().unwrap().to_owned();
    let sent = explain(cluster.a(), &id);
    assert_eq!(sent["code"], "in_the_inbox", "{sent:#}");
    assert!(names(&sent, "killswitch"), "{sent:#}");
    drop(cluster.b().ctl(["resume"]).ok());
    cluster.answered(&id, "ok");
}

#[test]
fn a_task_that_was_queued_when_everything_was_stopped_says_so() {
    let cluster = cluster();
    cluster.b().configure("[exec]\nmax_parallel = 1\n");
    let watcher = cluster.b().watch();
    let stays = cluster.a().send("b", &note_and_stay(&cluster, "stays"), &[]);
    eventually("it runs", || cluster.runs.of("stays") == 1);
    let id = cluster.a().send("b", &note(&cluster, "never"), &[]);
    eventually("it is queued", || cluster.b().ctl(["explain", &id, "--json"]).out.contains("\"queued\""));
    drop(cluster.a().ctl(["kill", "enough"]).ok());
    let stopped = explain(cluster.b(), &id);
    assert_eq!(
        (&stopped["code"], &stopped["who"]),
        (&"killswitch".into(), &"operator".into()),
        "{stopped:#}"
    );
    assert!(stopped["why"].as_str().unwrap().contains("enough"), "{stopped:#}");
    assert!(names(&stopped, "capacity"), "everything that holds it is said: {stopped:#}");
    watcher.crash();
    let left = explain(cluster.b(), &id);
    assert_eq!(left["code"], "no_watcher", "{left:#}");
    drop(stays);
}

#[test]
fn a_task_over_the_months_cap_is_explained_with_what_is_left_and_when_it_resets() {
    let cluster = cluster();
    paid(&cluster, "1000", "1");
    let _b = cluster.b().watch();
    let first = cluster.a().send("b", &note(&cluster, "paid"), &[]);
    cluster.answered(&first, "ok");
    let id = cluster.a().send("b", &note(&cluster, "waits"), &[]);
    let waits = eventually("it waits for money", || {
        let said = cluster.b().ctl(["explain", &id, "--json"]);
        let document: Value = serde_json::from_str(&said.out).ok()?;
        (document["code"] == "over_cap").then_some(document)
    });
    assert_eq!(waits["limit"]["cap_usd"], "1", "{waits:#}");
    assert_eq!(waits["limit"]["asked_usd"], "1", "{waits:#}");
    assert!(waits["limit"]["window"].as_str().unwrap().starts_with("month:"), "{waits:#}");
    let resets = waits["limit"]["resets_at"].as_str().unwrap();
    assert!(waits["next"].as_str().unwrap().contains(resets), "{waits:#}");
    assert_eq!(waits["cost"]["ceiling_usd"], "0.75", "{waits:#}");
    assert!(waits["windows"].as_array().unwrap().iter().any(|window| window["cap_usd"] == "1"), "{waits:#}");
    assert!(cluster.b().ctl(["explain", &id]).ok().out.contains("of 1 USD left"));
}

#[test]
fn a_profile_that_keeps_failing_is_named_with_who_lets_it_go_on() {
    let cluster = cluster();
    cluster.b().configure(
        "[profile.plan]\nagent = \"command\"\nargv = [\"/bin/sh\", \"-eu\"]\nbilling = \"subscription\"\n",
    );
    let _b = cluster.b().watch();
    for _ in 0..3 {
        let id = cluster.a().send("b", "exit 3", &["--profile", "plan"]);
        cluster.answered(&id, "error");
    }
    let id = cluster.a().send("b", &note(&cluster, "never"), &["--profile", "plan"]);
    eventually("it is there", || cluster.b().ctl(["explain", &id]).code == 0);
    let held = explain(cluster.b(), &id);
    assert_eq!((&held["state"], &held["code"]), (&"queued".into(), &"breaker_open".into()), "{held:#}");
    assert!(held["next"].as_str().unwrap().contains("dispatchctl budget resume --profile plan"), "{held:#}");
    assert_eq!(cluster.runs.of("never"), 0);
    drop(cluster.b().ctl(["budget", "resume", "--profile", "plan"]).ok());
    cluster.answered(&id, "ok");
}

#[test]
fn a_rejected_task_and_an_unknown_one_are_explained() {
    let cluster = cluster();
    let _b = cluster.b().watch();
    let id = cluster.a().send("b", &note(&cluster, "never"), &["--profile", "nosuch"]);
    cluster.answered(&id, "rejected");
    for node in [cluster.a(), cluster.b()] {
        let refused = explain(node, &id);
        assert_eq!(
            (&refused["code"], &refused["status"]),
            (&"unknown_profile".into(), &"rejected".into()),
            "{refused:#}"
        );
        assert_eq!(refused["who"], "sender", "{refused:#}");
        assert!(refused["next"].as_str().unwrap().contains("profiles"), "{refused:#}");
    }
    let dies = cluster.a().send("b", &note_and_stay(&cluster, "dies"), &[]);
    eventually("it runs", || cluster.runs.of("dies") == 1);
    cluster.b().pids("dispatch-exec").into_iter().for_each(dispatch_testkit::process::kill);
    cluster.answered(&dies, "unknown");
    let unknown = explain(cluster.a(), &dies);
    assert_eq!(unknown["status"], "unknown", "{unknown:#}");
    drop(cluster.a().ctl(["explain", "ffffffff-0000"]).code(66));
}

#[test]
fn a_task_that_nobody_took_says_that_nobody_is_there() {
    let cluster = cluster();
    let id = cluster.a().send("b", &note(&cluster, "later"), &[]);
    let sent = explain(cluster.a(), &id);
    assert_eq!(sent["code"], "in_the_inbox", "{sent:#}");
    assert!(names(&sent, "peer_unknown"), "{sent:#}");
    let cluster_file = cluster.share().join("CLUSTER");
    let text = fs::read(&cluster_file).unwrap();
    fs::remove_file(&cluster_file).unwrap();
    let away = explain(cluster.a(), &id);
    assert!(names(&away, "share_unreachable"), "{away:#}");
    let kept = cluster.a().try_send("b", &note(&cluster, "kept"), &[]).code(69);
    let kept = kept.err.split("kept as ").nth(1).unwrap().split(':').next().unwrap().to_owned();
    let here = explain(cluster.a(), &kept);
    assert_eq!(here["code"], "kept", "{here:#}");
    fs::write(&cluster_file, text).unwrap();
    drop(cluster.b().once(&[]).ok());
    cluster.answered(&id, "ok");
}

/// What `doctor` says, and how it ends.
fn doctor(node: &Node, code: i32) -> Value {
    let said = node.ctl(["doctor", "--json"]).code(code);
    let document: Value = serde_json::from_str(&said.out).unwrap_or_else(|why| panic!("{why}: {}", said.out));
    assert_eq!(document["ok"], code == 0, "{document:#}");
    for line in document["lines"].as_array().unwrap() {
        let well = line["verdict"] == "ok";
        assert!(well == line["mend"].is_null(), "a line that is not ok says its mend: {line:#}");
    }
    document
}

/// The one line of a check that has this verdict and says `words`.
#[track_caller]
fn says(document: &Value, check: &str, verdict: &str, words: &str) -> Value {
    let lines = document["lines"].as_array().unwrap();
    let found = lines.iter().find(|line| {
        line["check"] == check && line["verdict"] == verdict && line["text"].as_str().unwrap().contains(words)
    });
    found.unwrap_or_else(|| panic!("no {verdict} line of {check} with `{words}`: {document:#}")).clone()
}

#[test]
fn a_node_that_is_well_set_up_passes_the_doctor() {
    let cluster = cluster();
    let _b = cluster.b().watch();
    let well = doctor(cluster.b(), 0);
    for check in [
        "configuration",
        "keys",
        "state",
        "ledger",
        "share",
        "mount",
        "strategy",
        "agents",
        "disk",
        "watcher",
    ] {
        says(&well, check, "ok", "");
    }
    says(&well, "mount", "ok", "link gives a second name once");
    says(&well, "guarantee", "warning", "approval guarantee: none");
    assert!(cluster.b().ctl(["doctor"]).ok().out.contains("mend: "));
    assert_eq!(
        dispatch_testkit::cluster::names(&cluster.share().join("tmp")).len(),
        0,
        "the probe leaves nothing"
    );
}

#[test]
fn each_broken_set_up_is_named_with_its_mend() {
    type Break = fn(&Cluster);
    let cases: [(&str, Break, &str, &str, &str); 9] = [
        (
            "a key that others may read",
            |cluster| fs::set_permissions(key(cluster), fs::Permissions::from_mode(0o644)).unwrap(),
            "keys",
            "lets other people",
            "chmod 600",
        ),
        (
            "a key that is missing",
            |cluster| fs::remove_file(key(cluster)).unwrap(),
            "keys",
            "is missing",
            "other node",
        ),
        (
            "a key that is too short",
            |cluster| fs::write(key(cluster), "short").unwrap(),
            "keys",
            "no usable key",
            "openssl",
        ),
        (
            "a state directory that others may enter",
            |cluster| {
                fs::set_permissions(cluster.b().state_dir(), fs::Permissions::from_mode(0o755)).unwrap();
            },
            "state",
            "lets other people",
            "chmod 700",
        ),
        (
            "a ledger that is none",
            |cluster| fs::write(cluster.b().state_dir().join("ledger.db"), "x".repeat(8_192)).unwrap(),
            "ledger",
            "",
            "recover",
        ),
        (
            "a share that is not mounted",
            |cluster| fs::remove_file(cluster.share().join("CLUSTER")).unwrap(),
            "share",
            "CLUSTER",
            "mount",
        ),
        (
            "an approvers file with a bad line",
            |cluster| {
                cluster.b().configure("[approve]\nallowed_signers = \"approvers\"");
                fs::write(cluster.b().config_dir().join("approvers"), "nobody at all\n").unwrap();
            },
            "approvers",
            "line 1",
            "mend the line",
        ),
        (
            "an agent that is not there",
            |cluster| cluster.b().configure("[profile.default]\nargv = [\"/nowhere/agent\"]"),
            "agents",
            "/nowhere/agent",
            "install it",
        ),
        (
            "a configuration with an unknown key",
            |cluster| {
                let file = cluster.b().config_file();
                let text = fs::read_to_string(&file).unwrap();
                fs::write(file, format!("no_such_key = 1\n{text}")).unwrap();
            },
            "configuration",
            "no_such_key",
            "",
        ),
    ];
    for (name, spoil, check, words, mend) in cases {
        let cluster = cluster();
        spoil(&cluster);
        let ill = doctor(cluster.b(), 1);
        let line = says(&ill, check, "failed", words);
        assert!(line["mend"].as_str().unwrap().contains(mend), "{name}: {line:#}");
    }
}

fn key(cluster: &Cluster) -> std::path::PathBuf {
    cluster.b().config_dir().join("keys/a.key")
}

#[test]
fn what_is_odd_but_works_is_a_warning_of_the_doctor() {
    let cluster = cluster();
    paid(&cluster, "0", "0");
    fs::write(cluster.lane("a", "b").join("inbox/notes.txt"), "hello").unwrap();
    fs::write(cluster.b().state_dir().join("KILLSWITCH"), "lunch\n").unwrap();
    cluster.b().configure("[watch]\nstrategy = \"poll\"\n[notify]\nargv = [\"/nowhere/tell\"]\n");
    let odd = doctor(cluster.b(), 0);
    says(&odd, "configuration", "warning", "paid work is off");
    says(&odd, "configuration", "warning", "/nowhere/tell");
    says(&odd, "names", "warning", "inbox holds 1 name(s)");
    says(&odd, "killswitch", "warning", "lunch");
    says(&odd, "watcher", "warning", "no watcher runs");
    says(&odd, "peers", "warning", "no heartbeat");
    says(&odd, "strategy", "ok", "poll, as configured");
    let checked = cluster.b().ctl(["config", "check", "--json"]).ok();
    assert!(checked.out.contains("paid work is off"), "{}", checked.out);
}

#[test]
fn one_key_for_two_peers_and_an_old_agent_fail_the_doctor() {
    let cluster = cluster();
    let fake = cluster.outside().join("claude");
    fs::write(&fake, "#!/bin/sh\necho '2.1.100 (Claude Code)'\n").unwrap();
    fs::set_permissions(&fake, fs::Permissions::from_mode(0o755)).unwrap();
    cluster.b().configure(&format!(
        "[peer.c]\nkeys = [\"keys/a.key\"]\n[profile.coder]\nagent = \"claude\"\nbilling = \"free\"\nargv = [\"{}\"]\n",
        fake.display()
    ));
    let ill = doctor(cluster.b(), 1);
    says(&ill, "keys", "failed", "used more than once");
    says(&ill, "agents", "failed", "2.1.100");
    says(&ill, "share", "failed", "no directory");
    fs::write(&fake, "#!/bin/sh\necho '2.1.400 (Claude Code)'\n").unwrap();
    says(&doctor(cluster.b(), 1), "agents", "ok", "version 2.1.400");
}

#[test]
fn a_retry_is_a_new_task_with_the_same_content() {
    let cluster = cluster();
    let _b = cluster.b().watch();
    let request = note(&cluster, "twice");
    let first =
        cluster.a().send("b", &request, &["--priority", "high", "--label", "ticket=7", "--timeout", "90s"]);
    cluster.answered(&first, "ok");
    let again = cluster.a().ctl(["retry", &first, "--json"]).ok();
    let document: Value = serde_json::from_str(&again.out).unwrap();
    let second = document["task"].as_str().unwrap().to_owned();
    assert_ne!(second, first);
    assert_eq!(document["retry_of"], first.as_str());
    assert_eq!(document["seq"], 2, "{document:#}");
    assert!(document["notes"].to_string().contains("done twice"), "{document:#}");
    cluster.answered(&second, "ok");
    assert_eq!(cluster.runs.of("twice"), 2);
    let shown = |id: &str| -> Value {
        serde_json::from_str(&cluster.b().ctl(["show", id, "--json"]).ok().out).unwrap()
    };
    let (old, new) = (shown(&first), shown(&second));
    for member in ["request", "profile", "priority", "max_attempts"] {
        assert_eq!(old[member], new[member], "{member}");
    }
    assert_eq!(new["labels"]["retry-of"], first.as_str(), "{new:#}");
    assert_eq!(new["labels"]["ticket"], "7", "{new:#}");
    let waited = cluster.a().ctl(["retry", &second, "--wait"]).ok();
    assert!(waited.out.contains("did twice"), "{}", waited.out);
    assert_eq!(cluster.runs.of("twice"), 3);
}

#[test]
fn a_retry_of_what_may_still_run_needs_to_be_forced() {
    let cluster = cluster();
    let _b = cluster.b().watch();
    let first = cluster.a().send("b", &note_and_stay(&cluster, "stays"), &[]);
    eventually("it runs", || cluster.runs.of("stays") == 1);
    let refused = cluster.a().ctl(["retry", &first]).code(77);
    assert!(refused.err.contains("may still run") && refused.err.contains("--force"), "{}", refused.err);
    let forced = cluster.a().ctl(["retry", &first, "--force"]).ok();
    assert!(forced.err.contains("both may run"), "{}", forced.err);
    eventually("both run", || cluster.runs.of("stays") == 2);
    let elsewhere = cluster.b().ctl(["retry", &first]).code(77);
    assert!(elsewhere.err.contains("not sent from here"), "{}", elsewhere.err);
    drop(cluster.a().ctl(["retry", "ffffffff-0000"]).code(66));
}

#[test]
fn every_kind_of_file_on_the_share_is_told_for_what_it_is() {
    let cluster = cluster();
    let b = cluster.b().watch();
    let id = cluster.a().send("b", &note(&cluster, "did"), &[]);
    cluster.answered(&id, "ok");
    let lane = cluster.lane("a", "b");
    eventually("everything is there", || {
        cluster.share().join("logs/b.jsonl").exists() && lane.join(format!("done/{id}.json")).exists()
    });
    drop(b);
    dispatch_testkit::cluster::sparse(&lane.join(format!("done/{id}.log")), 3_000_000);
    let said = |file: std::path::PathBuf, code: i32| -> Value {
        let said = cluster.b().ctl(["verify", "--json", &file.display().to_string()]).code(code);
        serde_json::from_str(&said.out).unwrap()
    };
    for (file, what, verified) in [
        (lane.join(format!("done/{id}.json")), "task", true),
        (lane.join(format!("done/{id}.result.json")), "result of", true),
        (lane.join(format!("done/{id}.log")), "log of", false),
        (cluster.share().join("heartbeats/b.json"), "heartbeat of b", true),
        (cluster.share().join("logs/b.jsonl"), "copy of the audit of b", false),
        (cluster.share().join("CLUSTER"), "mark of the cluster", false),
    ] {
        let told = said(file, 0);
        assert!(told["what"].as_str().unwrap().contains(what), "{told:#}");
        assert_eq!((&told["verified"], &told["code"]), (&verified.into(), &Value::Null), "{told:#}");
    }
    fs::write(cluster.share().join("CLUSTER"), "00000000-0000-4000-8000-000000000000\n").unwrap();
    assert_eq!(said(cluster.share().join("CLUSTER"), 65)["code"], "wrong_cluster");
    let digest = "a".repeat(64);
    fs::write(lane.join("attachments").join(&digest), "something else").unwrap();
    assert_eq!(said(lane.join("attachments").join(&digest), 65)["code"], "attachment_mismatch");
    fs::write(lane.join("inbox").join(format!("{id}.json")), "{}").unwrap();
    assert_eq!(said(lane.join("inbox").join(format!("{id}.json")), 65)["code"], "malformed");
}
