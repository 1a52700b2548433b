//! Everything at once, at random: two nodes that both send and run, tasks of every sort, and all the while somebody
//! kills watchers, executors and senders, trips killswitches and takes the share away. Then it all is left alone and
//! must add up.
//!
//! `DISPATCH_SOAK_S` says for how many seconds it is disturbed (20), `DISPATCH_SOAK_SEED` by which numbers: a seed repeats
//! the order of what is done, not the moments at which the machine comes to it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use dispatch_testkit::cluster::{list, name_of, names};
use dispatch_testkit::process::Ended;
use dispatch_testkit::wait::{try_within, within};
use dispatch_testkit::{Bins, Cluster, Node, Watcher, bins, books, check, eventually, mail, mix, process};
use serde_json::Value;

/// How long a soak is disturbed, unless told otherwise.
const SPAN_S: u64 = 20;
/// Most tasks on their way at once; the machine has other things to do.
const OPEN_MAX: usize = 24;
/// How many agents of a node may live at once.
const MAX_PARALLEL: usize = 2;
/// What a node may spend, in millionths of a dollar; an attempt of a paid task is reserved for a fiftieth of it.
const CAP_MICROS: u64 = 10_000_000;
/// How long everything may take to come to its end once it is left alone: the back-off of launches is most of it.
const REST: Duration = Duration::from_secs(240);

fn bins() -> Bins {
    bins!()
}

/// Numbers that follow from a seed (SplitMix64).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn one_in(&mut self, of: u64) -> bool {
        self.below(of) == 0
    }

    fn pick<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        let end = u64::try_from(of.len()).unwrap();
        (end > 0).then(|| &of[usize::try_from(self.below(end)).unwrap()])
    }

    fn ms(&mut self, below: u64) -> Duration {
        Duration::from_millis(self.below(below))
    }
}

/// One of the two nodes, with what happens to it.
struct Side {
    node: Node,
    peer: String,
    key: PathBuf,
    watcher: Option<Watcher>,
    /// Executors that were killed: only a task one of them ran for may end `unknown`.
    executors_killed: usize,
    /// Decisions on their way.
    deciding: Vec<Child>,
}

impl Side {
    fn new(node: &Node, peer: &str) -> Self {
        let cap = CAP_MICROS / 1_000_000;
        node.configure(&format!(
            "[watch]\nheartbeat_s = 1\n[exec]\nmax_parallel = {MAX_PARALLEL}\n\
             [budget]\nrun_usd = \"{cap}\"\nmonth_usd = \"{cap}\"\n\
             [profile.paid]\nagent = \"command\"\nargv = [\"/bin/sh\", \"-eu\"]\nbilling = \"metered\"\n\
             max_cost_usd = \"0.15\"\novershoot_usd = \"0.05\"\n"
        ));
        node.only_caps();
        let key = node.approver("ann");
        Self {
            node: node.clone(),
            peer: peer.to_owned(),
            key,
            watcher: None,
            executors_killed: 0,
            deciding: Vec::new(),
        }
    }

    /// The ids of the tasks that this side sent, or began to.
    fn sent(&self) -> BTreeSet<String> {
        let lane = self.node.state_dir().join("send").join(format!("{}-to-{}", self.node.name, self.peer));
        ["outbox", "sent"]
            .iter()
            .flat_map(|place| names(&lane.join(place)))
            .filter_map(|name| {
                let stem = name.strip_suffix(".json")?;
                let id = stem.rsplit('.').next()?;
                (id.len() == 36).then(|| id.to_owned())
            })
            .collect()
    }

    /// Sends a task of some sort; now and then its sender is killed.
    fn send(&self, cluster: &Cluster, dice: &mut Dice) {
        let (words, script) = task(dice);
        let mut command = self.node.command("dispatch-send");
        command.args(["--to", &self.peer]).args(&words).arg("-");
        let request = request(cluster, &script);
        if !dice.one_in(4) {
            drop(Ended::of(command, request.as_bytes()));
            return;
        }
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        drop(std::io::Write::write_all(&mut child.stdin.take().unwrap(), request.as_bytes()));
        thread::sleep(dice.ms(15));
        drop(child.kill());
        child.wait().unwrap();
    }

