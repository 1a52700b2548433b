//! Every reason code of protocol section 4, through the real commands: each with its code, its evidence kept, and the
//! next good task runs.

use std::fs;

use dispatch_testkit::mail;
use dispatch_testkit::plant::Junk;
use dispatch_testkit::{Cluster, check, eventually};
use serde_json::{Value, json};

use crate::craft::{code_in, deliver, fresh, id_of, place, rejected, sealed, template, time_from_now};
use crate::{cluster, note};

/// Waits until what lay in the inbox as `id` is in `rejected/` with `code`, evidence beside it.
#[track_caller]
fn refused(cluster: &Cluster, id: &str, code: &str) {
    let reasons = eventually(&format!("{id} is refused as {code}"), || {
        let found = rejected(cluster, id);
        (!found.is_empty()).then_some(found)
    });
    let codes: Vec<String> = reasons.iter().map(|(reason, _)| code_in(reason)).collect();
    assert_eq!(codes, [code], "{reasons:?}");
    assert!(reasons.iter().all(|(_, evidence)| *evidence), "no evidence beside {reasons:?}");
    assert!(cluster.result("a", "b", id).is_none(), "a refusal before step 7 is not answered");
    let inbox = cluster.lane("a", "b").join(format!("inbox/{id}.json"));
    eventually("the inbox is clear of it", || fs::symlink_metadata(&inbox).is_err());
}

#[track_caller]
fn good_task_runs(cluster: &Cluster, template: &Value, label: &str) {
    let task = fresh(template, &note(cluster, label));
    deliver(cluster, &id_of(&task), &sealed(cluster, "a", "b", &task));
    cluster.answered(&id_of(&task), "ok");
    check::each_ran_once(cluster, &[label.to_owned()]);
}

#[test]
fn what_is_no_message_is_refused_with_its_code() {
    let cluster = cluster();
    let template = template(&cluster);
    let _b = cluster.b().watch();
    let good = fresh(&template, "echo never > /dev/null");
    let envelope = sealed(&cluster, "a", "b", &good);
    let text = String::from_utf8(envelope.clone()).unwrap();
    let key = cluster.pair("a", "b").lane("a", "b");
    let raw = |payload: &str| mail::seal("task.v3", payload.as_bytes(), &key);
    let payload = good.to_string();
    let twice = payload.replacen('{', "{\"schema\":3,", 1);
    let forged = mail::seal("task.v3", payload.as_bytes(), b"somebody else's key, long enough");
    let reflected = mail::seal("task.v3", payload.as_bytes(), &cluster.pair("a", "b").lane("b", "a"));
    let other_type = mail::seal("control.v1", payload.as_bytes(), &key);
    let mut schema_four = good.clone();
    schema_four["schema"] = json!(4);
    let mut float = good.clone();
    float["timeout_s"] = json!(1.5);
    let mut unknown = good.clone();
    unknown["surprise"] = json!(1);
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("empty", Vec::new(), "malformed"),
        ("no utf-8", vec![0xff, 0xfe, 0x1b, b'['], "malformed"),
        ("half an envelope", envelope[..envelope.len() / 2].to_vec(), "malformed"),
        ("bytes after the end", [envelope.as_slice(), b"x"].concat(), "malformed"),
        ("a fourth member", text.replacen('{', "{\"x\":1,", 1).into_bytes(), "malformed"),
        ("flat JSON of version 2", br#"{"hmac":"00","id":"x"}"#.to_vec(), "unsupported_schema"),
        ("duplicate members", raw(&twice), "malformed"),
        ("hostile bytes", raw("{\"\u{1b}]0;x\u{7}\": \"\u{202e}\"}"), "malformed"),
        ("a float", raw(&float.to_string()), "malformed"),
        ("an unknown member", raw(&unknown.to_string()), "malformed"),
        ("an array for an object", raw(&format!("[{payload}]")), "malformed"),
        ("another key", forged, "bad_signature"),
        ("the other direction", reflected, "bad_signature"),
        ("another payload type", other_type, "malformed"),
        ("another schema", raw(&schema_four.to_string()), "unsupported_schema"),
    ];
    for (what, bytes, code) in cases {
        let id = id_of(&fresh(&template, ""));
        deliver(&cluster, &id, &bytes);
        eprintln!("{what}");
        refused(&cluster, &id, code);
        let evidence = fs::read_dir(cluster.lane("a", "b").join("rejected")).unwrap().filter_map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name.starts_with(&id) && !name.ends_with(".reason.json")).then(|| fs::read(path).unwrap())
        });
        assert_eq!(evidence.collect::<Vec<_>>(), [bytes], "the evidence is the very bytes");
    }
    good_task_runs(&cluster, &template, "after nonsense");
    check::audit_verifies(cluster.b());
}

