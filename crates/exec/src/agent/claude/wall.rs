//! Limits of the account in the words of the agent and its API.
//!
//! Wordings change without notice, so what looks like a limit and is not known to be something else counts as one: waiting
//! costs time, trying against a wall costs whatever the wall is made of.

use dispatch_core::protocol::time::{DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS, Timestamp};

use super::heard::Wall;

/// Words that make a failure a wall, all in lower case.
const WALLS: [&str; 13] = [
    "usage limit reached",
    "hour limit reached",
    "weekly limit reached",
    "hit your limit",
    "hit your usage limit",
    "reached your limit",
    "limit will reset",
    "credit balance is too low",
    "exceeded your current quota",
    "quota exceeded",
    "insufficient_quota",
    "resource_exhausted",
    "spending limit",
];

/// Limits that are none of the account: of one request, or of the service.
const OTHER_LIMITS: [&str; 7] =
    ["token", "context", "too long", "overloaded", "turns", "file size", "permission"];

/// What a failing run says of a wall. `status` and `kind` are the API's.
pub(super) fn of(status: Option<u64>, kind: &str, words: &str) -> Option<Wall> {
    let text = words.to_ascii_lowercase();
    match (status, kind) {
        (Some(529), _) | (_, "overloaded" | "overloaded_error") => return None,
        (Some(402 | 429), _) | (_, "rate_limit" | "rate_limit_error" | "billing_error") => {
            return Some(Wall { resets_at: reset(&text) });
        }
        _ => {}
    }
    let named = WALLS.iter().any(|wall| text.contains(wall));
    let other = OTHER_LIMITS.iter().any(|limit| text.contains(limit));
    let like_one =
        text.contains("limit") && ["reach", "exceed", "reset"].iter().any(|word| text.contains(word));
    (named || (like_one && !other)).then(|| Wall { resets_at: reset(&text) })
}

/// The form `… usage limit reached|<unix time>`, which also runs that say they went well have ended with.
pub(super) fn disguised(words: &str) -> Option<Wall> {
    let (text, time) = words.trim().rsplit_once('|')?;
    let is_one = text.to_ascii_lowercase().ends_with("limit reached");
    is_one.then(|| unix_time(time)).flatten().map(|at| Wall { resets_at: Some(at) })
}

/// When it says that it resets: a unix time, a time of the protocol's form, or a span from now that `later` counts on.
fn reset(text: &str) -> Option<u64> {
    let stamped = text.rsplit_once('|').and_then(|(_, time)| unix_time(time));
    stamped.or_else(|| text.split_ascii_whitespace().find_map(iso_time))
}

/// Seconds or milliseconds after 1970, in this century.
fn unix_time(text: &str) -> Option<u64> {
    let digits: String = text.trim().chars().take_while(char::is_ascii_digit).collect();
    let number: u64 = digits.parse().ok()?;
    let seconds = if digits.len() > 11 { number.checked_div(1_000)? } else { number };
    (1_000_000_000..4_000_000_000).contains(&seconds).then_some(seconds)
}

fn iso_time(word: &str) -> Option<u64> {
    let word = word.trim_matches(|ch: char| !ch.is_ascii_alphanumeric()).to_ascii_uppercase();
    let (date_time, rest) = word.split_at_checked(19)?;
    let ending = rest.strip_suffix('Z')?;
    let fits = ending.is_empty() || ending.starts_with('.');
    let at = fits.then(|| Timestamp::parse(&format!("{date_time}.000Z")).ok()).flatten()?;
    u64::try_from(at.unix_ms().div_euclid(SECOND_MS)).ok()
}

