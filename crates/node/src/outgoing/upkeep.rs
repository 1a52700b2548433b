//! What keeps a sender's tasks moving when nobody waits for them: answers noticed, unanswered ones put back, overdue ones
//! told. The watcher does it for its own state directory, every command for one that has no watcher.

use std::collections::BTreeSet;
use std::time::{Duration, UNIX_EPOCH};

use dispatch_core::protocol::accept::{Place, Refusal};
use dispatch_core::protocol::believe::{Belief, believe};
use dispatch_core::protocol::limits::ENVELOPE_BYTES_MAX;
use dispatch_core::protocol::names::{Digest, TaskId};
use dispatch_core::protocol::result::TaskResult;
use dispatch_core::protocol::seal::Verified;
use dispatch_core::protocol::time::Timestamp;
use dispatch_core::protocol::v2::FlatResult;
use dispatch_spool::{Area, Dir, ErrorKind, File, LIST_ENTRIES_MAX};

use super::error::OutgoingError;
use super::mail::{Delivered, Mailbox};
use super::record::{Answered, Record};
use super::{Flushed, Noted, Outgoing, PUT_BACK_MS};
use crate::files::FileError;

/// What was heard of one task.
#[derive(Debug)]
#[must_use]
pub enum Heard {
    /// The answer.
    Answer(Box<Verified<TaskResult>>),
    /// The answer of a version-2 peer, which nobody signs: it settles nothing.
    Unverified(Box<FlatResult>),
    /// Something lies at the answer's name that is not to be believed.
    NotBelieved {
        /// The digest of its bytes; `None` where it is no file that can be read.
        digest: Option<Digest>,
        /// Why not; `None` where it is no file that can be read.
        refusal: Option<Refusal>,
    },
    /// Nothing yet.
    Nothing,
}

/// What a listing of `done/` shows of the tasks that were asked about.
#[derive(Debug, Default)]
pub struct AllHeard {
    /// Answers that are to be believed.
    pub answers: Vec<Answer>,
    /// Tasks of version-2 peers beside which an unsigned answer lies.
    pub unverified: Vec<TaskId>,
}

/// An answer that was noticed now.
#[derive(Debug)]
pub struct Answer {
    /// The task.
    pub id: TaskId,
    /// What came of it.
    pub result: Box<Verified<TaskResult>>,
}

/// What one round of upkeep did.
#[derive(Debug, Default)]
pub struct Upkeep {
    /// What came out of the outbox.
    pub flushed: Flushed,
    /// Tasks whose answer was noticed now.
    pub answered: Vec<TaskId>,
    /// Tasks of version-2 peers beside which an answer lies that nobody signed; not counted as answered, nor as unanswered.
    pub unverified: Vec<TaskId>,
    /// Tasks that were put back.
    pub put_back: Vec<TaskId>,
    /// Tasks for which no answer came. Whoever tells of them marks them afterwards ([`Outgoing::mark_told`]); until then
    /// they are found again.
    pub unanswered: Vec<TaskId>,
}

impl Mailbox<'_> {
    /// Reads and judges what lies at the name of a task's answer. `record` is this node's own: without one nothing is
    /// believed. Look into a fresh listing of `done/` first: asking by name may get an old "no" (field facts).
    ///
    /// # Errors
    /// The share's refusal; what is merely no readable file is an answer.
    pub fn hear(&self, outgoing: &Outgoing, file: &File, record: &Record) -> Result<Heard, OutgoingError> {
        let limit = u64::try_from(ENVELOPE_BYTES_MAX).unwrap_or(u64::MAX);
        let bytes = match self.share.read(file, limit) {
            Ok(bytes) => bytes,
            Err(error) => {
                return match error.kind {
                    ErrorKind::Absent => Ok(Heard::Nothing),
                    ErrorKind::NotRegular(_) | ErrorKind::TooLarge { .. } | ErrorKind::Denied => {
                        Ok(Heard::NotBelieved { digest: None, refusal: None })
                    }
                    ErrorKind::Conflict(_)
                    | ErrorKind::NoSpace
                    | ErrorKind::Stale
                    | ErrorKind::Unreachable
                    | ErrorKind::Io => Err(error.into()),
                };
            }
        };
        Ok(self.judge_answer(&bytes, outgoing, record))
    }

    /// Judges bytes that were found at the name of a task's answer, in `done/` or in the archive.
    pub fn judge_answer(&self, bytes: &[u8], outgoing: &Outgoing, record: &Record) -> Heard {
        if record.is_flat() {
            return match FlatResult::read(bytes, record.id) {
                Some(result) => Heard::Unverified(Box::new(result)),
                None => Heard::NotBelieved { digest: Some(Digest::of(bytes)), refusal: None },
            };
        }
        let place = Place { lane: outgoing.lane(), id: record.id };
        match believe(bytes, place, &self.me(), self.keys, Some(record.task_sha256)) {
            Belief::Believed(result) => Heard::Answer(result),
            Belief::NotBelieved(refusal) => {
                Heard::NotBelieved { digest: Some(Digest::of(bytes)), refusal: Some(refusal) }
            }
        }
    }
}

