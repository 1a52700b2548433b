//! What a node does now and then: its own outgoing tasks, files that vanished or were squatted on, old things that go.

mod own;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dispatch_core::policy::continuity::ClockTrust;
use dispatch_core::protocol::keys::LaneRing;
use dispatch_core::protocol::names::{Digest, Lane, NodeName, TaskId};
use dispatch_core::protocol::payload::Kind;
use dispatch_core::protocol::seal::{RawEnvelope, SignatureError};
use dispatch_core::protocol::task::Callback;
use dispatch_core::protocol::time::{DAY_MS, HOUR_MS, MINUTE_MS, Timestamp};
use dispatch_core::protocol::v2::FlatRing;
use dispatch_ledger::{ClockMarks, Entry, Filed, LedgerError, TaskKey, Tx};
use dispatch_node::clock;
use dispatch_node::job::JobDir;
use dispatch_node::outgoing::{Outgoing, OutgoingError, Upkeep};
use dispatch_node::state::StateDir;
use dispatch_spool::layout::{Area, Dir, File, LaneFile};
use dispatch_spool::share::{EntryKind, ErrorKind, Share, ShareError};
use dispatch_spool::upkeep::{archive_done, remove_leftovers, trim_evidence};
use serde_json::json;

use crate::node::{Leave, Node, Reach};
use crate::reply::Reply;
use crate::telling::DoneTask;
use crate::workers::Place;

use own::Told;
pub(crate) use own::note;

/// Own tasks and vanished files are looked after this often.
const SHORT: Duration = Duration::from_secs(10);
/// Old things are cleared away this often.
const LONG: Duration = Duration::from_secs(600);
/// An outbox entry that a crashed sender left is published by the watcher after this.
const OUTBOX_AGE: Duration = Duration::from_secs(10);
/// Names read of a directory of ours.
const NAMES_MAX: usize = 200_000;
/// The clocks' agreement is noted this often.
const CLOCK_NOTED_MS: i64 = MINUTE_MS;
/// A job directory goes so long after its task was published; one of a task that failed is kept longer.
const JOB_KEPT_MS: i64 = DAY_MS;
const FAILED_JOB_KEPT_MS: i64 = 7 * DAY_MS;
/// Replies of the local door are kept so long.
const REPLIES_KEPT_MS: i64 = DAY_MS;
/// Paid requests are compared with those of an hour, and kept so long.
const PAID_REQUESTS_KEPT_MS: i64 = DAY_MS;
/// Heads that peers showed are kept so long, but for the newest.
const WITNESSED_KEPT_MS: i64 = 30 * DAY_MS;
/// What people were told is remembered for longer than anything lives that they could be told of again.
const TELLINGS_KEPT_MS: i64 = 100 * DAY_MS;

/// When the next round of each kind is due.
#[derive(Default)]
pub(crate) struct Chores {
    short: Option<Instant>,
    long: Option<Instant>,
    /// Chores on their way.
    under_way: BTreeSet<NodeName>,
    news: Vec<News>,
    pending_shown: BTreeMap<NodeName, String>,
    /// Answered tasks that were looked at for whether somebody is to be told of them.
    looked_at: BTreeMap<NodeName, Arc<BTreeSet<TaskId>>>,
    /// What of them the ledger has been told.
    told: BTreeMap<NodeName, Arc<Told>>,
}

/// What a round with one peer found.
#[derive(Debug)]
pub(crate) struct News {
    pub(crate) peer: NodeName,
    upkeep: Upkeep,
    missing: Vec<TaskId>,
    /// Answered tasks whose sender asked to be told.
    done: Vec<DoneTask>,
}

/// What to look after with one peer.
struct Round {
    state: StateDir,
    lane_in: Lane,
    lane_out: Lane,
    keys: LaneRing,
    flat: Option<FlatRing>,
    cluster: uuid::Uuid,
    node: NodeName,
    now: Timestamp,
    /// Files that should stand in this lane.
    expected: Vec<(TaskId, Filed)>,
    /// What an approver must find, and the keys it is sealed with.
    waiting: Vec<Waiting>,
    keys_in: LaneRing,
    keys_terms: LaneRing,
    pending: Option<Pending>,
    clear: Clear,
    /// What of this node's own tasks the ledger has.
    told: Arc<Told>,
    /// Whether `now` says that an answer is overdue.
    clock: ClockTrust,
    /// Answered tasks that were looked at before; `None`: nobody is to be told of any.
    looked_at: Option<Arc<BTreeSet<TaskId>>>,
}

