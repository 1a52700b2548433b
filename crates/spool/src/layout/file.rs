//! The files of the tree.

use std::path::PathBuf;

use dispatch_core::protocol::names::{Digest, Lane, NodeName, TaskId};

use super::dir::{Area, Dir};
use super::parts::{EvidenceOf, EvidencePart, Hex16, Month, TmpName};

/// A file of the share.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum File {
    /// The cluster's uuid.
    Cluster,
    /// Present in any form: nobody spawns.
    Killswitch,
    /// A node's heartbeat.
    Heartbeat(NodeName),
    /// Which watcher owns a node, by boot number.
    Boot(NodeName, u64),
    /// The copy of a node's audit chain.
    AuditCopy(NodeName),
    /// A node's metrics.
    Metrics(NodeName),
    /// Something set aside from a name outside lanes.
    Evidence {
        /// The name it had.
        of: Box<File>,
        /// Digits that tell it from others of the name.
        digest16: Hex16,
        /// The thing or the reason.
        part: EvidencePart,
    },
    /// A half-written file for a directory outside lanes.
    Tmp(TmpName),
    /// A file of a lane.
    Lane(Lane, LaneFile),
}

/// A file within a lane.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LaneFile {
    /// Present in any form: this lane is stopped.
    Killswitch,
    /// `pending.json`, for people and dashboards.
    PendingSummary,
    /// A half-written file.
    Tmp(TmpName),
    /// A task as it was sent.
    Inbox(TaskId),
    /// An input.
    Attachment(Digest),
    /// A request to cancel.
    Cancel(TaskId),
    /// A task that waits for a human.
    Pending(TaskId),
    /// What exactly would run.
    Terms(TaskId),
    /// A person's decision, by the key that signed it.
    Decision(TaskId, Hex16),
    /// The approval of a version-2 peer's kit, which nobody signs.
    UnsignedAck(TaskId),
    /// A task that was accepted.
    Processing(TaskId),
    /// How far a task is.
    Progress(TaskId),
    /// A finished task as it was received.
    Done(TaskId),
    /// What its agent printed.
    Log(TaskId),
    /// Its sealed outcome.
    Result(TaskId),
    /// The same three, archived: [`LaneFile::Done`], [`LaneFile::Log`], [`LaneFile::Result`].
    ArchivedTask(Month, TaskId),
    /// An archived log.
    ArchivedLog(Month, TaskId),
    /// An archived result.
    ArchivedResult(Month, TaskId),
    /// An output.
    Artifact(Digest),
    /// A task that a version-2 peer's kit refused, where it puts such things.
    Refused(TaskId),
    /// Something set aside.
    Evidence {
        /// The stem of the name it had.
        of: EvidenceOf,
        /// Digits that tell it from others of the name.
        digest16: Hex16,
        /// The thing or the reason.
        part: EvidencePart,
    },
}

impl File {
    /// A file of a lane.
    #[must_use]
    pub fn in_lane(lane: &Lane, file: LaneFile) -> File {
        File::Lane(lane.clone(), file)
    }

    /// `<lane>/KILLSWITCH`.
    #[must_use]
    pub fn lane_killswitch(lane: &Lane) -> File {
        File::in_lane(lane, LaneFile::Killswitch)
    }

    /// `<lane>/pending.json`.
    #[must_use]
    pub fn pending_summary(lane: &Lane) -> File {
        File::in_lane(lane, LaneFile::PendingSummary)
    }

    /// `<lane>/inbox/<id>.json`.
    #[must_use]
    pub fn inbox(lane: &Lane, id: TaskId) -> File {
        File::in_lane(lane, LaneFile::Inbox(id))
    }

    /// `<lane>/attachments/<sha256>`.
    #[must_use]
    pub fn attachment(lane: &Lane, digest: Digest) -> File {
        File::in_lane(lane, LaneFile::Attachment(digest))
    }

