//! Who runs the program: a few at a time, on threads of their own, never waited for by the loop.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel};
use std::thread;
use std::time::{Duration, Instant};

use dispatch_ledger::{Entry, LedgerError, Tx};
use dispatch_node::tree::{Scope, Tree};
use serde_json::json;

use super::program::{Came, Group, Run, kill_group};
use crate::home::Home;
use crate::node::Reach;
use crate::wake::{Wake, ring};

/// Programs that run at once.
const RUNNING_MAX: usize = 2;
/// How long programs that still run when the watcher leaves may take to end by themselves, and what they started to be
/// found: SIGTERM ends the watcher within a second (policy section 6).
const LEAVE_WAIT: Duration = Duration::from_millis(300);
const LEAVE_SWEEP: Duration = Duration::from_millis(300);
/// The peers' health is looked at this often.
const PEERS_EVERY: Duration = Duration::from_secs(1);
/// How long ending what an earlier watcher left may take.
const SWEEP_MAX: Duration = Duration::from_millis(500);

/// A program that ended.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    n: u64,
    came: Came,
}

/// A telling that was taken in a transaction: its program is started when that is committed.
#[derive(Clone, Debug)]
enum Taken {
    /// The program is to be run with this document.
    Now { n: u64, document: String },
    /// An earlier watcher's program may still run.
    Left { n: u64 },
}

/// What a transaction took.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    taken: Vec<Taken>,
    /// More is due than programs may run.
    more: bool,
}

/// How many people were told, and how often that failed, since this watcher started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) well: u64,
    pub(crate) failed: u64,
}

/// The programs that run.
pub(crate) struct Herald {
    wakes: SyncSender<Wake>,
    sender: Sender<Told>,
    receiver: Receiver<Told>,
    running: BTreeMap<u64, Group>,
    /// Ended ones that the ledger does not know of yet.
    told: Vec<Told>,
    /// The ledger may hold due ones.
    more: bool,
    marks: String,
    tally: Tally,
    /// Since when the share has been there without a break.
    here_since: Option<Instant>,
    /// When the peers' health was looked at last.
    peers_looked: Option<Instant>,
}

impl Herald {
    /// For a node: marks of its programs are nobody else's, and the same after a restart.
    pub(crate) fn new(wakes: SyncSender<Wake>, home: &Home) -> Herald {
        let (sender, receiver) = channel();
        Herald {
            wakes,
            sender,
            receiver,
            running: BTreeMap::new(),
            told: Vec::new(),
            more: true,
            marks: format!("notify-{}-{}", home.cluster.simple(), home.node),
            tally: Tally::default(),
            here_since: None,
            peers_looked: None,
        }
    }

    fn mark(&self, n: u64) -> String {
        format!("{}-{n}", self.marks)
    }

    /// How it went so far.
    pub(crate) const fn tally(&self) -> Tally {
        self.tally
    }

    /// True when no program runs, none has ended unnoted, and none is due.
    pub(crate) fn is_quiet(&self) -> bool {
        self.running.is_empty() && self.told.is_empty() && !self.more
    }

    /// True when the ledger has something to learn or to hand out.
    pub(crate) fn is_news(&mut self) -> bool {
        while let Ok(told) = self.receiver.try_recv() {
            self.running.remove(&told.n);
            match told.came {
                Came::Well => self.tally.well = self.tally.well.saturating_add(1),
                Came::Exit(_)
                | Came::Signal(_)
                | Came::TookTooLong
                | Came::Stopped
                | Came::CannotStart(_) => {
                    self.tally.failed = self.tally.failed.saturating_add(1);
                }
            }
            self.told.push(told);
        }
        !self.told.is_empty() || (self.more && self.free() > 0)
    }

    /// True when it is time to see who of the peers is dead: now and then, and only while this watcher has had the share for
    /// so long that it would have heard of them.
    pub(crate) fn is_peers_look_due(&mut self, reach: &Reach, dead_after: Duration) -> bool {
        match reach {
            Reach::Here => {
                self.here_since.get_or_insert_with(Instant::now);
            }
            Reach::Unreachable(_) => self.here_since = None,
        }
        let long_enough = self.here_since.is_some_and(|since| since.elapsed() >= dead_after);
        if !long_enough || self.peers_looked.is_some_and(|at| at.elapsed() < PEERS_EVERY) {
            return false;
        }
        self.peers_looked = Some(Instant::now());
        true
    }

    fn free(&self) -> usize {
        RUNNING_MAX.saturating_sub(self.running.len())
    }

    /// What the next transaction has to know.
    pub(crate) fn hand_over(&mut self) -> Handed {
        Handed {
            told: std::mem::take(&mut self.told),
            running: self.running.keys().copied().collect(),
            free: self.free(),
        }
    }

    /// The transaction that was to note these failed: they are noted by the next one.
    pub(crate) fn put_back(&mut self, handed: Handed) {
        self.told.splice(0..0, handed.told);
    }

    /// Starts what was taken. What cannot be started counts as ended.
    pub(crate) fn start(&mut self, home: &Home, batch: Batch) {
        self.more = batch.more;
        for one in batch.taken {
            match one {
                Taken::Left { n } => drop(Tree::new(&self.mark(n), Scope::Marked).kill(SWEEP_MAX)),
                Taken::Now { n, document } => self.start_one(home, n, document),
            }
        }
    }

