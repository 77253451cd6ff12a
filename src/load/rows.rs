//! Messages for a table that the configuration describes: rows that the seed makes, each column at its path with a value of its
//! type. Now and then a null, and a delete where the table has them.
//!
//! They add small numbers, so sums stay within narrow columns for long.

use super::traffic::{Message, id};
use crate::ids::RowKey;
use crate::table::{Column, Deletes, KeyValues, Kind, Path, Place, Rule, Table};
use rand::Rng;
use rand::rngs::SmallRng;
use serde_json::{Map, Value, json};
use std::fmt::Write;
use std::sync::Arc;

/// Shares of the messages: those that name a column, are null there, delete their row.
const NAMED: f64 = 0.7;
const NULL: f64 = 0.03;
const DELETES: f64 = 0.01;

/// Words that texts and names are made of.
const WORDS: [&str; 6] = ["mill", "pond", "Zoë", "日本語", "a \"b\"", "back\\slash"];
/// 1970 to 2026, in seconds.
const SECONDS: std::ops::Range<i64> = 0..1_780_000_000;

/// The rows of a table.
#[derive(Clone, Debug)]
pub(super) struct Rows {
    pub table: Arc<Table>,
    pub seed: u64,
    /// Values of the column that picks the shard, where it is not the whole key.
    pub groups: u32,
}

impl Rows {
    /// Writes a message for the row with that number: key and value. How the row is known.
    pub fn write(&self, row: u32, random: &mut SmallRng, message: &mut Message) -> RowKey {
        let table = &*self.table;
        let (mut key, mut value) = (Map::new(), Map::new());
        let mut values = KeyValues::default();
        message.key.clear();
        for (at, column) in table.keys.iter().enumerate() {
            let number = match at == table.shard_by && table.keys.len() > 1 {
                true => row % self.groups,
                false => row,
            };
            let json = self.key_part(&column.name, column.kind, number, &mut values);
            match (column.from.place, column.from.names.is_empty()) {
                (Place::Key, true) => message.key = plain(&json).into_bytes(),
                (Place::Key, false) => put(&mut key, &column.from.names, json),
                (Place::Value, _) => put(&mut value, &column.from.names, json),
            }
        }
        if !key.is_empty() {
            message.key = Value::Object(key).to_string().into_bytes();
        }
        message.tombstone = false;
        match (random.random_bool(DELETES), &table.deletes) {
            (true, Deletes::Marks { field, values }) => {
                put(&mut value, &field.names, Value::String(values[0].clone()));
            }
            (true, Deletes::Tombstones) if table.is_keyed_by_kafka() => message.tombstone = true,
            _ => {
                for column in &table.columns {
                    if random.random_bool(NAMED) {
                        put(&mut value, &column.from.names, said(column, random));
                    }
                }
            }
        }
        message.value = Value::Object(value).to_string().into_bytes();
        table.row_key(&values)
    }

    fn key_part(&self, name: &str, kind: Kind, number: u32, values: &mut KeyValues) -> Value {
        match kind {
            Kind::Uuid => {
                let id = id(self.seed, name, number);
                values.push(&id);
                Value::String(uuid::Uuid::from_bytes(id).to_string())
            }
            Kind::Bigint => {
                values.push(&i64::from(number).to_be_bytes());
                json!(number)
            }
            Kind::Integer => {
                let number = i32::try_from(number).unwrap_or(i32::MAX);
                values.push(&number.to_be_bytes());
                json!(number)
            }
            _ => {
                let text = format!("{name} {number}");
                values.push(text.as_bytes());
                Value::String(text)
            }
        }
    }
}

