//! What becomes of the output of Claude Code: every captured run, replayed by a program that prints it and ends as it did.
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

mod lab;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dispatch_core::policy::admission::Billing;
use dispatch_core::policy::money::Usd;
use dispatch_node::job::{AgentKind, CostBasis, Order, Outcome, OutcomeStatus, Presence, StopWhy};
use dispatch_testkit::eventually;
use lab::{Lab, Running, ended, metering, reason, written};

const HELLO: &str = "Hello from the mock. Done.";

fn captured() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captured/claude")
}

/// An order of this kind whose program is the shell script `script`.
fn order(lab: &Lab, script: &str) -> Order {
    let program = lab.scratch("claude");
    dispatch_testkit::bins::write_script(&program, &format!("#!/bin/sh\n{script}\n"));
    let mut order = lab.order_of(&[&program.display().to_string()]);
    order.kind = AgentKind::Claude;
    order.billing = Billing::Metered;
    order.ceiling_usd = Some(Usd::from_wire("2.5").unwrap());
    order.metering = Some(metering());
    order
}

fn replayed(file: &str) -> Outcome {
    let code = file.rsplit_once("_exit").map_or("0", |(_, rest)| rest.trim_end_matches(".jsonl"));
    let lab = Lab::new();
    let path = captured().join(file);
    lab.run(&order(&lab, &format!("cat > /dev/null; cat {}; exit {code}", path.display())))
}

/// File, status, reason, answer, cost, all tokens, denials.
type Expected =
    (&'static str, OutcomeStatus, &'static str, Option<&'static str>, Option<&'static str>, u64, usize);

#[rustfmt::skip]
const EXPECTED: &[Expected] = &[
    ("api_401_exit1.jsonl", OutcomeStatus::Error, "auth", Some("Failed to authenticate. API Error: 401 mock error 401"), Some("0"), 0, 0),
    ("api_500_two_retries_exit1.jsonl", OutcomeStatus::Error, "api_error", Some(""), Some("0"), 0, 0),
    ("budget_first_turn_exit1.jsonl", OutcomeStatus::OverBudget, "over_budget", None, Some("0.0115"), 5_125, 0),
    ("budget_in_loop_exit1.jsonl", OutcomeStatus::OverBudget, "over_budget", None, Some("0.0345"), 15_375, 0),
    ("denied_exit0.jsonl", OutcomeStatus::Refuted, "permission_denied", Some(HELLO), Some("0.023"), 10_250, 1),
    ("init_not_first.jsonl", OutcomeStatus::Ok, "", Some(HELLO), Some("0.0115"), 5_125, 0),
    ("lines_after_result.jsonl", OutcomeStatus::Ok, "", Some(HELLO), Some("0.023"), 10_250, 0),
    ("max_turns_exit1.jsonl", OutcomeStatus::Error, "max_turns", None, Some("0.023"), 10_250, 0),
    ("not_logged_in_exit1.jsonl", OutcomeStatus::Error, "auth", Some("Not logged in · Please run /login"), Some("0"), 0, 0),
    ("resumed_cumulative_cost.jsonl", OutcomeStatus::Ok, "", Some(HELLO), Some("0.0115"), 5_125, 0),
    ("sigint_exit0.jsonl", OutcomeStatus::Error, "aborted", None, Some("0.0115"), 5_125, 0),
    ("sigterm_no_result_exit143.jsonl", OutcomeStatus::Error, "no_final_answer", None, None, 5_101, 0),
    ("slash_command_no_model_call.jsonl", OutcomeStatus::Error, "no_model_call", Some(""), Some("0"), 0, 0),
    ("stream_dropped_retried.jsonl", OutcomeStatus::Ok, "", Some(HELLO), Some("0.02252"), 10_226, 0),
    ("success_2_1_197.jsonl", OutcomeStatus::Error, "agent_version", Some(HELLO), Some("0.015125"), 5_125, 0),
    ("success_partial.jsonl", OutcomeStatus::Ok, "", Some(HELLO), Some("0.0115"), 5_125, 0),
    ("success_recommended.jsonl", OutcomeStatus::Ok, "", Some(HELLO), Some("0.0115"), 5_125, 0),
    ("tool_use.jsonl", OutcomeStatus::Ok, "", Some(HELLO), Some("0.023"), 10_250, 0),
];

