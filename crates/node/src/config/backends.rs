//! `[backend.NAME]` and `[endpoint.NAME]`: where tasks can run, and what they may reach outside (policy section 4).

use std::collections::BTreeMap;

use dispatch_core::planner::template::{Placeholder, Template};
use dispatch_core::policy::budget::{MachineRates, MachineUse};
use dispatch_core::policy::dec::Dec;
use dispatch_core::policy::money::Usd;
use dispatch_core::policy::routing::{self, BackendKind};
use dispatch_core::protocol::fraction::Fraction;
use dispatch_core::protocol::names::{Name, NodeName};

use super::error::{ConfigError, Problem};
use super::section::{Flag, Section, quoted};
use super::tables::PARALLEL_MAX;
use super::values::{backend_kind, billing, endpoint_url, variable_name};
use super::{Billing, Effective, Origin, Peer, Profile};

/// Longest time after the work that is paid for, in seconds.
const IDLE_TAIL_S_MAX: u64 = 86_400;
/// Largest machine: virtual processors, and GiB of memory.
const MACHINE_MAX: u64 = 100_000;

/// `[backend.NAME]`: where tasks can run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Its name.
    pub name: Name,
    /// What runs there.
    pub runs: Runs,
    /// Free GPU memory in GB; `None` without a GPU.
    pub vram_gb: Option<Fraction>,
    /// Container images it runs; `None` is any.
    pub images: Option<Vec<String>>,
    /// Tools it runs; `None` is any.
    pub tools: Option<Vec<String>>,
    /// Attempts on it at once, within the node's own `max_parallel`; `None` is no limit of its own.
    pub max_parallel: Option<u32>,
    /// How its machine is paid for.
    pub billing: Billing,
    /// What its machine costs; `None` unless it is metered. `max_runtime_s` is 0: the task's own goes in its place.
    pub machine: Option<MachineUse>,
}

/// What a backend runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Runs {
    /// The agent of the task's own profile, on this node.
    Profile,
    /// The same task once more, forwarded to this node's lane: its profile of that name, and its money.
    Forward {
        /// The node.
        node: NodeName,
    },
    /// An engine's own client, which waits for the work it starts elsewhere. The request is its standard input.
    Client {
        /// Its program and arguments.
        argv: Vec<Template>,
        /// Names of variables it gets of the service's own.
        env: Vec<String>,
    },
    /// The agent of this profile, which calls a hosted API.
    Hosted {
        /// The profile.
        profile: Name,
    },
}

impl Backend {
    /// What it is.
    #[must_use]
    pub const fn kind(&self) -> BackendKind {
        match self.runs {
            Runs::Profile => BackendKind::Local,
            Runs::Forward { .. } => BackendKind::LanWorker,
            Runs::Client { .. } => BackendKind::CloudWorker,
            Runs::Hosted { .. } => BackendKind::Sdk,
        }
    }

    /// What the rule that chooses one wants to know of it.
    #[must_use]
    pub fn offer(&self) -> routing::Backend {
        routing::Backend {
            name: self.name.to_string(),
            kind: self.kind(),
            available_vram_gb: self.vram_gb.map(routing::gigabytes),
            images: self.images.clone(),
            tools: self.tools.clone(),
        }
    }

    /// This node itself, where the configuration names no backend.
    fn local(name: Name) -> Backend {
        Backend {
            name,
            runs: Runs::Profile,
            vram_gb: None,
            images: None,
            tools: None,
            max_parallel: None,
            billing: Billing::Free,
            machine: None,
        }
    }
}

/// `[endpoint.NAME]`: a hosted API that a profile's agent calls. The configuration holds the name of the variable with
/// the secret, never the secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its name.
    pub name: Name,
    /// Its address, `https` only.
    pub base_url: String,
    /// The host in it: what the audit names.
    pub host: String,
    /// The variable of the service's environment that holds the secret; unset or empty, nothing starts.
    pub secret_env: String,
    /// The variable in which the agent finds the address.
    pub base_url_env: Option<String>,
}

