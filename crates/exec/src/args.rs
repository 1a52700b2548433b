//! The command line of `dispatch-exec`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use dispatch_node::args::parse;
use dispatch_node::job::JobDir;
use dispatch_node::report::{Exit, Form, Report, after_help, door};

use crate::attempt::{self, Ran};
use crate::dry_run;

/// Run one attempt of a task, as ordered
///
/// The watcher starts it with a job directory. An agent whose task may send tasks finds in DISPATCH_DOOR and
/// DISPATCH_TOKEN what it needs to do so with dispatch-send, for as long as its attempt is open. There is no way to run a task past the checks; by hand:
/// `dispatch-watch --once --only ID`.
#[derive(Debug, Parser)]
#[command(
    name = "dispatch-exec",
    version,
    after_help = after_help(
        "  dispatch-exec --job ~/.local/state/dispatch/gpubox/jobs/devbox/0198…/1764072000\n  \
         dispatch-exec --dry-run --job DIR    what would be started, with which limits\n"
    )
)]
struct Door {
    /// The attempt's job directory
    #[arg(long, value_name = "DIR")]
    job: PathBuf,
    /// Print the program and its arguments, the names in its environment and the limits; start nothing
    #[arg(long)]
    dry_run: bool,
}

/// The command line, for the pages and completions that are made from it.
#[must_use]
pub fn command() -> clap::Command {
    <Door as clap::CommandFactory>::command()
}

/// Runs the command.
#[must_use]
pub fn main() -> ExitCode {
    let args: Door = match parse() {
        Ok(args) => args,
        Err(exit) => return exit,
    };
    door(Form::Text, move || run(&args))
}

fn run(args: &Door) -> Result<Exit, Report> {
    let job = JobDir::open(&args.job).map_err(|error| {
        Report::of(Exit::LocalIo, &error).help("name a directory like <state>/jobs/<from>/<id>/<epoch>")
    })?;
    if args.dry_run {
        return dry_run::print(&job);
    }
    match attempt::run(&job).map_err(|error| Report::of(Exit::LocalIo, &error))? {
        Ran::ToOutcome | Ran::NothingToDo => Ok(Exit::Done),
        Ran::LockBusy => Err(Report::new(Exit::TryLater, "another process holds this job directory")),
    }
}
