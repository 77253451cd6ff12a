//! The update and its wire form: one message decoded into what it does to the columns of its row, with text borrowed from
//! the message wherever it holds no escapes.
//!
//! Decoding judges everything that can be judged from the message alone, in a fixed order, so that a replay judges it the
//! same: size, null, empty, key ([`judge`], the poller's part), then JSON, ids, key, partition, tags, counts, parent, texts.

use crate::dead::Reason;
use crate::ids::{AppId, Partition, RowKey, SubscriptionId};
use crate::partitioner::Partitioner;
use memchr::memchr;
use serde::de::{Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::{borrow::Cow, fmt};

mod change;
mod envelope;
mod spares;

pub use change::{Change, SetValue, Update, column};
pub use envelope::{Envelope, judge};
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
    let has_escapes = memchr(b'\\', value).is_some();
    let fields = match serde_json::from_str::<Fields<'a>>(text) {
        _ if has_escapes && has_lone_surrogate(value) => {
            return Err(Rejection::new(
                Reason::BadText,
                "the value holds half of a surrogate pair",
            ));
        }
        Ok(fields) => fields,
        Err(error) => {
            return Err(Rejection::new(
                Reason::NotJson,
                format!("the value is no JSON object: {error}"),
            ));
        }
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
        read_tags(tags.get(), &mut changes)?;
    }
    if let Some(counts) = fields.counts {
        read_counts(counts.get(), &mut changes)?;
    }
    if let Some(parent) = fields.parent_id {
        changes.push(read_parent(parent.get(), subscription)?);
    }
    if has_escapes {
        check_texts(&changes)?;
    }
    for (field, column, name) in [
        (fields.device_type, column::DEVICE_TYPE, "device_type"),
        (fields.identifier, column::IDENTIFIER, "identifier"),
    ] {
        if let Some(raw) = field {
            changes.push(Change::Set {
                column,
                value: read_text(raw.get(), name)?,
            });
        }
    }
    Ok(Update {
        key: RowKey { app, subscription },
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

/// The top level of a value, each field still as JSON text. A key that comes twice: the last wins.
#[derive(Default)]
struct Fields<'a> {
    app_id: Option<&'a RawValue>,
    subscription_id: Option<&'a RawValue>,
    tags: Option<&'a RawValue>,
    counts: Option<&'a RawValue>,
    parent_id: Option<&'a RawValue>,
    device_type: Option<&'a RawValue>,
    identifier: Option<&'a RawValue>,
    unknown_keys: u32,
}

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Of;
        impl<'de> Visitor<'de> for Of {
            type Value = Fields<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut fields = Fields::default();
                while let Some(Text(key)) = map.next_key()? {
                    let field = match key.as_ref() {
                        "app_id" => &mut fields.app_id,
                        "subscription_id" => &mut fields.subscription_id,
                        "tags" => &mut fields.tags,
                        "counts" => &mut fields.counts,
                        "parent_id" => &mut fields.parent_id,
                        "device_type" => &mut fields.device_type,
                        "identifier" => &mut fields.identifier,
                        _ => {
                            fields.unknown_keys += 1;
                            map.next_value::<IgnoredAny>()?;
                            continue;
                        }
                    };
                    *field = Some(map.next_value()?);
                }
                Ok(fields)
            }
        }
        deserializer.deserialize_map(Of)
    }
}

/// A JSON string, borrowed unless it holds escapes.
struct Text<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Of;
        impl<'de> Visitor<'de> for Of {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Of)
    }
}

/// Appends the entries of a JSON object in order, as merges: names unescaped, values as JSON text.
struct Entries<'c, 'a> {
    column: u8,
    changes: &'c mut Vec<Change<'a>>,
}

impl<'de> DeserializeSeed<'de> for Entries<'_, 'de> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Entries<'_, 'de> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { column, changes } = self;
        let start = changes.len();
        while let Some((Text(new), raw)) = map.next_entry::<Text<'de>, &'de RawValue>()? {
            let raw = Some(raw.get());
            // A name that comes twice: the last wins. Few names, so looking through them is cheapest.
            let before = changes[start..].iter_mut().find_map(|change| match change {
                Change::Merge { name, value, .. } if *name == new => Some(value),
                _ => None,
            });
            match before {
                Some(value) => *value = raw,
                None => changes.push(Change::Merge {
                    column,
                    name: new,
                    value: raw,
                }),
            }
        }
        Ok(())
    }
}

fn uuid(field: Option<&RawValue>, name: &str) -> Result<[u8; 16], Rejection> {
    let Some(raw) = field.map(RawValue::get).filter(|raw| *raw != "null") else {
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

fn parse_uuid(raw: &str) -> Option<[u8; 16]> {
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
    changes: &'c mut Vec<Change<'a>>,
) -> Result<&'c mut [Change<'a>], Rejection> {
    let start = changes.len();
    let mut json = serde_json::Deserializer::from_str(raw);
    match (Entries { column, changes }).deserialize(&mut json) {
        Ok(()) => Ok(&mut changes[start..]),
        Err(_) => Err(Rejection::new(
            reason,
            format!("{what} is no object: {}", shortened(raw)),
        )),
    }
}

/// Judges all values before any text, as `bad-tags` comes before `bad-text`.
fn read_tags<'a>(raw: &'a str, changes: &mut Vec<Change<'a>>) -> Result<(), Rejection> {
    let tags = read_entries(raw, column::TAGS, (Reason::BadTags, "tags"), changes)?;
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
        if let Some((name, text)) = entry(tag) {
            storable(name, "a tag's name")?;
            if text.starts_with('"') && text.contains("\\u0000") && unescaped(text).contains('\0') {
                return Err(nul("a tag's value"));
            }
        }
        if let Change::Merge { value, .. } = tag {
            *value = value.filter(|value| *value != "null" && *value != "\"\"");
        }
    }
    Ok(())
}

fn read_counts<'a>(raw: &'a str, changes: &mut Vec<Change<'a>>) -> Result<(), Rejection> {
    let named = (Reason::BadCounts, "counts");
    for count in read_entries(raw, column::COUNTS, named, changes)? {
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
        Change::Add { .. } | Change::Set { .. } => None,
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

fn read_text<'a>(raw: &'a str, name: &str) -> Result<Option<SetValue<'a>>, Rejection> {
    if raw == "null" {
        return Ok(None);
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

/// Only an escape can spell a NUL in JSON, so this is asked of few messages.
fn check_texts(changes: &[Change<'_>]) -> Result<(), Rejection> {
    for change in changes {
        match change {
            Change::Merge { name, value, .. } => {
                storable(name, "a tag's name")?;
                let text = value.filter(|value| value.contains("\\u0000"));
                storable(&text.map(unescaped).unwrap_or_default(), "a tag's value")?;
            }
            Change::Add { name, .. } => storable(name, "a count's name")?,
            Change::Set { .. } => {}
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