#[test]
fn every_captured_run_becomes_what_happened() {
    let mut files: Vec<String> = fs::read_dir(captured())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    assert_eq!(files, EXPECTED.iter().map(|expected| expected.0).collect::<Vec<_>>());
    for (file, status, code, text, usd, tokens, denials) in EXPECTED {
        let outcome = replayed(file);
        assert_eq!(ended(&outcome), (*status, *code), "{file}");
        match (text, outcome.final_text.as_deref()) {
            // Some words, not worth repeating here.
            (Some(""), Some(words)) => assert!(!words.is_empty(), "{file}"),
            (text, found) => assert_eq!(found, *text, "{file}"),
        }
        let cost = outcome.cost.map(|cost| (cost.usd.to_string(), cost.basis));
        assert_eq!(cost, usd.map(|usd| (usd.to_owned(), CostBasis::Reported)), "{file}");
        let usage = outcome.usage.unwrap();
        let all =
            [usage.input_tokens, usage.output_tokens, usage.cache_read_tokens, usage.cache_write_tokens];
        assert_eq!(all.iter().sum::<u64>(), *tokens, "{file}: {usage:?}");
        assert_eq!(outcome.permission_denials.len(), *denials, "{file}");
        let agent = outcome.agent.unwrap();
        let version = if file.contains("2_1_197") { "2.1.197" } else { "2.1.329" };
        assert_eq!(agent.version.as_deref(), Some(version), "{file}");
        let printed = fs::read_to_string(captured().join(file)).unwrap();
        assert!(printed.contains(&format!("\"session_id\":\"{}\"", agent.session_id.unwrap())), "{file}");
        assert_eq!(outcome.containment.unwrap().descendants_left, 0, "{file}");
    }
}

#[test]
fn permission_denial_is_not_success() {
    let outcome = replayed("denied_exit0.jsonl");
    assert_eq!((outcome.exit_code, outcome.status), (Some(0), OutcomeStatus::Refuted));
    assert_eq!(outcome.permission_denials, ["Write /workspace"]);
    assert!(outcome.reason.unwrap().text.contains("Write /workspace"));
}

#[test]
fn the_request_is_only_on_standard_input_behind_a_line_of_ours() {
    let lab = Lab::new();
    let seen = lab.scratch("seen");
    let script = format!("cat > {0}; printf '%s\\n' \"$@\" > {0}.args; env > {0}.env", seen.display());
    lab.run(&order(&lab, &script));
    assert_eq!(written(&seen), "Request:\nthe request\n");
    let args = written(&seen.with_extension("args"));
    let args: Vec<&str> = args.lines().collect();
    let value = |option: &str| args[args.iter().position(|arg| *arg == option).unwrap() + 1];
    assert!(args.starts_with(&["-p", "--output-format", "stream-json", "--verbose"]));
    assert_eq!(value("--permission-mode"), "acceptEdits");
    assert_eq!(value("--setting-sources"), "user");
    assert_eq!(value("--max-budget-usd"), "2.5");
    assert_eq!(value("--session-id").len(), 36);
    assert!(args.contains(&"--strict-mcp-config"));
    assert!(!args.iter().any(|arg| arg.contains("the request")));
    let variables = written(&seen.with_extension("env"));
    for name in
        ["CLAUDE_CODE_DISABLE_BACKGROUND_TASKS", "CLAUDE_CODE_DISABLE_FILE_MENTIONS", "DISABLE_AUTOUPDATER"]
    {
        assert!(variables.lines().any(|line| line == format!("{name}=1")), "{name}");
    }
}

#[test]
fn a_flat_plan_gets_no_cap_in_dollars() {
    let lab = Lab::new();
    let seen = lab.scratch("seen");
    let mut order = order(&lab, &format!("printf '%s\\n' \"$@\" > {}", seen.display()));
    order.billing = Billing::Subscription;
    lab.run(&order);
    assert!(!written(&seen).contains("--max-budget-usd"));
}

#[test]
fn unrestricted_mode_is_not_started_as_root() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    for own in [
        &[][..],
        &["--dangerously-skip-permissions".to_owned()],
        &["--permission-mode=bypassPermissions".to_owned()],
    ] {
        let lab = Lab::new();
        let mut order = order(&lab, "exit 0");
        order.argv.extend_from_slice(own);
        order.permission_mode = own.is_empty().then(|| "bypassPermissions".to_owned());
        let job = lab.job(&order);
        let outcome = Running::start(&job).outcome();
        assert_eq!(ended(&outcome), (OutcomeStatus::Error, "cannot_start"));
        assert!(!outcome.spawned);
        assert!(outcome.reason.unwrap().text.contains("root"));
        assert_eq!(job.started().unwrap(), Presence::Absent);
    }
}

