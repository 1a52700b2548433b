//! The transaction of a pass, and what follows it outside.

use dispatch_core::protocol::heartbeat::{KillMode, NodeState};
use dispatch_core::protocol::names::{NodeName, TaskId};
use dispatch_core::protocol::payload::{Kind, Payload as _};
use dispatch_core::protocol::result::TaskResult;
use dispatch_core::protocol::seal::{RawEnvelope, seal};
use dispatch_core::protocol::task::Task;
use dispatch_core::protocol::time::{MINUTE_MS, SECOND_MS, Timestamp};
use dispatch_ledger::{Disposition, Entry, Filed, LedgerError, TaskBrief, TaskKey, Tx};
use dispatch_node::door::Claimed;
use dispatch_node::job::{JobDir, Outcome, Stop, StopWhy};
use dispatch_spool::layout::{File, LaneFile};
use dispatch_spool::share::Share;
use serde_json::json;
use std::time::Instant;

use crate::attempts::Looked;
use crate::beating::{self, Heard};
use crate::chores;
use crate::deciding::{self, JudgedWord};
use crate::door;
use crate::filing::{self, Alarm, AnswerTask, FileTask, Refuse, WhatStands};
use crate::home::PeerHome;
use crate::node::{Leave, Moved, Node, Reach};
use crate::recipes::{self, OrderFacts};
use crate::reply::Reply;
use crate::running::{self, Launch};
use crate::taking::{self, Judged};
use crate::terms;
use crate::tripping::{self, Switches};
use crate::workers::Place;

/// Tasks filed or answered in one pass; the rest come in the next.
const MOVES_MAX: usize = 256;
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
    pub(crate) looked: Looked,
    pub(crate) judged: Vec<(NodeName, Judged)>,
    pub(crate) words: Vec<(NodeName, JudgedWord)>,
    pub(crate) claimed: Vec<Claimed>,
}

/// What the transaction leaves to be done outside.
#[derive(Default)]
pub(crate) struct After {
    launches: Vec<Launch>,
    stops: Vec<(TaskKey, u64, StopWhy)>,
    refuse: Vec<(NodeName, Refuse)>,
    discard: Vec<(NodeName, File)>,
    pub(crate) replies: Vec<(uuid::Uuid, dispatch_node::door::Answer)>,
    pub(crate) reload: bool,
    failed: Vec<TaskKey>,
}

impl Node {
    /// True when the ledger has anything to learn from this pass.
    fn is_news(&self, seen: &Seen) -> Result<bool, LedgerError> {
        if !seen.heard.is_empty()
            || !seen.looked.ended.is_empty()
            || !seen.looked.started.is_empty()
            || !seen.judged.is_empty()
            || !seen.words.is_empty()
            || !seen.claimed.is_empty()
            || !self.moved.is_empty()
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
        let late = self.ledger.waiting()?.iter().any(|row| seen.now >= row.expires);
        let gaps = self.ledger.open_gaps(seen.now.plus_ms(-GAP_MS))?;
        Ok(late || gaps.iter().any(|gap| gap.reported_at.is_none()))
    }

    fn free_places(&self) -> Result<usize, LedgerError> {
        let open = self.ledger.open_attempts()?.len();
        Ok(usize::try_from(self.home.config.exec.max_parallel).unwrap_or(usize::MAX).saturating_sub(open))
    }

