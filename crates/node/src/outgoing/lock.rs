//! The lane's lock. Who holds it may draw positions, publish, and rewrite records.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use super::Outgoing;
use super::error::OutgoingError;
use crate::files::FileError;

/// How long a sender waits for others.
pub(super) const WAIT: Duration = Duration::from_secs(30);
/// How long a note is waited for that can be made another time: far below the deadline of share I/O.
pub(super) const SHORT_WAIT: Duration = Duration::from_millis(200);
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

/// The lane's lock, held; given back when dropped.
#[derive(Debug)]
pub struct Locked<'a> {
    pub(super) outgoing: &'a Outgoing,
    pub(super) file: File,
}

/// Tries for as long as that; `None` when another process holds it to the end.
pub(super) fn take(outgoing: &Outgoing, wait: Duration) -> Result<Option<Locked<'_>>, OutgoingError> {
    let path = outgoing.dir.join("lock");
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(FileError::of("open", &path))?;
    let started = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Some(Locked { outgoing, file })),
            Err(Errno::WOULDBLOCK) if started.elapsed() < wait => thread::sleep(pause),
            Err(Errno::WOULDBLOCK) => return Ok(None),
            Err(errno) => return Err(FileError { op: "lock", path, source: errno.into() }.into()),
        }
        pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
    }
}
