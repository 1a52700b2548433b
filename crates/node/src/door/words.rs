//! Requests and replies, as values and as strict JSON with `schema: 1`.

use dispatch_core::policy::window::RunName;
use dispatch_core::protocol::names::{Name, NodeName, TaskId, canonical_uuid};
use dispatch_core::protocol::time::{SECOND_MS, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// How long a request may wait for its watcher.
pub const REQUEST_TTL_MS: i64 = 60 * SECOND_MS;
/// The format of both files.
const SCHEMA: u32 = 1;
/// Longest reason and claimed name, in bytes.
const TEXT_BYTES_MAX: usize = 4 * 1024;

/// What the watcher is asked to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verb {
    /// End this task, wherever it is.
    Cancel {
        /// Who sent it.
        from: NodeName,
        /// Which.
        task: TaskId,
    },
    /// Go on after a killswitch that is gone.
    Resume,
    /// Start nothing new; after the grace, maintenance.
    Drain {
        /// Seconds that running tasks get.
        grace_s: u64,
    },
    /// Work again.
    Undrain,
    /// A gap in a sender's stream will never be filled: stop reporting it.
    AcceptGap {
        /// The sender.
        from: NodeName,
        /// Its stream.
        stream: Uuid,
    },
    /// Close a run of a sender for good.
    BudgetCloseRun {
        /// The sender.
        from: NodeName,
        /// Its run.
        run: RunName,
    },
    /// Let held paid work go on, because a person has looked.
    BudgetResume {
        /// Of this sender; `None` with a profile: of none, else: of all.
        from: Option<NodeName>,
        /// Of this profile, whatever its breaker says.
        profile: Option<Name>,
    },
    /// Read the configuration again.
    Reload,
}

impl Verb {
    /// The word in files and in the audit.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Verb::Cancel { .. } => "cancel",
            Verb::Resume => "resume",
            Verb::Drain { .. } => "drain",
            Verb::Undrain => "undrain",
            Verb::AcceptGap { .. } => "accept-gap",
            Verb::BudgetCloseRun { .. } => "budget-close-run",
            Verb::BudgetResume { .. } => "budget-resume",
            Verb::Reload => "reload",
        }
    }
}

/// A request, as it was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Its own id: applied once, whatever happens in between.
    pub id: Uuid,
    /// What is asked.
    pub verb: Verb,
    /// Why, in the asker's words; may be empty.
    pub reason: String,
    /// The name the asker claims, unchecked.
    pub claimed: Option<String>,
    /// When it was made.
    pub made: Timestamp,
    /// From when on it is refused.
    pub expires: Timestamp,
}

impl Request {
    /// True when the watcher must refuse it: expired, or made for longer than a minute.
    #[must_use]
    pub const fn is_expired_at(&self, now: Timestamp) -> bool {
        now.unix_ms() >= self.expires.unix_ms()
            || self.expires.since_ms(self.made) > REQUEST_TTL_MS
            || self.made.since_ms(now) > REQUEST_TTL_MS
    }
}

/// Why a request was not applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DoorError {
    /// One word for programs: `unknown_task`, `expired`, `malformed` …
    pub code: String,
    /// One clause for people.
    pub text: String,
    /// What to do now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It was applied.
    Done {
        /// One clause that says what holds now.
        text: String,
    },
    /// It was not.
    Refused(DoorError),
}

