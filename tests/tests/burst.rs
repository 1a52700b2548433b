//! 64 paid tasks at once from two senders, under caps on run, sender and month, while all watchers are killed at random:
//! never over any cap at any look, the ledger's sums are what the results say, every task ends once.
//!
//! `DISPATCH_BURST_SEED` says by which numbers it is disturbed; a seed repeats the order, not the moments.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use dispatch_core::policy::window::{Window, WindowKey};
use dispatch_testkit::bins::write_script;
use dispatch_testkit::cluster::names;
use dispatch_testkit::wait::within;
use dispatch_testkit::{Cluster, Node, Watcher, bins, books, check};
use serde_json::Value;

const SENDERS: [&str; 2] = ["a", "b"];
/// Tasks of one sender.
const EACH: usize = 32;
/// How often the receiving watcher is killed, at least, before the last one is left alone.
const KILLS: usize = 12;
/// What the caps allow, in millionths of a dollar; an attempt is reserved for one dollar.
const RUN: u64 = 4_000_000;
const SENDER: u64 = 9_000_000;
const MONTH: u64 = 16_000_000;
/// What is set aside for an attempt.
const ATTEMPT: u64 = 1_000_000;
/// How long it may all take on a loaded machine.
const REST: Duration = Duration::from_secs(240);

/// Numbers that follow from a seed (SplitMix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % end
    }
}

/// `c` takes paid work of `a` and `b`: by a script that says nothing of its cost, and by an agent that says it.
fn cluster() -> Cluster {
    let cluster = Cluster::star(&bins!(), "c", &SENDERS);
    let c = cluster.a();
    let agent = cluster.outside().join("agent");
    write_script(&agent, "#!/bin/sh\ntail -n +2 | exec /bin/sh -eu\n");
    let usd = |micros: u64| micros / 1_000_000;
    c.only_caps();
    c.configure(&format!(
        "[watch]\nheartbeat_s = 1\n[exec]\nmax_parallel = 4\n\
         [budget]\nrun_usd = \"{}\"\nmonth_usd = \"{}\"\nsender_usd = \"{}\"\n\
         [profile.script]\nagent = \"command\"\nargv = [\"/bin/sh\", \"-eu\"]\nbilling = \"metered\"\n\
         max_cost_usd = \"0.75\"\novershoot_usd = \"0.25\"\n\
         [profile.agent]\nagent = \"claude\"\nargv = [{agent:?}]\nbilling = \"metered\"\nmodels = [\"small\"]\n\
         max_cost_usd = \"0.75\"\novershoot_usd = \"0.25\"\n\
         [price.small]\nas_of = \"2026-10-24\"\ninput_usd = \"1\"\noutput_usd = \"1\"\ncache_read_usd = \"1\"\n\
         cache_write_5m_usd = \"1\"\ncache_write_1h_usd = \"1\"\ncontext_tokens = 1000\noutput_tokens = 1000\n",
        usd(RUN),
        usd(MONTH),
        usd(SENDER),
    ));
    cluster
}

/// The words and the request of a task: which run, which agent, how often, and what it costs.
fn task(cluster: &Cluster, dice: &mut Dice) -> (Vec<&'static str>, String) {
    let mut words = match dice.below(3) {
        0 => vec!["--run", "nightly"],
        1 => vec!["--run", "release"],
        _ => Vec::new(),
    };
    let mark = cluster.runs.mark("'\"$DISPATCH_TASK.$DISPATCH_ATTEMPT\"'");
    if dice.below(4) == 0 {
        words.extend(["--max-attempts", "2"]);
    }
    let pace = format!("sleep 0.{}\n", dice.below(3));
    if dice.below(2) == 0 {
        words.extend(["--profile", "script"]);
        let ending = if dice.below(3) == 0 { "[ \"$DISPATCH_ATTEMPT\" = 2 ] || exit 3" } else { "echo done" };
        (words, format!("{mark}{pace}{ending}\n"))
    } else {
        words.extend(["--profile", "agent"]);
        let cost = dice.below(75);
        let said = format!(
            "{{\"type\":\"result\",\"subtype\":\"success\",\"is_error\":false,\"session_id\":\"s\",\"result\":\"done\",\
             \"total_cost_usd\":0.{cost:02}}}"
        );
        (words, format!("{mark}{pace}echo '{said}'\n"))
    }
}

/// The cap of a window, where these tests set one.
fn cap(key: &WindowKey) -> Option<u64> {
    match key.window() {
        Window::Run => Some(RUN),
        Window::Sender => Some(SENDER),
        Window::Month => Some(MONTH),
        Window::Day | Window::Tree => None,
    }
}

/// What each window holds, in millionths of a dollar: reserved and spent.
fn held(node: &Node) -> BTreeMap<WindowKey, (u64, u64)> {
    let micros = |usd: dispatch_core::policy::money::Usd| check::micros(&usd.to_string().into());
    let windows = books::ledger(node).windows().unwrap();
    windows
        .into_iter()
        .map(|row| (row.key, (micros(row.balance.reserved), micros(row.balance.spent))))
        .collect()
}

