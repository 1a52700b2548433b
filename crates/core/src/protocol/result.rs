//! What came of a task: the payload `result.v3` (protocol section 6).

use uuid::Uuid;

use crate::protocol::limits;
use crate::protocol::members::{self, FormError, Members};
use crate::protocol::names::{Digest, Name, NodeName, TaskId};
use crate::protocol::parts::{self, AuditHead, Cost, FileRef};
use crate::protocol::payload::{Kind, Payload};
use crate::protocol::time::Timestamp;
use crate::protocol::writer::{Emit, Object, object};

crate::protocol::words::words! {
    /// What came of a task or of one attempt.
    pub enum Status {
        /// Exit 0 and, for coding agents, a final answer.
        Ok = "ok",
        /// `ok`, and its acceptance checks passed too.
        Verified = "verified",
        /// An acceptance check failed, or a permission was denied on the way.
        Refuted = "refuted",
        /// Non-zero exit, no final answer, or it could not be started.
        Error = "error",
        /// Ended by the wall clock.
        Timeout = "timeout",
        /// Ended for its silence.
        Silent = "silent",
        /// Stopped at its ceiling.
        OverBudget = "over_budget",
        /// Ended by the killswitch in kill mode.
        Killed = "killed",
        /// Ended, or never started, by a cancel.
        Cancelled = "cancelled",
        /// Never ran: policy.
        Rejected = "rejected",
        /// Never ran: a human.
        Denied = "denied",
        /// Never ran: time.
        Expired = "expired",
        /// It may or may not have run to its end.
        Unknown = "unknown",
    }
}

impl Status {
    /// True for the two that mean success.
    #[must_use]
    pub const fn is_success(self) -> bool {
        match self {
            Status::Ok | Status::Verified => true,
            Status::Refuted
            | Status::Error
            | Status::Timeout
            | Status::Silent
            | Status::OverBudget
            | Status::Killed
            | Status::Cancelled
            | Status::Rejected
            | Status::Denied
            | Status::Expired
            | Status::Unknown => false,
        }
    }

    /// True if the node itself may run the task again where it allows more attempts (protocol section 6, third column).
    #[must_use]
    pub const fn may_run_again(self) -> bool {
        match self {
            Status::Error | Status::Unknown => true,
            Status::Ok
            | Status::Verified
            | Status::Refuted
            | Status::Timeout
            | Status::Silent
            | Status::OverBudget
            | Status::Killed
            | Status::Cancelled
            | Status::Rejected
            | Status::Denied
            | Status::Expired => false,
        }
    }
}

crate::protocol::words::words! {
    /// What was cut so that a result could be published.
    pub enum CutPart {
        /// Of `permission_denials`.
        Denials = "denials",
        /// Of `artifacts`.
        Artifacts = "artifacts",
        /// Of `output_tail`.
        Tail = "tail",
    }
}

/// Why, for people and programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// A reason code; those of this release are in [`crate::protocol::reason::ReasonCode`].
    pub code: String,
    /// What happened, one sentence.
    pub text: String,
    /// What to do now.
    pub help: String,
}

impl Reason {
    fn read(members: &mut Members<'_, '_>) -> Result<Reason, FormError> {
        Ok(Reason {
            code: members.required("code", members::text)?,
            text: members.required("text", members::text)?,
            help: members.required("help", members::text)?,
        })
    }
}

impl Emit for Reason {
    fn emit(&self, out: &mut String) {
        object(out, |o| {
            o.put("code", &self.code).put("text", &self.text).put("help", &self.help);
        });
    }
}

/// One attempt, as listed in a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptSummary {
    /// Its number, from 1.
    pub attempt: u32,
    /// Its epoch.
    pub epoch: u64,
    /// What came of it.
    pub status: Status,
    /// When its agent started; `None` if that is not known.
    pub started_at: Option<Timestamp>,
    /// When it ended; `None` if that is not known.
    pub ended_at: Option<Timestamp>,
    /// What it cost.
    pub cost: Cost,
}

impl AttemptSummary {
    fn read(members: &mut Members<'_, '_>) -> Result<AttemptSummary, FormError> {
        Ok(AttemptSummary {
            attempt: members.required("attempt", members::small_count)?,
            epoch: members.required("epoch", members::count)?,
            status: members.required("status", members::word)?,
            started_at: members.nullable("started_at", members::time)?,
            ended_at: members.nullable("ended_at", members::time)?,
            cost: members.required("cost", members::object(Cost::read))?,
        })
    }
}

