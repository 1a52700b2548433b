//! The races of a launch and of an end, by name (architecture, "Life and death of an attempt").
//!
//! A script in the place of `dispatch-exec` holds the executor where the race is and then becomes it; `strace` delays
//! single calls. What is shipped holds no switch for any of this.

use std::fs;
use std::path::PathBuf;

use dispatch_testkit::cluster::names;
use dispatch_testkit::mix::{self, ATTEMPT_MICROS, all_is_true, noting};
use dispatch_testkit::{Bins, Cluster, Node, Watcher, bins, books, check, eventually, process, trace};
use serde_json::Value;

fn bins() -> Bins {
    bins!()
}

/// A paid task whose first executor is held before its first instruction.
struct Held {
    cluster: Cluster,
    node: Node,
    id: String,
    spawned: PathBuf,
    go: PathBuf,
}

impl Held {
    fn new(words: &[&str]) -> Self {
        let cluster = mix::cluster(&bins());
        let [once, spawned, go] = ["once", "spawned", "go"].map(|name| cluster.outside().join(name));
        let script = format!(
            "if mkdir '{}' 2>/dev/null; then\n\
             echo $$ > '{spawned}.new'; mv '{spawned}.new' '{spawned}'\n\
             while [ ! -e '{}' ]; do sleep 0.02; done\n\
             fi\nexec \"$REAL\" \"$@\"",
            once.display(),
            go.display(),
            spawned = spawned.display(),
        );
        let bins = cluster.bins.with_wrapper(&cluster.outside().join("bin"), "dispatch-exec", &script);
        let node = cluster.b().with_bins(&bins);
        let all = [&["--profile", "paid"], words].concat();
        let id = cluster.a().send("b", &noting(&cluster, "once", "echo done"), &all);
        Self { cluster, node, id, spawned, go }
    }

    /// Starts a watcher and waits until it has spawned the executor that is held.
    fn spawned(&self) -> (Watcher, i32) {
        let watcher = self.node.watch();
        let pid = eventually("the executor is spawned", || fs::read_to_string(&self.spawned).ok());
        (watcher, pid.trim().parse().unwrap())
    }

    fn let_go(&self) {
        fs::write(&self.go, "").unwrap();
    }

    /// Waits for the answer and checks everything about it.
    fn ends(&self, status: &str) -> Value {
        let results = check::one_result_each(&self.cluster, "a", "b", std::slice::from_ref(&self.id));
        assert_eq!(results[0]["status"], status, "{:#}", results[0]);
        all_is_true(&self.cluster, &results);
        results.into_iter().next().unwrap()
    }

    fn ran(&self, times: usize) {
        assert_eq!(self.cluster.runs.of("once.1"), times);
    }
}

#[test]
fn a_watcher_that_dies_between_spawn_and_lock_leaves_an_executor_that_goes_on() {
    let held = Held::new(&[]);
    let (b, executor) = held.spawned();
    b.crash();
    held.let_go();
    let job = held.node.jobs("a", &held.id).remove(0);
    eventually("the executor has come to its end", || !process::alive(executor));
    assert!(job.join("outcome.json").exists(), "it needs no watcher");
    let _b = held.node.watch();
    let result = held.ends("ok");
    assert_eq!(result["attempt"], 1);
    assert_eq!(held.node.jobs("a", &held.id), [job], "one lease was enough");
    held.ran(1);
}

#[test]
fn an_executor_that_starts_after_its_attempt_was_revoked_starts_nothing() {
    let held = Held::new(&[]);
    let (b, late) = held.spawned();
    b.crash();
    let _b = held.node.watch();
    // The lock is free and nothing was started: revoked, leased again under a new epoch, which runs.
    let result = held.ends("ok");
    assert_eq!(result["attempt"], 1, "a lease that started nothing is no attempt: {result:#}");
    let jobs = held.node.jobs("a", &held.id);
    assert_eq!(jobs.len(), 2, "every lease has a directory of its own: {jobs:?}");
    assert!(jobs[0].join("revoked").exists());
    let before = names(&jobs[0]);
    held.let_go();
    eventually("the late executor ends", || !process::alive(late));
    let mut after = names(&jobs[0]);
    after.retain(|name| name != "lock");
    assert_eq!(
        after,
        before.into_iter().filter(|name| name != "lock").collect::<Vec<_>>(),
        "it wrote something"
    );
    held.ran(1);
    assert_eq!(held.ends("ok"), result, "and nothing changed");
}

