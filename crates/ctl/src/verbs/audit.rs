//! `dispatchctl audit`: what happened, and proof that it was not rewritten.

mod copies;
mod verify;

use std::collections::VecDeque;
use std::thread;
use std::time::Duration;

use clap::Subcommand;
use dispatch_ledger::ReadLedger;
use dispatch_node::config::Config;
use dispatch_node::report::{Exit, Report, after_help};
use dispatch_node::term::{Breaks, visible};
use serde_json::{Value, json};

use crate::context::Context;
use crate::named;
use copies::Copies;

/// Lines read from the ledger at a time.
const PIECE: usize = 1_000;
/// From one look for more to the next.
const LOOK_EVERY: Duration = Duration::from_millis(300);

/// Look at the audit chains
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Show(ShowArgs),
    /// Check every link of this node's chain, and the heads that its peers witnessed
    #[command(after_help = after_help("  dispatchctl audit verify"))]
    Verify,
}

/// Show this node's chain and the copies of its peers', merged by time
#[derive(Debug, clap::Args)]
#[command(after_help = after_help("  dispatchctl audit show\n  dispatchctl audit show --task dacaf1ff\n  dispatchctl audit show -f --json"))]
struct ShowArgs {
    /// Go on as more comes
    #[arg(short, long)]
    follow: bool,
    /// Only about this task
    #[arg(long, value_name = "ID")]
    task: Option<String>,
    /// The last so many lines
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: usize,
    /// Only this node's own chain
    #[arg(long)]
    own: bool,
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<Exit, Report> {
    let config = context.config()?;
    let ledger = ReadLedger::open(&config.state.ledger_db())?;
    match &args.verb {
        Verb::Show(args) => show(args, &config, &ledger, context),
        Verb::Verify => verify::run(&config, &ledger, context),
    }
}

/// One line with where it was read.
struct Line {
    text: String,
    source: &'static str,
}

fn show(args: &ShowArgs, config: &Config, ledger: &ReadLedger, context: &Context) -> Result<Exit, Report> {
    let task = match &args.task {
        Some(part) => Some(named::find(config, part)?.id().to_string()),
        None => None,
    };
    let mut after = 0;
    let mut copies = if args.own { Copies::none() } else { Copies::of_peers(config) };
    let mut last = VecDeque::new();
    let mut batch = own_lines(ledger, &mut after)?;
    batch.extend(copies.read().into_iter().map(|text| Line { text, source: "copy" }));
    batch.retain(|line| task.as_ref().is_none_or(|task| line.text.contains(task)));
    batch.sort_by_key(|line| time_of(&line.text));
    for line in batch {
        last.push_back(line);
        if last.len() > args.limit {
            last.pop_front();
        }
    }
    last.iter().try_for_each(|line| print(line, context))?;
    if !args.follow {
        return Ok(Exit::Done);
    }
    loop {
        thread::sleep(LOOK_EVERY);
        let mut more = own_lines(ledger, &mut after)?;
        more.extend(copies.read().into_iter().map(|text| Line { text, source: "copy" }));
        more.retain(|line| task.as_ref().is_none_or(|task| line.text.contains(task)));
        more.iter().try_for_each(|line| print(line, context))?;
    }
}

fn own_lines(ledger: &ReadLedger, after: &mut u64) -> Result<Vec<Line>, Report> {
    let mut lines = Vec::new();
    loop {
        let piece = ledger.audit_lines(*after, PIECE)?;
        let Some(newest) = piece.last() else { return Ok(lines) };
        *after = newest.n;
        lines.extend(piece.into_iter().map(|line| Line { text: line.line, source: "ledger" }));
    }
}

fn time_of(line: &str) -> String {
    member(&parsed(line), "ts").to_owned()
}

fn print(line: &Line, context: &Context) -> Result<(), Report> {
    context.say_json(&json!({"source": line.source, "line": parsed(&line.text)}))?;
    context.say(&shown(&line.text))
}

fn parsed(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or(Value::Null)
}

fn member<'v>(value: &'v Value, name: &str) -> &'v str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// An audit line for people: when, where, what, about which task.
pub(crate) fn shown(line: &str) -> String {
    let value = parsed(line);
    let mut text = format!("{} {} {}", member(&value, "ts"), member(&value, "node"), member(&value, "kind"));
    for name in ["task", "from", "code", "who"] {
        let found = member(&value, name);
        if !found.is_empty() {
            text.push_str(&format!(" {name}={found}"));
        }
    }
    if let Some(epoch) = value.get("epoch").and_then(Value::as_u64) {
        text.push_str(&format!(" epoch={epoch}"));
    }
    if let Some(data) =
        value.get("data").filter(|data| data.as_object().is_some_and(|members| !members.is_empty()))
    {
        text.push_str(&format!(" {data}"));
    }
    visible(&text, Breaks::Show)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_shown_with_what_it_is_about() {
        let line = r#"{"chain":"c","seq":3,"ts":"2026-11-20T12:00:00.000Z","node":"b","boot":1,"kind":"final","task":"t","code":"x","data":{"status":"ok"},"prev":"0","hash":"1"}"#;
        assert_eq!(shown(line), "2026-11-20T12:00:00.000Z b final task=t code=x {\"status\":\"ok\"}");
        assert_eq!(shown("junk\u{1b}"), "  ");
    }
}
