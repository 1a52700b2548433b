//! What stops spending before a cap does.

use std::path::PathBuf;

use dispatch_testkit::{Cluster, bins, check, eventually};
use serde_json::Value;

use crate::{cluster, note};

/// Every task on `b` costs a reservation of 1 dollar, under caps that nothing here reaches.
fn paid(cluster: &Cluster) {
    cluster.b().configure(
        "[budget]\nrun_usd = \"1000\"\nmonth_usd = \"1000\"\n\
         [profile.default]\nbilling = \"metered\"\nmax_cost_usd = \"0.75\"\novershoot_usd = \"0.25\"\n\
         [profile.free]\nagent = \"command\"\nargv = [\"/bin/sh\", \"-eu\"]\nbilling = \"free\"\n",
    );
}

fn budget(cluster: &Cluster) -> Value {
    let shown = cluster.b().ctl(["budget", "--json"]).ok();
    serde_json::from_str(&shown.out).unwrap()
}

/// What a task that is not final waits for, in the words of `show`.
fn waits_for(cluster: &Cluster, id: &str, words: &str) -> String {
    eventually(&format!("{id} waits for `{words}`"), || {
        let shown = cluster.b().ctl(["show", id]);
        shown.out.contains(words).then_some(shown.out)
    })
}

#[test]
fn successful_repetition_trips_velocity_breaker() {
    let cluster = cluster();
    paid(&cluster);
    let _b = cluster.b().watch();
    let mut ids: Vec<String> =
        (0..10).map(|_| cluster.a().send("b", &note(&cluster, "again"), &[])).collect();
    for id in &ids {
        cluster.answered(id, "ok");
    }
    let held: Vec<String> = (0..2).map(|_| cluster.a().send("b", &note(&cluster, "again"), &[])).collect();
    for id in &held {
        waits_for(&cluster, id, "held");
    }
    assert_eq!(cluster.runs.of("again"), 10, "ten are allowed, however well they go");
    let shown = budget(&cluster);
    assert_eq!(shown["holds"][0]["trip"], "identical_requests", "{shown:#}");
    assert!(shown["holds"][0]["next"].as_str().unwrap().contains("dispatchctl budget resume a"), "{shown:#}");
    let free = cluster.a().send("b", &note(&cluster, "free"), &["--profile", "free"]);
    cluster.answered(&free, "ok");
    drop(cluster.b().ctl(["budget", "resume", "a", "--reason", "looked at it"]).ok());
    for id in &held {
        cluster.answered(id, "ok");
    }
    let alerts = |action: &str| {
        let audit = cluster.audit("b");
        audit.iter().filter(|entry| entry["kind"] == "alert" && entry["code"] == action).count()
    };
    eventually("the audit shows what happened", || alerts("allow") == 1);
    assert_eq!(alerts("block"), 1, "one alert for one change");
    ids.extend(held);
    check::one_result_each(&cluster, "a", "b", &ids);
    check::audit_verifies(cluster.b());
}

/// A stand-in for an agent: it is at a wall that resets at `resets` (unix seconds) while the file `wall` is there.
fn agent(cluster: &Cluster, resets: i64) -> (PathBuf, PathBuf) {
    let (program, wall) = (cluster.outside().join("agent"), cluster.outside().join("wall"));
    let mark = cluster.runs.mark("asked");
    let script = format!(
        "#!/bin/sh\ncat > /dev/null\n{mark}if [ -e '{}' ]; then\n  echo '{{\"type\":\"result\",\"subtype\":\"success\",\"is_error\":true,\"result\":\"Claude AI usage limit reached|{resets}\",\"total_cost_usd\":0}}'\n  exit 1\nfi\necho '{{\"type\":\"result\",\"subtype\":\"success\",\"is_error\":false,\"result\":\"done\",\"total_cost_usd\":0.01}}'\n",
        wall.display()
    );
    bins::write_script(&program, &script);
    std::fs::write(&wall, "").unwrap();
    (program, wall)
}

