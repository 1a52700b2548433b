//! Waiting for facts instead of for time.

use std::thread;
use std::time::{Duration, Instant};

/// How long a fact may take on a loaded machine before the test says it is not one.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// How often a fact is looked for. Small against everything that is waited for, large against the look itself.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A condition that is waited for: not yet, or what was waited for.
pub trait Fact {
    /// What the wait yields.
    type Value;
    /// The value, once it is there.
    fn value(self) -> Option<Self::Value>;
}

impl Fact for bool {
    type Value = ();
    fn value(self) -> Option<()> {
        self.then_some(())
    }
}

impl<T> Fact for Option<T> {
    type Value = T;
    fn value(self) -> Option<T> {
        self
    }
}

/// Looks until `fact` holds and yields it.
///
/// # Panics
/// When it does not hold within [`DEADLINE`], naming `what`.
pub fn eventually<F: Fact>(what: &str, fact: impl FnMut() -> F) -> F::Value {
    within(DEADLINE, what, fact)
}

/// As [`eventually`], with a deadline of its own.
///
/// # Panics
/// When it does not hold within `deadline`, naming `what`.
pub fn within<F: Fact>(deadline: Duration, what: &str, fact: impl FnMut() -> F) -> F::Value {
    try_within(deadline, fact).unwrap_or_else(|| panic!("not within {deadline:?}: {what}"))
}

/// As [`within`], yielding none when the deadline has passed.
pub fn try_within<F: Fact>(deadline: Duration, mut fact: impl FnMut() -> F) -> Option<F::Value> {
    let end = Instant::now() + deadline;
    loop {
        if let Some(value) = fact().value() {
            return Some(value);
        }
        if Instant::now() >= end {
            return None;
        }
        thread::sleep(LOOK_EVERY);
    }
}

/// Asserts that `fact` goes on holding for `span`: for what must *not* happen.
///
/// # Panics
/// As soon as it does not hold, naming `what`.
pub fn throughout(span: Duration, what: &str, mut fact: impl FnMut() -> bool) {
    let end = Instant::now() + span;
    while Instant::now() < end {
        assert!(fact(), "no longer true: {what}");
        thread::sleep(LOOK_EVERY);
    }
}
