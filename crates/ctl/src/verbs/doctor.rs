//! `dispatchctl doctor`: what this node stands on, looked at and measured. Nothing is changed but files of its own that go
//! again.

mod agents;
mod guarantee;
mod home;
mod machine;
mod peers;
mod share;

use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

use dispatch_node::config::Config;
use dispatch_node::report::{Exit, Form, Report, after_help, say, tell};
use dispatch_node::term::{Colour, Tone};
use serde_json::{Value, json};

use crate::context::Context;
use crate::views::line;

const EXAMPLES: &str = "  dispatchctl doctor
  dispatchctl doctor --json | jq -r '.lines[] | select(.verdict != \"ok\") | .mend'";

/// A check that takes longer is named meanwhile.
const SILENT_FOR: Duration = Duration::from_secs(2);
/// A check that takes longer is given up: what it hangs on hangs.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(60);
/// Longest text of a line.
const LINE_CHARS_MAX: usize = 1_000;

/// Look at everything this node stands on: keys, share, ledger, agents, clock; each line with its mend
#[derive(Debug, clap::Args)]
#[command(after_help = after_help(EXAMPLES))]
pub(crate) struct Args {}

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Ok,
    Warning,
    Failed,
}

impl Verdict {
    const fn as_str(self) -> &'static str {
        match self {
            Verdict::Ok => "ok",
            Verdict::Warning => "warning",
            Verdict::Failed => "failed",
        }
    }

    const fn tone(self) -> Tone {
        match self {
            Verdict::Ok => Tone::Good,
            Verdict::Warning => Tone::Warn,
            Verdict::Failed => Tone::Bad,
        }
    }
}

/// What a check says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    check: &'static str,
    verdict: Verdict,
    text: String,
    /// What to do about it; `None` where nothing is to be done.
    mend: Option<String>,
}

/// What the checks of one kind say.
#[derive(Debug, Default)]
struct Sheet {
    lines: Vec<Line>,
}

impl Sheet {
    fn ok(&mut self, check: &'static str, text: impl Into<String>) {
        self.lines.push(Line { check, verdict: Verdict::Ok, text: text.into(), mend: None });
    }

    fn warning(&mut self, check: &'static str, text: impl Into<String>, mend: impl Into<String>) {
        let mend = Some(mend.into());
        self.lines.push(Line { check, verdict: Verdict::Warning, text: text.into(), mend });
    }

    fn failed(&mut self, check: &'static str, text: impl Into<String>, mend: impl Into<String>) {
        let mend = Some(mend.into());
        self.lines.push(Line { check, verdict: Verdict::Failed, text: text.into(), mend });
    }

    /// A check that ended with an error of the floors below.
    fn report(&mut self, check: &'static str, report: &Report, mend: &str) {
        let mend = report.help_text().map_or_else(|| mend.to_owned(), str::to_owned);
        self.failed(check, report.one_line(), mend);
    }
}

/// One kind of checks.
type Check = fn(&Config) -> Sheet;

const CHECKS: [(&str, Check); 11] = [
    ("configuration", home::configuration),
    ("keys", home::keys),
    ("approvers", home::approvers),
    ("state", home::state),
    ("ledger", home::ledger),
    ("share", share::share),
    ("peers", peers::peers),
    ("agents", agents::agents),
    ("machine", machine::machine),
    ("stops", machine::stops),
    ("guarantee", guarantee::guarantee),
];

pub(crate) fn run(_args: &Args, context: &Context) -> Result<Exit, Report> {
    let mut lines = Vec::new();
    match context.config() {
        Ok(config) => {
            for (name, check) in CHECKS {
                let found = within(name, check, &config, context);
                show(&found, context)?;
                lines.extend(found);
            }
        }
        Err(report) => {
            let mut sheet = Sheet::default();
            sheet.report("configuration", &report, "mend the file: everything else rests on it");
            show(&sheet.lines, context)?;
            lines.extend(sheet.lines);
        }
    }
    end(&lines, context)
}

/// Runs one kind of checks on a thread of its own, so that a mount which hangs keeps nobody from the others.
fn within(name: &'static str, check: Check, config: &Config, context: &Context) -> Vec<Line> {
    let (done, ended) = sync_channel(1);
    let theirs = config.clone();
    thread::spawn(move || {
        // Nobody listens any more where it was given up.
        drop(done.send(check(&theirs)));
    });
    let mut waited = Duration::ZERO;
    while waited < GIVEN_UP_AFTER {
        match ended.recv_timeout(SILENT_FOR) {
            Ok(sheet) => return sheet.lines,
            Err(RecvTimeoutError::Timeout) => {
                waited = waited.saturating_add(SILENT_FOR);
                if context.form() == Form::Text {
                    tell(&format!("still looking at: {name} ({}s)", waited.as_secs()));
                }
            }
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    let mut sheet = Sheet::default();
    let text = format!("the checks of `{name}` did not end in {} s", GIVEN_UP_AFTER.as_secs());
    sheet.failed("doctor", text, "look whether the share or a disk hangs; a hung mount is mounted anew");
    sheet.lines
}

fn show(lines: &[Line], context: &Context) -> Result<(), Report> {
    let colour = Colour::of_stdout();
    for one in lines {
        let verdict = colour.paint(one.verdict.tone(), &format!("{:<8}", one.verdict.as_str()));
        context.say(&format!("{verdict} {:<14} {}", one.check, line(&one.text, LINE_CHARS_MAX)))?;
        if let Some(mend) = &one.mend {
            context.say(&format!("{:<24}mend: {}", "", line(mend, LINE_CHARS_MAX)))?;
        }
    }
    Ok(())
}

fn end(lines: &[Line], context: &Context) -> Result<Exit, Report> {
    let count = |verdict| lines.iter().filter(|line| line.verdict == verdict).count();
    let (warnings, failed) = (count(Verdict::Warning), count(Verdict::Failed));
    let all: Vec<Value> = lines
        .iter()
        .map(|line| {
            json!({
                "check": line.check, "verdict": line.verdict.as_str(), "text": line.text, "mend": line.mend,
            })
        })
        .collect();
    let document = json!({"ok": failed == 0, "warnings": warnings, "failed": failed, "lines": all});
    if context.form() == Form::Json {
        say(&document.to_string())?;
    }
    context.tell(&format!("{} checks: {failed} failed, {warnings} warnings", lines.len()));
    Ok(if failed == 0 { Exit::Done } else { Exit::TaskFailed })
}