/// The same, but the late executor comes while the second one runs.
#[test]
fn an_executor_that_starts_late_leaves_the_one_that_runs_alone() {
    let held = Held::new(&["--max-attempts", "3"]);
    let (b, late) = held.spawned();
    b.crash();
    let _b = held.node.watch();
    eventually("the second lease has begun", || {
        held.node.jobs("a", &held.id).get(1).is_some_and(|job| job.join("started.json").exists())
    });
    held.let_go();
    eventually("the late executor ends", || !process::alive(late));
    assert_eq!(held.ends("ok")["attempt"], 1);
    held.ran(1);
}

#[test]
fn watcher_and_executor_that_die_together_before_the_lock_run_it_once() {
    let held = Held::new(&[]);
    let (b, executor) = held.spawned();
    b.crash();
    process::kill(executor);
    let _b = held.node.watch();
    assert_eq!(held.ends("ok")["attempt"], 1);
    held.ran(1);
}

/// A paid task that runs until it is ended.
fn staying(words: &[&str]) -> (Cluster, String, Watcher) {
    let cluster = mix::cluster(&bins());
    let request = noting(&cluster, "stays", "[ \"$DISPATCH_ATTEMPT\" = 2 ] || exec sleep 100000");
    let all = [&["--profile", "paid"], words].concat();
    let id = cluster.a().send("b", &request, &all);
    let b = cluster.b().watch();
    eventually("it runs", || cluster.runs.of("stays.1") == 1);
    (cluster, id, b)
}

fn die_together(cluster: &Cluster, b: Watcher) {
    let executors = cluster.b().pids("dispatch-exec");
    assert_eq!(executors.len(), 1);
    b.crash();
    executors.into_iter().for_each(process::kill);
}

#[test]
fn watcher_and_executor_that_die_together_while_it_runs_leave_an_unknown() {
    let (cluster, id, b) = staying(&[]);
    die_together(&cluster, b);
    let _b = cluster.b().watch();
    let result = cluster.answered(&id, "unknown");
    assert_eq!(check::micros(&result["cost"]["usd"]), ATTEMPT_MICROS, "never booked at zero: {result:#}");
    assert_eq!(cluster.runs.of("stays.1"), 1);
    all_is_true(&cluster, &[result]);
}

#[test]
fn watcher_and_executor_that_die_together_give_a_task_that_may_run_twice_its_next_attempt() {
    let (cluster, id, b) = staying(&["--max-attempts", "2"]);
    die_together(&cluster, b);
    let _b = cluster.b().watch();
    let result = cluster.answered(&id, "ok");
    assert_eq!(result["attempt"], 2, "{result:#}");
    assert_eq!(result["attempts"][0]["status"], "unknown", "{result:#}");
    assert_eq!(check::micros(&result["cost"]["usd"]), 2 * ATTEMPT_MICROS, "each has its own reservation");
    assert_eq!((cluster.runs.of("stays.1"), cluster.runs.of("stays.2")), (1, 1));
    all_is_true(&cluster, &[result]);
}

fn traceable() -> bool {
    let possible = trace::possible();
    if !possible {
        eprintln!("SKIPPED: strace is not installed, or may not trace here");
    }
    possible
}

/// A watcher that adopts an attempt hangs at `delay` of its try of the lock; the executor comes to its end meanwhile.
fn ends_while_the_watcher_hangs(delay: &str) {
    if !traceable() {
        return;
    }
    let cluster = mix::cluster(&bins());
    let gate = cluster.outside().join("gate");
    let wait = format!("while [ ! -e '{}' ]; do sleep 0.02; done", gate.display());
    let id = cluster.a().send("b", &noting(&cluster, "once", &wait), &["--profile", "paid"]);
    let b = cluster.b().watch();
    eventually("it runs", || cluster.runs.of("once.1") == 1);
    b.crash();
    // The first lock is the node's own, the second that of the job.
    let tracer =
        format!("strace -D -qq -b execve -o /dev/null -e trace=flock -e inject=flock:{delay}=4000000:when=2");
    let tracer: Vec<String> = tracer.split(' ').map(str::to_owned).collect();
    let b = cluster.b().start_watch(&tracer, &[]);
    let mut looks = 0;
    eventually("it hangs", || {
        looks = if is_traced_stop(b.pid()) { looks + 1 } else { 0 };
        looks > 60
    });
    fs::write(&gate, "").unwrap();
    eventually("the executor has come to its end", || cluster.b().pids("dispatch-exec").is_empty());
    assert!(is_traced_stop(b.pid()), "it did not hang long enough for this test");
    let result = cluster.answered(&id, "ok");
    assert_eq!(result["attempt"], 1, "{result:#}");
    assert_eq!(cluster.runs.of("once.1"), 1);
    all_is_true(&cluster, &[result]);
}

