//! Where a task runs: the backend that the rules choose, the profile that runs on it, and what its machine costs.

use std::collections::BTreeMap;

use dispatch_core::planner::recipe::{EndpointUse, MachinePrice, Recipe};
use dispatch_core::planner::template::Placeholder;
use dispatch_core::policy::admission::{BackendFacts, Billing};
use dispatch_core::policy::budget::{self, MachineRates, MachineUse, Pricing};
use dispatch_core::policy::dec::Dec;
use dispatch_core::policy::money::Usd;
use dispatch_core::policy::routing::{
    self, BackendKind, NegativeVram, Requirements, SdkUse, Selection, WhyNot,
};
use dispatch_core::policy::window::Payer;
use dispatch_core::protocol::heartbeat::BackendOffer;
use dispatch_core::protocol::limits::{LIST_LEN_MAX, VIA_MAX};
use dispatch_core::protocol::names::{Name, NodeName};
use dispatch_core::protocol::task::Task;
use dispatch_ledger::{LedgerError, Reader};
use dispatch_node::config::{Backend, Config, Profile, Runs};

use crate::recipes;

/// Where a task runs, and by which profile.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Route<'c> {
    pub(crate) backend: &'c Backend,
    pub(crate) name: &'c Name,
    pub(crate) profile: &'c Profile,
}

/// The answer to where.
#[derive(Debug)]
pub(crate) enum Routed<'c> {
    /// There.
    To(Route<'c>),
    /// Nowhere, and why not each backend.
    Nowhere(Vec<(String, WhyNot)>),
}

impl<'c> Routed<'c> {
    pub(crate) fn route(&self) -> Option<Route<'c>> {
        match self {
            Routed::To(route) => Some(*route),
            Routed::Nowhere(_) => None,
        }
    }
}

/// Chooses. `None` where the configuration lacks the task's profile.
pub(crate) fn route<'c>(config: &'c Config, task: &Task) -> Option<Routed<'c>> {
    let (own, own_profile) = config.profiles.get_key_value(&task.profile)?;
    let sdk = if task.allow_sdk { config.exec.sdk } else { SdkUse::Denied };
    let (passed, open): (Vec<&Backend>, Vec<&Backend>) =
        config.backends.iter().partition(|backend| came_through(backend, task));
    let offers: Vec<routing::Backend> = open.into_iter().map(Backend::offer).collect();
    let chosen = match routing::select_backend(&offers, &Requirements::from(&task.requires), sdk) {
        Ok(Selection::Backend(chosen)) => chosen,
        Ok(Selection::NoneEligible(refused)) => {
            let named = refused.into_iter().map(|(backend, why)| (backend.name.clone(), why));
            let passed = passed.iter().map(|backend| (backend.name.to_string(), WhyNot::CameThrough));
            return Some(Routed::Nowhere(named.chain(passed).collect()));
        }
        // A figure below nothing has no spelling, neither on the wire nor in the configuration.
        Err(NegativeVram) => return Some(Routed::Nowhere(Vec::new())),
    };
    let backend = config.backends.iter().find(|backend| backend.name.as_str() == chosen.name)?;
    let (name, profile) = match &backend.runs {
        Runs::Profile | Runs::Client { .. } | Runs::Forward { .. } => (own, own_profile),
        Runs::Hosted { profile } => config.profiles.get_key_value(profile)?,
    };
    Some(Routed::To(Route { backend, name, profile }))
}

/// True where some backend is another node.
pub(crate) fn may_forward(config: &Config) -> bool {
    config.backends.iter().any(|backend| matches!(backend.runs, Runs::Forward { .. }))
}

/// True for a node that a task came through, and for every node once it came through as many as its lineage can name.
fn came_through(backend: &Backend, task: &Task) -> bool {
    let Runs::Forward { node } = &backend.runs else { return false };
    let via = task.lineage.as_ref().map_or(&[][..], |lineage| &lineage.via);
    *node == task.from || via.contains(node) || via.len() >= VIA_MAX
}

