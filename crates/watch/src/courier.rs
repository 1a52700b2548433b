//! Brings children to the share and their answers back, on the share's threads (architecture, "The sender's half"). Whatever
//! a crash leaves half done is found and finished here: a child that has a record is never sealed again.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File as LocalFile;
use std::time::{Duration, Instant};

use dispatch_core::policy::continuity::ClockTrust;
use dispatch_core::protocol::accept::{Me, Place as InLane, Verdict, accept_progress};
use dispatch_core::protocol::heartbeat::NodeState;
use dispatch_core::protocol::keys::LaneRing;
use dispatch_core::protocol::limits::SMALL_ENVELOPE_BYTES_MAX;
use dispatch_core::protocol::names::{Lane, NodeName, TaskId};
use dispatch_core::protocol::payload::{Kind, Payload as _};
use dispatch_core::protocol::progress::Phase;
use dispatch_core::protocol::result::TaskResult;
use dispatch_core::protocol::seal::Verified;
use dispatch_core::protocol::task::Task;
use dispatch_core::protocol::time::{SECOND_MS, Timestamp};
use dispatch_ledger::{ChildKind, ChildRow, LedgerError};
use dispatch_node::files::{FileError, create_private_dir};
use dispatch_node::job::{JobDir, Progress};
use dispatch_node::outgoing::{Heard, KeptChild, Mailbox, Outgoing, OutgoingError, Record, RecordPlace};
use dispatch_node::report::one_line;
use dispatch_node::state::StateDir;
use dispatch_spool::layout::File;
use dispatch_spool::share::{ErrorKind, Share, ShareError};
use dispatch_spool::upkeep::find_result;
use uuid::Uuid;

use crate::children::{ChildNews, LogKept};
use crate::node::{CONTAINED_FOR, Node, Reach};
use crate::reply::Reply;
use crate::workers::Place;

/// What a log may be longer than its cap: the line that says how much was dropped.
const LOG_SLACK_BYTES: u64 = 64 * 1024;
/// How long a log that is not the one its answer names is looked for again.
const LOG_WAIT_MS: i64 = 30 * SECOND_MS;
/// Between two looks at a peer's answers, where nothing is to be sent: so long, and longer with every child there is, so
/// that looking never becomes all that is done.
const PAUSE: Duration = Duration::from_millis(50);
const PAUSE_PER_CHILD: Duration = Duration::from_millis(2);

/// One child, as the courier handles it.
#[derive(Clone, Debug)]
struct Parcel {
    id: TaskId,
    /// What is to be sealed; `None` once that is done.
    task: Option<Task>,
    answer_by: Timestamp,
    /// Why it is to be cancelled.
    stop: Option<String>,
    /// The job directory of the attempt it stands for: its log goes there, and how far it is.
    job: Option<JobDir>,
}

/// The children that one peer is to run.
struct Errand {
    parcels: Vec<Parcel>,
    state: StateDir,
    lane: Lane,
    keys: LaneRing,
    cluster: Uuid,
    node: NodeName,
    now: Timestamp,
    /// A clock that cannot be believed ends nothing.
    clock: ClockTrust,
}

