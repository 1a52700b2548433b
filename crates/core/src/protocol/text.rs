//! Making text that came from an agent fit a message, and a result fit its file (protocol section 6).

use crate::protocol::limits;
use crate::protocol::parts::FileRef;
use crate::protocol::payload::Payload as _;
use crate::protocol::result::{CutPart, TaskResult};
use crate::protocol::writer::Emit;

/// The text of some bytes: invalid UTF-8 and NUL become U+FFFD.
#[must_use]
pub fn valid_text(bytes: &[u8]) -> String {
    without_nul(&String::from_utf8_lossy(bytes))
}

/// The text with U+FFFD in place of NUL.
#[must_use]
pub fn without_nul(text: &str) -> String {
    text.replace('\0', "\u{FFFD}")
}

/// The first `chars_max` characters.
#[must_use]
pub fn first_chars(text: &str, chars_max: usize) -> &str {
    text.char_indices().nth(chars_max).and_then(|(at, _)| text.get(..at)).unwrap_or(text)
}

/// The last `chars_max` characters.
#[must_use]
pub fn last_chars(text: &str, chars_max: usize) -> &str {
    match chars_max.checked_sub(1) {
        None => "",
        Some(before) => {
            text.char_indices().rev().nth(before).and_then(|(at, _)| text.get(at..)).unwrap_or(text)
        }
    }
}

/// As much of the beginning as fits `bytes_max`, whole characters only.
#[must_use]
pub fn first_bytes(text: &str, bytes_max: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes_max)).unwrap_or_default()
}

impl TaskResult {
    /// The result as it can be published, whatever an agent wrote: texts are made valid and cut to their lengths, lists
    /// to theirs, and then denials, artifacts and tail, in that order, until the file fits. What was cut of these three
    /// is named in `cut`.
    #[must_use]
    pub fn fitted(mut self) -> TaskResult {
        self.fit_texts();
        self.fit_lists();
        self.fit_bytes();
        self
    }

    fn fit_texts(&mut self) {
        let text_max = limits::TEXT_BYTES_MAX;
        fit_option(&mut self.final_text, |text| first_chars(text, limits::FINAL_TEXT_CHARS_MAX));
        fit_option(&mut self.output_tail, |text| last_chars(text, limits::OUTPUT_TAIL_CHARS_MAX));
        fit_option(&mut self.permission_mode, |text| first_bytes(text, text_max));
        if let Some(reason) = &mut self.reason {
            for text in [&mut reason.code, &mut reason.text, &mut reason.help] {
                fit(text, |text| first_bytes(text, text_max));
            }
        }
        if let Some(agent) = &mut self.agent {
            fit(&mut agent.kind, |text| first_bytes(text, text_max));
            fit_option(&mut agent.version, |text| first_bytes(text, text_max));
            fit_option(&mut agent.session_id, |text| first_bytes(text, text_max));
        }
        if let Some(backend) = &mut self.backend {
            fit(&mut backend.name, |text| first_bytes(text, text_max));
            fit(&mut backend.kind, |text| first_bytes(text, text_max));
        }
        if let Some(containment) = &mut self.containment {
            fit(&mut containment.mechanism, |text| first_bytes(text, text_max));
        }
        for denial in &mut self.permission_denials {
            fit(denial, |text| first_bytes(text, text_max));
        }
        for principal in &mut self.decided_by {
            fit(principal, |text| first_bytes(text, limits::AUTHOR_BYTES_MAX));
        }
        for artifact in &mut self.artifacts {
            artifact.name = fit_file_name(&artifact.name);
        }
    }

    fn fit_lists(&mut self) {
        let len_max = limits::LIST_LEN_MAX;
        if self.permission_denials.len() > len_max {
            self.permission_denials.truncate(len_max);
            self.note_cut(CutPart::Denials);
        }
        if self.artifacts.len() > len_max {
            self.artifacts.truncate(len_max);
            self.note_cut(CutPart::Artifacts);
        }
        // The newest attempts say most; no task comes near the limit (`ATTEMPTS_MAX`).
        let old = self.attempts.len().saturating_sub(len_max);
        self.attempts.drain(..old);
        self.checks.truncate(len_max);
        self.decided_by.truncate(len_max);
        self.via.truncate(len_max);
    }

