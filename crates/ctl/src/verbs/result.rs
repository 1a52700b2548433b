//! `dispatchctl result`: the verified outcome of a task.

use dispatch_core::protocol::TaskResult;
use dispatch_core::protocol::parts::CostBasis;
use dispatch_node::report::{Exit, Form, Report, after_help, say};
use dispatch_node::term::{Breaks, visible};
use dispatch_node::{durations, term};
use serde_json::{Value, json};

use crate::answer::{self, Answering, Printing};
use crate::context::Context;
use crate::named::find;

const EXAMPLES: &str = "  dispatchctl result dacaf1ff
  dispatchctl result dacaf1ff --json | jq .status
  dispatchctl result dacaf1ff --raw > answer.txt";

/// Show the verified outcome of a task (exit 75: there is none yet; 65: what is there does not verify)
#[derive(Debug, clap::Args)]
#[command(after_help = after_help(EXAMPLES))]
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
                Form::Json => say(&String::from_utf8_lossy(&answer.payload))?,
                Form::Text => {
                    context.tell(&summary(&answer.result));
                    answer::print_text(&answer.result, Printing::of(args.raw.into()))?;
                }
            }
            Ok(Exit::Done)
        }
        Answering::Unverified { code, hint } => {
            context.say_json(&json!({"unverified": true, "code": code, "status": hint.as_ref().map(|hint| hint.status.as_str())}))?;
            if let Some(hint) = hint {
                context.say(&format!("unverified: {}", summary(&hint)))?;
            }
            Err(Report::new(
                Exit::DoesNotVerify,
                format!("what lies at the result's place is unverified: {code}"),
            )
            .about(id)
            .help(
                "its owner sets such things aside and publishes the true one; dispatchctl resend asks for it",
            ))
        }
        Answering::Unsigned(result) => {
            context.say_json(&json!({"unverified": true, "code": "unsigned", "status": result.status, "result": value(result.document.as_bytes())}))?;
            if context.form() == Form::Text {
                Printing::of(args.raw.into()).print(result.text.as_deref().unwrap_or_default())?;
            }
            Err(Report::new(Exit::DoesNotVerify, answer::unsigned_line(&result)).about(id).help(
                "its node speaks version 2, which signs no answers: look there for what really happened",
            ))
        }
        Answering::None => Err(Report::new(Exit::TryLater, "there is no result yet")
            .about(id)
            .help("dispatchctl wait waits for it")),
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
