//! kcat's `-o`: where to begin, and with `e@` where to end.

use crate::cli::moment;
use crate::inspect::spans::From;

/// One `-o`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetArg {
    /// Begin there.
    From(From),
    /// End before that time, in milliseconds since 1970.
    Until(i64),
}

/// Reads one `-o`.
pub fn parse(text: &str) -> Result<OffsetArg, String> {
    let from = match text {
        "beginning" => From::Beginning,
        "end" => From::End,
        "stored" => From::Stored,
        _ => {
            if let Some(time) = text.strip_prefix("s@") {
                From::Time(time_ms(time)?)
            } else if let Some(time) = text.strip_prefix("e@") {
                return Ok(OffsetArg::Until(time_ms(time)?));
            } else {
                number(text)?
            }
        }
    };
    Ok(OffsetArg::From(from))
}

fn number(text: &str) -> Result<From, String> {
    let (digits, from): (&str, fn(i64) -> From) = match text.strip_prefix('-') {
        Some(digits) => (digits, From::Last),
        None => (text, From::Offset),
    };
    let is_number = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
    let number = if is_number { digits.parse().ok() } else { None };
    number.map(from).ok_or_else(|| {
        "write beginning, end, stored, 100 (that offset), -100 (the last 100 of each partition), s@-15m (from that time on) or e@2026-03-01T10:00:00Z (until then)"
            .to_owned()
    })
}

fn time_ms(text: &str) -> Result<i64, String> {
    match text.parse() {
        Ok(milliseconds) if !text.starts_with(['-', '+']) => Ok(milliseconds),
        _ => moment::parse(text).map_err(|why| format!("{why}, or milliseconds since 1970")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_is_one_of_kcats() {
        let from = |from| Ok(OffsetArg::From(from));
        for (text, expected) in [
            ("beginning", from(From::Beginning)),
            ("end", from(From::End)),
            ("stored", from(From::Stored)),
            ("0", from(From::Offset(0))),
            ("17", from(From::Offset(17))),
            ("-17", from(From::Last(17))),
            ("s@1772359200000", from(From::Time(1_772_359_200_000))),
            (
                "s@2026-03-01T10:00:00Z",
                from(From::Time(1_772_359_200_000)),
            ),
            ("e@1772359200000", Ok(OffsetArg::Until(1_772_359_200_000))),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
        assert!(matches!(
            parse("s@-15m"),
            Ok(OffsetArg::From(From::Time(_)))
        ));
    }

    #[test]
    fn another_one_is_refused_with_examples() {
        for text in [
            "",
            "-",
            "start",
            "1.5",
            "--3",
            "-+3",
            "99999999999999999999",
        ] {
            assert!(
                parse(text).is_err_and(|why| why.contains("s@-15m")),
                "{text}"
            );
        }
        for text in ["s@", "e@tomorrow", "s@-5"] {
            assert!(
                parse(text).is_err_and(|why| why.contains("since 1970")),
                "{text}"
            );
        }
    }
}
