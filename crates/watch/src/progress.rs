//! Telling senders how far their tasks are: `processing/<id>.progress.json`, sealed (protocol section 6).
//!
//! It is a courtesy, and gives way to everything that somebody relies on: it is written on a thread of its own, only while
//! no task's files are on their way, a few files at a time, and nothing is told of a task in its first second. Whether a
//! message is lost, late or removed changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use dispatch_core::protocol::Progress;
use dispatch_core::protocol::accept::{Me, Place as InLane, Verdict, accept_progress};
use dispatch_core::protocol::heartbeat::NodeState;
use dispatch_core::protocol::keys::LaneRing;
use dispatch_core::protocol::limits::SMALL_ENVELOPE_BYTES_MAX;
use dispatch_core::protocol::names::{Digest, Lane, NodeName, TaskId};
use dispatch_core::protocol::payload::{Kind, Payload as _};
use dispatch_core::protocol::progress::Phase;
use dispatch_core::protocol::reason::ReasonCode;
use dispatch_core::protocol::seal::seal;
use dispatch_core::protocol::time::Timestamp;
use dispatch_ledger::{LedgerError, TaskBrief, TaskKey};
use dispatch_node::clock;
use dispatch_node::progress::{HowFar, Places};
use dispatch_node::report::one_line;
use dispatch_spool::layout::{Area, Dir, File, LaneFile};
use dispatch_spool::share::{ErrorKind, Evidence, Share, ShareError};
use uuid::Uuid;

use crate::driver::INOTIFY;
use crate::filing;
use crate::home::Home;
use crate::node::{Leave, Node, Reach};
use crate::reply::Reply;
use crate::workers::Place;

/// A task is told of at most so often on a share of this machine's own disk, and on any other.
const EVERY_LOCAL: Duration = Duration::from_secs(1);
const EVERY_REMOTE: Duration = Duration::from_secs(5);
/// What ends sooner is answered, not told of.
const TOLD_AFTER: Duration = Duration::from_secs(1);
/// A running task is told of again after so long, when nothing changed but the time: its sender sees that somebody still
/// looks after it.
const TOLD_AGAIN: Duration = Duration::from_secs(30);
/// Whether what was told still stands is looked at this often.
const LOOKED_AT: Duration = Duration::from_secs(10);
/// Tasks told of at a time; the others follow.
const TASKS_MAX: usize = 16;
/// Names read of a directory of ours.
const NAMES_MAX: usize = 200_000;
/// One batch goes on for so long, so that the share has its rest from it.
const BATCH_LIMIT: Duration = Duration::from_millis(200);
/// Where files are always on their way, it waits no longer than this.
const PATIENCE: Duration = Duration::from_secs(5);

/// What was told of which task.
#[derive(Default)]
pub(crate) struct Reporting {
    /// When the next batch is due; `None` while there is nothing to tell of.
    due: Option<Instant>,
    tasks: BTreeMap<TaskKey, Told>,
    /// When the batch was made that is on its way.
    under_way: Option<Instant>,
    /// Since when it gives way.
    waiting_since: Option<Instant>,
    /// Lanes in which an earlier watcher's messages were looked for.
    swept: BTreeSet<NodeName>,
}

/// What is known of one task.
struct Told {
    first_seen: Instant,
    /// The last message, without its time.
    said: Option<HowFar>,
    said_at: Option<Instant>,
    looked_at: Option<Instant>,
    /// The newest epoch that was seen.
    epoch: u64,
    /// The number of the last message.
    seq: u64,
}

/// One message to be written, or to be looked after.
struct Message {
    key: TaskKey,
    far: HowFar,
    /// The number of the last one.
    seq: u64,
    why: Why,
}

/// Why a message is taken up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// There is something new.
    News,
    /// It may be gone, or somebody else's bytes may stand there.
    Look,
}

/// What a batch did.
#[derive(Debug, Default)]
pub(crate) struct Done {
    written: Vec<Written>,
    squatted: Vec<File>,
}

/// A message that is on the share.
#[derive(Debug)]
struct Written {
    key: TaskKey,
    said: HowFar,
    seq: u64,
}

impl Node {
    /// When the next batch is due.
    pub(crate) fn next_report(&self) -> Option<Instant> {
        self.reporting.due
    }

    /// Sees to it that open tasks are told of. Called when a pass has ended.
    pub(crate) fn expect_reporting(&mut self) -> Result<(), LedgerError> {
        if self.reporting.due.is_none() && !self.ledger.open_counts()?.is_empty() {
            self.reporting.due = Instant::now().checked_add(TOLD_AFTER);
        }
        Ok(())
    }

