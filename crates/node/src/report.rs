//! How every command ends: one table of exit codes, and one shape for what went wrong.
//!
//! `error: WHAT (task 0198…): WHY` on standard error, then at most one line `help: WHAT TO DO NOW`; with `--json` the
//! same members as one line of JSON.

use std::error::Error;
use std::io::{self, Write as _};
use std::panic::{UnwindSafe, catch_unwind};
use std::process::ExitCode;

use dispatch_core::protocol::names::TaskId;

use crate::term::{Breaks, Colour, Tone, visible};

/// Exit codes of all commands (architecture, "Exit codes").
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Exit {
    /// 0: done; with `--wait` the task ended `ok` or `verified`.
    Done,
    /// 1: the task ended otherwise.
    TaskFailed,
    /// 2: wrong arguments.
    Usage,
    /// 65: a message does not verify.
    DoesNotVerify,
    /// 66: no such task.
    NoSuchTask,
    /// 69: the share cannot be reached.
    ShareUnreachable,
    /// 70: a bug of ours.
    Bug,
    /// 73: another watcher holds this node.
    AnotherWatcher,
    /// 74: local input or output failed.
    LocalIo,
    /// 75: at capacity, draining, or no watcher: try later.
    TryLater,
    /// 77: not permitted.
    NotPermitted,
    /// 78: the configuration, keys or state directory are not usable.
    Config,
    /// 124: the task timed out or fell silent.
    TimedOut,
    /// 130: interrupted.
    Interrupted,
}

impl Exit {
    /// Every code, in order.
    pub const ALL: [Exit; 14] = [
        Exit::Done,
        Exit::TaskFailed,
        Exit::Usage,
        Exit::DoesNotVerify,
        Exit::NoSuchTask,
        Exit::ShareUnreachable,
        Exit::Bug,
        Exit::AnotherWatcher,
        Exit::LocalIo,
        Exit::TryLater,
        Exit::NotPermitted,
        Exit::Config,
        Exit::TimedOut,
        Exit::Interrupted,
    ];

    /// The number the process ends with.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::TaskFailed => 1,
            Exit::Usage => 2,
            Exit::DoesNotVerify => 65,
            Exit::NoSuchTask => 66,
            Exit::ShareUnreachable => 69,
            Exit::Bug => 70,
            Exit::AnotherWatcher => 73,
            Exit::LocalIo => 74,
            Exit::TryLater => 75,
            Exit::NotPermitted => 77,
            Exit::Config => 78,
            Exit::TimedOut => 124,
            Exit::Interrupted => 130,
        }
    }

    /// What it means, in a few words.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Exit::Done => "done (with --wait: ok or verified)",
            Exit::TaskFailed => "the task ended otherwise",
            Exit::Usage => "wrong arguments",
            Exit::DoesNotVerify => "a message does not verify",
            Exit::NoSuchTask => "no such task",
            Exit::ShareUnreachable => "the share cannot be reached",
            Exit::Bug => "a bug in Dispatch",
            Exit::AnotherWatcher => "another watcher holds this node",
            Exit::LocalIo => "local input or output failed",
            Exit::TryLater => "at capacity, draining, or no watcher runs: try later",
            Exit::NotPermitted => "not permitted (with --wait: denied or rejected; killswitch)",
            Exit::Config => "configuration, keys or state directory are not usable",
            Exit::TimedOut => "the task timed out or fell silent",
            Exit::Interrupted => "interrupted",
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.code())
    }
}

/// The table of exit codes as the end of every `--help` and man page.
#[must_use]
pub fn exit_codes_help() -> String {
    Exit::ALL.iter().fold(String::from("Exit codes:\n"), |mut text, exit| {
        let line = format!("  {:>3}  {}\n", exit.code(), exit.meaning());
        text.push_str(&line);
        text
    })
}

/// Examples, then the table of exit codes: the text under a command's options.
#[must_use]
pub fn after_help(examples: &str) -> String {
    format!("Examples:\n{}\n\n{}", examples.trim_end(), exit_codes_help().trim_end())
}

/// As [`after_help`], with more about what is printed between the two.
#[must_use]
pub fn after_help_with(examples: &str, more: &str) -> String {
    format!("Examples:\n{}\n\n{}\n\n{}", examples.trim_end(), more.trim_end(), exit_codes_help().trim_end())
}

/// An operation's error that knows how a command ends because of it.
pub trait Explain: Error {
    /// The exit code.
    fn exit(&self) -> Exit;

