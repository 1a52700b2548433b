//! A ledger that is lost, and one that was put back to an older copy (protocol section 7): nothing runs again, what was
//! spent is not forgotten, and the command that the node prints brings it back, whenever watcher and recovery are killed.
//!
//! `DISPATCH_CRASH=full` tries every point of every command; else an even sample.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use dispatch_core::protocol::time::Timestamp;
use dispatch_testkit::cluster::{list, name_of, names};
use dispatch_testkit::mix::{self, ATTEMPT_MICROS, noting};
use dispatch_testkit::points::{self, Point, at_each};
use dispatch_testkit::process::Ended;
use dispatch_testkit::{Bins, Cluster, Watcher, bins, books, check, eventually, mail, trace, wait};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Points that a test tries, unless told to try all.
const SAMPLE: usize = 24;

fn bins() -> Bins {
    bins!()
}

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

/// When the copy of the ledger is made that is put back later.
#[derive(Clone, Copy, PartialEq, Eq)]
enum CopyOf {
    /// Before the watcher that ran the later tasks was even started: its boot is unknown to the copy.
    AnEarlierBoot,
    /// While that watcher ran: only what it showed tells that the copy is older.
    ThisBoot,
    /// The same, and what it showed is on the share only as its peer's echo.
    ThisBootAsThePeerSawIt,
}

/// Paid tasks of `b`: one done before the copy of the ledger was made, and of later ones one done, one running, one
/// waiting for a person; then the watcher was killed, and one more came.
struct Scene {
    cluster: Cluster,
    before: String,
    after: String,
    running: String,
    waiting: String,
    unread: String,
    /// A watcher of `a`, where one is wanted.
    _peer: Option<Watcher>,
}

impl Scene {
    fn new(copy: CopyOf) -> Self {
        let cluster = mix::cluster(&bins());
        cluster.b().configure("[exec]\nmax_parallel = 8");
        let send = |label: &str, script: &str, words: &[&str]| {
            let words = [&["--profile", "paid"], words].concat();
            cluster.a().send("b", &noting(&cluster, label, script), &words)
        };
        let peer = (copy == CopyOf::ThisBootAsThePeerSawIt).then(|| {
            cluster.a().configure("[watch]\nheartbeat_s = 1");
            cluster.a().watch()
        });
        let mut b = cluster.b().watch();
        let before = send("before", "true", &[]);
        cluster.answered(&before, "ok");
        books::closed(cluster.b());
        match copy {
            CopyOf::AnEarlierBoot => {
                assert_eq!(b.stop(), 0);
                save(&cluster);
                b = cluster.b().watch();
            }
            CopyOf::ThisBoot | CopyOf::ThisBootAsThePeerSawIt => {
                signal(b.pid(), Signal::STOP);
                save(&cluster);
                signal(b.pid(), Signal::CONT);
            }
        }
        let after = send("after", "true", &[]);
        let running = send("running", "exec sleep 100000", &[]);
        let waiting = send("waiting", "true", &["--require-ack"]);
        cluster.answered(&after, "ok");
        eventually("it runs", || cluster.runs.of("running.1") == 1);
        let scene = Self { unread: String::new(), cluster, before, after, running, waiting, _peer: peer };
        eventually("the node showed what it spent", || {
            let shown = scene.heartbeat()?;
            let waits = shown["load"]["waiting"] == 1 && shown["load"]["running"] == 1;
            (waits && check::micros(&shown["budget"]["month"]["committed"]) == 3 * ATTEMPT_MICROS)
                .then_some(())
        });
        if copy == CopyOf::ThisBootAsThePeerSawIt {
            eventually("the peer saw it", || {
                let (shown, echo) = (scene.heartbeat()?, scene.heartbeat_of("a")?["peers_seen"]["b"].clone());
                (echo["audit"] == shown["audit"]).then_some(())
            });
        }
        b.crash();
        if copy == CopyOf::ThisBootAsThePeerSawIt {
            fs::remove_file(scene.cluster.share().join("heartbeats/b.json")).unwrap();
        }
        let unread = scene.cluster.a().send("b", &noting(&scene.cluster, "unread", "true"), &[]);
        Self { unread, ..scene }
    }

