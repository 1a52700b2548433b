//! The configuration: `dispatch.toml`, read raw and checked in one place. Nothing else reads it or the environment's
//! overrides of it, so what holds is what [`Config`] says, and [`Config::effective`] says why.

mod backends;
mod environment;
mod error;
mod peers;
mod places;
mod prices;
mod read;
mod safeguards;
mod section;
mod tables;
mod values;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dispatch_core::policy::dec::Dec;
use dispatch_core::policy::fleet::HealthLimits;
use dispatch_core::policy::money::Usd;
use dispatch_core::policy::price::{OvershootError, PriceTable};
use dispatch_core::policy::routing::SdkUse;
use dispatch_core::protocol::names::{Name, NodeName};
use uuid::Uuid;

pub use dispatch_core::policy::admission::Billing;
pub use dispatch_core::policy::gate::{GateLimits, PeerGate};
pub use dispatch_core::policy::window::Caps;

pub use backends::{Backend, Endpoint, Runs};
pub use environment::Environment;
pub use error::{ConfigError, Problem};
pub use peers::{Peer, Speaks, Version2};
pub use places::{default_config_file, default_state_dir};
pub use prices::Prices;
pub use safeguards::Safeguards;

pub use crate::job::AgentKind;
use crate::state::StateDir;

/// The commented default file: the reference of every key. `init` writes its parts.
pub const DEFAULT_FILE: &str = include_str!("default.toml");

/// What a node is told by its people, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file it was read from.
    pub file: PathBuf,
    /// The directory of that file: what relative paths are relative to.
    pub dir: PathBuf,
    /// The share.
    pub root: PathBuf,
    /// This node.
    pub node: NodeName,
    /// The cluster, made once by `init`.
    pub cluster: Uuid,
    /// Where this node keeps what is its own.
    pub state: StateDir,
    /// The nodes this one speaks with.
    pub peers: BTreeMap<NodeName, Peer>,
    /// How the share is watched.
    pub watch: Watch,
    /// How much runs at once.
    pub exec: Exec,
    /// Who may decide, and when a person must.
    pub approve: Approve,
    /// How a tripped killswitch is lifted.
    pub killswitch: Killswitch,
    /// Caps of money.
    pub budget: Budget,
    /// What stops spending before a cap does.
    pub safeguards: Safeguards,
    /// Caps of tasks.
    pub limits: Limits,
    /// Caps of tasks that tasks send.
    pub lineage: LineageLimits,
    /// What is run to tell a person something.
    pub notify: Option<Notify>,
    /// The recipes a sender may name.
    pub profiles: BTreeMap<Name, Profile>,
    /// The working directories a sender may name.
    pub workspaces: BTreeMap<Name, PathBuf>,
    /// Where tasks can run, in configured order.
    pub backends: Vec<Backend>,
    /// Hosted APIs that profiles' agents call.
    pub endpoints: BTreeMap<Name, Endpoint>,
    /// What models cost.
    pub prices: Prices,
    /// Every key's value and where it came from, in the order of the reference.
    pub effective: Vec<Effective>,
}

/// One key as it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effective {
    /// The key with its tables: `peer.devbox.gate`.
    pub key: String,
    /// Its value, as TOML.
    pub value: String,
    /// Where it came from.
    pub origin: Origin,
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// This line of the file, counted from 1.
    Line(usize),
    /// This variable of the environment.
    Variable(&'static str),
    /// The built-in default.
    Default,
}

/// `[watch]`: how the share is watched.
#[derive(Clone, Copy, Debug)]
pub struct Watch {
    /// What rings before the next tick does.
    pub strategy: Strategy,
    /// From one fresh listing to the next; `None`: the watcher's own choice for the strategy.
    pub poll: Option<Duration>,
    /// From one heartbeat to the next.
    pub heartbeat: Duration,
    /// How long a file that must be there may stay invisible.
    pub visibility_wait: Duration,
    /// From which age of its last heartbeat a peer is stale, and dead; in seconds.
    pub health: HealthLimits,
    /// The age from which it is dead.
    pub dead_after: Duration,
}

/// What rings when something changes on the share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// inotify on a local file system, polling elsewhere.
    Auto,
    /// inotify, wherever the share lies.
    Inotify,
    /// Nothing: fresh listings only.
    Poll,
    /// The notifications of SMB 3.
    SmbNotify,
}

/// `[exec]`: how much runs at once.
#[derive(Clone, Copy, Debug)]
pub struct Exec {
    /// Attempts leased and not ended.
    pub max_parallel: u32,
    /// Whether tasks that allow it may go to backends of kind `sdk`.
    pub sdk: SdkUse,
}

/// `[approve]`: who may decide, and when a person must.
#[derive(Clone, Debug)]
pub struct Approve {
    /// The `allowed_signers` file.
    pub allowed_signers: PathBuf,
    /// Distinct people who must say yes.
    pub required: u32,
    /// The key that `dispatch-ack` signs with here, when it is told no other.
    pub key: Option<PathBuf>,
    /// What waits for a person although nobody asked.
    pub gate: GateLimits,
}

