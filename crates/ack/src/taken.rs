//! Whether the watcher took the decision.

use std::thread::sleep;
use std::time::{Duration, Instant};

use dispatch_core::protocol::names::Digest;
use dispatch_spool::layout::{File, Hex16};
use dispatch_spool::{ErrorKind, Share};

use crate::error::DecideError;
use crate::waiting::Waits;

/// How long it is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// From one look to the next.
const PAUSE: Duration = Duration::from_millis(50);
/// Most that is read of the reason beside evidence.
const REASON_BYTES_MAX: u64 = 64 * 1024;
/// Longest code that is shown of it.
const CODE_BYTES_MAX: usize = 64;

/// What became of a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Recorded; the task is accepted, queued or running.
    Accepted,
    /// Recorded; the task has ended.
    Ended,
    /// Recorded; where the task is now cannot be seen yet.
    Recorded,
    /// It still lies there.
    NotYet,
}

impl Taken {
    pub(crate) const fn text(self) -> &'static str {
        match self {
            Taken::Accepted => "the watcher has taken it: the task is accepted, queued or running",
            Taken::Ended => "the watcher has taken it: the task has ended",
            Taken::Recorded => "the watcher has taken it",
            Taken::NotYet => "no watcher has taken it yet; it stays there until it is void",
        }
    }
}

/// Waits until the decision's file is gone.
///
/// # Errors
/// The watcher did not record it, but set it aside.
pub(crate) fn wait(
    share: &dyn Share,
    waits: &Waits,
    file: &File,
    bytes: &[u8],
) -> Result<Taken, DecideError> {
    let end = Instant::now() + PATIENCE;
    while !is_absent(share, file) {
        if Instant::now() >= end {
            return Ok(Taken::NotYet);
        }
        sleep(PAUSE);
    }
    if let Some(evidence) = file.evidence(Hex16::of(&Digest::of(bytes)))
        && share.stat(&evidence).is_ok()
    {
        return Err(DecideError::SetAside { code: code_beside(share, &evidence) });
    }
    let (lane, id) = (&waits.lane, waits.id());
    Ok(if share.stat(&File::result(lane, id)).is_ok() {
        Taken::Ended
    } else if share.stat(&File::processing(lane, id)).is_ok() {
        Taken::Accepted
    } else {
        Taken::Recorded
    })
}

fn is_absent(share: &dyn Share, file: &File) -> bool {
    share.stat(file).is_err_and(|error| error.kind == ErrorKind::Absent)
}

/// What the reason beside a piece of evidence says. Nobody sealed it: it is a hint.
fn code_beside(share: &dyn Share, evidence: &File) -> Option<String> {
    let bytes = share.read(&evidence.reason()?, REASON_BYTES_MAX).ok()?;
    let reason: serde_json::Value = serde_json::from_slice(&bytes).ok()?;
    let code = reason.get("code")?.as_str()?;
    (code.len() <= CODE_BYTES_MAX).then(|| code.to_owned())
}
