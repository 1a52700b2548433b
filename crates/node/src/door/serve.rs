//! The watcher's side of the door.

use std::path::{Path, PathBuf};

use dispatch_core::protocol::names::canonical_uuid;
use uuid::Uuid;

use super::words::{Answer, BadWords, Request, decode_request, encode_reply};
use crate::files::{FileError, Removed, read_limited, remove, rename_if_there, replace_synced};
use crate::state::{StateDir, names_in};

/// Longest request or reply.
pub(super) const DOOR_BYTES_MAX: u64 = 64 * 1024;
/// What a request is called until the watcher takes it.
pub(super) const OFFERED: &str = "json";
/// What it is called from then on.
const CLAIMED: &str = "taken";

/// A request the watcher has taken: its asker waits for a reply and can no longer take it back.
#[derive(Debug)]
pub struct Claimed {
    /// The id in its file's name.
    pub id: Uuid,
    /// What it asks, or why it cannot be read: answer `malformed`.
    pub request: Result<Request, Unreadable>,
}

/// A request that is not of its form.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// The file cannot be read.
    #[error(transparent)]
    File(FileError),
    /// It says something else.
    #[error("the request is not of its form")]
    Words(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// The door as its watcher has it.
#[derive(Clone, Debug)]
pub struct Door {
    requests: PathBuf,
    replies: PathBuf,
}

impl Door {
    /// The door of a state directory.
    #[must_use]
    pub fn of(state: &StateDir) -> Door {
        Door { requests: state.requests(), replies: state.replies() }
    }

    /// The directory where requests appear: worth a hint when it changes.
    #[must_use]
    pub fn requests_dir(&self) -> &Path {
        &self.requests
    }

    /// Takes every request that waits, and again those a watcher before this one took and did not answer.
    ///
    /// # Errors
    /// The directory cannot be listed, or a request not be taken.
    pub fn claim_all(&self) -> Result<Vec<Claimed>, FileError> {
        let mut claimed = Vec::new();
        for name in names_in(&self.requests)? {
            let Some((id, kind)) = request_name(&name) else { continue };
            let taken = self.claimed_path(id);
            if kind == OFFERED && rename_if_there(&self.requests.join(&name), &taken)? == Removed::Absent {
                continue;
            }
            claimed.push(Claimed { id, request: read_request(id, &taken) });
        }
        Ok(claimed)
    }

    /// Answers a request: the reply is synced before the request goes.
    ///
    /// # Errors
    /// The reply cannot be written; the request is then still there and comes again.
    pub fn reply(&self, id: Uuid, answer: &Answer) -> Result<(), FileError> {
        let path = self.replies.join(format!("{id}.json"));
        let bytes =
            encode_reply(id, answer).map_err(std::io::Error::other).map_err(FileError::of("write", &path))?;
        replace_synced(&path, &bytes, 0o600)?;
        // A second answer to the same request finds it gone.
        let (Removed::Removed | Removed::Absent) = remove(&self.claimed_path(id))?;
        Ok(())
    }

    fn claimed_path(&self, id: Uuid) -> PathBuf {
        self.requests.join(format!("{id}.{CLAIMED}"))
    }
}

fn request_name(name: &str) -> Option<(Uuid, &str)> {
    let (id, kind) = name.split_once('.')?;
    let id = canonical_uuid(id).ok()?;
    [OFFERED, CLAIMED].contains(&kind).then_some((id, kind))
}

fn read_request(id: Uuid, path: &Path) -> Result<Request, Unreadable> {
    let bytes = read_limited(path, DOOR_BYTES_MAX).map_err(Unreadable::File)?;
    let request = decode_request(&bytes).map_err(|bad| Unreadable::Words(Box::new(bad)))?;
    if request.id == id {
        Ok(request)
    } else {
        Err(Unreadable::Words(Box::new(BadWords::Member { member: "id" })))
    }
}
