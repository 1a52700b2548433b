//! One plain task goes round.

use dispatch_testkit::check;

use crate::{cluster, note};

#[test]
fn a_plain_task_goes_round() {
    let cluster = cluster();
    let _b = cluster.b().watch();
    let id = cluster.a().send("b", &note(&cluster, "plain"), &[]);
    let result = cluster.answered(&id, "ok");
    assert_eq!(result["exit_code"], 0);
    assert!(result["final_text"].as_str().unwrap().contains("did plain"), "{result:#}");
    check::each_ran_once(&cluster, &["plain".to_owned()]);
    check::one_result_each(&cluster, "a", "b", std::slice::from_ref(&id));
    check::audit_verifies(cluster.b());
}

#[test]
fn a_waiting_sender_prints_the_verified_answer() {
    let cluster = cluster();
    let _b = cluster.b().watch();
    let sent = cluster.a().try_send("b", "echo the answer", &["--wait"]).ok();
    assert!(sent.out.contains("the answer"), "{}", sent.out);
    let failed = cluster.a().try_send("b", "exit 3", &["--wait"]);
    assert_eq!(failed.code, 1, "{}", failed.err);
}

#[test]
fn a_task_goes_the_other_way_too() {
    let cluster = cluster();
    let _a = cluster.a().watch();
    let id = cluster.b().send("a", &note(&cluster, "back"), &[]);
    assert_eq!(cluster.answer("b", "a", &id)["status"], "ok");
}

#[test]
fn one_pass_takes_a_task_to_its_end() {
    let cluster = cluster();
    let id = cluster.a().send("b", &note(&cluster, "once"), &[]);
    drop(cluster.b().once(&[]).ok());
    assert_eq!(cluster.result("a", "b", &id).expect("answered when the pass has ended")["status"], "ok");
    check::each_ran_once(&cluster, &["once".to_owned()]);
}

#[test]
fn one_pass_for_one_task_leaves_the_others() {
    let cluster = cluster();
    let wanted = cluster.a().send("b", &note(&cluster, "wanted"), &[]);
    let other = cluster.a().send("b", &note(&cluster, "other"), &[]);
    drop(cluster.b().once(&["--only", &wanted]).ok());
    assert_eq!(cluster.result("a", "b", &wanted).expect("the task that was named")["status"], "ok");
    assert!(cluster.result("a", "b", &other).is_none());
    assert_eq!(cluster.runs.of("other"), 0);
    drop(cluster.b().once(&[]).ok());
    assert_eq!(cluster.result("a", "b", &other).expect("the other one, in a pass for all")["status"], "ok");
}
