//! One look at the share while waiting for an answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dispatch_core::protocol::accept::{Me, Place, Verdict, accept_progress};
use dispatch_core::protocol::limits::{ENVELOPE_BYTES_MAX, SMALL_ENVELOPE_BYTES_MAX};
use dispatch_core::protocol::progress::{Phase, Progress};
use dispatch_core::protocol::time::{MINUTE_MS, Timestamp};
use dispatch_spool::upkeep::find_result;
use dispatch_spool::{Area, Dir, File, LIST_ENTRIES_MAX, Listing, RootLook, Share, ShareError, Strategy};

use super::Interest;
use crate::clock;
use crate::desk::Desk;
use crate::durations;
use crate::outgoing::{Heard, OutgoingError, Record};
use crate::progress::HowFar;

/// How often the same bytes are put back while somebody waits (protocol section 4).
const PUT_BACK_MS: i64 = MINUTE_MS;

/// Most of a log that one look brings.
const LOG_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// How often it is looked where a task is: three listings. In between, what was told grows older.
const WHEREABOUTS_EVERY: Duration = Duration::from_millis(500);
/// A message may be as old as this when it is seen first: its node writes another one by then.
const TOLD_AGAIN_MS: u64 = 30_000;
/// After so long without another message nobody knows whether the task still runs.
const BELIEVED_MS: u64 = 90_000;

/// Where a task is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whereabouts {
    /// What the node that has it said and sealed.
    Told {
        /// How far it is; while it runs, with the time since the message counted in.
        far: Box<HowFar>,
        /// Since when that node is silent, in milliseconds, where it should have spoken again.
        silent_ms: Option<u64>,
    },
    /// In the inbox: nobody took it yet. This and what follows is what lies on the share, and no more than a hint.
    Inbox,
    /// It lies where a task waits for a person's decision.
    SeemsWaiting,
    /// It lies where a task is that was taken.
    SeemsTaken,
    /// In none of these places, or between two of them.
    Unseen,
}

impl Whereabouts {
    /// For a person, on one line.
    #[must_use]
    pub fn words(&self) -> String {
        match self {
            Whereabouts::Told { far, silent_ms: None } => far.words(),
            Whereabouts::Told { far, silent_ms: Some(silent) } => {
                format!("{}; no word for {}", far.words(), durations::whole(*silent))
            }
            Whereabouts::Inbox => "in the inbox, not taken yet".to_owned(),
            Whereabouts::SeemsWaiting => "taken, it seems, to wait for a decision".to_owned(),
            Whereabouts::SeemsTaken => "taken, it seems".to_owned(),
            Whereabouts::Unseen => "on its way".to_owned(),
        }
    }

    /// The same at no time: what is left of it changes only when something happens.
    #[must_use]
    pub fn timeless(&self) -> Whereabouts {
        match self {
            Whereabouts::Told { far, silent_ms } => {
                Whereabouts::Told { far: Box::new(far.timeless()), silent_ms: silent_ms.map(|_| BELIEVED_MS) }
            }
            Whereabouts::Inbox
            | Whereabouts::SeemsWaiting
            | Whereabouts::SeemsTaken
            | Whereabouts::Unseen => self.clone(),
        }
    }
}

/// The newest message, and how old it is.
#[derive(Clone, Debug)]
pub struct Told {
    far: HowFar,
    seq: u64,
    age_ms: u64,
    since: Instant,
}

impl Told {
    /// A message that verified, seen now for the first time. Its own time is another clock's: it is believed as far as a
    /// message can be old.
    #[must_use]
    pub fn now(message: Progress) -> Told {
        let age = u64::try_from(clock::now().since_ms(message.at)).unwrap_or(0);
        let seq = message.seq;
        Told { far: HowFar::told(message), seq, age_ms: age.min(TOLD_AGAIN_MS), since: Instant::now() }
    }

    const fn position(&self) -> (u64, u64) {
        (self.far.epoch, self.seq)
    }

    /// What is to be shown of it now.
    #[must_use]
    pub fn whereabouts(&self) -> Whereabouts {
        let waited = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        let age = self.age_ms.saturating_add(waited);
        let mut far = self.far.clone();
        let runs = far.phase == Phase::Running;
        // Nobody says that it still runs: the time of the last word stays.
        let counted = if age < BELIEVED_MS { age } else { 0 };
        far.elapsed_ms = far.elapsed_ms.map(|elapsed| elapsed.saturating_add(counted));
        Whereabouts::Told { far: Box::new(far), silent_ms: (runs && age >= BELIEVED_MS).then_some(age) }
    }
}

