//! The share goes away, comes back older, comes back empty.

use std::fs;
use std::time::Duration;

use dispatch_testkit::cluster::copy_tree;
use dispatch_testkit::wait::throughout;
use dispatch_testkit::{Cluster, check, eventually};

use crate::{cluster, note, note_and_wait_for};

struct Scene {
    ids: Vec<String>,
    labels: Vec<String>,
    gate: std::path::PathBuf,
}

/// One task answered, two running, two queued.
fn scene(cluster: &Cluster) -> Scene {
    let gate = cluster.outside().join("gate");
    let mut ids = vec![cluster.a().send("b", &note(cluster, "answered"), &[])];
    let mut labels = vec!["answered".to_owned()];
    cluster.answered(&ids[0], "ok");
    for label in ["running-1", "running-2", "queued-1", "queued-2"] {
        ids.push(cluster.a().send("b", &note_and_wait_for(cluster, label, &gate), &[]));
        labels.push(label.to_owned());
    }
    eventually("two run", || {
        let running = cluster.runs.order().into_iter().filter(|label| !label.starts_with("answered"));
        running.filter(|label| labels.contains(label)).count() == 2
    });
    Scene { ids, labels, gate }
}

#[test]
fn a_share_put_back_to_an_older_copy_makes_nothing_run_again() {
    let cluster = cluster();
    let _b = cluster.b().watch();
    let early = cluster.a().send("b", &note(&cluster, "early"), &[]);
    // The copy still holds the first task in the inbox or on its way.
    let old = cluster.outside().join("old-share");
    copy_tree(&cluster.share(), &old);
    cluster.answered(&early, "ok");
    let mut scene = scene(&cluster);
    scene.ids.push(early);
    scene.labels.push("early".to_owned());
    let away = cluster.outside().join("away");
    fs::rename(cluster.share(), &away).unwrap();
    fs::rename(&old, cluster.share()).unwrap();
    fs::write(&scene.gate, "").unwrap();
    // Results that are missing now come back by themselves or when the sender puts its bytes back.
    for id in &scene.ids {
        eventually(&format!("{id} is answered again"), || {
            if cluster.result("a", "b", id).is_none() {
                drop(cluster.a().ctl(["resend", id]));
            }
            cluster.result("a", "b", id)
        });
    }
    check::each_ran_once(&cluster, &scene.labels);
    check::audit_verifies(cluster.b());
}

#[test]
fn an_emptied_share_is_unreachable_and_nothing_starts() {
    let cluster = cluster();
    let mut b = cluster.b().watch();
    let scene = scene(&cluster);
    let away = cluster.outside().join("away");
    fs::rename(cluster.share(), &away).unwrap();
    fs::create_dir(cluster.share()).unwrap();
    fs::write(&scene.gate, "").unwrap();
    throughout(Duration::from_secs(3), "the watcher lives on", || b.ended().is_none());
    assert!(cluster.runs.all().len() <= 5, "nothing new");
    let sent = cluster.a().try_send("b", "echo x", &[]);
    assert_eq!(sent.code, 69, "{}", sent.err);
    fs::remove_dir_all(cluster.share()).unwrap();
    fs::rename(&away, cluster.share()).unwrap();
    for id in &scene.ids {
        cluster.answered(id, "ok");
    }
    check::each_ran_once(&cluster, &scene.labels);
    check::one_result_each(&cluster, "a", "b", &scene.ids);
    check::audit_verifies(cluster.b());
}

#[test]
fn an_emptied_share_set_up_anew_answers_everybody() {
    let cluster = cluster();
    let _b = cluster.b().watch();
    let scene = scene(&cluster);
    for path in dispatch_testkit::cluster::list(&cluster.share()) {
        dispatch_testkit::plant::clear(&path);
    }
    drop(cluster.b().ctl(["init"]).ok());
    fs::write(&scene.gate, "").unwrap();
    for id in &scene.ids {
        eventually(&format!("{id} is answered"), || {
            if cluster.result("a", "b", id).is_none() {
                drop(cluster.a().ctl(["resend", id]));
            }
            cluster.result("a", "b", id)
        });
    }
    check::each_ran_once(&cluster, &scene.labels);
}

#[test]
fn another_clusters_share_is_not_ours() {
    let cluster = cluster();
    let b = cluster.b().watch();
    fs::write(cluster.share().join("CLUSTER"), "00000000-0000-4000-8000-000000000000\n").unwrap();
    let sent = cluster.a().try_send("b", &note(&cluster, "never"), &[]);
    assert_eq!(sent.code, 69, "{}", sent.err);
    throughout(Duration::from_millis(500), "nothing runs", || cluster.runs.of("never") == 0);
    drop(b);
}

#[test]
fn a_planted_symlink_in_place_of_a_directory_redirects_nothing() {
    let cluster = cluster();
    let _b = cluster.b().watch();
    let first = cluster.a().send("b", &note(&cluster, "first"), &[]);
    cluster.answered(&first, "ok");
    let target = cluster.outside().join("elsewhere");
    fs::create_dir(&target).unwrap();
    let done = cluster.lane("a", "b").join("done");
    fs::rename(&done, cluster.outside().join("real-done")).unwrap();
    std::os::unix::fs::symlink(&target, &done).unwrap();
    let sent = cluster.a().try_send("b", &note(&cluster, "second"), &[]);
    drop(sent);
    throughout(Duration::from_secs(2), "nothing is written through it", || {
        dispatch_testkit::cluster::list(&target).is_empty()
    });
}
