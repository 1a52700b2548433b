//! What the end of a run means: its status, and the reason in one stable word.

use dispatch_core::policy::breaker::QUOTA_WALL;
use dispatch_core::protocol::time::{SECOND_MS, Timestamp};
use dispatch_node::agents::{OLDEST, UNKNOWN_FROM, Version};
use dispatch_node::job::{OutcomeStatus, Reason};

use super::heard::{Final, Heard, Over, Wall};
use super::wall;
use crate::ending::Exit;

/// Status and reason of a run that ended by itself (`exit`), or whose process outlived its final line (no `exit`).
pub(super) fn verdict(heard: &Heard, exit: Option<Exit>) -> (OutcomeStatus, Option<Reason>) {
    if matches!(heard.over_at, Some(Over::Unsupported(_))) {
        return (OutcomeStatus::Error, Some(unsupported(heard)));
    }
    let Some(result) = &heard.result else {
        return (OutcomeStatus::Error, Some(no_final_line(exit)));
    };
    if result.is_over_budget() {
        return (OutcomeStatus::OverBudget, Some(over_budget(result)));
    }
    if let Some(wall) = walled(heard) {
        return (OutcomeStatus::Error, Some(quota(wall, &result.words())));
    }
    if result.is_error || result.subtype != "success" {
        return (OutcomeStatus::Error, Some(failure(heard, result)));
    }
    if let Some(Exit::Code(1.. | ..=-1) | Exit::Signal(_)) = exit {
        return (OutcomeStatus::Error, Some(badly_ended(exit)));
    }
    if !result.denials.is_empty() {
        return (OutcomeStatus::Refuted, Some(denied(&result.denials)));
    }
    if result.is_local_command {
        let text = "the agent answered by itself, the model was never asked";
        return (OutcomeStatus::Error, Some(said("no_model_call", text, "send the request as plain text")));
    }
    if result.text.as_deref().is_none_or(|text| text.trim().is_empty()) {
        return (OutcomeStatus::Error, Some(said("no_final_answer", "the agent gave no final answer", LOOK)));
    }
    (OutcomeStatus::Ok, remark(heard))
}

const LOOK: &str = "read the end of its output: dispatchctl logs";
const LATER: &str = "send it again later";

impl Final {
    fn is_over_budget(&self) -> bool {
        self.subtype == "error_max_budget_usd" || self.terminal_reason.as_deref() == Some("budget_exhausted")
    }

    /// What it says of its failure, in its own words.
    fn words(&self) -> String {
        let words = self.text.clone().filter(|text| !text.trim().is_empty());
        words.or_else(|| self.errors.first().cloned()).unwrap_or_else(|| self.subtype.clone())
    }
}

fn said(code: &str, text: impl Into<String>, help: impl Into<String>) -> Reason {
    Reason { code: code.to_owned(), text: text.into(), help: help.into() }
}

fn unsupported(heard: &Heard) -> Reason {
    let version = heard.version.as_deref().unwrap_or("unknown");
    said(
        "agent_version",
        format!("Claude Code {version} is older than {OLDEST}, the oldest version that is run"),
        "install a newer one for the receiving node, or name it in the profile's argv",
    )
}

fn remark(heard: &Heard) -> Option<Reason> {
    let text = heard.version.as_deref()?;
    Version::parse(text)?.is_unknown().then(|| {
        said(
            "agent_version",
            format!(
                "Claude Code {text} is not known to this release, which knows those before {UNKNOWN_FROM}"
            ),
            "look twice at what it did, or install a known version",
        )
    })
}

fn no_final_line(exit: Option<Exit>) -> Reason {
    let text = match exit {
        Some(Exit::Code(code)) => format!("the agent ended with exit code {code} and gave no final answer"),
        Some(Exit::Signal(signal)) => {
            format!("the agent was ended by signal {signal} and gave no final answer")
        }
        None => "the agent gave no final answer".to_owned(),
    };
    said("no_final_answer", text, LOOK)
}

fn badly_ended(exit: Option<Exit>) -> Reason {
    match exit {
        Some(Exit::Signal(signal)) => {
            said("signal", format!("the agent answered and was then ended by signal {signal}"), LOOK)
        }
        Some(Exit::Code(code)) => {
            said("exit_code", format!("the agent answered and then ended with exit code {code}"), LOOK)
        }
        None => said("not_ended", "the agent could not be ended", LOOK),
    }
}

