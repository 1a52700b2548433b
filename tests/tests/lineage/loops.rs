//! A task that sends itself stops: at its depth, its fan-out, its budget and its rate.

use std::fs;

use dispatch_ledger::ReadLedger;
use dispatch_testkit::{Cluster, check, eventually};
use serde_json::Value;

use super::{answered, cluster, refusals, send};

/// A script that sends itself to the other node, `more` being the options, once or until it is refused.
fn sends_itself(cluster: &Cluster, how: &str, more: &str) -> String {
    let file = cluster.outside().join("loop.sh");
    let text = format!(
        "{}case \"$DISPATCH_NODE\" in a) to=b ;; *) to=a ;; esac\n\
         {how} {} --to $to --file '{}' {more} || exit 0\n",
        cluster.runs.mark("loop"),
        send(cluster),
        file.display()
    );
    // `while` needs a body.
    let text = if how == "while" { text.replace(" || exit 0", "; do :; done") } else { text };
    fs::write(&file, &text).unwrap();
    text
}

/// Whether every task that was received is answered, and nothing waits to be received.
fn all_is_answered(cluster: &Cluster, runs: usize) -> Option<Vec<Value>> {
    let ids = |from: &str, to: &str| -> Vec<Value> {
        answered(cluster, from, to).iter().filter_map(|id| cluster.result(from, to, id)).collect()
    };
    let results = [ids("a", "b"), ids("b", "a")].concat();
    (results.len() == runs).then_some(results)
}

/// Whether no task runs or waits, and no child is without an answer: an agent that could send one more is both.
fn is_quiet(cluster: &Cluster) -> bool {
    let ledgers =
        || cluster.nodes.iter().map(|node| ReadLedger::open(&node.state_dir().join("ledger.db")).unwrap());
    let is_quiet = |ledger: &ReadLedger| {
        ledger.open_tasks().unwrap().is_empty() && ledger.open_children().unwrap().is_empty()
    };
    // Twice: one may hand over to the other while the first is read.
    (0..2).all(|_| ledgers().all(|ledger| is_quiet(&ledger)))
}

#[test]
fn a_task_that_sends_itself_stops_at_its_depth() {
    let cluster = cluster();
    for node in &cluster.nodes {
        node.configure("[lineage]\ndepth_max = 3\nfanout_max = 1000000\n");
    }
    let (_a, _b) = (cluster.a().watch(), cluster.b().watch());
    cluster.a().send("b", &sends_itself(&cluster, "", ""), &["--fanout", "1000"]);
    // 0 and 2 run at b, 1 and 3 at a.
    eventually("the deepest one is refused a child", || refusals(&cluster, "a") == ["lineage_exceeded"]);
    drop(eventually("all are answered", || all_is_answered(&cluster, 4)));
    eventually("nothing of it is under way any more", || is_quiet(&cluster));
    assert_eq!(cluster.runs.of("loop"), 4);
    assert!(refusals(&cluster, "b").is_empty());
}

#[test]
fn a_task_that_sends_itself_stops_at_its_fan_out() {
    let cluster = cluster();
    let (_a, _b) = (cluster.a().watch(), cluster.b().watch());
    cluster.a().send("b", &sends_itself(&cluster, "while", ""), &["--fanout", "5"]);
    // Each sends until it is refused: the whole tree is the root and as many tasks as it may send.
    drop(eventually("all are answered", || all_is_answered(&cluster, 6)));
    eventually("nothing of it is under way any more", || is_quiet(&cluster));
    assert_eq!(cluster.runs.of("loop"), 6);
    // Those that had some to send were refused in the end; those that had none never had a door to ask at.
    let told = eventually("the root and its first child were refused", || {
        let told = [refusals(&cluster, "a"), refusals(&cluster, "b")].concat();
        (told.len() >= 2).then_some(told)
    });
    assert!(told.iter().all(|code| code == "lineage_exceeded"), "{told:?}");
}

