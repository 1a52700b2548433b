//! How much a lane takes, and what it says when it is nearly full (policy section 6).

use crate::protocol::heartbeat::Backpressure;

/// How many tasks of a lane may stand accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CapacityLimits {
    /// Places for tasks accepted and not final; those that wait for a person count.
    pub max_queued: u32,
    /// Places of those for tasks that wait for a person.
    pub max_waiting: u32,
}

impl Default for CapacityLimits {
    /// 1 000, and 100 of them waiting.
    fn default() -> CapacityLimits {
        CapacityLimits { max_queued: 1_000, max_waiting: 100 }
    }
}

/// What a lane holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneLoad {
    /// Tasks accepted and not final.
    pub accepted: u32,
    /// Those of them that wait for a person.
    pub waiting: u32,
}

/// How many more tasks may be taken from a lane's inbox.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capacity {
    /// So many in all, and no more as soon as so many of them were parked.
    Take {
        /// Tasks that may still be accepted; never 0.
        places: u32,
        /// Tasks that may still be parked; never 0.
        waiting_places: u32,
    },
    /// None: the lane is full. Files stay in the inbox, unread.
    QueueFull,
    /// None: too many of its tasks wait for a person.
    WaitingFull,
}

/// Asks how much a lane has room for.
pub const fn capacity(load: LaneLoad, limits: CapacityLimits) -> Capacity {
    let places = limits.max_queued.saturating_sub(load.accepted);
    let waiting_places = limits.max_waiting.saturating_sub(load.waiting);
    if places == 0 {
        Capacity::QueueFull
    } else if waiting_places == 0 {
        Capacity::WaitingFull
    } else {
        Capacity::Take { places, waiting_places }
    }
}

/// From this fill level on, in per cent, a lane says so.
pub const BACKPRESSURE_PERCENT: u8 = 80;
/// What a sender is asked to wait at that level, in seconds, and when the lane is full.
const RETRY_AFTER_S: (u64, u64) = (30, 300);

/// The backpressure of a lane: on from 80 % on, asking for 30 s there and for 300 s when full.
#[must_use]
pub fn backpressure(load: LaneLoad, limits: CapacityLimits) -> Backpressure {
    let percent = match capacity(load, limits) {
        Capacity::WaitingFull => 100,
        Capacity::Take { .. } | Capacity::QueueFull => u64::from(load.accepted)
            .saturating_mul(100)
            .checked_div(u64::from(limits.max_queued))
            .unwrap_or(100)
            .min(100),
    };
    let level = u8::try_from(percent).unwrap_or(u8::MAX);
    let on = level >= BACKPRESSURE_PERCENT;
    let (least, most) = RETRY_AFTER_S;
    let first = u64::from(BACKPRESSURE_PERCENT);
    let more = most.saturating_sub(least).saturating_mul(percent.saturating_sub(first));
    let steps = 100_u64.saturating_sub(first);
    let retry_after_s = least.saturating_add(more.checked_div(steps).unwrap_or_default());
    Backpressure { on, level, retry_after_s: on.then_some(retry_after_s) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(accepted: u32, waiting: u32) -> LaneLoad {
        LaneLoad { accepted, waiting }
    }

    #[test]
    fn a_lane_takes_what_it_has_places_for() {
        let limits = CapacityLimits::default();
        assert_eq!(capacity(load(999, 99), limits), Capacity::Take { places: 1, waiting_places: 1 });
        assert_eq!(capacity(load(1_000, 0), limits), Capacity::QueueFull);
        assert_eq!(capacity(load(5_000, 0), limits), Capacity::QueueFull);
        assert_eq!(capacity(load(100, 100), limits), Capacity::WaitingFull);
    }

    #[test]
    fn backpressure_begins_at_four_fifths_and_grows() {
        let limits = CapacityLimits::default();
        let at = |accepted| backpressure(load(accepted, 0), limits);
        assert_eq!(at(799), Backpressure { on: false, level: 79, retry_after_s: None });
        assert_eq!(at(800), Backpressure { on: true, level: 80, retry_after_s: Some(30) });
        assert_eq!(at(1_000), Backpressure { on: true, level: 100, retry_after_s: Some(300) });
        assert_eq!(at(2_000).level, 100);
        assert!(backpressure(load(100, 100), limits).on);
        let none = CapacityLimits { max_queued: 0, max_waiting: 0 };
        assert_eq!(backpressure(load(0, 0), none).level, 100);
    }
}
