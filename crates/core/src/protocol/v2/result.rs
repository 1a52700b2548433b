//! The flat result: what the original kit finds in `done/`, and what is made of the ones it writes.
//!
//! Nobody signs it. One of a version-2 peer is a hint in any case: it settles nothing.

use serde_json::Value;

use crate::protocol::limits::ENVELOPE_BYTES_MAX;
use crate::protocol::names::TaskId;
use crate::protocol::result::{Status, TaskResult};
use crate::protocol::text::first_chars;
use crate::protocol::v2::task::{SCHEMA, ascii};
use crate::protocol::v2::time;
use crate::protocol::writer::object_bytes;

/// Characters of a stranger's status word that are shown.
const STATUS_CHARS_MAX: usize = 64;
/// Under which members writers of flat results keep what the agent said, in the order they are looked for.
const TEXT_MEMBERS: [&str; 5] = ["final_text", "result", "output", "stdout", "output_tail"];

/// The file that answers a version-2 peer: the members its kit writes itself, and more for people.
#[must_use]
pub fn write_result(result: &TaskResult) -> Vec<u8> {
    let flat_time = |at: Option<crate::protocol::time::Timestamp>| at.map(time::write);
    let text = result.final_text.as_ref().or(result.output_tail.as_ref());
    let error = result.reason.as_ref().map(|reason| format!("{}: {}", reason.code, reason.text));
    ascii(&object_bytes(|o| {
        o.put("id", &result.task)
            .put("from", &result.from)
            .put("to", &result.to)
            .put("status", &result.status)
            .put("exit_code", &result.exit_code)
            .put("started", &flat_time(result.started_at))
            .put("finished", &flat_time(result.ended_at))
            .put("elapsed_ms", &result.elapsed_ms)
            .put("output", &text.cloned())
            .put("output_bytes", &result.output_bytes)
            .put("truncated", &result.truncated)
            .put("error", &error)
            .put("help", &result.reason.as_ref().map(|reason| reason.help.clone()))
            .put("schema", &SCHEMA);
    }))
}

/// What a flat result says, believed by nobody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlatResult {
    /// Its status word, shortened; a stranger's text.
    pub status: String,
    /// The same as one of this release's, where it is one.
    pub known: Option<Status>,
    /// The agent's exit code.
    pub exit_code: Option<i64>,
    /// What the agent said; a stranger's text.
    pub text: Option<String>,
    /// The whole document, for programs.
    pub document: String,
}

impl FlatResult {
    /// Reads what lies at the name of a version-2 peer's answer to `id`. `None`: too large, no JSON object, one that names
    /// another task, or one without a status, as a file that is not written to its end yet.
    #[must_use]
    pub fn read(file: &[u8], id: TaskId) -> Option<FlatResult> {
        if file.len() > ENVELOPE_BYTES_MAX {
            return None;
        }
        // Lenient on purpose: its writers use floats and members of their own, and nothing rests on what it says.
        let value: Value = serde_json::from_slice(file).ok()?;
        let named = value.get("id").map(|named| named.as_str().map(str::to_owned));
        if named.is_some_and(|named| named != Some(id.to_string())) {
            return None;
        }
        let word = value.get("status")?.as_str()?;
        let code = |member: &str| value.get(member).and_then(Value::as_i64);
        let text = |member: &&str| value.get(member).and_then(Value::as_str);
        Some(FlatResult {
            status: first_chars(word, STATUS_CHARS_MAX).to_owned(),
            known: Status::parse(word),
            exit_code: code("exit_code").or_else(|| code("returncode")),
            text: TEXT_MEMBERS.iter().find_map(text).map(str::to_owned),
            document: value.to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> TaskId {
        TaskId::parse_any_version("1b7c1f13-0d7a-4000-b780-cf711e5c47a7").unwrap()
    }

    #[test]
    fn a_result_of_the_kit_is_read_however_it_is_written() {
        let file = br#"{"status": "done?", "returncode": 3, "elapsed": 1.5, "stdout": "hi", "x": [1]}"#;
        let read = FlatResult::read(file, id()).unwrap();
        assert_eq!((read.status.as_str(), read.known, read.exit_code), ("done?", None, Some(3)));
        assert_eq!(read.text.as_deref(), Some("hi"));
    }

    #[test]
    fn what_is_no_result_of_the_task_is_none() {
        for bad in [
            &br#"{"id": "00000000-0000-4000-8000-000000000000", "status": "ok"}"#[..],
            br#"{"id": 7, "status": "ok"}"#,
            br#"{"id": "1b7c1f13-0d7a-4000-b780-cf711e5c47a7"}"#,
            br#"{"status": "ok""#,
            b"[]",
            b"",
        ] {
            assert_eq!(FlatResult::read(bad, id()), None, "{}", String::from_utf8_lossy(bad));
        }
    }
}
