//! Waiting for the answer to a task that was sent from here.
//!
//! The share is looked at on a thread of its own, so that a mount that hangs never keeps a person from leaving. A hint makes
//! the next look come at once; the tick looks anyway.

mod look;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use dispatch_core::protocol::accept::Refusal;
use dispatch_core::protocol::names::Digest;
use dispatch_core::protocol::result::{Status, TaskResult};
use dispatch_core::protocol::seal::Verified;
use dispatch_core::protocol::v2::FlatResult;
use dispatch_spool::{Area, Dir, Hints, Share, Strategy, strategy_for};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::desk::Desk;
use crate::outgoing::{Heard, Record};
use crate::report::Exit;

use look::{Look, Looker};

pub use look::{Whereabouts, whereabouts};

/// How long something that is not to be believed may lie at the answer's name, before waiting ends: its owner sets such
/// things aside and publishes the answer again.
const DISBELIEF: Duration = Duration::from_secs(30);
/// How long a look may take before a person is told that the share does not answer.
const SLOW_LOOK: Duration = Duration::from_secs(10);
/// Events on their way to the one who waits.
const EVENTS_MAX: usize = 16;

/// How waiting ended.
#[derive(Debug)]
#[must_use]
pub enum End {
    /// The answer came and is to be believed.
    Answer(Box<Verified<TaskResult>>),
    /// The answer of a version-2 peer, which nobody signs: it settles nothing.
    Unverified(Box<FlatResult>),
    /// Something that is not to be believed lies at the answer's name and does not go away.
    NotBelieved(Option<Refusal>),
    /// The time for an answer is over.
    NoAnswer,
    /// A person stopped the waiting; the task goes on.
    Interrupted,
}

/// What the one who waits can be shown meanwhile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sight {
    /// Where the task is.
    At(Whereabouts),
    /// More of its log, as the mirror on the share has it. A stranger's bytes.
    Log(Vec<u8>),
    /// The share cannot be looked at, and why.
    NoShare(String),
    /// Something lies at the answer's name that is not to be believed, and the code of why.
    Disbelief(String),
}

/// What is looked at besides the answer. Where a task is costs three listings a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// A person does.
    Whereabouts,
    /// Somebody follows the log instead.
    Log,
    /// Only the answer matters.
    AnswerOnly,
}

enum Event {
    Bell,
    Stop,
    Looked(Box<Look>),
}

/// How a command ends that waited for a task of this status.
#[must_use]
pub const fn exit_of(status: Status) -> Exit {
    match status {
        Status::Ok | Status::Verified => Exit::Done,
        Status::Rejected | Status::Denied => Exit::NotPermitted,
        Status::Timeout | Status::Silent => Exit::TimedOut,
        Status::Refuted
        | Status::Error
        | Status::OverBudget
        | Status::Killed
        | Status::Cancelled
        | Status::Expired
        | Status::Unknown => Exit::TaskFailed,
    }
}

/// Waits for the answer to `record`, putting the task back once a minute, and shows what it sees meanwhile.
///
/// Takes over SIGINT and SIGTERM for the rest of the process. Whatever goes wrong with the share only delays it.
pub fn wait(desk: &Arc<Desk>, record: Record, interest: Interest, mut show: impl FnMut(Sight)) -> End {
    let (events, arriving) = sync_channel(EVENTS_MAX);
    stop_on_signals(&events);
    let hints = hints(desk, &events);
    let strategy = if hints.is_some() { Strategy::Inotify } else { Strategy::Poll };
    let asking = start_looker(Looker::new(Arc::clone(desk), record, interest, strategy), events);
    let mut waiting =
        Waiting { asking, arriving, strategy, interest, started: Instant::now(), disbelief: None };
    loop {
        match waiting.next_look(&mut show) {
            Ok(look) => {
                let last = look.last;
                match waiting.judge(look, &mut show) {
                    Some(end) => return end,
                    None if last => return End::NoAnswer,
                    None => {}
                }
            }
            Err(end) => return end,
        }
    }
}

struct Waiting {
    asking: SyncSender<()>,
    arriving: Receiver<Event>,
    strategy: Strategy,
    interest: Interest,
    started: Instant,
    disbelief: Option<(Option<Digest>, Instant)>,
}

