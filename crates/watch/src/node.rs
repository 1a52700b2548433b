//! One pass: what was seen, what the ledger makes of it in one transaction, and what follows outside.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dispatch_core::planner::stop::Latch;
use dispatch_core::policy::lifecycle::TaskState;
use dispatch_core::protocol::heartbeat::NodeState;
use dispatch_core::protocol::names::{Lane, NodeName, TaskId};
use dispatch_core::protocol::time::Timestamp;
use dispatch_ledger::{Fence, Filed, Ledger, LedgerError, TaskKey};
use dispatch_node::clock;
use dispatch_node::door::Door;
use dispatch_spool::layout::File;

use crate::attempts::{self, Care, Executors};
use crate::beating::{self, Heard};
use crate::chores::{self, Chores};
use crate::deciding::{self, JudgedWord};
use crate::filing::{self, Alarm, Laid};
use crate::home::Home;
use crate::look::{self, LaneAsk, LaneLook, Rest, RootAsk, RootLook};
use crate::owning;
use crate::pass::Seen;
use crate::reply::Reply;
use crate::taking::{self, Judged};
use crate::tripping::{self, Stopped, Switches};
use crate::workers::{Done, Place, Workers};

/// Tasks taken in one pass.
const TAKEN_MAX: usize = 256;
/// A task that could not be handled is left alone for so long.
const CONTAINED_FOR: Duration = Duration::from_secs(30);
/// A higher boot record that stays this long ends this watcher.
const SUPERSEDED_FOR: Duration = Duration::from_secs(10);

/// Why the watcher ends.
#[derive(Debug)]
pub(crate) enum Leave {
    /// Another watcher owns the node.
    Superseded { boot: u64 },
    /// The ledger failed.
    Ledger(LedgerError),
}

impl From<LedgerError> for Leave {
    fn from(error: LedgerError) -> Leave {
        Leave::Ledger(error)
    }
}

/// What one round of looks brought.
#[derive(Default)]
pub(crate) struct Round {
    waiting: BTreeSet<Place>,
    root: Option<RootLook>,
    lanes: BTreeMap<NodeName, LaneLook>,
    failed: bool,
}

/// Whether the share can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    Here,
    Unreachable(String),
}

/// The running watcher.
pub(crate) struct Node {
    pub(crate) home: Home,
    pub(crate) ledger: Ledger,
    pub(crate) workers: Workers,
    pub(crate) executors: Executors,
    pub(crate) executor: PathBuf,
    pub(crate) only: Option<TaskId>,
    pub(crate) reach: Reach,
    pub(crate) stopped: Stopped,
    pub(crate) strategy: &'static str,
    pub(crate) poll: Duration,
    pub(crate) door: Door,
    round: Option<Round>,
    /// Tasks whose files are on their way, by what is done with them.
    pub(crate) moving: BTreeSet<TaskKey>,
    /// Inbox names that are being removed or set aside.
    pub(crate) clearing: BTreeMap<NodeName, BTreeSet<TaskId>>,
    /// Finished moves that the next transaction marks.
    pub(crate) moved: Vec<Moved>,
    after: BTreeMap<NodeName, Option<TaskId>>,
    pub(crate) contained: BTreeMap<TaskKey, Instant>,
    pub(crate) refusals: BTreeMap<&'static str, (Timestamp, u64)>,
    pub(crate) beat_seq: u64,
    pub(crate) last_beat: Option<Instant>,
    pub(crate) last_state: Option<(NodeState, bool)>,
    pub(crate) last_queued: u64,
    pub(crate) higher_since: Option<(u64, Instant)>,
    pub(crate) audit_copied: u64,
    told: VecDeque<Instant>,
    pub(crate) chores: Chores,
    pub(crate) host_boot_id: String,
    /// The configuration may say something else than it did when tasks were accepted.
    pub(crate) recheck_terms: bool,
    pub(crate) reload_wanted: bool,
    /// More of an inbox waits: look again at once.
    pub(crate) again: bool,
    /// An attempt was launched a moment ago: its start is worth a look soon.
    pub(crate) look_soon: Option<Instant>,
    pub(crate) adopted: usize,
    pub(crate) flooded: BTreeSet<NodeName>,
}

/// A move that the share has done and the ledger does not know yet.
pub(crate) enum Moved {
    Filed(TaskKey, Filed, Vec<Alarm>),
    Answered(TaskKey, Vec<Alarm>),
}

