//! Waiting for the answer to a task that was sent from here.
//!
//! The share is looked at on a thread of its own, so that a mount that hangs never keeps a person from leaving. A hint makes
//! the next look come at once; the tick looks anyway.

mod line;
mod log;
mod look;
mod stops;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use dispatch_core::protocol::accept::Refusal;
use dispatch_core::protocol::names::{Digest, Lane, NodeName, TaskId};
use dispatch_core::protocol::result::{Reason, Status, TaskResult};
use dispatch_core::protocol::seal::Verified;
use dispatch_core::protocol::v2::FlatResult;
use dispatch_spool::{Area, Dir, Hints, Share, Strategy, strategy_for};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::desk::Desk;
use crate::document::NoResult;
use crate::outgoing::{Heard, Record};
use crate::report::{Exit, Report};

use look::{Look, Looker};

pub use line::{Line, Shown};
pub use log::{Beside, Bytes, LogText, Printed};
pub use look::{Told, Whereabouts, told, whereabouts};
pub use stops::{Stopped, Stops};

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

impl End {
    /// The answer, or why there is none.
    ///
    /// # Errors
    /// There is none.
    pub fn answer(self, lane: &Lane, id: TaskId) -> Result<Answered, Box<Without>> {
        let without = match self {
            End::Answer(answer) => return Ok(Answered::Sealed(answer)),
            End::Unverified(answer) => return Ok(Answered::Unsigned(answer)),
            End::NotBelieved(refusal) => {
                Without::unverified(refusal.map_or("not_a_regular_file", |refusal| refusal.code.as_str()))
            }
            End::NoAnswer => Without::no_answer(&lane.to),
            End::Interrupted => Without::interrupted(id),
        };
        Err(Box::new(without))
    }
}

/// An answer that came.
#[derive(Debug)]
pub enum Answered {
    /// It is to be believed.
    Sealed(Box<Verified<TaskResult>>),
    /// A version-2 peer wrote it, and nobody signed it: it settles nothing.
    Unsigned(Box<FlatResult>),
}

/// Waiting that ended without a result to believe: the word for it, why, and how the command ends.
#[derive(Debug)]
pub struct Without {
    /// The word for programs.
    pub word: NoResult,
    /// Why, for people and programs.
    pub reason: Reason,
    /// How the command ends.
    pub exit: Exit,
}

impl Without {
    /// Something that is not to be believed lies at the result's place.
    #[must_use]
    pub fn unverified(code: &str) -> Without {
        Without {
            word: NoResult::Unverified,
            reason: Reason {
                code: code.to_owned(),
                text: format!("what lies at the result's place is unverified: {code}"),
                help: "compare both nodes' keys/ beside dispatch.toml; the task may well have run".to_owned(),
            },
            exit: Exit::DoesNotVerify,
        }
    }

    /// The time for a result is over.
    #[must_use]
    pub fn no_answer(to: &NodeName) -> Without {
        Without {
            word: NoResult::NoAnswer,
            reason: Reason {
                code: NoResult::NoAnswer.as_str().to_owned(),
                text: "no_answer: the time for a result is over".to_owned(),
                help: format!("look whether `{to}` runs; the task may or may not have run"),
            },
            exit: Exit::TaskFailed,
        }
    }

    /// A person stopped the waiting.
    #[must_use]
    pub fn interrupted(id: TaskId) -> Without {
        Without {
            word: NoResult::Interrupted,
            reason: Reason {
                code: NoResult::Interrupted.as_str().to_owned(),
                text: "stopped waiting; the task goes on".to_owned(),
                help: format!("dispatchctl wait {id} waits again, dispatchctl cancel {id} ends it"),
            },
            exit: Exit::Interrupted,
        }
    }

    /// The agent of a task stopped waiting for a task that it sent.
    #[must_use]
    pub fn interrupted_child() -> Without {
        Without {
            word: NoResult::Interrupted,
            reason: Reason {
                code: NoResult::Interrupted.as_str().to_owned(),
                text: "stopped waiting; the task goes on".to_owned(),
                help: "a person at this node can end it: dispatchctl cancel".to_owned(),
            },
            exit: Exit::Interrupted,
        }
    }

    /// For a person.
    #[must_use]
    pub fn report(&self, id: TaskId) -> Report {
        Report::new(self.exit, self.reason.text.clone()).about(id).help(self.reason.help.clone())
    }
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
    /// Somebody follows the log and sees where the task is meanwhile.
    LogAndWhereabouts,
    /// Only the answer matters.
    AnswerOnly,
}

impl Interest {
    const fn is_in_log(self) -> bool {
        match self {
            Interest::Log | Interest::LogAndWhereabouts => true,
            Interest::Whereabouts | Interest::AnswerOnly => false,
        }
    }
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
                match waiting.judge(*look, &mut show) {
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
            (Strategy::Inotify, _) if self.interest.is_in_log() => Duration::from_millis(250),
            (Strategy::Inotify, _) => Duration::from_secs(1),
            (Strategy::Poll, 0..10) => Duration::from_millis(100),
            (Strategy::Poll, 10..300) => Duration::from_millis(500),
            (Strategy::Poll, _) => Duration::from_secs(2),
        }
    }

    fn judge(&mut self, look: Look, show: &mut impl FnMut(Sight)) -> Option<End> {
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
