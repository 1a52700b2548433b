//! `dispatch-send`: hands a task to another node and, with `--wait`, brings back what came of it.
//!
//! The task exists from the moment its outbox entry is on disk. Whatever fails after that is said with its id, because
//! sending it again would be another task.
#![forbid(unsafe_code)]

mod args;
mod child;
mod choose;
mod peer;
mod send;
mod task;
mod wait;

use std::panic::AssertUnwindSafe;
use std::process::ExitCode;

use dispatch_node::args::parse;
use dispatch_node::developer;
use dispatch_node::job::door::AgentSide;
use dispatch_node::report::{Exit, Report, door};

/// The command line, for the pages and completions that are made from it.
#[must_use]
pub fn command() -> clap::Command {
    <args::Cli as clap::CommandFactory>::command()
}

/// Runs the command.
#[must_use]
pub fn main() -> ExitCode {
    let cli: args::Cli = match parse() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    developer::init(cli.common.verbose);
    door(cli.common.form(), AssertUnwindSafe(|| run(&cli)))
}

/// As a person at this node, or as the agent of a task that runs here.
fn run(cli: &args::Cli) -> Result<Exit, Report> {
    match AgentSide::of_process()? {
        Some(side) => child::run(cli, &side),
        None => send::run(cli),
    }
}

#[cfg(test)]
mod tests;