fn over_budget(result: &Final) -> Reason {
    let help = "send it again with a higher --max-cost, or in smaller parts";
    said("over_budget", format!("the agent stopped at its ceiling: {}", result.words()), help)
}

fn denied(denials: &[String]) -> Reason {
    let first = denials.first().map_or("", String::as_str);
    let more = match denials.len() {
        0 | 1 => String::new(),
        count => format!(" and {} more", count.saturating_sub(1)),
    };
    said(
        "permission_denied",
        format!("the agent was denied a permission on the way: {first}{more}"),
        "allow it in the profile, or ask for less",
    )
}

/// A run that says of itself that it failed.
fn failure(heard: &Heard, result: &Final) -> Reason {
    let words = result.words();
    if result.subtype == "error_max_turns" {
        return said("max_turns", words, "send it again in smaller parts");
    }
    if result.is_cut_off() {
        return said("aborted", format!("the agent was interrupted: {words}"), "send it again");
    }
    let is_api = result.terminal_reason.as_deref() == Some("api_error")
        || result.api_status.is_some()
        || heard.api_error.is_some();
    if is_api { api_failure(heard, result, &words) } else { said("agent_error", words, LOOK) }
}

/// An API that refuses or fails, in words of ours: the agent's own are an open list.
fn api_failure(heard: &Heard, result: &Final, words: &str) -> Reason {
    match (result.api_status, kind_of(heard, result)) {
        (Some(401 | 403), _)
        | (None, "authentication_failed" | "authentication_error" | "permission_error") => {
            let help = "give the profile a valid key or login on the receiving node (its `env`)";
            said("auth", words, help)
        }
        (Some(529), _) | (None, "overloaded" | "overloaded_error") => said("overloaded", words, LATER),
        (Some(400..=499), _) | (None, "invalid_request" | "invalid_request_error") => {
            said("api_request", words, LOOK)
        }
        _ => said("api_error", words, LATER),
    }
}

fn kind_of<'h>(heard: &'h Heard, result: &'h Final) -> &'h str {
    heard.api_error.as_deref().or(result.api_kind.as_deref()).unwrap_or_default()
}

/// The limit of the account that a run ended at.
fn walled(heard: &Heard) -> Option<Wall> {
    let result = heard.result.as_ref()?;
    let words = result.words();
    if !result.is_error && result.subtype == "success" {
        return wall::disguised(&words);
    }
    if result.subtype == "error_max_turns" || result.is_cut_off() {
        return None;
    }
    let said = wall::of(result.api_status, kind_of(heard, result), &words);
    // The event that announced it knows its end best.
    let is_api = result.api_status.is_some() || heard.api_error.is_some();
    said.map(|said| heard.wall.unwrap_or(said)).or_else(|| heard.wall.filter(|_| is_api))
}

/// When the limit resets that a run ended at, where it says so; a span is counted from `now`.
pub(super) fn resets_at(heard: &Heard, now: Timestamp) -> Option<Timestamp> {
    let wall = walled(heard)?;
    let until = wall.resets_at.and_then(|seconds| i64::try_from(seconds).ok()?.checked_mul(SECOND_MS));
    let words = heard.result.as_ref().map(Final::words).unwrap_or_default();
    let spanned = || wall::span_ms(&words).map(|ms| now.plus_ms(ms));
    until.map(Timestamp::from_unix_ms).or_else(spanned).or_else(|| wall::time_of_day(&words, now))
}

/// A limit of the account: trying again before it resets is useless.
fn quota(wall: Wall, words: &str) -> Reason {
    let until = wall
        .resets_at
        .and_then(|seconds| i64::try_from(seconds).ok()?.checked_mul(SECOND_MS))
        .map(|ms| Timestamp::from_unix_ms(ms).to_string());
    let help = match &until {
        Some(until) => format!("send it again after {until}"),
        None => "raise the limit of the account, or wait until it resets".to_owned(),
    };
    let text = match until {
        Some(until) => format!("a limit of the account is reached until {until}: {words}"),
        None => format!("a limit of the account is reached: {words}"),
    };
    said(QUOTA_WALL, text, help)
}
