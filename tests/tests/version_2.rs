//! A version-2 peer on the same share: a node that still runs the original kit, served through the built commands.

use std::fs::{self, File};
use std::path::Path;

use dispatch_testkit::cluster::{list, name_of, names};
use dispatch_testkit::{Cluster, Ended, Kit, bins, check, eventually, mail};
use serde_json::{Value, json};

fn cluster() -> Cluster {
    Cluster::new(&bins!())
}

fn note(cluster: &Cluster, label: &str) -> String {
    format!("{}echo did {label}\n", cluster.runs.mark(label))
}

fn ack(cluster: &Cluster, key: &Path, words: &[&str]) -> Ended {
    let key = key.display().to_string();
    let mut all = vec!["--yes", "--key", &key];
    all.extend(words);
    cluster.b().run("dispatch-ack", all)
}

fn json_of(ended: &Ended) -> Value {
    serde_json::from_str(ended.out.trim()).unwrap_or_else(|why| panic!("{why}: {}", ended.out))
}

#[test]
fn a_task_signed_its_way_waits_runs_and_is_answered_in_its_flat_form() {
    let cluster = cluster();
    let kit = Kit::beside(&cluster, cluster.b(), "old", "");
    let key = cluster.b().approver("ann");
    let _b = cluster.b().watch();
    let id = kit.send(&kit.task(&note(&cluster, "grüße")));
    eventually("it waits", || kit.sends(&format!("pending-ack/{id}.json")).exists());
    assert_eq!(cluster.runs.all().len(), 0);
    let listed = cluster.b().run("dispatch-ack", [""; 0]).ok();
    assert!(listed.out.contains(&id[id.len() - 8..]) && listed.out.contains("peer_gate"), "{}", listed.out);
    let pending = kit.sends(&format!("pending-ack/{id}.json")).display().to_string();
    assert!(cluster.b().ctl(["verify", &pending]).ok().out.contains("version-2 task"));
    drop(ack(&cluster, &key, &[&id, "--reason", "fine"]).ok());
    let result = kit.answered(&id, "ok");
    assert_eq!((result["exit_code"].as_i64(), result["output"].as_str()), (Some(0), Some("did grüße\n")));
    assert!(result["started"].as_str().unwrap().ends_with("+00:00"), "{result:#}");
    assert_eq!(fs::read_to_string(kit.sends(&format!("done/{id}.log"))).unwrap(), "did grüße\n");
    let kept: Value =
        serde_json::from_slice(&fs::read(kit.sends(&format!("done/{id}.json"))).unwrap()).unwrap();
    assert_eq!(kept["id"], json!(id));
    for place in ["inbox", "pending-ack", "processing"] {
        eventually("nothing of it is left elsewhere", || names(&kit.sends(place)).is_empty());
    }
    // This node's own books hold it like any other.
    let own = json_of(&cluster.b().ctl(["result", &id, "--json"]).ok());
    assert_eq!((own["status"].as_str(), own["result"]["decided_by"].clone()), (Some("ok"), json!(["ann"])));
    let shown = cluster.b().ctl(["show", &id]).ok();
    assert!(shown.out.contains("did grüße") || shown.out.contains("grüße"), "{}", shown.out);
    check::audit_verifies(cluster.b());
}

#[test]
fn an_empty_ack_counts_for_such_a_peer_where_it_is_allowed_and_is_audited_as_such() {
    let cluster = cluster();
    let kit = Kit::beside(&cluster, cluster.b(), "old", "legacy_unsigned_acks = true\n");
    let _b = cluster.b().watch();
    // It counts for that peer only, and only for what waits.
    let of_a = cluster.a().send("b", &note(&cluster, "of a"), &["--require-ack"]);
    let id = kit.send(&kit.task(&note(&cluster, "acked")));
    let stranger = kit.sends("pending-ack/00000000-0000-4000-8000-000000000001.ack");
    File::create(&stranger).unwrap();
    eventually("an ack of nothing is set aside", || !stranger.exists());
    let pending = cluster.lane("a", "b").join("pending-ack");
    eventually("it waits", || pending.join(format!("{of_a}.json")).exists());
    let wrong = pending.join(format!("{of_a}.ack"));
    File::create(&wrong).unwrap();
    eventually("it is set aside", || !wrong.exists());
    eventually("it waits", || kit.sends(&format!("pending-ack/{id}.json")).exists());
    let full = kit.sends(&format!("pending-ack/{id}.ack"));
    kit.place(&full, b"yes");
    eventually("an ack with words in it is set aside", || !full.exists());
    assert_eq!(cluster.runs.all().len(), 0);
    File::create(&full).unwrap();
    kit.answered(&id, "ok");
    eventually("the audit says what it was", || cluster.audited("b", "legacy_unsigned_ack"));
    let own = json_of(&cluster.b().ctl(["result", &id, "--json"]).ok());
    assert_eq!(own["result"]["decided_by"], json!(["unsigned ack"]));
    assert_eq!((cluster.runs.of("acked"), cluster.runs.of("of a")), (1, 0));
}

