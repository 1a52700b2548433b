//! One run of the program that tells a person something: started, waited for, ended with all it started.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{self, Seek as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use dispatch_node::job::passed_on;
use dispatch_node::tree::{MARK_VARIABLE, Scope, Tree};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::MemfdFlags;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

/// How long the program and all it starts may take.
pub(crate) const TIME_MAX: Duration = Duration::from_secs(10);
/// How long looking for what left its process group may take.
const SWEEP_MAX: Duration = Duration::from_secs(1);
/// Where programs are looked for when the watcher has no `PATH`.
const PATH_DEFAULT: &str = "/usr/local/bin:/usr/bin:/bin";
/// Variables of the watcher that the program gets: a minimum, and where a desktop session is. Nothing in them is secret.
const PASSED: [&str; 9] = [
    "HOME",
    "USER",
    "LANG",
    "TMPDIR",
    "XDG_CONFIG_HOME",
    "XDG_RUNTIME_DIR",
    "DBUS_SESSION_BUS_ADDRESS",
    "DISPLAY",
    "WAYLAND_DISPLAY",
];

/// The process group of a run, while it can be signalled: its leader is not reaped before this is empty.
pub(crate) type Group = Arc<Mutex<Option<Pid>>>;

/// What is to be run.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) argv: Vec<String>,
    /// Names of further variables of the watcher.
    pub(crate) env: Vec<String>,
    /// Variables with these values.
    pub(crate) set: BTreeMap<String, String>,
    pub(crate) node: String,
    pub(crate) document: String,
    pub(crate) mark: String,
}

/// What became of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Came {
    /// It exited with 0.
    Well,
    /// It exited with another code.
    Exit(i32),
    /// A signal ended it.
    Signal(i32),
    /// It took too long and was killed.
    TookTooLong,
    /// The watcher left while it ran, and killed it.
    Stopped,
    /// It could not be started.
    CannotStart(io::ErrorKind),
}

impl fmt::Display for Came {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Came::Well => f.write_str("it exited with 0"),
            Came::Exit(code) => write!(f, "it exited with {code}"),
            Came::Signal(signal) => write!(f, "signal {signal} ended it"),
            Came::TookTooLong => write!(f, "it took longer than {} s and was killed", TIME_MAX.as_secs()),
            Came::Stopped => f.write_str("the watcher left while it ran, and killed it"),
            Came::CannotStart(kind) => write!(f, "it cannot be started: {kind}"),
        }
    }
}

impl Run {
    /// Runs it to its end, and ends whatever it leaves behind.
    pub(crate) fn to_end(&self, group: &Group) -> Came {
        let mut child = match self.start() {
            Ok(child) => child,
            Err(error) => return Came::CannotStart(error.kind()),
        };
        let leader = Pid::from_child(&child);
        *group.lock().unwrap_or_else(PoisonError::into_inner) = Some(leader);
        let waited = wait_until_dead(leader, Some(TIME_MAX));
        // Its leader is not reaped yet, so the group's number is nobody else's.
        kill_group(group);
        let ended = reap(&mut child, group);
        // What made a session of its own is in no group of ours; it still carries the mark.
        drop(Tree::new(&self.mark, Scope::Marked).kill(SWEEP_MAX));
        match (waited, ended) {
            (Waited::Over, _) => Came::TookTooLong,
            (Waited::Dead, Ok(status)) => came(status),
            (Waited::Dead, Err(error)) => Came::CannotStart(error.kind()),
        }
    }

    fn start(&self) -> io::Result<Child> {
        let none = || io::Error::from(io::ErrorKind::InvalidInput);
        let (program, args) = self.argv.split_first().ok_or_else(none)?;
        Command::new(program)
            .args(args)
            .env_clear()
            .envs(self.environment(passed_on))
            .current_dir("/")
            .stdin(self.stdin()?)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
    }

    /// A file that is read from its beginning, not a pipe: whether the program reads it or not, nobody waits.
    fn stdin(&self) -> io::Result<File> {
        let mut file = File::from(rustix::fs::memfd_create("notify", MemfdFlags::CLOEXEC)?);
        file.write_all(self.document.as_bytes())?;
        file.write_all(b"\n")?;
        file.rewind()?;
        Ok(file)
    }

