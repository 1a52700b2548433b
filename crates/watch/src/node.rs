//! One pass: what was seen, what the ledger makes of it in one transaction, and what follows outside.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dispatch_core::planner::stop::Latch;
use dispatch_core::policy::lifecycle::TaskState;
use dispatch_core::protocol::heartbeat::NodeState;
use dispatch_core::protocol::names::{Lane, NodeName, TaskId};
use dispatch_core::protocol::reason::ReasonCode;
use dispatch_core::protocol::time::Timestamp;
use dispatch_ledger::{Fence, Filed, Ledger, LedgerError, TaskKey};
use dispatch_node::clock;
use dispatch_node::door::Door;
use dispatch_spool::layout::File;
use dispatch_spool::share::{Share, ShareError};

use crate::agents_door::AgentDoors;
use crate::attempts::{self, Care, Executors};
use crate::beating::{self, Heard, Hearing, OwnShown};
use crate::chores::Chores;
use crate::courier::Couriers;
use crate::deciding::{self, JudgedWord};
use crate::filing::{self, Alarm, Laid};
use crate::home::Home;
use crate::look::{self, Found, LaneAsk, LaneLook, Rest, RootAsk, RootLook};
use crate::metrics::Gauges;
use crate::owning;
use crate::pass::Seen;
use crate::progress::Reporting;
use crate::reply::Reply;
use crate::taking::{self, Judged};
use crate::telling::Herald;
use crate::tripping::{self, Stopped, Switches};
use crate::unsigned;
use crate::workers::{Done, Place, Workers};

/// Tasks taken in one pass.
const TAKEN_MAX: usize = 256;
/// A task that could not be handled is left alone for so long.
pub(crate) const CONTAINED_FOR: Duration = Duration::from_secs(30);
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

/// A look at the root that is older than this says nothing about a killswitch: it is made again before the pass.
const ROOT_FRESH: Duration = Duration::from_millis(250);
/// A lane whose thread is busy with moves is looked at this often, and when they are done.
const LOOK_BETWEEN_MOVES: Duration = Duration::from_millis(500);

/// One round of looks: asked for together, and judged together by the pass that ends it.
pub(crate) struct Round {
    /// Which one it is: an answer to an older one is worth nothing.
    number: u64,
    ask: RootAsk,
    waiting: BTreeSet<Place>,
    /// What the look at the root found, and when it was back.
    root: Option<(RootLook, Instant)>,
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
    rounds: u64,
    /// When each lane was asked about last.
    looked: BTreeMap<NodeName, Instant>,
    /// Lanes that the last round left out, because their thread was busy.
    left_out: BTreeSet<NodeName>,
    /// Tasks whose files are on their way, by what is done with them.
    pub(crate) moving: BTreeSet<TaskKey>,
    /// Inbox names that are being removed or set aside.
    pub(crate) clearing: BTreeMap<NodeName, BTreeSet<TaskId>>,
    /// Finished moves that the next transaction marks.
    pub(crate) moved: Vec<Moved>,
    /// Since when one of them waits for that.
    pub(crate) moved_since: Option<Instant>,
    /// When the first task that was taken lately is due to be filed.
    pub(crate) file_at: Option<Instant>,
    after: BTreeMap<NodeName, Option<TaskId>>,
    pub(crate) contained: BTreeMap<TaskKey, Instant>,
    pub(crate) refusals: BTreeMap<&'static str, (Timestamp, u64)>,
    pub(crate) beat_seq: u64,
    pub(crate) last_beat: Option<Instant>,
    pub(crate) last_state: Option<(NodeState, bool)>,
    pub(crate) last_queued: u64,
    pub(crate) higher_since: Option<(u64, Instant)>,
    pub(crate) audit_copied: u64,
    /// How long the copy of the audit should be on the share by now.
    pub(crate) audit_length: u64,
    /// Names of this node, outside any task, that somebody else's bytes stood at.
    pub(crate) squatted: Vec<File>,
    /// Senders whose inbox was read to its end by the last look at it.
    pub(crate) read_to_end: BTreeSet<NodeName>,
    /// This boot's sealed record, as it is published again where it is missing.
    record: Option<Vec<u8>>,
    pub(crate) chores: Chores,
    /// Who brings the children of this node's tasks to the share.
    pub(crate) couriers: Couriers,
    /// Where the agents that run ask for tasks.
    pub(crate) agent_doors: AgentDoors,
    pub(crate) reporting: Reporting,
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
    /// Who tells people.
    pub(crate) herald: Herald,
    /// What is counted for the metrics.
    pub(crate) gauges: Gauges,
    /// The hour of the last spending review; `None` = it is to be made now.
    pub(crate) reviewed_hour: Option<i64>,
}

