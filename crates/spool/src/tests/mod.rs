//! What the share promises, tried on a directory of this machine.

mod hint;
mod layout;
mod moves;
mod publish;
mod read;
mod root;
mod upkeep;

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use dispatch_core::protocol::names::{Lane, NodeName, TaskId};
use uuid::Uuid;

use crate::posix::{PosixShare, TreeAccess, create_directories};
use crate::{Dir, File};

pub(crate) const CLUSTER: Uuid = Uuid::from_u128(0x0000_0000_0000_4000_8000_0000_0000_0001);

/// A tree with the lane a-to-b, as node b sees it.
pub(crate) struct Tree {
    _dir: tempfile::TempDir,
    pub(crate) share: PosixShare,
    pub(crate) lane: Lane,
}

impl Tree {
    pub(crate) fn new() -> Tree {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("share");
        let lane = Lane::parse("a-to-b").unwrap();
        create_directories(&root, std::slice::from_ref(&lane), TreeAccess::Owner).unwrap();
        let share = PosixShare::new(root, NodeName::new("b").unwrap());
        Tree { _dir: dir, share, lane }
    }

    pub(crate) fn path(&self, file: &File) -> PathBuf {
        self.share.root().join(file.path())
    }

    pub(crate) fn dir(&self, dir: &Dir) -> PathBuf {
        self.share.root().join(dir.path())
    }

    pub(crate) fn put(&self, file: &File, bytes: &[u8]) {
        fs::write(self.path(file), bytes).unwrap();
    }

    pub(crate) fn names(&self, dir: &Dir) -> Vec<String> {
        let entries = fs::read_dir(self.dir(dir)).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Makes a file look as if it was written so long ago.
    pub(crate) fn age(&self, file: &File, by: Duration) {
        let file = fs::File::options().write(true).open(self.path(file)).unwrap();
        file.set_modified(SystemTime::now().checked_sub(by).unwrap()).unwrap();
    }
}

/// The n-th of some task ids.
pub(crate) fn id(number: u128) -> TaskId {
    TaskId::from_uuid(Uuid::from_u128(0x01a1_f89c_fb83_7000_8000_0000_0000_0000 + number))
}

pub(crate) fn fifo(path: &PathBuf) {
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
}
