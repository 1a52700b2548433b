//! What a person sees who follows a task or watches a node, on a terminal and without one.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use dispatch_testkit::process::{Ended, code_of};
use dispatch_testkit::{Cluster, Node, eventually};
use serde_json::Value;

use crate::{cluster, wait_for};

/// A command of a node on a terminal of its own; what the terminal shows goes to `shown`, what is typed comes from its
/// standard input.
fn on_a_terminal(node: &Node, words: &[&str], shown: &Path) -> Child {
    let line = node.command(words[0]);
    let mut quoted = line.get_program().to_string_lossy().into_owned();
    words.iter().skip(1).for_each(|word| quoted.push_str(&format!(" '{word}'")));
    let mut script = Command::new("script");
    script.args(["--quiet", "--flush", "--return", "--command", &quoted]).arg(shown);
    script.env_clear().envs(line.get_envs().filter_map(|(name, value)| Some((name, value?))));
    script.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    script.spawn().expect("script, of util-linux")
}

fn shown(file: &Path) -> String {
    String::from_utf8_lossy(&fs::read(file).unwrap_or_default()).into_owned()
}

fn interrupt(child: &Child) {
    let pid = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
}

/// A task of `a` that runs on `b` until `gate` exists, after it said something.
fn talking(cluster: &Cluster, gate: &Path) -> String {
    let id = cluster.a().send("b", &format!("echo first\n{}", wait_for(cluster, "talks", gate)), &[]);
    eventually("it runs", || cluster.runs.of("talks") == 1);
    id
}

#[test]
fn on_a_terminal_one_line_says_where_the_task_is_and_is_gone_at_the_end() {
    let cluster = cluster();
    let _b = cluster.b().watch();
    let (gate, file) = (cluster.outside().join("gate"), cluster.outside().join("shown"));
    let request = cluster.outside().join("request");
    fs::write(&request, wait_for(&cluster, "seen", &gate)).unwrap();
    let request = request.display().to_string();
    let words = ["dispatch-send", "--to", "b", "--wait", "--file", &request];
    let mut waiter = on_a_terminal(cluster.a(), &words, &file);
    eventually("elapsed time advances", || {
        let shown = shown(&file);
        let seconds = shown.split("\r\u{1b}[Krunning ").skip(1).filter_map(|rest| rest.split('s').next());
        seconds.collect::<std::collections::BTreeSet<_>>().len() >= 3
    });
    fs::write(&gate, "").unwrap();
    assert!(waiter.wait().unwrap().success());
    let shown = shown(&file);
    let answer = shown.find("did seen").expect("the answer is printed");
    assert!(shown[..answer].ends_with("\r\u{1b}[K"), "{shown:?}");
}

#[test]
fn whoever_follows_sees_the_log_and_ends_as_the_task_does() {
    let cluster = cluster();
    let _b = cluster.b().watch();
    let words = ["--wait", "--follow", "--raw"];
    let followed = cluster.a().try_send("b", "echo one; sleep 0.2; echo two; exit 3", &words).code(1);
    assert_eq!(followed.out, "one\ntwo\n");
    let late =
        cluster.a().try_send("b", "echo slow; exec sleep 1000", &["--wait", "--follow", "--timeout", "1s"]);
    assert_eq!(late.code(124).out, "slow\n");
}

#[test]
fn a_log_that_is_followed_ends_by_itself_on_either_node() {
    let cluster = cluster();
    let _b = cluster.b().watch();
    let gate = cluster.outside().join("gate");
    let id = talking(&cluster, &gate);
    let follow = |node: &Node| {
        let mut command = node.command("dispatchctl");
        command.args(["logs", "-f", &id]).stdin(Stdio::null());
        std::thread::spawn(move || Ended::of(command, b""))
    };
    let (sender, receiver) = (follow(cluster.a()), follow(cluster.b()));
    fs::write(&gate, "").unwrap();
    for ended in [sender, receiver] {
        assert_eq!(ended.join().unwrap().ok().out, "first\ndid talks\n");
    }
    // Beside a log that waits, Ctrl-C ends the looking and not the task.
    let gate = cluster.outside().join("another gate");
    let id = talking_again(&cluster, &gate);
    let mut command = cluster.b().command("dispatchctl");
    command.args(["logs", "-f", &id]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "first\n");
    interrupt(&child);
    assert_eq!(code_of(child.wait().unwrap()), 130);
    fs::write(&gate, "").unwrap();
    cluster.answered(&id, "ok");
}

fn talking_again(cluster: &Cluster, gate: &Path) -> String {
    let id = cluster.a().send("b", &format!("echo first\n{}", wait_for(cluster, "again", gate)), &[]);
    eventually("it runs", || cluster.runs.of("again") == 1);
    id
}

#[test]
fn a_screen_is_for_a_terminal_and_given_back_as_it_was() {
    let cluster = cluster();
    let _b = cluster.b().watch();
    drop(cluster.b().ctl(["status", "--watch"]).code(2).says("--json prints a document per change"));
    for (key, code) in [(b"q", 0), (b"\x03", 130)] {
        let file = cluster.outside().join(format!("shown-{code}"));
        let mut screen = on_a_terminal(cluster.b(), &["dispatchctl", "status", "--watch"], &file);
        eventually("the screen is there", || shown(&file).contains("q quits"));
        assert!(shown(&file).contains("\u{1b}[?1049h"), "{:?}", shown(&file));
        screen.stdin.as_mut().unwrap().write_all(key).unwrap();
        assert_eq!(code_of(screen.wait().unwrap()), code);
        let shown = shown(&file);
        let given_back = shown.rfind("\u{1b}[?25h\u{1b}[?1049l").expect("it is given back");
        assert!(!shown[given_back..].contains("node"), "{:?}", &shown[given_back..]);
    }
}

#[test]
fn without_a_terminal_a_document_comes_with_each_change() {
    let cluster = cluster();
    let _b = cluster.b().watch();
    let mut command = cluster.b().command("dispatchctl");
    command.args(["status", "--watch", "--json"]).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || -> Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    assert_eq!(next()["running"], serde_json::json!([]));
    let gate = cluster.outside().join("gate");
    let id = talking(&cluster, &gate);
    let running = loop {
        let document = next();
        if document["running"][0]["progress"]["last_line"] == "first" {
            break document;
        }
    };
    assert_eq!(
        (&running["running"][0]["id"], &running["tasks"]["running"]),
        (&Value::from(id), &Value::from(1))
    );
    fs::write(&gate, "").unwrap();
    while next()["last"][0]["status"] != "ok" {}
    interrupt(&child);
    assert_eq!(code_of(child.wait().unwrap()), 130);
}
