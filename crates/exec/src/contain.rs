//! What holds the agent's process tree together, so that it can be ended whole.
//!
//! Always: the executor is the subreaper, so whatever loses its parent becomes its child, and "no children" is the kernel's
//! word that nothing is left. Beside it a cgroup, where the service manager delegated one.

use std::fs::{File, OpenOptions};
use std::io;
use std::time::Duration;

use dispatch_node::job::{Containment, Mechanism};
use dispatch_node::tree::{Cgroup, Scope, Tree};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, getpid, set_child_subreaper, wait};

/// Longest time for one killing sweep.
const SWEEP_MAX: Duration = Duration::from_secs(1);

/// Whether anything of the tree is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Children {
    /// Some process is.
    Left,
    /// None is.
    None,
}

/// The containment of one agent.
#[derive(Debug)]
pub(crate) struct Containing {
    tree: Tree,
    cgroup: Option<Cgroup>,
}

impl Containing {
    /// Makes it ready, before the agent is started.
    pub(crate) fn new(mark: &str) -> io::Result<Containing> {
        set_child_subreaper(Some(getpid()))?;
        Ok(Containing { tree: Tree::new(mark, Scope::MarkedOrBelowUs), cgroup: Cgroup::create(mark) })
    }

    /// Which one holds.
    pub(crate) const fn mechanism(&self) -> Mechanism {
        if self.cgroup.is_some() { Mechanism::Cgroup } else { Mechanism::Subreaper }
    }

    /// The file through which the agent joins its cgroup.
    pub(crate) fn door(&self) -> io::Result<Option<File>> {
        let open = |cgroup: &Cgroup| OpenOptions::new().write(true).open(cgroup.procs_path());
        self.cgroup.as_ref().map(open).transpose()
    }

    /// Takes in the dead and hands each to `seen`. Answers whether anybody is left.
    pub(crate) fn reap(&self, mut seen: impl FnMut(Pid, WaitStatus)) -> Children {
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => seen(pid, status),
                Err(Errno::INTR) => {}
                Err(Errno::CHILD) => return self.beyond_children(),
                Ok(None) | Err(_) => return Children::Left,
            }
        }
    }

    /// A process can be in the cgroup and no descendant only if it was moved there; it belongs to the tree all the same.
    fn beyond_children(&self) -> Children {
        match &self.cgroup {
            Some(cgroup) if cgroup.count() > 0 => Children::Left,
            Some(_) | None => Children::None,
        }
    }

    /// Signals every process of the tree.
    pub(crate) fn signal(&self, signal: Signal) {
        // Without /proc there is no sweep; the parent-death signal and the cgroup are left then.
        drop(self.tree.signal(signal));
    }

    /// Kills every process of the tree; a second at most.
    pub(crate) fn kill(&self) {
        drop(self.tree.kill(SWEEP_MAX));
    }

    /// What to say of it.
    pub(crate) fn seen(&self, left: Children) -> Containment {
        let descendants_left = match left {
            Children::None => 0,
            Children::Left => {
                self.tree.look().map_or(1, |members| u64::try_from(members.len()).unwrap_or(u64::MAX))
            }
        };
        Containment { mechanism: self.mechanism(), descendants_left }
    }

    /// Removes what was made for it.
    pub(crate) fn remove(&self) {
        if let Some(cgroup) = &self.cgroup {
            cgroup.remove();
        }
    }
}