    /// `<lane>/control/<id>.cancel.json`.
    #[must_use]
    pub fn cancel(lane: &Lane, id: TaskId) -> File {
        File::in_lane(lane, LaneFile::Cancel(id))
    }

    /// `<lane>/pending-ack/<id>.json`.
    #[must_use]
    pub fn pending(lane: &Lane, id: TaskId) -> File {
        File::in_lane(lane, LaneFile::Pending(id))
    }

    /// `<lane>/pending-ack/<id>.terms.json`.
    #[must_use]
    pub fn terms(lane: &Lane, id: TaskId) -> File {
        File::in_lane(lane, LaneFile::Terms(id))
    }

    /// `<lane>/pending-ack/<id>.<key16>.ack`.
    #[must_use]
    pub fn decision(lane: &Lane, id: TaskId, key16: Hex16) -> File {
        File::in_lane(lane, LaneFile::Decision(id, key16))
    }

    /// `<lane>/pending-ack/<id>.ack`.
    #[must_use]
    pub fn unsigned_ack(lane: &Lane, id: TaskId) -> File {
        File::in_lane(lane, LaneFile::UnsignedAck(id))
    }

    /// `<lane>/processing/<id>.json`.
    #[must_use]
    pub fn processing(lane: &Lane, id: TaskId) -> File {
        File::in_lane(lane, LaneFile::Processing(id))
    }

    /// `<lane>/processing/<id>.progress.json`.
    #[must_use]
    pub fn progress(lane: &Lane, id: TaskId) -> File {
        File::in_lane(lane, LaneFile::Progress(id))
    }

    /// `<lane>/done/<id>.json`.
    #[must_use]
    pub fn done(lane: &Lane, id: TaskId) -> File {
        File::in_lane(lane, LaneFile::Done(id))
    }

    /// `<lane>/done/<id>.log`.
    #[must_use]
    pub fn log(lane: &Lane, id: TaskId) -> File {
        File::in_lane(lane, LaneFile::Log(id))
    }

    /// `<lane>/done/<id>.result.json`.
    #[must_use]
    pub fn result(lane: &Lane, id: TaskId) -> File {
        File::in_lane(lane, LaneFile::Result(id))
    }

    /// `<lane>/artifacts/<sha256>`.
    #[must_use]
    pub fn artifact(lane: &Lane, digest: Digest) -> File {
        File::in_lane(lane, LaneFile::Artifact(digest))
    }

    /// The directory it lies in.
    #[must_use]
    pub fn dir(&self) -> Dir {
        match self {
            File::Cluster | File::Killswitch => Dir::Root,
            File::Heartbeat(_) | File::Boot(..) => Dir::Heartbeats,
            File::AuditCopy(_) => Dir::Logs,
            File::Metrics(_) => Dir::Metrics,
            File::Evidence { .. } => Dir::Rejected,
            File::Tmp(_) => Dir::Tmp,
            File::Lane(lane, file) => Dir::lane(lane, file.area()),
        }
    }

