//! `dispatchctl cancel`: end a task, wherever it is.

use std::io::{Error, ErrorKind};

use dispatch_node::config::Config;
use dispatch_node::door::Verb;
use dispatch_node::outgoing::{Cancelled, Delivered};
use dispatch_node::report::{Exit, Report, after_help};
use serde_json::json;

use super::door::{WhyArgs, request};
use crate::context::Context;
use crate::named::{Found, SentTask, find};
use crate::sender;

/// End a task: ask the node that has it, or this node's watcher when it was sent here
#[derive(Debug, clap::Args)]
#[command(after_help = after_help("  dispatchctl cancel dacaf1ff --reason \"not needed any more\""))]
pub(crate) struct Args {
    /// The task: its id, or at least 4 characters from its beginning or end
    id: String,
    #[command(flatten)]
    why: WhyArgs,
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<Exit, Report> {
    let config = context.config()?;
    let found = find(&config, &args.id)?;
    let id = found.id();
    match found {
        Found::Sent(sent) => sealed(&config, &sent, args, context),
        Found::Received(row) if row.state.is_final() => {
            Err(Report::new(Exit::NotPermitted, format!("it is done already ({})", row.state)))
        }
        Found::Received(row) => {
            let verb = Verb::Cancel { from: row.key.from.clone(), task: row.key.id };
            request(verb, &args.why, context)
        }
    }
    .map_err(|report| report.about(id))
}

/// A sealed cancel to the node that has the task.
fn sealed(config: &Config, sent: &SentTask, args: &Args, context: &Context) -> Result<Exit, Report> {
    let desk = sender::desk(config, sent.outgoing.lane())?;
    let reason = if args.why.reason.is_empty() { "cancelled by its sender" } else { &args.why.reason };
    let ask = || desk.outgoing.cancel(&desk.mail(), sent.record.id, reason);
    let said = match sender::past_squatting(ask, |asked| *asked == Cancelled::Asked(Delivered::Conflict))? {
        Cancelled::Asked(Delivered::Published) => format!("{} is asked to cancel it", desk.lane.to),
        Cancelled::Asked(Delivered::Conflict | Delivered::Unknown) => {
            let why = Error::new(ErrorKind::AlreadyExists, "something else lies at the request's name");
            return Err(Report::new(
                Exit::ShareUnreachable,
                "the cancel is kept and cannot be published yet",
            )
            .because(&why)
            .help(
                "its reader sets that aside; the cancel goes out with the next upkeep, or run this again",
            ));
        }
        Cancelled::AnsweredBefore => {
            return Err(Report::new(Exit::NotPermitted, "it was answered already")
                .help("dispatchctl result shows the answer"));
        }
    };
    context.say_json(&json!({"ok": said, "task": sent.record.id.to_string()}))?;
    context.say(&said)?;
    Ok(Exit::Done)
}
