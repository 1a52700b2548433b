//! The asking side of the door.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use super::serve::{DOOR_BYTES_MAX, OFFERED};
use super::words::{Answer, DoorError, REQUEST_TTL_MS, Request, Verb, decode_reply, encode_request};
use crate::clock;
use crate::files::{FileError, Removed, Written, create_synced, read_limited, remove};
use crate::ids::{self, NoRandomness};
use crate::report::{Exit, Explain};
use crate::state::{StateDir, Watched, watched};

/// From one look for the reply to the next.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A request was not applied, or nobody can say whether it was.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// No watcher holds this state directory.
    #[error("no watcher runs on this node")]
    NoWatcher,
    /// The watcher did not take the request in time; it was taken back.
    #[error("the watcher did not answer within {waited_s} s; the request was taken back")]
    NoAnswer {
        /// How long it was waited, in seconds.
        waited_s: u64,
    },
    /// The watcher took the request and did not answer in time: it may still apply it.
    #[error("the watcher took the request and did not answer within {waited_s} s; it may still apply it")]
    Taken {
        /// How long it was waited, in seconds.
        waited_s: u64,
    },
    /// The watcher refused it.
    #[error("the watcher refused: {}", refusal.text)]
    Refused {
        /// Its words.
        refusal: DoorError,
    },
    /// The door's files cannot be written or read.
    #[error(transparent)]
    File(#[from] FileError),
    /// No id can be drawn.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

impl Explain for AskError {
    fn exit(&self) -> Exit {
        match self {
            AskError::NoWatcher | AskError::NoAnswer { .. } | AskError::Taken { .. } => Exit::TryLater,
            AskError::Refused { refusal } => match refusal.code.as_str() {
                "unknown_task" => Exit::NoSuchTask,
                "expired" => Exit::TryLater,
                "share_unreachable" => Exit::ShareUnreachable,
                "configuration" => Exit::Config,
                _ => Exit::NotPermitted,
            },
            AskError::File(_) | AskError::NoRandomness(_) => Exit::LocalIo,
        }
    }

    fn help(&self) -> Option<String> {
        match self {
            AskError::NoWatcher => Some(
                "start it (systemctl --user start dispatch-watch, or dispatch-watch) and try again"
                    .to_owned(),
            ),
            AskError::NoAnswer { .. } => {
                Some("try again; dispatchctl status shows what the watcher does".to_owned())
            }
            AskError::Taken { .. } => Some("look at dispatchctl status before you ask again".to_owned()),
            AskError::Refused { refusal } => refusal.help.clone(),
            AskError::File(_) | AskError::NoRandomness(_) => None,
        }
    }
}

/// Asks the watcher of this state directory and waits for its answer.
///
/// # Errors
/// No watcher, no answer within `wait` (the request is then taken back, unless the watcher has it already), its
/// refusal, or files that cannot be written.
pub fn ask(
    state: &StateDir,
    verb: Verb,
    reason: &str,
    claimed: Option<&str>,
    wait: Duration,
) -> Result<String, AskError> {
    if watched(state)? == Watched::Free {
        return Err(AskError::NoWatcher);
    }
    let made = clock::now();
    let request = Request {
        id: ids::uuid_v4()?,
        verb,
        reason: reason.to_owned(),
        claimed: claimed.map(str::to_owned),
        made,
        expires: made.plus_ms(REQUEST_TTL_MS),
    };
    let path = state.requests().join(format!("{}.{OFFERED}", request.id));
    let bytes = encode_request(&request).map_err(io::Error::other).map_err(FileError::of("write", &path))?;
    match create_synced(&path, &bytes, 0o600)? {
        Written::Created => {}
        Written::AlreadyThere => {
            let source = io::ErrorKind::AlreadyExists.into();
            return Err(FileError { op: "create", path, source }.into());
        }
    }
    let answer = await_answer(state, &request, wait)?;
    if let Some(answer) = answer {
        return settled(answer);
    }
    let waited_s = wait.as_secs();
    match remove(&path)? {
        Removed::Removed => Err(AskError::NoAnswer { waited_s }),
        // Between the last look and now the watcher took it, so its answer is near.
        Removed::Absent => match await_answer(state, &request, wait)? {
            Some(answer) => settled(answer),
            None => Err(AskError::Taken { waited_s }),
        },
    }
}

fn settled(answer: Answer) -> Result<String, AskError> {
    match answer {
        Answer::Done { text } => Ok(text),
        Answer::Refused(refusal) => Err(AskError::Refused { refusal }),
    }
}

fn await_answer(state: &StateDir, request: &Request, wait: Duration) -> Result<Option<Answer>, FileError> {
    let path = state.replies().join(format!("{}.json", request.id));
    let started = Instant::now();
    loop {
        match read_limited(&path, DOOR_BYTES_MAX) {
            Ok(bytes) => {
                let answer = decode_reply(request.id, &bytes)
                    .map_err(|bad| io::Error::new(io::ErrorKind::InvalidData, bad))
                    .map_err(FileError::of("understand", &path))?;
                let (Removed::Removed | Removed::Absent) = remove(&path)?;
                return Ok(Some(answer));
            }
            Err(error) if error.source.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        if started.elapsed() >= wait {
            return Ok(None);
        }
        thread::sleep(LOOK_EVERY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::door::Door;
    use crate::state::{Acquired, WatchLock};

    fn state() -> (tempfile::TempDir, StateDir) {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::at(dir.path().join("state"));
        state.create(&dir.path().join("share")).unwrap();
        (dir, state)
    }

    #[test]
    fn without_a_watcher_nothing_is_left_behind() {
        let (_dir, state) = state();
        let error = ask(&state, Verb::Resume, "", None, Duration::from_secs(5)).unwrap_err();
        assert!(matches!(error, AskError::NoWatcher) && error.exit() == Exit::TryLater);
        assert_eq!(std::fs::read_dir(state.requests()).unwrap().count(), 0);
    }

    #[test]
    fn a_request_nobody_takes_is_taken_back() {
        let (_dir, state) = state();
        let Acquired::Held(_lock) = WatchLock::acquire(&state).unwrap() else { panic!("it is free") };
        let error = ask(&state, Verb::Resume, "", None, Duration::from_millis(30)).unwrap_err();
        assert!(matches!(error, AskError::NoAnswer { .. }));
        assert_eq!(Door::of(&state).claim_all().unwrap().len(), 0);
    }

    #[test]
    fn a_watcher_takes_a_request_and_its_answer_arrives() {
        let (_dir, state) = state();
        let Acquired::Held(_lock) = WatchLock::acquire(&state).unwrap() else { panic!("it is free") };
        let door = Door::of(&state);
        let asker = {
            let state = state.clone();
            thread::spawn(move || {
                ask(&state, Verb::Drain { grace_s: 5 }, "why", Some("ann"), Duration::from_secs(20))
            })
        };
        let deadline = Instant::now() + Duration::from_secs(20);
        let claimed = loop {
            if let Some(claimed) = door.claim_all().unwrap().pop() {
                break claimed;
            }
            assert!(Instant::now() < deadline);
            thread::yield_now();
        };
        let request = claimed.request.unwrap();
        assert_eq!((request.verb, request.claimed.as_deref()), (Verb::Drain { grace_s: 5 }, Some("ann")));
        // A watcher that dies here finds it again.
        assert_eq!(door.claim_all().unwrap().len(), 1);
        door.reply(claimed.id, &Answer::Done { text: "draining".into() }).unwrap();
        assert_eq!(asker.join().unwrap().unwrap(), "draining");
        assert_eq!(door.claim_all().unwrap().len(), 0);
        assert_eq!(std::fs::read_dir(state.replies()).unwrap().count(), 0);
    }

    #[test]
    fn junk_at_the_door_is_handed_over_as_unreadable() {
        let (_dir, state) = state();
        let id = ids::uuid_v4().unwrap();
        std::fs::write(state.requests().join(format!("{id}.json")), "{}").unwrap();
        std::fs::write(state.requests().join("other"), "{}").unwrap();
        let claimed = Door::of(&state).claim_all().unwrap();
        assert!(claimed.len() == 1 && claimed[0].request.is_err());
    }
}
