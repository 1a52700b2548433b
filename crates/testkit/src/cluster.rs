//! Nodes that share a directory: made by the real `init`, driven by the real commands, ended with the test.

use std::fs::{self, File, OpenOptions};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::fs::OFlags;
use serde_json::Value;

use crate::bins::Bins;
use crate::mail::{self, Opened, Pair};
use crate::process::{self, Ended};
use crate::runs::Runs;
use crate::wait;
use crate::wall::Wall;

/// A temporary directory with a share and a home for every node.
#[derive(Debug)]
pub struct Cluster {
    dir: tempfile::TempDir,
    /// The commands in use.
    pub bins: Bins,
    /// What the scripted agents did.
    pub runs: Runs,
    /// The nodes, `a` first.
    pub nodes: Vec<Node>,
}

/// One node: a home directory of its own, where configuration and state lie at their default places.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its home directory.
    pub home: PathBuf,
    share: PathBuf,
    bins: Bins,
    wall: Option<Wall>,
}

impl Cluster {
    /// Two nodes, `a` and `b`, set up by `dispatchctl init` and `init --join`. No watcher runs yet.
    ///
    /// # Panics
    /// When the nodes cannot be set up.
    #[must_use]
    pub fn new(bins: &Bins) -> Self {
        let cluster = Self::bare(bins, &["a", "b"]);
        let [a, b] = cluster.nodes.as_slice() else { panic!("two nodes") };
        a.ctl(["init", "--root", &a.share_arg(), "--node", "a", "--peer", "b"]).ok();
        let join = find(&a.home, &|name| name.contains("join")).expect("init writes a join file");
        b.ctl(["init", "--join", &join.display().to_string(), "--root", &b.share_arg()]).ok();
        cluster
    }

    /// The node `hub` with the peers `others`, which do not know each other, set up by `dispatchctl init` and
    /// `init --join`. The hub is the first of `nodes`. No watcher runs yet.
    ///
    /// # Panics
    /// When the nodes cannot be set up.
    #[must_use]
    pub fn star(bins: &Bins, hub: &str, others: &[&str]) -> Self {
        let cluster = Self::bare(bins, &[&[hub], others].concat());
        for peer in &cluster.nodes[1..] {
            let hub_node = cluster.a();
            hub_node.ctl(["init", "--root", &hub_node.share_arg(), "--node", hub, "--peer", &peer.name]).ok();
            let file = find(&hub_node.home, &|name| name.contains("join") && name.ends_with(".json"));
            let moved = cluster.outside().join(format!("join-{}.json", peer.name));
            fs::rename(file.expect("init writes a join file"), &moved).unwrap();
            peer.ctl(["init", "--join", &moved.display().to_string(), "--root", &peer.share_arg()]).ok();
        }
        cluster
    }

    /// The directories of the nodes `names`, none of them set up.
    ///
    /// # Panics
    /// When the directories cannot be made.
    #[must_use]
    pub fn bare(bins: &Bins, names: &[&str]) -> Self {
        let dir = tempfile::Builder::new().prefix("dispatch-").tempdir().unwrap();
        let share = dir.path().join("share");
        fs::create_dir(&share).unwrap();
        fs::create_dir(dir.path().join("outside")).unwrap();
        let nodes = names.iter().map(|name| {
            let home = dir.path().join(format!("home-{name}"));
            fs::create_dir(&home).unwrap();
            Node { name: (*name).to_owned(), home, share: share.clone(), bins: bins.clone(), wall: None }
        });
        let nodes = nodes.collect();
        let runs = Runs::in_dir(dir.path());
        Self { dir, bins: bins.clone(), runs, nodes }
    }

    /// The first node; of two, the one that mostly sends.
    #[must_use]
    pub fn a(&self) -> &Node {
        &self.nodes[0]
    }

    /// The node that mostly runs.
    #[must_use]
    pub fn b(&self) -> &Node {
        &self.nodes[1]
    }

    /// The shared directory.
    #[must_use]
    pub fn share(&self) -> PathBuf {
        self.dir.path().join("share")
    }

    /// A directory that is on no share and of no node.
    #[must_use]
    pub fn outside(&self) -> PathBuf {
        self.dir.path().join("outside")
    }

