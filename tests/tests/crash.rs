//! Killed at every step: watcher, executor, sender and approver, right before each call that makes something durable,
//! visible or alive, and so right after the one before it (architecture, "The path of a task"). Then everything is
//! started again and must add up: nothing lost, no attempt run twice, exactly one result, money settled once, the audit
//! chain whole.
//!
//! `DISPATCH_CRASH=full` tries every point; else an even sample of every step's points. The kills come from outside,
//! through `strace`: what is shipped holds no switch for them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use dispatch_testkit::cluster::{find, names};
use dispatch_testkit::mix::{self, ATTEMPT_MICROS, Mix, all_is_true, noting};
use dispatch_testkit::points::{self, Place, Point, Whose, at_each};
use dispatch_testkit::process::Ended;
use dispatch_testkit::{Bins, Cluster, Watcher, bins, check, eventually, trace};
use serde_json::Value;

/// Points that a test tries, unless told to try all.
const SAMPLE: usize = 40;

fn bins() -> Bins {
    bins!()
}

/// Whether kills at a point are possible here; says so when not.
fn traceable() -> bool {
    let possible = trace::possible();
    if !possible {
        eprintln!("SKIPPED: kills at every step: strace is not installed, or may not trace here");
    }
    possible
}

fn chosen(points: &[Point]) -> Vec<Point> {
    match std::env::var("DISPATCH_CRASH").as_deref() {
        Ok("full") => points.to_vec(),
        _ => points::sample(points, SAMPLE),
    }
}

fn log_file(cluster: &Cluster) -> PathBuf {
    cluster.outside().join("calls")
}

// The watcher.

fn watcher_points() -> Vec<Point> {
    let mix = Mix::sent(mix::cluster(&bins()));
    let log = log_file(&mix.cluster);
    drop(mix.run(&points::counting(&log)));
    assert!(mix.settled());
    points::points(&log, &mix.cluster.share())
}

/// Executors outlive their watcher, so a dead watcher takes nothing from any task.
#[test]
fn a_watcher_killed_at_any_point_loses_nothing_and_runs_nothing_twice() {
    if !traceable() {
        return;
    }
    at_each(&chosen(&watcher_points()), |point| {
        let mix = Mix::sent(mix::cluster(&bins()));
        drop(mix.run(&points::killing(point, &mix.cluster.share())));
        let _b = mix.finish();
        mix.adds_up();
        mix.all_ran();
    });
}

/// The watcher that comes after the killed one is killed too, at the same point: recovery is no safer place.
#[test]
fn a_watcher_killed_twice_at_any_point_loses_nothing_and_runs_nothing_twice() {
    if !traceable() {
        return;
    }
    at_each(&chosen(&watcher_points()), |point| {
        let mix = Mix::sent(mix::cluster(&bins()));
        let before = points::killing(point, &mix.cluster.share());
        drop(mix.run(&before));
        drop(mix.run(&before));
        let _b = mix.finish();
        mix.adds_up();
        mix.all_ran();
    });
}

// The watcher, while tasks are cancelled.

/// A task that runs until it is cancelled, and one that waits for a person until it is cancelled.
struct Cancelled {
    cluster: Cluster,
    ids: [String; 2],
}

impl Cancelled {
    fn sent() -> Self {
        let cluster = mix::cluster(&bins());
        let stays = noting(&cluster, "stays", "exec sleep 100000");
        let stays = cluster.a().send("b", &stays, &["--profile", "paid"]);
        let waits = noting(&cluster, "waits", "true");
        let waits = cluster.a().send("b", &waits, &["--profile", "paid", "--require-ack"]);
        Self { cluster, ids: [stays, waits] }
    }

    fn settled(&self) -> bool {
        self.ids.iter().all(|id| self.cluster.result("a", "b", id).is_some())
    }

