//! Approving and rejecting: what is published, and what keeps it from being published.

mod lab;

use std::fs;

use dispatch_core::protocol::decision::DecisionOutcome;
use dispatch_core::protocol::names::{Digest, TaskId};
use lab::{Lab, can_sign, eventually, has_terminals};

#[test]
fn an_approval_is_bound_to_what_was_shown() {
    if !can_sign() {
        return;
    }
    let lab = Lab::new();
    let key = lab.approver("ann");
    let parked = lab.park("line one\nline two");
    let ended = lab.decide(&key, &[&parked.short(), "--reason", "looks right"]).code(0);
    for part in ["claude", "acceptEdits", "$2", "require_ack", "  | line one\n  | line two", "approved"] {
        assert!(ended.out.contains(part), "{part}: {}", ended.out);
    }
    let decision = lab.decided(&parked);
    assert_eq!(decision.outcome, DecisionOutcome::Approved);
    assert_eq!((decision.author.as_str(), decision.reason.as_str()), ("ann", "looks right"));
    assert_eq!(decision.expires.since_ms(decision.decided_at), 86_400_000);
    assert_eq!(decision.max_cost_usd, None);
}

#[test]
fn a_rejection_says_so_and_a_prefix_names_a_task() {
    if !can_sign() {
        return;
    }
    let lab = Lab::new();
    let key = lab.approver("ann");
    let parked = lab.park("go");
    let prefix = &parked.id.to_string()[..11];
    let ended = lab.decide(&key, &["--json", prefix, "--reject", "--expires", "2h"]).code(0);
    let json: serde_json::Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!((&json["outcome"], &json["author"]), (&"rejected".into(), &"ann".into()));
    let decision = lab.decided(&parked);
    assert_eq!(decision.outcome, DecisionOutcome::Rejected);
    assert_eq!(decision.expires.since_ms(decision.decided_at), 7_200_000);
}

#[test]
fn an_approval_may_lower_the_ceiling_and_not_raise_it() {
    if !can_sign() {
        return;
    }
    let lab = Lab::new();
    let key = lab.approver("ann");
    let parked = lab.park("go");
    let ended = lab.decide(&key, &[&parked.short(), "--max-cost", "2.5"]).code(2);
    assert!(ended.err.contains("ceiling") && lab.decisions().is_empty(), "{}", ended.err);
    lab.decide(&key, &[&parked.short(), "--max-cost", "1.50"]).code(0);
    assert_eq!(lab.decided(&parked).max_cost_usd.unwrap().to_string(), "1.5");
}

#[test]
fn a_task_on_a_lane_that_ends_elsewhere_is_decided_from_here() {
    if !can_sign() {
        return;
    }
    let lab = Lab::new();
    let key = lab.approver("ann");
    let parked = lab.park_on("b-to-a", None, |_| {});
    lab.decide(&key, &[&parked.short()]).code(0);
    assert_eq!(lab.decided(&parked).to.as_str(), "a");
}

#[test]
fn what_does_not_verify_is_never_approved() {
    if !can_sign() {
        return;
    }
    let lab = Lab::new();
    let key = lab.approver("ann");
    let parked = lab.park("go");
    let terms = lab.pending(&format!("{}.terms.json", parked.id));
    let good = fs::read_to_string(&terms).unwrap();
    let at = good.find("\"sig\":\"").unwrap() + 8;
    let flipped = if &good[at..=at] == "A" { "B" } else { "A" };
    fs::write(&terms, format!("{}{flipped}{}", &good[..at], &good[at + 1..])).unwrap();
    let ended = lab.decide(&key, &[&parked.short()]).code(65);
    assert!(ended.err.contains("bad_signature") && ended.err.contains("help:"), "{}", ended.err);
    assert!(lab.decisions().is_empty());
}

#[test]
fn a_file_that_is_set_right_in_time_is_approved() {
    if !can_sign() {
        return;
    }
    let lab = Lab::new();
    let key = lab.approver("ann");
    let parked = lab.park("go");
    let task = lab.pending(&format!("{}.json", parked.id));
    let good = fs::read(&task).unwrap();
    fs::write(&task, "{}").unwrap();
    let key = key.display().to_string();
    let running = lab.start(&["--yes", "--quiet", "--key", &key, &parked.short()]);
    fs::write(&task, good).unwrap();
    running.wait().code(0);
    assert_eq!(lab.decided(&parked).outcome, DecisionOutcome::Approved);
}

