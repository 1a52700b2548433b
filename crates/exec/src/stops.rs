//! What may stop an attempt from outside: `stop.json`, the killswitches, and a signal to the executor itself.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use dispatch_node::job::{JobDir, JobError, Order, StopWhy};
use signal_hook::consts::{SIGCHLD, SIGINT, SIGTERM};

use crate::ending::later;
use crate::switches::{ShareWatch, SwitchSeen, look_at_state};

/// Longest wait for the first look at the share; then the attempt goes back to the queue.
const FIRST_LOOK_WAIT: Duration = Duration::from_secs(5);
/// Time between two looks for a stop while that wait lasts.
const STOP_LOOK_EVERY: Duration = Duration::from_millis(100);

/// Why no agent is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NotStarted {
    /// `stop.json` was there first.
    Stopped(StopWhy),
    /// A killswitch stands there.
    Killswitch(PathBuf),
    /// The share is not there.
    ShareUnreachable,
    /// The executor was told to end.
    Interrupted,
}

/// Why a running agent is ended from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StopSeen {
    /// `stop.json` says so.
    Stopped(StopWhy),
    /// A killswitch in kill mode.
    Killswitch,
    /// The executor was told to end (SIGTERM or SIGINT).
    Interrupted,
}

/// Looks for all of them.
#[derive(Debug)]
pub(crate) struct Stops<'a> {
    job: &'a JobDir,
    state: PathBuf,
    share: ShareWatch,
    interrupted: Arc<AtomicBool>,
}

impl<'a> Stops<'a> {
    /// Starts looking.
    pub(crate) fn watch(job: &'a JobDir, order: &Order) -> io::Result<Stops<'a>> {
        let share = ShareWatch::start(&order.killswitch, order.cluster.hyphenated().to_string())?;
        let interrupted = Arc::new(AtomicBool::new(false));
        for signal in [SIGTERM, SIGINT] {
            signal_hook::flag::register(signal, Arc::clone(&interrupted))?;
        }
        // Whoever started the executor may have this signal ignored, and then no child's end would ever be told.
        signal_hook::flag::register(SIGCHLD, Arc::new(AtomicBool::new(false)))?;
        Ok(Stops { job, state: order.killswitch.state.clone(), share, interrupted })
    }

    /// The last look before the agent is started.
    pub(crate) fn before_start(&mut self) -> Result<Option<NotStarted>, JobError> {
        let give_up_at = later(Instant::now(), FIRST_LOOK_WAIT);
        let share = loop {
            let seen = self.share.next_within(STOP_LOOK_EVERY);
            if self.interrupted.load(Ordering::Relaxed) {
                return Ok(Some(NotStarted::Interrupted));
            }
            if let Some(why) = self.stop_file()? {
                return Ok(Some(NotStarted::Stopped(why)));
            }
            match seen {
                Some(seen) => break seen,
                None if Instant::now() >= give_up_at => break SwitchSeen::ShareUnreachable,
                None => {}
            }
        };
        Ok(match share.max(look_at_state(&self.state)) {
            SwitchSeen::Clear => None,
            SwitchSeen::ShareUnreachable => Some(NotStarted::ShareUnreachable),
            SwitchSeen::Halt(place) | SwitchSeen::Kill(place) => Some(NotStarted::Killswitch(place)),
        })
    }

    /// A look while the agent runs.
    pub(crate) fn while_running(&mut self) -> Option<StopSeen> {
        if self.interrupted.load(Ordering::Relaxed) {
            return Some(StopSeen::Interrupted);
        }
        // A disk that fails for a moment stops nothing; the next look is due soon.
        if let Ok(Some(why)) = self.stop_file() {
            return Some(StopSeen::Stopped(why));
        }
        let local = look_at_state(&self.state);
        let seen = local.max(self.share.news().unwrap_or(SwitchSeen::Clear));
        match seen {
            SwitchSeen::Kill(_) => Some(StopSeen::Killswitch),
            SwitchSeen::Clear | SwitchSeen::ShareUnreachable | SwitchSeen::Halt(_) => None,
        }
    }

    /// A stop that is there and cannot be read is a stop all the same.
    fn stop_file(&self) -> Result<Option<StopWhy>, JobError> {
        match self.job.read_stop() {
            Ok(stop) => Ok(stop.map(|stop| stop.why)),
            Err(error) if error.is_malformed() => Ok(Some(StopWhy::Cancelled)),
            Err(error) => Err(error),
        }
    }
}
