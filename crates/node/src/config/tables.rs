//! The tables of the file, one function for each.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dispatch_core::policy::fleet::HealthLimits;
use dispatch_core::policy::money::Usd;
use dispatch_core::policy::routing::SdkUse;
use dispatch_core::protocol::names::Name;

use super::environment::Environment;
use super::error::{ConfigError, Problem};
use super::section::{Flag, Section, quoted};
use super::values::{
    absolute_path, agent_kind, argument, billing, model, plain_path, positive_usd, ratio, strategy, variable,
    variable_name, whole, word,
};
use super::{
    AgentKind, Approve, Billing, Budget, Caps, Effective, Exec, GateLimits, Killswitch, Limits,
    LineageLimits, Notify, Origin, Profile, Watch,
};

/// Most attempts at once.
pub(super) const PARALLEL_MAX: u64 = 1_024;
/// Longest time-out of the protocol, section 3.
const TIMEOUT_S_MAX: u64 = 86_400;
/// The longest answer of a model where the profile says nothing, in tokens: what the agent asks for by itself.
const OUTPUT_TOKENS_MAX: u64 = 32_000;
/// Most requests that one agent may have open at once.
const PARALLEL_REQUESTS_MAX: u64 = 64;
/// Largest log cap of the protocol, section 3.
const OUTPUT_BYTES_MAX: u64 = 1024 * 1024 * 1024;

pub(super) fn watch(
    mut section: Section<'_>,
    environment: &Environment,
    effective: &mut Vec<Effective>,
) -> Result<Watch, ConfigError> {
    let strategy = section.text_or("strategy", "auto", strategy)?;
    let mut poll = section.number::<u64>("poll_ms", 10..=3_600_000)?.map(Duration::from_millis);
    let name = "DISPATCH_POLL_SEC";
    if let Some(seconds) = variable(&section, environment, name, |text| whole(text, 1, 3_600))? {
        section.note("poll_ms", (seconds.saturating_mul(1_000)).to_string(), Origin::Variable(name));
        poll = Some(Duration::from_secs(seconds));
    }
    let heartbeat_s = section.number_or("heartbeat_s", 1..=30, 10)?;
    let visibility_wait_s = section.number_or("visibility_wait_s", 0..=3_600, 90)?;
    let stale_after_s = section.number_or("stale_after_s", 1..=86_400, 30_u32)?;
    let dead_after_s = section.number_or("dead_after_s", 1..=86_400, 90_u32)?;
    let health = HealthLimits::new(stale_after_s.into(), dead_after_s.into()).map_err(|_| {
        let why = "a peer is stale before it is dead: at most `dead_after_s`";
        section.error_at("stale_after_s", Problem::value(section.full("stale_after_s"), &why))
    })?;
    effective.append(&mut section.finish()?);
    Ok(Watch {
        strategy,
        poll,
        heartbeat: Duration::from_secs(heartbeat_s),
        visibility_wait: Duration::from_secs(visibility_wait_s),
        health,
        dead_after: Duration::from_secs(dead_after_s.into()),
    })
}

pub(super) fn exec(
    mut section: Section<'_>,
    environment: &Environment,
    effective: &mut Vec<Effective>,
) -> Result<Exec, ConfigError> {
    let mut max_parallel = section.number_or("max_parallel", 1..=PARALLEL_MAX, 2)?;
    let name = "DISPATCH_MAX_PARALLEL";
    if let Some(number) = variable(&section, environment, name, |text| whole(text, 1, PARALLEL_MAX))? {
        section.note("max_parallel", number.to_string(), Origin::Variable(name));
        max_parallel = u32::try_from(number).unwrap_or(1);
    }
    let allow_sdk = section.flag_or("allow_sdk", Flag::False)?;
    effective.append(&mut section.finish()?);
    Ok(Exec { max_parallel, sdk: if allow_sdk { SdkUse::Allowed } else { SdkUse::Denied } })
}

