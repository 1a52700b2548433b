//! From a task and this node's configuration to the recipe it would run by, and from a recipe to an executor's order.

use std::collections::BTreeMap;
use std::path::PathBuf;

use dispatch_core::planner::recipe::{Limits, Models, RECIPE_SCHEMA, Recipe};
use dispatch_core::policy::admission::{Billing, Cost};
use dispatch_core::policy::money::Usd;
use dispatch_core::policy::routing::BackendKind;
use dispatch_core::protocol::names::{Digest, Lane, Name, NodeName, TaskId};
use dispatch_core::protocol::task::Task;
use dispatch_node::config::{Config, Profile};
use dispatch_node::job::{AgentKind, KillswitchPlaces, Metering, Order};
use dispatch_spool::layout::{Area, Dir};

use crate::routing;

/// The word of an agent's kind, in recipes, terms and results.
pub(crate) const fn kind_word(kind: AgentKind) -> &'static str {
    match kind {
        AgentKind::Claude => "claude",
        AgentKind::Codex => "codex",
        AgentKind::Gemini => "gemini",
        AgentKind::Command => "command",
    }
}

/// What recipes and terms say in the place of an agent's kind where another node runs the task.
const FORWARDED: &str = "forwarded";

pub(crate) fn kind_of(word: &str) -> Option<AgentKind> {
    [AgentKind::Claude, AgentKind::Codex, AgentKind::Gemini, AgentKind::Command]
        .into_iter()
        .find(|kind| kind_word(*kind) == word)
}

/// Reads a stored recipe; `None` for one of a layout that this release does not know.
pub(crate) fn parse(text: &str) -> Option<Recipe> {
    serde_json::from_str::<Recipe>(text).ok().filter(|recipe| recipe.schema == RECIPE_SCHEMA)
}

/// True where the agent itself runs on this node, and not the client of an engine that runs it elsewhere, and was granted
/// tasks to send. No other needs a door, and a door takes time to make.
pub(crate) fn may_send(recipe: &Recipe) -> bool {
    let is_here =
        [BackendKind::Local, BackendKind::Sdk].iter().any(|kind| kind.as_str() == recipe.backend_kind);
    is_here && recipe.fanout > 0
}

/// The text of a recipe, as the ledger keeps it.
pub(crate) fn write(recipe: &Recipe) -> String {
    // A structure of texts and numbers always has a JSON form; an empty text would be refused when it is read.
    serde_json::to_string(recipe).unwrap_or_default()
}

/// Resolves what exactly would run. `None` where the configuration lacks the profile or workspace, or nothing can run it.
pub(crate) fn resolve(config: &Config, task: &Task, cost: Cost) -> Option<Recipe> {
    let route = routing::route(config, task)?.route()?;
    if let Some(node) = route.forwards_to() {
        return Some(forwarded(&route, node, task, cost));
    }
    let profile = route.profile;
    let limits = limits(profile, task);
    let endpoint = route.endpoint(config);
    let client = route.client(config, task, limits.timeout_s);
    let kind = if client.is_some() { AgentKind::Command } else { profile.agent };
    let (argv, mut env) = client.unwrap_or_else(|| (profile.argv.clone(), profile.env.clone()));
    let mut set = profile.set.clone();
    if let Some(endpoint) = &endpoint {
        env.push(endpoint.secret_env.clone());
        set.extend(endpoint.base_url_env.iter().map(|name| (name.clone(), endpoint.base_url.clone())));
    }
    let workspace = task.workspace.clone().or_else(|| profile.workspace.clone());
    let workspace_path = match &workspace {
        Some(name) => Some(config.workspaces.get(name)?.to_string_lossy().into_owned()),
        None => None,
    };
    let mode =
        if task.require_dangerous { profile.dangerous_mode.clone() } else { profile.permission_mode.clone() };
    Some(Recipe {
        schema: RECIPE_SCHEMA,
        profile: route.name.to_string(),
        kind: kind.as_str().to_owned(),
        argv,
        env,
        set,
        permission_mode: mode,
        workspace: workspace.map(|name| name.to_string()),
        workspace_path,
        backend: route.backend.name.to_string(),
        backend_kind: route.backend.kind().as_str().to_owned(),
        billing: billing(profile).as_str().to_owned(),
        ceiling_usd: cost.ceiling_usd.map(|usd| usd.to_string()),
        estimate_usd: cost.estimate_usd.map(|usd| usd.to_string()),
        limits,
        machine: route.price(),
        endpoint,
        models: models(profile),
        forward: None,
        fanout: fanout(config, task),
    })
}

