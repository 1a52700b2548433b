//! A share made by hand with tasks that wait on it, keys of approvers, and the real command.

#![expect(dead_code, reason = "each test binary uses its part of the lab")]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::let_underscore_must_use,
    reason = "what fails here fails the test"
)]

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use dispatch_core::policy::money::Usd;
use dispatch_core::protocol::accept::{Me, Place, Verdict, Waiting, accept_decision};
use dispatch_core::protocol::approvers::Approvers;
use dispatch_core::protocol::keys::PairKey;
use dispatch_core::protocol::names::{Digest, Lane, Name, NodeName, TaskId, canonical_uuid};
use dispatch_core::protocol::seal::seal;
use dispatch_core::protocol::{Decision, Kind, Payload as _, Task, Terms};
use dispatch_node::{clock, ids};
use dispatch_spool::root::publish_cluster;
use dispatch_spool::{PosixShare, TreeAccess, create_directories};

const CLUSTER: &str = "0b54a3a8-4ee8-4a51-9b0e-4f1f1f4f7a11";
/// Longest wait for something that must come.
const DEADLINE: Duration = Duration::from_secs(60);

/// True if `ssh-keygen` is there; says loudly that a test is skipped where it is not.
pub(crate) fn can_sign() -> bool {
    let there = Command::new("ssh-keygen").arg("-?").output().is_ok();
    if !there {
        eprintln!("SKIPPED: ssh-keygen is not installed, so nothing was tested here");
    }
    there
}

/// True if a terminal can be made; says loudly that a test is skipped where it cannot.
pub(crate) fn has_terminals() -> bool {
    let there = Command::new("script").arg("--version").output().is_ok();
    if !there {
        eprintln!("SKIPPED: script(1) is not installed, so nothing was tested here");
    }
    there
}

/// Node `b` with its peers `a` and `c`.
pub(crate) struct Lab {
    dir: tempfile::TempDir,
}

/// A task that waits, as the lab made it.
pub(crate) struct Parked {
    pub(crate) id: TaskId,
    pub(crate) lane: Lane,
    pub(crate) task_sha256: Digest,
    pub(crate) terms_sha256: Digest,
}

impl Parked {
    pub(crate) fn short(&self) -> String {
        self.id.short()
    }
}

impl Lab {
    pub(crate) fn new() -> Lab {
        let dir = tempfile::tempdir().unwrap();
        let lab = Lab { dir };
        let lanes = ["a-to-b", "b-to-a", "c-to-b", "b-to-c"].map(|lane| Lane::parse(lane).unwrap());
        create_directories(&lab.share(), &lanes, TreeAccess::Owner).unwrap();
        let share = PosixShare::new(lab.share(), NodeName::new("b").unwrap());
        let _ = publish_cluster(&share, canonical_uuid(CLUSTER).unwrap()).unwrap();
        fs::create_dir_all(lab.path("config/keys")).unwrap();
        fs::create_dir_all(lab.path("home/.ssh")).unwrap();
        for peer in ["a", "c"] {
            private(&lab.path(&format!("config/keys/{peer}.key")), &pair_text(peer));
        }
        lab.configure("");
        lab
    }

