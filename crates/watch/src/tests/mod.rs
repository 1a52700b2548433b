//! Rules of the watcher on a real ledger and a real directory, without any process.

mod agents_door;
mod attempts;
mod deciding;
mod forwarding;
mod guards;
mod looking;
mod running;
mod taking;
mod telling;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use dispatch_core::protocol::names::{Digest, NodeName, TaskId};
use dispatch_core::protocol::payload::{Kind, Payload as _};
use dispatch_core::protocol::seal::seal;
use dispatch_core::protocol::task::Task;
use dispatch_core::protocol::time::Timestamp;
use dispatch_ledger::{Birth, Fence, Ledger, LedgerError, NewBoot, TaskKey, TaskRow, Tx, Whole};
use dispatch_node::config::Config;
use dispatch_spool::layout::File;
use tempfile::TempDir;
use uuid::Uuid;

use crate::home::Home;
use crate::leasing::{Launch, Turn, lease};
use crate::look::{Found, What};
use crate::taking::{Judged, judge, take};

const PROFILES: &str = r#"
[exec]
max_parallel = 2
[budget]
run_usd = "10"
month_usd = "10"
[safeguards]
spend_per_hour_usd = "1000"
[profile.shell]
agent = "command"
argv = ["/bin/sh", "-eu"]
billing = "free"
[profile.paid]
agent = "command"
argv = ["/bin/sh", "-eu"]
billing = "metered"
max_cost_usd = "2"
overshoot_usd = "2"
"#;

pub(crate) fn now() -> Timestamp {
    Timestamp::parse("2026-11-21T10:00:00.000Z").unwrap()
}

pub(crate) fn devbox() -> NodeName {
    NodeName::new("devbox").unwrap()
}

pub(crate) fn id(number: u32) -> TaskId {
    TaskId::from_uuid(Uuid::from_u128(0x01a1_f89c_fb83_734b_96bb_0000_0000_0000 + u128::from(number)))
}

pub(crate) fn key(number: u32) -> TaskKey {
    TaskKey { from: devbox(), id: id(number) }
}

/// A node `gpubox` with one peer `devbox`: its configuration, its ledger held by boot 1, and an empty share.
pub(crate) struct Bench {
    pub(crate) dir: TempDir,
    pub(crate) home: Home,
    pub(crate) ledger: Ledger,
}

pub(crate) fn bench() -> Bench {
    bench_with("")
}

/// The same, with more in its configuration.
pub(crate) fn bench_with(more: &str) -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().display();
    for lane in ["devbox-to-gpubox", "gpubox-to-devbox"] {
        for area in ["inbox", "control", "pending-ack", "processing", "done", "rejected", "tmp"] {
            fs::create_dir_all(dir.path().join("share").join(lane).join(area)).unwrap();
        }
    }
    for below in ["share/heartbeats", "share/tmp", "share/rejected", "state/requests", "state/replies"] {
        fs::create_dir_all(dir.path().join(below)).unwrap();
    }
    let cluster = Uuid::from_u128(0x4000_8000_0000_0000_0002);
    fs::write(dir.path().join("share/CLUSTER"), format!("{cluster}\n")).unwrap();
    let key = dir.path().join("devbox.key");
    fs::write(&key, "0123456789abcdef0123456789abcdef\n").unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let text = format!(
        "root = \"{at}/share\"\nnode = \"gpubox\"\nstate = \"{at}/state\"\ncluster = \"{cluster}\"\n\
         [peer.devbox]\nkeys = [\"devbox.key\"]\n{PROFILES}{more}"
    );
    let file = dir.path().join("dispatch.toml");
    fs::write(&file, text).unwrap();
    let mut home = Home::new(Config::load(Some(&file)).unwrap(), Uuid::from_u128(7)).unwrap();
    home.boot = 1;
    let birth = Birth {
        ledger: Uuid::from_u128(1),
        cluster,
        node: home.node.clone(),
        chain: Uuid::from_u128(3),
        whole: Whole::Yes,
        accept_after: None,
    };
    let mut ledger = Ledger::create(&dir.path().join("state/ledger.db"), &birth, now()).unwrap();
    let boot = NewBoot { boot: 1, instance: home.instance, host_boot_id: "host".to_owned(), dev: 1, ino: 1 };
    ledger.write(Fence::NONE, now(), |tx| tx.note_boot(&boot)).unwrap();
    ledger.write(Fence::NONE, now(), |tx| tx.hold_boot(1, home.instance)).unwrap();
    Bench { dir, home, ledger }
}

impl Bench {
    /// A task of devbox for the free profile, at this position of its stream.
    pub(crate) fn task(&self, number: u32) -> Task {
        let lane = &self.home.peers[&devbox()].lane_in;
        let position = (Uuid::from_u128(9), u64::from(number));
        let mut task =
            Task::new(self.home.cluster, lane, id(number), now(), position, "echo hello".to_owned());
        task.profile = dispatch_core::protocol::names::Name::new("shell").unwrap();
        task
    }

    pub(crate) fn paid(&self, number: u32) -> Task {
        let mut task = self.task(number);
        task.profile = dispatch_core::protocol::names::Name::new("paid").unwrap();
        task
    }

    pub(crate) fn sealed(&self, task: &Task) -> Vec<u8> {
        let signing = self.home.peers[&devbox()].ring_in.signing().unwrap();
        seal(Kind::Task, &task.to_payload(), &[signing])
    }

    pub(crate) fn write<T>(
        &mut self,
        at: Timestamp,
        change: impl FnOnce(&mut Tx<'_>, &Home) -> Result<T, LedgerError>,
    ) -> T {
        let home = &self.home;
        self.ledger.write(Fence::of(1), at, |tx| change(tx, home)).unwrap()
    }

    /// What the watcher makes of these bytes in its inbox.
    pub(crate) fn judge(&self, number: u32, bytes: Vec<u8>, at: Timestamp) -> Judged {
        let peer = &self.home.peers[&devbox()];
        let found = Found { file: File::inbox(&peer.lane_in, id(number)), what: What::Bytes(bytes) };
        judge(&self.ledger, &self.home, peer, found, at).unwrap()
    }

    /// Takes a task that must be good.
    pub(crate) fn take(&mut self, task: &Task) -> TaskRow {
        let number = u32::try_from(task.seq).unwrap();
        let Judged::Good { file, task } = self.judge(number, self.sealed(task), now()) else {
            panic!("the task is not taken")
        };
        self.write(now(), |tx, home| take(tx, home, &file, &task));
        self.row(number)
    }

    pub(crate) fn row(&self, number: u32) -> TaskRow {
        self.ledger.task(&key(number)).unwrap().unwrap()
    }

    pub(crate) fn lease(&mut self, at: Timestamp) -> Vec<Launch> {
        let turn = Turn { free: 2, only: None, is_held: &|_| false };
        let mut failed = Vec::new();
        let launches = self.write(at, |tx, home| lease(tx, home, &turn, &mut failed));
        assert_eq!(failed, Vec::<TaskKey>::new());
        launches
    }

    pub(crate) fn digest(&self, task: &Task) -> Digest {
        Digest::of(&task.to_payload())
    }
}