#[test]
fn what_is_no_regular_file_is_refused_unopened() {
    let cluster = cluster();
    let template = template(&cluster);
    let _b = cluster.b().watch();
    for junk in Junk::ALL {
        let code = match junk {
            Junk::Empty | Junk::Garbage | Junk::FlatJson => continue,
            Junk::Huge => "too_large",
            Junk::Directory
            | Junk::SymlinkToFile
            | Junk::SymlinkToDirectory
            | Junk::SymlinkToNothing
            | Junk::Fifo
            | Junk::Socket => "not_a_regular_file",
        };
        let id = id_of(&fresh(&template, ""));
        junk.plant(&cluster.lane("a", "b").join(format!("inbox/{id}.json")), &cluster.outside());
        eprintln!("{junk:?}");
        refused(&cluster, &id, code);
    }
    assert_eq!(
        fs::read(cluster.outside().join("target")).unwrap(),
        b"outside",
        "a symlink's target is untouched"
    );
    good_task_runs(&cluster, &template, "after junk");
}

#[test]
fn a_task_for_another_is_refused_with_its_code() {
    let cluster = cluster();
    let template = template(&cluster);
    let _b = cluster.b().watch();
    let changed = |member: &str, value: Value| {
        let mut task = fresh(&template, "echo never");
        task[member] = value;
        task
    };
    for (task, code) in [
        (changed("cluster", json!("00000000-0000-4000-8000-000000000000")), "wrong_cluster"),
        (changed("to", json!("c")), "wrong_recipient"),
        (changed("from", json!("c")), "wrong_lane"),
    ] {
        let id = id_of(&task);
        deliver(&cluster, &id, &sealed(&cluster, "a", "b", &task));
        refused(&cluster, &id, code);
    }
    let task = fresh(&template, "echo never");
    let other = id_of(&fresh(&template, ""));
    deliver(&cluster, &other, &sealed(&cluster, "a", "b", &task));
    refused(&cluster, &other, "id_mismatch");
    good_task_runs(&cluster, &template, "after tasks of others");
}

