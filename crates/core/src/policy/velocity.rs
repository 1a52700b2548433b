//! The expensive runaway *succeeds*: limits on how fast and how often, whatever the outcomes (policy section 2).

use std::fmt;

use crate::policy::money::Usd;

/// What one sender did in the last hour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VelocityFacts {
    /// What its attempts cost.
    pub spent_per_hour: Usd,
    /// Tasks of the busiest tree, free ones too.
    pub tasks_per_hour_of_tree: u32,
    /// The most paid tasks with one digest of request, profile and workspace.
    pub identical_requests: u32,
}

/// From where on that is a runaway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VelocityLimits {
    /// Spend in an hour; `None` is no limit.
    pub spend_per_hour: Option<Usd>,
    /// Tasks of one tree in an hour.
    pub tasks_per_hour_of_tree: u32,
    /// Identical paid requests in an hour.
    pub identical_requests: u32,
}

impl VelocityLimits {
    /// The defaults: a fifth of the month's cap, 60 tasks of a tree, 10 identical paid requests.
    #[must_use]
    pub fn of_month_cap(month_cap: Usd) -> VelocityLimits {
        let fifth = month_cap.decimal().checked_div(5.into()).map(Usd::from_decimal);
        VelocityLimits { spend_per_hour: fifth, tasks_per_hour_of_tree: 60, identical_requests: 10 }
    }
}

/// What tripped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum VelocityTrip {
    /// Money goes too fast.
    SpendPerHour,
    /// A tree sends too many tasks.
    TasksPerHour,
    /// The same request again and again.
    IdenticalRequests,
}

impl VelocityTrip {
    /// All trips.
    pub const ALL: [VelocityTrip; 3] =
        [VelocityTrip::SpendPerHour, VelocityTrip::TasksPerHour, VelocityTrip::IdenticalRequests];

    /// The trip of that word.
    #[must_use]
    pub fn parse(text: &str) -> Option<VelocityTrip> {
        VelocityTrip::ALL.into_iter().find(|trip| trip.as_str() == text)
    }

    /// The word in alerts.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            VelocityTrip::SpendPerHour => "spend_per_hour",
            VelocityTrip::TasksPerHour => "tasks_per_hour",
            VelocityTrip::IdenticalRequests => "identical_requests",
        }
    }
}

impl fmt::Display for VelocityTrip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What trips, in the order of [`VelocityTrip`]. A limit is what is still allowed; the next one trips.
#[must_use]
pub fn velocity_breaker(facts: &VelocityFacts, limits: &VelocityLimits) -> Vec<VelocityTrip> {
    let trips = [
        (limits.spend_per_hour.is_some_and(|limit| facts.spent_per_hour > limit), VelocityTrip::SpendPerHour),
        (facts.tasks_per_hour_of_tree > limits.tasks_per_hour_of_tree, VelocityTrip::TasksPerHour),
        (facts.identical_requests > limits.identical_requests, VelocityTrip::IdenticalRequests),
    ];
    trips.into_iter().filter(|(holds, _)| *holds).map(|(_, trip)| trip).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_trips_by_itself_and_only_beyond_it() {
        let usd = |text| Usd::from_wire(text).unwrap();
        let limits = VelocityLimits::of_month_cap(usd("100"));
        let calm =
            VelocityFacts { spent_per_hour: usd("20"), tasks_per_hour_of_tree: 60, identical_requests: 10 };
        assert_eq!(velocity_breaker(&calm, &limits), []);
        let spend = VelocityFacts { spent_per_hour: usd("20.000001"), ..calm };
        assert_eq!(velocity_breaker(&spend, &limits), [VelocityTrip::SpendPerHour]);
        let tree = VelocityFacts { tasks_per_hour_of_tree: 61, ..calm };
        assert_eq!(velocity_breaker(&tree, &limits), [VelocityTrip::TasksPerHour]);
        let same = VelocityFacts { identical_requests: 11, ..calm };
        assert_eq!(velocity_breaker(&same, &limits), [VelocityTrip::IdenticalRequests]);
    }
}
