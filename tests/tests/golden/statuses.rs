//! An agent's session, from a shell without a terminal: one document, whatever became of the task.
//!
//! Every status that this release can produce, through the real commands: the document of `dispatch-send --wait --json` and
//! its exit code are kept beside this file, with what differs from run to run named instead. `dispatchctl wait --json` and
//! `dispatchctl result --json` print the same document.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use dispatch_testkit::cluster::names;
use dispatch_testkit::process::Ended;
use dispatch_testkit::{Cluster, Watcher, eventually};
use serde_json::{Map, Value, json};

use crate::cluster;

/// A shell without a terminal that sends from `a` to `b` and waits.
struct Session {
    child: Child,
    shown: String,
}

impl Session {
    fn start(cluster: &Cluster, request: &str, words: &[&str]) -> Session {
        let mut command = cluster.a().command("dispatch-send");
        command.args(["--to", "b", "--wait", "--json", "--request", request]).args(words);
        let shown = format!("{command:?}");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Session { child: command.spawn().unwrap(), shown }
    }

    fn interrupt(&self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    }

    /// Its end: exactly one document on standard output, nothing on standard error.
    fn end(self) -> Told {
        let output = self.child.wait_with_output().unwrap();
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!(err, "", "{}", self.shown);
        let code = dispatch_testkit::process::code_of(output.status);
        Told { document: one_document(&String::from_utf8_lossy(&output.stdout)), code }
    }
}

/// A document and the exit code beside it.
#[derive(Debug, PartialEq)]
struct Told {
    document: Value,
    code: i32,
}

impl Told {
    fn id(&self) -> &str {
        self.document["task"].as_str().unwrap()
    }

    fn status(&self) -> &str {
        self.document["status"].as_str().unwrap()
    }
}

fn one_document(out: &str) -> Value {
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines.len(), 1, "one line: {out}");
    serde_json::from_str(lines[0]).unwrap()
}

fn of_ctl(ended: &Ended) -> Told {
    assert_eq!(ended.err, "", "{}", ended.shown);
    Told { document: one_document(&ended.out), code: ended.code }
}

/// The id of the task that is on its way from `a` to `b`, wherever it lies.
fn id_of(cluster: &Cluster) -> String {
    let lane = cluster.lane("a", "b");
    eventually("a task is on its way", || {
        let dirs = ["inbox", "processing", "pending-ack"];
        let names = dirs.iter().flat_map(|dir| names(&lane.join(dir)));
        let ids: Vec<String> = names.filter_map(|name| Some(name.get(..36)?.to_owned())).collect();
        ids.first().cloned()
    })
}

