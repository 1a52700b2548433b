//! The flat task: its members, what is signed of it, and how one is written.

use crate::protocol::json::Value;
use crate::protocol::limits;
use crate::protocol::members::{self, At, Breaches, FormError, Members};
use crate::protocol::names::{NodeName, TaskId};
use crate::protocol::payload::PayloadError;
use crate::protocol::task::{Callback, Priority, Task, TaskMember};
use crate::protocol::time::Timestamp;
use crate::protocol::v2::key::FlatKey;
use crate::protocol::v2::time;
use crate::protocol::writer::object_bytes;

/// The `schema` of a flat task.
pub(super) const SCHEMA: i64 = 2;
/// What separates the signed members; in all but the last of them it is refused, because it moves their boundary.
const SEPARATOR: char = '|';

/// A flat task as its file says it; what its signature leaves open is only its writer's wish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlatTask {
    /// Any canonical uuid.
    pub id: TaskId,
    /// The sender.
    pub from: NodeName,
    /// The receiver.
    pub to: NodeName,
    /// When it was made, to the millisecond.
    pub created: Timestamp,
    /// Its place among what waits.
    pub priority: Priority,
    /// The prompt.
    pub request: String,
    /// Not signed: whether its sender's human is told.
    pub callback: Callback,
    /// Not signed: park it for a human.
    pub require_ack: bool,
    /// Not signed: ask for the unrestricted mode.
    pub require_dangerous: bool,
    /// Not signed: wall clock in seconds, from 1.
    pub timeout_s: i64,
    /// Not signed: log cap, from [`limits::OUTPUT_BYTES_MIN`].
    pub max_output_bytes: i64,
    /// Not signed: from when on it must not start any more; most files say nothing.
    pub expires: Option<Timestamp>,
}

/// What the outer JSON must have before its signature can be looked at.
pub(super) struct Signature {
    pub(super) signed: Vec<u8>,
    pub(super) hmac: String,
    /// The first signed member that could move the boundary to the next.
    pub(super) unsafe_member: Option<FormError>,
}

/// Reads the six signed members and the signature, as texts and nothing more.
pub(super) fn read_signature(value: &Value<'_>) -> Result<Signature, FormError> {
    let breaches = Breaches::default();
    let mut members = Members::of_message(value, &breaches)?;
    let any = || members::text_of_bytes(0..=usize::MAX);
    let mut unsafe_member = None;
    let mut head = String::new();
    for member in ["id", "from", "to", "created", "priority"] {
        let text: String = members.required(member, any())?;
        if unsafe_member.is_none() && text.chars().any(|char| char == SEPARATOR || char.is_control()) {
            let rule = "holds `|` or a control character";
            unsafe_member = Some(FormError { object: "", member, rule });
        }
        head.push_str(&text);
        head.push(SEPARATOR);
    }
    let request: String = members.required("request", any())?;
    let hmac = members.required("hmac", any())?;
    Ok(Signature { signed: format!("{head}{request}").into_bytes(), hmac, unsafe_member })
}

/// Reads every member: the schema first, then form; breaks of quantity are noted.
pub(super) fn read_members(value: &Value<'_>, breaches: &Breaches) -> Result<FlatTask, PayloadError> {
    let mut members = Members::of_message(value, breaches).map_err(PayloadError::Form)?;
    let found: i64 = members
        .required("schema", |at, value| match value {
            Value::Int(schema) => Ok(*schema),
            Value::Null | Value::Bool(_) | Value::Text(_) | Value::List(_) | Value::Object(_) => {
                Err(at.form("must be a whole number"))
            }
        })
        .map_err(PayloadError::Form)?;
    if found != SCHEMA {
        return Err(PayloadError::UnsupportedSchema { found, known: SCHEMA });
    }
    read_rest(members).map_err(PayloadError::Form)
}

