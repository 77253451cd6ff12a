//! What a message says of one column of a table that the configuration describes, by the column's rule and type.

use super::general::{digits, string};
use super::{
    Change, Rejection, SetValue, entry, is_storable_number, plain, read_entries, shortened,
    storable,
};
use crate::dead::Reason;
use crate::table::{Column, Kind, Number, Path, Rule};
use serde::de::IgnoredAny;
use std::borrow::Cow;

/// Objects and arrays within each other: what reads them calls itself for each, Postgres too.
pub(super) const NESTING_MAX: usize = 100;
/// Digits behind the point of what is added or compared: all digits fit 64 bits, and 128 bits hold any two of them side by side.
const SCALE_MAX: u32 = 18;

/// Adds what the JSON text says of the column to the changes, or says why the message is a dead letter.
pub(super) fn read_column<'a>(
    column: &Column,
    number: u8,
    raw: &'a str,
    changes: &mut Vec<Change<'a>>,
) -> Result<(), Rejection> {
    let is_null = raw == "null";
    match column.rule {
        Rule::Set => {
            let value = match is_null {
                true => None,
                false => Some(set_value(column, raw)?),
            };
            changes.push(Change::Set {
                column: number,
                value,
            });
        }
        _ if is_null => {}
        Rule::Merge => read_merge(column, number, raw, changes)?,
        Rule::Add | Rule::KeepMax | Rule::KeepMin => {
            let (digits, scale) = amount(column, raw).ok_or_else(|| bad_value(column, raw))?;
            changes.push(Change::Amount {
                column: number,
                digits,
                scale,
            });
        }
    }
    Ok(())
}

fn bad_value(column: &Column, raw: &str) -> Rejection {
    let text = differs(&column.name, column.kind, &column.from, raw);
    Rejection::new(Reason::BadValue, format!("the column {text}"))
}

/// That a message has something else at the column's path than what the column takes.
pub(super) fn differs(name: &str, kind: Kind, from: &Path, found: &str) -> String {
    format!("{name} is {kind}, and at {from} is {}", shortened(found))
}

fn set_value<'a>(column: &Column, raw: &'a str) -> Result<SetValue<'a>, Rejection> {
    let bad = || bad_value(column, raw);
    let text = || string(raw).ok_or_else(bad);
    Ok(match column.kind {
        Kind::Uuid => {
            let uuid = uuid::Uuid::try_parse(&text()?).map_err(|_| bad())?;
            SetValue::Uuid(uuid.into_bytes())
        }
        Kind::Text => {
            let text = text()?;
            storable(&text, &column.name)?;
            SetValue::Text(text)
        }
        Kind::Boolean if matches!(raw, "true" | "false") => SetValue::Text(Cow::Borrowed(raw)),
        Kind::Double if is_number(raw) && is_storable_number(raw) => {
            SetValue::Text(Cow::Borrowed(raw))
        }
        Kind::Numeric(_) => {
            let digits = digits(raw);
            if !is_number(&digits) || !is_storable_number(&digits) || !fits(column.kind, &digits) {
                return Err(bad());
            }
            SetValue::Text(digits)
        }
        Kind::Date => {
            let day = day(text()?);
            day.parse::<jiff::civil::Date>().map_err(|_| bad())?;
            SetValue::Text(day)
        }
        Kind::Jsonb if nesting(raw) > NESTING_MAX => return Err(bad()),
        Kind::Jsonb => SetValue::Json(raw),
        Kind::Integer | Kind::Bigint | Kind::Timestamptz => {
            let (digits, _) = amount(column, raw).ok_or_else(bad)?;
            SetValue::Whole(digits)
        }
        Kind::Boolean | Kind::Double => return Err(bad()),
    })
}

/// Without the `Z` that Debezium puts behind a day, which is in no zone.
fn day(text: Cow<'_, str>) -> Cow<'_, str> {
    const DAY: usize = "1970-01-01Z".len();
    match text {
        Cow::Borrowed(day) if day.len() == DAY => {
            Cow::Borrowed(day.strip_suffix('Z').unwrap_or(day))
        }
        other => other,
    }
}

/// How deep objects and arrays are within each other, at most.
pub(super) fn nesting(json: &str) -> usize {
    let (mut depth, mut deepest) = (0usize, 0);
    let (mut in_string, mut escaped) = (false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = in_string,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// JSON's numbers; text may spell others that Rust would read.
fn is_number(text: &str) -> bool {
    let begins = text.starts_with(|c: char| c == '-' || c.is_ascii_digit());
    begins
        && serde_json::from_str::<IgnoredAny>(text).is_ok()
        && !text.ends_with(char::is_whitespace)
}

/// Whole digits, and how many of them are behind the point; of a time, microseconds since 1970. `None` for what the column can't
/// take exactly.
fn amount(column: &Column, raw: &str) -> Option<(i64, u8)> {
    match column.kind {
        Kind::Integer => Some((i64::from(digits(raw).parse::<i32>().ok()?), 0)),
        Kind::Bigint => Some((digits(raw).parse().ok()?, 0)),
        Kind::Timestamptz => {
            let at: jiff::Timestamp = string(raw)?.parse().ok()?;
            Some((at.as_microsecond(), 0))
        }
        Kind::Numeric(_) => {
            let digits = digits(raw);
            let number = Number::parse(&digits)?;
            let parts = (number.whole.try_into().ok()?, number.scale.try_into().ok()?);
            let is_exact = number.scale <= SCALE_MAX && fits(column.kind, &digits);
            is_exact.then_some(parts)
        }
        _ => None,
    }
}

/// Whether nothing would be rounded.
fn fits(kind: Kind, digits: &str) -> bool {
    let Kind::Numeric(Some((precision, scale))) = kind else {
        return true;
    };
    let number = Number::parse(digits);
    number.is_some_and(|number| number.scale <= scale && number.fits(precision - scale))
}

fn read_merge<'a>(
    column: &Column,
    number: u8,
    raw: &'a str,
    changes: &mut Vec<Change<'a>>,
) -> Result<(), Rejection> {
    let is_plain = plain::is_plain(raw.as_bytes());
    let named = (Reason::BadValue, column.name.as_str());
    let merged = read_entries(raw, number, named, is_plain, changes)?;
    for (name, value) in merged.iter().filter_map(entry) {
        storable(name, "a name")?;
        match value.as_bytes()[0] {
            b'{' | b'[' => return Err(bad_value(column, value)),
            b'-' | b'0'..=b'9' if !is_storable_number(value) => {
                return Err(bad_value(column, value));
            }
            b'"' => storable(&string(value).unwrap_or_default(), &column.name)?,
            _ => {}
        }
    }
    for change in merged {
        if let Change::Merge { value, .. } = change
            && *value == Some("null")
        {
            *value = None;
        }
    }
    Ok(())
}