#[test]
fn only_a_listed_key_that_is_valid_now_decides() {
    if !can_sign() {
        return;
    }
    let lab = Lab::new();
    lab.approver("ann");
    let stranger = lab.key("stranger", "");
    let late = lab.key("late", "");
    lab.list_key("late", "valid-before=\"20200101\"", &late);
    let parked = lab.park("go");
    let refused = lab.decide(&stranger, &[&parked.short()]).code(77);
    assert!(refused.err.contains("not listed") && refused.err.contains("SHA256:"), "{}", refused.err);
    assert!(lab.decide(&late, &[&parked.short()]).code(77).err.contains("not valid now"));
    lab.decide(&lab.path("nothing"), &[&parked.short()]).code(2);
    lab.decide(&lab.path("config/dispatch.toml"), &[&parked.short()]).code(74);
    assert!(lab.decisions().is_empty());
}

#[test]
fn a_public_half_of_another_key_is_noticed() {
    if !can_sign() {
        return;
    }
    let lab = Lab::new();
    let ann = lab.approver("ann");
    let stranger = lab.key("stranger", "");
    fs::copy(ann.with_extension("pub"), stranger.with_extension("pub")).unwrap();
    let parked = lab.park("go");
    let ended = lab.decide(&stranger, &[&parked.short()]);
    assert!(matches!(ended.code, 74 | 77), "{ended:?}");
    assert!(lab.decisions().is_empty());
}

#[test]
fn a_key_with_several_principals_decides_as_the_one_that_is_named() {
    if !can_sign() {
        return;
    }
    let lab = Lab::new();
    let key = lab.key("k", "");
    lab.list_key("ann@desk,ann@home", "", &key);
    let parked = lab.park("go");
    let refused = lab.decide(&key, &[&parked.short(), "--as", "ben"]).code(77);
    assert!(refused.err.contains("ann@desk, ann@home"), "{}", refused.err);
    lab.decide(&key, &[&parked.short(), "--as", "ann@home"]).code(0);
    assert_eq!(lab.decided(&parked).author, "ann@home");
}

#[test]
fn the_configured_key_signs_and_else_the_first_usual_one_that_is_listed() {
    if !can_sign() {
        return;
    }
    let lab = Lab::new();
    let parked = lab.park("go");
    let words = ["--yes", "--no-wait", &parked.short()];
    assert!(lab.ack(&words).code(77).err.contains("no OpenSSH key"));
    lab.key("home/.ssh/id_ed25519", "");
    assert!(lab.ack(&words).code(77).err.contains("is listed as an approver's"));
    let usual = lab.key("home/.ssh/id_rsa", "");
    lab.list_key("usual", "", &usual);
    lab.ack(&words).code(0);
    assert_eq!(lab.decided(&parked).author, "usual");
    let other = lab.park_on("c-to-b", None, |_| {});
    let configured = lab.approver("ann");
    lab.configure(&format!("key = \"{}\"", configured.display()));
    lab.ack(&["--yes", "--no-wait", "--json", &other.short()]).code(0);
    assert_eq!(lab.decisions().len(), 2);
}

#[test]
fn a_private_key_without_its_public_half_signs_too() {
    if !can_sign() {
        return;
    }
    let lab = Lab::new();
    let key = lab.approver("ann");
    fs::remove_file(key.with_extension("pub")).unwrap();
    let parked = lab.park("go");
    lab.decide(&key, &[&parked.short()]).code(0);
    assert_eq!(lab.decided(&parked).author, "ann");
}

#[test]
fn without_a_terminal_nothing_is_decided_unasked() {
    let lab = Lab::new();
    let parked = lab.park("go");
    let ended = lab.ack(&[&parked.short()]).code(2);
    assert!(ended.err.contains("no terminal") && ended.err.contains("--yes"), "{}", ended.err);
    assert!(lab.decisions().is_empty());
}

