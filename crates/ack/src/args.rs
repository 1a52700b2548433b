//! The command line of `dispatch-ack`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use dispatch_core::policy::money::Usd;
use dispatch_core::protocol::limits;
use dispatch_core::protocol::names::NodeName;
use dispatch_node::args::{Common, parse};
use dispatch_node::developer;
use dispatch_node::durations::{self, NotADuration};
use dispatch_node::report::{Exit, Form, Report, after_help, door, tell};

use crate::desk::Desk;
use crate::standing::{self, StandingArgs};
use crate::which::IdPart;
use crate::{decide, list};

const EXAMPLES: &str = "  dispatch-ack                                    what waits, oldest first
  dispatch-ack dacaf1ff                           show it, ask, sign an approval
  dispatch-ack dacaf1ff --max-cost 1.50           approve, but for less
  dispatch-ack dacaf1ff --reject --reason 'not on a Friday'
  dispatch-ack dacaf1ff --yes --key ~/.ssh/id_ed25519 --reason 'reviewed'
  dispatch-ack --standing --from devbox --profile claude --max-cost 4 --total 40 --uses 20 --reason 'nightly runs'
  dispatch-ack --standing --list                  those of this node; --revoke ID takes one back";

/// Lists what waits for a decision; with ID, shows a task and signs an approval or a rejection of it
///
/// A task is named by its id, or by at least 4 digits of its beginning or end. What is shown was verified; what is
/// signed is bound to exactly that.
#[derive(Debug, Parser)]
#[command(name = "dispatch-ack", version, after_help = after_help(EXAMPLES))]
#[command(group = clap::ArgGroup::new("subject").args(["id", "standing"]))]
pub(crate) struct Door {
    /// The task to decide on
    #[arg(value_name = "ID")]
    pub(crate) id: Option<IdPart>,
    /// List also the lanes that end in another node
    #[arg(long, conflicts_with = "id")]
    pub(crate) all: bool,
    /// Only tasks that this node sent; with --standing: whose tasks it answers for
    #[arg(long, value_name = "NODE", value_parser = NodeName::new)]
    pub(crate) from: Option<NodeName>,
    /// Reject it: that ends the task
    #[arg(long, requires = "id", conflicts_with = "max_cost")]
    pub(crate) reject: bool,
    /// Why, at most 4 KiB
    #[arg(long, value_name = "TEXT", requires = "subject", value_parser = reason)]
    pub(crate) reason: Option<String>,
    /// Do not ask
    #[arg(long, requires = "subject")]
    pub(crate) yes: bool,
    /// Approve with a lower ceiling; with --standing: the most that each task may cost
    #[arg(long, value_name = "USD", requires = "subject", value_parser = Usd::from_wire)]
    pub(crate) max_cost: Option<Usd>,
    /// The OpenSSH key to sign with (else `key` under [approve], else the first of ~/.ssh/id_ed25519, id_ecdsa, id_rsa
    /// that is listed); a .pub file names a key in the agent
    #[arg(long, value_name = "FILE", requires = "subject")]
    pub(crate) key: Option<PathBuf>,
    /// Which of the key's principals decides
    #[arg(long = "as", value_name = "PRINCIPAL", requires = "subject")]
    pub(crate) principal: Option<String>,
    /// From when on the decision is void, at most 30d
    #[arg(long, value_name = "DURATION", requires = "id", default_value = "24h", value_parser = lifetime)]
    pub(crate) expires: Duration,
    /// Do not wait for the watcher to take the decision
    #[arg(long, requires = "id")]
    pub(crate) no_wait: bool,
    #[command(flatten)]
    pub(crate) standing: StandingArgs,
    // Last, because its heading holds for whatever comes after it.
    #[command(flatten)]
    pub(crate) common: Common,
}

impl Door {
    /// A line for a person beside the results; not with `--quiet` or `--json`.
    pub(crate) fn tell(&self, text: &str) {
        if !self.common.quiet && self.common.form() == Form::Text {
            tell(text);
        }
    }
}

/// A reason that is not one.
#[derive(Debug, thiserror::Error)]
#[error("a reason has 1 to {} bytes", limits::DECISION_REASON_BYTES_MAX)]
struct NotAReason;

fn reason(text: &str) -> Result<String, NotAReason> {
    let fits = !text.trim().is_empty() && text.len() <= limits::DECISION_REASON_BYTES_MAX;
    if fits { Ok(text.to_owned()) } else { Err(NotAReason) }
}

/// A life that a decision cannot have (protocol section 5).
#[derive(Debug, thiserror::Error)]
enum NotALifetime {
    #[error(transparent)]
    Duration(#[from] NotADuration),
    #[error("a decision lives from 1s to 30d")]
    Range,
}

fn lifetime(text: &str) -> Result<Duration, NotALifetime> {
    let life = durations::parse(text)?;
    let most = Duration::from_millis(limits::LIFETIME_MS_MAX.unsigned_abs());
    if (Duration::from_secs(1)..=most).contains(&life) { Ok(life) } else { Err(NotALifetime::Range) }
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
    developer::init(args.common.verbose);
    door(args.common.form(), move || run(&args))
}

fn run(args: &Door) -> Result<Exit, Report> {
    if args.standing.standing {
        return standing::run(args);
    }
    let desk = Desk::open(args)?;
    match &args.id {
        None => list::run(args, &desk),
        Some(part) => decide::run(args, &desk, part),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_one_that_clap_takes() {
        Door::command().debug_assert();
    }

    #[test]
    fn what_makes_no_sense_together_is_refused() {
        let read = |words: &[&str]| Door::try_parse_from([&["dispatch-ack"], words].concat());
        assert!(read(&["dacaf1ff", "--reject", "--reason", "no"]).is_ok());
        for bad in [
            &["--yes"][..],
            &["--reject"],
            &["abc"],
            &["dacaf1ff", "--reject", "--max-cost", "1"],
            &["dacaf1ff", "--max-cost", "1e3"],
            &["dacaf1ff", "--reason", " "],
            &["dacaf1ff", "--expires", "31d"],
            &["dacaf1ff", "--expires", "0s"],
            &["dacaf1ff", "--standing"],
            &["--list"],
            &["--standing", "--uses", "0"],
            &["--profile", "claude"],
        ] {
            assert!(read(bad).is_err(), "{bad:?}");
        }
    }
}
