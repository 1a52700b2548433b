//! Key files: made, checked and read. What they hold never leaves this module but as keys (protocol section 2).

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use dispatch_core::protocol::keys::{KeyRing, LaneKey, LaneRing, NotALaneKey, PairKey, WeakKey};
use dispatch_core::protocol::names::{Lane, NodeName};
use dispatch_core::protocol::v2::{FlatKey, FlatRing};

use crate::config::Config;
use crate::files::{FileError, Written, create_private_dir, create_synced, open_regular, read_limited};
use crate::ids::{self, NoRandomness};
use crate::report::{Exit, Explain};

/// Longest key file.
const KEY_BYTES_MAX: u64 = 4 * 1024;
/// Longest `allowed_signers` file.
const APPROVERS_BYTES_MAX: u64 = 1024 * 1024;

/// A key file that is not used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// There is none.
    #[error("the key file `{}` is missing", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// Other people may read or write it.
    #[error("the key file `{}` has mode {mode:04o}, which lets other people at it", path.display())]
    Loose {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
        /// The permissions it must have.
        wanted: &'static str,
    },
    /// A stranger owns it.
    #[error("the key file `{}` belongs to uid {owner}, neither to this user nor to root", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
    },
    /// It lies below the share.
    #[error("the key file `{}` lies on the share", path.display())]
    OnShare {
        /// The file.
        path: PathBuf,
    },
    /// It is too short to be a key.
    #[error("the key file `{}` holds no usable key", path.display())]
    Weak {
        /// The file.
        path: PathBuf,
        /// Why.
        source: WeakKey,
    },
    /// It is not a lane key.
    #[error("the key file `{}` holds no lane key", path.display())]
    NotALaneKey {
        /// The file.
        path: PathBuf,
        /// Why.
        source: NotALaneKey,
    },
    /// No key is configured for that node.
    #[error("there is no key for the node `{peer}`")]
    NoPeer {
        /// The node.
        peer: NodeName,
    },
    /// It cannot be read or made.
    #[error(transparent)]
    Io(#[from] FileError),
    /// No key can be drawn.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

impl Explain for KeyError {
    fn exit(&self) -> Exit {
        Exit::Config
    }

    fn help(&self) -> Option<String> {
        match self {
            KeyError::Missing { path } => Some(format!(
                "bring it over from the other node, or make a new pair with `dispatchctl init`: {}",
                path.display()
            )),
            KeyError::Loose { path, wanted, .. } => Some(format!("run: chmod {wanted} {}", path.display())),
            KeyError::Foreign { path, .. } => {
                Some(format!("run: sudo chown \"$(id -u)\" {}", path.display()))
            }
            KeyError::OnShare { path } => Some(format!(
                "move it to this node's own disk and make a new one: whoever mounts the share has read {}",
                path.display()
            )),
            KeyError::Weak { path, .. } => {
                Some(format!("run: (umask 077; openssl rand -hex 32 > {})", path.display()))
            }
            KeyError::NoPeer { peer } => {
                Some(format!("add [peer.{peer}] to dispatch.toml, or look at the spelling of the name"))
            }
            KeyError::NotALaneKey { .. } | KeyError::Io(_) | KeyError::NoRandomness(_) => None,
        }
    }
}

/// The keys of all peers, read once.
#[derive(Debug, Default)]
pub struct Keys {
    rings: BTreeMap<NodeName, KeyRing>,
    flat: BTreeMap<NodeName, FlatRing>,
}

impl Keys {
    /// Reads every key file the configuration names.
    ///
    /// # Errors
    /// The first file that is not usable.
    pub fn load(config: &Config) -> Result<Keys, KeyError> {
        let mut keys = Keys::default();
        for peer in config.peers.keys() {
            match flat_ring(config, peer)? {
                Some(ring) => drop(keys.flat.insert(peer.clone(), ring)),
                None => drop(keys.rings.insert(peer.clone(), ring(config, peer)?)),
            }
        }
        // Its own heartbeats and boot records must be sealed for somebody, or two watchers would not know each other.
        if keys.rings.is_empty() && !keys.flat.is_empty() {
            let own = keys.flat.values().map(|ring| ring.own(&config.node));
            let own = own.fold(KeyRing::default(), |mut all, ring| {
                all.accepted.extend(ring.accepted);
                all.retired.extend(ring.retired);
                all
            });
            keys.rings.insert(config.node.clone(), own);
        }
        Ok(keys)
    }

    /// The keys of a version-2 peer; `None` for one of version 3 and for strangers.
    #[must_use]
    pub fn flat(&self, peer: &NodeName) -> Option<&FlatRing> {
        self.flat.get(peer)
    }

    /// The keys shared with a node; an empty ring, with which nothing verifies, for strangers.
    #[must_use]
    pub fn ring(&self, peer: &NodeName) -> KeyRing {
        self.rings.get(peer).cloned().unwrap_or_default()
    }

    /// The keys of a lane that this node is an end of.
    #[must_use]
    pub fn lane(&self, node: &NodeName, lane: &Lane) -> LaneRing {
        let peer = if lane.from == *node { &lane.to } else { &lane.from };
        self.rings.get(peer).map(|ring| ring.lane(lane)).unwrap_or_default()
    }

    /// All version-3 peers with their keys: those that what this node says of itself is sealed for. A node that has none
    /// but version-2 peers stands here under its own name.
    pub fn iter(&self) -> impl Iterator<Item = (&NodeName, &KeyRing)> {
        self.rings.iter()
    }
}

/// The keys shared with a version-2 peer; `None` for one of version 3.
///
/// # Errors
/// A peer that is not configured, or a file that is not usable.
pub fn flat_ring(config: &Config, peer: &NodeName) -> Result<Option<FlatRing>, KeyError> {
    let entry = config.peer(peer).ok_or_else(|| KeyError::NoPeer { peer: peer.clone() })?;
    if entry.version_2().is_none() {
        return Ok(None);
    }
    let read = |path: &PathBuf| read_flat_key(path);
    Ok(Some(FlatRing {
        accepted: entry.keys.iter().map(read).collect::<Result<_, _>>()?,
        retired: entry.retired.iter().map(read).collect::<Result<_, _>>()?,
    }))
}

/// The keys shared with one peer; none for a version-2 peer, whose key opens and seals nothing of version 3.
///
/// # Errors
/// A peer that is not configured, or a file that is not usable.
pub fn ring(config: &Config, peer: &NodeName) -> Result<KeyRing, KeyError> {
    let entry = config.peer(peer).ok_or_else(|| KeyError::NoPeer { peer: peer.clone() })?;
    if entry.version_2().is_some() {
        return Ok(KeyRing::default());
    }
    let read = |path: &PathBuf| read_pair_key(path, &config.root);
    Ok(KeyRing {
        accepted: entry.keys.iter().map(read).collect::<Result<_, _>>()?,
        retired: entry.retired.iter().map(read).collect::<Result<_, _>>()?,
    })
}

/// The keys of the lane to a peer as a sender has them: from the outgoing lane's own file where the configuration
/// names one, else from the pair keys.
///
/// # Errors
/// A peer that is not configured, or a file that is not usable.
pub fn outgoing(config: &Config, peer: &NodeName) -> Result<LaneRing, KeyError> {
    let entry = config.peer(peer).ok_or_else(|| KeyError::NoPeer { peer: peer.clone() })?;
    let lane = Lane::new(config.node.clone(), peer.clone());
    match &entry.lane_key {
        Some(path) => {
            Ok(LaneRing { accepted: vec![read_lane_key(path, &config.root)?], retired: Vec::new() })
        }
        None => ring(config, peer).map(|ring| ring.lane(&lane)),
    }
}

/// Reads a pair key: mode 0600 or tighter, owned by this user or root, not on the share.
///
/// # Errors
/// A file that is none of that, cannot be read, or is too short.
pub fn read_pair_key(path: &Path, root: &Path) -> Result<PairKey, KeyError> {
    let text = read_key_text(path, root, 0o077, "600", OwnedBy::UserOrRoot)?;
    PairKey::from_text(&text).map_err(|source| KeyError::Weak { path: path.to_owned(), source })
}

/// Reads a key of version 2: mode 0600 or tighter, owned by this user or root. It alone may lie on the share, where the
/// original kit keeps it.
///
/// # Errors
/// A file that is none of that, cannot be read, or is too short.
pub fn read_flat_key(path: &Path) -> Result<FlatKey, KeyError> {
    let text = key_text(path, 0o077, "600", OwnedBy::UserOrRoot)?;
    FlatKey::from_text(&text).map_err(|source| KeyError::Weak { path: path.to_owned(), source })
}

/// Reads the key of one lane alone: mode 0640 or tighter, not on the share; it belongs to the service, not the sender.
///
/// # Errors
/// A file that is none of that, cannot be read, or is no lane key.
pub fn read_lane_key(path: &Path, root: &Path) -> Result<LaneKey, KeyError> {
    let text = read_key_text(path, root, 0o037, "640", OwnedBy::Anyone)?;
    LaneKey::from_text(&text).map_err(|source| KeyError::NotALaneKey { path: path.to_owned(), source })
}

/// Draws a new pair key and writes it, mode 0600; a file that is there stays.
///
/// # Errors
/// The system's refusal.
pub fn new_pair_key(path: &Path) -> Result<Written, KeyError> {
    write_pair_key(path, &ids::hex_256()?)
}

/// Writes a pair key that came from the other node, mode 0600; a file that is there stays.
///
/// # Errors
/// A text that is too short, or the system's refusal.
pub fn write_pair_key(path: &Path, text: &str) -> Result<Written, KeyError> {
    PairKey::from_text(text).map_err(|source| KeyError::Weak { path: path.to_owned(), source })?;
    if let Some(parent) = path.parent() {
        create_private_dir(parent)?;
    }
    Ok(create_synced(path, format!("{}\n", text.trim()).as_bytes(), 0o600)?)
}

/// The text of a pair key, for the one file that brings it to the other node. It is a secret.
///
/// # Errors
/// As [`read_pair_key`].
pub fn pair_key_secret_text(path: &Path, root: &Path) -> Result<String, KeyError> {
    read_pair_key(path, root)?;
    let text = read_key_text(path, root, 0o077, "600", OwnedBy::UserOrRoot)?;
    Ok(text.trim().to_owned())
}

/// The text of the `allowed_signers` file; empty where there is none, so that nobody may decide.
///
/// # Errors
/// A file that others may write, or that cannot be read.
pub fn approvers_text(config: &Config) -> Result<String, KeyError> {
    let path = &config.approve.allowed_signers;
    match read_checked(path, 0o022, "go-w", OwnedBy::UserOrRoot, APPROVERS_BYTES_MAX) {
        Err(KeyError::Missing { .. }) => Ok(String::new()),
        Ok(bytes) => String::from_utf8(bytes).map_err(|bad| {
            let source = io::Error::new(io::ErrorKind::InvalidData, bad.utf8_error());
            FileError { op: "read", path: path.clone(), source }.into()
        }),
        Err(error) => Err(error),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum OwnedBy {
    UserOrRoot,
    Anyone,
}

fn read_key_text(
    path: &Path,
    root: &Path,
    forbidden_mode: u32,
    wanted: &'static str,
    owned_by: OwnedBy,
) -> Result<String, KeyError> {
    if let (Ok(real), Ok(root)) = (fs::canonicalize(path), fs::canonicalize(root))
        && real.starts_with(root)
    {
        return Err(KeyError::OnShare { path: path.to_owned() });
    }
    key_text(path, forbidden_mode, wanted, owned_by)
}

fn key_text(
    path: &Path,
    forbidden_mode: u32,
    wanted: &'static str,
    owned_by: OwnedBy,
) -> Result<String, KeyError> {
    let bytes = read_checked(path, forbidden_mode, wanted, owned_by, KEY_BYTES_MAX)?;
    String::from_utf8(bytes)
        .map_err(|_| KeyError::Weak { path: path.to_owned(), source: WeakKey { chars: 0 } })
}

fn read_checked(
    path: &Path,
    forbidden_mode: u32,
    wanted: &'static str,
    owned_by: OwnedBy,
    bytes_max: u64,
) -> Result<Vec<u8>, KeyError> {
    // A symlink's target is what must hold: people keep keys in secret stores.
    let real = match fs::canonicalize(path) {
        Ok(real) => real,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(KeyError::Missing { path: path.to_owned() });
        }
        Err(source) => return Err(FileError { op: "find", path: path.to_owned(), source }.into()),
    };
    let facts = open_regular(&real)?.metadata().map_err(FileError::of("look at", &real))?;
    let (owner, mode) = (facts.uid(), facts.mode() & 0o7777);
    let ours = owner == 0 || owner == rustix::process::geteuid().as_raw();
    if owned_by == OwnedBy::UserOrRoot && !ours {
        return Err(KeyError::Foreign { path: path.to_owned(), owner });
    }
    if mode & forbidden_mode != 0 {
        return Err(KeyError::Loose { path: path.to_owned(), mode, wanted });
    }
    Ok(read_limited(&real, bytes_max)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    struct Place {
        dir: tempfile::TempDir,
    }

    impl Place {
        fn new() -> Place {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir(dir.path().join("share")).unwrap();
            Place { dir }
        }

        fn root(&self) -> PathBuf {
            self.dir.path().join("share")
        }

        fn key(&self, text: &str, mode: u32) -> PathBuf {
            let path = self.dir.path().join("k");
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            path
        }
    }

    #[test]
    fn a_new_key_is_private_and_is_not_drawn_twice() {
        let place = Place::new();
        let path = place.dir.path().join("keys/b.key");
        assert_eq!(new_pair_key(&path).unwrap(), Written::Created);
        let first = read_pair_key(&path, &place.root()).unwrap();
        assert_eq!(new_pair_key(&path).unwrap(), Written::AlreadyThere);
        assert_eq!(read_pair_key(&path, &place.root()).unwrap().keyid(), first.keyid());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_loose_key_is_refused_with_the_command_that_mends_it() {
        let place = Place::new();
        let path = place.key(&"k".repeat(64), 0o640);
        let error = read_pair_key(&path, &place.root()).unwrap_err();
        assert_eq!(error.help().unwrap(), format!("run: chmod 600 {}", path.display()));
        assert_eq!(error.exit(), Exit::Config);
    }

    #[test]
    fn a_key_on_the_share_is_refused_also_through_a_symlink() {
        let place = Place::new();
        let on_share = place.root().join("k");
        assert_eq!(write_pair_key(&on_share, &"k".repeat(64)).unwrap(), Written::Created);
        let link = place.dir.path().join("link");
        std::os::unix::fs::symlink(&on_share, &link).unwrap();
        for path in [on_share, link] {
            assert!(matches!(read_pair_key(&path, &place.root()), Err(KeyError::OnShare { .. })));
        }
    }

    #[test]
    fn a_key_of_version_2_may_lie_on_the_share_and_nowhere_loose() {
        let place = Place::new();
        let on_share = place.root().join("k");
        assert_eq!(write_pair_key(&on_share, &"k".repeat(64)).unwrap(), Written::Created);
        let key = read_flat_key(&on_share).unwrap();
        assert!(key.verifies(b"x", &key.sign(b"x")));
        fs::set_permissions(&on_share, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(read_flat_key(&on_share), Err(KeyError::Loose { .. })));
    }

    #[test]
    fn a_short_empty_or_missing_key_is_refused() {
        let place = Place::new();
        for text in ["", "  \n", "short"] {
            let path = place.key(text, 0o600);
            assert!(matches!(read_pair_key(&path, &place.root()), Err(KeyError::Weak { .. })), "{text}");
        }
        let path = place.dir.path().join("none");
        assert!(matches!(read_pair_key(&path, &place.root()), Err(KeyError::Missing { .. })));
    }

    #[test]
    fn no_error_shows_what_a_key_file_holds() {
        let place = Place::new();
        let path = place.key("secret-but-short", 0o600);
        let error = read_pair_key(&path, &place.root()).unwrap_err();
        let report = crate::report::Report::from(error);
        assert!(!report.json().contains("secret-but-short"));
    }
}
