//! What one message means to a table that the configuration describes: a dead letter, a delete, or what it does to columns.
//!
//! Of the model, so it shares the description of the table with the consumer, and no code that reads messages.

use super::super::json::{decimal, has_lone_surrogate, last_members, members, text};
use crate::dead::Reason;
use crate::ids::{AppId, Partition};
use crate::partitioner::Partitioner;
use crate::table::{Column, Deletes, Kind, Path, Place, Rule, Table};
use serde_json::value::RawValue;
use std::borrow::Cow;
use xxhash_rust::xxh3::xxh3_128;

/// A row's key: the text of each of its columns.
pub(super) type Key = Vec<String>;

/// What a good message does to its row.
pub(super) enum Effect {
    /// It is no more.
    Delete,
    /// By column; `None` where the message says nothing of it.
    Change(Vec<Option<Said>>),
}

/// What is said of one column. Equal values are equal texts.
pub(super) enum Said {
    /// It is this, or NULL.
    Is(Option<String>),
    /// These names are this, or are removed.
    Names(Vec<(String, Option<String>)>),
    /// A number, as digits and how many of them are behind the point.
    Number(i128, u32),
}

/// Reads messages of one table.
pub(super) struct Reader<'t> {
    pub table: &'t Table,
    pub partitioner: Option<&'t Partitioner>,
    pub bytes_max: usize,
}

impl Reader<'_> {
    /// The row, and what happens to it; else why it is a dead letter. The row is told where the key is good.
    pub fn read(
        &self,
        partition: Partition,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Result<(Key, Effect), Reason> {
        let length = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len);
        let size = length(key) + length(value);
        // So spells Kafka Connect a value that is none.
        let value = value.filter(|value| *value != b"null");
        if size > self.bytes_max {
            return Err(Reason::TooLarge);
        }
        let all_in_key = self
            .table
            .keys
            .iter()
            .all(|key| key.from.place == Place::Key);
        if value.is_none() && (self.table.deletes == Deletes::Never || !all_in_key) {
            return Err(Reason::Tombstone);
        }
        if value.is_some_and(<[u8]>::is_empty) {
            return Err(Reason::Empty);
        }
        let message = Texts { key, value };
        let mut row = Vec::new();
        let mut key_bytes = 0;
        let mut app = AppId([0; 16]);
        for (at, column) in self.table.keys.iter().enumerate() {
            let (text, bytes) = key_column(&message, &column.from, column.kind)?;
            if at == self.table.shard_by {
                app = app_of(column.kind, &bytes);
            }
            row.push(text);
            key_bytes += bytes.len();
        }
        if key_bytes > 2_000 {
            return Err(Reason::BadId);
        }
        let home = self
            .partitioner
            .map(|partitioner| partitioner.partition_of(app));
        if home.is_some_and(|home| home != partition) {
            return Err(Reason::WrongPartition);
        }
        let effect = self.effect(&message)?;
        Ok((row, effect))
    }

    fn effect(&self, message: &Texts<'_>) -> Result<Effect, Reason> {
        if message.value.is_none() {
            return Ok(Effect::Delete);
        }
        if let Deletes::Marks { field, values } = &self.table.deletes
            && let Some(json) = message.at(field)?
        {
            let said = if json.starts_with('"') {
                text(json)
            } else {
                Cow::Borrowed(json)
            };
            if values.iter().any(|value| *value == said) {
                return Ok(Effect::Delete);
            }
        }
        let mut changes = Vec::new();
        for column in &self.table.columns {
            let json = message.at(&column.from)?;
            changes.push(json.map(|json| said(column, json)).transpose()?.flatten());
        }
        Ok(Effect::Change(changes))
    }
}

/// By the rule in the README.
fn app_of(kind: Kind, bytes: &[u8]) -> AppId {
    match bytes.try_into() {
        Ok(uuid) if kind == Kind::Uuid => AppId(uuid),
        _ => AppId(xxh3_128(bytes).to_be_bytes()),
    }
}

struct Texts<'a> {
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
}

impl<'a> Texts<'a> {
    fn text(&self, place: Place) -> Result<&'a str, Reason> {
        let bytes = match place {
            Place::Key => self.key,
            Place::Value => self.value,
        };
        std::str::from_utf8(bytes.unwrap_or_default()).map_err(|_| Reason::NotJson)
    }

    /// The JSON at a path.
    fn at(&self, path: &Path) -> Result<Option<&'a str>, Reason> {
        let mut json = self.text(path.place)?;
        let mut names = path.names.iter().peekable();
        while let Some(name) = names.next() {
            if has_lone_surrogate(json) {
                return Err(Reason::BadText);
            }
            let members = last_members(json).ok_or(Reason::NotJson)?;
            let member = members.into_iter().find(|member| member.name == *name);
            let Some(member) = member else {
                return Ok(None);
            };
            json = member.value;
            if names.peek().is_some() && !json.starts_with('{') {
                return Ok(None);
            }
        }
        Ok(Some(json))
    }
}

