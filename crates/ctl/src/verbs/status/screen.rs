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
    lines.extend(indented(&peers(facts, colour)));
    lines.extend(work(facts, colour));
    lines.extend(sending(facts, colour));
    lines.extend(money(facts, colour));
    lines
}

fn indented(rows: &[Vec<String>]) -> impl Iterator<Item = String> {
    table::lines(rows).into_iter().map(|line| format!("  {line}"))
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

/// What a drain that ran out of its grace still waits for.
fn drain_failed(facts: &Value, colour: Colour) -> Vec<String> {
    if text(facts, "/state") != "drain_failed" {
        return Vec::new();
    }
    let rows = facts.pointer("/still_running").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let still: Vec<String> =
        rows.iter().map(|row| format!("{} from {}", short(text(row, "/id")), text(row, "/from"))).collect();
    let said = match still.as_slice() {
        [] => "the drain ran out of its grace; nothing runs any more".to_owned(),
        still => format!("the drain ran out of its grace, and still runs: {}", still.join(", ")),
    };
    let help = "help: dispatchctl drain again waits for it, dispatchctl cancel ID ends it, dispatchctl undrain goes on";
    vec![colour.paint(Tone::Warn, &said), help.to_owned()]
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
            "{} {} ({}), {share}{}",
            colour.paint(Tone::Bold, "share"),
            line(text(facts, "/share/root"), 200),
            or(text(facts, "/share/file_system"), "unknown"),
            strategy(facts),
        ),
    ];
    lines.extend(drain_failed(facts, colour));
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
    if flag(facts, "/clock/suspect") {
        let what = format!(
            "the clock jumped (it agreed last at {}): paid work waits, nothing is forgotten",
            text(facts, "/clock/agreed_at")
        );
        lines.push(colour.paint(Tone::Bad, &what));
        lines.push("help: set the clock, or dispatchctl recover --accept-clock REASON".to_owned());
    }
    lines
}

