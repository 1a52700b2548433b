//! `dispatchctl list`: the tasks this node received and sent.

use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use dispatch_core::policy::lifecycle::TaskState;
use dispatch_core::protocol::names::NodeName;
use dispatch_core::protocol::result::Status;
use dispatch_core::protocol::time::Timestamp;
use dispatch_ledger::{TaskFilter, TaskRow};
use dispatch_node::clock;
use dispatch_node::config::Config;
use dispatch_node::durations;
use dispatch_node::outgoing::Outgoing;
use dispatch_node::progress::{HowFar, Places};
use dispatch_node::report::{Exit, Report, after_help};
use dispatch_node::waiting::Whereabouts;
use serde_json::Value;

use crate::context::Context;
use crate::named::{self, SentTask};
use crate::{here, table, views};

const EXAMPLES: &str = "  dispatchctl list
  dispatchctl list --state awaiting_approval
  dispatchctl list --status error --since 2h --json";

/// List the tasks that this node received and sent, newest first; what they ask for is shown by `show`
#[derive(Debug, clap::Args)]
#[command(after_help = after_help(EXAMPLES))]
pub(crate) struct Args {
    /// Only tasks in this state
    #[arg(long, value_parser = PossibleValuesParser::new(TaskState::ALL.map(TaskState::as_str)).try_map(|word| state(&word)))]
    state: Option<TaskState>,
    /// Only tasks that ended with this status (ok, error, timeout, denied …)
    #[arg(long, value_parser = status)]
    status: Option<Status>,
    /// Only tasks from this node
    #[arg(long, value_parser = NodeName::new)]
    from: Option<NodeName>,
    /// Only tasks since then: a duration (2h) or a time (2026-01-31T12:00:00.000Z)
    #[arg(long, value_name = "WHEN", value_parser = since)]
    since: Option<Timestamp>,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: u32,
}

fn state(text: &str) -> Result<TaskState, String> {
    TaskState::parse(text).ok_or_else(|| {
        let all: Vec<&str> = TaskState::ALL.iter().map(|state| state.as_str()).collect();
        format!("one of {}", all.join(", "))
    })
}

fn status(text: &str) -> Result<Status, String> {
    Status::parse(text).ok_or_else(|| "no status of a result".to_owned())
}

pub(crate) fn since(text: &str) -> Result<Timestamp, String> {
    if let Ok(at) = Timestamp::parse(text) {
        return Ok(at);
    }
    let back =
        durations::parse(text).map_err(|_| "a duration like 2h, or a time like 2026-01-31T12:00:00.000Z")?;
    Ok(clock::now().plus_ms(i64::try_from(back.as_millis()).unwrap_or(i64::MAX).saturating_neg()))
}

/// A task of either half, with how far it is.
enum Entry {
    Received(Box<TaskRow>, Option<HowFar>),
    Sent(Box<SentTask>, Option<Whereabouts>),
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<Exit, Report> {
    let config = context.config()?;
    let mut entries: Vec<(Timestamp, Entry)> = Vec::new();
    if let Some(ledger) = named::ledger(&config)? {
        let filter = TaskFilter {
            state: args.state,
            status: args.status,
            from: args.from.clone(),
            since: args.since,
            limit: Some(args.limit),
        };
        let (now, places) = (clock::now(), Places::of(&ledger, clock::now())?);
        for row in ledger.tasks(&filter)? {
            let open = if row.final_at.is_none() { ledger.brief(&row.key)? } else { None };
            let far = open.map(|open| HowFar::here(&config.state, &places, &open, now));
            entries.push((row.accepted_at, Entry::Received(Box::new(row), far)));
        }
    }
    let sent = sent(&config, args)?;
    let mut told = here::whereabouts_of_many(&config, sent.iter());
    for sent in sent {
        let whereabouts = told.remove(&sent.record.id);
        entries.push((views::made_at(sent.record.id), Entry::Sent(Box::new(sent), whereabouts)));
    }
    entries.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
    entries.truncate(usize::try_from(args.limit).unwrap_or(usize::MAX));
    let now = clock::now();
    for (_, entry) in &entries {
        context.say_json(&view(entry, now))?;
    }
    let mut rows = vec![["ID", "FROM", "TO", "STATE", "AGE", "PROFILE"].map(str::to_owned).to_vec()];
    rows.extend(entries.iter().map(|(at, entry)| row(entry, &config, now.since_ms(*at), now)));
    if entries.is_empty() {
        context.tell("no tasks");
        return Ok(Exit::Done);
    }
    for line in table::lines(&rows) {
        context.say(&line)?;
    }
    Ok(Exit::Done)
}

/// What was sent from here, where the filters leave it: a sent task has no state of this node's ledger.
fn sent(config: &Config, args: &Args) -> Result<Vec<SentTask>, Report> {
    let other_node = args.from.as_ref().is_some_and(|from| *from != config.node);
    if args.state.is_some() || other_node {
        return Ok(Vec::new());
    }
    let mut sent = Vec::new();
    for lane in Outgoing::lanes(&config.state)? {
        let outgoing = Outgoing::at(&config.state, &lane);
        let kept = outgoing.kept()?.into_iter().map(|(_, id)| id);
        let mut ids: Vec<_> = outgoing.sent_ids()?.into_iter().chain(kept).collect();
        ids.sort_unstable_by_key(|id| std::cmp::Reverse(*id));
        ids.dedup();
        ids.retain(|id| args.since.is_none_or(|since| views::made_at(*id) >= since));
        for id in ids.into_iter().take(usize::try_from(args.limit).unwrap_or(usize::MAX)) {
            let Some(record) = outgoing.record(id)? else { continue };
            let status = record.answered.map(|answered| answered.status);
            if args.status.is_none() || args.status == status {
                sent.push(SentTask { outgoing: outgoing.clone(), record });
            }
        }
    }
    Ok(sent)
}

fn view(entry: &Entry, now: Timestamp) -> Value {
    match entry {
        Entry::Received(row, far) => views::received(row, far.as_ref()),
        Entry::Sent(sent, whereabouts) => views::sent(sent, now, whereabouts.as_ref()),
    }
}

fn row(entry: &Entry, config: &Config, age_ms: i64, now: Timestamp) -> Vec<String> {
    let age = durations::short(age_ms.max(0));
    match entry {
        Entry::Received(row, far) => vec![
            row.key.id.short(),
            row.key.from.to_string(),
            config.node.to_string(),
            views::standing(row, far.as_ref()),
            age,
            views::line(&row.profile, 32),
        ],
        Entry::Sent(sent, whereabouts) => {
            let task = sent.record.task().ok();
            vec![
                sent.record.id.short(),
                config.node.to_string(),
                sent.outgoing.lane().to.to_string(),
                views::sent_where(&sent.record, now, whereabouts.as_ref()),
                age,
                task.map(|task| task.profile.to_string()).unwrap_or_default(),
            ]
        }
    }
}
