//! Claude Code in its print mode: one JSON object a line, the request on standard input.

mod heard;
mod lines;
mod members;
mod verdict;
mod wall;

use std::time::{Duration, Instant};

use dispatch_core::policy::admission::Billing;
use dispatch_core::policy::price::Tokens;
use dispatch_node::agents::CLAUDE_PROGRAM;
use dispatch_node::job::{Metering, Order, Usage};
use dispatch_node::{clock, ids};
use rustix::process::{Signal, geteuid};

use self::heard::{Heard, Over};
use self::lines::Lines;
use super::{Agent, Answer, HowFar, Recipe};
use crate::ending::{Exit, Haste, Rung, Whom, later};
use crate::launch::CannotStart;
use crate::meter::Meter;

/// The permission mode where the profile names none: files of the workspace may be changed, nothing else.
const PERMISSION_MODE: &str = "acceptEdits";
/// The mode without any check, and the flags that allow it.
const UNRESTRICTED: [&str; 3] =
    ["bypassPermissions", "--dangerously-skip-permissions", "--allow-dangerously-skip-permissions"];
/// Stands in front of the request. Without it, a request that begins with `/` is a command to the program itself, answered
/// without any model.
const FIRST_LINE: &str = "Request:\n";
/// What the agent is told about where it runs.
const SITUATION: &str = "You work unattended: nobody can answer questions or grant permissions while you run. The text \
    behind the line `Request:` is what is asked of you. Finish in this one run, leave nothing running, and end with a \
    final answer that says what you did and what is left.";
/// Between the final line and the end of a tree that does not go by itself.
const GRACE: Duration = Duration::from_secs(10);

/// What keeps a run to itself: no task that outlives it, no file read because a request names it with `@`, and no
/// traffic that is not the run's own.
const VARIABLES: [&str; 6] = [
    "CLAUDE_CODE_DISABLE_BACKGROUND_TASKS",
    "CLAUDE_CODE_DISABLE_FILE_MENTIONS",
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC",
    "DISABLE_AUTOUPDATER",
    "DISABLE_TELEMETRY",
    "DISABLE_ERROR_REPORTING",
];

/// Tools that let further models work at the same time, under the names that the known versions have for them.
const SUBAGENT_TOOLS: [&str; 4] = ["Task", "Agent", "Workflow", "SendMessage"];

/// SIGINT to the agent alone makes it say what it cost; SIGTERM does not.
const NORMAL: &[Rung] = &[
    Rung { signal: Signal::INT, whom: Whom::Agent, wait: Duration::from_secs(5) },
    Rung { signal: Signal::TERM, whom: Whom::Tree, wait: Duration::from_secs(5) },
];
const SHORT: &[Rung] = &[
    Rung { signal: Signal::INT, whom: Whom::Agent, wait: Duration::from_millis(700) },
    Rung { signal: Signal::TERM, whom: Whom::Tree, wait: Duration::from_millis(300) },
];

/// The adapter.
#[derive(Debug, Default)]
pub(super) struct Claude {
    lines: Lines,
    heard: Heard,
}

impl Claude {
    /// The adapter for an order.
    pub(super) fn new(order: &Order) -> Claude {
        Claude { lines: Lines::default(), heard: Heard::by(Meter::of(order)) }
    }
}

impl Agent for Claude {
    fn recipe(&self, order: &Order) -> Result<Recipe, CannotStart> {
        let (program, own) = match order.argv.split_first() {
            Some((program, own)) => (program.clone(), own),
            None => (CLAUDE_PROGRAM.to_owned(), &[][..]),
        };
        let mode = order.permission_mode.as_deref().unwrap_or(PERMISSION_MODE);
        if geteuid().is_root() && is_unrestricted(mode, own) {
            return Err(CannotStart::UnrestrictedRoot);
        }
        let session = ids::uuid_v4().map_err(|source| CannotStart::NoRandomness { source })?.to_string();
        let mut args = own.to_vec();
        // The receiver's rules come last: of two values of an option, the later one counts.
        args.extend(["-p", "--output-format", "stream-json", "--verbose"].map(str::to_owned));
        for (option, value) in [
            ("--permission-mode", mode),
            ("--setting-sources", "user"),
            ("--session-id", &session),
            ("--append-system-prompt", SITUATION),
        ] {
            args.extend([option.to_owned(), value.to_owned()]);
        }
        args.push("--strict-mcp-config".to_owned());
        let mut set = VARIABLES.map(|name| (name.to_owned(), "1".to_owned())).to_vec();
        if order.billing == Billing::Metered {
            // Without a ceiling or prices nothing would hold it, and a cap would be one in name only.
            let (Some(ceiling), Some(metering)) = (order.ceiling_usd, &order.metering) else {
                return Err(CannotStart::NoPrice);
            };
            if metering.prices.is_empty() {
                return Err(CannotStart::NoPrice);
            }
            args.extend(["--max-budget-usd".to_owned(), ceiling.to_string()]);
            meter_well(metering, &mut args, &mut set);
        }
        Ok(Recipe { program, args, set, first_line: FIRST_LINE })
    }

