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
    let text = std::fs::read_to_string(&file).unwrap().replace("[exec]", "[exec]\nmax_paralel = 3");
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
fn completions_and_man_pages_name_the_verbs() {
    let lab = Lab::bare();
    assert!(lab.run("a", &["completions", "bash"]).done().out.contains("undrain"));
    let dir = lab.dir.path().join("man");
    lab.run("a", &["man", &dir.display().to_string()]).done();
    let page = std::fs::read_to_string(dir.join("dispatchctl-init.1")).unwrap();
    assert!(page.contains("Exit codes") && page.contains("new\\-ledger"), "{page}");
}

#[test]
fn every_verb_has_help_with_exit_codes() {
    let lab = Lab::bare();
    for verb in ["init", "list", "drain", "undrain", "recover", "completions", "man"] {
        let help = lab.run("a", &[verb, "--help"]).done().out;
        assert!(
            help.contains("Examples:") && help.contains("Exit codes:") && help.contains("--json"),
            "{verb}"
        );
    }
}
