//! The sender's half of a lane, `send/<lane>/`: `lock`, `stream`, `outbox/<seq>.<id>.json`, `sent/<id>.json`
//! (architecture, "The sender's half").
//!
//! From the sync of its outbox entry on, a task exists. It is published under the lane's lock and then moved to `sent/`, so
//! the next one to hold the lock finds whatever a crash left in between and publishes that first: no gap, and never
//! another message under a position that was used. Publishing the same bytes again is always safe (protocol section 4).

mod child;
mod error;
mod flat;
mod lock;
mod mail;
mod record;
mod sealing;
mod stream;
mod upkeep;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dispatch_core::protocol::names::{Lane, TaskId};
use dispatch_core::protocol::result::Status;
use dispatch_core::protocol::task::Task;
use dispatch_core::protocol::time::{DAY_MS, MINUTE_MS, Timestamp};
use uuid::Uuid;

use crate::files::{FileError, create_private_dir, create_synced, remove, rename_if_there, replace_synced};
use crate::state::{StateDir, names_in};

pub use child::KeptChild;
pub use error::OutgoingError;
pub use lock::Locked;
pub use mail::{Cancelled, Delivered, Mailbox};
pub use record::{Answered, Record, RecordPlace, Sealed};
pub use sealing::SealError;
pub use upkeep::{AllHeard, Answer, Heard, Upkeep};

/// Between two times of putting the same unanswered task back.
pub const PUT_BACK_MS: i64 = 10 * MINUTE_MS;
/// How long after `expires` and all attempts' time-outs an answer may come.
pub const ANSWER_GRACE_MS: i64 = 10 * MINUTE_MS;
/// How long a record is kept after its answer.
pub const SENT_KEPT_MS: i64 = 30 * DAY_MS;

/// Until when the answer to a task can come: `expires` + `timeout_s` × `max_attempts` + 10 minutes (protocol section 4).
#[must_use]
pub fn answer_by(task: &Task) -> Timestamp {
    let attempts_s = i64::from(task.timeout_s).saturating_mul(i64::from(task.max_attempts));
    task.expires.plus_ms(attempts_s.saturating_mul(1_000)).plus_ms(ANSWER_GRACE_MS)
}

/// A position in a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The stream of this state directory on this lane.
    pub stream: Uuid,
    /// From 1.
    pub seq: u64,
}

/// Whether something was noted in a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Noted {
    /// It was.
    Yes,
    /// Another process holds the lane's lock: it is found again and noted then.
    Later,
}

/// The sender's half of one lane.
#[derive(Clone, Debug)]
pub struct Outgoing {
    dir: PathBuf,
    lane: Lane,
}

impl Outgoing {
    /// The sender's half of a lane; nothing is touched.
    #[must_use]
    pub fn at(state: &StateDir, lane: &Lane) -> Outgoing {
        Outgoing { dir: state.send(lane), lane: lane.clone() }
    }

    /// The same, its directories made. The state directory's own place was checked before.
    ///
    /// # Errors
    /// The system's refusal.
    pub fn open(state: &StateDir, lane: &Lane) -> Result<Outgoing, OutgoingError> {
        let outgoing = Outgoing::at(state, lane);
        if !outgoing.sent_dir().is_dir() {
            create_private_dir(&outgoing.outbox_dir())?;
            create_private_dir(&outgoing.sent_dir())?;
        }
        Ok(outgoing)
    }

    /// The lanes that have ever been sent on from this state directory.
    ///
    /// # Errors
    /// The directory cannot be listed.
    pub fn lanes(state: &StateDir) -> Result<Vec<Lane>, OutgoingError> {
        Ok(names_in(&state.sends())?.iter().filter_map(|name| Lane::parse(name).ok()).collect())
    }

    /// The lane.
    #[must_use]
    pub const fn lane(&self) -> &Lane {
        &self.lane
    }

