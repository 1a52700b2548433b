//! A task that is forwarded: three nodes on one share, `a` sends, `b` sends on, `c` runs. `b` dies at every step.

use std::fs;
use std::path::Path;

use dispatch_core::policy::money::Usd;
use dispatch_core::policy::window::WindowKey;
use dispatch_testkit::cluster::Node;
use dispatch_testkit::cluster::find;
use dispatch_testkit::points::{self, Point, at_each};
use dispatch_testkit::{Bins, Cluster, Watcher, bins, books, check, eventually, trace};
use serde_json::{Value, json};

/// Points that the test of dying tries, unless told to try all.
const SAMPLE: usize = 24;

/// What a paid task is reserved for, in millionths: the ceiling and the overshoot.
const PAID_MICROS: u64 = 1_000_000;

const PAID: &str = "[profile.paid]\nagent = \"command\"\nargv = [\"/bin/sh\", \"-eu\"]\nbilling = \"metered\"\n\
                    max_cost_usd = \"0.75\"\novershoot_usd = \"0.25\"\n";

fn bins() -> Bins {
    bins!()
}

/// `a` - `b` - `c`, and `b` runs nothing itself: what it takes goes to `c`.
fn chain() -> Cluster {
    let cluster = Cluster::bare(&bins(), &["a", "b", "c"]);
    let share = cluster.share().display().to_string();
    for peer in ["a", "c"] {
        let b = cluster.b();
        drop(b.ctl(["init", "--root", &share, "--node", "b", "--peer", peer]).ok());
        let file = find(&b.home, &|name| name.contains("join") && name.ends_with(".json")).unwrap();
        let moved = cluster.outside().join(format!("join-{peer}.json"));
        fs::rename(file, &moved).unwrap();
        let node = cluster.nodes.iter().find(|node| node.name == peer).unwrap();
        drop(node.ctl(["init", "--join", &moved.display().to_string(), "--root", &share]).ok());
    }
    cluster.b().only_caps();
    c(&cluster).only_caps();
    cluster.b().configure(&format!(
        "[watch]\nheartbeat_s = 1\n[budget]\ntree_usd = \"5\"\n[backend.far]\nkind = \"lan_worker\"\nnode = \"c\"\n{PAID}"
    ));
    c(&cluster).configure(&format!(
        "[watch]\nheartbeat_s = 1\n[budget]\nrun_usd = \"20\"\nmonth_usd = \"20\"\n{PAID}"
    ));
    cluster
}

fn c(cluster: &Cluster) -> &Node {
    &cluster.nodes[2]
}

/// Waits until the task and its terms lie where an approver looks, and answers these.
fn shown(cluster: &Cluster, id: &str) -> Value {
    eventually("it waits for a person", || cluster.opened("a", "b", &format!("pending-ack/{id}.json")));
    let terms = format!("pending-ack/{id}.terms.json");
    eventually("its terms are shown", || cluster.opened("a", "b", &terms).filter(|terms| terms.verified))
        .value
}

/// Says yes to the task as soon as it waits at `b`, with no watcher's help.
fn approve(cluster: &Cluster, key: &Path, id: &str) {
    let terms = shown(cluster, id);
    assert_eq!((&terms["agent"], &terms["backend"]), (&json!("forwarded"), &json!("far")));
    let key = key.display().to_string();
    let words = [id, "--yes", "--no-wait", "--key", &key, "--reason", "fine"];
    drop(cluster.b().run("dispatch-ack", words).ok());
}

fn note(cluster: &Cluster, label: &str) -> String {
    format!("{}echo did {label}\n", cluster.runs.mark(label))
}

/// What a tree has reserved and spent at a node, in millionths.
fn tree(node: &Node, root: &str) -> (u64, u64) {
    let micros = |usd: Usd| check::micros(&usd.to_string().into());
    let windows = books::ledger(node).windows().unwrap();
    let tree =
        windows.iter().find(|window| matches!(&window.key, WindowKey::Tree(id) if id.to_string() == root));
    tree.map_or((0, 0), |window| (micros(window.balance.reserved), micros(window.balance.spent)))
}

#[test]
fn a_forwarded_task_runs_once_and_its_result_and_log_come_back_sealed() {
    let cluster = chain();
    let key = cluster.b().approver("ann");
    let (_b, _c) = (cluster.b().watch(), c(&cluster).watch());
    let id = cluster.a().send("b", &note(&cluster, "far"), &["--profile", "paid"]);
    approve(&cluster, &key, &id);
    let result = cluster.answered(&id, "ok");
    assert_eq!(result["backend"], json!({"name": "far", "kind": "lan_worker"}));
    assert_eq!(result["via"], json!(["c"]));
    assert_eq!(result["final_text"], "did far\n");
    assert_eq!(result["decided_by"], json!(["ann"]));
    assert_eq!(cluster.runs.of("far"), 1);
    let log = fs::read_to_string(cluster.lane("a", "b").join(format!("done/{id}.log"))).unwrap();
    assert_eq!(log, "did far\n");
    // Paid by the node that ran it; counted against its tree where it was sent on.
    assert_eq!(result["cost"]["basis"], "reserved");
    assert_eq!(check::micros(&result["cost"]["usd"]), PAID_MICROS);
    assert_eq!((books::months(cluster.b()), books::months(c(&cluster))), ((0, 0), (0, PAID_MICROS)));
    assert_eq!((tree(cluster.b(), &id), tree(c(&cluster), &id)), ((0, PAID_MICROS), (0, PAID_MICROS)));
    let waited = cluster.a().ctl(["wait", &id]).ok();
    assert!(waited.out.contains("did far"), "{waited:?}");
}