#[test]
fn quota_wall_opens_breaker_until_reset() {
    let cluster = cluster();
    paid(&cluster);
    // In the year 2096: nothing waits for that here.
    let (program, wall) = agent(&cluster, 3_999_999_999);
    cluster.b().configure(&format!(
        "[profile.agent]\nagent = \"claude\"\nargv = [\"{}\"]\nbilling = \"subscription\"\n",
        program.display()
    ));
    let b = cluster.b().watch();
    let first = cluster.a().send("b", "first", &["--profile", "agent"]);
    let result = cluster.answered(&first, "error");
    assert_eq!(result["reason"]["code"], "quota_wall", "{result:#}");
    assert!(result["reason"]["text"].as_str().unwrap().contains("2096"), "{result:#}");
    let second = cluster.a().send("b", "second", &["--profile", "agent", "--max-attempts", "5"]);
    waits_for(&cluster, &second, "resets at");
    // A restart forgets nothing, and what runs elsewhere goes on.
    assert_eq!(b.stop(), 0);
    let _b = cluster.b().watch();
    let free = cluster.a().send("b", &note(&cluster, "free"), &["--profile", "free"]);
    cluster.answered(&free, "ok");
    assert_eq!(cluster.runs.of("asked"), 1, "nothing is tried against a wall");
    let shown = budget(&cluster);
    assert_eq!(shown["breakers"][0]["cause"], "quota_wall", "{shown:#}");
    std::fs::remove_file(wall).unwrap();
    drop(cluster.b().ctl(["budget", "resume", "--profile", "agent"]).ok());
    cluster.answered(&second, "ok");
    assert_eq!(cluster.runs.of("asked"), 2);
}

#[test]
fn a_closed_run_takes_nothing_more_and_the_log_says_what_it_cost() {
    let cluster = cluster();
    paid(&cluster);
    let _b = cluster.b().watch();
    let first = cluster.a().send("b", &note(&cluster, "first"), &["--run", "nightly"]);
    cluster.answered(&first, "ok");
    drop(cluster.b().ctl(["budget", "close-run", "nightly", "--reason", "done"]).ok());
    let second = cluster.a().send("b", &note(&cluster, "second"), &["--run", "nightly"]);
    let result = cluster.answered(&second, "rejected");
    assert_eq!(result["reason"]["code"], "run_closed", "{result:#}");
    let log = cluster.b().ctl(["budget", "log", "--window", "run:a/nightly", "--json"]).ok();
    let lines: Vec<Value> = log.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let settled = lines.iter().find(|line| line["target"] == "spent").unwrap();
    assert_eq!((&settled["basis"], &settled["usd"]), (&"reserved".into(), &"1".into()), "{}", log.out);
    assert_eq!(settled["task"], first.as_str());
    let text = cluster.b().ctl(["budget", "--all"]).ok();
    assert!(text.out.contains("the run `nightly` of a"), "{}", text.out);
}

fn standing(cluster: &Cluster, key: &std::path::Path, uses: &str) -> String {
    let key = key.display().to_string();
    let words = [
        "--standing",
        "--yes",
        "--key",
        &key,
        "--from",
        "a",
        "--profile",
        "default",
        "--max-cost",
        "1",
        "--total",
        "3",
        "--uses",
        uses,
        "--reason",
        "every night",
        "--json",
    ];
    let made = cluster.b().run("dispatch-ack", words).ok();
    let made: Value = serde_json::from_str(&made.out).unwrap();
    made["id"].as_str().unwrap().to_owned()
}

/// Sends a task that asks for a person and yields its id and what became of it: an answer, or `None` when it is parked.
fn asked(cluster: &Cluster, label: &str, words: &[&str]) -> (String, Option<Value>) {
    let id = cluster.a().send("b", &note(cluster, label), &[&["--require-ack"], words].concat());
    let parked = cluster.lane("a", "b").join(format!("pending-ack/{id}.json"));
    let result = eventually("it is answered or parked", || {
        cluster.result("a", "b", &id).map(Some).or_else(|| parked.exists().then_some(None))
    });
    (id, result)
}

