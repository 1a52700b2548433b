//! A cgroup of version 2 for one agent, where the service manager has delegated a subtree to this node.
//!
//! It catches what a sweep cannot see once the executor is dead: a process that left its parent *and* cleared its
//! environment. It is used only where the own cgroup says that it is delegated, because elsewhere it belongs to somebody
//! else, whatever its permissions are.

use std::fs;
use std::path::{Path, PathBuf};

/// Where the unified hierarchy is mounted, alone or beside the older ones.
const MOUNTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
/// Attributes with which systemd marks a delegated cgroup.
const DELEGATED: [&str; 2] = ["user.delegate", "trusted.delegate"];

/// The cgroup of one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Makes the attempt's cgroup, or `None` where this process has no delegated one of version 2 with `cgroup.kill`.
    #[must_use]
    pub fn create(mark: &str) -> Option<Cgroup> {
        let cgroup = Cgroup::named(&delegated()?, mark)?;
        fs::create_dir(&cgroup.path).ok()?;
        if cgroup.path.join("cgroup.kill").exists() {
            Some(cgroup)
        } else {
            cgroup.remove();
            None
        }
    }

    /// The attempt's cgroup, where there is one.
    #[must_use]
    pub fn existing(mark: &str) -> Option<Cgroup> {
        Cgroup::named(&delegated()?, mark).filter(|cgroup| cgroup.path.is_dir())
    }

    /// The file into which a process writes `0` to join.
    #[must_use]
    pub fn procs_path(&self) -> PathBuf {
        self.path.join("cgroup.procs")
    }

    /// Ends every process in it at once. The sweep that follows sees what is left.
    pub fn kill(&self) {
        drop(fs::write(self.path.join("cgroup.kill"), b"1"));
    }

    /// Removes it once it is empty; until then it stays.
    pub fn remove(&self) {
        drop(fs::remove_dir(&self.path));
    }

    /// Processes in it.
    #[must_use]
    pub fn count(&self) -> u64 {
        let listed = fs::read_to_string(self.procs_path()).unwrap_or_default();
        super::count(listed.lines().count())
    }

    fn named(parent: &Path, mark: &str) -> Option<Cgroup> {
        let is_plain =
            !mark.is_empty() && mark.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        is_plain.then(|| Cgroup { path: parent.join(format!("dispatch-{mark}")) })
    }
}

/// The cgroup of this process, where it is delegated.
fn delegated() -> Option<PathBuf> {
    let listed = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = listed.lines().find_map(|line| line.strip_prefix("0::/"))?;
    if own.is_empty() {
        return None;
    }
    let path = MOUNTS
        .iter()
        .map(Path::new)
        .find(|mount| mount.join("cgroup.procs").exists())
        .map(|mount| mount.join(own))?;
    DELEGATED.iter().any(|name| has_attribute(&path, name)).then_some(path)
}

fn has_attribute(path: &Path, name: &str) -> bool {
    let mut value = [0_u8; 8];
    rustix::fs::getxattr(path, name, &mut value).is_ok_and(|len| value.get(..len) == Some(b"1"))
}