impl Emit for AttemptSummary {
    fn emit(&self, out: &mut String) {
        object(out, |o| {
            o.put("attempt", &self.attempt)
                .put("epoch", &self.epoch)
                .put("status", &self.status)
                .put("started_at", &self.started_at)
                .put("ended_at", &self.ended_at)
                .put("cost", &self.cost);
        });
    }
}

/// Tokens that an agent used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens in.
    pub input_tokens: u64,
    /// Tokens out.
    pub output_tokens: u64,
    /// Tokens read from a cache.
    pub cache_read_tokens: u64,
    /// Tokens written to a cache.
    pub cache_write_tokens: u64,
}

impl Usage {
    fn read(members: &mut Members<'_, '_>) -> Result<Usage, FormError> {
        Ok(Usage {
            input_tokens: members.required("input_tokens", members::count)?,
            output_tokens: members.required("output_tokens", members::count)?,
            cache_read_tokens: members.required("cache_read_tokens", members::count)?,
            cache_write_tokens: members.required("cache_write_tokens", members::count)?,
        })
    }
}

impl Emit for Usage {
    fn emit(&self, out: &mut String) {
        object(out, |o| {
            o.put("input_tokens", &self.input_tokens)
                .put("output_tokens", &self.output_tokens)
                .put("cache_read_tokens", &self.cache_read_tokens)
                .put("cache_write_tokens", &self.cache_write_tokens);
        });
    }
}

/// The agent that ran.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentInfo {
    /// The profile.
    pub profile: Name,
    /// Its kind: `command`, `claude`, …
    pub kind: String,
    /// Its own version, where it says one.
    pub version: Option<String>,
    /// Its own session, where it has one.
    pub session_id: Option<String>,
}

impl AgentInfo {
    fn read(members: &mut Members<'_, '_>) -> Result<AgentInfo, FormError> {
        Ok(AgentInfo {
            profile: members.required("profile", members::name)?,
            kind: members.required("kind", members::text)?,
            version: members.nullable("version", members::text)?,
            session_id: members.nullable("session_id", members::text)?,
        })
    }
}

impl Emit for AgentInfo {
    fn emit(&self, out: &mut String) {
        object(out, |o| {
            o.put("profile", &self.profile)
                .put("kind", &self.kind)
                .put("version", &self.version)
                .put("session_id", &self.session_id);
        });
    }
}

/// The backend it ran on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendInfo {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: String,
}

impl BackendInfo {
    fn read(members: &mut Members<'_, '_>) -> Result<BackendInfo, FormError> {
        Ok(BackendInfo {
            name: members.required("name", members::text)?,
            kind: members.required("kind", members::text)?,
        })
    }
}

impl Emit for BackendInfo {
    fn emit(&self, out: &mut String) {
        object(out, |o| {
            o.put("name", &self.name).put("kind", &self.kind);
        });
    }
}

/// An acceptance check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckInfo {
    /// Its name.
    pub name: Name,
    /// Whether it passed.
    pub passed: bool,
}

impl CheckInfo {
    fn read(members: &mut Members<'_, '_>) -> Result<CheckInfo, FormError> {
        Ok(CheckInfo {
            name: members.required("name", members::name)?,
            passed: members.required("passed", members::flag)?,
        })
    }
}

impl Emit for CheckInfo {
    fn emit(&self, out: &mut String) {
        object(out, |o| {
            o.put("name", &self.name).put("passed", &self.passed);
        });
    }
}

/// How the agent's process tree was held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Containment {
    /// The mechanism.
    pub mechanism: String,
    /// Descendants that could not be ended.
    pub descendants_left: u64,
}

impl Containment {
    fn read(members: &mut Members<'_, '_>) -> Result<Containment, FormError> {
        Ok(Containment {
            mechanism: members.required("mechanism", members::text)?,
            descendants_left: members.required("descendants_left", members::count)?,
        })
    }
}

impl Emit for Containment {
    fn emit(&self, out: &mut String) {
        object(out, |o| {
            o.put("mechanism", &self.mechanism).put("descendants_left", &self.descendants_left);
        });
    }
}