    /// Runs a watcher until both are answered or it has ended; cancels both as soon as one runs.
    fn run(&self, before: &[String]) -> Watcher {
        let mut watcher = self.cluster.b().start_watch(before, &[]);
        eventually("both are answered, or the watcher is dead", || {
            if self.cluster.runs.of("stays.1") == 1 && !self.cluster.outside().join("asked").exists() {
                fs::write(self.cluster.outside().join("asked"), "").unwrap();
                for id in &self.ids {
                    drop(self.cluster.a().ctl(["cancel", id]).ok());
                }
            }
            watcher.ended().is_some() || self.settled()
        });
        watcher
    }
}

#[test]
fn a_cancel_survives_a_watcher_killed_at_any_point() {
    if !traceable() {
        return;
    }
    let counted = Cancelled::sent();
    let log = log_file(&counted.cluster);
    drop(counted.run(&points::counting(&log)));
    assert!(counted.settled());
    at_each(&chosen(&points::points(&log, &counted.cluster.share())), |point| {
        let scene = Cancelled::sent();
        drop(scene.run(&points::killing(point, &scene.cluster.share())));
        let _b = scene.run(&[]);
        let results = check::one_result_each(&scene.cluster, "a", "b", &scene.ids);
        for result in &results {
            assert_eq!(result["status"], "cancelled", "{result:#}");
        }
        assert_eq!(
            check::micros(&results[0]["cost"]["usd"]),
            ATTEMPT_MICROS,
            "it was paid for: {:#}",
            results[0]
        );
        assert_eq!(scene.cluster.runs.of("waits.1"), 0);
        all_is_true(&scene.cluster, &results);
        let control = scene.cluster.lane("a", "b").join("control");
        eventually("the cancels are taken", || names(&control).is_empty());
    });
}

// The executor.

/// Commands whose `dispatch-exec` is started by the words `before`, the first time only.
fn tracing_once(cluster: &Cluster, before: &[String]) -> Bins {
    let flag = cluster.outside().join("traced-once");
    let words: Vec<String> = before.iter().map(|word| format!("'{word}'")).collect();
    let script = format!(
        "if mkdir '{}' 2>/dev/null; then exec {} \"$REAL\" \"$@\"; else exec \"$REAL\" \"$@\"; fi",
        flag.display(),
        words.join(" ")
    );
    cluster.bins.with_wrapper(&cluster.outside().join("bin"), "dispatch-exec", &script)
}

/// A paid task whose first executor is started by the words `before`.
struct Executed {
    cluster: Cluster,
    id: String,
    watcher: Watcher,
}

impl Executed {
    fn with(attempts: &str, before: impl Fn(&Cluster) -> Vec<String>) -> Self {
        let cluster = mix::cluster(&bins());
        let node = cluster.b().with_bins(&tracing_once(&cluster, &before(&cluster)));
        let request = noting(&cluster, "once", "echo done");
        let id = cluster.a().send("b", &request, &["--profile", "paid", "--max-attempts", attempts]);
        let watcher = node.watch();
        drop(cluster.answer("a", "b", &id));
        Self { cluster, id, watcher }
    }

    /// What holds however it ended; yields the result.
    fn result(&self) -> Value {
        let results = check::one_result_each(&self.cluster, "a", "b", std::slice::from_ref(&self.id));
        all_is_true(&self.cluster, &results);
        results.into_iter().next().unwrap()
    }
}

fn executor_points() -> Vec<Point> {
    let counted = Executed::with("1", |cluster| points::counting(&log_file(cluster)));
    drop(counted.watcher);
    let points = points::points(&log_file(&counted.cluster), &counted.cluster.share());
    points.into_iter().filter(|point| point.whose == Whose::Main).collect()
}

