//! The transaction of a pass, and what follows it outside.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use dispatch_core::planner::stop::Latch;
use dispatch_core::policy::lifecycle::TaskState;
use dispatch_core::protocol::heartbeat::{KillMode, NodeState};
use dispatch_core::protocol::names::{NodeName, TaskId};
use dispatch_core::protocol::parts::AuditHead;
use dispatch_core::protocol::payload::{Kind, Payload as _};
use dispatch_core::protocol::result::TaskResult;
use dispatch_core::protocol::seal::{RawEnvelope, seal};
use dispatch_core::protocol::task::Task;
use dispatch_core::protocol::time::{MINUTE_MS, SECOND_MS, Timestamp};
use dispatch_ledger::{Disposition, Entry, Filed, Gap, LedgerError, Reader, TaskBrief, TaskKey, Tx};
use dispatch_node::door::Claimed;
use dispatch_node::job::{JobDir, Outcome, Stop, StopWhy};
use dispatch_spool::layout::{File, LaneFile};
use dispatch_spool::share::Share;
use serde_json::json;

use crate::attempts::Looked;
use crate::beating::{self, Heard};
use crate::chores::{self, News};
use crate::deciding::{self, JudgedWord};
use crate::door;
use crate::filing::{self, Alarm, AnswerTask, FileTask, Refuse, WhatStands};
use crate::home::{Home, PeerHome};
use crate::node::{CONTAINED_FOR, Leave, Moved, Node, Reach};
use crate::recipes::{self, OrderFacts};
use crate::reply::Reply;
use crate::running::{self, Launch, Turn};
use crate::taking::{self, Judged};
use crate::terms;
use crate::tripping::{self, Stopped, Switches};
use crate::workers::Place;

/// Tasks that are filed or answered at the same time; the rest come as these are done. A look at a lane waits behind them.
const MOVES_MAX: usize = 128;
/// Unanswered refusals handled in one pass (protocol section 4).
const REFUSALS_MAX: usize = 100;
/// Unanswered refusals of one kind are audited at most once in this time, with a count.
const REFUSAL_AUDIT_MS: i64 = MINUTE_MS;
/// A gap of a stream is reported when it stays so long (protocol section 4).
const GAP_MS: i64 = 120 * SECOND_MS;

/// Everything a pass found, judged and ready for the ledger.
pub(crate) struct Seen {
    pub(crate) now: Timestamp,
    pub(crate) switches: Switches,
    pub(crate) heard: Vec<Heard>,
    /// The head in this node's own heartbeat, as it stands on the share.
    pub(crate) own_head: Option<AuditHead>,
    pub(crate) looked: Looked,
    pub(crate) judged: Vec<(NodeName, Judged)>,
    pub(crate) words: Vec<(NodeName, JudgedWord)>,
    pub(crate) claimed: Vec<Claimed>,
}

/// What the transaction leaves to be done outside.
#[derive(Default)]
pub(crate) struct After {
    launches: Vec<Launch>,
    refuse: Vec<(NodeName, Refuse)>,
    discard: Vec<(NodeName, File)>,
    pub(crate) replies: Vec<(uuid::Uuid, dispatch_node::door::Answer)>,
    pub(crate) reload: bool,
    failed: Vec<TaskKey>,
    /// Refused files that the budget of this pass had no room for.
    left_some: bool,
}

/// What this watcher learned since its last transaction and has not told the ledger yet.
struct Learned {
    moved: Vec<Moved>,
    news: Vec<News>,
    /// Names of this node, outside any task, that somebody else's bytes stood at.
    squatted: Vec<File>,
    recheck: bool,
    refusals: Vec<(&'static str, u64)>,
}

/// What holds for one transaction.
struct Rules<'a> {
    home: &'a Home,
    stopped: &'a Stopped,
    latch: Latch,
    only: Option<TaskId>,
    host_boot_id: &'a str,
    /// Senders whose inbox was read to its end.
    read_to_end: &'a BTreeSet<NodeName>,
    /// False while another watcher shows a higher boot, and in recovery: nothing is accepted, leased or settled.
    may_act: bool,
    share_is_here: bool,
}

