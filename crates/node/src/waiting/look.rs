//! One look at the share while waiting for an answer.

use std::sync::Arc;

use dispatch_core::policy::money::Usd;
use dispatch_core::protocol::accept::{Me, Place, Verdict, accept_progress};
use dispatch_core::protocol::limits::{ENVELOPE_BYTES_MAX, SMALL_ENVELOPE_BYTES_MAX};
use dispatch_core::protocol::progress::{Phase, Progress};
use dispatch_core::protocol::time::{MINUTE_MS, Timestamp};
use dispatch_spool::upkeep::find_result;
use dispatch_spool::{Area, Dir, File, LIST_ENTRIES_MAX, RootLook, Share, ShareError, Strategy};

use super::Interest;
use crate::clock;
use crate::desk::Desk;
use crate::outgoing::{Heard, OutgoingError, Record};

/// How often the same bytes are put back while somebody waits (protocol section 4).
const PUT_BACK_MS: i64 = MINUTE_MS;

/// Most of a log that one look brings.
const LOG_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Where a task is, as far as the share shows it. It is a hint: only the answer is verified against what was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whereabouts {
    /// In the inbox: nobody took it yet.
    Inbox,
    /// It waits for a person's decision.
    Waiting,
    /// It was taken and waits for its turn.
    Queued {
        /// Its place, from 1.
        position: Option<u64>,
    },
    /// Its agent runs.
    Running {
        /// For how long, in milliseconds.
        elapsed_ms: Option<u64>,
        /// Cost so far.
        usd: Option<Usd>,
        /// The tool it used last. A stranger's text.
        last_tool: Option<String>,
    },
    /// In none of these places, or between two of them.
    Unseen,
}

/// What one look found.
pub(super) struct Look {
    pub(super) heard: Result<Heard, OutgoingError>,
    pub(super) whereabouts: Option<Whereabouts>,
    /// What the log has more than at the look before.
    pub(super) log: Vec<u8>,
    /// The time for an answer is over, and this look went everywhere.
    pub(super) last: bool,
}

impl Look {
    pub(super) const fn leaves_waiting(&self) -> bool {
        !matches!(self.heard, Ok(Heard::Answer(_) | Heard::Unverified(_)))
    }
}

/// Looks at the share for one task.
pub(super) struct Looker {
    desk: Arc<Desk>,
    record: Record,
    interest: Interest,
    strategy: Strategy,
    published: Timestamp,
    log_seen: u64,
}

impl Looker {
    pub(super) fn new(desk: Arc<Desk>, record: Record, interest: Interest, strategy: Strategy) -> Looker {
        Looker { desk, record, interest, strategy, published: clock::now(), log_seen: 0 }
    }

    pub(super) fn look(&mut self) -> Look {
        let last = clock::now() >= self.record.answer_by;
        let heard = if last { self.hear_everywhere() } else { self.hear() };
        let waiting = matches!(heard, Ok(Heard::Nothing | Heard::NotBelieved { .. }));
        if waiting {
            self.put_back_if_due();
        }
        let whereabouts = match self.interest {
            Interest::Whereabouts if waiting => self.whereabouts().ok(),
            Interest::Whereabouts | Interest::Log | Interest::AnswerOnly => None,
        };
        // After the answer was looked for: the log is complete before its result is published.
        let log = match self.interest {
            Interest::Log => self.more_log(),
            Interest::Whereabouts | Interest::AnswerOnly => Vec::new(),
        };
        Look { heard, whereabouts, log, last }
    }

    /// What the mirrored log has more than before. Losing it loses nothing that anybody relies on.
    fn more_log(&mut self) -> Vec<u8> {
        let file = File::log(&self.desk.lane, self.record.id);
        let Ok(part) = self.desk.share.read_part(&file, self.log_seen, LOG_BYTES_MAX) else {
            return Vec::new();
        };
        let count = u64::try_from(part.bytes.len()).unwrap_or(0);
        self.log_seen = self.log_seen.saturating_add(count);
        part.bytes
    }

