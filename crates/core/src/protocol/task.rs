//! What a sender asks for: the payload `task.v3` (protocol section 3).

use std::collections::BTreeMap;

use uuid::Uuid;

use crate::policy::money::Usd;
use crate::protocol::fraction::Fraction;
use crate::protocol::limits;
use crate::protocol::members::{self, FormError, Members};
use crate::protocol::names::{Lane, Name, NodeName, TaskId};
use crate::protocol::parts::{self, FileRef};
use crate::protocol::payload::{Kind, Payload};
use crate::protocol::time::Timestamp;
use crate::protocol::writer::{Emit, Object, object};

crate::protocol::words::words! {
    /// Orders what was taken: rank + floor(waited / 900 s), then order of acceptance.
    pub enum Priority {
        /// Rank 0.
        Low = "low",
        /// Rank 1.
        Normal = "normal",
        /// Rank 2.
        High = "high",
    }
}

impl Priority {
    /// Its rank: 0, 1 or 2.
    #[must_use]
    pub const fn rank(self) -> u8 {
        match self {
            Priority::Low => 0,
            Priority::Normal => 1,
            Priority::High => 2,
        }
    }
}

crate::protocol::words::words! {
    /// Whether the sender's watcher tells its human that the result came.
    pub enum Callback {
        /// The result's file is enough.
        File = "file",
        /// Tell the human.
        Notify = "notify",
        /// Nothing.
        None = "none",
    }
}

crate::protocol::words::words! {
    /// The members of a task that have a default, which a release may not serve yet (`unsupported_here`).
    pub enum TaskMember {
        /// `priority`
        Priority = "priority",
        /// `profile`
        Profile = "profile",
        /// `workspace`
        Workspace = "workspace",
        /// `require_ack`
        RequireAck = "require_ack",
        /// `require_dangerous`
        RequireDangerous = "require_dangerous",
        /// `timeout_s`
        TimeoutS = "timeout_s",
        /// `silence_timeout_s`
        SilenceTimeoutS = "silence_timeout_s",
        /// `max_output_bytes`
        MaxOutputBytes = "max_output_bytes",
        /// `max_cost_usd`
        MaxCostUsd = "max_cost_usd",
        /// `run`
        Run = "run",
        /// `requires`
        Requires = "requires",
        /// `allow_sdk`
        AllowSdk = "allow_sdk",
        /// `max_attempts`
        MaxAttempts = "max_attempts",
        /// `accept`
        Accept = "accept",
        /// `lineage`
        Lineage = "lineage",
        /// `attachments`
        Attachments = "attachments",
        /// `callback`
        Callback = "callback",
        /// `labels`
        Labels = "labels",
    }
}

/// What a backend must have to run the task (policy section 4).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requires {
    /// A tool it must offer.
    pub tool: Option<String>,
    /// GPU memory it must have free, in GB.
    pub min_vram_gb: Option<Fraction>,
    /// A container image it must have.
    pub image: Option<String>,
}

impl Requires {
    fn read(members: &mut Members<'_, '_>) -> Result<Requires, FormError> {
        Ok(Requires {
            tool: members.optional("tool", members::text)?,
            min_vram_gb: members.optional("min_vram_gb", members::fraction)?,
            image: members.optional("image", members::text)?,
        })
    }
}

impl Emit for Requires {
    fn emit(&self, out: &mut String) {
        object(out, |o| {
            o.put_some("tool", self.tool.as_ref())
                .put_some("min_vram_gb", self.min_vram_gb.as_ref())
                .put_some("image", self.image.as_ref());
        });
    }
}

/// Where a task sent by a task, or forwarded, comes from; it may only shrink on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lineage {
    /// The first task of the tree.
    pub root: TaskId,
    /// The task that sent this one.
    pub parent: Option<TaskId>,
    /// Steps from the root.
    pub depth: u32,
    /// How many tasks this one may still send.
    pub fanout_left: u32,
    /// What is left of the tree's money; `None` = no cap of its own.
    pub budget_usd: Option<Usd>,
    /// Nodes it came through.
    pub via: Vec<NodeName>,
}

impl Lineage {
    fn read(members: &mut Members<'_, '_>) -> Result<Lineage, FormError> {
        Ok(Lineage {
            root: members.required("root", members::any_task_id)?,
            parent: members.nullable("parent", members::any_task_id)?,
            depth: members.required("depth", members::small_count)?,
            fanout_left: members.required("fanout_left", members::small_count)?,
            budget_usd: members.nullable("budget_usd", members::money)?,
            via: parts::via(members, limits::VIA_MAX)?,
        })
    }
}

impl Emit for Lineage {
    fn emit(&self, out: &mut String) {
        object(out, |o| {
            o.put("root", &self.root)
                .put("parent", &self.parent)
                .put("depth", &self.depth)
                .put("fanout_left", &self.fanout_left)
                .put("budget_usd", &self.budget_usd)
                .put("via", &self.via);
        });
    }
}

