//! The one JSON document about a task that was sent: what `dispatch-send --json`, `dispatchctl wait --json` and
//! `dispatchctl result --json` print.

use std::path::Path;

use dispatch_core::protocol::names::{Digest, Lane, TaskId};
use dispatch_core::protocol::result::{Reason, TaskResult};
use dispatch_core::protocol::time::Timestamp;
use dispatch_core::protocol::v2::FlatResult;
use serde::Serialize;
use serde_json::{Value, json};

use crate::outgoing::Record;
use crate::progress::HowFar;

/// The members, for `--help` and man pages.
pub const SCHEMA_HELP: &str = "\
The JSON document, one line; members stay, new ones may be added:
  schema       1
  task, short  the task's id; its last 8 digits
  lane         <from>-to-<to>
  seq          position in the sender's stream; null on the node that received it, and within a task
  task_sha256  digest of the task that was sent; null for one sent by a task, until its result is there
  inbox        where it was put
  expires      from when on it is not started any more
  notes        what the sender should know, a list of sentences
  status       how it ended: ok verified refuted error timeout silent over_budget killed cancelled
               rejected denied expired unknown; or why there is no result: no_answer, unverified,
               interrupted; null while nobody waited for it or there is none yet
  verified     true: result is what the other node sealed; false: there is none to believe;
               null while there is none yet
  reason       {code, text, help}: why it ended so, or why there is no result; null where there is
               nothing to say
  progress     while there is no result, what the other node sealed last: {phase, position, epoch,
               elapsed_ms, turns, last_tool, tokens, usd, last_line}; null where nothing is known
  result       the sealed result: final_text, exit_code, cost {usd, basis, reserved_usd}, usage,
               started_at, elapsed_ms, log_sha256 and the others of protocol section 6; where
               verified is false, what a version-2 peer wrote and nobody signed; else null";

/// What was sent and what came of it. Members stay; new ones may be added.
#[derive(Clone, Debug, Serialize)]
pub struct Document {
    schema: u32,
    task: String,
    short: String,
    lane: String,
    seq: Option<u64>,
    task_sha256: Option<String>,
    inbox: String,
    expires: String,
    notes: Vec<String>,
    status: Option<String>,
    verified: Option<bool>,
    reason: Option<Value>,
    progress: Option<Value>,
    result: Option<Value>,
}

/// How an answer that nobody signed is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It was asked for: the command ends as it says.
    AsSaid,
    /// It settles nothing.
    AsHint,
}

/// Why there is no result to believe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoResult {
    /// The time for one is over.
    NoAnswer,
    /// What lies at its place does not verify.
    Unverified,
    /// A person stopped the waiting.
    Interrupted,
}

impl NoResult {
    /// The word at `status`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            NoResult::NoAnswer => "no_answer",
            NoResult::Unverified => "unverified",
            NoResult::Interrupted => "interrupted",
        }
    }
}

impl Document {
    /// About a task that this node sent.
    #[must_use]
    pub fn sent(lane: &Lane, record: &Record, inbox: &Path, notes: &[String]) -> Document {
        let mut document = Document::of(lane, record.id, record.task_sha256, record.expires, inbox);
        document.seq = Some(record.seq);
        document.notes = notes.to_vec();
        document
    }

    /// About a task that this node received.
    #[must_use]
    pub fn of(lane: &Lane, id: TaskId, task_sha256: Digest, expires: Timestamp, inbox: &Path) -> Document {
        Document {
            schema: 1,
            task: id.to_string(),
            short: id.short(),
            lane: lane.to_string(),
            seq: None,
            task_sha256: Some(task_sha256.to_string()),
            inbox: inbox.display().to_string(),
            expires: expires.to_string(),
            notes: Vec::new(),
            status: None,
            verified: None,
            reason: None,
            progress: None,
            result: None,
        }
    }

    /// About a task that a task sent: its watcher numbers and seals it afterwards.
    #[must_use]
    pub fn child(lane: &Lane, id: TaskId, expires: Timestamp, inbox: &Path, notes: &[String]) -> Document {
        let mut document = Document::of(lane, id, Digest::of(b""), expires, inbox);
        document.task_sha256 = None;
        document.notes = notes.to_vec();
        document
    }

    /// With a result that is believed; `payload` are its exact bytes.
    #[must_use]
    pub fn answered(mut self, result: &TaskResult, payload: &[u8]) -> Document {
        self.status = Some(result.status.as_str().to_owned());
        self.verified = Some(true);
        self.task_sha256 = Some(result.task_sha256.to_string());
        self.reason = result.reason.as_ref().map(reason);
        self.result = serde_json::from_slice(payload).ok();
        self
    }

    /// With the answer of a version-2 peer, which nobody signs. Its own word is the status only where that was asked for.
    #[must_use]
    pub fn unsigned(mut self, answer: &FlatResult, taken: Taken) -> Document {
        self.status = Some(match taken {
            Taken::AsSaid => answer.status.clone(),
            Taken::AsHint => NoResult::Unverified.as_str().to_owned(),
        });
        self.verified = Some(false);
        self.reason = Some(json!({
            "code": "unsigned",
            "text": format!("its answer says `{}`, and nobody signed it", answer.status),
            "help": "its node speaks version 2, which signs no answers: look there for what really happened",
        }));
        self.result = serde_json::from_str(&answer.document).ok();
        self
    }

    /// With why there is no result.
    #[must_use]
    pub fn without_result(mut self, why: NoResult, because: &Reason) -> Document {
        self.status = Some(why.as_str().to_owned());
        self.verified = Some(false);
        self.reason = Some(reason(because));
        self
    }

    /// With how far the task was when somebody looked last.
    #[must_use]
    pub fn with_progress(mut self, far: Option<&HowFar>) -> Document {
        self.progress = far.map(HowFar::to_json);
        self
    }

    /// As a value.
    #[must_use]
    pub fn to_value(&self) -> Value {
        // As for the line: nothing in it can fail to be written.
        serde_json::to_value(self).unwrap_or(Value::Null)
    }

    /// One line of JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Nothing in it can fail to be written: no map with other keys than texts.
        serde_json::to_string(self).unwrap_or_default()
    }
}

fn reason(reason: &Reason) -> Value {
    json!({"code": reason.code, "text": reason.text, "help": reason.help})
}
