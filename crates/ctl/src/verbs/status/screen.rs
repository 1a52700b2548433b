//! The document as a screen for people.

use dispatch_node::durations;
use dispatch_node::term::{Colour, Tone};
use serde_json::Value;

use crate::table::{self, bar};
use crate::views::line;

pub(super) fn lines(facts: &Value, colour: Colour) -> Vec<String> {
    let mut lines = head(facts, colour);
    lines.extend(stops(facts, colour));
    lines.push(colour.paint(Tone::Bold, "peers"));
    lines.extend(table::lines(&peers(facts)).into_iter().map(|line| format!("  {line}")));
    lines.extend(work(facts, colour));
    lines.extend(money(facts, colour));
    lines
}

fn text<'v>(value: &'v Value, path: &str) -> &'v str {
    value.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

/// Why a killswitch was tripped.
fn reason(value: &Value) -> String {
    let given = line(text(value, "/reason"), 120);
    if given.is_empty() { "no reason given".to_owned() } else { given }
}

fn number(value: &Value, path: &str) -> u64 {
    value.pointer(path).and_then(Value::as_u64).unwrap_or(0)
}

fn flag(value: &Value, path: &str) -> bool {
    value.pointer(path).and_then(Value::as_bool).unwrap_or(false)
}

fn list<'v>(value: &'v Value, path: &str) -> &'v [Value] {
    value.pointer(path).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn head(facts: &Value, colour: Colour) -> Vec<String> {
    let watcher = if flag(facts, "/watcher/running") {
        colour.paint(Tone::Good, &format!("watcher runs (boot {})", number(facts, "/watcher/boot")))
    } else {
        colour.paint(Tone::Warn, "no watcher")
    };
    let share = if flag(facts, "/share/reachable") {
        colour.paint(Tone::Good, "reachable")
    } else {
        colour.paint(Tone::Bad, &format!("unreachable: {}", line(text(facts, "/share/problem"), 200)))
    };
    let mut lines = vec![
        format!(
            "{} {}, {watcher}, {}",
            colour.paint(Tone::Bold, "node"),
            text(facts, "/node"),
            or(text(facts, "/state"), "no ledger here")
        ),
        format!(
            "share {} ({}), {share}",
            text(facts, "/share/root"),
            or(text(facts, "/share/file_system"), "unknown")
        ),
    ];
    if !facts.pointer("/ledger/recovery").unwrap_or(&Value::Null).is_null() {
        lines.push(colour.paint(
            Tone::Bad,
            "the ledger is older than what this node showed: nothing is accepted or started",
        ));
        lines.push("help: dispatchctl recover --accept-rollback REASON".to_owned());
    }
    if facts.pointer("/ledger/whole") == Some(&Value::Bool(false)) {
        lines.push(colour.paint(
            Tone::Bad,
            "the ledger was never completed: repeat dispatchctl init --new-ledger, or recover",
        ));
    }
    lines
}

fn or<'t>(text: &'t str, otherwise: &'t str) -> &'t str {
    if text.is_empty() { otherwise } else { text }
}

fn stops(facts: &Value, colour: Colour) -> Vec<String> {
    let mut lines = Vec::new();
    for stop in list(facts, "/killswitch/present") {
        let what =
            format!("KILLSWITCH at {} ({}): {}", text(stop, "/place"), text(stop, "/mode"), reason(stop));
        lines.push(colour.paint(Tone::Bad, &what));
    }
    for trip in list(facts, "/killswitch/trips") {
        let what = format!(
            "stopped since {} by the {} killswitch ({}): {}",
            text(trip, "/at"),
            text(trip, "/scope"),
            text(trip, "/mode"),
            reason(trip)
        );
        lines.push(colour.paint(Tone::Warn, &what));
    }
    if lines.is_empty() {
        lines.push("killswitch: none".to_owned());
    } else {
        lines.push("help: dispatchctl resume".to_owned());
    }
    lines
}

fn peers(facts: &Value) -> Vec<Vec<String>> {
    list(facts, "/peers")
        .iter()
        .map(|peer| {
            let age =
                peer.pointer("/age_ms").and_then(Value::as_i64).map(durations::short).unwrap_or_default();
            let load = peer.pointer("/capacity").map_or_else(String::new, |_| {
                format!(
                    "{} running of {}, {} queued, {} waiting",
                    number(peer, "/running"),
                    number(peer, "/capacity"),
                    number(peer, "/queued"),
                    number(peer, "/waiting")
                )
            });
            let stopped = if flag(peer, "/killswitch") { "stopped" } else { "" };
            vec![
                text(peer, "/node").to_owned(),
                text(peer, "/health").to_owned(),
                age,
                text(peer, "/state").to_owned(),
                load,
                stopped.to_owned(),
            ]
        })
        .collect()
}

fn work(facts: &Value, colour: Colour) -> Vec<String> {
    let count = |state: &str| number(facts, &format!("/tasks/{state}"));
    let mut lines = vec![format!(
        "{} {} running, {} queued, {} waiting for a decision; {} succeeded, {} failed, {} rejected",
        colour.paint(Tone::Bold, "tasks"),
        count("running"),
        count("queued"),
        count("awaiting_approval"),
        count("succeeded"),
        count("failed"),
        count("rejected"),
    )];
    for (title, path) in [("running", "/running"), ("waiting", "/waiting"), ("done", "/last")] {
        for task in list(facts, path) {
            let standing = or(text(task, "/status"), text(task, "/state"));
            lines.push(format!(
                "  {title:<8} {} from {} {standing} {}",
                short(text(task, "/id")),
                text(task, "/from"),
                text(task, "/final_at")
            ));
        }
    }
    let unanswered = list(facts, "/sending/unanswered").len();
    lines.push(format!(
        "sent from here: {} open, {} kept, {unanswered} unanswered",
        number(facts, "/sending/open"),
        number(facts, "/sending/kept"),
    ));
    lines
}

/// The last eight digits of an id.
fn short(id: &str) -> &str {
    id.len().checked_sub(8).and_then(|at| id.get(at..)).unwrap_or(id)
}

fn money(facts: &Value, colour: Colour) -> Vec<String> {
    let mut lines = Vec::new();
    for window in ["month", "day"] {
        let Some(cap) = facts.pointer(&format!("/budget/{window}/cap")).and_then(Value::as_str) else {
            continue;
        };
        let committed = text(facts, &format!("/budget/{window}/committed"));
        lines.push(format!(
            "{} {window} {} ${committed} of ${cap}",
            colour.paint(Tone::Bold, "budget"),
            bar(committed, cap)
        ));
    }
    let action = text(facts, "/budget/action");
    if action == "block" || action == "throttle" {
        lines.push(colour.paint(Tone::Warn, &format!("paid work: {action} (dispatchctl budget says why)")));
    }
    let until = text(facts, "/budget/paid_off_until");
    if !until.is_empty() {
        lines.push(colour.paint(Tone::Warn, &format!("paid work is off until {until}")));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_shown_by_its_last_eight_digits() {
        assert_eq!(short("01a1f89c-fb83-734b-96bb-78a1dacaf1ff"), "dacaf1ff");
        assert_eq!(short("abc"), "abc");
    }
}
