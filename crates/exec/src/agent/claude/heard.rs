//! What was heard of a run so far: one line of `stream-json` after the other.

use std::collections::BTreeSet;
use std::time::Instant;

use dispatch_core::policy::money::Usd;
use dispatch_core::policy::price::{Tokens, rounded_up};
use dispatch_core::protocol::limits::FINAL_TEXT_CHARS_MAX;
use dispatch_core::protocol::text::{first_chars, without_nul};
use dispatch_node::agents::Version;
use dispatch_node::job::{Cost, CostBasis};

use super::SUBAGENT_TOOLS;
use super::members::Members;
use crate::meter::{self, End, Mark, Meter, Said};

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
    pub(super) meter: Meter,
    /// A request was made and nothing of its response was heard yet.
    is_requesting: bool,
    /// Denials as they happened, with the tool call's id.
    denied: Vec<(String, String)>,
    open_tools: Vec<(String, Instant)>,
    /// Tool calls of which a subagent was made, and nobody said that it came to a good end.
    subagents: BTreeSet<String>,
    /// How far the meter was when a final line last summed everything up.
    summed: Mark,
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
    /// What this run cost by the agent's own figures; what a session cost before that is resumed is not among it.
    pub(super) usd: Option<Usd>,
    /// The same where it is said for this run alone.
    own_usd: Option<Usd>,
    /// What each model was used for, where that is said.
    models: Vec<(String, Tokens)>,
    pub(super) tokens: Option<Tokens>,
}

