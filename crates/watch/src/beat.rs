//! The node's own signs of life, its copy of the audit, and what it reads again.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use dispatch_core::policy::fleet::HealthLimits;
use dispatch_core::protocol::heartbeat::{Heartbeat, NodeState};
use dispatch_core::protocol::payload::Payload as _;
use dispatch_core::protocol::time::Timestamp;
use dispatch_ledger::{LedgerError, PeerRow, TaskKey};
use dispatch_node::clock;
use dispatch_node::config::Config;
use dispatch_node::peers_json::{self, PeerSeen, Peers};
use dispatch_node::report::tell;
use dispatch_spool::layout::File;
use dispatch_spool::share::{Share, ShareError};

use crate::beating::{self, Pulse};
use crate::filing;
use crate::home::Home;
use crate::node::{Leave, Node, Reach};
use crate::reply::Reply;
use crate::workers::Place;

/// Lines of the audit copied at once.
const AUDIT_LINES_MAX: usize = 5_000;

/// How lines get into the copy of the audit.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Copy {
    /// The copy begins with them.
    Anew,
    /// They follow what is there.
    Appended,
}

impl Node {
    /// True when the next heartbeat is due, by the clock or because what it says has changed.
    pub(crate) fn is_beat_due(&self) -> bool {
        self.last_beat.is_none_or(|at| at.elapsed() >= self.home.config.watch.heartbeat)
    }

    /// When the next heartbeat is due.
    pub(crate) fn next_beat(&self) -> Option<Instant> {
        self.last_beat.and_then(|at| at.checked_add(self.home.config.watch.heartbeat))
    }

    /// Writes the heartbeat when it is due.
    pub(crate) fn beat(&mut self, now: Timestamp) -> Result<(), Leave> {
        let state = self.node_state()?;
        let shown = (state, self.stopped.node.is_some());
        if !(self.is_beat_due() || self.last_state != Some(shown)) || self.higher_since.is_some() {
            return Ok(());
        }
        if matches!(self.reach, Reach::Unreachable(_)) {
            return Ok(());
        }
        self.beat_seq = self.beat_seq.saturating_add(1);
        let pulse = Pulse {
            seq: self.beat_seq,
            now,
            state,
            stopped: self.stopped.clone(),
            strategy: self.strategy,
            poll_ms: u64::try_from(self.poll.as_millis()).unwrap_or(u64::MAX),
            last_queued: self.last_queued,
        };
        self.last_queued = beating::counts(&self.ledger)?.queued;
        let bytes = beating::make(&self.ledger, &self.home, &pulse)?;
        let file = File::Heartbeat(self.home.node.clone());
        self.tell(move |share| filing::replace_own(share, &file, &bytes));
        self.last_beat = Some(Instant::now());
        self.last_state = Some(shown);
        self.write_peers_json(now)?;
        self.copy_audit()
    }

    /// What one-shot commands of this state directory learn about peers.
    fn write_peers_json(&self, now: Timestamp) -> Result<(), LedgerError> {
        let mut peers = BTreeMap::new();
        let rows = self.ledger.peers()?;
        let limits = self.home.config.watch.health;
        for node in self.home.peers.keys() {
            let row = rows.iter().find(|row| row.node == *node);
            peers.insert(node.clone(), row.map_or_else(never_seen, |row| seen(row, now, limits)));
        }
        if let Err(error) = peers_json::write(&self.home.config.state, &Peers { written: now, peers }) {
            tracing::warn!(%error, "peers.json could not be written");
        }
        Ok(())
    }

    /// Appends what the copy on the share lacks. A copy that is not as long then as it should be is written anew: it was
    /// cut, or put back to an older one.
    fn copy_audit(&mut self) -> Result<(), Leave> {
        let lines = self.ledger.audit_lines(self.audit_copied, AUDIT_LINES_MAX)?;
        let Some(last) = lines.last() else { return Ok(()) };
        let (copy, copied) = (if self.audit_copied == 0 { Copy::Anew } else { Copy::Appended }, last.n);
        let mut text = String::new();
        for line in &lines {
            text.push_str(&line.line);
            text.push('\n');
        }
        let added = u64::try_from(text.len()).unwrap_or(u64::MAX);
        let length = match copy {
            Copy::Anew => added,
            Copy::Appended => self.audit_length.saturating_add(added),
        };
        let file = File::AuditCopy(self.home.node.clone());
        let job = move |share: &dyn Share| Reply::Copied {
            length,
            done: write_audit(share, &file, text.as_bytes(), copy),
        };
        if self.workers.submit(&Place::Root, job) {
            (self.audit_copied, self.audit_length) = (copied, length);
        }
        Ok(())
    }

    /// What became of the copy, which should be `length` bytes long now.
    pub(crate) fn copied(&mut self, length: u64, done: Result<(u64, Vec<File>), ShareError>) {
        match done {
            Ok((now, squatted)) => {
                self.squatted.extend(squatted);
                if now != length {
                    self.audit_copied = 0;
                }
            }
            Err(error) => {
                tracing::debug!(%error, "the copy of the audit could not be written; it is written anew");
                self.audit_copied = 0;
            }
        }
    }