#[test]
fn a_retired_key_is_named() {
    let cluster = cluster();
    let template = template(&cluster);
    let old = cluster.pair("a", "b");
    let keys = cluster.b().config_dir().join("keys");
    let new = "another-pair-key-of-enough-characters-0123456789";
    for (file, text) in [("a.old.key", old.0.as_str()), ("a.key", new)] {
        fs::write(keys.join(file), text).unwrap();
        fs::set_permissions(keys.join(file), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    }
    cluster.b().configure("[peer.a]\nkeys = [\"keys/a.key\"]\nretired = [\"keys/a.old.key\"]");
    let _b = cluster.b().watch();
    let task = fresh(&template, "echo never");
    let bytes = mail::seal("task.v3", task.to_string().as_bytes(), &old.lane("a", "b"));
    deliver(&cluster, &id_of(&task), &bytes);
    refused(&cluster, &id_of(&task), "retired_key");
    let task = fresh(&template, &note(&cluster, "with a key of today"));
    let bytes =
        mail::seal("task.v3", task.to_string().as_bytes(), &mail::Pair(new.to_owned()).lane("a", "b"));
    deliver(&cluster, &id_of(&task), &bytes);
    eventually("it runs", || cluster.runs.of("with a key of today") == 1);
}

#[test]
fn the_same_bytes_again_run_no_second_time() {
    let cluster = cluster();
    let template = template(&cluster);
    let _b = cluster.b().watch();
    let task = fresh(&template, &note(&cluster, "once"));
    let id = id_of(&task);
    let bytes = sealed(&cluster, "a", "b", &task);
    deliver(&cluster, &id, &bytes);
    cluster.answered(&id, "ok");
    let file = deliver(&cluster, &id, &bytes);
    eventually("the copy is taken away", || !file.exists());
    // The same id with another request is an attack or a bug: evidence, alarm, and nothing runs.
    let mut other = task.clone();
    other["request"] = json!(note(&cluster, "never"));
    deliver(&cluster, &id, &sealed(&cluster, "a", "b", &other));
    let reasons = eventually("the reused id is refused", || {
        let found = rejected(&cluster, &id);
        (!found.is_empty()).then_some(found)
    });
    assert!(
        reasons.iter().any(|(reason, evidence)| code_in(reason) == "id_reused" && *evidence),
        "{reasons:?}"
    );
    good_task_runs(&cluster, &template, "after a replay");
    assert_eq!((cluster.runs.of("once"), cluster.runs.of("never")), (1, 0));
    check::audit_verifies(cluster.b());
}

/// Waits for the sealed refusal of `task` and asserts status and code.
#[track_caller]
fn answered_with(cluster: &Cluster, task: &Value, status: &str, code: &str) {
    let id = id_of(task);
    deliver(cluster, &id, &sealed(cluster, "a", "b", task));
    let result = cluster.answered(&id, status);
    assert_eq!(result["reason"]["code"], code, "{result:#}");
    assert_eq!((&result["attempt"], &result["epoch"]), (&json!(0), &json!(0)), "it never ran");
    assert!(
        result["reason"]["help"].as_str().is_some_and(|help| !help.is_empty()),
        "it says what to do: {result:#}"
    );
}

#[test]
fn what_is_honest_but_cannot_be_taken_is_answered_with_its_code() {
    let cluster = cluster();
    let template = template(&cluster);
    let _b = cluster.b().watch();
    let with = |changes: &[(&str, Value)]| {
        let mut task = fresh(&template, &note(&cluster, "never"));
        for (member, value) in changes {
            task[*member] = value.clone();
        }
        task
    };
    let day = 86_400;
    let cases = [
        (
            with(&[("created", json!(time_from_now(-60))), ("expires", json!(time_from_now(-1)))]),
            "expired",
            "expired",
        ),
        (
            with(&[("created", json!(time_from_now(3600))), ("expires", json!(time_from_now(7200)))]),
            "rejected",
            "from_the_future",
        ),
        (with(&[("expires", json!(time_from_now(31 * day)))]), "rejected", "lifetime_too_long"),
        (with(&[("timeout_s", json!(100_000))]), "rejected", "limit_exceeded"),
        (with(&[("max_attempts", json!(11))]), "rejected", "limit_exceeded"),
        (with(&[("profile", json!("nowhere"))]), "rejected", "unknown_profile"),
        (with(&[("workspace", json!("nowhere"))]), "rejected", "unknown_workspace"),
        (
            with(&[("attachments", json!([{"name": "x", "bytes": 1, "sha256": mail::sha256(b"x")}]))]),
            "rejected",
            "unsupported_here",
        ),
        (with(&[("accept", json!(["check"]))]), "rejected", "unsupported_here"),
        (with(&[("require_dangerous", json!(true))]), "rejected", "dangerous_not_allowed"),
    ];
    for (task, status, code) in cases {
        answered_with(&cluster, &task, status, code);
    }
    good_task_runs(&cluster, &template, "after refusals");
    assert_eq!(cluster.runs.of("never"), 0);
    check::audit_verifies(cluster.b());
}

#[test]
fn a_fork_of_a_stream_is_taken_and_reported() {
    let cluster = cluster();
    let template = template(&cluster);
    let _b = cluster.b().watch();
    // Both claim the position of the template in its stream.
    for label in ["one", "two"] {
        good_task_runs(&cluster, &template, label);
    }
    eventually("the fork is in the audit", || cluster.audited("b", "stream_fork"));
}

/// What `dispatch-ack` and others publish beside tasks is judged in the same order with the same codes.
#[test]
fn controls_are_judged_like_tasks() {
    let cluster = cluster();
    let template = template(&cluster);
    let _b = cluster.b().watch();
    let task = fresh(&template, &crate::note_and_stay(&cluster, "target"));
    let id = id_of(&task);
    let bytes = sealed(&cluster, "a", "b", &task);
    deliver(&cluster, &id, &bytes);
    eventually("it runs", || cluster.runs.of("target") == 1);
    let cancel = |changes: &[(&str, Value)]| {
        let mut control = json!({
            "schema": 1, "cluster": task["cluster"], "from": "a", "to": "b", "task": id,
            "task_sha256": mail::sha256(task.to_string().as_bytes()), "verb": "cancel", "reason": "test",
            "created": time_from_now(0), "expires": time_from_now(600),
        });
        for (member, value) in changes {
            control[*member] = value.clone();
        }
        control
    };
    let lane = cluster.lane("a", "b");
    let key = cluster.pair("a", "b").lane("a", "b");
    let file = lane.join(format!("control/{id}.cancel.json"));
    let wrong = mail::sha256(b"another task");
    for (control, key, code) in [
        (cancel(&[]), b"not the lane's key, but long enough".to_vec(), "bad_signature"),
        (cancel(&[("to", json!("c"))]), key.clone(), "wrong_recipient"),
        (cancel(&[("task_sha256", json!(wrong))]), key.clone(), "digest_mismatch"),
        (cancel(&[("expires", json!(time_from_now(-5)))]), key.clone(), "expired"),
    ] {
        place(&cluster, &file, &mail::seal("control.v1", control.to_string().as_bytes(), &key));
        eventually(&format!("the cancel is refused as {code}"), || cluster.audited("b", code));
        eventually("it is set aside", || !file.exists());
        assert!(cluster.result("a", "b", &id).is_none(), "{code} must not cancel");
    }
    place(&cluster, &file, &mail::seal("control.v1", cancel(&[]).to_string().as_bytes(), &key));
    cluster.answered(&id, "cancelled");
    check::no_process_with_mark_left(cluster.b());
}

#[test]
fn a_cancel_that_comes_first_is_kept_for_its_task() {
    let cluster = cluster();
    let template = template(&cluster);
    let _b = cluster.b().watch();
    let task = fresh(&template, &note(&cluster, "never"));
    let id = id_of(&task);
    let control = json!({
        "schema": 1, "cluster": task["cluster"], "from": "a", "to": "b", "task": id,
        "task_sha256": mail::sha256(task.to_string().as_bytes()), "verb": "cancel", "reason": "test",
        "created": time_from_now(0), "expires": time_from_now(600),
    });
    let key = cluster.pair("a", "b").lane("a", "b");
    let file = cluster.lane("a", "b").join(format!("control/{id}.cancel.json"));
    place(&cluster, &file, &mail::seal("control.v1", control.to_string().as_bytes(), &key));
    good_task_runs(&cluster, &template, "meanwhile");
    deliver(&cluster, &id, &sealed(&cluster, "a", "b", &task));
    cluster.answered(&id, "cancelled");
    assert_eq!(cluster.runs.of("never"), 0);
}

#[test]
fn a_replayed_heartbeat_revives_nobody() {
    let cluster = cluster();
    for node in &cluster.nodes {
        node.configure("[watch]\nheartbeat_s = 1");
    }
    let a = cluster.a().watch();
    let beat = cluster.share().join("heartbeats/a.json");
    let old = eventually("a beats", || fs::read(&beat).ok());
    let newer = |bytes: &Vec<u8>| *bytes != old;
    eventually("a beats again", || fs::read(&beat).ok().filter(newer));
    // Only now: what b has seen of a is newer than what comes back.
    let _b = cluster.b().watch();
    eventually("b has seen a", || {
        let status = cluster.b().ctl(["status", "--json"]);
        status.out.contains("healthy").then_some(())
    });
    assert_eq!(a.stop(), 0);
    place(&cluster, &beat, &old);
    eventually("the replay is in the audit", || cluster.audited("b", "heartbeat_replayed"));
}

/// A gap is a gap once it has stayed unfilled for 120 seconds: the one test here that has to last that long.
#[test]
fn a_gap_in_a_stream_is_reported_when_nothing_fills_it() {
    let cluster = cluster();
    let template = template(&cluster);
    let _b = cluster.b().watch();
    let mut later = fresh(&template, &note(&cluster, "later"));
    later["seq"] = json!(template["seq"].as_u64().unwrap() + 5);
    deliver(&cluster, &id_of(&later), &sealed(&cluster, "a", "b", &later));
    cluster.answered(&id_of(&later), "ok");
    let begun = std::time::Instant::now();
    let deadline = std::time::Duration::from_secs(200);
    dispatch_testkit::wait::within(deadline, "the gap is in the audit", || {
        cluster.audited("b", "stream_gap")
    });
    assert!(begun.elapsed().as_secs() > 60, "a task that is still on its way is no gap");
}
