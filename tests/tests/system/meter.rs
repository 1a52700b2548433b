//! Coding agents paid by the token, metered while they run: a program that speaks Claude Code's stream stands for one. It
//! runs its request as a shell script, so that every task says what its agent spends.

use std::fs;

use dispatch_testkit::bins::write_script;
use dispatch_testkit::{Cluster, check, eventually};
use serde_json::{Value, json};

use crate::cluster;

/// The configuration of `b`: paid work up to `caps`, by an agent whose tasks may cost a dollar each.
fn metered(cluster: &Cluster, caps: &str) {
    let program = cluster.outside().join("claude");
    write_script(&program, "#!/bin/sh\ntail -n +2 | exec /bin/sh\n");
    cluster.b().configure(&format!(
        "[budget]\nrun_usd = \"{caps}\"\nmonth_usd = \"{caps}\"\n\
         [profile.default]\nagent = \"claude\"\nargv = [{program:?}]\nbilling = \"metered\"\n\
         max_cost_usd = \"1\"\novershoot_usd = \"6\"\nmodels = [\"claude-opus-5-5\"]\n"
    ));
}

/// A response of the model as the agent tells it: when it begins, as a message, and when it ends. 20 000 tokens read and
/// 1 000 written are ten cents.
fn response(id: &str) -> String {
    let usage = |output: u64| json!({"input_tokens": 20_000, "output_tokens": output});
    let message =
        json!({"id": id, "model": "claude-opus-5-5", "content": [], "stop_reason": null, "usage": usage(1)});
    let event = |event: Value| json!({"type": "stream_event", "event": event, "api_message_id": id});
    let end = json!({"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": usage(1_000)});
    let lines = [
        event(json!({"type": "message_start", "message": message})),
        json!({"type": "assistant", "message": message}),
        event(end),
    ];
    lines.map(|line| format!("echo '{line}'\n")).concat()
}

fn done(more: &Value) -> String {
    let mut line = json!({"type": "result", "subtype": "success", "is_error": false, "session_id": "s", "result": "done"});
    let members = more.as_object().unwrap().clone();
    line.as_object_mut().unwrap().extend(members);
    format!("echo '{line}'\n")
}

#[test]
fn hard_cap_stops_a_running_task() {
    let cluster = cluster();
    metered(&cluster, "100");
    let _b = cluster.b().watch();
    // It would spend 40 dollars, and says what it cost when it is asked to end.
    let said = done(&json!({"subtype": "error_during_execution", "is_error": true, "total_cost_usd": 1.1}));
    let loops = (0..400).map(|n| response(&format!("m{n}")) + "sleep 0.02\n").collect::<String>();
    let id = cluster.a().send("b", &format!("trap '{}exit 0' INT\n{loops}", said.replace('\'', "\"")), &[]);
    let result = cluster.answered(&id, "over_budget");
    assert_eq!(result["reason"]["code"], "over_budget", "{result:#}");
    let spent = check::micros(&result["cost"]["usd"]);
    assert!(spent <= 7_000_000, "within what was set aside for it: {result:#}");
    assert_eq!(result["cost"]["reserved_usd"], "7");
    assert_eq!(result["containment"]["descendants_left"], 0);
    assert_eq!(entries(&cluster, &id, "ended")[0]["code"], "over_budget");
    let near = entries(&cluster, &id, "near_ceiling");
    assert_eq!(near.len(), 1, "{near:?}");
    assert_eq!(near[0]["data"]["ceiling_usd"], "1");
    assert!(check::micros(&near[0]["data"]["usd"]) >= 800_000, "{near:?}");
    check::money_adds_up(cluster.b(), &[result]);
    check::audit_verifies(cluster.b());
}

/// What the audit of `b` says of a task, by the kind of the entry; nothing before it is taken.
fn entries(cluster: &Cluster, id: &str, kind: &str) -> Vec<Value> {
    let shown = cluster.b().ctl(["audit", "show", "--own", "--task", id, "--json"]);
    if shown.code == 66 {
        return Vec::new();
    }
    let shown = shown.ok();
    let read = |line: &str| serde_json::from_str::<Value>(line).unwrap()["line"].take();
    shown.out.lines().map(read).filter(|line| line["kind"] == kind).collect()
}

#[test]
fn an_agent_near_its_ceiling_is_told_of_once_while_it_still_runs() {
    let cluster = cluster();
    metered(&cluster, "100");
    let gate = cluster.outside().join("gate");
    let b = cluster.b().watch();
    let spends: String = (0..8).map(|n| response(&format!("m{n}"))).collect();
    let waits = format!("while [ ! -e '{}' ]; do sleep 0.02; done\n", gate.display());
    let end = done(&json!({"total_cost_usd": 0.8}));
    let id = cluster.a().send("b", &format!("{spends}{waits}{end}"), &[]);
    let told = || entries(&cluster, &id, "near_ceiling").len();
    eventually("it is told", || told() == 1);
    // Another watcher finds the same word of the executor, and the entry.
    b.crash();
    let _b = cluster.b().watch();
    fs::write(&gate, "").unwrap();
    let result = cluster.answered(&id, "ok");
    assert_eq!((&result["cost"]["usd"], &result["cost"]["basis"]), (&json!("0.8"), &json!("reported")));
    assert_eq!(told(), 1);
}