impl Rules<'_> {
    fn apply(&self, tx: &mut Tx<'_>, seen: Seen, learned: &Learned) -> Result<After, LedgerError> {
        let mut after = After::default();
        self.note(tx, &seen, learned, &mut after.failed)?;
        if self.may_act {
            self.settle(tx, &seen, &mut after.failed)?;
        }
        let asked = door::apply(tx, self.home, &seen.switches, &seen.claimed)?;
        (after.replies, after.reload) = (asked.replies, asked.reload);
        if self.may_act {
            take_words(tx, self.home, seen.words, &mut after)?;
            take_tasks(tx, self.home, seen.judged, &mut after)?;
            self.expire(tx, &mut after.failed)?;
            self.report_gaps(tx)?;
            chores::step_drain(tx)?;
            after.launches = self.lease(tx, &mut after.failed)?;
        }
        Ok(after)
    }

    /// Facts that change nothing about what may happen to tasks.
    fn note(
        &self,
        tx: &mut Tx<'_>,
        seen: &Seen,
        learned: &Learned,
        failed: &mut Vec<TaskKey>,
    ) -> Result<(), LedgerError> {
        tripping::record(tx, &seen.switches, self.latch)?;
        if let Some(head) = seen.own_head {
            beating::remember_if_rolled_back(tx, head)?;
        }
        if learned.recheck {
            terms::recheck(tx, self.home, failed)?;
        }
        if !self.home.clock_suspect && chores::clock_mark_is_old(&tx.meta()?.clock, seen.now) {
            chores::note_clock(tx, self.host_boot_id)?;
        }
        chores::note(tx, &learned.news)?;
        for heard in &seen.heard {
            beating::note(tx, self.home, heard)?;
        }
        for moved in &learned.moved {
            contain(tx, failed, moved.key(), |tx| mark_moved(tx, moved))?;
        }
        for file in &learned.squatted {
            let data = json!({"file": file.path().to_string_lossy()});
            tx.audit(&Entry::of("squatted").code("squatted").data(data))?;
        }
        for (code, count) in &learned.refusals {
            tx.audit(&Entry::of("refused").code(code).data(json!({"count": count})))?;
        }
        Ok(())
    }

    fn settle(&self, tx: &mut Tx<'_>, seen: &Seen, failed: &mut Vec<TaskKey>) -> Result<(), LedgerError> {
        for (key, epoch, at) in &seen.looked.started {
            contain(tx, failed, key, |tx| tx.mark_started(*epoch, *at))?;
        }
        for ended in &seen.looked.ended {
            contain(tx, failed, &ended.row.key, |tx| running::settle(tx, self.home, ended))?;
        }
        Ok(())
    }

    /// Ends what was never started and is past its time. A clock that cannot be believed ends nothing.
    fn expire(&self, tx: &mut Tx<'_>, failed: &mut Vec<TaskKey>) -> Result<(), LedgerError> {
        let now = tx.now();
        if self.home.clock_suspect || tx.next_expiry()?.is_none_or(|at| now < at) {
            return Ok(());
        }
        for row in tx.waiting()?.iter().filter(|row| now >= row.expires) {
            contain(tx, failed, &row.key, |tx| deciding::expire(tx, self.home, row))?;
        }
        for task in tx.whole_queue()?.iter().filter(|task| running::is_late(task, now)) {
            contain(tx, failed, &task.key, |tx| running::expire(tx, self.home, task))?;
        }
        Ok(())
    }

    /// A gap is reported once it stayed too long and the inbox held nothing more that could fill it.
    fn report_gaps(&self, tx: &mut Tx<'_>) -> Result<(), LedgerError> {
        for gap in late_gaps(tx, self.read_to_end, tx.now())? {
            tx.audit(&Entry::of("stream_gap").from(&gap.from).code("stream_gap").data(json!({
                "stream": gap.stream.to_string(), "first": gap.first, "last": gap.last,
            })))?;
            tx.mark_gap_reported(&gap)?;
        }
        Ok(())
    }

    fn lease(&self, tx: &mut Tx<'_>, failed: &mut Vec<TaskKey>) -> Result<Vec<Launch>, LedgerError> {
        let meta = tx.meta()?;
        // A drain or a rollback that this very transaction noted counts already.
        if !self.share_is_here || meta.drain.state != NodeState::Active || meta.recovery.is_some() {
            return Ok(Vec::new());
        }
        let max = usize::try_from(self.home.config.exec.max_parallel).unwrap_or(usize::MAX);
        let is_held = |from: &NodeName| self.stopped.stops(from);
        let turn =
            Turn { free: max.saturating_sub(tx.open_attempts()?.len()), only: self.only, is_held: &is_held };
        running::lease(tx, self.home, &turn, failed)
    }
}