/// How the watcher hears of changes, as it told its peers.
fn strategy(facts: &Value) -> String {
    match text(facts, "/watch/strategy") {
        "" => String::new(),
        strategy => {
            let poll = durations::whole(number(facts, "/watch/poll_ms"));
            format!(", watched by {}, looked at every {poll} at least", line(strategy, 32))
        }
    }
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

fn peers(facts: &Value, colour: Colour) -> Vec<Vec<String>> {
    list(facts, "/peers")
        .iter()
        .map(|peer| {
            let age = peer.pointer("/age_ms").and_then(Value::as_i64).map(ago).unwrap_or_default();
            let load = peer.pointer("/capacity").map_or_else(String::new, |_| {
                format!(
                    "{} running of {}, {} queued, {} waiting",
                    number(peer, "/running"),
                    number(peer, "/capacity"),
                    number(peer, "/queued"),
                    number(peer, "/waiting")
                )
            });
            let tone = match text(peer, "/health") {
                "healthy" => Tone::Good,
                "stale" => Tone::Warn,
                "dead" => Tone::Bad,
                _ => Tone::Dim,
            };
            let full = if flag(peer, "/backpressure") { "full" } else { "" };
            let stopped = if flag(peer, "/killswitch") { "stopped" } else { "" };
            vec![
                text(peer, "/node").to_owned(),
                colour.paint(tone, text(peer, "/health")),
                age,
                text(peer, "/state").to_owned(),
                load,
                colour.paint(Tone::Warn, [full, stopped].join(" ").trim()),
            ]
        })
        .collect()
}

/// How long ago something was, for a glance.
fn ago(ms: i64) -> String {
    format!("{} ago", whole(ms))
}

fn whole(ms: i64) -> String {
    durations::whole(u64::try_from(ms).unwrap_or(0))
}

fn age(task: &Value, path: &str) -> String {
    task.pointer(path).and_then(Value::as_i64).map(whole).unwrap_or_default()
}

fn work(facts: &Value, colour: Colour) -> Vec<String> {
    if facts.pointer("/tasks").is_none() {
        return Vec::new();
    }
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
    let mut rows = Vec::new();
    for task in list(facts, "/running") {
        let asked = if text(task, "/stop").is_empty() { "" } else { ", asked to stop" };
        let standing = format!("{}{asked}", or(text(task, "/standing"), "running"));
        rows.push(row(task, colour.paint(Tone::Good, &standing), line(text(task, "/profile"), 32)));
    }
    for task in list(facts, "/waiting") {
        let gates: Vec<&str> = list(task, "/gates").iter().filter_map(Value::as_str).collect();
        let why = format!("for {}: {}", age(task, "/age_ms"), line(&gates.join(", "), 60));
        rows.push(row(task, colour.paint(Tone::Warn, "waiting for a decision"), why));
    }
    for task in list(facts, "/queue") {
        let why = text(task, "/wait_reason");
        let why = if why.is_empty() { String::new() } else { format!(": {}", line(why, 120)) };
        let since = format!("for {}{why}", age(task, "/age_ms"));
        rows.push(row(task, text(task, "/standing").to_owned(), since));
    }
    let more = count("queued").saturating_sub(u64::try_from(list(facts, "/queue").len()).unwrap_or(0));
    if more > 0 {
        let more = colour.paint(Tone::Dim, &format!("{more} more in the queue"));
        rows.push(vec![String::new(), String::new(), more]);
    }
    for task in list(facts, "/last") {
        rows.push(ended(task, colour));
    }
    lines.extend(indented(&rows));
    lines
}

fn row(task: &Value, standing: String, more: String) -> Vec<String> {
    vec![short(text(task, "/id")).to_owned(), format!("from {}", text(task, "/from")), standing, more]
}

/// A task that ended: how, when, how long it ran, what it cost.
fn ended(task: &Value, colour: Colour) -> Vec<String> {
    let status = text(task, "/status");
    let tone = match status {
        "ok" | "verified" => Tone::Good,
        "cancelled" | "denied" | "expired" | "rejected" => Tone::Warn,
        _ => Tone::Bad,
    };
    let mut parts = Vec::new();
    parts.extend(task.pointer("/ended_ms_ago").and_then(Value::as_i64).map(ago));
    parts.extend(
        task.pointer("/elapsed_ms")
            .and_then(Value::as_u64)
            .map(|ran| format!("ran {}", durations::whole(ran))),
    );
    parts.extend(
        Some(text(task, "/usd")).filter(|usd| !matches!(*usd, "" | "0")).map(|usd| format!("${usd}")),
    );
    parts.extend(Some(text(task, "/code")).filter(|code| !code.is_empty()).map(|code| line(code, 40)));
    row(task, colour.paint(tone, status), parts.join(", "))
}

fn sending(facts: &Value, colour: Colour) -> Vec<String> {
    let unanswered = list(facts, "/sending/unanswered").len();
    let count = format!("{unanswered} unanswered");
    let mut lines = vec![format!(
        "{} {} open, {} kept, {}",
        colour.paint(Tone::Bold, "sent from here"),
        number(facts, "/sending/open"),
        number(facts, "/sending/kept"),
        if unanswered > 0 { colour.paint(Tone::Bad, &count) } else { count },
    )];
    let rows: Vec<Vec<String>> = list(facts, "/sending/tasks")
        .iter()
        .map(|task| {
            vec![
                short(text(task, "/id")).to_owned(),
                format!("to {}", text(task, "/to")),
                text(task, "/standing").to_owned(),
                format!("for {}", age(task, "/age_ms")),
            ]
        })
        .collect();
    lines.extend(indented(&rows));
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
            "{} {window:<5} {} ${committed} of ${cap}{}",
            colour.paint(Tone::Bold, "budget"),
            bar(committed, cap),
            reserved(facts, window),
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

/// What of it is only set aside.
fn reserved(facts: &Value, window: &str) -> String {
    match text(facts, &format!("/budget/{window}/reserved")) {
        "" | "0" => String::new(),
        reserved => format!(", ${reserved} of it reserved"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_drain_that_ran_out_of_its_grace_names_what_still_runs() {
        let facts = |rows: Value| json!({"state": "drain_failed", "still_running": rows});
        let of = |rows: Value| head(&facts(rows), Colour::Off).join("\n");
        let one = json!([{"from": "devbox", "id": "01a1f89c-fb83-734b-96bb-78a1dacaf1ff"}]);
        assert!(of(one).contains("still runs: dacaf1ff from devbox"));
        assert!(of(json!([])).contains("nothing runs any more"));
        assert!(!head(&json!({"state": "active"}), Colour::Off).join("\n").contains("drain"));
    }

    #[test]
    fn an_id_is_shown_by_its_last_eight_digits() {
        assert_eq!(short("01a1f89c-fb83-734b-96bb-78a1dacaf1ff"), "dacaf1ff");
        assert_eq!(short("abc"), "abc");
    }
}