    /// The lane `from`-to-`to`.
    #[must_use]
    pub fn lane(&self, from: &str, to: &str) -> PathBuf {
        self.share().join(format!("{from}-to-{to}"))
    }

    /// The result of `id` in the lane's `done/`, verified with the lane's key; none while there is none that verifies.
    #[must_use]
    pub fn result(&self, from: &str, to: &str, id: &str) -> Option<Value> {
        let opened = self.opened(from, to, &format!("done/{id}.result.json"))?;
        (opened.verified && opened.kind == "result.v3").then_some(opened.value)
    }

    /// Waits for the result of `id` and yields it.
    ///
    /// # Panics
    /// When there is none in time.
    #[must_use]
    #[track_caller]
    pub fn answer(&self, from: &str, to: &str, id: &str) -> Value {
        wait::eventually(&format!("a result for {id}"), || self.result(from, to, id))
    }

    /// Waits for the result of `id` in lane a-to-b and asserts its status.
    ///
    /// # Panics
    /// When there is none in time, or it has another status.
    #[track_caller]
    pub fn answered(&self, id: &str, status: &str) -> Value {
        let result = self.answer("a", "b", id);
        assert_eq!(result["status"], status, "{result:#}");
        result
    }

    /// The envelope at `file` below the lane, taken apart.
    #[must_use]
    pub fn opened(&self, from: &str, to: &str, file: &str) -> Option<Opened> {
        let bytes = read_regular(&self.lane(from, to).join(file))?;
        mail::open(&bytes, &self.pair(from, to).lane(from, to))
    }

    /// The lines of the node's audit chain, as the share's copy has them.
    #[must_use]
    pub fn audit(&self, node: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.share().join(format!("logs/{node}.jsonl"))).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Whether the node's audit chain holds an entry with `code`.
    #[must_use]
    pub fn audited(&self, node: &str, code: &str) -> bool {
        self.audit(node)
            .iter()
            .any(|entry| entry["code"] == code || entry["data"]["code"] == code || entry["kind"] == code)
    }

    /// The pair key of two nodes, read where one of them keeps it.
    ///
    /// # Panics
    /// When neither has one for the other.
    #[must_use]
    pub fn pair(&self, one: &str, other: &str) -> Pair {
        let key = |holder: &str, peer: &str| {
            let node = self.nodes.iter().find(|node| node.name == holder)?;
            fs::read_to_string(node.config_dir().join("keys").join(format!("{peer}.key"))).ok()
        };
        Pair(key(one, other).or_else(|| key(other, one)).expect("a pair key"))
    }

    /// What this scenario's processes have in their environment or on their command line.
    #[must_use]
    pub fn needle(&self) -> String {
        self.dir.path().display().to_string()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Executors outlive their watcher by design, so the test ends what it started here; a second look finds what
        // was being born in the first.
        let needle = self.needle();
        for _ in 0..3 {
            let left = process::holding(&needle);
            if left.is_empty() {
                break;
            }
            left.into_iter().for_each(process::kill);
        }
        if std::thread::panicking() || std::env::var_os("TESTKIT_KEEP").is_some() {
            for node in &self.nodes {
                if let Ok(log) = fs::read_to_string(node.log()) {
                    eprintln!("--- watcher of {}\n{log}", node.name);
                }
            }
        }
        if std::env::var_os("TESTKIT_KEEP").is_some() {
            self.dir.disable_cleanup(true);
            eprintln!("kept: {}", self.dir.path().display());
        }
    }
}

impl Node {
    /// The same node with other commands: a wrapper in place of one of them.
    #[must_use]
    pub fn with_bins(&self, bins: &Bins) -> Self {
        Self { bins: bins.clone(), ..self.clone() }
    }

    /// The same node on a machine whose wall clock is `wall`.
    #[must_use]
    pub fn with_wall(&self, wall: &Wall) -> Self {
        Self { wall: Some(wall.clone()), ..self.clone() }
    }

    /// The same node from another home directory: a copy of its configuration and state, say.
    #[must_use]
    pub fn at_home(&self, home: &Path) -> Self {
        Self { home: home.to_path_buf(), ..self.clone() }
    }

