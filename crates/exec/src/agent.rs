//! Agents: one adapter per kind. An adapter knows its agent's command line, reads its output, and says what the end means.

mod claude;
mod command;

use std::time::{Duration, Instant};

use dispatch_core::policy::money::Usd;
use dispatch_core::protocol::time::Timestamp;
use dispatch_node::job::{AgentKind, Cost, Order, OutcomeStatus, Reason, Usage};

use crate::ending::{Exit, Haste, Rung};
use crate::launch::CannotStart;
use crate::meter::Meter;

/// What is started. It has no `Debug`, because variables hold secrets.
pub(crate) struct Recipe {
    /// The program.
    pub(crate) program: String,
    /// Its arguments; never hold the request.
    pub(crate) args: Vec<String>,
    /// Variables that this kind of agent wants beside the order's.
    pub(crate) set: Vec<(String, String)>,
    /// What stands in front of the request on standard input.
    pub(crate) first_line: &'static str,
}

/// How far an agent is, as far as its kind tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct HowFar {
    /// Turns so far.
    pub(crate) turns: Option<u64>,
    /// The last tool it used.
    pub(crate) last_tool: Option<String>,
    /// Tokens so far.
    pub(crate) tokens: Option<u64>,
    /// Cost so far.
    pub(crate) usd: Option<Usd>,
    /// The last line for people, where what it prints is none.
    pub(crate) last_line: Option<String>,
}

/// What an agent said in the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// What its end means, where nothing else ended it.
    pub(crate) status: OutcomeStatus,
    /// Why.
    pub(crate) reason: Option<Reason>,
    /// Its answer.
    pub(crate) final_text: Option<String>,
    /// What it cost.
    pub(crate) cost: Option<Cost>,
    /// Tokens it used.
    pub(crate) usage: Option<Usage>,
    /// Its version.
    pub(crate) version: Option<String>,
    /// Its session.
    pub(crate) session_id: Option<String>,
    /// When the limit of its account resets that ended it.
    pub(crate) resets_at: Option<Timestamp>,
    /// Permissions it was denied.
    pub(crate) permission_denials: Vec<String>,
}

/// One kind of agent.
pub(crate) trait Agent {
    /// Its command line. The request is on its standard input.
    fn recipe(&self, order: &Order) -> Result<Recipe, CannotStart>;
    /// Takes what came on its standard output, in pieces as they came.
    fn take_stdout(&mut self, bytes: &[u8]);
    /// Since when a tool call is open: it counts as output for the order's `tool_timeout_s`.
    fn tool_open_since(&self) -> Option<Instant>;
    /// When its tree is ended because the run is over, though its process lives; `None` while the run goes on.
    fn over_at(&self) -> Option<Instant>;
    /// Whether its ceiling still matters: until its run is over, and again where it goes on after that.
    fn is_spending(&self) -> bool;
    /// What its usage comes to; `None` for agents that show none.
    fn meter(&self) -> Option<&Meter>;
    /// How far it is.
    fn how_far(&self) -> HowFar;
    /// How it is asked to end, before everything is killed.
    fn ladder(&self, haste: Haste) -> &'static [Rung];
    /// What it said, once it has ended; `None` where it did not end by itself.
    fn answer(&mut self, exit: Option<Exit>) -> Answer;
}

/// The adapter for an order.
pub(crate) fn adapter(order: &Order) -> Result<Box<dyn Agent>, CannotStart> {
    match order.kind {
        AgentKind::Command => Ok(Box::new(command::Command::default())),
        AgentKind::Claude => Ok(Box::new(claude::Claude::new(order))),
        kind @ (AgentKind::Codex | AgentKind::Gemini) => Err(CannotStart::NoAdapter { kind }),
    }
}

/// How long silence has lasted at `now`, an open tool call counting as output for `tool_timeout`.
pub(crate) fn silent_since(
    last_output: Instant,
    tool_open_since: Option<Instant>,
    tool_timeout: Duration,
    now: Instant,
) -> Instant {
    let tool_spoke_until = tool_open_since.map(|since| crate::ending::later(since, tool_timeout).min(now));
    tool_spoke_until.map_or(last_output, |until| until.max(last_output))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ending::later;

    #[test]
    fn an_open_tool_call_counts_as_output_for_a_while() {
        let start = Instant::now();
        let at = |s| later(start, Duration::from_secs(s));
        let tool = Duration::from_secs(10);
        assert_eq!(silent_since(start, None, tool, at(5)), start);
        assert_eq!(silent_since(start, Some(at(1)), tool, at(5)), at(5));
        assert_eq!(silent_since(start, Some(at(1)), tool, at(50)), at(11));
        assert_eq!(silent_since(at(30), Some(at(1)), tool, at(50)), at(30));
    }
}