#[test]
fn an_executor_killed_at_any_point_runs_nothing_twice_and_is_paid_once() {
    if !traceable() {
        return;
    }
    at_each(&chosen(&executor_points()), |point| {
        let killed = Executed::with("1", |cluster| points::killing(point, &cluster.share()));
        let result = killed.result();
        let (ran, spent) = (killed.cluster.runs.of("once.1"), check::micros(&result["cost"]["usd"]));
        match result["status"].as_str() {
            Some("ok") => assert_eq!((ran, spent), (1, ATTEMPT_MICROS), "{result:#}"),
            // It may have run or not, nobody can know; so it is not tried again, and paid in full.
            Some("unknown") => {
                assert_eq!((spent, &result["cost"]["basis"]), (ATTEMPT_MICROS, &"reserved".into()));
            }
            other => panic!("{other:?}: {result:#}"),
        }
    });
}

#[test]
fn a_task_that_may_run_twice_ends_ok_whenever_its_first_executor_is_killed() {
    if !traceable() {
        return;
    }
    at_each(&chosen(&executor_points()), |point| {
        let killed = Executed::with("2", |cluster| points::killing(point, &cluster.share()));
        let result = killed.result();
        assert_eq!(result["status"], "ok", "{result:#}");
        let attempts = result["attempt"].as_u64().unwrap();
        assert_eq!(check::micros(&result["cost"]["usd"]), attempts * ATTEMPT_MICROS, "{result:#}");
        assert_eq!(killed.cluster.runs.of(&format!("once.{attempts}")), 1, "{result:#}");
    });
}

// The sender.

fn send(cluster: &Cluster, before: &[String]) -> Ended {
    let mut command = cluster.a().prefixed(before, "dispatch-send");
    command.args(["--to", "b", "-"]);
    Ended::of(command, noting(cluster, "first", "true").as_bytes())
}

fn sender_points() -> Vec<Point> {
    let counted = mix::cluster(&bins());
    drop(send(&counted, &points::counting(&log_file(&counted))).ok());
    points::points(&log_file(&counted), &counted.share())
}

/// The ids of the tasks that a state directory has in `outbox/` and `sent/`.
fn kept(send: &Path) -> Vec<String> {
    let mut ids: Vec<String> = ["outbox", "sent"]
        .iter()
        .flat_map(|place| names(&send.join("a-to-b").join(place)))
        .filter_map(|name| {
            let stem = name.strip_suffix(".json")?;
            let id = stem.rsplit('.').next()?;
            (id.len() == 36).then(|| id.to_owned())
        })
        .collect();
    ids.sort();
    ids.dedup();
    ids
}

/// From the outbox's sync on a task exists and goes out with the next send; before it, nothing is left.
#[test]
fn a_sender_killed_at_any_point_loses_nothing_and_makes_no_gap() {
    if !traceable() {
        return;
    }
    at_each(&chosen(&sender_points()), |point| {
        let cluster = mix::cluster(&bins());
        let killed = send(&cluster, &points::killing(point, &cluster.share()));
        let first = kept(&cluster.a().state_dir().join("send"));
        assert!(!first.is_empty() || killed.code != 0, "a send that says it is done keeps its record");
        let second = cluster.a().send("b", &noting(&cluster, "second", "true"), &[]);
        let _b = cluster.b().watch();
        let ids: Vec<String> = first.iter().cloned().chain([second]).collect();
        let results = check::one_result_each(&cluster, "a", "b", &ids);
        all_is_true(&cluster, &results);
        assert_eq!(cluster.runs.of("first.1"), first.len(), "what was kept went out with the next send");
        assert_eq!(cluster.runs.of("second.1"), 1);
        for code in ["stream_gap", "stream_fork", "replayed", "id_reused"] {
            assert!(!cluster.audited("b", code), "{code}");
        }
        let left = find(&cluster.lane("a", "b").join("rejected"), &|_| true);
        assert_eq!(left, None, "nothing half-written is taken for a task");
    });
}