impl Waiting {
    /// Lets the share be looked at, at once, and waits for what the look found; then for the next reason to look.
    fn next_look(&self, show: &mut impl FnMut(Sight)) -> Result<Box<Look>, End> {
        match self.asking.try_send(()) {
            Ok(()) | Err(TrySendError::Full(())) => {}
            Err(TrySendError::Disconnected(())) => return Err(End::Interrupted),
        }
        let mut rang = false;
        let look = loop {
            match self.arriving.recv_timeout(SLOW_LOOK) {
                Ok(Event::Looked(look)) => break look,
                Ok(Event::Bell) => rang = true,
                Ok(Event::Stop) | Err(RecvTimeoutError::Disconnected) => return Err(End::Interrupted),
                Err(RecvTimeoutError::Timeout) => show(Sight::NoShare("it does not answer".to_owned())),
            }
        };
        if !rang && look.leaves_waiting() {
            match self.arriving.recv_timeout(self.pause()) {
                Ok(Event::Stop) | Err(RecvTimeoutError::Disconnected) => return Err(End::Interrupted),
                Ok(Event::Bell | Event::Looked(_)) | Err(RecvTimeoutError::Timeout) => {}
            }
        }
        Ok(look)
    }

    /// From one look to the next.
    fn pause(&self) -> Duration {
        match (self.strategy, self.started.elapsed().as_secs()) {
            // A growing log rings no bell.
            (Strategy::Inotify, _) if self.interest == Interest::Log => Duration::from_millis(250),
            (Strategy::Inotify, _) => Duration::from_secs(1),
            (Strategy::Poll, 0..10) => Duration::from_millis(100),
            (Strategy::Poll, 10..300) => Duration::from_millis(500),
            (Strategy::Poll, _) => Duration::from_secs(2),
        }
    }

    fn judge(&mut self, look: Box<Look>, show: &mut impl FnMut(Sight)) -> Option<End> {
        if let Some(whereabouts) = look.whereabouts {
            show(Sight::At(whereabouts));
        }
        if !look.log.is_empty() {
            show(Sight::Log(look.log));
        }
        match look.heard {
            Ok(Heard::Answer(result)) => Some(End::Answer(result)),
            Ok(Heard::Unverified(result)) => Some(End::Unverified(result)),
            Ok(Heard::Nothing) => {
                self.disbelief = None;
                None
            }
            Ok(Heard::NotBelieved { digest, refusal }) => self.disbelieve(digest, refusal, show),
            Err(error) => {
                show(Sight::NoShare(error.to_string()));
                None
            }
        }
    }

    fn disbelieve(
        &mut self,
        digest: Option<Digest>,
        refusal: Option<Refusal>,
        show: &mut impl FnMut(Sight),
    ) -> Option<End> {
        match self.disbelief {
            Some((known, since)) if known == digest => {
                (since.elapsed() >= DISBELIEF).then_some(End::NotBelieved(refusal))
            }
            Some(_) | None => {
                self.disbelief = Some((digest, Instant::now()));
                let code = refusal.map_or("not_a_regular_file", |refusal| refusal.code.as_str());
                show(Sight::Disbelief(code.to_owned()));
                None
            }
        }
    }
}

/// Rings when the lane's `done/` changes, where the kernel can know.
fn hints(desk: &Desk, events: &SyncSender<Event>) -> Option<Hints> {
    let facts = desk.share.facts().ok()?;
    if strategy_for(&facts) != Strategy::Inotify {
        return None;
    }
    let bell = events.clone();
    // A full channel holds a bell or an end already.
    let mut hints = Hints::new(move || drop(bell.try_send(Event::Bell))).ok()?;
    hints.watch_dir(desk.share.root(), &Dir::lane(&desk.lane, Area::Done)).ok()?;
    Some(hints)
}

fn stop_on_signals(events: &SyncSender<Event>) {
    let stop = events.clone();
    // Without them a signal ends the process as it always does, which also ends the waiting.
    if let Ok(mut signals) = Signals::new([SIGINT, SIGTERM]) {
        thread::spawn(move || {
            for _ in signals.forever() {
                if stop.send(Event::Stop).is_err() {
                    return;
                }
            }
        });
    }
}

/// Starts the thread that looks, one look per request; a look that hangs holds that thread and nothing else.
fn start_looker(mut looker: Looker, events: SyncSender<Event>) -> SyncSender<()> {
    let (asking, asked) = sync_channel(1);
    thread::spawn(move || {
        while asked.recv().is_ok() {
            if events.send(Event::Looked(Box::new(looker.look()))).is_err() {
                return;
            }
        }
    });
    asking
}

#[cfg(test)]
mod tests;
