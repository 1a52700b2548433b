//! `dispatchctl drain` and `undrain`: maintenance, through the local door.

use std::time::Duration;

use dispatch_node::door::{Verb, ask};
use dispatch_node::durations;
use dispatch_node::report::{Exit, Report, after_help};
use serde_json::json;

use crate::context::Context;

/// How long the watcher is waited for.
pub(crate) const ANSWER_WAIT: Duration = Duration::from_secs(10);

/// Start nothing new, let running tasks finish within a grace, then be in maintenance
#[derive(Debug, clap::Args)]
#[command(after_help = after_help("  dispatchctl drain --grace 30m --reason \"new kernel\""))]
pub(crate) struct DrainArgs {
    /// How long running tasks may go on
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = durations::parse_seconds)]
    grace: u64,
    #[command(flatten)]
    why: WhyArgs,
}

/// End the maintenance: work again
#[derive(Debug, clap::Args)]
#[command(after_help = after_help("  dispatchctl undrain"))]
pub(crate) struct UndrainArgs {
    #[command(flatten)]
    why: WhyArgs,
}

/// Who asks, and why.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct WhyArgs {
    /// Why, for the audit
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) reason: String,
    /// Who asks, for the audit; recorded as claimed
    #[arg(long = "as", value_name = "NAME")]
    pub(crate) claimed: Option<String>,
}

pub(crate) fn drain(args: &DrainArgs, context: &Context) -> Result<Exit, Report> {
    request(Verb::Drain { grace_s: args.grace }, &args.why, context)
}

pub(crate) fn undrain(args: &UndrainArgs, context: &Context) -> Result<Exit, Report> {
    request(Verb::Undrain, &args.why, context)
}

/// Asks the watcher, and says what it answered.
pub(crate) fn request(verb: Verb, why: &WhyArgs, context: &Context) -> Result<Exit, Report> {
    let config = context.config()?;
    let text = ask(&config.state, verb, &why.reason, why.claimed.as_deref(), ANSWER_WAIT)?;
    context.say_json(&json!({"ok": text}))?;
    context.say(&text)?;
    Ok(Exit::Done)
}