    fn fit_bytes(&mut self) {
        if self.excess_bytes() == 0 {
            return;
        }
        let mut excess = self.excess_bytes().saturating_add(CUT_NOTES_BYTES);
        if drop_from_end(&mut self.permission_denials, &mut excess) {
            self.note_cut(CutPart::Denials);
        }
        if excess > 0 && drop_from_end::<FileRef>(&mut self.artifacts, &mut excess) {
            self.note_cut(CutPart::Artifacts);
        }
        if excess > 0
            && let Some(tail) = &mut self.output_tail
        {
            // A byte of the text is at least a byte of the file.
            let start = tail.ceil_char_boundary(excess.min(tail.len()));
            tail.drain(..start);
            self.note_cut(CutPart::Tail);
        }
    }

    fn excess_bytes(&self) -> usize {
        self.to_payload().len().saturating_sub(limits::PAYLOAD_BYTES_MAX)
    }

    fn note_cut(&mut self, part: CutPart) {
        if !self.cut.contains(&part) {
            self.cut.push(part);
        }
    }
}

/// Room for naming in `cut` what was cut.
const CUT_NOTES_BYTES: usize = 64;

fn fit(text: &mut String, cut: impl Fn(&str) -> &str) {
    *text = cut(&without_nul(text)).to_owned();
}

fn fit_option(text: &mut Option<String>, cut: impl Fn(&str) -> &str) {
    if let Some(text) = text {
        fit(text, cut);
    }
}

fn fit_file_name(name: &str) -> String {
    let name = without_nul(name).replace('/', "_");
    match first_bytes(&name, limits::FILE_NAME_BYTES_MAX) {
        "" | "." | ".." => "_".to_owned(),
        fits => fits.to_owned(),
    }
}

/// Drops items from the end until they made room for `excess` bytes; true if any was dropped.
fn drop_from_end<T: Emit>(items: &mut Vec<T>, excess: &mut usize) -> bool {
    let before = items.len();
    while *excess > 0
        && let Some(item) = items.pop()
    {
        let mut text = String::new();
        item.emit(&mut text);
        *excess = excess.saturating_sub(text.len());
    }
    items.len() < before
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::names::{Digest, NodeName, TaskId};
    use crate::protocol::parts::AuditHead;
    use crate::protocol::payload::Kind;
    use crate::protocol::result::{Reason, Status, Subject};
    use crate::protocol::seal::seal;
    use uuid::Uuid;

    fn plain() -> TaskResult {
        let subject = Subject {
            cluster: Uuid::nil(),
            from: NodeName::new("a").unwrap(),
            to: NodeName::new("b").unwrap(),
            task: TaskId::parse("01a1f89c-fb83-734b-96bb-78a1dacaf1ff").unwrap(),
            task_sha256: Digest::of(b""),
        };
        let audit = AuditHead { chain: Uuid::nil(), seq: 1, head: Digest::of(b"") };
        TaskResult::never_ran(subject, Status::Error, None, audit)
    }

    fn file_name(name: &str) -> FileRef {
        FileRef { name: name.into(), bytes: 1, sha256: Digest::of(b"") }
    }

    #[test]
    fn what_an_agent_wrote_becomes_valid_text() {
        assert_eq!(valid_text(b"a\0b\xffc"), "a\u{FFFD}b\u{FFFD}c");
        assert_eq!((first_chars("äöü", 2), last_chars("äöü", 2)), ("äö", "öü"));
        assert_eq!((first_chars("ä", 5), last_chars("ä", 5), last_chars("ä", 0)), ("ä", "ä", ""));
        assert_eq!(first_bytes("äö", 3), "ä");
    }

    #[test]
    fn a_result_with_too_much_of_everything_can_be_published() {
        let mut result = plain();
        result.final_text = Some("\u{1}\0".repeat(10_000));
        result.output_tail = Some("\u{1}".repeat(20_000));
        result.permission_denials = vec!["\u{1}".repeat(5_000); 1_000];
        result.artifacts =
            ["", "..", "a/b", &"\u{1}".repeat(900)].into_iter().cycle().take(1_000).map(file_name).collect();
        result.decided_by = vec!["\u{1}".repeat(5_000); 1_000];
        result.reason =
            Some(Reason { code: "x".repeat(9_999), text: "\0".repeat(9_999), help: String::new() });
        let fitted = result.fitted();
        assert!(fitted.cut.contains(&CutPart::Denials) && fitted.cut.contains(&CutPart::Artifacts));
        let payload = fitted.to_checked_payload().unwrap();
        assert!(seal(Kind::Result, &payload, &[]).len() + 1_000 < limits::ENVELOPE_BYTES_MAX);
    }

    #[test]
    fn a_result_that_fits_is_not_touched() {
        let mut result = plain();
        result.output_tail = Some("tail".into());
        result.permission_denials = vec!["Bash(rm)".into(); 256];
        assert_eq!(result.clone().fitted(), result);
    }
}