/// Whether every lane that was asked about answered.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lanes {
    Listed,
    Missing,
}

/// What a look at the root tells.
#[derive(Default)]
struct RootNews {
    switches: Switches,
    heard: Vec<Heard>,
    /// The head in this node's own heartbeat: it may be ahead of this very ledger (protocol section 7).
    own: Option<OwnShown>,
}

/// What lies in the lanes, judged.
type Read = (Vec<(NodeName, Judged)>, Vec<(NodeName, JudgedWord)>);

/// A move that the share has done and the ledger does not know yet.
pub(crate) enum Moved {
    Filed(TaskKey, Filed, Vec<Alarm>),
    Answered(TaskKey, Vec<Alarm>),
}

impl Moved {
    /// The task whose files were moved.
    pub(crate) const fn key(&self) -> &TaskKey {
        match self {
            Moved::Filed(key, _, _) | Moved::Answered(key, _) => key,
        }
    }
}

impl Node {
    pub(crate) fn new(home: Home, ledger: Ledger, workers: Workers, executor: PathBuf) -> Node {
        Node {
            door: Door::of(&home.config.state),
            herald: Herald::new(workers.wakes(), &home),
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
            rounds: 0,
            looked: BTreeMap::new(),
            left_out: BTreeSet::new(),
            moving: BTreeSet::new(),
            clearing: BTreeMap::new(),
            moved: Vec::new(),
            moved_since: None,
            file_at: None,
            after: BTreeMap::new(),
            contained: BTreeMap::new(),
            refusals: BTreeMap::new(),
            beat_seq: 0,
            last_beat: None,
            last_state: None,
            last_queued: 0,
            higher_since: None,
            audit_copied: 0,
            audit_length: 0,
            squatted: Vec::new(),
            read_to_end: BTreeSet::new(),
            record: None,
            chores: Chores::default(),
            couriers: Couriers::default(),
            agent_doors: AgentDoors::default(),
            reporting: Reporting::default(),
            host_boot_id: clock::host_boot_id().map(|id| id.to_string()).unwrap_or_default(),
            recheck_terms: true,
            reload_wanted: false,
            again: false,
            look_soon: None,
            adopted: 0,
            flooded: BTreeSet::new(),
            gauges: Gauges::default(),
            reviewed_hour: None,
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
            // Couriers go out with every pass for as long as a child has no answer: one that has been there is enough.
            && self.workers.outstanding() <= self.couriers.under_way()
            && self.has_every_courier_been_there()
            && self.herald.is_quiet()
            && !self.again
    }

    /// Asks for a fresh look at everything; the pass comes when all have answered or their deadline is over.
    pub(crate) fn start_round(&mut self) -> Result<(), Leave> {
        self.again = false;
        // The pass of this round sees to both.
        (self.moved_since, self.file_at) = (None, None);
        self.rounds = self.rounds.saturating_add(1);
        let ask = RootAsk {
            cluster: self.home.cluster,
            node: self.home.node.clone(),
            lanes: self.lanes().into_values().collect(),
            above_boot: self.home.boot,
            heartbeats_of: if self.is_beat_due() {
                self.home.peers.keys().chain([&self.home.node]).cloned().collect()
            } else {
                Vec::new()
            },
        };
        let mut round = Round {
            number: self.rounds,
            ask,
            waiting: BTreeSet::new(),
            root: None,
            lanes: BTreeMap::new(),
            failed: false,
        };
        self.ask_root(&mut round);
        let rooms = self.rooms()?;
        for (peer, lane) in self.lanes() {
            self.ask_lane(&mut round, peer, lane, &rooms);
        }
        self.round = Some(round);
        Ok(())
    }

    fn ask_root(&mut self, round: &mut Round) {
        let (number, ask) = (round.number, round.ask.clone());
        let job = move |share: &dyn Share| {
            let began = Instant::now();
            let look = look::root(share, &ask);
            Reply::Root { round: number, look, took: began.elapsed() }
        };
        if self.workers.submit(&Place::Root, job) {
            round.waiting.insert(Place::Root);
        } else {
            round.failed = true;
        }
    }

    fn ask_lane(&mut self, round: &mut Round, peer: NodeName, lane: Lane, rooms: &BTreeMap<NodeName, usize>) {
        let place = Place::Peer(peer.clone());
        let asked_lately = self.looked.get(&peer).is_some_and(|at| at.elapsed() < LOOK_BETWEEN_MOVES);
        if asked_lately && self.workers.backlog(&place) > 0 && !self.workers.is_stuck(&place) {
            // What ended or was decided at home need not wait for the moves before this lane's next look.
            self.left_out.insert(peer);
            return;
        }
        let ask = LaneAsk {
            lane,
            room: rooms.get(&peer).copied().unwrap_or(0),
            files_max: TAKEN_MAX,
            busy: Arc::new(self.busy(&peer)),
            after: self.after.get(&peer).copied().flatten(),
            only: self.only,
        };
        let (number, name) = (round.number, peer.clone());
        let job =
            move |share: &dyn Share| Reply::Lane { round: number, peer: name, look: look::lane(share, &ask) };
        if self.workers.submit(&place, job) {
            round.waiting.insert(place);
            self.left_out.remove(&peer);
            self.looked.insert(peer, Instant::now());
        } else {
            round.failed = true;
        }
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
            Reply::Root { round: number, look, took } => {
                self.gauges.looked(took);
                match self.round_of(number) {
                    Some(round) => {
                        round.waiting.remove(&place);
                        round.root = Some((look, Instant::now()));
                    }
                    None => self.again = true,
                }
            }
            Reply::Lane { round: number, peer, look } => match (self.round_of(number), look) {
                (Some(round), Ok(look)) => {
                    round.waiting.remove(&place);
                    round.lanes.insert(peer, look);
                }
                (Some(round), Err(error)) => {
                    tracing::debug!(%error, "a lane could not be looked at");
                    round.waiting.remove(&place);
                    round.failed = true;
                }
                (None, _) => self.again = true,
            },
            Reply::Filed { place, laid } => self.laid(laid, |key, alarms| Moved::Filed(key, place, alarms)),
            Reply::Answered(laid) => self.laid(laid, Moved::Answered),
            Reply::Cleared { peer, tasks, done } => {
                if let Some(clearing) = self.clearing.get_mut(&peer) {
                    clearing.retain(|id| !tasks.contains(id));
                }
                if let Err(error) = done {
                    tracing::debug!(%error, "a file could not be cleared");
                }
            }
            Reply::Chores { news, done, looked_at } => self.chores_done(*news, done, looked_at),
            Reply::Couriered { peer, news, cancelled, done } => {
                self.couriered(&peer, news, cancelled, done);
            }
            Reply::Copied { length, done } => self.copied(length, done),
            Reply::Progress(done) => self.reported(done),
            Reply::Told(Ok(squatted)) => self.squatted.extend(squatted),
            Reply::Told(Err(error)) => tracing::debug!(%error, "the share could not be told"),
        }
        if let Place::Peer(peer) = &place
            && self.workers.backlog(&place) == 0
            && self.left_out.remove(peer)
        {
            self.again = true;
        }
        self.refresh_root();
        self.round.as_ref().is_some_and(|round| round.waiting.is_empty())
    }

