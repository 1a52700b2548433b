//! A task as it goes on a lane: in an envelope, or flat for a version-2 peer.

use dispatch_core::protocol::keys::LaneRing;
use dispatch_core::protocol::limits::ENVELOPE_BYTES_MAX;
use dispatch_core::protocol::names::{Lane, NodeName};
use dispatch_core::protocol::payload::{Kind, Payload as _, PayloadError};
use dispatch_core::protocol::seal::seal;
use dispatch_core::protocol::task::{Task, TaskMember};
use dispatch_core::protocol::v2::{self, FlatRing};

use super::Mailbox;
use super::record::Sealed;
use crate::report::{Exit, Explain};

/// Why a task is not sealed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// A quantity over its limit, or a text that no message holds.
    #[error("its receiver would refuse it")]
    NotTaken(#[source] PayloadError),
    /// It does not fit a file of the share.
    #[error("the sealed task is {bytes} bytes, more than {ENVELOPE_BYTES_MAX}")]
    TooLong {
        /// Its size.
        bytes: usize,
    },
    /// Left out, it would silently be another task.
    #[error("`{peer}` speaks version 2, which cannot carry `{}`", member.as_str())]
    CannotCarry {
        /// The receiver.
        peer: NodeName,
        /// What it says that a flat task cannot.
        member: TaskMember,
    },
    /// There is no key to seal with.
    #[error("there is no key to seal with for the lane `{lane}`")]
    NoKey {
        /// The lane.
        lane: Lane,
    },
}

impl Explain for SealError {
    fn exit(&self) -> Exit {
        match self {
            SealError::NotTaken(_) | SealError::TooLong { .. } | SealError::CannotCarry { .. } => Exit::Usage,
            SealError::NoKey { .. } => Exit::Config,
        }
    }

    fn help(&self) -> Option<String> {
        match self {
            SealError::NotTaken(_) => None,
            SealError::TooLong { .. } => Some(
                "shorten the request, or put the material into a workspace of the receiver and name it there \
                 (attachments are not in this release)"
                    .to_owned(),
            ),
            SealError::CannotCarry { .. } => Some(
                "send it anew without that; version 2 knows --priority, --timeout, --max-output, --require-ack, \
                 --dangerous"
                    .to_owned(),
            ),
            SealError::NoKey { lane } => Some(format!("add keys to [peer.{}] in dispatch.toml", lane.to)),
        }
    }
}

impl Mailbox<'_> {
    /// Seals a task after finding what its receiver would refuse anyway.
    ///
    /// # Errors
    /// What its receiver would refuse; a lane without a key.
    pub fn seal(&self, task: &Task) -> Result<Sealed, SealError> {
        sealed(task, self.keys, self.flat)
    }
}

/// The same with these keys: those of a version-2 peer, where there are any.
pub(super) fn sealed(task: &Task, keys: &LaneRing, flat: Option<&FlatRing>) -> Result<Sealed, SealError> {
    let payload = task.to_checked_payload().map_err(SealError::NotTaken)?;
    let no_key = || SealError::NoKey { lane: task.lane() };
    let sealed = match flat {
        None => {
            let key = keys.signing().ok_or_else(no_key)?;
            Sealed::of(task, &payload, seal(Kind::Task, &payload, &[key]))
        }
        Some(ring) => {
            if let Some(member) = v2::cannot_carry(task) {
                return Err(SealError::CannotCarry { peer: task.to.clone(), member });
            }
            let key = ring.signing().ok_or_else(no_key)?;
            Sealed::of(task, &v2::signed_bytes(task), v2::write_task(task, key))
        }
    };
    match sealed.envelope.len() {
        bytes if bytes > ENVELOPE_BYTES_MAX => Err(SealError::TooLong { bytes }),
        _ => Ok(sealed),
    }
}
