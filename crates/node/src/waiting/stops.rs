//! A person who stops a command that waits.

use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// SIGINT and SIGTERM, from now to the end of the process.
#[derive(Debug)]
pub struct Stops {
    heard: Receiver<()>,
}

/// Whether a person stopped the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Stopped {
    /// Somebody did.
    Yes,
    /// Nobody did.
    No,
}

impl Stops {
    /// Takes both signals over. Where that cannot be done they end the process, as they always do.
    #[must_use]
    pub fn listen() -> Stops {
        let (heard, stops) = sync_channel(1);
        // Kept by the thread: as long as nobody stops the command, the channel stays open.
        let listening = Signals::new([SIGINT, SIGTERM]);
        thread::spawn(move || {
            let Ok(mut signals) = listening else {
                loop {
                    thread::park();
                }
            };
            for _ in signals.forever() {
                if heard.send(()).is_err() {
                    return;
                }
            }
            drop(heard);
        });
        Stops { heard: stops }
    }

    /// Waits so long, or until somebody stops the command.
    pub fn within(&self, time: Duration) -> Stopped {
        match self.heard.recv_timeout(time) {
            Ok(()) | Err(RecvTimeoutError::Disconnected) => Stopped::Yes,
            Err(RecvTimeoutError::Timeout) => Stopped::No,
        }
    }
}