    /// Takes the lane's lock, waiting for other senders.
    ///
    /// # Errors
    /// Another process holds it for more than 30 s, or the lock file cannot be made.
    pub fn lock(&self) -> Result<Locked<'_>, OutgoingError> {
        lock::take(self, lock::WAIT)?.ok_or_else(|| OutgoingError::Busy { lane: self.lane.clone() })
    }

    /// Takes the lane's lock if nobody holds it.
    ///
    /// # Errors
    /// The lock file cannot be made.
    pub fn lock_if_free(&self) -> Result<Option<Locked<'_>>, OutgoingError> {
        lock::take(self, Duration::ZERO)
    }

    /// What lies in the outbox, oldest position first.
    ///
    /// # Errors
    /// The directory cannot be listed.
    pub fn kept(&self) -> Result<Vec<(u64, TaskId)>, OutgoingError> {
        let names = names_in(&self.outbox_dir())?;
        let mut kept: Vec<(u64, TaskId)> =
            names.iter().filter_map(|name| record::parse_outbox_name(name)).collect();
        kept.sort_unstable();
        Ok(kept)
    }

    /// The tasks that have a sent record, answered or not.
    ///
    /// # Errors
    /// The directory cannot be listed.
    pub fn sent_ids(&self) -> Result<Vec<TaskId>, OutgoingError> {
        let names = names_in(&self.sent_dir())?;
        Ok(names.iter().filter_map(|name| record::parse_sent_name(name)).collect())
    }

    /// The record of a task that was sent, or is kept, from here.
    ///
    /// # Errors
    /// It cannot be read or is damaged.
    pub fn record(&self, id: TaskId) -> Result<Option<Record>, OutgoingError> {
        // Sent first: a record that moves meanwhile is then found by the second look or by the third.
        for _ in 0..2 {
            if let Some(record) = record::read(&self.sent_path(id), RecordPlace::Sent)? {
                return Ok(Some(record));
            }
            let Some(seq) = self.kept()?.into_iter().find(|(_, kept)| *kept == id).map(|(seq, _)| seq) else {
                continue;
            };
            let found = record::read(&self.outbox_path(seq, id), RecordPlace::Outbox)?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// The records of what was published and has no answer noted yet.
    ///
    /// # Errors
    /// The directory cannot be listed. Damaged records are left out: they are reported by whoever asks for them.
    pub fn unanswered(&self) -> Result<Vec<Record>, OutgoingError> {
        let ids = self.sent_ids()?;
        let records = ids.into_iter().filter_map(|id| {
            let read = record::read(&self.sent_path(id), RecordPlace::Sent);
            read.ok().flatten().filter(|record| record.answered.is_none())
        });
        Ok(records.collect())
    }

    /// Notes that the answer was seen and believed.
    ///
    /// # Errors
    /// The lock, or the record, cannot be had or written.
    pub fn mark_answered(&self, id: TaskId, status: Status, at: Timestamp) -> Result<(), OutgoingError> {
        self.lock()?.update(id, |record| record.answered = Some(Answered { at, status }))
    }

    /// Notes that a message whose place held something else stands there now.
    ///
    /// # Errors
    /// As [`Outgoing::mark_answered`].
    pub fn mark_delivered(&self, id: TaskId) -> Result<(), OutgoingError> {
        self.lock()?.update(id, |record| record.conflict = false)
    }

    /// Notes that the time for an answer is over and that this was said.
    ///
    /// # Errors
    /// As [`Outgoing::mark_answered`].
    pub fn mark_unanswered(&self, id: TaskId, at: Timestamp) -> Result<(), OutgoingError> {
        self.lock()?.update(id, |record| record.unanswered_at = Some(at))
    }

    /// As [`Outgoing::mark_unanswered`], unless another process holds the lane's lock.
    ///
    /// # Errors
    /// As [`Outgoing::mark_answered`].
    pub fn mark_unanswered_if_free(&self, id: TaskId, at: Timestamp) -> Result<Noted, OutgoingError> {
        self.note_if_free(id, |record| record.unanswered_at = Some(at))
    }

    /// Notes what a later round finds again: not worth waiting for a sender that was stopped while it held the lock.
    fn note_if_free(&self, id: TaskId, change: impl FnOnce(&mut Record)) -> Result<Noted, OutgoingError> {
        match lock::take(self, lock::SHORT_WAIT)? {
            Some(locked) => locked.update(id, change).map(|()| Noted::Yes),
            None => Ok(Noted::Later),
        }
    }

    /// Removes records whose answer is older than 30 days, and unanswered ones as long after their last day. Answers how
    /// many went.
    ///
    /// # Errors
    /// The directory cannot be listed or a record not removed.
    pub fn tidy(&self, now: Timestamp) -> Result<usize, OutgoingError> {
        let mut removed = 0_usize;
        for id in self.sent_ids()? {
            let path = self.sent_path(id);
            let Ok(Some(record)) = record::read(&path, RecordPlace::Sent) else { continue };
            let ended = record.answered.map_or(record.answer_by, |answered| answered.at);
            if now.since_ms(ended) > SENT_KEPT_MS && remove(&path)? == crate::files::Removed::Removed {
                removed = removed.saturating_add(1);
            }
        }
        Ok(removed)
    }

    fn outbox_dir(&self) -> PathBuf {
        self.dir.join("outbox")
    }

    fn sent_dir(&self) -> PathBuf {
        self.dir.join("sent")
    }

    fn outbox_path(&self, seq: u64, id: TaskId) -> PathBuf {
        self.outbox_dir().join(record::outbox_name(seq, id))
    }

    fn sent_path(&self, id: TaskId) -> PathBuf {
        self.sent_dir().join(record::sent_name(id))
    }
}

impl Locked<'_> {
    /// The next free position. Without an [`Locked::enqueue`] it stays free.
    ///
    /// # Errors
    /// The stream's file cannot be read or made.
    pub fn next(&self) -> Result<Position, OutgoingError> {
        let stream = stream::current(self.outgoing)?;
        Ok(Position { stream: stream.id, seq: stream.last_seq.saturating_add(1) })
    }

    /// Keeps a sealed task in the outbox, synced: from here on it exists.
    ///
    /// # Errors
    /// The system's refusal; nothing half-written stays.
    pub fn enqueue(&self, sealed: Sealed) -> Result<Record, OutgoingError> {
        let record = Record::new(sealed);
        let path = self.outgoing.outbox_path(record.seq, record.id);
        match create_synced(&path, &record.to_bytes(), 0o600)? {
            crate::files::Written::Created => {}
            crate::files::Written::AlreadyThere => {
                let source = io::Error::from(io::ErrorKind::AlreadyExists);
                return Err(FileError { op: "create", path, source }.into());
            }
        }
        stream::used(self.outgoing, Position { stream: record.stream, seq: record.seq })?;
        Ok(record)
    }

    /// Publishes a kept task and moves its record to `sent/`. A conflict is noted in the record and blocks nothing: it
    /// counts as unanswered and is put back like any other.
    ///
    /// # Errors
    /// The share's refusal; the task stays kept.
    pub fn publish(&self, mail: &Mailbox<'_>, record: &Record) -> Result<Delivered, OutgoingError> {
        let delivered = mail.deliver(&self.outgoing.lane, record)?;
        let from = self.outgoing.outbox_path(record.seq, record.id);
        let noted = match delivered {
            Delivered::Conflict if !record.conflict => Some(Record { conflict: true, ..record.clone() }),
            Delivered::Unknown => Some(Record { unknown: true, ..record.clone() }),
            Delivered::Published | Delivered::Conflict => None,
        };
        if let Some(noted) = noted {
            replace_synced(&from, &noted.to_bytes(), 0o600)?;
        }
        // A crash may have come between the entry and the note that its position is used.
        stream::used(self.outgoing, Position { stream: record.stream, seq: record.seq })?;
        // Not synced: an entry that comes back after a power cut is published again, which is safe; for a version-2 peer
        // only if its id stands nowhere on the lane.
        match rename_if_there(&from, &self.outgoing.sent_path(record.id))? {
            crate::files::Removed::Removed | crate::files::Removed::Absent => Ok(delivered),
        }
    }

    /// Publishes what lies in the outbox for longer than this, oldest position first; stops at the first that fails, so
    /// that positions go out in order.
    ///
    /// # Errors
    /// The outbox cannot be read.
    pub fn flush(&self, mail: &Mailbox<'_>, older_than: Duration) -> Result<Flushed, OutgoingError> {
        let mut flushed = Flushed::default();
        let older_than_ms = i64::try_from(older_than.as_millis()).unwrap_or(i64::MAX);
        for (seq, id) in self.outgoing.kept()? {
            let path = self.outgoing.outbox_path(seq, id);
            let record = match record::read(&path, RecordPlace::Outbox) {
                Ok(Some(record)) => record,
                Ok(None) => continue,
                Err(error) => {
                    flushed.damaged.push(error);
                    continue;
                }
            };
            // A clock that was set back makes nothing young for ever.
            let age_ms = mail.now.since_ms(record.touched).saturating_abs();
            if age_ms < older_than_ms {
                continue;
            }
            match self.publish(mail, &record) {
                Ok(Delivered::Published) => flushed.published.push(id),
                Ok(Delivered::Conflict) => flushed.conflicts.push(id),
                Ok(Delivered::Unknown) => flushed.unknown.push(id),
                Err(error) => {
                    flushed.stuck = Some((id, error));
                    break;
                }
            }
        }
        Ok(flushed)
    }

    /// Rewrites the record of a task, synced.
    pub(crate) fn update(&self, id: TaskId, change: impl FnOnce(&mut Record)) -> Result<(), OutgoingError> {
        let mut record = self.outgoing.record(id)?.ok_or(OutgoingError::NoSuchTask { id })?;
        change(&mut record);
        let path = match record.place {
            RecordPlace::Outbox => self.outgoing.outbox_path(record.seq, id),
            RecordPlace::Sent => self.outgoing.sent_path(id),
        };
        replace_synced(&path, &record.to_bytes(), 0o600)?;
        touch(&path, record.touched)
    }
}

/// What flushing the outbox did.
#[derive(Debug, Default)]
pub struct Flushed {
    /// Tasks that are on the share now.
    pub published: Vec<TaskId>,
    /// Tasks whose place holds something else; noted, and put back later.
    pub conflicts: Vec<TaskId>,
    /// Tasks of a version-2 peer whose id stood on the lane already: not published, and never again.
    pub unknown: Vec<TaskId>,
    /// Entries that cannot be read; they block nothing.
    pub damaged: Vec<OutgoingError>,
    /// The task that could not be published, and why; it and those behind it stay kept.
    pub stuck: Option<(TaskId, OutgoingError)>,
}

/// Sets a file's modification time, which is when its task was published last.
fn touch(path: &Path, at: Timestamp) -> Result<(), OutgoingError> {
    let at = u64::try_from(at.unix_ms()).unwrap_or(0);
    let time = std::time::UNIX_EPOCH.checked_add(Duration::from_millis(at)).unwrap_or(std::time::UNIX_EPOCH);
    std::fs::File::options()
        .write(true)
        .open(path)
        .and_then(|file| file.set_modified(time))
        .map_err(FileError::of("set the time of", path))?;
    Ok(())
}

#[cfg(test)]
mod tests;
