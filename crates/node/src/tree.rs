//! Ending a whole process tree by the attempt's mark.
//!
//! Agents start tools in sessions of their own, so a process group is not their tree. What belongs to an attempt carries
//! `DISPATCH_MARK=<mark>` in its environment or descends from such a process. The executor ends the tree of its agent; a
//! watcher does it after the executor's death. A process is signalled through a handle, and only after its start time was
//! read again through that handle's lifetime: a reused process id is never hit.

mod cgroup;
mod proc;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

pub use cgroup::Cgroup;
pub use proc::{Process, start_ticks};

/// The variable that carries the mark.
pub const MARK_VARIABLE: &str = "DISPATCH_MARK";
/// Looks in a row that must find nothing before a tree counts as ended.
const QUIET_LOOKS: u32 = 2;
/// Time between two looks at a tree that is going away.
const LOOK_PAUSE: Duration = Duration::from_millis(3);
/// Looks for members that were born while their parents were being stopped, per round.
const STOP_ROUNDS_MAX: u32 = 8;

/// The processes of this machine could not be listed.
#[derive(Debug, thiserror::Error)]
#[error("cannot list `{}`", path.display())]
pub struct TreeError {
    /// What was listed.
    pub path: PathBuf,
    /// Why not.
    pub source: std::io::Error,
}

/// What belongs to a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// What carries the mark, and what descends from that: for whoever comes after the executor.
    Marked,
    /// That, and every descendant of the calling process: for the executor, which is its subreaper.
    MarkedOrBelowUs,
}

/// What came of ending a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Ended {
    /// Processes that were still there when the time was up; normally 0.
    pub descendants_left: u64,
    /// Different processes that were killed.
    pub killed: u64,
}

/// The process tree of one attempt. The calling process is never a member.
#[derive(Clone, Debug)]
pub struct Tree {
    mark: String,
    scope: Scope,
}

impl Tree {
    /// The tree with a mark. An empty mark has no members of its own.
    #[must_use]
    pub fn new(mark: &str, scope: Scope) -> Tree {
        Tree { mark: mark.to_owned(), scope }
    }

    /// The members alive now.
    ///
    /// # Errors
    /// `/proc` cannot be listed.
    pub fn look(&self) -> Result<Vec<Process>, TreeError> {
        let entry = format!("{MARK_VARIABLE}={}", self.mark).into_bytes();
        proc::members((!self.mark.is_empty()).then_some(entry.as_slice()), self.scope)
    }

    /// Sends one signal to every member; answers how many got it.
    ///
    /// # Errors
    /// `/proc` cannot be listed.
    pub fn signal(&self, signal: Signal) -> Result<u64, TreeError> {
        Ok(send(&self.look()?, signal))
    }

    /// SIGTERM to every member, and after `grace` SIGKILL, until two looks in a row find nothing or `limit` is over.
    ///
    /// # Errors
    /// `/proc` cannot be listed.
    pub fn end_gently(&self, grace: Duration, limit: Duration) -> Result<Ended, TreeError> {
        self.signal(Signal::TERM)?;
        let until = Instant::now().checked_add(grace);
        while until.is_some_and(|until| Instant::now() < until) && !self.look()?.is_empty() {
            std::thread::sleep(LOOK_PAUSE);
        }
        self.kill(limit)
    }

    /// SIGKILL to every member until two looks in a row find nothing or `limit` is over. Members are stopped before they
    /// are killed, so that none leaves a child behind that no longer shows whose it is.
    ///
    /// # Errors
    /// `/proc` cannot be listed.
    pub fn kill(&self, limit: Duration) -> Result<Ended, TreeError> {
        let cgroup = Cgroup::existing(&self.mark);
        cgroup.iter().for_each(Cgroup::kill);
        let until = Instant::now().checked_add(limit);
        let mut killed = BTreeSet::new();
        let mut quiet = 0_u32;
        loop {
            let members = self.stop_all()?;
            quiet = if members.is_empty() { quiet.saturating_add(1) } else { 0 };
            let is_over = until.is_none_or(|until| Instant::now() >= until);
            if quiet >= QUIET_LOOKS || is_over {
                cgroup.iter().for_each(Cgroup::remove);
                return Ok(Ended { descendants_left: count(members.len()), killed: count(killed.len()) });
            }
            send(&members, Signal::KILL);
            killed.extend(members);
            std::thread::sleep(LOOK_PAUSE);
        }
    }

    /// Stops members until a look finds no new one: a stopped process has no more children.
    fn stop_all(&self) -> Result<Vec<Process>, TreeError> {
        let mut stopped = BTreeSet::new();
        for _ in 0..STOP_ROUNDS_MAX {
            let members = self.look()?;
            let new: Vec<Process> =
                members.iter().filter(|member| !stopped.contains(*member)).copied().collect();
            if new.is_empty() {
                return Ok(members);
            }
            send(&new, Signal::STOP);
            stopped.extend(new);
        }
        self.look()
    }
}

fn count(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

/// Signals exactly these processes. All handles are taken before the first signal, so that the first victim's death does
/// not change what the others are checked against.
fn send(members: &[Process], signal: Signal) -> u64 {
    let handles: Vec<_> = members
        .iter()
        .filter_map(|member| {
            let handle = pidfd_open(member.pid(), PidfdFlags::empty()).ok()?;
            member.is_still_there().then_some(handle)
        })
        .collect();
    count(handles.iter().filter(|handle| pidfd_send_signal(handle, signal).is_ok()).count())
}

#[cfg(test)]
mod tests;