/// The newer of two messages: one of an older epoch, or an older one of the same, counts for nothing, whoever put it there.
/// Where a message is gone, the last word stays.
pub(super) fn newest(known: Option<Told>, next: Option<Told>) -> Option<Told> {
    match (known, next) {
        (Some(known), Some(next)) if next.position() > known.position() => Some(next),
        (Some(known), _) => Some(known),
        (None, next) => next,
    }
}

/// How far a task is, if its node said so in a message that verifies. A listing first: a file that was replaced elsewhere
/// and is opened by name may be an old version of itself.
///
/// # Errors
/// The share's refusal.
pub fn told(desk: &Desk, record: &Record) -> Result<Option<Progress>, ShareError> {
    let listing = desk.share.list(&Dir::lane(&desk.lane, Area::Processing), LIST_ENTRIES_MAX)?;
    Ok(read_told(desk, record, &listing))
}

fn read_told(desk: &Desk, record: &Record, processing: &Listing) -> Option<Progress> {
    let file = File::progress(&desk.lane, record.id);
    if !processing.holds(&file) {
        return None;
    }
    let limit = u64::try_from(SMALL_ENVELOPE_BYTES_MAX).unwrap_or(u64::MAX);
    let bytes = desk.share.read(&file, limit).ok()?;
    let place = Place { lane: &desk.lane, id: record.id };
    let me = Me { cluster: desk.cluster, node: &desk.node, now: clock::now() };
    match accept_progress(&bytes, place, &me, &desk.keys, Some(record.task_sha256)) {
        Verdict::Accepted(progress) => Some(progress.into_parts().0),
        Verdict::Refused(_) => None,
    }
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
    told: Option<Told>,
    hint: Option<Whereabouts>,
    looked_at: Option<Instant>,
}

impl Looker {
    pub(super) fn new(desk: Arc<Desk>, record: Record, interest: Interest, strategy: Strategy) -> Looker {
        Looker {
            desk,
            record,
            interest,
            strategy,
            published: clock::now(),
            log_seen: 0,
            told: None,
            hint: None,
            looked_at: None,
        }
    }

    pub(super) fn look(&mut self) -> Look {
        let last = clock::now() >= self.record.answer_by;
        let heard = if last { self.hear_everywhere() } else { self.hear() };
        let waiting = matches!(heard, Ok(Heard::Nothing | Heard::NotBelieved { .. }));
        if waiting {
            self.put_back_if_due();
        }
        let whereabouts = match self.interest {
            Interest::Whereabouts | Interest::LogAndWhereabouts if waiting => self.whereabouts().ok(),
            Interest::Whereabouts | Interest::LogAndWhereabouts | Interest::Log | Interest::AnswerOnly => {
                None
            }
        };
        // After the answer was looked for: the log is complete before its result is published.
        let log = match self.interest {
            Interest::Log | Interest::LogAndWhereabouts => self.more_log(),
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

    /// Where the task is now.
    fn whereabouts(&mut self) -> Result<Whereabouts, ShareError> {
        let is_fresh = self.looked_at.is_some_and(|at| at.elapsed() < WHEREABOUTS_EVERY);
        match (&self.told, &self.hint) {
            (Some(told), _) if is_fresh => return Ok(told.whereabouts()),
            (None, Some(hint)) if is_fresh => return Ok(hint.clone()),
            (Some(_) | None, _) => {}
        }
        let (lane, id) = (&self.desk.lane, self.record.id);
        let list = |area| self.desk.share.list(&Dir::lane(lane, area), LIST_ENTRIES_MAX);
        let processing = list(Area::Processing)?;
        let told = read_told(&self.desk, &self.record, &processing).map(Told::now);
        let hint = if told.is_some() || self.told.is_some() {
            None
        } else if processing.holds(&File::processing(lane, id)) {
            Some(Whereabouts::SeemsTaken)
        } else if list(Area::PendingAck)?.holds(&File::pending(lane, id)) {
            Some(Whereabouts::SeemsWaiting)
        } else if list(Area::Inbox)?.holds(&File::inbox(lane, id)) {
            Some(Whereabouts::Inbox)
        } else {
            Some(Whereabouts::Unseen)
        };
        self.looked_at = Some(Instant::now());
        self.hint.clone_from(&hint);
        self.told = newest(self.told.take(), told);
        Ok(match (&self.told, hint) {
            (Some(told), _) => told.whereabouts(),
            (None, Some(hint)) => hint,
            (None, None) => Whereabouts::Unseen,
        })
    }
}

/// Where a task is now, by one look at the share.
///
/// # Errors
/// The share's refusal.
pub fn whereabouts(desk: &Arc<Desk>, record: &Record) -> Result<Whereabouts, ShareError> {
    Looker::new(Arc::clone(desk), record.clone(), Interest::Whereabouts, Strategy::Poll).whereabouts()
}
