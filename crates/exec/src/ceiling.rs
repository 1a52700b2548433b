//! A running agent's spend against its ceiling (policy section 1, "live metering").

use dispatch_core::policy::admission::Billing;
use dispatch_core::policy::dec::Dec;
use dispatch_core::policy::money::Usd;
use dispatch_core::policy::price::rounded_up;
use dispatch_core::policy::settlement::{CeilingReach, ceiling_reach};
use dispatch_node::clock;
use dispatch_node::job::{JobDir, NearCeiling, Order};

use crate::meter::Meter;

/// The ceiling of one attempt.
#[derive(Debug)]
pub(crate) struct Ceiling<'a> {
    job: &'a JobDir,
    epoch: u64,
    /// `None` where dollars do not count: nothing is ever reached.
    limit: Option<Limit>,
    is_told: bool,
    /// How many messages had been heard of when the ceiling was reached.
    at_messages: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Limit {
    usd: Usd,
    soft_ratio: Dec,
}

/// How far an agent's spend has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reached {
    /// Its ceiling is not spent.
    No,
    /// All of it is.
    Whole {
        /// What is spent.
        spent: Usd,
    },
    /// All of it is, and the agent has begun a request since.
    AndMore,
}

impl<'a> Ceiling<'a> {
    /// The ceiling of an order. A flat plan is counted and never ended by dollars.
    pub(crate) fn of(job: &'a JobDir, order: &Order) -> Ceiling<'a> {
        let limit = match (order.billing, order.ceiling_usd, &order.metering) {
            (Billing::Metered, Some(usd), Some(metering)) => {
                Some(Limit { usd, soft_ratio: metering.soft_ratio })
            }
            (Billing::Metered | Billing::Subscription | Billing::Free, _, _) => None,
        };
        Ceiling { job, epoch: order.epoch, limit, is_told: false, at_messages: None }
    }

    /// Looks at the meter, and leaves word for the watcher once the soft part is reached.
    pub(crate) fn reached(&mut self, meter: &Meter) -> Reached {
        let Some(limit) = self.limit else { return Reached::No };
        // A sum that cannot be held is above every ceiling.
        let spent = meter.usd().unwrap_or(limit.usd);
        match ceiling_reach(spent, limit.usd, limit.soft_ratio) {
            CeilingReach::Within => Reached::No,
            CeilingReach::Soft => {
                self.tell(spent, limit.usd);
                Reached::No
            }
            CeilingReach::Exhausted => {
                self.tell(spent, limit.usd);
                let first = *self.at_messages.get_or_insert(meter.messages());
                if meter.messages() > first {
                    Reached::AndMore
                } else {
                    Reached::Whole { spent: rounded_up(spent) }
                }
            }
        }
    }

    /// A disk that fails costs the word, never the end of the agent.
    fn tell(&mut self, spent: Usd, ceiling: Usd) {
        if !self.is_told {
            self.is_told = true;
            let near = NearCeiling {
                epoch: self.epoch,
                at: clock::now(),
                usd: rounded_up(spent),
                ceiling_usd: ceiling,
            };
            drop(self.job.write_near_ceiling(&near));
        }
    }
}
