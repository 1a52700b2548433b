//! Leases: how long one is good, how often a task is tried, and which attempt's word counts (policy section 5).

/// A duration or count below nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    /// The time to live is negative.
    #[error("the time to live is negative")]
    NegativeTtl,
    /// One of the counts of attempts is negative.
    #[error("a count of attempts is negative")]
    NegativeAttempts,
}

impl LeaseError {
    /// The code in `policy eval`.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            LeaseError::NegativeTtl => "negative_ttl",
            LeaseError::NegativeAttempts => "negative_attempts",
        }
    }
}

/// True when a lease is as old as its time to live, or older. All in one unit of one clock.
///
/// # Errors
/// A negative time to live.
pub fn is_stale(leased_at: i64, now: i64, ttl: i64) -> Result<bool, LeaseError> {
    if ttl < 0 {
        return Err(LeaseError::NegativeTtl);
    }
    Ok(now.saturating_sub(leased_at) >= ttl)
}

/// True when a task has *started* as many attempts as it may have; a limit of 1 means once.
///
/// # Errors
/// A negative count.
pub fn should_give_up(attempts: i64, max_attempts: i64) -> Result<bool, LeaseError> {
    if attempts < 0 || max_attempts < 0 {
        return Err(LeaseError::NegativeAttempts);
    }
    Ok(attempts >= max_attempts)
}

/// True for an outcome whose attempt is no longer the task's newest: it is kept as evidence and settles nothing.
#[must_use]
pub const fn is_superseded(outcome_epoch: u64, newest_epoch: u64) -> bool {
    outcome_epoch < newest_epoch
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_is_superseded_only_by_a_newer_epoch() {
        assert!(is_superseded(3, 4));
        assert!(!is_superseded(4, 4));
    }

    #[test]
    fn a_lease_at_the_ends_of_time_does_not_overflow() {
        assert_eq!(is_stale(i64::MIN, i64::MAX, i64::MAX), Ok(true));
        assert_eq!(is_stale(i64::MAX, i64::MIN, 0), Ok(false));
    }
}
