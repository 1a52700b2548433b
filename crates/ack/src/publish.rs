//! Putting the decision where the watcher finds it.

use std::thread::sleep;
use std::time::{Duration, Instant};

use dispatch_node::clock;
use dispatch_node::report::Report;
use dispatch_spool::layout::File;
use dispatch_spool::{ErrorKind, Published, ShareError};

use crate::args::Door;
use crate::desk::Desk;
use crate::earlier;
use crate::error::DecideError;
use crate::key::Signer;
use crate::waiting::Waits;

/// How long a name that is taken is tried again (protocol section 1).
const SQUATTED: Duration = Duration::from_secs(30);
/// From one try to the next.
const PAUSE: Duration = Duration::from_millis(200);

/// Publishes the decision once.
///
/// # Errors
/// The share's, or a name that stays taken for 30 s: by an earlier decision of the same key, or by somebody else.
pub(crate) fn publish(
    args: &Door,
    desk: &Desk,
    waits: &Waits,
    signer: &Signer,
    bytes: &[u8],
) -> Result<File, Report> {
    let file = File::decision(&waits.lane, waits.id(), signer.key16);
    let end = Instant::now() + SQUATTED;
    let mut told = false;
    loop {
        let error = match desk.share().publish_once(&file, bytes) {
            Ok(Published::Created | Published::AlreadyPresent) => return Ok(file),
            Err(error) => error,
        };
        if !is_taken(&error) {
            return Err(error.into());
        }
        let mine = earlier::standing(desk, waits, signer, clock::now()).is_some();
        if Instant::now() >= end {
            return Err(if mine { DecideError::EarlierStands } else { DecideError::Squatted(error) }.into());
        }
        if !told {
            told = true;
            args.tell(match mine {
                true => "an earlier decision of yours stands there: waiting for the watcher to record it",
                false => "something else stands where the decision belongs: waiting for the watcher to set it aside",
            });
        }
        sleep(PAUSE);
    }
}

fn is_taken(error: &ShareError) -> bool {
    match error.kind {
        ErrorKind::Conflict(_) | ErrorKind::NotRegular(_) => true,
        ErrorKind::Absent
        | ErrorKind::Denied
        | ErrorKind::NoSpace
        | ErrorKind::TooLarge { .. }
        | ErrorKind::Stale
        | ErrorKind::Unreachable
        | ErrorKind::Io => false,
    }
}