#[test]
fn the_lineage_of_a_forwarded_task_says_where_it_came_from() {
    let cluster = chain();
    let key = cluster.b().approver("ann");
    let _b = cluster.b().watch();
    let id = cluster.a().send("b", &note(&cluster, "line"), &["--profile", "paid", "--max-attempts", "3"]);
    approve(&cluster, &key, &id);
    let inbox = cluster.lane("b", "c").join("inbox");
    let name = eventually("it is sent on", || dispatch_testkit::cluster::names(&inbox).pop());
    let child = cluster.opened("b", "c", &format!("inbox/{name}")).unwrap();
    assert!(child.verified);
    assert_eq!(
        child.value["lineage"],
        json!({"root": id, "parent": id, "depth": 1, "fanout_left": 0, "budget_usd": "1", "via": ["a"]})
    );
    assert_eq!(child.value["max_cost_usd"], "0.75");
    // Another attempt is the forwarding node's to make.
    assert_eq!(child.value["max_attempts"], 1);
    let shown = cluster.b().ctl(["explain", &id]).ok();
    assert!(shown.out.contains("was forwarded to `c`"), "{}", shown.out);
    // Only its tree is asked here: the other caps are those of the node that pays.
    assert!(!shown.out.contains("paid work is off"), "{}", shown.out);
    let shown: Value = serde_json::from_str(&cluster.b().ctl(["show", &id, "--json"]).ok().out).unwrap();
    let sent = &shown["children"][0];
    assert_eq!(
        (&sent["to"], &sent["kind"], &sent["budget_usd"]),
        (&json!("c"), &json!("forwarded"), &json!("1"))
    );
}

#[test]
fn a_tree_without_room_is_refused_where_it_would_be_sent_on() {
    let cluster = chain();
    cluster.b().configure("[budget]\ntree_usd = \"0.5\"\n");
    let _b = cluster.b().watch();
    let id = cluster.a().send("b", &note(&cluster, "dear"), &["--profile", "paid"]);
    let result = cluster.answered(&id, "rejected");
    assert_eq!(result["reason"]["code"], "over_cap", "{result:#}");
    assert!(result["reason"]["text"].as_str().unwrap().contains("0.5"), "{result:#}");
}

#[test]
fn a_refusal_of_the_node_that_was_to_run_it_reaches_the_first_sender() {
    let cluster = chain();
    // What this node calls free must cost nothing there.
    cluster.b().configure("[profile.paid]\nbilling = \"free\"\n");
    let key = cluster.b().approver("ann");
    let (_b, _c) = (cluster.b().watch(), c(&cluster).watch());
    let id = cluster.a().send("b", &note(&cluster, "free"), &["--profile", "paid"]);
    approve(&cluster, &key, &id);
    let result = cluster.answered(&id, "rejected");
    assert_eq!(result["reason"]["code"], "over_cap", "{result:#}");
    let help = result["reason"]["help"].as_str().unwrap();
    assert!(help.contains("the node that did so"), "{help}");
    assert_eq!((books::months(c(&cluster)), cluster.runs.of("free")), ((0, 0), 0));
    assert_eq!(tree(cluster.b(), &id), (0, 0));
}

#[test]
fn a_cancel_is_sent_after_a_forwarded_task() {
    let cluster = chain();
    let key = cluster.b().approver("ann");
    let (_b, _c) = (cluster.b().watch(), c(&cluster).watch());
    let request = format!("{}echo at work; exec sleep 600\n", cluster.runs.mark("long"));
    let id = cluster.a().send("b", &request, &["--timeout", "900s"]);
    approve(&cluster, &key, &id);
    eventually("it runs", || cluster.runs.of("long") == 1);
    // Its sender hears from the node in the middle how far it is.
    let told = format!("processing/{id}.progress.json");
    let far = eventually("its progress is told on", || {
        cluster.opened("a", "b", &told).filter(|told| told.verified && !told.value["last_line"].is_null())
    });
    assert_eq!((&far.value["phase"], &far.value["last_line"]), (&json!("running"), &json!("at work")));
    drop(cluster.a().ctl(["cancel", &id]).ok());
    cluster.answered(&id, "cancelled");
    books::closed(cluster.b());
    check::no_process_with_mark_left(c(&cluster));
}

