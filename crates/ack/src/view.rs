//! One task in full, with its terms: what exactly would run, with what rights, for how much, and why a person is asked.

use dispatch_core::explain::gate_words;
use dispatch_core::policy::money::Usd;
use dispatch_core::protocol::names::{Name, NodeName};
use dispatch_core::protocol::task::{Lineage, Priority, Requires};
use dispatch_core::protocol::time::Timestamp;
use dispatch_core::protocol::{Task, Terms};
use dispatch_node::durations;
use dispatch_node::term::{Breaks, Colour, Tone, is_hidden, visible};
use serde_json::Value;

use crate::waiting::Waits;

/// Width of the labels.
const LABEL_CHARS: usize = 12;
/// Characters of the request in one line; longer ones go on in the next, so that nothing wraps out of its margin.
const LINE_CHARS: usize = 100;

/// Lines of a text about one task.
struct Lines {
    colour: Colour,
    text: String,
}

impl Lines {
    /// A label and its text. The text may be a stranger's.
    fn put(&mut self, label: &str, text: &str) {
        let label = self.colour.paint(Tone::Dim, &format!("{label:<LABEL_CHARS$}"));
        self.text.push_str(&format!("{label}{}\n", visible(text, Breaks::Show)));
    }

    fn put_some(&mut self, label: &str, text: Option<String>) {
        if let Some(text) = text {
            self.put(label, &text);
        }
    }

    fn warn(&mut self, text: &str) {
        let line = self.colour.paint(Tone::Warn, text);
        self.text.push_str(&format!("{:LABEL_CHARS$}{line}\n", ""));
    }
}

/// The whole text, safe for a terminal, ending in a line break.
pub(crate) fn text(waits: &Waits, colour: Colour, now: Timestamp) -> String {
    let (task, terms) = (waits.task.payload(), waits.terms.payload());
    let mut lines = Lines { colour, text: String::new() };
    put_origin(&mut lines, task, now);
    put_terms(&mut lines, task, terms);
    put_asks(&mut lines, task);
    lines.put("task sha256", &waits.task.digest().to_string());
    lines.put("terms", &format!("{} made {}", waits.terms.digest(), terms.made));
    lines.put("request", &format!("{} bytes", task.request.len()));
    put_request(&mut lines, &task.request);
    lines.text
}

fn put_origin(lines: &mut Lines, task: &Task, now: Timestamp) {
    lines.put("task", &task.id.to_string());
    lines.put("from", &format!("{} to {}", task.from, task.to));
    lines.put("sent", &format!("{} ({} ago)", task.created, ago(now.since_ms(task.created))));
    lines.put("expires", &format!("{} (in {})", task.expires, ago(task.expires.since_ms(now))));
}

fn ago(ms: i64) -> String {
    durations::short(ms.max(0))
}

/// What would run, as the receiver resolved it.
fn put_terms(lines: &mut Lines, task: &Task, terms: &Terms) {
    lines.put("why asked", &if terms.gate.is_empty() { "-".to_owned() } else { gate_words(&terms.gate) });
    lines.put("profile", terms.profile.as_str());
    lines.put("agent", &terms.agent);
    lines.put("argv sha256", &terms.argv_sha256.to_string());
    lines.put_some("permissions", terms.permission_mode.clone());
    let place = terms.workspace_path.as_deref().unwrap_or("a fresh directory");
    lines.put(
        "workspace",
        &task.workspace.as_ref().map_or(place.to_owned(), |name| format!("{name}: {place}")),
    );
    lines.put_some("backend", terms.backend.clone());
    lines.put("ceiling", &usd(terms.ceiling_usd));
    lines.put("estimate", &usd(terms.estimate_usd));
    if task.require_dangerous {
        lines.warn("it asks for the unrestricted mode: nothing it does will be asked about or refused");
    }
    if task.profile != terms.profile {
        lines.warn("its sender asked for another profile than the terms name");
    }
}

