//! Which queued task starts next.

use std::cmp::Reverse;

use crate::protocol::task::Priority;
use crate::protocol::time::{SECOND_MS, Timestamp};

/// A waiting task gains the weight of one priority step for every so many milliseconds (protocol section 3).
pub const AGEING_STEP_MS: i64 = 900 * SECOND_MS;

/// A queued task, as far as its turn depends on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate<K> {
    /// What names it to the caller.
    pub key: K,
    /// The sender's wish.
    pub priority: Priority,
    /// When this node accepted it.
    pub accepted_at: Timestamp,
    /// Its place in the order of acceptance.
    pub order_no: u64,
    /// Not before this instant: the back-off after an attempt that could not start.
    pub not_before: Option<Timestamp>,
}

/// Why nothing is leased, whatever the queue holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holdback {
    /// A killswitch is present or its trip was not resumed.
    Tripped,
    /// The share cannot be reached.
    ShareUnreachable,
    /// The node drains or is in maintenance.
    Draining,
    /// The ledger is older than what this node showed.
    Recovery,
    /// Another watcher of this node has shown a higher boot.
    Superseded,
}

/// Weight of a task: its priority, and one step more for each [`AGEING_STEP_MS`] waited.
#[must_use]
pub fn rank(priority: Priority, waited_ms: i64) -> i64 {
    waited_ms.max(0).div_euclid(AGEING_STEP_MS).saturating_add(i64::from(priority.rank()))
}

/// The tasks to lease now: at most `free` of them, heaviest first, equal weights in the order of acceptance.
pub fn choose<K: Clone>(queue: &[Candidate<K>], free: usize, now: Timestamp) -> Vec<K> {
    if free == 0 {
        return Vec::new();
    }
    let mut due: Vec<&Candidate<K>> = queue.iter().filter(|task| !is_held(task, now)).collect();
    due.sort_by_key(|task| turn(task, now));
    due.into_iter().take(free).map(|task| task.key.clone()).collect()
}

/// The whole queue in the order in which it would start, if nothing came in between: as [`choose`] takes it, then what is
/// in back-off, by when that ends.
pub fn order<K: Clone>(queue: &[Candidate<K>], now: Timestamp) -> Vec<K> {
    let mut all: Vec<&Candidate<K>> = queue.iter().collect();
    all.sort_by_key(|task| (task.not_before.filter(|at| *at > now), turn(task, now)));
    all.into_iter().map(|task| task.key.clone()).collect()
}

fn is_held<K>(task: &Candidate<K>, now: Timestamp) -> bool {
    task.not_before.is_some_and(|at| at > now)
}

fn turn<K>(task: &Candidate<K>, now: Timestamp) -> (Reverse<i64>, u64) {
    (Reverse(rank(task.priority, now.since_ms(task.accepted_at))), task.order_no)
}

/// How long until the first held-back candidate may start, in milliseconds; `None` when none is held back.
pub fn next_due_ms<K>(queue: &[Candidate<K>], now: Timestamp) -> Option<i64> {
    queue.iter().filter_map(|task| task.not_before).filter(|at| *at > now).map(|at| at.since_ms(now)).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(key: u32, priority: Priority, accepted_ms: i64) -> Candidate<u32> {
        Candidate {
            key,
            priority,
            accepted_at: Timestamp::from_unix_ms(accepted_ms),
            order_no: u64::from(key),
            not_before: None,
        }
    }

    #[test]
    fn high_goes_before_normal_before_low_and_equals_in_order_of_acceptance() {
        let queue = [
            task(1, Priority::Low, 0),
            task(2, Priority::Normal, 0),
            task(3, Priority::High, 0),
            task(4, Priority::High, 0),
        ];
        assert_eq!(choose(&queue, 4, Timestamp::from_unix_ms(10)), vec![3, 4, 2, 1]);
        assert_eq!(choose(&queue, 1, Timestamp::from_unix_ms(10)), vec![3]);
        assert_eq!(choose(&queue, 0, Timestamp::from_unix_ms(10)), Vec::<u32>::new());
    }

    #[test]
    fn a_low_task_overtakes_fresh_high_ones_after_it_waited_long_enough() {
        let now = Timestamp::from_unix_ms(3 * AGEING_STEP_MS);
        let queue = [task(1, Priority::High, now.unix_ms()), task(2, Priority::Low, 0)];
        assert_eq!(choose(&queue, 2, now), vec![2, 1]);
        let early = Timestamp::from_unix_ms(2 * AGEING_STEP_MS - 1);
        assert_eq!(
            choose(&[task(1, Priority::High, early.unix_ms()), task(2, Priority::Low, 0)], 2, early),
            vec![1, 2]
        );
    }

    #[test]
    fn a_task_in_back_off_waits_and_says_how_long() {
        let mut held = task(1, Priority::High, 0);
        held.not_before = Some(Timestamp::from_unix_ms(500));
        let queue = [held, task(2, Priority::Low, 0)];
        let now = Timestamp::from_unix_ms(200);
        assert_eq!(choose(&queue, 2, now), vec![2]);
        assert_eq!(next_due_ms(&queue, now), Some(300));
        assert_eq!(choose(&queue, 2, Timestamp::from_unix_ms(500)), vec![1, 2]);
    }

    #[test]
    fn the_whole_queue_has_an_order_with_those_in_back_off_at_its_end() {
        let mut later = task(1, Priority::High, 0);
        later.not_before = Some(Timestamp::from_unix_ms(900));
        let mut sooner = task(2, Priority::Low, 0);
        sooner.not_before = Some(Timestamp::from_unix_ms(500));
        let queue = [later, sooner, task(3, Priority::Low, 0), task(4, Priority::Normal, 0)];
        assert_eq!(order(&queue, Timestamp::from_unix_ms(200)), vec![4, 3, 2, 1]);
        assert_eq!(order(&queue, Timestamp::from_unix_ms(900)), vec![1, 4, 2, 3]);
    }

    #[test]
    fn a_clock_that_went_back_takes_no_weight_away() {
        assert_eq!(rank(Priority::Normal, -AGEING_STEP_MS), 1);
    }
}
