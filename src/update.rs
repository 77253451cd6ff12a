//! The update and its wire form: one message decoded into what it does to the columns of its row, with text borrowed from
//! the message wherever it holds no escapes.
//!
//! Decoding judges everything that can be judged from the message alone, in a fixed order, so that a replay judges it the
//! same: size, null, empty, key ([`judge`], the poller's part), then JSON, ids, key, partition, tags, counts, parent, texts.

use crate::dead::Reason;
use crate::ids::{AppId, Partition, RowKey, SubscriptionId};
use crate::partitioner::Partitioner;
use fields::{Entries, Fields, Text, push_entry};
use serde::de::DeserializeSeed;
use std::borrow::Cow;

mod change;
mod envelope;
mod fields;
mod general;
mod own;
mod plain;
mod spares;
mod values;

pub use change::{Change, SetValue, Update, column};
pub use envelope::{Envelope, judge};
pub use general::{Content, decode_for, judge_for, names_in, paths_found};
pub use own::{Decoded, Incoming, KeyPart, Own, Reader, decode_own};
pub use spares::Spares;

/// Why a message can't be applied, ever.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The dead letter's reason.
    pub reason: Reason,
    /// What was wrong, for people.
    pub message: String,
}

impl Rejection {
    /// A rejection with its explanation.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
        }
    }
}

/// Where a message was found, which its content must agree with.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The subscription that the Kafka key names.
    pub subscription: SubscriptionId,
    /// The partition that it was read from.
    pub partition: Partition,
    /// The rule that says where it belongs; `None` trusts the producer.
    pub partitioner: Option<&'a Partitioner>,
}

/// A longer number is refused: Postgres' numeric ends at some length, and no sane tag comes near.
const NUMBER_LENGTH_MAX: usize = 128;
/// Beyond a double's range in either direction; Postgres' numeric ends at 16,383 digits behind the point.
const EXPONENT_MAX: i32 = 1000;

/// Decodes the value of a message.
pub fn decode<'a>(value: &'a [u8], place: &Place<'_>) -> Result<Update<'a>, Rejection> {
    decode_into(Vec::new(), value, place)
}

/// The same, with memory that an earlier update has left ([`Spares`]).
pub fn decode_into<'a>(
    mut changes: Vec<Change<'a>>,
    value: &'a [u8],
    place: &Place<'_>,
) -> Result<Update<'a>, Rejection> {
    let text = std::str::from_utf8(value).map_err(|error| {
        Rejection::new(Reason::NotJson, format!("the value is not UTF-8: {error}"))
    })?;
    let is_plain = plain::is_plain(value);
    let fields = match is_plain.then(|| Fields::plain(text)).flatten() {
        Some(fields) => fields,
        None => Fields::any(text)?,
    };
    let app = AppId(uuid(fields.app_id, "app_id")?);
    let subscription = SubscriptionId(uuid(fields.subscription_id, "subscription_id")?);
    if subscription != place.subscription {
        let message = format!(
            "the key names subscription {}, the value {subscription}",
            place.subscription
        );
        return Err(Rejection::new(Reason::KeyMismatch, message));
    }
    check_home(app, place)?;
    if let Some(tags) = fields.tags {
        read_tags(tags, is_plain, &mut changes)?;
    }
    if let Some(counts) = fields.counts {
        read_counts(counts, is_plain, &mut changes)?;
    }
    if let Some(parent) = fields.parent_id {
        changes.push(read_parent(parent, subscription)?);
    }
    if !is_plain {
        check_texts(&changes)?;
    }
    for (field, column, name) in [
        (fields.device_type, column::DEVICE_TYPE, "device_type"),
        (fields.identifier, column::IDENTIFIER, "identifier"),
    ] {
        if let Some(raw) = field {
            changes.push(Change::Set {
                column,
                value: read_text(raw, is_plain, name)?,
            });
        }
    }
    Ok(Update {
        key: RowKey { app, subscription },
        values: None,
        changes,
        unknown_keys: fields.unknown_keys,
    })
}

