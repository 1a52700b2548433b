//! A delegated cgroup, where this machine lets the test have one.

mod lab;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dispatch_node::job::{Mechanism, OutcomeStatus};
use dispatch_node::tree::{Scope, Tree};
use dispatch_testkit::eventually;
use dispatch_testkit::process::{alive, kill};
use lab::{Lab, Running, pids};
use rustix::fs::{XattrFlags, setxattr};

/// A cgroup that says it is delegated, with this process in it.
struct Delegated {
    mount: PathBuf,
    path: PathBuf,
}

impl Delegated {
    fn new(name: &str) -> Option<Delegated> {
        let mounts = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(PathBuf::from);
        let mount = mounts.into_iter().find(|mount| mount.join("cgroup.procs").exists())?;
        let path = mount.join(format!("dispatch-test-{name}"));
        fs::create_dir(&path).ok()?;
        let delegated = Delegated { mount, path };
        setxattr(&delegated.path, "user.delegate", b"1", XattrFlags::empty()).ok()?;
        fs::write(delegated.path.join("cgroup.procs"), "0").ok()?;
        delegated.path.join("cgroup.kill").exists().then_some(delegated)
    }

    fn of(&self, lab: &Lab) -> PathBuf {
        self.path.join(format!("dispatch-{}", lab.mark))
    }
}

impl Drop for Delegated {
    fn drop(&mut self) {
        fs::write(self.mount.join("cgroup.procs"), "0").ok();
        fs::remove_dir(&self.path).ok();
    }
}

/// A process that has left its parent, its session and its environment.
fn unseen(list: &Path, then: &str) -> String {
    format!(
        "(env -i setsid /bin/sh -c 'echo $$ >> {0}; exec /bin/sleep 600' &); while ! [ -s {0} ]; do :; done; {then}",
        list.display()
    )
}

#[test]
fn a_delegated_cgroup_catches_what_a_sweep_cannot_see() {
    let lab = Lab::new();
    let Some(delegated) = Delegated::new(&lab.mark) else {
        eprintln!("skipped: this machine gives the test no cgroup of version 2 to delegate");
        return;
    };
    let list = lab.scratch("pids");
    let job = lab.job(&lab.order(&unseen(&list, "while :; do sleep 1; done")));
    let mut running = Running::start(&job);
    let pid = pids(&list)[0];
    assert_eq!(job.read_started().unwrap().unwrap().mechanism, Mechanism::Cgroup);
    kill(running.pid());
    running.child.wait().unwrap();
    eventually("a sweep sees nothing any more", || lab.alive() == 0);
    assert!(alive(pid));
    assert_eq!(Tree::new(&lab.mark, Scope::Marked).kill(Duration::from_secs(5)).unwrap().descendants_left, 0);
    eventually("it is gone all the same", || !alive(pid));

    let lab = Lab::new();
    let list = lab.scratch("pids");
    let outcome = lab.run(&lab.order(&unseen(&list, "exit 0")));
    assert_eq!(outcome.status, OutcomeStatus::Ok);
    assert_eq!(outcome.containment.unwrap().mechanism, Mechanism::Cgroup);
    assert!(!alive(pids(&list)[0]));
    assert!(!delegated.of(&lab).exists());
}