    /// The ledger is gone.
    fn lost(self) -> Self {
        for path in ledger_files(&self.cluster) {
            fs::remove_file(path).unwrap();
        }
        self
    }

    /// The ledger is the older copy.
    fn older(copy: CopyOf) -> Self {
        let scene = Self::new(copy).lost();
        for path in list(&saved(&scene.cluster)) {
            fs::copy(&path, scene.cluster.b().state_dir().join(name_of(&path))).unwrap();
        }
        scene
    }

    /// What `b` shows of itself.
    fn heartbeat(&self) -> Option<Value> {
        self.heartbeat_of("b")
    }

    fn heartbeat_of(&self, node: &str) -> Option<Value> {
        let bytes = fs::read(self.cluster.share().join(format!("heartbeats/{node}.json"))).ok()?;
        mail::open(&bytes, &self.cluster.pair("a", "b").bytes()).map(|opened| opened.value)
    }

    fn ctl(&self, before: &[String], words: &[&str]) -> Ended {
        let mut command = self.cluster.b().prefixed(before, "dispatchctl");
        command.args(words);
        Ended::of(command, b"")
    }

    /// Starts the watcher, does what it says, and starts it again, until it owns a whole ledger; yields the commands.
    fn as_the_node_says(&self) -> Vec<Vec<String>> {
        let mut told = Vec::new();
        for _ in 0..3 {
            let from = fs::read_to_string(self.cluster.b().log()).unwrap_or_default().len();
            let mut b = self.cluster.b().start_watch(&[], &[]);
            let code =
                eventually("it ends, or is ready", || b.ended().map(Some).or(b.is_ready().then_some(None)));
            let in_recovery = || self.heartbeat().is_some_and(|shown| shown["state"] == "recovery");
            if code.is_none() && !self.is_in_recovery() {
                return told;
            }
            if code.is_none() {
                eventually("it says so", in_recovery);
            }
            drop(b);
            let said = fs::read_to_string(self.cluster.b().log()).unwrap_or_default();
            let words = command_in(&said[from..]);
            assert!(matches!(code, None | Some(73 | 78)), "{code:?}: {said}");
            let ended = self.ctl(&[], &words.iter().map(String::as_str).collect::<Vec<_>>());
            assert_eq!(ended.code, 0, "{}: {}", ended.shown, ended.err);
            told.push(words);
        }
        panic!("the node is not back after {told:?}");
    }

    fn is_in_recovery(&self) -> bool {
        books::ledger(self.cluster.b()).meta().unwrap().recovery.is_some()
    }

    fn ids(&self) -> [&String; 5] {
        [&self.before, &self.after, &self.running, &self.waiting, &self.unread]
    }

    /// After the recovery: nothing ran again, everybody is answered, what was spent is known, the node works.
    fn adds_up(&self) {
        let cluster = &self.cluster;
        assert!(cluster.b().pids("dispatch-exec").is_empty(), "every executor was ended");
        let _b = cluster.b().watch();
        for id in self.ids() {
            drop(cluster.a().ctl(["resend", id]));
        }
        let inbox = cluster.lane("a", "b").join("inbox");
        eventually("everything put back is judged", || names(&inbox).is_empty());
        for (id, status) in [
            (&self.before, "ok"),
            (&self.after, "ok"),
            (&self.running, "unknown"),
            (&self.waiting, "unknown"),
            (&self.unread, "unknown"),
        ] {
            cluster.answered(id, status);
        }
        for place in ["processing", "pending-ack"] {
            eventually("nothing of them is left", || names(&cluster.lane("a", "b").join(place)).is_empty());
        }
        check::none_ran_twice(cluster);
        check::each_ran_once(cluster, &["before.1", "after.1", "running.1"].map(ToOwned::to_owned));
        check::no_process_with_mark_left(cluster.b());
        assert_eq!(cluster.runs.of("waiting.1") + cluster.runs.of("unread.1"), 0);
        books::closed(cluster.b());
        books::hold(cluster.b());
        assert_eq!(books::months(cluster.b()), (0, 3 * ATTEMPT_MICROS), "reserved and spent");
        self.works_again();
    }