    /// Writes the configuration with these lines of `[approve]`.
    pub(crate) fn configure(&self, approve: &str) {
        let text = format!(
            "root = \"{}\"\nnode = \"b\"\ncluster = \"{CLUSTER}\"\nstate = \"{}\"\n\
             [peer.a]\nkeys = [\"keys/a.key\"]\n[peer.c]\nkeys = [\"keys/c.key\"]\n[approve]\n{approve}\n",
            self.share().display(),
            self.path("state").display(),
        );
        private(&self.config(), &text);
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    pub(crate) fn share(&self) -> PathBuf {
        self.path("share")
    }

    fn config(&self) -> PathBuf {
        self.path("config/dispatch.toml")
    }

    /// A place in the lane's `pending-ack/`.
    pub(crate) fn pending(&self, name: &str) -> PathBuf {
        self.share().join("a-to-b/pending-ack").join(name)
    }

    /// A new OpenSSH key, not listed.
    pub(crate) fn key(&self, name: &str, passphrase: &str) -> PathBuf {
        let file = self.path(name);
        let made = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", passphrase, "-C", name, "-f"])
            .arg(&file)
            .stdin(Stdio::null())
            .status()
            .unwrap();
        assert!(made.success());
        file
    }

    /// Adds a line for a key to the list of approvers.
    pub(crate) fn list_key(&self, principals: &str, options: &str, key: &Path) {
        let file = self.path("config/approvers");
        let public = fs::read_to_string(key.with_extension("pub")).unwrap();
        let mut text = fs::read_to_string(&file).unwrap_or_default();
        text.push_str(&format!("{principals} {options} {public}"));
        private(&file, &text);
    }

    /// A key of a listed approver.
    pub(crate) fn approver(&self, name: &str) -> PathBuf {
        let key = self.key(name, "");
        self.list_key(name, "namespaces=\"dispatch-decision\"", &key);
        key
    }

    /// Parks a plain task of `a` with this request.
    pub(crate) fn park(&self, request: &str) -> Parked {
        self.park_on("a-to-b", None, |task| request.clone_into(&mut task.request))
    }

    /// Parks a task on a lane, under a given id or a new one.
    pub(crate) fn park_on(&self, lane: &str, id: Option<TaskId>, change: impl FnOnce(&mut Task)) -> Parked {
        let lane = Lane::parse(lane).unwrap();
        let now = clock::now();
        let id = id.unwrap_or_else(|| ids::task_id(now).unwrap());
        let position = (canonical_uuid(CLUSTER).unwrap(), 1);
        let mut task = Task::new(
            canonical_uuid(CLUSTER).unwrap(),
            &lane,
            id,
            now.plus_ms(-90_000),
            position,
            "go".into(),
        );
        change(&mut task);
        let payload = task.to_checked_payload().unwrap();
        let terms = terms(&task, Digest::of(&payload));
        let terms_payload = terms.to_checked_payload().unwrap();
        let dir = self.share().join(lane.to_string()).join("pending-ack");
        fs::write(dir.join(format!("{id}.json")), self.sealed(&lane, Kind::Task, &payload)).unwrap();
        let sealed = self.sealed(&lane, Kind::Terms, &terms_payload);
        fs::write(dir.join(format!("{id}.terms.json")), sealed).unwrap();
        let (task_sha256, terms_sha256) = (Digest::of(&payload), Digest::of(&terms_payload));
        Parked { id, lane, task_sha256, terms_sha256 }
    }

    /// Replaces a parked task's terms by others.
    pub(crate) fn new_terms(&self, parked: &Parked, change: impl FnOnce(&mut Terms)) {
        let task = Task::new(
            canonical_uuid(CLUSTER).unwrap(),
            &parked.lane,
            parked.id,
            clock::now(),
            (canonical_uuid(CLUSTER).unwrap(), 1),
            "go".into(),
        );
        let mut terms = terms(&task, parked.task_sha256);
        change(&mut terms);
        let sealed = self.sealed(&parked.lane, Kind::Terms, &terms.to_checked_payload().unwrap());
        fs::write(self.pending(&format!("{}.terms.json", parked.id)), sealed).unwrap();
    }

    fn sealed(&self, lane: &Lane, kind: Kind, payload: &[u8]) -> Vec<u8> {
        let peer = if lane.from.as_str() == "b" { &lane.to } else { &lane.from };
        let key = PairKey::from_text(&pair_text(peer.as_str())).unwrap().lane(lane);
        seal(kind, payload, &[&key])
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("HOME", self.path("home")).env("TERM", "xterm");
        command.env("PATH", std::env::var_os("PATH").unwrap());
        command
    }

    /// Runs the command where there is no terminal.
    pub(crate) fn ack(&self, words: &[&str]) -> Ended {
        self.start(words).wait()
    }

    /// Starts the command where there is no terminal.
    pub(crate) fn start(&self, words: &[&str]) -> Running {
        let mut command = self.command(env!("CARGO_BIN_EXE_dispatch-ack"));
        command.arg("--config").arg(self.config()).args(words);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Running(command.spawn().unwrap())
    }

    /// Runs the command and decides at once, with a key.
    pub(crate) fn decide(&self, key: &Path, words: &[&str]) -> Ended {
        self.ack(&[&["--yes", "--no-wait", "--key", &key.display().to_string()], words].concat())
    }

    /// Starts the command on a terminal of its own.
    pub(crate) fn at_terminal(&self, words: &[&str]) -> Terminal {
        let line = [env!("CARGO_BIN_EXE_dispatch-ack"), "--config", &self.config().display().to_string()]
            .into_iter()
            .chain(words.iter().copied())
            .map(|word| format!("'{word}'"))
            .collect::<Vec<String>>()
            .join(" ");
        let mut command = self.command("script");
        command.args(["-q", "-e", "-c", &line, "/dev/null"]);
        Terminal::start(command)
    }

    /// The names of decisions that lie there.
    pub(crate) fn decisions(&self) -> Vec<String> {
        let mut found = Vec::new();
        for lane in ["a-to-b", "c-to-b", "b-to-a", "b-to-c"] {
            let lane = self.share().join(lane);
            found.extend(names(&lane.join("pending-ack")).into_iter().filter(|name| name.ends_with(".ack")));
            assert!(names(&lane.join("tmp")).is_empty(), "something half-written stayed");
        }
        found
    }

    /// The name of the decision on a task, as soon as there is one.
    pub(crate) fn pending_ack(&self, parked: &Parked) -> Option<String> {
        let found = names(&self.pending(""));
        found.into_iter().find(|name| name.starts_with(&parked.id.to_string()) && name.ends_with(".ack"))
    }

    /// The one decision on a task, judged as its node judges it.
    pub(crate) fn decided(&self, parked: &Parked) -> Decision {
        let [name] = <[String; 1]>::try_from(self.decisions()).unwrap();
        let stem = name.strip_suffix(".ack").unwrap();
        let (id, key16) = stem.rsplit_once('.').unwrap();
        assert_eq!(id, parked.id.to_string());
        let dir = self.share().join(parked.lane.to_string()).join("pending-ack");
        let bytes = fs::read(dir.join(&name)).unwrap();
        let me = Me { cluster: canonical_uuid(CLUSTER).unwrap(), node: &parked.lane.to, now: clock::now() };
        let approvers = Approvers::parse(&fs::read_to_string(self.path("config/approvers")).unwrap());
        let waiting =
            Waiting::Waits { task_sha256: parked.task_sha256, terms_sha256: Some(parked.terms_sha256) };
        let place = Place { lane: &parked.lane, id: parked.id };
        match accept_decision(&bytes, place, key16, &me, &approvers, waiting) {
            Verdict::Accepted(decision) => decision.into_parts().0,
            Verdict::Refused(refusal) => panic!("the node would refuse it: {refusal:?}"),
        }
    }
}

fn terms(task: &Task, task_sha256: Digest) -> Terms {
    Terms {
        cluster: task.cluster,
        from: task.from.clone(),
        to: task.to.clone(),
        task: task.id,
        task_sha256,
        profile: Name::new("default").unwrap(),
        agent: "claude".into(),
        argv_sha256: Digest::of(b"argv"),
        permission_mode: Some("acceptEdits".into()),
        workspace_path: None,
        backend: Some("local".into()),
        estimate_usd: Some(Usd::from_wire("0.5").unwrap()),
        ceiling_usd: Some(Usd::from_wire("2").unwrap()),
        gate: vec!["require_ack".into()],
        made: task.created,
    }
}

fn pair_text(peer: &str) -> String {
    peer.repeat(64)
}

fn private(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// The names in a directory.
pub(crate) fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Waits until something is there.
pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "never: {what}");
        std::thread::yield_now();
    }
}

