//! Starting the agent.

use std::fs::{DirBuilder, File};
use std::io::{self, Seek as _, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{ChildStderr, ChildStdout, Command, Stdio};

use dispatch_node::ids::NoRandomness;
use dispatch_node::job::{AgentKind, JobDir, Order, passed_on};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::Pid;

use crate::agent::Agent;
use crate::contain::Containing;
use crate::environment;

/// Why an agent cannot be started. Trying again does not help unless something is mended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CannotStart {
    /// No adapter for this kind.
    #[error("this release runs no agent of kind `{kind}`")]
    NoAdapter {
        /// The kind.
        kind: AgentKind,
    },
    /// The profile has no argv.
    #[error("the profile names no program")]
    NoProgram,
    /// A variable's name cannot be one.
    #[error("`{name}` cannot be the name of a variable")]
    BadVariable {
        /// The name.
        name: String,
    },
    /// A hosted API's secret is not in the service's environment.
    #[error("the variable `{name}`, which holds the secret of the profile's endpoint, is unset or empty")]
    SecretMissing {
        /// The variable.
        name: String,
    },
    /// The working directory is not there.
    #[error("cannot use the working directory `{}`", path.display())]
    NoWorkDir {
        /// The directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The request cannot be read.
    #[error("cannot read the request in `{}`", path.display())]
    NoRequest {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Without any check of permissions, as root: the agent itself would refuse it, without a word on its standard output.
    #[error("an agent without permission checks is not run as root")]
    UnrestrictedRoot,
    /// Paid by use, and nothing that its spend could be held against.
    #[error("the profile is paid by use, and the order has no ceiling or no prices for it")]
    NoPrice,
    /// No id for a session.
    #[error("cannot name a session")]
    NoRandomness {
        /// Why not.
        source: NoRandomness,
    },
    /// The kernel refuses to run it.
    #[error("cannot run `{program}`")]
    Spawn {
        /// The program.
        program: String,
        /// Why not.
        source: io::Error,
    },
}

/// An agent ready to be started. It has no `Debug`, because its environment holds secrets.
pub(crate) struct Launch {
    program: String,
    command: Command,
}

/// An agent that was started.
#[derive(Debug)]
pub(crate) struct Spawned {
    /// Its process.
    pub(crate) pid: Pid,
    /// What it prints.
    pub(crate) stdout: ChildStdout,
    /// What it complains.
    pub(crate) stderr: ChildStderr,
}

impl Launch {
    /// Makes everything ready that can fail without leaving a trace.
    pub(crate) fn prepare(job: &JobDir, order: &Order, agent: &dyn Agent) -> Result<Launch, CannotStart> {
        let recipe = agent.recipe(order)?;
        let environment = environment::build(order, &job.door_path(), &recipe, passed_on)?;
        let request = job.stdin_path();
        let stdin = standard_input(&request, recipe.first_line)
            .map_err(|source| CannotStart::NoRequest { path: request, source })?;
        let mut command = Command::new(&recipe.program);
        command
            .args(&recipe.args)
            .env_clear()
            .envs(environment)
            .current_dir(work_dir(job, order)?)
            .stdin(Stdio::from(stdin))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // What the agent sends to its own process group must not reach the executor.
            .process_group(0);
        Ok(Launch { program: recipe.program, command })
    }

    /// Starts it, from the main thread only: the agent dies with the thread that started it.
    pub(crate) fn spawn(mut self, containing: &Containing) -> Result<Spawned, CannotStart> {
        let program = self.program.clone();
        let fails = |source| CannotStart::Spawn { program: program.clone(), source };
        bound::to_this_process(&mut self.command, containing.door().map_err(fails)?);
        let mut child = self.command.spawn().map_err(fails)?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        match (pid, child.stdout.take(), child.stderr.take()) {
            (Some(pid), Some(stdout), Some(stderr)) => Ok(Spawned { pid, stdout, stderr }),
            _ => Err(fails(io::ErrorKind::Unsupported.into())),
        }
    }
}

/// The request, behind a line of ours where the agent needs one. Its end is the end of the file: nobody waits for more.
fn standard_input(request: &Path, first_line: &str) -> io::Result<File> {
    let mut file = File::open(request)?;
    if first_line.is_empty() {
        return Ok(file);
    }
    let mut whole = File::from(memfd_create("request", MemfdFlags::CLOEXEC)?);
    whole.write_all(first_line.as_bytes())?;
    io::copy(&mut file, &mut whole)?;
    whole.rewind()?;
    Ok(whole)
}

/// The working directory: as ordered, or a fresh one in the job directory.
fn work_dir(job: &JobDir, order: &Order) -> Result<PathBuf, CannotStart> {
    match &order.cwd {
        Some(path) => is_dir(path)
            .map(|()| path.clone())
            .map_err(|source| CannotStart::NoWorkDir { path: path.clone(), source }),
        None => {
            let path = job.work_path();
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => Ok(path),
                Err(source) => Err(CannotStart::NoWorkDir { path, source }),
            }
        }
    }
}

fn is_dir(path: &Path) -> io::Result<()> {
    if std::fs::metadata(path)?.is_dir() { Ok(()) } else { Err(io::ErrorKind::NotADirectory.into()) }
}

mod bound {
    //! What the agent's process does to itself between fork and exec.
    #![expect(unsafe_code, reason = "the parent-death signal can only be set between fork and exec")]

    use std::fs::File;
    use std::io;
    use std::os::unix::process::CommandExt as _;
    use std::process::Command;

    use rustix::process::{Signal, getpid, getppid, set_parent_process_death_signal};

    /// Lets the agent die with the executor and, where there is one, join its cgroup.
    pub(super) fn to_this_process(command: &mut Command, cgroup: Option<File>) {
        let executor = getpid();
        let bind = move || {
            if let Some(procs) = &cgroup {
                rustix::io::write(procs, b"0")?;
            }
            set_parent_process_death_signal(Some(Signal::KILL))?;
            // Died in between: the signal will never come.
            if getppid() != Some(executor) {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            Ok(())
        };
        // SAFETY: `bind` runs in the child of a process with several threads, where only async-signal-safe operations are
        // allowed: it makes three system calls without the C library's state, allocates nothing, takes no lock and
        // cannot panic. `io::Error` from an error number or a kind does not allocate.
        unsafe {
            command.pre_exec(bind);
        }
    }
}