/// A request or reply that is not of its form.
#[derive(Debug, thiserror::Error)]
pub(super) enum BadWords {
    #[error("not JSON of this form")]
    Json(#[from] serde_json::Error),
    #[error("`{member}` does not hold")]
    Member { member: &'static str },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRequest {
    schema: u32,
    id: String,
    verb: String,
    args: RawArgs,
    reason: String,
    #[serde(rename = "as")]
    claimed: Option<String>,
    made: String,
    expires: String,
}

/// All arguments of all verbs; which of them must be there is the verb's.
#[derive(Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawArgs {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    task: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stream: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    grace_s: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    run: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    profile: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawReply {
    schema: u32,
    id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ok: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<DoorError>,
}

fn member<T, E>(member: &'static str, read: Result<T, E>) -> Result<T, BadWords> {
    read.map_err(|_| BadWords::Member { member })
}

impl RawArgs {
    fn of(verb: &Verb) -> RawArgs {
        match verb {
            Verb::Cancel { from, task } => {
                RawArgs { from: Some(from.to_string()), task: Some(task.to_string()), ..RawArgs::default() }
            }
            Verb::AcceptGap { from, stream } => RawArgs {
                from: Some(from.to_string()),
                stream: Some(stream.to_string()),
                ..RawArgs::default()
            },
            Verb::Drain { grace_s } => RawArgs { grace_s: Some(*grace_s), ..RawArgs::default() },
            Verb::BudgetCloseRun { from, run } => {
                RawArgs { from: Some(from.to_string()), run: Some(run.to_string()), ..RawArgs::default() }
            }
            Verb::BudgetResume { from, profile } => RawArgs {
                from: from.as_ref().map(ToString::to_string),
                profile: profile.as_ref().map(ToString::to_string),
                ..RawArgs::default()
            },
            Verb::Resume | Verb::Undrain | Verb::Reload => RawArgs::default(),
        }
    }

