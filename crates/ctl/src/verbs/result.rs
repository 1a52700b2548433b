//! `dispatchctl result`: the verified outcome of a task.

use dispatch_core::protocol::TaskResult;
use dispatch_core::protocol::parts::CostBasis;
use dispatch_node::config::Config;
use dispatch_node::document::{Document, SCHEMA_HELP, Taken};
use dispatch_node::report::{Exit, Form, Report, after_help_with, say};
use dispatch_node::term::{Breaks, visible};
use dispatch_node::waiting::Without;
use dispatch_node::{durations, term};
use serde_json::Value;

use crate::answer::{self, Answering, Printing};
use crate::context::Context;
use crate::here;
use crate::named::{Found, find};

const EXAMPLES: &str = "  dispatchctl result dacaf1ff
  dispatchctl result dacaf1ff --json | jq -r .status
  dispatchctl result dacaf1ff --raw > answer.txt";

/// Show the verified outcome of a task (exit 75: there is none yet; 65: what is there does not verify)
#[derive(Debug, clap::Args)]
#[command(after_help = after_help_with(EXAMPLES, SCHEMA_HELP))]
pub(crate) struct Args {
    /// The task: its id, or at least 4 characters from its beginning or end
    id: String,
    /// Print control characters as they are, where standard output is no terminal
    #[arg(long)]
    raw: bool,
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<Exit, Report> {
    let config = context.config()?;
    let found = find(&config, &args.id)?;
    let id = found.id();
    match answer::look(&config, &found).map_err(|report| report.about(id))? {
        Answering::Verified(answer) => {
            match context.form() {
                Form::Json => {
                    say(&document(&config, &found).answered(&answer.result, &answer.payload).to_json())?;
                }
                Form::Text => {
                    context.tell(&summary(&answer.result));
                    answer::print_text(&answer.result, Printing::of(args.raw.into()))?;
                }
            }
            Ok(Exit::Done)
        }
        Answering::Unverified { code, hint } => {
            let without = Without::unverified(code);
            if context.form() == Form::Json {
                let document = document(&config, &found).without_result(without.word, &without.reason);
                say(&document.to_json())?;
                return Ok(without.exit);
            }
            if let Some(hint) = hint {
                context.say(&format!("unverified: {}", summary(&hint)))?;
            }
            Err(without.report(id).help(
                "its owner sets such things aside and publishes the true one; dispatchctl resend asks for it",
            ))
        }
        Answering::Unsigned(result) => {
            if context.form() == Form::Json {
                say(&document(&config, &found).unsigned(&result, Taken::AsHint).to_json())?;
                return Ok(Exit::DoesNotVerify);
            }
            Printing::of(args.raw.into()).print(result.text.as_deref().unwrap_or_default())?;
            Err(Report::new(Exit::DoesNotVerify, answer::unsigned_line(&result)).about(id).help(
                "its node speaks version 2, which signs no answers: look there for what really happened",
            ))
        }
        Answering::None => {
            if context.form() == Form::Json {
                let far = here::how_far_of(&config, &found);
                say(&document(&config, &found).with_progress(far.as_ref()).to_json())?;
                return Ok(Exit::TryLater);
            }
            Err(Report::new(Exit::TryLater, "there is no result yet")
                .about(id)
                .help("dispatchctl wait waits for it"))
        }
    }
}

/// What a program is told of a task beside its result.
fn document(config: &Config, found: &Found) -> Document {
    match found {
        Found::Received(row) => here::document(config, row),
        Found::Sent(sent) => {
            let lane = sent.outgoing.lane();
            Document::sent(lane, &sent.record, &here::inbox(config, lane, sent.record.id), &[])
        }
    }
}

/// One line about a result: how it ended, how long it took, what it cost.
pub(crate) fn summary(result: &TaskResult) -> String {
    let mut line = format!("{} {}", result.task.short(), result.status);
    if let Some(reason) = &result.reason {
        line.push_str(&format!(" ({}: {})", reason.code, reason.text));
    }
    if let Some(elapsed) = result.elapsed_ms.and_then(|elapsed| i64::try_from(elapsed).ok()) {
        line.push_str(&format!(", ran {}", durations::short(elapsed)));
    }
    // Free of charge is the rule for `command`; a line about it would only be noise.
    if let Some(usd) = result.cost.usd.filter(|_| result.cost.basis != CostBasis::None) {
        line.push_str(&format!(", ${usd} ({})", result.cost.basis));
    }
    if let Some(code) = result.exit_code {
        line.push_str(&format!(", exit {code}"));
    }
    if result.truncated {
        line.push_str(&format!(", log cut: {} of {} bytes", result.log_bytes, result.output_bytes));
    }
    if !result.decided_by.is_empty() {
        line.push_str(&format!(", decided by {}", result.decided_by.join(", ")));
    }
    term::cut(&visible(&line, Breaks::Show), 400)
}

/// The result as a value, for documents that hold more than it.
pub(crate) fn value(payload: &[u8]) -> Value {
    serde_json::from_slice(payload).unwrap_or(Value::Null)
}
