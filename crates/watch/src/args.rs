//! The command line.

use clap::Parser;
use dispatch_node::args::Common;
use dispatch_node::report::after_help;

/// Watches the share for this node: verifies, gates, runs and answers the tasks that peers send.
#[derive(Debug, Parser)]
#[command(name = "dispatch-watch", version, about, after_help = after_help(
    "  dispatch-watch                     run until SIGTERM; running agents are left to their executors\n  \
     dispatch-watch --once              one round, until nothing is left to do (cron, tests)\n  \
     dispatch-watch --once --only ID    run one task by hand, through every check"
))]
pub(crate) struct Args {
    /// The node's own name; must be the configuration's (version 2 chose its side with it)
    #[arg(long, value_name = "NODE")]
    pub(crate) side: Option<String>,
    /// Work until nothing is left to do, wait for the executors this started, and end
    #[arg(long)]
    pub(crate) once: bool,
    /// Take and run this task only
    #[arg(long, value_name = "ID", requires = "once")]
    pub(crate) only: Option<String>,
    #[command(flatten)]
    pub(crate) common: Common,
}