    /// What a person does now, in one line; nothing where nobody knows better than the error itself.
    fn help(&self) -> Option<String> {
        None
    }
}

/// The examples in a text that [`after_help`] or [`after_help_with`] made.
#[must_use]
pub fn examples_of(after_help: &str) -> Option<&str> {
    after_help.strip_prefix("Examples:\n")?.split("\n\n").next()
}

/// What stands between the examples and the exit codes in a text that [`after_help_with`] made.
#[must_use]
pub fn more_of(after_help: &str) -> Option<&str> {
    let (_, rest) = after_help.split_once("\n\n")?;
    Some(rest.split_once("\n\nExit codes:")?.0)
}

/// How a report is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// Sentences for a person.
    #[default]
    Text,
    /// One line of JSON.
    Json,
}

/// Why a command failed: what, why, and what to do. Printed once, at the end of `main`.
#[derive(Debug)]
pub struct Report {
    exit: Exit,
    what: String,
    why: Vec<String>,
    task: Option<TaskId>,
    help: Option<String>,
    silent: bool,
}

impl Report {
    /// A report that starts here: what failed, in one lower-case clause.
    #[must_use]
    pub fn new(exit: Exit, what: impl Into<String>) -> Report {
        Report { exit, what: what.into(), why: Vec::new(), task: None, help: None, silent: false }
    }

    /// An error and its causes.
    #[must_use]
    pub fn of(exit: Exit, error: &dyn Error) -> Report {
        Report { why: chain(error.source()), ..Report::new(exit, error.to_string()) }
    }

    /// An end that needs no words: the reader of our output went away, or everything was said already.
    #[must_use]
    pub fn silent(exit: Exit) -> Report {
        Report { silent: true, ..Report::new(exit, "") }
    }

    /// The same under a broader clause: what was being done.
    #[must_use]
    pub fn while_doing(mut self, what: impl Into<String>) -> Report {
        let inner = std::mem::replace(&mut self.what, what.into());
        self.why.insert(0, inner);
        self
    }

    /// With an error as its cause.
    #[must_use]
    pub fn because(mut self, error: &dyn Error) -> Report {
        self.why = chain(Some(error));
        self
    }

    /// About this task.
    #[must_use]
    pub fn about(mut self, task: TaskId) -> Report {
        self.task = Some(task);
        self
    }

    /// What to do now, where it says so.
    #[must_use]
    pub fn help_text(&self) -> Option<&str> {
        self.help.as_deref()
    }

    /// With this to do now; an empty text is no help.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Report {
        self.help = Some(help.into()).filter(|help| !help.trim().is_empty());
        self
    }

    /// What and why on one line, for a word beside other results.
    #[must_use]
    pub fn one_line(&self) -> String {
        let mut line = visible(&self.what, Breaks::Show);
        for why in &self.why {
            line.push_str(": ");
            line.push_str(&visible(why, Breaks::Show));
        }
        line
    }

    /// How the process ends.
    #[must_use]
    pub const fn exit(&self) -> Exit {
        self.exit
    }

    /// The sentences a person reads, without colour; strangers' characters made visible.
    #[must_use]
    pub fn text(&self, colour: Colour) -> String {
        let mut text = colour.paint(Tone::Bad, "error:");
        text.push(' ');
        text.push_str(&visible(&self.what, Breaks::Show));
        if let Some(task) = self.task {
            let about = format!(" (task {task})");
            text.push_str(&about);
        }
        for why in &self.why {
            text.push_str(": ");
            text.push_str(&visible(why, Breaks::Show));
        }
        if let Some(help) = &self.help {
            text.push_str(&format!(
                "\n{} {}",
                colour.paint(Tone::Bold, "help:"),
                visible(help, Breaks::Keep)
            ));
        }
        text
    }

    /// The same members as one line of JSON.
    #[must_use]
    pub fn json(&self) -> String {
        serde_json::json!({"error": {
            "code": self.exit.code(),
            "what": self.what,
            "task": self.task.map(|task| task.to_string()),
            "why": self.why,
            "help": self.help,
        }})
        .to_string()
    }

    /// Prints it on standard error and answers how the process ends.
    #[must_use]
    pub fn print(&self, form: Form) -> ExitCode {
        if !self.silent {
            let text = match form {
                Form::Text => self.text(Colour::of_stderr()),
                Form::Json => self.json(),
            };
            // Where standard error is gone there is nobody left to tell.
            drop(writeln!(io::stderr(), "{text}"));
        }
        self.exit.into()
    }
}