    fn environment(&self, own: impl Fn(&str) -> Option<OsString>) -> BTreeMap<OsString, OsString> {
        let mut environment: BTreeMap<OsString, OsString> = BTreeMap::new();
        for name in PASSED.into_iter().chain(self.env.iter().map(String::as_str)) {
            environment.extend(own(name).map(|value| (name.into(), value)));
        }
        environment.insert("PATH".into(), own("PATH").unwrap_or_else(|| PATH_DEFAULT.into()));
        for (name, value) in &self.set {
            environment.insert(name.into(), value.into());
        }
        environment.insert("DISPATCH_NODE".into(), self.node.clone().into());
        environment.insert(MARK_VARIABLE.into(), self.mark.clone().into());
        environment
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Waited {
    /// The leader is dead.
    Dead,
    /// The time is over.
    Over,
}

/// Waits for the leader's death, without reaping it; for ever where no limit is given.
fn wait_until_dead(leader: Pid, limit: Option<Duration>) -> Waited {
    let Ok(handle) = pidfd_open(leader, PidfdFlags::empty()) else { return Waited::Over };
    let until = limit.and_then(|limit| Instant::now().checked_add(limit));
    loop {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        let mut fds = [PollFd::from_borrowed_fd(handle.as_fd(), PollFlags::IN)];
        match poll(&mut fds, timeout.as_ref()) {
            Ok(0) => return Waited::Over,
            Ok(_) => return Waited::Dead,
            Err(Errno::INTR) => {}
            Err(_) => return Waited::Over,
        }
    }
}

/// Kills a group that is still there.
pub(crate) fn kill_group(group: &Group) {
    let held = group.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(leader) = *held {
        // Gone already is what is wanted.
        let _killed = kill_process_group(leader, Signal::KILL);
    }
}

fn reap(child: &mut Child, group: &Group) -> io::Result<ExitStatus> {
    // One that hangs in the kernel dies late. It is waited for without the lock, which the watcher takes when it leaves.
    let _dead = wait_until_dead(Pid::from_child(child), None);
    let mut held = group.lock().unwrap_or_else(PoisonError::into_inner);
    let ended = child.wait();
    *held = None;
    ended
}

fn came(status: ExitStatus) -> Came {
    match (status.code(), status.signal()) {
        (Some(0), _) => Came::Well,
        (Some(code), _) => Came::Exit(code),
        (None, Some(signal)) => Came::Signal(signal),
        (None, None) => Came::Signal(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(script: &str) -> Came {
        let run = Run {
            argv: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            env: Vec::new(),
            set: BTreeMap::new(),
            node: "a".to_owned(),
            document: "{\"schema\":1}".to_owned(),
            mark: format!("notify-test-{}-{}", std::process::id(), script.len()),
        };
        run.to_end(&Group::default())
    }

    #[test]
    fn what_became_of_a_program_is_told_apart() {
        assert_eq!(run("read line; [ \"$line\" = '{\"schema\":1}' ]"), Came::Well);
        assert_eq!(run("exec <&-; exit 1"), Came::Exit(1));
        assert_eq!(run("kill -9 $$"), Came::Signal(9));
    }

    #[test]
    fn only_a_minimum_of_the_environment_is_passed_on() {
        let run = Run {
            argv: Vec::new(),
            env: vec!["WANTED".to_owned()],
            set: BTreeMap::from([("SAID".to_owned(), "so".to_owned())]),
            node: "a".to_owned(),
            document: String::new(),
            mark: "m".to_owned(),
        };
        let own = |name: &str| (name != "PATH").then(|| OsString::from(name));
        let environment = run.environment(own);
        let names: Vec<_> = environment.keys().filter_map(|name| name.to_str()).collect();
        for name in ["HOME", "WANTED", "SAID", "DISPATCH_NODE", "DISPATCH_MARK", "PATH"] {
            assert!(names.contains(&name), "{name}");
        }
        assert!(!names.contains(&"ANTHROPIC_API_KEY"));
        assert_eq!(environment[std::ffi::OsStr::new("PATH")], PATH_DEFAULT);
    }

    #[test]
    fn what_a_program_leaves_in_its_group_and_beyond_is_ended() {
        let dir = tempfile::tempdir().unwrap();
        let pids = dir.path().join("pids");
        let at = pids.display();
        let script = format!("sleep 1000 & echo $! >>{at}; setsid sleep 1000 & echo $! >>{at}; exit 0");
        assert_eq!(run(&script), Came::Well);
        for pid in std::fs::read_to_string(&pids).unwrap().lines() {
            let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let alive = !state.is_empty() && !state.contains(") Z ");
            assert!(!alive, "{pid} lives: {state}");
        }
    }
}
