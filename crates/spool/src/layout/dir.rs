//! The directories of the tree.

use std::path::PathBuf;

use dispatch_core::protocol::names::Lane;

use super::parts::Month;

/// A directory of the share. Only `init` creates them, the archive's months apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dir {
    /// The root itself.
    Root,
    /// Half-written files for the directories outside lanes.
    Tmp,
    /// Heartbeats and boot records.
    Heartbeats,
    /// Copies of the nodes' audit chains.
    Logs,
    /// Metrics of the nodes.
    Metrics,
    /// Evidence for names outside lanes.
    Rejected,
    /// A place in a lane.
    Lane(Lane, Area),
}

/// A directory within a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Area {
    /// The lane's own directory.
    Top,
    /// Half-written files, never read by the other side.
    Tmp,
    /// Tasks that were sent.
    Inbox,
    /// Inputs, named by their content.
    Attachments,
    /// Requests to the recipient.
    Control,
    /// Tasks that wait for a human, their terms and decisions.
    PendingAck,
    /// Tasks that were accepted: queued or running.
    Processing,
    /// Finished tasks with log and result.
    Done,
    /// The archive's months.
    Archive,
    /// One month of the archive.
    ArchiveMonth(Month),
    /// Outputs named in results.
    Artifacts,
    /// Evidence.
    Rejected,
}

/// The areas that `init` creates in each lane, with the names of their directories, parents first.
pub(crate) const LANE_AREAS: [Area; 11] = [
    Area::Top,
    Area::Tmp,
    Area::Inbox,
    Area::Attachments,
    Area::Control,
    Area::PendingAck,
    Area::Processing,
    Area::Done,
    Area::Archive,
    Area::Artifacts,
    Area::Rejected,
];

/// The directories that `init` creates beside the lanes.
pub(crate) const ROOT_DIRS: [Dir; 5] = [Dir::Tmp, Dir::Heartbeats, Dir::Logs, Dir::Metrics, Dir::Rejected];

impl Area {
    /// The area's path below its lane; empty for the lane itself.
    pub(crate) fn components(self) -> Vec<String> {
        let one = |name: &str| vec![name.to_owned()];
        match self {
            Area::Top => Vec::new(),
            Area::Tmp => one("tmp"),
            Area::Inbox => one("inbox"),
            Area::Attachments => one("attachments"),
            Area::Control => one("control"),
            Area::PendingAck => one("pending-ack"),
            Area::Processing => one("processing"),
            Area::Done => one("done"),
            Area::Archive => vec!["done".to_owned(), "archive".to_owned()],
            Area::ArchiveMonth(month) => vec!["done".to_owned(), "archive".to_owned(), month.to_string()],
            Area::Artifacts => one("artifacts"),
            Area::Rejected => one("rejected"),
        }
    }
}

impl Dir {
    /// A directory of a lane.
    #[must_use]
    pub fn lane(lane: &Lane, area: Area) -> Dir {
        Dir::Lane(lane.clone(), area)
    }

    /// The lane it belongs to.
    #[must_use]
    pub const fn lane_of(&self) -> Option<&Lane> {
        match self {
            Dir::Lane(lane, _) => Some(lane),
            Dir::Root | Dir::Tmp | Dir::Heartbeats | Dir::Logs | Dir::Metrics | Dir::Rejected => None,
        }
    }

    /// The names from the root down to this directory; empty for the root.
    pub(crate) fn components(&self) -> Vec<String> {
        let one = |name: &str| vec![name.to_owned()];
        match self {
            Dir::Root => Vec::new(),
            Dir::Tmp => one("tmp"),
            Dir::Heartbeats => one("heartbeats"),
            Dir::Logs => one("logs"),
            Dir::Metrics => one("metrics"),
            Dir::Rejected => one("rejected"),
            Dir::Lane(lane, area) => {
                let mut all = vec![lane.to_string()];
                all.extend(area.components());
                all
            }
        }
    }

    /// Where it lies below the root; for messages and for watching, never for opening.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.components().iter().collect()
    }

    /// Where the half-written files for this directory go.
    pub(crate) fn tmp(&self) -> Dir {
        self.lane_of().map_or(Dir::Tmp, |lane| Dir::lane(lane, Area::Tmp))
    }
}
