//! Rules of single values: what a text in the file or a variable must be.

use std::fmt::Display;
use std::path::PathBuf;

use dispatch_core::policy::dec::Dec;
use dispatch_core::policy::money::Usd;
use dispatch_core::policy::routing::BackendKind;

use super::environment::Environment;
use super::error::{ConfigError, Problem};
use super::section::Section;
use super::{AgentKind, Billing, PeerGate, Strategy};

/// A variable of the environment, read like the key it overrides.
pub(super) fn variable<T, E: Display>(
    section: &Section<'_>,
    environment: &Environment,
    name: &'static str,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Result<Option<T>, ConfigError> {
    let Some(value) = environment.get(name) else { return Ok(None) };
    let bad = |rule: String| section.error_at("", Problem::Variable { name, rule });
    let text = value.to_str().ok_or_else(|| bad("not UTF-8".to_owned()))?;
    parse(text).map(Some).map_err(|why| bad(why.to_string()))
}

pub(super) fn whole(text: &str, least: u64, most: u64) -> Result<u64, String> {
    let number = text.parse().ok().filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| format!("a whole number from {least} to {most}"))
}

pub(super) fn absolute_path(text: &str) -> Result<PathBuf, &'static str> {
    let path = plain_path(text).map_err(|_| "an absolute path, from `/` on")?;
    if path.is_absolute() { Ok(path) } else { Err("an absolute path, from `/` on") }
}

pub(super) fn plain_path(text: &str) -> Result<PathBuf, &'static str> {
    if text.is_empty() || text.contains('\0') { Err("a path") } else { Ok(PathBuf::from(text)) }
}

pub(super) fn argument(text: &str) -> Result<String, &'static str> {
    if text.contains('\0') { Err("a text without NUL") } else { Ok(text.to_owned()) }
}

pub(super) fn word(text: &str) -> Result<String, &'static str> {
    let fits = !text.is_empty() && text.len() <= 64 && text.chars().all(|ch| ch.is_ascii_graphic());
    if fits && !text.starts_with('-') { Ok(text.to_owned()) } else { Err("a word, not an option") }
}

pub(super) fn variable_name(text: &str) -> Result<(), &'static str> {
    let named = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && text.bytes().next().is_some_and(|first| !first.is_ascii_digit());
    match named {
        false => Err("the name of an environment variable: letters, digits and _"),
        true if text.starts_with("DISPATCH_") => Err("names in DISPATCH_ are Dispatch's own"),
        true => Ok(()),
    }
}

pub(super) fn positive_usd(text: &str) -> Result<Usd, String> {
    let amount = Usd::from_wire(text).map_err(|why| why.to_string())?;
    if amount.is_positive() { Ok(amount) } else { Err("an amount above 0".to_owned()) }
}

pub(super) fn peer_gate(text: &str) -> Result<PeerGate, &'static str> {
    match text {
        "policy" => Ok(PeerGate::Policy),
        "always" => Ok(PeerGate::Always),
        _ => Err("one of policy, always"),
    }
}

pub(super) fn strategy(text: &str) -> Result<Strategy, &'static str> {
    match text {
        "auto" => Ok(Strategy::Auto),
        "inotify" => Ok(Strategy::Inotify),
        "poll" => Ok(Strategy::Poll),
        "smb-notify" => Ok(Strategy::SmbNotify),
        _ => Err("one of auto, inotify, poll, smb-notify"),
    }
}

pub(super) fn agent_kind(text: &str) -> Result<AgentKind, &'static str> {
    match text {
        "claude" => Ok(AgentKind::Claude),
        "codex" => Ok(AgentKind::Codex),
        "gemini" => Ok(AgentKind::Gemini),
        "command" => Ok(AgentKind::Command),
        _ => Err("one of claude, codex, gemini, command"),
    }
}

pub(super) fn billing(text: &str) -> Result<Billing, &'static str> {
    Billing::parse(text).ok_or("one of metered, subscription, free")
}

pub(super) fn backend_kind(text: &str) -> Result<BackendKind, &'static str> {
    BackendKind::parse(text).ok_or("one of local, lan_worker, cloud_worker, sdk")
}

/// The address of a hosted API, and the host in it.
pub(super) fn endpoint_url(text: &str) -> Result<(String, String), &'static str> {
    let rule = "an address like `https://api.example.com`: https only, no user, no query";
    let rest = text.strip_prefix("https://").ok_or(rule)?;
    let authority = rest.split('/').next().unwrap_or_default();
    let (host, port) = authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port)));
    let named = |ch: char| ch.is_ascii_lowercase() || ch.is_ascii_digit() || matches!(ch, '.' | '-');
    let is_host = !host.is_empty() && host.chars().all(named) && !host.starts_with(['-', '.']);
    let is_port = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
    let is_plain = rest.chars().all(|ch| ch.is_ascii_graphic()) && !rest.contains(['?', '#', '@']);
    if is_host && is_port && is_plain { Ok((text.to_owned(), host.to_owned())) } else { Err(rule) }
}

/// A part of something: above 0, at most 1.
pub(super) fn ratio(text: &str) -> Result<Dec, &'static str> {
    let fits = |part: &Dec| part.is_positive() && *part <= Dec::ONE;
    Dec::parse(text).ok().filter(fits).ok_or("a part above 0 and at most 1, like 0.8")
}

pub(super) fn model(text: &str) -> Result<String, &'static str> {
    let fits = !text.is_empty() && text.len() <= 128 && text.chars().all(|ch| ch.is_ascii_graphic());
    if fits && !text.starts_with('-') { Ok(text.to_owned()) } else { Err("the name of a model") }
}