    /// Decides on what waits for a person.
    fn decide(&mut self, cluster: &Cluster, dice: &mut Dice) {
        self.deciding.retain_mut(|child| child.try_wait().unwrap().is_none());
        let pending = names(&cluster.lane(&self.peer, &self.node.name).join("pending-ack"));
        let waiting: Vec<&str> = pending.iter().filter_map(|name| name.strip_suffix(".terms.json")).collect();
        let Some(id) = dice.pick(&waiting) else { return };
        if self.deciding.len() > 2
            || pending.iter().any(|name| name.starts_with(*id) && name.ends_with(".ack"))
        {
            return;
        }
        let mut command = self.node.command("dispatch-ack");
        command.args(["--yes", "--no-wait", "--reason", "soaked", "--key"]).arg(&self.key);
        if dice.one_in(5) {
            command.arg("--reject");
        }
        command.arg(id).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        if dice.one_in(5) {
            thread::sleep(dice.ms(20));
            drop(child.kill());
        }
        self.deciding.push(child);
    }

    /// Kills the watcher, or starts it where none lives.
    fn kill_or_start(&mut self, dice: &mut Dice) {
        match self.watcher.take() {
            Some(watcher) if dice.one_in(3) => drop(watcher.stop()),
            Some(watcher) => watcher.crash(),
            None => self.start(),
        }
    }

    fn start(&mut self) {
        self.reap();
        if self.watcher.is_none() {
            self.watcher = Some(self.node.start_watch(&[], &[]));
        }
    }

    /// A watcher that ended by itself did so because the share was away when it started.
    fn reap(&mut self) {
        if let Some(code) = self.watcher.as_mut().and_then(Watcher::ended) {
            assert_eq!(code, 69, "the watcher of {} ended with {code}: {}", self.node.name, self.log());
            self.watcher = None;
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.node.log()).unwrap_or_default()
    }

    fn kill_an_executor(&mut self, dice: &mut Dice) {
        if let Some(pid) = dice.pick(&self.node.pids("dispatch-exec")) {
            process::kill(*pid);
            self.executors_killed += 1;
        }
    }

    /// What waits for money that does not come back, in the ledger of this side.
    fn waits_for_money(&self) -> Vec<String> {
        let queue = books::ledger(&self.node).whole_queue().unwrap();
        let ledger = books::ledger(&self.node);
        let rows = queue.iter().filter_map(|task| ledger.task(&task.key).unwrap());
        rows.filter(|row| row.wait_reason.is_some()).map(|row| row.key.id.to_string()).collect()
    }
}

/// The words and the script of a task of some sort.
fn task(dice: &mut Dice) -> (Vec<&'static str>, String) {
    let mut words: Vec<&str> = Vec::new();
    if dice.one_in(2) {
        words.extend(["--profile", "paid"]);
    }
    if dice.one_in(5) {
        words.push("--require-ack");
    }
    if dice.one_in(3) {
        words.extend(["--max-attempts", "2"]);
    }
    if dice.one_in(4) {
        words.extend(["--priority", "high"]);
    }
    let script = match dice.below(8) {
        0 | 1 => "echo done".to_owned(),
        2 => format!("sleep {}.{}", dice.below(2), dice.below(10)),
        3 => "setsid sh -c 'sleep 100005 & exec sleep 100006' >/dev/null 2>&1 & echo left one".to_owned(),
        4 => "setsid sleep 100007 & sleep 1.5; echo slow".to_owned(),
        5 => {
            words.extend(["--max-output", "2000"]);
            "i=0; while [ $i -lt 400 ]; do echo 0123456789012345678901234567890123456789; i=$((i+1)); done"
                .to_owned()
        }
        6 => "echo attempt $DISPATCH_ATTEMPT; [ \"$DISPATCH_ATTEMPT\" = 2 ] || exit 3".to_owned(),
        _ => {
            words.extend(["--timeout", "1s"]);
            "sleep 100008".to_owned()
        }
    };
    (words, script)
}

/// A request that notes which attempt of which task it is, and then runs `script`.
fn request(cluster: &Cluster, script: &str) -> String {
    format!("{}{script}\n", cluster.runs.mark("'\"$DISPATCH_TASK.$DISPATCH_ATTEMPT\"'"))
}

