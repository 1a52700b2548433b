//! Requests and replies of an agent's door, as values and as strict JSON with `schema: 1`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use dispatch_core::policy::money::Usd;
use dispatch_core::policy::window::RunName;
use dispatch_core::protocol::fraction::Fraction;
use dispatch_core::protocol::names::{Lane, Name, NodeName, TaskId};
use dispatch_core::protocol::task::Priority;
use dispatch_core::protocol::time::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::super::store::{self, JobError};
use super::super::text;
use crate::door::{DoorError, REQUEST_TTL_MS};

/// The one verb of this door.
const CHILD: &str = "child";

/// A child task, as the agent asks for it. There is no root, no parent, no depth: those are the watcher's to say.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChildWanted {
    /// The node that is to run it.
    #[serde(with = "text")]
    pub to: NodeName,
    /// The prompt.
    pub request: String,
    /// Which of the receiver's profiles.
    #[serde(default, with = "text::or_null", skip_serializing_if = "Option::is_none")]
    pub profile: Option<Name>,
    /// Which of the receiver's working directories.
    #[serde(default, with = "text::or_null", skip_serializing_if = "Option::is_none")]
    pub workspace: Option<Name>,
    /// Its place among what waits.
    #[serde(default, with = "text::or_null", skip_serializing_if = "Option::is_none")]
    pub priority: Option<Priority>,
    /// Park it for a person.
    #[serde(default)]
    pub require_ack: bool,
    /// Ask for the profile's unrestricted mode.
    #[serde(default)]
    pub require_dangerous: bool,
    /// Wall clock from spawn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_s: Option<u32>,
    /// No output for so long is hung.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub silence_timeout_s: Option<u32>,
    /// Cap of the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_output_bytes: Option<u64>,
    /// The sender's ceiling.
    #[serde(default, with = "text::or_null", skip_serializing_if = "Option::is_none")]
    pub max_cost_usd: Option<Usd>,
    /// Budget batch.
    #[serde(default, with = "text::or_null", skip_serializing_if = "Option::is_none")]
    pub run: Option<RunName>,
    /// A tool that a backend must offer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needs_tool: Option<String>,
    /// GPU memory that it must have free.
    #[serde(default, with = "text::or_null", skip_serializing_if = "Option::is_none")]
    pub needs_vram_gb: Option<Fraction>,
    /// An image that it must have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needs_image: Option<String>,
    /// Consent to public egress.
    #[serde(default)]
    pub allow_sdk: bool,
    /// More than 1: it may safely run again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u32>,
    /// It must have started within this time from now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_ms: Option<i64>,
    /// For people.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// How many tasks the child may send in its turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fanout: Option<u32>,
    /// What the child and the tasks below it may cost.
    #[serde(default, with = "text::or_null", skip_serializing_if = "Option::is_none")]
    pub budget_usd: Option<Usd>,
}

impl ChildWanted {
    /// A child with nothing but what is required.
    #[must_use]
    pub fn new(to: NodeName, request: String) -> ChildWanted {
        ChildWanted {
            to,
            request,
            profile: None,
            workspace: None,
            priority: None,
            require_ack: false,
            require_dangerous: false,
            timeout_s: None,
            silence_timeout_s: None,
            max_output_bytes: None,
            max_cost_usd: None,
            run: None,
            needs_tool: None,
            needs_vram_gb: None,
            needs_image: None,
            allow_sdk: false,
            max_attempts: None,
            expires_ms: None,
            labels: BTreeMap::new(),
            fanout: None,
            budget_usd: None,
        }
    }
}

impl fmt::Debug for ChildWanted {
    /// Never the request's text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChildWanted")
            .field("to", &self.to)
            .field("profile", &self.profile)
            .finish_non_exhaustive()
    }
}

/// A request, as the agent made it.
#[derive(Clone, PartialEq, Eq)]
pub struct ChildRequest {
    /// Its own id: made once, whatever happens in between.
    pub id: Uuid,
    /// The attempt's token.
    pub token: String,
    /// What is asked for.
    pub wanted: ChildWanted,
    /// When it was made.
    pub made: Timestamp,
    /// From when on it is refused.
    pub expires: Timestamp,
}

impl ChildRequest {
    /// True when the watcher must refuse it: older than a minute, or made for longer.
    #[must_use]
    pub const fn is_expired_at(&self, now: Timestamp) -> bool {
        now.unix_ms() >= self.expires.unix_ms()
            || self.expires.since_ms(self.made) > REQUEST_TTL_MS
            || self.made.since_ms(now) > REQUEST_TTL_MS
    }
}

