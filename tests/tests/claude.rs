//! Claude Code through the whole product, from `dispatch-send` to the sealed result, against a stand-in for its API.
//!
//! The real program is no part of this repository: `scripts/lab-agents.sh` fetches the version these tests are about, names
//! it in `DISPATCH_LAB_CLAUDE`, and runs those that are ignored otherwise.

#[path = "claude/lab.rs"]
mod lab;
#[path = "claude/wire.rs"]
mod wire;

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dispatch_core::protocol::time::Timestamp;
use dispatch_testkit::{check, eventually, process, wait};
use lab::{Cost, Lab, Text};
use serde_json::{Value, json};

/// What one turn of the stand-in costs, as this version of the agent prices it.
const ONE_TURN: &str = "0.0115";
const TWO_TURNS: &str = "0.023";

#[test]
#[ignore = "needs the real agent: scripts/lab-agents.sh"]
fn an_answer_comes_back_with_its_cost() {
    let lab = Lab::new("text", "");
    let sent = lab.send("say hello", &["--wait", "--json"]).ok();
    let document: Value = serde_json::from_str(&sent.out).unwrap();
    let result = lab.only_result();
    assert_eq!(document["status"], "ok", "{document:#}");
    lab.ended(&result, ("ok", None), Cost::Reported(ONE_TURN), Text::Said);
    assert_eq!(result["usage"]["input_tokens"], 100);
    assert_eq!(
        (&result["agent"]["kind"], &result["agent"]["version"]),
        (&json!("claude"), &json!("2.1.329"))
    );
    assert_eq!(result["permission_mode"], "acceptEdits");
    assert!(result["agent"]["session_id"].as_str().is_some_and(|id| id.len() == 36));
    assert!(lab.asked().iter().any(|text| text == "Request:\nsay hello"), "{:?}", lab.asked());
}

#[test]
#[ignore = "needs the real agent: scripts/lab-agents.sh"]
fn a_tool_writes_a_file_in_the_workspace() {
    let lab = Lab::with(|workspace| {
        let file = workspace.join("hello.txt").display().to_string();
        (format!("tool:Write:{}", json!({"file_path": file, "content": "hello\n"})), String::new())
    });
    let result = lab.result_of("write a file", &[]);
    lab.ended(&result, ("ok", None), Cost::Reported(TWO_TURNS), Text::Said);
    assert_eq!(fs::read_to_string(lab.workspace().join("hello.txt")).unwrap(), "hello\n");
}

#[test]
#[ignore = "needs the real agent: scripts/lab-agents.sh"]
fn an_api_that_fails_and_one_that_refuses_the_key_are_told_apart() {
    for (scenario, code) in [("error:500", "api_error"), ("error:401", "auth")] {
        let lab = Lab::new(scenario, "");
        let sent = lab.send("say hello", &["--wait"]).code(1);
        let result = lab.only_result();
        lab.ended(&result, ("error", Some(code)), Cost::Reported("0"), Text::Holds("the stand-in answers"));
        let words = result["final_text"].as_str().unwrap();
        assert_eq!((sent.out.trim_end(), &result["exit_code"]), (words, &json!(1)));
    }
}

#[test]
#[ignore = "needs the real agent: scripts/lab-agents.sh"]
fn a_permission_that_was_denied_is_no_success() {
    let lab = Lab::with(|workspace| {
        let file = workspace.with_file_name("elsewhere.txt").display().to_string();
        (format!("tool:Write:{}", json!({"file_path": file, "content": "hello\n"})), String::new())
    });
    let result = lab.result_of("write a file elsewhere", &[]);
    lab.ended(&result, ("refuted", Some("permission_denied")), Cost::Reported(TWO_TURNS), Text::Said);
    assert_eq!(result["exit_code"], 0);
    let denials = result["permission_denials"].as_array().unwrap();
    assert!(denials.len() == 1 && denials[0].as_str().unwrap().starts_with("Write /"), "{denials:?}");
    assert!(!lab.workspace().with_file_name("elsewhere.txt").exists());
}

