//! The node's own signs of life, its copy of the audit, and what it reads again.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use dispatch_core::policy::fleet::HealthLimits;
use dispatch_core::protocol::heartbeat::{Heartbeat, NodeState};
use dispatch_core::protocol::limits::SMALL_ENVELOPE_BYTES_MAX;
use dispatch_core::protocol::payload::Payload as _;
use dispatch_core::protocol::time::Timestamp;
use dispatch_ledger::{LedgerError, PeerRow};
use dispatch_node::clock;
use dispatch_node::config::Config;
use dispatch_node::peers_json::{self, PeerSeen, Peers};
use dispatch_spool::layout::File;
use dispatch_spool::share::{ErrorKind, Share, ShareError};

use crate::beating::{self, Pulse};
use crate::home::Home;
use crate::node::{Leave, Node, Reach};

/// Lines of the audit copied at once.
const AUDIT_LINES_MAX: usize = 5_000;

impl Node {
    /// True when the next heartbeat is due, by the clock or because what it says has changed.
    pub(crate) fn is_beat_due(&self) -> bool {
        self.last_beat.is_none_or(|at| at.elapsed() >= self.home.config.watch.heartbeat)
    }

    /// Before the first heartbeat replaces it: what my own last one showed may prove this ledger older (protocol section 7).
    pub(crate) fn read_own_heartbeat(&mut self) -> Result<(), LedgerError> {
        let file = File::Heartbeat(self.home.node.clone());
        let limit = u64::try_from(SMALL_ENVELOPE_BYTES_MAX).unwrap_or(u64::MAX);
        let Ok(bytes) = self.workers.share().read(&file, limit) else { return Ok(()) };
        let now = clock::now();
        let Some(head) = beating::own_head(&self.home, &bytes, now) else { return Ok(()) };
        if !beating::rolled_back(&self.ledger, head)? {
            return Ok(());
        }
        let fence = self.fence();
        self.ledger.write(fence, now, |tx| beating::remember_if_rolled_back(tx, head))
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
        self.tell(move |share| share.replace(&file, &bytes));
        self.last_beat = Some(Instant::now());
        self.last_state = Some(shown);
        self.write_peers_json(now)?;
        self.copy_audit()
    }

    /// What one-shot commands of this state directory learn about peers.
    fn write_peers_json(&self, now: Timestamp) -> Result<(), LedgerError> {
        let mut peers = BTreeMap::new();
        let rows = self.ledger.peers()?;
        for node in self.home.peers.keys() {
            let row = rows.iter().find(|row| row.node == *node);
            peers.insert(node.clone(), row.map_or_else(never_seen, |row| seen(row, now)));
        }
        if let Err(error) = peers_json::write(&self.home.config.state, &Peers { written: now, peers }) {
            tracing::warn!(%error, "peers.json could not be written");
        }
        Ok(())
    }

    /// Appends what the copy on the share lacks; a copy that was cut or changed is written anew.
    fn copy_audit(&mut self) -> Result<(), Leave> {
        let lines = self.ledger.audit_lines(self.audit_copied, AUDIT_LINES_MAX)?;
        let Some(last) = lines.last() else { return Ok(()) };
        let (first, copied) = (self.audit_copied == 0, last.n);
        let mut text = String::new();
        for line in &lines {
            text.push_str(&line.line);
            text.push('\n');
        }
        let file = File::AuditCopy(self.home.node.clone());
        self.tell(move |share| write_audit(share, &file, text.as_bytes(), first));
        self.audit_copied = copied;
        Ok(())
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
            Ok(home) if home.node == self.home.node && home.config.root == self.home.config.root => {
                self.recheck_terms = true;
                self.home = Home { boot: self.home.boot, clock_suspect: self.home.clock_suspect, ..home };
                tracing::info!("configuration read again");
            }
            Ok(_) => tracing::error!(
                "node or root changed: restart the watcher for that; the old configuration stays"
            ),
            Err(error) => tracing::error!(%error, "bad configuration; the old one stays"),
        }
    }

    /// True when share threads have finished moves that the ledger does not know yet.
    pub(crate) fn has_moved(&self) -> bool {
        !self.moved.is_empty()
    }

    /// How long until a task in back-off may be leased.
    pub(crate) fn next_due(&self) -> Option<Duration> {
        let now = clock::now();
        let queue = self.ledger.whole_queue().ok()?;
        let waits =
            queue.iter().filter_map(|task| task.not_before).filter(|at| *at > now).map(|at| at.since_ms(now));
        waits.min().and_then(|ms| u64::try_from(ms).ok()).map(Duration::from_millis)
    }

    /// True when the ledger owes nothing that this watcher could do now.
    pub(crate) fn nothing_left(&self) -> Result<bool, LedgerError> {
        let queue = self.ledger.whole_queue()?;
        let startable = !self.is_held_back()
            && queue
                .iter()
                .any(|task| task.wait_reason.is_none() && self.only.is_none_or(|only| only == task.key.id));
        Ok(!startable
            && self.ledger.open_attempts()?.is_empty()
            && self.ledger.unfiled(1)?.is_empty()
            && self.ledger.unpublished(1)?.is_empty()
            && self.node_state()? != NodeState::EnteringMaintenance)
    }
}

fn never_seen() -> PeerSeen {
    PeerSeen { health: "unknown".to_owned(), ..PeerSeen::default() }
}

fn seen(row: &PeerRow, now: Timestamp) -> PeerSeen {
    let seconds = |at: Timestamp| at.unix_ms().div_euclid(1_000);
    let health = HealthLimits::default().health(seconds(row.advanced_at), seconds(now));
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

fn write_audit(share: &dyn Share, file: &File, text: &[u8], anew: bool) -> Result<(), ShareError> {
    if anew {
        return share.replace(file, text);
    }
    match share.append_own(file, text) {
        Ok(_) => Ok(()),
        // Gone: the next start writes it anew from the ledger.
        Err(error) if error.kind == ErrorKind::Absent => Ok(()),
        Err(error) => Err(error),
    }
}