/// What a sender asked for, its defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// The cluster, made once at `init`.
    pub cluster: Uuid,
    /// The task's id; with `from` its key.
    pub id: TaskId,
    /// The sender.
    pub from: NodeName,
    /// The receiver.
    pub to: NodeName,
    /// When it was made, by the sender's clock.
    pub created: Timestamp,
    /// From when on it must not start any more.
    pub expires: Timestamp,
    /// The stream of one sender state directory on this lane.
    pub stream: Uuid,
    /// Position in the stream, from 1.
    pub seq: u64,
    /// The prompt, 1 byte to 512 KiB. Never part of a command line.
    pub request: String,
    /// Its place among what waits.
    pub priority: Priority,
    /// Which of the receiver's profiles runs it.
    pub profile: Name,
    /// Which of the receiver's working directories; `None` = a fresh one.
    pub workspace: Option<Name>,
    /// Park it for a human.
    pub require_ack: bool,
    /// Ask for the profile's unrestricted mode.
    pub require_dangerous: bool,
    /// Wall clock from spawn, in seconds.
    pub timeout_s: u32,
    /// No output for so many seconds = hung; 0 = off; `None` = what the agent's kind says.
    pub silence_timeout_s: Option<u32>,
    /// Log cap.
    pub max_output_bytes: u64,
    /// The sender's ceiling; can only lower the receiver's.
    pub max_cost_usd: Option<Usd>,
    /// Budget batch.
    pub run: Option<String>,
    /// What a backend must have.
    pub requires: Requires,
    /// The sender's consent to public egress.
    pub allow_sdk: bool,
    /// More than 1 says: this may safely run again after a crash.
    pub max_attempts: u32,
    /// Checks of the receiver that must pass for `verified`.
    pub accept: Vec<Name>,
    /// `None` = it is its own root.
    pub lineage: Option<Lineage>,
    /// Inputs.
    pub attachments: Vec<FileRef>,
    /// Whether the sender's human is told.
    pub callback: Callback,
    /// For people.
    pub labels: BTreeMap<String, String>,
}

/// The name of the profile that runs a task which names none.
fn default_profile() -> Name {
    Name::of_any_length("default")
}

impl Task {
    /// A task with nothing but what is required, all else at its default.
    #[must_use]
    pub fn new(
        cluster: Uuid,
        lane: &Lane,
        id: TaskId,
        created: Timestamp,
        position: (Uuid, u64),
        request: String,
    ) -> Task {
        let (stream, seq) = position;
        Task {
            cluster,
            id,
            from: lane.from.clone(),
            to: lane.to.clone(),
            created,
            expires: created.plus_ms(limits::LIFETIME_MS_DEFAULT),
            stream,
            seq,
            request,
            priority: Priority::Normal,
            profile: default_profile(),
            workspace: None,
            require_ack: false,
            require_dangerous: false,
            timeout_s: limits::TIMEOUT_S_DEFAULT,
            silence_timeout_s: None,
            max_output_bytes: limits::OUTPUT_BYTES_DEFAULT,
            max_cost_usd: None,
            run: None,
            requires: Requires::default(),
            allow_sdk: false,
            max_attempts: 1,
            accept: Vec::new(),
            lineage: None,
            attachments: Vec::new(),
            callback: Callback::File,
            labels: BTreeMap::new(),
        }
    }

    /// The lane it belongs to.
    #[must_use]
    pub fn lane(&self) -> Lane {
        Lane::new(self.from.clone(), self.to.clone())
    }

    /// The first task of its tree: itself unless its lineage says otherwise.
    #[must_use]
    pub fn root(&self) -> TaskId {
        self.lineage.as_ref().map_or(self.id, |lineage| lineage.root)
    }

    /// True if a member asks for nothing beyond its default.
    #[must_use]
    pub fn has_default(&self, member: TaskMember) -> bool {
        match member {
            TaskMember::Priority => self.priority == Priority::Normal,
            TaskMember::Profile => self.profile == default_profile(),
            TaskMember::Workspace => self.workspace.is_none(),
            TaskMember::RequireAck => !self.require_ack,
            TaskMember::RequireDangerous => !self.require_dangerous,
            TaskMember::TimeoutS => self.timeout_s == limits::TIMEOUT_S_DEFAULT,
            TaskMember::SilenceTimeoutS => self.silence_timeout_s.is_none(),
            TaskMember::MaxOutputBytes => self.max_output_bytes == limits::OUTPUT_BYTES_DEFAULT,
            TaskMember::MaxCostUsd => self.max_cost_usd.is_none(),
            TaskMember::Run => self.run.is_none(),
            TaskMember::Requires => self.requires == Requires::default(),
            TaskMember::AllowSdk => !self.allow_sdk,
            TaskMember::MaxAttempts => self.max_attempts == 1,
            TaskMember::Accept => self.accept.is_empty(),
            TaskMember::Lineage => self.lineage.is_none(),
            TaskMember::Attachments => self.attachments.is_empty(),
            TaskMember::Callback => self.callback == Callback::File,
            TaskMember::Labels => self.labels.is_empty(),
        }
    }
}

impl Payload for Task {
    const KIND: Kind = Kind::Task;

