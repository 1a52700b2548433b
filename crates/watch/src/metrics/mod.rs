//! `metrics/<node>.prom`: what this node is and does, in numbers, for a text-file collector (protocol section 1).
//!
//! Made from the ledger in the loop, at most every ten seconds and only while the share is there; written by the share's
//! thread, so that the loop waits for no disk but its own. A share without that directory loses the numbers and nothing else.
//!
//! Counters named `…_total` come from the ledger and outlive restarts, but for those that say otherwise in their help.

mod text;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use dispatch_core::policy::fleet::Health;
use dispatch_core::policy::lifecycle::TaskState;
use dispatch_core::policy::window::{Day, Month, Window, WindowKey};
use dispatch_core::protocol::heartbeat::NodeState;
use dispatch_core::protocol::names::NodeName;
use dispatch_core::protocol::result::Status;
use dispatch_core::protocol::time::Timestamp;
use dispatch_ledger::{LedgerError, OutcomeCount};
use dispatch_spool::layout::File;

use crate::beating;
use crate::filing;
use crate::node::{Node, Reach};
use text::{Kind, Page, seconds};

/// The file is written at most this often.
const EVERY: Duration = Duration::from_secs(10);

/// What the loop counts for its metrics.
pub(crate) struct Gauges {
    started: Instant,
    written: Option<Instant>,
    /// Executors started since this watcher began.
    pub(crate) launches: u64,
    /// Messages refused without an answer since this watcher began, by code.
    refused: BTreeMap<&'static str, u64>,
    /// How long the last look at the root took, and the longest since the file was written.
    look: Duration,
    look_max: Duration,
    /// Outcomes as they were counted at this position of the audit chain.
    outcomes: Option<(u64, Vec<OutcomeCount>)>,
}

impl Default for Gauges {
    fn default() -> Gauges {
        Gauges {
            started: Instant::now(),
            written: None,
            launches: 0,
            refused: BTreeMap::new(),
            look: Duration::ZERO,
            look_max: Duration::ZERO,
            outcomes: None,
        }
    }
}

impl Gauges {
    /// Notes how long a look at the root took.
    pub(crate) fn looked(&mut self, took: Duration) {
        self.look = took;
        self.look_max = self.look_max.max(took);
    }