/// A program that prints a captured run and then does something else than ending.
fn after(file: &str, then: &str) -> String {
    format!("cat {}; {then}", captured().join(file).display())
}

#[test]
fn the_final_line_is_the_end_of_the_run_and_its_tree_goes_after_a_grace() {
    let lab = Lab::new();
    let mut order =
        order(&lab, &after("lines_after_result.jsonl", "echo '{\"type\":\"later\"}'; exec sleep 600"));
    // Neither the silence nor the wall clock of the grace counts.
    order.silence_timeout_s = 2;
    order.timeout_s = 3;
    let start = Instant::now();
    let outcome = lab.run(&order);
    assert!(start.elapsed() >= Duration::from_secs(10));
    assert!(start.elapsed() < Duration::from_secs(20));
    assert_eq!(ended(&outcome), (OutcomeStatus::Ok, ""));
    assert_eq!(outcome.final_text.as_deref(), Some(HELLO));
    assert_eq!(outcome.containment.unwrap().descendants_left, 0);
}

#[test]
fn a_kill_after_the_final_line_ends_the_process_and_keeps_the_answer() {
    let lab = Lab::new();
    let said = lab.scratch("said");
    let order = order(
        &lab,
        &after("tool_use.jsonl", &format!("trap '' INT; echo said > {}; sleep 600", said.display())),
    );
    let job = lab.job(&order);
    let running = Running::start(&job);
    written(&said);
    eventually("the answer is heard", || job.read_progress().unwrap().is_some_and(|far| far.usd.is_some()));
    running.stop(StopWhy::Killed);
    let outcome = running.outcome_within(Duration::from_secs(4));
    assert_eq!(ended(&outcome), (OutcomeStatus::Ok, ""));
}

#[test]
fn an_interrupt_comes_first_and_keeps_the_cost() {
    let lab = Lab::new();
    let begun = lab.scratch("begun");
    let script = format!(
        "trap 'cat {}; exit 0' INT; echo begun > {}; while :; do sleep 0.1; done",
        captured().join("sigint_exit0.jsonl").display(),
        begun.display()
    );
    let running = Running::start(&lab.job(&order(&lab, &script)));
    written(&begun);
    running.stop(StopWhy::Cancelled);
    let outcome = running.outcome_within(Duration::from_secs(4));
    assert_eq!(ended(&outcome), (OutcomeStatus::Cancelled, "cancelled"));
    assert_eq!(outcome.exit_code, Some(0));
    assert_eq!(outcome.cost.unwrap().usd.to_string(), "0.0115");
    assert_eq!(outcome.final_text, None);
}

#[test]
fn a_run_cut_off_in_its_first_response_has_no_known_cost() {
    let lab = Lab::new();
    let line = r#"{"type":"result","subtype":"error_during_execution","is_error":true,"total_cost_usd":0}"#;
    let outcome = lab.run(&order(&lab, &format!("cat > /dev/null; echo '{line}'")));
    assert_eq!(ended(&outcome), (OutcomeStatus::Error, "aborted"));
    assert_eq!(outcome.cost, None);
}

#[test]
fn an_open_tool_call_counts_as_output() {
    let tool = r#"{"type":"assistant","message":{"id":"m","content":[{"type":"tool_use","id":"t","name":"Bash","input":{"command":"make"}}]}}"#;
    let lab = Lab::new();
    let mut order = order(&lab, &format!("echo '{tool}'; exec sleep 600"));
    order.silence_timeout_s = 1;
    order.tool_timeout_s = 4;
    let start = Instant::now();
    let outcome = lab.run(&order);
    assert!(start.elapsed() >= Duration::from_secs(5));
    assert_eq!(ended(&outcome), (OutcomeStatus::Silent, "silent"));
}