impl Node {
    pub(crate) fn new(home: Home, ledger: Ledger, workers: Workers, executor: PathBuf) -> Node {
        Node {
            door: Door::of(&home.config.state),
            home,
            ledger,
            workers,
            executor,
            executors: Executors::default(),
            only: None,
            reach: Reach::Here,
            stopped: Stopped::default(),
            strategy: "poll",
            poll: Duration::from_secs(1),
            round: None,
            moving: BTreeSet::new(),
            clearing: BTreeMap::new(),
            moved: Vec::new(),
            after: BTreeMap::new(),
            contained: BTreeMap::new(),
            refusals: BTreeMap::new(),
            beat_seq: 0,
            last_beat: None,
            last_state: None,
            last_queued: 0,
            higher_since: None,
            audit_copied: 0,
            told: VecDeque::new(),
            chores: Chores::default(),
            host_boot_id: clock::host_boot_id().map(|id| id.to_string()).unwrap_or_default(),
            recheck_terms: true,
            reload_wanted: false,
            again: false,
            look_soon: None,
            adopted: 0,
            flooded: BTreeSet::new(),
        }
    }

    pub(crate) fn fence(&self) -> Fence {
        Fence::of(self.home.boot)
    }

    /// True while looks of a round are outstanding.
    pub(crate) fn is_looking(&self) -> bool {
        self.round.is_some()
    }

    /// True when nothing is on its way.
    pub(crate) fn is_quiet(&self) -> bool {
        self.round.is_none()
            && self.moving.is_empty()
            && self.moved.is_empty()
            && self.clearing.values().all(BTreeSet::is_empty)
            && self.workers.is_idle()
            && !self.again
    }

    /// Asks for a fresh look at everything; the pass comes when all have answered or their deadline is over.
    pub(crate) fn start_round(&mut self) -> Result<(), Leave> {
        self.again = false;
        let mut round = Round::default();
        let ask = RootAsk {
            cluster: self.home.cluster,
            node: self.home.node.clone(),
            lanes: self.lanes().into_values().collect(),
            above_boot: self.home.boot,
            heartbeats_of: if self.is_beat_due() {
                self.home.peers.keys().cloned().collect()
            } else {
                Vec::new()
            },
        };
        if self.workers.submit(Place::Root, move |share| Reply::Root(look::root(share, &ask))) {
            round.waiting.insert(Place::Root);
        } else {
            round.failed = true;
        }
        let rooms = self.rooms()?;
        for (peer, home) in &self.home.peers {
            let ask = LaneAsk {
                lane: home.lane_in.clone(),
                room: rooms.get(peer).copied().unwrap_or(0),
                files_max: TAKEN_MAX,
                busy: Arc::new(self.busy(peer)),
                after: self.after.get(peer).copied().flatten(),
                only: self.only,
            };
            let name = peer.clone();
            let place = Place::Peer(peer.clone());
            let job = move |share: &dyn dispatch_spool::share::Share| Reply::Lane {
                peer: name,
                look: look::lane(share, &ask),
            };
            if self.workers.submit(place.clone(), job) {
                round.waiting.insert(place);
            } else {
                round.failed = true;
            }
        }
        self.round = Some(round);
        Ok(())
    }

    /// The lanes this node receives on, by sender.
    fn lanes(&self) -> BTreeMap<NodeName, Lane> {
        self.home.peers.iter().map(|(name, peer)| (name.clone(), peer.lane_in.clone())).collect()
    }

    /// How many tasks of each sender there is room for (policy section 6).
    fn rooms(&self) -> Result<BTreeMap<NodeName, usize>, Leave> {
        let limits = &self.home.config.limits;
        let mut rooms = BTreeMap::new();
        let counts = self.ledger.open_counts()?;
        for peer in self.home.peers.keys() {
            let of = |state: Option<TaskState>| -> u64 {
                counts
                    .iter()
                    .filter(|row| row.from == *peer && state.is_none_or(|state| row.state == state))
                    .map(|row| row.count)
                    .sum()
            };
            let room = u64::from(limits.max_queued).saturating_sub(of(None));
            let waits = of(Some(TaskState::AwaitingApproval)) >= u64::from(limits.max_waiting);
            let room = if waits || self.holds_back(peer) { 0 } else { room };
            rooms.insert(peer.clone(), usize::try_from(room).unwrap_or(usize::MAX));
        }
        Ok(rooms)
    }

    /// True when nothing of a sender is taken or started, whatever the budget says.
    fn holds_back(&self, from: &NodeName) -> bool {
        self.reach != Reach::Here || self.stopped.stops(from) || self.is_held_back()
    }

    /// True when nothing at all is taken or started.
    pub(crate) fn is_held_back(&self) -> bool {
        self.higher_since.is_some() || !self.node_state().is_ok_and(|state| state == NodeState::Active)
    }