/// Looks all the while, until it is dropped.
struct Looking {
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Looking {
    fn at(cluster: &Cluster) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (flag, needle) = (Arc::clone(&stop), cluster.needle());
        let nodes = cluster.nodes.clone();
        let thread = thread::spawn(move || {
            while !flag.load(Ordering::Relaxed) {
                for node in &nodes {
                    let (reserved, spent) = books::months(node);
                    assert!(
                        reserved + spent <= CAP_MICROS,
                        "{}: {reserved} + {spent} above the cap",
                        node.name
                    );
                    let agents = agents(node, &needle);
                    let count = agents.iter().map(|(mark, _)| mark).collect::<BTreeSet<_>>().len();
                    let there = agents.iter().all(|(_, pid)| process::alive(*pid));
                    assert!(
                        count <= MAX_PARALLEL || !there,
                        "{count} agents of {} at once: {agents:?}",
                        node.name
                    );
                }
                thread::sleep(Duration::from_millis(250));
            }
        });
        Self { stop, thread: Some(thread) }
    }

    fn end(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().expect("what was looked for all the while held");
    }
}

impl Drop for Looking {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// The processes of a node's agents, with their attempts' marks.
fn agents(node: &Node, needle: &str) -> Vec<(String, i32)> {
    let mut found = Vec::new();
    for pid in process::holding(needle) {
        let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let text = String::from_utf8_lossy(&environ).into_owned();
        let value =
            |name: &str| text.split('\0').find_map(|entry| entry.strip_prefix(name)).map(ToOwned::to_owned);
        if value("DISPATCH_NODE=").as_deref() == Some(node.name.as_str())
            && let Some(mark) = value("DISPATCH_MARK=")
            && process::alive(pid)
        {
            found.push((mark, pid));
        }
    }
    found
}

struct Soak {
    cluster: Cluster,
    sides: [Side; 2],
    dice: Dice,
    /// When the share comes back.
    share_away: Option<Instant>,
    /// When the killswitch is lifted.
    tripped: Option<Instant>,
    did: BTreeMap<&'static str, usize>,
}

impl Soak {
    fn new(seed: u64) -> Self {
        let cluster = Cluster::new(&bins());
        let sides = [Side::new(cluster.a(), "b"), Side::new(cluster.b(), "a")];
        Self { cluster, sides, dice: Dice(seed), share_away: None, tripped: None, did: BTreeMap::new() }
    }

    fn away(&self) -> PathBuf {
        self.cluster.outside().join("share")
    }

    fn did(&mut self, what: &'static str) {
        *self.did.entry(what).or_default() += 1;
    }

    fn disturb(&mut self) {
        if self.share_away.is_some_and(|until| Instant::now() >= until) {
            self.bring_back();
        }
        if self.tripped.is_some_and(|until| Instant::now() >= until) {
            self.resume();
        }
        let which = usize::try_from(self.dice.below(2)).unwrap();
        match self.dice.below(40) {
            0..15 if self.open() < OPEN_MAX => {
                self.did("sends");
                self.sides[which].send(&self.cluster, &mut self.dice);
            }
            15..22 => self.sides[which].decide(&self.cluster, &mut self.dice),
            22..26 => {
                self.did("watchers killed or started");
                self.sides[which].kill_or_start(&mut self.dice);
            }
            26..32 => self.sides[which].start(),
            32..34 => {
                self.did("executors killed");
                self.sides[which].kill_an_executor(&mut self.dice);
            }
            34..36 => self.cancel(which),
            36 => self.take_away(),
            37 => self.trip(which),
            _ => {}
        }
        thread::sleep(self.dice.ms(80));
    }

    /// Tasks that are not answered, as far as the share shows.
    fn open(&self) -> usize {
        let done = |from: &str, to: &str| {
            let names = names(&self.cluster.lane(from, to).join("done"));
            names.iter().filter(|name| name.ends_with(".result.json")).count()
        };
        let [a, b] = &self.sides;
        (a.sent().len() + b.sent().len()).saturating_sub(done("a", "b") + done("b", "a"))
    }

