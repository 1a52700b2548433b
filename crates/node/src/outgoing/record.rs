//! A record of the outbox and of `sent/`: the sealed task, and what became of it.

use std::io;
use std::path::Path;
use std::time::UNIX_EPOCH;

use dispatch_core::protocol::limits::{OUTPUT_BYTES_MAX, TIMEOUT_S_MAX};
use dispatch_core::protocol::names::{Digest, TaskId, canonical_uuid};
use dispatch_core::protocol::payload::{Kind, Payload as _};
use dispatch_core::protocol::result::Status;
use dispatch_core::protocol::seal::RawEnvelope;
use dispatch_core::protocol::task::Task;
use dispatch_core::protocol::time::Timestamp;
use dispatch_core::protocol::v2;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::answer_by;
use super::error::OutgoingError;
use crate::files::{FileError, read_limited};

/// Longest record: an envelope, its quotes escaped, and the rest.
const RECORD_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Its format.
const SCHEMA: u32 = 1;
/// What was sent is shown as it was sent.
const OWN_BOUNDS: v2::Bounds = v2::Bounds { timeout_s: TIMEOUT_S_MAX, max_output_bytes: OUTPUT_BYTES_MAX };

/// A sealed task with what its record repeats of it.
#[derive(Clone, Debug)]
pub struct Sealed {
    /// The id.
    pub id: TaskId,
    /// Its stream.
    pub stream: Uuid,
    /// Its position there.
    pub seq: u64,
    /// The digest of its payload.
    pub task_sha256: Digest,
    /// When it expires.
    pub expires: Timestamp,
    /// Until when an answer may come.
    pub answer_by: Timestamp,
    /// The file: an envelope, or for a version-2 peer the flat task.
    pub envelope: Vec<u8>,
}

impl Sealed {
    /// A task, its payload's bytes, and the envelope around them.
    #[must_use]
    pub fn of(task: &Task, payload: &[u8], envelope: Vec<u8>) -> Sealed {
        Sealed {
            id: task.id,
            stream: task.stream,
            seq: task.seq,
            task_sha256: Digest::of(payload),
            expires: task.expires,
            answer_by: answer_by(task),
            envelope,
        }
    }
}

/// Where a record lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordPlace {
    /// Kept, not published yet as far as anybody noted.
    Outbox,
    /// Published.
    Sent,
}

/// The answer that was believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answered {
    /// When it was noticed.
    pub at: Timestamp,
    /// What it said.
    pub status: Status,
}

/// What this node knows of a task that it sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The id.
    pub id: TaskId,
    /// Its stream.
    pub stream: Uuid,
    /// Its position there.
    pub seq: u64,
    /// The digest of its payload: what an answer must name to be believed.
    pub task_sha256: Digest,
    /// When it expires; from then on it is not put back.
    pub expires: Timestamp,
    /// Until when an answer may come.
    pub answer_by: Timestamp,
    /// The file as it was made: an envelope, or for a version-2 peer the flat task.
    pub envelope: Vec<u8>,
    /// The payload of the cancel that a person asked for.
    pub cancel: Option<Vec<u8>>,
    /// Something else lay at its name for too long.
    pub conflict: bool,
    /// It was left in the outbox and its id already stood on the lane of a version-2 peer: whether it was taken is unknown,
    /// and it is never published again.
    pub unknown: bool,
    /// Its answer.
    pub answered: Option<Answered>,
    /// When it was said that none came.
    pub unanswered_at: Option<Timestamp>,
    /// Where the record lies.
    pub place: RecordPlace,
    /// When the task was kept, or published last. It is the file's time, so that noting it rewrites nothing.
    pub touched: Timestamp,
}

impl Record {
    pub(super) fn new(sealed: Sealed) -> Record {
        let Sealed { id, stream, seq, task_sha256, expires, answer_by, envelope } = sealed;
        Record {
            id,
            stream,
            seq,
            task_sha256,
            expires,
            answer_by,
            envelope,
            cancel: None,
            conflict: false,
            unknown: false,
            answered: None,
            unanswered_at: None,
            place: RecordPlace::Outbox,
            touched: crate::clock::now(),
        }
    }

    /// True for a task of a version-2 peer.
    #[must_use]
    pub fn is_flat(&self) -> bool {
        v2::is_flat(&self.envelope)
    }

    /// The exact bytes that were sealed. They are this node's own, so they need no key.
    ///
    /// # Errors
    /// The envelope in the record is damaged.
    pub fn payload(&self) -> Result<Vec<u8>, OutgoingError> {
        let damaged = |source| OutgoingError::Damaged { path: sent_name(self.id).into(), source };
        let envelope =
            RawEnvelope::read(Kind::Task, &self.envelope).map_err(|error| damaged(error.into()))?;
        let payload = envelope.unverified_payload().to_vec();
        if Digest::of(&payload) == self.task_sha256 {
            Ok(payload)
        } else {
            Err(damaged("its digest is another".into()))
        }
    }

