//! The list of what waits for a decision.

use dispatch_core::protocol::names::Lane;
use dispatch_core::protocol::time::Timestamp;
use dispatch_node::clock;
use dispatch_node::durations;
use dispatch_node::report::{Exit, Form, Report, say};
use dispatch_node::term::{Breaks, Colour, Tone, cut, visible};
use serde_json::{Value, json};

use crate::args::Door;
use crate::desk::Desk;
use crate::view::{json_line, usd};
use crate::waiting::{self, Parked, Unverified, Waits};

/// Characters of the request's first line that are shown.
const REQUEST_CHARS_MAX: usize = 60;
/// The heads of the columns.
const HEADS: [&str; 8] = ["ID", "FROM", "AGE", "PROFILE", "WORKSPACE", "CEILING", "WHY", "REQUEST"];

/// One task that waits, and how many decisions on it lie there.
struct Row {
    waits: Box<Waits>,
    decisions: usize,
}

/// Prints what waits, oldest first, then what does not verify.
///
/// # Errors
/// The share's, or standard output's.
pub(crate) fn run(args: &Door, desk: &Desk) -> Result<Exit, Report> {
    let now = clock::now();
    let (mut rows, mut unverified) = (Vec::new(), Vec::new());
    for here in &desk.lanes {
        for (id, decisions) in waiting::ids(desk.share(), &here.lane)? {
            match waiting::open(desk, here, id, now)? {
                Parked::Waits(waits) => rows.push(Row { waits, decisions }),
                Parked::Unverified(one) => unverified.push(one),
                Parked::Gone => {}
            }
        }
    }
    rows.sort_by_key(|row| (row.waits.task.payload().created, row.waits.id()));
    match args.common.form() {
        Form::Json => say(&json_line(&json!({
            "schema": 1,
            "waiting": rows.iter().map(|row| row_json(row, now)).collect::<Vec<Value>>(),
            "unverified": unverified.iter().map(unverified_json).collect::<Vec<Value>>(),
        })))?,
        Form::Text => print(args, desk, &rows, &unverified, now)?,
    }
    Ok(Exit::Done)
}

fn print(
    args: &Door,
    desk: &Desk,
    rows: &[Row],
    unverified: &[Unverified],
    now: Timestamp,
) -> Result<(), Report> {
    let colour = Colour::of_stdout();
    if rows.is_empty() {
        args.tell("nothing waits for a decision");
    } else {
        let table: Vec<[String; 8]> = rows.iter().map(|row| cells(row, desk, now)).collect();
        for (at, line) in lines(&table).iter().enumerate() {
            say(&if at == 0 { colour.paint(Tone::Bold, line) } else { line.clone() })?;
        }
    }
    for one in unverified {
        let line = format!(
            "{}  {}  skipped, unverified: {} file: {}: {}",
            one.id.short(),
            one.lane.from,
            one.part.as_str(),
            one.why.code(),
            visible(&one.why.text(), Breaks::Show),
        );
        say(&colour.paint(Tone::Warn, &line))?;
    }
    Ok(())
}

fn cells(row: &Row, desk: &Desk, now: Timestamp) -> [String; 8] {
    let (task, terms) = (row.waits.task.payload(), row.waits.terms.payload());
    let shown = |text: &str| visible(text, Breaks::Show);
    let mut why = shown(&terms.gate.join(","));
    if row.decisions > 0 {
        why.push_str(&format!(" ({} not taken yet)", row.decisions));
    }
    [
        row.waits.id().short(),
        from(&row.waits.lane, desk),
        durations::short(now.since_ms(task.created).max(0)),
        terms.profile.to_string(),
        task.workspace.as_ref().map_or("-".to_owned(), ToString::to_string),
        usd(terms.ceiling_usd),
        if why.is_empty() { "-".to_owned() } else { why },
        first_line(&task.request),
    ]
}

/// The sender, and the receiver where that is another node.
fn from(lane: &Lane, desk: &Desk) -> String {
    if lane.to == desk.config.node { lane.from.to_string() } else { format!("{} to {}", lane.from, lane.to) }
}

/// The first line that says something, made visible and cut.
pub(crate) fn first_line(request: &str) -> String {
    let first = request.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    cut(&visible(first.trim(), Breaks::Show), REQUEST_CHARS_MAX)
}

/// Heads and rows in columns; the last column is not padded.
fn lines(rows: &[[String; 8]]) -> Vec<String> {
    let heads = HEADS.map(str::to_owned);
    let table: Vec<&[String; 8]> = [&heads].into_iter().chain(rows).collect();
    let width = |column: usize| {
        table.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..HEADS.len()).map(width).collect();
    let line = |row: &&[String; 8]| {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        cells.join("  ").trim_end().to_owned()
    };
    table.iter().map(line).collect()
}

fn row_json(row: &Row, now: Timestamp) -> Value {
    let (task, terms) = (row.waits.task.payload(), row.waits.terms.payload());
    json!({
        "id": task.id.to_string(),
        "short": task.id.short(),
        "from": task.from.as_str(),
        "to": task.to.as_str(),
        "created": task.created.to_string(),
        "expires": task.expires.to_string(),
        "age_ms": now.since_ms(task.created).max(0),
        "profile": terms.profile.as_str(),
        "agent": terms.agent,
        "permission_mode": terms.permission_mode,
        "workspace": task.workspace.as_ref().map(ToString::to_string),
        "workspace_path": terms.workspace_path,
        "backend": terms.backend,
        "estimate_usd": terms.estimate_usd.map(|usd| usd.to_string()),
        "ceiling_usd": terms.ceiling_usd.map(|usd| usd.to_string()),
        "gate": terms.gate,
        "require_dangerous": task.require_dangerous,
        "request_first_line": first_line(&task.request),
        "request_bytes": task.request.len(),
        "task_sha256": row.waits.task.digest().to_string(),
        "terms_sha256": row.waits.terms.digest().to_string(),
        "made": terms.made.to_string(),
        "decisions": row.decisions,
    })
}

fn unverified_json(one: &Unverified) -> Value {
    json!({
        "id": one.id.to_string(),
        "from": one.lane.from.as_str(),
        "to": one.lane.to.as_str(),
        "part": one.part.as_str(),
        "code": one.why.code(),
        "text": one.why.text(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_that_says_something_is_shown() {
        assert_eq!(first_line("\n  \n\tfix the\u{1b}[2J build\nthen rest"), "fix the\\x1b[2J build");
        assert_eq!(first_line(&"x".repeat(100)).chars().count(), REQUEST_CHARS_MAX);
        assert_eq!(first_line("\n"), "");
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let row = ["dacaf1ff", "devbox", "3m", "default", "-", "$2", "dangerous", "go"].map(str::to_owned);
        assert_eq!(
            lines(&[row]),
            [
                "ID        FROM    AGE  PROFILE  WORKSPACE  CEILING  WHY        REQUEST",
                "dacaf1ff  devbox  3m   default  -          $2       dangerous  go",
            ]
        );
    }
}
