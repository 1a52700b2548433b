//! `dispatchctl status`: one screen about the node.

mod facts;
mod screen;

use std::io::IsTerminal as _;
use std::thread;
use std::time::Duration;

use dispatch_node::report::{Exit, Form, Report, after_help, say, say_raw};
use dispatch_node::term::Colour;

use crate::context::Context;
use crate::sender;

/// From one screen to the next.
const REFRESH_EVERY: Duration = Duration::from_secs(2);

/// Show the node: share, killswitch, peers, tasks, budget, last results
#[derive(Debug, clap::Args)]
#[command(after_help = after_help("  dispatchctl status\n  dispatchctl status --watch\n  dispatchctl status --json | jq .tasks"))]
pub(crate) struct Args {
    /// Show it again every two seconds
    #[arg(long)]
    watch: bool,
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<Exit, Report> {
    let config = context.config()?;
    sender::care(&config, context);
    loop {
        let facts = facts::gather(&config)?;
        match context.form() {
            Form::Json => say(&facts.to_string())?,
            Form::Text => {
                if args.watch && std::io::stdout().is_terminal() {
                    say_raw(b"\x1b[H\x1b[2J")?;
                }
                screen::lines(&facts, Colour::of_stdout()).iter().try_for_each(|line| say(line))?;
            }
        }
        if !args.watch {
            return Ok(Exit::Done);
        }
        thread::sleep(REFRESH_EVERY);
    }
}