    fn hear(&self) -> Result<Heard, OutgoingError> {
        let file = File::result(&self.desk.lane, self.record.id);
        // A name that was absent once stays absent in the cache of a network mount; a listing does not lie.
        if self.strategy == Strategy::Poll {
            let done = self.desk.share.list(&Dir::lane(&self.desk.lane, Area::Done), LIST_ENTRIES_MAX)?;
            if !done.holds(&file) {
                return Ok(Heard::Nothing);
            }
        }
        self.desk.mail().hear(&self.desk.outgoing, &file, &self.record)
    }

    /// The last look of all goes through the archive too.
    fn hear_everywhere(&self) -> Result<Heard, OutgoingError> {
        let limit = u64::try_from(ENVELOPE_BYTES_MAX).unwrap_or(u64::MAX);
        let found = find_result(&self.desk.share, &self.desk.lane, self.record.id, limit)?;
        Ok(found.map_or(Heard::Nothing, |bytes| {
            self.desk.mail().judge_answer(&bytes, &self.desk.outgoing, &self.record)
        }))
    }

    fn put_back_if_due(&mut self) {
        if self.record.is_flat() {
            return;
        }
        let mail = self.desk.mail();
        let due = mail.now.since_ms(self.published).saturating_abs() >= PUT_BACK_MS;
        if !due || mail.now >= self.record.expires {
            return;
        }
        // Nothing is published on a share that is not ours; what fails here is tried again in a minute.
        if matches!(self.desk.look(), RootLook::Reachable(_)) {
            drop(self.desk.outgoing.put_back(&mail, &self.record));
        }
        self.published = mail.now;
    }

    fn whereabouts(&self) -> Result<Whereabouts, ShareError> {
        let (lane, id) = (&self.desk.lane, self.record.id);
        let holds = |area, file: &File| {
            let listing = self.desk.share.list(&Dir::lane(lane, area), LIST_ENTRIES_MAX)?;
            Ok(listing.holds(file))
        };
        if holds(Area::Processing, &File::processing(lane, id))? {
            return Ok(self.progress().map_or(Whereabouts::Queued { position: None }, of_progress));
        }
        if holds(Area::PendingAck, &File::pending(lane, id))? {
            return Ok(Whereabouts::Waiting);
        }
        let inbox = holds(Area::Inbox, &File::inbox(lane, id))?;
        Ok(if inbox { Whereabouts::Inbox } else { Whereabouts::Unseen })
    }

    /// How far it is, if somebody who may say so says so.
    fn progress(&self) -> Option<Progress> {
        let limit = u64::try_from(SMALL_ENVELOPE_BYTES_MAX).unwrap_or(u64::MAX);
        let bytes = self.desk.share.read(&File::progress(&self.desk.lane, self.record.id), limit).ok()?;
        let place = Place { lane: &self.desk.lane, id: self.record.id };
        let me = Me { cluster: self.desk.cluster, node: &self.desk.node, now: clock::now() };
        match accept_progress(&bytes, place, &me, &self.desk.keys, Some(self.record.task_sha256)) {
            Verdict::Accepted(progress) => Some(progress.into_parts().0),
            Verdict::Refused(_) => None,
        }
    }
}

/// Where a task is now, by one look at the share.
///
/// # Errors
/// The share's refusal.
pub fn whereabouts(desk: &Arc<Desk>, record: &Record) -> Result<Whereabouts, ShareError> {
    Looker::new(Arc::clone(desk), record.clone(), Interest::Whereabouts, Strategy::Poll).whereabouts()
}

fn of_progress(progress: Progress) -> Whereabouts {
    match progress.phase {
        Phase::Queued => Whereabouts::Queued { position: progress.position },
        Phase::Waiting => Whereabouts::Waiting,
        Phase::Running => Whereabouts::Running {
            elapsed_ms: progress.elapsed_ms,
            usd: progress.usd,
            last_tool: progress.last_tool,
        },
    }
}
