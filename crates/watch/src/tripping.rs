//! The killswitch: found, recorded, and open until a person resumes (protocol section 8).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use dispatch_core::planner::stop::{Latch, OpenTrip, file_is_gone};
use dispatch_core::protocol::heartbeat::{KillMode, KillswitchState};
use dispatch_core::protocol::names::{Lane, NodeName};
use dispatch_core::protocol::text::first_bytes;
use dispatch_ledger::{Entry, LedgerError, Reader, Tx};
use serde_json::json;

use dispatch_spool::killswitch::{self, Trip, TripMode};
use dispatch_spool::root::RootSeen;

/// The scope of the switch at the share's root.
const ROOT: &str = "root";
/// The scope of the switch in the state directory.
const NODE: &str = "node";
/// The longest reason that heartbeats carry.
const REASON_BYTES_MAX: usize = 512;

/// A killswitch that is there, in whatever form.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Tripped {
    mode: KillMode,
    reason: String,
}

/// Switches found in one pass, by scope.
#[derive(Clone, Debug, Default)]
pub(crate) struct Switches {
    found: BTreeMap<String, Tripped>,
    /// Scopes that were looked at: only their absence means that the file is gone.
    looked: BTreeSet<String>,
}

impl Switches {
    /// What was found at the root and in the lanes this node receives on.
    pub(crate) fn share(&mut self, seen: &RootSeen, lanes: &BTreeMap<NodeName, Lane>) {
        self.note(ROOT.to_owned(), seen.killswitch.as_ref());
        for lane in lanes.values() {
            self.note(lane_scope(lane), seen.lanes.get(lane));
        }
    }

    /// Looks into the state directory, by a fresh listing.
    pub(crate) fn node(&mut self, state: &Path) {
        self.note(NODE.to_owned(), killswitch::local(&state.join("KILLSWITCH")).as_ref());
    }

    fn note(&mut self, scope: String, trip: Option<&Trip>) {
        if let Some(trip) = trip {
            let mode = match trip.mode {
                TripMode::Halt => KillMode::Halt,
                TripMode::Kill => KillMode::Kill,
            };
            self.found.insert(scope.clone(), Tripped { mode, reason: trip.reason.clone() });
        }
        self.looked.insert(scope);
    }
}

fn lane_scope(lane: &Lane) -> String {
    format!("lane:{lane}")
}

/// What is stopped now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stopped {
    /// The whole node.
    pub(crate) node: Option<(KillMode, String)>,
    /// Single lanes, by sender.
    pub(crate) lanes: BTreeMap<NodeName, KillMode>,
}

impl Stopped {
    /// True when tasks of this sender may not be taken or started.
    pub(crate) fn stops(&self, from: &NodeName) -> bool {
        self.node.is_some() || self.lanes.contains_key(from)
    }

    /// True when running agents of this sender are to be ended.
    pub(crate) fn kills(&self, from: &NodeName) -> bool {
        self.node.as_ref().is_some_and(|(mode, _)| *mode == KillMode::Kill)
            || self.lanes.get(from) == Some(&KillMode::Kill)
    }

    /// What the heartbeat says.
    pub(crate) fn state(&self) -> KillswitchState {
        KillswitchState {
            tripped: self.node.is_some(),
            mode: self.node.as_ref().map(|(mode, _)| *mode),
            reason: self.node.as_ref().map(|(_, reason)| first_bytes(reason, REASON_BYTES_MAX).to_owned()),
        }
    }
}

/// What the switches that were found and the open trips of the ledger stop.
pub(crate) fn stopped(
    reader: &Reader,
    switches: &Switches,
    lanes: &BTreeMap<NodeName, Lane>,
) -> Result<Stopped, LedgerError> {
    let mut stopped = Stopped::default();
    let trips = reader.open_trips()?;
    let open = trips.iter().map(|trip| (trip.scope.as_str(), trip.mode, trip.reason.as_str()));
    let found = switches.found.iter().map(|(scope, trip)| (scope.as_str(), trip.mode, trip.reason.as_str()));
    for (scope, mode, why) in open.chain(found) {
        if scope == ROOT || scope == NODE {
            let stronger = stopped.node.as_ref().is_none_or(|(known, _)| *known < mode);
            if stronger {
                stopped.node = Some((mode, why.to_owned()));
            }
        } else if let Some((from, _)) = lanes.iter().find(|(_, lane)| lane_scope(lane) == scope) {
            let known = stopped.lanes.entry(from.clone()).or_insert(mode);
            *known = (*known).max(mode);
        }
    }
    Ok(stopped)
}

/// True when the ledger has to be told something.
pub(crate) fn is_news(reader: &Reader, switches: &Switches, latch: Latch) -> Result<bool, LedgerError> {
    let open = reader.open_trips()?;
    let unknown = switches
        .found
        .iter()
        .any(|(scope, found)| !open.iter().any(|trip| trip.scope == *scope && trip.mode >= found.mode));
    let gone = open.iter().any(|trip| closes(switches, latch, &trip.scope, trip.mode));
    Ok(unknown || gone)
}

fn closes(switches: &Switches, latch: Latch, scope: &str, mode: KillMode) -> bool {
    switches.looked.contains(scope)
        && !switches.found.contains_key(scope)
        && file_is_gone(latch, mode) == OpenTrip::Closes
}

/// Records what was found, and closes what nobody has to resume. Answers what was found now: scope, mode, reason.
pub(crate) fn record(
    tx: &mut Tx<'_>,
    switches: &Switches,
    latch: Latch,
) -> Result<Vec<(String, &'static str, String)>, LedgerError> {
    let mut tripped = Vec::new();
    for (scope, found) in &switches.found {
        if tx.trip(scope, found.mode, &found.reason)? {
            tx.audit(&Entry::of("tripped").data(json!({
                "scope": scope, "mode": found.mode.as_str(), "reason": found.reason,
            })))?;
            tripped.push((scope.clone(), found.mode.as_str(), found.reason.clone()));
        }
    }
    for trip in tx.open_trips()? {
        if closes(switches, latch, &trip.scope, trip.mode) {
            tx.resume(Some(&trip.scope), "file removed")?;
            tx.audit(&Entry::of("resumed").data(json!({"scope": trip.scope, "by": "file removed"})))?;
        }
    }
    Ok(tripped)
}

/// Resumes for a person. Refused while a switch still stands: its path says where.
pub(crate) fn resume(
    tx: &mut Tx<'_>,
    switches: &Switches,
    who: &str,
) -> Result<Result<usize, String>, LedgerError> {
    if let Some(scope) = switches.found.keys().next() {
        return Ok(Err(scope.clone()));
    }
    let resumed = tx.resume(None, who)?;
    if resumed > 0 {
        tx.audit(&Entry::of("resumed").who(who).data(json!({"trips": resumed})))?;
    }
    Ok(Ok(resumed))
}