    /// The round that an answer is for; an answer that comes too late was true once, and nothing is known of it now.
    fn round_of(&mut self, number: u64) -> Option<&mut Round> {
        self.round.as_mut().filter(|round| round.number == number)
    }

    /// Where the lanes took long, a killswitch may have come since the root was looked at: it is looked at again.
    fn refresh_root(&mut self) {
        let Some(mut round) = self.round.take() else { return };
        let is_stale = round.root.as_ref().is_some_and(|(_, at)| at.elapsed() > ROOT_FRESH);
        if round.waiting.is_empty() && is_stale {
            self.ask_root(&mut round);
        }
        self.round = Some(round);
    }

    fn laid(&mut self, laid: Laid, moved: impl FnOnce(TaskKey, Vec<Alarm>) -> Moved) {
        self.moving.remove(&laid.key);
        match laid.done {
            Ok(alarms) => {
                self.moved.push(moved(laid.key, alarms));
                self.moved_since.get_or_insert_with(Instant::now);
            }
            Err(error) => {
                tracing::debug!(%error, key = %laid.key, "a task's files could not be moved; they are tried again");
            }
        }
    }

    /// True when the round must be closed: nothing is outstanding, or nothing that is will come in time.
    pub(crate) fn round_is_late(&self) -> bool {
        self.round
            .as_ref()
            .is_some_and(|round| round.waiting.iter().all(|place| self.workers.is_stuck(place)))
    }

