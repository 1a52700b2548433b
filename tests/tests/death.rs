//! Who dies and who does not: the watcher goes and its agents stay, the executor goes and takes its agent along, the
//! machine goes and leaves an honest `unknown` (architecture, "Life and death of an attempt").

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use dispatch_testkit::mix::{self, ATTEMPT_MICROS, Mix, all_is_true, noting};
use dispatch_testkit::points::{self, Point, at_each};
use dispatch_testkit::{Bins, Cluster, Watcher, bins, check, eventually, mail, process, trace};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

fn bins() -> Bins {
    bins!()
}

fn signal(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

/// A request that notes its run and goes on until the file `gate` is there; then it says so.
fn waiting_for(cluster: &Cluster, label: &str, gate: &std::path::Path) -> String {
    let wait = format!(
        "echo {label} waits; while [ ! -e '{}' ]; do sleep 0.02; done; echo {label} goes on",
        gate.display()
    );
    noting(cluster, label, &wait)
}

/// Two paid tasks that run until the gate is opened.
struct Two {
    cluster: Cluster,
    gate: PathBuf,
    ids: [String; 2],
}

impl Two {
    fn running() -> (Self, Watcher) {
        let cluster = mix::cluster(&bins());
        let gate = cluster.outside().join("gate");
        let b = cluster.b().watch();
        let ids = ["one", "two"]
            .map(|label| cluster.a().send("b", &waiting_for(&cluster, label, &gate), &["--profile", "paid"]));
        eventually("both run", || cluster.runs.of("one.1") + cluster.runs.of("two.1") == 2);
        (Self { cluster, gate, ids }, b)
    }

    fn open(&self) {
        fs::write(&self.gate, "").unwrap();
    }

    /// Both ran once to their ends, and everything about their answers is right.
    fn end_well(&self) {
        let results = check::one_result_each(&self.cluster, "a", "b", &self.ids);
        for (id, result) in self.ids.iter().zip(&results) {
            assert_eq!((&result["status"], &result["attempt"]), (&"ok".into(), &1.into()), "{result:#}");
            let log = fs::read(self.cluster.lane("a", "b").join(format!("done/{id}.log"))).unwrap();
            assert_eq!(
                result["log_sha256"],
                mail::sha256(&log),
                "the log on the share is the one of the result"
            );
            assert!(String::from_utf8_lossy(&log).contains("goes on"), "{log:?}");
        }
        check::each_ran_once(&self.cluster, &["one.1", "two.1"].map(ToOwned::to_owned));
        all_is_true(&self.cluster, &results);
    }
}

#[test]
fn agents_of_a_killed_watcher_are_adopted_and_run_once_to_their_ends() {
    let (two, b) = Two::running();
    b.crash();
    let _b = two.cluster.b().watch();
    two.open();
    two.end_well();
}

#[test]
fn agents_that_end_while_no_watcher_lives_are_answered_by_the_next() {
    let (two, b) = Two::running();
    b.crash();
    two.open();
    eventually("both executors have ended", || two.cluster.b().pids("dispatch-exec").is_empty());
    for id in &two.ids {
        assert!(two.cluster.result("a", "b", id).is_none(), "an executor publishes nothing");
    }
    let _b = two.cluster.b().watch();
    two.end_well();
}

#[test]
fn adopted_agents_count_against_max_parallel() {
    let (two, b) = Two::running();
    b.crash();
    let third = two.cluster.a().send("b", &noting(&two.cluster, "three", "true"), &[]);
    let _b = two.cluster.b().watch();
    let processing = two.cluster.lane("a", "b").join(format!("processing/{third}.json"));
    eventually("the third is accepted", || processing.exists());
    assert_eq!(two.cluster.b().jobs("a", &third), Vec::<PathBuf>::new(), "max_parallel is 2");
    two.open();
    two.cluster.answered(&third, "ok");
}

/// Policy section 6: SIGTERM is not a drain.
#[test]
fn a_watcher_told_to_end_ends_within_a_second_and_leaves_its_executors_running() {
    let (two, mut b) = Two::running();
    let mut quickest = Duration::MAX;
    for _ in 0..3 {
        let begun = Instant::now();
        assert_eq!(b.stop(), 0);
        quickest = quickest.min(begun.elapsed());
        assert_eq!(two.cluster.b().pids("dispatch-exec").len(), 2);
        b = two.cluster.b().watch();
    }
    assert!(quickest < Duration::from_secs(1), "{quickest:?}");
    two.open();
    two.end_well();
}

#[test]
fn a_watcher_that_was_stopped_for_a_while_goes_on() {
    let (two, b) = Two::running();
    signal(b.pid(), Signal::STOP);
    two.open();
    eventually("both outcomes are there", || {
        two.ids.iter().all(|id| two.cluster.b().jobs("a", id)[0].join("outcome.json").exists())
    });
    signal(b.pid(), Signal::CONT);
    two.end_well();
}

/// A paid task with a grandchild in a session of its own, both alive until they are ended.
fn with_grandchild(words: &[&str]) -> (Cluster, String, Watcher) {
    let cluster = mix::cluster(&bins());
    let request = noting(
        &cluster,
        "family",
        "setsid nohup sh -c 'sleep 100001 & exec sleep 100002' >/dev/null 2>&1 &\necho one line; exec sleep 100003",
    );
    let b = cluster.b().watch();
    let id = cluster.a().send("b", &request, &[&["--profile", "paid"], words].concat());
    eventually("the whole family lives", || family(&cluster).len() >= 3);
    (cluster, id, b)
}

/// The sleeping processes of the attempt.
fn family(cluster: &Cluster) -> Vec<i32> {
    let mut pids: Vec<i32> =
        check::marks(cluster.b()).iter().flat_map(|mark| process::holding(mark)).collect();
    pids.retain(|pid| process::command_line(*pid).starts_with("sleep 1000"));
    pids
}

fn kill_executor(cluster: &Cluster) {
    let executors = cluster.b().pids("dispatch-exec");
    assert_eq!(executors.len(), 1, "one executor");
    executors.into_iter().for_each(process::kill);
}

/// riba2534/happyclaw#141: grandchildren alive for 35 h, still paying. Here the executor itself is killed, so nobody is
/// left who could end them but the watcher.
#[test]
fn kill_leaves_no_descendant() {
    let (cluster, id, _b) = with_grandchild(&[]);
    let family = family(&cluster);
    kill_executor(&cluster);
    let result = cluster.answered(&id, "unknown");
    for pid in family {
        assert!(!process::alive(pid), "{pid} outlived its answer");
    }
    assert_eq!(result["reason"]["code"], "unknown", "{result:#}");
    assert_eq!(cluster.runs.of("family.1"), 1);
    all_is_true(&cluster, &[result]);
}

/// The same while no watcher lives: the agent goes with its executor, the rest with the next watcher's first look.
#[test]
fn what_a_dead_executor_left_is_ended_by_the_next_watcher() {
    let (cluster, id, b) = with_grandchild(&[]);
    let family = family(&cluster);
    b.crash();
    kill_executor(&cluster);
    let _b = cluster.b().watch();
    let result = cluster.answered(&id, "unknown");
    assert!(family.into_iter().all(|pid| !process::alive(pid)));
    all_is_true(&cluster, &[result]);
}

/// harbor-framework/harbor#2301: killed before its last event, cost null in 3 of 5 runs.
#[test]
fn killed_before_result_settles_at_reservation() {
    let cluster = mix::cluster(&bins());
    let b = cluster.b().watch();
    let gate = cluster.outside().join("gate");
    let request = waiting_for(&cluster, "paid", &gate);
    let ids: Vec<String> = (0..2).map(|_| cluster.a().send("b", &request, &["--profile", "paid"])).collect();
    eventually("both run", || cluster.runs.of("paid.1") == 2);
    // One with its watcher alive, one without.
    signal(cluster.b().pids("dispatch-exec")[0], Signal::KILL);
    eventually("one is answered", || ids.iter().any(|id| cluster.result("a", "b", id).is_some()));
    b.crash();
    kill_executor(&cluster);
    let _b = cluster.b().watch();
    let results: Vec<Value> = ids.iter().map(|id| cluster.answered(id, "unknown")).collect();
    for result in &results {
        let cost = &result["cost"];
        assert_eq!((check::micros(&cost["usd"]), &cost["basis"]), (ATTEMPT_MICROS, &"reserved".into()));
        assert_eq!(result["attempts"][0]["cost"], *cost, "{result:#}");
    }
    let month = dispatch_testkit::books::months(cluster.b());
    assert_eq!(month, (0, 2 * ATTEMPT_MICROS), "reserved and spent");
}

/// stablyai/orca#8984: a reboot left dead tasks "ready". After a reboot no lock is held, every process is another one,
/// and the boot id is new; `scripts/lab-uml.sh` does it with a machine.
#[test]
fn reboot_mid_run_becomes_unknown() {
    let cluster = mix::cluster(&bins());
    let b = cluster.b().watch();
    let gate = cluster.outside().join("gate");
    let once = cluster.a().send("b", &waiting_for(&cluster, "once", &gate), &["--profile", "paid"]);
    let twice = cluster.a().send("b", &waiting_for(&cluster, "twice", &gate), &["--max-attempts", "2"]);
    eventually("both run", || cluster.runs.of("once.1") + cluster.runs.of("twice.1") == 2);
    let executors = cluster.b().pids("dispatch-exec");
    b.crash();
    executors.into_iter().for_each(process::kill);
    // A process that has nothing to do with it got the id that the dead executor had.
    let mut bystander = std::process::Command::new("sleep").arg("100004").spawn().unwrap();
    for id in [&once, &twice] {
        let job = cluster.b().jobs("a", id).remove(0);
        edit(&job.join("started.json"), |started| {
            started["boot_id"] = "00000000-1111-4222-8333-444444444444".into();
        });
        let lock = fs::read_to_string(job.join("lock")).unwrap();
        let holder = lock.replace(
            lock.split(|c: char| !c.is_ascii_digit()).find(|word| !word.is_empty()).unwrap(),
            &bystander.id().to_string(),
        );
        fs::write(job.join("lock"), holder).unwrap();
    }
    let _b = cluster.b().watch();
    let first = cluster.answered(&once, "unknown");
    fs::write(&gate, "").unwrap();
    let second = cluster.answered(&twice, "ok");
    assert_eq!(second["attempts"][0]["status"], "unknown", "{second:#}");
    assert_eq!(
        (cluster.runs.of("once.1"), cluster.runs.of("twice.1"), cluster.runs.of("twice.2")),
        (1, 1, 1)
    );
    assert_eq!(bystander.try_wait().unwrap(), None, "nobody else is hit");
    bystander.kill().unwrap();
    bystander.wait().unwrap();
    all_is_true(&cluster, &[first, second]);
}

fn edit(file: &std::path::Path, change: impl FnOnce(&mut Value)) {
    let mut value: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    change(&mut value);
    fs::write(file, value.to_string()).unwrap();
}

/// Points that are tried by default.
const SAMPLE: usize = 24;

/// multica-ai/multica#4336: a failure report lost on restart, and the queue frozen. The watcher is told to end right
/// before each of its steps, with tasks of every sort under way: it ends as it should, and nothing is lost.
#[test]
fn result_survives_shutdown_at_any_point() {
    if !trace::possible() {
        eprintln!("SKIPPED: a shutdown at every step: strace is not installed, or may not trace here");
        return;
    }
    let counted = Mix::sent(mix::cluster(&bins()));
    let log = counted.cluster.outside().join("calls");
    drop(counted.run(&points::counting(&log)));
    let points = points::points(&log, &counted.cluster.share());
    let chosen: Vec<Point> = match std::env::var("DISPATCH_CRASH").as_deref() {
        Ok("full") => points,
        _ => points::sample(&points, SAMPLE),
    };
    at_each(&chosen, |point| {
        let mix = Mix::sent(mix::cluster(&bins()));
        let mut first = mix.run(&points::signalling(point, &mix.cluster.share(), "SIGTERM"));
        if let Some(code) = first.ended() {
            // 143: it was told before it could listen.
            assert!([0, 143].contains(&code), "it ended with {code}");
        }
        drop(first);
        let b = mix.finish();
        mix.adds_up();
        mix.all_ran();
        assert_eq!(b.stop(), 0);
    });
}