/// What came of a task: one per task, published when it is final. `None` where it does not apply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskResult {
    /// The cluster.
    pub cluster: Uuid,
    /// The task's sender.
    pub from: NodeName,
    /// The node that answers.
    pub to: NodeName,
    /// The task.
    pub task: TaskId,
    /// The digest of the task's payload.
    pub task_sha256: Digest,
    /// What came of it.
    pub status: Status,
    /// Why, where there is something to say.
    pub reason: Option<Reason>,
    /// The epoch of the last attempt; 0 if it never ran.
    pub epoch: u64,
    /// The number of the last attempt; 0 if it never ran.
    pub attempt: u32,
    /// All attempts.
    pub attempts: Vec<AttemptSummary>,
    /// The agent's exit code.
    pub exit_code: Option<i32>,
    /// The signal that ended the agent.
    pub signal: Option<i32>,
    /// When the node accepted the task.
    pub accepted_at: Option<Timestamp>,
    /// When the last attempt's agent started.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// Milliseconds from start to end.
    pub elapsed_ms: Option<u64>,
    /// Milliseconds from acceptance to start.
    pub queue_wait_ms: Option<u64>,
    /// The agent's final answer, up to 8 000 characters.
    pub final_text: Option<String>,
    /// The end of its output, up to 8 000 characters.
    pub output_tail: Option<String>,
    /// Bytes it wrote.
    pub output_bytes: u64,
    /// Bytes of the log that was kept.
    pub log_bytes: u64,
    /// The log's digest.
    pub log_sha256: Option<Digest>,
    /// True if the log lacks something.
    pub truncated: bool,
    /// What it cost in all.
    pub cost: Cost,
    /// Tokens it used.
    pub usage: Option<Usage>,
    /// The agent.
    pub agent: Option<AgentInfo>,
    /// The backend.
    pub backend: Option<BackendInfo>,
    /// The agent's permission mode.
    pub permission_mode: Option<String>,
    /// What the agent was not allowed to do.
    pub permission_denials: Vec<String>,
    /// Acceptance checks.
    pub checks: Vec<CheckInfo>,
    /// How the process tree was held.
    pub containment: Option<Containment>,
    /// Outputs.
    pub artifacts: Vec<FileRef>,
    /// Principals who decided.
    pub decided_by: Vec<String>,
    /// Nodes it came through.
    pub via: Vec<NodeName>,
    /// Where the node's audit chain stood.
    pub audit: AuditHead,
    /// What was cut so that it could be published.
    pub cut: Vec<CutPart>,
}

/// What a result is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The cluster.
    pub cluster: Uuid,
    /// The task's sender.
    pub from: NodeName,
    /// The node that answers.
    pub to: NodeName,
    /// The task.
    pub task: TaskId,
    /// The digest of the task's payload.
    pub task_sha256: Digest,
}

impl TaskResult {
    /// The result of a task that never ran.
    #[must_use]
    pub fn never_ran(
        subject: Subject,
        status: Status,
        reason: Option<Reason>,
        audit: AuditHead,
    ) -> TaskResult {
        TaskResult {
            cluster: subject.cluster,
            from: subject.from,
            to: subject.to,
            task: subject.task,
            task_sha256: subject.task_sha256,
            status,
            reason,
            epoch: 0,
            attempt: 0,
            attempts: Vec::new(),
            exit_code: None,
            signal: None,
            accepted_at: None,
            started_at: None,
            ended_at: None,
            elapsed_ms: None,
            queue_wait_ms: None,
            final_text: None,
            output_tail: None,
            output_bytes: 0,
            log_bytes: 0,
            log_sha256: None,
            truncated: false,
            cost: Cost::NOTHING,
            usage: None,
            agent: None,
            backend: None,
            permission_mode: None,
            permission_denials: Vec::new(),
            checks: Vec::new(),
            containment: None,
            artifacts: Vec::new(),
            decided_by: Vec::new(),
            via: Vec::new(),
            audit,
            cut: Vec::new(),
        }
    }
}

impl Payload for TaskResult {
    const KIND: Kind = Kind::Result;

