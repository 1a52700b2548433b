//! The log in the job directory: everything the agent printed, as it came, up to a cap.
//!
//! The last bytes below the cap are held back in memory until the end, so that a log whose output fits is whole to the
//! byte, and one that does not fit has room for a last line that says how much was dropped.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use dispatch_core::protocol::names::Digest;
use sha2::{Digest as _, Sha256};

/// Room for the last line.
const LAST_LINE_BYTES_MAX: u64 = 160;

/// What became of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogDone {
    /// Bytes the agent printed.
    pub(crate) output_bytes: u64,
    /// Bytes of them that are not in the log.
    pub(crate) dropped_bytes: u64,
    /// Bytes of the log.
    pub(crate) log_bytes: u64,
    /// Digest of the log.
    pub(crate) sha256: Digest,
}

/// The log while it is written.
#[derive(Debug)]
pub(crate) struct CappedLog {
    file: File,
    cap: u64,
    output_bytes: u64,
    written: u64,
    held: Vec<u8>,
    hash: Sha256,
    failed: bool,
}

impl CappedLog {
    /// Creates it, readable by its owner only.
    pub(crate) fn create(path: &Path, cap: u64) -> io::Result<CappedLog> {
        let file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(path)?;
        Ok(CappedLog::over(file, cap))
    }

    fn over(file: File, cap: u64) -> CappedLog {
        CappedLog {
            file,
            cap,
            output_bytes: 0,
            written: 0,
            held: Vec::new(),
            hash: Sha256::new(),
            failed: false,
        }
    }

    /// Takes the next bytes. A disk that fails costs log, never the attempt: what is not written counts as dropped.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.output_bytes = self.output_bytes.saturating_add(length(bytes));
        let free_room = self.cap.saturating_sub(LAST_LINE_BYTES_MAX).saturating_sub(self.written);
        let (now, rest) = split(bytes, free_room);
        self.write(now);
        let held_max = self.cap.saturating_sub(self.written).min(LAST_LINE_BYTES_MAX);
        let (kept, _) = split(rest, held_max.saturating_sub(length(&self.held)));
        self.held.extend_from_slice(kept);
    }

    /// Writes what was held back, or the last line in its place; syncs.
    pub(crate) fn finish(mut self) -> LogDone {
        let kept = self.written.saturating_add(length(&self.held));
        let mut dropped = self.output_bytes.saturating_sub(kept);
        let held = std::mem::take(&mut self.held);
        if dropped == 0 {
            self.write(&held);
            // Held bytes that the disk did not take are dropped ones.
            dropped = self.output_bytes.saturating_sub(self.written);
        } else {
            dropped = self.output_bytes.saturating_sub(self.written);
            let line = format!(
                "\n[dispatch: {dropped} bytes of output dropped here; the log is capped at {} bytes]\n",
                self.cap
            );
            let (line, _) = split(line.as_bytes(), self.cap.saturating_sub(self.written));
            self.write(line);
        }
        if self.written > 0 {
            // The outcome names this log by its digest. Where the disk fails here, the digest tells.
            drop(self.file.sync_data());
        }
        LogDone {
            output_bytes: self.output_bytes,
            dropped_bytes: dropped,
            log_bytes: self.written,
            sha256: Digest::from_bytes(self.hash.finalize().into()),
        }
    }

    fn write(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && !self.failed {
            match self.file.write(bytes) {
                Ok(count) if count > 0 => {
                    let (done, rest) = bytes.split_at(count.min(bytes.len()));
                    self.hash.update(done);
                    self.written = self.written.saturating_add(length(done));
                    bytes = rest;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(_) | Err(_) => self.failed = true,
            }
        }
    }
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

/// The first `at` bytes and the rest.
fn split(bytes: &[u8], at: u64) -> (&[u8], &[u8]) {
    bytes.split_at(usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log_of(cap: u64, pieces: &[&[u8]]) -> (LogDone, Vec<u8>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = CappedLog::create(&path, cap).unwrap();
        for piece in pieces {
            log.push(piece);
        }
        let done = log.finish();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(done.log_bytes, length(&bytes));
        assert_eq!(done.sha256, Digest::of(&bytes));
        (done, bytes)
    }

    #[test]
    fn output_up_to_the_cap_is_kept_to_the_byte() {
        let output: Vec<u8> = (0..1024_u32).map(|at| u8::try_from(at % 251).unwrap()).collect();
        for piece in [1, 7, 1024] {
            let pieces: Vec<&[u8]> = output.chunks(piece).collect();
            let (done, bytes) = log_of(1024, &pieces);
            assert_eq!((done.dropped_bytes, done.output_bytes), (0, 1024));
            assert_eq!(bytes, output);
        }
    }

    #[test]
    fn one_byte_over_the_cap_is_counted_and_said() {
        for piece in [1, 100, 1025] {
            let output = vec![b'x'; 1025];
            let pieces: Vec<&[u8]> = output.chunks(piece).collect();
            let (done, bytes) = log_of(1024, &pieces);
            assert!(bytes.len() <= 1024);
            let text = String::from_utf8(bytes).unwrap();
            let kept = text.bytes().take_while(|byte| *byte == b'x').count();
            assert_eq!(done.dropped_bytes, 1025 - u64::try_from(kept).unwrap());
            assert!(text.ends_with(&format!(
                "\n[dispatch: {} bytes of output dropped here; the log is capped at 1024 bytes]\n",
                done.dropped_bytes
            )));
        }
    }

    #[test]
    fn the_last_line_fits_whatever_the_numbers() {
        let line = format!(
            "\n[dispatch: {} bytes of output dropped here; the log is capped at {} bytes]\n",
            u64::MAX,
            u64::MAX
        );
        assert!(length(line.as_bytes()) <= LAST_LINE_BYTES_MAX);
    }

    #[test]
    fn a_disk_that_takes_nothing_counts_everything_as_dropped() {
        let full = OpenOptions::new().append(true).open("/dev/full").unwrap();
        let mut log = CappedLog::over(full, 1_000_000);
        log.push(&[b'x'; 1000]);
        let done = log.finish();
        assert_eq!((done.output_bytes, done.dropped_bytes, done.log_bytes), (1000, 1000, 0));
    }
}
