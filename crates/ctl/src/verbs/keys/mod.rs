//! `dispatchctl keys`: the keys shared with each peer, and how another one takes the place of an old one without a message
//! being refused in between (protocol section 2).
//!
//! Add on both, make first on both, retire: a node signs its heartbeats with every key that it verifies with, the one that
//! signs first, so each side sees what the other has before it relies on it.

mod change;
mod list;
mod retire;
mod seen;

use std::path::PathBuf;

use clap::Subcommand;
use dispatch_core::protocol::names::NodeName;
use dispatch_node::config::{Config, Peer};
use dispatch_node::report::{Exit, Report, after_help};

use crate::context::Context;

const EXAMPLES: &str = "  dispatchctl keys list
  dispatchctl keys rotate gpubox                  here: draw a key that verifies, write a join file
  dispatchctl keys rotate devbox --join FILE      on gpubox: take it in
  dispatchctl keys rotate gpubox                  here again, then on gpubox: make it the one that signs
  dispatchctl keys retire gpubox OLD_KEYID        here and on gpubox, when nothing is under way with it";

/// Look at the keys shared with peers; put a new one in the place of an old one
#[derive(Debug, clap::Args)]
#[command(after_help = after_help(EXAMPLES))]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show every key: what it does here, and whether the peer has it and signs with it
    #[command(after_help = after_help("  dispatchctl keys list\n  dispatchctl keys list --json"))]
    List,
    /// Draw a key for a peer and write the join file that brings it over; nothing uses it yet
    #[command(after_help = after_help("  dispatchctl keys new --peer gpubox"))]
    New {
        /// The other node
        #[arg(long, value_name = "NODE", value_parser = NodeName::new)]
        peer: NodeName,
    },
    /// The next step of a rotation: add a key that verifies, or make the added one sign
    #[command(after_help = after_help(EXAMPLES))]
    Rotate(RotateArgs),
    /// Refuse from now on what an old key signs
    #[command(after_help = after_help("  dispatchctl keys retire gpubox 3eda0d86c0205d5a"))]
    Retire(RetireArgs),
}

/// What `rotate` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct RotateArgs {
    /// The other node
    #[arg(value_name = "NODE", value_parser = NodeName::new)]
    pub(crate) peer: NodeName,
    /// The join file that the other node wrote: its key is added
    #[arg(long, value_name = "FILE")]
    pub(crate) join: Option<PathBuf>,
    /// Make the new key sign although the peer has not shown that it has it
    #[arg(long)]
    pub(crate) force: bool,
}

/// What `retire` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct RetireArgs {
    /// The other node
    #[arg(value_name = "NODE", value_parser = NodeName::new)]
    pub(crate) peer: NodeName,
    /// The key, as `keys list` names it
    #[arg(value_name = "KEYID")]
    pub(crate) keyid: String,
    /// Retire it although something may still be under way with it
    #[arg(long)]
    pub(crate) force: bool,
}

/// A version-2 peer has one key, on both nodes the same at any time: it shows no heartbeat and verifies with no second one.
fn refuse_version_2(config: &Config, peer: &NodeName) -> Result<(), Report> {
    match config.peer(peer).and_then(Peer::version_2) {
        None => Ok(()),
        Some(_) => {
            Err(Report::new(Exit::Usage, format!("{peer} speaks version 2, whose one key knows no overlap"))
                .help("replace the file on both nodes while no task is under way, then reload (SIGHUP)"))
        }
    }
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<Exit, Report> {
    match &args.verb {
        Verb::List => list::run(context),
        Verb::New { peer } => change::new(peer, context),
        Verb::Rotate(args) => change::rotate(args, context),
        Verb::Retire(args) => retire::run(args, context),
    }
}