/// On the partition where its app belongs.
fn check_home(app: AppId, place: &Place<'_>) -> Result<(), Rejection> {
    let Some(home) = place
        .partitioner
        .map(|partitioner| partitioner.partition_of(app))
    else {
        return Ok(());
    };
    if home == place.partition {
        return Ok(());
    }
    let message = format!(
        "app {app} belongs on partition {home}; it was on {}",
        place.partition
    );
    Err(Rejection::new(Reason::WrongPartition, message))
}

fn uuid(field: Option<&str>, name: &str) -> Result<[u8; 16], Rejection> {
    let Some(raw) = field.filter(|raw| *raw != "null") else {
        return Err(Rejection::new(
            Reason::MissingId,
            format!("{name} is missing"),
        ));
    };
    parse_uuid(raw).ok_or_else(|| {
        Rejection::new(
            Reason::BadId,
            format!("{name} is no UUID: {}", shortened(raw)),
        )
    })
}

/// The UUID that a JSON string spells.
pub fn parse_uuid(raw: &str) -> Option<[u8; 16]> {
    let plain = raw.strip_prefix('"')?.strip_suffix('"')?;
    let id = AppId::parse(plain.as_bytes()).or_else(|| {
        let text: String = serde_json::from_str(raw).ok()?;
        AppId::parse(text.as_bytes())
    });
    id.map(|id| id.0)
}

/// Appends the entries of an object; which changes they are.
fn read_entries<'c, 'a>(
    raw: &'a str,
    column: u8,
    (reason, what): (Reason, &str),
    is_plain: bool,
    changes: &'c mut Vec<Change<'a>>,
) -> Result<&'c mut [Change<'a>], Rejection> {
    let start = changes.len();
    let push = |name, raw| push_entry(changes, start, (column, Cow::Borrowed(name), raw));
    if is_plain && plain::object(raw, push).is_some() {
        return Ok(&mut changes[start..]);
    }
    changes.truncate(start);
    let mut json = serde_json::Deserializer::from_str(raw);
    match (Entries { column, changes }).deserialize(&mut json) {
        Ok(()) => Ok(&mut changes[start..]),
        Err(_) => Err(Rejection::new(
            reason,
            format!("{what} is no object: {}", shortened(raw)),
        )),
    }
}

/// Judges values, and no text: what is wrong with a text is said when all else is right.
fn read_tags<'a>(
    raw: &'a str,
    is_plain: bool,
    changes: &mut Vec<Change<'a>>,
) -> Result<(), Rejection> {
    let named = (Reason::BadTags, "tags");
    let tags = read_entries(raw, column::TAGS, named, is_plain, changes)?;
    for (name, value) in tags.iter().filter_map(entry) {
        let fine = match value.as_bytes()[0] {
            b'{' | b'[' => false,
            b'-' | b'0'..=b'9' => is_storable_number(value),
            _ => true,
        };
        if !fine {
            let message = format!(
                "tag {name:?} is no string, number or boolean: {}",
                shortened(value)
            );
            return Err(Rejection::new(Reason::BadTags, message));
        }
    }
    for tag in tags {
        if let Change::Merge { value, .. } = tag {
            *value = value.filter(|value| *value != "null" && *value != "\"\"");
        }
    }
    Ok(())
}

fn read_counts<'a>(
    raw: &'a str,
    is_plain: bool,
    changes: &mut Vec<Change<'a>>,
) -> Result<(), Rejection> {
    let named = (Reason::BadCounts, "counts");
    for count in read_entries(raw, column::COUNTS, named, is_plain, changes)? {
        let Change::Merge {
            name,
            value: Some(value),
            ..
        } = count
        else {
            continue;
        };
        let Ok(delta) = value.parse::<i64>() else {
            let message = format!("count {name:?} is no 64-bit integer: {}", shortened(value));
            return Err(Rejection::new(Reason::BadCounts, message));
        };
        let name = std::mem::take(name);
        *count = Change::Add {
            column: column::COUNTS,
            name,
            delta,
        };
    }
    Ok(())
}

/// Name and value of an object's entry.
fn entry<'c, 'a>(change: &'c Change<'a>) -> Option<(&'c Cow<'a, str>, &'a str)> {
    match change {
        Change::Merge { name, value, .. } => value.map(|value| (name, value)),
        Change::Add { .. }
        | Change::Set { .. }
        | Change::Amount { .. }
        | Change::Delete
        | Change::Own(_) => None,
    }
}

