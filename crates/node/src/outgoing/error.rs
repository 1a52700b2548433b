//! How the sender's half fails.

use std::path::PathBuf;

use dispatch_core::protocol::names::{Lane, NodeName, TaskId};
use dispatch_spool::ShareError;

use crate::files::FileError;
use crate::ids::NoRandomness;
use crate::report::{Exit, Explain};

/// An operation of the sender's half failed.
#[derive(Debug, thiserror::Error)]
pub enum OutgoingError {
    /// On this node's own disk.
    #[error(transparent)]
    File(#[from] FileError),
    /// On the share.
    #[error(transparent)]
    Share(#[from] ShareError),
    /// A record that cannot be understood.
    #[error("the record `{}` is damaged", path.display())]
    Damaged {
        /// The record.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Others send on this lane and do not finish.
    #[error("another sender has held the lane `{lane}` for too long")]
    Busy {
        /// The lane.
        lane: Lane,
    },
    /// Nothing can be sealed.
    #[error("there is no key to seal with for the lane `{lane}`")]
    NoKey {
        /// The lane.
        lane: Lane,
    },
    /// Nothing of that id was sent from here.
    #[error("no task {id} was sent from here")]
    NoSuchTask {
        /// The id.
        id: TaskId,
    },
    /// A version-2 peer runs a file again whenever it reappears.
    #[error("nothing is put back for `{peer}`, which speaks version 2: it would run task {id} again")]
    NeverPutBack {
        /// The task.
        id: TaskId,
        /// The peer.
        peer: NodeName,
    },
    /// Version 2 has no cancel.
    #[error("task {id} cannot be cancelled: `{peer}` speaks version 2, which knows no cancel")]
    NoCancel {
        /// The task.
        id: TaskId,
        /// The peer.
        peer: NodeName,
    },
    /// No stream can be drawn.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

impl OutgoingError {
    /// True where the share is at fault: the task stays kept and goes out later.
    #[must_use]
    pub const fn is_of_share(&self) -> bool {
        matches!(self, OutgoingError::Share(_))
    }
}

impl Explain for OutgoingError {
    fn exit(&self) -> Exit {
        match self {
            OutgoingError::Share(error) => error.exit(),
            OutgoingError::File(_) | OutgoingError::Damaged { .. } | OutgoingError::NoRandomness(_) => {
                Exit::LocalIo
            }
            OutgoingError::Busy { .. } => Exit::TryLater,
            OutgoingError::NoKey { .. } => Exit::Config,
            OutgoingError::NoSuchTask { .. } => Exit::NoSuchTask,
            OutgoingError::NeverPutBack { .. } | OutgoingError::NoCancel { .. } => Exit::NotPermitted,
        }
    }

    fn help(&self) -> Option<String> {
        match self {
            OutgoingError::Damaged { path, .. } => Some(format!(
                "move {} out of its directory; if its task was not answered, send it anew",
                path.display()
            )),
            OutgoingError::Busy { .. } => {
                Some("look for a dispatch-send that hangs on the share, or try again".to_owned())
            }
            OutgoingError::NoKey { lane } => Some(format!("add keys to [peer.{}] in dispatch.toml", lane.to)),
            OutgoingError::Share(error) => error.help(),
            OutgoingError::NeverPutBack { peer, .. } => Some(format!(
                "look on `{peer}` whether it ran; send it anew with dispatch-send if it is safe to"
            )),
            OutgoingError::NoCancel { peer, .. } => Some(format!(
                "end it on `{peer}` itself, or stop its lane with dispatchctl kill --lane before it starts"
            )),
            OutgoingError::File(_) | OutgoingError::NoSuchTask { .. } | OutgoingError::NoRandomness(_) => {
                None
            }
        }
    }
}
