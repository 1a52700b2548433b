//! Verbs that need no watcher, with the built command.

mod lab;

use lab::Lab;

#[test]
fn a_node_without_tasks_lists_none() {
    let lab = Lab::joined();
    let ended = lab.run("a", &["list"]).done();
    assert_eq!((ended.out.as_str(), ended.err.trim()), ("", "no tasks"));
    assert_eq!(lab.run("a", &["list", "--json"]).done().out, "");
    lab.run("a", &["list", "--state", "asleep"]).refused(2, &["awaiting_approval"]);
}

#[test]
fn a_request_without_a_watcher_says_so() {
    let lab = Lab::joined();
    lab.run("a", &["drain"]).refused(75, &["no watcher", "start it"]);
    lab.run("a", &["undrain", "--json"]).refused(75, &["\"code\":75"]);
    lab.run("a", &["drain", "--grace", "soon"]).refused(2, &["90s"]);
    let left = std::fs::read_dir(lab.state_dir("a").join("requests")).unwrap().count();
    assert_eq!(left, 0, "a request that nobody takes is not left behind");
}

#[test]
fn the_configuration_is_shown_with_its_origins() {
    let lab = Lab::joined();
    let ended = lab.run("a", &["config", "check"]).done();
    assert!(ended.out.contains("root = ") && ended.out.contains("default"), "{}", ended.out);
    let file = lab.config_dir("a").join("dispatch.toml");
    let text = std::fs::read_to_string(&file).unwrap().replace("\n[exec]\n", "\n[exec]\nmax_paralel = 3\n");
    std::fs::write(&file, text).unwrap();
    lab.run("a", &["config", "check"])
        .refused(78, &["unknown key `exec.max_paralel`", "did you mean `max_parallel`?"]);
}