    fn read_members(members: &mut Members<'_, '_>) -> Result<TaskResult, FormError> {
        let files = members::list(limits::LIST_LEN_MAX, members::object(FileRef::read));
        let attempts = members::list(limits::LIST_LEN_MAX, members::object(AttemptSummary::read));
        let checks = members::list(limits::LIST_LEN_MAX, members::object(CheckInfo::read));
        let texts = || members::list(limits::LIST_LEN_MAX, members::text);
        Ok(TaskResult {
            cluster: members.required("cluster", members::uuid)?,
            from: members.required("from", members::node)?,
            to: members.required("to", members::node)?,
            task: members.required("task", members::any_task_id)?,
            task_sha256: members.required("task_sha256", members::digest)?,
            status: members.required("status", members::word)?,
            reason: members.nullable("reason", members::object(Reason::read))?,
            epoch: members.required("epoch", members::count)?,
            attempt: members.required("attempt", members::small_count)?,
            attempts: members.required("attempts", attempts)?,
            exit_code: members.nullable("exit_code", members::small_int)?,
            signal: members.nullable("signal", members::small_int)?,
            accepted_at: members.nullable("accepted_at", members::time)?,
            started_at: members.nullable("started_at", members::time)?,
            ended_at: members.nullable("ended_at", members::time)?,
            elapsed_ms: members.nullable("elapsed_ms", members::count)?,
            queue_wait_ms: members.nullable("queue_wait_ms", members::count)?,
            final_text: members
                .nullable("final_text", members::text_of_chars(limits::FINAL_TEXT_CHARS_MAX))?,
            output_tail: members
                .nullable("output_tail", members::text_of_chars(limits::OUTPUT_TAIL_CHARS_MAX))?,
            output_bytes: members.required("output_bytes", members::count)?,
            log_bytes: members.required("log_bytes", members::count)?,
            log_sha256: members.nullable("log_sha256", members::digest)?,
            truncated: members.required("truncated", members::flag)?,
            cost: members.required("cost", members::object(Cost::read))?,
            usage: members.nullable("usage", members::object(Usage::read))?,
            agent: members.nullable("agent", members::object(AgentInfo::read))?,
            backend: members.nullable("backend", members::object(BackendInfo::read))?,
            permission_mode: members.nullable("permission_mode", members::text)?,
            permission_denials: members.required("permission_denials", texts())?,
            checks: members.required("checks", checks)?,
            containment: members.nullable("containment", members::object(Containment::read))?,
            artifacts: members.required("artifacts", files)?,
            decided_by: members.required("decided_by", texts())?,
            via: parts::via(members, limits::LIST_LEN_MAX)?,
            audit: members.required("audit", members::object(AuditHead::read))?,
            cut: members.required("cut", members::list(limits::LIST_LEN_MAX, members::word))?,
        })
    }

    fn write_members(&self, object: &mut Object<'_>) {
        object
            .put("cluster", &self.cluster)
            .put("from", &self.from)
            .put("to", &self.to)
            .put("task", &self.task)
            .put("task_sha256", &self.task_sha256)
            .put("status", &self.status)
            .put("reason", &self.reason)
            .put("epoch", &self.epoch)
            .put("attempt", &self.attempt)
            .put("attempts", &self.attempts)
            .put("exit_code", &self.exit_code)
            .put("signal", &self.signal)
            .put("accepted_at", &self.accepted_at)
            .put("started_at", &self.started_at)
            .put("ended_at", &self.ended_at)
            .put("elapsed_ms", &self.elapsed_ms)
            .put("queue_wait_ms", &self.queue_wait_ms)
            .put("final_text", &self.final_text)
            .put("output_tail", &self.output_tail)
            .put("output_bytes", &self.output_bytes)
            .put("log_bytes", &self.log_bytes)
            .put("log_sha256", &self.log_sha256)
            .put("truncated", &self.truncated)
            .put("cost", &self.cost)
            .put("usage", &self.usage)
            .put("agent", &self.agent)
            .put("backend", &self.backend)
            .put("permission_mode", &self.permission_mode)
            .put("permission_denials", &self.permission_denials)
            .put("checks", &self.checks)
            .put("containment", &self.containment)
            .put("artifacts", &self.artifacts)
            .put("decided_by", &self.decided_by)
            .put("via", &self.via)
            .put("audit", &self.audit)
            .put("cut", &self.cut);
    }
}