#[test]
fn a_task_that_sends_itself_stops_at_its_budget() {
    let cluster = cluster();
    for node in &cluster.nodes {
        node.only_caps();
        node.configure(
            "[budget]\nrun_usd = \"100\"\nmonth_usd = \"100\"\n[lineage]\nfanout_max = 1000000\n\
             [profile.paid]\nagent = \"command\"\nargv = [\"/bin/sh\", \"-eu\"]\nbilling = \"metered\"\n\
             max_cost_usd = \"0.5\"\novershoot_usd = \"0.5\"\n",
        );
    }
    let (_a, _b) = (cluster.a().watch(), cluster.b().watch());
    let script = sends_itself(&cluster, "while", "--profile paid");
    let words = ["--fanout", "1000", "--budget", "6", "--profile", "paid"];
    let root = cluster.a().send("b", &script, &words);
    drop(cluster.answer("a", "b", &root));
    eventually("nothing of it is under way any more", || is_quiet(&cluster));
    let count = answered(&cluster, "a", "b").len() + answered(&cluster, "b", "a").len();
    let results = eventually("all are answered", || all_is_answered(&cluster, count));
    let spent: u64 = results.iter().map(|result| check::micros(&result["cost"]["usd"])).sum();
    assert!((2_000_000..=6_000_000).contains(&spent), "{spent}");
    let ran = u64::try_from(cluster.runs.of("loop")).unwrap();
    assert_eq!(ran * 1_000_000, spent, "each is paid once");
}

#[test]
fn a_task_that_sends_itself_stops_at_its_rate() {
    let cluster = cluster();
    for node in &cluster.nodes {
        node.configure("[lineage]\ndepth_max = 64\nfanout_max = 1000000\n[safeguards]\ntasks_per_hour = 3\n");
    }
    let (_a, _b) = (cluster.a().watch(), cluster.b().watch());
    cluster.a().send("b", &sends_itself(&cluster, "", ""), &["--fanout", "100000"]);
    let held = eventually("its tree is held at b", || {
        cluster.audit("b").into_iter().find(|entry| entry["data"]["reason"] == "tasks_per_hour")
    });
    drop(held);
    // Three at each node; the fourth at b waits for a person, who has not looked yet.
    drop(eventually("all but that one are answered", || all_is_answered(&cluster, 6)));
    assert_eq!(cluster.runs.of("loop"), 6);
    let status = cluster.b().ctl(["list", "--json"]).ok();
    assert!(status.out.contains("budget resume"), "{}", status.out);
}

/// 4 051 spawns in five hours, each triggering the next: first the depth stops it, and where that is deep, the rate.
#[test]
fn lineage_depth_and_rate_stop_a_feedback_loop() {
    let cluster = cluster();
    for node in &cluster.nodes {
        node.configure("[lineage]\nfanout_max = 1000000\n[safeguards]\ntasks_per_hour = 20\n");
    }
    let (_a, _b) = (cluster.a().watch(), cluster.b().watch());
    // Each starts two more and asks for as much as it can get for each of them.
    let script = sends_itself(&cluster, "", "").replace(" || exit 0", " || exit 0\n$again");
    let again = format!(
        "{} --to $to --file '{}' || exit 0",
        send(&cluster),
        cluster.outside().join("loop.sh").display()
    );
    let script = script.replace("$again", &again);
    fs::write(cluster.outside().join("loop.sh"), &script).unwrap();
    cluster.a().send("b", &script, &["--fanout", "1000000"]);
    let holds = |node: &str| {
        cluster.audit(node).iter().filter(|entry| entry["data"]["reason"] == "tasks_per_hour").count()
    };
    // Whichever gets there first; the other one may have too little to do from then on.
    eventually("a node holds the tree", || holds("a") + holds("b") > 0);
    // What was started before that ends; nothing more starts.
    let running = |node: &dispatch_testkit::cluster::Node| node.pids("dispatch-exec").len();
    eventually("nothing runs any more", || cluster.nodes.iter().all(|node| running(node) == 0));
    let ran = cluster.runs.of("loop");
    assert!(
        ran <= 41,
        "{ran} ran: at most twenty of a tree at each node within an hour, and one that was on its way"
    );
    assert!(holds("a") <= 1 && holds("b") <= 1, "people are told once");
}
