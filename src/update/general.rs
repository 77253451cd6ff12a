//! Messages for a table that the configuration describes: key, deletes and columns, each from its path. What is judged, and
//! in which order, depends on the message and the table only, so a replay judges it the same: size, null, empty, key (the poller's
//! part, and again the worker's), partition, then the columns in their order.

use super::fields::Text;
use super::values::{NESTING_MAX, differs, nesting, read_column};
use super::{Change, Envelope, Rejection, Update, has_lone_surrogate, plain, storable};
use crate::dead::Reason;
use crate::ids::{Partition, RowKey};
use crate::partitioner::Partitioner;
use crate::table::{Deletes, KeyColumn, KeyValues, Kind, Path, Place, Table};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// Bytes of a row's key: an index takes about 2,700 in one entry, and what it doesn't take could not even be refused.
const KEY_BYTES_MAX: usize = 2_000;

/// What some converters write for no value: Kafka Connect's for JSON does where the record still has a schema, as with deletes
/// that Debezium unwraps.
const NULL: &[u8] = b"null";

/// A message as it lies in a lane. An empty value is refused before, and an empty key is as good as none.
#[derive(Clone, Copy, Debug)]
pub struct Content<'a> {
    /// The Kafka key; empty for none.
    pub key: &'a [u8],
    /// The value; empty for a tombstone.
    pub value: &'a [u8],
}

impl Content<'_> {
    /// The key of its row.
    pub fn key_values(self, table: &Table) -> Result<KeyValues, Rejection> {
        let values = match &table.own {
            None => Message::new(self).key_values(table)?,
            Some(own) => own.row(table, self)?,
        };
        check_key_size(&values)?;
        Ok(values)
    }
}

/// At which columns' paths the message has something: those of the key, then the others. For those who look whether paths are
/// right; what can't be read has nothing anywhere.
pub fn paths_found(table: &Table, content: Content<'_>) -> Vec<bool> {
    let mut message = Message::new(content);
    let keys = table.keys.iter().map(|key| &key.from);
    let paths = keys.chain(table.columns.iter().map(|column| &column.from));
    let is_found = |path: &Path| match path.names.is_empty() {
        true => !content.key.is_empty(),
        false => message.find(path).is_ok_and(|found| found.is_some()),
    };
    paths.map(is_found).collect()
}

/// The names in an object, those within others with dots between them; none for a text that is no object, or too deep a one.
pub fn names_in(json: &[u8]) -> Vec<String> {
    let text = std::str::from_utf8(json).unwrap_or_default();
    if nesting(text) > NESTING_MAX {
        return Vec::new();
    }
    let Ok(names) = Names::of(text, "value") else {
        return Vec::new();
    };
    let mut all = Vec::new();
    for (name, raw) in names.0 {
        match raw.starts_with('{') {
            true => {
                let within = names_in(raw.as_bytes());
                all.extend(within.iter().map(|inner| format!("{name}.{inner}")));
            }
            false => all.push(name.into_owned()),
        }
    }
    all
}

/// Judges all that can be told before the columns are looked at, and names the row. `bytes_max`: of key and value together.
pub fn judge_for<'a>(
    table: &Table,
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    bytes_max: usize,
) -> Result<Envelope<'a>, Rejection> {
    super::envelope::check_size(key, value, bytes_max)?;
    let is_null = value.is_none_or(|value| value == NULL && table.own.is_none());
    let key = key.unwrap_or_default();
    let value = value.unwrap_or_default();
    if is_null && table.own.is_none() && !(table.deletes.any() && table.is_keyed_by_kafka()) {
        let why = match table.deletes {
            Deletes::Never => "the value is null, and table.delete is \"never\"",
            _ => "the value is null, so it doesn't say which row is meant",
        };
        return Err(Rejection::new(Reason::Tombstone, why));
    }
    if value.is_empty() && table.own.is_none() && !is_null {
        return Err(Rejection::new(Reason::Empty, "the value has no bytes"));
    }
    let values = Content { key, value }.key_values(table)?;
    Ok(Envelope {
        subscription: table.row_key(&values).subscription,
        key,
        value,
    })
}

