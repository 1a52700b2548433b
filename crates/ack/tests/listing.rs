//! What is listed, and what is not believed.

mod lab;

use std::fs;

use dispatch_core::protocol::names::Name;
use lab::Lab;
use serde_json::Value;

#[expect(clippy::unwrap_used, reason = "what fails here fails the test")]
fn listed(lab: &Lab, words: &[&str]) -> Value {
    let ended = lab.ack(&[&["--json"], words].concat()).code(0);
    serde_json::from_str(&ended.out).unwrap()
}

#[test]
fn what_waits_is_listed_oldest_first() {
    let lab = Lab::new();
    let young = lab.park_on("a-to-b", None, |task| {
        task.request = "the younger".into();
        task.created = task.created.plus_ms(30_000);
    });
    let old = lab.park_on("c-to-b", None, |task| {
        task.request = "\nthe older\nmore".into();
        task.workspace = Some(Name::new("webapp").unwrap());
    });
    let out = lab.ack(&[]).code(0).out;
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines.len(), 3, "{out}");
    for part in [old.short().as_str(), "c", "1m3", "default", "webapp", "$2", "require_ack", "the older"] {
        assert!(lines[1].contains(part), "{part}: {out}");
    }
    assert!(lines[2].contains(&young.short()) && lines[2].ends_with("the younger"), "{out}");
    let json = listed(&lab, &[]);
    assert_eq!(json["waiting"][0]["id"], old.id.to_string());
    assert_eq!(json["waiting"][1]["ceiling_usd"], "2");
    assert_eq!(listed(&lab, &["--from", "a"])["waiting"].as_array().unwrap().len(), 1);
}

#[test]
fn nothing_is_taken_from_the_plain_summary() {
    let lab = Lab::new();
    fs::write(lab.share().join("a-to-b/pending.json"), "{\"waiting\": [{\"id\": \"x\"}]}").unwrap();
    let ended = lab.ack(&[]).code(0);
    assert_eq!(ended.out, "");
    assert!(ended.err.contains("nothing waits"));
    assert_eq!(lab.ack(&["--quiet"]).code(0).err, "");
}

#[test]
fn lanes_that_end_elsewhere_are_listed_when_asked_for() {
    let lab = Lab::new();
    let there = lab.park_on("b-to-a", None, |_| {});
    assert_eq!(listed(&lab, &[])["waiting"].as_array().unwrap().len(), 0);
    assert_eq!(listed(&lab, &["--all"])["waiting"][0]["to"], "a");
    assert!(lab.ack(&["--all"]).out.contains(&there.short()));
}

#[test]
fn what_does_not_verify_is_shown_as_skipped_with_its_code() {
    let lab = Lab::new();
    let parked = lab.park("go");
    let other = lab.park_on("c-to-b", None, |_| {});
    let (task, terms) =
        (lab.pending(&format!("{}.json", parked.id)), lab.pending(&format!("{}.terms.json", parked.id)));
    let good = (fs::read(&task).unwrap(), fs::read(&terms).unwrap());
    let of_other_lane =
        fs::read(lab.share().join(format!("c-to-b/pending-ack/{}.terms.json", other.id))).unwrap();
    let another = fs::read(lab.pending(&format!("{}.terms.json", lab.park("another").id))).unwrap();
    let cases: [(&[u8], &[u8], &str); 6] = [
        (b"{}", &good.1, "malformed"),
        (&good.0, b"not json", "malformed"),
        (&good.0, &of_other_lane, "bad_signature"),
        (&good.0, &another, "id_mismatch"),
        (&good.0, &good.0, "malformed"),
        (&vec![b' '; 1024 * 1024 + 1], &good.1, "too_large"),
    ];
    for (task_bytes, terms_bytes, code) in cases {
        fs::write(&task, task_bytes).unwrap();
        fs::write(&terms, terms_bytes).unwrap();
        let found = listed(&lab, &["--from", "a"]);
        assert_eq!(found["waiting"].as_array().unwrap().len(), 1, "the good one stays: {found}");
        assert_eq!(found["unverified"][0]["code"], code, "{found}");
        let out = lab.ack(&[]).code(0).out;
        assert!(out.contains("skipped") && out.contains(code), "{out}");
    }
}

#[test]
fn links_directories_and_missing_files_are_skipped() {
    let lab = Lab::new();
    let parked = lab.park("go");
    let terms = lab.pending(&format!("{}.terms.json", parked.id));
    let copy = lab.path("copy");
    fs::rename(&terms, &copy).unwrap();
    assert_eq!(listed(&lab, &[])["unverified"][0]["code"], "missing");
    std::os::unix::fs::symlink(&copy, &terms).unwrap();
    assert_eq!(listed(&lab, &[])["unverified"][0]["code"], "not_a_regular_file");
    fs::remove_file(&terms).unwrap();
    fs::create_dir(&terms).unwrap();
    assert_eq!(listed(&lab, &[])["unverified"][0]["code"], "not_a_regular_file");
}

#[test]
fn terms_for_other_bytes_of_the_task_are_skipped() {
    let lab = Lab::new();
    let parked = lab.park("go");
    let task = fs::read(lab.pending(&format!("{}.json", parked.id))).unwrap();
    lab.park_on("a-to-b", Some(parked.id), |task| task.request = "something else".into());
    fs::write(lab.pending(&format!("{}.json", parked.id)), task).unwrap();
    assert_eq!(listed(&lab, &[])["unverified"][0]["code"], "digest_mismatch");
}

#[test]
fn a_strangers_characters_do_not_reach_the_terminal() {
    let lab = Lab::new();
    let hostile = "\u{1b}[2J\u{7}\u{9b}31m \u{202e}txt.exe\u{7f}";
    let parked = lab.park(hostile);
    lab.new_terms(&parked, |terms| terms.gate = vec![hostile.into()]);
    for words in [&[][..], &["--json"]] {
        let out = lab.ack(words).code(0).out;
        assert!(!out.is_empty());
        let hidden = |ch: char| ch != '\n' && dispatch_node::term::is_hidden(ch);
        assert!(!out.contains(hidden), "{out:?}");
    }
    assert!(lab.ack(&[]).out.contains("\\x1b[2J"));
}

#[test]
fn a_share_that_is_not_there_is_said_to_be_so() {
    let lab = Lab::new();
    fs::remove_file(lab.share().join("CLUSTER")).unwrap();
    let ended = lab.ack(&[]).code(69);
    assert!(ended.err.contains("error:") && ended.err.contains("help:"), "{}", ended.err);
}

#[test]
fn the_help_has_examples_and_the_exit_codes() {
    let lab = Lab::new();
    let out = lab.ack(&["--help"]).code(0).out;
    assert!(out.contains("Examples:") && out.contains("65  a message does not verify"), "{out}");
    assert!(out.contains("--standing"), "{out}");
}
