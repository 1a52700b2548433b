//! Who is alive, by the age of the last heartbeat (policy section 5).

use std::fmt;

use crate::policy::dec::Dec;

/// Seconds without a heartbeat after which a peer is stale, unless configured.
pub const STALE_AFTER_S: i64 = 30;
/// Seconds without a heartbeat after which a peer is dead, unless configured.
pub const DEAD_AFTER_S: i64 = 90;

/// How a peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Health {
    /// Heard of lately.
    Healthy,
    /// Not heard of for a while.
    Stale,
    /// Not heard of for so long that nothing is expected of it.
    Dead,
}

impl Health {
    /// The word in `status` and `policy eval`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Health::Healthy => "healthy",
            Health::Stale => "stale",
            Health::Dead => "dead",
        }
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Ages from which a peer is stale and dead, in the unit of the clock they are used with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthLimits {
    stale_after: i64,
    dead_after: i64,
}

impl HealthLimits {
    /// Checks two ages.
    ///
    /// # Errors
    /// A negative one, or stale only after dead.
    pub const fn new(stale_after: i64, dead_after: i64) -> Result<HealthLimits, FleetError> {
        if stale_after < 0 || dead_after < 0 {
            Err(FleetError::NegativeThreshold)
        } else if stale_after > dead_after {
            Err(FleetError::StaleAfterExceedsDeadAfter)
        } else {
            Ok(HealthLimits { stale_after, dead_after })
        }
    }

    /// The health of somebody last heard of at `last_seen`. An age below zero is healthy: clocks differ.
    #[must_use]
    pub const fn health(&self, last_seen: i64, now: i64) -> Health {
        let age = now.saturating_sub(last_seen);
        if age < 0 {
            Health::Healthy
        } else if age >= self.dead_after {
            Health::Dead
        } else if age >= self.stale_after {
            Health::Stale
        } else {
            Health::Healthy
        }
    }
}

impl Default for HealthLimits {
    /// 30 and 90 seconds.
    fn default() -> HealthLimits {
        HealthLimits { stale_after: STALE_AFTER_S, dead_after: DEAD_AFTER_S }
    }
}

/// Figures that describe no fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FleetError {
    /// A worker without a name.
    #[error("a worker has no name")]
    EmptyName,
    /// A worker last seen before the clock began.
    #[error("last_seen is negative")]
    NegativeLastSeen,
    /// Video memory below nothing.
    #[error("vram_gb is negative")]
    NegativeVram,
    /// A pace below nothing.
    #[error("recent_rtf is negative")]
    NegativeRtf,
    /// An age limit below nothing.
    #[error("an age limit is negative")]
    NegativeThreshold,
    /// Stale only after dead.
    #[error("stale_after exceeds dead_after")]
    StaleAfterExceedsDeadAfter,
}

impl FleetError {
    /// The code in `policy eval`.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            FleetError::EmptyName => "empty_name",
            FleetError::NegativeLastSeen => "negative_last_seen",
            FleetError::NegativeVram => "negative_vram",
            FleetError::NegativeRtf => "negative_rtf",
            FleetError::NegativeThreshold => "negative_threshold",
            FleetError::StaleAfterExceedsDeadAfter => "stale_after_exceeds_dead_after",
        }
    }
}

/// One member of the fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Worker<'a> {
    /// Its name, never empty.
    pub name: &'a str,
    /// When it was last heard of.
    pub last_seen: i64,
    /// It has a GPU.
    pub gpu: bool,
    /// Video memory in GB.
    pub vram_gb: Option<Dec>,
    /// What it works on.
    pub current_task: Option<&'a str>,
    /// Its pace of late.
    pub recent_rtf: Option<Dec>,
}

impl Worker<'_> {
    fn check(&self) -> Result<(), FleetError> {
        if self.name.is_empty() {
            Err(FleetError::EmptyName)
        } else if self.last_seen < 0 {
            Err(FleetError::NegativeLastSeen)
        } else if self.vram_gb.is_some_and(Dec::is_negative) {
            Err(FleetError::NegativeVram)
        } else if self.recent_rtf.is_some_and(Dec::is_negative) {
            Err(FleetError::NegativeRtf)
        } else {
            Ok(())
        }
    }
}

/// The fleet in figures: `healthy + stale + dead = total` and `busy + idle = healthy + stale`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// All.
    pub total: u64,
    /// Healthy ones.
    pub healthy: u64,
    /// Stale ones.
    pub stale: u64,
    /// Dead ones; they are neither busy nor idle.
    pub dead: u64,
    /// Those with a task.
    pub busy: u64,
    /// Those without.
    pub idle: u64,
    /// Healthy ones with a GPU.
    pub gpu_healthy: u64,
}

/// Counts a fleet.
///
/// # Errors
/// What is wrong with a worker, each in turn; then with the limits, also for no workers.
pub fn summarize(
    workers: &[Worker<'_>],
    now: i64,
    limits: Result<HealthLimits, FleetError>,
) -> Result<Summary, FleetError> {
    workers.iter().try_for_each(Worker::check)?;
    let limits = limits?;
    let mut summary = Summary::default();
    let count = |figure: &mut u64| *figure = figure.saturating_add(1);
    for worker in workers {
        count(&mut summary.total);
        let alive = match limits.health(worker.last_seen, now) {
            Health::Healthy => {
                count(&mut summary.healthy);
                if worker.gpu {
                    count(&mut summary.gpu_healthy);
                }
                true
            }
            Health::Stale => {
                count(&mut summary.stale);
                true
            }
            Health::Dead => {
                count(&mut summary.dead);
                false
            }
        };
        match (alive, worker.current_task) {
            (true, Some(_)) => count(&mut summary.busy),
            (true, None) => count(&mut summary.idle),
            (false, _) => {}
        }
    }
    Ok(summary)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        #[test]
        fn the_figures_of_a_fleet_add_up(
            seen in prop::collection::vec((0..200_i64, any::<bool>(), any::<bool>()), 0..20),
        ) {
            let workers: Vec<Worker<'_>> = seen
                .iter()
                .map(|(last_seen, gpu, busy)| Worker {
                    name: "w",
                    last_seen: *last_seen,
                    gpu: *gpu,
                    vram_gb: None,
                    current_task: busy.then_some("t"),
                    recent_rtf: None,
                })
                .collect();
            let sum = summarize(&workers, 150, Ok(HealthLimits::default())).unwrap();
            prop_assert_eq!(sum.total, u64::try_from(workers.len()).unwrap());
            prop_assert_eq!(sum.healthy + sum.stale + sum.dead, sum.total);
            prop_assert_eq!(sum.busy + sum.idle, sum.healthy + sum.stale);
            prop_assert!(sum.gpu_healthy <= sum.healthy);
        }
    }
}
