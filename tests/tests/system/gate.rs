//! A person decides: what waits, what a decision is bound to, who may make it.

use std::fs;
use std::path::Path;

use dispatch_testkit::cluster::{names, ssh_key};
use dispatch_testkit::{Cluster, check, eventually};

use crate::{cluster, note};

/// Sends a task that asks for a person and waits until its terms are there.
fn waiting(cluster: &Cluster, label: &str) -> String {
    let id = cluster.a().send("b", &note(cluster, label), &["--require-ack"]);
    parked(cluster, &id);
    id
}

/// Waits until all that an approver needs is there: the task, and its terms.
fn parked(cluster: &Cluster, id: &str) {
    eventually("the task is shown", || cluster.opened("a", "b", &format!("pending-ack/{id}.json")));
    let terms = format!("{id}.terms.json");
    eventually("its terms are shown", || {
        cluster.opened("a", "b", &format!("pending-ack/{terms}")).filter(|opened| opened.verified)
    });
}

fn ack(cluster: &Cluster, key: &Path, words: &[&str]) -> dispatch_testkit::Ended {
    let key = key.display().to_string();
    let mut all = vec!["--yes", "--key", &key];
    all.extend(words);
    cluster.b().run("dispatch-ack", all)
}

#[test]
fn a_gated_task_waits_until_a_person_approves_it() {
    let cluster = cluster();
    let key = cluster.b().approver("ann");
    let _b = cluster.b().watch();
    let id = waiting(&cluster, "gated");
    let listed = cluster.b().run("dispatch-ack", [""; 0]).ok();
    assert!(listed.out.contains(&id[id.len() - 8..]), "{}", listed.out);
    assert_eq!(cluster.runs.of("gated"), 0);
    drop(ack(&cluster, &key, &[&id, "--reason", "looks right"]).ok());
    let result = cluster.answered(&id, "ok");
    assert_eq!(result["decided_by"], serde_json::json!(["ann"]));
    check::each_ran_once(&cluster, &["gated".to_owned()]);
    check::one_result_each(&cluster, "a", "b", &[id]);
    check::audit_verifies(cluster.b());
}

#[test]
fn a_rejected_task_never_runs() {
    let cluster = cluster();
    let key = cluster.b().approver("ann");
    let _b = cluster.b().watch();
    let id = waiting(&cluster, "rejected");
    drop(ack(&cluster, &key, &[&id, "--reject", "--reason", "no"]).ok());
    cluster.answered(&id, "denied");
    assert_eq!(cluster.runs.of("rejected"), 0);
}

#[test]
fn a_stranger_cannot_approve() {
    let cluster = cluster();
    drop(cluster.b().approver("ann"));
    let stranger = ssh_key(&cluster.outside(), "stranger");
    let _b = cluster.b().watch();
    let id = waiting(&cluster, "never");
    let tried = ack(&cluster, &stranger, &[&id, "--reason", "let me"]);
    if tried.code == 0 {
        eventually("it is refused", || cluster.audited("b", "bad_signature"));
    }
    assert!(cluster.result("a", "b", &id).is_none());
    assert_eq!(cluster.runs.of("never"), 0);
    drop(cluster.a().ctl(["cancel", &id]).ok());
    cluster.answered(&id, "cancelled");
}

#[test]
fn a_decision_about_one_task_does_not_fit_another() {
    let cluster = cluster();
    let key = cluster.b().approver("ann");
    let b = cluster.b().watch();
    let first = waiting(&cluster, "first");
    let second = waiting(&cluster, "second");
    // Nobody consumes the decision while the watcher is away, so that it can be copied.
    assert_eq!(b.stop(), 0);
    drop(ack(&cluster, &key, &[&first, "--reason", "the first only"]).ok());
    let pending = cluster.lane("a", "b").join("pending-ack");
    let ack_name = names(&pending).into_iter().find(|name| name.ends_with(".ack")).expect("a decision");
    let copied = ack_name.replace(&first, &second);
    fs::copy(pending.join(&ack_name), pending.join(copied)).unwrap();
    let _b = cluster.b().watch();
    cluster.answered(&first, "ok");
    eventually("the copy is set aside", || !names(&pending).iter().any(|name| name.ends_with(".ack")));
    assert!(cluster.result("a", "b", &second).is_none());
    assert_eq!((cluster.runs.of("first"), cluster.runs.of("second")), (1, 0));
}