    /// The state that heartbeats show.
    pub(crate) fn node_state(&self) -> Result<NodeState, LedgerError> {
        let meta = self.ledger.meta()?;
        Ok(if meta.recovery.is_some() { NodeState::Recovery } else { meta.drain.state })
    }

    fn busy(&self, peer: &NodeName) -> BTreeSet<TaskId> {
        let mut busy = self.clearing.get(peer).cloned().unwrap_or_default();
        busy.extend(self.moving.iter().filter(|key| key.from == *peer).map(|key| key.id));
        let unfiled = self.ledger.unfiled(usize::MAX).unwrap_or_default();
        let unpublished = self.ledger.unpublished(usize::MAX).unwrap_or_default();
        let of_peer = unfiled.iter().chain(&unpublished).filter(|brief| brief.key.from == *peer);
        busy.extend(of_peer.map(|brief| brief.key.id));
        let held =
            self.contained.iter().filter(|(key, since)| key.from == *peer && since.elapsed() < CONTAINED_FOR);
        busy.extend(held.map(|(key, _)| key.id));
        busy
    }

    /// Counts an answer in; true when the round is complete.
    pub(crate) fn answered(&mut self, done: Done) -> bool {
        let Done { place, reply } = done;
        self.workers.answered(&place);
        match reply {
            Reply::Root(look) => {
                if let Some(round) = &mut self.round {
                    round.waiting.remove(&place);
                    round.root = Some(look);
                }
            }
            Reply::Lane { peer, look } => {
                if let Some(round) = &mut self.round {
                    round.waiting.remove(&place);
                    match look {
                        Ok(look) => drop(round.lanes.insert(peer, look)),
                        Err(error) => {
                            tracing::debug!(%error, "a lane could not be looked at");
                            round.failed = true;
                        }
                    }
                }
            }
            Reply::Filed { place, laid } => self.laid(laid, |key, alarms| Moved::Filed(key, place, alarms)),
            Reply::Answered(laid) => self.laid(laid, Moved::Answered),
            Reply::Cleared { peer, tasks, done } => {
                if let Some(clearing) = self.clearing.get_mut(&peer) {
                    tasks.iter().for_each(|id| drop(clearing.remove(id)));
                }
                if let Err(error) = done {
                    tracing::debug!(%error, "a file could not be cleared");
                }
            }
            Reply::Chores { news, done } => self.chores_done(news, done),
            Reply::Told(done) => {
                self.told.pop_front();
                if let Err(error) = done {
                    tracing::debug!(%error, "the share could not be told");
                }
            }
        }
        self.round.as_ref().is_some_and(|round| round.waiting.is_empty())
    }

    fn laid(&mut self, laid: Laid, moved: impl FnOnce(TaskKey, Vec<Alarm>) -> Moved) {
        self.moving.remove(&laid.key);
        match laid.done {
            Ok(alarms) => self.moved.push(moved(laid.key, alarms)),
            Err(error) => {
                tracing::debug!(%error, key = %laid.key, "a task's files could not be moved; they are tried again");
            }
        }
    }

    /// True when the round must be closed although looks are outstanding.
    pub(crate) fn round_is_late(&self) -> bool {
        self.round
            .as_ref()
            .is_some_and(|round| round.waiting.iter().all(|place| self.workers.is_stuck(place)))
    }

    /// The pass: everything that follows from what was seen.
    pub(crate) fn pass(&mut self, care: Care) -> Result<(), Leave> {
        let Some(round) = self.round.take() else { return Ok(()) };
        let now = clock::now();
        let missing = round.failed || !round.waiting.is_empty();
        self.home.clock_suspect =
            chores::clock_is_suspect(&self.ledger.meta()?.clock, now, &self.host_boot_id);
        let (mut switches, heard) = self.read_root(round.root, missing, now)?;
        switches.node(self.home.config.state.path());
        self.stopped = tripping::stopped(&self.ledger, &switches, &self.lanes())?;
        self.executors.reap();
        let looked = attempts::look(
            self.home.config.state.path(),
            self.ledger.open_attempts()?,
            &self.executors,
            now,
            care,
        );
        self.adopted = looked.adopted;
        for (epoch, error) in &looked.failed {
            tracing::warn!(epoch, %error, "an attempt could not be looked at");
        }
        let (judged, words) = self.judge(round.lanes, now)?;
        let claimed = self.door.claim_all().unwrap_or_default();
        let after = self.transact(Seen { now, switches, heard, looked, judged, words, claimed })?;
        self.act(after, now)
    }

