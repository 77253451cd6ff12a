//! Points in time as arguments: RFC 3339, or so long ago.

use crate::clock;
use jiff::{SignedDuration, Span, SpanRelativeTo, Timestamp};

/// Reads `2026-03-01T10:00:00Z`, `-2h`, `-1d12h` or `90m ago`; milliseconds since 1970.
pub fn parse(text: &str) -> Result<i64, String> {
    parse_at(text, clock::timestamp())
}

fn parse_at(text: &str, now: Timestamp) -> Result<i64, String> {
    if let Ok(moment) = text.parse::<Timestamp>() {
        return Ok(moment.as_millisecond());
    }
    match span(text) {
        Ok(ago) if ago.is_negative() => now
            .checked_add(ago)
            .map(Timestamp::as_millisecond)
            .map_err(|_| format!("{text} is before all time")),
        Ok(_) => Err(format!("{text} lies ahead; for a time in the past write -{text}")),
        Err(_) => Err("write a time with its zone, such as 2026-03-01T10:00:00Z, or how long ago, such as -2h".to_owned()),
    }
}

/// Reads `2h`, `-1d12h` or `90m ago`; a day has 24 hours.
pub fn span(text: &str) -> Result<SignedDuration, jiff::Error> {
    let days = SpanRelativeTo::days_are_24_hours();
    text.parse::<Span>().and_then(|span| span.to_duration(days))
}

/// A point in time for people.
pub fn show(milliseconds: i64) -> String {
    Timestamp::from_millisecond(milliseconds).map_or_else(
        |_| format!("{milliseconds} ms"),
        |moment| moment.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string(),
    )
}

/// How long ago that was, in its largest two units; 0 for the future.
pub fn age(milliseconds: i64, now_ms: i64) -> String {
    let seconds = (now_ms - milliseconds).max(0) / 1000;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{}s", seconds % 60),
        (0, _, _) => format!("{hours}h{minutes}m"),
        _ => format!("{days}d{hours}h"),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_moment_is_a_time_with_its_zone_or_so_long_ago() {
        let now: Timestamp = "2026-03-02T12:00:00Z".parse().unwrap();
        let ms = |text: &str| text.parse::<Timestamp>().unwrap().as_millisecond();
        for (text, expected) in [
            ("2026-03-01T10:00:00Z", "2026-03-01T10:00:00Z"),
            ("2026-03-01T10:00:00+02:00", "2026-03-01T08:00:00Z"),
            ("-2h", "2026-03-02T10:00:00Z"),
            ("-1d12h", "2026-03-01T00:00:00Z"),
            ("90m ago", "2026-03-02T10:30:00Z"),
            ("-1w", "2026-02-23T12:00:00Z"),
        ] {
            assert_eq!(parse_at(text, now), Ok(ms(expected)), "{text}");
        }
        assert!(parse_at("2h", now).unwrap_err().contains("write -2h"));
        for bad in ["", "yesterday", "2026-03-01", "10:00", "-2 lightyears"] {
            assert!(parse_at(bad, now).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_age_has_two_units() {
        let ages = [0, 59, 61, 3_700, 90_061].map(|seconds| age(1_000, 1_000 + seconds * 1000));
        assert_eq!(ages, ["0s", "59s", "1m1s", "1h1m", "1d1h"]);
        assert_eq!(age(5_000, 0), "0s");
        assert_eq!(show(1_772_359_200_000), "2026-03-01T10:00:00.000Z");
    }
}
