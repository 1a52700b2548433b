//! What follows a pass's transaction outside the ledger: executors started and stopped, files moved, requests answered.

use dispatch_core::policy::lifecycle::TaskState;
use dispatch_core::protocol::heartbeat::KillMode;
use dispatch_core::protocol::names::{NodeName, TaskId};
use dispatch_core::protocol::payload::{Kind, Payload as _};
use dispatch_core::protocol::result::TaskResult;
use dispatch_core::protocol::seal::{RawEnvelope, seal};
use dispatch_core::protocol::task::Task;
use dispatch_core::protocol::time::Timestamp;
use dispatch_core::protocol::v2;
use dispatch_ledger::{Filed, LedgerError, TaskBrief, TaskKey};
use dispatch_node::job::{JobDir, Outcome, Stop, StopWhy};
use dispatch_spool::layout::{File, LaneFile};
use dispatch_spool::share::Share;
use std::time::{Duration, Instant};

use crate::filing::{self, AnswerTask, FileTask, Log, Mirrors, WhatStands};
use crate::home::{Home, PeerHome};
use crate::leasing::{self, Launch};
use crate::node::{CONTAINED_FOR, Leave, Node, Reach};
use crate::pass::After;
use crate::recipes::{self, OrderFacts};
use crate::reply::Reply;
use crate::workers::Place;

/// Tasks that are filed or answered at the same time; the rest come as these are done. A look at a lane waits behind them.
const MOVES_MAX: usize = 128;

/// A task that was taken so lately is not filed yet, unless a person has to see it: the disk is busy with its start, and
/// most short tasks are answered by then.
const FILED_AFTER: Duration = Duration::from_millis(250);

impl Node {
    /// Does what the transaction decided.
    pub(crate) fn act(&mut self, after: After, now: Timestamp) -> Result<(), Leave> {
        self.contained.retain(|_, since| since.elapsed() < CONTAINED_FOR);
        self.contained.extend(after.failed.into_iter().map(|key| (key, Instant::now())));
        self.couriers.leave_alone(after.failed_children);
        for epoch in after.told_near {
            self.executors.told_near(epoch);
        }
        // A person who waits for an answer waits for what follows from it, too; what the budget of a pass left lies there.
        self.again |= !after.replies.is_empty() || after.left_some;
        if let Some(batch) = after.tell {
            self.herald.start(&self.home, batch);
        }
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
        self.answer_agents(after.answers);
        self.tend_doors()?;
        self.reload_wanted |= after.reload;
        if self.higher_since.is_none() {
            self.move_files(now)?;
            self.start_couriers(now)?;
            self.start_chores(now)?;
        }
        self.expect_reporting()?;
        self.beat(now)?;
        Ok(self.write_metrics(now)?)
    }

