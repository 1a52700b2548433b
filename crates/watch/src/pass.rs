//! The transaction of a pass: everything that was seen, judged and learned, in one commit.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use dispatch_core::planner::stop::Latch;
use dispatch_core::policy::lifecycle::TaskState;
use dispatch_core::protocol::heartbeat::NodeState;
use dispatch_core::protocol::names::{NodeName, TaskId};
use dispatch_core::protocol::time::{MINUTE_MS, SECOND_MS, Timestamp};
use dispatch_ledger::{Disposition, Entry, Gap, LedgerError, Reader, TaskKey, Tx};
use dispatch_node::door::Claimed;
use dispatch_spool::layout::File;
use serde_json::json;

use crate::agents_door::{self, Answered, Knock};
use crate::attempts::Looked;
use crate::beating::{self, Heard, OwnShown};
use crate::children::{self, ChildNews};
use crate::chores::{self, News};
use crate::deciding::{self, JudgedWord};
use crate::door;
use crate::filing::{Alarm, Refuse};
use crate::guards;
use crate::home::Home;
use crate::leasing::{self, Launch, Turn};
use crate::near;
use crate::node::{Leave, Moved, Node, Reach};
use crate::running;
use crate::taking::{self, Judged};
use crate::telling::{self, Batch, Handed};
use crate::terms;
use crate::tripping::{self, Stopped, Switches};
use crate::unsigned;

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
    pub(crate) own: Option<OwnShown>,
    pub(crate) looked: Looked,
    pub(crate) judged: Vec<(NodeName, Judged)>,
    pub(crate) words: Vec<(NodeName, JudgedWord)>,
    pub(crate) claimed: Vec<Claimed>,
    /// What agents ask for.
    pub(crate) knocks: Vec<Knock>,
}

/// What the transaction leaves to be done outside.
#[derive(Default)]
pub(crate) struct After {
    pub(crate) launches: Vec<Launch>,
    pub(crate) refuse: Vec<(NodeName, Refuse)>,
    pub(crate) discard: Vec<(NodeName, File)>,
    pub(crate) replies: Vec<(uuid::Uuid, dispatch_node::door::Answer)>,
    /// What agents are told.
    pub(crate) answers: Vec<Answered>,
    pub(crate) reload: bool,
    pub(crate) failed: Vec<TaskKey>,
    /// Children whose news could not be noted.
    pub(crate) failed_children: Vec<TaskId>,
    /// What couriers brought was looked at.
    pub(crate) children_noted: bool,
    /// Attempts of which it was told that their ceiling is near.
    pub(crate) told_near: Vec<u64>,
    /// Refused files that the budget of this pass had no room for.
    pub(crate) left_some: bool,
    /// What people are to be told now; `None` where nothing was asked.
    pub(crate) tell: Option<Batch>,
}

