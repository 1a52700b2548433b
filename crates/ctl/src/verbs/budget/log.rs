//! `dispatchctl budget log`: every movement of money, with where its amount comes from.

use dispatch_core::policy::window::{Window, WindowKey};
use dispatch_core::protocol::parts::CostBasis;
use dispatch_core::protocol::time::Timestamp;
use dispatch_ledger::{PostingFilter, PostingRow, ReadLedger};
use dispatch_node::report::{Exit, Report, after_help};
use serde_json::json;

use crate::context::Context;
use crate::named;
use crate::table;
use crate::verbs::list::since;

/// Show the movements of money, newest first, each with its basis
///
/// One movement of a task is posted in each of its windows; without --window or --kind the month's are shown, which hold
/// every one of them once.
#[derive(Debug, clap::Args)]
#[command(after_help = after_help("  dispatchctl budget log
  dispatchctl budget log --window run:devbox/nightly
  dispatchctl budget log --kind tree --since 2h
  dispatchctl budget log --task dacaf1ff --json"))]
pub(super) struct Args {
    /// Only in this window, by the key that `budget --json` shows
    #[arg(long, value_name = "KEY", value_parser = window, conflicts_with = "kind")]
    window: Option<WindowKey>,
    /// Only in windows of this kind: run, day, month, sender, tree
    #[arg(long, value_name = "KIND", value_parser = kind)]
    kind: Option<Window>,
    /// Only of this task
    #[arg(long, value_name = "ID")]
    task: Option<String>,
    /// Only these: reserve, settle, release, carry
    #[arg(long, value_name = "WHY", value_parser = ["reserve", "settle", "release", "carry"])]
    why: Option<String>,
    /// Only since then: a duration (2h) or a time (2026-01-31T12:00:00.000Z)
    #[arg(long, value_name = "WHEN", value_parser = since)]
    since: Option<Timestamp>,
    /// At most so many
    #[arg(long, visible_alias = "last", value_name = "N", default_value_t = 100)]
    limit: usize,
}

#[derive(Debug, thiserror::Error)]
#[error(
    "not a window like run:devbox/nightly, day:2026-11-21, month:2026-11, sender:devbox/2026-11, tree:ID"
)]
struct NotAWindow;

fn window(text: &str) -> Result<WindowKey, NotAWindow> {
    WindowKey::parse(text).ok_or(NotAWindow)
}

#[derive(Debug, thiserror::Error)]
#[error("one of run, day, month, sender, tree")]
struct NotAKind;

fn kind(text: &str) -> Result<Window, NotAKind> {
    Window::parse(text).ok_or(NotAKind)
}

pub(super) fn run(args: &Args, context: &Context) -> Result<Exit, Report> {
    let config = context.config()?;
    let ledger = ReadLedger::open(&config.state.ledger_db())?;
    let task = match &args.task {
        Some(part) => Some(named::find(&config, part)?.id()),
        None => None,
    };
    let filter = PostingFilter {
        window: args.window.clone(),
        kind: args.kind.or_else(|| args.window.is_none().then_some(Window::Month)),
        why: args.why.clone(),
        task,
        since: args.since,
        limit: args.limit,
    };
    let mut rows = Vec::new();
    for posting in ledger.postings(&filter)? {
        let of = match posting.reservation {
            Some(id) => ledger.reservation(id)?.map(|row| row.key),
            None => None,
        };
        rows.push((posting, of));
    }
    for (posting, of) in &rows {
        context.say_json(&json!({
            "at": posting.at.to_string(), "window": posting.key.to_string(), "why": posting.why,
            "source": posting.source, "target": posting.target, "usd": posting.amount.to_string(),
            "basis": posting.basis.map(CostBasis::as_str),
            "reservation": posting.reservation.map(|id| id.to_string()),
            "from": of.as_ref().map(|key| key.from.to_string()), "task": of.as_ref().map(|key| key.id.to_string()),
        }))?;
    }
    let shown: Vec<Vec<String>> =
        rows.iter().map(|(posting, of)| row(posting, of.as_ref().map(|key| key.id.short()))).collect();
    for line in table::lines(&shown) {
        context.say(&line)?;
    }
    Ok(Exit::Done)
}

fn row(posting: &PostingRow, task: Option<String>) -> Vec<String> {
    vec![
        posting.at.to_string(),
        task.unwrap_or_else(|| "-".to_owned()),
        posting.why.clone(),
        format!("{} to {}", posting.source, posting.target),
        format!("${}", posting.amount),
        posting.basis.map_or("-", CostBasis::as_str).to_owned(),
        posting.key.to_string(),
    ]
}
