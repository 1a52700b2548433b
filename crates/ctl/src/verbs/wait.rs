//! `dispatchctl wait`: as `dispatch-send --wait`, for tasks that were sent before, and for those that were sent here.

use std::sync::Arc;

use dispatch_core::protocol::TaskResult;
use dispatch_core::protocol::names::TaskId;
use dispatch_core::protocol::v2::FlatResult;
use dispatch_node::clock;
use dispatch_node::config::Config;
use dispatch_node::document::{Document, NoResult, SCHEMA_HELP, Taken};
use dispatch_node::progress::HowFar;
use dispatch_node::report::{Exit, Form, Report, after_help_with, say};
use dispatch_node::waiting::{self, Answered, Interest, Line, Sight, Whereabouts, Without};
use serde_json::Value;

use crate::answer::{self, Printing};
use crate::context::Context;
use crate::here;
use crate::named::{Found, SentTask, find};
use crate::sender;

/// Wait for results; the exit code is that of the first task that did not end well
///
/// On a terminal it shows where each task is meanwhile. Ctrl-C stops waiting, not the task. With --json it prints one
/// document for each task, in the order given.
#[derive(Debug, clap::Args)]
#[command(after_help = after_help_with("  dispatchctl wait dacaf1ff\n  dispatchctl wait dacaf1ff 0c9f11e2 --json", SCHEMA_HELP))]
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
        let about = if tasks.len() > 1 { format!("{} ", task.id().short()) } else { String::new() };
        let line = Line::new(context.shown(), &about);
        let ended = one(args, &config, task, line, context).map_err(|report| report.about(task.id()));
        match ended {
            Ok(Exit::Done) => {}
            Ok(Exit::Interrupted) => return Ok(Exit::Interrupted),
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
    /// Prints the document, with what it is about. What it says of the answer stands.
    fn say(&self, document: &Document) -> Result<(), Report> {
        let mut all = document.to_value();
        if let (Value::Object(all), Value::Object(about)) = (&mut all, self.about) {
            let more = about.iter().filter(|(name, value)| {
                !value.is_null() && !["status", "verified", "reason", "result"].contains(&name.as_str())
            });
            all.extend(more.map(|(name, value)| (name.clone(), value.clone())));
        }
        say(&all.to_string())
    }
}

/// Waits for the answer to a task that was sent from here.
pub(super) fn for_answer(
    config: &Config,
    sent: &SentTask,
    printed: Printed<'_>,
    context: &Context,
) -> Result<Exit, Report> {
    sent_from_here(printed, config, sent, Line::new(context.shown(), ""), context)
}

fn one(args: &Args, config: &Config, task: &Found, line: Line, context: &Context) -> Result<Exit, Report> {
    let printed = Printed { raw: args.raw, accept_unverified: args.accept_unverified, about: &Value::Null };
    match task {
        Found::Sent(sent) => sent_from_here(printed, config, sent, line, context),
        Found::Received(row) => {
            let (mut line, mut far) = (line, None);
            let end = here::wait(config, task, row, |sight| {
                if let Some(sight) = sight {
                    note(&mut far, sight);
                    line.show(sight);
                }
                Ok(())
            })?;
            line.clear();
            let document = here::document(config, row);
            match end {
                here::End::Answer(answer) => {
                    finish(printed, document, &answer.result, &answer.payload, context)
                }
                here::End::Without(without) => {
                    ended(printed, document, &without, far.as_ref(), row.key.id, context)
                }
            }
        }
    }
}

fn note(far: &mut Option<HowFar>, sight: &Sight) {
    if let Sight::At(Whereabouts::Told { far: told, .. }) = sight {
        *far = Some(told.as_ref().clone());
    }
}

fn sent_from_here(
    printed: Printed<'_>,
    config: &Config,
    sent: &SentTask,
    mut line: Line,
    context: &Context,
) -> Result<Exit, Report> {
    let desk = Arc::new(sender::desk(config, sent.outgoing.lane())?);
    let id = sent.record.id;
    let mut far = None;
    let interest = match context.form() {
        Form::Json => Interest::Whereabouts,
        Form::Text => line.interest(),
    };
    let end = waiting::wait(&desk, sent.record.clone(), interest, |sight| {
        note(&mut far, &sight);
        line.show(&sight);
    });
    line.clear();
    let document = Document::sent(&desk.lane, &sent.record, &desk.inbox_path(id), &[]);
    match end.answer(&desk.lane, id) {
        Ok(Answered::Unsigned(answer)) => unsigned(printed, document, &answer, context),
        Ok(Answered::Sealed(verified)) => {
            desk.outgoing.mark_answered(id, verified.payload().status, clock::now())?;
            finish(printed, document, verified.payload(), verified.bytes(), context)
        }
        Err(without) => {
            if without.word == NoResult::NoAnswer {
                desk.outgoing.mark_unanswered(id, clock::now())?;
            }
            ended(printed, document, &without, far.as_ref(), id, context)
        }
    }
}

/// The answer of a version-2 peer settles nothing, so waiting ends with 1 unless its word was asked for.
fn unsigned(
    printed: Printed<'_>,
    document: Document,
    answer: &FlatResult,
    context: &Context,
) -> Result<Exit, Report> {
    let taken = if printed.accept_unverified { Taken::AsSaid } else { Taken::AsHint };
    let exit = match (taken, answer.known) {
        (Taken::AsSaid, Some(status)) => waiting::exit_of(status),
        (Taken::AsSaid, None) | (Taken::AsHint, _) => Exit::TaskFailed,
    };
    if context.form() == Form::Json {
        printed.say(&document.unsigned(answer, taken))?;
        return Ok(exit);
    }
    Printing::of(printed.raw.into()).print(answer.text.as_deref().unwrap_or_default())?;
    let line = answer::unsigned_line(answer);
    if exit == Exit::Done {
        context.tell(&line);
        return Ok(exit);
    }
    let report = Report::new(exit, line);
    Err(match taken {
        Taken::AsSaid => report,
        Taken::AsHint => report.help("--accept-unverified ends as the answer says"),
    })
}

/// An end without a result: the document for programs, the report for people.
fn ended(
    printed: Printed<'_>,
    document: Document,
    without: &Without,
    far: Option<&HowFar>,
    id: TaskId,
    context: &Context,
) -> Result<Exit, Report> {
    match context.form() {
        Form::Text => Err(without.report(id)),
        Form::Json => {
            let document = document.without_result(without.word, &without.reason).with_progress(far);
            printed.say(&document)?;
            Ok(without.exit)
        }
    }
}

fn finish(
    printed: Printed<'_>,
    document: Document,
    result: &TaskResult,
    payload: &[u8],
    context: &Context,
) -> Result<Exit, Report> {
    if context.form() == Form::Json {
        printed.say(&document.answered(result, payload))?;
        return Ok(waiting::exit_of(result.status));
    }
    answer::print_text(result, Printing::of(printed.raw.into()))?;
    answer::ended(result)
}