    /// The pass: everything that follows from what was seen.
    pub(crate) fn pass(&mut self, care: Care) -> Result<(), Leave> {
        let Some(round) = self.round.take() else { return Ok(()) };
        let now = clock::now();
        let lanes = if round.failed || !round.waiting.is_empty() { Lanes::Missing } else { Lanes::Listed };
        let held: Vec<NodeName> =
            self.home.peers.keys().filter(|peer| self.holds_back(peer)).cloned().collect();
        self.home.clock_suspect = clock::is_suspect(&self.ledger.meta()?.clock, now, &self.host_boot_id);
        let RootNews { mut switches, heard, own } =
            self.read_root(round.root.map(|(look, _)| look), lanes, now)?;
        switches.node(self.home.config.state.path());
        self.stopped = tripping::stopped(&self.ledger, &switches, &self.lanes())?;
        // What lies in an inbox was not read while its sender was held back.
        self.again |= held.iter().any(|peer| !self.holds_back(peer));
        self.executors.reap();
        let looked = attempts::look(
            self.home.config.state.path(),
            self.ledger.open_runs()?,
            &self.executors,
            now,
            care,
        );
        self.adopted = looked.adopted;
        for (epoch, error) in &looked.failed {
            tracing::warn!(epoch, %error, "an attempt could not be looked at");
        }
        let (judged, words) = self.judge(round.lanes, now)?;
        // Another watcher may own this node: what a person asks waits until that is settled.
        let claimed = match self.higher_since {
            None => self.door.claim_all().unwrap_or_default(),
            Some(_) => Vec::new(),
        };
        // What an agent asks is neither taken nor answered then.
        let may_act = self.higher_since.is_none() && self.node_state()? != NodeState::Recovery;
        let knocks = if may_act { self.knocks()? } else { Vec::new() };
        let after =
            self.transact(Seen { now, switches, heard, own, looked, judged, words, claimed, knocks })?;
        self.act(after, now)
    }

    /// What the look at the root says; the share counts as unreachable unless it is there and ours.
    fn read_root(&mut self, root: Option<RootLook>, lanes: Lanes, now: Timestamp) -> Result<RootNews, Leave> {
        let mut news = RootNews::default();
        match root {
            Some(RootLook::Here(here)) => {
                news.switches.share(&here.switches, &self.lanes());
                self.check_boots(&here.boots, &here.boot_numbers)?;
                for (node, bytes) in here.heartbeats {
                    if node == self.home.node {
                        news.own = beating::own_shown(&self.home, &bytes, now);
                    } else {
                        match beating::hear(&self.ledger, &self.home, &node, &bytes, now)? {
                            Hearing::Advances(heard) => news.heard.push(*heard),
                            Hearing::Replayed => self.count_refusal(ReasonCode::HeartbeatReplayed.as_str()),
                            Hearing::Nothing => {}
                        }
                    }
                }
                self.reach = match lanes {
                    Lanes::Missing => Reach::Unreachable("a lane cannot be listed".to_owned()),
                    Lanes::Listed => Reach::Here,
                };
            }
            Some(RootLook::Gone(gone)) => {
                self.reach = Reach::Unreachable(dispatch_node::report::one_line(&gone));
            }
            None => self.reach = Reach::Unreachable("it does not answer".to_owned()),
        }
        Ok(news)
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
        if numbers.contains(&boot) && below.is_empty() && !self.is_beat_due() {
            return Ok(());
        }
        let record = match &self.record {
            Some(record) => record.clone(),
            None => {
                let host = clock::host_boot_id().unwrap_or_default();
                let ledger = self.ledger.meta()?.ledger;
                self.record.insert(owning::record(&self.home, ledger, boot, host, clock::now())).clone()
            }
        };
        let is_mine = owning::is_mine(&self.home, boot);
        let holds = owning::holds(&self.home, boot);
        self.tell(move |share| {
            let file = File::Boot(node, boot);
            // Whoever starts beside this watcher must be able to verify it with the keys that hold now.
            let squatted = filing::keep_sealed(share, &file, &record, &is_mine, &holds)?;
            filing::discard(share, &below)?;
            Ok(squatted)
        });
        Ok(())
    }

