//! Hearing that an agent asks for something.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::mpsc::SyncSender;
use std::thread;
use std::time::Duration;

use dispatch_node::report::one_line;
use dispatch_spool::hint::{Hints, Rings};

use crate::wake::{Wake, ring};

/// From one ring to the next: whatever agents do in their doors, the watcher looks no more often for their sake.
const REST: Duration = Duration::from_millis(50);

/// Listens at the doors of running agents, which come and go. They are on the node's own disk: they ring however the share
/// is watched.
pub(crate) struct DoorEars {
    hints: Option<Hints>,
    doors: BTreeMap<u64, PathBuf>,
}

impl DoorEars {
    /// Listens nowhere yet.
    pub(crate) fn new(sender: SyncSender<Wake>) -> DoorEars {
        let bell = move || {
            ring(&sender, Wake::Hint);
            // Nothing but doors rings here, so nobody else waits for the end of this rest.
            thread::sleep(REST);
        };
        DoorEars { hints: Hints::new(bell).ok(), doors: BTreeMap::new() }
    }

    /// Listens at these doors and at no others.
    pub(crate) fn listen_at(&mut self, doors: BTreeMap<u64, PathBuf>) {
        let Some(hints) = &mut self.hints else { return };
        for (epoch, gone) in &self.doors {
            if !doors.contains_key(epoch) {
                hints.unwatch(gone);
            }
        }
        for (epoch, new) in &doors {
            if !self.doors.contains_key(epoch)
                && let Err(error) = hints.watch(new, Rings::Ending(".json"))
            {
                tracing::debug!(error = %one_line(&error), "cannot watch an agent's door; the tick looks instead");
            }
        }
        self.doors = doors;
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::mpsc::sync_channel;
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_door_rings_at_once_and_an_agent_that_rings_in_a_loop_is_heard_now_and_then() {
        let dir = tempfile::tempdir().unwrap();
        let (sender, wakes) = sync_channel(4_096);
        let mut ears = DoorEars::new(sender);
        ears.listen_at([(1, dir.path().to_owned())].into());
        let began = Instant::now();
        for number in 0..2_000 {
            fs::write(dir.path().join(format!("{number}.json")), "").unwrap();
        }
        wakes.recv_timeout(Duration::from_secs(10)).unwrap();
        // What rang during the last rest.
        wakes.recv_timeout(Duration::from_secs(10)).unwrap();
        let rang = wakes.try_iter().count() + 2;
        let most = began.elapsed().as_millis() / REST.as_millis() + 2;
        assert!(u128::try_from(rang).unwrap() <= most, "{rang} in {:?}", began.elapsed());
    }
}