    /// Tells of what is due, if it is time.
    pub(crate) fn report_progress(&mut self) -> Result<(), Leave> {
        let at = Instant::now();
        if self.reporting.due.is_none_or(|due| at < due) {
            return Ok(());
        }
        self.reporting.due = None;
        let every = if self.strategy == INOTIFY { EVERY_LOCAL } else { EVERY_REMOTE };
        let open = self.ledger.open_tasks()?;
        let keys: BTreeSet<&TaskKey> = open.iter().map(|task| &task.key).collect();
        self.reporting.tasks.retain(|key, _| keys.contains(key));
        if open.is_empty() {
            return Ok(());
        }
        self.reporting.due = at.checked_add(every);
        for task in &open {
            let told = self.reporting.tasks.entry(task.key.clone()).or_insert_with(|| Told::new(at));
            told.epoch = told.epoch.max(task.open_epoch.unwrap_or(0));
        }
        if !self.may_report(at)? {
            return Ok(());
        }
        let now = clock::now();
        let messages = self.messages(&open, every, at, now)?;
        self.start_batch(messages, &open, at, now);
        Ok(())
    }

    /// Nothing is told while something else has to be done, nor by a node that may not own its lanes.
    fn may_report(&mut self, at: Instant) -> Result<bool, LedgerError> {
        if self.reach != Reach::Here
            || self.higher_since.is_some()
            || self.reporting.under_way.is_some()
            || self.node_state()? == NodeState::Recovery
        {
            return Ok(false);
        }
        if self.moving.is_empty() {
            self.reporting.waiting_since = None;
            return Ok(true);
        }
        let since = *self.reporting.waiting_since.get_or_insert(at);
        let patient = at.saturating_duration_since(since) < PATIENCE;
        if !patient {
            self.reporting.waiting_since = Some(at);
        }
        Ok(!patient)
    }

    /// What is due, the most wanted first: what runs, then what was told of longest ago.
    fn messages(
        &self,
        open: &[TaskBrief],
        every: Duration,
        at: Instant,
        now: Timestamp,
    ) -> Result<Vec<Message>, LedgerError> {
        let places = Places::of(&self.ledger, now)?;
        let mut due: Vec<((Phase, Option<Instant>), Message)> = Vec::new();
        for task in open {
            let Some(told) = self.reporting.tasks.get(&task.key) else { continue };
            // A version-2 peer knows no such message.
            let speaks = self.home.peers.get(&task.key.from).is_some_and(|peer| peer.flat.is_none());
            if !speaks || !told.is_ripe(every, at) {
                continue;
            }
            let far = HowFar::here(&self.home.config.state, &places, task, now);
            let far = HowFar { epoch: far.epoch.max(told.epoch), ..far };
            if let Some(why) = told.due(&far, at) {
                let message = Message { key: task.key.clone(), far, seq: told.seq, why };
                due.push(((message.far.phase, told.said_at), message));
            }
        }
        due.sort_by_key(|((phase, said_at), _)| {
            let first = match phase {
                Phase::Running => 0,
                Phase::Waiting => 1,
                Phase::Queued => 2,
            };
            (first, *said_at)
        });
        due.truncate(TASKS_MAX);
        Ok(due.into_iter().map(|(_, message)| message).collect())
    }

    fn start_batch(&mut self, messages: Vec<Message>, open: &[TaskBrief], at: Instant, now: Timestamp) {
        let sweeps = self.sweeps(open);
        if messages.is_empty() && sweeps.is_empty() {
            return;
        }
        let writer = Writer::of(&self.home, now);
        let taken_up: Vec<TaskKey> = messages.iter().map(|message| message.key.clone()).collect();
        let swept: Vec<NodeName> = sweeps.iter().map(|(lane, _)| lane.from.clone()).collect();
        let handed = self.workers.submit(&Place::Progress, move |share| {
            for (lane, open) in &sweeps {
                if let Err(error) = sweep(share, lane, open) {
                    tracing::debug!(error = %one_line(&error), "old progress could not be cleared away");
                }
            }
            Reply::Progress(writer.write(share, messages))
        });
        if !handed {
            return;
        }
        self.reporting.under_way = Some(at);
        self.reporting.swept.extend(swept);
        for key in taken_up {
            if let Some(told) = self.reporting.tasks.get_mut(&key) {
                told.looked_at = Some(at);
            }
        }
    }

    /// Lanes in which a watcher before this one may have left messages of tasks that are final since.
    fn sweeps(&self, open: &[TaskBrief]) -> Vec<(Lane, BTreeSet<TaskId>)> {
        let unswept = self
            .home
            .peers
            .iter()
            .filter(|(name, peer)| peer.flat.is_none() && !self.reporting.swept.contains(*name));
        unswept
            .map(|(name, peer)| {
                let of_peer = open.iter().filter(|task| task.key.from == *name);
                (peer.lane_in.clone(), of_peer.map(|task| task.key.id).collect())
            })
            .collect()
    }

