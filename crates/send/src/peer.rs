//! What the receiver said of itself last: whether it can take more, and whether something stops it.

use dispatch_core::protocol::heartbeat::{Heartbeat, NodeState};
use dispatch_core::protocol::time::{SECOND_MS, Timestamp};
use dispatch_node::desk::Desk;
use dispatch_node::peers_json;
use dispatch_node::report::{Exit, Report};
use dispatch_spool::{RootSeen, Trip};

/// A heartbeat older than this speaks of a past: it is what a dead peer looks like (policy section 5).
const DEAD_AFTER_MS: i64 = 90 * SECOND_MS;

/// What the receiver, or the share, says about sending now.
#[derive(Debug, Default)]
pub(crate) struct Says {
    /// It asks not to be sent more.
    pub(crate) full: Option<Full>,
    /// Sentences for a person: why the task will wait.
    pub(crate) notes: Vec<String>,
}

/// A receiver at capacity.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Full {
    /// How long it asks to wait.
    pub(crate) retry_after_s: Option<u64>,
}

impl Full {
    /// The end of a command that does not send because of it.
    pub(crate) fn report(self, desk: &Desk) -> Report {
        let when = self.retry_after_s.map_or_else(|| "later".to_owned(), |seconds| format!("in {seconds}s"));
        Report::new(Exit::TryLater, format!("`{}` is at capacity", desk.lane.to))
            .help(format!("try again {when}, or send anyway with --force"))
    }
}

/// Asks the killswitches that were seen and the receiver's last heartbeat; where this process has no key to verify one,
/// what this node's watcher noted of it.
pub(crate) fn ask(desk: &Desk, root: &RootSeen, now: Timestamp) -> Says {
    let mut says = Says::default();
    if let Some(trip) = root.stops(&desk.lane) {
        says.notes.push(stopped("the share", trip));
    }
    match &desk.pair {
        Some(_) => {
            // A heartbeat that cannot be read is no reason not to send.
            if let Ok(Some(heartbeat)) = desk.heartbeat()
                && is_recent(&heartbeat, now)
            {
                hear(&mut says, desk, &heartbeat);
            }
        }
        None => ask_watcher(&mut says, desk, now),
    }
    says
}

/// True for a heartbeat that speaks of now.
pub(crate) fn is_recent(heartbeat: &Heartbeat, now: Timestamp) -> bool {
    now.since_ms(heartbeat.ts).saturating_abs() < DEAD_AFTER_MS
}

fn stopped(what: &str, trip: &Trip) -> String {
    let reason = if trip.reason.is_empty() { "no reason given" } else { &trip.reason };
    format!("a killswitch stops {what} ({reason}): the task waits until it is lifted")
}

fn hear(says: &mut Says, desk: &Desk, heartbeat: &Heartbeat) {
    if heartbeat.backpressure.on {
        says.full = Some(Full { retry_after_s: heartbeat.backpressure.retry_after_s });
    }
    if heartbeat.killswitch.tripped && says.notes.is_empty() {
        let reason = heartbeat.killswitch.reason.as_deref().unwrap_or("no reason given");
        says.notes.push(format!(
            "a killswitch stops `{}` ({reason}): the task waits until it is lifted",
            desk.lane.to
        ));
    }
    match heartbeat.state {
        NodeState::Active => {}
        NodeState::EnteringMaintenance
        | NodeState::Maintenance
        | NodeState::ExitingMaintenance
        | NodeState::DrainFailed
        | NodeState::Recovery => {
            says.notes.push(format!("`{}` says `{}`: the task waits", desk.lane.to, heartbeat.state));
        }
    }
}

fn ask_watcher(says: &mut Says, desk: &Desk, now: Timestamp) {
    let Ok(Some(known)) = peers_json::read(&desk.state) else { return };
    let Some(peer) = known.peers.get(&desk.lane.to) else { return };
    if now.since_ms(known.written).saturating_abs() >= DEAD_AFTER_MS {
        return;
    }
    if peer.backpressure {
        says.full = Some(Full { retry_after_s: peer.retry_after_s });
    }
    if peer.killswitch && says.notes.is_empty() {
        says.notes.push(format!("a killswitch stops `{}`: the task waits until it is lifted", desk.lane.to));
    }
}