/// What this watcher learned since its last transaction and has not told the ledger yet.
struct Learned {
    moved: Vec<Moved>,
    news: Vec<News>,
    /// What couriers brought.
    children: Vec<ChildNews>,
    /// Names of this node, outside any task, that somebody else's bytes stood at.
    squatted: Vec<File>,
    recheck: bool,
    refusals: Vec<(&'static str, u64)>,
    /// How telling people goes.
    handed: Handed,
    /// It is time to see who of the peers is dead.
    peers_due: bool,
    /// An hour began, or the limits may be others: the spending is reviewed although nothing was charged.
    review: bool,
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
        // A rollback that this very transaction noted counts already.
        let may_act = self.may_act && tx.meta()?.recovery.is_none();
        if may_act {
            after.failed_children = self.note_children(tx, &learned.children)?;
            after.children_noted = true;
            self.settle(tx, &seen, &mut after)?;
            if learned.review || !seen.looked.ended.is_empty() {
                guards::review(tx, self.home)?;
            }
        }
        let asked = door::apply(tx, self.home, &seen.switches, &seen.claimed)?;
        (after.replies, after.reload) = (asked.replies, asked.reload);
        if may_act {
            // After what ended: an attempt that is over sends nothing more.
            after.answers = agents_door::apply(tx, self.home, self.stopped, &seen.knocks)?;
            take_words(tx, self.home, seen.words, &mut after)?;
            take_tasks(tx, self.home, seen.judged, &mut after)?;
            self.expire(tx, &mut after.failed)?;
            self.report_gaps(tx)?;
            chores::step_drain(tx)?;
            after.launches = self.lease(tx, &mut after.failed)?;
        }
        telling::waiting(tx, self.home)?;
        after.tell = Some(learned.handed.take(tx, self.home)?);
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
        learned.handed.note(tx)?;
        for tripped in tripping::record(tx, &seen.switches, self.latch)? {
            telling::tripped(tx, self.home, &tripped)?;
        }
        self.note_shown(tx, seen)?;
        if learned.peers_due {
            telling::peers(tx, self.home)?;
        }
        if learned.recheck {
            terms::recheck(tx, self.home, failed)?;
        }
        if !self.home.clock_suspect && chores::clock_mark_is_old(&tx.meta()?.clock, seen.now) {
            chores::note_clock(tx, self.host_boot_id)?;
        }
        chores::note(tx, self.home, &learned.news)?;
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

    /// What this node and its peers showed, which may prove this ledger older.
    fn note_shown(&self, tx: &mut Tx<'_>, seen: &Seen) -> Result<(), LedgerError> {
        let before = tx.meta()?.recovery;
        if let Some(own) = &seen.own {
            beating::remember_if_rolled_back(tx, own.head)?;
        }
        let by_own = tx.meta()?.recovery.is_some();
        for heard in &seen.heard {
            beating::note(tx, self.home, heard)?;
        }
        if before.is_none() && tx.meta()?.recovery.is_some() {
            // A heartbeat of mine that is as old as the ledger says nothing about what was spent since.
            beating::keep_spending(tx, seen.own.as_ref().filter(|_| by_own))?;
        }
        Ok(())
    }

    /// What came of the children of this node's tasks. One that cannot be noted is heard of again after a while.
    fn note_children(&self, tx: &mut Tx<'_>, news: &[ChildNews]) -> Result<Vec<TaskId>, LedgerError> {
        let mut failed = Vec::new();
        for told in news {
            let Some(row) = tx.child(told.id())? else { continue };
            match tx.contained(|tx| children::note(tx, self.home, &row, told)) {
                Err(error) if error.disposition() == Disposition::Quarantine => {
                    let why = dispatch_node::report::one_line(&error);
                    tracing::error!(child = %row.id, error = %why, "what came of a child could not be noted; it is left alone for a while");
                    failed.push(row.id);
                }
                other => other?,
            }
        }
        Ok(failed)
    }

    fn settle(&self, tx: &mut Tx<'_>, seen: &Seen, after: &mut After) -> Result<(), LedgerError> {
        let After { failed, told_near, .. } = after;
        for (key, epoch, at) in &seen.looked.started {
            contain(tx, failed, key, |tx| tx.mark_started(*epoch, *at))?;
        }
        for (key, near) in &seen.looked.near {
            contain(tx, failed, key, |tx| near::note(tx, self.home, key, near).map(drop))?;
            told_near.push(near.epoch);
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
        // A drain that this very transaction noted counts already.
        if !self.share_is_here || meta.drain.state != NodeState::Active {
            return Ok(Vec::new());
        }
        let max = usize::try_from(self.home.config.exec.max_parallel).unwrap_or(usize::MAX);
        let is_held = |from: &NodeName| self.stopped.stops(from);
        let turn =
            Turn { free: max.saturating_sub(tx.open_runs()?.len()), only: self.only, is_held: &is_held };
        leasing::lease(tx, self.home, &turn, failed)
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
        let rolled_back = match &seen.own {
            Some(own) => beating::rolled_back(&self.ledger, own.head)?,
            None => false,
        };
        if rolled_back
            || !seen.heard.is_empty()
            || !seen.looked.ended.is_empty()
            || !seen.looked.started.is_empty()
            || !seen.looked.near.is_empty()
            || !seen.judged.is_empty()
            || !seen.words.is_empty()
            || !seen.claimed.is_empty()
            || !seen.knocks.is_empty()
            || !self.moved.is_empty()
            || !self.squatted.is_empty()
            || self.has_chore_news()
            || self.has_child_news()
            || self.recheck_terms
            || self.is_review_due(seen.now)
            || chores::drain_can_step(&self.ledger, seen.now)?
            || (!self.home.clock_suspect && chores::clock_mark_is_old(&self.ledger.meta()?.clock, seen.now))
            || tripping::is_news(&self.ledger, &seen.switches, self.latch())?
        {
            return Ok(true);
        }
        let has_place = self.free_places()? > 0 || crate::routing::may_forward(&self.home.config);
        let can_lease = !self.is_held_back() && self.reach == Reach::Here && has_place;
        if can_lease && !self.ledger.queue(seen.now)?.is_empty() {
            return Ok(true);
        }
        let late = !self.home.clock_suspect && self.ledger.next_expiry()?.is_some_and(|at| seen.now >= at);
        let counted = self.refusals.values().any(|(last, count)| is_audit_due(*last, *count, seen.now));
        Ok(late || counted || !late_gaps(&self.ledger, &self.read_to_end, seen.now)?.is_empty())
    }

    /// True in the first pass, in the first one of an hour, and when the limits may be others.
    fn is_review_due(&self, now: Timestamp) -> bool {
        self.reviewed_hour != Some(guards::hour_of(now))
    }

    fn free_places(&self) -> Result<usize, LedgerError> {
        let open = self.ledger.open_runs()?.len();
        Ok(usize::try_from(self.home.config.exec.max_parallel).unwrap_or(usize::MAX).saturating_sub(open))
    }

    /// One transaction for everything of a pass: group commit. Where the ledger has no room or is busy, nothing of it
    /// happened, and what was found is found again.
    pub(crate) fn transact(&mut self, mut seen: Seen) -> Result<After, Leave> {
        let dead_after = self.home.config.watch.dead_after;
        let peers_due = self.herald.is_peers_look_due(&self.reach, dead_after);
        let heralds = self.herald.is_news()
            || (peers_due && !telling::peers_to_tell(&self.ledger, &self.home, seen.now)?.is_empty());
        if !heralds && !self.is_news(&seen)? {
            return Ok(After::default());
        }
        let (fence, now) = (self.fence(), seen.now);
        let may_act = self.higher_since.is_none() && self.node_state()? != NodeState::Recovery;
        let refusals = self.count_refusals(&seen, now);
        let learned = Learned {
            moved: self.take_moved(),
            news: self.take_chore_news(),
            children: self.take_child_news(),
            squatted: std::mem::take(&mut self.squatted),
            recheck: std::mem::take(&mut self.recheck_terms),
            refusals,
            handed: self.herald.hand_over(),
            peers_due,
            review: self.is_review_due(now),
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
            Ok(after) => {
                // Under a clock that cannot be believed nothing was reviewed.
                let reviewed = may_act && !self.home.clock_suspect;
                self.reviewed_hour = Some(guards::hour_of(now)).filter(|_| reviewed);
                self.chores_noted(&learned.news);
                if !learned.children.is_empty() {
                    self.agent_doors.deliver();
                }
                if !after.children_noted {
                    self.child_news_put_back(learned.children);
                }
                Ok(after)
            }
            Err(error) => {
                self.moved_since = (!learned.moved.is_empty()).then(Instant::now);
                self.moved = learned.moved;
                self.chores_put_back(learned.news);
                self.child_news_put_back(learned.children);
                self.squatted = learned.squatted;
                self.recheck_terms = learned.recheck;
                self.herald.put_back(learned.handed);
                for (code, count) in learned.refusals {
                    let (last, known) = self.refusals.entry(code).or_insert((Timestamp::from_unix_ms(0), 0));
                    (*last, *known) = (Timestamp::from_unix_ms(0), known.saturating_add(count));
                }
                Err(Leave::Ledger(error))
            }
        }
    }

    /// Counts an unanswered refusal, for the audit.
    pub(crate) fn count_refusal(&mut self, code: &'static str) {
        self.gauges.refused(code);
        let entry = self.refusals.entry(code).or_insert((Timestamp::from_unix_ms(0), 0));
        entry.1 = entry.1.saturating_add(1);
    }

    fn take_moved(&mut self) -> Vec<Moved> {
        self.moved_since = None;
        std::mem::take(&mut self.moved)
    }

    /// How many unanswered refusals of each code are due to be audited now.
    fn count_refusals(&mut self, seen: &Seen, now: Timestamp) -> Vec<(&'static str, u64)> {
        let of_tasks = seen.judged.iter().filter_map(|(_, judged)| match judged {
            Judged::Refused { code, .. } => Some(*code),
            Judged::Good { .. } | Judged::Answered { .. } | Judged::Replayed { .. } | Judged::Later => None,
        });
        let of_words = seen.words.iter().filter_map(|(_, word)| match word {
            JudgedWord::Refused { code, .. } => Some(*code),
            JudgedWord::Decision { .. }
            | JudgedWord::UnsignedAck { .. }
            | JudgedWord::Cancel { .. }
            | JudgedWord::Later => None,
        });
        for code in of_tasks.chain(of_words) {
            self.count_refusal(code);
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
            JudgedWord::UnsignedAck { key, terms, file } => {
                contain(tx, &mut after.failed, &key, |tx| unsigned::record(tx, &key, terms))?;
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