#[test]
fn what_is_swapped_under_a_parked_task_is_refused_and_set_right() {
    let cluster = cluster();
    let key = cluster.b().approver("ann");
    let mut b = cluster.b().watch();
    let id = waiting(&cluster, "shown");
    let other = cluster.a().send("b", &note(&cluster, "never"), &["--require-ack"]);
    parked(&cluster, &other);
    let pending = cluster.lane("a", "b").join("pending-ack");
    let (task, terms) = (format!("{id}.json"), format!("{id}.terms.json"));
    for name in [task.clone(), terms.clone(), format!("{other}.json"), format!("{other}.terms.json")] {
        eventually(&format!("{name} is there"), || pending.join(&name).exists());
    }
    for (name, bytes) in [
        (&task, b"{}".to_vec()),
        (&task, fs::read(pending.join(format!("{other}.json"))).unwrap()),
        (&terms, fs::read(pending.join(format!("{other}.terms.json"))).unwrap()),
    ] {
        // Nobody sets it right while the watcher is away.
        assert_eq!(b.stop(), 0);
        crate::craft::place(&cluster, &pending.join(name), &bytes);
        let said = ack(&cluster, &key, &[&id, "--reason", "as shown", "--no-wait"]);
        assert_eq!(said.code, 65, "{name} was swapped");
        b = cluster.b().watch();
        eventually(&format!("{name} is set right"), || {
            fs::read(pending.join(name)).is_ok_and(|now| now != bytes)
        });
    }
    drop(ack(&cluster, &key, &[&id, "--reason", "as shown"]).ok());
    cluster.answered(&id, "ok");
    assert_eq!((cluster.runs.of("shown"), cluster.runs.of("never")), (1, 0));
}

#[test]
fn a_peer_with_gate_always_waits_for_a_person() {
    let cluster = cluster();
    let key = cluster.b().approver("ann");
    cluster.b().configure("[peer.a]\ngate = \"always\"");
    let _b = cluster.b().watch();
    let id = cluster.a().send("b", &note(&cluster, "always"), &[]);
    parked(&cluster, &id);
    assert_eq!(cluster.runs.of("always"), 0);
    drop(ack(&cluster, &key, &[&id, "--reason", "fine"]).ok());
    cluster.answered(&id, "ok");
}

#[test]
fn a_dangerous_task_is_gated_even_where_it_is_allowed() {
    let cluster = cluster();
    let key = cluster.b().approver("ann");
    cluster.b().configure("[peer.a]\nallow_dangerous = true");
    let _b = cluster.b().watch();
    let id = cluster.a().send("b", &note(&cluster, "dangerous"), &["--dangerous"]);
    parked(&cluster, &id);
    drop(ack(&cluster, &key, &[&id, "--reject", "--reason", "no"]).ok());
    cluster.answered(&id, "denied");
    assert_eq!(cluster.runs.of("dangerous"), 0);
}

#[test]
fn two_people_are_needed_where_two_are_required() {
    let cluster = cluster();
    let ann = cluster.b().approver("ann");
    let ben = cluster.b().approver("ben");
    cluster.b().configure("[approve]\nrequired = 2");
    let _b = cluster.b().watch();
    let id = waiting(&cluster, "both");
    drop(ack(&cluster, &ann, &[&id, "--reason", "one"]).ok());
    let pending = cluster.lane("a", "b").join("pending-ack");
    eventually("the first is recorded", || !names(&pending).iter().any(|name| name.ends_with(".ack")));
    assert_eq!(cluster.runs.of("both"), 0);
    drop(ack(&cluster, &ben, &[&id, "--reason", "two"]).ok());
    let result = cluster.answered(&id, "ok");
    let mut by: Vec<&str> =
        result["decided_by"].as_array().unwrap().iter().filter_map(|one| one.as_str()).collect();
    by.sort_unstable();
    assert_eq!(by, ["ann", "ben"]);
}