/// Gaps that are due to be reported.
fn late_gaps(
    reader: &Reader,
    read_to_end: &BTreeSet<NodeName>,
    now: Timestamp,
) -> Result<Vec<Gap>, LedgerError> {
    let gaps = reader.open_gaps(now.plus_ms(-GAP_MS))?;
    Ok(gaps.into_iter().filter(|gap| gap.reported_at.is_none() && read_to_end.contains(&gap.from)).collect())
}

impl Node {
    /// True when the ledger has anything to learn from this pass.
    fn is_news(&self, seen: &Seen) -> Result<bool, LedgerError> {
        let rolled_back = match seen.own_head {
            Some(head) => beating::rolled_back(&self.ledger, head)?,
            None => false,
        };
        if rolled_back
            || !seen.heard.is_empty()
            || !seen.looked.ended.is_empty()
            || !seen.looked.started.is_empty()
            || !seen.judged.is_empty()
            || !seen.words.is_empty()
            || !seen.claimed.is_empty()
            || !self.moved.is_empty()
            || !self.squatted.is_empty()
            || self.has_chore_news()
            || self.recheck_terms
            || chores::drain_can_step(&self.ledger, seen.now)?
            || (!self.home.clock_suspect && chores::clock_mark_is_old(&self.ledger.meta()?.clock, seen.now))
            || tripping::is_news(&self.ledger, &seen.switches, self.latch())?
        {
            return Ok(true);
        }
        let can_lease = !self.is_held_back() && self.reach == Reach::Here && self.free_places()? > 0;
        if can_lease && !self.ledger.queue(seen.now)?.is_empty() {
            return Ok(true);
        }
        let late = !self.home.clock_suspect && self.ledger.next_expiry()?.is_some_and(|at| seen.now >= at);
        let counted = self.refusals.values().any(|(last, count)| is_audit_due(*last, *count, seen.now));
        Ok(late || counted || !late_gaps(&self.ledger, &self.read_to_end, seen.now)?.is_empty())
    }

    fn free_places(&self) -> Result<usize, LedgerError> {
        let open = self.ledger.open_attempts()?.len();
        Ok(usize::try_from(self.home.config.exec.max_parallel).unwrap_or(usize::MAX).saturating_sub(open))
    }