/// A task that waits for a person, by what its files must hold.
struct Waiting {
    id: TaskId,
    task: TaskFile,
    terms: Option<Digest>,
}

/// How the file of a waiting task is known.
enum TaskFile {
    /// By its payload, whatever key sealed it.
    Sealed(Digest),
    /// By all its bytes: more of a flat task is shown to approvers than its signature covers.
    Flat(Digest),
}

/// What `pending.json` is to say.
enum Pending {
    /// These wait for a person.
    Waiting(String),
    /// Nobody waits any more; a file that is not there says so too.
    Nobody(String),
}

/// Whether old things are cleared away in this round.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Clear {
    No,
    Yes,
}

impl Node {
    /// Starts what is due.
    pub(crate) fn start_chores(&mut self, now: Timestamp) -> Result<(), Leave> {
        if self.reach != Reach::Here || !self.due(self.chores.short, SHORT) {
            return Ok(());
        }
        // How old anything is, a clock that cannot be believed does not say: it goes when the clock agrees again.
        let is_cleared = !self.home.clock_suspect && self.due(self.chores.long, LONG);
        let clear = if is_cleared { Clear::Yes } else { Clear::No };
        self.chores.short = Some(Instant::now());
        if clear == Clear::Yes {
            self.chores.long = Some(Instant::now());
            self.clear_jobs(now);
        }
        for peer in self.home.peers.keys().cloned().collect::<Vec<_>>() {
            self.start_round_with(&peer, now, clear)?;
        }
        Ok(())
    }

    fn due(&self, last: Option<Instant>, every: Duration) -> bool {
        last.is_none_or(|at| at.elapsed() >= every)
    }

    fn start_round_with(&mut self, peer: &NodeName, now: Timestamp, clear: Clear) -> Result<(), Leave> {
        let Some(home) = self.home.peers.get(peer) else { return Ok(()) };
        if self.chores.under_way.contains(peer) {
            return Ok(());
        }
        let round = Round {
            state: self.home.config.state.clone(),
            lane_in: home.lane_in.clone(),
            lane_out: home.lane_out.clone(),
            keys: home.ring_out.clone(),
            flat: home.flat.as_ref().map(|flat| flat.ring.clone()),
            cluster: self.home.cluster,
            node: self.home.node.clone(),
            now,
            expected: self.expected(peer)?,
            waiting: self.waiting(peer)?,
            keys_in: home.ring_in.clone(),
            keys_terms: home.ring_terms.clone(),
            pending: self.pending_summary(peer)?,
            clear,
            told: self.chores.told.get(peer).cloned().unwrap_or_default(),
            clock: if self.home.clock_suspect { ClockTrust::Suspect } else { ClockTrust::Trusted },
            looked_at: self
                .home
                .config
                .notify
                .as_ref()
                .map(|_| self.chores.looked_at.get(peer).cloned().unwrap_or_default()),
        };
        let name = peer.clone();
        let handed = self.workers.submit(&Place::Peer(peer.clone()), move |share| {
            let mut news =
                News { peer: name, upkeep: Upkeep::default(), missing: Vec::new(), done: Vec::new() };
            let (done, looked_at) = round.run(share, &mut news);
            Reply::Chores { news: Box::new(news), done, looked_at }
        });
        if handed {
            self.chores.under_way.insert(peer.clone());
        } else {
            self.chores.pending_shown.remove(peer);
        }
        Ok(())
    }

    /// Tasks of a sender that lie somewhere on the share and are not being moved right now.
    fn expected(&self, peer: &NodeName) -> Result<Vec<(TaskId, Filed)>, LedgerError> {
        let open = self.ledger.open_tasks()?;
        let here = open
            .into_iter()
            .filter(|brief| brief.key.from == *peer && brief.filed && !self.moving.contains(&brief.key));
        Ok(here.map(|brief| (brief.key.id, crate::acting::filed_as(&brief))).collect())
    }