/// What differs from run to run, by the name of its member.
fn named(member: &str, value: &Value) -> Value {
    let is_there = |what: &str| if value.is_null() { Value::Null } else { json!(format!("<{what}>")) };
    match member {
        "task" | "short" | "session_id" | "cluster" | "chain" => is_there("id"),
        "inbox" => is_there("path"),
        "expires" | "at" => is_there("time"),
        "head" | "log_sha256" | "task_sha256" => is_there("digest"),
        "epoch" | "queue_wait_ms" | "elapsed_ms" => is_there("number"),
        // The audit goes on, and so do sizes of a log that was cut off.
        "seq" if value.as_u64() > Some(1) => is_there("number"),
        "mechanism" => is_there("word"),
        name if name.ends_with("_at") => is_there("time"),
        _ => match value {
            Value::Object(members) => {
                let named = members.iter().map(|(name, value)| (name.clone(), named(name, value)));
                Value::Object(named.collect::<Map<String, Value>>())
            }
            Value::Array(items) => items.iter().map(|item| named(member, item)).collect(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
        },
    }
}

/// The document beside the exit code, as it is kept.
fn shape(told: &Told) -> String {
    let text = serde_json::to_string_pretty(&named("", &told.document)).unwrap();
    // Sentences repeat ids and times.
    let text = text.replace(told.id(), "<id>").replace(&told.id()[28..], "<id>");
    format!("exit code {}\n{}", told.code, without_times(&text))
}

/// Times in sentences.
fn without_times(text: &str) -> String {
    let is_time = |word: &str| word.len() >= 24 && word.as_bytes()[4] == b'-' && word.as_bytes()[10] == b'T';
    let words: Vec<String> = text
        .split(' ')
        .map(|word| if is_time(word) { format!("<time>{}", &word[24..]) } else { word.to_owned() })
        .collect();
    words.join(" ")
}

fn keep(told: &Told) {
    insta::with_settings!({omit_expression => true, prepend_module_to_snapshot => false}, {
        insta::assert_snapshot!(told.status().to_owned(), shape(told));
    });
}

/// The sender's `wait` and `result` say the same as the session was told; the receiver's say the same of the result.
fn the_same_everywhere(cluster: &Cluster, told: &Told) {
    let id = told.id();
    let mut expected = told.document.clone();
    expected["notes"] = json!([]);
    let wait = of_ctl(&cluster.a().ctl(["wait", "--json", id]));
    assert_eq!((&wait.document, wait.code), (&expected, told.code));
    let result = of_ctl(&cluster.a().ctl(["result", "--json", id]));
    assert_eq!((&result.document, result.code), (&expected, 0));
    for verb in ["wait", "result"] {
        let there = of_ctl(&cluster.b().ctl([verb, "--json", id]));
        let mut here = expected.clone();
        here["seq"] = Value::Null;
        assert_eq!(there.document, here, "{verb}");
    }
}

/// Sends, waits, keeps the document, and compares.
fn ends(cluster: &Cluster, request: &str, words: &[&str], status: &str) -> Told {
    let told = Session::start(cluster, request, words).end();
    assert_eq!(told.status(), status, "{:#}", told.document);
    keep(&told);
    the_same_everywhere(cluster, &told);
    told
}

fn watched() -> (Cluster, Watcher) {
    let cluster = cluster();
    let watcher = cluster.b().watch();
    (cluster, watcher)
}

/// A program in place of Claude Code that prints a captured run of it and ends as that did.
fn replay(cluster: &Cluster, file: &str, code: i32) -> PathBuf {
    let captured =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/exec/tests/captured/claude").join(file);
    let program = cluster.outside().join("claude");
    let script = format!("#!/bin/sh\ncat > /dev/null\ncat '{}'\nexit {code}\n", captured.display());
    dispatch_testkit::bins::write_script(&program, &script);
    program
}

fn with_agent(file: &str, code: i32) -> (Cluster, Watcher) {
    let cluster = cluster();
    let program = replay(&cluster, file, code);
    cluster.b().configure(&format!(
        "[budget]\nrun_usd = \"50\"\nmonth_usd = \"50\"\n\
         [profile.coder]\nagent = \"claude\"\nargv = [{program:?}]\npermission_mode = \"acceptEdits\"\n\
         billing = \"metered\"\nmax_cost_usd = \"2\"\novershoot_usd = \"15\"\n"
    ));
    let watcher = cluster.b().watch();
    (cluster, watcher)
}

#[test]
fn ok() {
    let (cluster, _b) = watched();
    let told = ends(&cluster, "echo hello", &[], "ok");
    assert_eq!((told.code, &told.document["result"]["final_text"]), (0, &json!("hello\n")));
}

#[test]
fn error() {
    let (cluster, _b) = watched();
    assert_eq!(ends(&cluster, "echo no; exit 3", &[], "error").code, 1);
}

#[test]
fn timeout_and_silence() {
    let (cluster, _b) = watched();
    assert_eq!(ends(&cluster, "exec sleep 1000", &["--timeout", "1s"], "timeout").code, 124);
    assert_eq!(ends(&cluster, "exec sleep 1000", &["--silence", "1s"], "silent").code, 124);
}

#[test]
fn refuted() {
    let (cluster, _b) = with_agent("denied_exit0.jsonl", 0);
    assert_eq!(ends(&cluster, "do it", &["--profile", "coder"], "refuted").code, 1);
}

#[test]
fn over_budget() {
    let (cluster, _b) = with_agent("budget_in_loop_exit1.jsonl", 1);
    let told = ends(&cluster, "do it", &["--profile", "coder"], "over_budget");
    assert_eq!((told.code, told.document["result"]["cost"]["basis"].as_str()), (1, Some("reported")));
}

#[test]
fn cancelled() {
    let (cluster, _b) = watched();
    let session = Session::start(&cluster, "exec sleep 1000", &[]);
    drop(cluster.a().ctl(["cancel", &id_of(&cluster)]).ok());
    let told = session.end();
    assert_eq!((told.status(), told.code), ("cancelled", 1));
    keep_where_it_ended(&cluster, &told);
}

/// How far a task was when it was stopped differs from run to run; only what stays is kept.
fn keep_where_it_ended(cluster: &Cluster, told: &Told) {
    the_same_everywhere(cluster, told);
    let mut kept = Told { document: told.document.clone(), code: told.code };
    let result = kept.document["result"].as_object_mut().unwrap();
    for member in [
        "attempt",
        "attempts",
        "epoch",
        "exit_code",
        "signal",
        "started_at",
        "output_tail",
        "final_text",
        "log_sha256",
        "cost",
        "agent",
        "backend",
        "containment",
        "elapsed_ms",
    ] {
        assert!(result.contains_key(member), "{member}");
        result.insert(member.to_owned(), json!("<as far as it was>"));
    }
    keep(&kept);
}

#[test]
fn killed() {
    let (cluster, _b) = watched();
    let session = Session::start(&cluster, &crate::mark_and_stay(&cluster, "victim"), &[]);
    eventually("it runs", || cluster.runs.of("victim") == 1);
    drop(cluster.b().ctl(["kill", "--now", "--node", "a test says so"]));
    let told = session.end();
    assert_eq!((told.status(), told.code), ("killed", 1));
    keep_where_it_ended(&cluster, &told);
}

#[test]
fn rejected() {
    let (cluster, _b) = watched();
    assert_eq!(ends(&cluster, "echo no", &["--profile", "nobody"], "rejected").code, 77);
}

#[test]
fn denied() {
    let cluster = cluster();
    let key = cluster.b().approver("ann").display().to_string();
    let _b = cluster.b().watch();
    let session = Session::start(&cluster, "echo no", &["--require-ack"]);
    let id = id_of(&cluster);
    eventually("its terms are shown", || {
        cluster.opened("a", "b", &format!("pending-ack/{id}.terms.json")).filter(|terms| terms.verified)
    });
    let words = ["--yes", "--key", &key, &id, "--reject", "--reason", "not today"];
    drop(cluster.b().run("dispatch-ack", words).ok());
    let told = session.end();
    assert_eq!((told.status(), told.code), ("denied", 77));
    keep(&told);
    the_same_everywhere(&cluster, &told);
}

#[test]
fn expired() {
    let (cluster, _b) = watched();
    assert_eq!(ends(&cluster, "echo no", &["--require-ack", "--expires", "2s"], "expired").code, 1);
}

#[test]
fn unknown() {
    let (cluster, _b) = watched();
    let session = Session::start(&cluster, &crate::mark_and_stay(&cluster, "lost"), &[]);
    eventually("it runs", || cluster.runs.of("lost") == 1);
    for pid in cluster.b().pids("dispatch-exec") {
        dispatch_testkit::process::kill(pid);
    }
    let told = session.end();
    assert_eq!((told.status(), told.code), ("unknown", 1));
    keep_where_it_ended(&cluster, &told);
}

#[test]
fn interrupted() {
    let (cluster, _b) = watched();
    let gate = cluster.outside().join("gate");
    let session = Session::start(&cluster, &crate::wait_for(&cluster, "goes on", &gate), &[]);
    eventually("it runs", || cluster.runs.of("goes on") == 1);
    let id = id_of(&cluster);
    eventually("that is told", || {
        let opened = cluster.opened("a", "b", &format!("processing/{id}.progress.json"))?;
        opened.verified.then_some(())
    });
    // What has no result yet is a document, too.
    let result = of_ctl(&cluster.a().ctl(["result", "--json", &id]));
    assert_eq!((result.code, &result.document["status"]), (75, &Value::Null));
    assert_eq!(result.document["progress"]["phase"], "running");
    session.interrupt();
    let mut told = session.end();
    assert_eq!((told.status(), told.code), ("interrupted", 130));
    // Whether the session had seen the message when it was interrupted is a matter of its moment.
    told.document["progress"] = json!("<as far as it was>");
    keep(&told);
    fs::write(gate, "").unwrap();
    cluster.answered(&id, "ok");
    let waited = of_ctl(&cluster.a().ctl(["wait", "--json", &id]));
    assert_eq!((waited.status(), waited.code), ("ok", 0));
}

#[test]
fn unverified() {
    let cluster = cluster();
    // Nobody watches: whatever lies at the result's name was made by somebody else.
    let session = Session::start(&cluster, "echo hello", &[]);
    let id = id_of(&cluster);
    let forged = json!({"schema": 3, "task": id, "status": "ok", "final_text": "believe me"}).to_string();
    let sealed = dispatch_testkit::mail::seal("result.v3", forged.as_bytes(), &[b'k'; 32]);
    fs::write(cluster.lane("a", "b").join(format!("done/{id}.result.json")), sealed).unwrap();
    let told = session.end();
    assert_eq!((told.status(), told.code), ("unverified", 65));
    assert_eq!(told.document["result"], Value::Null);
    keep(&told);
    let mut expected = told.document.clone();
    expected["notes"] = json!([]);
    for verb in ["result", "wait"] {
        let again = of_ctl(&cluster.a().ctl([verb, "--json", &id]));
        assert_eq!((&again.document, again.code), (&expected, 65), "{verb}");
    }
}

#[test]
fn no_answer() {
    let cluster = cluster();
    let id = cluster.a().send("b", "echo hello", &[]);
    // Ten minutes after the last moment at which an answer could come; the record says when that is.
    let file = cluster.a().state_dir().join(format!("send/a-to-b/sent/{id}.json"));
    let mut record: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    assert!(record["answer_by"].is_string(), "{record:#}");
    record["answer_by"] = json!("2026-01-01T00:00:00.000Z");
    fs::write(&file, record.to_string()).unwrap();
    let told = of_ctl(&cluster.a().ctl(["wait", "--json", &id]));
    assert_eq!((told.status(), told.code), ("no_answer", 1));
    keep(&told);
}

#[test]
fn every_document_has_the_members_that_the_help_names() {
    let cluster = cluster();
    let sent = cluster.a().try_send("b", "echo hello", &["--json"]).ok();
    let document = one_document(&sent.out);
    let help = cluster.a().run("dispatch-send", ["--help"]).ok().out;
    for (member, _) in document.as_object().unwrap() {
        let named = help.lines().any(|line| line.split([' ', ',']).any(|word| word == member));
        assert!(named, "`{member}` is not in dispatch-send --help:\n{help}");
    }
    for words in [["wait", "--help"], ["result", "--help"]] {
        let ctl = cluster.a().ctl(words).ok().out;
        assert!(ctl.contains("The JSON document"), "{ctl}");
    }
}