    /// Counts a message that was refused without an answer.
    pub(crate) fn refused(&mut self, code: &'static str) {
        let count = self.refused.entry(code).or_default();
        *count = count.saturating_add(1);
    }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Node {
    /// Writes the file when it is due.
    pub(crate) fn write_metrics(&mut self, now: Timestamp) -> Result<(), LedgerError> {
        let is_due = self.gauges.written.is_none_or(|at| at.elapsed() >= EVERY);
        if !is_due || self.reach != Reach::Here || self.higher_since.is_some() {
            return Ok(());
        }
        self.gauges.written = Some(Instant::now());
        let text = self.metrics(now)?;
        self.gauges.look_max = Duration::ZERO;
        let file = File::Metrics(self.home.node.clone());
        self.tell(move |share| filing::replace_own(share, &file, text.as_bytes()));
        Ok(())
    }

    fn metrics(&mut self, now: Timestamp) -> Result<String, LedgerError> {
        let mut page = Page::of(self.home.node.as_str());
        self.watcher_metrics(&mut page, now)?;
        self.task_metrics(&mut page)?;
        self.money_metrics(&mut page, now)?;
        self.peer_metrics(&mut page, now)?;
        Ok(page.into_text())
    }

    fn watcher_metrics(&self, page: &mut Page, now: Timestamp) -> Result<(), LedgerError> {
        let info = [("version", env!("CARGO_PKG_VERSION")), ("strategy", self.strategy)];
        page.family("dispatch_info", Kind::Gauge, "Always 1; what this watcher is.").with(&info, 1);
        page.family(
            "dispatch_written_seconds",
            Kind::Gauge,
            "When this file was made, in seconds after 1970.",
        )
        .is(seconds(u64::try_from(now.unix_ms()).unwrap_or(0)));
        page.family("dispatch_watcher_boot", Kind::Gauge, "The number of this start of the watcher.")
            .is(self.home.boot);
        page.family("dispatch_watcher_uptime_seconds", Kind::Gauge, "For how long this watcher has run.")
            .is(seconds(ms(self.gauges.started.elapsed())));
        let look = "How long the last look at the share's root took.";
        page.family("dispatch_share_look_seconds", Kind::Gauge, look).is(seconds(ms(self.gauges.look)));
        let longest = "The longest look at the share's root since this file was written before.";
        page.family("dispatch_share_look_max_seconds", Kind::Gauge, longest)
            .is(seconds(ms(self.gauges.look_max)));
        page.family("dispatch_killswitch_tripped", Kind::Gauge, "1 while a killswitch stops this node.")
            .is(u8::from(self.stopped.node.is_some()));
        page.family("dispatch_lanes_tripped", Kind::Gauge, "Lanes that a killswitch of their own stops.")
            .is(self.stopped.lanes.len());
        let state = self.node_state()?;
        let mut states = page.family("dispatch_state", Kind::Gauge, "1 for the state that the node is in.");
        for one in NodeState::ALL.iter().copied() {
            states = states.with(&[("state", one.as_str())], u8::from(one == state));
        }
        page.family("dispatch_clock_suspect", Kind::Gauge, "1 while the wall clock is not believed.")
            .is(u8::from(self.home.clock_suspect));
        let head = self.ledger.head()?;
        page.family("dispatch_audit_seq", Kind::Gauge, "The position of the audit chain's last entry.")
            .is(head.seq);
        let tally = self.herald.tally();
        page.family(
            "dispatch_tellings_total",
            Kind::Counter,
            "Runs of the program of [notify], since this start.",
        )
        .with(&[("outcome", "well")], tally.well)
        .with(&[("outcome", "failed")], tally.failed);
        Ok(())
    }

    fn task_metrics(&mut self, page: &mut Page) -> Result<(), LedgerError> {
        let counts = beating::counts(&self.ledger)?;
        page.family("dispatch_tasks_queued", Kind::Gauge, "Tasks that are accepted and wait for a place.")
            .is(counts.queued);
        page.family("dispatch_tasks_running", Kind::Gauge, "Attempts that are leased and not ended.")
            .is(counts.running);
        page.family("dispatch_tasks_capacity", Kind::Gauge, "Attempts that may run at once.").is(self
            .home
            .config
            .exec
            .max_parallel);
        let open = self.ledger.open_counts()?;
        let mut waiting =
            page.family("dispatch_tasks_waiting", Kind::Gauge, "Tasks that wait for a person, by sender.");
        for peer in self.home.peers.keys() {
            let of_peer =
                open.iter().filter(|row| row.from == *peer && row.state == TaskState::AwaitingApproval);
            waiting = waiting.with(&[("from", peer.as_str())], of_peer.map(|row| row.count).sum::<u64>());
        }
        let backpressure = beating::backpressure(&self.ledger, &self.home)?;
        page.family("dispatch_backpressure", Kind::Gauge, "1 while senders are asked to wait.")
            .is(u8::from(backpressure.on));
        page.family(
            "dispatch_backpressure_level",
            Kind::Gauge,
            "How full the fullest lane is, from 0 to 100.",
        )
        .is(backpressure.level);
        page.family(
            "dispatch_executor_launches_total",
            Kind::Counter,
            "Executors started, since this start.",
        )
        .is(self.gauges.launches);
        let seq = self.ledger.head()?.seq;
        if self.gauges.outcomes.as_ref().is_none_or(|(at, _)| *at != seq) {
            self.gauges.outcomes = Some((seq, self.ledger.outcomes()?));
        }
        let counted: &[OutcomeCount] = self.gauges.outcomes.as_ref().map_or(&[], |(_, outcomes)| outcomes);
        outcomes(page, counted);
        let help = "Messages refused without an answer, by code, since this start.";
        let mut refused = page.family("dispatch_messages_refused_total", Kind::Counter, help);
        for (code, count) in &self.gauges.refused {
            refused = refused.with(&[("code", code)], count);
        }
        Ok(())
    }

    /// Windows whose number is bounded: the node's day and month, and each sender's month.
    fn money_metrics(&self, page: &mut Page, now: Timestamp) -> Result<(), LedgerError> {
        let month = Month::of(now);
        let node = [(WindowKey::Day(Day::of(now)), ""), (WindowKey::Month(month), "")];
        let of_sender = |peer: &NodeName| WindowKey::Sender { sender: peer.clone(), month };
        let senders = self.home.peers.keys().map(|peer| (of_sender(peer), peer.as_str()));
        let (mut reserved, mut spent) = (Vec::new(), Vec::new());
        for (key, sender) in node.into_iter().chain(senders) {
            let balance = self.ledger.balance(&key)?;
            reserved.push((key.window(), sender, balance.reserved));
            spent.push((key.window(), sender, balance.spent));
        }
        for (name, help, amounts) in [
            ("dispatch_budget_reserved_usd", "US dollars set aside for what runs, by window.", reserved),
            ("dispatch_budget_spent_usd", "US dollars charged, by window.", spent),
        ] {
            let mut family = page.family(name, Kind::Gauge, help);
            for (window, sender, amount) in amounts {
                family = family.with(&[("window", window.as_str()), ("sender", sender)], amount);
            }
        }
        let caps = self.home.caps();
        let mut family =
            page.family("dispatch_budget_cap_usd", Kind::Gauge, "The cap of each window that has one.");
        for window in Window::ALL {
            if let Some(cap) = caps.get(window) {
                family = family.with(&[("window", window.as_str())], cap);
            }
        }
        Ok(())
    }

    fn peer_metrics(&self, page: &mut Page, now: Timestamp) -> Result<(), LedgerError> {
        let rows = self.ledger.peers()?;
        let known: Vec<_> = rows.iter().filter(|row| self.home.peers.contains_key(&row.node)).collect();
        let help = "How long ago a peer's last heartbeat was seen.";
        let mut ages = page.family("dispatch_peer_heartbeat_age_seconds", Kind::Gauge, help);
        for row in &known {
            let age = u64::try_from(now.since_ms(row.advanced_at)).unwrap_or(0);
            ages = ages.with(&[("peer", row.node.as_str())], seconds(age));
        }
        let mut healths =
            page.family("dispatch_peer_health", Kind::Gauge, "1 for the health that a peer is of.");
        let second = |at: Timestamp| at.unix_ms().div_euclid(1_000);
        for row in &known {
            let health = self.home.config.watch.health.health(second(row.advanced_at), second(now));
            for one in [Health::Healthy, Health::Stale, Health::Dead] {
                let labels = [("peer", row.node.as_str()), ("health", one.as_str())];
                healths = healths.with(&labels, u8::from(one == health));
            }
        }
        Ok(())
    }
}

fn outcomes(page: &mut Page, counted: &[OutcomeCount]) {
    let mut family =
        page.family("dispatch_tasks_final_total", Kind::Counter, "Tasks that came to their end, by status.");
    for status in Status::ALL {
        let of_status = counted.iter().filter(|row| row.status == *status);
        family = family.with(&[("status", status.as_str())], of_status.map(|row| row.count).sum::<u64>());
    }
    let help = "Tasks that ended with a reason, by status and code.";
    let mut family = page.family("dispatch_tasks_reasons_total", Kind::Counter, help);
    for row in counted {
        if let Some(code) = &row.code {
            family = family.with(&[("status", row.status.as_str()), ("code", code)], row.count);
        }
    }
}
