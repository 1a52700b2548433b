//! How version 2 spells time: `YYYY-MM-DDTHH:MM:SS`, then nothing or six digits behind a dot, then `+00:00`.

use crate::protocol::time::{NotATime, Timestamp};

const OFFSET: &str = "+00:00";
/// Length of `YYYY-MM-DDTHH:MM:SS`.
const SECONDS_BYTES: usize = 19;

/// Reads that spelling or the one of version 3; what is finer than a millisecond is dropped.
pub(super) fn parse(text: &str) -> Result<Timestamp, NotATime> {
    let Some(local) = text.strip_suffix(OFFSET) else { return Timestamp::parse(text) };
    let (seconds, fraction) = local.split_at_checked(SECONDS_BYTES).ok_or(NotATime)?;
    let millis = match fraction.strip_prefix('.') {
        Some(micros) if micros.len() == 6 && micros.bytes().all(|byte| byte.is_ascii_digit()) => {
            micros.split_at(3).0
        }
        None if fraction.is_empty() => "000",
        Some(_) | None => return Err(NotATime),
    };
    Timestamp::parse(&format!("{seconds}.{millis}Z"))
}

/// Writes it the same way.
pub(super) fn write(at: Timestamp) -> String {
    let text = at.to_string();
    format!("{}000{OFFSET}", text.strip_suffix('Z').unwrap_or(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_are_read_and_no_other() {
        let at = Timestamp::parse("2026-11-20T21:19:19.874Z").unwrap();
        assert_eq!(parse("2026-11-20T21:19:19.874971+00:00"), Ok(at));
        assert_eq!(parse("2026-11-20T21:19:19.874Z"), Ok(at));
        assert_eq!(parse("2026-11-20T21:19:19+00:00").unwrap().to_string(), "2026-11-20T21:19:19.000Z");
        assert_eq!(parse(&write(at)), Ok(at));
        for bad in [
            "2026-11-20T21:19:19.874971+01:00",
            "2026-11-20T21:19:19.874+00:00",
            "2026-11-20T21:19:19.8749711+00:00",
            "2026-11-20T21:19:19.+00:00",
            "2026-11-20 21:19:19+00:00",
            "2026-11-20T21:19:60+00:00",
            "2026-02-30T21:19:19+00:00",
            "2026-11-20T21:19:19",
            "+00:00",
            "2026-11-20T21:19:1é+00:00",
        ] {
            assert_eq!(parse(bad), Err(NotATime), "{bad}");
        }
    }
}