    /// Where its configuration lies.
    #[must_use]
    pub fn config_dir(&self) -> PathBuf {
        self.home.join(".config/dispatch")
    }

    /// Its configuration file.
    #[must_use]
    pub fn config_file(&self) -> PathBuf {
        self.config_dir().join("dispatch.toml")
    }

    /// Its state directory.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        self.home.join(".local/state/dispatch").join(&self.name)
    }

    /// What its watchers wrote on standard error.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.home.join("watch.log")
    }

    fn share_arg(&self) -> String {
        self.share.display().to_string()
    }

    /// Overlays `toml` on its configuration: a key that is there is replaced, any other added.
    ///
    /// # Panics
    /// When either is not TOML.
    pub fn configure(&self, toml: &str) {
        let text = fs::read_to_string(self.config_file()).unwrap();
        let mut all: toml::Table = text.parse().unwrap();
        overlay(&mut all, toml.parse().unwrap());
        fs::write(self.config_file(), toml::to_string(&all).unwrap()).unwrap();
    }

    /// Sets the safeguards so wide that nothing but caps stops paid work.
    ///
    /// # Panics
    /// When its configuration cannot be written.
    pub fn only_caps(&self) {
        self.configure(
            "[safeguards]\nwarning_ratio = \"1\"\nbaseline_usd = \"1000000\"\nfailure_threshold = 0\n\
             spend_per_hour_usd = \"1000000\"\ntasks_per_hour = 1000000\nidentical_requests = 1000000\n",
        );
    }

    /// Takes the peer `name` out of its configuration.
    ///
    /// # Panics
    /// When its configuration is not TOML.
    pub fn forget_peer(&self, name: &str) {
        let text = fs::read_to_string(self.config_file()).unwrap();
        let mut all: toml::Table = text.parse().unwrap();
        if let Some(toml::Value::Table(peers)) = all.get_mut("peer") {
            peers.remove(name);
        }
        fs::write(self.config_file(), toml::to_string(&all).unwrap()).unwrap();
    }

    /// A command of this node, ready to be started: a clean environment with this node's home.
    #[must_use]
    pub fn command(&self, name: &str) -> Command {
        self.prefixed(&[], name)
    }

    /// As [`Node::command`], started by the words `before` (a tracer).
    #[must_use]
    pub fn prefixed(&self, before: &[String], name: &str) -> Command {
        let mut command = match before {
            [] => Command::new(self.bins.path(name)),
            [program, rest @ ..] => {
                let mut command = Command::new(program);
                command.args(rest).arg(self.bins.path(name));
                command
            }
        };
        command
            .env_clear()
            .current_dir(&self.home)
            .env("HOME", &self.home)
            .env("USER", "tester")
            .env("LANG", "C.UTF-8");
        command.env("PATH", std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into()));
        command.envs(self.wall.iter().flat_map(Wall::environment));
        if let Some(trace) = std::env::var_os("RUST_BACKTRACE") {
            command.env("RUST_BACKTRACE", trace);
        }
        command
    }

    /// Runs a command of this node to its end.
    #[must_use]
    pub fn run<W: AsRef<std::ffi::OsStr>>(&self, name: &str, words: impl IntoIterator<Item = W>) -> Ended {
        self.run_with(name, words, b"")
    }

    /// As [`Node::run`], with `input` on its standard input.
    #[must_use]
    pub fn run_with<W: AsRef<std::ffi::OsStr>>(
        &self,
        name: &str,
        words: impl IntoIterator<Item = W>,
        input: &[u8],
    ) -> Ended {
        let mut command = self.command(name);
        command.args(words);
        Ended::of(command, input)
    }

    /// Runs `dispatchctl` to its end.
    #[must_use]
    pub fn ctl<W: AsRef<std::ffi::OsStr>>(&self, words: impl IntoIterator<Item = W>) -> Ended {
        self.run("dispatchctl", words)
    }

    /// Sends `request` to `to` with the options `words` and yields the task's id.
    ///
    /// # Panics
    /// When it is not sent.
    #[track_caller]
    pub fn send(&self, to: &str, request: &str, words: &[&str]) -> String {
        let sent = self.try_send(to, request, words).ok();
        sent.out.split('\t').next().unwrap_or_default().trim().to_owned()
    }

    /// As [`Node::send`], yielding how the command ended.
    #[must_use]
    pub fn try_send(&self, to: &str, request: &str, words: &[&str]) -> Ended {
        let mut all = vec!["--to", to, "-"];
        all.extend(words);
        self.run_with("dispatch-send", all, request.as_bytes())
    }

    /// Starts its watcher and waits until it says that it is ready.
    ///
    /// # Panics
    /// When it ends, or is not ready in time.
    #[must_use]
    #[track_caller]
    pub fn watch(&self) -> Watcher {
        self.watch_with(&[], &[])
    }

    /// As [`Node::watch`], started by the words `before` with the options `words`.
    ///
    /// # Panics
    /// As [`Node::watch`].
    #[must_use]
    #[track_caller]
    pub fn watch_with(&self, before: &[String], words: &[&str]) -> Watcher {
        let mut watcher = self.start_watch(before, words);
        watcher.wait_ready();
        watcher
    }

    /// Starts its watcher and does not wait.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start_watch(&self, before: &[String], words: &[&str]) -> Watcher {
        let mut command = self.prefixed(before, "dispatch-watch");
        command.args(words);
        if std::env::var_os("TESTKIT_VERBOSE").is_some() {
            command.arg("-vv");
        }
        let ready = tempfile::Builder::new().prefix("dw-").tempdir().unwrap();
        let socket = UnixDatagram::bind(ready.path().join("n")).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        command.env("NOTIFY_SOCKET", ready.path().join("n"));
        let log = OpenOptions::new().create(true).append(true).open(self.log()).unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::from(log.try_clone().unwrap())).stderr(Stdio::from(log));
        let child = command.spawn().unwrap_or_else(|why| panic!("cannot start the watcher: {why}"));
        Watcher { child, socket, ready, ready_seen: false, log: self.log() }
    }

    /// Runs one pass of its watcher to the end.
    #[must_use]
    pub fn once(&self, words: &[&str]) -> Ended {
        let mut all = vec!["--once"];
        all.extend(words);
        self.run("dispatch-watch", all)
    }

    /// The job directories of the task `id` from `from`, oldest lease first.
    #[must_use]
    pub fn jobs(&self, from: &str, id: &str) -> Vec<PathBuf> {
        let mut jobs = list(&self.state_dir().join("jobs").join(from).join(id));
        jobs.sort_by_key(|path| name_of(path).parse::<u64>().unwrap_or(0));
        jobs
    }

    /// The pids of this node's processes whose program is `command`.
    #[must_use]
    pub fn pids(&self, command: &str) -> Vec<i32> {
        let home = self.home.display().to_string();
        let end = format!("/{command}");
        let mut pids = process::holding(&home);
        pids.retain(|pid| {
            let line = process::command_line(*pid);
            line.split(' ').next().is_some_and(|program| program.ends_with(&end) || program == command)
        });
        pids
    }

    /// A new OpenSSH key whose holder may decide on this node's tasks under the name `who`; yields the private key.
    ///
    /// # Panics
    /// When `ssh-keygen` is missing or the file cannot be written.
    #[must_use]
    pub fn approver(&self, who: &str) -> PathBuf {
        let key = ssh_key(&self.home, who);
        let public = fs::read_to_string(key.with_extension("pub")).unwrap();
        let words: Vec<&str> = public.split_whitespace().collect();
        let line = format!("{who} namespaces=\"dispatch-decision\" {} {}\n", words[0], words[1]);
        let file = self.config_dir().join("approvers");
        let text = fs::read_to_string(&file).unwrap_or_default() + &line;
        fs::write(&file, text).unwrap();
        self.configure("[approve]\nallowed_signers = \"approvers\"");
        key
    }
}

