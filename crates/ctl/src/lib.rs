//! `dispatchctl`: what an operator does on a node. One file per verb under `verbs`.
//!
//! It reads the ledger and never writes it; what a person changes goes through the local door to the watcher, or to the
//! share like anybody's message. Only `init` and `recover` write the ledger themselves, under `watch.lock`.
#![forbid(unsafe_code)]

mod answer;
mod beats;
mod context;
mod editing;
mod here;
mod named;
mod sender;
mod table;
mod takeover;
mod verbs;
mod views;
mod warnings;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use dispatch_node::args::{self, Common};
use dispatch_node::developer;
use dispatch_node::report::{after_help, door};

use context::Context;

const EXAMPLES: &str = "  dispatchctl init --root /mnt/shared/dispatch --node gpubox --peer devbox
  dispatchctl status
  dispatchctl show dacaf1ff";

/// Set up, look at and steer a node
///
/// Whoever asks and whoever works use the same verbs: what a node knows of a task is shown on either side. What is read is
/// read from this node's own ledger; what is changed goes through the watcher, so that there is one writer. A task is named
/// by its id, or by at least 4 characters of its beginning or end. `dispatchctl VERB --help` has examples.
#[derive(Debug, Parser)]
#[command(name = "dispatchctl", version, after_help = after_help(EXAMPLES), propagate_version = true)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Init(verbs::init::Args),
    Status(verbs::status::Args),
    List(verbs::list::Args),
    Show(verbs::show::Args),
    Explain(verbs::explain::Args),
    Wait(verbs::wait::Args),
    Result(verbs::result::Args),
    Logs(verbs::logs::Args),
    Cancel(verbs::cancel::Args),
    Retry(verbs::retry::Args),
    Resend(verbs::resend::Args),
    Kill(verbs::kill::KillArgs),
    Resume(verbs::kill::ResumeArgs),
    Drain(verbs::door::DrainArgs),
    Undrain(verbs::door::UndrainArgs),
    Doctor(verbs::doctor::Args),
    Verify(verbs::verify::Args),
    Audit(verbs::audit::Args),
    Budget(verbs::budget::Args),
    Recover(verbs::recover::Args),
    Config(verbs::config::Args),
    Keys(verbs::keys::Args),
    Approvers(verbs::approvers::Args),
    Policy(verbs::policy::Args),
    Completions(verbs::pages::CompletionsArgs),
    Man(verbs::pages::ManArgs),
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
            Verb::Status(args) => verbs::status::run(&args, &context),
            Verb::List(args) => verbs::list::run(&args, &context),
            Verb::Show(args) => verbs::show::run(&args, &context),
            Verb::Explain(args) => verbs::explain::run(&args, &context),
            Verb::Wait(args) => verbs::wait::run(&args, &context),
            Verb::Result(args) => verbs::result::run(&args, &context),
            Verb::Logs(args) => verbs::logs::run(&args, &context),
            Verb::Cancel(args) => verbs::cancel::run(&args, &context),
            Verb::Retry(args) => verbs::retry::run(&args, &context),
            Verb::Resend(args) => verbs::resend::run(&args, &context),
            Verb::Kill(args) => verbs::kill::kill(&args, &context),
            Verb::Resume(args) => verbs::kill::resume(&args, &context),
            Verb::Drain(args) => verbs::door::drain(&args, &context),
            Verb::Undrain(args) => verbs::door::undrain(&args, &context),
            Verb::Doctor(args) => verbs::doctor::run(&args, &context),
            Verb::Verify(args) => verbs::verify::run(&args, &context),
            Verb::Audit(args) => verbs::audit::run(&args, &context),
            Verb::Budget(args) => verbs::budget::run(&args, &context),
            Verb::Recover(args) => verbs::recover::run(&args, &context),
            Verb::Config(args) => verbs::config::run(&args, &context),
            Verb::Keys(args) => verbs::keys::run(&args, &context),
            Verb::Approvers(args) => verbs::approvers::run(&args, &context),
            Verb::Policy(args) => verbs::policy::run(&args),
            Verb::Completions(args) => verbs::pages::completions(&args, &context),
            Verb::Man(args) => verbs::pages::man(&args, &context),
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

    /// Words that lead to a command which is not there leave a person alone at the worst time.
    #[test]
    fn no_text_names_a_verb_that_is_not_there() {
        let planned = ["gc", "report", "stream"];
        let command = Cli::command();
        let missing: Vec<String> = planned
            .into_iter()
            .filter(|verb| command.find_subcommand(verb).is_none())
            .map(|verb| format!("dispatchctl {verb}"))
            .collect();
        let crates = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut open = vec![crates];
        while let Some(path) = open.pop() {
            if path.is_dir() {
                open.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            } else if path.extension().is_some_and(|end| end == "rs" || end == "toml") {
                let text = std::fs::read_to_string(&path).unwrap();
                let named = missing.iter().find(|words| text.contains(words.as_str()));
                assert_eq!(named, None, "{}", path.display());
            }
        }
    }
}