impl Route<'_> {
    /// The node that the task is forwarded to.
    pub(crate) fn forwards_to(&self) -> Option<&NodeName> {
        match &self.backend.runs {
            Runs::Forward { node } => Some(node),
            Runs::Profile | Runs::Client { .. } | Runs::Hosted { .. } => None,
        }
    }

    /// What admission wants to know of the backend, for a run of at most so many seconds.
    pub(crate) fn facts(&self, timeout_s: u64) -> BackendFacts {
        BackendFacts {
            is_local: self.backend.kind() == BackendKind::Local,
            billing: self.backend.billing,
            payer: payer_of(self.backend.kind()),
            machine: self
                .backend
                .machine
                .map(|machine| for_seconds(machine, timeout_s.saturating_add(ENDING_S))),
        }
    }

    /// How a task that runs there is paid for: by use as soon as a part of it is.
    pub(crate) fn billing(&self) -> Billing {
        match (self.profile.billing, self.backend.billing) {
            (Billing::Metered, _) | (_, Billing::Metered) => Billing::Metered,
            (Billing::Subscription, _) | (_, Billing::Subscription) => Billing::Subscription,
            (Billing::Free, Billing::Free) => Billing::Free,
        }
    }

    /// Program, arguments and variables of the client of an engine; `None` where the profile's own agent runs.
    pub(crate) fn client(
        &self,
        config: &Config,
        task: &Task,
        timeout_s: u64,
    ) -> Option<(Vec<String>, Vec<String>)> {
        let Runs::Client { argv, env } = &self.backend.runs else { return None };
        let first = |names: &Option<Vec<String>>| {
            names.as_ref().and_then(|names| names.first().cloned()).unwrap_or_default()
        };
        let requires = &task.requires;
        let value = |placeholder| match placeholder {
            Placeholder::Task => task.id.to_string(),
            Placeholder::From => task.from.to_string(),
            Placeholder::Node => config.node.to_string(),
            Placeholder::Profile => self.name.to_string(),
            Placeholder::Image => requires.image.clone().unwrap_or_else(|| first(&self.backend.images)),
            // A tool is asked of a backend only where no image is: a name that nobody listed is never an argument.
            Placeholder::Tool => {
                let listed =
                    |tool: &&String| self.backend.tools.as_ref().is_some_and(|tools| tools.contains(tool));
                requires.tool.as_ref().filter(listed).cloned().unwrap_or_else(|| first(&self.backend.tools))
            }
            Placeholder::VramGb => requires.min_vram_gb.map_or_else(|| "0".to_owned(), |gb| gb.to_string()),
            Placeholder::TimeoutS => timeout_s.to_string(),
        };
        Some((argv.iter().map(|argument| argument.render(value)).collect(), env.clone()))
    }

    /// The hosted API that its agent calls.
    pub(crate) fn endpoint(&self, config: &Config) -> Option<EndpointUse> {
        let endpoint = config.endpoints.get(self.profile.endpoint.as_ref()?)?;
        Some(EndpointUse {
            name: endpoint.name.to_string(),
            host: endpoint.host.clone(),
            base_url: endpoint.base_url.clone(),
            base_url_env: endpoint.base_url_env.clone(),
            secret_env: endpoint.secret_env.clone(),
        })
    }

    /// What the machine costs, for the recipe.
    pub(crate) fn price(&self) -> Option<MachinePrice> {
        let machine = self.backend.machine?;
        let text = |rate: Usd| Dec::from_usd(rate).map(|rate| rate.to_string());
        Some(MachinePrice {
            gpu_usd_per_s: text(machine.rates.gpu)?,
            vcpu_usd_per_s: text(machine.rates.vcpu)?,
            gib_usd_per_s: text(machine.rates.gib)?,
            idle_tail_s: machine.rates.idle_tail_s,
            vcpus: machine.vcpus,
            memory_gib: machine.memory_gib,
        })
    }
}

/// What a run may take beyond its time-out: the ladder that ends its tree, what is left of that, and a begun second.
const ENDING_S: u64 = 30;

fn for_seconds(machine: MachineUse, seconds: u64) -> MachineUse {
    MachineUse { max_runtime_s: i64::try_from(seconds).unwrap_or(i64::MAX), ..machine }
}

/// A machine as a recipe keeps it; `None` for a price that no release ever wrote.
fn machine_of(price: &MachinePrice, seconds: u64) -> Option<MachineUse> {
    let rate = |text: &str| Dec::parse(text).ok().and_then(Dec::to_usd);
    let machine = MachineUse {
        rates: MachineRates {
            gpu: rate(&price.gpu_usd_per_s)?,
            vcpu: rate(&price.vcpu_usd_per_s)?,
            gib: rate(&price.gib_usd_per_s)?,
            idle_tail_s: price.idle_tail_s,
        },
        max_runtime_s: 0,
        vcpus: price.vcpus,
        memory_gib: price.memory_gib,
    };
    Some(for_seconds(machine, seconds))
}