    fn launch(&mut self, launch: &Launch) {
        let (key, epoch) = (&launch.key, launch.attempt.epoch);
        let prepared = self.order_of(launch);
        let started = match prepared {
            Ok(Some((order, request))) => {
                leasing::launch(&self.executor, self.home.config.state.path(), &order, request.as_bytes())
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
                self.gauges.launches = self.gauges.launches.saturating_add(1);
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
        let Some(task) = stored_task(&self.home, key, &envelope) else { return Ok(None) };
        let facts = OrderFacts {
            node: &self.home.node,
            from: &key.from,
            task: key.id,
            task_sha256: row.digest,
            attempt: launch.attempt.n,
            epoch: launch.attempt.epoch,
            mark: &launch.attempt.mark,
            token: launch.token.as_deref(),
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
        for row in self.ledger.open_runs()? {
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
        for row in if kills { self.ledger.open_runs()? } else { Vec::new() } {
            if self.stopped.kills(&row.key.from) {
                self.stop(&row.key, row.epoch, StopWhy::Killed, now);
            }
        }
        Ok(())
    }

    /// Why a task of this node is to be stopped, where it is.
    pub(crate) fn stop_of(&self, key: &TaskKey) -> Result<Option<String>, LedgerError> {
        if self.stopped.kills(&key.from) {
            return Ok(Some("a killswitch".to_owned()));
        }
        Ok(self.ledger.task(key)?.and_then(|row| row.stop).map(|stop| format!("cancelled by {}", stop.by)))
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
    fn move_files(&mut self, now: Timestamp) -> Result<(), Leave> {
        if matches!(self.reach, Reach::Unreachable(_)) {
            return Ok(());
        }
        // Rows that cannot move (a sender that is no peer any more) take no place from those that can. Somebody waits for
        // an answer; nobody does for a task to be filed.
        for brief in self.ledger.unpublished(usize::MAX)? {
            if self.may_move(&brief.key) {
                self.answer(&brief)?;
            }
        }
        for brief in self.ledger.unfiled(usize::MAX)? {
            let rest = rest_before_filing(&brief, now);
            if rest > Duration::ZERO {
                let at = Instant::now().checked_add(rest);
                self.file_at = self.file_at.into_iter().chain(at).min();
            } else if self.may_move(&brief.key) {
                self.file(&brief)?;
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
        let terms = match (place, peer.ring_terms.signing()) {
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
        let (Some(payload), Some(envelope)) = (self.ledger.result(key)?, self.ledger.envelope(key)?) else {
            return Ok(());
        };
        let Some((result, is_mine)) = answer_of(peer, payload) else { return Ok(()) };
        let job = AnswerTask {
            key: key.clone(),
            lane: peer.lane_in.clone(),
            envelope,
            result,
            is_mine,
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

    fn log_of(&self, key: &TaskKey) -> Result<Log, LedgerError> {
        let attempts = self.ledger.attempts(key)?;
        let mut started = attempts.iter().rev().filter(|attempt| attempt.started_at.is_some());
        let Some(last) = started.next() else {
            return Ok(Log { path: None, bytes: 0, mirrors: Mirrors::OfOne });
        };
        let mirrors = if started.next().is_some() { Mirrors::OfSeveral } else { Mirrors::OfOne };
        let job = JobDir::at(self.home.config.state.path(), &key.from, key.id, last.epoch);
        let told = last.outcome.as_deref().and_then(|text| serde_json::from_str::<Outcome>(text).ok());
        let bytes = match told {
            Some(outcome) => outcome.log_bytes,
            // Nobody said how long it is: what is there is all there is.
            None => std::fs::metadata(job.log_path()).map_or(0, |meta| meta.len()),
        };
        Ok(Log { path: (bytes > 0).then(|| job.log_path()), bytes, mirrors })
    }
}

/// How long a task still waits before it is filed. A clock that was set back makes nothing young.
fn rest_before_filing(brief: &TaskBrief, now: Timestamp) -> Duration {
    let age = u64::try_from(now.since_ms(brief.accepted_at)).map_or(FILED_AFTER, Duration::from_millis);
    match filed_as(brief) {
        Filed::PendingAck => Duration::ZERO,
        Filed::Processing => FILED_AFTER.saturating_sub(age),
    }
}

/// Where a task that is not final lies.
pub(crate) fn filed_as(brief: &TaskBrief) -> Filed {
    if brief.state == TaskState::AwaitingApproval { Filed::PendingAck } else { Filed::Processing }
}

/// The task in bytes that were verified when they were accepted: the key that sealed them may be retired since.
pub(crate) fn stored_task(home: &Home, key: &TaskKey, envelope: &[u8]) -> Option<Task> {
    // By its bytes, not by its peer: that may speak another version since.
    if v2::is_flat(envelope) {
        let bounds = home.bounds(&key.from).unwrap_or(v2::Bounds::TIGHTEST);
        return v2::read_stored(envelope, home.cluster, bounds).map(|(task, _)| task);
    }
    let raw = RawEnvelope::read(Kind::Task, envelope).ok()?;
    Task::from_stored(raw.unverified_payload()).ok()
}

/// The file of a result as its reader expects it, and what tells it from other bytes. `None` without a key to seal with.
fn answer_of(peer: &PeerHome, payload: Vec<u8>) -> Option<(Vec<u8>, filing::IsMine)> {
    if peer.flat.is_some() {
        let flat = v2::write_result(&TaskResult::from_stored(&payload).ok()?);
        let mine = flat.clone();
        // Nobody signs it, so only the very same bytes are mine.
        let is_mine = move |bytes: &[u8]| if bytes == mine { WhatStands::Mine } else { WhatStands::Foreign };
        return Some((flat, Box::new(is_mine)));
    }
    let signing = peer.ring_in.signing()?;
    Some((seal(Kind::Result, &payload, &[signing]), is_mine(peer, payload)))
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