/// Where a wall says for how long instead of until when (`try again in 2 hours 5 minutes`), in milliseconds.
pub(super) fn span_ms(words: &str) -> Option<i64> {
    let text = words.to_ascii_lowercase();
    let (_, rest) = text.split_once("resets in ").or_else(|| text.split_once("again in "))?;
    let mut total: Option<i64> = None;
    let mut number: Option<i64> = None;
    for word in rest.split(|ch: char| ch.is_ascii_whitespace() || ch == ',').filter(|word| !word.is_empty()) {
        let digits: String = word.chars().take_while(char::is_ascii_digit).collect();
        let unit = word.get(digits.len()..).unwrap_or_default().trim_end_matches('.');
        if let Ok(count) = digits.parse() {
            number = Some(count);
        }
        let unit_ms = match unit {
            "" => continue,
            "s" | "sec" | "second" | "seconds" => SECOND_MS,
            "m" | "min" | "minute" | "minutes" => MINUTE_MS,
            "h" | "hour" | "hours" => HOUR_MS,
            "d" | "day" | "days" => DAY_MS,
            _ => break,
        };
        let Some(count) = number.take() else { break };
        total = Some(total.unwrap_or(0).saturating_add(count.saturating_mul(unit_ms)));
    }
    total
}

/// The next time of day that a wall names (`resets 3pm (UTC)`). One of another zone, or of none, is nobody's: the agent does
/// not say where it is, and a day before it (`Oct 7 at 5pm`) is left out of the year. Such a wall stands as one that names no
/// time: for `quota_wait_s`, and then one task alone tries it.
pub(super) fn time_of_day(words: &str, now: Timestamp) -> Option<Timestamp> {
    let text = words.to_ascii_lowercase();
    let after = text.split_once("resets ").or_else(|| text.split_once("reset "))?.1;
    let mut words = after.split_ascii_whitespace().peekable();
    words.next_if_eq(&"at");
    let time = words.next()?;
    let half = words.next_if(|word| ["am", "pm"].contains(word)).unwrap_or_default();
    let zone = words.next()?.trim_matches(|ch: char| ch.is_ascii_punctuation() && ch != '+');
    let ms = ms_of_day(&format!("{time}{half}")).filter(|_| ["utc", "gmt"].contains(&zone))?;
    let today = now.unix_ms().div_euclid(DAY_MS).checked_mul(DAY_MS)?.checked_add(ms)?;
    let at = if today > now.unix_ms() { today } else { today.checked_add(DAY_MS)? };
    Some(Timestamp::from_unix_ms(at))
}

