//! Squatting: somebody else's things at the names this node writes, of every type.

use std::fs;

use dispatch_testkit::cluster::{names, read_regular};
use dispatch_testkit::plant::Junk;
use dispatch_testkit::{check, eventually};

use crate::craft::{deliver, fresh, id_of, sealed, template};
use crate::{cluster, note};

/// The names that the recipient of a task writes for it.
const NAMES: [&str; 5] = [
    "processing/ID.json",
    "processing/ID.progress.json",
    "done/ID.json",
    "done/ID.log",
    "done/ID.result.json",
];

#[test]
fn junk_at_every_name_the_recipient_writes_is_set_aside() {
    let cluster = cluster();
    let template = template(&cluster);
    let _b = cluster.b().watch();
    let mut labels = Vec::new();
    let mut ids = Vec::new();
    for junk in Junk::ALL {
        let label = format!("{junk:?}");
        let task = fresh(&template, &note(&cluster, &label));
        let id = id_of(&task);
        for name in NAMES {
            junk.plant(&cluster.lane("a", "b").join(name.replace("ID", &id)), &cluster.outside());
        }
        deliver(&cluster, &id, &sealed(&cluster, "a", "b", &task));
        labels.push(label);
        ids.push(id);
    }
    for (id, label) in ids.iter().zip(&labels) {
        eprintln!("{label}");
        cluster.answered(id, "ok");
    }
    check::each_ran_once(&cluster, &labels);
    check::one_result_each(&cluster, "a", "b", &ids);
    eventually("the squatting is in the audit", || cluster.audited("b", "squatted"));
    assert_eq!(fs::read(cluster.outside().join("target")).unwrap(), b"outside", "no symlink was followed");
    assert!(names(&cluster.outside().join("target-dir")).is_empty(), "no symlink was followed");
}

#[test]
fn junk_at_the_names_of_a_parked_task_is_set_aside() {
    let cluster = cluster();
    let key = cluster.b().approver("ann");
    let template = template(&cluster);
    let _b = cluster.b().watch();
    for junk in Junk::ALL {
        let label = format!("{junk:?}");
        let mut task = fresh(&template, &note(&cluster, &label));
        task["require_ack"] = serde_json::json!(true);
        let id = id_of(&task);
        for name in ["pending-ack/ID.json", "pending-ack/ID.terms.json", "pending.json"] {
            junk.plant(&cluster.lane("a", "b").join(name.replace("ID", &id)), &cluster.outside());
        }
        deliver(&cluster, &id, &sealed(&cluster, "a", "b", &task));
        eprintln!("{label}");
        eventually("its terms are shown", || {
            cluster.opened("a", "b", &format!("pending-ack/{id}.terms.json")).filter(|opened| opened.verified)
        });
        let key = key.display().to_string();
        drop(cluster.b().run("dispatch-ack", ["--yes", "--key", &key, &id, "--reason", "fine"]).ok());
        cluster.answered(&id, "ok");
    }
}

#[test]
fn junk_at_the_names_of_the_node_itself_is_set_aside() {
    let cluster = cluster();
    cluster.b().configure("[watch]\nheartbeat_s = 1");
    let _b = cluster.b().watch();
    let share = cluster.share();
    let boot = eventually("the boot record is there", || {
        names(&share.join("heartbeats")).into_iter().find(|name| name.starts_with("b.boot-"))
    });
    let pair = cluster.pair("a", "b").bytes();
    for junk in Junk::ALL {
        eprintln!("{junk:?}");
        for name in ["heartbeats/b.json".to_owned(), format!("heartbeats/{boot}")] {
            junk.plant(&share.join(&name), &cluster.outside());
            eventually(&format!("{name} stands again"), || {
                let bytes = read_regular(&share.join(&name))?;
                dispatch_testkit::mail::open(&bytes, &pair).filter(|opened| opened.verified)
            });
        }
    }
    let id = cluster.a().send("b", &note(&cluster, "after"), &[]);
    cluster.answered(&id, "ok");
}

#[test]
fn a_cancel_gets_there_past_junk_at_its_name() {
    let cluster = cluster();
    let _b = cluster.b().watch();
    for junk in Junk::ALL {
        let label = format!("{junk:?}");
        let id = cluster.a().send("b", &crate::note_and_stay(&cluster, &label), &[]);
        eventually("it runs", || cluster.runs.of(&label) == 1);
        junk.plant(&cluster.lane("a", "b").join(format!("control/{id}.cancel.json")), &cluster.outside());
        eprintln!("{label}");
        drop(cluster.a().ctl(["cancel", &id]).ok());
        cluster.answered(&id, "cancelled");
    }
}

#[test]
fn names_that_are_no_ones_are_left_alone() {
    let cluster = cluster();
    let template = template(&cluster);
    let _b = cluster.b().watch();
    let lane = cluster.lane("a", "b");
    let strange = ["inbox/README", "inbox/.hidden", "inbox/x.json.swp", "done/notes.txt", "processing/core"];
    for name in strange {
        fs::write(lane.join(name), "not mine").unwrap();
    }
    let task = fresh(&template, &note(&cluster, "good"));
    deliver(&cluster, &id_of(&task), &sealed(&cluster, "a", "b", &task));
    cluster.answered(&id_of(&task), "ok");
    for name in strange {
        assert_eq!(fs::read(lane.join(name)).unwrap(), b"not mine", "{name}");
    }
}
