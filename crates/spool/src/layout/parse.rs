//! From a name that a listing found back to a typed one.

use std::ffi::OsStr;

use dispatch_core::protocol::names::{Digest, Lane, NodeName, TaskId};

use super::Name;
use super::dir::{Area, Dir};
use super::file::{File, LaneFile};
use super::parts::{EvidenceOf, EvidencePart, Hex16, Month, TmpName, decimal};

impl Dir {
    /// Reads a name found in this directory. `None` is a stranger: left alone, counted.
    #[must_use]
    pub fn name(&self, found: &OsStr) -> Option<Name> {
        let text = found.to_str()?;
        match self {
            Dir::Root => root_name(text),
            Dir::Tmp => TmpName::parse(text).map(File::Tmp).map(Name::File),
            Dir::Heartbeats => heartbeat_name(text).map(Name::File),
            Dir::Logs => node_file(text, ".jsonl").map(File::AuditCopy).map(Name::File),
            Dir::Metrics => node_file(text, ".prom").map(File::Metrics).map(Name::File),
            Dir::Rejected => root_evidence(text).map(Name::File),
            Dir::Lane(lane, Area::Top) => lane_top(lane, text),
            Dir::Lane(lane, Area::Done) if text == "archive" => {
                Some(Name::Dir(Dir::lane(lane, Area::Archive)))
            }
            Dir::Lane(lane, Area::Archive) => {
                Month::parse(text).map(|month| Name::Dir(Dir::lane(lane, Area::ArchiveMonth(month))))
            }
            Dir::Lane(lane, area) => lane_file(*area, text).map(|file| Name::File(File::in_lane(lane, file))),
        }
    }
}

fn root_name(text: &str) -> Option<Name> {
    Some(match text {
        "CLUSTER" => Name::File(File::Cluster),
        "KILLSWITCH" => Name::File(File::Killswitch),
        "tmp" => Name::Dir(Dir::Tmp),
        "heartbeats" => Name::Dir(Dir::Heartbeats),
        "logs" => Name::Dir(Dir::Logs),
        "metrics" => Name::Dir(Dir::Metrics),
        "rejected" => Name::Dir(Dir::Rejected),
        other => Name::Dir(Dir::Lane(Lane::parse(other).ok()?, Area::Top)),
    })
}

fn node_file(text: &str, ending: &str) -> Option<NodeName> {
    NodeName::new(text.strip_suffix(ending)?).ok()
}

fn heartbeat_name(text: &str) -> Option<File> {
    let stem = text.strip_suffix(".json")?;
    let Some((node, boot)) = stem.split_once(".boot-") else {
        return NodeName::new(stem).ok().map(File::Heartbeat);
    };
    Some(File::Boot(NodeName::new(node).ok()?, decimal(boot)?))
}

fn evidence_part<'a>(text: &'a str, itself: &str) -> Option<(&'a str, EvidencePart)> {
    let reason = text.strip_suffix(".reason.json").map(|stem| (stem, EvidencePart::Reason));
    reason.or_else(|| text.strip_suffix(itself).map(|stem| (stem, EvidencePart::Itself)))
}

fn root_evidence(text: &str) -> Option<File> {
    let (stem, part) = evidence_part(text, "")?;
    let (of, digest16) = stem.rsplit_once('.')?;
    let of = heartbeat_name(of)
        .or_else(|| node_file(of, ".jsonl").map(File::AuditCopy))
        .or_else(|| node_file(of, ".prom").map(File::Metrics))?;
    Some(File::Evidence { of: Box::new(of), digest16: Hex16::parse(digest16)?, part })
}

fn lane_top(lane: &Lane, text: &str) -> Option<Name> {
    let area = match text {
        "KILLSWITCH" => return Some(Name::File(File::lane_killswitch(lane))),
        "pending.json" => return Some(Name::File(File::pending_summary(lane))),
        "tmp" => Area::Tmp,
        "inbox" => Area::Inbox,
        "attachments" => Area::Attachments,
        "control" => Area::Control,
        "pending-ack" => Area::PendingAck,
        "processing" => Area::Processing,
        "done" => Area::Done,
        "artifacts" => Area::Artifacts,
        "rejected" => Area::Rejected,
        _ => return None,
    };
    Some(Name::Dir(Dir::lane(lane, area)))
}

fn lane_file(area: Area, text: &str) -> Option<LaneFile> {
    let id = |text: &str| TaskId::parse_any_version(text).ok();
    let id_before = |ending: &str| text.strip_suffix(ending).and_then(id);
    match area {
        Area::Tmp => TmpName::parse(text).map(LaneFile::Tmp),
        Area::Inbox => id_before(".json").map(LaneFile::Inbox),
        Area::Attachments => Digest::parse(text).ok().map(LaneFile::Attachment),
        Area::Control => id_before(".cancel.json").map(LaneFile::Cancel),
        Area::PendingAck => pending_name(text),
        Area::Processing => {
            let progress = id_before(".progress.json").map(LaneFile::Progress);
            progress.or_else(|| id_before(".json").map(LaneFile::Processing))
        }
        Area::Done => done_name(text, LaneFile::Result, LaneFile::Log, LaneFile::Done),
        Area::ArchiveMonth(month) => done_name(
            text,
            |id| LaneFile::ArchivedResult(month, id),
            |id| LaneFile::ArchivedLog(month, id),
            |id| LaneFile::ArchivedTask(month, id),
        ),
        Area::Artifacts => Digest::parse(text).ok().map(LaneFile::Artifact),
        Area::Rejected => {
            let (stem, part) = evidence_part(text, ".json")?;
            let Some((of, digest16)) = stem.rsplit_once('.') else {
                return id_before(".json").map(LaneFile::Refused);
            };
            Some(LaneFile::Evidence { of: EvidenceOf::parse(of)?, digest16: Hex16::parse(digest16)?, part })
        }
        // Their names are directories too, so they are read above.
        Area::Top | Area::Archive => None,
    }
}

fn pending_name(text: &str) -> Option<LaneFile> {
    let id = |text: &str| TaskId::parse_any_version(text).ok();
    if let Some(stem) = text.strip_suffix(".ack") {
        let Some((task, key16)) = stem.rsplit_once('.') else { return id(stem).map(LaneFile::UnsignedAck) };
        return Some(LaneFile::Decision(id(task)?, Hex16::parse(key16)?));
    }
    let stem = text.strip_suffix(".json")?;
    stem.strip_suffix(".terms")
        .map_or_else(|| id(stem).map(LaneFile::Pending), |task| id(task).map(LaneFile::Terms))
}

fn done_name(
    text: &str,
    result: impl Fn(TaskId) -> LaneFile,
    log: impl Fn(TaskId) -> LaneFile,
    task: impl Fn(TaskId) -> LaneFile,
) -> Option<LaneFile> {
    let id = |text: &str| TaskId::parse_any_version(text).ok();
    if let Some(stem) = text.strip_suffix(".result.json") {
        return id(stem).map(result);
    }
    if let Some(stem) = text.strip_suffix(".log") {
        return id(stem).map(log);
    }
    id(text.strip_suffix(".json")?).map(task)
}