/// A text by itself, without its quotes.
fn plain(json: &Value) -> String {
    match json {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Puts a value at its path. One that another column's path leads through stays as it is.
fn put(object: &mut Map<String, Value>, names: &[String], value: Value) {
    let Some((first, rest)) = names.split_first() else {
        return;
    };
    if rest.is_empty() {
        object.entry(first.clone()).or_insert(value);
        return;
    }
    let within = object.entry(first.clone());
    if let Value::Object(within) = within.or_insert_with(|| Value::Object(Map::new())) {
        put(within, rest, value);
    }
}

/// What a message says of a column.
fn said(column: &Column, random: &mut SmallRng) -> Value {
    if random.random_bool(NULL) {
        return Value::Null;
    }
    match column.rule {
        Rule::Set => any(column.kind, random),
        Rule::Merge => {
            let names = (0..random.random_range(1..3)).map(|_| {
                let name = WORDS[random.random_range(0..WORDS.len())].to_owned();
                let value = match random.random_range(0..4) {
                    0 => Value::Null,
                    1 => json!(random.random_range(-9..100)),
                    2 => json!(random.random_bool(0.5)),
                    _ => any(Kind::Text, random),
                };
                (name, value)
            });
            Value::Object(names.collect())
        }
        Rule::Add => match column.kind {
            Kind::Numeric(size) => {
                let (precision, scale) = size.unwrap_or((9, 2));
                Value::String(digits(precision.min(scale + 2).min(17), scale, random))
            }
            _ => json!(random.random_range(-5..10)),
        },
        Rule::KeepMax | Rule::KeepMin => any(column.kind, random),
    }
}

fn any(kind: Kind, random: &mut SmallRng) -> Value {
    match kind {
        Kind::Uuid => Value::String(uuid::Uuid::from_u128(random.random()).to_string()),
        Kind::Text => {
            let word = WORDS[random.random_range(0..WORDS.len())];
            Value::String(format!("{word} {}", random.random_range(0..1000)))
        }
        Kind::Boolean => json!(random.random_bool(0.5)),
        Kind::Integer => json!(random.random::<i32>()),
        Kind::Bigint => json!(random.random::<i64>()),
        Kind::Double => json!(f64::from(random.random::<i32>()) / 1024.0),
        Kind::Numeric(size) => {
            let (precision, scale) = size.unwrap_or((12, 4));
            Value::String(digits(precision.min(17), scale.min(17), random))
        }
        Kind::Timestamptz => {
            let second = random.random_range(SECONDS);
            let at = jiff::Timestamp::from_second(second).expect("a second of our time");
            Value::String(at.to_string())
        }
        Kind::Date => {
            let second = random.random_range(SECONDS);
            let at = jiff::Timestamp::from_second(second).expect("a second of our time");
            Value::String(at.to_zoned(jiff::tz::TimeZone::UTC).date().to_string())
        }
        Kind::Jsonb => json!({"n": random.random_range(0..1000), "list": [1, null, "x"]}),
    }
}

/// A number of at most so many digits, of which `scale` are behind the point.
fn digits(precision: u32, scale: u32, random: &mut SmallRng) -> String {
    let end = 10i64.pow(precision);
    let number = random.random_range(-end + 1..end);
    let mut text = String::new();
    if number < 0 {
        text.push('-');
    }
    let (size, unit) = (number.unsigned_abs(), 10u64.pow(scale));
    write!(text, "{}", size / unit).expect("writing to a string");
    if scale > 0 {
        let width = usize::try_from(scale).expect("few digits");
        write!(text, ".{:0width$}", size % unit).expect("writing to a string");
    }
    text
}

/// Whether a table's messages can be made: a path that leads through another one's value finds nothing there.
pub fn collision(table: &Table) -> Option<String> {
    let keys = table.keys.iter().map(|column| &column.from);
    let columns = table.columns.iter().map(|column| &column.from);
    let mark = match &table.deletes {
        Deletes::Marks { field, .. } => Some(field),
        Deletes::Never | Deletes::Tombstones => None,
    };
    let paths: Vec<&Path> = keys.chain(columns).chain(mark).collect();
    let leads_through = |one: &Path, other: &Path| {
        let (shorter, longer) = (&one.names, &other.names);
        one.place == other.place && shorter.len() < longer.len() && longer.starts_with(shorter)
    };
    let mut pairs = paths
        .iter()
        .flat_map(|one| paths.iter().map(move |other| (*one, *other)));
    let found = pairs.find(|(one, other)| one != other && leads_through(one, other));
    found.map(|(one, other)| format!("{other} leads through {one}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::clothesly::random;
    use crate::table::KeyColumn;
    use crate::update::{Content, decode_for, judge_for};

    fn path(text: &str) -> Path {
        Path::parse(text).expect("a path")
    }

    fn table(key: &[(&str, Kind)], deletes: Deletes) -> Table {
        let keys = key.iter().map(|(from, kind)| KeyColumn {
            name: "k".to_owned(),
            kind: *kind,
            from: path(from),
        });
        let mut columns = Vec::new();
        for (_, rule) in Rule::ALL {
            let kinds = Kind::names().filter_map(|name| Kind::parse(name).ok());
            let sized = [(4, 2), (36, 18), (3, 3), (5, 0)].map(|size| Kind::Numeric(Some(size)));
            for kind in kinds.chain(sized).filter(|kind| rule.takes(*kind)) {
                let name = format!("c{}", columns.len());
                let from = path(&format!("after.{}.{name}", columns.len() % 3));
                columns.push(Column {
                    name,
                    rule,
                    kind,
                    from,
                });
            }
        }
        Table {
            name: "t".to_owned(),
            keys: keys.collect(),
            shard_by: 0,
            columns,
            deletes,
            own: None,
        }
    }

    #[test]
    fn every_message_is_good_for_its_row_whatever_the_table() {
        let marks = Deletes::Marks {
            field: path("op"),
            values: vec!["d".to_owned()],
        };
        for table in [
            table(&[("@key", Kind::Text)], Deletes::Tombstones),
            table(&[("@key", Kind::Uuid)], Deletes::Never),
            table(&[("@key.a", Kind::Bigint), ("b.c", Kind::Integer)], marks),
            table(&[("id", Kind::Uuid)], Deletes::Tombstones),
        ] {
            let rows = Rows {
                table: Arc::new(table.clone()),
                seed: 7,
                groups: 3,
            };
            let (mut message, mut deletes) = (Message::default(), 0);
            for number in 0..3000 {
                let row = u32::try_from(number % 50).expect("small");
                let key = rows.write(row, &mut random(7, number), &mut message);
                let judged = judge_for(&table, Some(&message.key), message.value(), 100_000);
                let value = judged.expect("a good message").value;
                let content = Content {
                    key: &message.key,
                    value,
                };
                let nowhere = (crate::ids::Partition(0), None);
                let update = decode_for(&table, Vec::new(), content, nowhere);
                let update = update.unwrap_or_else(|bad| panic!("{bad:?}"));
                assert_eq!(update.key, key, "{number}");
                deletes += u32::from(update.deletes());
            }
            let can_delete = match table.deletes {
                Deletes::Never => false,
                Deletes::Tombstones => table.is_keyed_by_kafka(),
                Deletes::Marks { .. } => true,
            };
            assert_eq!(deletes > 0, can_delete, "{deletes}");
        }
    }

    #[test]
    fn a_path_that_leads_through_another_is_found() {
        let mut table = table(&[("@key.after", Kind::Text)], Deletes::Never);
        assert_eq!(collision(&table), None);
        table.columns[0].from = path("after");
        assert!(collision(&table).is_some_and(|why| why.ends_with("leads through after")));
    }
}