fn read_rest(mut members: Members<'_, '_>) -> Result<FlatTask, FormError> {
    // Too much is only bounded by the receiver; too little makes no sense and is told its sender.
    let output_min = i64::try_from(limits::OUTPUT_BYTES_MIN).unwrap_or(i64::MAX);
    let task = FlatTask {
        id: members.required("id", members::any_task_id)?,
        from: members.required("from", members::node)?,
        to: members.required("to", members::node)?,
        created: members.required("created", flat_time)?,
        priority: members.required("priority", members::word)?,
        request: members.required("request", members::text_of_bytes(1..=limits::REQUEST_BYTES_MAX))?,
        callback: members.required("callback", members::word)?,
        require_ack: members.required("require_ack", members::flag)?,
        require_dangerous: members.required("require_dangerous", members::flag)?,
        timeout_s: members.required("timeout_s", members::int(1..=i64::MAX))?,
        max_output_bytes: members.required("max_output_bytes", members::int(output_min..=i64::MAX))?,
        expires: members.optional("expires", flat_time)?,
    };
    let _signature_was_read_before: String =
        members.required("hmac", members::text_of_bytes(0..=usize::MAX))?;
    members.finish()?;
    Ok(task)
}

fn flat_time(at: &At<'_>, value: &Value<'_>) -> Result<Timestamp, FormError> {
    let wrong = || at.form("is no time like 2026-01-31T12:00:00.000000+00:00");
    match value {
        Value::Text(text) => time::parse(text).map_err(|_| wrong()),
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::List(_) | Value::Object(_) => Err(wrong()),
    }
}

/// The first member that asks for something a flat task cannot say; `None`: it can be sent to a version-2 peer.
#[must_use]
pub fn cannot_carry(task: &Task) -> Option<TaskMember> {
    TaskMember::ALL.iter().copied().find(|member| match member {
        TaskMember::Priority
        | TaskMember::RequireAck
        | TaskMember::RequireDangerous
        | TaskMember::TimeoutS
        | TaskMember::MaxOutputBytes => false,
        TaskMember::Profile
        | TaskMember::Workspace
        | TaskMember::SilenceTimeoutS
        | TaskMember::MaxCostUsd
        | TaskMember::Run
        | TaskMember::Requires
        | TaskMember::AllowSdk
        | TaskMember::MaxAttempts
        | TaskMember::Accept
        | TaskMember::Lineage
        | TaskMember::Attachments
        | TaskMember::Callback
        | TaskMember::Labels => !task.has_default(*member),
    })
}

/// The bytes that are signed of a task of this node's own: what its digest is of.
#[must_use]
pub fn signed_bytes(task: &Task) -> Vec<u8> {
    let created = time::write(task.created);
    let Task { id, from, to, priority, request, .. } = task;
    format!("{id}|{from}|{to}|{created}|{priority}|{request}").into_bytes()
}

/// The file of a task of this node's own, signed the way of version 2. It says nothing of what [`cannot_carry`] names.
#[must_use]
pub fn write_task(task: &Task, key: &FlatKey) -> Vec<u8> {
    let hmac = key.sign(&signed_bytes(task));
    ascii(&object_bytes(|o| {
        o.put("id", &task.id)
            .put("from", &task.from)
            .put("to", &task.to)
            .put("created", &time::write(task.created))
            .put("priority", &task.priority)
            .put("request", &task.request)
            .put("callback", &task.callback)
            .put("require_ack", &task.require_ack)
            .put("require_dangerous", &task.require_dangerous)
            .put("timeout_s", &task.timeout_s)
            .put("max_output_bytes", &task.max_output_bytes)
            .put("schema", &SCHEMA)
            .put("hmac", &hmac);
    }))
}

/// The same JSON in ASCII: the kit reads its files in whatever encoding its locale names.
pub(super) fn ascii(json: &[u8]) -> Vec<u8> {
    let mut out = String::with_capacity(json.len());
    for char in String::from_utf8_lossy(json).chars() {
        if char.is_ascii() {
            out.push(char);
        } else {
            for unit in char.encode_utf16(&mut [0_u16; 2]) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    out.into_bytes()
}
