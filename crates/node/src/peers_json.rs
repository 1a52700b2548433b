//! `peers.json`: what the watcher knows of its peers, for commands that run once and may hold no pair key.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use dispatch_core::protocol::names::NodeName;
use dispatch_core::protocol::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::files::{FileError, read_limited, replace_synced};
use crate::state::StateDir;

/// Longest such file.
const PEERS_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Its format.
const SCHEMA: u32 = 1;

/// What is known of all peers at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peers {
    /// When the watcher wrote it: older than three heartbeats means that no watcher runs.
    pub written: Timestamp,
    /// Each peer.
    pub peers: BTreeMap<NodeName, PeerSeen>,
}

/// What is known of one peer from its last heartbeat that counted.
#[derive(Default, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerSeen {
    /// `healthy`, `stale`, `dead`, or `unknown` when none was ever seen.
    pub health: String,
    /// Milliseconds since its heartbeat last advanced, by this node's clock; null when none was ever seen.
    pub age_ms: Option<u64>,
    /// Its watcher's number.
    pub boot: Option<u64>,
    /// Its release.
    pub version: Option<String>,
    /// `active`, `maintenance` …
    pub state: Option<String>,
    /// Tasks it holds that wait for a place.
    pub queued: Option<u64>,
    /// Tasks it holds that wait for a person.
    pub waiting: Option<u64>,
    /// Tasks it runs.
    pub running: Option<u64>,
    /// How many it runs at once.
    pub capacity: Option<u64>,
    /// True: it asks not to be sent more.
    pub backpressure: bool,
    /// How long it asks to wait, in seconds.
    pub retry_after_s: Option<u64>,
    /// True: a killswitch stops it.
    pub killswitch: bool,
    /// The killswitch's reason.
    pub killswitch_reason: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    schema: u32,
    written: String,
    peers: BTreeMap<String, PeerSeen>,
}

/// Writes what is known now; nobody ever reads half of it.
///
/// # Errors
/// The system's refusal.
pub fn write(state: &StateDir, peers: &Peers) -> Result<(), FileError> {
    let path = state.peers_json();
    let raw = Raw {
        schema: SCHEMA,
        written: peers.written.to_string(),
        peers: peers.peers.iter().map(|(name, seen)| (name.to_string(), seen.clone())).collect(),
    };
    let bytes = serde_json::to_vec(&raw).map_err(io::Error::other).map_err(FileError::of("write", &path))?;
    replace_synced(&path, &bytes, 0o600)
}

/// Reads what was known when the watcher last wrote; `None` where there is no such file.
///
/// # Errors
/// A file that cannot be read or is not of this form.
pub fn read(state: &StateDir) -> Result<Option<Peers>, FileError> {
    let path = state.peers_json();
    let bytes = match read_limited(&path, PEERS_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(error) if error.source.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    decode(&bytes).map(Some).map_err(|why| bad(path, why))
}

fn decode(bytes: &[u8]) -> Result<Peers, String> {
    let raw: Raw = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if raw.schema != SCHEMA {
        return Err(format!("schema {} is not {SCHEMA}", raw.schema));
    }
    let written = Timestamp::parse(&raw.written).map_err(|error| error.to_string())?;
    let named = raw
        .peers
        .into_iter()
        .map(|(name, seen)| NodeName::new(&name).map(|name| (name, seen)).map_err(|error| error.to_string()));
    Ok(Peers { written, peers: named.collect::<Result<_, _>>()? })
}

fn bad(path: PathBuf, why: String) -> FileError {
    FileError { op: "understand", path, source: io::Error::new(io::ErrorKind::InvalidData, why) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_of_peers_survives_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::at(dir.path());
        assert_eq!(read(&state).unwrap(), None);
        let seen = PeerSeen {
            health: "healthy".into(),
            age_ms: Some(12),
            boot: Some(7),
            version: Some("0.1.0".into()),
            state: Some("active".into()),
            queued: Some(1),
            waiting: Some(0),
            running: Some(2),
            capacity: Some(4),
            backpressure: false,
            retry_after_s: None,
            killswitch: false,
            killswitch_reason: None,
        };
        let written = Timestamp::parse("2026-11-20T12:00:00.000Z").unwrap();
        let peers = Peers { written, peers: [(NodeName::new("b").unwrap(), seen)].into() };
        write(&state, &peers).unwrap();
        assert_eq!(read(&state).unwrap(), Some(peers));
        std::fs::write(state.peers_json(), "{}").unwrap();
        assert!(read(&state).is_err());
    }
}
