//! The exclusive lock of a job directory: who holds it decides what becomes of the attempt.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;

use super::store::JobError;

/// Longest wait for the lock of a job directory, in milliseconds.
pub const LOCK_WAIT_MS_MAX: u64 = 5_000;
/// Time between two tries of the lock.
const LOCK_RETRY: Duration = Duration::from_millis(5);

/// The process that wrote itself into a lock file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its process id.
    pub pid: u32,
    /// When it started, in clock ticks after boot: with the id, it names one process.
    pub start_ticks: u64,
}

impl Holder {
    /// This process.
    ///
    /// # Errors
    /// `/proc` cannot be read.
    pub fn this_process() -> Result<Holder, JobError> {
        let pid = std::process::id();
        let path = PathBuf::from(format!("/proc/{pid}/stat"));
        let stat = std::fs::read(&path).map_err(JobError::io("read", &path))?;
        let start_ticks = crate::tree::start_ticks(&stat).unwrap_or(0);
        Ok(Holder { pid, start_ticks })
    }

    fn parse(text: &str) -> Option<Holder> {
        let (pid, start_ticks) = text.trim_end().split_once(' ')?;
        Some(Holder { pid: pid.parse().ok()?, start_ticks: start_ticks.parse().ok()? })
    }
}

/// A held lock; dropping it lets go.
#[derive(Debug)]
pub struct JobLock {
    file: File,
    path: PathBuf,
}

/// What came of trying.
#[derive(Debug)]
#[must_use]
pub enum Locked {
    /// It is ours now. What was read before counts for nothing: read again.
    Held(JobLock),
    /// Another process has it; who it says it is, if it got so far.
    Busy(Option<Holder>),
}

impl JobLock {
    /// Writes this process into the lock file, so that a watcher can end it when it is long overdue.
    ///
    /// # Errors
    /// The disk or `/proc` fails.
    pub fn write_holder(&mut self) -> Result<(), JobError> {
        let holder = Holder::this_process()?;
        let io = |op| JobError::io(op, &self.path);
        self.file.set_len(0).map_err(io("truncate"))?;
        self.file.rewind().map_err(io("rewind"))?;
        self.file
            .write_all(format!("{} {}\n", holder.pid, holder.start_ticks).as_bytes())
            .map_err(io("write"))
    }
}

/// Opens `path` (made if need be, close-on-exec) and tries its lock until it is held or `wait` is over.
pub(super) fn acquire(path: &Path, wait: Duration) -> Result<Locked, JobError> {
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
        .open(path)
        .map_err(JobError::io("open", path))?;
    let until = Instant::now().checked_add(wait.min(Duration::from_millis(LOCK_WAIT_MS_MAX)));
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Locked::Held(JobLock { file, path: path.to_owned() })),
            Err(Errno::INTR) => {}
            Err(Errno::WOULDBLOCK) => {
                if until.is_none_or(|until| Instant::now() >= until) {
                    return Ok(Locked::Busy(holder_in(&mut file)));
                }
                std::thread::sleep(LOCK_RETRY);
            }
            Err(error) => return Err(JobError::io("lock", path)(error.into())),
        }
    }
}

/// Who the lock file names; `None` where it is empty or holds anything else.
fn holder_in(file: &mut File) -> Option<Holder> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(64).read_to_string(&mut text).ok()?;
    Holder::parse(&text)
}
