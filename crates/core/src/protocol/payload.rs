//! What all payloads have in common: their kind, and how their bytes are read and made.

use crate::protocol::json::{self, NotJson, Value};
use crate::protocol::limits;
use crate::protocol::members::{Breach, Breaches, FormError, Members};
use crate::protocol::writer::{Object, object_bytes};

crate::protocol::words::words! {
    /// The kinds of message, named as in their payload types.
    pub enum Kind {
        /// What a sender asks for.
        Task = "task.v3",
        /// A cancel.
        Control = "control.v1",
        /// An outcome.
        Result = "result.v3",
        /// What would run.
        Terms = "terms.v1",
        /// How far it is.
        Progress = "progress.v1",
        /// Liveness and capabilities.
        Heartbeat = "heartbeat.v1",
        /// Ownership of a node.
        Boot = "boot.v1",
        /// A person's yes or no.
        Decision = "decision.v1",
        /// A person's yes in advance.
        Standing = "standing.v1",
    }
}

impl Kind {
    /// The `payloadType` of its envelopes (protocol section 2).
    #[must_use]
    pub const fn payload_type(self) -> &'static str {
        match self {
            Kind::Task => "application/vnd.dispatch.task.v3+json",
            Kind::Control => "application/vnd.dispatch.control.v1+json",
            Kind::Result => "application/vnd.dispatch.result.v3+json",
            Kind::Terms => "application/vnd.dispatch.terms.v1+json",
            Kind::Progress => "application/vnd.dispatch.progress.v1+json",
            Kind::Heartbeat => "application/vnd.dispatch.heartbeat.v1+json",
            Kind::Boot => "application/vnd.dispatch.boot.v1+json",
            Kind::Decision => "application/vnd.dispatch.decision.v1+json",
            Kind::Standing => "application/vnd.dispatch.standing.v1+json",
        }
    }

    /// The `schema` of its payloads.
    #[must_use]
    pub const fn schema(self) -> i64 {
        match self {
            Kind::Task | Kind::Result => 3,
            Kind::Control
            | Kind::Terms
            | Kind::Progress
            | Kind::Heartbeat
            | Kind::Boot
            | Kind::Decision
            | Kind::Standing => 1,
        }
    }

    /// The largest file of this kind, in bytes; a larger one is refused before it is read (protocol section 1).
    #[must_use]
    pub const fn envelope_bytes_max(self) -> usize {
        match self {
            Kind::Task | Kind::Result => limits::ENVELOPE_BYTES_MAX,
            Kind::Control
            | Kind::Terms
            | Kind::Progress
            | Kind::Heartbeat
            | Kind::Boot
            | Kind::Decision
            | Kind::Standing => limits::SMALL_ENVELOPE_BYTES_MAX,
        }
    }

    /// Most signatures of one envelope of this kind (protocol section 2).
    #[must_use]
    pub const fn signatures_max(self) -> usize {
        match self {
            Kind::Heartbeat | Kind::Boot => limits::NODE_SIGNATURES_MAX,
            Kind::Task
            | Kind::Control
            | Kind::Result
            | Kind::Terms
            | Kind::Progress
            | Kind::Decision
            | Kind::Standing => limits::SIGNATURES_MAX,
        }
    }
}

/// Payload bytes that do not hold what their kind must (protocol section 3).
#[derive(Debug, thiserror::Error)]
pub enum PayloadError {
    /// Not strict JSON at all.
    #[error("the payload is not strict JSON")]
    NotJson(#[source] NotJson),
    /// A schema of another release.
    #[error("the payload has schema {found}, this release knows {known}")]
    UnsupportedSchema {
        /// The schema it has.
        found: i64,
        /// The schema of this release.
        known: i64,
    },
    /// A break of form.
    #[error("the payload has a break of form")]
    Form(#[source] FormError),
    /// A break of quantity, where the caller asked for a payload within its limits.
    #[error("the payload is over a limit")]
    Limit(#[source] Breach),
}

/// A payload whose form is right and whose quantities may not be.
///
/// The value is reached only through [`Form::within_limits`]; what identifies the message is right in any case.
#[derive(Clone, Debug)]
pub struct Form<T> {
    value: T,
    breach: Option<Breach>,
}

impl<T> Form<T> {
    /// A value that was read from another form than a payload, with the first limit it breaks.
    pub(super) const fn of(value: T, breach: Option<Breach>) -> Form<T> {
        Form { value, breach }
    }

    /// The value, if no limit is broken.
    ///
    /// # Errors
    /// The first limit it breaks.
    pub fn within_limits(self) -> Result<T, Breach> {
        match self.breach {
            None => Ok(self.value),
            Some(breach) => Err(breach),
        }
    }

    /// The first limit it breaks.
    pub(crate) const fn breach(&self) -> Option<&Breach> {
        self.breach.as_ref()
    }

    /// The value for the checks of identity and freshness, which come before those of quantity.
    pub(crate) const fn peek(&self) -> &T {
        &self.value
    }
}

/// One kind of payload.
pub trait Payload: Sized {
    /// Its kind.
    const KIND: Kind;

    /// Asks for every member but `schema`.
    ///
    /// # Errors
    /// The first break of form.
    fn read_members(members: &mut Members<'_, '_>) -> Result<Self, FormError>;

    /// Puts every member but `schema`, in the order of the protocol.
    fn write_members(&self, object: &mut Object<'_>);

    /// The payload's bytes: what is sealed, and what digests are of.
    #[must_use]
    fn to_payload(&self) -> Vec<u8> {
        object_bytes(|object| {
            object.put("schema", &Self::KIND.schema());
            self.write_members(object);
        })
    }

    /// Reads payload bytes: strict JSON, then the schema, then form; quantity is kept apart in the [`Form`].
    ///
    /// # Errors
    /// Bytes that are malformed or of another schema.
    fn from_payload(bytes: &[u8]) -> Result<Form<Self>, PayloadError> {
        let value = json::parse(bytes).map_err(PayloadError::NotJson)?;
        let breaches = Breaches::default();
        let mut members = Members::of_message(&value, &breaches).map_err(PayloadError::Form)?;
        let found = members
            .required("schema", |at, value| match value {
                Value::Int(schema) => Ok(*schema),
                Value::Null | Value::Bool(_) | Value::Text(_) | Value::List(_) | Value::Object(_) => {
                    Err(at.form("must be a whole number"))
                }
            })
            .map_err(PayloadError::Form)?;
        if found != Self::KIND.schema() {
            return Err(PayloadError::UnsupportedSchema { found, known: Self::KIND.schema() });
        }
        let value = Self::read_members(&mut members).map_err(PayloadError::Form)?;
        members.finish().map_err(PayloadError::Form)?;
        Ok(Form { value, breach: breaches.into_first() })
    }

    /// Reads payload bytes that must be within their limits too: those a node stored itself.
    ///
    /// # Errors
    /// As [`Payload::from_payload`], and a break of quantity.
    fn from_stored(bytes: &[u8]) -> Result<Self, PayloadError> {
        Self::from_payload(bytes)?.within_limits().map_err(PayloadError::Limit)
    }

    /// The payload's bytes, read back: what a peer would refuse is refused before it is sealed.
    ///
    /// # Errors
    /// What a peer would find: a NUL in a text, a quantity over its limit.
    fn to_checked_payload(&self) -> Result<Vec<u8>, PayloadError> {
        let bytes = self.to_payload();
        Self::from_stored(&bytes).map(|_| bytes)
    }
}