pub(super) fn backends(
    top: &mut Section<'_>,
    profiles: &BTreeMap<Name, Profile>,
    peers: &BTreeMap<NodeName, Peer>,
    effective: &mut Vec<Effective>,
) -> Result<Vec<Backend>, ConfigError> {
    let mut backends = Vec::new();
    for (name, section) in top.children("backend")? {
        let key = Name::new(&name)
            .map_err(|why| section.error_at("", Problem::value(format!("backend.{name}"), &why)))?;
        backends.push(backend(key, section, profiles, peers, effective)?);
    }
    if backends.is_empty() {
        let local = Name::new("local")
            .map_err(|why| top.error_at("backend", Problem::value("backend.local".to_owned(), &why)))?;
        top.note("backend.local.kind", quoted("local"), Origin::Default);
        backends.push(Backend::local(local));
    }
    Ok(backends)
}

fn backend(
    name: Name,
    mut section: Section<'_>,
    profiles: &BTreeMap<Name, Profile>,
    peers: &BTreeMap<NodeName, Peer>,
    effective: &mut Vec<Effective>,
) -> Result<Backend, ConfigError> {
    let kind = section.required_text("kind", backend_kind)?;
    let backend = Backend {
        name,
        vram_gb: vram(&mut section)?,
        images: names(&mut section, "images")?,
        tools: names(&mut section, "tools")?,
        max_parallel: section.number("max_parallel", 1..=PARALLEL_MAX)?,
        runs: runs(kind, &mut section, profiles, peers)?,
        billing: match kind {
            // The machine is this one, or another node's to pay; what agents cost is their profiles' to say.
            BackendKind::Local | BackendKind::LanWorker | BackendKind::Sdk => Billing::Free,
            BackendKind::CloudWorker => section.required_text("billing", billing)?,
        },
        machine: None,
    };
    let machine = if backend.billing == Billing::Metered { Some(machine(&mut section)?) } else { None };
    check_placeholders(&section, &backend)?;
    effective.append(&mut section.finish()?);
    Ok(Backend { machine, ..backend })
}

fn vram(section: &mut Section<'_>) -> Result<Option<Fraction>, ConfigError> {
    let vram = section.text("available_vram_gb", Fraction::from_wire)?;
    let says_gpu = section.is_set("has_gpu");
    let has_gpu = section.flag_or("has_gpu", Flag::False)?;
    match vram {
        Some(_) if says_gpu && !has_gpu => {
            let why = "a backend without a GPU has no GPU memory";
            Err(section.error_at("has_gpu", Problem::value(section.full("has_gpu"), &why)))
        }
        None if has_gpu => Err(section.missing("available_vram_gb")),
        Some(_) | None => Ok(vram),
    }
}

/// A list of names; absent is any, empty is none.
fn names(section: &mut Section<'_>, key: &'static str) -> Result<Option<Vec<String>>, ConfigError> {
    let is_set = section.is_set(key);
    let names = section.texts(key, offered)?;
    Ok(is_set.then_some(names))
}

/// A name that may become an argument: never an option.
fn offered(text: &str) -> Result<String, &'static str> {
    let fits = !text.is_empty() && text.len() <= 256 && text.chars().all(|ch| ch.is_ascii_graphic());
    if fits && !text.starts_with('-') {
        Ok(text.to_owned())
    } else {
        Err("a name without blanks, not an option")
    }
}

fn runs(
    kind: BackendKind,
    section: &mut Section<'_>,
    profiles: &BTreeMap<Name, Profile>,
    peers: &BTreeMap<NodeName, Peer>,
) -> Result<Runs, ConfigError> {
    match kind {
        BackendKind::Local => Ok(Runs::Profile),
        BackendKind::LanWorker => {
            let node = section.required_text("node", NodeName::new)?;
            let problem = match peers.get(&node) {
                Some(peer) if peer.version_2().is_none() => return Ok(Runs::Forward { node }),
                Some(_) => format!("`{node}` speaks version 2, which cannot say where a task comes from"),
                None => format!("there is no [peer.{node}]"),
            };
            Err(section.error_at("node", Problem::value(section.full("node"), &problem)))
        }
        BackendKind::CloudWorker => {
            let argv = section.texts("argv", |text| match text.contains('\0') {
                true => Err("a text without NUL".to_owned()),
                false => Template::parse(text).map_err(|why| why.to_string()),
            })?;
            if argv.is_empty() {
                return Err(section.missing("argv"));
            }
            let env = section.texts("env", |text| variable_name(text).map(|()| text.to_owned()))?;
            Ok(Runs::Client { argv, env })
        }
        BackendKind::Sdk => {
            let profile = section.required_text("profile", Name::new)?;
            if profiles.contains_key(&profile) {
                return Ok(Runs::Hosted { profile });
            }
            let why = format!("there is no [profile.{profile}]");
            Err(section.error_at("profile", Problem::value(section.full("profile"), &why)))
        }
    }
}