    fn take_stdout(&mut self, bytes: &[u8]) {
        let now = Instant::now();
        let heard = &mut self.heard;
        self.lines.push(bytes, |line| heard.line(line, now));
    }

    fn tool_open_since(&self) -> Option<Instant> {
        self.heard.tool_open_since()
    }

    fn over_at(&self) -> Option<Instant> {
        self.heard.over_at.map(|over| match over {
            Over::Said(at) => later(at, GRACE),
            Over::Unsupported(at) => at,
        })
    }

    fn is_spending(&self) -> bool {
        self.heard.over_at.is_none() || self.heard.goes_on()
    }

    fn meter(&self) -> Option<&Meter> {
        Some(&self.heard.meter)
    }

    fn how_far(&self) -> HowFar {
        HowFar {
            turns: Some(self.heard.turns),
            last_tool: self.heard.last_tool.clone(),
            tokens: Some(self.heard.tokens().total()),
            usd: self.heard.usd(),
            last_line: self.heard.last_line.clone(),
        }
    }

    fn ladder(&self, haste: Haste) -> &'static [Rung] {
        match haste {
            Haste::Normal => NORMAL,
            Haste::Short => SHORT,
        }
    }

    fn answer(&mut self, exit: Option<Exit>) -> Answer {
        let (now, heard) = (Instant::now(), &mut self.heard);
        self.lines.finish(|line| heard.line(line, now));
        let (status, reason) = verdict::verdict(&self.heard, exit);
        let result = self.heard.result.as_ref();
        Answer {
            status,
            reason,
            // Also of a run that failed: its last words say why, in the one place where a sender looks first.
            final_text: result.and_then(|result| result.text.clone()),
            cost: self.heard.cost(),
            // Of a run of which nothing was heard, nobody knows.
            usage: self.heard.session_id.as_ref().map(|_| usage(self.heard.tokens())),
            version: self.heard.version.clone(),
            session_id: self.heard.session_id.clone(),
            resets_at: verdict::resets_at(&self.heard, clock::now()),
            permission_denials: self.heard.denials(),
        }
    }
}

fn is_unrestricted(mode: &str, own: &[String]) -> bool {
    let words = own.iter().flat_map(|word| word.split('=')).chain([mode]);
    words.into_iter().any(|word| UNRESTRICTED.contains(&word))
}

/// What makes a run's cost seen in time, and bounds what is not seen yet: usage as soon as a response begins, one size of
/// answer, no cache that is dearer than the price of a request that was reserved, and no more requests at once than that.
fn meter_well(metering: &Metering, args: &mut Vec<String>, set: &mut Vec<(String, String)>) {
    args.push("--include-partial-messages".to_owned());
    if let Some(model) = metering.models.first() {
        args.extend(["--model".to_owned(), model.clone()]);
    }
    set.extend([
        ("CLAUDE_CODE_MAX_OUTPUT_TOKENS".to_owned(), metering.output_tokens_max.to_string()),
        ("FORCE_PROMPT_CACHING_5M".to_owned(), "1".to_owned()),
    ]);
    let subagents = metering.parallel_requests.saturating_sub(1);
    if subagents == 0 {
        args.extend(["--disallowedTools".to_owned(), SUBAGENT_TOOLS.join(",")]);
    } else {
        set.push(("CLAUDE_CODE_MAX_CONCURRENT_SUBAGENTS".to_owned(), subagents.to_string()));
    }
}

fn usage(tokens: Tokens) -> Usage {
    Usage {
        input_tokens: tokens.input,
        output_tokens: tokens.output,
        cache_read_tokens: tokens.cache_read,
        cache_write_tokens: tokens.cache_write_5m.saturating_add(tokens.cache_write_1h),
    }
}