pub(super) fn approve(
    mut section: Section<'_>,
    dir: &Path,
    effective: &mut Vec<Effective>,
) -> Result<Approve, ConfigError> {
    let approve = Approve {
        allowed_signers: dir.join(section.text_or("allowed_signers", "approvers", plain_path)?),
        required: section.number_or("required", 1..=16, 1)?,
        key: section.text("key", plain_path)?.map(|path| dir.join(path)),
        gate: GateLimits {
            gate_above_usd: section.text_or("gate_above_usd", "5", Usd::from_wire)?,
            gate_depth: i64::from(section.number_or::<u32>("gate_depth", 0..=64, 1)?),
        },
    };
    effective.append(&mut section.finish()?);
    Ok(approve)
}

pub(super) fn killswitch(
    mut section: Section<'_>,
    effective: &mut Vec<Effective>,
) -> Result<Killswitch, ConfigError> {
    let latch = section.flag_or("latch", Flag::True)?;
    effective.append(&mut section.finish()?);
    Ok(Killswitch { latch })
}

pub(super) fn budget(
    mut section: Section<'_>,
    effective: &mut Vec<Effective>,
) -> Result<Budget, ConfigError> {
    let budget = Budget {
        caps: Caps {
            run: section.text_or("run_usd", "0", Usd::from_wire)?,
            month: section.text_or("month_usd", "0", Usd::from_wire)?,
            day: section.text("day_usd", Usd::from_wire)?,
            sender: section.text("sender_usd", Usd::from_wire)?,
            tree: section.text("tree_usd", Usd::from_wire)?,
        },
        runs_per_day: section.number_or("runs_per_day", 0..=100_000, 20)?,
        soft_ratio: section.text_or("soft_ratio", "0.8", ratio)?,
    };
    effective.append(&mut section.finish()?);
    Ok(budget)
}

pub(super) fn limits(
    mut section: Section<'_>,
    effective: &mut Vec<Effective>,
) -> Result<Limits, ConfigError> {
    let limits = Limits {
        max_queued: section.number_or("max_queued", 1..=1_000_000, 1_000)?,
        max_waiting: section.number_or("max_waiting", 1..=1_000_000, 100)?,
    };
    effective.append(&mut section.finish()?);
    Ok(limits)
}

pub(super) fn lineage(
    mut section: Section<'_>,
    effective: &mut Vec<Effective>,
) -> Result<LineageLimits, ConfigError> {
    let lineage = LineageLimits {
        depth_max: section.number_or("depth_max", 0..=64, 8)?,
        fanout_max: section.number_or("fanout_max", 0..=1_000_000, 100)?,
    };
    effective.append(&mut section.finish()?);
    Ok(lineage)
}

pub(super) fn notify(
    mut section: Section<'_>,
    effective: &mut Vec<Effective>,
) -> Result<Option<Notify>, ConfigError> {
    let there = section.is_there();
    let argv = section.texts("argv", argument)?;
    let env = section.texts("env", |text| variable_name(text).map(|()| text.to_owned()))?;
    let set = settings(&mut section)?;
    if there && argv.is_empty() {
        return Err(section.missing("argv"));
    }
    effective.append(&mut section.finish()?);
    Ok((!argv.is_empty()).then_some(Notify { argv, env, set }))
}

pub(super) fn profiles(
    top: &mut Section<'_>,
    environment: &Environment,
    effective: &mut Vec<Effective>,
) -> Result<BTreeMap<Name, Profile>, ConfigError> {
    let mut profiles = BTreeMap::new();
    for (name, section) in top.children("profile")? {
        let key = Name::new(&name)
            .map_err(|why| section.error_at("", Problem::value(format!("profile.{name}"), &why)))?;
        let program = if name == "default" { agent_program(&section, environment)? } else { None };
        profiles.insert(key, profile(section, program, effective)?);
    }
    Ok(profiles)
}

pub(super) fn agent_program(
    section: &Section<'_>,
    environment: &Environment,
) -> Result<Option<String>, ConfigError> {
    variable(section, environment, "DISPATCH_AGENT_BIN", |text| absolute_path(text).map(|_| text.to_owned()))
}

