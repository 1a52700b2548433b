//! Two nodes on one share: `a` sends, `b` runs a program that only notes when it began.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use dispatch_testkit::cluster::names;
use dispatch_testkit::{Bins, Cluster, Watcher};

use crate::Plan;
use crate::measure::{Floor, Memory, Samples, cpu_ms, monotonic_ns, ms, resident_mb};
use crate::table::{Goal, Row, Table};

/// Between two single tasks: the node is idle again.
const PAUSE: Duration = Duration::from_millis(30);
/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(60);

/// The nodes and where things lie.
pub struct Scene {
    cluster: Cluster,
    agent: PathBuf,
    /// Where the agent leaves its notes.
    notes: PathBuf,
    /// Sealed tasks that wait for their turn, oldest first.
    held: Vec<PathBuf>,
    a: Option<Watcher>,
    b: Option<Watcher>,
}

impl Scene {
    /// Sets both nodes up; node `a` is watched, `b` is not yet.
    #[must_use]
    pub fn new(bins: &Path, agent: &Path) -> Self {
        let cluster = Cluster::new(&Bins::in_dir(bins));
        let notes = cluster.outside().join("notes");
        fs::create_dir(&notes).unwrap();
        fs::create_dir(cluster.outside().join("held")).unwrap();
        cluster.b().configure(&format!(
            "[exec]\nmax_parallel = 8\n[limits]\nmax_queued = 5000\n\
             [profile.default]\nagent = \"command\"\nargv = [\"{}\", \"{}\"]\nbilling = \"free\"\n",
            agent.display(),
            notes.display()
        ));
        let a = Some(cluster.a().watch());
        Self { cluster, agent: agent.to_path_buf(), notes, held: Vec::new(), a, b: None }
    }

