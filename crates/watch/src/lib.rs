//! `dispatch-watch`: a node's daemon. It looks at the share, verifies what lies there, keeps the ledger, starts
//! executors and publishes what they left.
//!
//! Wake, look, plan, act: a hint from inotify or the local door only rings; every pass lists the share afresh, asks the
//! rules, writes what they say in one transaction, and then does it. Recovery after a crash is the same pass.
#![forbid(unsafe_code)]

mod acting;
mod agents_door;
mod alerts;
mod args;
mod attempts;
mod beat;
mod beating;
mod budget;
mod children;
mod chores;
mod courier;
mod deciding;
mod door;
mod driver;
mod ending;
mod filing;
mod forward;
mod guards;
mod home;
mod leasing;
mod lineage;
mod look;
mod metrics;
mod near;
mod node;
mod owning;
mod pass;
mod progress;
mod recipes;
mod reply;
mod routing;
mod running;
mod standing;
mod taking;
mod telling;
mod terms;
mod tripping;
mod unsigned;
mod voice;
mod wake;
mod workers;

#[cfg(test)]
mod tests;

use std::process::ExitCode;

/// The command line, for the pages and completions that are made from it.
#[must_use]
pub fn command() -> clap::Command {
    <args::Args as clap::CommandFactory>::command()
}

/// Runs the command.
#[must_use]
pub fn main() -> ExitCode {
    let args: args::Args = match dispatch_node::args::parse() {
        Ok(args) => args,
        Err(code) => return code,
    };
    dispatch_node::developer::init(args.common.verbose);
    dispatch_node::report::door(args.common.form(), move || driver::run(&args))
}
