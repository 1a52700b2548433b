//! The document as a screen for people.

use dispatch_node::term::{Colour, Tone};
use serde_json::Value;

use crate::table::{self, bar};
use crate::views::line;

pub(super) fn lines(facts: &Value, colour: Colour) -> Vec<String> {
    let mut lines = vec![standing(facts, colour)];
    let until = text(facts, "paid_off_until");
    if !until.is_empty() {
        lines.push(colour.paint(Tone::Warn, &format!("paid work is off until {until}")));
    }
    lines.push(colour.paint(Tone::Bold, "windows"));
    lines.extend(indented(&list(facts, "windows").iter().map(window).collect::<Vec<_>>()));
    section(&mut lines, facts, colour, "reservations", |row| {
        vec![
            short(text(row, "task")),
            format!("from {}", text(row, "from")),
            format!("${}", text(row, "usd")),
            format!("since {}", text(row, "made_at")),
        ]
    });
    section(&mut lines, facts, colour, "standing approvals used", |row| {
        vec![
            short(text(row, "id")),
            format!("by {}", line(text(row, "author"), 64)),
            format!("{} times", row.get("uses").unwrap_or(&Value::Null)),
            format!("${} in all", text(row, "total_usd")),
            format!("last {}", text(row, "last_at")),
        ]
    });
    for hold in list(facts, "holds") {
        lines.push(colour.paint(Tone::Warn, &format!("held: {}", line(text(hold, "why"), 200))));
        lines.push(format!("help: {}", line(text(hold, "next"), 200)));
    }
    for open in list(facts, "breakers").iter().filter(|row| row.get("is_open") == Some(&Value::Bool(true))) {
        let profile = line(text(open, "profile"), 64);
        let what =
            format!("profile {profile} rests until {} ({})", text(open, "open_until"), text(open, "cause"));
        lines.push(colour.paint(Tone::Warn, &what));
        lines.push(format!("help: dispatchctl budget resume --profile {profile}"));
    }
    lines
}

fn standing(facts: &Value, colour: Colour) -> String {
    let (action, since) = (text(facts, "action"), text(facts, "since"));
    let reason = facts.pointer("/alert/reason").and_then(Value::as_str).unwrap_or_default();
    let off: Vec<&str> = list(facts, "off_by").iter().filter_map(Value::as_str).collect();
    if !off.is_empty() {
        let off = off.join(" and ");
        return colour.paint(Tone::Warn, &format!("paid work is off: set {off} under [budget] above 0"));
    }
    let because = if reason.is_empty() { String::new() } else { format!(" ({reason})") };
    match action {
        "block" => colour
            .paint(Tone::Bad, &format!("paid work is blocked since {since}{because}: nothing paid starts")),
        "throttle" => colour.paint(
            Tone::Warn,
            &format!("paid work is throttled since {since}{because}: one at a time, each waits for a person"),
        ),
        _ => colour.paint(Tone::Good, "paid work is allowed within the caps"),
    }
}

fn window(row: &Value) -> Vec<String> {
    let (used, cap) = (text(row, "committed_usd"), text(row, "cap_usd"));
    let filled = if cap.is_empty() { String::new() } else { bar(used, cap) };
    let of = if cap.is_empty() { "no cap".to_owned() } else { format!("of ${cap}") };
    let left = text(row, "left_usd");
    let left = if left.is_empty() { String::new() } else { format!("${left} left") };
    let end = match (text(row, "closed_at"), text(row, "resets_at")) {
        ("", "") => String::new(),
        ("", resets) => format!("resets {resets}"),
        (closed, _) => format!("closed {closed}"),
    };
    vec![
        line(text(row, "name"), 80),
        filled,
        format!("${} spent, ${} set aside", text(row, "spent_usd"), text(row, "reserved_usd")),
        of,
        left,
        end,
    ]
}

fn section(
    lines: &mut Vec<String>,
    facts: &Value,
    colour: Colour,
    name: &str,
    row: impl Fn(&Value) -> Vec<String>,
) {
    let member = name.split(' ').next().unwrap_or(name);
    let rows: Vec<Vec<String>> = list(facts, member).iter().map(row).collect();
    if !rows.is_empty() {
        lines.push(colour.paint(Tone::Bold, name));
        lines.extend(indented(&rows));
    }
}

fn indented(rows: &[Vec<String>]) -> Vec<String> {
    table::lines(rows).into_iter().map(|line| format!("  {line}")).collect()
}

fn list<'v>(value: &'v Value, name: &str) -> &'v [Value] {
    value.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn short(id: &str) -> String {
    id.get(id.len().saturating_sub(8)..).unwrap_or(id).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn caps_of_nothing_are_told_as_paid_work_that_is_off() {
        let told = |off: Value| standing(&json!({"action": "allow", "off_by": off}), Colour::Off);
        assert_eq!(
            told(json!(["run_usd", "month_usd"])),
            "paid work is off: set run_usd and month_usd under [budget] above 0"
        );
        assert_eq!(told(json!([])), "paid work is allowed within the caps");
    }
}