/// What a sender writes reaches an argument only if it is one of the names listed here.
fn check_placeholders(section: &Section<'_>, backend: &Backend) -> Result<(), ConfigError> {
    let Runs::Client { argv, .. } = &backend.runs else { return Ok(()) };
    for (placeholder, key, listed) in
        [(Placeholder::Image, "images", &backend.images), (Placeholder::Tool, "tools", &backend.tools)]
    {
        let is_used = argv.iter().any(|argument| argument.uses(placeholder));
        if is_used && listed.as_ref().is_none_or(Vec::is_empty) {
            return Err(section.missing(key));
        }
    }
    Ok(())
}

fn machine(section: &mut Section<'_>) -> Result<MachineUse, ConfigError> {
    let rates = MachineRates {
        gpu: section.text_or("gpu_usd_per_s", "0", rate)?,
        vcpu: section.text_or("vcpu_usd_per_s", "0", rate)?,
        gib: section.text_or("gib_usd_per_s", "0", rate)?,
        idle_tail_s: section.number_or("idle_tail_s", 0..=IDLE_TAIL_S_MAX, 0)?,
    };
    let machine = MachineUse {
        rates,
        max_runtime_s: 0,
        vcpus: section.number_or("vcpus", 0..=MACHINE_MAX, 0)?,
        memory_gib: section.number_or("memory_gib", 0..=MACHINE_MAX, 0)?,
    };
    let costs = |rate: Usd, size: i64| rate.is_positive() && size > 0;
    if costs(rates.gpu, 1) || costs(rates.vcpu, machine.vcpus) || costs(rates.gib, machine.memory_gib) {
        return Ok(machine);
    }
    let why = "a metered backend needs a price: a rate above 0, for something it has (vcpus, memory_gib)";
    Err(section.error_at("billing", Problem::value(section.full("billing"), &why)))
}

/// Dollars for a second: more places than an amount of money.
fn rate(text: &str) -> Result<Usd, String> {
    let rate = Dec::parse(text).map_err(|why| why.to_string())?;
    if rate.is_negative() {
        return Err("not below 0".to_owned());
    }
    rate.to_usd().ok_or_else(|| "a smaller number".to_owned())
}

pub(super) fn endpoints(
    top: &mut Section<'_>,
    effective: &mut Vec<Effective>,
) -> Result<BTreeMap<Name, Endpoint>, ConfigError> {
    let mut endpoints = BTreeMap::new();
    for (name, mut section) in top.children("endpoint")? {
        let key = Name::new(&name)
            .map_err(|why| section.error_at("", Problem::value(format!("endpoint.{name}"), &why)))?;
        let (base_url, host) = section.required_text("base_url", endpoint_url)?;
        let variable = |text: &str| variable_name(text).map(|()| text.to_owned());
        let endpoint = Endpoint {
            name: key.clone(),
            base_url,
            host,
            secret_env: section.required_text("secret_env", variable)?,
            base_url_env: section.text("base_url_env", variable)?,
        };
        effective.append(&mut section.finish()?);
        endpoints.insert(key, endpoint);
    }
    Ok(endpoints)
}

/// Every profile's endpoint must be there.
pub(super) fn check_endpoints(
    top: &Section<'_>,
    profiles: &BTreeMap<Name, Profile>,
    endpoints: &BTreeMap<Name, Endpoint>,
) -> Result<(), ConfigError> {
    for (name, profile) in profiles {
        if let Some(endpoint) = profile.endpoint.as_ref().filter(|name| !endpoints.contains_key(*name)) {
            let why = format!("there is no [endpoint.{endpoint}]");
            return Err(top.error_at("profile", Problem::value(format!("profile.{name}.endpoint"), &why)));
        }
    }
    Ok(())
}
