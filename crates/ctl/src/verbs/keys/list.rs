//! `dispatchctl keys list`.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use dispatch_core::protocol::keys::PairKey;
use dispatch_core::protocol::names::NodeName;
use dispatch_node::config::Config;
use dispatch_node::keys::{read_flat_key, read_pair_key};
use dispatch_node::report::{Exit, Report, one_line};
use serde_json::{Value, json};

use super::seen::Beat;
use crate::context::Context;
use crate::table;

/// What a key is for, here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// It signs, and verifies.
    Signs,
    /// It verifies.
    Verifies,
    /// What it signs is refused.
    Retired,
}

impl Role {
    const fn as_str(self) -> &'static str {
        match self {
            Role::Signs => "signs",
            Role::Verifies => "verifies",
            Role::Retired => "retired",
        }
    }
}

/// One configured key file.
pub(crate) struct Row {
    pub(crate) role: Role,
    pub(crate) file: PathBuf,
    /// What is wrong with the file otherwise; nothing for a version-2 peer's, which is no pair key.
    pub(crate) key: Result<PairKey, Option<String>>,
    /// The place of its signature in the peer's heartbeat; `None` where that has none, or there is no heartbeat.
    pub(crate) place: Option<usize>,
}

/// The keys of one peer, with what its heartbeat shows of them.
pub(crate) struct PeerKeys {
    pub(crate) rows: Vec<Row>,
    pub(crate) beats: bool,
}

impl PeerKeys {
    pub(crate) fn of(config: &Config, peer: &NodeName) -> PeerKeys {
        let Some(entry) = config.peer(peer) else { return PeerKeys { rows: Vec::new(), beats: false } };
        let beat = Beat::of(config, peer);
        let accepted = entry.keys.iter().enumerate();
        let accepted = accepted.map(|(at, file)| (if at == 0 { Role::Signs } else { Role::Verifies }, file));
        let all = accepted.chain(entry.retired.iter().map(|file| (Role::Retired, file)));
        let rows = all.map(|(role, file)| {
            let key = if entry.version_2().is_some() {
                Err(read_flat_key(file).err().map(|error| one_line(&error)))
            } else {
                read_pair_key(file, &config.root).map_err(|error| Some(one_line(&error)))
            };
            let place = beat.as_ref().zip(key.as_ref().ok()).and_then(|(beat, key)| beat.place_of(key));
            Row { role, file: file.clone(), key, place }
        });
        PeerKeys { rows: rows.collect(), beats: beat.is_some() }
    }

    /// The key that the peer signs with, as far as its heartbeat shows: of those that are known here, the first.
    pub(crate) fn peer_signs(&self) -> Option<&Row> {
        self.rows.iter().filter(|row| row.place.is_some()).min_by_key(|row| row.place)
    }
}

pub(super) fn run(context: &Context) -> Result<Exit, Report> {
    let config = context.config()?;
    let mut documents = Vec::new();
    let mut rows = vec![["peer", "key", "role", "the peer", "mode", "file"].map(str::to_owned).to_vec()];
    for peer in config.peers.keys() {
        let keys = PeerKeys::of(&config, peer);
        let signs = keys.peer_signs().map(|row| row.file.clone());
        let mut listed = Vec::new();
        for row in &keys.rows {
            let peers_use = use_of(row, signs.as_deref(), &keys);
            let (keyid, problem) = match &row.key {
                Ok(key) => (key.keyid().to_owned(), None),
                Err(None) => ("version 2".to_owned(), None),
                Err(Some(problem)) => ("?".to_owned(), Some(problem)),
            };
            let mode = mode(&row.file);
            rows.push(vec![
                peer.to_string(),
                keyid.clone(),
                row.role.as_str().to_owned(),
                peers_use.to_owned(),
                mode.clone().unwrap_or_else(|| "-".to_owned()),
                problem.map_or_else(|| row.file.display().to_string(), Clone::clone),
            ]);
            listed.push(json!({
                "keyid": row.key.as_ref().ok().map(PairKey::keyid), "role": row.role.as_str(), "file": row.file,
                "mode": mode, "peer": peers_use, "problem": problem,
            }));
        }
        documents.push(json!({"peer": peer.as_str(), "heartbeat": keys.beats, "keys": listed}));
    }
    context
        .say_json(&json!({"schema": 1, "node": config.node.as_str(), "peers": Value::Array(documents)}))?;
    for line in table::lines(&rows) {
        context.say(&line)?;
    }
    Ok(Exit::Done)
}

/// What the peer does with a key, as its last heartbeat shows.
fn use_of(row: &Row, signs: Option<&Path>, keys: &PeerKeys) -> &'static str {
    match row.place {
        Some(_) if signs == Some(row.file.as_path()) => "signs",
        Some(_) => "verifies",
        None if keys.beats => "not shown",
        None => "unknown",
    }
}

fn mode(file: &Path) -> Option<String> {
    std::fs::metadata(file).ok().map(|facts| format!("{:04o}", facts.mode() & 0o7777))
}
