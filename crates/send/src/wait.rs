//! `--wait`: what is shown meanwhile, and how the command ends.

use std::io::{self, IsTerminal, Write as _};
use std::sync::Arc;

use dispatch_core::protocol::result::TaskResult;
use dispatch_core::protocol::v2::FlatResult;
use dispatch_node::clock;
use dispatch_node::durations::short;
use dispatch_node::report::{Exit, Form, Report, say, say_raw, tell};
use dispatch_node::term::{Breaks, cut, visible};
use dispatch_node::waiting::{self, End, Interest, Sight, Whereabouts};

use crate::args::Cli;
use crate::document::{Document, Taken};
use crate::follow::{Follow, Printed};
use crate::send::Sent;

/// Longest line of progress.
const LINE_CHARS_MAX: usize = 78;

/// Waits for the result of what was sent.
pub(crate) fn wait(cli: &Cli, sent: &Sent) -> Result<Exit, Report> {
    let mut line = Line::of(cli);
    let mut log = Follow::of(cli);
    let interest = if cli.follow { Interest::Log } else { line.interest() };
    if !cli.common.quiet && cli.common.form() == Form::Text {
        tell(&format!("sent {}", sent.record.id));
    }
    let end = waiting::wait(&Arc::clone(&sent.desk), sent.record.clone(), interest, |sight| match &sight {
        Sight::Log(bytes) => log.show(bytes),
        Sight::At(_) | Sight::NoShare(_) | Sight::Disbelief(_) => line.show(&sight),
    });
    line.clear();
    finish(cli, sent, end, log.end())
}

fn finish(cli: &Cli, sent: &Sent, end: End, log: Printed) -> Result<Exit, Report> {
    let (id, now) = (sent.record.id, clock::now());
    let document = Document::of(sent);
    match end {
        End::Answer(result) => {
            let status = result.payload().status;
            if let Err(error) = sent.desk.outgoing.mark_answered(id, status, now) {
                tell(&format!("the answer could not be noted: {error}"));
            }
            let exit = waiting::exit_of(status);
            match cli.common.form() {
                Form::Text => print_answer(cli, result.payload(), exit, log),
                Form::Json => say(&document.answered(status, result.bytes()).to_json()).map(|()| exit),
            }
        }
        End::Unverified(answer) => unverified(cli, document, &answer, log),
        End::NotBelieved(refusal) => {
            let code = refusal.map_or("not_a_regular_file", |refusal| refusal.code.as_str());
            ended(cli, &document.without_answer("unverified"), || {
                Report::new(
                    Exit::DoesNotVerify,
                    format!("what lies at the result's place is unverified: {code}"),
                )
                .about(id)
                .help("compare both nodes' keys/ beside dispatch.toml; the task may well have run")
            })
        }
        End::NoAnswer => {
            if let Err(error) = sent.desk.outgoing.mark_unanswered(id, now) {
                tell(&format!("that could not be noted: {error}"));
            }
            ended(cli, &document.without_answer("no_answer"), || {
                Report::new(Exit::TaskFailed, "no_answer: the time for a result is over").about(id).help(
                    format!("look whether `{}` runs; the task may or may not have run", sent.desk.lane.to),
                )
            })
        }
        End::Interrupted => ended(cli, &document.without_answer("interrupted"), || {
            Report::new(Exit::Interrupted, "stopped waiting; the task goes on")
                .about(id)
                .help(format!("dispatchctl wait {id} waits again, dispatchctl cancel {id} ends it"))
        }),
    }
}

/// The answer of a version-2 peer. It settles nothing, so waiting ends with 1 unless its word was asked for.
fn unverified(cli: &Cli, document: Document, answer: &FlatResult, log: Printed) -> Result<Exit, Report> {
    let taken = if cli.accept_unverified { Taken::AsSaid } else { Taken::AsHint };
    let exit = match taken {
        Taken::AsSaid => answer.known.map_or(Exit::TaskFailed, waiting::exit_of),
        Taken::AsHint => Exit::TaskFailed,
    };
    if cli.common.form() == Form::Json {
        return say(&document.unverified(answer, taken).to_json()).map(|()| exit);
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

/// An end without a result: the document for programs, the report for people.
fn ended(cli: &Cli, document: &Document, report: impl FnOnce() -> Report) -> Result<Exit, Report> {
    let report = report();
    match cli.common.form() {
        Form::Text => Err(report),
        Form::Json => say(&document.to_json()).map(|()| report.exit()),
    }
}

fn print_answer(cli: &Cli, result: &TaskResult, exit: Exit, log: Printed) -> Result<Exit, Report> {
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

/// The one line that shows where the task is, on a terminal.
struct Line {
    shown: Shown,
    last: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Shown {
    /// A person looks at standard error: the line is rewritten.
    InPlace,
    /// Asked for by `-v`: one line per change.
    PerChange,
    /// Not at all.
    Never,
}

impl Line {
    fn of(cli: &Cli) -> Line {
        let shown = if cli.common.quiet || cli.common.form() == Form::Json {
            Shown::Never
        } else if io::stderr().is_terminal() {
            Shown::InPlace
        } else if cli.common.verbose > 0 {
            Shown::PerChange
        } else {
            Shown::Never
        };
        Line { shown, last: None }
    }

    const fn interest(&self) -> Interest {
        match self.shown {
            Shown::InPlace | Shown::PerChange => Interest::Whereabouts,
            Shown::Never => Interest::AnswerOnly,
        }
    }

    fn show(&mut self, sight: &Sight) {
        let text = cut(&visible(&words(sight), Breaks::Show), LINE_CHARS_MAX);
        if self.last.as_ref() == Some(&text) {
            return;
        }
        match self.shown {
            // Where the terminal is gone there is nobody left to show it to.
            Shown::InPlace => drop(write!(io::stderr(), "\r\x1b[K{text}")),
            Shown::PerChange => tell(&text),
            Shown::Never => {}
        }
        self.last = Some(text);
    }

    fn clear(&mut self) {
        if self.shown == Shown::InPlace && self.last.take().is_some() {
            drop(write!(io::stderr(), "\r\x1b[K"));
        }
    }
}

fn words(sight: &Sight) -> String {
    match sight {
        Sight::At(whereabouts) => match whereabouts {
            Whereabouts::Inbox => "in the inbox, not taken yet".to_owned(),
            Whereabouts::Waiting => "waiting for a decision".to_owned(),
            Whereabouts::Queued { position: Some(position) } => format!("queued, place {position}"),
            Whereabouts::Queued { position: None } => "queued".to_owned(),
            Whereabouts::Running { elapsed_ms, usd, last_tool } => {
                let mut text = "running".to_owned();
                if let Some(elapsed) = elapsed_ms.and_then(|elapsed| i64::try_from(elapsed).ok()) {
                    text.push_str(&format!(" {}", short(elapsed)));
                }
                if let Some(usd) = usd {
                    text.push_str(&format!(", ${usd}"));
                }
                if let Some(tool) = last_tool {
                    text.push_str(&format!(", {tool}"));
                }
                text
            }
            Whereabouts::Unseen => "on its way".to_owned(),
        },
        Sight::NoShare(why) => format!("the share cannot be looked at: {why}"),
        // It is printed by its own hand.
        Sight::Log(_) => String::new(),
        Sight::Disbelief(code) => {
            format!("something that does not verify lies at the result's place: {code}")
        }
    }
}
