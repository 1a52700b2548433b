//! The weaknesses of what is signed, with a version-2 peer on the share that sends exactly the files they were shown with.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;

use dispatch_testkit::cluster::{name_of, names, sparse};
use dispatch_testkit::plant::Junk;
use dispatch_testkit::{Cluster, Ended, Kit, check, eventually};
use serde_json::{Value, json};

use crate::{cluster, note};

/// A version-2 peer of `b` that is trusted as far as one can be: what it sends runs unasked unless the file asks.
fn trusted(cluster: &Cluster) -> Kit {
    Kit::beside(cluster, cluster.b(), "old", "gate = \"policy\"\n")
}

/// `task` with members changed and its signature left alone.
fn changed(task: &Value, change: &Value) -> Value {
    let mut task = task.clone();
    for (member, value) in change.as_object().unwrap() {
        task[member] = value.clone();
    }
    task
}

fn id_of(task: &Value) -> &str {
    task["id"].as_str().unwrap()
}

#[track_caller]
fn refused(kit: &Kit, id: &str, code: &str) {
    let found = eventually(&format!("{id} is set aside"), || kit.refused(id));
    assert_eq!(found, code, "{id}");
    let inbox = kit.sends(&format!("inbox/{id}.json"));
    eventually("the inbox is clear of it", || fs::symlink_metadata(&inbox).is_err());
}

/// A good task still gets through.
#[track_caller]
fn still_serves(cluster: &Cluster, kit: &Kit, label: &str) {
    let id = kit.send(&kit.task(&note(cluster, label)));
    kit.answered(&id, "ok");
    assert_eq!(cluster.runs.of(label), 1);
}

fn approve(cluster: &Cluster, key: &Path, id: &str) -> Ended {
    let key = key.display().to_string();
    eventually("it waits", || cluster.lane("old", "b").join(format!("pending-ack/{id}.json")).exists());
    cluster.b().run("dispatch-ack", ["--yes", "--key", &key, id, "--reason", "as shown"]).ok()
}

#[test]
fn weakness_a_flipping_what_is_not_signed_makes_nothing_looser() {
    let cluster = cluster();
    let kit = Kit::beside(&cluster, cluster.b(), "old", "");
    let key = cluster.b().approver("ann");
    let _b = cluster.b().watch();
    let ask = |label: &str| {
        let mut task = kit.task(&note(&cluster, label));
        task["require_ack"] = json!(true);
        task
    };
    // All four flipped, as it was shown: the unrestricted mode is no more to be had than before.
    let all = json!({"require_ack": false, "require_dangerous": true, "timeout_s": 1_000_000_000_i64,
        "max_output_bytes": 1_000_000_000_000_i64});
    let id = kit.send(&changed(&ask("bypass"), &all));
    let result = kit.answered(&id, "rejected");
    assert!(result["error"].as_str().unwrap().starts_with("dangerous_not_allowed"), "{result:#}");
    // Without it: a person is asked all the same, and what runs is bounded by this node.
    let three = json!({"require_ack": false, "timeout_s": 1_000_000_000_i64,
        "max_output_bytes": 1_000_000_000_000_i64});
    let id = kit.send(&changed(&ask("unasked"), &three));
    eventually("it waits", || kit.sends(&format!("pending-ack/{id}.json")).exists());
    assert_eq!(cluster.runs.all().len(), 0);
    drop(approve(&cluster, &key, &id));
    kit.answered(&id, "ok");
    let order = eventually("its order is there", || cluster.b().jobs("old", &id).pop());
    let order: Value = serde_json::from_slice(&fs::read(order.join("order.json")).unwrap()).unwrap();
    assert_eq!(
        (order["timeout_s"].as_u64(), order["max_output_bytes"].as_u64()),
        (Some(3_600), Some(2_000_000))
    );
    assert_eq!((cluster.runs.of("bypass"), cluster.runs.of("unasked")), (0, 1));
}

#[test]
fn weakness_b_a_moved_field_boundary_is_refused_although_the_signature_holds() {
    let cluster = cluster();
    let kit = trusted(&cluster);
    let _b = cluster.b().watch();
    // A sentence about a command: read from its second half on, it is the command.
    let command = note(&cluster, "the command");
    let task = kit.task(&format!("never run this: |{command}"));
    let created = format!("{}|{}", task["created"].as_str().unwrap(), task["priority"].as_str().unwrap());
    let moved =
        changed(&task, &json!({"created": created, "priority": "never run this: ", "request": command}));
    let mut signed_anew = moved.clone();
    kit.sign(&mut signed_anew);
    assert_eq!(signed_anew, moved, "the signature covers both readings");
    let id = kit.send(&moved);
    refused(&kit, &id, "malformed");
    assert_eq!(cluster.runs.all().len(), 0);
    still_serves(&cluster, &kit, "good");
}