    fn start_one(&mut self, home: &Home, n: u64, document: String) {
        let Some(notify) = &home.config.notify else { return };
        let run = Run {
            argv: notify.argv.clone(),
            env: notify.env.clone(),
            set: notify.set.clone(),
            node: home.node.to_string(),
            document,
            mark: self.mark(n),
        };
        let group = Group::default();
        self.running.insert(n, Group::clone(&group));
        let (sender, wakes) = (self.sender.clone(), self.wakes.clone());
        let thread =
            thread::Builder::new().name("notify".to_owned()).stack_size(256 * 1024).spawn(move || {
                let came = run.to_end(&group);
                drop(sender.send(Told { n, came }));
                ring(&wakes, Wake::Hint);
            });
        if let Err(error) = thread {
            drop(self.sender.send(Told { n, came: Came::CannotStart(error.kind()) }));
            ring(&self.wakes, Wake::Hint);
        }
    }

    /// The watcher leaves: what still runs has a moment to end, then it is killed. Answers what ended.
    pub(crate) fn leave(&mut self) -> Handed {
        let begun = Instant::now();
        while !self.running.is_empty() {
            match self.receiver.recv_timeout(LEAVE_WAIT.saturating_sub(begun.elapsed())) {
                Ok(told) => {
                    self.running.remove(&told.n);
                    self.told.push(told);
                }
                Err(_) => break,
            }
        }
        let running = std::mem::take(&mut self.running);
        running.values().for_each(kill_group);
        for n in running.into_keys() {
            let left = LEAVE_WAIT.saturating_add(LEAVE_SWEEP).saturating_sub(begun.elapsed());
            drop(Tree::new(&self.mark(n), Scope::Marked).kill(left));
            self.told.push(Told { n, came: Came::Stopped });
        }
        self.hand_over()
    }
}

/// What a transaction needs to know of the programs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Handed {
    told: Vec<Told>,
    running: Vec<u64>,
    free: usize,
}

impl Handed {
    /// Notes what ended. A failure is audited, and nothing else follows from it.
    pub(crate) fn note(&self, tx: &mut Tx<'_>) -> Result<(), LedgerError> {
        if self.told.is_empty() {
            return Ok(());
        }
        let open = tx.open_tellings()?;
        for told in &self.told {
            tx.end_telling(told.n)?;
            if told.came == Came::Well {
                continue;
            }
            let row = open.iter().find(|row| row.n == told.n);
            let (kind, name) = row.map_or(("", ""), |row| (row.kind.as_str(), row.name.as_str()));
            tracing::warn!(kind, name, why = %told.came, "the program of [notify] failed");
            let data = json!({"kind": kind, "name": name, "why": told.came.to_string()});
            tx.audit(&Entry::of("notify_failed").data(data))?;
        }
        Ok(())
    }

    /// Takes what is due, as far as programs may run.
    pub(crate) fn take(&self, tx: &mut Tx<'_>, home: &Home) -> Result<Batch, LedgerError> {
        let (mut taken, mut more, mut free) = (Vec::new(), false, self.free);
        for row in tx.open_tellings()? {
            let data = |why: &str| json!({"kind": row.kind, "name": row.name, "why": why});
            if self.running.contains(&row.n) {
                continue;
            }
            if row.taken_at.is_some() {
                // Nobody knows how far it came, and nobody is told twice.
                tx.end_telling(row.n)?;
                let why = "the watcher ended while the program ran: somebody may have been told, or not";
                tx.audit(&Entry::of("notify_interrupted").data(data(why)))?;
                taken.push(Taken::Left { n: row.n });
            } else if home.config.notify.is_none() {
                tx.end_telling(row.n)?;
                tx.audit(&Entry::of("notify_dropped").data(data("no program is configured any more")))?;
            } else if free > 0 {
                free = free.saturating_sub(1);
                tx.take_telling(row.n)?;
                taken.push(Taken::Now { n: row.n, document: row.document });
            } else {
                more = true;
            }
        }
        Ok(Batch { taken, more })
    }
}

impl crate::node::Node {
    /// Ends what still runs for telling people, and notes it: the next watcher knows what became of it.
    pub(crate) fn leave_herald(&mut self) {
        let handed = self.herald.leave();
        if handed.told.is_empty() {
            return;
        }
        let (fence, now) = (self.fence(), dispatch_node::clock::now());
        if let Err(error) = self.ledger.write(fence, now, |tx| handed.note(tx)) {
            // The next watcher finds them taken and not ended, and audits that.
            tracing::warn!(error = %dispatch_node::report::one_line(&error), "what became of [notify] could not be noted");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::*;
    use crate::tests::bench_with;

    #[test]
    fn a_watcher_that_leaves_does_not_wait_for_programs_that_do_not_end() {
        // Each leaves something behind that no signal to its group reaches.
        let bench =
            bench_with("[notify]\nargv = [\"/bin/sh\", \"-c\", \"setsid sleep 1000 & exec sleep 1000\"]\n");
        let (wakes, _woken) = sync_channel(8);
        let mut herald = Herald::new(wakes, &bench.home);
        for n in 1..=2 {
            herald.start_one(&bench.home, n, "{}".to_owned());
        }
        let begun = Instant::now();
        let handed = herald.leave();
        let took = begun.elapsed();
        assert!(took < Duration::from_millis(900), "SIGTERM ends the watcher within a second: {took:?}");
        assert_eq!(handed.told.len(), 2);
        for n in 1..=2 {
            let left = Tree::new(&herald.mark(n), Scope::Marked).kill(SWEEP_MAX).unwrap();
            assert_eq!((left.killed, left.descendants_left), (0, 0));
        }
    }
}