pub(super) fn profile(
    mut section: Section<'_>,
    program: Option<String>,
    effective: &mut Vec<Effective>,
) -> Result<Profile, ConfigError> {
    let agent = section.required_text("agent", agent_kind)?;
    let billing = section.required_text("billing", billing)?;
    let mut argv = section.texts("argv", argument)?;
    if let Some(program) = program {
        section.note("argv", quoted(&program), Origin::Variable("DISPATCH_AGENT_BIN"));
        argv.splice(..argv.len().min(1), [program]);
    }
    let permission_mode = section.text("permission_mode", word)?;
    let dangerous_mode = section.text("dangerous_mode", word)?;
    if agent == AgentKind::Command {
        if argv.is_empty() {
            return Err(section.missing("argv"));
        }
        if let Some(key) = [("permission_mode", &permission_mode), ("dangerous_mode", &dangerous_mode)]
            .into_iter()
            .find_map(|(key, mode)| mode.as_ref().map(|_| key))
        {
            let why = "a command has no permission modes";
            return Err(section.error_at(key, Problem::value(section.full(key), &why)));
        }
    }
    let overshoot = section.text("overshoot_usd", positive_usd)?;
    if billing == Billing::Metered && overshoot.is_none() {
        return Err(section.missing("overshoot_usd"));
    }
    let silence_s = if agent == AgentKind::Command { 0 } else { 900 };
    let models = section.texts("models", model)?;
    if agent == AgentKind::Command && !models.is_empty() {
        let why = "a command has no models";
        return Err(section.error_at("models", Problem::value(section.full("models"), &why)));
    }
    let profile = Profile {
        agent,
        argv,
        permission_mode,
        dangerous_mode,
        max_cost: section.text("max_cost_usd", positive_usd)?,
        overshoot,
        models,
        output_tokens_max: section.number_or("output_tokens_max", 1..=1_000_000, OUTPUT_TOKENS_MAX)?,
        parallel_requests: section.number_or("parallel_requests", 1..=PARALLEL_REQUESTS_MAX, 1)?,
        billing,
        env: section.texts("env", |text| variable_name(text).map(|()| text.to_owned()))?,
        set: settings(&mut section)?,
        max_timeout_s: section.number_or("max_timeout_s", 1..=TIMEOUT_S_MAX, 86_400)?,
        max_output_bytes: section.number_or(
            "max_output_bytes",
            1_024..=OUTPUT_BYTES_MAX,
            OUTPUT_BYTES_MAX,
        )?,
        silence_timeout_s: section.number_or("silence_timeout_s", 0..=TIMEOUT_S_MAX, silence_s)?,
        tool_timeout_s: section.number_or("tool_timeout_s", 1..=TIMEOUT_S_MAX, 1_800)?,
        required: section.number("required", 1..=16)?,
        workspace: section.text("workspace", Name::new)?,
        endpoint: section.text("endpoint", Name::new)?,
    };
    effective.append(&mut section.finish()?);
    Ok(profile)
}

pub(super) fn settings(section: &mut Section<'_>) -> Result<BTreeMap<String, String>, ConfigError> {
    let mut set = BTreeMap::new();
    for (name, value) in section.pairs("set")? {
        variable_name(&name).and_then(|()| argument(&value)).map_err(|why| {
            section.error_at("set", Problem::value(section.full(&format!("set.{name}")), &why))
        })?;
        set.insert(name, value);
    }
    Ok(set)
}

pub(super) fn workspaces(
    top: &mut Section<'_>,
    effective: &mut Vec<Effective>,
) -> Result<BTreeMap<Name, PathBuf>, ConfigError> {
    let mut workspaces = BTreeMap::new();
    for (name, mut section) in top.children("workspace")? {
        let key = Name::new(&name)
            .map_err(|why| section.error_at("", Problem::value(format!("workspace.{name}"), &why)))?;
        workspaces.insert(key, section.required_text("path", absolute_path)?);
        effective.append(&mut section.finish()?);
    }
    Ok(workspaces)
}

pub(super) fn check_workspaces(
    top: &Section<'_>,
    profiles: &BTreeMap<Name, Profile>,
    workspaces: &BTreeMap<Name, PathBuf>,
) -> Result<(), ConfigError> {
    for (name, profile) in profiles {
        if let Some(workspace) = profile.workspace.as_ref().filter(|name| !workspaces.contains_key(*name)) {
            let why = format!("there is no [workspace.{workspace}]");
            return Err(top.error_at("profile", Problem::value(format!("profile.{name}.workspace"), &why)));
        }
    }
    Ok(())
}
