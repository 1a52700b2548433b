//! What an attempt's outcome says of an agent that ends by itself, or never starts.

mod lab;

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Stdio};

use dispatch_core::protocol::names::Digest;
use dispatch_node::job::{JobDir, Mechanism, OutcomeStatus, Presence, StopWhy};
use lab::{ID, Lab, Running, command, ended, reason, written};

#[test]
fn the_request_is_standard_input_and_the_answer_standard_output() {
    let lab = Lab::new();
    let job = lab.job(&lab.order("cat; echo oops >&2"));
    let outcome = Running::start(&job).outcome();
    assert_eq!(outcome.status, OutcomeStatus::Ok);
    assert!(outcome.spawned);
    assert_eq!((outcome.exit_code, outcome.signal, outcome.reason), (Some(0), None, None));
    assert_eq!(outcome.final_text.as_deref(), Some("the request\n"));
    let log = fs::read(job.log_path()).unwrap();
    assert_eq!(log.len(), "the request\noops\n".len());
    assert_eq!((outcome.output_bytes, outcome.log_bytes, outcome.truncated), (17, 17, false));
    assert_eq!(outcome.log_sha256, Some(Digest::of(&log)));
    assert_eq!(outcome.output_tail.unwrap().as_bytes(), log);
    assert_eq!(outcome.epoch, 7);
    assert!(outcome.started_at <= outcome.ended_at);
    let containment = outcome.containment.unwrap();
    assert!(matches!(containment.mechanism, Mechanism::Subreaper | Mechanism::Cgroup));
    assert_eq!(containment.descendants_left, 0);
    let agent = outcome.agent.unwrap();
    assert_eq!(agent.profile.as_str(), "shell");
    assert_eq!(fs::read(lab.mirror()).unwrap(), log);
    let started = job.read_started().unwrap().unwrap();
    assert_eq!((started.epoch, started.mechanism), (7, containment.mechanism));
}

#[test]
fn an_agent_that_fails_is_an_error_with_its_code_or_signal() {
    let lab = Lab::new();
    let outcome = lab.run(&lab.order("exit 3"));
    assert_eq!(ended(&outcome), (OutcomeStatus::Error, "exit_code"));
    assert_eq!((outcome.exit_code, outcome.signal), (Some(3), None));
    let lab = Lab::new();
    let outcome = lab.run(&lab.order("kill -9 $$"));
    assert_eq!(ended(&outcome), (OutcomeStatus::Error, "signal"));
    assert_eq!((outcome.exit_code, outcome.signal), (None, Some(9)));
}

#[test]
fn a_program_that_is_not_there_is_an_error_that_was_never_spawned() {
    let lab = Lab::new();
    let outcome = lab.run(&lab.order_of(&["/no/such/program"]));
    assert_eq!(ended(&outcome), (OutcomeStatus::Error, "cannot_start"));
    assert!(!outcome.spawned);
    assert_eq!(outcome.final_text, None);
    assert!(outcome.reason.unwrap().text.contains("/no/such/program"));
}

#[test]
fn a_working_directory_that_is_not_there_is_an_error_before_the_start() {
    let lab = Lab::new();
    let mut order = lab.order("true");
    order.cwd = Some("/no/such/directory".into());
    let job = lab.job(&order);
    let outcome = Running::start(&job).outcome();
    assert_eq!(ended(&outcome), (OutcomeStatus::Error, "cannot_start"));
    assert_eq!(job.started().unwrap(), Presence::Absent);
}

#[test]
fn an_agent_works_where_it_is_told_or_in_a_fresh_directory() {
    let lab = Lab::new();
    let job = lab.job(&lab.order("pwd; ls -A"));
    let outcome = Running::start(&job).outcome();
    assert_eq!(
        outcome.final_text.unwrap(),
        format!("{}\n", job.work_path().canonicalize().unwrap().display())
    );
    let lab = Lab::new();
    let mut order = lab.order("pwd");
    order.cwd = Some(lab.root().canonicalize().unwrap());
    assert_eq!(
        lab.run(&order).final_text.unwrap(),
        format!("{}\n", lab.root().canonicalize().unwrap().display())
    );
}

#[test]
fn output_that_is_no_text_is_made_valid() {
    let lab = Lab::new();
    let outcome = lab.run(&lab.order(r"printf 'a\000b\377\303'"));
    assert_eq!(outcome.final_text.as_deref(), Some("a\u{FFFD}b\u{FFFD}\u{FFFD}"));
    assert_eq!(outcome.log_bytes, 5);
}