#[test]
fn weakness_c_a_finished_task_put_back_or_reflected_runs_nowhere_again() {
    let cluster = cluster();
    let kit = trusted(&cluster);
    let b = cluster.b().watch();
    let id = kit.send(&kit.task(&note(&cluster, "once")));
    kit.answered(&id, "ok");
    let done = eventually("its file is kept", || fs::read(kit.sends(&format!("done/{id}.json"))).ok());
    let inbox = kit.sends(&format!("inbox/{id}.json"));
    let again = |bytes: &[u8]| {
        kit.place(&inbox, bytes);
        eventually("the copy is taken away", || !inbox.exists());
    };
    again(&done);
    let other =
        changed(&serde_json::from_slice(&done).unwrap(), &json!({"timeout_s": 5, "callback": "none"}));
    again(other.to_string().as_bytes());
    assert_eq!(b.stop(), 0);
    let _b = cluster.b().watch();
    again(&done);
    // What this node sent comes back to it under its own signature, which is the same in both directions.
    let sent = cluster.b().send("old", &note(&cluster, "reflected"), &[]);
    let bytes = fs::read(kit.receives(&format!("inbox/{sent}.json"))).unwrap();
    kit.place(&kit.sends(&format!("inbox/{sent}.json")), &bytes);
    refused(&kit, &sent, "wrong_recipient");
    still_serves(&cluster, &kit, "good");
    assert_eq!((cluster.runs.of("once"), cluster.runs.of("reflected")), (1, 0));
    check::audit_verifies(cluster.b());
}

#[test]
fn weakness_d_nothing_runs_that_was_acked_empty_swapped_or_slipped_in() {
    let cluster = cluster();
    let kit = Kit::beside(&cluster, cluster.b(), "old", "");
    let key = cluster.b().approver("ann");
    let _b = cluster.b().watch();
    let id = kit.send(&kit.task(&note(&cluster, "shown")));
    let pending = kit.sends(&format!("pending-ack/{id}.json"));
    eventually("it waits", || pending.exists());
    // An empty approval.
    let ack = kit.sends(&format!("pending-ack/{id}.ack"));
    File::create(&ack).unwrap();
    eventually("the empty ack is set aside", || !ack.exists());
    eventually("it is in the audit", || cluster.audited("b", "bad_signature"));
    // Another request under the waiting task's name, unsigned, signed for another task, and in the unsigned members only.
    let shown: Value = serde_json::from_slice(&fs::read(&pending).unwrap()).unwrap();
    let swapped = note(&cluster, "swapped");
    let mut signed = changed(&shown, &json!({"request": swapped}));
    kit.sign(&mut signed);
    for bytes in
        [changed(&shown, &json!({"request": swapped})), signed, changed(&shown, &json!({"timeout_s": 7}))]
    {
        kit.place(&pending, bytes.to_string().as_bytes());
        eventually("it is set right", || {
            fs::read(&pending)
                .is_ok_and(|now| serde_json::from_slice::<Value>(&now).is_ok_and(|now| now == shown))
        });
    }
    // An unsigned file where accepted tasks lie.
    let mut slipped = kit.task(&note(&cluster, "slipped"));
    slipped["hmac"] = json!("0".repeat(64));
    kit.place(&kit.sends(&format!("processing/{}.json", id_of(&slipped))), slipped.to_string().as_bytes());
    assert_eq!(cluster.runs.all().len(), 0);
    drop(approve(&cluster, &key, &id));
    kit.answered(&id, "ok");
    assert_eq!(cluster.runs.all().into_iter().collect::<Vec<_>>(), [("shown".to_owned(), 1)]);
}

#[test]
fn weakness_h_an_id_that_is_a_path_reads_and_writes_nothing_anywhere() {
    let cluster = cluster();
    let kit = trusted(&cluster);
    let _b = cluster.b().watch();
    let before = (names(&cluster.share()), names(&cluster.outside()));
    let target = cluster.outside().join("victim.result.json");
    for (name, id) in [
        ("00000000-0000-4000-8000-000000000001", "../../../outside/victim".to_owned()),
        ("00000000-0000-4000-8000-000000000002", cluster.outside().join("victim").display().to_string()),
        ("00000000-0000-4000-8000-000000000003", "../done/00000000-0000-4000-8000-000000000003".to_owned()),
        ("00000000-0000-4000-8000-000000000004", String::new()),
    ] {
        let mut task = changed(&kit.task(&note(&cluster, "never")), &json!({"id": id}));
        kit.sign(&mut task);
        for (suffix, bytes) in
            [("", task.to_string()), ("9", changed(&task, &json!({"hmac": "00"})).to_string())]
        {
            let name = if suffix.is_empty() { name.to_owned() } else { name.replacen('0', suffix, 1) };
            kit.place(&kit.sends(&format!("inbox/{name}.json")), bytes.as_bytes());
            refused(&kit, &name, if suffix.is_empty() { "malformed" } else { "bad_signature" });
        }
    }
    still_serves(&cluster, &kit, "good");
    assert_eq!(cluster.runs.of("never"), 0);
    assert!(!target.exists());
    let after = (names(&cluster.share()), names(&cluster.outside()));
    assert_eq!(before, after);
}

