//! What lies in `pending-ack/`: tasks and their terms, verified, or why not.

use std::collections::BTreeMap;

use dispatch_core::protocol::accept::{
    Detail, Me, Place, Refusal, TaskRules, TaskVerdict, Verdict, Waiting, accept_task, accept_terms,
};
use dispatch_core::protocol::names::{Lane, TaskId};
use dispatch_core::protocol::reason::ReasonCode;
use dispatch_core::protocol::seal::Verified;
use dispatch_core::protocol::time::Timestamp;
use dispatch_core::protocol::v2::accept_flat;
use dispatch_core::protocol::{Kind, Task, Terms};
use dispatch_spool::layout::{Area, Dir, File, LaneFile};
use dispatch_spool::root::LIST_ENTRIES_MAX;
use dispatch_spool::{ErrorKind, Share, ShareError};

use crate::desk::{Desk, LaneHere};

/// A task that waits, with its terms; both verified.
#[derive(Debug)]
pub(crate) struct Waits {
    pub(crate) lane: Lane,
    pub(crate) task: Verified<Task>,
    pub(crate) terms: Verified<Terms>,
}

impl Waits {
    pub(crate) fn id(&self) -> TaskId {
        self.task.payload().id
    }
}

/// A task of which nothing is believed.
#[derive(Debug)]
pub(crate) struct Unverified {
    pub(crate) lane: Lane,
    pub(crate) id: TaskId,
    pub(crate) part: Part,
    pub(crate) why: Why,
}

/// Which of the two files it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Task,
    Terms,
}

impl Part {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Part::Task => "task",
            Part::Terms => "terms",
        }
    }
}

/// Why a file does not count.
#[derive(Debug)]
pub(crate) enum Why {
    /// It breaks a rule of the protocol.
    Refused(Refusal),
    /// It is not there, though the other one of the two is.
    Missing,
    /// It may not be read.
    Unreadable,
}

impl Why {
    fn code_of(code: ReasonCode) -> Why {
        Why::Refused(Refusal { code, detail: None })
    }

    pub(crate) const fn code(&self) -> &'static str {
        match self {
            Why::Refused(refusal) => refusal.code.as_str(),
            Why::Missing => "missing",
            Why::Unreadable => "unreadable",
        }
    }

    pub(crate) fn text(&self) -> String {
        match self {
            Why::Refused(Refusal { code, detail }) => {
                match detail.as_ref().and_then(Detail::as_error).and_then(std::error::Error::source) {
                    Some(source) => format!("{}: {source}", code.text()),
                    None => code.text().to_owned(),
                }
            }
            Why::Missing => "it is not there".to_owned(),
            Why::Unreadable => "this user may not read it".to_owned(),
        }
    }
}

/// What stands under one id.
#[derive(Debug)]
pub(crate) enum Parked {
    Waits(Box<Waits>),
    Unverified(Unverified),
    /// Neither file is there any more.
    Gone,
}

/// The ids in a lane's `pending-ack/`, each with how many decisions lie there, untaken.
///
/// # Errors
/// The share's.
pub(crate) fn ids(share: &dyn Share, lane: &Lane) -> Result<BTreeMap<TaskId, usize>, ShareError> {
    let listing = share.list(&Dir::lane(lane, Area::PendingAck), LIST_ENTRIES_MAX)?;
    let mut ids: BTreeMap<TaskId, usize> = BTreeMap::new();
    for (file, _) in listing.files() {
        if let File::Lane(_, LaneFile::Pending(id) | LaneFile::Terms(id)) = file {
            ids.entry(*id).or_insert(0);
        }
    }
    for (file, _) in listing.files() {
        if let File::Lane(_, LaneFile::Decision(id, _)) = file
            && let Some(decisions) = ids.get_mut(id)
        {
            *decisions = decisions.saturating_add(1);
        }
    }
    Ok(ids)
}

/// Reads and verifies what stands under an id: the task first, then terms that are about exactly that task.
///
/// # Errors
/// The share's; a file that is wrong in itself is [`Parked::Unverified`].
pub(crate) fn open(desk: &Desk, here: &LaneHere, id: TaskId, now: Timestamp) -> Result<Parked, ShareError> {
    let lane = &here.lane;
    let unverified = |part, why| Ok(Parked::Unverified(Unverified { lane: lane.clone(), id, part, why }));
    let task_file = read(desk.share(), &File::pending(lane, id), Kind::Task)?;
    let terms_file = read(desk.share(), &File::terms(lane, id), Kind::Terms)?;
    let (task_file, terms_file) = match (task_file, terms_file) {
        (Err(Why::Missing), Err(Why::Missing)) => return Ok(Parked::Gone),
        (Err(why), _) => return unverified(Part::Task, why),
        (Ok(_), Err(why)) => return unverified(Part::Terms, why),
        (Ok(task), Ok(terms)) => (task, terms),
    };
    let task = match judge_task(desk, here, id, now, &task_file) {
        Ok(task) => task,
        Err(refusal) => return unverified(Part::Task, Why::Refused(refusal)),
    };
    let me = Me { cluster: desk.config.cluster, node: &lane.to, now };
    let waiting = Waiting::Waits { task_sha256: task.digest(), terms_sha256: None };
    match accept_terms(&terms_file, Place { lane, id }, &me, &here.terms, waiting) {
        Verdict::Accepted(terms) => {
            Ok(Parked::Waits(Box::new(Waits { lane: lane.clone(), task: *task, terms })))
        }
        Verdict::Refused(refusal) => unverified(Part::Terms, Why::Refused(refusal)),
    }
}

fn judge_task(
    desk: &Desk,
    here: &LaneHere,
    id: TaskId,
    now: Timestamp,
    file: &[u8],
) -> Result<Box<Verified<Task>>, Refusal> {
    let place = Place { lane: &here.lane, id };
    let me = Me { cluster: desk.config.cluster, node: &here.lane.to, now };
    // Profiles, workspaces and the seen-set were the receiver's to judge; its terms say what came of it.
    let rules = TaskRules {
        accept_after: None,
        forgotten_until: None,
        has_profile: &|_| true,
        has_workspace: &|_| true,
        unsupported: &[],
    };
    let verdict = match &here.flat {
        Some((ring, bounds)) => accept_flat(file, place, &me, ring, *bounds, None, &rules),
        None => accept_task(file, place, &me, &here.ring, None, &rules),
    };
    match verdict {
        TaskVerdict::Accepted(task) => Ok(task),
        TaskVerdict::Refused(refused) => Err(refused.refusal),
    }
}

fn read(share: &dyn Share, file: &File, kind: Kind) -> Result<Result<Vec<u8>, Why>, ShareError> {
    let limit = u64::try_from(kind.envelope_bytes_max()).unwrap_or(u64::MAX);
    let error = match share.read(file, limit) {
        Ok(bytes) => return Ok(Ok(bytes)),
        Err(error) => error,
    };
    match error.kind {
        ErrorKind::Absent => Ok(Err(Why::Missing)),
        ErrorKind::Denied => Ok(Err(Why::Unreadable)),
        ErrorKind::NotRegular(_) => Ok(Err(Why::code_of(ReasonCode::NotARegularFile))),
        ErrorKind::TooLarge { .. } => Ok(Err(Why::code_of(ReasonCode::TooLarge))),
        ErrorKind::Conflict(_)
        | ErrorKind::NoSpace
        | ErrorKind::Stale
        | ErrorKind::Unreachable
        | ErrorKind::Io => Err(error),
    }
}
