//! The command line.

use clap::Parser;
use dispatch_node::args::Common;
use dispatch_node::report::after_help;

/// Watch the share for this node: verify, gate, run and answer the tasks that peers send
///
/// One runs on each node, for as long as tasks are to be taken and answers looked after. A task is verified, written into the
/// ledger, run by an executor of its own, and answered. SIGTERM ends the watcher within a second and leaves running agents to
/// their executors, which the next watcher adopts; SIGHUP reads the configuration again. After a crash it is simply started
/// again. Exit status 73 means that another watcher holds this node, 78 that a person must look at its configuration or
/// ledger; everything else may be tried again.
#[derive(Debug, Parser)]
#[command(name = "dispatch-watch", version, after_help = after_help(
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
