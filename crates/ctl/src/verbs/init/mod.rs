//! `dispatchctl init`: a node's configuration, keys, ledger and its part of the tree.
//!
//! Order (protocol section 1): what is this node's own first, the ledger before the configuration (a configuration
//! without a ledger means a lost ledger), the synced configuration before `CLUSTER`. Every step keeps what is there, so
//! that a second run finishes what a crash left.

mod join;
mod node;
mod plan;
mod text;

use std::path::PathBuf;

use dispatch_core::policy::money::Usd;
use dispatch_core::protocol::names::NodeName;
use dispatch_node::report::{Exit, Report, after_help};

use crate::context::Context;

pub(crate) use join::Join;
pub(crate) use node::quoted;
pub(crate) use text::{APPROVERS_HEAD, Approver};

const EXAMPLES: &str = "  dispatchctl init --root /mnt/shared/dispatch --node devbox --peer gpubox
  dispatchctl init --join dispatch-join.json --root /mnt/shared/dispatch --approver ~/.ssh/id_ed25519.pub
  dispatchctl init                                add what is missing on the share
  dispatchctl init --approver KEY.pub             list one more person who may approve tasks here
  dispatchctl init --new-ledger                   after the ledger was lost";

/// Set up this node, or add what is missing on the share
///
/// The first node names its peer and gets a join file; the peer is set up with that file. On a configured node, without
/// arguments, it adds what is missing on the share; with --peer or --approver one more of them, which a running watcher is
/// told of. It never overwrites anything.
#[derive(Debug, clap::Args)]
#[command(after_help = after_help(EXAMPLES))]
pub(crate) struct Args {
    /// The directory that both nodes mount
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// This node's name
    #[arg(long, value_parser = NodeName::new, conflicts_with = "join", requires_all = ["root", "peer"])]
    node: Option<NodeName>,
    /// The other node's name
    #[arg(long, value_parser = NodeName::new, conflicts_with = "join")]
    peer: Option<NodeName>,
    /// The file that `init` wrote on the other node
    #[arg(long, value_name = "FILE", requires = "root")]
    join: Option<PathBuf>,
    /// OpenSSH public key of a person who may approve tasks here
    #[arg(long, value_name = "KEY.pub")]
    approver: Vec<PathBuf>,
    /// Make a ledger in place of a lost one: tasks sent before now will not run, and what was spent is carried over
    #[arg(long)]
    new_ledger: bool,
    /// What this month has spent at least, in US dollars, where no heartbeat tells it
    #[arg(long, value_name = "USD", value_parser = Usd::from_wire, requires = "new_ledger")]
    month_spent: Option<Usd>,
    /// Let everybody in the group of the share's directories use them
    #[arg(long)]
    group: bool,
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<Exit, Report> {
    let plan = plan::plan(args, context)?;
    node::set_up(&plan, context)?;
    Ok(Exit::Done)
}
