//! The one JSON document that `--json` prints.

use dispatch_core::protocol::names::{Lane, TaskId};
use dispatch_core::protocol::result::Status;
use dispatch_core::protocol::v2::FlatResult;
use serde::Serialize;
use serde_json::Value;

use crate::send::Sent;

/// What was sent and, with `--wait`, what came of it. The members stay; new ones may be added.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Document {
    schema: u32,
    task: String,
    short: String,
    lane: String,
    seq: u64,
    task_sha256: String,
    inbox: String,
    expires: String,
    notes: Vec<String>,
    /// `ok` … as in the result, or `no_answer`, `unverified`, `interrupted`; null without `--wait`.
    status: Option<String>,
    /// True only for a result that was believed; null without `--wait`.
    verified: Option<bool>,
    /// The payload of the result as its receiver sealed it, or what a version-2 peer wrote; null where there is neither.
    result: Option<Value>,
}

/// How an answer that nobody signed is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It was asked for: the command ends as it says.
    AsSaid,
    /// It settles nothing.
    AsHint,
}

impl Document {
    pub(crate) fn of(sent: &Sent) -> Document {
        let (lane, id): (&Lane, TaskId) = (&sent.desk.lane, sent.record.id);
        Document {
            schema: 1,
            task: id.to_string(),
            short: id.short(),
            lane: lane.to_string(),
            seq: sent.record.seq,
            task_sha256: sent.record.task_sha256.to_string(),
            inbox: sent.inbox.display().to_string(),
            expires: sent.record.expires.to_string(),
            notes: sent.notes.clone(),
            status: None,
            verified: None,
            result: None,
        }
    }

    /// With a result that was believed; `payload` are its exact bytes.
    pub(crate) fn answered(mut self, status: Status, payload: &[u8]) -> Document {
        self.status = Some(status.as_str().to_owned());
        self.verified = Some(true);
        self.result = serde_json::from_slice(payload).ok();
        self
    }

    /// With the answer of a version-2 peer, which nobody signs. Its own word is the status only where that was asked for.
    pub(crate) fn unverified(mut self, answer: &FlatResult, taken: Taken) -> Document {
        self.status = Some(match taken {
            Taken::AsSaid => answer.status.clone(),
            Taken::AsHint => "unverified".to_owned(),
        });
        self.verified = Some(false);
        self.result = serde_json::from_str(&answer.document).ok();
        self
    }

    /// With why there is no result.
    pub(crate) fn without_answer(mut self, why: &str) -> Document {
        self.status = Some(why.to_owned());
        self.verified = Some(false);
        self
    }

    pub(crate) fn to_json(&self) -> String {
        // Nothing in it can fail to be written: no map with other keys than texts.
        serde_json::to_string(self).unwrap_or_default()
    }
}