    fn waiting(&self, peer: &NodeName) -> Result<Vec<Waiting>, LedgerError> {
        let waiting = self.ledger.waiting()?;
        let is_flat = self.home.bounds(peer).is_some();
        let mut shown = Vec::new();
        for row in waiting.into_iter().filter(|row| row.key.from == *peer) {
            let file = if is_flat { self.ledger.envelope(&row.key)? } else { None };
            let task = file.map_or(TaskFile::Sealed(row.digest), |file| TaskFile::Flat(Digest::of(&file)));
            shown.push(Waiting { id: row.key.id, task, terms: row.terms_sha256 });
        }
        Ok(shown)
    }

    /// `pending.json`, when it says something new.
    fn pending_summary(&mut self, peer: &NodeName) -> Result<Option<Pending>, LedgerError> {
        let waiting = self.ledger.waiting()?;
        let rows: Vec<_> = waiting
            .iter()
            .filter(|row| row.key.from == *peer)
            .map(|row| {
                json!({
                    "id": row.key.id.to_string(), "from": row.key.from.as_str(), "profile": row.profile,
                    "accepted_at": row.accepted_at.to_string(), "expires": row.expires.to_string(),
                    "gate": serde_json::from_str::<serde_json::Value>(&row.gates).unwrap_or_default(),
                    "ceiling_usd": row.cost.ceiling_usd.map(|usd| usd.to_string()),
                })
            })
            .collect();
        let text = json!({"schema": 1, "waiting": rows}).to_string();
        if self.chores.pending_shown.get(peer) == Some(&text) {
            return Ok(None);
        }
        self.chores.pending_shown.insert(peer.clone(), text.clone());
        Ok(Some(if rows.is_empty() { Pending::Nobody(text) } else { Pending::Waiting(text) }))
    }

    /// Counts a finished round in.
    pub(crate) fn chores_done(
        &mut self,
        news: News,
        done: Result<(), ChoreError>,
        looked_at: Option<BTreeSet<TaskId>>,
    ) {
        self.chores.under_way.remove(&news.peer);
        if let Some(looked_at) = looked_at {
            self.chores.looked_at.insert(news.peer.clone(), Arc::new(looked_at));
        }
        if let Err(error) = done {
            tracing::debug!(error = %dispatch_node::report::one_line(&error), "a chore failed; it is done again");
            self.chores.pending_shown.remove(&news.peer);
        }
        let upkeep = &news.upkeep;
        let told = upkeep.unanswered.len().saturating_add(upkeep.flushed.unknown.len());
        if !news.missing.is_empty() || told > 0 || !news.done.is_empty() {
            self.chores.news.push(news);
        }
    }

    /// Learns that the ledger has what these rounds found.
    pub(crate) fn chores_noted(&mut self, news: &[News]) {
        for round in news {
            let told = self.chores.told.entry(round.peer.clone()).or_default();
            Arc::make_mut(told).add(&round.upkeep);
        }
    }

    /// Keeps what a transaction that failed was to note.
    pub(crate) fn chores_put_back(&mut self, news: Vec<News>) {
        self.chores.news.splice(0..0, news);
    }

    /// True when rounds found something that the ledger must know.
    pub(crate) fn has_chore_news(&self) -> bool {
        !self.chores.news.is_empty()
    }

    /// What the next transaction is to note.
    pub(crate) fn take_chore_news(&mut self) -> Vec<News> {
        std::mem::take(&mut self.chores.news)
    }

    /// Removes job directories whose time is over.
    fn clear_jobs(&self, now: Timestamp) {
        let Ok(listing) = JobDir::list(self.home.config.state.path()) else { return };
        for job in listing.jobs {
            let key = TaskKey { from: job.from().clone(), id: job.id() };
            let Ok(Some(row)) = self.ledger.task(&key) else { continue };
            let (Some(published), Some(status)) = (row.published_at, row.status) else { continue };
            let kept = if status.is_success() { JOB_KEPT_MS } else { FAILED_JOB_KEPT_MS };
            if now.since_ms(published) > kept
                && let Err(error) = job.remove()
            {
                tracing::warn!(%error, "a job directory could not be removed");
            }
        }
    }
}