    /// Reads the configuration again; a bad one keeps the old one and says so.
    pub(crate) fn reload(&mut self) {
        let file = self.home.config.file.clone();
        let read = Config::load(Some(&file))
            .map_err(|error| dispatch_node::report::one_line(&error))
            .and_then(|config| {
                Home::new(config, self.home.instance).map_err(|error| dispatch_node::report::one_line(&error))
            });
        match read {
            Ok(home) if is_same_node(&self.home, &home) => {
                self.recheck_terms = true;
                self.reviewed_hour = None;
                self.reseal();
                self.home = Home { boot: self.home.boot, clock_suspect: self.home.clock_suspect, ..home };
                tell("dispatch-watch: configuration, keys and approvers read again");
            }
            Ok(_) => tell(
                "dispatch-watch: node, cluster, root or state changed: restart the watcher for that; the old \
                 configuration stays",
            ),
            Err(error) => tell(&format!("dispatch-watch: bad configuration, the old one stays: {error}")),
        }
    }

    /// How long until a task in back-off may be leased, or a drain runs out of its grace.
    pub(crate) fn next_due(&self) -> Option<Duration> {
        let now = clock::now();
        let due = self.ledger.next_due(now).ok().flatten();
        let grace =
            self.ledger.meta().ok().and_then(|meta| meta.drain.grace_until).filter(|until| *until > now);
        let first = due.into_iter().chain(grace).min()?;
        u64::try_from(first.since_ms(now)).ok().map(Duration::from_millis)
    }

    /// True when the ledger owes nothing that this watcher could do now.
    pub(crate) fn nothing_left(&self) -> Result<bool, LedgerError> {
        let is_wanted = |key: &TaskKey| {
            self.only.is_none_or(|only| only == key.id)
                && self.home.peers.contains_key(&key.from)
                && !self.stopped.stops(&key.from)
                && !self.is_contained(key)
        };
        let queue = self.ledger.whole_queue()?;
        let startable = !self.is_held_back()
            && queue.iter().any(|task| task.wait_reason.is_none() && is_wanted(&task.key));
        let unfiled = self.ledger.unfiled(usize::MAX)?;
        let unpublished = self.ledger.unpublished(usize::MAX)?;
        // What came from a node that is no peer any more cannot be moved, and waits for nobody.
        let moves = unfiled.iter().chain(&unpublished).any(|row| self.home.peers.contains_key(&row.key.from));
        Ok(!startable
            && !moves
            && self.ledger.open_runs()?.is_empty()
            // What runs elsewhere is on its way once it is kept: nobody waits here for its answer.
            && self.ledger.open_children()?.iter().all(|child| child.kept_at.is_some())
            && self.node_state()? != NodeState::EnteringMaintenance)
    }
}

/// What a running watcher cannot change: its ledger, its lock and its job directories are bound to all of it.
fn is_same_node(now: &Home, then: &Home) -> bool {
    now.node == then.node
        && now.cluster == then.cluster
        && now.config.root == then.config.root
        && now.config.state.path() == then.config.state.path()
}

fn never_seen() -> PeerSeen {
    PeerSeen { health: "unknown".to_owned(), ..PeerSeen::default() }
}

fn seen(row: &PeerRow, now: Timestamp, limits: HealthLimits) -> PeerSeen {
    let seconds = |at: Timestamp| at.unix_ms().div_euclid(1_000);
    let health = limits.health(seconds(row.advanced_at), seconds(now));
    let Ok(beat) = Heartbeat::from_stored(&row.payload) else { return never_seen() };
    PeerSeen {
        health: health.as_str().to_owned(),
        age_ms: u64::try_from(now.since_ms(row.advanced_at)).ok(),
        boot: Some(row.boot),
        version: Some(beat.version),
        state: Some(beat.state.as_str().to_owned()),
        queued: Some(beat.load.queued),
        waiting: Some(beat.load.waiting),
        running: Some(beat.load.running),
        capacity: Some(beat.load.capacity),
        backpressure: beat.backpressure.on,
        retry_after_s: beat.backpressure.retry_after_s,
        killswitch: beat.killswitch.tripped,
        killswitch_reason: beat.killswitch.reason,
    }
}

/// Writes lines of the copy; answers how long it is now.
fn write_audit(
    share: &dyn Share,
    file: &File,
    text: &[u8],
    copy: Copy,
) -> Result<(u64, Vec<File>), ShareError> {
    match copy {
        Copy::Anew => {
            let squatted = filing::replace_own(share, file, text)?;
            Ok((u64::try_from(text.len()).unwrap_or(u64::MAX), squatted))
        }
        Copy::Appended => Ok((share.append_own(file, text)?, Vec::new())),
    }
}
