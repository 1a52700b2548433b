//! `dispatchctl resend`: the same sealed task again, which is safe (protocol section 4).

use dispatch_node::clock;
use dispatch_node::config::Config;
use dispatch_node::outgoing::{Delivered, RecordPlace};
use dispatch_node::report::{Exit, Report, after_help};
use serde_json::json;

use crate::context::Context;
use crate::named::{Found, SentTask, find};
use crate::sender;

/// Put the same task back: it never runs twice, and an answer that went missing is published again
#[derive(Debug, clap::Args)]
#[command(after_help = after_help("  dispatchctl resend dacaf1ff"))]
pub(crate) struct Args {
    /// The task: its id, or at least 4 characters from its beginning or end
    id: String,
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<Exit, Report> {
    let config = context.config()?;
    sender::care(&config, context);
    match find(&config, &args.id)? {
        Found::Sent(sent) => resend(&config, &sent, context).map_err(|report| report.about(sent.record.id)),
        Found::Received(row) => Err(Report::new(Exit::NotPermitted, "it was not sent from here")
            .about(row.key.id)
            .help(format!("run it on {}", row.key.from))),
    }
}

fn resend(config: &Config, sent: &SentTask, context: &Context) -> Result<Exit, Report> {
    let record = &sent.record;
    if clock::now() >= record.expires {
        return Err(Report::new(
            Exit::NotPermitted,
            format!("it expired at {} and is not taken any more", record.expires),
        )
        .help("send it anew with dispatch-send, if it is safe to run again"));
    }
    let desk = sender::desk(config, sent.outgoing.lane())?;
    let publish = || match record.place {
        RecordPlace::Sent => desk.outgoing.put_back(&desk.mail(), record),
        RecordPlace::Outbox => desk.outgoing.lock()?.publish(&desk.mail(), record),
    };
    match sender::past_squatting(publish, |delivered| *delivered == Delivered::Conflict)? {
        Delivered::Published => {
            let path = desk.inbox_path(record.id);
            context.say_json(&json!({"ok": true, "task": record.id.to_string(), "inbox": path}))?;
            context.say(&format!("{}\t{}", record.id, path.display()))?;
            Ok(Exit::Done)
        }
        Delivered::Unknown => Err(Report::new(
            Exit::TaskFailed,
            format!(
                "unknown: its id stands on the lane of `{}` already, and nothing is put back there",
                desk.lane.to
            ),
        )
        .help("its node speaks version 2 and would run it again: look there whether it ran")),
        Delivered::Conflict => {
            Err(Report::new(Exit::ShareUnreachable, "something else lies at its name in the inbox")
                .help("its reader sets that aside in its next pass; run this again then"))
        }
    }
}
