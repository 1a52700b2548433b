//! Hand-made job directories and the real executor over them.
#![expect(dead_code, reason = "each test binary uses its part of the lab")]
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "what fails here fails the test")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use dispatch_core::policy::admission::Billing;
use dispatch_core::protocol::names::{Digest, Name, NodeName, TaskId};
use dispatch_core::protocol::time::Timestamp;
use dispatch_node::config::{Config, Environment};
use dispatch_node::job::{
    AgentKind, JobDir, KillswitchPlaces, Metering, Order, Outcome, OutcomeStatus, Stop, StopWhy,
};
use dispatch_node::tree::{Scope, Tree};
use dispatch_testkit::eventually;

pub(crate) const ID: &str = "01a1f89c-fb83-734b-96bb-78a1dacaf1ff";
const CLUSTER: &str = "123e4567-e89b-12d3-a456-426614174000";

/// A share, a state directory, and the mark of this lab's attempts.
pub(crate) struct Lab {
    dir: tempfile::TempDir,
    pub(crate) mark: String,
}

impl Lab {
    pub(crate) fn new() -> Lab {
        let dir = tempfile::tempdir().unwrap();
        let lab = Lab { mark: Digest::of(dir.path().as_os_str().as_encoded_bytes()).hex16(), dir };
        fs::create_dir_all(lab.lane().join("done")).unwrap();
        fs::create_dir(lab.state()).unwrap();
        fs::write(lab.root().join("CLUSTER"), format!("{CLUSTER}\n")).unwrap();
        lab
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().join("share")
    }

    pub(crate) fn lane(&self) -> PathBuf {
        self.root().join("devbox-to-gpubox")
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// A path for agents to write to.
    pub(crate) fn scratch(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn mirror(&self) -> PathBuf {
        self.lane().join("done").join(format!("{ID}.log"))
    }

    /// An order for a shell script.
    pub(crate) fn order(&self, script: &str) -> Order {
        self.order_of(&["/bin/sh", "-c", script])
    }

    pub(crate) fn order_of(&self, argv: &[&str]) -> Order {
        Order {
            node: NodeName::new("gpubox").unwrap(),
            from: NodeName::new("devbox").unwrap(),
            task: TaskId::parse(ID).unwrap(),
            task_sha256: Digest::of(b"task"),
            attempt: 1,
            epoch: 7,
            mark: self.mark.clone(),
            token: None,
            profile: Name::new("shell").unwrap(),
            kind: AgentKind::Command,
            argv: argv.iter().map(|&word| word.to_owned()).collect(),
            env: Vec::new(),
            secrets: vec![],
            set: BTreeMap::new(),
            cwd: None,
            permission_mode: None,
            timeout_s: 600,
            silence_timeout_s: 0,
            tool_timeout_s: 1_800,
            max_output_bytes: 2_000_000,
            ceiling_usd: None,
            billing: Billing::Free,
            metering: None,
            cluster: CLUSTER.parse().unwrap(),
            killswitch: KillswitchPlaces { root: self.root(), lane: self.lane(), state: self.state() },
        }
    }

    pub(crate) fn job(&self, order: &Order) -> JobDir {
        JobDir::create(&self.state(), order, b"the request\n").unwrap()
    }

    /// Runs an order to its outcome.
    pub(crate) fn run(&self, order: &Order) -> Outcome {
        let job = self.job(order);
        Running::start(&job).outcome()
    }

    /// What is alive of this lab's attempts.
    pub(crate) fn alive(&self) -> usize {
        Tree::new(&self.mark, Scope::Marked).look().unwrap().len()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let ended = Tree::new(&self.mark, Scope::Marked).kill(Duration::from_secs(5));
        assert_eq!(ended.map(|ended| ended.descendants_left).ok(), Some(0));
    }
}

/// Metering at the prices that come with the release, one request at a time.
pub(crate) fn metering() -> Metering {
    let text = format!("root = \"/s\"\nnode = \"a\"\nstate = \"/v\"\ncluster = \"{CLUSTER}\"\n");
    let config = Config::check(Path::new("/d"), &text, &Environment::empty()).unwrap();
    Metering {
        soft_ratio: config.budget.soft_ratio,
        models: vec!["claude-opus-5-5".to_owned()],
        output_tokens_max: 32_000,
        parallel_requests: 1,
        prices: Metering::prices_of(config.prices.table()),
    }
}

/// The command for a job directory.
pub(crate) fn command(job: &JobDir) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dispatch-exec"));
    command.arg("--job").arg(job.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// A running executor, ended with the test.
pub(crate) struct Running {
    pub(crate) child: Child,
    pub(crate) job: JobDir,
}

impl Running {
    pub(crate) fn start(job: &JobDir) -> Running {
        Running::of(command(job), job)
    }

    pub(crate) fn of(mut command: Command, job: &JobDir) -> Running {
        Running { child: command.spawn().unwrap(), job: job.clone() }
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    /// Its exit code, once it has ended.
    pub(crate) fn code(&mut self) -> Option<i32> {
        let status = eventually("the executor ends", || self.child.try_wait().unwrap());
        status.code()
    }

    pub(crate) fn outcome(mut self) -> Outcome {
        assert_eq!(self.code(), Some(0));
        self.job.read_outcome().unwrap().expect("an executor that ends well leaves an outcome")
    }

    /// The outcome, and that it was there within `limit`.
    pub(crate) fn outcome_within(self, limit: Duration) -> Outcome {
        let start = Instant::now();
        let outcome = self.outcome();
        assert!(start.elapsed() <= limit, "{:?} is longer than {limit:?}", start.elapsed());
        outcome
    }

    pub(crate) fn stop(&self, why: StopWhy) {
        let at = Timestamp::from_unix_ms(0);
        self.job.write_stop(&Stop { why, at }).unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Waits for a file that an agent writes and answers what is in it.
pub(crate) fn written(path: &Path) -> String {
    eventually(&format!("{} is written", path.display()), || {
        fs::read_to_string(path).ok().filter(|text| text.ends_with('\n'))
    })
}

/// A script whose grandchild has a session of its own, holds the pipes, ignores what it can ignore, and says who it is.
pub(crate) fn stubborn_grandchild(pids: &Path, then: &str) -> String {
    format!(
        "setsid sh -c 'trap \"\" TERM INT HUP; echo $$ >> {0}; while :; do sleep 1; done' & \
         while ! [ -s {0} ]; do :; done; {then}",
        pids.display()
    )
}

/// The processes that wrote themselves into a file.
pub(crate) fn pids(path: &Path) -> Vec<i32> {
    written(path).lines().map(|line| line.parse().unwrap()).collect()
}

pub(crate) fn reason(outcome: &Outcome) -> &str {
    outcome.reason.as_ref().map_or("", |reason| reason.code.as_str())
}

pub(crate) fn ended(outcome: &Outcome) -> (OutcomeStatus, &str) {
    (outcome.status, reason(outcome))
}
