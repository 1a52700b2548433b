//! What wakes the loop. None of it carries a fact that anyone trusts, but for a reply to a question we asked.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use crate::workers::Done;

/// More wake-ups than this waiting are pointless: each one only says "look".
const WAKES_MAX: usize = 4_096;

/// A reason to look.
#[derive(Debug)]
pub(crate) enum Wake {
    /// Something changed on the share or at the local door.
    Hint,
    /// A child of ours may have ended.
    Child,
    /// SIGTERM: leave, and leave the executors running.
    Leave,
    /// SIGINT: the same, for somebody at a terminal.
    Interrupt,
    /// SIGHUP: read the configuration again.
    Reload,
    /// A share worker answers.
    Share(Box<Done>),
}

/// The loop's end of the channel.
pub(crate) struct Wakes {
    receiver: Receiver<Wake>,
    sender: SyncSender<Wake>,
}

impl Wakes {
    /// A new channel.
    pub(crate) fn new() -> Wakes {
        let (sender, receiver) = sync_channel(WAKES_MAX);
        Wakes { receiver, sender }
    }

    /// An end for whoever wakes the loop.
    pub(crate) fn sender(&self) -> SyncSender<Wake> {
        self.sender.clone()
    }

    /// Waits for one wake-up, at most until `deadline`; `None` is the tick.
    pub(crate) fn next(&self, deadline: Instant) -> Option<Wake> {
        let wait = deadline.saturating_duration_since(Instant::now());
        // The sender above lives as long as the receiver, so only the time can end the wait.
        self.receiver.recv_timeout(wait.max(Duration::from_micros(1))).ok()
    }

    /// One more wake-up if it is already there.
    pub(crate) fn try_next(&self) -> Option<Wake> {
        self.receiver.try_recv().ok()
    }
}

/// Rings without waiting: a full channel already says "look". Only for wake-ups that say no more than that.
pub(crate) fn ring(sender: &SyncSender<Wake>, wake: Wake) {
    // Both failures are fine: full means a look is coming anyway, closed means nobody is left to look.
    drop(sender.try_send(wake));
}