    /// Counts a batch in. A task that became final meanwhile may have been answered before its message was written: that
    /// message is taken back.
    pub(crate) fn reported(&mut self, done: Done) {
        let at = self.reporting.under_way.take();
        self.squatted.extend(done.squatted);
        let mut over = Vec::new();
        for Written { key, said, seq } in done.written {
            let is_open =
                self.ledger.brief(&key).is_ok_and(|task| task.is_some_and(|task| task.final_at.is_none()));
            match (self.reporting.tasks.get_mut(&key), self.home.peers.get(&key.from)) {
                (Some(told), _) if is_open => {
                    (told.said, told.said_at, told.seq) = (Some(said), at, seq);
                }
                (_, Some(peer)) => over.push(File::progress(&peer.lane_in, key.id)),
                (_, None) => {}
            }
        }
        if over.is_empty() {
            return;
        }
        let handed = self.workers.submit(&Place::Progress, move |share| {
            Reply::Told(filing::discard(share, &over).map(|()| Vec::new()))
        });
        if !handed {
            tracing::debug!("progress of a final task stays: the share does not answer");
        }
    }
}

impl Told {
    const fn new(at: Instant) -> Told {
        Told { first_seen: at, said: None, said_at: None, looked_at: None, epoch: 0, seq: 0 }
    }

    /// True when a message may be written at all.
    fn is_ripe(&self, every: Duration, at: Instant) -> bool {
        let since = |then: Instant| at.saturating_duration_since(then);
        since(self.first_seen) >= TOLD_AFTER && self.looked_at.is_none_or(|then| since(then) >= every)
    }

    fn due(&self, far: &HowFar, at: Instant) -> Option<Why> {
        let since = |then: Option<Instant>| then.map(|then| at.saturating_duration_since(then));
        let news = self.said.as_ref() != Some(&far.timeless())
            || far.phase == Phase::Running && since(self.said_at).is_none_or(|age| age >= TOLD_AGAIN);
        if news {
            return Some(Why::News);
        }
        since(self.looked_at).is_none_or(|age| age >= LOOKED_AT).then_some(Why::Look)
    }
}

/// What it takes to seal messages, away from the loop.
struct Writer {
    cluster: Uuid,
    node: NodeName,
    lanes: BTreeMap<NodeName, (Lane, LaneRing)>,
    now: Timestamp,
}

/// What stands at a message's name.
enum Standing {
    Nothing,
    /// A message of mine, and which one.
    Mine {
        seq: u64,
    },
    /// A message of mine that says nothing any more: an old key sealed it.
    MineOnce,
    Foreign(Evidence),
}

impl Writer {
    fn of(home: &Home, now: Timestamp) -> Writer {
        let lanes = home.peers.iter();
        Writer {
            cluster: home.cluster,
            node: home.node.clone(),
            lanes: lanes
                .map(|(name, peer)| (name.clone(), (peer.lane_in.clone(), peer.ring_in.clone())))
                .collect(),
            now,
        }
    }

    fn write(&self, share: &dyn Share, messages: Vec<Message>) -> Done {
        let started = Instant::now();
        let mut done = Done::default();
        for message in messages {
            if started.elapsed() >= BATCH_LIMIT {
                break;
            }
            match self.write_one(share, &message, &mut done.squatted) {
                Ok(Some(seq)) => {
                    done.written.push(Written { said: message.far.timeless(), key: message.key, seq });
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!(key = %message.key, error = %one_line(&error), "progress could not be told");
                }
            }
        }
        done
    }

    /// Writes a message where it is due; its number, if it was.
    fn write_one(
        &self,
        share: &dyn Share,
        message: &Message,
        squatted: &mut Vec<File>,
    ) -> Result<Option<u64>, ShareError> {
        let Some((lane, ring)) = self.lanes.get(&message.key.from) else { return Ok(None) };
        let Some(signing) = ring.signing() else { return Ok(None) };
        let file = File::progress(lane, message.key.id);
        let last = match self.standing(share, &file, lane, message.key.id, ring)? {
            Standing::Mine { .. } if message.why == Why::Look => return Ok(None),
            Standing::Mine { seq } => seq.max(message.seq),
            Standing::Nothing | Standing::MineOnce => message.seq,
            Standing::Foreign(evidence) => {
                filing::set_aside_squatter(share, &file, evidence)?;
                squatted.push(file.clone());
                message.seq
            }
        };
        let seq = last.saturating_add(1);
        let payload = self.payload(lane, message, seq).to_payload();
        share.replace(&file, &seal(Kind::Progress, &payload, &[signing]))?;
        Ok(Some(seq))
    }