    /// The directory everything happens in.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.notes.parent().unwrap()
    }

    fn floor(&self) -> Floor {
        Floor::new(self.dir(), &self.agent)
    }

    fn inbox(&self) -> PathBuf {
        self.cluster.lane("a", "b").join("inbox")
    }

    fn send_command(&self, words: &[&str]) -> Command {
        let mut command = self.cluster.a().command("dispatch-send");
        command.args(["--to", "b", "--quiet", "--force", "--request", "note the time"]).args(words);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    fn result_of(&self, id: &str) -> PathBuf {
        self.cluster.lane("a", "b").join(format!("done/{id}.result.json"))
    }

    fn results(&self) -> usize {
        let done = names(&self.cluster.lane("a", "b").join("done"));
        done.iter().filter(|name| name.ends_with(".result.json")).count()
    }

    /// When the agent of a task began, in nanoseconds of the monotonic clock.
    fn began(&self, id: &str) -> u64 {
        fs::read_to_string(self.notes.join(id)).unwrap().parse().unwrap()
    }

    /// Seals what the other measurements need, and measures the command itself while nobody takes the tasks.
    pub fn send(&mut self, plan: &Plan, table: &mut Table) {
        let (mut floor, mut samples) = (self.floor(), Samples::default());
        for _ in 0..plan.singles {
            floor.sample();
            let start = Instant::now();
            assert!(self.send_command(&[]).status().unwrap().success());
            samples.push(ms(start.elapsed()));
        }
        for _ in 0..plan.backlog * plan.drains * 2 {
            assert!(self.send_command(&[]).status().unwrap().success());
        }
        let held = self.dir().join("held");
        for name in names(&self.inbox()) {
            fs::rename(self.inbox().join(&name), held.join(&name)).unwrap();
            self.held.push(held.join(&name));
        }
        self.held.reverse();
        table.add_floor(&floor);
        let row = Row::times("enqueue", "`dispatch-send`, wall", &samples, Some(&floor));
        table.add(&row.goal(Goal::AtMost(4.0)));
    }

    /// From the moment a task appears in the inbox of an idle node to the first instruction of its agent.
    pub fn single(&mut self, plan: &Plan, table: &mut Table) {
        self.b = Some(self.cluster.b().watch());
        thread::sleep(Duration::from_secs(1));
        let (mut floor, mut samples) = (self.floor(), Samples::default());
        for _ in 0..plan.singles {
            floor.sample();
            let file = self.held.pop().unwrap();
            let name = file.file_name().unwrap().to_string_lossy().into_owned();
            let id = name.trim_end_matches(".json").to_owned();
            let appears = monotonic_ns();
            fs::rename(&file, self.inbox().join(&name)).unwrap();
            wait_for("a result", || self.result_of(&id).exists());
            samples.push((self.began(&id) - appears) as f64 / 1e6);
            thread::sleep(PAUSE);
        }
        let what = "task appears in the inbox → agent's first instruction";
        let row = Row::times("start", what, &samples, Some(&floor));
        table.add(&row.goal(Goal::AtMost(6.0)));
    }

    /// The same from the beginning of the command that sends it.
    pub fn command_to_start(&mut self, plan: &Plan, table: &mut Table) {
        let (mut floor, mut samples) = (self.floor(), Samples::default());
        for _ in 0..plan.singles {
            floor.sample();
            let begun = monotonic_ns();
            let sent = self.send_command(&[]).stdout(Stdio::piped()).output().unwrap();
            let said = String::from_utf8(sent.stdout).unwrap();
            let id = said.split('\t').next().unwrap().trim();
            wait_for("a result", || self.result_of(id).exists());
            samples.push((self.began(id) - begun) as f64 / 1e6);
            thread::sleep(PAUSE);
        }
        let what = "`dispatch-send` begins → agent's first instruction";
        table.add(&Row::times("send_to_start", what, &samples, Some(&floor)));
    }

    /// The whole way there and back.
    pub fn round_trips(&mut self, plan: &Plan, table: &mut Table) {
        let (mut floor, mut samples) = (self.floor(), Samples::default());
        for _ in 0..plan.singles / 3 {
            floor.sample();
            let start = Instant::now();
            assert!(self.send_command(&["--wait"]).status().unwrap().success());
            samples.push(ms(start.elapsed()));
            thread::sleep(PAUSE);
        }
        table.add(&Row::times("round_trip", "`dispatch-send --wait`, wall", &samples, Some(&floor)));
    }

    /// Tasks sent one command after the other, until the last has its result.
    pub fn by_command(&mut self, plan: &Plan, table: &mut Table) {
        let mut floor = self.floor();
        (0..10).for_each(|_| floor.sample());
        let all = self.results() + plan.backlog;
        let start = Instant::now();
        for _ in 0..plan.backlog {
            assert!(self.send_command(&[]).status().unwrap().success());
        }
        wait_slowly("all results", || self.results() >= all);
        let rate = plan.backlog as f64 / start.elapsed().as_secs_f64();
        (0..10).for_each(|_| floor.sample());
        let what = format!("{} trivial tasks, one command each, to the last result", plan.backlog);
        let mut row = Row::new("by_command", what, "tasks/s", rate);
        row.floors = Some(1_000.0 / rate / floor.both());
        table.add(&row);
    }

    /// A backlog that lies in the inbox at once.
    pub fn drain(&mut self, plan: &Plan, parallel: usize, table: &mut Table) {
        self.b = None;
        self.cluster.b().configure(&format!("[exec]\nmax_parallel = {parallel}"));
        self.b = Some(self.cluster.b().watch());
        thread::sleep(Duration::from_secs(1));
        let (mut floor, mut rates) = (self.floor(), Samples::default());
        for _ in 0..plan.drains {
            (0..10).for_each(|_| floor.sample());
            let all = self.results() + plan.backlog;
            let start = Instant::now();
            for _ in 0..plan.backlog {
                let file = self.held.pop().unwrap();
                fs::rename(&file, self.inbox().join(file.file_name().unwrap())).unwrap();
            }
            wait_slowly("all results", || self.results() >= all);
            rates.push(plan.backlog as f64 / start.elapsed().as_secs_f64());
            (0..10).for_each(|_| floor.sample());
            thread::sleep(Duration::from_secs(1));
        }
        let rate = rates.median();
        let what = format!(
            "{} trivial tasks from a backlog, {parallel} in parallel ({} runs)",
            plan.backlog,
            rates.len()
        );
        let key = if parallel == 8 { "drained_8" } else { "drained_2" };
        let mut row = Row::new(key, what, "tasks/s", rate);
        (row.worse, row.floors) = (Some(rates.quantile(0.0)), Some(1_000.0 / rate / floor.both()));
        table.add(&row.goal(if parallel == 8 { Goal::AtLeast(150.0) } else { Goal::None }));
    }

    /// A watcher that has nothing to do, after everything before.
    pub fn idle(&mut self, plan: &Plan, table: &mut Table) {
        let pid = self.b.as_ref().unwrap().pid();
        thread::sleep(Duration::from_secs(2));
        let (before, start) = (cpu_ms(pid), Instant::now());
        thread::sleep(Duration::from_secs(plan.idle_s));
        let per_minute = (cpu_ms(pid) - before) / ms(start.elapsed()) * 60_000.0;
        let what = format!("watcher idle for {} s: processor time per minute", plan.idle_s);
        // 0.05 % of a core.
        table.add(&Row::new("idle_cpu", what, "ms", per_minute).goal(Goal::AtMost(30.0)));
        let memory = resident_mb(pid, Memory::Now).unwrap_or(f64::NAN);
        let row = Row::new("idle_mb", "watcher after all this: resident", "MB", memory);
        table.add(&row.goal(Goal::AtMost(15.0)));
        drop((self.a.take(), self.b.take()));
    }
}

fn wait_for(what: &str, is_true: impl Fn() -> bool) {
    wait(what, Duration::from_millis(2), is_true);
}

fn wait_slowly(what: &str, is_true: impl Fn() -> bool) {
    wait(what, Duration::from_millis(20), is_true);
}

fn wait(what: &str, every: Duration, is_true: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_true() {
        assert!(start.elapsed() < PATIENCE, "{what} did not come");
        thread::sleep(every);
    }
}
