//! The killswitches, as an executor sees them (protocol section 8): on the share by a fresh listing, on a thread of its
//! own because a share may hang; in the state directory on the node's own disk.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use dispatch_node::job::KillswitchPlaces;
use rustix::fd::{AsFd as _, OwnedFd};
use rustix::fs::{CWD, Dir, FileType, Mode, OFlags, fstat, openat};

/// Time between two looks at the share.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// As much of a file is read; the first line decides.
const TEXT_BYTES_MAX: u64 = 4_096;
const SWITCH: &str = "KILLSWITCH";
const CLUSTER: &str = "CLUSTER";

/// What a look saw; the worse of several is the greater.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum SwitchSeen {
    /// Nothing stops the attempt.
    Clear,
    /// The share is not there: starts nothing, ends nothing, and is no trip.
    ShareUnreachable,
    /// Nothing is started; what runs goes on.
    Halt(PathBuf),
    /// What runs is ended too.
    Kill(PathBuf),
}

/// Looks at the share, now and every two seconds.
#[derive(Debug)]
pub(crate) struct ShareWatch {
    seen: Receiver<SwitchSeen>,
}

impl ShareWatch {
    /// Starts looking.
    pub(crate) fn start(places: &KillswitchPlaces, cluster: String) -> io::Result<ShareWatch> {
        let (tell, seen) = sync_channel(1);
        let (root, lane) = (places.root.clone(), places.lane.clone());
        thread::Builder::new()
            .name("killswitch".into())
            .spawn(move || keep_looking(&root, &lane, &cluster, &tell))?;
        Ok(ShareWatch { seen })
    }

    /// The next answer, if it comes in time.
    pub(crate) fn next_within(&self, wait: Duration) -> Option<SwitchSeen> {
        self.seen.recv_timeout(wait).ok()
    }

    /// An answer that came since the last call.
    pub(crate) fn news(&self) -> Option<SwitchSeen> {
        self.seen.try_recv().ok()
    }
}

fn keep_looking(root: &Path, lane: &Path, cluster: &str, tell: &SyncSender<SwitchSeen>) {
    while tell.send(look_at_share(root, lane, cluster)).is_ok() {
        thread::sleep(LOOK_EVERY);
    }
}

/// One look at the root and the lane. A killswitch that is there counts even where the rest of the share does not.
fn look_at_share(root: &Path, lane: &Path, cluster: &str) -> SwitchSeen {
    let at_root = Listed::of(root).map_or(SwitchSeen::ShareUnreachable, |listed| {
        let share =
            if listed.says_cluster(cluster) { SwitchSeen::Clear } else { SwitchSeen::ShareUnreachable };
        share.max(listed.switch(root))
    });
    let at_lane = Listed::of(lane).map_or(SwitchSeen::ShareUnreachable, |listed| listed.switch(lane));
    at_root.max(at_lane)
}

/// One look at the state directory.
pub(crate) fn look_at_state(state: &Path) -> SwitchSeen {
    match std::fs::symlink_metadata(state.join(SWITCH)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => SwitchSeen::Clear,
        Ok(_) | Err(_) => {
            let halt = SwitchSeen::Halt(state.join(SWITCH));
            open_dir(state).map_or(halt, |dir| switch_in(&dir, state))
        }
    }
}

/// The two names that matter in a directory that was opened anew.
struct Listed {
    dir: OwnedFd,
    has_switch: bool,
    has_cluster: bool,
}

impl Listed {
    fn of(path: &Path) -> io::Result<Listed> {
        let dir = open_dir(path)?;
        let (mut has_switch, mut has_cluster) = (false, false);
        for entry in Dir::read_from(&dir)? {
            let entry = entry?;
            has_switch |= entry.file_name().to_bytes() == SWITCH.as_bytes();
            has_cluster |= entry.file_name().to_bytes() == CLUSTER.as_bytes();
        }
        Ok(Listed { dir, has_switch, has_cluster })
    }

    fn says_cluster(&self, cluster: &str) -> bool {
        self.has_cluster && first_line(&self.dir, CLUSTER).is_some_and(|line| line == cluster)
    }

    fn switch(&self, path: &Path) -> SwitchSeen {
        if self.has_switch { switch_in(&self.dir, path) } else { SwitchSeen::Clear }
    }
}

/// A killswitch that is there in any form stops; only a readable first line `kill` ends what runs.
fn switch_in(dir: &OwnedFd, path: &Path) -> SwitchSeen {
    let place = path.join(SWITCH);
    if first_line(dir, SWITCH).is_some_and(|line| line == "kill") {
        SwitchSeen::Kill(place)
    } else {
        SwitchSeen::Halt(place)
    }
}

fn open_dir(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(CWD, path, flags, Mode::empty())?)
}

/// The first line of a regular file, without white space around it.
fn first_line(dir: &OwnedFd, name: &str) -> Option<String> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = openat(dir.as_fd(), name, flags, Mode::empty()).ok()?;
    if FileType::from_raw_mode(fstat(&file).ok()?.st_mode) != FileType::RegularFile {
        return None;
    }
    let mut bytes = Vec::new();
    File::from(file).take(TEXT_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    String::from_utf8_lossy(&bytes).lines().next().map(|line| line.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const ID: &str = "123e4567-e89b-12d3-a456-426614174000";

    fn share() -> (tempfile::TempDir, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let lane = root.path().join("a-to-b");
        fs::create_dir(&lane).unwrap();
        fs::write(root.path().join(CLUSTER), format!("{ID}\n")).unwrap();
        (root, lane)
    }

    #[test]
    fn a_share_without_its_cluster_or_its_lane_is_not_there() {
        let (root, lane) = share();
        assert_eq!(look_at_share(root.path(), &lane, ID), SwitchSeen::Clear);
        assert_eq!(look_at_share(root.path(), &lane, "other"), SwitchSeen::ShareUnreachable);
        fs::remove_dir(&lane).unwrap();
        assert_eq!(look_at_share(root.path(), &lane, ID), SwitchSeen::ShareUnreachable);
        let empty = tempfile::tempdir().unwrap();
        assert_eq!(look_at_share(empty.path(), empty.path(), ID), SwitchSeen::ShareUnreachable);
    }

    #[test]
    fn a_killswitch_counts_in_any_form_and_kills_by_its_first_line() {
        let (root, lane) = share();
        fs::create_dir(lane.join(SWITCH)).unwrap();
        assert_eq!(look_at_share(root.path(), &lane, ID), SwitchSeen::Halt(lane.join(SWITCH)));
        let at_root = root.path().join(SWITCH);
        fs::write(&at_root, "kill\nnow\n").unwrap();
        assert_eq!(look_at_share(root.path(), &lane, ID), SwitchSeen::Kill(at_root.clone()));
        fs::write(&at_root, "do not kill\n").unwrap();
        fs::remove_dir(lane.join(SWITCH)).unwrap();
        assert_eq!(look_at_share(root.path(), &lane, ID), SwitchSeen::Halt(at_root));
    }

    #[test]
    fn a_state_directory_is_looked_at_too() {
        let state = tempfile::tempdir().unwrap();
        assert_eq!(look_at_state(state.path()), SwitchSeen::Clear);
        std::os::unix::fs::symlink("nowhere", state.path().join(SWITCH)).unwrap();
        assert_eq!(look_at_state(state.path()), SwitchSeen::Halt(state.path().join(SWITCH)));
    }
}