#[test]
fn the_environment_holds_the_minimum_and_what_the_profile_names() {
    let lab = Lab::new();
    let mut order = lab.order_of(&["/usr/bin/env", "-0"]);
    order.env = vec!["PASSED_ON".into(), "NOT_SET".into()];
    order.set.insert("SET_HERE".into(), "value = 1".into());
    order.set.insert("DISPATCH_MARK".into(), "forged".into());
    let job = lab.job(&order);
    let mut command = command(&job);
    command
        .env("PASSED_ON", "secret")
        .env("DISPATCH_CONFIG", "/etc/x")
        .env("ANY_OTHER", "x")
        .env_remove("USER");
    let outcome = Running::of(command, &job).outcome();
    let shown = fs::read_to_string(job.log_path()).unwrap();
    let names: BTreeSet<&str> =
        shown.split_terminator('\0').map(|entry| entry.split_once('=').unwrap().0).collect();
    let expected = BTreeSet::from([
        "PATH",
        "HOME",
        "USER",
        "LANG",
        "TERM",
        "TMPDIR",
        "PASSED_ON",
        "SET_HERE",
        "DISPATCH_TASK",
        "DISPATCH_SENDER",
        "DISPATCH_NODE",
        "DISPATCH_ATTEMPT",
        "DISPATCH_EPOCH",
        "DISPATCH_MARK",
        "DISPATCH_DOOR",
    ]);
    assert_eq!(names, expected);
    for entry in ["PASSED_ON=secret", "SET_HERE=value = 1", "TERM=dumb", &format!("DISPATCH_TASK={ID}")] {
        assert!(shown.split('\0').any(|shown| shown == entry), "{entry}");
    }
    assert!(!shown.contains("forged"));
    assert_eq!(outcome.status, OutcomeStatus::Ok);
}

#[test]
fn an_agent_that_may_send_tasks_finds_its_door_and_its_token_and_another_no_token() {
    let lab = Lab::new();
    let script = "ls -a \"$DISPATCH_DOOR\" | sort | tr '\\n' ' '; stat -c %a \"$DISPATCH_DOOR\"; echo \"$DISPATCH_TOKEN\"; command -v dispatch-exec";
    let mut order = lab.order(script);
    order.token = Some("t0ken".into());
    order.set.insert("DISPATCH_TOKEN".into(), "forged".into());
    let job = lab.job(&order);
    let outcome = Running::start(&job).outcome();
    let own = env!("CARGO_BIN_EXE_dispatch-exec");
    let wanted = format!(". .. replies requests results 700\nt0ken\n{own}\n");
    assert_eq!(outcome.final_text.as_deref(), Some(wanted.as_str()));

    let mut order =
        lab.order("echo \"${DISPATCH_DOOR-none} ${DISPATCH_TOKEN-none}\"; command -v dispatch-exec || true");
    order.epoch = 8;
    order.env = vec!["DISPATCH_DOOR".into(), "DISPATCH_TOKEN".into()];
    let job = lab.job(&order);
    let mut command = command(&job);
    command.env("DISPATCH_DOOR", "/another").env("DISPATCH_TOKEN", "another");
    let wanted = format!("{} none\n", job.door_path().display());
    assert_eq!(Running::of(command, &job).outcome().final_text.as_deref(), Some(wanted.as_str()));
    assert!(!job.door_path().exists());
}

#[test]
fn an_agent_holds_no_file_of_its_executor_but_the_request() {
    let lab = Lab::new();
    let outcome = lab.run(&lab.order("exec ls -l /proc/self/fd"));
    let listed = outcome.final_text.unwrap();
    let of_lab: Vec<&str> =
        listed.lines().filter(|line| line.contains("/state/") || line.contains("/share/")).collect();
    assert!(matches!(of_lab[..], [request] if request.ends_with("/stdin")), "{listed}");
}

#[test]
fn a_stop_before_the_start_starts_nothing() {
    let lab = Lab::new();
    let ran = lab.scratch("ran");
    for (why, code) in [(StopWhy::Cancelled, "cancelled"), (StopWhy::Killed, "killed")] {
        let mut order = lab.order(&format!("touch {}", ran.display()));
        order.epoch = if why == StopWhy::Killed { 8 } else { 7 };
        let job = lab.job(&order);
        let at = dispatch_core::protocol::time::Timestamp::from_unix_ms(0);
        job.write_stop(&dispatch_node::job::Stop { why, at }).unwrap();
        let outcome = Running::start(&job).outcome();
        assert_eq!(ended(&outcome), (OutcomeStatus::NotStarted, code));
        assert!(!outcome.spawned);
        assert_eq!(job.started().unwrap(), Presence::Absent);
    }
    assert!(!ran.exists());
}

#[test]
fn a_killswitch_in_any_place_before_the_start_starts_nothing() {
    for place in 0..3 {
        let lab = Lab::new();
        let ran = lab.scratch("ran");
        let order = lab.order(&format!("touch {}", ran.display()));
        let places = [lab.root(), lab.lane(), lab.state()];
        fs::create_dir(places[place].join("KILLSWITCH")).unwrap();
        assert_eq!(ended(&lab.run(&order)), (OutcomeStatus::NotStarted, "killswitch"));
        assert!(!ran.exists());
    }
}

