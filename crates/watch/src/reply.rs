//! What the share's threads answer.

use std::collections::BTreeSet;
use std::time::Duration;

use dispatch_core::protocol::names::{NodeName, TaskId};
use dispatch_ledger::Filed;
use dispatch_spool::layout::File;
use dispatch_spool::share::ShareError;

use crate::children::ChildNews;
use crate::chores::{ChoreError, News};
use crate::courier::CourierError;
use crate::filing::Laid;
use crate::look::{LaneLook, RootLook};
use crate::progress;

/// An answer of a share worker.
#[derive(Debug)]
pub(crate) enum Reply {
    /// A look at the root, asked for by that round, and how long it took.
    Root { round: u64, look: RootLook, took: Duration },
    /// A look at a peer's lane, asked for by that round.
    Lane { round: u64, peer: NodeName, look: Result<LaneLook, ShareError> },
    /// A task was laid where its state says.
    Filed { place: Filed, laid: Laid },
    /// A final task was answered.
    Answered(Laid),
    /// Files were removed or set aside; `tasks` were about inbox names.
    Cleared { peer: NodeName, tasks: Vec<TaskId>, done: Result<(), ShareError> },
    /// The copy of the audit was brought to `length`, or not: then it is written anew. With its length now, and the names
    /// that were squatted on.
    Copied { length: u64, done: Result<(u64, Vec<File>), ShareError> },
    /// A round of chores with one peer.
    Chores { news: Box<News>, done: Result<(), ChoreError>, looked_at: Option<BTreeSet<TaskId>> },
    /// A courier came back from a peer: what it learned, and whose cancel it brought.
    Couriered { peer: NodeName, news: Vec<ChildNews>, cancelled: Vec<TaskId>, done: Result<(), CourierError> },
    /// A batch of progress messages.
    Progress(progress::Done),
    /// The heartbeat or the boot record was written, or not; with the names that were squatted on.
    Told(Result<Vec<File>, ShareError>),
}
