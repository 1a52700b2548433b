//! `dispatchctl wait`: as `dispatch-send --wait`, for tasks that were sent before, and for those that were sent here.

use std::io::{self, IsTerminal as _};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use dispatch_core::protocol::TaskResult;
use dispatch_core::protocol::names::TaskId;
use dispatch_core::protocol::v2::FlatResult;
use dispatch_node::clock;
use dispatch_node::config::Config;
use dispatch_node::durations;
use dispatch_node::report::{Exit, Form, Report, after_help, tell};
use dispatch_node::term::{Breaks, cut, visible};
use dispatch_node::waiting::{self, End, Interest, Sight, Whereabouts};
use serde_json::{Value, json};

use super::result::value;
use crate::answer::{self, Answering, Printing};
use crate::context::Context;
use crate::named::{Found, SentTask, find};
use crate::sender;

/// From one look into the ledger to the next.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Longest line of progress.
const LINE_CHARS_MAX: usize = 78;

/// Wait for results; the exit code is that of the first task that did not end well
#[derive(Debug, clap::Args)]
#[command(after_help = after_help("  dispatchctl wait dacaf1ff\n  dispatchctl wait dacaf1ff 0c9f11e2 --json"))]
pub(crate) struct Args {
    /// The tasks: ids, or at least 4 characters from their beginning or end
    #[arg(required = true)]
    ids: Vec<String>,
    /// End as the answer of a version-2 peer says, which nobody signs
    #[arg(long)]
    accept_unverified: bool,
    /// Print control characters as they are, where standard output is no terminal
    #[arg(long)]
    raw: bool,
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<Exit, Report> {
    let config = context.config()?;
    sender::care(&config, context);
    let tasks: Vec<Found> = args.ids.iter().map(|id| find(&config, id)).collect::<Result<_, _>>()?;
    let mut first_failure = None;
    for task in &tasks {
        let ended = one(args, &config, task, context).map_err(|report| report.about(task.id()));
        match ended {
            Ok(Exit::Done) => {}
            Ok(exit) => first_failure = first_failure.or(Some(Ok(exit))),
            Err(report) if report.exit() == Exit::Interrupted => return Err(report),
            Err(report) if first_failure.is_none() => first_failure = Some(Err(report)),
            Err(report) => context.tell(&report.one_line()),
        }
    }
    first_failure.unwrap_or(Ok(Exit::Done))
}

/// How an answer is printed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Printed<'a> {
    /// `--raw` was given.
    pub(super) raw: bool,
    /// `--accept-unverified` was given.
    pub(super) accept_unverified: bool,
    /// Members that `--json` prints beside those about the answer; null for none.
    pub(super) about: &'a Value,
}

impl Printed<'_> {
    /// The document, with what it is about.
    fn document(&self, answer: Value) -> Value {
        match (self.about.clone(), answer) {
            (Value::Object(mut about), Value::Object(answer)) => {
                about.extend(answer);
                Value::Object(about)
            }
            (_, answer) => answer,
        }
    }
}

fn one(args: &Args, config: &Config, task: &Found, context: &Context) -> Result<Exit, Report> {
    let printed = Printed { raw: args.raw, accept_unverified: args.accept_unverified, about: &Value::Null };
    match task {
        Found::Sent(sent) => for_answer(config, sent, printed, context),
        Found::Received(_) => loop {
            if let Answering::Verified(answer) = answer::look(config, task)? {
                return finish(printed, &answer.result, &answer.payload, context);
            }
            thread::sleep(LOOK_EVERY);
        },
    }
}

