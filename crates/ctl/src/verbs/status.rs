//! `dispatchctl status`: one screen about the node.

mod facts;
mod live;
mod screen;
mod tasks;

use std::io::IsTerminal as _;

use dispatch_node::report::{Exit, Form, Report, after_help, say};
use dispatch_node::term::Colour;

use crate::context::Context;
use crate::sender;

const EXAMPLES: &str = "  dispatchctl status
  dispatchctl status --watch
  dispatchctl status --json | jq .tasks
  dispatchctl status --watch --json | while read -r document; do …; done";

/// Show the node: share, killswitch, peers, tasks, budget, last results
#[derive(Debug, clap::Args)]
#[command(after_help = after_help(EXAMPLES))]
pub(crate) struct Args {
    /// Show it again and again: in place on a terminal (q ends it); with --json a document per change
    #[arg(long)]
    watch: bool,
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<Exit, Report> {
    let config = context.config()?;
    sender::care(&config, context);
    match (args.watch, context.form()) {
        (false, Form::Json) => say(&facts::gather(&config)?.to_string())?,
        (false, Form::Text) => {
            let facts = facts::gather(&config)?;
            screen::lines(&facts, Colour::of_stdout()).iter().try_for_each(|line| say(line))?;
        }
        (true, Form::Json) => return live::documents(&config),
        (true, Form::Text) if std::io::stdout().is_terminal() => return live::screens(&config),
        (true, Form::Text) => {
            return Err(Report::new(
                Exit::Usage,
                "--watch shows a screen, and standard output is no terminal",
            )
            .help("dispatchctl status --watch --json prints a document per change"));
        }
    }
    Ok(Exit::Done)
}
