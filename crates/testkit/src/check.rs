//! What must be true after any scenario, however it was disturbed.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::cluster::{Cluster, Node, names};
use crate::process;
use crate::wait;

/// Every label ran exactly once.
///
/// # Panics
/// When one ran more or less often.
#[track_caller]
pub fn each_ran_once(cluster: &Cluster, labels: &[String]) {
    let counts = cluster.runs.all();
    let wrong: BTreeMap<&String, usize> = labels
        .iter()
        .map(|label| (label, counts.get(label).copied().unwrap_or(0)))
        .filter(|(_, count)| *count != 1)
        .collect();
    assert!(wrong.is_empty(), "ran another number of times than once: {wrong:?}");
}

/// Every label ran at most once.
///
/// # Panics
/// When one ran again.
#[track_caller]
pub fn none_ran_twice(cluster: &Cluster) {
    let again: BTreeMap<String, usize> =
        cluster.runs.all().into_iter().filter(|(_, count)| *count > 1).collect();
    assert!(again.is_empty(), "ran more than once: {again:?}");
}

/// Every task has exactly one result that verifies, and nothing of it is left in the lane's other directories.
///
/// # Panics
/// When a task has none, or something lies about.
#[track_caller]
pub fn one_result_each(cluster: &Cluster, from: &str, to: &str, ids: &[String]) -> Vec<Value> {
    let results: Vec<Value> = ids.iter().map(|id| cluster.answer(from, to, id)).collect();
    let lane = cluster.lane(from, to);
    for id in ids {
        for place in ["inbox", "pending-ack", "processing"] {
            wait::eventually(&format!("{place}/ holds nothing of {id}"), || {
                !names(&lane.join(place)).iter().any(|name| name.starts_with(id.as_str()))
            });
        }
        let seen =
            names(&lane.join("done")).iter().filter(|name| **name == format!("{id}.result.json")).count();
        assert_eq!(seen, 1, "results of {id}");
    }
    results
}

/// The node's own audit chain holds, and what the peers witnessed of it.
///
/// # Panics
/// When it does not.
#[track_caller]
pub fn audit_verifies(node: &Node) {
    drop(node.ctl(["audit", "verify"]).ok());
}

/// The copy of the node's audit chain on the share holds: every line's hash is that of its bytes, every `prev` the hash
/// before it, from 64 zeros on (architecture, "Audit").
///
/// # Panics
/// When a line breaks the chain.
#[track_caller]
pub fn audit_copy_holds(cluster: &Cluster, node: &str) {
    let file = cluster.share().join(format!("logs/{node}.jsonl"));
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let mut last: Option<Value> = None;
    for line in text.lines() {
        let entry: Value = serde_json::from_str(line).unwrap_or_else(|why| panic!("{why} in {line}"));
        let (hashed, _) = line.rsplit_once(",\"hash\":").expect("a line ends with its hash");
        assert_eq!(entry["hash"], crate::mail::sha256(hashed.as_bytes()), "{line}");
        let zeros = Value::from("0".repeat(64));
        let same_chain = last.as_ref().is_some_and(|last| last["chain"] == entry["chain"]);
        let prev = last.as_ref().filter(|_| same_chain).map_or(&zeros, |last| &last["hash"]);
        assert_eq!(&entry["prev"], prev, "{line}");
        last = Some(entry);
    }
}

/// Nothing is reserved any more, and what was spent is what the results say.
///
/// # Panics
/// When it does not add up.
#[track_caller]
pub fn money_adds_up(node: &Node, results: &[Value]) {
    let budget = node.ctl(["status", "--json"]).ok();
    let status: Value = serde_json::from_str(&budget.out).expect("status --json is one document");
    let spent: u64 = results.iter().map(|result| micros(&result["cost"]["usd"])).sum();
    let month = &status["budget"]["month"];
    assert_eq!(micros(&month["reserved"]), 0, "still reserved: {status:#}");
    assert_eq!(micros(&month["spent"]), spent, "spent: {status:#}");
}

/// No process of any of the attempts' agents is left.
///
/// # Panics
/// When one stays.
#[track_caller]
pub fn no_process_with_mark_left(node: &Node) {
    let marks = marks(node);
    wait::eventually("no process of an agent is left", || {
        marks.iter().all(|mark| process::holding(mark).is_empty())
    });
}

/// The marks of all attempts that the node has job directories of.
#[must_use]
pub fn marks(node: &Node) -> Vec<String> {
    let mut marks = Vec::new();
    for from in crate::cluster::list(&node.state_dir().join("jobs")) {
        for task in crate::cluster::list(&from) {
            for job in crate::cluster::list(&task) {
                let order = std::fs::read(job.join("order.json")).unwrap_or_default();
                let order: Value = serde_json::from_slice(&order).unwrap_or_default();
                marks.extend(order["mark"].as_str().map(ToOwned::to_owned));
            }
        }
    }
    marks
}

/// Money in millionths of a dollar; null is nothing.
///
/// # Panics
/// When it is neither null nor money.
#[must_use]
pub fn micros(money: &Value) -> u64 {
    if money.is_null() {
        return 0;
    }
    let text = money.as_str().unwrap_or_else(|| panic!("not money: {money}"));
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    whole.parse::<u64>().unwrap() * 1_000_000 + format!("{part:0<6}").parse::<u64>().unwrap()
}