#[test]
#[ignore = "needs the real agent: scripts/lab-agents.sh"]
fn a_costly_loop_ends_at_its_ceiling() {
    let lab = Lab::new("loop", "");
    let result = lab.result_of("go on", &[]);
    lab.ended(&result, ("over_budget", Some("over_budget")), Cost::ReportedFrom(1.0), Text::None);
}

/// What a response of 50 000 tokens read costs, in millionths of a dollar, at the list prices of the model.
const DEAR: u64 = 211_100;

/// A profile whose agent does not know how much it may spend: the flag is dropped on the way, so only our meter looks.
fn without_its_own_cap(lab_dir: &std::path::Path) -> String {
    let program = lab_dir.with_file_name("without-cap");
    let script = format!(
        "#!/bin/sh\nprintf '%s\\n' \"$@\" > '{}'\nn=$#\nwhile [ $n -gt 0 ]; do\n  arg=$1; shift; n=$((n-1))\n  \
         if [ \"$arg\" = --max-budget-usd ]; then shift; n=$((n-1)); else set -- \"$@\" \"$arg\"; fi\ndone\n\
         exec '{}' \"$@\"\n",
        program.with_extension("told").display(),
        std::env::var("DISPATCH_LAB_CLAUDE").unwrap(),
    );
    dispatch_testkit::bins::write_script(&program, &script);
    format!("[profile.default]\nargv = [{program:?}]\n")
}

#[test]
#[ignore = "needs the real agent: scripts/lab-agents.sh"]
fn our_own_meter_stops_a_costly_loop_within_one_response_of_the_ceiling() {
    let lab = Lab::with(|workspace| ("loop:50000".to_owned(), without_its_own_cap(workspace)));
    let result = lab.result_of("go on", &[]);
    let told = fs::read_to_string(lab.workspace().with_file_name("without-cap.told")).unwrap();
    assert!(
        told.lines().any(|word| word == "--max-budget-usd"),
        "it was told, and the test kept it back: {told}"
    );
    assert_eq!(
        (&result["status"], &result["reason"]["code"]),
        (&json!("over_budget"), &json!("over_budget"))
    );
    let spent = check::micros(&result["cost"]["usd"]);
    let reserved = check::micros(&result["cost"]["reserved_usd"]);
    let within_one = 1_000_000..=1_000_000 + DEAR;
    assert!(within_one.contains(&spent), "not within one response of its dollar: {result:#}");
    assert!(spent <= reserved, "what was set aside covers it: {result:#}");
    lab.nothing_left(&result);
    let asked = lab.scenarios().len();
    assert!((5..=7).contains(&asked), "{asked} requests");
    check::money_adds_up(lab.cluster.b(), &[result]);
}

#[test]
#[ignore = "needs the real agent: scripts/lab-agents.sh"]
fn an_agent_killed_before_its_last_event_is_settled_at_its_reservation() {
    let lab = Lab::with(|workspace| (stubborn(workspace), lab::ANY_COMMAND.to_owned()));
    let id = lab.sent("run it", &[]);
    eventually("the tool runs", || lab.workspace().join("running").exists());
    lab.cluster.b().pids("dispatch-exec").into_iter().for_each(process::kill);
    let result = lab.cluster.answered(&id, "unknown");
    assert_eq!(
        (&result["cost"]["basis"], &result["cost"]["usd"]),
        (&json!("reserved"), &json!("7")),
        "{result:#}"
    );
    assert_eq!(result["cost"]["reserved_usd"], "7");
    check::no_process_with_mark_left(lab.cluster.b());
    check::money_adds_up(lab.cluster.b(), &[result]);
}

#[test]
#[ignore = "needs the real agent: scripts/lab-agents.sh"]
fn a_subscription_is_not_stopped_by_dollars() {
    let lab = Lab::with(|_| {
        ("loop:50000:8".to_owned(), "[profile.default]\nbilling = \"subscription\"\n".to_owned())
    });
    let result = lab.result_of("go on", &[]);
    assert_eq!(result["status"], "ok", "{result:#}");
    assert_eq!(
        (&result["cost"]["basis"], &result["cost"]["usd"]),
        (&json!("none"), &json!("0")),
        "{result:#}"
    );
    // Nine responses, nearly two dollars at list prices, under a ceiling of one: counted, and not charged.
    assert!(result["usage"]["input_tokens"].as_u64().unwrap() >= 450_000, "{result:#}");
    check::money_adds_up(lab.cluster.b(), &[result]);
}

