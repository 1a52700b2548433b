//! `dispatchctl recover`: what only a person may wave through.

use dispatch_ledger::{ClockMarks, Entry, Fence, Ledger, Whole};
use dispatch_node::clock;
use dispatch_node::report::{Exit, Report, after_help};
use serde_json::json;

use crate::context::{Context, hold_lock};
use crate::takeover::{Takeover, Why};

const EXAMPLES: &str = "  dispatchctl recover --accept-rollback \"the disk died; this is last night's copy\"
  dispatchctl recover --accept-clock \"the clock was a day off and is right now\"";

/// Accept an older ledger, or a clock that jumped
///
/// The watcher must be stopped. What a rollback accepts: tasks that were not done end `unknown`, nothing that was sent
/// before now runs, and what the month has spent stays spent.
#[derive(Debug, clap::Args)]
#[command(after_help = after_help(EXAMPLES))]
pub(crate) struct Args {
    /// Go on with a ledger that is older than what this node already showed
    #[arg(
        long,
        value_name = "REASON",
        required_unless_present = "accept_clock",
        conflicts_with = "accept_clock"
    )]
    accept_rollback: Option<String>,
    /// Believe the wall clock although it jumped
    #[arg(long, value_name = "REASON")]
    accept_clock: Option<String>,
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<Exit, Report> {
    match (&args.accept_rollback, &args.accept_clock) {
        (Some(reason), _) => accept_rollback(said(reason)?, context),
        (None, Some(reason)) => accept_clock(said(reason)?, context),
        (None, None) => Err(Report::new(Exit::Usage, "say what is accepted")),
    }
}

fn said(reason: &str) -> Result<&str, Report> {
    let reason = reason.trim();
    if reason.is_empty() { Err(Report::new(Exit::Usage, "the reason is empty")) } else { Ok(reason) }
}

fn accept_rollback(reason: &str, context: &Context) -> Result<Exit, Report> {
    let config = context.config()?;
    let lock = hold_lock(&config)?;
    let mut ledger = Ledger::open_to_recover(&config.state.ledger_db())?;
    let takeover = Takeover::of(&config, &lock)?;
    let half_done = ledger.meta()?.whole == Whole::No;
    // Two signs of an older ledger: what the node showed of its audit, and a start that this ledger never noted.
    let is_older = takeover.newer_head(&ledger, &takeover.shows()?)?.is_some()
        || takeover.is_owned_by_stranger(&ledger)?;
    if !half_done && !is_older {
        return Err(Report::new(Exit::NotPermitted, "there is no rollback to accept")
            .help("nothing that this node showed is newer than its ledger; start the watcher"));
    }
    let taken = takeover.take(&mut ledger, &Why { reason, month_spent: None })?;
    context.say_json(&taken.json())?;
    context.say(&format!("{}\nStart dispatch-watch again.", taken.text()))?;
    Ok(Exit::Done)
}

fn accept_clock(reason: &str, context: &Context) -> Result<Exit, Report> {
    let config = context.config()?;
    let _lock = hold_lock(&config)?;
    let mut ledger = Ledger::open(&config.state.ledger_db())?;
    let before = ledger.meta()?.clock;
    let marks = ClockMarks {
        wall: clock::now(),
        boot_ms: clock::boot_ms(),
        host_boot_id: clock::host_boot_id()?.to_string(),
    };
    let data = json!({"was": before.wall.to_string(), "is": marks.wall.to_string(), "reason": reason});
    ledger.write(Fence::NONE, marks.wall, |tx| {
        tx.set_clock(&marks)?;
        tx.audit(&Entry::of("clock_accepted").data(data)).map(drop)
    })?;
    context.say_json(&json!({"clock": marks.wall.to_string()}))?;
    context
        .say(&format!("{} is believed; it was {}. Start dispatch-watch again.", marks.wall, before.wall))?;
    Ok(Exit::Done)
}