    fn standing(
        &self,
        share: &dyn Share,
        file: &File,
        lane: &Lane,
        id: TaskId,
        ring: &LaneRing,
    ) -> Result<Standing, ShareError> {
        let limit = u64::try_from(SMALL_ENVELOPE_BYTES_MAX).unwrap_or(u64::MAX);
        let bytes = match share.read(file, limit) {
            Ok(bytes) => bytes,
            Err(error) => {
                return match error.kind {
                    ErrorKind::Absent => Ok(Standing::Nothing),
                    ErrorKind::NotRegular(_) | ErrorKind::TooLarge { .. } | ErrorKind::Denied => {
                        Ok(Standing::Foreign(Evidence::Unread))
                    }
                    ErrorKind::Conflict(_)
                    | ErrorKind::NoSpace
                    | ErrorKind::Stale
                    | ErrorKind::Unreachable
                    | ErrorKind::Io => Err(error),
                };
            }
        };
        let me = Me { cluster: self.cluster, node: &self.node, now: self.now };
        let place = InLane { lane, id };
        let digest = Digest::of(&bytes);
        Ok(match accept_progress(&bytes, place, &me, ring, Some(digest)) {
            Verdict::Accepted(mine) => Standing::Mine { seq: mine.payload().seq },
            Verdict::Refused(refusal) if refusal.code == ReasonCode::RetiredKey => Standing::MineOnce,
            Verdict::Refused(_) => Standing::Foreign(Evidence::Bytes(digest)),
        })
    }

    fn payload(&self, lane: &Lane, message: &Message, seq: u64) -> Progress {
        let (id, far) = (message.key.id, message.far.clone());
        Progress {
            cluster: self.cluster,
            from: lane.from.clone(),
            to: lane.to.clone(),
            task: id,
            epoch: far.epoch,
            seq,
            at: self.now,
            phase: far.phase,
            position: far.position,
            elapsed_ms: far.elapsed_ms,
            turns: far.turns,
            last_tool: far.last_tool,
            tokens: far.tokens,
            usd: far.usd,
            last_line: far.last_line,
        }
    }
}

/// Removes messages about tasks that are not open.
fn sweep(share: &dyn Share, lane: &Lane, open: &BTreeSet<TaskId>) -> Result<(), ShareError> {
    let listing = share.list(&Dir::lane(lane, Area::Processing), NAMES_MAX)?;
    let old: Vec<File> = listing
        .files()
        .map(|(file, _)| file)
        .filter(|file| matches!(file, File::Lane(_, LaneFile::Progress(id)) if !open.contains(id)))
        .cloned()
        .collect();
    filing::discard(share, &old)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn far(phase: Phase) -> HowFar {
        HowFar {
            phase,
            position: None,
            epoch: 1,
            elapsed_ms: Some(5),
            turns: None,
            last_tool: None,
            tokens: None,
            usd: None,
            last_line: None,
        }
    }

    #[test]
    fn nothing_is_told_of_a_task_in_its_first_second_and_then_at_most_once_in_its_time() {
        let seen = Instant::now();
        let mut told = Told::new(seen);
        assert!(!told.is_ripe(EVERY_LOCAL, seen + SECOND / 2));
        assert!(told.is_ripe(EVERY_LOCAL, seen + SECOND));
        told.looked_at = Some(seen + SECOND);
        assert!(!told.is_ripe(EVERY_LOCAL, seen + SECOND * 3 / 2));
        assert!(
            told.is_ripe(EVERY_LOCAL, seen + SECOND * 2) && !told.is_ripe(EVERY_REMOTE, seen + SECOND * 2)
        );
    }

    #[test]
    fn only_what_changed_is_told_and_a_running_task_once_in_a_while() {
        let at = Instant::now();
        let mut told = Told::new(at);
        assert_eq!(told.due(&far(Phase::Running), at), Some(Why::News));
        (told.said, told.said_at, told.looked_at) =
            (Some(far(Phase::Running).timeless()), Some(at), Some(at));
        let older = HowFar { elapsed_ms: Some(900), ..far(Phase::Running) };
        assert_eq!(told.due(&older, at + SECOND), None);
        assert_eq!(told.due(&HowFar { turns: Some(2), ..older.clone() }, at + SECOND), Some(Why::News));
        assert_eq!(told.due(&older, at + LOOKED_AT), Some(Why::Look));
        assert_eq!(told.due(&older, at + TOLD_AGAIN), Some(Why::News));
        told.said = Some(far(Phase::Queued).timeless());
        assert_eq!(told.due(&far(Phase::Queued), at + TOLD_AGAIN), Some(Why::Look));
    }
}
