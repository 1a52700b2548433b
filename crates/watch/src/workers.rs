//! Share I/O on threads of its own, so that a hung mount stops neither supervision nor the heartbeat of the service
//! manager. One thread for the root, one per peer and one for what may be late: at most that many can ever be stuck, and a
//! stuck one is not replaced.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{Sender, SyncSender, channel};
use std::thread;
use std::time::{Duration, Instant};

use dispatch_core::protocol::names::NodeName;
use dispatch_spool::share::Share;

use crate::wake::Wake;

/// Where a job belongs: jobs of one place are done in order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    /// The root, heartbeats, the audit copy, metrics.
    Root,
    /// Both lanes with one peer.
    Peer(NodeName),
    /// Children that a peer runs, and their answers and logs: no look at a lane waits behind them.
    Errand(NodeName),
    /// Progress messages of all lanes: nothing waits behind them.
    Progress,
}

/// A finished job: the place it was done at, and what it found.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) place: Place,
    pub(crate) reply: crate::reply::Reply,
}

type Job = Box<dyn FnOnce(&dyn Share) -> crate::reply::Reply + Send>;

struct Worker {
    jobs: Sender<Job>,
    /// When each job not yet answered was handed over, oldest first.
    outstanding: VecDeque<Instant>,
}

/// All the threads that touch the share.
pub(crate) struct Workers {
    wakes: SyncSender<Wake>,
    share: Arc<dyn Share>,
    deadline: Duration,
    workers: BTreeMap<Place, Worker>,
}

impl Workers {
    /// Threads start with the first job of their place.
    pub(crate) fn new(share: Arc<dyn Share>, wakes: SyncSender<Wake>, deadline: Duration) -> Workers {
        Workers { wakes, share, deadline, workers: BTreeMap::new() }
    }

    /// The share itself, for questions about its mount.
    pub(crate) fn share(&self) -> &dyn Share {
        self.share.as_ref()
    }

    /// An end for whoever wakes the loop.
    pub(crate) fn wakes(&self) -> SyncSender<Wake> {
        self.wakes.clone()
    }

    /// Hands a job over. False where the place is stuck or its thread cannot be had: nothing was done.
    #[must_use]
    pub(crate) fn submit(
        &mut self,
        place: &Place,
        job: impl FnOnce(&dyn Share) -> crate::reply::Reply + Send + 'static,
    ) -> bool {
        if self.is_stuck(place) {
            return false;
        }
        if !self.workers.contains_key(place) {
            let Some(worker) = self.start(place) else { return false };
            self.workers.insert(place.clone(), worker);
        }
        let Some(worker) = self.workers.get_mut(place) else { return false };
        let handed = worker.jobs.send(Box::new(job)).is_ok();
        if handed {
            worker.outstanding.push_back(Instant::now());
        }
        handed
    }

    /// Counts a reply in.
    pub(crate) fn answered(&mut self, place: &Place) {
        if let Some(worker) = self.workers.get_mut(place) {
            worker.outstanding.pop_front();
            // The next one began only now: waiting behind a slow one is no sign of a hung mount.
            if let Some(next) = worker.outstanding.front_mut() {
                *next = Instant::now();
            }
        }
    }

    /// True while the place's current job is past its deadline.
    pub(crate) fn is_stuck(&self, place: &Place) -> bool {
        self.workers
            .get(place)
            .and_then(|worker| worker.outstanding.front())
            .is_some_and(|since| since.elapsed() >= self.deadline)
    }

    /// How many jobs of a place are under way or waiting.
    pub(crate) fn backlog(&self, place: &Place) -> usize {
        self.workers.get(place).map_or(0, |worker| worker.outstanding.len())
    }

    /// When the next job will be past its deadline. What is past it already is nothing to wake up for.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let fronts = self.workers.values().filter_map(|worker| worker.outstanding.front());
        let now = Instant::now();
        fronts.filter_map(|since| since.checked_add(self.deadline)).filter(|at| *at > now).min()
    }

    /// How many jobs are under way or waiting.
    pub(crate) fn outstanding(&self) -> usize {
        self.workers.values().map(|worker| worker.outstanding.len()).sum()
    }

    fn start(&self, place: &Place) -> Option<Worker> {
        let (jobs, inbox) = channel::<Job>();
        let (share, wakes, here) = (Arc::clone(&self.share), self.wakes.clone(), place.clone());
        let name = match place {
            Place::Root => "share-root".to_owned(),
            Place::Peer(peer) => format!("share-{peer}"),
            Place::Errand(peer) => format!("share-.{peer}"),
            // No node can be called so.
            Place::Progress => "share-.progress".to_owned(),
        };
        let thread = thread::Builder::new().name(name).stack_size(512 * 1024).spawn(move || {
            for job in inbox {
                let reply = job(share.as_ref());
                if wakes.send(Wake::Share(Box::new(Done { place: here.clone(), reply }))).is_err() {
                    return;
                }
            }
        });
        thread.ok().map(|_| Worker { jobs, outstanding: VecDeque::new() })
    }
}
