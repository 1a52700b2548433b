//! What the agent prints: read as it comes, kept in the log, shown on the share.

use std::io::{self, Read};
use std::process::{ChildStderr, ChildStdout};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use crate::agent::Agent;
use crate::log::{CappedLog, LogDone};
use crate::mirror::Mirror;
use crate::tail::Tail;

/// Bytes read in one go: what a pipe holds.
const PIECE_BYTES: usize = 64 * 1024;
/// Longest time spent on what is left in the pipes once the tree is gone: somebody outside it may hold and feed them.
const DRAIN_MAX: Duration = Duration::from_secs(1);

/// What was printed, in the end.
#[derive(Debug)]
pub(crate) struct Printed {
    /// The log.
    pub(crate) log: LogDone,
    /// The end of everything.
    pub(crate) tail: String,
}

/// The agent's two streams and where they go.
#[derive(Debug)]
pub(crate) struct Output {
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    piece: Vec<u8>,
    log: CappedLog,
    mirror: Mirror,
    tail: Tail,
    last_at: Instant,
}

impl Output {
    /// Starts with what a new agent has.
    pub(crate) fn new(stdout: ChildStdout, stderr: ChildStderr, log: CappedLog, mirror: Mirror) -> Output {
        set_nonblocking(&stdout);
        set_nonblocking(&stderr);
        Output {
            stdout: Some(stdout),
            stderr: Some(stderr),
            piece: vec![0; PIECE_BYTES],
            log,
            mirror,
            tail: Tail::default(),
            last_at: Instant::now(),
        }
    }

    /// When the agent last printed. Nothing else moves it: what the executor writes into the log is no sign of life.
    pub(crate) const fn last_at(&self) -> Instant {
        self.last_at
    }

    /// The last line printed.
    pub(crate) fn last_line(&self) -> Option<String> {
        self.tail.last_line()
    }

    /// Waits until something was printed, `process` has ended, or `wait` is over.
    pub(crate) fn wait(&self, process: Option<&OwnedFd>, wait: Duration) {
        let stdout = self.stdout.as_ref().map(AsFd::as_fd);
        let stderr = self.stderr.as_ref().map(AsFd::as_fd);
        let handles: [Option<BorrowedFd<'_>>; 3] = [stdout, stderr, process.map(AsFd::as_fd)];
        let mut watched: Vec<PollFd<'_>> =
            handles.iter().flatten().map(|handle| PollFd::from_borrowed_fd(*handle, PollFlags::IN)).collect();
        let wait = Timespec::try_from(wait).ok();
        // Interrupted is as good as woken: the caller looks at everything anyway.
        poll(&mut watched, wait.as_ref()).ok();
    }

    /// Takes what is there, one piece of each stream.
    pub(crate) fn take(&mut self, agent: &mut dyn Agent) -> Took {
        let from_stdout = self.take_stdout(agent);
        let from_stderr = self.take_stderr();
        if from_stdout == Took::Some || from_stderr == Took::Some {
            self.last_at = Instant::now();
            self.mirror.nudge();
            return Took::Some;
        }
        Took::Nothing
    }

    fn take_stdout(&mut self, agent: &mut dyn Agent) -> Took {
        let (took, open) = read(&mut self.stdout, &mut self.piece);
        self.stdout = open;
        let new = self.piece.get(..took).unwrap_or_default();
        agent.take_stdout(new);
        self.log.push(new);
        self.tail.push(new);
        if took > 0 { Took::Some } else { Took::Nothing }
    }

    fn take_stderr(&mut self) -> Took {
        let (took, open) = read(&mut self.stderr, &mut self.piece);
        self.stderr = open;
        let new = self.piece.get(..took).unwrap_or_default();
        self.log.push(new);
        self.tail.push(new);
        if took > 0 { Took::Some } else { Took::Nothing }
    }

    /// Takes what the tree left in the pipes, and closes everything.
    pub(crate) fn finish(mut self, agent: &mut dyn Agent) -> Printed {
        let until = crate::ending::later(Instant::now(), DRAIN_MAX);
        while self.take(agent) == Took::Some && Instant::now() < until {}
        let log = self.log.finish();
        self.mirror.finish();
        Printed { log, tail: self.tail.text() }
    }
}

/// Whether a stream had anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Took {
    /// It had.
    Some,
    /// It had not, or is closed.
    Nothing,
}

/// One read: how many bytes, and the stream if it is still open.
fn read<S: Read>(stream: &mut Option<S>, piece: &mut [u8]) -> (usize, Option<S>) {
    let Some(mut open) = stream.take() else { return (0, None) };
    match open.read(piece) {
        Ok(0) => (0, None),
        Ok(count) => (count, Some(open)),
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
            (0, Some(open))
        }
        Err(_) => (0, None),
    }
}

/// Reading never waits: only `poll` does. A pipe takes the flag.
fn set_nonblocking(stream: impl AsFd) {
    if let Ok(flags) = fcntl_getfl(&stream) {
        fcntl_setfl(&stream, flags | OFlags::NONBLOCK).ok();
    }
}
