//! What was heard of a run so far: one line of `stream-json` after the other.

use std::time::Instant;

use dispatch_core::policy::money::Usd;
use dispatch_core::protocol::limits::FINAL_TEXT_CHARS_MAX;
use dispatch_core::protocol::text::{first_chars, without_nul};
use dispatch_node::agents::Version;
use dispatch_node::job::Usage;

use super::members::Members;
use super::tokens::{Message, Tokens, sum};

/// Denials that are kept.
const DENIALS_MAX: usize = 100;
/// Characters of one denial, of a name, of a line for people.
const WORD_CHARS_MAX: usize = 200;
/// Tool calls that can be open at a time.
const OPEN_TOOLS_MAX: usize = 256;

/// A run as far as it was heard.
#[derive(Debug, Default)]
pub(super) struct Heard {
    pub(super) version: Option<String>,
    pub(super) session_id: Option<String>,
    pub(super) turns: u64,
    pub(super) last_tool: Option<String>,
    pub(super) last_line: Option<String>,
    pub(super) tokens: Tokens,
    /// Denials as they happened, with the tool call's id.
    denied: Vec<(String, String)>,
    open_tools: Vec<(String, Instant)>,
    /// The word of the last message that was not the model's but the client's about a failing API.
    pub(super) api_error: Option<String>,
    /// A limit of the account is reached, and until when (unix seconds), where it says so.
    pub(super) wall: Option<Wall>,
    /// The line that ends the run.
    pub(super) result: Option<Final>,
    /// When the run was over: its final line, or a first one that says enough.
    pub(super) over_at: Option<Over>,
}

/// A limit of the account that does not go away by trying again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wall {
    /// Until when, in unix seconds.
    pub(super) resets_at: Option<u64>,
}

/// Why a run is over although its process may live on.
#[derive(Clone, Copy, Debug)]
pub(super) enum Over {
    /// Its final line came.
    Said(Instant),
    /// It is of a version that is not run.
    Unsupported(Instant),
}

/// The final line.
#[derive(Debug, Default)]
pub(super) struct Final {
    pub(super) subtype: String,
    pub(super) terminal_reason: Option<String>,
    pub(super) is_error: bool,
    pub(super) api_status: Option<u64>,
    pub(super) api_kind: Option<String>,
    pub(super) is_local_command: bool,
    pub(super) text: Option<String>,
    pub(super) errors: Vec<String>,
    pub(super) denials: Vec<String>,
    pub(super) usd: Option<Usd>,
    pub(super) usage: Option<Usage>,
}

impl Heard {
    /// Takes one line. What is no object says nothing.
    pub(super) fn line(&mut self, line: &[u8], now: Instant) {
        let Some(line) = Members::read(line) else { return };
        if let Some(session) = line.text("session_id") {
            self.session_id = Some(word(&session));
        }
        match line.text("type").as_deref() {
            Some("system") => self.system(&line, now),
            Some("assistant") => self.assistant(&line, now),
            Some("user") => self.user(&line),
            Some("stream_event") => self.stream_event(&line),
            Some("rate_limit_event") => self.rate_limit(&line.object("rate_limit_info")),
            Some("result") => self.result(&line, now),
            _ => {}
        }
    }

    fn system(&mut self, line: &Members, now: Instant) {
        match line.text("subtype").as_deref() {
            Some("init") => {
                self.version = line.text("claude_code_version").map(|version| word(&version));
                let version = self.version.as_deref().and_then(Version::parse);
                if version.is_some_and(Version::is_too_old) {
                    self.over_at = Some(Over::Unsupported(now));
                }
            }
            Some("permission_denied") if self.denied.len() < DENIALS_MAX => {
                let tool = line.text("tool_name").unwrap_or_else(|| "a tool".to_owned());
                let why = line.text("message").unwrap_or_default();
                let id = line.text("tool_use_id").unwrap_or_default();
                self.denied.push((id, word(format!("{tool} {why}").trim_end())));
            }
            _ => {}
        }
    }

    fn assistant(&mut self, line: &Members, now: Instant) {
        self.api_error = line.text("error").map(|word_of_it| word(&word_of_it));
        let message = line.object("message");
        if !message.is("model", "<synthetic>") {
            let id = message.text("id").unwrap_or_default();
            let usage = message.usage("usage").unwrap_or_default();
            // What subagents say is no turn of the run.
            if self.tokens.heard(&id, usage) == Message::New && !line.has("parent_tool_use_id") {
                self.turns = self.turns.saturating_add(1);
            }
        }
        for block in message.objects("content") {
            match block.text("type").as_deref() {
                Some("tool_use") => self.tool_opened(&block, now),
                Some("text") => self.last_line = block.text("text").as_deref().and_then(last_line),
                _ => {}
            }
        }
    }

    fn tool_opened(&mut self, block: &Members, now: Instant) {
        let name = word(&block.text("name").unwrap_or_default());
        self.last_line = Some(asked(&name, &block.object("input")));
        self.last_tool = Some(name);
        if let Some(id) = block.text("id").filter(|_| self.open_tools.len() < OPEN_TOOLS_MAX) {
            self.open_tools.push((id, now));
        }
    }