    /// One transaction for everything of a pass: group commit.
    pub(crate) fn transact(&mut self, seen: Seen) -> Result<After, Leave> {
        let mut after = After::default();
        if !self.is_news(&seen)? {
            return Ok(after);
        }
        let (fence, now) = (self.fence(), seen.now);
        let moved = std::mem::take(&mut self.moved);
        let news = self.take_chore_news();
        let host_boot_id = self.host_boot_id.clone();
        let recheck = std::mem::take(&mut self.recheck_terms);
        let refusals = self.count_refusals(&seen, now);
        let superseded = self.higher_since.is_some();
        let may_act = !superseded && self.node_state()? != NodeState::Recovery;
        let (home, stopped, reach, latch, only) =
            (&self.home, &self.stopped, &self.reach, self.latch(), self.only);
        self.ledger
            .write(fence, now, |tx| {
                tripping::record(tx, &seen.switches, latch)?;
                if recheck {
                    terms::recheck(tx, home)?;
                }
                if !home.clock_suspect && chores::clock_mark_is_old(&tx.meta()?.clock, now) {
                    chores::note_clock(tx, &host_boot_id)?;
                }
                chores::note(tx, &news)?;
                for heard in &seen.heard {
                    beating::note(tx, home, heard)?;
                }
                for (key, alarms) in mark_moved(tx, &moved)? {
                    alarm(tx, &key, &alarms)?;
                }
                for (code, count) in &refusals {
                    tx.audit(&Entry::of("refused").code(code).data(json!({"count": count})))?;
                }
                if may_act {
                    for (epoch, at) in &seen.looked.started {
                        drop(tx.contained(|tx| tx.mark_started(*epoch, *at)));
                    }
                    for ended in &seen.looked.ended {
                        contain(tx, &mut after.failed, &ended.row.key, |tx| {
                            running::settle(tx, home, ended)
                        })?;
                    }
                }
                let asked = door::apply(tx, home, &seen.switches, &seen.claimed)?;
                (after.replies, after.stops, after.reload) = (asked.replies, asked.stops, asked.reload);
                if may_act {
                    take_words(tx, home, seen.words, &mut after)?;
                    take_tasks(tx, home, seen.judged, &mut after)?;
                    deciding::expire_waiting(tx, home)?;
                    report_gaps(tx, now)?;
                    chores::step_drain(tx)?;
                }
                let is_active = tx.meta()?.drain.state == NodeState::Active && tx.meta()?.recovery.is_none();
                if may_act && is_active && *reach == Reach::Here {
                    let open = tx.open_attempts()?.len();
                    let max = usize::try_from(home.config.exec.max_parallel).unwrap_or(usize::MAX);
                    let held = |from: &NodeName| stopped.stops(from);
                    after.launches = running::lease(tx, home, max.saturating_sub(open), only, &held)?;
                }
                Ok(())
            })
            .map_err(Leave::Ledger)?;
        Ok(after)
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
            if *count > 0 && now.since_ms(*last) >= REFUSAL_AUDIT_MS {
                due.push((*code, *count));
                (*last, *count) = (now, 0);
            }
        }
        due
    }

    /// Does what the transaction decided.
    pub(crate) fn act(&mut self, after: After, now: Timestamp) -> Result<(), Leave> {
        for key in after.failed {
            self.contained.insert(key, Instant::now());
        }
        for launch in &after.launches {
            self.launch(launch);
        }
        for (key, epoch, why) in &after.stops {
            self.stop(key, *epoch, *why, now);
        }
        self.stop_killed(now)?;
        for (peer, refuse) in after.refuse {
            self.clear_file(&peer, refuse.file.clone(), move |share| filing::refuse(share, &refuse));
        }
        for (peer, file) in after.discard {
            self.clear_file(&peer, file.clone(), move |share| {
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
                return;
            }
            Err(error) => {
                tracing::warn!(%key, epoch, %error, "the task cannot be read from the ledger");
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
        file: File,
        job: impl FnOnce(&dyn Share) -> Result<(), dispatch_spool::share::ShareError> + Send + 'static,
    ) {
        let tasks: Vec<TaskId> = match &file {
            File::Lane(_, LaneFile::Inbox(id)) => vec![*id],
            _ => Vec::new(),
        };
        self.clearing.entry(peer.clone()).or_default().extend(tasks.iter().copied());
        let (name, ids) = (peer.clone(), tasks.clone());
        let handed = self.workers.submit(Place::Peer(peer.clone()), move |share| Reply::Cleared {
            peer: name,
            tasks: ids,
            done: job(share),
        });
        if !handed && let Some(clearing) = self.clearing.get_mut(peer) {
            tasks.iter().for_each(|id| drop(clearing.remove(id)));
        }
    }

    /// Files and answers what the ledger says is due.
    fn move_files(&mut self) -> Result<(), Leave> {
        if matches!(self.reach, Reach::Unreachable(_)) {
            return Ok(());
        }
        for brief in self.ledger.unfiled(MOVES_MAX)? {
            if !self.moving.contains(&brief.key) {
                self.file(&brief)?;
            }
        }
        for brief in self.ledger.unpublished(MOVES_MAX)? {
            if !self.moving.contains(&brief.key) {
                self.answer(&brief)?;
            }
        }
        Ok(())
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
        let handed = self.workers.submit(Place::Peer(key.from.clone()), move |share| Reply::Filed {
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
        let handed = self
            .workers
            .submit(Place::Peer(key.from.clone()), move |share| Reply::Answered(filing::answer(share, &job)));
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
    if brief.state == dispatch_core::policy::lifecycle::TaskState::AwaitingApproval {
        Filed::PendingAck
    } else {
        Filed::Processing
    }
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
fn contain(
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

fn mark_moved(tx: &mut Tx<'_>, moved: &[Moved]) -> Result<Vec<(TaskKey, Vec<Alarm>)>, LedgerError> {
    let mut alarms = Vec::new();
    for entry in moved {
        match entry {
            Moved::Filed(key, place, found) => {
                // A task whose state moved on meanwhile is filed again.
                let _filed = tx.mark_filed(key, *place)?;
                alarms.push((key.clone(), found.clone()));
            }
            Moved::Answered(key, found) => {
                tx.mark_published(key)?;
                alarms.push((key.clone(), found.clone()));
            }
        }
    }
    Ok(alarms)
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

fn report_gaps(tx: &mut Tx<'_>, now: Timestamp) -> Result<(), LedgerError> {
    for gap in tx.open_gaps(now.plus_ms(-GAP_MS))? {
        if gap.reported_at.is_none() {
            tx.audit(&Entry::of("stream_gap").from(&gap.from).code("stream_gap").data(json!({
                "stream": gap.stream.to_string(), "first": gap.first, "last": gap.last,
            })))?;
            tx.mark_gap_reported(&gap)?;
        }
    }
    Ok(())
}

fn take_words(
    tx: &mut Tx<'_>,
    home: &crate::home::Home,
    words: Vec<(NodeName, JudgedWord)>,
    after: &mut After,
) -> Result<(), LedgerError> {
    for (peer, word) in words {
        match word {
            JudgedWord::Decision { key, key16, decision, file } => {
                contain(tx, &mut after.failed, &key, |tx| {
                    deciding::decide(tx, home, &key, key16, &decision)
                })?;
                after.discard.push((peer, file));
            }
            JudgedWord::Cancel { key, control, file } => {
                let mut epoch = None;
                contain(tx, &mut after.failed, &key, |tx| {
                    epoch = deciding::cancel_by_peer(tx, home, &key, &control)?;
                    Ok(())
                })?;
                after.stops.extend(epoch.map(|epoch| (key, epoch, StopWhy::Cancelled)));
                after.discard.push((peer, file));
            }
            JudgedWord::Refused { file, digest, code } => {
                if after.refuse.len() < REFUSALS_MAX {
                    after.refuse.push((peer, Refuse { file, digest, code }));
                }
            }
            JudgedWord::Later => {}
        }
    }
    Ok(())
}

fn take_tasks(
    tx: &mut Tx<'_>,
    home: &crate::home::Home,
    judged: Vec<(NodeName, Judged)>,
    after: &mut After,
) -> Result<(), LedgerError> {
    for (peer, judged) in judged {
        match judged {
            Judged::Good { file, task } => {
                let key = TaskKey { from: task.payload().from.clone(), id: task.payload().id };
                contain(tx, &mut after.failed, &key, |tx| taking::take(tx, home, &file, &task))?;
            }
            Judged::Answered { file, known, status, why } => {
                let key = TaskKey { from: known.lane.from.clone(), id: known.id };
                contain(tx, &mut after.failed, &key, |tx| {
                    taking::answer(tx, home, &file, &known, status, &why)
                })?;
            }
            Judged::Replayed { key, file } => {
                // The safe retry: where the answer is missing, it is published again.
                if tx.brief(&key)?.is_some_and(|brief| brief.published_at.is_some()) {
                    tx.unmark_published(&key)?;
                }
                after.discard.push((peer, file));
            }
            Judged::Refused { file, digest, code, key } => {
                if let Some(key) = key {
                    tx.audit(&Entry::of("refused").task(&key).code(code))?;
                }
                if after.refuse.len() < REFUSALS_MAX {
                    after.refuse.push((peer, Refuse { file, digest, code }));
                }
            }
            Judged::Later => {}
        }
    }
    Ok(())
}
