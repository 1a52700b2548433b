//! The killswitch and what it leaves open: protocol section 8.

use crate::protocol::heartbeat::KillMode;

/// Whether a trip outlives its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Latch {
    /// A tripped node resumes only by `dispatchctl resume`.
    On,
    /// Removing the file is enough, except after `kill`.
    Off,
}

/// What becomes of an open trip whose file is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenTrip {
    /// It stays until `dispatchctl resume` runs on this node.
    Stays,
    /// It is closed: the file was all there was to it.
    Closes,
}

/// Decides about a trip recorded in the ledger whose killswitch file is no longer seen.
#[must_use]
pub fn file_is_gone(latch: Latch, mode: KillMode) -> OpenTrip {
    match (latch, mode) {
        (Latch::Off, KillMode::Halt) => OpenTrip::Closes,
        (Latch::On, KillMode::Halt | KillMode::Kill) | (Latch::Off, KillMode::Kill) => OpenTrip::Stays,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latched_trip_outlives_its_file_and_so_does_every_kill() {
        assert_eq!(file_is_gone(Latch::On, KillMode::Halt), OpenTrip::Stays);
        assert_eq!(file_is_gone(Latch::On, KillMode::Kill), OpenTrip::Stays);
        assert_eq!(file_is_gone(Latch::Off, KillMode::Kill), OpenTrip::Stays);
        assert_eq!(file_is_gone(Latch::Off, KillMode::Halt), OpenTrip::Closes);
    }
}