/// Decodes a message that [`judge_for`] has let through, with memory that an earlier update has left.
pub fn decode_for<'a>(
    table: &Table,
    mut changes: Vec<Change<'a>>,
    content: Content<'a>,
    (partition, partitioner): (Partition, Option<&Partitioner>),
) -> Result<Update<'a>, Rejection> {
    let mut message = Message::new(content);
    let values = message.key_values(table)?;
    check_key_size(&values)?;
    let key = table.row_key(&values);
    check_home(table, key, partition, partitioner)?;
    if message.deletes(table)? {
        changes.push(Change::Delete);
    } else {
        for (number, column) in (0u8..).zip(&table.columns) {
            if let Some(raw) = message.find(&column.from)? {
                read_column(column, number, raw, &mut changes)?;
            }
        }
    }
    Ok(Update {
        key,
        values: Some(Box::new(values)),
        changes,
        unknown_keys: 0,
    })
}

pub(super) fn check_home(
    table: &Table,
    key: RowKey,
    partition: Partition,
    partitioner: Option<&Partitioner>,
) -> Result<(), Rejection> {
    let home = partitioner.map(|partitioner| partitioner.partition_of(key.app));
    let Some(home) = home.filter(|home| *home != partition) else {
        return Ok(());
    };
    let text = format!(
        "its row belongs on partition {home}, by the column {}; it was on {partition}",
        table.keys[table.shard_by].name
    );
    Err(Rejection::new(Reason::WrongPartition, text))
}

fn check_key_size(values: &KeyValues) -> Result<(), Rejection> {
    let bytes: usize = values.parts().map(<[u8]>::len).sum();
    if bytes <= KEY_BYTES_MAX {
        return Ok(());
    }
    let text =
        format!("the row's key has {bytes} bytes; no more than {KEY_BYTES_MAX} fit the index");
    Err(Rejection::new(Reason::BadId, text))
}

/// The objects of a message that were opened so far.
struct Message<'a> {
    content: Content<'a>,
    key: Option<Names<'a>>,
    value: Option<Names<'a>>,
    /// Objects within, by where their text begins.
    within: Vec<(*const u8, Names<'a>)>,
}

impl<'a> Message<'a> {
    fn new(content: Content<'a>) -> Self {
        Self {
            content,
            key: None,
            value: None,
            within: Vec::new(),
        }
    }

    fn key_values(&mut self, table: &Table) -> Result<KeyValues, Rejection> {
        let mut values = KeyValues::default();
        for column in &table.keys {
            let raw = match column.from.place {
                Place::Key if self.content.key.is_empty() => None,
                Place::Key if column.from.names.is_empty() => {
                    push_key_text(column, utf8(self.content.key, "key")?, &mut values)?;
                    continue;
                }
                _ => self.find(&column.from)?,
            };
            let Some(raw) = raw.filter(|raw| *raw != "null") else {
                let text = format!(
                    "there is nothing at {}, for the key column {}",
                    column.from, column.name
                );
                return Err(Rejection::new(Reason::MissingId, text));
            };
            push_key(column, raw, &mut values)?;
        }
        Ok(values)
    }

    fn deletes(&mut self, table: &Table) -> Result<bool, Rejection> {
        if self.content.value.is_empty() || self.content.value == NULL {
            return Ok(true);
        }
        let Deletes::Marks { field, values } = &table.deletes else {
            return Ok(false);
        };
        let Some(raw) = self.find(field)? else {
            return Ok(false);
        };
        let text = string(raw).unwrap_or(Cow::Borrowed(raw));
        Ok(values.iter().any(|value| *value == text))
    }

    /// The JSON text at the path; `None` where the path ends before.
    fn find(&mut self, path: &Path) -> Result<Option<&'a str>, Rejection> {
        let (opened, bytes, what) = match path.place {
            Place::Key => (&mut self.key, self.content.key, "key"),
            Place::Value => (&mut self.value, self.content.value, "value"),
        };
        if opened.is_none() {
            *opened = Some(Names::of(utf8(bytes, what)?, what)?);
        }
        let mut names = opened.as_ref().expect("just opened");
        let (last, before) = path
            .names
            .split_last()
            .expect("a path into JSON has a name");
        for name in before {
            let Some(raw) = names.get(name).filter(|raw| raw.starts_with('{')) else {
                return Ok(None);
            };
            let at = raw.as_ptr();
            let known = self.within.iter().position(|(start, _)| *start == at);
            let index = match known {
                Some(index) => index,
                None => {
                    self.within.push((at, Names::of(raw, what)?));
                    self.within.len() - 1
                }
            };
            names = &self.within[index].1;
        }
        Ok(names.get(last))
    }
}

