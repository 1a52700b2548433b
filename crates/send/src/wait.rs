//! `--wait`: what is shown meanwhile, and how the command ends.

use std::io::{self, IsTerminal};
use std::sync::Arc;

use dispatch_core::protocol::result::TaskResult;
use dispatch_core::protocol::v2::FlatResult;
use dispatch_node::clock;
use dispatch_node::document::{NoResult, Taken};
use dispatch_node::progress::HowFar;
use dispatch_node::report::{Exit, Form, Report, say, say_raw, tell};
use dispatch_node::term::{Breaks, visible};
use dispatch_node::waiting::{self, Answered, Bytes, End, Line, LogText, Printed, Shown, Sight, Whereabouts};

use crate::args::Cli;
use crate::send::Sent;

/// Waits for the result of what was sent.
pub(crate) fn wait(cli: &Cli, sent: &Sent) -> Result<Exit, Report> {
    let mut line = Line::new(Shown::of(&cli.common), "");
    let bytes = if cli.raw && !io::stdout().is_terminal() { Bytes::AsTheyAre } else { Bytes::Visible };
    let mut log = LogText::new(bytes);
    let mut far = None;
    let interest = match (cli.follow, cli.common.form()) {
        (true, _) => line.interest_beside_log(),
        // The document of a task that nobody waits for any more says where it was.
        (false, Form::Json) => waiting::Interest::Whereabouts,
        (false, Form::Text) => line.interest(),
    };
    if !cli.common.quiet && cli.common.form() == Form::Text {
        tell(&format!("sent {}", sent.record.id));
    }
    let end = waiting::wait(&Arc::clone(&sent.desk), sent.record.clone(), interest, |sight| match &sight {
        Sight::Log(piece) => {
            line.clear();
            // A reader that went away keeps nobody from the result's exit code.
            log.show(piece).unwrap_or_default();
        }
        Sight::At(whereabouts) => {
            if let Whereabouts::Told { far: told, .. } = whereabouts {
                far = Some(told.as_ref().clone());
            }
            line.show_beside(&log, &sight);
        }
        Sight::NoShare(_) | Sight::Disbelief(_) => line.show_beside(&log, &sight),
    });
    line.clear();
    finish(cli, sent, end, (log.end().unwrap_or(Printed::Something), far))
}

fn finish(cli: &Cli, sent: &Sent, end: End, (log, far): (Printed, Option<HowFar>)) -> Result<Exit, Report> {
    let (id, now) = (sent.record.id, clock::now());
    match end.answer(&sent.desk.lane, id) {
        Ok(Answered::Unsigned(answer)) => unsigned(cli, sent, &answer, log),
        Ok(Answered::Sealed(result)) => {
            let status = result.payload().status;
            if let Err(error) = sent.desk.outgoing.mark_answered(id, status, now) {
                tell(&format!("the answer could not be noted: {error}"));
            }
            let exit = waiting::exit_of(status);
            match cli.common.form() {
                Form::Text => print_answer(cli, result.payload(), exit, log),
                Form::Json => {
                    say(&sent.document().answered(result.payload(), result.bytes()).to_json()).map(|()| exit)
                }
            }
        }
        Err(without) => {
            if without.word == NoResult::NoAnswer
                && let Err(error) = sent.desk.outgoing.mark_unanswered(id, now)
            {
                tell(&format!("that could not be noted: {error}"));
            }
            match cli.common.form() {
                Form::Text => Err(without.report(id)),
                Form::Json => {
                    let document = sent.document().without_result(without.word, &without.reason);
                    say(&document.with_progress(far.as_ref()).to_json()).map(|()| without.exit)
                }
            }
        }
    }
}

/// The answer of a version-2 peer. It settles nothing, so waiting ends with 1 unless its word was asked for.
fn unsigned(cli: &Cli, sent: &Sent, answer: &FlatResult, log: Printed) -> Result<Exit, Report> {
    let taken = if cli.accept_unverified { Taken::AsSaid } else { Taken::AsHint };
    let exit = match taken {
        Taken::AsSaid => answer.known.map_or(Exit::TaskFailed, waiting::exit_of),
        Taken::AsHint => Exit::TaskFailed,
    };
    if cli.common.form() == Form::Json {
        return say(&sent.document().unsigned(answer, taken).to_json()).map(|()| exit);
    }
    match log {
        Printed::Something => {}
        Printed::Nothing => print_text(cli, answer.text.as_deref().unwrap_or_default())?,
    }
    let said = format!(
        "unverified: its answer says `{}`, and nobody signed it",
        visible(&answer.status, Breaks::Show)
    );
    if exit == Exit::Done {
        tell(&said);
        return Ok(exit);
    }
    Err(match taken {
        Taken::AsHint => Report::new(exit, said).help("--accept-unverified ends as the answer says"),
        Taken::AsSaid => Report::new(exit, said),
    })
}

pub(crate) fn print_answer(cli: &Cli, result: &TaskResult, exit: Exit, log: Printed) -> Result<Exit, Report> {
    match log {
        // What was followed holds the text already.
        Printed::Something => {}
        Printed::Nothing => {
            let text = result.final_text.as_deref().or(result.output_tail.as_deref());
            print_text(cli, text.unwrap_or_default())?;
        }
    }
    if result.truncated {
        // Neither the status nor the text shows it.
        tell(&format!("log cut: {} of {} bytes", result.log_bytes, result.output_bytes));
    }
    if exit == Exit::Done {
        return Ok(exit);
    }
    let what = format!("the task ended `{}`", result.status);
    Err(match &result.reason {
        Some(reason) => Report::new(exit, format!("{what}: {}", reason.text)).help(reason.help.clone()),
        None => Report::new(exit, what).help(format!("dispatchctl show {} says more", result.task)),
    }
    .about(result.task))
}

fn print_text(cli: &Cli, text: &str) -> Result<(), Report> {
    let as_it_is = cli.raw && !io::stdout().is_terminal();
    let mut text = if as_it_is { text.to_owned() } else { visible(text, Breaks::Keep) };
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    say_raw(text.as_bytes())
}
