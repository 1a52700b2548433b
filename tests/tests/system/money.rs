//! Paid work under a cap, whatever happens.

use dispatch_testkit::{Cluster, check, eventually};
use serde_json::Value;

use crate::{cluster, note, note_and_stay};

/// Every task on `b` costs a reservation of 1 dollar; the caps are those given.
pub fn paid(cluster: &Cluster, run: &str, month: &str) {
    cluster.b().only_caps();
    cluster.b().configure(&format!(
        "[budget]\nrun_usd = \"{run}\"\nmonth_usd = \"{month}\"\n\
         [profile.default]\nbilling = \"metered\"\nmax_cost_usd = \"0.75\"\novershoot_usd = \"0.25\"\n"
    ));
}

fn burst(cluster: &Cluster) -> Vec<String> {
    (0..64).map(|number| cluster.a().send("b", &note(cluster, &format!("paid-{number}")), &[])).collect()
}

fn settled_at_ten(cluster: &Cluster, ids: &[String]) {
    let results: Vec<Value> = ids.iter().map(|id| cluster.answer("a", "b", id)).collect();
    let ran = results.iter().filter(|result| result["status"] == "ok").count();
    assert_eq!(ran, 10);
    for result in results.iter().filter(|result| result["status"] != "ok") {
        assert_eq!(result["status"], "rejected", "{result:#}");
        assert_eq!(result["reason"]["code"], "over_cap", "{result:#}");
    }
    assert_eq!(cluster.runs.all().values().sum::<usize>(), 10);
    check::money_adds_up(cluster.b(), &results);
    check::audit_verifies(cluster.b());
}

#[test]
fn concurrent_reservations_never_exceed_cap() {
    let cluster = cluster();
    paid(&cluster, "10", "1000");
    let ids = burst(&cluster);
    let _b = cluster.b().watch();
    settled_at_ten(&cluster, &ids);
}

#[test]
fn a_cap_holds_with_the_watcher_killed_in_the_middle() {
    let cluster = cluster();
    paid(&cluster, "10", "1000");
    let ids = burst(&cluster);
    for enough in [1, 3, 6] {
        let b = cluster.b().watch();
        eventually("some have run", || cluster.runs.all().len() >= enough);
        b.crash();
    }
    let _b = cluster.b().watch();
    settled_at_ten(&cluster, &ids);
}

#[test]
fn over_the_month_tasks_wait_and_say_why() {
    let cluster = cluster();
    paid(&cluster, "1000", "3");
    let ids: Vec<String> =
        (0..6).map(|n| cluster.a().send("b", &note(&cluster, &format!("paid-{n}")), &[])).collect();
    let _b = cluster.b().watch();
    eventually("three are answered", || {
        ids.iter().filter(|id| cluster.result("a", "b", id).is_some()).count() == 3
    });
    assert_eq!(cluster.runs.all().len(), 3);
    let waiting = ids.iter().find(|id| cluster.result("a", "b", id).is_none()).unwrap();
    let shown = cluster.b().ctl(["show", waiting]).ok();
    assert!(shown.out.contains("month"), "it names the window that has no room: {}", shown.out);
    drop(cluster.a().ctl(["cancel", waiting]).ok());
    cluster.answered(waiting, "cancelled");
}

#[test]
fn killed_before_result_settles_at_reservation() {
    let cluster = cluster();
    paid(&cluster, "10", "10");
    let _b = cluster.b().watch();
    let id = cluster.a().send("b", &note_and_stay(&cluster, "killed"), &[]);
    eventually("it runs", || cluster.runs.of("killed") == 1);
    cluster.b().pids("dispatch-exec").into_iter().for_each(dispatch_testkit::process::kill);
    let result = cluster.answered(&id, "unknown");
    assert_eq!(result["cost"]["basis"], "reserved", "{result:#}");
    assert_eq!(check::micros(&result["cost"]["usd"]), 1_000_000);
    check::money_adds_up(cluster.b(), &[result]);
}

#[test]
fn budget_holds_on_the_shipped_configuration() {
    let cluster = cluster();
    // As `init` wrote it, but for one profile that costs: paid work is off until somebody sets a cap.
    cluster.b().configure(
        "[profile.costly]\nagent = \"command\"\nargv = [\"/bin/sh\", \"-eu\"]\nbilling = \"metered\"\n\
         max_cost_usd = \"0.75\"\novershoot_usd = \"0.25\"\n",
    );
    let _b = cluster.b().watch();
    let id = cluster.a().send("b", &note(&cluster, "never"), &["--profile", "costly"]);
    let result = cluster.answered(&id, "rejected");
    assert_eq!(result["reason"]["code"], "over_cap", "{result:#}");
    assert_eq!(cluster.runs.of("never"), 0);
    let free = cluster.a().send("b", &note(&cluster, "free"), &[]);
    cluster.answered(&free, "ok");
}

#[test]
fn a_free_task_never_asks_the_windows() {
    let cluster = cluster();
    let _b = cluster.b().watch();
    let id = cluster.a().send("b", &note(&cluster, "free"), &[]);
    let result = cluster.answered(&id, "ok");
    assert_eq!(result["cost"]["basis"], "none");
}