/// Why an errand was not done; it is done again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CourierError {
    #[error("cannot send what a task sends")]
    Outgoing(#[from] OutgoingError),
    #[error("cannot look for an answer")]
    Share(#[from] ShareError),
    #[error("cannot keep a log")]
    Log(#[from] FileError),
}

/// The couriers under way, and what they brought that the ledger does not know yet.
#[derive(Default)]
pub(crate) struct Couriers {
    under_way: BTreeSet<NodeName>,
    /// When one came back from a peer.
    visited: BTreeMap<NodeName, Instant>,
    news: Vec<ChildNews>,
    /// Children whose cancel this watcher has brought to the share.
    cancelled: BTreeSet<TaskId>,
    /// Children whose news could not be noted: left alone for a while.
    failed: BTreeMap<TaskId, Instant>,
}

impl Couriers {
    /// How many are under way.
    pub(crate) fn under_way(&self) -> usize {
        self.under_way.len()
    }

    /// Leaves children alone for a while.
    pub(crate) fn leave_alone(&mut self, failed: Vec<TaskId>) {
        self.failed.retain(|_, since| since.elapsed() < CONTAINED_FOR);
        self.failed.extend(failed.into_iter().map(|id| (id, Instant::now())));
    }

    fn is_left_alone(&self, id: TaskId) -> bool {
        self.failed.get(&id).is_some_and(|since| since.elapsed() < CONTAINED_FOR)
    }
}

impl Node {
    /// True when no peer that has children was left out since this watcher started.
    pub(crate) fn has_every_courier_been_there(&self) -> bool {
        self.couriers.under_way.iter().all(|peer| self.couriers.visited.contains_key(peer))
    }

    /// Sends a courier to every peer that has children of tasks of this node.
    pub(crate) fn start_couriers(&mut self, now: Timestamp) -> Result<(), LedgerError> {
        let may_act = self.higher_since.is_none() && self.node_state()? != NodeState::Recovery;
        if self.reach != Reach::Here || !may_act {
            return Ok(());
        }
        let open = self.ledger.open_children()?;
        let receivers: BTreeSet<NodeName> = open.iter().map(|row| row.receiver.clone()).collect();
        for peer in receivers {
            let rows: Vec<&ChildRow> = open.iter().filter(|row| row.receiver == peer).collect();
            if !self.couriers.under_way.contains(&peer) {
                self.start_courier(&peer, &rows, now)?;
            }
        }
        Ok(())
    }

    fn start_courier(
        &mut self,
        peer: &NodeName,
        rows: &[&ChildRow],
        now: Timestamp,
    ) -> Result<(), LedgerError> {
        let mut parcels = Vec::new();
        let home = self.home.peers.get(peer).map(|home| (home.lane_out.clone(), home.ring_out.clone()));
        for row in rows {
            if self.couriers.is_left_alone(row.id) {
                continue;
            }
            match self.parcel(row)? {
                Parceled::Here(parcel) if home.is_some() => parcels.push(*parcel),
                // No answer of a node that is no peer any more can be believed, and what cannot be read back was never sent.
                Parceled::Here(_) | Parceled::Unreadable => self.end_if_over(row, now),
                Parceled::HeldBack => {}
            }
        }
        let Some((lane, keys)) = home.filter(|_| !parcels.is_empty()) else { return Ok(()) };
        let is_urgent = parcels.iter().any(|parcel| parcel.task.is_some() || parcel.stop.is_some());
        let came_back = self.couriers.visited.get(peer);
        let children = u32::try_from(parcels.len()).unwrap_or(u32::MAX);
        let pause = PAUSE.saturating_add(PAUSE_PER_CHILD.saturating_mul(children));
        if !is_urgent && came_back.is_some_and(|at| at.elapsed() < pause) {
            // Whatever rang is looked for a moment later.
            self.look_soon = Some(Instant::now());
            return Ok(());
        }
        let errand = Errand {
            parcels,
            state: self.home.config.state.clone(),
            lane,
            keys,
            cluster: self.home.cluster,
            node: self.home.node.clone(),
            now,
            clock: if self.home.clock_suspect { ClockTrust::Suspect } else { ClockTrust::Trusted },
        };
        let name = peer.clone();
        let handed = self.workers.submit(&Place::Errand(peer.clone()), move |share| {
            let (mut news, mut cancelled) = (Vec::new(), Vec::new());
            let done = errand.run(share, &mut news, &mut cancelled);
            Reply::Couriered { peer: name, news, cancelled, done }
        });
        if handed {
            self.couriers.under_way.insert(peer.clone());
        }
        Ok(())
    }

    /// Ends a child that nobody can be asked about, once its time is over.
    fn end_if_over(&mut self, row: &ChildRow, now: Timestamp) {
        if !self.home.clock_suspect && now >= row.answer_by {
            self.again = true;
            self.couriers.news.push(ChildNews::Unanswered { id: row.id });
        }
    }

    fn parcel(&self, row: &ChildRow) -> Result<Parceled, LedgerError> {
        let Some(attempt) = self.ledger.attempt(row.epoch)? else { return Ok(Parceled::Unreadable) };
        let forwarded = row.kind == ChildKind::Forwarded;
        let stop = if !forwarded || self.couriers.cancelled.contains(&row.id) {
            None
        } else if attempt.ended_at.is_some() {
            // A ledger was taken over meanwhile, and the task was ended: nobody waits for what is not sent yet.
            Some("its attempt is over".to_owned())
        } else {
            self.stop_of(&attempt.key)?
        };
        let task = if row.kept_at.is_some() {
            None
        } else if stop.is_none() && self.stopped.stops(&attempt.key.from) {
            // Nothing new starts under a killswitch, wherever it would run.
            return Ok(Parceled::HeldBack);
        } else {
            let payload = self.ledger.child_payload(row.id)?;
            match payload.and_then(|payload| Task::from_stored(&payload).ok()) {
                Some(task) => Some(task),
                None => return Ok(Parceled::Unreadable),
            }
        };
        let job = JobDir::at(self.home.config.state.path(), &attempt.key.from, attempt.key.id, row.epoch);
        let job = forwarded.then_some(job);
        Ok(Parceled::Here(Box::new(Parcel { id: row.id, task, answer_by: row.answer_by, stop, job })))
    }

    /// Counts a courier that came back in.
    pub(crate) fn couriered(
        &mut self,
        peer: &NodeName,
        news: Vec<ChildNews>,
        cancelled: Vec<TaskId>,
        done: Result<(), CourierError>,
    ) {
        self.couriers.under_way.remove(peer);
        self.couriers.visited.insert(peer.clone(), Instant::now());
        self.couriers.cancelled.extend(cancelled);
        // Nothing rings for what was learned here: it is told to the ledger in the pass that follows.
        self.again |= !news.is_empty();
        self.couriers.news.extend(news);
        if let Err(error) = done {
            tracing::debug!(%peer, error = %one_line(&error), "a courier came back early; it goes again");
        }
    }

    /// True when couriers brought something that the ledger must know.
    pub(crate) fn has_child_news(&self) -> bool {
        !self.couriers.news.is_empty()
    }

    /// What the next transaction is to note.
    pub(crate) fn take_child_news(&mut self) -> Vec<ChildNews> {
        std::mem::take(&mut self.couriers.news)
    }

    /// Keeps what a transaction that failed was to note.
    pub(crate) fn child_news_put_back(&mut self, news: Vec<ChildNews>) {
        self.couriers.news.splice(0..0, news);
    }
}

/// What a child's row comes to.
enum Parceled {
    Here(Box<Parcel>),
    /// A killswitch stands: it is not sent now.
    HeldBack,
    /// The ledger's own bytes make no sense.
    Unreadable,
}

impl Errand {
    fn run(
        &self,
        share: &dyn Share,
        news: &mut Vec<ChildNews>,
        cancelled: &mut Vec<TaskId>,
    ) -> Result<(), CourierError> {
        let outgoing = Outgoing::open(&self.state, &self.lane)?;
        let mail = Mailbox {
            share,
            keys: &self.keys,
            flat: None,
            cluster: self.cluster,
            node: &self.node,
            now: self.now,
        };
        let records = self.keep(&outgoing, news)?;
        // Before what is kept goes out: a cancel that is on the share first keeps its task from ever running.
        self.cancel(&outgoing, &mail, &records, cancelled)?;
        if records.iter().any(|record| record.place == RecordPlace::Outbox)
            && let Some(locked) = outgoing.lock_if_free()?
            && let Some((_, error)) = locked.flush(&mail, Duration::ZERO)?.stuck
        {
            return Err(error.into());
        }
        self.hear(&outgoing, &mail, &records, news)
    }

    /// Seals and keeps what is not kept yet; answers the records of all that are. One that cannot be sealed stops no other.
    fn keep(&self, outgoing: &Outgoing, news: &mut Vec<ChildNews>) -> Result<Vec<Record>, CourierError> {
        let mut records = Vec::new();
        for parcel in &self.parcels {
            let Some(task) = &parcel.task else {
                records.extend(outgoing.record(parcel.id)?);
                continue;
            };
            if parcel.stop.is_some() && outgoing.record(parcel.id)?.is_none() {
                news.push(ChildNews::NotSent { id: parcel.id });
                continue;
            }
            match outgoing.keep_child(task, &self.keys) {
                Ok(KeptChild::Later) => {}
                Ok(KeptChild::Kept(record)) => {
                    news.push(ChildNews::Kept { id: record.id, task_sha256: record.task_sha256 });
                    records.push(*record);
                }
                Err(error) => {
                    tracing::warn!(id = %parcel.id, error = %one_line(&error), "a child cannot be sealed; it is tried again");
                    if self.is_over(parcel.answer_by) {
                        news.push(ChildNews::Unanswered { id: parcel.id });
                    }
                }
            }
        }
        Ok(records)
    }

    fn is_over(&self, answer_by: Timestamp) -> bool {
        self.clock == ClockTrust::Trusted && self.now >= answer_by
    }

    fn cancel(
        &self,
        outgoing: &Outgoing,
        mail: &Mailbox<'_>,
        records: &[Record],
        cancelled: &mut Vec<TaskId>,
    ) -> Result<(), CourierError> {
        for parcel in &self.parcels {
            let is_kept = records.iter().any(|record| record.id == parcel.id);
            if let Some(why) = parcel.stop.as_ref().filter(|_| is_kept) {
                outgoing.cancel(mail, parcel.id, why).map(drop)?;
                cancelled.push(parcel.id);
            }
        }
        Ok(())
    }

    fn parcel_of(&self, record: &Record) -> Option<&Parcel> {
        self.parcels.iter().find(|parcel| parcel.id == record.id)
    }

    fn hear(
        &self,
        outgoing: &Outgoing,
        mail: &Mailbox<'_>,
        records: &[Record],
        news: &mut Vec<ChildNews>,
    ) -> Result<(), CourierError> {
        let mut heard = BTreeSet::new();
        for answer in outgoing.hear_all(mail, records)?.answers {
            heard.insert(answer.id);
            if let Some(record) = records.iter().find(|record| record.id == answer.id) {
                self.bring(mail, record, &answer.result, news)?;
            }
        }
        for record in records.iter().filter(|record| !heard.contains(&record.id)) {
            self.pass_on_progress(mail, record);
            let is_over = self.parcel_of(record).is_some_and(|parcel| self.is_over(parcel.answer_by));
            // Answered before, and moved since; or its time is over: looked for everywhere, once.
            if record.answered.is_none() && !is_over {
                continue;
            }
            let limit = u64::try_from(Kind::Result.envelope_bytes_max()).unwrap_or(u64::MAX);
            let found = find_result(mail.share, &self.lane, record.id, limit)?;
            match found.map(|bytes| mail.judge_answer(&bytes, outgoing, record)) {
                Some(Heard::Answer(result)) => self.bring(mail, record, &result, news)?,
                Some(Heard::Unverified(_) | Heard::NotBelieved { .. } | Heard::Nothing) | None if is_over => {
                    news.push(ChildNews::Unanswered { id: record.id });
                }
                // Seen once, gone before the ledger knew it: the same bytes put back bring it again.
                Some(Heard::Unverified(_) | Heard::NotBelieved { .. } | Heard::Nothing) | None => {
                    if record.is_put_back_due(mail) {
                        outgoing.put_back(mail, record).map(drop)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// How far a forwarded task is, as the node that runs it says: told on as if an executor had said it. It is a courtesy,
    /// and whatever cannot be read is left out.
    fn pass_on_progress(&self, mail: &Mailbox<'_>, record: &Record) {
        let Some(job) = self.parcel_of(record).and_then(|parcel| parcel.job.as_ref()) else { return };
        let limit = u64::try_from(SMALL_ENVELOPE_BYTES_MAX).unwrap_or(u64::MAX);
        let Ok(bytes) = mail.share.read(&File::progress(&self.lane, record.id), limit) else { return };
        let me = Me { cluster: self.cluster, node: &self.node, now: self.now };
        let place = InLane { lane: &self.lane, id: record.id };
        let told = match accept_progress(&bytes, place, &me, &self.keys, Some(record.task_sha256)) {
            Verdict::Accepted(told) => told.into_parts().0,
            Verdict::Refused(_) => return,
        };
        if told.phase != Phase::Running
            || job.read_progress().is_ok_and(|known| known.is_some_and(|known| known.seq >= told.seq))
        {
            return;
        }
        let progress = Progress {
            epoch: job.epoch(),
            seq: told.seq,
            at: told.at,
            elapsed_ms: told.elapsed_ms.unwrap_or(0),
            turns: told.turns,
            last_tool: told.last_tool,
            tokens: told.tokens,
            usd: told.usd,
            last_line: told.last_line,
        };
        let written = create_private_dir(job.path()).is_ok() && job.write_progress(&progress).is_ok();
        tracing::trace!(id = %record.id, written, "progress of a forwarded task");
    }

    /// An answer, and the log beside it where somebody waits for that. Once that is certainly not the one that the answer
    /// names, it is left out: the answer says by its digest which one it was.
    fn bring(
        &self,
        mail: &Mailbox<'_>,
        record: &Record,
        answer: &Verified<TaskResult>,
        news: &mut Vec<ChildNews>,
    ) -> Result<(), CourierError> {
        let result = answer.payload();
        let log = match self.parcel_of(record).and_then(|parcel| parcel.job.as_ref()) {
            Some(job) if result.log_bytes > 0 => self.copy_log(mail, record, job, result)?,
            Some(_) | None => Some(LogKept::Yes),
        };
        let Some(log) = log else { return Ok(()) };
        news.push(ChildNews::Answered {
            id: record.id,
            result: Box::new(result.clone()),
            payload: answer.bytes().to_vec(),
            log,
        });
        Ok(())
    }

    /// Copies a log beside the attempt; `None` while it may still be on its way. Never more than the task allowed, whatever
    /// the answer says.
    fn copy_log(
        &self,
        mail: &Mailbox<'_>,
        record: &Record,
        job: &JobDir,
        result: &TaskResult,
    ) -> Result<Option<LogKept>, CourierError> {
        create_private_dir(job.path())?;
        let path = job.log_path();
        let allowed = record.task().map_or(0, |task| task.max_output_bytes).saturating_add(LOG_SLACK_BYTES);
        let mut local = LocalFile::create(&path).map_err(FileError::of("create", &path))?;
        let copied = if result.log_bytes > allowed {
            None
        } else {
            match mail.share.copy_in(&File::log(&self.lane, record.id), result.log_bytes, &mut local) {
                Ok(copied) => Some(copied.digest),
                Err(error) => match error.kind {
                    ErrorKind::Absent | ErrorKind::NotRegular(_) | ErrorKind::TooLarge { .. } => None,
                    ErrorKind::Conflict(_)
                    | ErrorKind::Denied
                    | ErrorKind::NoSpace
                    | ErrorKind::Stale
                    | ErrorKind::Unreachable
                    | ErrorKind::Io => return Err(error.into()),
                },
            }
        };
        if copied.is_some() && copied == result.log_sha256 {
            return Ok(Some(LogKept::Yes));
        }
        // A mount may show the whole of it only a while after the answer.
        let ended = result.ended_at.unwrap_or(self.now);
        if self.clock == ClockTrust::Trusted && (0..LOG_WAIT_MS).contains(&self.now.since_ms(ended)) {
            return Ok(None);
        }
        tracing::warn!(id = %record.id, "the log of a forwarded task is not the one its answer names");
        local.set_len(0).map_err(FileError::of("empty", &path))?;
        Ok(Some(LogKept::No))
    }
}

#[cfg(test)]
mod tests;