#[test]
fn a_task_is_never_sent_on_to_a_node_that_it_came_through() {
    let cluster = chain();
    cluster.b().configure("[backend.far]\nnode = \"a\"\n");
    let _b = cluster.b().watch();
    let id = cluster.a().send("b", &note(&cluster, "back"), &[]);
    let result = cluster.answered(&id, "rejected");
    assert_eq!(result["reason"]["code"], "no_eligible_backend", "{result:#}");
    assert!(result["reason"]["text"].as_str().unwrap().contains("came through"), "{result:#}");
}

/// Sent and approved, and nobody of `b` has seen either; `c` is awake.
struct Sent {
    cluster: Cluster,
    id: String,
    _c: Watcher,
}

impl Sent {
    fn new() -> Sent {
        let cluster = chain();
        let key = cluster.b().approver("ann");
        let b = cluster.b().watch();
        let id = cluster.a().send("b", &note(&cluster, "once"), &["--profile", "paid"]);
        shown(&cluster, &id);
        b.stop();
        approve(&cluster, &key, &id);
        let awake = c(&cluster).watch();
        Sent { cluster, id, _c: awake }
    }

    fn settled(&self) -> bool {
        let lane = self.cluster.lane("a", "b");
        self.cluster.result("a", "b", &self.id).is_some()
            && ["inbox", "pending-ack", "processing"]
                .iter()
                .all(|place| dispatch_testkit::cluster::names(&lane.join(place)).is_empty())
    }

    fn run(&self, before: &[String]) -> Watcher {
        let mut watcher = self.cluster.b().start_watch(before, &[]);
        eventually("it is answered, or the watcher is dead", || watcher.ended().is_some() || self.settled());
        watcher
    }

    fn adds_up(&self) {
        let _b = self.run(&[]);
        let result = self.cluster.answered(&self.id, "ok");
        check::each_ran_once(&self.cluster, &["once".to_owned()]);
        books::closed(self.cluster.b());
        eventually("no child is open", || {
            books::ledger(self.cluster.b()).open_children().unwrap().is_empty()
        });
        books::hold(self.cluster.b());
        books::hold(c(&self.cluster));
        assert_eq!(check::micros(&result["cost"]["usd"]), PAID_MICROS);
        assert_eq!(tree(self.cluster.b(), &self.id), (0, PAID_MICROS));
        assert_eq!(books::months(c(&self.cluster)), (0, PAID_MICROS));
        let sent: Vec<Value> =
            self.cluster.audit("b").into_iter().filter(|line| line["kind"] == "forwarded").collect();
        assert_eq!(sent.len(), 1, "{sent:#?}");
    }
}

fn chosen(points: &[Point]) -> Vec<Point> {
    match std::env::var("DISPATCH_CRASH").as_deref() {
        Ok("full") => points.to_vec(),
        _ => points::sample(points, SAMPLE),
    }
}

#[test]
fn the_node_in_the_middle_dies_at_every_step_and_the_task_still_runs_once() {
    if !trace::possible() {
        eprintln!("SKIPPED: kills at every step: strace is not installed, or may not trace here");
        return;
    }
    let counted = Sent::new();
    let log = counted.cluster.outside().join("calls");
    drop(counted.run(&points::counting(&log)));
    assert!(counted.settled());
    let points = points::points(&log, &counted.cluster.share());
    drop(counted);
    at_each(&chosen(&points), |point| {
        let sent = Sent::new();
        drop(sent.run(&points::killing(point, &sent.cluster.share())));
        sent.adds_up();
    });
}

#[test]
fn a_killswitch_in_kill_mode_reaches_what_was_sent_on() {
    let cluster = chain();
    let key = cluster.b().approver("ann");
    let (_b, _c) = (cluster.b().watch(), c(&cluster).watch());
    let request = format!("{}exec sleep 600\n", cluster.runs.mark("long"));
    let id = cluster.a().send("b", &request, &["--timeout", "900s"]);
    approve(&cluster, &key, &id);
    eventually("it runs", || cluster.runs.of("long") == 1);
    // Of this node alone: `c` learns of it by the sealed cancel.
    fs::write(cluster.b().state_dir().join("KILLSWITCH"), "kill\n").unwrap();
    cluster.answered(&id, "cancelled");
    check::no_process_with_mark_left(c(&cluster));
}

#[test]
fn one_pass_sends_a_task_on_and_another_brings_its_answer_back() {
    let cluster = chain();
    let key = cluster.b().approver("ann");
    let id = cluster.a().send("b", &note(&cluster, "cron"), &["--profile", "paid"]);
    assert_eq!(cluster.b().once(&[]).code, 0);
    approve(&cluster, &key, &id);
    assert_eq!(cluster.b().once(&[]).code, 0);
    assert_eq!(c(&cluster).once(&[]).code, 0);
    assert_eq!(cluster.runs.of("cron"), 1);
    assert_eq!(cluster.b().once(&[]).code, 0);
    cluster.answered(&id, "ok");
}