#[test]
fn neither_protocol_is_spoken_to_the_peer_of_the_other() {
    let cluster = cluster();
    let kit = Kit::beside(&cluster, cluster.b(), "old", "gate = \"policy\"\n");
    let _b = cluster.b().watch();
    // Flat JSON of a version-3 peer, signed with its pair key: no downgrade.
    let pair = cluster.pair("a", "b").0;
    let mut flat = kit.task(&note(&cluster, "never"));
    flat["from"] = json!("a");
    let text = |member: &str| flat[member].as_str().unwrap().to_owned();
    let signed = ["id", "from", "to", "created", "priority", "request"].map(text).join("|");
    flat["hmac"] = json!(mail::hmac_hex(pair.trim().as_bytes(), signed.as_bytes()));
    let name = format!("{}.json", flat["id"].as_str().unwrap());
    kit.place(&cluster.lane("a", "b").join("inbox").join(name), flat.to_string().as_bytes());
    eventually("it is refused", || cluster.audited("b", "unsupported_schema"));
    // A sealed message under the version-2 key, on its own lane: its key opens nothing.
    let key = fs::read_to_string(cluster.b().config_dir().join("keys/old.key")).unwrap();
    let id = "01a1f89c-fb83-734b-96bb-78a1dacaf1ff";
    let task = json!({
        "schema": 3, "cluster": fs::read_to_string(cluster.share().join("CLUSTER")).unwrap().trim(),
        "id": id, "from": "old", "to": "b", "created": "2026-11-20T12:00:00.000Z",
        "stream": "6f0c1d2e-3a4b-4c5d-8e6f-708192a3b4c5", "seq": 1, "request": note(&cluster, "never"),
    });
    let sealed = mail::seal("task.v3", task.to_string().as_bytes(), &mail::Pair(key).lane("old", "b"));
    kit.place(&kit.sends(&format!("inbox/{id}.json")), &sealed);
    assert_eq!(eventually("it is set aside", || kit.refused(id)), "bad_signature");
    assert_eq!(cluster.runs.all().len(), 0);
}

#[test]
fn what_is_paid_by_use_is_refused_unless_the_peer_may_cost_something() {
    let cluster = cluster();
    let kit = Kit::beside(&cluster, cluster.b(), "old", "gate = \"policy\"\n");
    cluster.b().configure(
        "[budget]\nrun_usd = \"5\"\nmonth_usd = \"50\"\n[profile.default]\nagent = \"claude\"\nargv = [\"/bin/sh\"]\n\
         billing = \"metered\"\nmax_cost_usd = \"1\"\novershoot_usd = \"20\"",
    );
    let _b = cluster.b().watch();
    let id = kit.send(&kit.task("anything"));
    let result = kit.answered(&id, "rejected");
    assert!(result["error"].as_str().unwrap().starts_with("metered_not_allowed"), "{result:#}");
    assert!(result["help"].as_str().unwrap().contains("allow_metered"), "{result:#}");
}

