//! How fast work goes, against the clock on the wall (policy section 5).

use crate::policy::dec::{Dec, ONE, Ratio, Wide};

/// A duration below nothing, or a ceiling that nothing could keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PaceError {
    /// The time taken is negative.
    #[error("wall is negative")]
    NegativeWall,
    /// The work is negative.
    #[error("work is negative")]
    NegativeWork,
    /// The time taken so far is negative.
    #[error("elapsed is negative")]
    NegativeElapsed,
    /// The ceiling is not above 0.
    #[error("rtf_ceiling is not above 0")]
    RtfCeilingNotPositive,
}

impl PaceError {
    /// The code in `policy eval`.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            PaceError::NegativeWall => "negative_wall",
            PaceError::NegativeWork => "negative_work",
            PaceError::NegativeElapsed => "negative_elapsed",
            PaceError::RtfCeilingNotPositive => "rtf_ceiling_not_positive",
        }
    }
}

/// Seconds on the wall for each second of work; `None` without work.
///
/// # Errors
/// A negative duration.
pub fn real_time_factor(wall: i64, work: i64) -> Result<Option<Ratio>, PaceError> {
    let wall = u64::try_from(wall).map_err(|_| PaceError::NegativeWall)?;
    let work = u64::try_from(work).map_err(|_| PaceError::NegativeWork)?;
    Ok((work > 0).then(|| Ratio::of(wall.into(), work.into())))
}

/// True when more time has passed than the work may take at the slowest pace allowed.
///
/// # Errors
/// A negative duration, a ceiling that is not above 0.
pub fn is_overrunning(work: i64, elapsed: i64, rtf_ceiling: Dec) -> Result<bool, PaceError> {
    let elapsed = u64::try_from(elapsed).map_err(|_| PaceError::NegativeElapsed)?;
    let work = u64::try_from(work).map_err(|_| PaceError::NegativeWork)?;
    if !rtf_ceiling.is_positive() {
        return Err(PaceError::RtfCeilingNotPositive);
    }
    let passed = Wide::product(elapsed.into(), ONE.unsigned_abs());
    Ok(passed > Wide::product(work.into(), rtf_ceiling.magnitude()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_is_exact_on_the_ceiling() {
        let third = Dec::parse("0.333333333333").unwrap();
        assert_eq!(is_overrunning(1_000_000_000_000, 333_333_333_333, third), Ok(false));
        assert_eq!(is_overrunning(1_000_000_000_000, 333_333_333_334, third), Ok(true));
    }
}
