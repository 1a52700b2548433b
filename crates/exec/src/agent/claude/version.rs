//! Which versions are run.

/// A version as the agent tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version(u64, u64, u64);

/// The oldest version that is run. Older ones read a file that a request names with `@`, wherever it is, into the prompt,
/// and nothing turns that off there.
pub(super) const OLDEST: &str = "2.1.329";
const OLDEST_RUN: Version = Version(2, 1, 329);
/// The first version of which nothing is known.
pub(super) const UNKNOWN_FROM: &str = "3.0.0";
const FIRST_UNKNOWN: Version = Version(3, 0, 0);

impl Version {
    /// Reads `major.minor.patch`, whatever follows it.
    pub(super) fn parse(text: &str) -> Option<Version> {
        let mut parts = text.split(['.', '-', '+', ' ']);
        let mut number = || parts.next()?.parse().ok();
        Some(Version(number()?, number()?, number()?))
    }

    /// True for versions that are not run.
    pub(super) fn is_too_old(self) -> bool {
        self < OLDEST_RUN
    }

    /// True for versions that are run with a remark.
    pub(super) fn is_unknown(self) -> bool {
        self >= FIRST_UNKNOWN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_range_is_what_it_says() {
        assert_eq!(Version::parse(OLDEST), Some(OLDEST_RUN));
        assert_eq!(Version::parse(UNKNOWN_FROM), Some(FIRST_UNKNOWN));
        for (text, too_old, unknown) in [
            ("2.1.197", true, false),
            ("2.1.328", true, false),
            ("2.1.329", false, false),
            ("2.1.1000-beta.1", false, false),
            ("2.10.0 (Claude Code)", false, false),
            ("3.0.0", false, true),
        ] {
            let version = Version::parse(text).unwrap();
            assert_eq!((version.is_too_old(), version.is_unknown()), (too_old, unknown), "{text}");
        }
        assert_eq!(Version::parse("latest"), None);
    }
}
