//! Two queues of one host that do less: no signature, no gate, no budget, no second host, nothing synced. What they cost
//! is measured in the same run with the same agent, by the same words.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::Plan;
use crate::measure::{Samples, monotonic_ns, ms};
use crate::table::{Row, Table};

/// One of them.
struct Queue {
    name: &'static str,
    /// For the rows' keys: enqueue, start, by command, drained.
    keys: [&'static str; 4],
    program: PathBuf,
    /// Between the program and the command that is to run.
    words: &'static [&'static str],
    dir: PathBuf,
    notes: PathBuf,
    agent: PathBuf,
}

/// Measures those that are installed.
pub fn all(plan: &Plan, dir: &Path, agent: &Path, table: &mut Table) {
    let queues = [
        ("nq", "nq", &[][..], ["nq_enqueue", "nq_start", "nq_by_command", "nq_drained"]),
        ("task-spooler", "tsp", &["-n"][..], ["tsp_enqueue", "tsp_start", "tsp_by_command", "tsp_drained"]),
    ];
    for (name, program, words, keys) in queues {
        let Some(program) = found(program) else {
            table.skipped(name, "it is not installed (scripts/bench.sh --install-neighbours)");
            continue;
        };
        let dir = dir.join(name);
        let notes = dir.join("notes");
        fs::create_dir_all(&notes).unwrap();
        let queue = Queue { name, keys, program, words, dir, notes, agent: agent.to_path_buf() };
        queue.measure(plan, table);
    }
}

fn found(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.is_file())
}

impl Queue {
    fn command(&self, task: &str, what: &[&Path]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(self.words).args(what).current_dir(&self.dir);
        command.env("NQDIR", &self.dir).env("TS_SOCKET", self.dir.join("socket")).env("TMPDIR", &self.dir);
        command.env("TS_MAXFINISHED", "10").env("DISPATCH_TASK", task);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    fn enqueue(&self, task: &str) {
        let agent = self.agent.clone();
        assert!(self.command(task, &[&agent, &self.notes]).status().unwrap().success());
    }

    fn noted(&self) -> usize {
        fs::read_dir(&self.notes).unwrap().count()
    }

    fn wait_for(&self, count: usize) {
        let start = Instant::now();
        while self.noted() < count {
            assert!(
                start.elapsed() < Duration::from_secs(60),
                "{} has run {} of {count}",
                self.name,
                self.noted()
            );
            thread::sleep(Duration::from_millis(2));
        }
    }

    fn measure(&self, plan: &Plan, table: &mut Table) {
        let [enqueue_key, start_key, by_command_key, drained_key] = self.keys;
        let name = self.name;
        // The first one may start a server.
        self.enqueue("first");
        self.wait_for(1);
        let (mut enqueue, mut start) = (Samples::default(), Samples::default());
        for number in 0..plan.singles {
            let task = format!("single-{number}");
            let (begun, began_ns) = (Instant::now(), monotonic_ns());
            self.enqueue(&task);
            enqueue.push(ms(begun.elapsed()));
            self.wait_for(number + 2);
            start.push((self.note(&task) - began_ns) as f64 / 1e6);
        }
        table.add(&Row::times(enqueue_key, &format!("{name}: enqueue command, wall"), &enqueue, None));
        table.add(&Row::times(
            start_key,
            &format!("{name}: enqueue command begins → agent's first instruction"),
            &start,
            None,
        ));
        let before = self.noted();
        let begun = Instant::now();
        (0..plan.backlog).for_each(|number| self.enqueue(&format!("command-{number}")));
        self.wait_for(before + plan.backlog);
        let rate = plan.backlog as f64 / begun.elapsed().as_secs_f64();
        table.add(&Row::new(
            by_command_key,
            format!("{name}: {} tasks, one command each", plan.backlog),
            "tasks/s",
            rate,
        ));
        table.add(&self.drained(drained_key, plan));
        self.stop();
    }

    /// A backlog behind a task that waits.
    fn drained(&self, key: &'static str, plan: &Plan) -> Row {
        let before = self.noted();
        let (gate, blocker) = (self.dir.join("gate"), self.dir.join("blocker"));
        let script = format!("#!/bin/sh\nwhile [ ! -e '{}' ]; do sleep 0.01; done\n", gate.display());
        dispatch_testkit::bins::write_script(&blocker, &script);
        assert!(self.command("blocker", &[&blocker]).status().unwrap().success());
        (0..plan.backlog).for_each(|number| self.enqueue(&format!("drained-{number}")));
        let begun = Instant::now();
        fs::write(&gate, "").unwrap();
        self.wait_for(before + plan.backlog);
        let rate = plan.backlog as f64 / begun.elapsed().as_secs_f64();
        Row::new(
            key,
            format!("{}: {} tasks from a backlog, one at a time", self.name, plan.backlog),
            "tasks/s",
            rate,
        )
    }

    fn note(&self, task: &str) -> u64 {
        // The name is there a moment before the text.
        dispatch_testkit::eventually("a note", || {
            fs::read_to_string(self.notes.join(task)).ok()?.parse().ok()
        })
    }

    /// Ends the server that task-spooler leaves; nq has none.
    fn stop(&self) {
        if self.name == "task-spooler" {
            let mut command = Command::new(&self.program);
            command.arg("-K").env("TS_SOCKET", self.dir.join("socket"));
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            // One that has gone already is what was wanted.
            drop(command.status());
        }
    }
}
