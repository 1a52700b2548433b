//! `dispatchctl budget`: what the windows hold, what is set aside, what holds paid work back, and who lifts it.
//!
//! The caps themselves live in the configuration and nowhere else; a reload applies them.

mod facts;
mod log;
mod screen;

use clap::Subcommand;
use dispatch_core::policy::window::{RunName, WindowKey};
use dispatch_core::protocol::names::{Name, NodeName};
use dispatch_ledger::ReadLedger;
use dispatch_node::clock;
use dispatch_node::door;
use dispatch_node::report::{Exit, Report, after_help};
use dispatch_node::term::Colour;

use crate::context::Context;
use crate::verbs::door::{WhyArgs, request};

const EXAMPLES: &str = "  dispatchctl budget
  dispatchctl budget --all --json
  dispatchctl budget log --window month:2026-11 --limit 20
  dispatchctl budget close-run nightly --from devbox
  dispatchctl budget resume devbox --reason \"looked at it\"";

/// Show what was spent and set aside, what is left and when it resets, and what holds paid work back
#[derive(Debug, clap::Args)]
#[command(after_help = after_help(EXAMPLES), args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// Every window there ever was, not only those in use
    #[arg(long)]
    all: bool,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Log(log::Args),
    CloseRun(CloseRunArgs),
    Resume(ResumeArgs),
}

/// Close a named run for good: what is set aside in it still settles there, and nothing more is accepted for it
#[derive(Debug, clap::Args)]
#[command(after_help = after_help("  dispatchctl budget close-run nightly\n  dispatchctl budget close-run nightly --from devbox"))]
struct CloseRunArgs {
    /// The run's name, as its tasks say it
    #[arg(value_name = "NAME", value_parser = RunName::new)]
    name: RunName,
    /// The node that sends its tasks; needed where several have a run of that name
    #[arg(long, value_name = "NODE", value_parser = NodeName::new)]
    from: Option<NodeName>,
    #[command(flatten)]
    why: WhyArgs,
}

/// Let paid work go on that the safeguards hold: look at what was sent first
#[derive(Debug, clap::Args)]
#[command(after_help = after_help("  dispatchctl budget resume\n  dispatchctl budget resume devbox\n  dispatchctl budget resume --profile claude"))]
struct ResumeArgs {
    /// Only of this sender; else of all
    #[arg(value_name = "NODE", value_parser = NodeName::new)]
    from: Option<NodeName>,
    /// Close the breaker of this profile before its time
    #[arg(long, value_name = "PROFILE", value_parser = Name::new)]
    profile: Option<Name>,
    #[command(flatten)]
    why: WhyArgs,
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<Exit, Report> {
    match &args.verb {
        None => show(args, context),
        Some(Verb::Log(args)) => log::run(args, context),
        Some(Verb::CloseRun(args)) => close_run(args, context),
        Some(Verb::Resume(args)) => {
            let verb = door::Verb::BudgetResume { from: args.from.clone(), profile: args.profile.clone() };
            request(verb, &args.why, context)
        }
    }
}

fn show(args: &Args, context: &Context) -> Result<Exit, Report> {
    let config = context.config()?;
    let ledger = ReadLedger::open(&config.state.ledger_db())?;
    let wanted = if args.all { facts::Wanted::All } else { facts::Wanted::InUse };
    let document = facts::gather(&config, &ledger, clock::now(), wanted)?;
    context.say_json(&document)?;
    for line in screen::lines(&document, Colour::of_stdout()) {
        context.say(&line)?;
    }
    Ok(Exit::Done)
}

fn close_run(args: &CloseRunArgs, context: &Context) -> Result<Exit, Report> {
    let config = context.config()?;
    let from = match &args.from {
        Some(from) => from.clone(),
        None => sender_of(&ReadLedger::open(&config.state.ledger_db())?, &args.name)?,
    };
    request(door::Verb::BudgetCloseRun { from, run: args.name.clone() }, &args.why, context)
}

/// The one node that has a run of that name.
fn sender_of(ledger: &ReadLedger, name: &RunName) -> Result<NodeName, Report> {
    let mut senders: Vec<NodeName> = ledger
        .windows()?
        .into_iter()
        .filter_map(|window| match window.key {
            WindowKey::Run { sender, run } if run == *name => Some(sender),
            WindowKey::Run { .. }
            | WindowKey::RunOfDay { .. }
            | WindowKey::Day(_)
            | WindowKey::Month(_)
            | WindowKey::Sender { .. }
            | WindowKey::Tree(_) => None,
        })
        .collect();
    match (senders.pop(), senders.is_empty()) {
        (Some(sender), true) => Ok(sender),
        (None, _) => {
            Err(Report::new(Exit::NoSuchTask, format!("no task of a run `{name}` was accepted here")).help(
                "`dispatchctl budget --all` lists the runs; --from NODE closes one before its first task",
            ))
        }
        (Some(_), false) => Err(Report::new(Exit::Usage, format!("several nodes have a run `{name}`"))
            .help("say whose with --from NODE")),
    }
}
