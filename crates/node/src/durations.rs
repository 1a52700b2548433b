//! Durations as people write them: `90s`, `10m`, `2h`, `7d`, `250ms`.

use std::time::Duration;

/// A text that is not a duration like `90s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a duration like `90s`, `10m`, `2h` or `7d`")]
pub struct NotADuration;

/// Reads a whole number with a unit: `ms`, `s`, `m`, `h` or `d`.
///
/// # Errors
/// No unit, another unit, no digits, or more than a duration can hold.
pub fn parse(text: &str) -> Result<Duration, NotADuration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits).ok_or(NotADuration)?;
    let number: u64 = number.parse().map_err(|_| NotADuration)?;
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(NotADuration),
    };
    number.checked_mul(unit_ms).map(Duration::from_millis).ok_or(NotADuration)
}

/// Whole seconds of a duration as people write them; for members that are counted in seconds.
///
/// # Errors
/// As [`parse`], and a duration that is no whole number of seconds.
pub fn parse_seconds(text: &str) -> Result<u64, NotADuration> {
    let duration = parse(text)?;
    if duration.subsec_nanos() == 0 { Ok(duration.as_secs()) } else { Err(NotADuration) }
}

/// A length of time in its two largest units: `3d4h`, `1m12s`, `0.250s`.
#[must_use]
pub fn short(ms: i64) -> String {
    let sign = if ms < 0 { "-" } else { "" };
    let ms = ms.unsigned_abs();
    let seconds = ms / 1_000;
    let text = match seconds {
        0..10 => format!("{seconds}.{:03}s", ms % 1_000),
        10..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h{:02}m", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds % 86_400 / 3_600),
    };
    format!("{sign}{text}")
}

/// As [`short`], in whole seconds: for a figure that a person sees growing.
#[must_use]
pub fn whole(ms: u64) -> String {
    let seconds = ms / 1_000;
    match i64::try_from(seconds) {
        Ok(0..10) | Err(_) => format!("{seconds}s"),
        Ok(seconds) => short(seconds.saturating_mul(1_000)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_a_number_with_a_unit() {
        assert_eq!(parse("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse("10m"), Ok(Duration::from_secs(600)));
        assert_eq!(parse("2h"), Ok(Duration::from_secs(7_200)));
        assert_eq!(parse("250ms"), Ok(Duration::from_millis(250)));
        for bad in
            ["", "s", "90", "-1s", "1.5h", "1h30m", "1w", "99999999999999999999s", "18446744073709551615d"]
        {
            assert_eq!(parse(bad), Err(NotADuration), "{bad}");
        }
        assert_eq!(parse_seconds("1500ms"), Err(NotADuration));
    }

    #[test]
    fn a_length_of_time_is_shown_in_two_units() {
        let shown: Vec<String> = [250, 12_000, 72_000, 3_720_000, 273_600_000].map(short).into();
        assert_eq!(shown, ["0.250s", "12s", "1m12s", "1h02m", "3d04h"]);
        assert_eq!([900, 9_999, 72_900].map(whole), ["0s", "9s", "1m12s"]);
    }
}