    /// One transaction for everything of a pass: group commit. Where the ledger has no room or is busy, nothing of it
    /// happened, and what was found is found again.
    pub(crate) fn transact(&mut self, mut seen: Seen) -> Result<After, Leave> {
        if !self.is_news(&seen)? {
            return Ok(After::default());
        }
        let (fence, now) = (self.fence(), seen.now);
        let may_act = self.higher_since.is_none() && self.node_state()? != NodeState::Recovery;
        let refusals = self.count_refusals(&seen, now);
        let learned = Learned {
            moved: std::mem::take(&mut self.moved),
            news: self.take_chore_news(),
            squatted: std::mem::take(&mut self.squatted),
            recheck: std::mem::take(&mut self.recheck_terms),
            refusals,
        };
        seen.looked.ended.retain(|ended| !self.is_contained(&ended.row.key));
        let rules = Rules {
            home: &self.home,
            stopped: &self.stopped,
            latch: self.latch(),
            only: self.only,
            host_boot_id: &self.host_boot_id,
            read_to_end: &self.read_to_end,
            may_act,
            share_is_here: self.reach == Reach::Here,
        };
        match self.ledger.write(fence, now, |tx| rules.apply(tx, seen, &learned)) {
            Ok(after) => Ok(after),
            Err(error) => {
                self.moved = learned.moved;
                self.chores_put_back(learned.news);
                self.squatted = learned.squatted;
                self.recheck_terms = learned.recheck;
                Err(Leave::Ledger(error))
            }
        }
    }

    /// How many unanswered refusals of each code are due to be audited now.
    fn count_refusals(&mut self, seen: &Seen, now: Timestamp) -> Vec<(&'static str, u64)> {
        let of_tasks = seen.judged.iter().filter_map(|(_, judged)| match judged {
            Judged::Refused { code, .. } => Some(*code),
            Judged::Good { .. } | Judged::Answered { .. } | Judged::Replayed { .. } | Judged::Later => None,
        });
        let of_words = seen.words.iter().filter_map(|(_, word)| match word {
            JudgedWord::Refused { code, .. } => Some(*code),
            JudgedWord::Decision { .. } | JudgedWord::Cancel { .. } | JudgedWord::Later => None,
        });
        for code in of_tasks.chain(of_words) {
            let entry = self.refusals.entry(code).or_insert((Timestamp::from_unix_ms(0), 0));
            entry.1 = entry.1.saturating_add(1);
        }
        let mut due = Vec::new();
        for (code, (last, count)) in &mut self.refusals {
            if is_audit_due(*last, *count, now) {
                due.push((*code, *count));
                (*last, *count) = (now, 0);
            }
        }
        due
    }

    /// Does what the transaction decided.
    pub(crate) fn act(&mut self, after: After, now: Timestamp) -> Result<(), Leave> {
        self.contained.retain(|_, since| since.elapsed() < CONTAINED_FOR);
        self.contained.extend(after.failed.into_iter().map(|key| (key, Instant::now())));
        // A person who waits for an answer waits for what follows from it, too; what the budget of a pass left lies there.
        self.again |= !after.replies.is_empty() || after.left_some;
        for launch in &after.launches {
            self.launch(launch);
        }
        self.stop_cancelled(now)?;
        self.stop_killed(now)?;
        for (peer, refuse) in after.refuse {
            self.clear_file(&peer, &refuse.file.clone(), move |share| filing::refuse(share, &refuse));
        }
        for (peer, file) in after.discard {
            self.clear_file(&peer, &file.clone(), move |share| {
                filing::discard(share, std::slice::from_ref(&file))
            });
        }
        for (id, answer) in &after.replies {
            if let Err(error) = self.door.reply(*id, answer) {
                tracing::warn!(%error, "a request could not be answered; it is answered again");
            }
        }
        self.reload_wanted |= after.reload;
        if self.higher_since.is_none() {
            self.move_files()?;
            self.start_chores(now)?;
        }
        self.beat(now)
    }

