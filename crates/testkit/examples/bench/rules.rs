//! What the rules cost: lines of `policy eval` on one core, and tasks taken durably into a ledger.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde_json::{Value, json};

use crate::Plan;
use crate::measure::{Samples, ms};
use crate::table::{Goal, Row, Table};

#[path = "../../../ledger/examples/admission/taking.rs"]
mod taking;

/// Examples of every rule.
const VECTORS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../core/tests/vectors/policy.jsonl");
/// Tasks that a watcher with a backlog takes in one transaction, and what a lone task gets.
const GROUPS: [u32; 2] = [32, 1];

/// Both.
pub fn all(plan: &Plan, bins: &Path, dir: &Path, table: &mut Table) {
    eval(plan, bins, dir, table);
    admission(plan, dir, table);
}

/// The lines of the contract's examples, over and over, from a file into a file.
fn eval(plan: &Plan, bins: &Path, dir: &Path, table: &mut Table) {
    let (asked, answered) = (dir.join("policy.jsonl"), dir.join("answers.jsonl"));
    let lines = ask(&asked, plan.lines);
    let mut rates = Samples::default();
    for _ in 0..plan.evals {
        let mut command = Command::new(bins.join("dispatchctl"));
        command.args(["policy", "eval"]).stdin(File::open(&asked).unwrap());
        command.stdout(File::create(&answered).unwrap()).stderr(Stdio::null());
        let took = on_one_core(|| {
            let begun = Instant::now();
            assert!(command.status().unwrap().success());
            begun.elapsed()
        });
        rates.push(lines as f64 / took.as_secs_f64());
        let ends = fs::read(&answered).unwrap().iter().filter(|byte| **byte == b'\n').count();
        assert_eq!(ends, lines, "one answer for every line");
    }
    let what = format!("policy eval, {lines} lines on one core ({} runs)", rates.len());
    add("policy_eval", what, "lines/s", &rates, 200_000.0, table);
    fs::remove_file(asked).unwrap();
    fs::remove_file(answered).unwrap();
}

/// Writes at least so many request lines; answers how many.
fn ask(file: &Path, at_least: usize) -> usize {
    let text = fs::read_to_string(VECTORS).unwrap();
    let examples = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let requests: Vec<String> =
        examples.map(|of| format!("{}\n", json!({"rule": of["rule"], "input": of["input"]}))).collect();
    let (all, rounds) = (requests.concat(), at_least.div_ceil(requests.len()));
    let mut file = File::create(file).unwrap();
    (0..rounds).for_each(|_| file.write_all(all.as_bytes()).unwrap());
    rounds * requests.len()
}

/// What is started meanwhile has one core only.
fn on_one_core<T>(run: impl FnOnce() -> T) -> T {
    let before = sched_getaffinity(None).unwrap();
    let core = (0..CpuSet::MAX_CPU).find(|core| before.is_set(*core)).unwrap();
    let mut one = CpuSet::new();
    one.set(core);
    sched_setaffinity(None, &one).unwrap();
    let done = run();
    sched_setaffinity(None, &before).unwrap();
    done
}

fn admission(plan: &Plan, dir: &Path, table: &mut Table) {
    for group in GROUPS {
        let (mut rates, mut opened) = (Samples::default(), Samples::default());
        for _ in 0..plan.evals {
            let taken = taking::taken(dir, plan.admitted, group).unwrap();
            rates.push(taken.rate);
            opened.push(ms(taken.opened));
        }
        let (key, many) = if group == 1 { ("admission_1", "one") } else { ("admission", "32") };
        let what = format!(
            "admission, {many} in a durable transaction, {} paid tasks ({} runs)",
            plan.admitted,
            rates.len()
        );
        add(key, what, "tasks/s", &rates, if group == 1 { 0.0 } else { 500.0 }, table);
        if group != 1 {
            let what = format!("a ledger of {} paid tasks, opened and checked", plan.admitted);
            table.add(&Row::times("ledger_opened", &what, &opened, None));
        }
    }
}

fn add(key: &'static str, what: String, unit: &'static str, rates: &Samples, least: f64, table: &mut Table) {
    let mut row = Row::new(key, what, unit, rates.median());
    row.worse = Some(rates.quantile(0.0));
    table.add(&row.goal(if least > 0.0 { Goal::AtLeast(least) } else { Goal::None }));
}
