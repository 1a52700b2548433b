//! Ending a process at an exact step, from outside: `strace` counts its system calls and kills it as one begins.
//!
//! A process that is killed as a call begins has not made it, so killing at every call that makes something durable
//! or visible, one after the other, covers "right before" and "right after" of every commit point, without a switch in
//! what is shipped. Counters are per thread: of a thread that makes fewer than `when` calls, nothing is killed.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// Calls that make something durable, visible to others, or alive.
pub const STEPS: [&str; 19] = [
    "fsync",
    "fdatasync",
    "linkat",
    "link",
    "renameat",
    "renameat2",
    "rename",
    "unlink",
    "unlinkat",
    "pwrite64",
    "ftruncate",
    "mkdir",
    "mkdirat",
    "flock",
    "clone3",
    "clone",
    "vfork",
    "execve",
    "kill",
];

/// One place to die: the `when`-th `call` of any one thread.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Step {
    /// The system call.
    pub call: String,
    /// Which one, from 1.
    pub when: u32,
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.call, self.when)
    }
}

/// Whether calls can be traced here.
#[must_use]
pub fn possible() -> bool {
    let mut probe = Command::new("strace");
    probe.args(["-qq", "-o", "/dev/null", "-e", "trace=fsync", "true"]);
    probe.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// The words that go before a command line so that the command is killed at `step`.
///
/// The tracer is a grandchild, so the command keeps its place as the child of whoever starts it; what the command
/// itself starts is let go at its `execve` and not traced.
#[must_use]
pub fn killing(step: &Step) -> Vec<String> {
    let mut words = common("/dev/null", &format!("trace={}", step.call));
    words.push("-e".to_owned());
    words.push(format!("inject={}:signal=SIGKILL:when={}", step.call, step.when));
    words
}

/// The words that go before a command line so that its steps are written to `log`.
#[must_use]
pub fn counting(log: &Path) -> Vec<String> {
    common(&log.display().to_string(), &format!("trace={}", STEPS.join(",")))
}

fn common(log: &str, trace: &str) -> Vec<String> {
    ["strace", "-D", "-f", "-qq", "-b", "execve", "-o", log, "-e", trace]
        .iter()
        .map(ToString::to_string)
        .collect()
}

/// Every step of a counted run: for each call, as many as the thread that made most of them.
///
/// # Panics
/// When the log cannot be read.
#[must_use]
pub fn steps(log: &Path) -> Vec<Step> {
    let mut counts: BTreeMap<(String, String), u32> = BTreeMap::new();
    for line in fs::read_to_string(log).unwrap().lines() {
        let Some((thread, rest)) = line.split_once(char::is_whitespace) else { continue };
        let Some((call, _)) = rest.trim_start().split_once('(') else { continue };
        if STEPS.contains(&call) {
            *counts.entry((thread.to_owned(), call.to_owned())).or_insert(0) += 1;
        }
    }
    let mut most: BTreeMap<String, u32> = BTreeMap::new();
    for ((_, call), count) in counts {
        let entry = most.entry(call).or_insert(0);
        *entry = count.max(*entry);
    }
    let steps = most
        .into_iter()
        .flat_map(|(call, count)| (1..=count).map(move |when| Step { call: call.clone(), when }));
    steps.collect()
}

/// At most `limit` of `steps`, spread evenly, those of rare calls first: a call made once is a commit point more often
/// than one made a hundred times.
#[must_use]
pub fn sample(steps: &[Step], limit: usize) -> Vec<Step> {
    let mut by_call: BTreeMap<&str, Vec<&Step>> = BTreeMap::new();
    for step in steps {
        by_call.entry(&step.call).or_default().push(step);
    }
    let mut groups: Vec<_> = by_call.into_values().collect();
    groups.sort_by_key(Vec::len);
    let mut chosen = Vec::new();
    let mut left = groups.len();
    for group in groups {
        let share = (limit.saturating_sub(chosen.len())).div_ceil(left.max(1)).min(group.len());
        // Evenly spread, the first and the last among them.
        for index in 0..share {
            let at = if share == 1 { 0 } else { index * (group.len() - 1) / (share - 1) };
            chosen.push(group[at].clone());
        }
        left -= 1;
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(call: &str, when: u32) -> Step {
        Step { call: call.to_owned(), when }
    }

    #[test]
    fn a_sample_holds_every_rare_step_and_the_ends_of_the_frequent_ones() {
        let mut steps: Vec<Step> = (1..=100).map(|when| step("pwrite64", when)).collect();
        steps.extend([step("linkat", 1), step("linkat", 2)]);
        let chosen = sample(&steps, 10);
        assert_eq!(chosen.len(), 10);
        for wanted in [step("linkat", 1), step("linkat", 2), step("pwrite64", 1), step("pwrite64", 100)] {
            assert!(chosen.contains(&wanted), "{wanted} is missing of {chosen:?}");
        }
        assert_eq!(sample(&steps, 1000).len(), 102);
    }

    #[test]
    fn steps_are_counted_per_thread() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        fs::write(&log, "11 fsync(3) = 0\n12 fsync(4) = 0\n11 fsync(3)  = 0\n11 +++ exited with 0 +++\n")
            .unwrap();
        assert_eq!(steps(&log), [step("fsync", 1), step("fsync", 2)]);
    }

    #[test]
    fn a_traced_command_dies_before_the_step_is_made() {
        if !possible() {
            eprintln!("SKIPPED: strace does not work here");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let words = killing(&step("unlinkat", 2));
        let file = |name: &str| dir.path().join(name);
        for name in ["one", "two", "three"] {
            fs::write(file(name), "").unwrap();
        }
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).arg("rm").args([file("one"), file("two"), file("three")]);
        assert!(!command.status().unwrap().success());
        assert_eq!([file("one").exists(), file("two").exists(), file("three").exists()], [false, true, true]);
    }
}