/// Nobody sends from there again, but its watcher lives.
#[test]
fn what_a_killed_sender_left_goes_out_by_the_watcher_of_its_node() {
    if !traceable() {
        return;
    }
    let publishes = |point: &&Point| point.call.starts_with("link") && point.shown.contains("/inbox");
    let points = sender_points();
    let point = points.iter().find(publishes).expect("it links the task into the inbox");
    let cluster = mix::cluster(&bins());
    assert_ne!(send(&cluster, &points::killing(point, &cluster.share())).code, 0);
    let ids = kept(&cluster.a().state_dir().join("send"));
    assert_eq!(ids.len(), 1, "it is in the outbox, and nowhere else");
    assert!(names(&cluster.lane("a", "b").join("inbox")).is_empty());
    let (_a, _b) = (cluster.a().watch(), cluster.b().watch());
    let results = check::one_result_each(&cluster, "a", "b", &ids);
    assert_eq!((&results[0]["status"], cluster.runs.of("first.1")), (&"ok".into(), 1));
    all_is_true(&cluster, &results);
}

// The approver.

fn decide(mix: &Cluster, key: &str, id: &str, before: &[String]) -> Ended {
    let mut command = mix.b().prefixed(before, "dispatch-ack");
    command.args(["--yes", "--no-wait", "--key", key, "--reason", "fine", id]);
    Ended::of(command, b"")
}

/// A paid task that waits for a person, under a watcher.
fn waiting() -> (Cluster, String, String, Watcher) {
    let cluster = mix::cluster(&bins());
    let key = cluster.b().approver("ann").display().to_string();
    let request = noting(&cluster, "gated", "true");
    let id = cluster.a().send("b", &request, &["--profile", "paid", "--require-ack"]);
    let watcher = cluster.b().watch();
    let terms = cluster.lane("a", "b").join(format!("pending-ack/{id}.json"));
    eventually("it waits for a person", || terms.exists());
    (cluster, key, id, watcher)
}

fn approver_points() -> Vec<Point> {
    let (cluster, key, id, _watcher) = waiting();
    drop(decide(&cluster, &key, &id, &points::counting(&log_file(&cluster))).ok());
    points::points(&log_file(&cluster), &cluster.share())
}

#[test]
fn an_approver_killed_at_any_point_approves_once_or_not_at_all() {
    if !traceable() {
        return;
    }
    at_each(&chosen(&approver_points()), |point| {
        let (cluster, key, id, _watcher) = waiting();
        let killed = decide(&cluster, &key, &id, &points::killing(point, &cluster.share()));
        if killed.code != 0 {
            // A decision that was published is taken by now or soon; then there is nothing more to decide.
            drop(decide(&cluster, &key, &id, &[]));
        }
        let results = check::one_result_each(&cluster, "a", "b", std::slice::from_ref(&id));
        assert_eq!(results[0]["status"], "ok", "{:#}", results[0]);
        assert_eq!(cluster.runs.of("gated.1"), 1);
        all_is_true(&cluster, &results);
    });
}

/// The eleven steps, the second one apart: it changes nothing.
#[test]
fn every_step_of_a_tasks_path_has_points_before_and_after_it() {
    if !traceable() {
        return;
    }
    let all = [
        ("dispatch-watch", watcher_points()),
        ("dispatch-exec", executor_points()),
        ("dispatch-send", sender_points()),
        ("dispatch-ack", approver_points()),
    ];
    let mut total: BTreeMap<Place, usize> = BTreeMap::new();
    for (command, points) in &all {
        println!(
            "{command}: {} points to be killed at, {} of them tried by default",
            points.len(),
            SAMPLE.min(points.len())
        );
        for (place, count) in points::by_place(points) {
            println!("    {count:4}  {}", place.step());
            *total.entry(place).or_insert(0) += count;
        }
    }
    for place in Place::ALL {
        let count = total.get(&place).copied().unwrap_or(0);
        assert!(count >= 2 || place == Place::Beside, "only {count} points at: {}", place.step());
    }
    let commits = |points: &[Point]| {
        points.iter().filter(|point| point.place == Place::Ledger && point.call.contains("sync")).count()
    };
    assert!(commits(&all[0].1) >= 6, "own, accept and lease, settle, reserve again, mark published");
    let named = all.iter().flat_map(|(_, points)| points).find(|point| point.shown.contains("started.json"));
    assert!(named.is_some(), "started.json is a point");
}