/// Why a chore was not done; it is done again in the next round.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChoreError {
    #[error("cannot look after this node's own tasks")]
    Outgoing(#[from] OutgoingError),
    #[error("cannot look after the files of a lane")]
    Share(#[from] ShareError),
}

impl Round {
    /// Does the round; answers whether it came to its end, and which answered tasks were looked at by now.
    fn run(&self, share: &dyn Share, news: &mut News) -> (Result<(), ChoreError>, Option<BTreeSet<TaskId>>) {
        let own = self.own_tasks(share, &mut news.upkeep);
        let looked_at = self.answered(&mut news.done);
        let done = own
            .and_then(|()| self.vanished(share, &mut news.missing).map_err(ChoreError::Share))
            .and_then(|()| self.show_pending(share).map_err(ChoreError::Share))
            .and_then(|()| self.clear_away(share).map_err(ChoreError::Share));
        (done, looked_at)
    }

    /// Answered tasks that were not looked at before and whose sender asked to be told; whoever noticed the answer. Answers
    /// all that are looked at by now, `None` where nobody is to be told or the records cannot be listed.
    fn answered(&self, done: &mut Vec<DoneTask>) -> Option<BTreeSet<TaskId>> {
        let before = self.looked_at.as_ref()?;
        let outgoing = Outgoing::at(&self.state, &self.lane_out);
        let mut looked_at = BTreeSet::new();
        for id in outgoing.sent_ids().ok()? {
            if before.contains(&id) {
                looked_at.insert(id);
                continue;
            }
            // A damaged record is reported by whoever asks for it.
            let Ok(Some(record)) = outgoing.record(id) else { continue };
            let Some(answered) = record.answered else { continue };
            looked_at.insert(id);
            if let Some(task) = record.task().ok().filter(|task| task.callback == Callback::Notify) {
                let first_line =
                    task.request.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
                done.push(DoneTask { id, status: answered.status, first_line: first_line.to_owned() });
            }
        }
        Some(looked_at)
    }

    /// Files of ours that are gone, or that something else took the place of.
    fn vanished(&self, share: &dyn Share, missing: &mut Vec<TaskId>) -> Result<(), ShareError> {
        if self.expected.is_empty() {
            return Ok(());
        }
        let there = |area: Area| -> Result<BTreeSet<TaskId>, ShareError> {
            let listing = share.list(&Dir::lane(&self.lane_in, area), NAMES_MAX)?;
            let ours =
                listing.files().filter(|(_, kind)| matches!(kind, EntryKind::Regular | EntryKind::Unknown));
            Ok(ours
                .filter_map(|(file, _)| {
                    let File::Lane(_, LaneFile::Pending(id) | LaneFile::Processing(id)) = file else {
                        return None;
                    };
                    Some(*id)
                })
                .collect())
        };
        let (pending, processing) = (there(Area::PendingAck)?, there(Area::Processing)?);
        missing.extend(self.expected.iter().filter_map(|(id, filed)| {
            let there = match filed {
                Filed::PendingAck => pending.contains(id) && self.shows_what_waits(share, *id),
                Filed::Processing => processing.contains(id),
            };
            (!there).then_some(*id)
        }));
        Ok(())
    }

    /// Whether an approver finds the task and its terms as they were accepted.
    fn shows_what_waits(&self, share: &dyn Share, id: TaskId) -> bool {
        // Decided meanwhile: its files move on.
        let Some(waiting) = self.waiting.iter().find(|waiting| waiting.id == id) else { return true };
        let lane = &self.lane_in;
        let file = File::pending(lane, id);
        let task_stands = match waiting.task {
            TaskFile::Sealed(digest) => stands(share, &file, Kind::Task, digest, &self.keys_in),
            TaskFile::Flat(digest) => is_there(share, &file, Kind::Task, |bytes| Digest::of(bytes) == digest),
        };
        task_stands
            && waiting.terms.is_none_or(|terms| {
                stands(share, &File::terms(lane, id), Kind::Terms, terms, &self.keys_terms)
            })
    }

    fn show_pending(&self, share: &dyn Share) -> Result<(), ShareError> {
        let file = File::pending_summary(&self.lane_in);
        let text = match &self.pending {
            None => return Ok(()),
            Some(Pending::Waiting(text)) => text,
            Some(Pending::Nobody(text)) => match share.stat(&file) {
                Err(error) if error.kind == ErrorKind::Absent => return Ok(()),
                // An earlier watcher, or an earlier round, may have left other words there.
                Ok(_) | Err(_) => text,
            },
        };
        crate::filing::replace_own(share, &file, text.as_bytes()).map(drop)
    }

    fn clear_away(&self, share: &dyn Share) -> Result<(), ShareError> {
        if self.clear == Clear::No {
            return Ok(());
        }
        for lane in [&self.lane_in, &self.lane_out] {
            remove_leftovers(share, &Dir::lane(lane, Area::Tmp), &self.node, self.now)?;
        }
        trim_evidence(share, &Dir::lane(&self.lane_in, Area::Rejected))?;
        archive_done(share, &self.lane_in, self.now).map(drop)
    }
}

/// Whether a file holds that very payload, sealed with a key of the lane. What cannot be read now is taken to stand.
fn stands(share: &dyn Share, file: &File, kind: Kind, payload: Digest, keys: &LaneRing) -> bool {
    is_there(share, file, kind, |bytes| {
        let Ok(raw) = RawEnvelope::read(kind, bytes) else { return false };
        let is_same = Digest::of(raw.unverified_payload()) == payload;
        is_same && matches!(raw.verify_lane(keys), Ok(_) | Err(SignatureError::Retired))
    })
}

/// Whether a file's bytes are the ones meant. What cannot be read now is taken to stand.
fn is_there(share: &dyn Share, file: &File, kind: Kind, is_it: impl FnOnce(&[u8]) -> bool) -> bool {
    let limit = u64::try_from(kind.envelope_bytes_max()).unwrap_or(u64::MAX);
    let bytes = match share.read(file, limit) {
        Ok(bytes) => bytes,
        Err(error) => {
            return !matches!(
                error.kind,
                ErrorKind::Absent | ErrorKind::NotRegular(_) | ErrorKind::TooLarge { .. }
            );
        }
    };
    is_it(&bytes)
}

/// True when the agreement of the clocks should be noted again.
pub(crate) fn clock_mark_is_old(marks: &ClockMarks, now: Timestamp) -> bool {
    now.since_ms(marks.wall).saturating_abs() >= CLOCK_NOTED_MS || marks.host_boot_id.is_empty()
}

/// Notes that the clocks agree, and forgets what is over; never while the clock is suspect.
pub(crate) fn note_clock(tx: &mut Tx<'_>, host_boot_id: &str) -> Result<(), LedgerError> {
    let (now, old) = (tx.now(), tx.meta()?.clock);
    tx.set_clock(&ClockMarks {
        wall: now,
        boot_ms: clock::boot_ms(),
        host_boot_id: host_boot_id.to_owned(),
    })?;
    // Once an hour is often enough for what lives for days.
    if old.wall.unix_ms().div_euclid(HOUR_MS) == now.unix_ms().div_euclid(HOUR_MS) {
        return Ok(());
    }
    tx.purge_seen(now)?;
    tx.purge_controls(now)?;
    tx.purge_replies(now.plus_ms(-REPLIES_KEPT_MS))?;
    tx.purge_witnessed(now.plus_ms(-WITNESSED_KEPT_MS))?;
    tx.purge_tellings(now.plus_ms(-TELLINGS_KEPT_MS))?;
    tx.purge_child_results(now.plus_ms(-REPLIES_KEPT_MS))?;
    tx.purge_paid_requests(now.plus_ms(-PAID_REQUESTS_KEPT_MS))?;
    Ok(())
}

/// Ends a drain: everything ran out, or its grace did.
pub(crate) fn step_drain(tx: &mut Tx<'_>) -> Result<(), LedgerError> {
    use dispatch_core::protocol::heartbeat::NodeState;
    let drain = tx.meta()?.drain;
    if drain.state != NodeState::EnteringMaintenance {
        return Ok(());
    }
    let open = tx.open_attempts()?;
    if open.is_empty() {
        return crate::door::set_drain(tx, NodeState::Maintenance, None);
    }
    if drain.grace_until.is_some_and(|until| tx.now() >= until) {
        let still: Vec<String> = open.iter().map(|row| row.key.to_string()).collect();
        tx.audit(&Entry::of("drain_failed").data(json!({"still_running": still})))?;
        return crate::door::set_drain(tx, NodeState::DrainFailed, None);
    }
    Ok(())
}

/// True when a drain may have come to its end.
pub(crate) fn drain_can_step(reader: &dispatch_ledger::Reader, now: Timestamp) -> Result<bool, LedgerError> {
    use dispatch_core::protocol::heartbeat::NodeState;
    let drain = reader.meta()?.drain;
    Ok(drain.state == NodeState::EnteringMaintenance
        && (drain.grace_until.is_some_and(|until| now >= until) || reader.open_attempts()?.is_empty()))
}