/// A command that runs.
pub(crate) struct Running(Child);

impl Running {
    pub(crate) fn wait(self) -> Ended {
        Ended::of(&self.0.wait_with_output().unwrap())
    }
}

/// A command that ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ended {
    fn of(output: &Output) -> Ended {
        Ended {
            code: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout.clone()).unwrap(),
            err: String::from_utf8(output.stderr.clone()).unwrap(),
        }
    }

    /// Asserts how it ended.
    #[track_caller]
    pub(crate) fn code(self, code: i32) -> Ended {
        assert_eq!(self.code, code, "{self:?}");
        self
    }
}

/// A command on a terminal.
pub(crate) struct Terminal {
    child: Child,
    keyboard: ChildStdin,
    screen: Receiver<Vec<u8>>,
    shown: String,
}

impl Terminal {
    fn start(mut command: Command) -> Terminal {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let keyboard = child.stdin.take().unwrap();
        let mut output = child.stdout.take().unwrap();
        let (send, screen) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0_u8; 4096];
            while let Ok(count @ 1..) = output.read(&mut buffer) {
                if send.send(buffer[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
        Terminal { child, keyboard, screen, shown: String::new() }
    }

    /// Waits until the screen shows this, then types a line.
    pub(crate) fn answer(&mut self, prompt: &str, line: &str) {
        while !self.shown.contains(prompt) {
            let bytes = self.screen.recv_timeout(DEADLINE);
            let bytes = bytes.unwrap_or_else(|_| panic!("no `{prompt}` in {}", self.shown));
            self.shown.push_str(&String::from_utf8_lossy(&bytes));
        }
        writeln!(self.keyboard, "{line}").unwrap();
    }

    /// How it ended, and all that it showed.
    pub(crate) fn end(mut self) -> (i32, String) {
        while let Ok(bytes) = self.screen.recv_timeout(DEADLINE) {
            self.shown.push_str(&String::from_utf8_lossy(&bytes));
        }
        (self.child.wait().unwrap().code().unwrap(), self.shown)
    }
}
