//! The agent's side of its door: what `dispatch-send` does when a task's own agent runs it.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use dispatch_core::protocol::limits::ENVELOPE_BYTES_MAX;
use dispatch_core::protocol::names::TaskId;
use uuid::Uuid;

use super::super::store::JobError;
use super::super::variable::passed_on;
use super::words::{ChildAnswer, ChildRequest, ChildWanted, Made, encode_request};
use super::{OFFERED, REPLIES, REPLY_BYTES_MAX, REQUEST_FILE_BYTES_MAX, REQUESTS, RESULTS};
use crate::clock;
use crate::door::{DoorError, REQUEST_TTL_MS};
use crate::files::{FileError, Removed, Written, create_synced, read_limited, remove};
use crate::ids::{self, NoRandomness};
use crate::report::{Exit, Explain};

/// The variable that says where an agent's door is.
pub const DOOR_VARIABLE: &str = "DISPATCH_DOOR";
/// The variable that holds the attempt's token.
pub const TOKEN_VARIABLE: &str = "DISPATCH_TOKEN";
/// From one look for the reply to the next.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A child was not made, or nobody can say whether it was.
#[derive(Debug, thiserror::Error)]
pub enum AskChildError {
    /// There is a door to come to and nothing to show there: this task was granted none.
    #[error("this task may send no tasks: its fan-out is 0")]
    NoToken,
    /// The attempt is over, or its directory is gone.
    #[error("the door of this attempt is closed")]
    Closed,
    /// The watcher did not take the request in time; it was taken back.
    #[error("the watcher did not answer within {waited_s} s; the request was taken back")]
    NoAnswer {
        /// How long it was waited, in seconds.
        waited_s: u64,
    },
    /// The watcher took the request and did not answer in time.
    #[error(
        "the watcher took the request and did not answer within {waited_s} s; the task may still be sent"
    )]
    Taken {
        /// How long it was waited, in seconds.
        waited_s: u64,
    },
    /// The watcher refused it.
    #[error("{}", refusal.text)]
    Refused {
        /// Its words.
        refusal: DoorError,
    },
    /// The request is longer than any.
    #[error("the request's file would be {bytes} bytes, more than {REQUEST_FILE_BYTES_MAX}")]
    TooLong {
        /// How long it is.
        bytes: usize,
    },
    /// It has no JSON form.
    #[error(transparent)]
    Words(#[from] JobError),
    /// The door's files cannot be written or read.
    #[error(transparent)]
    File(#[from] FileError),
    /// No id can be drawn.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

impl Explain for AskChildError {
    fn exit(&self) -> Exit {
        match self {
            AskChildError::NoToken | AskChildError::Closed => Exit::NotPermitted,
            AskChildError::NoAnswer { .. } | AskChildError::Taken { .. } => Exit::TryLater,
            AskChildError::Refused { refusal } => match refusal.code.as_str() {
                "malformed" | "limit_exceeded" | "unknown_peer" | "unsupported_peer" => Exit::Usage,
                "expired" | "at_capacity" | "rate_exceeded" => Exit::TryLater,
                "failed" | "unknown" | "unknown_task" | "no_randomness" => Exit::LocalIo,
                _ => Exit::NotPermitted,
            },
            AskChildError::TooLong { .. } => Exit::Usage,
            AskChildError::Words(_) | AskChildError::File(_) | AskChildError::NoRandomness(_) => {
                Exit::LocalIo
            }
        }
    }

    fn help(&self) -> Option<String> {
        match self {
            AskChildError::NoToken => Some(format!(
                "do it in this task, or have it sent by hand; who sent the task grants some with --fanout, up to \
                     `fanout_max` in [lineage] of this node; outside a task, unset {DOOR_VARIABLE}"
            )),
            AskChildError::Closed => Some(format!(
                "a task sends tasks only while it runs, and asks a thousand times at most; outside one, unset \
                     {DOOR_VARIABLE}"
            )),
            AskChildError::NoAnswer { .. } => Some("try again".to_owned()),
            AskChildError::Taken { .. } => Some("do not send it again before somebody has looked".to_owned()),
            AskChildError::Refused { refusal } => refusal.help.clone(),
            AskChildError::TooLong { .. } => Some("shorten the request".to_owned()),
            AskChildError::Words(_) | AskChildError::File(_) | AskChildError::NoRandomness(_) => None,
        }
    }
}

/// The door as the agent of one attempt has it.
#[derive(Clone)]
pub struct AgentSide {
    door: PathBuf,
    token: String,
}

impl AgentSide {
    /// The door that this process was given, if it was given one.
    ///
    /// # Errors
    /// A door without its token.
    pub fn of_process() -> Result<Option<AgentSide>, AskChildError> {
        AgentSide::of(passed_on)
    }

    fn of(own: impl Fn(&str) -> Option<OsString>) -> Result<Option<AgentSide>, AskChildError> {
        let Some(door) = own(DOOR_VARIABLE).filter(|door| !door.is_empty()) else { return Ok(None) };
        let token =
            own(TOKEN_VARIABLE).and_then(|token| token.into_string().ok()).filter(|token| !token.is_empty());
        let token = token.ok_or(AskChildError::NoToken)?;
        Ok(Some(AgentSide { door: door.into(), token }))
    }

    /// Asks for a child and waits for the watcher's word.
    ///
    /// # Errors
    /// A closed door, no answer within `wait` (the request is then taken back, unless the watcher has it already), a
    /// refusal, or files that cannot be written.
    pub fn ask(&self, wanted: ChildWanted, wait: Duration) -> Result<Made, AskChildError> {
        if !self.is_open() {
            return Err(AskChildError::Closed);
        }
        let made = clock::now();
        let expires = made.plus_ms(REQUEST_TTL_MS);
        let request = ChildRequest { id: ids::uuid_v4()?, token: self.token.clone(), wanted, made, expires };
        let path = self.door.join(REQUESTS).join(format!("{}.{OFFERED}", request.id));
        let bytes = encode_request(&path, &request)?;
        if u64::try_from(bytes.len()).is_ok_and(|len| len > REQUEST_FILE_BYTES_MAX) {
            return Err(AskChildError::TooLong { bytes: bytes.len() });
        }
        match create_synced(&path, &bytes, 0o600) {
            Ok(Written::Created) => {}
            Ok(Written::AlreadyThere) => {
                return Err(
                    FileError { op: "create", path, source: io::ErrorKind::AlreadyExists.into() }.into()
                );
            }
            Err(_) if !self.is_open() => return Err(AskChildError::Closed),
            Err(error) => return Err(error.into()),
        }
        if let Some(answer) = self.await_answer(request.id, wait)? {
            return settled(answer);
        }
        let waited_s = wait.as_secs();
        match remove(&path)? {
            Removed::Removed => Err(AskChildError::NoAnswer { waited_s }),
            // Between the last look and now the watcher took it, so its answer is near.
            Removed::Absent => match self.await_answer(request.id, wait)? {
                Some(answer) => settled(answer),
                None => Err(AskChildError::Taken { waited_s }),
            },
        }
    }

    /// The payload of a child's result, once its node's answer was believed.
    ///
    /// # Errors
    /// Something that is no result lies there.
    pub fn result(&self, child: TaskId) -> Result<Option<Vec<u8>>, FileError> {
        let limit = u64::try_from(ENVELOPE_BYTES_MAX).unwrap_or(u64::MAX);
        match read_limited(&self.door.join(RESULTS).join(format!("{child}.{OFFERED}")), limit) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// True while somebody may ask here.
    #[must_use]
    pub fn is_open(&self) -> bool {
        fs::symlink_metadata(self.door.join(REQUESTS)).is_ok_and(|found| found.is_dir())
    }

    fn await_answer(&self, id: Uuid, wait: Duration) -> Result<Option<ChildAnswer>, AskChildError> {
        let path = self.door.join(REPLIES).join(format!("{id}.{OFFERED}"));
        let started = Instant::now();
        loop {
            // Before the look for the reply: a door that closes after this look had time to be answered at.
            let open = self.is_open();
            match read_limited(&path, REPLY_BYTES_MAX) {
                Ok(bytes) => {
                    let answer = ChildAnswer::from_text(id, &bytes)
                        .map_err(|bad| io::Error::new(io::ErrorKind::InvalidData, bad))
                        .map_err(FileError::of("understand", &path))?;
                    let (Removed::Removed | Removed::Absent) = remove(&path)?;
                    return Ok(Some(answer));
                }
                Err(error) if error.source.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
            }
            if !open {
                return Err(AskChildError::Closed);
            }
            if started.elapsed() >= wait {
                return Ok(None);
            }
            thread::sleep(LOOK_EVERY);
        }
    }
}

fn settled(answer: ChildAnswer) -> Result<Made, AskChildError> {
    match answer {
        ChildAnswer::Made(made) => Ok(*made),
        ChildAnswer::Refused(refusal) => Err(AskChildError::Refused { refusal }),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use dispatch_core::policy::admission::Billing;
    use dispatch_core::protocol::names::NodeName;

    use super::*;
    use crate::job::door::AgentDoor;
    use crate::job::{AgentKind, JobDir, KillswitchPlaces, Order};

    fn order() -> Order {
        Order {
            node: NodeName::new("b").unwrap(),
            from: NodeName::new("a").unwrap(),
            task: TaskId::parse("01a1f89c-fb83-734b-96bb-78a1dacaf1ff").unwrap(),
            task_sha256: dispatch_core::protocol::names::Digest::of(b""),
            attempt: 1,
            epoch: 7,
            mark: "m".into(),
            token: Some("t".repeat(64)),
            profile: dispatch_core::protocol::names::Name::new("p").unwrap(),
            kind: AgentKind::Command,
            argv: vec![],
            env: vec![],
            secrets: vec![],
            set: BTreeMap::new(),
            cwd: None,
            permission_mode: None,
            timeout_s: 1,
            silence_timeout_s: 0,
            tool_timeout_s: 0,
            max_output_bytes: 1,
            ceiling_usd: None,
            billing: Billing::Free,
            metering: None,
            cluster: Uuid::nil(),
            killswitch: KillswitchPlaces { root: "/".into(), lane: "/".into(), state: "/".into() },
        }
    }

    fn both() -> (tempfile::TempDir, AgentDoor, AgentSide) {
        let dir = tempfile::tempdir().unwrap();
        let job = JobDir::create(dir.path(), &order(), b"").unwrap();
        let own = |name: &str| match name {
            DOOR_VARIABLE => Some(job.door_path().into_os_string()),
            TOKEN_VARIABLE => Some("t".repeat(64).into()),
            _ => None,
        };
        let side = AgentSide::of(own).unwrap().unwrap();
        (dir, AgentDoor::of(&job), side)
    }

    fn wanted() -> ChildWanted {
        ChildWanted::new(NodeName::new("c").unwrap(), "x".into())
    }

    #[test]
    fn a_process_without_a_door_has_none_and_one_without_a_token_is_told() {
        assert!(AgentSide::of(|_| None).unwrap().is_none());
        let own = |name: &str| (name == DOOR_VARIABLE).then(|| "/door".into());
        assert!(matches!(AgentSide::of(own), Err(AskChildError::NoToken)));
    }

    #[test]
    fn a_request_nobody_takes_is_taken_back() {
        let (_dir, door, side) = both();
        let error = side.ask(wanted(), Duration::from_millis(30)).unwrap_err();
        assert!(matches!(error, AskChildError::NoAnswer { .. }) && error.exit() == Exit::TryLater);
        assert_eq!(door.claim(10).unwrap().claimed.len(), 0);
    }

    #[test]
    fn the_watchers_word_reaches_the_agent() {
        let (_dir, door, side) = both();
        let asker = thread::spawn(move || side.ask(wanted(), Duration::from_secs(20)));
        let deadline = Instant::now() + Duration::from_secs(20);
        let claim = loop {
            if let Some(claim) = door.claim(10).unwrap().claimed.pop() {
                break claim;
            }
            assert!(Instant::now() < deadline);
            thread::yield_now();
        };
        let request = claim.request.unwrap();
        assert_eq!((request.token.as_str(), request.wanted), ("t".repeat(64).as_str(), wanted()));
        let refusal = DoorError { code: "lineage_exceeded".into(), text: "no".into(), help: None };
        door.reply(claim.id, &ChildAnswer::Refused(refusal)).unwrap();
        let error = asker.join().unwrap().unwrap_err();
        assert!(matches!(&error, AskChildError::Refused { .. }) && error.exit() == Exit::NotPermitted);
    }

    #[test]
    fn at_a_closed_door_nobody_waits() {
        let (_dir, door, side) = both();
        let waiting = side.clone();
        let asker = thread::spawn(move || waiting.ask(wanted(), Duration::from_secs(600)));
        let deadline = Instant::now() + Duration::from_secs(20);
        while fs::read_dir(door.requests_dir()).unwrap().count() == 0 {
            assert!(Instant::now() < deadline);
            thread::yield_now();
        }
        door.close().unwrap();
        assert!(matches!(asker.join().unwrap(), Err(AskChildError::Closed)));
        assert!(matches!(side.ask(wanted(), Duration::from_secs(600)), Err(AskChildError::Closed)));
    }

    #[test]
    fn the_longest_request_there_can_be_fits_unless_it_is_all_escapes() {
        let (_dir, door, side) = both();
        let text = "\"".repeat(dispatch_core::protocol::limits::REQUEST_BYTES_MAX - 16 * 1024);
        let long = ChildWanted::new(NodeName::new("c").unwrap(), text);
        let error = side.ask(long, Duration::from_millis(30)).unwrap_err();
        assert!(matches!(error, AskChildError::NoAnswer { .. }), "{error:?}");
        let text = "\u{1}".repeat(dispatch_core::protocol::limits::REQUEST_BYTES_MAX);
        let long = ChildWanted::new(NodeName::new("c").unwrap(), text);
        let error = side.ask(long, Duration::from_millis(30)).unwrap_err();
        assert!(matches!(error, AskChildError::TooLong { .. }) && error.exit() == Exit::Usage);
        assert_eq!(door.claim(10).unwrap().claimed.len(), 0);
    }
}