/// How full the fullest window of each kind ever was.
#[derive(Debug, Default)]
struct Fullest(Mutex<BTreeMap<&'static str, u64>>);

/// No window holds more than its cap.
fn never_over(node: &Node, fullest: &Fullest) {
    for (key, (reserved, spent)) in held(node) {
        let most = cap(&key).unwrap_or(u64::MAX);
        assert!(reserved + spent <= most, "{key}: {reserved} reserved and {spent} spent above {most}");
        let mut fullest = fullest.0.lock().unwrap();
        let known = fullest.entry(key.window().as_str()).or_default();
        *known = (*known).max(reserved + spent);
    }
}

fn sent(node: &Node) -> Vec<String> {
    let sent = names(&node.state_dir().join(format!("send/{}-to-c/sent", node.name)));
    sent.iter().filter_map(|name| Some(name.strip_suffix(".json")?.to_owned())).collect()
}

fn unanswered(cluster: &Cluster, ids: &BTreeMap<&str, Vec<String>>) -> Vec<(String, String)> {
    let open = |from: &str, id: &String| {
        (!cluster.lane(from, "c").join(format!("done/{id}.result.json")).exists())
            .then(|| (from.to_owned(), id.clone()))
    };
    ids.iter().flat_map(|(from, ids)| ids.iter().filter_map(|id| open(from, id))).collect()
}

/// Both senders at once, while the receiving watcher is killed and started again; then nobody kills any more.
fn run(cluster: &Cluster, dice: &mut Dice, fullest: &Fullest) {
    let [c, senders @ ..] = cluster.nodes.as_slice() else { panic!("three nodes") };
    let tasks: Vec<Vec<_>> =
        senders.iter().map(|_| (0..EACH).map(|_| task(cluster, dice)).collect()).collect();
    let (over, looks) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let looking = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                never_over(c, fullest);
                looks.fetch_add(1, Ordering::Relaxed);
                thread::sleep(Duration::from_millis(10));
            }
        });
        let sending: Vec<_> = senders
            .iter()
            .zip(&tasks)
            .map(|(node, tasks)| {
                scope.spawn(move || {
                    for (words, request) in tasks {
                        drop(node.send("c", request, words));
                    }
                })
            })
            .collect();
        let mut kills = 0;
        let mut theirs: Vec<Option<Watcher>> = senders.iter().map(|_| None).collect();
        while kills < KILLS || sending.iter().any(|sending| !sending.is_finished()) {
            let watcher = c.start_watch(&[], &[]);
            let which = usize::try_from(dice.below(2)).unwrap();
            // A sender's watcher, too, is there at times, and dies.
            theirs[which] = match theirs[which].take() {
                Some(old) => {
                    old.crash();
                    None
                }
                None => Some(senders[which].start_watch(&[], &[])),
            };
            thread::sleep(Duration::from_millis(60 + dice.below(500)));
            watcher.crash();
            kills += 1;
        }
        theirs.into_iter().flatten().for_each(Watcher::crash);
        over.store(true, Ordering::Relaxed);
        looking.join().expect("no cap was passed while watchers died");
        sending.into_iter().for_each(|sending| sending.join().unwrap());
    });
    assert!(looks.load(Ordering::Relaxed) > 50, "{looks:?} looks at the ledger");
}

/// What is still open waits for the month, and its sender takes it back.
fn take_back(cluster: &Cluster, ids: &BTreeMap<&str, Vec<String>>, fullest: &Fullest) {
    let c = cluster.a();
    let waits = |id: &str| {
        let said = c.ctl(["explain", id, "--json"]);
        let document: Value = serde_json::from_str(&said.out).unwrap_or_default();
        // Between its attempts that is said first, and what it waits for beside it.
        let also = document["also"].as_array().cloned().unwrap_or_default();
        std::iter::once(&document).chain(&also).any(|told| told["code"] == "over_cap")
            && document["limit"]["window"].as_str().is_some_and(|key| key.starts_with("month:"))
    };
    within(REST, "every task is answered or waits for the month", || {
        never_over(c, fullest);
        unanswered(cluster, ids).iter().all(|(_, id)| waits(id))
    });
    for (from, id) in unanswered(cluster, ids) {
        let node = cluster.nodes.iter().find(|node| node.name == from).unwrap();
        drop(node.ctl(["cancel", &id]).ok());
    }
    within(REST, "every task is answered", || unanswered(cluster, ids).is_empty());
}