    fn read_members(members: &mut Members<'_, '_>) -> Result<Task, FormError> {
        let mut task = read_required(members)?;
        if let Some(expires) = members.optional("expires", members::time)? {
            task.expires = expires;
        }
        read_asks(members, &mut task)?;
        read_limits(members, &mut task)?;
        read_rest(members, &mut task)?;
        Ok(task)
    }

    fn write_members(&self, object: &mut Object<'_>) {
        object
            .put("cluster", &self.cluster)
            .put("id", &self.id)
            .put("from", &self.from)
            .put("to", &self.to)
            .put("created", &self.created)
            .put("expires", &self.expires)
            .put("stream", &self.stream)
            .put("seq", &self.seq)
            .put("request", &self.request)
            .put("priority", &self.priority)
            .put("profile", &self.profile)
            .put("workspace", &self.workspace)
            .put("require_ack", &self.require_ack)
            .put("require_dangerous", &self.require_dangerous)
            .put("timeout_s", &self.timeout_s)
            .put("silence_timeout_s", &self.silence_timeout_s)
            .put("max_output_bytes", &self.max_output_bytes)
            .put("max_cost_usd", &self.max_cost_usd)
            .put("run", &self.run)
            .put("requires", &self.requires)
            .put("allow_sdk", &self.allow_sdk)
            .put("max_attempts", &self.max_attempts)
            .put("accept", &self.accept)
            .put_some("lineage", self.lineage.as_ref())
            .put("attachments", &self.attachments)
            .put("callback", &self.callback)
            .put("labels", &self.labels);
    }
}

fn read_required(members: &mut Members<'_, '_>) -> Result<Task, FormError> {
    let cluster = members.required("cluster", members::uuid)?;
    let id = members.required("id", members::task_id)?;
    let from = members.required("from", members::node)?;
    let to = members.required("to", members::node)?;
    let created = members.required("created", members::time)?;
    let stream = members.required("stream", members::uuid)?;
    let seq = members.required("seq", members::int(1..=i64::MAX))?;
    let request = members.required("request", members::text_of_bytes(1..=limits::REQUEST_BYTES_MAX))?;
    Ok(Task::new(cluster, &Lane::new(from, to), id, created, (stream, seq), request))
}

/// What the sender asks for, and how it is to be treated.
fn read_asks(members: &mut Members<'_, '_>, task: &mut Task) -> Result<(), FormError> {
    if let Some(priority) = members.optional("priority", members::word)? {
        task.priority = priority;
    }
    if let Some(profile) = members.optional("profile", members::name)? {
        task.profile = profile;
    }
    task.workspace = members.optional_nullable("workspace", members::name)?;
    task.require_ack = members.optional("require_ack", members::flag)?.unwrap_or(false);
    task.require_dangerous = members.optional("require_dangerous", members::flag)?.unwrap_or(false);
    task.run = members.optional_nullable("run", members::run_name)?;
    task.requires = members.optional("requires", members::object(Requires::read))?.unwrap_or_default();
    task.allow_sdk = members.optional("allow_sdk", members::flag)?.unwrap_or(false);
    Ok(())
}

fn read_limits(members: &mut Members<'_, '_>, task: &mut Task) -> Result<(), FormError> {
    let seconds_max = i64::from(limits::TIMEOUT_S_MAX);
    if let Some(timeout_s) = members.optional("timeout_s", members::int(1..=seconds_max))? {
        task.timeout_s = timeout_s;
    }
    task.silence_timeout_s = members.optional_nullable("silence_timeout_s", members::int(0..=seconds_max))?;
    if let Some(bytes) = members.optional("max_output_bytes", members::int(output_bytes()))? {
        task.max_output_bytes = bytes;
    }
    task.max_cost_usd = members.optional_nullable("max_cost_usd", members::money)?;
    if let Some(attempts) =
        members.optional("max_attempts", members::int(1..=i64::from(limits::ATTEMPTS_MAX)))?
    {
        task.max_attempts = attempts;
    }
    Ok(())
}

fn read_rest(members: &mut Members<'_, '_>, task: &mut Task) -> Result<(), FormError> {
    task.accept =
        members.optional("accept", members::list(limits::CHECKS_MAX, members::name))?.unwrap_or_default();
    task.lineage = members.optional("lineage", members::object(Lineage::read))?;
    let files = members::list(limits::LIST_LEN_MAX, members::object(FileRef::read));
    task.attachments = members.optional("attachments", files)?.unwrap_or_default();
    if let Some(callback) = members.optional("callback", members::word)? {
        task.callback = callback;
    }
    let labels =
        members::text_map(limits::LABELS_MAX, limits::LABEL_KEY_BYTES_MAX, limits::LABEL_VALUE_BYTES_MAX);
    task.labels = members.optional("labels", labels)?.unwrap_or_default();
    Ok(())
}

fn output_bytes() -> std::ops::RangeInclusive<i64> {
    let signed = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    signed(limits::OUTPUT_BYTES_MIN)..=signed(limits::OUTPUT_BYTES_MAX)
}