#[test]
fn a_terminal_is_never_handed_a_strangers_control_characters() {
    let cluster = cluster();
    let key = cluster.b().approver("ann");
    let _b = cluster.b().watch();
    let hostile = "echo \u{1b}[2J\u{1b}]0;owned\u{7} \u{202e}txt.exe";
    let id = cluster.a().send("b", hostile, &["--require-ack"]);
    parked(&cluster, &id);
    for shown in [
        cluster.b().run("dispatch-ack", [""; 0]),
        cluster.b().ctl(["show", &id]),
        ack(&cluster, &key, &[&id, "--reject", "--reason", "no"]),
    ] {
        let all = shown.out.clone() + &shown.err;
        assert!(
            !all.contains('\u{1b}') && !all.contains('\u{7}') && !all.contains('\u{202e}'),
            "{}",
            shown.shown
        );
    }
}

/// What lies beside a waiting task as a decision, by name, with its bytes.
fn decision(cluster: &Cluster) -> (String, Vec<u8>) {
    let pending = cluster.lane("a", "b").join("pending-ack");
    let name = names(&pending).into_iter().find(|name| name.ends_with(".ack")).expect("a decision");
    let bytes = fs::read(pending.join(&name)).unwrap();
    (name, bytes)
}

#[test]
fn decisions_are_judged_with_their_codes() {
    let cluster = cluster();
    let key = cluster.b().approver("ann");
    let b = cluster.b().watch();
    let id = waiting(&cluster, "judged");
    let other = waiting(&cluster, "other");
    assert_eq!(b.stop(), 0);
    drop(ack(&cluster, &key, &[&id, "--reason", "fine"]).ok());
    let pending = cluster.lane("a", "b").join("pending-ack");
    let (name, bytes) = decision(&cluster);
    fs::remove_file(pending.join(&name)).unwrap();
    let key16 = name.strip_suffix(".ack").and_then(|stem| stem.rsplit('.').next()).unwrap().to_owned();

    let b = cluster.b().watch();
    // Another key's place, another task's place, a changed byte: each set aside, and nothing is decided by it.
    let wrong_key = name.replace(&key16, "0123456789abcdef");
    let mut changed: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    let payload = changed["payload"].as_str().unwrap().to_owned();
    let flipped = if payload.starts_with("eyJ") { payload.replacen("eyJ", "eyK", 1) } else { payload };
    changed["payload"] = serde_json::json!(flipped);
    for (name, bytes, code) in [
        (wrong_key, bytes.clone(), "id_mismatch"),
        (name.replace(&id, &other), bytes.clone(), "id_mismatch"),
        (name.clone(), changed.to_string().into_bytes(), "bad_signature"),
        (name.clone(), b"{}".to_vec(), "malformed"),
    ] {
        crate::craft::place(&cluster, &pending.join(&name), &bytes);
        eventually(&format!("{name} is refused as {code}"), || cluster.audited("b", code));
        eventually("it is set aside", || !pending.join(&name).exists());
    }
    assert_eq!(cluster.runs.all().len(), 0);

    // The good one is consumed; put there again it finds nothing that waits.
    crate::craft::place(&cluster, &pending.join(&name), &bytes);
    cluster.answered(&id, "ok");
    crate::craft::place(&cluster, &pending.join(&name), &bytes);
    eventually("a decision about a task that is done is refused", || cluster.audited("b", "not_waiting"));
    check::each_ran_once(&cluster, &["judged".to_owned()]);
    assert_eq!(b.stop(), 0);
}

#[test]
fn an_approval_of_other_terms_approves_nothing() {
    let cluster = cluster();
    let key = cluster.b().approver("ann");
    let b = cluster.b().watch();
    let id = waiting(&cluster, "as shown");
    let shown = cluster.opened("a", "b", &format!("pending-ack/{id}.terms.json")).unwrap().sha256();
    assert_eq!(b.stop(), 0);
    drop(ack(&cluster, &key, &[&id, "--reason", "what I saw"]).ok());
    // What would run is now another thing than what was approved.
    cluster.b().configure("[profile.default]\nargv = [\"/bin/sh\", \"-eux\"]");
    let _b = cluster.b().watch();
    eventually("it is parked again under new terms", || {
        let terms = cluster.opened("a", "b", &format!("pending-ack/{id}.terms.json"))?;
        (terms.verified && terms.sha256() != shown).then_some(())
    });
    let pending = cluster.lane("a", "b").join("pending-ack");
    eventually("the old approval is judged", || !names(&pending).iter().any(|name| name.ends_with(".ack")));
    assert_eq!(cluster.runs.of("as shown"), 0);
    drop(ack(&cluster, &key, &[&id, "--reason", "what I see now"]).ok());
    cluster.answered(&id, "ok");
}
