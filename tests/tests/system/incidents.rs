//! What went wrong for others, by the names of the list of incidents. Those that are tested where their behaviour lives
//! are: `silence_timeout_ends_a_mute_agent` and `kill_leaves_no_descendant` (ending), `second_daemon_of_a_node_refuses`
//! and `two_daemons_one_share_do_no_harm` (owners), `concurrent_reservations_never_exceed_cap`,
//! `killed_before_result_settles_at_reservation` and `budget_holds_on_the_shipped_configuration` (money),
//! `hard_cap_stops_a_running_task`, `cumulative_usage_is_not_double_counted`, `subscription_run_is_not_killed_by_usd_cap` and
//! `paid_backend_without_price_is_refused` (meter),
//! `missing_key_fails_closed` (doors), `broken_notifier_never_stops_the_watcher` (telling), `result_survives_shutdown_at_any_point` (the crash tests).

use std::fs;
use std::io::Write as _;
use std::time::Duration;

use dispatch_testkit::wait::throughout;
use dispatch_testkit::{check, eventually};

use crate::craft::{deliver, fresh, id_of, sealed, template};
use crate::{cluster, note, note_and_stay};

#[test]
fn log_write_is_not_liveness() {
    let cluster = cluster();
    let _b = cluster.b().watch();
    let id = cluster.a().send("b", &note_and_stay(&cluster, "mute"), &["--silence", "2s"]);
    eventually("it runs", || cluster.runs.of("mute") == 1);
    let job = cluster.b().jobs("a", &id).pop().expect("a job directory");
    let logs = [job.join("log"), cluster.lane("a", "b").join(format!("done/{id}.log"))];
    // Somebody else's writes to the log are no output of the agent.
    eventually("it is ended as silent", || {
        for log in &logs {
            if let Ok(mut file) = fs::OpenOptions::new().append(true).open(log) {
                file.write_all(b"still here\n").unwrap();
            }
        }
        cluster.result("a", "b", &id)
    });
    cluster.answered(&id, "silent");
}

#[test]
fn reboot_mid_run_becomes_unknown() {
    let cluster = cluster();
    let b = cluster.b().watch();
    let id = cluster.a().send("b", &note_and_stay(&cluster, "rebooted"), &[]);
    eventually("it runs", || cluster.runs.of("rebooted") == 1);
    // All at once, as when a machine dies; `scripts/lab-uml.sh` does it to a whole machine.
    let marks = check::marks(cluster.b());
    let mut all = cluster.b().pids("dispatch-exec");
    all.extend(marks.iter().flat_map(|mark| dispatch_testkit::process::holding(mark)));
    b.crash();
    all.into_iter().for_each(dispatch_testkit::process::kill);
    let _b = cluster.b().watch();
    cluster.answered(&id, "unknown");
    check::each_ran_once(&cluster, &["rebooted".to_owned()]);
}

#[test]
fn only_tasks_spawn() {
    let cluster = cluster();
    let template = template(&cluster);
    let _b = cluster.b().watch();
    let task = fresh(&template, &note(&cluster, "never"));
    let bytes = sealed(&cluster, "a", "b", &task);
    let id = id_of(&task);
    // A sealed task everywhere but in the inbox.
    let lane = cluster.lane("a", "b");
    for name in [
        format!("processing/{id}.json"),
        format!("pending-ack/{id}.json"),
        format!("done/{id}.json"),
        format!("control/{id}.cancel.json"),
        format!("inbox/{id}.json.bak"),
        format!("tmp/{id}.json"),
    ] {
        fs::write(lane.join(name), &bytes).unwrap();
    }
    fs::write(cluster.lane("b", "a").join(format!("inbox/{id}.json")), &bytes).unwrap();
    let good = fresh(&template, &note(&cluster, "good"));
    deliver(&cluster, &id_of(&good), &sealed(&cluster, "a", "b", &good));
    cluster.answered(&id_of(&good), "ok");
    throughout(Duration::from_millis(700), "nothing else runs", || cluster.runs.of("never") == 0);
}

#[test]
fn a_changed_byte_is_refused_or_changes_nothing() {
    let cluster = cluster();
    let template = template(&cluster);
    let task = fresh(&template, &note(&cluster, "as sealed"));
    let id = id_of(&task);
    let bytes = sealed(&cluster, "a", "b", &task);
    let file = cluster.lane("a", "b").join(format!("inbox/{id}.json"));
    // The property itself, over every byte, is tested where envelopes are opened; this is the same through the command
    // that tells what a file is and changes nothing.
    for index in (0..bytes.len()).step_by(37) {
        let mut changed = bytes.clone();
        changed[index] ^= 1;
        fs::write(&file, &changed).unwrap();
        drop(cluster.b().once(&[]));
        fs::remove_file(&file).ok();
    }
    assert!(cluster.runs.all().keys().all(|label| label == "as sealed"), "{:?}", cluster.runs.all());
    check::none_ran_twice(&cluster);
}
