//! Brings children to the share and their answers back, on the share's threads (architecture, "The sender's half"). Whatever
//! a crash leaves half done is found and finished here: a child that has a record is never sealed again.

use std::collections::BTreeSet;
use std::fs::File as LocalFile;
use std::time::Duration;

use dispatch_core::protocol::accept::{Me, Place as InLane, Verdict, accept_progress};
use dispatch_core::protocol::keys::LaneRing;
use dispatch_core::protocol::limits::SMALL_ENVELOPE_BYTES_MAX;
use dispatch_core::protocol::names::{Lane, NodeName, TaskId};
use dispatch_core::protocol::payload::{Kind, Payload as _};
use dispatch_core::protocol::progress::Phase;
use dispatch_core::protocol::result::TaskResult;
use dispatch_core::protocol::seal::Verified;
use dispatch_core::protocol::task::Task;
use dispatch_core::protocol::time::Timestamp;
use dispatch_ledger::{ChildKind, ChildRow, LedgerError};
use dispatch_node::files::{FileError, create_private_dir};
use dispatch_node::job::{JobDir, Progress};
use dispatch_node::outgoing::{Heard, KeptChild, Mailbox, Outgoing, OutgoingError, Record, RecordPlace};
use dispatch_node::state::StateDir;
use dispatch_spool::layout::File;
use dispatch_spool::share::{Share, ShareError};
use dispatch_spool::upkeep::find_result;
use uuid::Uuid;

use crate::children::ChildNews;
use crate::node::{Node, Reach};
use crate::reply::Reply;
use crate::workers::Place;

/// What a log may be longer than its cap: the line that says how much was dropped.
const LOG_SLACK_BYTES: u64 = 64 * 1024;

/// One child, as the courier handles it.
#[derive(Clone, Debug)]
struct Parcel {
    task: Task,
    /// The ledger knows that it is kept.
    is_kept: bool,
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
    /// Peers that one came back from.
    visited: BTreeSet<NodeName>,
    news: Vec<ChildNews>,
    /// Children whose cancel this watcher has brought to the share.
    cancelled: BTreeSet<TaskId>,
}

impl Couriers {
    /// How many are under way.
    pub(crate) fn under_way(&self) -> usize {
        self.under_way.len()
    }
}

impl Node {
    /// True when no peer that has children was left out since this watcher started.
    pub(crate) fn has_every_courier_been_there(&self) -> bool {
        self.couriers.under_way.is_subset(&self.couriers.visited)
    }

    /// Sends a courier to every peer that has children of tasks of this node.
    pub(crate) fn start_couriers(&mut self, now: Timestamp) -> Result<(), LedgerError> {
        if self.reach != Reach::Here || self.higher_since.is_some() {
            return Ok(());
        }
        let open = self.ledger.open_children()?;
        if open.is_empty() {
            return Ok(());
        }
        let receivers: BTreeSet<NodeName> = open.iter().map(|row| row.receiver.clone()).collect();
        for peer in receivers {
            if self.couriers.under_way.contains(&peer) {
                continue;
            }
            let Some(home) = self.home.peers.get(&peer) else {
                // No answer of a node that is no peer any more can be believed.
                let over = open.iter().filter(|row| row.receiver == peer && now >= row.answer_by);
                let news: Vec<ChildNews> = over.map(|row| ChildNews::Unanswered { id: row.id }).collect();
                self.again |= !news.is_empty();
                self.couriers.news.extend(news);
                continue;
            };
            let (lane, keys) = (home.lane_out.clone(), home.ring_out.clone());
            let mut parcels = Vec::new();
            for row in open.iter().filter(|row| row.receiver == peer) {
                parcels.extend(self.parcel(row)?);
            }
            let errand = Errand {
                parcels,
                state: self.home.config.state.clone(),
                lane,
                keys,
                cluster: self.home.cluster,
                node: self.home.node.clone(),
                now,
            };
            let name = peer.clone();
            let handed = self.workers.submit(&Place::Peer(peer.clone()), move |share| {
                let (mut news, mut cancelled) = (Vec::new(), Vec::new());
                let done = errand.run(share, &mut news, &mut cancelled);
                Reply::Couriered { peer: name, news, cancelled, done }
            });
            if handed {
                self.couriers.under_way.insert(peer);
            }
        }
        Ok(())
    }

