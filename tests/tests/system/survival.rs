//! The watcher goes, the agents stay: killed, stopped, started again.

use dispatch_testkit::{check, eventually};

use crate::{cluster, note_and_wait_for};

#[test]
fn agents_outlive_a_killed_watcher_and_are_adopted() {
    let cluster = cluster();
    let b = cluster.b().watch();
    let gate = cluster.outside().join("gate");
    let labels = ["one", "two"].map(ToOwned::to_owned);
    let ids =
        labels.clone().map(|label| cluster.a().send("b", &note_and_wait_for(&cluster, &label, &gate), &[]));
    eventually("both run", || cluster.runs.of("one") + cluster.runs.of("two") == 2);
    b.crash();
    let _b = cluster.b().watch();
    std::fs::write(&gate, "").unwrap();
    for id in &ids {
        cluster.answered(id, "ok");
    }
    check::each_ran_once(&cluster, &labels);
    check::one_result_each(&cluster, "a", "b", &ids);
    check::audit_verifies(cluster.b());
}

#[test]
fn agents_that_end_while_no_watcher_lives_are_answered_by_the_next() {
    let cluster = cluster();
    let b = cluster.b().watch();
    let gate = cluster.outside().join("gate");
    let id = cluster.a().send("b", &note_and_wait_for(&cluster, "alone", &gate), &[]);
    eventually("it runs", || cluster.runs.of("alone") == 1);
    b.crash();
    std::fs::write(&gate, "").unwrap();
    eventually("its executor has ended", || cluster.b().pids("dispatch-exec").is_empty());
    assert!(cluster.result("a", "b", &id).is_none(), "an executor publishes nothing");
    let _b = cluster.b().watch();
    cluster.answered(&id, "ok");
    check::each_ran_once(&cluster, &["alone".to_owned()]);
}

#[test]
fn stopping_the_watcher_leaves_executors_running() {
    let cluster = cluster();
    let b = cluster.b().watch();
    let gate = cluster.outside().join("gate");
    let id = cluster.a().send("b", &note_and_wait_for(&cluster, "kept", &gate), &[]);
    eventually("it runs", || cluster.runs.of("kept") == 1);
    let begun = std::time::Instant::now();
    assert_eq!(b.stop(), 0);
    assert!(begun.elapsed().as_secs() < 10);
    assert_eq!(cluster.b().pids("dispatch-exec").len(), 1);
    let _b = cluster.b().watch();
    std::fs::write(&gate, "").unwrap();
    cluster.answered(&id, "ok");
    check::each_ran_once(&cluster, &["kept".to_owned()]);
}

#[test]
fn watcher_and_executor_that_die_together_leave_an_unknown() {
    let cluster = cluster();
    let b = cluster.b().watch();
    let id = cluster.a().send("b", &crate::note_and_stay(&cluster, "lost"), &[]);
    eventually("it runs", || cluster.runs.of("lost") == 1);
    let executors = cluster.b().pids("dispatch-exec");
    b.crash();
    executors.into_iter().for_each(dispatch_testkit::process::kill);
    let _b = cluster.b().watch();
    cluster.answered(&id, "unknown");
    check::no_process_with_mark_left(cluster.b());
    check::each_ran_once(&cluster, &["lost".to_owned()]);
    check::audit_verifies(cluster.b());
}

#[test]
fn a_deleted_result_comes_back_and_the_agent_runs_no_second_time() {
    let cluster = cluster();
    let _b = cluster.b().watch();
    let id = cluster.a().send("b", &crate::note(&cluster, "once"), &[]);
    let first = cluster.answered(&id, "ok");
    std::fs::remove_file(cluster.lane("a", "b").join(format!("done/{id}.result.json"))).unwrap();
    drop(cluster.a().ctl(["resend", &id]).ok());
    let again = cluster.answered(&id, "ok");
    assert_eq!(first, again, "the stored payload, sealed again");
    check::each_ran_once(&cluster, &["once".to_owned()]);
}