impl fmt::Debug for ChildRequest {
    /// Never the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChildRequest")
            .field("id", &self.id)
            .field("wanted", &self.wanted)
            .finish_non_exhaustive()
    }
}

/// A child that was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Made {
    /// The child.
    #[serde(with = "text")]
    pub task: TaskId,
    /// The lane it goes out on.
    #[serde(with = "text")]
    pub lane: Lane,
    /// Where it is put.
    pub inbox: PathBuf,
    /// From when on it is not started any more.
    #[serde(with = "text")]
    pub expires: Timestamp,
    /// Until when its answer can come.
    #[serde(with = "text")]
    pub answer_by: Timestamp,
    /// The first task of its tree.
    #[serde(with = "text")]
    pub root: TaskId,
    /// Steps from there.
    pub depth: u32,
    /// How many tasks it may send in its turn.
    pub fanout_left: u32,
    /// What it and the tasks below it may cost; null where nothing limits them but what limits every task.
    #[serde(with = "text::or_null")]
    pub budget_usd: Option<Usd>,
    /// What its sender should know, in sentences.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChildAnswer {
    /// The child exists; it goes out by itself.
    Made(Box<Made>),
    /// There is none.
    Refused(DoorError),
}

/// A file of the door that is not of its form.
#[derive(Debug, thiserror::Error)]
pub enum NotAChildRequest {
    /// No strict JSON of these members.
    #[error("it is not JSON of this form")]
    Json(#[source] JobError),
    /// A member says what it cannot.
    #[error("`{member}` does not hold")]
    Member {
        /// Which.
        member: &'static str,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRequest {
    #[serde(with = "text")]
    id: Uuid,
    verb: String,
    token: String,
    #[serde(with = "text::an_object")]
    args: ChildWanted,
    #[serde(with = "text")]
    made: Timestamp,
    #[serde(with = "text")]
    expires: Timestamp,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawReply {
    #[serde(with = "text")]
    id: Uuid,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    child: Option<Made>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<DoorError>,
}

pub(super) fn encode_request(path: &Path, request: &ChildRequest) -> Result<Vec<u8>, JobError> {
    let raw = RawRequest {
        id: request.id,
        verb: CHILD.to_owned(),
        token: request.token.clone(),
        args: request.wanted.clone(),
        made: request.made,
        expires: request.expires,
    };
    store::encode(path, &raw)
}

pub(super) fn decode_request(path: &Path, id: Uuid, bytes: &[u8]) -> Result<ChildRequest, NotAChildRequest> {
    let raw: RawRequest = store::decode(path, bytes).map_err(NotAChildRequest::Json)?;
    if raw.id != id {
        return Err(NotAChildRequest::Member { member: "id" });
    }
    if raw.verb != CHILD {
        return Err(NotAChildRequest::Member { member: "verb" });
    }
    Ok(ChildRequest { id, token: raw.token, wanted: raw.args, made: raw.made, expires: raw.expires })
}

impl ChildAnswer {
    /// The reply's text, as its file and the ledger have it.
    ///
    /// # Errors
    /// It has no JSON form.
    pub fn to_text(&self, id: Uuid) -> Result<String, JobError> {
        let (child, error) = match self {
            ChildAnswer::Made(made) => (Some(made.as_ref().clone()), None),
            ChildAnswer::Refused(error) => (None, Some(error.clone())),
        };
        let bytes = store::encode(Path::new(super::REPLIES), &RawReply { id, child, error })?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Reads a reply to the request `id`.
    ///
    /// # Errors
    /// It is something else.
    pub fn from_text(id: Uuid, text: &[u8]) -> Result<ChildAnswer, NotAChildRequest> {
        let raw: RawReply = store::decode(Path::new(super::REPLIES), text).map_err(NotAChildRequest::Json)?;
        if raw.id != id {
            return Err(NotAChildRequest::Member { member: "id" });
        }
        match (raw.child, raw.error) {
            (Some(made), None) => Ok(ChildAnswer::Made(Box::new(made))),
            (None, Some(error)) => Ok(ChildAnswer::Refused(error)),
            (Some(_), Some(_)) | (None, None) => Err(NotAChildRequest::Member { member: "child" }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dispatch_core::protocol::names::canonical_uuid;

    fn request() -> ChildRequest {
        let made = Timestamp::parse("2026-11-20T12:00:00.000Z").unwrap();
        ChildRequest {
            id: canonical_uuid("7c0e3b52-6f0e-4a3e-9d52-0f6f2b8f7a11").unwrap(),
            token: "t".repeat(64),
            wanted: ChildWanted {
                profile: Name::new("review").ok(),
                priority: Some(Priority::High),
                timeout_s: Some(90),
                max_cost_usd: Usd::from_wire("1.5").ok(),
                run: RunName::new("nightly").ok(),
                needs_vram_gb: Fraction::from_wire("16").ok(),
                labels: BTreeMap::from([("k".into(), "v".into())]),
                fanout: Some(2),
                budget_usd: Usd::from_wire("2").ok(),
                ..ChildWanted::new(NodeName::new("b").unwrap(), "say \"hi\"\n".into())
            },
            made,
            expires: made.plus_ms(REQUEST_TTL_MS),
        }
    }

    fn text() -> String {
        String::from_utf8(encode_request(Path::new("x"), &request()).unwrap()).unwrap()
    }

    #[test]
    fn a_request_survives_its_file_and_shows_no_secret() {
        let read = decode_request(Path::new("x"), request().id, text().as_bytes()).unwrap();
        assert_eq!(read, request());
        let shown = format!("{read:?}");
        assert!(!shown.contains("tttt") && !shown.contains("say"), "{shown}");
    }

    #[test]
    fn nothing_can_be_asked_for_that_a_child_is_not_asked_about() {
        let good = text();
        for (from, to) in [
            ("\"schema\":1", "\"schema\":2"),
            ("\"child\"", "\"cancel\""),
            ("\"args\":{", "\"args\":{\"root\":\"01a1f89c-fb83-734b-96bb-78a1dacaf1ff\","),
            ("\"args\":{", "\"args\":{\"parent\":null,"),
            ("\"args\":{", "\"args\":{\"depth\":0,"),
            ("\"args\":{", "\"args\":{\"lineage\":{},"),
            ("\"args\":{", "\"args\":{\"from\":\"a\","),
            ("\"args\":{", "\"args\":{\"fanout\":1,"),
            ("\"fanout\":2", "\"fanout\":-2"),
            ("\"fanout\":2", "\"fanout\":2.5"),
            ("\"budget_usd\":\"2\"", "\"budget_usd\":2"),
            ("\"verb\"", "\"token\":\"x\",\"verb\""),
        ] {
            assert!(good.contains(from), "{from}");
            let bad = good.replacen(from, to, 1);
            assert!(decode_request(Path::new("x"), request().id, bad.as_bytes()).is_err(), "{to}");
        }
        let other = canonical_uuid("7c0e3b52-6f0e-4a3e-9d52-0f6f2b8f7a12").unwrap();
        assert!(decode_request(Path::new("x"), other, good.as_bytes()).is_err());
    }

    #[test]
    fn an_array_is_no_request_whatever_it_holds() {
        let array = "[\"b\", \"text\"]";
        let start = text().find("\"args\":{").unwrap();
        let end = text().find(",\"made\"").unwrap();
        let bad = format!("{}\"args\":{array}{}", &text()[..start], &text()[end..]);
        assert!(decode_request(Path::new("x"), request().id, bad.as_bytes()).is_err());
    }

    #[test]
    fn a_request_lasts_a_minute_whatever_it_says_itself() {
        let mut request = request();
        assert!(!request.is_expired_at(request.made));
        assert!(request.is_expired_at(request.expires));
        request.expires = request.made.plus_ms(REQUEST_TTL_MS + 1);
        assert!(request.is_expired_at(request.made));
    }

    #[test]
    fn a_reply_is_one_of_two_things() {
        let id = request().id;
        let task = TaskId::parse("01a1f89c-fb83-734b-96bb-78a1dacaf1ff").unwrap();
        let made = Made {
            task,
            lane: Lane::parse("a-to-b").unwrap(),
            inbox: "/share/a-to-b/inbox/x.json".into(),
            expires: request().made,
            answer_by: request().expires,
            root: task,
            depth: 2,
            fanout_left: 1,
            budget_usd: Usd::from_wire("0.5").ok(),
            notes: vec!["it waits".into()],
        };
        let refused = DoorError { code: "bad_token".into(), text: "no".into(), help: None };
        for answer in [ChildAnswer::Made(Box::new(made)), ChildAnswer::Refused(refused)] {
            let text = answer.to_text(id).unwrap();
            assert_eq!(ChildAnswer::from_text(id, text.as_bytes()).unwrap(), answer);
        }
        let neither = format!("{{\"schema\":1,\"id\":\"{id}\"}}");
        assert!(ChildAnswer::from_text(id, neither.as_bytes()).is_err());
    }
}
