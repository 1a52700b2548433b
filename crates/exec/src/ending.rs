//! How an agent ends, by itself or on a ladder.

use std::time::{Duration, Instant};

use dispatch_core::policy::money::Usd;
use dispatch_node::job::StopWhy;
use rustix::process::{Signal, WaitStatus};

use crate::stops::StopSeen;

/// How the agent's own process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// With a code.
    Code(i32),
    /// By a signal.
    Signal(i32),
}

impl Exit {
    /// Reads a wait status; `None` for a process that was only stopped or continued.
    pub(crate) fn of(status: WaitStatus) -> Option<Exit> {
        let code = status.exit_status().map(Exit::Code);
        code.or_else(|| status.terminating_signal().map(Exit::Signal))
    }
}

/// Why the executor ends an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Its wall clock is over.
    Timeout,
    /// It printed nothing for too long.
    Silence,
    /// Its run is over, and its process is not.
    Over,
    /// It has spent its ceiling.
    OverBudget {
        /// What the meter showed.
        spent: Usd,
    },
    /// It has spent its ceiling, was told to end, and makes new requests.
    SpendsOn,
    /// Something outside wants it.
    Stop(StopSeen),
}

impl Cause {
    /// How much time the agent gets to end by itself.
    pub(crate) const fn haste(self) -> Haste {
        match self {
            Cause::Timeout
            | Cause::Silence
            | Cause::Over
            | Cause::OverBudget { .. }
            | Cause::Stop(StopSeen::Stopped(StopWhy::Cancelled)) => Haste::Normal,
            Cause::SpendsOn
            | Cause::Stop(
                StopSeen::Stopped(StopWhy::Killed) | StopSeen::Killswitch | StopSeen::Interrupted,
            ) => Haste::Short,
        }
    }
}

/// Which ladder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Haste {
    /// So that it can finish a sentence and say what it cost.
    Normal,
    /// The whole tree within two seconds.
    Short,
}

/// Whom a rung signals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whom {
    /// The agent's own process.
    Agent,
    /// Every process of the tree.
    Tree,
}

/// One rung: a signal, and how long it may take to work. SIGKILL to the whole tree follows the last one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rung {
    /// The signal.
    pub(crate) signal: Signal,
    /// To whom.
    pub(crate) whom: Whom,
    /// Until the next rung.
    pub(crate) wait: Duration,
}

/// What is to be done at a moment.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    /// Nothing yet.
    Wait,
    /// This signal.
    Send(Rung),
    /// SIGKILL to the whole tree.
    Kill,
}

/// A ladder that is being climbed.
#[derive(Debug)]
pub(crate) struct Ladder {
    /// Why.
    pub(crate) cause: Cause,
    haste: Haste,
    rungs: std::slice::Iter<'static, Rung>,
    next_at: Instant,
    killing_since: Option<Instant>,
}

impl Ladder {
    /// Time between two kills of a tree that does not go.
    const KILL_EVERY: Duration = Duration::from_millis(500);

    /// A ladder to be climbed from now on.
    pub(crate) fn new(cause: Cause, rungs: &'static [Rung], now: Instant) -> Ladder {
        Ladder { cause, haste: cause.haste(), rungs: rungs.iter(), next_at: now, killing_since: None }
    }

    /// Takes the shorter ladder from now on, where a later cause asks for it. The first cause stays the reason.
    pub(crate) fn hasten(&mut self, cause: Cause, rungs: &'static [Rung], now: Instant) {
        if cause.haste() > self.haste {
            *self = Ladder { cause: self.cause, ..Ladder::new(cause, rungs, now) };
        }
    }

    /// What is due now.
    pub(crate) fn step(&mut self, now: Instant) -> Step {
        if now < self.next_at {
            return Step::Wait;
        }
        if let Some(rung) = self.rungs.next() {
            self.next_at = later(now, rung.wait);
            return Step::Send(*rung);
        }
        self.killing_since.get_or_insert(now);
        self.next_at = later(now, Self::KILL_EVERY);
        Step::Kill
    }

    /// When the next step is due.
    pub(crate) const fn next_at(&self) -> Instant {
        self.next_at
    }

    /// True once it has been killed for so long that no signal will do it.
    pub(crate) fn is_hopeless(&self, now: Instant, after: Duration) -> bool {
        self.killing_since.is_some_and(|since| now.saturating_duration_since(since) > after)
    }
}

/// An instant after another; one that no clock can hold is a day away, which is longer than any attempt.
pub(crate) fn later(now: Instant, by: Duration) -> Instant {
    const DAY: Duration = Duration::from_secs(86_400);
    now.checked_add(by).or_else(|| now.checked_add(DAY)).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOW: &[Rung] = &[Rung { signal: Signal::TERM, whom: Whom::Tree, wait: Duration::from_secs(5) }];
    const FAST: &[Rung] =
        &[Rung { signal: Signal::TERM, whom: Whom::Tree, wait: Duration::from_millis(500) }];

    #[test]
    fn a_ladder_ends_with_kill() {
        let start = Instant::now();
        let mut ladder = Ladder::new(Cause::Timeout, SLOW, start);
        assert!(matches!(ladder.step(start), Step::Send(Rung { signal: Signal::TERM, .. })));
        assert!(matches!(ladder.step(later(start, Duration::from_secs(4))), Step::Wait));
        let killed = later(start, Duration::from_secs(5));
        assert!(matches!(ladder.step(killed), Step::Kill));
        assert!(!ladder.is_hopeless(killed, Duration::from_secs(5)));
        assert!(ladder.is_hopeless(later(killed, Duration::from_secs(6)), Duration::from_secs(5)));
    }

    #[test]
    fn a_kill_shortens_a_ladder_and_keeps_its_cause() {
        let start = Instant::now();
        let kill = Cause::Stop(StopSeen::Killswitch);
        let mut ladder = Ladder::new(Cause::Timeout, SLOW, start);
        assert!(matches!(ladder.step(start), Step::Send(_)));
        ladder.hasten(kill, FAST, start);
        assert!(matches!(ladder.step(start), Step::Send(_)));
        ladder.hasten(kill, FAST, start);
        assert_eq!(ladder.next_at(), later(start, Duration::from_millis(500)));
        assert_eq!(ladder.cause, Cause::Timeout);
    }
}
