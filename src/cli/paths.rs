//! Whether the paths of a table's columns lead anywhere, in the newest messages of the topic: a path that is misspelled would
//! leave its column as it is, and say nothing.

use super::print_note;
use crate::config::Config;
use crate::ids::Partition;
use crate::kafka::admin::Admin;
use crate::kafka::reader::{Reader, Span};
use crate::table::Table;
use crate::update::{Content, names_in, paths_found};
use anyhow::ensure;
use std::collections::BTreeSet;
use std::time::Duration;

/// Each question to the brokers ends by then.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Partitions that are looked into, and messages of each.
const PARTITIONS: usize = 10;
const MESSAGES: i64 = 20;
/// Names that are shown.
const NAMES: usize = 30;

/// What the newest messages hold.
#[derive(Default)]
struct Found {
    messages: u32,
    /// For each column of the key, then for each other.
    paths: Vec<u32>,
    /// In keys, and in values.
    names: BTreeSet<String>,
}

/// Looks, and says in how many messages the key is; notes columns that are in none. A key that is in none is an error.
pub(super) fn look(config: &Config, table: &Table) -> anyhow::Result<String> {
    let found = read(config, table)?;
    let count = found.messages;
    if count == 0 {
        return Ok("messages: none to look at".to_owned());
    }
    let names: Vec<&str> = found.names.iter().map(String::as_str).take(NAMES).collect();
    let names = names.join(", ");
    let (keys, columns) = found.paths.split_at(table.keys.len());
    for (key, times) in table.keys.iter().zip(keys) {
        ensure!(
            *times > 0,
            "column {}: nothing is at {} in any of the {count} newest messages, so all would be dead letters. There is: {names}; \
             correct table.columns.{}.from",
            key.name,
            key.from,
            key.name
        );
    }
    for (column, times) in table.columns.iter().zip(columns) {
        if *times == 0 {
            print_note(&format!(
                "warning: column {}: nothing is at {} in any of the {count} newest messages. There is: {names}; is \
                 table.columns.{}.from right?",
                column.name, column.from, column.name
            ));
        }
    }
    let least = keys.iter().min().copied().unwrap_or(0);
    Ok(format!(
        "messages: {least} of the {count} newest name their row"
    ))
}

fn read(config: &Config, table: &Table) -> anyhow::Result<Found> {
    let kafka = &config.kafka;
    let admin = Admin::connect(kafka)?;
    let starts = admin.start_offsets(&kafka.topic, TIMEOUT)?;
    let ends = admin.end_offsets(&kafka.topic, TIMEOUT)?;
    let spans = (0..).map(Partition).zip(starts.into_iter().zip(ends));
    let spans = spans.map(|(partition, (start, end))| Span {
        partition,
        start: start.max(end - MESSAGES),
        end,
    });
    let spans: Vec<Span> = spans
        .filter(|span| span.start < span.end)
        .take(PARTITIONS)
        .collect();
    let mut found = Found {
        paths: vec![0; table.keys.len() + table.columns.len()],
        ..Found::default()
    };
    let mut reader = Reader::open(kafka, &kafka.topic, &spans)?;
    while let Some(message) = reader.next(TIMEOUT) {
        let message = message?;
        let content = Content {
            key: message.key().unwrap_or_default(),
            value: message.value().unwrap_or_default(),
        };
        found.messages += 1;
        for (times, is_found) in found.paths.iter_mut().zip(paths_found(table, content)) {
            *times += u32::from(is_found);
        }
        let in_key = names_in(content.key).into_iter();
        found
            .names
            .extend(in_key.map(|name| format!("@key.{name}")));
        found.names.extend(names_in(content.value));
    }
    Ok(found)
}