/// Who pays for what runs on a backend of that kind (policy section 4).
const fn payer_of(kind: BackendKind) -> Payer {
    match kind {
        BackendKind::LanWorker => Payer::Elsewhere,
        BackendKind::Local | BackendKind::CloudWorker | BackendKind::Sdk => Payer::Here,
    }
}

/// What the backend of a stored recipe is to admission.
pub(crate) fn facts_of(recipe: &Recipe) -> BackendFacts {
    let longest_s = recipe.limits.timeout_s.saturating_add(ENDING_S);
    let machine = recipe.machine.as_ref().and_then(|price| machine_of(price, longest_s));
    BackendFacts {
        is_local: recipe.backend_kind == BackendKind::Local.as_str(),
        payer: BackendKind::parse(&recipe.backend_kind).map_or(Payer::Here, payer_of),
        billing: if recipe.machine.is_some() { Billing::Metered } else { Billing::Free },
        machine,
    }
}

/// What the machine of a stored recipe costs for so many milliseconds; `None` where it costs nothing by itself. Begun
/// seconds are whole ones.
pub(crate) fn machine_cost(recipe: &Recipe, elapsed_ms: u64) -> Option<Usd> {
    let machine = machine_of(recipe.machine.as_ref()?, elapsed_ms.div_ceil(1_000))?;
    budget::estimate(&Pricing { machine: Some(machine), ..Pricing::default() }).ok()
}

/// True when the backend of a stored recipe is not there any more, or may not be used any more.
pub(crate) fn is_gone(config: &Config, recipe: &Recipe) -> bool {
    let kept = config.backends.iter().find(|backend| {
        backend.name.as_str() == recipe.backend && backend.kind().as_str() == recipe.backend_kind
    });
    match kept {
        None => true,
        Some(backend) => backend.kind() == BackendKind::Sdk && config.exec.sdk == SdkUse::Denied,
    }
}

/// Backends that a heartbeat shows, and the bytes of names it has for a list: it must stay a small message.
const OFFERS_MAX: usize = 16;
const NAMES_BYTES_MAX: usize = 1_024;

/// What this node's backends offer, for its heartbeat. What may not be used is not offered.
pub(crate) fn offers(config: &Config) -> Vec<BackendOffer> {
    let usable =
        |backend: &&Backend| backend.kind() != BackendKind::Sdk || config.exec.sdk == SdkUse::Allowed;
    let offer = |backend: &Backend| BackendOffer {
        name: backend.name.to_string(),
        kind: backend.kind().as_str().to_owned(),
        has_gpu: backend.vram_gb.is_some(),
        vram_gb: backend.vram_gb,
        tools: shown(backend.tools.as_ref()),
        images: shown(backend.images.as_ref()),
    };
    config.backends.iter().filter(usable).take(OFFERS_MAX).map(offer).collect()
}

/// An empty list says any; so does one that is too long to be shown, and the node itself then decides.
fn shown(names: Option<&Vec<String>>) -> Vec<String> {
    let names: Vec<String> = names.into_iter().flatten().cloned().collect();
    let bytes: usize = names.iter().map(String::len).sum();
    if bytes > NAMES_BYTES_MAX || names.len() > LIST_LEN_MAX { Vec::new() } else { names }
}

/// How many more attempts each backend with a limit of its own takes now; a backend without one is not listed.
pub(crate) fn places(reader: &Reader, config: &Config) -> Result<BTreeMap<String, usize>, LedgerError> {
    let limits =
        config.backends.iter().filter_map(|backend| Some((backend.name.to_string(), backend.max_parallel?)));
    let mut left: BTreeMap<String, usize> =
        limits.map(|(name, max)| (name, usize::try_from(max).unwrap_or(usize::MAX))).collect();
    if left.is_empty() {
        return Ok(left);
    }
    for attempt in reader.open_attempts()? {
        let recipe = reader.recipe(&attempt.key)?.and_then(|text| recipes::parse(&text));
        if let Some(places) = recipe.and_then(|recipe| left.get_mut(&recipe.backend)) {
            *places = places.saturating_sub(1);
        }
    }
    Ok(left)
}