/// The column's text, and the bytes that its identity is made of.
fn key_column(message: &Texts<'_>, from: &Path, kind: Kind) -> Result<(String, Vec<u8>), Reason> {
    if from.place == Place::Key && message.key.is_none_or(<[u8]>::is_empty) {
        return Err(Reason::MissingId);
    }
    let said: Cow<'_, str> = match from.names.is_empty() {
        true => Cow::Borrowed(message.text(from.place)?),
        false => {
            let json = message.at(from)?.filter(|json| *json != "null");
            let json = json.ok_or(Reason::MissingId)?;
            let is_number = matches!(kind, Kind::Bigint | Kind::Integer);
            match json.starts_with('"') {
                true => text(json),
                false if is_number => Cow::Borrowed(json),
                false => return Err(Reason::BadId),
            }
        }
    };
    let bad = |_| Reason::BadId;
    Ok(match kind {
        Kind::Uuid => {
            let uuid = uuid::Uuid::try_parse(&said).map_err(|_| Reason::BadId)?;
            (uuid.to_string(), uuid.as_bytes().to_vec())
        }
        Kind::Bigint => {
            let number: i64 = said.parse().map_err(bad)?;
            (number.to_string(), number.to_be_bytes().to_vec())
        }
        Kind::Integer => {
            let number: i32 = said.parse().map_err(bad)?;
            (number.to_string(), number.to_be_bytes().to_vec())
        }
        _ if said.contains('\0') => return Err(Reason::BadText),
        _ => (said.clone().into_owned(), said.into_owned().into_bytes()),
    })
}

fn said(column: &Column, json: &str) -> Result<Option<Said>, Reason> {
    let bad = Err(Reason::BadValue);
    Ok(match (column.rule, json) {
        (Rule::Set, "null") => Some(Said::Is(None)),
        (_, "null") => None,
        (Rule::Set, json) => Some(Said::Is(Some(set(column.kind, json)?))),
        (Rule::Merge, json) => Some(Said::Names(names(json)?)),
        (Rule::Add | Rule::KeepMax | Rule::KeepMin, json) => {
            let Some((whole, scale)) = number(column.kind, json) else {
                return bad;
            };
            if i64::try_from(whole).is_err() || scale > 18 {
                return bad;
            }
            Some(Said::Number(whole, scale))
        }
    })
}

fn string(json: &str) -> Result<String, Reason> {
    match json.starts_with('"') {
        true => Ok(text(json).into_owned()),
        false => Err(Reason::BadValue),
    }
}

fn set(kind: Kind, json: &str) -> Result<String, Reason> {
    let bad = Reason::BadValue;
    match kind {
        Kind::Text => {
            let said = string(json)?;
            if said.contains('\0') {
                Err(Reason::BadText)
            } else {
                Ok(said)
            }
        }
        Kind::Uuid => {
            let uuid = uuid::Uuid::try_parse(&string(json)?);
            uuid.map(|uuid| uuid.to_string()).map_err(|_| bad)
        }
        Kind::Boolean if json == "true" || json == "false" => Ok(json.to_owned()),
        Kind::Double if is_number(json) => Ok(double(json)),
        Kind::Date => {
            let text = string(json)?;
            // Debezium's days end so, and an escape would spell them otherwise.
            let has_zone = text.len() == 11 && text.ends_with('Z') && !json.contains('\\');
            let day = &text[..text.len() - usize::from(has_zone)];
            let date: jiff::civil::Date = day.parse().map_err(|_| bad)?;
            Ok(date.to_string())
        }
        Kind::Jsonb if is_too_deep(json, 0) => Err(bad),
        Kind::Jsonb => Ok(canonical(json)),
        Kind::Numeric(None) => {
            let digits = unquoted(json);
            if is_number(&digits) {
                Ok(decimal(&digits))
            } else {
                Err(bad)
            }
        }
        Kind::Numeric(Some(_)) if !is_number(&unquoted(json)) => Err(bad),
        Kind::Integer | Kind::Bigint | Kind::Timestamptz | Kind::Numeric(_) => {
            let (whole, scale) = number(kind, json).ok_or(bad)?;
            Ok(decimal(&format!("{whole}e-{scale}")))
        }
        Kind::Boolean | Kind::Double => Err(bad),
    }
}

fn unquoted(json: &str) -> Cow<'_, str> {
    if json.starts_with('"') {
        text(json)
    } else {
        Cow::Borrowed(json)
    }
}