    /// The task. A flat one names no cluster.
    ///
    /// # Errors
    /// As [`Record::payload`].
    pub fn task(&self) -> Result<Task, OutgoingError> {
        if self.is_flat() {
            let damaged = || OutgoingError::Damaged {
                path: sent_name(self.id).into(),
                source: "it is no task of version 2 that was sent from here".into(),
            };
            let read = v2::read_stored(&self.envelope, Uuid::nil(), OWN_BOUNDS).ok_or_else(damaged)?;
            return if Digest::of(&read.1) == self.task_sha256 { Ok(read.0) } else { Err(damaged()) };
        }
        Task::from_stored(&self.payload()?)
            .map_err(|error| OutgoingError::Damaged { path: sent_name(self.id).into(), source: error.into() })
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let raw = Raw {
            schema: SCHEMA,
            id: self.id.to_string(),
            stream: self.stream.hyphenated().to_string(),
            seq: self.seq,
            task_sha256: self.task_sha256.to_string(),
            expires: self.expires.to_string(),
            answer_by: self.answer_by.to_string(),
            conflict: self.conflict,
            unknown: self.unknown,
            answered: self.answered.map(|answered| RawAnswered {
                at: answered.at.to_string(),
                status: answered.status.as_str().to_owned(),
            }),
            unanswered_at: self.unanswered_at.map(|at| at.to_string()),
            cancel: self.cancel.as_deref().map(|bytes| String::from_utf8_lossy(bytes).into_owned()),
            // Envelopes and payloads are ASCII and UTF-8, because this node makes them.
            sealed: String::from_utf8_lossy(&self.envelope).into_owned(),
        };
        // Nothing in it can fail to be written: no map, no float, no foreign type.
        serde_json::to_vec(&raw).unwrap_or_default()
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    schema: u32,
    id: String,
    stream: String,
    seq: u64,
    task_sha256: String,
    expires: String,
    answer_by: String,
    conflict: bool,
    // Left out where it is false: records of an earlier release do not have it.
    #[serde(default, skip_serializing_if = "is_false")]
    unknown: bool,
    answered: Option<RawAnswered>,
    unanswered_at: Option<String>,
    cancel: Option<String>,
    sealed: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAnswered {
    at: String,
    status: String,
}

fn is_false(flag: &bool) -> bool {
    !flag
}

type Wrong = Box<dyn std::error::Error + Send + Sync>;

impl Raw {
    fn check(self, place: RecordPlace, touched: Timestamp) -> Result<Record, Wrong> {
        if self.schema != SCHEMA {
            return Err(format!("schema {} is not {SCHEMA}", self.schema).into());
        }
        let answered = |raw: RawAnswered| -> Result<Answered, Wrong> {
            let status = Status::parse(&raw.status).ok_or("its status is none of ours")?;
            Ok(Answered { at: Timestamp::parse(&raw.at)?, status })
        };
        Ok(Record {
            id: TaskId::parse(&self.id)?,
            stream: canonical_uuid(&self.stream)?,
            seq: self.seq,
            task_sha256: Digest::parse(&self.task_sha256)?,
            expires: Timestamp::parse(&self.expires)?,
            answer_by: Timestamp::parse(&self.answer_by)?,
            envelope: self.sealed.into_bytes(),
            cancel: self.cancel.map(String::into_bytes),
            conflict: self.conflict,
            unknown: self.unknown,
            answered: self.answered.map(answered).transpose()?,
            unanswered_at: self.unanswered_at.as_deref().map(Timestamp::parse).transpose()?,
            place,
            touched,
        })
    }
}

/// Reads a record; `None` where there is none.
pub(super) fn read(path: &Path, place: RecordPlace) -> Result<Option<Record>, OutgoingError> {
    let bytes = match read_limited(path, RECORD_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(error) if error.source.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let touched = match std::fs::symlink_metadata(path).and_then(|found| found.modified()) {
        Ok(at) => at,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(FileError { op: "look at", path: path.to_owned(), source }.into()),
    };
    let touched = touched.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let touched = Timestamp::from_unix_ms(i64::try_from(touched).unwrap_or(i64::MAX));
    let damaged = |source| OutgoingError::Damaged { path: path.to_owned(), source };
    let raw: Raw = serde_json::from_slice(&bytes).map_err(|error| damaged(error.into()))?;
    raw.check(place, touched).map(Some).map_err(damaged)
}

pub(super) fn outbox_name(seq: u64, id: TaskId) -> String {
    format!("{seq}.{id}.json")
}

pub(super) fn parse_outbox_name(name: &str) -> Option<(u64, TaskId)> {
    let (seq, id) = name.strip_suffix(".json")?.split_once('.')?;
    Some((seq.parse().ok()?, TaskId::parse(id).ok()?))
}

pub(super) fn sent_name(id: TaskId) -> String {
    format!("{id}.json")
}

pub(super) fn parse_sent_name(name: &str) -> Option<TaskId> {
    TaskId::parse(name.strip_suffix(".json")?).ok()
}