#[test]
fn a_task_sent_to_it_is_one_its_kit_runs_and_its_answer_settles_nothing() {
    let cluster = cluster();
    let kit = Kit::beside(&cluster, cluster.b(), "old", "");
    let _b = cluster.b().watch();
    let id = cluster.b().send("old", "make: grüße | 世界\n", &["--priority", "high", "--timeout", "90s"]);
    let file = kit.receives(&format!("inbox/{id}.json"));
    let task: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    assert_eq!((task["schema"].as_i64(), task["timeout_s"].as_i64()), (Some(2), Some(90)));
    assert_eq!(kit.run_inbox(), ["make: grüße | 世界\n"]);
    let waited = cluster.b().ctl(["wait", &id]);
    assert_eq!(waited.code, 1, "{waited:?}");
    assert!(waited.err.contains("unverified") && waited.out.contains("it ran"), "{waited:?}");
    let taken = cluster.b().ctl(["wait", &id, "--accept-unverified"]).ok();
    assert!(taken.err.contains("nobody signed it"), "{taken:?}");
    let result = cluster.b().ctl(["result", &id, "--json"]);
    let document = json_of(&result);
    assert_eq!((result.code, &document["verified"]), (65, &json!(false)));
    assert_eq!(document["result"]["status"], "ok", "{document:#}");
    let shown = json_of(&cluster.b().ctl(["show", &id, "--json"]).ok());
    assert_eq!((shown["version"].as_i64(), shown["standing"].as_str()), (Some(2), Some("sent")));
    assert_eq!((&shown["result"], &shown["unverified_result"]["status"]), (&json!(null), &json!("ok")));
    let listed = cluster.b().ctl(["list", "--json"]).ok();
    assert!(
        listed.out.lines().any(|line| line.contains(&id) && line.contains("\"version\":2")),
        "{}",
        listed.out
    );
    // Nothing is ever put back, and nothing can be taken back.
    assert_eq!(cluster.b().ctl(["resend", &id]).code, 77);
    let cancelled = cluster.b().ctl(["cancel", &id]);
    assert!(cancelled.code == 77 && cancelled.err.contains("version 2"), "{cancelled:?}");
    assert!(names(&kit.receives("inbox")).is_empty() && names(&kit.receives("control")).is_empty());
}

#[test]
fn waiting_for_it_ends_with_1_unless_its_word_is_asked_for() {
    let cluster = cluster();
    let kit = Kit::beside(&cluster, cluster.b(), "old", "");
    for (words, code, status) in [
        (&["--wait", "--json"][..], 1, "unverified"),
        (&["--wait", "--json", "--accept-unverified"], 0, "ok"),
    ] {
        let answering = std::thread::scope(|scope| {
            let sending = scope.spawn(|| cluster.b().try_send("old", "do it", words));
            eventually("its kit runs it", || !kit.run_inbox().is_empty());
            sending.join().unwrap()
        });
        assert_eq!(answering.code, code, "{answering:?}");
        let document = json_of(&answering);
        assert_eq!(
            (document["status"].as_str(), document["verified"].as_bool()),
            (Some(status), Some(false))
        );
        assert_eq!(document["result"]["output"], json!("it ran\n"));
    }
}

#[test]
fn what_a_flat_task_cannot_carry_is_refused_by_name() {
    let cluster = cluster();
    let kit = Kit::beside(&cluster, cluster.b(), "old", "");
    for (words, member) in [
        (&["--profile", "other"][..], "profile"),
        (&["--workspace", "webapp"], "workspace"),
        (&["--silence", "5s"], "silence_timeout_s"),
        (&["--max-cost", "1"], "max_cost_usd"),
        (&["--run", "batch"], "run"),
        (&["--allow-sdk"], "allow_sdk"),
        (&["--max-attempts", "2"], "max_attempts"),
        (&["--label", "a=b"], "labels"),
        (&["--callback", "none"], "callback"),
        (&["--needs-tool", "x"], "requires"),
        (&["--expires", "2h"], "expires"),
    ] {
        let refused = cluster.b().try_send("old", "x", words);
        assert_eq!(refused.code, 2, "{words:?}: {refused:?}");
        assert!(refused.err.contains(&format!("cannot carry `{member}`")), "{}", refused.err);
    }
    assert!(names(&kit.receives("inbox")).is_empty());
}

/// Sends a task while the share is away, so that it stays in the outbox; yields its id.
fn kept(cluster: &Cluster) -> String {
    let away = cluster.share().with_extension("away");
    fs::rename(cluster.share(), &away).unwrap();
    let sent = cluster.b().try_send("old", "do it", &[]);
    fs::rename(&away, cluster.share()).unwrap();
    assert_eq!(sent.code, 69, "{sent:?}");
    let outbox = cluster.b().state_dir().join("send/b-to-old/outbox");
    let name = list(&outbox).first().map(|path| name_of(path)).expect("an outbox entry");
    name.split('.').nth(1).unwrap().to_owned()
}