    /// Its name in that directory.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            File::Cluster => "CLUSTER".to_owned(),
            File::Killswitch => "KILLSWITCH".to_owned(),
            File::Heartbeat(node) => format!("{node}.json"),
            File::Boot(node, boot) => format!("{node}.boot-{boot}.json"),
            File::AuditCopy(node) => format!("{node}.jsonl"),
            File::Metrics(node) => format!("{node}.prom"),
            File::Evidence { of, digest16, part } => match part {
                EvidencePart::Itself => format!("{}.{digest16}", of.name()),
                EvidencePart::Reason => format!("{}.{digest16}.reason.json", of.name()),
            },
            File::Tmp(tmp) => tmp.to_string(),
            File::Lane(_, file) => file.name(),
        }
    }

    /// Where it lies below the root; for messages, never for opening.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.dir().path().join(self.name())
    }

    /// The task whose id it bears.
    #[must_use]
    pub fn task(&self) -> Option<TaskId> {
        match self {
            File::Lane(_, file) => file.task(),
            File::Cluster
            | File::Killswitch
            | File::Heartbeat(_)
            | File::Boot(..)
            | File::AuditCopy(_)
            | File::Metrics(_)
            | File::Evidence { .. }
            | File::Tmp(_) => None,
        }
    }

    /// Where this file's evidence goes: `<lane>/rejected/<id>.<digest16>.json`, outside lanes `rejected/<file>.<digest16>`.
    /// `None` for what is never set aside: evidence, half-written files, the killswitches and `CLUSTER`.
    #[must_use]
    pub fn evidence(&self, digest16: Hex16) -> Option<File> {
        let part = EvidencePart::Itself;
        match self {
            File::Heartbeat(_) | File::Boot(..) | File::AuditCopy(_) | File::Metrics(_) => {
                Some(File::Evidence { of: Box::new(self.clone()), digest16, part })
            }
            File::Lane(lane, file) => {
                let of = file.evidence_of()?;
                Some(File::in_lane(lane, LaneFile::Evidence { of, digest16, part }))
            }
            File::Cluster | File::Killswitch | File::Evidence { .. } | File::Tmp(_) => None,
        }
    }

    /// The `.reason.json` that belongs beside a piece of evidence; `None` for other files.
    #[must_use]
    pub fn reason(&self) -> Option<File> {
        let part = EvidencePart::Reason;
        match self {
            File::Evidence { of, digest16, .. } => {
                Some(File::Evidence { of: of.clone(), digest16: *digest16, part })
            }
            File::Lane(lane, LaneFile::Evidence { of, digest16, .. }) => {
                Some(File::in_lane(lane, LaneFile::Evidence { of: *of, digest16: *digest16, part }))
            }
            File::Cluster
            | File::Killswitch
            | File::Heartbeat(_)
            | File::Boot(..)
            | File::AuditCopy(_)
            | File::Metrics(_)
            | File::Tmp(_)
            | File::Lane(..) => None,
        }
    }

    /// Where a file of `done/` goes in a month of the archive; `None` for files of other directories.
    #[must_use]
    pub fn archived(&self, month: Month) -> Option<File> {
        let File::Lane(lane, file) = self else { return None };
        let archived = match file {
            LaneFile::Done(id) => LaneFile::ArchivedTask(month, *id),
            LaneFile::Log(id) => LaneFile::ArchivedLog(month, *id),
            LaneFile::Result(id) => LaneFile::ArchivedResult(month, *id),
            LaneFile::Killswitch
            | LaneFile::PendingSummary
            | LaneFile::Tmp(_)
            | LaneFile::Inbox(_)
            | LaneFile::Attachment(_)
            | LaneFile::Cancel(_)
            | LaneFile::Pending(_)
            | LaneFile::Terms(_)
            | LaneFile::Decision(..)
            | LaneFile::UnsignedAck(_)
            | LaneFile::Processing(_)
            | LaneFile::Progress(_)
            | LaneFile::ArchivedTask(..)
            | LaneFile::ArchivedLog(..)
            | LaneFile::ArchivedResult(..)
            | LaneFile::Artifact(_)
            | LaneFile::Refused(_)
            | LaneFile::Evidence { .. } => return None,
        };
        Some(File::in_lane(lane, archived))
    }
}

impl LaneFile {
    const fn area(&self) -> Area {
        match self {
            LaneFile::Killswitch | LaneFile::PendingSummary => Area::Top,
            LaneFile::Tmp(_) => Area::Tmp,
            LaneFile::Inbox(_) => Area::Inbox,
            LaneFile::Attachment(_) => Area::Attachments,
            LaneFile::Cancel(_) => Area::Control,
            LaneFile::Pending(_) | LaneFile::Terms(_) | LaneFile::Decision(..) | LaneFile::UnsignedAck(_) => {
                Area::PendingAck
            }
            LaneFile::Processing(_) | LaneFile::Progress(_) => Area::Processing,
            LaneFile::Done(_) | LaneFile::Log(_) | LaneFile::Result(_) => Area::Done,
            LaneFile::ArchivedTask(month, _)
            | LaneFile::ArchivedLog(month, _)
            | LaneFile::ArchivedResult(month, _) => Area::ArchiveMonth(*month),
            LaneFile::Artifact(_) => Area::Artifacts,
            LaneFile::Refused(_) | LaneFile::Evidence { .. } => Area::Rejected,
        }
    }