/// Waits for the answer to a task that was sent from here.
pub(super) fn for_answer(
    config: &Config,
    sent: &SentTask,
    printed: Printed<'_>,
    context: &Context,
) -> Result<Exit, Report> {
    let desk = Arc::new(sender::desk(config, sent.outgoing.lane())?);
    let id = sent.record.id;
    let mut line =
        Line { last: String::new(), shown: context.form() == Form::Text && io::stderr().is_terminal() };
    let interest = if line.shown { Interest::Whereabouts } else { Interest::AnswerOnly };
    let end = waiting::wait(&desk, sent.record.clone(), interest, |sight| line.show(&sight));
    let without = |why: &str| {
        let answer = json!({"task": id.to_string(), "status": why, "verified": false, "result": null});
        context.say_json(&printed.document(answer))
    };
    match end {
        End::Answer(verified) => {
            desk.outgoing.mark_answered(id, verified.payload().status, clock::now())?;
            finish(printed, verified.payload(), verified.bytes(), context)
        }
        End::Unverified(result) => unsigned(printed, id, &result, context),
        End::NotBelieved(refusal) => {
            without("unverified")?;
            let code = refusal.map_or("not_a_regular_file", |refusal| refusal.code.as_str());
            Err(Report::new(
                Exit::DoesNotVerify,
                format!("what lies at the result's place is unverified: {code}"),
            )
            .help("the task may well have run; dispatchctl resend asks for its true answer"))
        }
        End::NoAnswer => {
            without("no_answer")?;
            desk.outgoing.mark_unanswered(id, clock::now())?;
            Err(Report::new(Exit::TaskFailed, "no_answer: the time for a result is over")
                .help(format!("look whether `{}` runs; the task may or may not have run", desk.lane.to)))
        }
        End::Interrupted => {
            without("interrupted")?;
            Err(Report::new(Exit::Interrupted, "stopped waiting; the task goes on"))
        }
    }
}

/// The answer of a version-2 peer settles nothing, so waiting ends with 1 unless its word was asked for.
fn unsigned(
    printed: Printed<'_>,
    id: TaskId,
    result: &FlatResult,
    context: &Context,
) -> Result<Exit, Report> {
    let exit = match result.known {
        Some(status) if printed.accept_unverified => waiting::exit_of(status),
        Some(_) | None => Exit::TaskFailed,
    };
    let status = if printed.accept_unverified { result.status.as_str() } else { "unverified" };
    if context.form() == Form::Json {
        let document = value(result.document.as_bytes());
        context.say_json(&printed.document(
            json!({"task": id.to_string(), "status": status, "verified": false, "result": document}),
        ))?;
        return Ok(exit);
    }
    Printing::of(printed.raw.into()).print(result.text.as_deref().unwrap_or_default())?;
    let line = answer::unsigned_line(result);
    if exit == Exit::Done {
        context.tell(&line);
        return Ok(exit);
    }
    let report = Report::new(exit, line);
    Err(if printed.accept_unverified {
        report
    } else {
        report.help("--accept-unverified ends as the answer says")
    })
}

fn finish(
    printed: Printed<'_>,
    result: &TaskResult,
    payload: &[u8],
    context: &Context,
) -> Result<Exit, Report> {
    if context.form() == Form::Json {
        context.say_json(&printed.document(json!({
            "task": result.task.to_string(),
            "status": result.status.as_str(),
            "verified": true,
            "result": value(payload),
        })))?;
        return Ok(waiting::exit_of(result.status));
    }
    answer::print_text(result, Printing::of(printed.raw.into()))?;
    answer::ended(result)
}

/// Where the task is meanwhile: one line per change, on a terminal.
struct Line {
    last: String,
    shown: bool,
}

impl Line {
    fn show(&mut self, sight: &Sight) {
        let text = cut(&visible(&words(sight), Breaks::Show), LINE_CHARS_MAX);
        if self.shown && !text.is_empty() && text != self.last {
            tell(&text);
            self.last = text;
        }
    }
}

fn words(sight: &Sight) -> String {
    match sight {
        Sight::At(Whereabouts::Inbox) => "in the inbox, not taken yet".to_owned(),
        Sight::At(Whereabouts::Waiting) => "waiting for a decision".to_owned(),
        Sight::At(Whereabouts::Queued { position: Some(position) }) => format!("queued, place {position}"),
        Sight::At(Whereabouts::Queued { position: None }) => "queued".to_owned(),
        Sight::At(Whereabouts::Running { elapsed_ms, usd, last_tool }) => {
            let elapsed = elapsed_ms.and_then(|elapsed| i64::try_from(elapsed).ok()).map(durations::short);
            let parts = [elapsed, usd.map(|usd| format!("${usd}")), last_tool.clone()];
            let rest: Vec<String> = parts.into_iter().flatten().collect();
            format!("running {}", rest.join(", "))
        }
        Sight::At(Whereabouts::Unseen) => "on its way".to_owned(),
        Sight::NoShare(why) => format!("the share cannot be looked at: {why}"),
        Sight::Disbelief(code) => {
            format!("something that does not verify lies at the result's place: {code}")
        }
        Sight::Log(_) => String::new(),
    }
}