    fn cancel(&mut self, which: usize) {
        let side = &self.sides[which];
        let open: Vec<String> = side
            .sent()
            .into_iter()
            .filter(|id| {
                let done =
                    self.cluster.lane(&side.node.name, &side.peer).join(format!("done/{id}.result.json"));
                !done.exists()
            })
            .collect();
        if let Some(id) = self.dice.pick(&open) {
            drop(side.node.ctl(["cancel", id]));
            self.did("cancels");
        }
    }

    fn take_away(&mut self) {
        if self.share_away.is_none() {
            fs::rename(self.cluster.share(), self.away()).unwrap();
            self.share_away = Some(Instant::now() + self.dice.ms(2_000));
            self.did("share away");
        }
    }

    fn bring_back(&mut self) {
        if self.share_away.take().is_some() {
            fs::rename(self.away(), self.cluster.share()).unwrap();
        }
    }

    fn trip(&mut self, which: usize) {
        if self.tripped.is_some() || self.share_away.is_some() {
            return;
        }
        let mut words = vec!["kill", "--wait", "0s"];
        if self.dice.one_in(3) {
            words.push("--now");
        }
        if self.dice.one_in(3) {
            words.push("--node");
        }
        words.push("soaked");
        drop(self.sides[which].node.ctl(&words));
        self.tripped = Some(Instant::now() + self.dice.ms(2_000));
        self.did("trips");
    }

    /// Resumes on both nodes; not yet where one cannot say that it has.
    fn resume(&mut self) {
        let mut resumed = true;
        for side in &mut self.sides {
            for place in [&[][..], &["--node"][..]] {
                side.start();
                let ended = side.node.ctl([&["resume", "--wait", "1s"], place].concat());
                resumed &= ended.code == 0;
            }
        }
        self.tripped = if resumed { None } else { Some(Instant::now() + Duration::from_millis(300)) };
    }

    /// Nobody disturbs anything any more: everything comes to its end.
    fn rest(&mut self) {
        self.bring_back();
        self.sides.iter_mut().for_each(Side::start);
        within(REST, "both nodes go on", || {
            self.resume();
            self.tripped.is_none()
        });
        let begun = Instant::now();
        let settled = try_within(REST, || {
            for side in &mut self.sides {
                side.start();
                side.decide(&self.cluster, &mut self.dice);
                // Everything else has had its turn; the money of this month does not come back.
                if begun.elapsed() > Duration::from_secs(15) {
                    for id in side.waits_for_money() {
                        drop(side.node.ctl(["cancel", &id]));
                    }
                }
            }
            thread::sleep(Duration::from_millis(100));
            self.unanswered().is_empty()
        });
        assert!(
            settled.is_some(),
            "not answered: {:#?}\n{}",
            self.unanswered(),
            self.state_of_the_unanswered()
        );
    }

    fn unanswered(&self) -> Vec<String> {
        let mut open = Vec::new();
        for side in &self.sides {
            let done = names(&self.cluster.lane(&side.node.name, &side.peer).join("done"));
            let done: BTreeSet<&str> =
                done.iter().filter_map(|name| name.strip_suffix(".result.json")).collect();
            open.extend(side.sent().into_iter().filter(|id| !done.contains(id.as_str())));
        }
        open
    }

    fn state_of_the_unanswered(&self) -> String {
        let mut text = String::new();
        for id in self.unanswered() {
            for side in &self.sides {
                let shown = side.node.ctl(["show", &id]);
                text += &format!("--- {id} at {}\n{}{}\n", side.node.name, shown.out, shown.err);
            }
        }
        text
    }