#[test]
fn progress_tells_turns_tool_tokens_and_a_line_for_people() {
    let lab = Lab::new();
    let tool = r#"{"type":"assistant","parent_tool_use_id":null,"message":{"id":"m","usage":{"input_tokens":7,"output_tokens":3},"content":[{"type":"tool_use","id":"t","name":"Bash","input":{"command":"make all"}}]}}"#;
    let running = Running::start(&lab.job(&order(&lab, &format!("echo '{tool}'; exec sleep 600"))));
    let far = eventually("progress is told", || running.job.read_progress().unwrap());
    assert_eq!((far.turns, far.tokens), (Some(1), Some(10)));
    // Nobody said which model it was.
    assert_eq!(far.usd.map(|usd| usd.to_string()).as_deref(), Some("0.00033"));
    assert_eq!(far.last_tool.as_deref(), Some("Bash"));
    assert_eq!(far.last_line.as_deref(), Some("Bash make all"));
    running.stop(StopWhy::Killed);
    running.outcome();
}

#[test]
fn an_answer_of_ten_megabytes_is_read_and_cut() {
    let lab = Lab::new();
    let script = r#"printf '{"result":"'; head -c 10000000 /dev/zero | tr '\0' 'x'; echo '","subtype":"success","type":"result","total_cost_usd":1e-3}'"#;
    let outcome = lab.run(&order(&lab, script));
    assert_eq!(ended(&outcome), (OutcomeStatus::Ok, ""));
    assert_eq!(outcome.final_text.unwrap(), "x".repeat(8_000));
    assert_eq!(outcome.cost.unwrap().usd.to_string(), "0.001");
}

#[test]
fn a_limit_of_the_account_is_told_with_its_end() {
    let lab = Lab::new();
    let wall = r#"{"type":"rate_limit_event","rate_limit_info":{"status":"rejected","resetsAt":1800000000,"rateLimitType":"five_hour"}}"#;
    let end = r#"{"type":"result","subtype":"success","is_error":true,"api_error_status":429,"result":"limit reached","total_cost_usd":0}"#;
    let outcome = lab.run(&order(&lab, &format!("echo '{wall}'; echo '{end}'; exit 1")));
    assert_eq!(ended(&outcome), (OutcomeStatus::Error, "quota_wall"));
    assert_eq!(outcome.resets_at.unwrap().to_string(), "2027-01-15T08:00:00.000Z");
    assert!(outcome.reason.unwrap().help.contains("2027-01-15T08:00:00"));
}

#[test]
fn a_version_that_is_too_old_is_ended_on_its_first_line() {
    let lab = Lab::new();
    let init = r#"{"type":"system","subtype":"init","claude_code_version":"2.1.197","session_id":"s"}"#;
    let running = Running::start(&lab.job(&order(&lab, &format!("echo '{init}'; exec sleep 600"))));
    let outcome = running.outcome_within(Duration::from_secs(4));
    assert_eq!(ended(&outcome), (OutcomeStatus::Error, "agent_version"));
    assert_eq!(outcome.cost, None);
}

#[test]
fn an_unknown_version_is_remarked_on_and_nothing_else_matters_less() {
    let lab = Lab::new();
    let lines = r#"{"type":"system","subtype":"init","claude_code_version":"3.1.0"}
no json
[1]
{"type":7,"session_id":{}}
{"type":"new_kind","x":{"y":[1e999]}}
{"type":"result","subtype":"success","is_error":"no","result":"done","num_turns":-1,"modelUsage":[],"permission_denials":{}}"#;
    let outcome = lab.run(&order(&lab, &format!("cat <<'END'\n{lines}\nEND")));
    assert_eq!(ended(&outcome), (OutcomeStatus::Ok, "agent_version"));
    assert_eq!(outcome.final_text.as_deref(), Some("done"));
}

#[test]
fn an_answer_without_words_or_with_a_bad_end_is_none() {
    for (line, code, expected) in [
        (r#"{"type":"result","subtype":"success","result":" "}"#, 0, "no_final_answer"),
        (r#"{"type":"result","subtype":"success"}"#, 0, "no_final_answer"),
        (r#"{"type":"result","subtype":"success","result":"done"}"#, 3, "exit_code"),
        (r#"{"type":"result","subtype":"error_of_tomorrow","result":"done"}"#, 0, "agent_error"),
        (r#"{"type":"result","result":"done"}"#, 0, "agent_error"),
        ("", 0, "no_final_answer"),
    ] {
        let lab = Lab::new();
        let outcome = lab.run(&order(&lab, &format!("echo '{line}'; exit {code}")));
        assert_eq!((outcome.status, reason(&outcome)), (OutcomeStatus::Error, expected), "{line}");
    }
}