#[test]
fn a_share_that_is_empty_starts_nothing() {
    let lab = Lab::new();
    fs::remove_file(lab.root().join("CLUSTER")).unwrap();
    assert_eq!(ended(&lab.run(&lab.order("true"))), (OutcomeStatus::NotStarted, "share_unreachable"));
}

#[test]
fn a_revoked_attempt_starts_nothing_and_writes_nothing() {
    let lab = Lab::new();
    let ran = lab.scratch("ran");
    let job = lab.job(&lab.order(&format!("touch {}", ran.display())));
    job.revoke().unwrap();
    assert_eq!(Running::start(&job).code(), Some(0));
    assert_eq!(job.started().unwrap(), Presence::Absent);
    assert_eq!(job.outcome().unwrap(), Presence::Absent);
    assert!(!ran.exists());
}

#[test]
fn a_begun_attempt_is_not_begun_again() {
    let lab = Lab::new();
    let ran = lab.scratch("ran");
    let job = lab.job(&lab.order(&format!("echo ran >> {}", ran.display())));
    Running::start(&job).outcome();
    let before = fs::read(job.file("outcome.json")).unwrap();
    assert_eq!(Running::start(&job).code(), Some(0));
    assert_eq!(fs::read(job.file("outcome.json")).unwrap(), before);
    assert_eq!(written(&ran), "ran\n");
}

#[test]
fn a_lock_that_is_held_is_waited_for_and_then_left_alone() {
    let lab = Lab::new();
    let job = lab.job(&lab.order("true"));
    let dispatch_node::job::Locked::Held(lock) = job.try_lock(std::time::Duration::ZERO).unwrap() else {
        panic!("nobody has it yet")
    };
    let mut waiting = Running::start(&job);
    assert_eq!(waiting.code(), Some(75));
    assert_eq!(job.outcome().unwrap(), Presence::Absent);
    // Revoked while it waits: it must look after it got the lock, not before.
    let mut waiting = Running::start(&job);
    dispatch_testkit::eventually("it waits at the lock", || holds_open(waiting.pid(), "lock"));
    job.revoke().unwrap();
    drop(lock);
    assert_eq!(waiting.code(), Some(0));
    assert_eq!(job.started().unwrap(), Presence::Absent);
}

fn holds_open(pid: i32, name: &str) -> bool {
    let Ok(handles) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    handles.flatten().any(|handle| fs::read_link(handle.path()).is_ok_and(|to| to.ends_with(name)))
}

#[test]
fn an_order_for_another_directory_is_not_carried_out() {
    let lab = Lab::new();
    let order = lab.order("true");
    let job = lab.job(&order);
    let text = fs::read_to_string(job.file("order.json")).unwrap();
    fs::write(job.file("order.json"), text.replace("\"epoch\":7", "\"epoch\":8")).unwrap();
    assert_eq!(Running::start(&job).code(), Some(74));
    assert_eq!(job.outcome().unwrap(), Presence::Absent);
}

#[test]
fn a_dry_run_shows_names_and_limits_and_no_value() {
    let lab = Lab::new();
    let ran = lab.scratch("ran");
    let mut order = lab.order(&format!("touch {}", ran.display()));
    order.env = vec!["PASSED_ON".into()];
    let job = lab.job(&order);
    let output = Command::new(env!("CARGO_BIN_EXE_dispatch-exec"))
        .args(["--dry-run", "--job"])
        .arg(job.path())
        .env("PASSED_ON", "hush")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    for word in ["/bin/sh", "PASSED_ON", "timeout_s", "600", "max_output_bytes", "2000000"] {
        assert!(text.contains(word), "{word}: {text}");
    }
    assert!(!text.contains("hush"));
    assert!(!text.contains("the request"));
    assert!(!ran.exists());
    assert_eq!(job.started().unwrap(), Presence::Absent);
}

#[test]
fn a_directory_that_is_none_is_named_with_a_help() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_dispatch-exec")).args(["--job", "/no/such/job"]).output().unwrap();
    assert_eq!(output.status.code(), Some(74));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("/no/such/job") && text.contains("help:"), "{text}");
}

#[test]
fn a_lost_mirror_changes_nothing() {
    let lab = Lab::new();
    fs::remove_dir(lab.lane().join("done")).unwrap();
    let outcome = lab.run(&lab.order("echo out"));
    assert_eq!((outcome.status, reason(&outcome)), (OutcomeStatus::Ok, ""));
    assert_eq!(outcome.log_bytes, 4);
}

#[test]
fn a_job_directory_is_found_again_by_its_path() {
    let lab = Lab::new();
    let job = lab.job(&lab.order("true"));
    assert_eq!(JobDir::list(&lab.state()).unwrap().jobs, [job]);
}