#[test]
#[ignore = "needs the real agent: scripts/lab-agents.sh"]
fn a_quota_wall_is_left_alone_until_its_reset() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let resets = now + Duration::from_secs(25);
    let lab = Lab::with(|_| {
        let config = "[profile.default]\nbilling = \"subscription\"\n".to_owned();
        (format!("wall:{}", resets.as_secs()), config)
    });
    let left = || resets.saturating_sub(SystemTime::now().duration_since(UNIX_EPOCH).unwrap());
    let reset = Timestamp::from_unix_ms(i64::try_from(resets.as_secs()).unwrap() * 1_000).to_string();
    // One that hit the wall and may try again, and one that came after it.
    let first = lab.sent("first", &["--max-attempts", "5"]);
    let waits = |id: &str| {
        eventually("it waits for the reset", || {
            let said = lab.cluster.b().ctl(["explain", id, "--json"]).out;
            let document: Value = serde_json::from_str(&said).unwrap_or_default();
            let also = document["also"].as_array().cloned().unwrap_or_default();
            let mut told = std::iter::once(&document).chain(&also);
            told.any(|told| {
                told["code"] == "quota_wall" && told["why"].as_str().is_some_and(|why| why.contains(&reset))
            })
        });
    };
    waits(&first);
    let second = lab.sent("second", &[]);
    waits(&second);
    let asked = lab.scenarios().len();
    assert!(left() > Duration::from_secs(2), "there is something left to wait for");
    wait::throughout(left().saturating_sub(Duration::from_secs(1)), "nobody asks again", || {
        lab.scenarios().len() == asked && lab.agents().is_empty()
    });
    let tried = lab.cluster.answered(&first, "ok");
    assert_eq!(
        (&tried["attempt"], &tried["attempts"][0]["status"]),
        (&json!(2), &json!("error")),
        "{tried:#}"
    );
    let result = lab.cluster.answered(&second, "ok");
    assert!(left().is_zero(), "not before the reset");
    assert_eq!(result["attempt"], 1, "{result:#}");
}

#[test]
#[ignore = "needs the real agent: scripts/lab-agents.sh"]
fn a_response_that_stops_in_the_middle_ends_with_the_wall_clock() {
    let lab = Lab::new("stuck", "");
    drop(lab.send("say hello", &["--wait", "--timeout", "8s"]).code(124));
    let result = lab.only_result();
    lab.ended(&result, ("timeout", Some("timeout")), Cost::Charged, Text::None);
}

#[test]
#[ignore = "needs the real agent: scripts/lab-agents.sh"]
fn an_api_that_never_answers_ends_with_the_silence() {
    let lab = Lab::new("mute", "");
    drop(lab.send("say hello", &["--wait", "--silence", "6s"]).code(124));
    let result = lab.only_result();
    lab.ended(&result, ("silent", Some("silent")), Cost::Charged, Text::None);
}

#[test]
#[ignore = "needs the real agent: scripts/lab-agents.sh"]
fn a_response_that_is_cut_off_is_asked_for_again() {
    let lab = Lab::new("drop", "");
    let result = lab.result_of("say hello", &[]);
    lab.ended(&result, ("ok", None), Cost::ReportedFrom(0.0115), Text::Said);
}

#[test]
#[ignore = "needs the real agent: scripts/lab-agents.sh"]
fn an_answer_of_ten_megabytes_is_an_answer() {
    let lab = Lab::new("long:10000000", "");
    let result = lab.result_of("say much", &[]);
    lab.ended(&result, ("ok", None), Cost::ReportedFrom(0.0115), Text::Holds("0123456789abcdef"));
    assert_eq!(result["final_text"].as_str().unwrap(), "0123456789abcdef".repeat(500));
}

/// A shell command that leaves children of several kinds behind and says so in a file.
fn stubborn(lab_dir: &std::path::Path) -> String {
    let said = lab_dir.join("running").display().to_string();
    let command = format!(
        "setsid sh -c 'trap \"\" TERM INT; sleep 900' & nohup sleep 900 & echo on > {said}; sleep 900"
    );
    format!("tool:Bash:{}", json!({"command": command, "description": "takes long", "timeout": 600_000}))
}