fn utf8<'a>(bytes: &'a [u8], what: &str) -> Result<&'a str, Rejection> {
    std::str::from_utf8(bytes).map_err(|error| {
        Rejection::new(Reason::NotJson, format!("the {what} is not UTF-8: {error}"))
    })
}

/// The names of an object, each with its value's JSON text.
struct Names<'a>(Vec<(Cow<'a, str>, &'a str)>);

impl<'a> Names<'a> {
    fn of(text: &'a str, what: &str) -> Result<Self, Rejection> {
        if plain::is_plain(text.as_bytes()) {
            let mut names = Vec::new();
            if plain::object(text, |name, raw| names.push((Cow::Borrowed(name), raw))).is_some() {
                return Ok(Self(names));
            }
        }
        if has_lone_surrogate(text.as_bytes()) {
            let text = format!("the {what} holds half of a surrogate pair");
            return Err(Rejection::new(Reason::BadText, text));
        }
        serde_json::from_str(text).map_err(|error| {
            Rejection::new(
                Reason::NotJson,
                format!("the {what} is no JSON object: {error}"),
            )
        })
    }

    /// The last one of that name.
    fn get(&self, name: &str) -> Option<&'a str> {
        let found = self.0.iter().rev().find(|(own, _)| own == name);
        found.map(|(_, raw)| *raw)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Names<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Of;
        impl<'de> Visitor<'de> for Of {
            type Value = Names<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Names<'de>, A::Error> {
                let mut names = Vec::new();
                while let Some((Text(name), raw)) = map.next_entry::<Text<'de>, &'de RawValue>()? {
                    names.push((name, raw.get()));
                }
                Ok(Names(names))
            }
        }
        deserializer.deserialize_map(Of)
    }
}

/// What a JSON string spells; `None` for what is none.
pub(super) fn string(raw: &str) -> Option<Cow<'_, str>> {
    let within = raw.strip_prefix('"')?.strip_suffix('"')?;
    match within.contains('\\') {
        false => Some(Cow::Borrowed(within)),
        true => serde_json::from_str(raw).ok().map(Cow::Owned),
    }
}

/// Numbers may also come as text.
pub(super) fn digits(raw: &str) -> Cow<'_, str> {
    string(raw).unwrap_or(Cow::Borrowed(raw))
}

fn push_key(column: &KeyColumn, raw: &str, values: &mut KeyValues) -> Result<(), Rejection> {
    let text = match column.kind {
        Kind::Integer | Kind::Bigint => digits(raw),
        _ => string(raw).ok_or_else(|| bad_key(column, raw))?,
    };
    push_key_text(column, &text, values)
}

fn push_key_text(column: &KeyColumn, text: &str, values: &mut KeyValues) -> Result<(), Rejection> {
    let bad = || bad_key(column, text);
    match column.kind {
        Kind::Uuid => {
            let uuid = uuid::Uuid::try_parse(text).map_err(|_| bad())?;
            values.push(uuid.as_bytes());
        }
        Kind::Bigint => values.push(&text.parse::<i64>().map_err(|_| bad())?.to_be_bytes()),
        Kind::Integer => values.push(&text.parse::<i32>().map_err(|_| bad())?.to_be_bytes()),
        _ => {
            storable(text, &column.name)?;
            values.push(text.as_bytes());
        }
    }
    Ok(())
}

fn bad_key(column: &KeyColumn, found: &str) -> Rejection {
    let text = differs(&column.name, column.kind, &column.from, found);
    Rejection::new(Reason::BadId, format!("the key column {text}"))
}

#[cfg(test)]
#[path = "general_tests.rs"]
mod tests;