#[test]
fn the_rules_answer_on_standard_output() {
    use std::io::Write as _;
    use std::process::{Command, Stdio};
    let mut child = Command::new(env!("CARGO_BIN_EXE_dispatchctl"))
        .args(["policy", "eval"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(b"{\"rule\": \"nothing\", \"input\": {}}\nnot json\n\xff\n")
        .unwrap();
    let output = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    assert_eq!(output.lines().count(), 3);
    assert!(output.lines().all(|line| line.starts_with("{\"error\"")));
}

#[test]
fn completions_cover_all_five_commands_in_one_script_or_in_a_file_each() {
    let lab = Lab::bare();
    for (shell, files) in [
        ("bash", ["dispatch-send", "dispatch-exec", "dispatchctl"]),
        ("zsh", ["_dispatch-send", "_dispatch-exec", "_dispatchctl"]),
        ("fish", ["dispatch-send.fish", "dispatch-exec.fish", "dispatchctl.fish"]),
    ] {
        let script = lab.run("a", &["completions", shell]).done().out;
        assert!(
            script.contains("undrain") && script.contains("require-ack") && script.contains("dry-run"),
            "{shell}"
        );
        let dir = lab.dir.path().join(shell);
        lab.run("a", &["completions", shell, "--dir", &dir.display().to_string()]).done();
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 5);
        for file in files {
            assert!(dir.join(file).is_file(), "{shell}: {file}");
        }
    }
}

#[test]
fn every_command_and_verb_has_a_page_with_examples_and_exit_codes() {
    let lab = Lab::bare();
    let dir = lab.dir.path().join("man");
    let said = lab.run("a", &["man", &dir.display().to_string(), "--json"]).done().out;
    let mut pages = 0;
    for entry in std::fs::read_dir(&dir).unwrap() {
        let path = entry.unwrap().path();
        assert!(said.contains(&path.display().to_string()), "{said}");
        let page = std::fs::read_to_string(&path).unwrap();
        let has = |title: &str| page.contains(&format!("\n.SH {title}\n"));
        for title in ["NAME", "SYNOPSIS", "DESCRIPTION", "\"EXIT STATUS\"", "\"SEE ALSO\""] {
            assert!(has(title), "{}: {title}\n{page}", path.display());
        }
        assert!(has("EXAMPLES") || has("VERBS"), "{}", path.display());
        pages += 1;
    }
    assert!(pages > 25, "{pages}");
    for (page, words) in [
        ("dispatch-send.1", ["require\\-ack", "task_sha256"]),
        ("dispatch-watch.1", ["NOTIFY_SOCKET", "KILLSWITCH"]),
        ("dispatchctl-init.1", ["new\\-ledger", "join\\-PEER.json"]),
        ("dispatchctl-audit-show.1", ["audit show", "124"]),
        ("dispatchctl-keys-list.1", ["not shown", "retired"]),
        ("dispatchctl-approvers.1", ["SHA256", "allowed_signers"]),
    ] {
        let text = std::fs::read_to_string(dir.join(page)).unwrap();
        for word in words {
            assert!(text.contains(word), "{page}: {word}\n{text}");
        }
    }
}

#[test]
fn every_verb_has_help_with_exit_codes() {
    let lab = Lab::bare();
    for verb in [
        "init",
        "status",
        "list",
        "show",
        "wait",
        "result",
        "logs",
        "cancel",
        "resend",
        "kill",
        "resume",
        "drain",
        "undrain",
        "verify",
        "recover",
        "keys",
        "approvers",
        "completions",
        "man",
    ] {
        let help = lab.run("a", &[verb, "--help"]).done().out;
        assert!(
            help.contains("Examples:") && help.contains("Exit codes:") && help.contains("--json"),
            "{verb}"
        );
    }
}

#[test]
fn a_killswitch_is_set_in_its_three_places_and_removed_in_whatever_form() {
    let lab = Lab::joined();
    let lane = lab.share().join("a-to-b/KILLSWITCH");
    let root = lab.share().join("KILLSWITCH");
    let own = lab.state_dir("a").join("KILLSWITCH");
    lab.run("a", &["kill", "--lane", "a-to-b", "only", "this", "lane"]).done();
    assert_eq!(std::fs::read_to_string(&lane).unwrap(), "only this lane\n");
    lab.run("a", &["kill", "--node", "kill"]).done();
    assert_eq!(std::fs::read_to_string(&own).unwrap(), "reason: kill\n");
    lab.run("a", &["kill", "first"]).done();
    lab.run("a", &["kill", "second"]).done();
    assert_eq!(std::fs::read_to_string(&root).unwrap(), "first\n");
    lab.run("a", &["kill", "--now", "third"]).done();
    assert_eq!(std::fs::read_to_string(&root).unwrap(), "kill\nthird\n");
    std::fs::remove_file(&lane).unwrap();
    std::fs::create_dir(&lane).unwrap();
    let ended = lab.run("a", &["resume"]).done();
    assert!(!lane.exists() && !root.exists() && !own.exists(), "{}", ended.out);
    lab.run("a", &["kill", "--lane", "x-to-y", "no"]).refused(2, &["no end of a lane"]);
    lab.run("a", &["kill"]).refused(2, &["REASON"]);
}

#[test]
fn status_is_shown_although_the_share_is_away() {
    let lab = Lab::joined();
    lab.run("a", &["kill", "--node", "\u{1b}[31mred"]).done();
    std::fs::rename(lab.share(), lab.dir.path().join("away")).unwrap();
    let ended = lab.run("a", &["status"]).done();
    assert!(ended.out.contains("unreachable") && ended.out.contains("no watcher"), "{}", ended.out);
    assert!(ended.out.contains("\\x1b[31mred") && !ended.out.contains('\u{1b}'), "{}", ended.out);
    let status: serde_json::Value =
        serde_json::from_str(&lab.run("a", &["status", "--json"]).done().out).unwrap();
    assert_eq!(status["share"]["reachable"], false);
    assert_eq!(status["killswitch"]["present"][0]["place"], "node");
    assert_eq!(status["budget"]["month"]["cap"], "0");
}

#[test]
fn a_task_nobody_knows_is_named_as_such() {
    let lab = Lab::joined();
    for verb in ["show", "wait", "result", "logs", "cancel", "resend"] {
        lab.run("a", &[verb, "ffffffff-0000"]).refused(66, &["no task here"]);
        lab.run("a", &[verb, "xyz"]).refused(2, &["no task id"]);
    }
}

#[test]
fn files_of_the_share_are_judged_without_being_changed() {
    let lab = Lab::joined();
    let id = "01a1f89c-fb83-734b-96bb-78a1dacaf1ff";
    let inbox = lab.share().join("a-to-b/inbox");
    let file = inbox.join(format!("{id}.json"));
    std::fs::write(&file, "{}").unwrap();
    let shown = file.display().to_string();
    let ended = lab.run("b", &["verify", &shown]);
    assert!(ended.code == 65 && ended.out.contains("malformed"), "{}{}", ended.out, ended.err);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "{}");
    let ended = lab.run("b", &["verify", "/etc/passwd"]);
    assert!(ended.code == 65 && ended.out.contains("no file of the protocol"), "{}", ended.out);
    std::fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", &file).unwrap();
    let ended = lab.run("b", &["verify", &shown]);
    assert!(ended.code == 65 && ended.out.contains("not_a_regular_file"), "{}", ended.out);
    let gone = format!("/nonexistent/a-to-b/inbox/{id}.json");
    lab.run("b", &["verify", &gone]).refused(74, &["/nonexistent"]);
}

#[test]
fn a_fresh_chain_verifies_and_is_shown() {
    let lab = Lab::joined();
    let verified = lab.run("a", &["audit", "verify", "--json"]).done();
    assert_eq!(serde_json::from_str::<serde_json::Value>(&verified.out).unwrap()["entries"], 1);
    assert!(lab.run("a", &["audit", "show"]).done().out.contains("ledger_created"));
    std::fs::remove_file(lab.state_dir("a").join("ledger.db")).unwrap();
    lab.run("a", &["audit", "verify"]).refused(78, &["no ledger", "--new-ledger"]);
}