    fn name(&self) -> String {
        match self {
            LaneFile::Killswitch => "KILLSWITCH".to_owned(),
            LaneFile::PendingSummary => "pending.json".to_owned(),
            LaneFile::Tmp(tmp) => tmp.to_string(),
            LaneFile::Inbox(id)
            | LaneFile::Pending(id)
            | LaneFile::Processing(id)
            | LaneFile::Done(id)
            | LaneFile::Refused(id)
            | LaneFile::ArchivedTask(_, id) => format!("{id}.json"),
            LaneFile::Attachment(digest) | LaneFile::Artifact(digest) => digest.to_string(),
            LaneFile::Cancel(id) => format!("{id}.cancel.json"),
            LaneFile::Terms(id) => format!("{id}.terms.json"),
            LaneFile::Decision(id, key16) => format!("{id}.{key16}.ack"),
            LaneFile::UnsignedAck(id) => format!("{id}.ack"),
            LaneFile::Progress(id) => format!("{id}.progress.json"),
            LaneFile::Log(id) | LaneFile::ArchivedLog(_, id) => format!("{id}.log"),
            LaneFile::Result(id) | LaneFile::ArchivedResult(_, id) => format!("{id}.result.json"),
            LaneFile::Evidence { of, digest16, part } => match part {
                EvidencePart::Itself => format!("{of}.{digest16}.json"),
                EvidencePart::Reason => format!("{of}.{digest16}.reason.json"),
            },
        }
    }

    const fn task(&self) -> Option<TaskId> {
        match self {
            LaneFile::Inbox(id)
            | LaneFile::Cancel(id)
            | LaneFile::Pending(id)
            | LaneFile::Terms(id)
            | LaneFile::Decision(id, _)
            | LaneFile::UnsignedAck(id)
            | LaneFile::Refused(id)
            | LaneFile::Processing(id)
            | LaneFile::Progress(id)
            | LaneFile::Done(id)
            | LaneFile::Log(id)
            | LaneFile::Result(id)
            | LaneFile::ArchivedTask(_, id)
            | LaneFile::ArchivedLog(_, id)
            | LaneFile::ArchivedResult(_, id)
            | LaneFile::Evidence { of: EvidenceOf::Task(id), .. } => Some(*id),
            LaneFile::Killswitch
            | LaneFile::PendingSummary
            | LaneFile::Tmp(_)
            | LaneFile::Attachment(_)
            | LaneFile::Artifact(_)
            | LaneFile::Evidence { .. } => None,
        }
    }

    const fn evidence_of(&self) -> Option<EvidenceOf> {
        match self {
            LaneFile::PendingSummary => Some(EvidenceOf::Summary),
            LaneFile::Attachment(digest) | LaneFile::Artifact(digest) => Some(EvidenceOf::Content(*digest)),
            LaneFile::Killswitch | LaneFile::Tmp(_) | LaneFile::Refused(_) | LaneFile::Evidence { .. } => {
                None
            }
            LaneFile::Inbox(_)
            | LaneFile::Cancel(_)
            | LaneFile::Pending(_)
            | LaneFile::Terms(_)
            | LaneFile::Decision(..)
            | LaneFile::UnsignedAck(_)
            | LaneFile::Processing(_)
            | LaneFile::Progress(_)
            | LaneFile::Done(_)
            | LaneFile::Log(_)
            | LaneFile::Result(_)
            | LaneFile::ArchivedTask(..)
            | LaneFile::ArchivedLog(..)
            | LaneFile::ArchivedResult(..) => match self.task() {
                Some(id) => Some(EvidenceOf::Task(id)),
                None => None,
            },
        }
    }
}