/// `3pm`, `3:30pm`, `15:30`, in milliseconds after midnight.
fn ms_of_day(time: &str) -> Option<i64> {
    let (clock, noon) = match (time.strip_suffix("am"), time.strip_suffix("pm")) {
        (Some(clock), _) => (clock, Some(0)),
        (None, Some(clock)) => (clock, Some(12)),
        (None, None) => (time, None),
    };
    let (hours, minutes) = match clock.split_once(':') {
        Some((hours, minutes)) => (hours.parse::<i64>().ok()?, minutes.parse::<i64>().ok()?),
        // A bare number is no time.
        None => (clock.parse::<i64>().ok().filter(|_| noon.is_some())?, 0),
    };
    let hours = match noon {
        Some(noon) => (1..=12).contains(&hours).then(|| hours % 12 + noon)?,
        None => (0..24).contains(&hours).then_some(hours)?,
    };
    (0..60).contains(&minutes).then(|| hours * HOUR_MS + minutes * MINUTE_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESET: u64 = 1_800_000_000;

    /// HTTP status, kind, words; and whether that is a wall, with its reset where it is told.
    type Wording = (Option<u64>, &'static str, &'static str, Option<Option<u64>>);

    #[rustfmt::skip]
    const WORDINGS: &[Wording] = &[
        (None, "", "Claude AI usage limit reached|1800000000", Some(Some(RESET))),
        (None, "", "Claude AI usage limit reached|1800000000000", Some(Some(RESET))),
        (None, "", "Claude usage limit reached. Your limit will reset at 3pm (Europe/Berlin).", Some(None)),
        (None, "", "5-hour limit reached ∙ resets 3pm", Some(None)),
        (None, "", "Weekly limit reached · resets Oct 7 at 5pm", Some(None)),
        (None, "", "You've hit your limit · resets 2027-01-15T08:00:00Z", Some(Some(RESET))),
        (None, "", "You've hit your usage limit. Try again in 2 hours 5 minutes.", Some(None)),
        (None, "", "Opus limit exceeded until tomorrow", Some(None)),
        (None, "", "Credit balance is too low", Some(None)),
        (None, "", "You exceeded your current quota, please check your plan and billing details.", Some(None)),
        (Some(429), "rate_limit_error", "API Error: 429 {\"error\":{\"type\":\"rate_limit_error\"}}", Some(None)),
        (Some(429), "", "words that nobody has seen yet", Some(None)),
        (None, "rate_limit", "This request would exceed your account's rate limit.", Some(None)),
        (Some(402), "billing_error", "payment required", Some(None)),
        (Some(529), "overloaded_error", "API Error: 529 Overloaded", None),
        (None, "overloaded_error", "the rate limit of the service is reached", None),
        (Some(500), "api_error", "API Error: 500 internal", None),
        (Some(401), "authentication_error", "invalid x-api-key", None),
        (None, "", "Claude's response exceeded the 32000 output token maximum", None),
        (None, "", "Prompt is too long: the limit of the model is exceeded", None),
        (None, "", "context limit reached", None),
        (None, "", "the file could not be found", None),
    ];

    #[test]
    fn every_wording_of_a_wall_is_one_and_no_other_limit_is() {
        for (status, kind, words, expected) in WORDINGS {
            assert_eq!(of(*status, kind, words).map(|wall| wall.resets_at), *expected, "{words}");
        }
    }

    #[test]
    fn a_time_of_day_counts_only_where_it_is_one_of_utc() {
        let now = Timestamp::parse("2026-11-21T14:30:00.000Z").unwrap();
        let at = |words: &str| time_of_day(words, now).map(|at| at.to_string());
        let today = Some("2026-11-21T15:00:00.000Z".to_owned());
        assert_eq!(at("5-hour limit reached ∙ resets 3pm (UTC)"), today);
        assert_eq!(at("Your limit will reset at 3:00 PM UTC."), today);
        assert_eq!(at("limit reached, resets at 15:00 (GMT)"), today);
        assert_eq!(
            at("resets 2:30pm (UTC)"),
            Some("2026-11-22T14:30:00.000Z".to_owned()),
            "not now: tomorrow"
        );
        assert_eq!(at("resets 12am (UTC)"), Some("2026-11-22T00:00:00.000Z".to_owned()));
        assert_eq!(at("resets 12:05pm (UTC)"), Some("2026-11-22T12:05:00.000Z".to_owned()));
        // Whose 3pm, or which day's, nobody knows: the breaker waits its own time and lets one task try.
        for words in [
            "Your limit will reset at 3pm (Europe/Berlin).",
            "5-hour limit reached ∙ resets 3pm",
            "Weekly limit reached · resets Oct 7 at 5pm (UTC)",
            "resets 13pm (UTC)",
            "resets 0am (UTC)",
            "resets 3:75pm (UTC)",
            "resets 24:00 (UTC)",
            "resets 3 (UTC)",
            "resets soon (UTC)",
            "resets 3pm (UTC+2)",
            "resets",
        ] {
            assert_eq!(at(words), None, "{words}");
        }
    }

    #[test]
    fn a_wall_that_says_for_how_long_is_understood() {
        assert_eq!(span_ms("Try again in 2 hours 5 minutes."), Some(2 * HOUR_MS + 5 * MINUTE_MS));
        assert_eq!(span_ms("limit reached, resets in 37m"), Some(37 * MINUTE_MS));
        assert_eq!(span_ms("try again in 90s"), Some(90 * SECOND_MS));
        assert_eq!(span_ms("try again later"), None);
        assert_eq!(span_ms("try again in a while"), None);
    }

    #[test]
    fn a_wall_behind_a_success_is_known_by_its_exact_form() {
        assert_eq!(
            disguised("Claude AI usage limit reached|1800000000").map(|wall| wall.resets_at),
            Some(Some(RESET))
        );
        assert_eq!(disguised("the table says: limit reached | yes"), None);
        assert_eq!(disguised("I wrote about usage limits"), None);
    }
}
