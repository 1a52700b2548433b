//! `[peer.NAME]`: the nodes this one speaks with, and what it allows those that speak version 2.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::{Path, PathBuf};

use dispatch_core::policy::gate::PeerGate;
use dispatch_core::protocol::limits::{
    OUTPUT_BYTES_DEFAULT, OUTPUT_BYTES_MAX, OUTPUT_BYTES_MIN, TIMEOUT_S_MAX,
};
use dispatch_core::protocol::names::NodeName;
use dispatch_core::protocol::v2::Bounds;

use super::Effective;
use super::error::{ConfigError, Problem};
use super::section::{Flag, Section};
use super::values::{peer_gate, plain_path};

/// Longest wall clock of a version-2 task where the configuration is silent, in seconds.
const TIMEOUT_S_DEFAULT: u32 = 3_600;

/// A node this one speaks with.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Key files: the first signs, all verify.
    pub keys: Vec<PathBuf>,
    /// Key files whose signatures are refused as retired.
    pub retired: Vec<PathBuf>,
    /// Key file of the outgoing lane alone, for people who may send but not hold the pair key.
    pub lane_key: Option<PathBuf>,
    /// Which tasks of it a person must see first.
    pub gate: PeerGate,
    /// Whether it may ask for a profile's unrestricted mode.
    pub allow_dangerous: bool,
    /// Whether its tasks may run in profiles that are paid by use.
    pub allow_metered: bool,
    /// The protocol it speaks.
    pub speaks: Speaks,
}

/// The protocol a peer speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    /// Sealed messages.
    Version3,
    /// The flat JSON of the original kit.
    Version2(Version2),
}

/// What this node allows a version-2 peer where its signature leaves things open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version2 {
    /// Whether an empty `<id>.ack`, signed by nobody, approves a task of it.
    pub unsigned_acks: bool,
    /// The most its unsigned members may ask for.
    pub bounds: Bounds,
}

impl Peer {
    /// What is allowed to it as a version-2 peer; `None` for one of version 3.
    #[must_use]
    pub const fn version_2(&self) -> Option<Version2> {
        match self.speaks {
            Speaks::Version3 => None,
            Speaks::Version2(allowed) => Some(allowed),
        }
    }
}

pub(super) fn peers(
    top: &mut Section<'_>,
    dir: &Path,
    node: &NodeName,
    effective: &mut Vec<Effective>,
) -> Result<BTreeMap<NodeName, Peer>, ConfigError> {
    let mut peers = BTreeMap::new();
    for (name, mut section) in top.children("peer")? {
        let bad = |section: &Section<'_>, why: &dyn Display| {
            section.error_at("", Problem::value(format!("peer.{name}"), why))
        };
        let peer_name = NodeName::new(&name).map_err(|why| bad(&section, &why))?;
        if peer_name == *node {
            return Err(bad(&section, &"a node is not its own peer"));
        }
        peers.insert(peer_name, peer(&mut section, dir)?);
        effective.append(&mut section.finish()?);
    }
    Ok(peers)
}

fn peer(section: &mut Section<'_>, dir: &Path) -> Result<Peer, ConfigError> {
    let keys = section.texts("keys", |text| plain_path(text).map(|path| dir.join(path)))?;
    let lane_key = section.text("lane_key", |text| plain_path(text).map(|path| dir.join(path)))?;
    if keys.is_empty() && lane_key.is_none() {
        return Err(section.missing("keys"));
    }
    let schema = section.number_or::<u8>("schema", 2..=3, 3)?;
    let speaks = if schema == 2 { Speaks::Version2(version_2(section)?) } else { Speaks::Version3 };
    let is_old = speaks != Speaks::Version3;
    if is_old && lane_key.is_some() {
        return Err(refused(
            section,
            "lane_key",
            "a key of version 2 signs both directions; name it in keys",
        ));
    }
    for key in if is_old { &[][..] } else { &ONLY_OF_VERSION_2[..] } {
        if section.is_set(key) {
            return Err(refused(section, key, "only a peer with schema = 2 has this"));
        }
    }
    Ok(Peer {
        keys,
        retired: section.texts("retired", |text| plain_path(text).map(|path| dir.join(path)))?,
        lane_key,
        gate: section.text_or("gate", if is_old { "always" } else { "policy" }, peer_gate)?,
        allow_dangerous: section.flag_or("allow_dangerous", Flag::False)?,
        allow_metered: if is_old { section.flag_or("allow_metered", Flag::False)? } else { true },
        speaks,
    })
}

/// Keys that say nothing about a peer whose signature leaves nothing open.
const ONLY_OF_VERSION_2: [&str; 4] =
    ["legacy_unsigned_acks", "allow_metered", "timeout_s", "max_output_bytes"];

fn version_2(section: &mut Section<'_>) -> Result<Version2, ConfigError> {
    Ok(Version2 {
        unsigned_acks: section.flag_or("legacy_unsigned_acks", Flag::False)?,
        bounds: Bounds {
            timeout_s: section.number_or("timeout_s", 1..=u64::from(TIMEOUT_S_MAX), TIMEOUT_S_DEFAULT)?,
            max_output_bytes: section.number_or(
                "max_output_bytes",
                OUTPUT_BYTES_MIN..=OUTPUT_BYTES_MAX,
                OUTPUT_BYTES_DEFAULT,
            )?,
        },
    })
}

fn refused(section: &Section<'_>, key: &str, why: &str) -> ConfigError {
    section.error_at(key, Problem::value(section.full(key), &why))
}