    /// A task made when the node takes tasks again runs. That is in five minutes, and a sender's clock may be as much
    /// ahead.
    fn works_again(&self) {
        let ledger = books::ledger(self.cluster.b());
        let from = ledger.meta().unwrap().accept_after.expect("only what is made later is taken");
        let now = || Timestamp::from_unix_ms(i64::try_from(unix_ms()).unwrap());
        eventually("a clock that is nearly five minutes ahead is there", || now().plus_ms(298_000) > from);
        let made = self.cluster.a().send("b", "true", &[]);
        let file = self.cluster.lane("a", "b").join(format!("inbox/{made}.json"));
        let bytes = eventually("it lies there, or was taken", || {
            let evidence = fs::read(&file).ok();
            evidence.or_else(|| fs::read(self.cluster.lane("a", "b").join(format!("done/{made}.json"))).ok())
        });
        let key = self.cluster.pair("a", "b").lane("a", "b");
        let mut task = mail::open(&bytes, &key).unwrap().value;
        let id =
            format!("{}{}", &made[..made.len() - 4], if made.ends_with("0001") { "0002" } else { "0001" });
        task["id"] = id.clone().into();
        task["created"] = now().plus_ms(298_500).to_string().into();
        task["request"] = noting(&self.cluster, "again", "true").into();
        let aside = self.cluster.outside().join("made");
        fs::write(&aside, mail::seal("task.v3", task.to_string().as_bytes(), &key)).unwrap();
        fs::rename(aside, self.cluster.lane("a", "b").join(format!("inbox/{id}.json"))).unwrap();
        self.cluster.answered(&id, "ok");
        assert_eq!(self.cluster.runs.of("again.1"), 1);
    }
}

fn unix_ms() -> u128 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis()
}

fn saved(cluster: &Cluster) -> PathBuf {
    cluster.outside().join("saved")
}

fn save(cluster: &Cluster) {
    fs::create_dir(saved(cluster)).unwrap();
    for path in ledger_files(cluster) {
        // The shared memory beside it is made anew by whoever opens it first.
        if !name_of(&path).ends_with("-shm") {
            fs::copy(&path, saved(cluster).join(name_of(&path))).unwrap();
        }
    }
}

fn ledger_files(cluster: &Cluster) -> Vec<PathBuf> {
    let files = list(&cluster.b().state_dir());
    files.into_iter().filter(|path| name_of(path).starts_with("ledger.db")).collect()
}

/// The first `dispatchctl` command in what a node says, without its name, a reason in place of REASON.
fn command_in(said: &str) -> Vec<String> {
    let at = said.find("dispatchctl ").unwrap_or_else(|| panic!("no command in: {said}"));
    let mut words = Vec::new();
    for word in said[at..].split_whitespace().skip(1) {
        let bare = word.trim_end_matches([',', '.', ';', ':']);
        let known = ["init", "recover"].contains(&bare) || bare.starts_with("--") || bare == "REASON";
        if !known {
            break;
        }
        words.push(if bare == "REASON" { "the disk died".to_owned() } else { bare.to_owned() });
        if bare != word {
            break;
        }
    }
    words
}

