//! Figures as people say them.

/// `0.4 s`, `45 s`, `12 min`, `3 h 20 min`, `2 d 4 h`.
pub fn duration(seconds: f64) -> String {
    if seconds < 9.95 {
        return format!("{seconds:.1} s");
    }
    let seconds = whole(seconds);
    let parts = |large: i64, small: i64, names: [&str; 2]| match small {
        0 => format!("{large} {}", names[0]),
        _ => format!("{large} {} {small} {}", names[0], names[1]),
    };
    match seconds {
        ..100 => format!("{seconds} s"),
        100..5_970 => format!("{} min", (seconds + 30) / 60),
        5_970..172_800 => parts(seconds / 3600, seconds % 3600 / 60, ["h", "min"]),
        _ => parts(seconds / 86_400, seconds % 86_400 / 3600, ["d", "h"]),
    }
}

/// `3,200,000`.
pub fn count(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut text = String::new();
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if number < 0 {
        format!("−{text}")
    } else {
        text
    }
}

/// `1 row`, `12 rows`.
pub fn counted(number: i64, one: &str, many: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { many })
}

/// `12,300 rows/s`, `0.4 rows/s`; `12,300/s` of nothing.
pub fn rate(per_second: f64, of: &str) -> String {
    let space = if of.is_empty() { "" } else { " " };
    if per_second.abs() < 9.95 {
        format!("{per_second:.1}{space}{of}/s")
    } else {
        format!("{}{space}{of}/s", count(whole(per_second)))
    }
}

/// `46 %`.
pub fn percent(share: f64) -> String {
    format!("{} %", whole(share * 100.0))
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "rounded before; `as` ends at the bounds, which nothing that is measured reaches"
)]
fn whole(value: f64) -> i64 {
    value.round() as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_said_as_people_say_them() {
        for (seconds, text) in [
            (0.04, "0.0 s"),
            (0.42, "0.4 s"),
            (9.96, "10 s"),
            (45.4, "45 s"),
            (100.0, "2 min"),
            (720.0, "12 min"),
            (3600.0, "60 min"),
            (7200.0, "2 h"),
            (12_000.0, "3 h 20 min"),
            (187_200.0, "2 d 4 h"),
        ] {
            assert_eq!(duration(seconds), text, "{seconds}");
        }
        assert_eq!(count(3_200_000), "3,200,000");
        assert_eq!(count(-1234), "−1,234");
        assert_eq!((count(0), count(999)), ("0".to_owned(), "999".to_owned()));
        assert_eq!(counted(1, "row", "rows"), "1 row");
        assert_eq!(rate(12_345.6, ""), "12,346/s");
        assert_eq!(rate(0.44, "rows"), "0.4 rows/s");
        assert_eq!(percent(0.456), "46 %");
    }
}
