//! The one spelling of time on the share: `YYYY-MM-DDTHH:MM:SS.mmmZ`.

use std::fmt;

use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime, Timelike, Utc};

/// Milliseconds of a second, minute, hour and day.
pub const SECOND_MS: i64 = 1_000;
/// Milliseconds of a minute.
pub const MINUTE_MS: i64 = 60 * SECOND_MS;
/// Milliseconds of an hour.
pub const HOUR_MS: i64 = 60 * MINUTE_MS;
/// Milliseconds of a day.
pub const DAY_MS: i64 = 24 * HOUR_MS;

/// The first instant the spelling can hold, `0000-01-01T00:00:00.000Z`.
const FIRST_MS: i64 = -62_167_219_200_000;
/// The last instant the spelling can hold, `9999-12-31T23:59:59.999Z`.
const LAST_MS: i64 = 253_402_300_799_999;

/// An instant in UTC, to the millisecond, between the years 0000 and 9999.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// A text that is not a time in the protocol's one spelling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a time like `2026-01-31T12:00:00.000Z`")]
pub struct NotATime;

impl Timestamp {
    /// The instant so many milliseconds after 1970-01-01 UTC, moved to the nearest one the spelling can hold.
    #[must_use]
    pub fn from_unix_ms(ms: i64) -> Timestamp {
        Timestamp(ms.clamp(FIRST_MS, LAST_MS))
    }

    /// Milliseconds after 1970-01-01 UTC.
    #[must_use]
    pub const fn unix_ms(self) -> i64 {
        self.0
    }

    /// This instant moved by `ms` milliseconds, stopping at the ends of the spelling.
    #[must_use]
    pub fn plus_ms(self, ms: i64) -> Timestamp {
        Timestamp::from_unix_ms(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier` to this instant; negative when `earlier` is the later one.
    #[must_use]
    pub const fn since_ms(self, earlier: Timestamp) -> i64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Reads the one spelling: 24 ASCII characters, seconds up to 59, a date that exists.
    ///
    /// # Errors
    /// Any other text.
    pub fn parse(text: &str) -> Result<Timestamp, NotATime> {
        let shaped = text.len() == 24
            && text.bytes().enumerate().all(|(at, byte)| match at {
                4 | 7 => byte == b'-',
                10 => byte == b'T',
                13 | 16 => byte == b':',
                19 => byte == b'.',
                23 => byte == b'Z',
                _ => byte.is_ascii_digit(),
            });
        if !shaped {
            return Err(NotATime);
        }
        let parsed = NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.3fZ").map_err(|_| NotATime)?;
        let at = Timestamp::from_unix_ms(parsed.and_utc().timestamp_millis());
        // chrono reads second 60; the spelling above does not have it.
        if at.to_string() == text { Ok(at) } else { Err(NotATime) }
    }

    /// The UTC day, `YYYY-MM-DD`: the key of a day window.
    #[must_use]
    pub fn day_key(self) -> String {
        self.date_time().format("%Y-%m-%d").to_string()
    }

    /// The UTC month, `YYYY-MM`: the key of a month window and of the archive's folders.
    #[must_use]
    pub fn month_key(self) -> String {
        self.date_time().format("%Y-%m").to_string()
    }

    /// Midnight UTC after this instant.
    #[must_use]
    pub fn next_day(self) -> Timestamp {
        Timestamp::from_unix_ms(self.0.div_euclid(DAY_MS).saturating_add(1).saturating_mul(DAY_MS))
    }

    /// The first instant of the next UTC month.
    #[must_use]
    pub fn next_month(self) -> Timestamp {
        let date = self.date_time();
        let (year, month) = if date.month() == 12 {
            (date.year().saturating_add(1), 1)
        } else {
            (date.year(), date.month().saturating_add(1))
        };
        NaiveDate::from_ymd_opt(year, month, 1)
            .and_then(|first| first.and_hms_opt(0, 0, 0))
            .map_or(Timestamp(LAST_MS), |first| Timestamp::from_unix_ms(first.and_utc().timestamp_millis()))
    }

    fn date_time(self) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(self.0).unwrap_or(DateTime::UNIX_EPOCH)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.date_time();
        write!(
            f,
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
            at.year(),
            at.month(),
            at.day(),
            at.hour(),
            at.minute(),
            at.second(),
            at.timestamp_subsec_millis()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_one_spelling() {
        assert_eq!(
            Timestamp::parse("2026-11-20T12:00:00.123Z").unwrap().to_string(),
            "2026-11-20T12:00:00.123Z"
        );
        assert_eq!(Timestamp::parse("1969-12-31T23:59:59.999Z").unwrap().unix_ms(), -1);
        for bad in [
            "2026-11-20T12:00:00Z",
            "2026-11-20t12:00:00.000Z",
            "2026-11-20 12:00:00.000Z",
            "2026-11-20T12:00:00.000+00:00",
            "2026-11-20T23:59:60.000Z",
            "2026-02-30T12:00:00.000Z",
            "2026-11-20T24:00:00.000Z",
            "+026-11-20T12:00:00.000Z",
        ] {
            assert_eq!(Timestamp::parse(bad), Err(NotATime), "{bad}");
        }
    }

    #[test]
    fn windows_end_at_utc_boundaries() {
        let at = Timestamp::parse("2026-12-31T23:59:59.999Z").unwrap();
        assert_eq!(at.next_day().to_string(), "2027-01-01T00:00:00.000Z");
        assert_eq!(at.next_month().to_string(), "2027-01-01T00:00:00.000Z");
        assert_eq!((at.day_key(), at.month_key()), ("2026-12-31".into(), "2026-12".into()));
    }
}