#[test]
fn an_id_must_name_one_task_that_waits() {
    let lab = Lab::new();
    let [one, two] = ["01a1f89c-fb83-734b-96bb-78a1dacaf1ff", "01a1f89c-fb84-734b-96bb-78a1dacaf1ff"]
        .map(|id| TaskId::parse(id).unwrap());
    lab.park_on("a-to-b", Some(one), |_| {});
    lab.park_on("a-to-b", Some(two), |_| {});
    let ended = lab.ack(&["--yes", "dacaf1ff"]).code(2);
    assert!(ended.err.contains(&one.to_string()) && ended.err.contains(&two.to_string()), "{}", ended.err);
    lab.park_on("c-to-b", Some(one), |_| {});
    assert!(lab.ack(&["--yes", &one.to_string()]).code(2).err.contains("--from"));
    lab.ack(&["--yes", "--no-wait", "0000"]).code(66);
    lab.ack(&["--yes", "abc"]).code(2);
    lab.ack(&["--yes", "--from", "nobody", "dacaf1ff"]).code(78);
    assert!(lab.decisions().is_empty());
}

#[test]
fn a_task_that_waits_no_longer_is_said_to_be_elsewhere() {
    let lab = Lab::new();
    let parked = lab.park("go");
    let task = lab.pending(&format!("{}.json", parked.id));
    fs::remove_file(lab.pending(&format!("{}.terms.json", parked.id))).unwrap();
    for (place, words) in [("inbox", "not taken"), ("processing", "accepted"), ("done", "ended")] {
        fs::rename(&task, lab.share().join(format!("a-to-b/{place}/{}.json", parked.id))).unwrap();
        let ended = lab.ack(&["--yes", &parked.short()]).code(66);
        assert!(ended.err.contains(words), "{}", ended.err);
        fs::rename(lab.share().join(format!("a-to-b/{place}/{}.json", parked.id)), &task).unwrap();
    }
}

#[test]
fn hostile_text_is_shown_and_moves_nothing() {
    if !can_sign() {
        return;
    }
    let lab = Lab::new();
    let key = lab.approver("ann");
    let parked = lab.park_on("a-to-b", None, |task| {
        task.request = "echo \u{1b}[2J\u{1b}]0;owned\u{7} \u{202e}txt.exe\r\nceiling     $0".into();
        task.labels.insert("k".into(), "\u{1b}[A".into());
    });
    let ended = lab.decide(&key, &[&parked.short(), "--reject"]).code(0);
    let hidden = |ch: char| ch != '\n' && dispatch_node::term::is_hidden(ch);
    assert!(!(ended.out.clone() + &ended.err).contains(hidden), "{ended:?}");
    assert!(ended.out.contains("  | echo \\x1b[2J") && ended.out.contains("k=\\x1b[A"), "{}", ended.out);
    assert!(!ended.out.contains("\nceiling     $0"), "{}", ended.out);
}

#[test]
fn the_same_decision_again_changes_nothing() {
    if !can_sign() {
        return;
    }
    let lab = Lab::new();
    let key = lab.approver("ann");
    let parked = lab.park("go");
    lab.decide(&key, &[&parked.short()]).code(0);
    let first = lab.decided(&parked);
    let again = lab.decide(&key, &[&parked.short()]).code(0);
    assert!(again.err.contains("stands there already"), "{}", again.err);
    assert_eq!(lab.decided(&parked), first);
}

#[test]
fn a_changed_mind_waits_until_the_earlier_decision_was_taken() {
    if !can_sign() {
        return;
    }
    let lab = Lab::new();
    let key = lab.approver("ann");
    let parked = lab.park("go");
    lab.decide(&key, &[&parked.short()]).code(0);
    let [name] = <[String; 1]>::try_from(lab.decisions()).unwrap();
    let file = lab.pending(&name);
    let before = fs::read(&file).unwrap();
    let key = key.display().to_string();
    let running = lab.start(&["--yes", "--no-wait", "--key", &key, &parked.short(), "--reject"]);
    // Its half-written file shows that it tried and found the name taken.
    eventually("it tries", || {
        let tmp = lab.share().join("a-to-b/tmp");
        fs::read_dir(tmp).unwrap().next().map(drop)
    });
    assert_eq!(fs::read(&file).unwrap(), before, "nothing is overwritten");
    fs::remove_file(&file).unwrap();
    let ended = running.wait().code(0);
    assert!(ended.out.contains("rejected"), "{ended:?}");
    assert_eq!(lab.decided(&parked).outcome, DecisionOutcome::Rejected);
}