fn signal(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

const NEW_LEDGER: [&str; 2] = ["init", "--new-ledger"];
const ROLLBACK: [&str; 3] = ["recover", "--accept-rollback", "the disk died"];

#[test]
fn a_lost_ledger_is_never_replaced_silently_and_the_printed_command_brings_the_node_back() {
    let scene = Scene::new(CopyOf::AnEarlierBoot).lost();
    let init = scene.ctl(&[], &["init"]);
    assert_eq!(init.code, 78, "{}", init.err);
    let told = scene.as_the_node_says();
    assert_eq!(told, [NEW_LEDGER.map(str::to_owned).to_vec()]);
    scene.adds_up();
}

#[test]
fn an_older_copy_of_another_boot_is_refused_and_the_printed_command_brings_the_node_back() {
    let scene = Scene::older(CopyOf::AnEarlierBoot);
    let told = scene.as_the_node_says();
    assert_eq!(told, [ROLLBACK.map(str::to_owned).to_vec()]);
    scene.adds_up();
}

#[test]
fn an_older_copy_of_this_boot_takes_nothing_and_the_printed_command_brings_the_node_back() {
    let scene = Scene::older(CopyOf::ThisBoot);
    stays_in_recovery(&scene);
    let told = scene.as_the_node_says();
    assert_eq!(told, [ROLLBACK.map(str::to_owned).to_vec()]);
    scene.adds_up();
}

/// State `recovery`: nothing is accepted or leased, however often the watcher is started.
fn stays_in_recovery(scene: &Scene) {
    let inbox = scene.cluster.lane("a", "b").join(format!("inbox/{}.json", scene.unread));
    for _ in 0..3 {
        let mut b = scene.cluster.b().watch();
        eventually("it says that it is in recovery", || {
            assert_eq!(b.ended(), None);
            scene.heartbeat().is_some_and(|shown| shown["state"] == "recovery")
        });
        wait::throughout(Duration::from_millis(300), "it takes nothing", || inbox.exists());
        b.crash();
    }
    assert!(scene.is_in_recovery());
}

#[test]
fn a_watcher_killed_at_any_point_of_finding_its_ledger_old_finds_it_again() {
    if !traceable() {
        return;
    }
    let run = |scene: &Scene, before: &[String]| {
        let mut b = scene.cluster.b().start_watch(before, &[]);
        eventually("it says that it is in recovery, or is dead", || {
            b.ended().is_some() || scene.heartbeat().is_some_and(|shown| shown["state"] == "recovery")
        });
    };
    let counted = Scene::older(CopyOf::ThisBoot);
    let log = counted.cluster.outside().join("calls");
    run(&counted, &points::counting(&log));
    at_each(&chosen(&points::points(&log, &counted.cluster.share())), |point| {
        let scene = Scene::older(CopyOf::ThisBoot);
        run(&scene, &points::killing(point, &scene.cluster.share()));
        stays_in_recovery(&scene);
        drop(scene.ctl(&[], &ROLLBACK).ok());
        scene.adds_up();
    });
}

/// Kills `words` at each of its points; what the node says then brings it back.
fn killed(words: &[&str], make: impl Fn() -> Scene + Sync) {
    let counted = make();
    let log = counted.cluster.outside().join("calls");
    drop(counted.ctl(&points::counting(&log), words).ok());
    counted.adds_up();
    let points = points::points(&log, &counted.cluster.share());
    println!("dispatchctl {}: {} points", words.join(" "), points.len());
    at_each(&chosen(&points), |point| {
        let scene = make();
        drop(scene.ctl(&points::killing(point, &scene.cluster.share()), words));
        scene.as_the_node_says();
        scene.adds_up();
    });
}

#[test]
fn init_new_ledger_killed_at_any_point_can_be_repeated() {
    if traceable() {
        killed(&NEW_LEDGER, || Scene::new(CopyOf::AnEarlierBoot).lost());
    }
}

#[test]
fn recover_killed_at_any_point_can_be_repeated() {
    if traceable() {
        killed(&ROLLBACK, || Scene::older(CopyOf::AnEarlierBoot));
    }
}

/// Nothing tells what was spent: then nothing is, until a person says what it was or the month is over.
#[test]
fn with_nothing_known_of_the_month_paid_work_is_off() {
    let scene = Scene::new(CopyOf::AnEarlierBoot).lost();
    fs::remove_file(scene.cluster.share().join("heartbeats/b.json")).unwrap();
    let made = scene.ctl(&[], &NEW_LEDGER).ok();
    assert!(made.out.contains("paid work is off"), "{}", made.out);
    assert!(books::ledger(scene.cluster.b()).meta().unwrap().paid_off_until.is_some());

    let scene = Scene::new(CopyOf::AnEarlierBoot).lost();
    fs::remove_file(scene.cluster.share().join("heartbeats/b.json")).unwrap();
    drop(scene.ctl(&[], &[&NEW_LEDGER[..], &["--month-spent", "7.5"]].concat()).ok());
    assert_eq!(books::months(scene.cluster.b()), (0, 7_500_000));
    assert!(books::ledger(scene.cluster.b()).meta().unwrap().paid_off_until.is_none());
}

/// The peer's echo tells that the ledger is older, but not what was spent since.
#[test]
fn an_older_copy_that_only_the_peer_knows_of_keeps_paid_work_off() {
    let scene = Scene::older(CopyOf::ThisBootAsThePeerSawIt);
    stays_in_recovery(&scene);
    assert_eq!(scene.as_the_node_says(), [ROLLBACK.map(str::to_owned).to_vec()]);
    assert!(books::ledger(scene.cluster.b()).meta().unwrap().paid_off_until.is_some());
    let _b = scene.cluster.b().watch();
    eventually("everything put back is judged", || {
        names(&scene.cluster.lane("a", "b").join("inbox")).is_empty()
    });
    check::none_ran_twice(&scene.cluster);
    scene.works_again();
}

/// A ledger that is no ledger any more stops the node, and what it says about it works.
#[test]
fn a_damaged_ledger_stops_the_node_until_it_is_moved_away() {
    let scene = Scene::new(CopyOf::AnEarlierBoot).lost();
    let file = scene.cluster.b().state_dir().join("ledger.db");
    fs::write(&file, vec![0x5a; 65_536]).unwrap();
    assert_eq!(scene.cluster.b().start_watch(&[], &[]).wait(), 78);
    let said = fs::read_to_string(scene.cluster.b().log()).unwrap();
    assert!(said.contains("move the file away and run dispatchctl init --new-ledger"), "{said}");
    assert_eq!(scene.ctl(&[], &NEW_LEDGER).code, 78, "it is not replaced");
    fs::rename(&file, scene.cluster.outside().join("damaged")).unwrap();
    drop(scene.ctl(&[], &NEW_LEDGER).ok());
    scene.adds_up();
}

/// The new chain begins with an entry that names the old one's end, and the node's peer keeps what it witnessed.
#[test]
fn a_new_chain_names_the_end_of_the_old_one() {
    let scene = Scene::older(CopyOf::ThisBoot);
    let shown = scene.heartbeat().unwrap()["audit"].clone();
    stays_in_recovery(&scene);
    drop(scene.ctl(&[], &ROLLBACK).ok());
    let lines = books::ledger(scene.cluster.b()).audit_lines(0, 100_000).unwrap();
    let lines: Vec<Value> = lines.iter().map(|line| serde_json::from_str(&line.line).unwrap()).collect();
    let first = lines.iter().rposition(|line| line["seq"] == 1).unwrap();
    assert!(first > 0, "the old chain is still there");
    let text = lines[first].to_string();
    assert_ne!(lines[first]["chain"], lines[first - 1]["chain"]);
    for named in [&lines[first - 1]["chain"], &lines[first - 1]["hash"], &shown["head"]] {
        assert!(text.contains(named.as_str().unwrap()), "{named} is not named in {text}");
    }
}