    fn parcel(&self, row: &ChildRow) -> Result<Option<Parcel>, LedgerError> {
        // The ledger's own bytes: what cannot be read back was never sealed, and its time ends it.
        let Ok(task) = Task::from_stored(&row.payload) else { return Ok(None) };
        let Some(attempt) = self.ledger.attempt(row.epoch)? else { return Ok(None) };
        let forwarded = row.kind == ChildKind::Forwarded;
        let stop = if !forwarded || self.couriers.cancelled.contains(&row.id) {
            None
        } else if attempt.ended_at.is_some() {
            // A ledger was taken over meanwhile, and the task was ended: nobody waits for what is not sent yet.
            Some("its attempt is over".to_owned())
        } else {
            self.stop_of(&attempt.key)?
        };
        let job = JobDir::at(self.home.config.state.path(), &attempt.key.from, attempt.key.id, row.epoch);
        Ok(Some(Parcel {
            task,
            is_kept: row.kept_at.is_some(),
            answer_by: row.answer_by,
            stop,
            job: forwarded.then_some(job),
        }))
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
        self.couriers.visited.insert(peer.clone());
        self.couriers.cancelled.extend(cancelled);
        // Nothing rings for what was learned here: it is told to the ledger in the pass that follows.
        self.again |= !news.is_empty();
        self.couriers.news.extend(news);
        if let Err(error) = done {
            tracing::debug!(%peer, error = %dispatch_node::report::one_line(&error), "a courier came back early; it goes again");
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
        if records.iter().any(|record| record.place == RecordPlace::Outbox)
            && let Some(locked) = outgoing.lock_if_free()?
            && let Some((_, error)) = locked.flush(&mail, Duration::ZERO)?.stuck
        {
            return Err(error.into());
        }
        self.cancel(&outgoing, &mail, cancelled)?;
        self.hear(&outgoing, &mail, &records, news)
    }

    /// Seals and keeps what is not kept yet; answers the records of all that are.
    fn keep(&self, outgoing: &Outgoing, news: &mut Vec<ChildNews>) -> Result<Vec<Record>, CourierError> {
        let mut records = Vec::new();
        for parcel in &self.parcels {
            match outgoing.keep_child(&parcel.task, &self.keys)? {
                KeptChild::Later => {}
                KeptChild::Kept(record) => {
                    if !parcel.is_kept {
                        news.push(ChildNews::Kept { id: record.id, task_sha256: record.task_sha256 });
                    }
                    records.push(*record);
                }
            }
        }
        Ok(records)
    }

    fn cancel(
        &self,
        outgoing: &Outgoing,
        mail: &Mailbox<'_>,
        cancelled: &mut Vec<TaskId>,
    ) -> Result<(), CourierError> {
        for parcel in &self.parcels {
            let Some(why) = &parcel.stop else { continue };
            if outgoing.record(parcel.task.id)?.is_none() {
                continue;
            }
            outgoing.cancel(mail, parcel.task.id, why).map(drop)?;
            cancelled.push(parcel.task.id);
        }
        Ok(())
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
            self.bring(mail, answer.id, &answer.result, news)?;
        }
        for record in records.iter().filter(|record| !heard.contains(&record.id)) {
            self.pass_on_progress(mail, record);
            // Answered before, and moved since; or its time is over: looked for everywhere, once.
            if record.answered.is_none() && self.now < self.answer_by(record) {
                continue;
            }
            let limit = u64::try_from(Kind::Result.envelope_bytes_max()).unwrap_or(u64::MAX);
            let found = find_result(mail.share, &self.lane, record.id, limit)?;
            match found.map(|bytes| mail.judge_answer(&bytes, outgoing, record)) {
                Some(Heard::Answer(result)) => self.bring(mail, record.id, &result, news)?,
                Some(Heard::Unverified(_) | Heard::NotBelieved { .. } | Heard::Nothing) | None => {
                    if self.now >= self.answer_by(record) {
                        news.push(ChildNews::Unanswered { id: record.id });
                    }
                }
            }
        }
        Ok(())
    }

    /// How far a forwarded task is, as the node that runs it says: told on as if an executor had said it. It is a courtesy,
    /// and whatever cannot be read is left out.
    fn pass_on_progress(&self, mail: &Mailbox<'_>, record: &Record) {
        let parcel = self.parcels.iter().find(|parcel| parcel.task.id == record.id);
        let Some(job) = parcel.and_then(|parcel| parcel.job.as_ref()) else { return };
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

    fn answer_by(&self, record: &Record) -> Timestamp {
        let parcel = self.parcels.iter().find(|parcel| parcel.task.id == record.id);
        parcel.map_or(record.answer_by, |parcel| parcel.answer_by)
    }

    /// An answer, and the log beside it where somebody waits for that. A log that is not there, or is another, is left out:
    /// the answer says by its digest which one it was.
    fn bring(
        &self,
        mail: &Mailbox<'_>,
        id: TaskId,
        answer: &Verified<TaskResult>,
        news: &mut Vec<ChildNews>,
    ) -> Result<(), CourierError> {
        let result = answer.payload();
        let parcel = self.parcels.iter().find(|parcel| parcel.task.id == id);
        if let Some(job) = parcel.and_then(|parcel| parcel.job.as_ref())
            && result.log_bytes > 0
        {
            create_private_dir(job.path())?;
            let log = job.log_path();
            let mut local = LocalFile::create(&log).map_err(FileError::of("create", &log))?;
            let limit = result.log_bytes.saturating_add(LOG_SLACK_BYTES);
            let copied = mail.share.copy_in(&File::log(&self.lane, id), limit, &mut local);
            if !copied.is_ok_and(|copied| Some(copied.digest) == result.log_sha256) {
                tracing::warn!(%id, "the log of a forwarded task is not the one its answer names");
            }
        }
        news.push(ChildNews::Answered {
            id,
            result: Box::new(result.clone()),
            payload: answer.bytes().to_vec(),
        });
        Ok(())
    }
}
