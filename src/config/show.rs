//! The merged values as `config show` prints them: every key with value, unit and origin; what is secret is hidden.

use super::checked::Config;
use super::file::Given;
use super::keys::{self, Key};
use super::passthrough;
use super::postgres_address;
use super::problem::Origin;
use super::written::{Setting, Written};
use std::hash::{Hash, Hasher};

/// One setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// Its full name, `shard.NAME.KEY` for a shard's.
    pub key: String,
    /// As it was written; what is secret is `(hidden)`, `""` where it is empty.
    pub value: String,
    /// What a number counts; empty where there is nothing to count.
    pub unit: &'static str,
    /// Where it came from.
    pub origin: Origin,
    /// Differs where the value as it was written does, secret or not. Never shown.
    fingerprint: u64,
}

impl Value {
    /// Whether the same was written, wherever it came from.
    pub fn says_the_same(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint
    }
}

/// All settings, in the order of the example, shards by their range.
pub(super) fn values(written: &Written, config: &Config) -> Vec<Value> {
    let value = |name: String, key: &Key| {
        let setting = written.setting(&name);
        Value {
            value: shown(setting, key.secret),
            unit: key.unit,
            origin: setting.origin.clone(),
            fingerprint: fingerprint(setting),
            key: name,
        }
    };
    let (kafka, others): (Vec<&Key>, Vec<&Key>) = keys::KEYS
        .iter()
        .partition(|key| key.name.starts_with("kafka."));
    let plain = |key: &&Key| value(key.name.to_owned(), key);
    let mut values: Vec<Value> = kafka.iter().map(plain).collect();
    for (name, setting) in &written.librdkafka {
        values.push(Value {
            key: format!("{}{name}", keys::LIBRDKAFKA),
            value: shown(setting, passthrough::is_secret(name)),
            unit: "",
            origin: setting.origin.clone(),
            fingerprint: fingerprint(setting),
        });
    }
    for shard in &config.shards {
        for key in &keys::SHARD_KEYS {
            let mut value = value(keys::of_shard(&shard.name, key.name), key);
            if key.name == "postgres" {
                let text = written.setting(&value.key).value.to_string();
                value.value = postgres_address::without_password(&text);
            }
            values.push(value);
        }
    }
    let (table, others): (Vec<&Key>, Vec<&Key>) = others
        .into_iter()
        .partition(|key| key.name.starts_with("table."));
    values.extend(table.iter().map(plain));
    for column in &written.columns {
        values.extend(column.entries.iter().map(|(key, setting)| Value {
            key: format!("{}{}.{key}", keys::COLUMNS, column.name),
            value: shown(setting, false),
            unit: "",
            origin: setting.origin.clone(),
            fingerprint: fingerprint(setting),
        }));
    }
    values.extend(others.iter().map(plain));
    values
}

fn fingerprint(setting: &Setting) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    setting.value.to_string().hash(&mut hasher);
    hasher.finish()
}

fn shown(setting: &Setting, secret: bool) -> String {
    let empty = match &setting.value {
        Given::Text(text) => text.is_empty() || text == "[]",
        Given::List(list) => list.is_empty(),
        Given::Bare(_) => false,
    };
    if secret && !empty {
        "(hidden)".to_owned()
    } else {
        setting.value.to_string()
    }
}

/// A line for each value, in columns.
#[must_use]
pub fn lines(values: &[Value]) -> String {
    let width = |column: fn(&Value) -> &str| {
        let widths = values.iter().map(|value| column(value).chars().count());
        widths.max().unwrap_or(0)
    };
    let (keys, texts, units) = (
        width(|value| &value.key),
        width(|value| &value.value),
        width(|value| value.unit),
    );
    let line = |value: &Value| {
        format!(
            "{:keys$}  {:texts$}  {:units$}  {}",
            value.key, value.value, value.unit, value.origin
        )
    };
    values.iter().map(line).collect::<Vec<_>>().join("\n")
}