#[test]
fn a_kept_task_goes_out_only_if_its_id_stands_nowhere_on_the_lane() {
    let cluster = cluster();
    let kit = Kit::beside(&cluster, cluster.b(), "old", "");
    let first = kept(&cluster);
    drop(cluster.b().send("old", "another", &[]));
    assert!(kit.receives(&format!("inbox/{first}.json")).exists(), "it was nowhere, so it went out");
    drop(kit.run_inbox());
    for place in [
        "done/ID.result.json",
        "done/ID.log",
        "processing/ID.json",
        "pending-ack/ID.json",
        "pending-ack/ID.ack",
        "rejected/ID.json",
        "inbox/ID.json",
    ] {
        let id = kept(&cluster);
        let trace = kit.receives(&place.replace("ID", &id));
        fs::write(&trace, "{}").unwrap();
        let sent = cluster.b().try_send("old", "another", &[]);
        assert_eq!(sent.code, 0, "{place}: {sent:?}");
        assert!(sent.err.contains("unknown"), "{place}: {}", sent.err);
        let shown = json_of(&cluster.b().ctl(["show", &id, "--json"]).ok());
        assert_eq!(
            (shown["standing"].as_str(), shown["unknown"].as_bool()),
            (Some("unknown"), Some(true)),
            "{place}"
        );
        if !place.starts_with("inbox") {
            assert!(!kit.receives(&format!("inbox/{id}.json")).exists(), "{place}");
        }
        fs::remove_file(&trace).unwrap();
        drop(cluster.b().send("old", "another", &[]));
        assert!(!kit.receives(&format!("inbox/{id}.json")).exists(), "{place}: never again");
        drop(kit.run_inbox());
    }
}

#[test]
fn a_node_whose_only_peer_speaks_version_2_serves_it_with_the_key_on_the_share() {
    let bins = bins!();
    let cluster = Cluster::bare(&bins, &["a", "b"]);
    let b = cluster.b();
    let share = cluster.share().display().to_string();
    b.ctl(["init", "--root", &share, "--node", "b", "--peer", "gone"]).ok();
    let kit = Kit::beside(&cluster, b, "old", "gate = \"policy\"\n");
    // As if it had been set up by hand with that one peer, its key where the kit keeps it.
    b.forget_peer("gone");
    fs::create_dir(cluster.share().join("keys")).unwrap();
    let key = cluster.share().join("keys/hmac.key");
    kit.write_key(&key);
    b.configure(&format!("[peer.old]\nkeys = [\"{}\"]", key.display()));
    let first = b.watch();
    let id = kit.send(&kit.task(&note(&cluster, "served")));
    kit.answered(&id, "ok");
    // It owns its node like any other: a second watcher beside it ends.
    let copy = cluster.outside().join("copy");
    dispatch_testkit::cluster::copy_tree(&b.home, &copy);
    let mut second = b.at_home(&copy).start_watch(&[], &[]);
    assert_eq!(second.wait(), 73);
    assert!(cluster.b().ctl(["status"]).ok().out.contains("version 2"));
    assert_eq!(first.stop(), 0);
    check::each_ran_once(&cluster, &["served".to_owned()]);
}

#[test]
fn a_result_of_ours_that_was_swapped_is_set_right() {
    let cluster = cluster();
    let kit = Kit::beside(&cluster, cluster.b(), "old", "gate = \"policy\"\n");
    let _b = cluster.b().watch();
    let task = kit.task(&note(&cluster, "swapped"));
    let squatted = kit.sends(&format!("done/{}.result.json", task["id"].as_str().unwrap()));
    kit.place(&squatted, b"{\"status\": \"ok\", \"output\": \"forged\"}");
    let id = kit.send(&task);
    eventually("the true one stands there", || {
        kit.result(&id).filter(|result| result["output"] == json!("did swapped\n"))
    });
    eventually("the squatting is in the audit", || cluster.audited("b", "squatted"));
}