/// `[killswitch]`: how a tripped one is lifted.
#[derive(Clone, Copy, Debug)]
pub struct Killswitch {
    /// True: a stopped node goes on when the file is gone *and* `dispatchctl resume` ran on it. False: when the file
    /// is gone, except after `kill`.
    pub latch: bool,
}

/// `[budget]`: caps of money. A cap of 0 means that paid work is off.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Of each window.
    pub caps: Caps,
    /// New batch names a sender may open in a UTC day.
    pub runs_per_day: u32,
    /// The part of a task's ceiling at which a running agent's spend is worth a word; above 0 and at most 1.
    pub soft_ratio: Dec,
}

/// `[limits]`: caps of tasks, per lane and sender.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Tasks of one lane that are accepted and not final.
    pub max_queued: u32,
    /// Tasks of one sender that wait for a person.
    pub max_waiting: u32,
}

/// `[lineage]`: caps of tasks that tasks send, whatever they were allowed elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineageLimits {
    /// The deepest a task may lie in its tree, in steps from its root, to run here or to be sent from here by a task.
    pub depth_max: u32,
    /// The most tasks that one task may send from here, those of its children included.
    pub fanout_max: u32,
}

/// `[notify]`: what is run to tell a person something; JSON on its standard input.
#[derive(Clone, Debug)]
pub struct Notify {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Names of variables of the watcher's environment that the program gets beside its fixed minimum.
    pub env: Vec<String>,
    /// Variables that the program gets with these values.
    pub set: BTreeMap<String, String>,
}

/// `[profile.NAME]`: a recipe of this node that a sender may name.
#[derive(Clone, Debug)]
pub struct Profile {
    /// What kind of program runs.
    pub agent: AgentKind,
    /// Program and arguments; empty: the adapter's own for that agent.
    pub argv: Vec<String>,
    /// The agent's permission mode; `None` for commands.
    pub permission_mode: Option<String>,
    /// The mode of `require_dangerous` tasks; see [`Profile::has_unrestricted_mode`].
    pub dangerous_mode: Option<String>,
    /// Most one attempt may cost; `None`: the task must say.
    pub max_cost: Option<Usd>,
    /// Price of one largest response: what can be spent beyond the ceiling before it is seen.
    pub overshoot: Option<Usd>,
    /// The models that the agent may use, the one it works with first; empty: as the agent chooses.
    pub models: Vec<String>,
    /// The longest answer of a model, in tokens.
    pub output_tokens_max: u64,
    /// Requests that the agent may have open at once; 1 forbids subagents.
    pub parallel_requests: u32,
    /// Who pays, and how.
    pub billing: Billing,
    /// Names of variables of the watcher's environment that the agent gets.
    pub env: Vec<String>,
    /// Variables that the agent gets with these values.
    pub set: BTreeMap<String, String>,
    /// Longest `timeout_s` a task may ask for.
    pub max_timeout_s: u32,
    /// Most `max_output_bytes` a task may ask for.
    pub max_output_bytes: u64,
    /// Seconds without output that mean hung, for tasks that do not say; 0: off.
    pub silence_timeout_s: u32,
    /// Seconds for which an open tool call counts as output.
    pub tool_timeout_s: u32,
    /// Distinct people who must say yes; `None`: as `[approve]` says.
    pub required: Option<u32>,
    /// Where it runs when the task has no workspace: a fresh directory, or this workspace.
    pub workspace: Option<Name>,
    /// The hosted API its agent calls.
    pub endpoint: Option<Name>,
}

impl Profile {
    /// Whether a task may ask for an unrestricted mode. A command has no other one; a coding agent has one where the
    /// profile names it.
    #[must_use]
    pub fn has_unrestricted_mode(&self) -> bool {
        self.agent == AgentKind::Command || self.dangerous_mode.is_some()
    }

    /// What can be spent beyond the ceiling before it is seen, by what models cost.
    ///
    /// # Errors
    /// A model without a price.
    pub fn least_overshoot(&self, prices: &PriceTable) -> Result<Usd, OvershootError> {
        prices.overshoot(&self.models, self.output_tokens_max, self.parallel_requests)
    }
}

impl Config {
    /// Reads and checks the configuration this command line and environment mean.
    ///
    /// # Errors
    /// No file, an unreadable one, or any key that does not hold; the error says where and what to do.
    pub fn load(option: Option<&Path>) -> Result<Config, ConfigError> {
        Config::load_with(option, &Environment::of_process())
    }

    /// The same in a given environment.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load_with(option: Option<&Path>, environment: &Environment) -> Result<Config, ConfigError> {
        let file = places::find_config_file(option, environment)?;
        read::read_file(&file, environment)
    }

    /// Checks a text as if it stood in this file.
    ///
    /// # Errors
    /// Any key that does not hold.
    pub fn check(file: &Path, text: &str, environment: &Environment) -> Result<Config, ConfigError> {
        read::check(file, text, environment)
    }

    /// The peer of that name.
    #[must_use]
    pub fn peer(&self, name: &NodeName) -> Option<&Peer> {
        self.peers.get(name)
    }

    /// The directory of standing approvals.
    #[must_use]
    pub fn standing_dir(&self) -> PathBuf {
        self.dir.join("standing")
    }
}