/// What another node runs by a recipe of its own: here only where, for how long at most and for how much.
fn forwarded(route: &routing::Route<'_>, node: &NodeName, task: &Task, cost: Cost) -> Recipe {
    Recipe {
        schema: RECIPE_SCHEMA,
        profile: route.name.to_string(),
        kind: FORWARDED.to_owned(),
        argv: Vec::new(),
        env: Vec::new(),
        set: BTreeMap::new(),
        permission_mode: None,
        workspace: task.workspace.as_ref().map(ToString::to_string),
        workspace_path: None,
        backend: route.backend.name.to_string(),
        backend_kind: route.backend.kind().as_str().to_owned(),
        billing: billing(route.profile).as_str().to_owned(),
        ceiling_usd: cost.ceiling_usd.map(|usd| usd.to_string()),
        estimate_usd: cost.estimate_usd.map(|usd| usd.to_string()),
        limits: limits(route.profile, task),
        machine: None,
        endpoint: None,
        models: None,
        forward: Some(node.to_string()),
        fanout: 0,
    }
}

/// How many tasks a task may send from here.
fn fanout(config: &Config, task: &Task) -> u32 {
    let granted = task.lineage.as_ref().map_or(0, |lineage| lineage.fanout_left);
    granted.min(config.lineage.fanout_max)
}

fn models(profile: &Profile) -> Option<Models> {
    (profile.agent != AgentKind::Command).then(|| Models {
        allowed: profile.models.clone(),
        output_tokens_max: profile.output_tokens_max,
        parallel_requests: profile.parallel_requests,
    })
}

/// How the agent is metered: by the recipe, at the prices of today. `None` where dollars do not count.
fn metering(config: &Config, recipe: &Recipe, billing: Billing) -> Option<Metering> {
    let models = recipe.models.as_ref().filter(|_| billing == Billing::Metered)?;
    Some(Metering {
        soft_ratio: config.budget.soft_ratio,
        models: models.allowed.clone(),
        output_tokens_max: models.output_tokens_max,
        parallel_requests: models.parallel_requests,
        prices: Metering::prices_of(config.prices.table()),
    })
}

/// A task's limits: what it asks for, within what its profile allows.
pub(crate) fn limits(profile: &Profile, task: &Task) -> Limits {
    let timeout_s = u64::from(task.timeout_s.min(profile.max_timeout_s));
    Limits {
        timeout_s,
        silence_timeout_s: u64::from(task.silence_timeout_s.unwrap_or(profile.silence_timeout_s)),
        tool_timeout_s: u64::from(profile.tool_timeout_s),
        max_output_bytes: task.max_output_bytes.min(profile.max_output_bytes),
    }
}

/// How a profile is paid, in the rules' own word.
pub(crate) fn billing(profile: &Profile) -> Billing {
    profile.billing
}

/// What an order is about.
pub(crate) struct OrderFacts<'a> {
    pub(crate) node: &'a NodeName,
    pub(crate) from: &'a NodeName,
    pub(crate) task: TaskId,
    pub(crate) task_sha256: Digest,
    pub(crate) attempt: u32,
    pub(crate) epoch: u64,
    pub(crate) mark: &'a str,
    pub(crate) token: Option<&'a str>,
    pub(crate) ceiling_usd: Option<Usd>,
}

/// The order of one lease, from the stored recipe. `None` for a recipe that names what no release ever wrote.
pub(crate) fn order(config: &Config, recipe: Recipe, facts: &OrderFacts<'_>) -> Option<Order> {
    let lane = Lane::new(facts.from.clone(), facts.node.clone());
    let billing = Billing::parse(&recipe.billing)?;
    let metering = metering(config, &recipe, billing);
    Some(Order {
        node: facts.node.clone(),
        from: facts.from.clone(),
        task: facts.task,
        task_sha256: facts.task_sha256,
        attempt: facts.attempt,
        epoch: facts.epoch,
        mark: facts.mark.to_owned(),
        token: facts.token.map(str::to_owned),
        profile: Name::new(&recipe.profile).ok()?,
        kind: kind_of(&recipe.kind)?,
        argv: recipe.argv,
        env: recipe.env,
        secrets: recipe.endpoint.map(|endpoint| endpoint.secret_env).into_iter().collect(),
        set: recipe.set,
        cwd: recipe.workspace_path.map(PathBuf::from),
        permission_mode: recipe.permission_mode,
        timeout_s: recipe.limits.timeout_s,
        silence_timeout_s: recipe.limits.silence_timeout_s,
        tool_timeout_s: recipe.limits.tool_timeout_s,
        max_output_bytes: recipe.limits.max_output_bytes,
        ceiling_usd: facts.ceiling_usd,
        billing,
        metering,
        cluster: config.cluster,
        killswitch: KillswitchPlaces {
            root: config.root.clone(),
            lane: config.root.join(Dir::lane(&lane, Area::Top).path()),
            state: config.state.path().to_owned(),
        },
    })
}