#[test]
fn a_name_that_stays_squatted_ends_with_69() {
    if !can_sign() {
        return;
    }
    let lab = Lab::new();
    let key = lab.approver("ann");
    let parked = lab.park("go");
    lab.decide(&key, &[&parked.short()]).code(0);
    let [name] = <[String; 1]>::try_from(lab.decisions()).unwrap();
    fs::write(lab.pending(&name), "junk").unwrap();
    let ended = lab.decide(&key, &[&parked.short()]).code(69);
    assert!(ended.err.contains("waiting for the watcher") && ended.err.contains("help:"), "{}", ended.err);
    assert_eq!(fs::read(lab.pending(&name)).unwrap(), b"junk");
    assert_eq!(lab.decisions().len(), 1);
}

#[test]
fn it_says_when_the_watcher_took_the_decision() {
    if !can_sign() {
        return;
    }
    let lab = Lab::new();
    let key = lab.approver("ann").display().to_string();
    let parked = lab.park("go");
    let running = lab.start(&["--yes", "--key", &key, &parked.short()]);
    let name = eventually("a decision", || lab.pending_ack(&parked));
    fs::write(lab.share().join(format!("a-to-b/processing/{}.json", parked.id)), "").unwrap();
    fs::remove_file(lab.pending(&name)).unwrap();
    let ended = running.wait().code(0);
    assert!(ended.err.contains("has taken it: the task is accepted"), "{ended:?}");
}

#[test]
fn it_says_when_the_node_refused_the_decision() {
    if !can_sign() {
        return;
    }
    let lab = Lab::new();
    let key = lab.approver("ann").display().to_string();
    let parked = lab.park("go");
    let running = lab.start(&["--yes", "--key", &key, &parked.short()]);
    let name = eventually("a decision", || lab.pending_ack(&parked));
    let file = lab.pending(&name);
    let digest16 = Digest::of(&fs::read(&file).unwrap()).hex16();
    let rejected = lab.share().join("a-to-b/rejected");
    let reason = rejected.join(format!("{}.{digest16}.reason.json", parked.id));
    fs::write(reason, "{\"code\": \"bad_signature\"}").unwrap();
    fs::rename(file, rejected.join(format!("{}.{digest16}.json", parked.id))).unwrap();
    let ended = running.wait().code(65);
    assert!(ended.err.contains("bad_signature"), "{ended:?}");
}

#[test]
fn at_a_terminal_the_person_is_asked() {
    if !can_sign() || !has_terminals() {
        return;
    }
    let lab = Lab::new();
    let key = lab.approver("ann").display().to_string();
    let parked = lab.park("go");
    let words = ["--no-wait", "--key", &key, &parked.short()];
    let mut terminal = lab.at_terminal(&words);
    terminal.answer("as ann", "n");
    let (code, shown) = terminal.end();
    assert_eq!(code, 130, "{shown}");
    assert!(shown.contains("nothing was signed") && lab.decisions().is_empty(), "{shown}");
    let mut terminal = lab.at_terminal(&words);
    terminal.answer("as ann", "y");
    assert_eq!(terminal.end().0, 0);
    assert_eq!(lab.decided(&parked).author, "ann");
}

#[test]
fn a_key_with_a_passphrase_is_asked_for_it_at_the_terminal() {
    if !can_sign() || !has_terminals() {
        return;
    }
    let lab = Lab::new();
    let key = lab.key("ann", "open sesame");
    lab.list_key("ann", "", &key);
    let parked = lab.park("go");
    let refused = lab.decide(&key, &[&parked.short()]);
    assert!(refused.code == 74 && lab.decisions().is_empty(), "{refused:?}");
    let mut terminal = lab.at_terminal(&["--no-wait", "--key", &key.display().to_string(), &parked.short()]);
    terminal.answer("as ann", "y");
    terminal.answer("passphrase", "open sesame");
    let (code, shown) = terminal.end();
    assert_eq!(code, 0, "{shown}");
    assert_eq!(lab.decided(&parked).author, "ann");
}