/// Every window holds what the results of its tasks say, and nothing else.
fn adds_up(cluster: &Cluster, results: &[(String, Value)]) {
    let mut said: BTreeMap<String, u64> = BTreeMap::new();
    for (from, result) in results {
        let usd = check::micros(&result["cost"]["usd"]);
        *said.entry("month".to_owned()).or_default() += usd;
        *said.entry(format!("sender {from}")).or_default() += usd;
        let task =
            fs::read(cluster.lane(from, "c").join(format!("done/{}.json", result["task"].as_str().unwrap())));
        let opened = task
            .ok()
            .and_then(|bytes| dispatch_testkit::mail::open(&bytes, &cluster.pair(from, "c").lane(from, "c")));
        let run = opened.map(|task| task.value["run"].as_str().unwrap_or("its day").to_owned());
        *said.entry(format!("run {from} {}", run.expect("the task lies beside its result"))).or_default() +=
            usd;
        *said.entry(format!("tree {}", result["task"].as_str().unwrap())).or_default() += usd;
    }
    said.retain(|_, usd| *usd > 0);
    let mut there: BTreeMap<String, u64> = BTreeMap::new();
    for (key, (reserved, spent)) in held(cluster.a()) {
        assert_eq!(reserved, 0, "{key} still holds something");
        let name = match &key {
            WindowKey::Run { sender, run } => format!("run {sender} {run}"),
            WindowKey::RunOfDay { sender, .. } => format!("run {sender} its day"),
            WindowKey::Month(_) => "month".to_owned(),
            WindowKey::Sender { sender, .. } => format!("sender {sender}"),
            WindowKey::Tree(root) => format!("tree {root}"),
            WindowKey::Day(_) => continue,
        };
        *there.entry(name).or_default() += spent;
    }
    there.retain(|_, usd| *usd > 0);
    assert_eq!(there, said, "the windows of the ledger, against the results");
}

fn ended_once(cluster: &Cluster, results: &[(String, Value)]) {
    check::none_ran_twice(cluster);
    let runs = cluster.runs.all();
    for (_, result) in results {
        let id = result["task"].as_str().unwrap();
        let ran = runs.keys().filter(|label| label.starts_with(id)).count();
        let status = result["status"].as_str().unwrap();
        let attempts = result["attempts"].as_array().map_or(0, Vec::len);
        match status {
            "ok" | "error" => assert!(ran >= 1 && ran == attempts, "ran {ran} times: {result:#}"),
            "rejected" => assert_eq!(result["reason"]["code"], "over_cap", "{result:#}"),
            // Its second attempt found no room in the month, or none of it did.
            "cancelled" => assert_eq!(ran, attempts, "{result:#}"),
            other => panic!("{other}: {result:#}"),
        }
    }
}

#[test]
fn two_senders_burst_over_every_cap_while_the_watcher_is_killed() {
    let seed = std::env::var("DISPATCH_BURST_SEED").ok().and_then(|text| text.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| u64::from(std::process::id()));
    eprintln!("DISPATCH_BURST_SEED={seed}");
    let (cluster, mut dice, fullest) = (cluster(), Dice(seed), Fullest::default());
    run(&cluster, &mut dice, &fullest);
    let c = cluster.a();
    let _c = c.watch();
    let _senders: Vec<_> = cluster.nodes[1..].iter().map(Node::watch).collect();
    let ids: BTreeMap<&str, Vec<String>> =
        SENDERS.iter().zip(&cluster.nodes[1..]).map(|(name, node)| (*name, sent(node))).collect();
    assert!(ids.values().all(|ids| ids.iter().collect::<BTreeSet<_>>().len() == EACH));
    take_back(&cluster, &ids, &fullest);
    let results: Vec<(String, Value)> = ids
        .iter()
        .flat_map(|(from, ids)| {
            check::one_result_each(&cluster, from, "c", ids)
                .into_iter()
                .map(|result| ((*from).to_owned(), result))
        })
        .collect();
    assert_eq!(results.len(), 2 * EACH);
    ended_once(&cluster, &results);
    books::closed(c);
    books::hold(c);
    adds_up(&cluster, &results);
    let count = |status: &str| results.iter().filter(|(_, result)| result["status"] == status).count();
    let counts = ["ok", "error", "rejected", "cancelled"].map(|status| (status, count(status)));
    eprintln!("{counts:?}, at most {fullest:?}");
    let fullest = fullest.0.into_inner().unwrap();
    for (window, cap) in [("run", RUN), ("sender", SENDER), ("month", MONTH)] {
        assert!(
            fullest[window] > cap - 2 * ATTEMPT,
            "the cap of the {window} was never reached: {fullest:?}"
        );
    }
    check::no_process_with_mark_left(c);
    check::audit_verifies(c);
    for (from, result) in &results {
        let node = cluster.nodes.iter().find(|node| node.name == *from).unwrap();
        let seen = node.ctl(["result", "--json", result["task"].as_str().unwrap()]).ok();
        let seen: Value = serde_json::from_str(&seen.out).unwrap();
        assert_eq!(seen["result"], *result, "what its sender believes");
    }
}
