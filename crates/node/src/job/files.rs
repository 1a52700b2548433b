//! The files of a job directory as values.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use dispatch_core::policy::admission::Billing;
use dispatch_core::policy::money::Usd;
use dispatch_core::protocol::names::{Digest, Name, NodeName, TaskId};
use dispatch_core::protocol::time::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::meter::{Metered, Metering};
use super::text;

/// Which adapter runs the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AgentKind {
    /// Claude Code.
    Claude,
    /// Codex.
    Codex,
    /// Gemini CLI.
    Gemini,
    /// Any program: the request is its standard input, its standard output is the answer.
    Command,
}

impl AgentKind {
    /// The word in files and messages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            AgentKind::Claude => "claude",
            AgentKind::Codex => "codex",
            AgentKind::Gemini => "gemini",
            AgentKind::Command => "command",
        }
    }
}

impl fmt::Display for AgentKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The three directories in which a killswitch may stand (protocol section 8).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KillswitchPlaces {
    /// The share's root: its listing holds `CLUSTER` too.
    pub root: PathBuf,
    /// The lane's directory on the share. The log's mirror goes to `done/` in it.
    pub lane: PathBuf,
    /// The node's state directory.
    pub state: PathBuf,
}

/// `order.json`: what the watcher tells the executor to do, resolved.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// The node that runs it.
    #[serde(with = "text")]
    pub node: NodeName,
    /// The node that sent the task.
    #[serde(with = "text")]
    pub from: NodeName,
    /// The task's id.
    #[serde(with = "text")]
    pub task: TaskId,
    /// Digest of the task's payload bytes.
    #[serde(with = "text")]
    pub task_sha256: Digest,
    /// Which attempt of the task this is, from 1.
    pub attempt: u32,
    /// The lease's fencing number.
    pub epoch: u64,
    /// Random text in the agent's environment as `DISPATCH_MARK`: what a sweep looks for; no credential.
    pub mark: String,
    /// What the agent shows at its door to send tasks of its own; none where it may not, and in orders of before. Dead
    /// with the attempt; the ledger holds its digest only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// The profile the recipe was made from.
    #[serde(with = "text")]
    pub profile: Name,
    /// The adapter.
    pub kind: AgentKind,
    /// The agent's program and arguments; never holds the request.
    pub argv: Vec<String>,
    /// Names of variables that are passed on from the executor's own environment.
    pub env: Vec<String>,
    /// Those of them that must hold a secret: unset or empty, nothing starts.
    #[serde(default)]
    pub secrets: Vec<String>,
    /// Variables with their values.
    pub set: BTreeMap<String, String>,
    /// The working directory; null is a fresh `work/` in the job directory.
    #[serde(with = "text::nullable")]
    pub cwd: Option<PathBuf>,
    /// The agent's own permission mode, where its kind has one.
    #[serde(with = "text::nullable")]
    pub permission_mode: Option<String>,
    /// Wall clock from spawn, in seconds.
    pub timeout_s: u64,
    /// No output for so many seconds is hung; 0 is off.
    pub silence_timeout_s: u64,
    /// An open tool call counts as output for so many seconds.
    pub tool_timeout_s: u64,
    /// Cap of the log, in bytes.
    pub max_output_bytes: u64,
    /// What the attempt may cost at most.
    #[serde(with = "text::or_null")]
    pub ceiling_usd: Option<Usd>,
    /// How it is paid for.
    #[serde(with = "text")]
    pub billing: Billing,
    /// How it is metered; null where dollars do not count, and for agents that show no usage.
    #[serde(default)]
    pub metering: Option<Metering>,
    /// The cluster: `CLUSTER` on the share must say the same, else the share counts as unreachable.
    #[serde(with = "text")]
    pub cluster: Uuid,
    /// Where to look for killswitches.
    pub killswitch: KillswitchPlaces,
}

impl fmt::Debug for Order {
    /// Only which order it is: the values it sets may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Order")
            .field("from", &self.from)
            .field("task", &self.task)
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
    }
}

/// What holds the agent's process tree together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mechanism {
    /// A cgroup of version 2 with `cgroup.kill`, beside the subreaper.
    Cgroup,
    /// The executor is the tree's subreaper and sweeps it.
    Subreaper,
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mechanism::Cgroup => "cgroup",
            Mechanism::Subreaper => "subreaper",
        })
    }
}