#[test]
fn a_standing_approval_answers_as_often_as_it_says_and_names_its_author() {
    let cluster = cluster();
    paid(&cluster);
    let key = cluster.b().approver("ann");
    let _b = cluster.b().watch();
    let id = standing(&cluster, &key, "2");
    for label in ["one", "two"] {
        let (_, result) = asked(&cluster, label, &[]);
        let result = result.expect("it was approved in advance");
        assert_eq!((&result["status"], &result["decided_by"]), (&"ok".into(), &serde_json::json!(["ann"])));
    }
    let (third, result) = asked(&cluster, "three", &[]);
    assert!(result.is_none(), "two were allowed");
    drop(cluster.a().ctl(["cancel", &third]).ok());
    let shown = budget(&cluster);
    assert_eq!(
        (&shown["standing"][0]["id"], &shown["standing"][0]["uses"]),
        (&id.as_str().into(), &2.into()),
        "{shown:#}"
    );
    eventually("the audit says which one answered", || {
        let audit = cluster.audit("b");
        audit.iter().any(|entry| entry["data"]["standing"] == serde_json::json!([id])).then_some(())
    });
    let listed = cluster.b().run("dispatch-ack", ["--standing", "--list"]).ok();
    assert!(listed.out.contains(&id), "{}", listed.out);
    check::audit_verifies(cluster.b());
}

#[test]
fn a_standing_approval_that_was_revoked_or_whose_author_is_gone_answers_nothing() {
    let cluster = cluster();
    paid(&cluster);
    let key = cluster.b().approver("ann");
    let b = cluster.b().watch();
    let id = standing(&cluster, &key, "9");
    let (_, result) = asked(&cluster, "held", &[]);
    assert!(result.is_some());
    let (dangerous, result) = asked(&cluster, "other profile", &["--profile", "free"]);
    assert!(result.is_none(), "it names one profile");
    drop(cluster.a().ctl(["cancel", &dangerous]).ok());
    assert_eq!(b.stop(), 0);
    let approvers = cluster.b().config_dir().join("approvers");
    let text = std::fs::read_to_string(&approvers).unwrap();
    std::fs::write(&approvers, "").unwrap();
    let b = cluster.b().watch();
    let (gone, result) = asked(&cluster, "nobody", &[]);
    assert!(result.is_none(), "its author is no approver any more");
    drop(cluster.a().ctl(["cancel", &gone]).ok());
    assert_eq!(b.stop(), 0);
    std::fs::write(&approvers, text).unwrap();
    let _b = cluster.b().watch();
    drop(cluster.b().run("dispatch-ack", ["--standing", "--revoke", &id]).ok());
    let (revoked, result) = asked(&cluster, "revoked", &[]);
    assert!(result.is_none(), "it was taken back");
    drop(cluster.a().ctl(["cancel", &revoked]).ok());
}

/// Each attempt reserves anew and nobody is asked again, so what is allowed once must hold all of them.
#[test]
fn a_standing_approval_answers_for_all_attempts_together() {
    let cluster = cluster();
    paid(&cluster);
    let key = cluster.b().approver("ann");
    let _b = cluster.b().watch();
    let _id = standing(&cluster, &key, "9");
    let (often, result) = asked(&cluster, "often", &["--max-attempts", "5"]);
    assert!(result.is_none(), "five attempts may cost more than it allows");
    drop(cluster.a().ctl(["cancel", &often]).ok());
    let (_, result) = asked(&cluster, "once", &[]);
    assert!(result.is_some());
}

/// It was signed for a profile on this node; what runs elsewhere, or as another profile, nobody signed for.
#[test]
fn a_standing_approval_does_not_answer_for_another_profiles_agent() {
    let cluster = cluster();
    paid(&cluster);
    cluster.b().configure(
        "[exec]\nallow_sdk = true\n[backend.plain]\nkind = \"local\"\ntools = [\"make\"]\n\
         [backend.api]\nkind = \"sdk\"\nprofile = \"free\"\ntools = [\"search\"]\n",
    );
    let key = cluster.b().approver("ann");
    let _b = cluster.b().watch();
    let _id = standing(&cluster, &key, "9");
    let (far, result) = asked(&cluster, "far", &["--allow-sdk", "--needs-tool", "search"]);
    assert!(result.is_none(), "it would run as the profile of the backend");
    drop(cluster.a().ctl(["cancel", &far]).ok());
    let (_, result) = asked(&cluster, "near", &["--needs-tool", "make"]);
    assert!(result.is_some());
}