    fn launch(&mut self, launch: &Launch) {
        let (key, epoch) = (&launch.key, launch.attempt.epoch);
        let prepared = self.order_of(launch);
        let started = match prepared {
            Ok(Some((order, request))) => {
                running::launch(&self.executor, self.home.config.state.path(), &order, request.as_bytes())
            }
            Ok(None) => {
                tracing::warn!(%key, epoch, "the task's recipe or request cannot be read back");
                self.again = true;
                return;
            }
            Err(error) => {
                tracing::warn!(%key, epoch, %error, "the task cannot be read from the ledger");
                self.again = true;
                return;
            }
        };
        match started {
            Ok(child) => {
                self.executors.insert(epoch, child);
                self.look_soon = Some(Instant::now());
            }
            // The next pass finds the lease without an executor and gives it back, with its back-off.
            Err(error) => {
                tracing::warn!(%key, epoch, error = %dispatch_node::report::one_line(&error), "an executor could not be started");
                self.again = true;
            }
        }
    }

    fn order_of(&self, launch: &Launch) -> Result<Option<(dispatch_node::job::Order, String)>, LedgerError> {
        let key = &launch.key;
        let Some(row) = self.ledger.task(key)? else { return Ok(None) };
        let Some(recipe) = self.ledger.recipe(key)?.and_then(|text| recipes::parse(&text)) else {
            return Ok(None);
        };
        let Some(envelope) = self.ledger.envelope(key)? else { return Ok(None) };
        let Some(task) = stored_task(&envelope) else { return Ok(None) };
        let facts = OrderFacts {
            node: &self.home.node,
            from: &key.from,
            task: key.id,
            task_sha256: row.digest,
            attempt: launch.attempt.n,
            epoch: launch.attempt.epoch,
            mark: &launch.attempt.mark,
            ceiling_usd: row.cost.ceiling_usd,
        };
        Ok(recipes::order(&self.home.config, recipe, &facts).map(|order| (order, task.request)))
    }

    fn stop(&self, key: &TaskKey, epoch: u64, why: StopWhy, now: Timestamp) {
        let job = JobDir::at(self.home.config.state.path(), &key.from, key.id, epoch);
        match job.read_stop() {
            Ok(Some(known)) if known.why == why || known.why == StopWhy::Killed => return,
            Ok(_) | Err(_) => {}
        }
        if let Err(error) = job.write_stop(&Stop { why, at: now }) {
            tracing::warn!(%key, epoch, %error, "an attempt could not be told to stop; it is told again");
        }
    }

    /// Tells executors of cancelled tasks to stop, in every pass: a crash may have come between the cancel's commit and
    /// its `stop.json`.
    fn stop_cancelled(&self, now: Timestamp) -> Result<(), LedgerError> {
        for row in self.ledger.open_attempts()? {
            if self.ledger.brief(&row.key)?.is_some_and(|task| task.stop.is_some()) {
                self.stop(&row.key, row.epoch, StopWhy::Cancelled, now);
            }
        }
        Ok(())
    }

    /// Ends what runs under a switch in kill mode, at once: its executor sees the switch only every two seconds.
    fn stop_killed(&self, now: Timestamp) -> Result<(), LedgerError> {
        let kills = self.stopped.node.as_ref().is_some_and(|(mode, _)| *mode == KillMode::Kill)
            || !self.stopped.lanes.is_empty();
        for row in if kills { self.ledger.open_attempts()? } else { Vec::new() } {
            if self.stopped.kills(&row.key.from) {
                self.stop(&row.key, row.epoch, StopWhy::Killed, now);
            }
        }
        Ok(())
    }

    fn clear_file(
        &mut self,
        peer: &NodeName,
        file: &File,
        job: impl FnOnce(&dyn Share) -> Result<(), dispatch_spool::share::ShareError> + Send + 'static,
    ) {
        let tasks: Vec<TaskId> =
            if let File::Lane(_, LaneFile::Inbox(id)) = file { vec![*id] } else { Vec::new() };
        self.clearing.entry(peer.clone()).or_default().extend(tasks.iter().copied());
        let (name, ids) = (peer.clone(), tasks.clone());
        let handed = self.workers.submit(&Place::Peer(peer.clone()), move |share| Reply::Cleared {
            peer: name,
            tasks: ids,
            done: job(share),
        });
        if !handed && let Some(clearing) = self.clearing.get_mut(peer) {
            clearing.retain(|id| !tasks.contains(id));
        }
    }

