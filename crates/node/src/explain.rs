//! How a command ends because of an error of the floors below: the share's, the ledger's, the job directory's.

use dispatch_ledger as ledger;
use dispatch_spool::{ErrorKind, Op, ShareError, Unreachable};

use crate::clock::NoBootId;
use crate::files::FileError;
use crate::ids::NoRandomness;
use crate::job::JobError;
use crate::report::{Exit, Explain};

impl Explain for FileError {
    fn exit(&self) -> Exit {
        Exit::LocalIo
    }
}

impl Explain for NoRandomness {
    fn exit(&self) -> Exit {
        Exit::LocalIo
    }
}

impl Explain for NoBootId {
    fn exit(&self) -> Exit {
        Exit::LocalIo
    }
}

impl Explain for JobError {
    fn exit(&self) -> Exit {
        Exit::LocalIo
    }
}

impl Explain for ShareError {
    fn exit(&self) -> Exit {
        match self.op {
            Op::WriteLocal | Op::ReadLocal => Exit::LocalIo,
            Op::OpenDir
            | Op::List
            | Op::Read
            | Op::Stat
            | Op::Publish
            | Op::Link
            | Op::Replace
            | Op::Move
            | Op::SetAside
            | Op::Remove
            | Op::Append
            | Op::CopyIn
            | Op::CopyOut
            | Op::Mirror
            | Op::Sync
            | Op::Ask
            | Op::CreateDir
            | Op::Watch => Exit::ShareUnreachable,
        }
    }

    fn help(&self) -> Option<String> {
        match self.kind {
            ErrorKind::Unreachable => {
                Some("is the share mounted? `dispatchctl init` adds what is missing on it".to_owned())
            }
            ErrorKind::Denied => Some("look at owner and mode of the share's directories; nodes that run as different users need one group and \
                 `dispatchctl init --group`"
                    .to_owned()),
            ErrorKind::NoSpace => Some("make room on the share".to_owned()),
            ErrorKind::Absent
            | ErrorKind::Conflict(_)
            | ErrorKind::NotRegular(_)
            | ErrorKind::TooLarge { .. }
            | ErrorKind::Stale
            | ErrorKind::Io => None,
        }
    }
}

impl Explain for Unreachable {
    fn exit(&self) -> Exit {
        Exit::ShareUnreachable
    }

    fn help(&self) -> Option<String> {
        match self {
            Unreachable::Failed(error) => error.help(),
            Unreachable::NoCluster => {
                Some("mount the share, or set it up with `dispatchctl init`".to_owned())
            }
            Unreachable::OtherCluster { .. } => {
                Some("mount the right share, or correct `root` and `cluster` in dispatch.toml".to_owned())
            }
            Unreachable::NoLane { .. } => Some("run: dispatchctl init".to_owned()),
            Unreachable::Flooded => {
                Some("look at what fills the share's directories, and remove it".to_owned())
            }
        }
    }
}

impl Explain for ledger::LedgerError {
    fn exit(&self) -> Exit {
        match self {
            ledger::LedgerError::Sql { .. } if self.is_busy() => Exit::TryLater,
            ledger::LedgerError::File { .. } | ledger::LedgerError::Sql { .. } => Exit::LocalIo,
            ledger::LedgerError::Absent { .. }
            | ledger::LedgerError::Present { .. }
            | ledger::LedgerError::NotALedger { .. }
            | ledger::LedgerError::Newer { .. }
            | ledger::LedgerError::Older { .. }
            | ledger::LedgerError::NotWhole { .. }
            | ledger::LedgerError::Corrupt { .. } => Exit::Config,
            ledger::LedgerError::Fenced { .. } => Exit::AnotherWatcher,
            ledger::LedgerError::UnknownTask { .. } => Exit::NoSuchTask,
            ledger::LedgerError::KnownTask { .. }
            | ledger::LedgerError::UnknownAttempt { .. }
            | ledger::LedgerError::UnknownReservation { .. }
            | ledger::LedgerError::UnknownBoot { .. }
            | ledger::LedgerError::Illegal { .. }
            | ledger::LedgerError::IllegalAttempt { .. }
            | ledger::LedgerError::NotLeasable { .. }
            | ledger::LedgerError::Entry { .. }
            | ledger::LedgerError::Amount { .. } => Exit::Bug,
        }
    }

    fn help(&self) -> Option<String> {
        match self {
            ledger::LedgerError::Absent { .. } => Some(
                "put the ledger back where it was; if it is lost: dispatchctl init --new-ledger".to_owned(),
            ),
            ledger::LedgerError::NotWhole { .. } => Some(
                "repeat the command that was making or mending it: dispatchctl init --new-ledger, or dispatchctl recover --accept-rollback REASON"
                    .to_owned(),
            ),
            ledger::LedgerError::Corrupt { .. } | ledger::LedgerError::NotALedger { .. } => Some(
                "put back a good copy and run dispatchctl recover --accept-rollback REASON, or move the file away and run dispatchctl init --new-ledger"
                    .to_owned(),
            ),
            ledger::LedgerError::Newer { .. } => Some("use the newer release that wrote it".to_owned()),
            ledger::LedgerError::Older { .. } => Some("start the watcher of this release once: it brings the ledger up to date".to_owned()),
            ledger::LedgerError::File { .. }
            | ledger::LedgerError::Sql { .. }
            | ledger::LedgerError::Present { .. }
            | ledger::LedgerError::Fenced { .. }
            | ledger::LedgerError::UnknownTask { .. }
            | ledger::LedgerError::KnownTask { .. }
            | ledger::LedgerError::UnknownAttempt { .. }
            | ledger::LedgerError::UnknownReservation { .. }
            | ledger::LedgerError::UnknownBoot { .. }
            | ledger::LedgerError::Illegal { .. }
            | ledger::LedgerError::IllegalAttempt { .. }
            | ledger::LedgerError::NotLeasable { .. }
            | ledger::LedgerError::Entry { .. }
            | ledger::LedgerError::Amount { .. } => None,
        }
    }
}
