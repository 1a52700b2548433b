//! What `dispatch-send` can be told.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use clap::{ArgGroup, Parser};
use dispatch_core::policy::money::Usd;
use dispatch_core::protocol::fraction::Fraction;
use dispatch_core::protocol::names::{Name, NodeName};
use dispatch_core::protocol::task::{Callback, Priority};
use dispatch_node::args::Common;
use dispatch_node::document::SCHEMA_HELP;
use dispatch_node::durations;
use dispatch_node::report::after_help_with;

pub(crate) const EXAMPLES: &str = "  dispatch-send --to gpubox --request 'run the tests and fix what fails'
  dispatch-send --to gpubox --workspace webapp --timeout 30m --file task.md --wait
  git diff | dispatch-send --to gpubox --profile review --wait -
  dispatch-send --to gpubox --file task.md --wait --follow
  dispatch-send --to gpubox --fanout 10 --budget 5 --file plan.md    it may send ten tasks and spend 5 USD with them
  dispatch-send --to gpubox --file task.md --wait --json | jq -r '.status, .result.final_text'
  dispatch-send --to gpubox --require-ack --max-cost 2.50 --json --file task.md";

/// Seal a task and hand it to another node
///
/// The request goes to the program that the receiver's profile names, on its standard input; it is never a command line. A
/// sender can ask for less than the receiver allows, never for more.
///
/// Prints the task's id and where it was put, separated by a tab. With --wait it prints the final text of the verified
/// result instead, and ends as the task did. Interrupting it ends the waiting, not the task: `dispatchctl wait ID` goes on.
///
/// A task's own agent may call it, too (DISPATCH_DOOR is set then): no configuration is read, and this node's watcher sends the
/// task as a child of the one that runs. A child may only have less than its parent: fan-out, budget, depth. --config, --from,
/// --to auto, --force, --callback, --follow and --accept-unverified are not for it.
#[derive(Clone, Debug, Parser)]
#[command(name = "dispatch-send", version, after_help = after_help_with(EXAMPLES, SCHEMA_HELP))]
#[command(group = ArgGroup::new("what").required(true).args(["request", "file", "stdin"]))]
pub(crate) struct Cli {
    /// The node that is to run it; `auto`: the best one, by what the nodes last said of themselves
    #[arg(long, value_name = "NODE")]
    pub(crate) to: String,
    /// This node; it must be the one of the configuration
    #[arg(long, value_name = "NODE", value_parser = node)]
    pub(crate) from: Option<NodeName>,

    /// The request itself
    #[arg(long, value_name = "TEXT")]
    pub(crate) request: Option<String>,
    /// A file that holds the request
    #[arg(long, value_name = "PATH")]
    pub(crate) file: Option<PathBuf>,
    /// Read the request from standard input
    #[arg(value_name = "-", value_parser = ["-"])]
    pub(crate) stdin: Option<String>,

    /// Which of the receiver's profiles runs it
    #[arg(long, value_name = "NAME", value_parser = name)]
    pub(crate) profile: Option<Name>,
    /// Which of the receiver's working directories (else a fresh one)
    #[arg(long, value_name = "NAME", value_parser = name)]
    pub(crate) workspace: Option<Name>,
    /// Which of the tasks that wait goes first
    #[arg(long, value_name = "WORD", value_parser = PossibleValuesParser::new(["low", "normal", "high"]).try_map(|word| priority(&word)))]
    pub(crate) priority: Option<Priority>,
    /// End it after so long, counted from its start: 90s, 10m, 2h
    #[arg(long, value_name = "DURATION", value_parser = seconds)]
    pub(crate) timeout: Option<u32>,
    /// End it when it prints nothing for so long, because it hangs; 0s: never
    #[arg(long, value_name = "DURATION", value_parser = seconds)]
    pub(crate) silence: Option<u32>,
    /// Keep at most so much of what it prints
    #[arg(long, value_name = "BYTES")]
    pub(crate) max_output: Option<u64>,
    /// Ceiling in US dollars; it can only lower the receiver's
    #[arg(long, value_name = "USD", value_parser = usd)]
    pub(crate) max_cost: Option<Usd>,
    /// How many tasks it may send in its turn, all that those send included (else none)
    #[arg(long, value_name = "N")]
    pub(crate) fanout: Option<u32>,
    /// What it and all tasks that it sends may cost together
    #[arg(long, value_name = "USD", value_parser = usd)]
    pub(crate) budget: Option<Usd>,
    /// The budget batch that it belongs to (else its sender's batch of the day)
    #[arg(long, value_name = "NAME")]
    pub(crate) run: Option<String>,
    /// Park it until a person approves
    #[arg(long)]
    pub(crate) require_ack: bool,
    /// Ask for the profile's unrestricted mode: the receiver must allow it, and a person decides
    #[arg(long)]
    pub(crate) dangerous: bool,
    /// Consent to a hosted API: what it asks may leave the receiver's network
    #[arg(long)]
    pub(crate) allow_sdk: bool,
    /// More than 1 says: this may safely run again after a crash
    #[arg(long, value_name = "N")]
    pub(crate) max_attempts: Option<u32>,
    /// It must have started within this time (else 24h)
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) expires: Option<Duration>,
    /// Input files
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub(crate) attach: Vec<PathBuf>,
    /// Checks of the receiver that must pass
    #[arg(long, value_name = "NAME", value_parser = name)]
    pub(crate) accept: Vec<Name>,
    /// For people: KEY=VALUE; may be given several times
    #[arg(long, value_name = "K=V", value_parser = label)]
    pub(crate) label: Vec<(String, String)>,
    /// How you hear that the result came: its file alone, or this node's watcher tells you ([notify])
    #[arg(long, value_name = "WORD", value_parser = PossibleValuesParser::new(["file", "notify", "none"]).try_map(|word| callback(&word)))]
    pub(crate) callback: Option<Callback>,
    /// GPU memory that a backend must have free
    #[arg(long, value_name = "GB", value_parser = fraction)]
    pub(crate) needs_vram: Option<Fraction>,
    /// Tool that a backend must offer
    #[arg(long, value_name = "NAME")]
    pub(crate) needs_tool: Option<String>,
    /// Image that a backend must have
    #[arg(long, value_name = "NAME")]
    pub(crate) needs_image: Option<String>,
    /// Send although the peer says it is full
    #[arg(long)]
    pub(crate) force: bool,

    /// Wait for the sealed result, verify it and print its final text; Ctrl-C stops waiting, not the task
    #[arg(long)]
    pub(crate) wait: bool,
    /// With --wait: show the log as it comes, and on a terminal where the task is meanwhile
    #[arg(long, requires = "wait", conflicts_with = "json")]
    pub(crate) follow: bool,
    /// With --wait: end as the answer of a version-2 peer says, which nobody signs
    #[arg(long, requires = "wait")]
    pub(crate) accept_unverified: bool,
    /// With --wait: print the text as it is where standard output is no terminal
    #[arg(long, requires = "wait")]
    pub(crate) raw: bool,

    // Last: its heading would take in what follows it.
    #[command(flatten)]
    pub(crate) common: Common,
}