impl Outgoing {
    /// Notes the answers that one fresh listing of `done/` shows among these records, and gives them out. While another
    /// process holds the lane's lock, none is noted; the next listing shows them again.
    ///
    /// # Errors
    /// `done/` cannot be listed, or a record not rewritten.
    pub fn hear_all(&self, mail: &Mailbox<'_>, records: &[Record]) -> Result<AllHeard, OutgoingError> {
        let done = mail.share.list(&Dir::lane(self.lane(), Area::Done), LIST_ENTRIES_MAX)?;
        let there: BTreeSet<&File> = done.files().map(|(file, _)| file).collect();
        let (mut heard, mut noted) = (AllHeard::default(), Noted::Yes);
        for record in records {
            let file = File::result(self.lane(), record.id);
            if !there.contains(&file) {
                continue;
            }
            match mail.hear(self, &file, record)? {
                Heard::Answer(result) => {
                    if noted == Noted::Yes {
                        let answered = Answered { at: mail.now, status: result.payload().status };
                        noted = self.note_if_free(record.id, |record| record.answered = Some(answered))?;
                    }
                    heard.answers.push(Answer { id: record.id, result });
                }
                Heard::Unverified(_) => heard.unverified.push(record.id),
                Heard::NotBelieved { .. } | Heard::Nothing => {}
            }
        }
        Ok(heard)
    }

    /// What every command does for a state directory without a watcher: flushes the outbox, and every ten minutes notices
    /// answers, puts back what is unanswered, and names what stays so.
    ///
    /// # Errors
    /// The lock, a record, or the share cannot be had.
    pub fn upkeep(&self, mail: &Mailbox<'_>) -> Result<Upkeep, OutgoingError> {
        let mut upkeep = Upkeep::default();
        {
            let locked = self.lock()?;
            upkeep.flushed = locked.flush(mail, Duration::ZERO)?;
            if upkeep.flushed.stuck.is_some() || !locked.is_round_due(mail)? {
                return Ok(upkeep);
            }
        }
        let records = self.unanswered()?;
        let heard = self.hear_all(mail, &records)?;
        upkeep.answered = heard.answers.iter().map(|answer| answer.id).collect();
        upkeep.unverified = heard.unverified;
        let heard: BTreeSet<TaskId> = upkeep.answered.iter().chain(&upkeep.unverified).copied().collect();
        for record in records.iter().filter(|record| !heard.contains(&record.id)) {
            if mail.now >= record.answer_by {
                if record.unanswered_at.is_none() {
                    upkeep.unanswered.push(record.id);
                }
            } else if record.is_put_back_due(mail) {
                match self.put_back(mail, record)? {
                    Delivered::Published | Delivered::Conflict | Delivered::Unknown => {
                        upkeep.put_back.push(record.id);
                    }
                }
            }
        }
        self.tidy(mail.now)?;
        Ok(upkeep)
    }

    /// Marks what somebody has been told of. While another process holds the lane's lock nothing is marked, and it is told
    /// again.
    ///
    /// # Errors
    /// A record cannot be rewritten.
    pub fn mark_told(&self, upkeep: &Upkeep, at: Timestamp) -> Result<(), OutgoingError> {
        for id in &upkeep.unanswered {
            if self.mark_unanswered_if_free(*id, at)? == Noted::Later {
                break;
            }
        }
        Ok(())
    }
}

impl Record {
    /// True when ten minutes have gone since it was published last, and it can still be taken. Never for a version-2 peer.
    #[must_use]
    pub fn is_put_back_due(&self, mail: &Mailbox<'_>) -> bool {
        !self.is_flat()
            && mail.now < self.expires
            && mail.now.since_ms(self.touched).saturating_abs() >= PUT_BACK_MS
    }
}

impl super::Locked<'_> {
    /// True at most every ten minutes; the lock file's own time says when it was last.
    fn is_round_due(&self, mail: &Mailbox<'_>) -> Result<bool, OutgoingError> {
        let path = self.outgoing.dir.join("lock");
        let modified = self.file.metadata().and_then(|found| found.modified());
        let modified = modified.map_err(FileError::of("look at", &path))?;
        let since = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
        let last_ms = i64::try_from(since.as_millis()).unwrap_or(0);
        if mail.now.unix_ms().saturating_sub(last_ms).saturating_abs() < PUT_BACK_MS {
            return Ok(false);
        }
        super::touch(&path, mail.now)?;
        Ok(true)
    }
}
