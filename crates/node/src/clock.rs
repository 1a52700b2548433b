//! This machine's clocks: the wall clock, the clock that counts since boot, and which boot it is.

use std::fs;
use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use dispatch_core::policy::continuity::{ClockTrust, clock_trust};
use dispatch_core::protocol::names::canonical_uuid;
use dispatch_core::protocol::time::Timestamp;
use dispatch_ledger::ClockMarks;
use rustix::time::{ClockId, clock_gettime};
use uuid::Uuid;

/// Where Linux says which boot this is.
const BOOT_ID_PATH: &str = "/proc/sys/kernel/random/boot_id";

/// The boot id of this machine cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the boot id of this machine from `{BOOT_ID_PATH}`")]
pub struct NoBootId {
    source: io::Error,
}

/// What time it is, to the millisecond, by the wall clock. It may jump.
#[must_use]
pub fn now() -> Timestamp {
    let ms = match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_millis()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_millis()).map_or(i64::MIN, i64::wrapping_neg),
    };
    Timestamp::from_unix_ms(ms)
}

/// Milliseconds since this machine booted, time asleep included. It never jumps and starts again with each boot.
#[must_use]
pub fn boot_ms() -> i64 {
    let at = clock_gettime(ClockId::Boottime);
    at.tv_sec.saturating_mul(1_000).saturating_add(at.tv_nsec / 1_000_000)
}

/// Which boot of this machine this is: readings of [`boot_ms`] compare only within one.
///
/// # Errors
/// `/proc` is not mounted or says something else.
pub fn host_boot_id() -> Result<Uuid, NoBootId> {
    let text = fs::read_to_string(BOOT_ID_PATH).map_err(|source| NoBootId { source })?;
    canonical_uuid(text.trim_end())
        .map_err(|bad| NoBootId { source: io::Error::new(io::ErrorKind::InvalidData, bad) })
}

/// Whether this machine's wall clock disagrees with what the ledger noted of it (policy section 1).
#[must_use]
pub fn is_suspect(marks: &ClockMarks, now: Timestamp, host_boot_id: &str) -> bool {
    if marks.host_boot_id.is_empty() {
        return false;
    }
    if marks.host_boot_id == host_boot_id {
        let counted = boot_ms().saturating_sub(marks.boot_ms);
        return clock_trust(now, marks.wall, counted) == ClockTrust::Suspect;
    }
    // The machine was off for nobody knows how long: only a clock that went back can be told.
    let off = now.since_ms(marks.wall).min(0);
    clock_trust(marks.wall.plus_ms(off), marks.wall, 0) == ClockTrust::Suspect
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_clock_does_not_go_back() {
        let first = boot_ms();
        assert!(first > 0);
        assert!(boot_ms() >= first);
    }

    #[test]
    fn a_boot_has_one_id() {
        assert_eq!(host_boot_id().unwrap(), host_boot_id().unwrap());
    }
}