    /// Files and answers what the ledger says is due.
    fn move_files(&mut self) -> Result<(), Leave> {
        if matches!(self.reach, Reach::Unreachable(_)) {
            return Ok(());
        }
        // Rows that cannot move (a sender that is no peer any more) take no place from those that can.
        for brief in self.ledger.unfiled(usize::MAX)? {
            if self.may_move(&brief.key) {
                self.file(&brief)?;
            }
        }
        for brief in self.ledger.unpublished(usize::MAX)? {
            if self.may_move(&brief.key) {
                self.answer(&brief)?;
            }
        }
        Ok(())
    }

    fn may_move(&self, key: &TaskKey) -> bool {
        self.moving.len() < MOVES_MAX && !self.moving.contains(key)
    }

    fn file(&mut self, brief: &TaskBrief) -> Result<(), Leave> {
        let key = &brief.key;
        let Some(peer) = self.home.peers.get(&key.from) else { return Ok(()) };
        let Some(envelope) = self.ledger.envelope(key)? else { return Ok(()) };
        let place = filed_as(brief);
        let terms = match (place, peer.ring_in.signing()) {
            (Filed::PendingAck, Some(signing)) => {
                self.ledger.terms(key)?.map(|payload| seal(Kind::Terms, &payload, &[signing]))
            }
            _ => None,
        };
        let job = FileTask { key: key.clone(), lane: peer.lane_in.clone(), place, envelope, terms };
        let handed = self.workers.submit(&Place::Peer(key.from.clone()), move |share| Reply::Filed {
            place,
            laid: filing::lay(share, &job),
        });
        if handed {
            self.moving.insert(key.clone());
        }
        Ok(())
    }

    fn answer(&mut self, brief: &TaskBrief) -> Result<(), Leave> {
        let key = &brief.key;
        let Some(peer) = self.home.peers.get(&key.from) else { return Ok(()) };
        let Some(signing) = peer.ring_in.signing() else { return Ok(()) };
        let (Some(payload), Some(envelope)) = (self.ledger.result(key)?, self.ledger.envelope(key)?) else {
            return Ok(());
        };
        let job = AnswerTask {
            key: key.clone(),
            lane: peer.lane_in.clone(),
            envelope,
            result: seal(Kind::Result, &payload, &[signing]),
            is_mine: is_mine(peer, payload),
            log: self.log_of(key)?,
        };
        let handed = self.workers.submit(&Place::Peer(key.from.clone()), move |share| {
            Reply::Answered(filing::answer(share, &job))
        });
        if handed {
            self.moving.insert(key.clone());
        }
        Ok(())
    }

    fn log_of(&self, key: &TaskKey) -> Result<Option<(std::path::PathBuf, u64)>, LedgerError> {
        let attempts = self.ledger.attempts(key)?;
        let Some(last) = attempts.iter().rev().find(|attempt| attempt.started_at.is_some()) else {
            return Ok(None);
        };
        let job = JobDir::at(self.home.config.state.path(), &key.from, key.id, last.epoch);
        let told = last.outcome.as_deref().and_then(|text| serde_json::from_str::<Outcome>(text).ok());
        let bytes = match told {
            Some(outcome) => outcome.log_bytes,
            // Nobody said how long it is: what is there is all there is.
            None => std::fs::metadata(job.log_path()).map_or(0, |meta| meta.len()),
        };
        Ok((bytes > 0).then(|| (job.log_path(), bytes)))
    }
}

/// Where a task that is not final lies.
pub(crate) fn filed_as(brief: &TaskBrief) -> Filed {
    if brief.state == TaskState::AwaitingApproval { Filed::PendingAck } else { Filed::Processing }
}