    fn verb(&self, word: &str) -> Result<Verb, BadWords> {
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let from = || member("from", NodeName::new(&text(&self.from)));
        let verb = match word {
            "cancel" => {
                let task = member("task", TaskId::parse_any_version(&text(&self.task)))?;
                Verb::Cancel { from: from()?, task }
            }
            "accept-gap" => {
                let stream = member("stream", canonical_uuid(&text(&self.stream)))?;
                Verb::AcceptGap { from: from()?, stream }
            }
            "drain" => Verb::Drain { grace_s: self.grace_s.ok_or(BadWords::Member { member: "grace_s" })? },
            "budget-close-run" => {
                Verb::BudgetCloseRun { from: from()?, run: member("run", RunName::new(&text(&self.run)))? }
            }
            "budget-resume" => {
                let profile = self.profile.as_deref().map(Name::new).transpose();
                Verb::BudgetResume {
                    from: self.from.is_some().then(from).transpose()?,
                    profile: member("profile", profile)?,
                }
            }
            "resume" => Verb::Resume,
            "undrain" => Verb::Undrain,
            "reload" => Verb::Reload,
            _ => return Err(BadWords::Member { member: "verb" }),
        };
        if RawArgs::of(&verb) == *self { Ok(verb) } else { Err(BadWords::Member { member: "args" }) }
    }
}

pub(super) fn encode_request(request: &Request) -> Result<Vec<u8>, BadWords> {
    Ok(serde_json::to_vec(&RawRequest {
        schema: SCHEMA,
        id: request.id.to_string(),
        verb: request.verb.as_str().to_owned(),
        args: RawArgs::of(&request.verb),
        reason: request.reason.clone(),
        claimed: request.claimed.clone(),
        made: request.made.to_string(),
        expires: request.expires.to_string(),
    })?)
}

pub(super) fn decode_request(bytes: &[u8]) -> Result<Request, BadWords> {
    let raw: RawRequest = serde_json::from_slice(bytes)?;
    let fits = |text: &str| text.len() <= TEXT_BYTES_MAX;
    if raw.schema != SCHEMA {
        return Err(BadWords::Member { member: "schema" });
    }
    if !fits(&raw.reason) || !raw.claimed.as_deref().is_none_or(fits) {
        return Err(BadWords::Member { member: "reason" });
    }
    Ok(Request {
        id: member("id", canonical_uuid(&raw.id))?,
        verb: raw.args.verb(&raw.verb)?,
        reason: raw.reason,
        claimed: raw.claimed,
        made: member("made", Timestamp::parse(&raw.made))?,
        expires: member("expires", Timestamp::parse(&raw.expires))?,
    })
}

pub(super) fn encode_reply(id: Uuid, answer: &Answer) -> Result<Vec<u8>, BadWords> {
    let (ok, error) = match answer {
        Answer::Done { text } => (Some(text.clone()), None),
        Answer::Refused(error) => (None, Some(error.clone())),
    };
    Ok(serde_json::to_vec(&RawReply { schema: SCHEMA, id: id.to_string(), ok, error })?)
}

pub(super) fn decode_reply(id: Uuid, bytes: &[u8]) -> Result<Answer, BadWords> {
    let raw: RawReply = serde_json::from_slice(bytes)?;
    if raw.schema != SCHEMA {
        return Err(BadWords::Member { member: "schema" });
    }
    if raw.id != id.to_string() {
        return Err(BadWords::Member { member: "id" });
    }
    match (raw.ok, raw.error) {
        (Some(text), None) => Ok(Answer::Done { text }),
        (None, Some(error)) => Ok(Answer::Refused(error)),
        (Some(_), Some(_)) | (None, None) => Err(BadWords::Member { member: "ok" }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(verb: Verb) -> Request {
        let made = Timestamp::parse("2026-11-20T12:00:00.000Z").unwrap();
        Request {
            id: canonical_uuid("7c0e3b52-6f0e-4a3e-9d52-0f6f2b8f7a11").unwrap(),
            verb,
            reason: "because".into(),
            claimed: None,
            made,
            expires: made.plus_ms(REQUEST_TTL_MS),
        }
    }

    #[test]
    fn every_request_survives_its_file() {
        let from = NodeName::new("a").unwrap();
        let task = TaskId::parse("01a1f89c-fb83-734b-96bb-78a1dacaf1ff").unwrap();
        let stream = canonical_uuid("7c0e3b52-6f0e-4a3e-9d52-0f6f2b8f7a11").unwrap();
        for verb in [
            Verb::Cancel { from: from.clone(), task },
            Verb::Resume,
            Verb::Drain { grace_s: 600 },
            Verb::Undrain,
            Verb::AcceptGap { from: from.clone(), stream },
            Verb::BudgetCloseRun { from: from.clone(), run: RunName::new("nightly").unwrap() },
            Verb::BudgetResume { from: None, profile: None },
            Verb::BudgetResume { from: Some(from), profile: Some(Name::new("claude").unwrap()) },
            Verb::Reload,
        ] {
            let request = request(verb);
            assert_eq!(decode_request(&encode_request(&request).unwrap()).unwrap(), request);
        }
    }

    #[test]
    fn a_request_with_anything_missing_or_extra_is_refused() {
        let good = String::from_utf8(encode_request(&request(Verb::Drain { grace_s: 1 })).unwrap()).unwrap();
        for (from, to) in [
            ("\"schema\":1", "\"schema\":2"),
            ("\"drain\"", "\"resume\""),
            ("\"drain\"", "\"explode\""),
            ("{\"grace_s\":1}", "{}"),
            ("{\"grace_s\":1}", "{\"grace_s\":1,\"task\":\"x\"}"),
            ("{\"grace_s\":1}", "{\"grace_s\":1,\"x\":1}"),
            ("\"reason\"", "\"reazon\""),
        ] {
            assert!(good.contains(from));
            assert!(decode_request(good.replace(from, to).as_bytes()).is_err(), "{to}");
        }
    }

    #[test]
    fn a_request_lasts_a_minute_whatever_it_says_itself() {
        let mut request = request(Verb::Reload);
        assert!(!request.is_expired_at(request.made));
        assert!(request.is_expired_at(request.expires));
        request.expires = request.made.plus_ms(REQUEST_TTL_MS + 1);
        assert!(request.is_expired_at(request.made));
    }

    #[test]
    fn a_reply_is_one_of_two_things() {
        let id = request(Verb::Reload).id;
        let refused =
            Answer::Refused(DoorError { code: "expired".into(), text: "too old".into(), help: None });
        for answer in [Answer::Done { text: "done".into() }, refused] {
            assert_eq!(decode_reply(id, &encode_reply(id, &answer).unwrap()).unwrap(), answer);
        }
        let both = format!(
            "{{\"schema\":1,\"id\":\"{id}\",\"ok\":\"x\",\"error\":{{\"code\":\"c\",\"text\":\"t\"}}}}"
        );
        assert!(decode_reply(id, both.as_bytes()).is_err());
        assert!(decode_reply(id, format!("{{\"schema\":1,\"id\":\"{id}\"}}").as_bytes()).is_err());
    }
}