#[test]
fn cumulative_usage_is_not_double_counted() {
    let cluster = cluster();
    metered(&cluster, "100");
    let _b = cluster.b().watch();
    // Two responses, each told over and over: added up, that is far above the ceiling.
    let again = (response("first") + &response("second")).repeat(20);
    let own = json!({"claude-opus-5-5": {"inputTokens": 40_000, "outputTokens": 2_000, "costUSD": 0.2}});
    // The agent's total goes on from an earlier session.
    let end = done(&json!({"total_cost_usd": 30.2, "model_usage_since_last_result": own}));
    let id = cluster.a().send("b", &format!("{again}{end}"), &[]);
    let result = cluster.answered(&id, "ok");
    assert_eq!((&result["cost"]["usd"], &result["cost"]["basis"]), (&json!("0.2"), &json!("reported")));
    assert_eq!(result["usage"]["input_tokens"], 40_000, "{result:#}");
    // Without a figure of its own, the meter says what it cost.
    let id = cluster.a().send("b", &format!("{again}{}", done(&json!({}))), &[]);
    let derived = cluster.answered(&id, "ok");
    assert_eq!((&derived["cost"]["usd"], &derived["cost"]["basis"]), (&json!("0.2"), &json!("derived")));
    check::money_adds_up(cluster.b(), &[result, derived]);
}

#[test]
fn subscription_run_is_not_killed_by_usd_cap() {
    let cluster = cluster();
    metered(&cluster, "0");
    cluster.b().configure("[profile.default]\nbilling = \"subscription\"\n");
    let _b = cluster.b().watch();
    let spends: String = (0..40).map(|n| response(&format!("m{n}"))).collect();
    let id = cluster.a().send("b", &format!("{spends}{}", done(&json!({"total_cost_usd": 4}))), &[]);
    let result = cluster.answered(&id, "ok");
    assert_eq!((&result["cost"]["usd"], &result["cost"]["basis"]), (&json!("0"), &json!("none")));
    assert_eq!(result["usage"]["output_tokens"], 40_000, "{result:#}");
}

#[test]
fn paid_backend_without_price_is_refused() {
    let cluster = cluster();
    metered(&cluster, "100");
    let check = || cluster.b().ctl(["config", "check"]);
    drop(check().ok());
    let file = cluster.b().config_file();
    let good = fs::read_to_string(&file).unwrap();
    // A watcher that runs keeps the configuration that holds.
    let b = cluster.b().watch();
    for (from, to, expected) in [
        ("overshoot_usd = \"6\"\n", "", "`profile.default.overshoot_usd` is missing"),
        ("overshoot_usd = \"6\"", "overshoot_usd = \"5\"", "at least \"5.64\""),
        ("claude-opus-5-5", "a-model-of-tomorrow", "the price table has no model `a-model-of-tomorrow`"),
    ] {
        let bad = good.replace(from, to);
        assert_ne!(bad, good, "{from}");
        fs::write(&file, bad).unwrap();
        drop(check().code(78).says(expected));
        drop(cluster.b().once(&[]).code(78).says(expected));
        hang_up(b.pid());
        eventually("the watcher says that it keeps the old one", || {
            fs::read_to_string(cluster.b().log()).is_ok_and(|log| log.contains(expected))
        });
    }
    fs::write(&file, &good).unwrap();
    // A price per task: without a ceiling of the profile or of the task, nothing can be set aside.
    cluster.b().configure("[profile.open]\nagent = \"command\"\nargv = [\"/bin/sh\"]\nbilling = \"metered\"\novershoot_usd = \"1\"\n");
    hang_up(b.pid());
    let result = eventually("the profile is there", || {
        let sent = cluster.a().send("b", "echo ran", &["--profile", "open"]);
        let result = cluster.answer("a", "b", &sent);
        (result["reason"]["code"] != "unknown_profile").then_some(result)
    });
    assert_eq!(result["reason"]["code"], "no_estimate", "{result:#}");
}

/// Tells a watcher to read its configuration again.
fn hang_up(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
}

#[test]
fn an_unknown_model_is_paid_at_the_dearest_and_said() {
    let cluster = cluster();
    metered(&cluster, "100");
    let _b = cluster.b().watch();
    let spends = response("m").replace("claude-opus-5-5", "a-model-of-tomorrow");
    let id = cluster.a().send("b", &format!("{spends}{}", done(&json!({}))), &[]);
    let result = cluster.answered(&id, "ok");
    // The dearest rates of the shipped table: 15 dollars for a million tokens read, 75 for a million written.
    assert_eq!((&result["cost"]["usd"], &result["cost"]["basis"]), (&json!("0.375"), &json!("derived")));
    let said = entries(&cluster, &id, "price_unknown");
    assert_eq!(said[0]["data"]["models"], json!(["a-model-of-tomorrow"]), "{said:?}");
}