impl<E: Explain + 'static> From<E> for Report {
    fn from(error: E) -> Report {
        let help = error.help();
        Report { help, ..Report::of(error.exit(), &error) }
    }
}

/// The causes of an error, outermost first, each said once.
fn chain(mut cause: Option<&dyn Error>) -> Vec<String> {
    let mut why: Vec<String> = Vec::new();
    while let Some(error) = cause {
        let text = error.to_string();
        if why.last() != Some(&text) {
            why.push(text);
        }
        cause = error.source();
    }
    why
}

/// An error with all its causes on one line, for the operator's log.
#[must_use]
pub fn one_line(error: &dyn Error) -> String {
    let mut text = error.to_string();
    for cause in chain(error.source()) {
        text.push_str(": ");
        text.push_str(&cause);
    }
    text
}

/// Runs a command to its end: prints its report, and turns a panic into exit code 70.
pub fn door(form: Form, run: impl FnOnce() -> Result<Exit, Report> + UnwindSafe) -> ExitCode {
    match catch_unwind(run) {
        Ok(Ok(exit)) => exit.into(),
        Ok(Err(report)) => report.print(form),
        Err(_) => Report::new(Exit::Bug, "this is a bug in Dispatch")
            .help("please report it with the lines above; nothing was half-done that a second run would not finish")
            .print(form),
    }
}

/// Writes a line to standard output.
///
/// # Errors
/// Silent when the reader went away, a report otherwise.
pub fn say(text: &str) -> Result<(), Report> {
    said(writeln!(io::stdout(), "{text}"))
}

/// Writes text to standard output as it is and flushes it.
///
/// # Errors
/// Silent when the reader went away, a report otherwise.
pub fn say_raw(bytes: &[u8]) -> Result<(), Report> {
    let mut stdout = io::stdout();
    said(stdout.write_all(bytes).and_then(|()| stdout.flush()))
}

/// Tells a person something beside the results: standard error, never an error itself.
pub fn tell(text: &str) {
    // Where standard error is gone there is nobody left to tell.
    drop(writeln!(io::stderr(), "{text}"));
}

fn said(result: io::Result<()>) -> Result<(), Report> {
    match result {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Report::silent(Exit::LocalIo)),
        Err(error) => Err(Report::new(Exit::LocalIo, "cannot write to standard output").because(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot open the box")]
    struct Outer {
        source: io::Error,
    }

    impl Explain for Outer {
        fn exit(&self) -> Exit {
            Exit::LocalIo
        }
        fn help(&self) -> Option<String> {
            Some("fetch the key".to_owned())
        }
    }

    fn report() -> Report {
        Report::from(Outer { source: io::Error::other("no \x1b[31mkey") })
    }

    #[test]
    fn a_report_names_what_why_and_what_to_do() {
        let task = TaskId::parse("01a1f89c-fb83-734b-96bb-78a1dacaf1ff").unwrap();
        assert_eq!(
            report().about(task).text(Colour::Off),
            "error: cannot open the box (task 01a1f89c-fb83-734b-96bb-78a1dacaf1ff): no \\x1b[31mkey\nhelp: fetch the key"
        );
    }

    #[test]
    fn json_holds_the_same_members() {
        let value: serde_json::Value = serde_json::from_str(&report().json()).unwrap();
        assert_eq!(value["error"]["code"], 74);
        assert_eq!(value["error"]["what"], "cannot open the box");
        assert_eq!(value["error"]["help"], "fetch the key");
    }

    #[test]
    fn no_two_exit_codes_are_the_same() {
        let mut codes: Vec<u8> = Exit::ALL.map(Exit::code).into();
        codes.dedup();
        assert_eq!(codes.len(), Exit::ALL.len());
        assert!(exit_codes_help().contains("\n   65  a message does not verify\n"));
    }

    #[test]
    fn the_readme_has_the_same_table_of_exit_codes() {
        let readme = include_str!("../../../README.md");
        let table = exit_codes_help();
        assert!(readme.contains(table.trim_start_matches("Exit codes:\n")), "{table}");
    }

    #[test]
    fn a_panic_ends_with_the_code_for_our_own_bugs() {
        let code = door(Form::Text, || panic!("on purpose"));
        assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::from(70)));
    }
}
