//! The answer to a task, from wherever this node may believe it, and how it is shown.

use std::io::{self, IsTerminal as _};

use dispatch_core::protocol::TaskResult;
use dispatch_core::protocol::limits::ENVELOPE_BYTES_MAX;
use dispatch_core::protocol::payload::Payload as _;
use dispatch_core::protocol::v2::FlatResult;
use dispatch_node::clock;
use dispatch_node::config::Config;
use dispatch_node::outgoing::Heard;
use dispatch_node::report::{Exit, Report, say_raw};
use dispatch_node::term::{Breaks, visible};
use dispatch_node::waiting::exit_of;
use dispatch_spool::upkeep::find_result;

use crate::named::{Found, SentTask, ledger};
use crate::sender;

/// A result that was verified against what this node knows, with its exact payload.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) result: TaskResult,
    pub(crate) payload: Vec<u8>,
}

/// What is there of an answer.
#[derive(Debug)]
pub(crate) enum Answering {
    /// The answer.
    Verified(Box<Answer>),
    /// Something lies at its name that is not to be believed: the code of why, and what it says.
    Unverified { code: &'static str, hint: Option<Box<TaskResult>> },
    /// The answer of a version-2 peer, which nobody signs: it settles nothing.
    Unsigned(Box<FlatResult>),
    /// Nothing yet.
    None,
}

/// Looks for the answer once: the ledger for a task that was sent here, `done/` and then the archive for one sent from here.
pub(crate) fn look(config: &Config, found: &Found) -> Result<Answering, Report> {
    match found {
        Found::Received(row) => {
            let Some(ledger) = ledger(config)? else { return Ok(Answering::None) };
            match ledger.result(&row.key)? {
                None => Ok(Answering::None),
                Some(payload) => {
                    let result = TaskResult::from_stored(&payload).map_err(|error| {
                        Report::new(Exit::Bug, "the ledger holds a result that cannot be read")
                            .because(&error)
                    })?;
                    Ok(Answering::Verified(Box::new(Answer { result, payload })))
                }
            }
        }
        Found::Sent(sent) => of_sent(config, sent),
    }
}

fn of_sent(config: &Config, sent: &SentTask) -> Result<Answering, Report> {
    let desk = sender::desk(config, sent.outgoing.lane())?;
    let limit = u64::try_from(ENVELOPE_BYTES_MAX).unwrap_or(u64::MAX);
    let Some(bytes) = find_result(&desk.share, &desk.lane, sent.record.id, limit)? else {
        return Ok(Answering::None);
    };
    Ok(match desk.mail().judge_answer(&bytes, &desk.outgoing, &sent.record) {
        Heard::Answer(verified) => {
            let status = verified.payload().status;
            if sent.record.answered.is_none() {
                desk.outgoing.mark_answered(sent.record.id, status, clock::now())?;
            }
            let payload = verified.bytes().to_vec();
            Answering::Verified(Box::new(Answer { result: verified.into_parts().0, payload }))
        }
        Heard::Unverified(result) => Answering::Unsigned(result),
        Heard::NotBelieved { refusal, .. } => Answering::Unverified {
            code: refusal.map_or("not_a_regular_file", |refusal| refusal.code.as_str()),
            hint: dispatch_core::protocol::believe::hint(&bytes).map(Box::new),
        },
        Heard::Nothing => Answering::None,
    })
}

/// How output of a task is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Printing {
    /// Control characters made visible.
    Visible,
    /// As it is: only where no terminal is.
    AsItIs,
}

impl Printing {
    /// `--raw` counts only where standard output is no terminal.
    pub(crate) fn of(raw: Raw) -> Printing {
        match raw {
            Raw::Asked if !io::stdout().is_terminal() => Printing::AsItIs,
            Raw::Asked | Raw::NotAsked => Printing::Visible,
        }
    }

    pub(crate) fn print(self, text: &str) -> Result<(), Report> {
        match self {
            Printing::AsItIs => say_raw(text.as_bytes()),
            Printing::Visible => say_raw(visible(text, Breaks::Keep).as_bytes()),
        }
    }
}

/// Whether `--raw` was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Raw {
    /// It was.
    Asked,
    /// It was not.
    NotAsked,
}

impl From<bool> for Raw {
    fn from(raw: bool) -> Raw {
        if raw { Raw::Asked } else { Raw::NotAsked }
    }
}

/// The final text, else the end of the output, with a line end.
pub(crate) fn print_text(result: &TaskResult, printing: Printing) -> Result<(), Report> {
    let text = result.final_text.as_deref().or(result.output_tail.as_deref()).unwrap_or_default();
    if text.is_empty() {
        return Ok(());
    }
    printing.print(text)?;
    if text.ends_with('\n') { Ok(()) } else { say_raw(b"\n") }
}

/// One line about an answer that nobody signed.
pub(crate) fn unsigned_line(result: &FlatResult) -> String {
    let exit = result.exit_code.map_or(String::new(), |code| format!(", exit {code}"));
    let line = format!("unverified: its answer says `{}`{exit}, and nobody signed it", result.status);
    visible(&line, Breaks::Show)
}

/// How waiting for a task ends: done, or a report that names its status and reason.
pub(crate) fn ended(result: &TaskResult) -> Result<Exit, Report> {
    let exit = exit_of(result.status);
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