/// A JSON number that Postgres' numeric takes, by the limits in the README.
fn is_number(text: &str) -> bool {
    let raw = serde_json::from_str::<&RawValue>(text);
    let is_json = raw.is_ok_and(|raw| raw.get() == text)
        && text.starts_with(|c: char| c == '-' || c.is_ascii_digit());
    let exponent = text
        .split(['e', 'E'])
        .nth(1)
        .map_or(Ok(0), str::parse::<i32>);
    is_json
        && text.len() <= 128
        && exponent.is_ok_and(|exponent| exponent.abs() <= 1000)
        && text.parse::<f64>().is_ok_and(f64::is_finite)
}

fn double(text: &str) -> String {
    let value: f64 = text.parse().unwrap_or(f64::NAN);
    // Zero has two signs, and one value.
    format!("{}", value + 0.0)
}

/// Whole digits, and how many of them are behind the point.
fn number(kind: Kind, json: &str) -> Option<(i128, u32)> {
    if kind == Kind::Timestamptz {
        let at: jiff::Timestamp = string(json).ok()?.parse().ok()?;
        return Some((i128::from(at.as_microsecond()), 0));
    }
    let said = unquoted(json);
    match kind {
        Kind::Integer => Some((i128::from(said.parse::<i32>().ok()?), 0)),
        Kind::Bigint => Some((i128::from(said.parse::<i64>().ok()?), 0)),
        Kind::Numeric(limits) => {
            let (whole, fraction) = said.split_once('.').unwrap_or((&said, ""));
            let size = whole.strip_prefix('-').unwrap_or(whole);
            let digits =
                |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            let is_complete = digits(size) && (digits(fraction) || !said.contains('.'));
            if !is_complete || size.len() + fraction.len() > 36 {
                return None;
            }
            let scale = u32::try_from(fraction.len()).ok()?;
            if let Some((precision, most)) = limits {
                let in_front = size.trim_start_matches('0').len();
                if scale > most || u32::try_from(in_front).ok()? > precision - most {
                    return None;
                }
            }
            Some((format!("{whole}{fraction}").parse().ok()?, scale))
        }
        _ => None,
    }
}

/// Which of several faults is told: that of the name that came first.
fn names(json: &str) -> Result<Vec<(String, Option<String>)>, Reason> {
    let last = last_members(json).ok_or(Reason::BadValue)?;
    for first in members(json).unwrap_or_default() {
        let member = last.iter().find(|member| member.name == first.name);
        if let Some(fault) = member.and_then(|member| fault(&member.name, member.value)) {
            return Err(fault);
        }
    }
    let names = last.into_iter().map(|member| {
        let value = (member.value != "null").then(|| canonical(member.value));
        (member.name.into_owned(), value)
    });
    Ok(names.collect())
}

fn fault(name: &str, value: &str) -> Option<Reason> {
    let first = value.chars().next()?;
    match first {
        _ if name.contains('\0') => Some(Reason::BadText),
        '{' | '[' => Some(Reason::BadValue),
        '"' => text(value).contains('\0').then_some(Reason::BadText),
        '-' | '0'..='9' => (!is_number(value)).then_some(Reason::BadValue),
        _ => None,
    }
}

/// Whether objects and arrays are more than 100 deep within each other.
fn is_too_deep(json: &str, depth: usize) -> bool {
    let json = json.trim();
    match json.as_bytes().first() {
        Some(b'{') => {
            let members = members(json).unwrap_or_default();
            let mut within = members.iter().map(|member| member.value);
            depth == 100 || within.any(|value| is_too_deep(value, depth + 1))
        }
        Some(b'[') => {
            let elements: Vec<&RawValue> = serde_json::from_str(json).unwrap_or_default();
            let mut within = elements.iter().map(|element| element.get());
            depth == 100 || within.any(|value| is_too_deep(value, depth + 1))
        }
        _ => false,
    }
}

/// One spelling for each JSON value, as jsonb sees it: the last of equal names, numbers by value.
pub(super) fn canonical(json: &str) -> String {
    let json = json.trim();
    match json.as_bytes().first() {
        Some(b'{') => {
            let members = last_members(json).unwrap_or_default();
            let members = members.iter().map(|member| {
                let name = serde_json::to_string(&member.name).unwrap_or_default();
                format!("{name}:{}", canonical(member.value))
            });
            format!("{{{}}}", members.collect::<Vec<_>>().join(","))
        }
        Some(b'[') => {
            let elements: Vec<&RawValue> = serde_json::from_str(json).unwrap_or_default();
            let elements = elements.iter().map(|element| canonical(element.get()));
            format!("[{}]", elements.collect::<Vec<_>>().join(","))
        }
        Some(b'"') => serde_json::to_string(&text(json)).unwrap_or_default(),
        Some(b'-' | b'0'..=b'9') => decimal(json),
        _ => json.to_owned(),
    }
}
