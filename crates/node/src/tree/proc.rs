//! Processes as `/proc` shows them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use rustix::process::{Pid, getpid};

use super::{Scope, TreeError};

/// One process for good: ids are reused, an id with its start time is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Process {
    pid: Pid,
    start_ticks: u64,
}

impl PartialOrd for Process {
    fn partial_cmp(&self, other: &Process) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Process {
    fn cmp(&self, other: &Process) -> std::cmp::Ordering {
        let key = |process: &Process| (process.pid.as_raw_nonzero(), process.start_ticks);
        key(self).cmp(&key(other))
    }
}

impl Process {
    /// A process from what was noted about it.
    #[must_use]
    pub fn noted(pid: u32, start_ticks: u64) -> Option<Process> {
        let pid = Pid::from_raw(i32::try_from(pid).ok()?)?;
        Some(Process { pid, start_ticks })
    }

    /// Its id.
    #[must_use]
    pub const fn pid(&self) -> Pid {
        self.pid
    }

    /// True while the process with this id is the one that was meant.
    #[must_use]
    pub fn is_still_there(&self) -> bool {
        read_stat(self.pid).is_some_and(|stat| stat.start_ticks == self.start_ticks && stat.is_alive)
    }
}

/// What is used of `/proc/<pid>/stat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stat {
    parent: Option<Pid>,
    start_ticks: u64,
    is_alive: bool,
}

/// The start time in a `/proc/<pid>/stat`, in clock ticks after boot.
#[must_use]
pub fn start_ticks(stat: &[u8]) -> Option<u64> {
    parse_stat(stat).map(|stat| stat.start_ticks)
}

fn read_stat(pid: Pid) -> Option<Stat> {
    parse_stat(&fs::read(format!("/proc/{pid}/stat")).ok()?)
}

/// Reads the members behind the program's name, which may itself hold blanks and brackets.
fn parse_stat(stat: &[u8]) -> Option<Stat> {
    let end_of_name = stat.iter().rposition(|byte| *byte == b')')?;
    let text = std::str::from_utf8(stat.get(end_of_name.saturating_add(1)..)?).ok()?;
    let mut members = text.split_ascii_whitespace();
    let state = members.next()?;
    let parent = members.next()?.parse().ok().and_then(Pid::from_raw);
    // Members 3 and 4 of the manual page are read; `num_threads` is 20, `starttime` 22.
    let threads: u64 = members.nth(15)?.parse().ok()?;
    let start_ticks = members.nth(1)?.parse().ok()?;
    // A process whose first thread has ended shows as a zombie while its other threads run.
    let is_alive = !matches!(state, "Z" | "X" | "x") || threads > 1;
    Some(Stat { parent, start_ticks, is_alive })
}

/// Lists every process once and answers the members: those with the mark, those below this process where the scope says
/// so, and whatever descends from either.
pub(super) fn members(entry: Option<&[u8]>, scope: Scope) -> Result<Vec<Process>, TreeError> {
    let ours = getpid();
    let all = list()?;
    let mut belongs: BTreeSet<i32> = BTreeSet::new();
    if scope == Scope::MarkedOrBelowUs {
        belongs.insert(ours.as_raw_pid());
    }
    if let Some(entry) = entry {
        let marked = all.iter().filter(|(_, stat)| stat.is_alive).filter(|(pid, _)| carries(**pid, entry));
        belongs.extend(marked.map(|(pid, _)| *pid).filter(|pid| *pid != ours.as_raw_pid()));
    }
    add_descendants(&all, &mut belongs);
    let found = belongs.iter().filter(|pid| **pid != ours.as_raw_pid()).filter_map(|pid| {
        let stat = all.get(pid).filter(|stat| stat.is_alive)?;
        Some(Process { pid: Pid::from_raw(*pid)?, start_ticks: stat.start_ticks })
    });
    Ok(found.collect())
}

fn list() -> Result<BTreeMap<i32, Stat>, TreeError> {
    let path = Path::new("/proc");
    let fails = |source| TreeError { path: path.to_owned(), source };
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(path).map_err(fails)? {
        let name = entry.map_err(fails)?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw) else {
            continue;
        };
        // A process that is gone by now is no member.
        if let Some(stat) = read_stat(pid) {
            all.insert(pid.as_raw_pid(), stat);
        }
    }
    Ok(all)
}

/// True where the environment at start holds the whole entry. What may not be read is not ours.
fn carries(pid: i32, entry: &[u8]) -> bool {
    fs::read(format!("/proc/{pid}/environ"))
        .is_ok_and(|environ| environ.split(|byte| *byte == 0).any(|variable| variable == entry))
}

fn add_descendants(all: &BTreeMap<i32, Stat>, belongs: &mut BTreeSet<i32>) {
    loop {
        let born: Vec<i32> = all
            .iter()
            .filter(|(pid, _)| !belongs.contains(pid))
            .filter(|(_, stat)| stat.parent.is_some_and(|parent| belongs.contains(&parent.as_raw_pid())))
            .map(|(pid, _)| *pid)
            .collect();
        if born.is_empty() {
            return;
        }
        belongs.extend(born);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_is_read_behind_the_last_bracket() {
        let line = b"42 (a) R 1) S 7 42 42 0 -1 4194560 100 0 0 0 0 0 0 0 20 0 3 0 987654 1000 1 184";
        let stat = parse_stat(line).unwrap();
        assert_eq!(stat, Stat { parent: Pid::from_raw(7), start_ticks: 987_654, is_alive: true });
        assert_eq!(start_ticks(b"42 (a"), None);
    }

    #[test]
    fn a_zombie_with_threads_left_is_alive() {
        let line = |threads: &str| {
            format!("42 (a) Z 7 42 42 0 -1 4194560 100 0 0 0 0 0 0 0 20 0 {threads} 0 987654 0 0")
        };
        assert!(!parse_stat(line("1").as_bytes()).unwrap().is_alive);
        assert!(parse_stat(line("2").as_bytes()).unwrap().is_alive);
    }
}