/// Whether a process is held by its tracer.
fn is_traced_stop(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('t'))
}

/// What was read of the directory before the lock was held does not count: the outcome came in between.
#[test]
fn an_outcome_synced_just_as_its_attempt_is_declared_dead_stands() {
    ends_while_the_watcher_hangs("delay_enter");
}

/// The lock was busy, and what is read after that says that all is over.
#[test]
fn an_outcome_synced_just_after_its_executor_was_seen_alive_is_settled_once() {
    ends_while_the_watcher_hangs("delay_exit");
}

/// An executor that was killed after its last act, while it still held the lock.
#[test]
fn an_executor_killed_between_its_outcome_and_its_end_has_run_to_its_end() {
    if !traceable() {
        return;
    }
    let cluster = mix::cluster(&bins());
    let script = "exec strace -D -qq -b execve -o /dev/null -e trace=exit_group \
                  -e inject=exit_group:delay_enter=20000000 \"$REAL\" \"$@\"";
    let bins = cluster.bins.with_wrapper(&cluster.outside().join("bin"), "dispatch-exec", script);
    let node = cluster.b().with_bins(&bins);
    let b = node.watch();
    let id = cluster.a().send("b", &noting(&cluster, "once", "echo done"), &["--profile", "paid"]);
    eventually("the outcome is there", || {
        node.jobs("a", &id).iter().any(|job| job.join("outcome.json").exists())
    });
    b.crash();
    let executors = node.pids("dispatch-exec");
    assert!(!executors.is_empty(), "it hangs at its end");
    executors.into_iter().for_each(process::kill);
    let _b = node.watch();
    let result = cluster.answered(&id, "ok");
    assert_eq!(cluster.runs.of("once.1"), 1);
    all_is_true(&cluster, &[result]);
}

#[test]
fn a_cancel_that_comes_between_spawn_and_lock_starts_nothing_and_costs_nothing() {
    let held = Held::new(&[]);
    let (_b, _) = held.spawned();
    drop(held.cluster.a().ctl(["cancel", &held.id]).ok());
    let job = held.node.jobs("a", &held.id).remove(0);
    eventually("the executor is told", || job.join("stop.json").exists());
    held.let_go();
    let result = held.ends("cancelled");
    assert_eq!(check::micros(&result["cost"]["usd"]), 0, "{result:#}");
    assert!(!job.join("started.json").exists());
    held.ran(0);
}

#[test]
fn a_killswitch_that_comes_between_spawn_and_lock_starts_nothing_and_keeps_the_reservation() {
    let held = Held::new(&[]);
    let (_b, _) = held.spawned();
    let switch = held.cluster.share().join("KILLSWITCH");
    fs::write(&switch, "enough\n").unwrap();
    held.let_go();
    let job = held.node.jobs("a", &held.id).remove(0);
    eventually("the executor has come to its end", || job.join("outcome.json").exists());
    eventually("the lease is given back", || books::ledger(&held.node).open_attempts().unwrap().is_empty());
    assert_eq!(books::months(&held.node), (ATTEMPT_MICROS, 0), "reserved and spent");
    held.ran(0);
    fs::remove_file(&switch).unwrap();
    drop(held.node.ctl(["resume"]).ok());
    assert_eq!(held.ends("ok")["attempt"], 1);
    held.ran(1);
}

#[test]
fn an_executor_that_never_comes_is_given_up_after_five_leases_and_nothing_is_paid() {
    let cluster = mix::cluster(&bins());
    let bins = cluster.bins.with_wrapper(&cluster.outside().join("bin"), "dispatch-exec", "exit 1");
    let node = cluster.b().with_bins(&bins);
    let id = cluster.a().send("b", &noting(&cluster, "never", "true"), &["--profile", "paid"]);
    let _b = node.watch();
    let result = cluster.answered(&id, "error");
    assert_eq!(result["reason"]["code"], "cannot_start", "{result:#}");
    assert_eq!((result["attempt"].as_u64(), check::micros(&result["cost"]["usd"])), (Some(0), 0));
    assert_eq!(node.jobs("a", &id).len(), 5);
    assert_eq!(cluster.runs.of("never.1"), 0);
    all_is_true(&cluster, &[result]);
}
