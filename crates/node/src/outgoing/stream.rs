//! The file `stream`: which stream this is, and its last used position.
//!
//! The position is noted without a sync, because a lost note can be made up for: within one boot of the machine what was
//! written is what is read, and after another boot the records say which position was the last.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use dispatch_core::protocol::names::canonical_uuid;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::error::OutgoingError;
use super::record::{self, RecordPlace};
use super::{Outgoing, Position};
use crate::clock::host_boot_id;
use crate::files::{FileError, create_synced, read_limited};
use crate::ids::uuid_v4;

const SCHEMA: u32 = 1;
/// Every version of the file has this length, so that writing it anew in place leaves nothing of the old one.
const FILE_BYTES: usize = 192;

/// A stream and its last used position; 0 = none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stream {
    pub(super) id: Uuid,
    pub(super) last_seq: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    schema: u32,
    stream: String,
    seq: u64,
    host_boot_id: String,
}

fn path(outgoing: &Outgoing) -> PathBuf {
    outgoing.dir.join("stream")
}

/// This boot of the machine; empty, which equals no boot, where nobody says.
fn this_boot() -> String {
    host_boot_id().map(|id| id.hyphenated().to_string()).unwrap_or_default()
}

fn to_bytes(stream: Stream, boot: String) -> Vec<u8> {
    let raw = Raw {
        schema: SCHEMA,
        stream: stream.id.hyphenated().to_string(),
        seq: stream.last_seq,
        host_boot_id: boot,
    };
    let mut bytes = serde_json::to_vec(&raw).unwrap_or_default();
    bytes.resize(FILE_BYTES.saturating_sub(1), b' ');
    bytes.push(b'\n');
    bytes
}

fn read(outgoing: &Outgoing) -> Result<Option<(Stream, String)>, OutgoingError> {
    let path = path(outgoing);
    let bytes = match read_limited(&path, 1024) {
        Ok(bytes) => bytes,
        Err(error) if error.source.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let damaged = |source| OutgoingError::Damaged { path: path.clone(), source };
    let raw: Raw = serde_json::from_slice(&bytes).map_err(|error| damaged(error.into()))?;
    if raw.schema != SCHEMA {
        return Err(damaged(format!("schema {} is not {SCHEMA}", raw.schema).into()));
    }
    let id = canonical_uuid(&raw.stream).map_err(|error| damaged(error.into()))?;
    Ok(Some((Stream { id, last_seq: raw.seq }, raw.host_boot_id)))
}

/// The stream as it stands; made, synced, where there is none. Needs the lane's lock.
pub(super) fn current(outgoing: &Outgoing) -> Result<Stream, OutgoingError> {
    let Some((mut stream, boot)) = read(outgoing)? else {
        let stream = Stream { id: uuid_v4()?, last_seq: 0 };
        return match create_synced(&path(outgoing), &to_bytes(stream, this_boot()), 0o600)? {
            crate::files::Written::Created => Ok(stream),
            crate::files::Written::AlreadyThere => current(outgoing),
        };
    };
    // An entry may be there whose note a crash prevented.
    if let Some((seq, _)) = outgoing.kept()?.last() {
        stream.last_seq = stream.last_seq.max(*seq);
    }
    let now = this_boot();
    if boot != now || now.is_empty() {
        stream.last_seq = stream.last_seq.max(last_recorded(outgoing, stream.id)?);
        write(outgoing, stream, now)?;
    }
    Ok(stream)
}

/// The highest position of the stream that any sent record holds.
fn last_recorded(outgoing: &Outgoing, stream: Uuid) -> Result<u64, OutgoingError> {
    let mut last = 0;
    for id in outgoing.sent_ids()? {
        // A damaged record hides its position; those after it show that it was used.
        if let Ok(Some(record)) = record::read(&outgoing.sent_path(id), RecordPlace::Sent)
            && record.stream == stream
        {
            last = record.seq.max(last);
        }
    }
    Ok(last)
}

/// Notes that a position is used. Needs the lane's lock.
pub(super) fn used(outgoing: &Outgoing, position: Position) -> Result<(), OutgoingError> {
    match read(outgoing)? {
        Some((stream, boot)) if stream.id == position.stream && stream.last_seq < position.seq => {
            write(outgoing, Stream { id: stream.id, last_seq: position.seq }, boot)
        }
        Some(_) | None => Ok(()),
    }
}

fn write(outgoing: &Outgoing, stream: Stream, boot: String) -> Result<(), OutgoingError> {
    let path = path(outgoing);
    OpenOptions::new()
        .write(true)
        .open(&path)
        .and_then(|file| file.write_all_at(&to_bytes(stream, boot), 0))
        .map_err(FileError::of("write", &path))?;
    Ok(())
}