#[test]
#[ignore = "needs the real agent: scripts/lab-agents.sh"]
fn a_cancel_ends_a_tool_that_runs_and_keeps_the_cost() {
    let lab = Lab::with(|workspace| (stubborn(workspace), lab::ANY_COMMAND.to_owned()));
    let id = lab.sent("run it", &[]);
    eventually("the tool runs", || lab.workspace().join("running").exists());
    drop(lab.cluster.a().ctl(["cancel", &id]).ok());
    let result = lab.cluster.answered(&id, "cancelled");
    lab.ended(&result, ("cancelled", Some("cancelled")), Cost::Reported(ONE_TURN), Text::None);
}

#[test]
#[ignore = "needs the real agent: scripts/lab-agents.sh"]
fn kill_now_ends_the_whole_tree_at_once() {
    let lab = Lab::with(|workspace| (stubborn(workspace), lab::ANY_COMMAND.to_owned()));
    let id = lab.sent("run it", &[]);
    eventually("the tool runs", || lab.workspace().join("running").exists());
    let mut kill = lab.cluster.b().command("dispatchctl");
    kill.args(["kill", "--now", "--node", "the test says so"]);
    let kill = std::thread::spawn(move || process::Ended::of(kill, b""));
    // The executor has two seconds; the rest is the way there on a busy machine.
    wait::within(Duration::from_secs(5), "the agent has gone", || lab.agents().is_empty());
    drop(kill.join().unwrap());
    let result = lab.cluster.answered(&id, "killed");
    lab.ended(&result, ("killed", Some("killed")), Cost::Charged, Text::None);
}

#[test]
#[ignore = "needs the real agent: scripts/lab-agents.sh"]
fn a_request_is_text_whatever_it_begins_with() {
    let lab = Lab::new("text", "");
    let hook =
        json!({"hooks": {"SessionStart": [{"hooks": [{"type": "command", "command": "touch hooked"}]}]}});
    let settings = format!("--settings={hook}");
    for request in [settings.as_str(), "-", "/cost", "/clear", "@/etc/passwd", "see @\"/etc/passwd\" please"]
    {
        let result = lab.result_of(request, &[]);
        lab.ended(&result, ("ok", None), Cost::Reported(ONE_TURN), Text::Said);
        let asked = lab.asked();
        assert!(asked.iter().any(|text| *text == format!("Request:\n{request}")), "{request}: {asked:?}");
        assert!(!asked.iter().any(|text| text.contains("root:x:0")), "{request} reads a file");
    }
    assert!(!lab.workspace().join("hooked").exists());
}

#[test]
#[ignore = "needs the real agent: scripts/lab-agents.sh"]
fn a_hostile_workspace_changes_nothing() {
    let lab = Lab::new("text", "");
    lab.make_workspace_hostile();
    let result = lab.result_of("say hello", &[]);
    lab.ended(&result, ("ok", None), Cost::Reported(ONE_TURN), Text::Said);
    let scenarios = lab.scenarios();
    assert!(scenarios.iter().all(|scenario| scenario == "text") && !scenarios.is_empty(), "{scenarios:?}");
    assert_eq!(result["permission_mode"], "acceptEdits");
    assert!(!lab.workspace().join("hooked").exists());
}

#[test]
#[ignore = "needs the real agent: scripts/lab-agents.sh"]
fn unrestricted_as_root_is_refused_before_the_agent_starts() {
    if !rustix::process::geteuid().is_root() {
        // `scripts/lab-agents.sh` says so: what a passing test prints is not shown.
        return;
    }
    let lab = Lab::new("text", "[profile.default]\npermission_mode = \"bypassPermissions\"\n");
    let result = lab.result_of("say hello", &[]);
    lab.ended(&result, ("error", Some("cannot_start")), Cost::Nothing, Text::None);
    assert!(result["reason"]["text"].as_str().unwrap().contains("root"), "{result:#}");
    assert!(lab.scenarios().is_empty());
}