fn node(text: &str) -> Result<NodeName, String> {
    NodeName::new(text).map_err(|error| error.to_string())
}

fn name(text: &str) -> Result<Name, String> {
    Name::new(text).map_err(|error| error.to_string())
}

fn priority(text: &str) -> Result<Priority, String> {
    Priority::parse(text).ok_or_else(|| "low, normal or high".to_owned())
}

fn callback(text: &str) -> Result<Callback, String> {
    Callback::parse(text).ok_or_else(|| "file, notify or none".to_owned())
}

fn duration(text: &str) -> Result<Duration, String> {
    durations::parse(text).map_err(|error| error.to_string())
}

fn seconds(text: &str) -> Result<u32, String> {
    let seconds = durations::parse_seconds(text).map_err(|error| error.to_string())?;
    u32::try_from(seconds).map_err(|_| "too long".to_owned())
}

fn usd(text: &str) -> Result<Usd, String> {
    Usd::from_wire(text).map_err(|error| error.to_string())
}

fn fraction(text: &str) -> Result<Fraction, String> {
    Fraction::from_wire(text).map_err(|error| error.to_string())
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| "KEY=VALUE".to_owned())?;
    Ok((key.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    fn parse(words: &[&str]) -> Result<Cli, clap::error::ErrorKind> {
        let words = ["dispatch-send", "--to", "b"].into_iter().chain(words.iter().copied());
        Cli::try_parse_from(words).map_err(|error| error.kind())
    }

    #[test]
    fn the_command_line_is_one_that_clap_takes() {
        Cli::command().debug_assert();
    }

    #[test]
    fn exactly_one_request_is_given() {
        assert!(parse(&["-"]).is_ok_and(|cli| cli.stdin.is_some()));
        assert!(parse(&["--request", "-x"]).is_err());
        assert!(parse(&["--request", "x"]).is_ok());
        assert!(parse(&[]).is_err());
        assert!(parse(&["--request", "x", "-"]).is_err());
        assert!(parse(&["--file", "x", "--request", "y"]).is_err());
        assert!(parse(&["x"]).is_err());
    }

    #[test]
    fn values_are_checked_where_they_are_given() {
        let cli = parse(&["-", "--timeout", "2h", "--label", "a=b", "--label", "c=d=e", "--max-cost", "0.5"])
            .unwrap();
        assert_eq!(cli.timeout, Some(7_200));
        assert_eq!(cli.label, [("a".to_owned(), "b".to_owned()), ("c".to_owned(), "d=e".to_owned())]);
        for bad in [
            ["--timeout", "2"],
            ["--timeout", "1500ms"],
            ["--max-cost", "1e3"],
            ["--profile", "A"],
            ["--priority", "urgent"],
            ["--label", "x"],
            ["--callback", "mail"],
        ] {
            assert!(parse(&[&["-"], bad.as_slice()].concat()).is_err(), "{bad:?}");
        }
    }
}
