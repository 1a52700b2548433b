//! `dispatchctl`: what an operator does on a node. One file per verb under `verbs`.
//!
//! It reads the ledger and never writes it; what a person changes goes through the local door to the watcher, or to the
//! share like anybody's message. Only `init` and `recover` write the ledger themselves, under `watch.lock`.
#![forbid(unsafe_code)]

mod context;
mod takeover;
mod verbs;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use dispatch_node::args::{self, Common};
use dispatch_node::developer;
use dispatch_node::report::{after_help, door};

use context::Context;

const EXAMPLES: &str = "  dispatchctl init --root /mnt/shared/dispatch --node gpubox --peer devbox
  dispatchctl status
  dispatchctl show dacaf1ff";

/// Sets up, shows and steers a node.
#[derive(Debug, Parser)]
#[command(name = "dispatchctl", version, about, after_help = after_help(EXAMPLES), propagate_version = true)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Init(verbs::init::Args),
    Recover(verbs::recover::Args),
}

/// Runs the command.
#[must_use]
pub fn main() -> ExitCode {
    let cli: Cli = match args::parse() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    developer::init(cli.common.verbose);
    let form = cli.common.form();
    door(form, move || {
        let context = Context::new(cli.common);
        match cli.verb {
            Verb::Init(args) => verbs::init::run(&args, &context),
            Verb::Recover(args) => verbs::recover::run(&args, &context),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_one_that_clap_takes() {
        Cli::command().debug_assert();
    }
}