    /// What the look at the root says; the share counts as unreachable unless it is there and ours.
    fn read_root(
        &mut self,
        root: Option<RootLook>,
        missing: bool,
        now: Timestamp,
    ) -> Result<(Switches, Vec<Heard>), Leave> {
        let mut switches = Switches::default();
        let mut heard = Vec::new();
        match root {
            Some(RootLook::Here(here)) => {
                switches.share(&here.switches, &self.lanes());
                self.check_boots(&here.boots, &here.boot_numbers)?;
                for (node, bytes) in here.heartbeats {
                    heard.extend(beating::hear(&self.ledger, &self.home, &node, &bytes, now)?);
                }
                self.reach = if missing {
                    Reach::Unreachable("a lane cannot be listed".to_owned())
                } else {
                    Reach::Here
                };
            }
            Some(RootLook::Gone(gone)) => {
                self.reach = Reach::Unreachable(dispatch_node::report::one_line(&gone));
            }
            None => self.reach = Reach::Unreachable("it does not answer".to_owned()),
        }
        Ok((switches, heard))
    }

    /// A higher boot record of this node stops it at once, and ends it when it stays.
    fn check_boots(&mut self, higher: &[(u64, Vec<u8>)], numbers: &[u64]) -> Result<(), Leave> {
        let rival = higher
            .iter()
            .filter_map(|(number, bytes)| owning::verified(&self.home, bytes, *number))
            .filter(|record| record.boot > self.home.boot)
            .map(|record| record.boot)
            .max();
        self.higher_since = match (rival, self.higher_since) {
            (None, _) => None,
            (Some(boot), Some((_, since))) => Some((boot, since)),
            (Some(boot), None) => Some((boot, Instant::now())),
        };
        if let Some((boot, since)) = self.higher_since {
            if since.elapsed() >= SUPERSEDED_FOR {
                return Err(Leave::Superseded { boot });
            }
            return Ok(());
        }
        self.keep_record(numbers)
    }

    /// The owner's record is there, and none below it.
    fn keep_record(&mut self, numbers: &[u64]) -> Result<(), Leave> {
        let (boot, node) = (self.home.boot, self.home.node.clone());
        let below: Vec<File> = numbers
            .iter()
            .filter(|number| **number < boot)
            .map(|number| File::Boot(node.clone(), *number))
            .collect();
        let missing = !numbers.contains(&boot);
        if !missing && below.is_empty() {
            return Ok(());
        }
        let host = clock::host_boot_id().unwrap_or_default();
        let record = owning::record(&self.home, self.ledger.meta()?.ledger, boot, host, clock::now());
        self.tell(move |share| {
            if missing {
                let _ = share.publish_once(&File::Boot(node, boot), &record)?;
            }
            filing::discard(share, &below)
        });
        Ok(())
    }

    /// Writes something at the root that nothing waits for.
    pub(crate) fn tell(
        &mut self,
        job: impl FnOnce(&dyn dispatch_spool::share::Share) -> Result<(), dispatch_spool::share::ShareError>
        + Send
        + 'static,
    ) {
        if self.workers.submit(Place::Root, move |share| Reply::Told(job(share))) {
            self.told.push_back(Instant::now());
        }
    }

    fn judge(
        &mut self,
        looks: BTreeMap<NodeName, LaneLook>,
        now: Timestamp,
    ) -> Result<(Vec<(NodeName, Judged)>, Vec<(NodeName, JudgedWord)>), Leave> {
        let (mut judged, mut words) = (Vec::new(), Vec::new());
        for (name, look) in looks {
            let Some(peer) = self.home.peers.get(&name) else { continue };
            self.after.insert(name.clone(), None);
            self.flooded.remove(&name);
            match look.rest {
                Rest::Behind(last) => {
                    self.after.insert(name.clone(), last);
                    self.again = true;
                }
                Rest::Flooded => drop(self.flooded.insert(name.clone())),
                Rest::None | Rest::NoRoom => {}
            }
            // What was found before a switch was seen lies there until it is gone.
            let takes = !self.holds_back(&name);
            for found in look.inbox {
                if takes {
                    judged.push((name.clone(), taking::judge(&self.ledger, &self.home, peer, found, now)?));
                }
            }
            for found in look.controls {
                words.push((
                    name.clone(),
                    deciding::judge_control(&self.ledger, &self.home, peer, found, now)?,
                ));
            }
            for found in look.decisions {
                words.push((
                    name.clone(),
                    deciding::judge_decision(&self.ledger, &self.home, peer, found, now)?,
                ));
            }
        }
        Ok((judged, words))
    }

    pub(crate) fn latch(&self) -> Latch {
        if self.home.config.killswitch.latch { Latch::On } else { Latch::Off }
    }
}