fn read_parent<'a>(raw: &str, subscription: SubscriptionId) -> Result<Change<'a>, Rejection> {
    if raw == "null" {
        return Ok(Change::Set {
            column: column::PARENT,
            value: None,
        });
    }
    match parse_uuid(raw) {
        None => Err(Rejection::new(
            Reason::BadId,
            format!("parent_id is no UUID: {}", shortened(raw)),
        )),
        Some(id) if id == subscription.0 => Err(Rejection::new(
            Reason::SelfParent,
            "parent_id names the row itself",
        )),
        Some(id) => Ok(Change::Set {
            column: column::PARENT,
            value: Some(SetValue::Uuid(id)),
        }),
    }
}

fn read_text<'a>(
    raw: &'a str,
    is_plain: bool,
    name: &str,
) -> Result<Option<SetValue<'a>>, Rejection> {
    if raw == "null" {
        return Ok(None);
    }
    let quoted = raw
        .strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'));
    if let Some(text) = quoted.filter(|_| is_plain) {
        return Ok(Some(SetValue::Text(Cow::Borrowed(text))));
    }
    let Ok(Text(text)) = serde_json::from_str::<Text<'a>>(raw) else {
        return Err(Rejection::new(
            Reason::BadText,
            format!("{name} is no text: {}", shortened(raw)),
        ));
    };
    storable(&text, name)?;
    Ok(Some(SetValue::Text(text)))
}

/// Names and values of tags, and names of counts. Only an escape can spell a NUL in JSON, so this is asked of few messages.
fn check_texts(changes: &[Change<'_>]) -> Result<(), Rejection> {
    for change in changes {
        match change {
            Change::Merge { name, value, .. } => {
                storable(name, "a tag's name")?;
                let is_nul_in = |text: &str| {
                    text.starts_with('"')
                        && text.contains("\\u0000")
                        && unescaped(text).contains('\0')
                };
                if value.is_some_and(is_nul_in) {
                    return Err(nul("a tag's value"));
                }
            }
            Change::Add { name, .. } => storable(name, "a count's name")?,
            Change::Set { .. } | Change::Amount { .. } | Change::Delete | Change::Own(_) => {}
        }
    }
    Ok(())
}

/// Whether Postgres' numeric can hold it: not too long, not too large, not too fine.
fn is_storable_number(text: &str) -> bool {
    let exponent = text
        .split_once(['e', 'E'])
        .map_or(Ok(0), |(_, exponent)| exponent.parse::<i32>());
    text.len() <= NUMBER_LENGTH_MAX
        && exponent.is_ok_and(|exponent| exponent.abs() <= EXPONENT_MAX)
        && text.parse::<f64>().is_ok_and(f64::is_finite)
}

fn storable(text: &str, what: &str) -> Result<(), Rejection> {
    if text.contains('\0') {
        Err(nul(what))
    } else {
        Ok(())
    }
}

fn nul(what: &str) -> Rejection {
    Rejection::new(
        Reason::BadText,
        format!("{what} holds a NUL character, which Postgres can't store"),
    )
}

fn unescaped(raw: &str) -> String {
    serde_json::from_str(raw).expect("a JSON string without lone surrogates")
}

/// As much of a text as a message shows of it.
pub fn shortened(text: &str) -> &str {
    let end = text
        .char_indices()
        .map(|(at, _)| at)
        .nth(80)
        .unwrap_or(text.len());
    &text[..end]
}

/// Whether an escape names half of a surrogate pair without its other half. Postgres refuses such text.
fn has_lone_surrogate(text: &[u8]) -> bool {
    let unit = |at: usize| {
        let escape = text.get(at..at + 6)?;
        let digits = escape.strip_prefix(b"\\u")?;
        u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    let mut at = 0;
    while at < text.len() {
        if text[at] != b'\\' {
            at += 1;
            continue;
        }
        match unit(at) {
            Some(0xd800..=0xdbff) if matches!(unit(at + 6), Some(0xdc00..=0xdfff)) => at += 12,
            Some(0xd800..=0xdfff) => return true,
            Some(_) => at += 6,
            None => at += 2,
        }
    }
    false
}

#[cfg(test)]
#[path = "update_tests.rs"]
mod tests;