/// `started.json`: synced before the agent is started, so without one no agent ever ran.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Started {
    /// The lease's fencing number.
    pub epoch: u64,
    /// When it was written.
    #[serde(with = "text")]
    pub at: Timestamp,
    /// The kernel's id of this boot: another one means that no process of the attempt is left.
    #[serde(with = "text")]
    pub boot_id: Uuid,
    /// What holds the process tree.
    pub mechanism: Mechanism,
}

/// Why an attempt is to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopWhy {
    /// A cancel.
    Cancelled,
    /// A killswitch in kill mode: the short ladder.
    Killed,
}

/// `stop.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stop {
    /// Why.
    pub why: StopWhy,
    /// When it was written.
    #[serde(with = "text")]
    pub at: Timestamp,
}

/// `progress.json`: how far the agent is. Replaced while it runs, not synced: losing it loses nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// The lease's fencing number.
    pub epoch: u64,
    /// Position in this attempt's progress, from 1.
    pub seq: u64,
    /// When it was written.
    #[serde(with = "text")]
    pub at: Timestamp,
    /// Time since spawn.
    pub elapsed_ms: u64,
    /// Turns of the agent so far, where its kind has them.
    #[serde(with = "text::nullable")]
    pub turns: Option<u64>,
    /// The last tool it used.
    #[serde(with = "text::nullable")]
    pub last_tool: Option<String>,
    /// Tokens so far.
    #[serde(with = "text::nullable")]
    pub tokens: Option<u64>,
    /// Cost so far.
    #[serde(with = "text::or_null")]
    pub usd: Option<Usd>,
    /// The last line of output, made valid and at most 200 characters long.
    #[serde(with = "text::nullable")]
    pub last_line: Option<String>,
}

/// How an attempt ended: the statuses of protocol section 6 that an executor can see, and `not_started`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutcomeStatus {
    /// Exit 0 and, for coding agents, a final answer.
    Ok,
    /// A permission was denied on the way.
    Refuted,
    /// Exit other than 0, no final answer, or it could not be started.
    Error,
    /// Wall clock.
    Timeout,
    /// Silence.
    Silent,
    /// Stopped at its ceiling.
    OverBudget,
    /// A killswitch in kill mode.
    Killed,
    /// A cancel.
    Cancelled,
    /// A stop or a killswitch was there before the agent was started.
    NotStarted,
}

impl OutcomeStatus {
    /// The word in the file and in results.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            OutcomeStatus::Ok => "ok",
            OutcomeStatus::Refuted => "refuted",
            OutcomeStatus::Error => "error",
            OutcomeStatus::Timeout => "timeout",
            OutcomeStatus::Silent => "silent",
            OutcomeStatus::OverBudget => "over_budget",
            OutcomeStatus::Killed => "killed",
            OutcomeStatus::Cancelled => "cancelled",
            OutcomeStatus::NotStarted => "not_started",
        }
    }
}

impl fmt::Display for OutcomeStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a status is what it is, for machines and for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reason {
    /// One word, stable: `cannot_start`, `exit_code`, `signal`, `timeout`, `silent`, `cancelled`, `killed`, `killswitch`,
    /// `share_unreachable`, `interrupted`, `over_budget`; of coding agents also `no_final_answer`, `no_model_call`, `permission_denied`,
    /// `max_turns`, `aborted`, `agent_error`, `agent_version`, `auth`, `quota_wall`, `rate_limit`, `overloaded`,
    /// `api_request`, `api_error`.
    pub code: String,
    /// What happened.
    pub text: String,
    /// What to do about it.
    pub help: String,
}

/// Where a cost comes from (policy section 1); the watcher adds `reserved` and `none`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CostBasis {
    /// The agent's own final figure.
    Reported,
    /// Metered from streamed usage and the price table.
    Derived,
}

/// What the agent cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cost {
    /// The amount.
    #[serde(with = "text")]
    pub usd: Usd,
    /// Where it comes from.
    pub basis: CostBasis,
}

