//! Rules of single values: what a text in the file or a variable must be.

use std::fmt::Display;
use std::path::PathBuf;

use dispatch_core::policy::money::Usd;

use super::environment::Environment;
use super::error::{ConfigError, Problem};
use super::section::Section;
use super::{AgentKind, BackendKind, Billing, PeerGate, Strategy};

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
    match text {
        "local" => Ok(BackendKind::Local),
        "lan_worker" | "cloud_worker" | "sdk" => Err("this release runs tasks on `local` backends only"),
        _ => Err("one of local"),
    }
}