    fn user(&mut self, line: &Members) {
        for block in line.object("message").objects("content") {
            if let Some(id) = block.text("tool_use_id") {
                self.open_tools.retain(|(open, _)| *open != id);
            }
        }
    }

    /// Only with partial messages: the figures at a message's end, which its other lines forecast.
    fn stream_event(&mut self, line: &Members) {
        let event = line.object("event");
        let usage = event.usage("usage").or_else(|| event.object("message").usage("usage"));
        if let Some((id, usage)) = line.text("api_message_id").zip(usage)
            && self.tokens.heard(&id, usage) == Message::New
            && !line.has("parent_tool_use_id")
        {
            self.turns = self.turns.saturating_add(1);
        }
    }

    fn rate_limit(&mut self, info: &Members) {
        if info.is("status", "rejected") && !info.is_true("isUsingOverage") {
            self.wall = Some(Wall { resets_at: info.count("resetsAt") });
        } else if info.is("status", "allowed") || info.is("status", "allowed_warning") {
            self.wall = None;
        }
    }

    /// The first final line is the answer. Later ones (a second turn that nobody asked for) tell only what it all cost.
    fn result(&mut self, line: &Members, now: Instant) {
        let new = Final::read(line, &self.denied);
        match &mut self.result {
            Some(first) => {
                first.usd = new.usd.max(first.usd);
                first.usage = new.usage.or(first.usage);
            }
            None => {
                self.over_at.get_or_insert(Over::Said(now));
                self.open_tools.clear();
                self.result = Some(new);
            }
        }
    }

    /// Since when the tool call that was opened last is open.
    pub(super) fn tool_open_since(&self) -> Option<Instant> {
        self.open_tools.iter().map(|(_, since)| *since).max()
    }

    /// Denials so far, the final line's own list first.
    pub(super) fn denials(&self) -> Vec<String> {
        match &self.result {
            Some(result) => result.denials.clone(),
            None => self.denied.iter().map(|(_, text)| text.clone()).collect(),
        }
    }

    /// Tokens: the final figures, else the sum so far.
    pub(super) fn usage(&self) -> Usage {
        self.result.as_ref().and_then(|result| result.usage).unwrap_or_else(|| self.tokens.so_far())
    }
}

impl Final {
    /// True for a run that was cut off in the middle.
    pub(super) fn is_cut_off(&self) -> bool {
        let aborted = self.terminal_reason.as_deref().is_some_and(|reason| reason.starts_with("aborted"));
        aborted || self.subtype == "error_during_execution"
    }

    /// What it cost. A run that was cut off in its first response says nothing, though that response is paid for too: there
    /// the figure is not known (policy section 1).
    pub(super) fn believed_usd(&self) -> Option<Usd> {
        self.usd.filter(|usd| usd.is_positive() || !self.is_cut_off())
    }

    fn read(line: &Members, denied: &[(String, String)]) -> Final {
        let by_model: Vec<Usage> = line.object("modelUsage").all().map(|model| model_usage(&model)).collect();
        let listed = line.objects("permission_denials");
        let unlisted =
            denied.iter().filter(|(id, _)| !listed.iter().any(|denial| denial.is("tool_use_id", id)));
        let denials = listed.iter().map(denial).chain(unlisted.map(|(_, text)| text.clone()));
        Final {
            subtype: word(&line.text("subtype").unwrap_or_default()),
            terminal_reason: line.text("terminal_reason"),
            is_error: line.is_true("is_error"),
            api_status: line.count("api_error_status"),
            api_kind: line.text("api_error_type"),
            is_local_command: line.has("local_command"),
            text: line.text("result").map(|text| clean(&text, FINAL_TEXT_CHARS_MAX)),
            errors: line.texts("errors").iter().map(|error| word(error)).collect(),
            denials: denials.take(DENIALS_MAX).collect(),
            usd: line.usd("total_cost_usd"),
            // The sum over models is complete; `usage` may be zero where a budget ended the run.
            usage: by_model.into_iter().reduce(sum).or_else(|| line.usage("usage")),
        }
    }
}

fn model_usage(model: &Members) -> Usage {
    model.tokens(["inputTokens", "outputTokens", "cacheReadInputTokens", "cacheCreationInputTokens"])
}

fn denial(denial: &Members) -> String {
    asked(&denial.text("tool_name").unwrap_or_else(|| "a tool".to_owned()), &denial.object("tool_input"))
}

/// A tool call in one line: its name and what it is about. Contents of files are not shown.
fn asked(tool: &str, input: &Members) -> String {
    let about = ["file_path", "notebook_path", "path", "command", "url", "pattern", "description"]
        .into_iter()
        .find_map(|name| input.text(name));
    word(format!("{tool} {}", about.unwrap_or_default()).trim_end())
}

fn last_line(text: &str) -> Option<String> {
    text.lines().rev().map(str::trim_end).find(|line| !line.is_empty()).map(word)
}

fn word(text: &str) -> String {
    clean(text.lines().next().unwrap_or_default(), WORD_CHARS_MAX)
}

fn clean(text: &str, chars_max: usize) -> String {
    without_nul(first_chars(text, chars_max))
}
