//! The join file: what the first node tells its peer, the pair key among it.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use dispatch_core::protocol::names::{NodeName, canonical_uuid};
use dispatch_node::files::{FileError, open_regular, read_limited};
use dispatch_node::report::{Exit, Report};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Longest join file.
const JOIN_BYTES_MAX: u64 = 64 * 1024;
/// Its format.
const SCHEMA: u32 = 1;

/// What a join file says. Its `Debug` shows no key.
pub(crate) struct Join {
    pub(crate) cluster: Uuid,
    /// The node that is to be set up with it.
    pub(crate) node: NodeName,
    /// The node that wrote it.
    pub(crate) peer: NodeName,
    /// The text of the pair key.
    pub(crate) key: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    schema: u32,
    cluster: String,
    node: String,
    peer: String,
    key: String,
}

impl Join {
    pub(crate) fn encode(&self, path: &Path) -> Result<Vec<u8>, FileError> {
        let raw = Raw {
            schema: SCHEMA,
            cluster: self.cluster.to_string(),
            node: self.node.to_string(),
            peer: self.peer.to_string(),
            key: self.key.clone(),
        };
        let mut bytes =
            serde_json::to_vec(&raw).map_err(io::Error::other).map_err(FileError::of("write", path))?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Reads a join file: mode 0600 and not on the share, because it holds the key.
    pub(crate) fn read(path: &Path, root: &Path) -> Result<Join, Report> {
        let refused =
            |why: &str| Report::new(Exit::Config, format!("the join file `{}` {why}", path.display()));
        let mode = open_regular(path)?.metadata().map_err(FileError::of("look at", path))?.mode() & 0o777;
        if mode & 0o077 != 0 {
            let mend = format!("if nobody else has read it: chmod 600 {}", path.display());
            return Err(
                refused(&format!("has mode {mode:04o}, which lets other people at the key")).help(mend)
            );
        }
        if on_share(path, root) {
            return Err(refused("lies on the share: whoever mounts it may have read the key")
                .help("remove it and the key it was made with, and start again on the other node"));
        }
        let bytes = read_limited(path, JOIN_BYTES_MAX)?;
        Join::decode(&bytes)
            .map_err(|why| refused("is not one that `dispatchctl init` wrote").while_reading(&why))
    }

    fn decode(bytes: &[u8]) -> Result<Join, String> {
        // The error of a JSON parser may quote what it read, which is a key here.
        let raw: Raw = serde_json::from_slice(bytes).map_err(|_| "not JSON of its form".to_owned())?;
        if raw.schema != SCHEMA {
            return Err(format!("schema {} is not {SCHEMA}", raw.schema));
        }
        Ok(Join {
            cluster: canonical_uuid(&raw.cluster).map_err(|bad| bad.to_string())?,
            node: NodeName::new(&raw.node).map_err(|bad| bad.to_string())?,
            peer: NodeName::new(&raw.peer).map_err(|bad| bad.to_string())?,
            key: raw.key,
        })
    }
}

trait WhileReading {
    fn while_reading(self, why: &str) -> Report;
}

impl WhileReading for Report {
    fn while_reading(self, why: &str) -> Report {
        self.because(&io::Error::new(io::ErrorKind::InvalidData, why.to_owned()))
    }
}

fn on_share(path: &Path, root: &Path) -> bool {
    let real = |path: &Path| -> Option<PathBuf> { std::fs::canonicalize(path).ok() };
    real(path).zip(real(root)).is_some_and(|(path, root)| path.starts_with(root))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn join() -> Join {
        Join {
            cluster: canonical_uuid("7c0e3b52-6f0e-4a3e-9d52-0f6f2b8f7a11").unwrap(),
            node: NodeName::new("b").unwrap(),
            peer: NodeName::new("a").unwrap(),
            key: "k".repeat(64),
        }
    }

    #[test]
    fn a_join_file_survives() {
        let read = Join::decode(&join().encode(Path::new("j")).unwrap()).unwrap();
        assert_eq!((read.node.as_str(), read.peer.as_str(), read.key), ("b", "a", "k".repeat(64)));
    }

    #[test]
    fn a_join_file_that_others_could_read_is_refused_and_not_quoted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("j");
        std::fs::write(&path, join().encode(&path).unwrap()).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let error = Join::read(&path, Path::new("/nonexistent")).err().unwrap();
        assert!(error.json().contains("0644") && !error.json().contains("kkkk"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert!(Join::read(&path, Path::new("/nonexistent")).is_ok());
        assert!(Join::read(&path, dir.path()).is_err());
        std::fs::write(&path, "{\"key\":\"kkkk").unwrap();
        assert!(!Join::read(&path, Path::new("/nonexistent")).err().unwrap().json().contains("kkkk"));
    }
}