/// Tokens that the agent used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Usage {
    /// Tokens read.
    pub input_tokens: u64,
    /// Tokens written.
    pub output_tokens: u64,
    /// Tokens read from a cache.
    pub cache_read_tokens: u64,
    /// Tokens written to a cache.
    pub cache_write_tokens: u64,
}

/// What is known of the agent that ran.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentSeen {
    /// The profile.
    #[serde(with = "text")]
    pub profile: Name,
    /// The adapter.
    pub kind: AgentKind,
    /// Its version, where it says so.
    #[serde(with = "text::nullable")]
    pub version: Option<String>,
    /// Its session, where it has one.
    #[serde(with = "text::nullable")]
    pub session_id: Option<String>,
}

/// What held the process tree, and what it left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Containment {
    /// What held it.
    pub mechanism: Mechanism,
    /// Processes of the tree that were still alive when the executor gave up ending them; normally 0.
    pub descendants_left: u64,
}

/// `outcome.json`: what happened. Syncing it is the executor's last act.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outcome {
    /// The lease's fencing number.
    pub epoch: u64,
    /// True once the agent's program ran: false lets the whole reservation go.
    pub spawned: bool,
    /// How it ended.
    pub status: OutcomeStatus,
    /// Why, when there is something to say.
    #[serde(with = "text::nullable")]
    pub reason: Option<Reason>,
    /// The agent's exit code, where it exited.
    #[serde(with = "text::nullable")]
    pub exit_code: Option<i32>,
    /// The signal that ended the agent, where one did.
    #[serde(with = "text::nullable")]
    pub signal: Option<i32>,
    /// When the agent was spawned.
    #[serde(with = "text::or_null")]
    pub started_at: Option<Timestamp>,
    /// When the attempt was over.
    #[serde(with = "text::or_null")]
    pub ended_at: Option<Timestamp>,
    /// Time between the two, by a clock that nobody sets.
    #[serde(with = "text::nullable")]
    pub elapsed_ms: Option<u64>,
    /// The agent's answer: at most 8 000 characters, made valid.
    #[serde(with = "text::nullable")]
    pub final_text: Option<String>,
    /// The end of everything it printed: at most 8 000 characters, made valid.
    #[serde(with = "text::nullable")]
    pub output_tail: Option<String>,
    /// Bytes the agent printed, dropped ones included.
    pub output_bytes: u64,
    /// Bytes of the log.
    pub log_bytes: u64,
    /// Digest of the log; null when no agent was spawned.
    #[serde(with = "text::or_null")]
    pub log_sha256: Option<Digest>,
    /// True when output was dropped from the log.
    pub truncated: bool,
    /// What it cost; null when nobody knows.
    #[serde(with = "text::nullable")]
    pub cost: Option<Cost>,
    /// What the meter came to; null where nothing was metered.
    #[serde(default)]
    pub metered: Option<Metered>,
    /// Tokens used; null when nobody knows.
    #[serde(with = "text::nullable")]
    pub usage: Option<Usage>,
    /// The agent; null when none was spawned.
    #[serde(with = "text::nullable")]
    pub agent: Option<AgentSeen>,
    /// When a limit of the agent's account that ended it resets; null where none did, or none said so.
    #[serde(default, with = "text::or_null")]
    pub resets_at: Option<Timestamp>,
    /// Permissions that the agent was denied.
    pub permission_denials: Vec<String>,
    /// What held the process tree; null when no agent was spawned.
    #[serde(with = "text::nullable")]
    pub containment: Option<Containment>,
}

impl Outcome {
    /// An outcome of which no more is known than this: nothing was spawned, nothing seen, nothing paid.
    #[must_use]
    pub const fn bare(epoch: u64, status: OutcomeStatus) -> Outcome {
        Outcome {
            epoch,
            spawned: false,
            status,
            reason: None,
            exit_code: None,
            signal: None,
            started_at: None,
            ended_at: None,
            elapsed_ms: None,
            final_text: None,
            output_tail: None,
            output_bytes: 0,
            log_bytes: 0,
            log_sha256: None,
            truncated: false,
            cost: None,
            metered: None,
            usage: None,
            agent: None,
            resets_at: None,
            permission_denials: Vec::new(),
            containment: None,
        }
    }
}