/// The task in bytes that were verified when they were accepted: the key that sealed them may be retired since.
pub(crate) fn stored_task(envelope: &[u8]) -> Option<Task> {
    let raw = RawEnvelope::read(Kind::Task, envelope).ok()?;
    Task::from_stored(raw.unverified_payload()).ok()
}

/// Tells my own result, sealed another day, from somebody else's bytes.
fn is_mine(peer: &PeerHome, payload: Vec<u8>) -> filing::IsMine {
    let ring = peer.ring_in.clone();
    Box::new(move |bytes| {
        let Ok(raw) = RawEnvelope::read(Kind::Result, bytes) else { return WhatStands::Foreign };
        let Ok(verified) = raw.verify_lane(&ring) else { return WhatStands::Foreign };
        let Ok(opened) = verified.parse::<TaskResult>() else { return WhatStands::Foreign };
        if opened.bytes() == payload.as_slice() {
            return WhatStands::Mine;
        }
        let mine = TaskResult::from_stored(&payload);
        match (opened.within_limits(), mine) {
            (Ok(theirs), Ok(mine)) if theirs.payload().task == mine.task => WhatStands::MineButOther,
            _ => WhatStands::Foreign,
        }
    })
}

/// Runs one task's part of the transaction; a failure that is only its own is undone, noted, and stops nobody else.
pub(crate) fn contain(
    tx: &mut Tx<'_>,
    failed: &mut Vec<TaskKey>,
    key: &TaskKey,
    part: impl FnOnce(&mut Tx<'_>) -> Result<(), LedgerError>,
) -> Result<(), LedgerError> {
    match tx.contained(part) {
        Ok(()) => Ok(()),
        Err(error) if error.disposition() == Disposition::Quarantine => {
            tracing::error!(%key, error = %dispatch_node::report::one_line(&error), "a task could not be handled; it is left alone for a while");
            failed.push(key.clone());
            Ok(())
        }
        Err(error) => Err(error),
    }
}

fn mark_moved(tx: &mut Tx<'_>, moved: &Moved) -> Result<(), LedgerError> {
    match moved {
        Moved::Filed(key, place, alarms) => {
            // A task whose state moved on meanwhile is filed again.
            let _filed = tx.mark_filed(key, *place)?;
            alarm(tx, key, alarms)
        }
        Moved::Answered(key, alarms) => {
            tx.mark_published(key)?;
            alarm(tx, key, alarms)
        }
    }
}

fn alarm(tx: &mut Tx<'_>, key: &TaskKey, alarms: &[Alarm]) -> Result<(), LedgerError> {
    for alarm in alarms {
        match alarm {
            Alarm::Squatted { file } => {
                let data = json!({"file": file.path().to_string_lossy()});
                tx.audit(&Entry::of("squatted").task(key).code("squatted").data(data))?;
            }
            Alarm::ResultConflict => {
                tx.audit(&Entry::of("result_conflict").task(key).code("result_conflict"))?;
            }
        }
    }
    Ok(())
}

fn is_audit_due(last: Timestamp, count: u64, now: Timestamp) -> bool {
    count > 0 && now.since_ms(last).saturating_abs() >= REFUSAL_AUDIT_MS
}

/// Records what people and senders said, then does what all of it together comes to.
fn take_words(
    tx: &mut Tx<'_>,
    home: &Home,
    words: Vec<(NodeName, JudgedWord)>,
    after: &mut After,
) -> Result<(), LedgerError> {
    let mut decided = BTreeSet::new();
    for (peer, word) in words {
        match word {
            JudgedWord::Decision { key, key16, decision, file } => {
                contain(tx, &mut after.failed, &key, |tx| deciding::record(tx, &key, key16, &decision))?;
                decided.insert(key);
                after.discard.push((peer, file));
            }
            JudgedWord::Cancel { key, control, file } => {
                contain(tx, &mut after.failed, &key, |tx| {
                    deciding::cancel_by_peer(tx, home, &key, &control).map(drop)
                })?;
                after.discard.push((peer, file));
            }
            JudgedWord::Refused { file, digest, code } => after.refuse(peer, Refuse { file, digest, code }),
            JudgedWord::Later => {}
        }
    }
    for key in &decided {
        contain(tx, &mut after.failed, key, |tx| deciding::act_on(tx, home, key))?;
    }
    Ok(())
}

fn take_tasks(
    tx: &mut Tx<'_>,
    home: &Home,
    judged: Vec<(NodeName, Judged)>,
    after: &mut After,
) -> Result<(), LedgerError> {
    let mut places = Places::of(tx, home)?;
    for (peer, judged) in judged {
        match judged {
            Judged::Good { file, task } => {
                let key = TaskKey { from: task.payload().from.clone(), id: task.payload().id };
                if places.has_one_for(&peer) {
                    contain(tx, &mut after.failed, &key, |tx| taking::take(tx, home, &file, &task))?;
                    places.note(&peer, tx.brief(&key)?.map(|brief| brief.state));
                }
            }
            Judged::Answered { file, known, status, why } => {
                let key = TaskKey { from: known.lane.from.clone(), id: known.id };
                contain(tx, &mut after.failed, &key, |tx| {
                    taking::answer(tx, home, &file, &known, status, &why)
                })?;
            }
            Judged::Replayed { key, file } => {
                // The safe retry: where the answer is missing, it is published again.
                contain(tx, &mut after.failed, &key, |tx| {
                    match tx.brief(&key)?.is_some_and(|brief| brief.published_at.is_some()) {
                        true => tx.unmark_published(&key),
                        false => Ok(()),
                    }
                })?;
                after.discard.push((peer, file));
            }
            Judged::Refused { file, digest, code, key } => {
                if let Some(key) = key {
                    tx.audit(&Entry::of("refused").task(&key).code(code))?;
                }
                after.refuse(peer, Refuse { file, digest, code });
            }
            Judged::Later => {}
        }
    }
    Ok(())
}

impl After {
    /// Sets a file aside, unless this pass has set aside enough; the next one comes at once then.
    fn refuse(&mut self, peer: NodeName, refuse: Refuse) {
        if self.refuse.len() < REFUSALS_MAX {
            self.refuse.push((peer, refuse));
        } else {
            self.left_some = true;
        }
    }
}

/// The places that each sender's lane has left (policy section 6), counted while a pass takes.
struct Places {
    open: BTreeMap<NodeName, u64>,
    waiting: BTreeMap<NodeName, u64>,
    max_open: u64,
    max_waiting: u64,
}

impl Places {
    fn of(reader: &Reader, home: &Home) -> Result<Places, LedgerError> {
        let limits = home.config.limits;
        let mut places = Places {
            open: BTreeMap::new(),
            waiting: BTreeMap::new(),
            max_open: limits.max_queued.into(),
            max_waiting: limits.max_waiting.into(),
        };
        for row in reader.open_counts()? {
            places.add(&row.from, row.state, row.count);
        }
        Ok(places)
    }

    fn add(&mut self, from: &NodeName, state: TaskState, count: u64) {
        if state.is_final() {
            return;
        }
        let open = self.open.entry(from.clone()).or_default();
        *open = open.saturating_add(count);
        if state == TaskState::AwaitingApproval {
            let waiting = self.waiting.entry(from.clone()).or_default();
            *waiting = waiting.saturating_add(count);
        }
    }

    fn has_one_for(&self, from: &NodeName) -> bool {
        let of = |counts: &BTreeMap<NodeName, u64>| counts.get(from).copied().unwrap_or(0);
        of(&self.open) < self.max_open && of(&self.waiting) < self.max_waiting
    }

    fn note(&mut self, from: &NodeName, taken: Option<TaskState>) {
        if let Some(state) = taken {
            self.add(from, state, 1);
        }
    }
}
