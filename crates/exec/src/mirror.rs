//! The live copy of the log on the share, for people who follow it. Losing it changes nothing.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread;
use std::time::Duration;

use dispatch_core::protocol::names::TaskId;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, openat, unlinkat};
use rustix::io::Errno;

/// Longest wait for a share to take the end of the log.
const LAST_COPY_WAIT: Duration = Duration::from_secs(1);
const PIECE_BYTES: usize = 64 * 1024;

/// Copies the log to the share, on a thread that a hung share may keep for ever.
#[derive(Debug)]
pub(crate) struct Mirror {
    log: PathBuf,
    done_dir: PathBuf,
    name: String,
    copying: Option<Copying>,
    given_up: bool,
}

#[derive(Debug)]
struct Copying {
    wake: SyncSender<()>,
    over: Receiver<()>,
    stop: Arc<AtomicBool>,
}

impl Mirror {
    /// A mirror of `log` in the lane's `done/<id>.log`. Nothing happens before the first output.
    pub(crate) fn new(log: PathBuf, lane: &Path, id: TaskId) -> Mirror {
        let name = format!("{id}.log");
        Mirror { log, done_dir: lane.join("done"), name, copying: None, given_up: false }
    }

    /// Says that the log has grown. Never waits.
    pub(crate) fn nudge(&mut self) {
        if self.copying.is_none() && !self.given_up {
            self.copying = self.start();
            self.given_up = self.copying.is_none();
        }
        if let Some(copying) = &self.copying {
            // Full: it is about to look anyway. Gone: the share failed.
            copying.wake.try_send(()).ok();
        }
    }

    /// Lets the copy catch up with the whole log for a short while, then lets go of the share for good.
    pub(crate) fn finish(&mut self) {
        if let Some(Copying { wake, over, stop }) = self.copying.take() {
            drop(wake);
            over.recv_timeout(LAST_COPY_WAIT).ok();
            stop.store(true, Ordering::Relaxed);
        }
    }

    fn start(&self) -> Option<Copying> {
        let (wake, woken) = sync_channel(1);
        let (end, over) = sync_channel(1);
        let stop = Arc::new(AtomicBool::new(false));
        let (log, done_dir, name) = (self.log.clone(), self.done_dir.clone(), self.name.clone());
        let stopped = Arc::clone(&stop);
        thread::Builder::new()
            .name("mirror".into())
            .spawn(move || {
                // Its end, whatever the reason, is all that anybody waits for.
                drop(copy(&log, &done_dir, &name, &woken, &stopped));
                drop(end);
            })
            .ok()?;
        Some(Copying { wake, over, stop })
    }
}

fn copy(
    log: &Path,
    done_dir: &Path,
    name: &str,
    woken: &Receiver<()>,
    stopped: &AtomicBool,
) -> std::io::Result<()> {
    let from = File::open(log)?;
    let mut to = create(done_dir, name)?;
    let mut piece = vec![0_u8; PIECE_BYTES];
    let mut offset = 0_u64;
    loop {
        // Asked before the copy: what was written before the end was announced is then surely in it.
        let is_last = woken.try_recv() == Err(TryRecvError::Disconnected);
        loop {
            let count = from.read_at(&mut piece, offset)?;
            let new = piece.get(..count).unwrap_or_default();
            if new.is_empty() || stopped.load(Ordering::Relaxed) {
                break;
            }
            to.write_all(new)?;
            offset = offset.saturating_add(u64::try_from(count).unwrap_or(0));
        }
        if is_last {
            return Ok(());
        }
        // An error is the end of the log, seen at the top of the next round.
        woken.recv().ok();
    }
}

/// A new file at the name, reached without following a link; an earlier attempt's copy goes.
fn create(done_dir: &Path, name: &str) -> std::io::Result<File> {
    let directory = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = openat(CWD, done_dir, directory, Mode::empty())?;
    match unlinkat(&dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    let new = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(File::from(openat(&dir, name, new, Mode::from_raw_mode(0o644))?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, OpenOptions};
    use std::time::Instant;

    const ID: &str = "01a1f89c-fb83-734b-96bb-78a1dacaf1ff";

    fn eventually(mut is_true: impl FnMut() -> bool) {
        let until = Instant::now() + Duration::from_secs(10);
        while !is_true() {
            assert!(Instant::now() < until, "it did not come true in time");
            thread::yield_now();
        }
    }

    #[test]
    fn the_copy_follows_the_log_and_replaces_an_older_one() {
        let dir = tempfile::tempdir().unwrap();
        let lane = dir.path().join("lane");
        fs::create_dir_all(lane.join("done")).unwrap();
        let copy = lane.join("done").join(format!("{ID}.log"));
        fs::write(&copy, "an earlier attempt, longer than this one").unwrap();
        let log = dir.path().join("log");
        let mut file = OpenOptions::new().append(true).create(true).open(&log).unwrap();
        let mut mirror = Mirror::new(log, &lane, TaskId::parse(ID).unwrap());
        file.write_all(b"a").unwrap();
        mirror.nudge();
        eventually(|| fs::read(&copy).is_ok_and(|bytes| bytes == b"a"));
        file.write_all(b"b").unwrap();
        mirror.nudge();
        eventually(|| fs::read(&copy).is_ok_and(|bytes| bytes == b"ab"));
        file.write_all(b"c").unwrap();
        mirror.finish();
        assert_eq!(fs::read(&copy).unwrap(), b"abc");
    }

    #[test]
    fn a_planted_link_is_replaced_and_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("done")).unwrap();
        let victim = dir.path().join("victim");
        fs::write(&victim, "mine").unwrap();
        std::os::unix::fs::symlink(&victim, dir.path().join("done").join(format!("{ID}.log"))).unwrap();
        let log = dir.path().join("log");
        fs::write(&log, "output").unwrap();
        let mut mirror = Mirror::new(log, dir.path(), TaskId::parse(ID).unwrap());
        mirror.nudge();
        mirror.finish();
        assert_eq!(fs::read(&victim).unwrap(), b"mine");
        assert_eq!(fs::read(dir.path().join("done").join(format!("{ID}.log"))).unwrap(), b"output");
    }

    #[test]
    fn a_share_that_is_gone_is_no_matter() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        fs::write(&log, "output").unwrap();
        let mut mirror = Mirror::new(log, &dir.path().join("gone"), TaskId::parse(ID).unwrap());
        mirror.nudge();
        mirror.nudge();
        mirror.finish();
    }
}