impl Heard {
    /// Nothing heard yet, by this meter.
    pub(super) fn by(meter: Meter) -> Heard {
        Heard { meter, ..Heard::default() }
    }

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
            Some("status") => self.is_requesting = line.is("status", "requesting"),
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
            let end = end_of(&message);
            self.message(line, &message.text("id").unwrap_or_default(), &message, end);
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
        let Some(id) = block.text("id") else { return };
        let is_subagent = self.last_tool.as_deref().is_some_and(|name| SUBAGENT_TOOLS.contains(&name));
        if is_subagent && self.subagents.len() < OPEN_TOOLS_MAX {
            self.subagents.insert(id.clone());
        }
        if self.open_tools.len() < OPEN_TOOLS_MAX {
            self.open_tools.push((id, now));
        }
    }

    fn user(&mut self, line: &Members) {
        // What a tool answered was asked for in a response that is over: of the one who asked, while others go on.
        self.meter.ended(line.text("parent_tool_use_id").as_deref());
        for block in line.object("message").objects("content") {
            let Some(id) = block.text("tool_use_id") else { continue };
            self.open_tools.retain(|(open, _)| *open != id);
            // A subagent that was interrupted may have been cut off in an answer.
            if !block.is_true("is_error") && self.subagents.remove(&id) {
                self.meter.ended(Some(&id));
            }
        }
    }

    /// Only with partial messages: the figures at a message's end, which its other lines forecast.
    fn stream_event(&mut self, line: &Members) {
        let event = line.object("event");
        let Some(id) = line.text("api_message_id") else { return };
        if event.is("type", "message_start") {
            self.message(line, &id, &event.object("message"), End::Unknown);
        } else if event.has("usage") {
            let end = end_of(&event.object("delta"));
            self.message(line, &id, &event, end);
        }
    }

    /// What a line says of a message: `about` has its usage and, on most lines, its model.
    fn message(&mut self, line: &Members, id: &str, about: &Members, end: End) {
        let (model, speaker) = (about.text("model"), line.text("parent_tool_use_id"));
        let said = Said {
            message: id,
            speaker: speaker.as_deref(),
            model: model.as_deref(),
            tokens: about.usage("usage").unwrap_or_default(),
            end,
        };
        let is_subagent = speaker.is_some();
        if !is_subagent {
            self.is_requesting = false;
        }
        // What subagents say is no turn of the run.
        if self.meter.heard(&said) == meter::Heard::New && !is_subagent {
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
        if !new.is_cut_off() {
            self.is_requesting = false;
            self.meter.ended(None);
        }
        if self.result.is_none() || new.usd.is_some() {
            self.summed = self.meter.mark();
        }
        match &mut self.result {
            Some(first) => first.add(new),
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

    /// Whether it went on after its final line, which a later one may have summed up since.
    pub(super) fn goes_on(&self) -> bool {
        self.result.is_some() && (self.is_requesting || self.meter.has_begun_since(self.summed))
    }

    /// Tokens: the final figures, else the sum so far.
    pub(super) fn tokens(&self) -> Tokens {
        let heard = self.meter.tokens();
        match self.result.as_ref().and_then(|result| result.tokens) {
            // Neither has to be complete then.
            Some(tokens) if self.goes_on() => tokens.largest(heard),
            Some(tokens) => tokens,
            None => heard,
        }
    }

    /// Dollars so far, for people who look while it runs.
    pub(super) fn usd(&self) -> Option<Usd> {
        let told = self.result.as_ref().and_then(|result| result.usd);
        let with_more = |usd: Usd| usd.checked_add(self.meter.usd_since(self.summed)?);
        told.map_or_else(|| self.meter.usd(), with_more)
    }

    /// What it cost: the agent's own figure, else what the meter heard, else nobody knows (policy section 1).
    pub(super) fn cost(&self) -> Option<Cost> {
        let result = self.result.as_ref()?;
        // What was spent after it said what it had cost. A request of which nothing came back has no bound.
        let more = if self.is_requesting { None } else { self.meter.usd_since(self.summed) }?;
        let told = match result.usd {
            Some(usd) if more.is_positive() => Some(derived(rounded_up(usd.checked_add(more)?))),
            Some(usd) => Some(Cost { usd, basis: CostBasis::Reported }),
            None => None,
        };
        if result.is_cut_off() {
            return self.cost_cut_off(told);
        }
        told.or_else(|| self.derived(result, more).map(derived))
    }

    /// A run that was cut off in a response does not say what that response cost, though it is paid for. What was heard of
    /// it and its longest answer are its bound; where not even its beginning was heard, there is none. Nor is there where a
    /// subagent was at work: what it asked for is not announced.
    fn cost_cut_off(&self, told: Option<Cost>) -> Option<Cost> {
        if !self.subagents.is_empty() {
            return None;
        }
        let told = told.filter(|cost| cost.usd.is_positive());
        match (told, self.meter.usd_at_most().map(rounded_up)) {
            (Some(cost), Some(bound)) if bound > cost.usd && self.meter.has_cut_off() => Some(derived(bound)),
            (Some(cost), _) => Some(cost),
            (None, Some(bound)) if bound.is_positive() => Some(derived(bound)),
            (None, _) => None,
        }
    }

    /// What was heard while it ran, or what the final line sums up: the larger, because neither has to be complete.
    fn derived(&self, result: &Final, more: Usd) -> Option<Usd> {
        let summed = result
            .models
            .iter()
            .try_fold(more, |sum, (model, tokens)| sum.checked_add(self.meter.price(model, tokens)?));
        let heard = if self.goes_on() { self.meter.usd_at_most() } else { self.meter.usd() }?;
        Some(rounded_up(summed.map_or(heard, |summed| summed.max(heard))))
    }
}

/// Whether this is said of a message that has come to its end.
fn end_of(about: &Members) -> End {
    if about.has("stop_reason") { End::Reached } else { End::Unknown }
}

fn derived(usd: Usd) -> Cost {
    Cost { usd, basis: CostBasis::Derived }
}

impl Final {
    /// True for a run that was cut off in the middle.
    pub(super) fn is_cut_off(&self) -> bool {
        let aborted = self.terminal_reason.as_deref().is_some_and(|reason| reason.starts_with("aborted"));
        aborted || self.subtype == "error_during_execution"
    }

    /// Adds what a later final line says.
    fn add(&mut self, later: Final) {
        self.usd = match (self.usd, later.own_usd) {
            (Some(usd), Some(more)) => usd.checked_add(more),
            (usd, _) => usd.max(later.usd),
        };
        self.tokens = match (self.tokens, later.own_usd) {
            (Some(tokens), Some(_)) => Some(tokens.plus(later.tokens.unwrap_or_default())),
            (tokens, _) => later.tokens.or(tokens),
        };
        self.models.extend(later.models);
    }

    fn read(line: &Members, denied: &[(String, String)]) -> Final {
        let listed = line.objects("permission_denials");
        let unlisted =
            denied.iter().filter(|(id, _)| !listed.iter().any(|denial| denial.is("tool_use_id", id)));
        let denials = listed.iter().map(denial).chain(unlisted.map(|(_, text)| text.clone()));
        // The other figures go on counting where a resumed session stopped: only these are of this run.
        let own = line.object("model_usage_since_last_result");
        let own_usd =
            own.all().map(|(_, model)| model.usd("costUSD")).reduce(|sum, more| sum?.checked_add(more?));
        let own_usd = own_usd.flatten();
        let models = if own_usd.is_some() { own } else { line.object("modelUsage") };
        let models: Vec<_> =
            models.all().map(|(name, model)| (name.to_owned(), model.model_usage())).collect();
        let summed = models.iter().map(|(_, tokens)| *tokens).reduce(Tokens::plus);
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
            usd: own_usd.or_else(|| line.usd("total_cost_usd")),
            own_usd,
            models,
            // The sum over models is complete; `usage` may be zero where a budget ended the run.
            tokens: summed.or_else(|| line.usage("usage")),
        }
    }
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
