//! The killswitch, in its three places, in both modes, with the latch and without.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use dispatch_testkit::wait::throughout;
use dispatch_testkit::{Cluster, check, eventually};

use crate::{cluster, note, note_and_stay, note_and_wait_for};

fn places(cluster: &Cluster) -> [PathBuf; 3] {
    [cluster.share(), cluster.b().state_dir(), cluster.lane("a", "b")].map(|dir| dir.join("KILLSWITCH"))
}

#[test]
fn present_in_any_form_nothing_is_started() {
    for place in 0..3 {
        let cluster = cluster();
        let b = cluster.b().watch();
        let switch = places(&cluster)[place].clone();
        if place == 2 {
            fs::create_dir(&switch).unwrap();
        } else {
            fs::write(&switch, "a test").unwrap();
        }
        let sent = cluster.a().try_send("b", &note(&cluster, "held"), &[]).ok();
        let id = sent.out.split('\t').next().unwrap().to_owned();
        throughout(Duration::from_millis(700), "nothing starts under a killswitch", || {
            cluster.runs.of("held") == 0
        });
        assert!(cluster.result("a", "b", &id).is_none());
        if place == 2 {
            fs::remove_dir(&switch).unwrap();
        } else {
            fs::remove_file(&switch).unwrap();
        }
        // `init` latches: the file being gone is not enough.
        throughout(Duration::from_millis(700), "the latch holds", || cluster.runs.of("held") == 0);
        drop(cluster.b().ctl(["resume"]).ok());
        cluster.answered(&id, "ok");
        check::each_ran_once(&cluster, &["held".to_owned()]);
        assert_eq!(b.stop(), 0);
    }
}

#[test]
fn without_the_latch_removing_the_file_is_enough() {
    let cluster = cluster();
    cluster.b().configure("[killswitch]\nlatch = false");
    let _b = cluster.b().watch();
    let switch = cluster.share().join("KILLSWITCH");
    fs::write(&switch, "").unwrap();
    let id = cluster.a().send("b", &note(&cluster, "held"), &[]);
    throughout(Duration::from_millis(700), "nothing starts under a killswitch", || {
        cluster.runs.of("held") == 0
    });
    fs::remove_file(&switch).unwrap();
    cluster.answered(&id, "ok");
}

#[test]
fn halt_lets_running_agents_finish() {
    let cluster = cluster();
    let _b = cluster.b().watch();
    let gate = cluster.outside().join("gate");
    let running = cluster.a().send("b", &note_and_wait_for(&cluster, "running", &gate), &[]);
    eventually("it runs", || cluster.runs.of("running") == 1);
    fs::write(cluster.share().join("KILLSWITCH"), "halt for a test").unwrap();
    let later = cluster.a().send("b", &note(&cluster, "later"), &[]);
    throughout(Duration::from_millis(500), "it goes on", || cluster.result("a", "b", &running).is_none());
    fs::write(&gate, "").unwrap();
    cluster.answered(&running, "ok");
    assert_eq!(cluster.runs.of("later"), 0);
    fs::remove_file(cluster.share().join("KILLSWITCH")).unwrap();
    drop(cluster.b().ctl(["resume"]).ok());
    cluster.answered(&later, "ok");
}

#[test]
fn kill_mode_ends_running_agents_also_without_a_watcher() {
    for place in 0..3 {
        let cluster = cluster();
        let b = cluster.b().watch();
        let id = cluster.a().send("b", &note_and_stay(&cluster, "ended"), &[]);
        eventually("it runs", || cluster.runs.of("ended") == 1);
        b.crash();
        fs::write(&places(&cluster)[place], "kill\nfor a test\n").unwrap();
        eventually("the executor has ended", || cluster.b().pids("dispatch-exec").is_empty());
        check::no_process_with_mark_left(cluster.b());
        let _b = cluster.b().watch();
        cluster.answered(&id, "killed");
        check::each_ran_once(&cluster, &["ended".to_owned()]);
    }
}

#[test]
fn a_single_pass_under_a_killswitch_says_so() {
    let cluster = cluster();
    let id = cluster.a().send("b", &note(&cluster, "held"), &[]);
    fs::write(cluster.share().join("KILLSWITCH"), "a reason to see").unwrap();
    let once = cluster.b().once(&[]).code(77);
    assert!(once.err.contains("KILLSWITCH") || once.err.contains("killswitch"), "{}", once.err);
    assert_eq!(cluster.runs.of("held"), 0);
    assert!(cluster.result("a", "b", &id).is_none());
}

#[test]
fn a_sender_is_told_of_a_killswitch() {
    let cluster = cluster();
    fs::write(cluster.share().join("KILLSWITCH"), "maintenance until noon").unwrap();
    let sent = cluster.a().try_send("b", "echo x", &[]).ok();
    assert!(sent.err.to_lowercase().contains("killswitch"), "{}", sent.err);
}