/// What the sender asks for beyond the request, as far as it says something.
fn put_asks(lines: &mut Lines, task: &Task) {
    let seconds = |count: u32| durations::short(i64::from(count).saturating_mul(1_000));
    let silence = task.silence_timeout_s.map_or(String::new(), |count| match count {
        0 => ", silence allowed".to_owned(),
        _ => format!(", silence {}", seconds(count)),
    });
    lines.put("time limit", &format!("{}{silence}", seconds(task.timeout_s)));
    lines.put("output cap", &format!("{} bytes", task.max_output_bytes));
    lines.put_some("priority", (task.priority != Priority::Normal).then(|| task.priority.to_string()));
    lines.put_some("its ceiling", task.max_cost_usd.map(|amount| usd(Some(amount))));
    lines.put_some("attempts", (task.max_attempts > 1).then(|| format!("up to {}", task.max_attempts)));
    lines.put_some("run", task.run.clone());
    lines.put_some("requires", requires(&task.requires));
    lines.put_some("egress", task.allow_sdk.then(|| "a public service may be used".to_owned()));
    let checks: Vec<&str> = task.accept.iter().map(Name::as_str).collect();
    lines.put_some("checks", (!checks.is_empty()).then(|| checks.join(", ")));
    lines.put_some("lineage", task.lineage.as_ref().map(lineage));
    for file in &task.attachments {
        lines.put("attachment", &format!("{} ({} bytes, {})", file.name, file.bytes, file.sha256));
    }
    for (key, value) in &task.labels {
        lines.put("label", &format!("{key}={value}"));
    }
}

fn requires(requires: &Requires) -> Option<String> {
    let parts: Vec<String> = [
        requires.tool.as_ref().map(|tool| format!("tool {tool}")),
        requires.min_vram_gb.as_ref().map(|gb| format!("{gb} GB of GPU memory")),
        requires.image.as_ref().map(|image| format!("image {image}")),
    ]
    .into_iter()
    .flatten()
    .collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

fn lineage(lineage: &Lineage) -> String {
    let parent = lineage.parent.map_or(String::new(), |parent| format!(", sent by task {parent}"));
    let via: Vec<&str> = lineage.via.iter().map(NodeName::as_str).collect();
    let via = if via.is_empty() { String::new() } else { format!(", via {}", via.join(", ")) };
    format!("root {}, depth {}{parent}{via}", lineage.root, lineage.depth)
}

/// The request behind a margin, so that no line of it can pass for one of ours.
fn put_request(lines: &mut Lines, request: &str) {
    let margin = lines.colour.paint(Tone::Dim, "  | ");
    let goes_on = lines.colour.paint(Tone::Dim, "  : ");
    for line in request.split('\n') {
        let shown: Vec<char> = visible(line, Breaks::Keep).chars().collect();
        let mut pieces = shown.chunks(LINE_CHARS);
        let first: String = pieces.next().unwrap_or_default().iter().collect();
        lines.text.push_str(&format!("{margin}{first}\n"));
        for piece in pieces {
            let piece: String = piece.iter().collect();
            lines.text.push_str(&format!("{goes_on}{piece}\n"));
        }
    }
}

/// An amount of money, or that there is none.
pub(crate) fn usd(amount: Option<Usd>) -> String {
    amount.map_or("-".to_owned(), |amount| format!("${amount}"))
}

/// A document as one line whose texts cannot move a cursor either: JSON's own escapes, so nothing is lost.
pub(crate) fn json_line(document: &Value) -> String {
    let mut line = String::new();
    for ch in document.to_string().chars() {
        if is_hidden(ch) {
            let mut units = [0_u16; 2];
            for unit in ch.encode_utf16(&mut units) {
                line.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            line.push(ch);
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_json_line_hides_nothing_and_loses_nothing() {
        let document = json!({"text": "a\u{1b}[2J\u{202e}b\u{7f}\u{9b}\u{e0041}ü"});
        let line = json_line(&document);
        assert!(line.chars().all(|ch| !is_hidden(ch)), "{line}");
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap(), document);
    }

    #[test]
    fn no_line_of_a_request_leaves_its_margin() {
        let mut lines = Lines { colour: Colour::Off, text: String::new() };
        put_request(&mut lines, &format!("one\n\rceiling     $0\n{}", "y".repeat(101)));
        assert_eq!(lines.text, format!("  | one\n  | \\x0dceiling     $0\n  | {}\n  : y\n", "y".repeat(100)));
    }
}