/// A new ed25519 key `<dir>/<name>`, without a passphrase.
///
/// # Panics
/// When `ssh-keygen` is missing.
#[must_use]
pub fn ssh_key(dir: &Path, name: &str) -> PathBuf {
    let key = dir.join(format!("ssh-{name}"));
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-t", "ed25519", "-N", "", "-C", name, "-f"]).arg(&key);
    drop(Ended::of(command, b"").ok());
    key
}

/// A watcher that was started.
#[derive(Debug)]
pub struct Watcher {
    child: Child,
    socket: UnixDatagram,
    #[expect(dead_code, reason = "the socket's directory lives as long as the watcher")]
    ready: tempfile::TempDir,
    ready_seen: bool,
    log: PathBuf,
}

impl Watcher {
    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap_or(0)
    }

    /// Waits until it says that it is ready.
    ///
    /// # Panics
    /// When it ends first, or takes too long.
    #[track_caller]
    pub fn wait_ready(&mut self) {
        let log = self.log.clone();
        let state = wait::try_within(wait::DEADLINE, || {
            if self.is_ready() {
                return Some(None);
            }
            self.ended().map(Some)
        });
        match state {
            Some(None) => {}
            other => panic!(
                "the watcher is not ready ({other:?}):\n{}",
                fs::read_to_string(log).unwrap_or_default()
            ),
        }
    }

    /// Whether it has said that it is ready.
    pub fn is_ready(&mut self) -> bool {
        let mut message = [0_u8; 4096];
        while !self.ready_seen {
            let Ok(length) = self.socket.recv(&mut message) else { break };
            self.ready_seen =
                String::from_utf8_lossy(&message[..length]).lines().any(|line| line == "READY=1");
        }
        self.ready_seen
    }

    /// Its exit code (128 + signal), once it has ended.
    pub fn ended(&mut self) -> Option<i32> {
        self.child.try_wait().unwrap().map(process::code_of)
    }

    /// Waits for its end and yields the exit code.
    ///
    /// # Panics
    /// When it goes on.
    #[track_caller]
    pub fn wait(&mut self) -> i32 {
        wait::eventually("the watcher ends", || self.ended())
    }

    /// Kills it, as a crash would.
    ///
    /// # Panics
    /// When it cannot be waited for.
    pub fn crash(mut self) {
        self.kill();
    }

    /// Asks it to end (SIGTERM) and yields the exit code.
    ///
    /// # Panics
    /// When it goes on.
    #[track_caller]
    pub fn stop(mut self) -> i32 {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.wait()
    }

    fn kill(&mut self) {
        // Gone already is what was wanted.
        drop(self.child.kill());
        self.child.wait().unwrap();
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The bytes of a regular file; none for anything else at that name, which is not waited for (a pipe).
#[must_use]
pub fn read_regular(path: &Path) -> Option<Vec<u8>> {
    use std::io::Read as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let flags = (OFlags::NONBLOCK | OFlags::NOFOLLOW).bits().cast_signed();
    let mut file = OpenOptions::new().read(true).custom_flags(flags).open(path).ok()?;
    let regular = file.metadata().ok()?.is_file();
    let mut bytes = Vec::new();
    (regular && file.read_to_end(&mut bytes).is_ok()).then_some(bytes)
}

/// What lies in `dir`, sorted by name; nothing when it is not there.
#[must_use]
pub fn list(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    paths
}

/// The names in `dir`, sorted.
#[must_use]
pub fn names(dir: &Path) -> Vec<String> {
    list(dir).iter().map(|path| name_of(path)).collect()
}

/// The last part of `path`.
#[must_use]
pub fn name_of(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The first file below `dir` whose name `fits`.
#[must_use]
pub fn find(dir: &Path, fits: &dyn Fn(&str) -> bool) -> Option<PathBuf> {
    list(dir).into_iter().find_map(|path| {
        if path.is_dir() && !path.is_symlink() {
            find(&path, fits)
        } else {
            fits(&name_of(&path)).then_some(path)
        }
    })
}

/// Copies a directory with everything in it.
///
/// # Panics
/// When it cannot be copied.
pub fn copy_tree(from: &Path, to: &Path) {
    let mut command = Command::new("cp");
    command.arg("-a").arg(from).arg(to);
    drop(Ended::of(command, b"").ok());
}

/// A file of `length` bytes that takes no room.
///
/// # Panics
/// When it cannot be made.
pub fn sparse(path: &Path, length: u64) {
    File::create(path).unwrap().set_len(length).unwrap();
}

fn overlay(base: &mut toml::Table, over: toml::Table) {
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (Some(toml::Value::Table(base)), toml::Value::Table(over)) => overlay(base, over),
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}