    fn adds_up(&mut self) {
        let runs = self.cluster.runs.all();
        check::none_ran_twice(&self.cluster);
        let mut known = BTreeSet::new();
        for which in [0, 1] {
            let (from, to) = (&self.sides[which], &self.sides[1 - which]);
            let ids: Vec<String> = from.sent().into_iter().collect();
            let results = check::one_result_each(&self.cluster, &from.node.name, &to.node.name, &ids);
            for (id, result) in ids.iter().zip(&results) {
                one_is_true(&runs, id, result, &self.cluster.lane(&from.node.name, &to.node.name));
                let seen = from.node.ctl(["result", "--json", id]).ok();
                let seen: Value = serde_json::from_str(&seen.out).unwrap();
                assert_eq!(seen["result"], *result, "what its sender believes");
            }
            let unknown = results.iter().flat_map(|result| result["attempts"].as_array().unwrap());
            let unknown = unknown.filter(|attempt| attempt["status"] == "unknown").count();
            assert!(unknown <= to.executors_killed, "{unknown} unknown, {} killed", to.executors_killed);
            let spent: u64 = results.iter().map(|result| check::micros(&result["cost"]["usd"])).sum();
            books::closed(&to.node);
            books::hold(&to.node);
            assert_eq!(books::months(&to.node), (0, spent), "reserved and spent of {}", to.node.name);
            assert!(spent <= CAP_MICROS);
            check::no_process_with_mark_left(&to.node);
            known.extend(ids);
        }
        let strays: Vec<&String> =
            runs.keys().filter(|label| !known.contains(label.split('.').next().unwrap())).collect();
        assert!(strays.is_empty(), "ran, and nobody sent them: {strays:?}");
        for side in &self.sides {
            check::audit_verifies(&side.node);
            for code in
                ["result_conflict", "squatted", "stream_fork", "id_reused", "stream_gap", "superseded"]
            {
                assert!(
                    !self.cluster.audited(&side.node.name, code),
                    "{code} in the audit of {}",
                    side.node.name
                );
            }
            no_panic(&side.node);
        }
        println!("{} tasks; {:?}", known.len(), self.did);
    }
}

/// A result says what was seen from outside.
fn one_is_true(runs: &BTreeMap<String, usize>, id: &str, result: &Value, lane: &Path) {
    let prefix = format!("{id}.");
    let ran: Vec<&String> = runs.keys().filter(|label| label.starts_with(&prefix)).collect();
    let attempts = result["attempts"].as_array().unwrap();
    for attempt in attempts {
        let label = format!("{id}.{}", attempt["attempt"]);
        let count = runs.get(&label).copied().unwrap_or(0);
        let status = attempt["status"].as_str().unwrap();
        if ["ok", "error"].contains(&status) {
            assert_eq!(count, 1, "{label} ended {status}: {result:#}");
        }
    }
    assert!(ran.len() <= attempts.len(), "{ran:?} ran, and this is what is told: {result:#}");
    if let Some(told) = result["log_sha256"].as_str() {
        // Nothing printed, nothing there.
        let log = fs::read(lane.join(format!("done/{id}.log"))).unwrap_or_default();
        assert_eq!(told, mail::sha256(&log), "{result:#}");
    }
    if result["truncated"] == true {
        assert!(result["log_bytes"].as_u64() < result["output_bytes"].as_u64(), "{result:#}");
    }
}

fn no_panic(node: &Node) {
    let mut logs = vec![node.log()];
    for from in list(&node.state_dir().join("jobs")) {
        for job in list(&from).iter().flat_map(|task| list(task)) {
            logs.extend(list(&job).into_iter().filter(|file| name_of(file) == "executor.log"));
        }
    }
    for log in logs {
        let text = fs::read_to_string(&log).unwrap_or_default();
        assert!(!text.contains("panicked"), "{}:\n{text}", log.display());
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn whatever_happens_every_task_is_answered_once_and_the_books_add_up() {
    let seed = number("DISPATCH_SOAK_SEED").unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        u64::try_from(now.as_millis()).unwrap()
    });
    let span = Duration::from_secs(number("DISPATCH_SOAK_S").unwrap_or(SPAN_S));
    println!("DISPATCH_SOAK_SEED={seed} DISPATCH_SOAK_S={}", span.as_secs());
    let mut soak = Soak::new(seed);
    let looking = Looking::at(&soak.cluster);
    let end = Instant::now() + span;
    while Instant::now() < end {
        soak.disturb();
    }
    soak.rest();
    soak.adds_up();
    looking.end();
}

/// A task whose first attempt prints a line and fails, and whose second runs `script`: its result, and its log on the
/// share.
fn second_attempt(script: &str) -> (Value, Option<String>) {
    let cluster = Cluster::new(&bins());
    let _b = cluster.b().watch();
    let log = cluster.lane("a", "b").join("done").join("$DISPATCH_TASK.log");
    let request = format!(
        "if [ $DISPATCH_ATTEMPT = 1 ]; then echo one; exit 3; fi\nlog=\"{}\"\n{script}\n",
        log.display()
    );
    let id = cluster.a().send("b", &request, &["--max-attempts", "2"]);
    let result = cluster.answered(&id, "ok");
    assert_eq!(result["attempt"], 2, "{result:#}");
    (result, fs::read_to_string(cluster.lane("a", "b").join(format!("done/{id}.log"))).ok())
}

#[test]
fn no_log_of_an_earlier_attempt_stands_beside_the_result_of_a_silent_one() {
    let (result, log) = second_attempt("true");
    assert_eq!((&result["log_bytes"], log), (&0.into(), None), "{result:#}");
}

/// The live copy of the second attempt's log is lost, and that of the first is as long.
#[test]
fn no_log_of_an_earlier_attempt_is_taken_for_one_of_the_same_length() {
    let (result, log) =
        second_attempt("echo two; until grep -q two \"$log\"; do sleep 0.01; done; echo one > \"$log\"");
    assert_eq!((&result["log_bytes"], log.as_deref()), (&4.into(), Some("two\n")), "{result:#}");
}

/// Copies a ledger over another, its journal with it. No watcher may have either.
fn copy_ledger(from: &Path, to: &Path) {
    for old in list(to).into_iter().filter(|file| name_of(file).starts_with("ledger.db")) {
        fs::remove_file(old).unwrap();
    }
    for file in list(from).into_iter().filter(|file| name_of(file).starts_with("ledger.db")) {
        fs::copy(&file, to.join(name_of(&file))).unwrap();
    }
}

#[test]
fn a_recovery_tells_what_all_attempts_of_a_task_cost() {
    let cluster = mix::cluster(&bins());
    let b = cluster.b().watch();
    let script = mix::noting(&cluster, "again", "[ $DISPATCH_ATTEMPT = 2 ] || exit 3; exec sleep 100009");
    let id = cluster.a().send("b", &script, &["--profile", "paid", "--max-attempts", "2"]);
    eventually("the second attempt runs", || cluster.runs.of("again.2") == 1);
    assert_eq!(b.stop(), 0);
    let older = cluster.outside().join("older");
    fs::create_dir(&older).unwrap();
    copy_ledger(&cluster.b().state_dir(), &older);
    let b = cluster.b().watch();
    let later = cluster.a().send("b", "echo later", &[]);
    cluster.answered(&later, "ok");
    let shown = books::ledger(cluster.b()).head().unwrap().seq;
    eventually("a heartbeat shows it", || {
        let beat = fs::read(cluster.share().join("heartbeats/b.json")).unwrap();
        let beat = mail::open(&beat, &cluster.pair("a", "b").bytes()).unwrap();
        beat.value["audit"]["seq"].as_u64() >= Some(shown)
    });
    b.crash();
    copy_ledger(&older, &cluster.b().state_dir());
    drop(cluster.b().ctl(["recover", "--accept-rollback", "an older copy"]).ok());
    let _b = cluster.b().watch();
    let result = cluster.answered(&id, "unknown");
    assert_eq!(check::micros(&result["cost"]["usd"]), 2 * mix::ATTEMPT_MICROS, "{result:#}");
    check::no_process_with_mark_left(cluster.b());
}

#[test]
fn what_waits_for_nobody_any_more_is_not_listed_as_waiting_by_the_next_watcher() {
    let cluster = mix::cluster(&bins());
    let key = cluster.b().approver("ann").display().to_string();
    let id = cluster.a().send("b", "true", &["--require-ack"]);
    let lists = || {
        fs::read_to_string(cluster.lane("a", "b").join("pending.json")).is_ok_and(|text| text.contains(&id))
    };
    let b = cluster.b().watch();
    let terms = cluster.lane("a", "b").join(format!("pending-ack/{id}.terms.json"));
    eventually("it waits for a person", || terms.exists());
    b.crash();
    // The first round of the next one finds it waiting.
    let b = cluster.b().watch();
    eventually("it is listed", lists);
    b.crash();
    let words = ["--yes", "--no-wait", "--key", &key, "--reason", "fine", &id];
    drop(cluster.b().run("dispatch-ack", words));
    let _b = cluster.b().watch();
    cluster.answered(&id, "ok");
    eventually("it is not listed", || !lists());
}
