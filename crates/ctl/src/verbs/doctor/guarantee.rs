//! Whether a person's yes means anything against the agents themselves: can the user they run as write what decides, or
//! reach an approver's key.
//!
//! Agents of this release run as the user of the watcher, whose state directory it is. So that user is asked about.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use dispatch_node::config::Config;
use rustix::process::{geteuid, getgroups};

use super::Sheet;
use super::agents::readable;

/// Set on a directory where only its owner may rename or remove.
const STICKY: u32 = 0o1000;

pub(super) fn guarantee(config: &Config) -> Sheet {
    let mut sheet = Sheet::default();
    let state = config.state.path();
    let Ok(owner) = fs::metadata(state) else {
        sheet.warning(
            "guarantee",
            format!("approval guarantee: not tested ({} is not there)", state.display()),
            "run: dispatchctl init",
        );
        return sheet;
    };
    let agent = Agent::of(owner.uid());
    let mut reach = Vec::new();
    for (what, path) in [
        ("the configuration", config.file.clone()),
        ("the approvers", config.approve.allowed_signers.clone()),
        ("the standing approvals", config.standing_dir()),
        ("the state directory with the ledger", state.to_owned()),
    ] {
        if agent.may_change(&path) {
            reach.push(format!("write {what}"));
        }
    }
    if let Some(key) = config.approve.key.as_ref().filter(|key| agent.may_read(key)) {
        reach.push(format!("read the approver's key {}", key.display()));
    }
    if reach.is_empty() {
        sheet.ok(
            "guarantee",
            format!("approval guarantee: holds (uid {} reaches nothing that decides)", agent.uid),
        );
    } else {
        sheet.warning(
            "guarantee",
            format!("approval guarantee: none (agents run as uid {} and can {})", agent.uid, reach.join(", ")),
            "a person's yes protects from what a sender asks, not from an agent that runs already; to narrow it: run \
             the node as a user of its own (the system unit), let root own configuration and approvers, and keep \
             approvers' keys on other machines or on a hardware token",
        );
    }
    sheet
}

/// The user that agents run as.
struct Agent {
    uid: u32,
    /// Its groups; `None` where they cannot be known from here, so that every group counts as one of them.
    groups: Option<Vec<u32>>,
}

impl Agent {
    fn of(uid: u32) -> Agent {
        let me = geteuid().as_raw() == uid;
        let groups = if me { getgroups().ok() } else { None };
        Agent { uid, groups: groups.map(|all| all.into_iter().map(rustix::process::Gid::as_raw).collect()) }
    }

    fn is_in(&self, group: u32) -> bool {
        self.groups.as_ref().is_none_or(|groups| groups.contains(&group))
    }

    /// By owner and mode bits. The owner of a file may give himself any right to it.
    fn has(&self, facts: &fs::Metadata, right: u32) -> bool {
        let mode = facts.mode();
        self.uid == 0
            || facts.uid() == self.uid
            || (self.is_in(facts.gid()) && mode & (right << 3) != 0)
            || mode & right != 0
    }

    /// Whether it may change what lies at a path: the thing itself, or any directory on the way, through which another
    /// can be put in its place.
    fn may_change(&self, path: &Path) -> bool {
        let real = real(path);
        let mut below: Option<fs::Metadata> = None;
        for place in real.ancestors() {
            let Ok(facts) = fs::symlink_metadata(place) else { continue };
            // In a sticky directory only what is one's own can be replaced.
            let sticky = facts.mode() & STICKY != 0 && facts.uid() != self.uid && self.uid != 0;
            let guarded = sticky && below.as_ref().is_some_and(|below| below.uid() != self.uid);
            if self.has(&facts, 0o2) && !guarded {
                return true;
            }
            below = Some(facts);
        }
        false
    }

    /// Whether it may read a file. Where this is the same user, the kernel is asked.
    fn may_read(&self, path: &Path) -> bool {
        if geteuid().as_raw() == self.uid {
            return readable(path);
        }
        fs::metadata(path).is_ok_and(|facts| self.has(&facts, 0o4))
    }
}

/// The path without symlinks, as far as it exists.
fn real(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn the_owner_of_a_file_may_change_it_whatever_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("dispatch.toml");
        fs::write(&file, "x").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o400)).unwrap();
        assert!(Agent::of(geteuid().as_raw()).may_change(&file));
    }

    #[test]
    fn another_user_may_change_what_lies_in_a_directory_that_lets_him() {
        let stranger = Agent { uid: 61_234, groups: Some(Vec::new()) };
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("approvers");
        fs::write(&file, "x").unwrap();
        assert!(!stranger.may_change(&file), "the directory is private and the file is not his");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(stranger.may_change(&file), "he puts another in its place");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o1777)).unwrap();
        assert!(!stranger.may_change(&file), "not where only owners replace");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
        assert!(stranger.may_change(&file), "the file itself lets him");
    }

    #[test]
    fn a_group_that_is_not_known_counts_as_his() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("approvers");
        fs::write(&file, "x").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o660)).unwrap();
        assert!(Agent { uid: 61_234, groups: None }.may_change(&file));
        assert!(!Agent { uid: 61_234, groups: Some(Vec::new()) }.may_change(&file));
    }
}
