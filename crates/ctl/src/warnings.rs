//! What holds in a configuration and is most likely not meant: for `config check` and `doctor`.

use std::fs;

use dispatch_core::protocol::approvers::Approvers;
use dispatch_node::agents::{find_program, search_path};
use dispatch_node::clock;
use dispatch_node::config::{AgentKind, Billing, Config, PeerGate, Profile};
use dispatch_node::keys::approvers_text;

/// Something to look at, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Warning {
    pub(crate) text: String,
    pub(crate) mend: String,
}

impl Warning {
    fn new(text: impl Into<String>, mend: impl Into<String>) -> Warning {
        Warning { text: text.into(), mend: mend.into() }
    }
}

/// Everything that is to be said about a configuration.
pub(crate) fn of(config: &Config) -> Vec<Warning> {
    let mut warnings = money(config);
    warnings.extend(prices(config));
    warnings.extend(people(config));
    warnings.extend(profiles(config));
    warnings.extend(programs(config));
    warnings
}

fn money(config: &Config) -> Vec<Warning> {
    let metered: Vec<&str> = config
        .profiles
        .iter()
        .filter(|(_, profile)| profile.billing == Billing::Metered)
        .map(|(name, _)| name.as_str())
        .collect();
    let caps = &config.budget.caps;
    let off: Vec<&str> = [("run_usd", caps.run), ("month_usd", caps.month)]
        .into_iter()
        .filter(|(_, cap)| !cap.is_positive())
        .map(|(key, _)| key)
        .collect();
    if metered.is_empty() || off.is_empty() {
        return Vec::new();
    }
    vec![Warning::new(
        format!("paid work is off, and these profiles are paid for: {}", metered.join(", ")),
        format!("set under [budget] above 0: {}", off.join(", ")),
    )]
}

/// What is metered at prices that somebody looked up long ago.
fn prices(config: &Config) -> Option<Warning> {
    let old = config.prices.old_at(clock::now());
    let is_priced =
        |profile: &Profile| profile.billing == Billing::Metered && profile.agent != AgentKind::Command;
    if old.is_empty() || !config.profiles.values().any(is_priced) {
        return None;
    }
    let oldest = config.prices.oldest().map(|day| day.to_string()).unwrap_or_default();
    Some(Warning::new(
        format!("prices were looked up more than 90 days ago, the oldest on {oldest}: {}", old.join(", ")),
        "compare them with the list prices of today: a `[price.MODEL]` with a new `as_of`, or a newer release",
    ))
}

/// A gate that nobody can open.
fn people(config: &Config) -> Vec<Warning> {
    // A file that cannot be read is a fault that others name.
    let Ok(text) = approvers_text(config) else { return Vec::new() };
    let approvers = Approvers::parse(&text);
    let now = clock::now();
    let valid = approvers.lines().iter().filter(|approver| approver.is_valid_at(now)).count();
    let mut warnings = Vec::new();
    let gated: Vec<&str> = config
        .peers
        .iter()
        .filter(|(_, peer)| peer.gate == PeerGate::Always)
        .map(|(name, _)| name.as_str())
        .collect();
    if valid == 0 && !gated.is_empty() {
        warnings.push(Warning::new(
            format!("everything from {} waits for a person, and nobody may decide", gated.join(", ")),
            format!("add an approver's public key to {}", config.approve.allowed_signers.display()),
        ));
    }
    let most = config.profiles.iter().filter_map(|(name, profile)| Some((profile.required?, name))).max();
    if let Some((required, name)) =
        most.filter(|(required, _)| usize::try_from(*required).is_ok_and(|n| n > valid))
    {
        warnings.push(Warning::new(
            format!("profile `{name}` needs {required} people, and {valid} may decide"),
            format!("add approvers to {}, or lower `required`", config.approve.allowed_signers.display()),
        ));
    }
    warnings
}

fn profiles(config: &Config) -> Vec<Warning> {
    let mut warnings = Vec::new();
    if config.profiles.is_empty() {
        warnings.push(Warning::new(
            "there is no profile, so nothing can be run here",
            "add [profile.default] to dispatch.toml",
        ));
    } else if !config.profiles.keys().any(|name| name.as_str() == "default") {
        warnings.push(Warning::new(
            "there is no [profile.default], which is what a task without --profile names",
            "add it, or tell senders which profile to name",
        ));
    }
    for (name, profile) in &config.profiles {
        match profile.agent {
            AgentKind::Claude | AgentKind::Command => {}
            AgentKind::Codex | AgentKind::Gemini => warnings.push(Warning::new(
                format!(
                    "profile `{name}`: agents of kind `{}` are not run by this release",
                    profile.agent.as_str()
                ),
                "use agent = \"command\" or \"claude\"",
            )),
        }
    }
    for (name, path) in &config.workspaces {
        if !fs::metadata(path).is_ok_and(|facts| facts.is_dir()) {
            warnings.push(Warning::new(
                format!("workspace `{name}`: {} is no directory", path.display()),
                "make it, or correct its path",
            ));
        }
    }
    warnings
}

fn programs(config: &Config) -> Vec<Warning> {
    let none = std::collections::BTreeMap::new();
    let missing = config
        .notify
        .iter()
        .filter_map(|notify| notify.argv.first())
        .filter(|program| find_program(program, &search_path(&none)).is_none());
    missing
        .map(|program| {
            Warning::new(
                format!("[notify] argv: `{program}` is no program that can be run here"),
                "write its absolute path, and make it executable",
            )
        })
        .collect()
}