    /// The keys may have changed: what is sealed with them for as long as the watcher runs is sealed anew, and the next
    /// heartbeat, from which peers see the keys, comes at once.
    pub(crate) fn reseal(&mut self) {
        self.record = None;
        self.last_beat = None;
    }

    /// Writes something at the root that nothing waits for. It answers the names of ours that were squatted on.
    pub(crate) fn tell(
        &mut self,
        job: impl FnOnce(&dyn Share) -> Result<Vec<File>, ShareError> + Send + 'static,
    ) {
        if !self.workers.submit(&Place::Root, move |share| Reply::Told(job(share))) {
            tracing::debug!("the share could not be told: it does not answer");
        }
    }

    /// Judges what lies in the lanes. A share that is not certainly ours is not touched, whatever lies there.
    fn judge(&mut self, looks: BTreeMap<NodeName, LaneLook>, now: Timestamp) -> Result<Read, Leave> {
        let (mut judged, mut words) = (Vec::new(), Vec::new());
        let looks = if self.reach == Reach::Here { looks } else { BTreeMap::new() };
        for (name, look) in looks {
            self.judge_inbox(&name, look.inbox, look.rest, now, &mut judged)?;
            let Some(peer) = self.home.peers.get(&name) else { continue };
            for found in look.controls {
                let word = deciding::judge_control(&self.ledger, &self.home, peer, found, now)?;
                words.push((name.clone(), word));
            }
            for found in look.unsigned_acks {
                words.push((name.clone(), unsigned::judge(&self.ledger, peer, found)?));
            }
            for found in look.decisions {
                let word = deciding::judge_decision(&self.ledger, &self.home, peer, found, now)?;
                words.push((name.clone(), word));
            }
        }
        Ok((judged, words))
    }

    fn judge_inbox(
        &mut self,
        name: &NodeName,
        inbox: Vec<Found>,
        rest: Rest,
        now: Timestamp,
        judged: &mut Vec<(NodeName, Judged)>,
    ) -> Result<(), Leave> {
        // What was found before a switch was seen lies there until it is gone.
        let takes = !self.holds_back(name);
        let Some(peer) = self.home.peers.get(name) else { return Ok(()) };
        let before = judged.len();
        for found in if takes { inbox } else { Vec::new() } {
            judged.push((name.clone(), taking::judge(&self.ledger, &self.home, peer, found, now)?));
        }
        let goes_on = judged.len() > before;
        self.after.insert(name.clone(), None);
        self.flooded.remove(name);
        self.read_to_end.remove(name);
        match rest {
            Rest::Behind(last) => {
                self.after.insert(name.clone(), last);
                // Only where something will be gone by then: else the next tick goes on from there.
                self.again |= goes_on;
            }
            Rest::Flooded => {
                self.flooded.insert(name.clone());
            }
            Rest::None if takes && self.only.is_none() => {
                self.read_to_end.insert(name.clone());
            }
            Rest::None | Rest::NoRoom => {}
        }
        Ok(())
    }

    /// True while a task that could not be handled is left alone.
    pub(crate) fn is_contained(&self, key: &TaskKey) -> bool {
        self.contained.get(key).is_some_and(|since| since.elapsed() < CONTAINED_FOR)
    }

    pub(crate) fn latch(&self) -> Latch {
        if self.home.config.killswitch.latch { Latch::On } else { Latch::Off }
    }
}