#[test]
fn weakness_n_no_unsigned_file_of_any_kind_stops_the_loop() {
    let cluster = cluster();
    let kit = trusted(&cluster);
    let good = kit.task(&note(&cluster, "never"));
    let text = good.to_string();
    let _b = cluster.b().watch();
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("a list", b"[1, 2, 3]".to_vec(), "malformed"),
        ("a string", b"\"hello\"".to_vec(), "malformed"),
        ("null", b"null".to_vec(), "malformed"),
        ("a number as hmac", changed(&good, &json!({"hmac": 7})).to_string().into_bytes(), "malformed"),
        (
            "an hmac that is not ASCII",
            changed(&good, &json!({"hmac": "é"})).to_string().into_bytes(),
            "bad_signature",
        ),
        ("a lone surrogate", text.replacen("printf", "\\ud800", 1).into_bytes(), "malformed"),
        ("no UTF-8", vec![0xff, 0xfe, b'{'], "malformed"),
        ("nothing", Vec::new(), "malformed"),
        ("half a task", text.as_bytes()[..text.len() / 2].to_vec(), "malformed"),
        (
            "an hmac of nobody",
            changed(&good, &json!({"hmac": "0".repeat(64)})).to_string().into_bytes(),
            "bad_signature",
        ),
    ];
    for (number, (what, bytes, code)) in cases.iter().enumerate() {
        eprintln!("{what}");
        let id = format!("00000000-0000-4000-8000-0000000000{number:02}");
        kit.place(&kit.sends(&format!("inbox/{id}.json")), bytes);
        refused(&kit, &id, code);
    }
    let outside = cluster.outside();
    for (number, junk) in Junk::ALL.into_iter().enumerate() {
        eprintln!("{junk:?}");
        let id = format!("11111111-0000-4000-8000-0000000000{number:02}");
        let file = kit.sends(&format!("inbox/{id}.json"));
        junk.plant(&file, &outside);
        eventually("it is set aside", || fs::symlink_metadata(&file).is_err());
    }
    // The 100 MB list, and a symlink whose target was rewritten.
    let huge = kit.sends("inbox/22222222-0000-4000-8000-000000000000.json");
    let made = outside.join("huge");
    sparse(&made, 100_000_000);
    fs::rename(&made, &huge).unwrap();
    refused(&kit, "22222222-0000-4000-8000-000000000000", "too_large");
    let target = outside.join("a file of somebody");
    fs::write(&target, &text).unwrap();
    let link = kit.sends(&format!("inbox/{}.json", id_of(&good)));
    symlink(&target, &link).unwrap();
    refused(&kit, id_of(&good), "not_a_regular_file");
    assert_eq!(fs::read_to_string(&target).unwrap(), text, "{}", name_of(&target));
    still_serves(&cluster, &kit, "good");
    assert_eq!(cluster.runs.of("never"), 0);
}

#[test]
fn weakness_o_nonsense_and_long_requests_end_with_a_reason_or_run() {
    let cluster = cluster();
    let kit = trusted(&cluster);
    let _b = cluster.b().watch();
    for timeout in [json!(null), json!("soon"), json!(1.5), json!([])] {
        let id = kit.send(&changed(&kit.task(&note(&cluster, "never")), &json!({"timeout_s": timeout})));
        refused(&kit, &id, "malformed");
    }
    for timeout in [0, -1] {
        let id = kit.send(&changed(&kit.task(&note(&cluster, "never")), &json!({"timeout_s": timeout})));
        let result = kit.answered(&id, "rejected");
        assert!(result["error"].as_str().unwrap().starts_with("limit_exceeded"), "{result:#}");
    }
    let nul = kit.send(&kit.task("echo a\0b"));
    refused(&kit, &nul, "malformed");
    // 200 kB never reach a command line here.
    let long = format!("{}: {}\n", note(&cluster, "long"), "x".repeat(200_000));
    let id = kit.send(&kit.task(&long));
    kit.answered(&id, "ok");
    still_serves(&cluster, &kit, "good");
    assert_eq!((cluster.runs.of("long"), cluster.runs.of("never")), (1, 0));
}
