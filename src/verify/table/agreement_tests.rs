//! Consumer and model share no code that reads messages. Here each reads every kind of value for every kind of column, and
//! they must judge alike.

use super::meaning::Reader;
use crate::dead::Reason;
use crate::ids::Partition;
use crate::table::{Column, Deletes, KeyColumn, Kind, Path, Rule, Table};
use crate::update::{Content, decode_for, judge_for};

const VALUES: [&str; 69] = [
    "null",
    "\"2017-09-15Z\"",
    "\"2017-09-15\\u005a\"",
    "\"2017-09-15T00:00:00Z\"",
    "true",
    "false",
    "0",
    "-0",
    "1",
    "-1",
    "+1",
    "01",
    "1.",
    ".5",
    "1.0",
    "0.001",
    "1.50",
    "-2.25",
    "1e2",
    "1E-3",
    "1e400",
    "1e2000",
    "-1e-2000",
    "2147483647",
    "2147483648",
    "-2147483649",
    "9223372036854775807",
    "9223372036854775808",
    "99999999999999999999999999999999999999",
    "123456.78",
    "1234567.89",
    "999999.99",
    "999999.995",
    "\"\"",
    "\"a\"",
    "\"1\"",
    "\"-1\"",
    "\"01\"",
    "\"+1\"",
    "\"1.\"",
    "\".5\"",
    "\"1.5\"",
    "\"0x1\"",
    "\" 1\"",
    "\"1e2\"",
    "\"NaN\"",
    "\"true\"",
    "\"2024-02-29\"",
    "\"2023-02-29\"",
    "\"2024-02-29T10:11:12Z\"",
    "\"2024-02-29T10:11:12.123456789+05:30\"",
    "\"2024-02-29T10:11:12\"",
    "\"5eb5a37e-b458-11e3-ac11-000c2940e62c\"",
    "\"5EB5A37EB45811E3AC11000C2940E62C\"",
    "\"a\\u0000b\"",
    "\"a\\ud800\"",
    "\"a\\ud83d\\ude00\"",
    "[]",
    "[1,{\"a\":null}]",
    "{}",
    "{\"a\":1,\"a\":null}",
    "{\"a\":\"\\u0000\"}",
    "{\"\\u0000\":1}",
    "{\"a\":{}}",
    "{\"b\":1e2000,\"a\":\"\\u0000\"}",
    "0.123456789012345678",
    "0.1234567890123456789",
    "\"[[{\"",
    "[\"[\\\"[\",[[{}]]]",
];

fn path(text: &str) -> Path {
    Path::parse(text).expect("a path")
}

fn table(rule: Rule, kind: Kind) -> Table {
    Table {
        name: "t".to_owned(),
        keys: vec![KeyColumn {
            name: "k".to_owned(),
            kind: Kind::Text,
            from: path("@key"),
        }],
        shard_by: 0,
        columns: vec![Column {
            name: "c".to_owned(),
            rule,
            kind,
            from: path("a.c"),
        }],
        deletes: Deletes::Marks {
            field: path("op"),
            values: vec!["a".to_owned(), "true".to_owned(), "1.0".to_owned()],
        },
        own: None,
    }
}

/// Why the consumer refuses a message, or whether it deletes its row.
fn consumer(table: &Table, key: &[u8], value: &[u8]) -> Result<bool, Reason> {
    let reason = |rejection: crate::update::Rejection| rejection.reason;
    judge_for(table, Some(key), Some(value), 100_000).map_err(reason)?;
    let content = Content { key, value };
    let decoded = decode_for(table, Vec::new(), content, (Partition(0), None));
    decoded.map(|update| update.deletes()).map_err(reason)
}

fn model(table: &Table, key: &[u8], value: &[u8]) -> Result<bool, Reason> {
    let reader = Reader {
        table,
        partitioner: None,
        bytes_max: 100_000,
    };
    let read = reader.read(Partition(0), Some(key), Some(value));
    read.map(|(_, effect)| matches!(effect, super::Effect::Delete))
}

fn kinds() -> impl Iterator<Item = Kind> {
    let named = Kind::names().chain(["numeric(8,2)", "numeric(36,0)"]);
    named.map(|name| Kind::parse(name).expect("a type"))
}

#[test]
fn consumer_and_model_judge_every_value_of_every_column_alike() {
    let mut compared = 0;
    for (_, rule) in Rule::ALL {
        for kind in kinds().filter(|kind| rule.takes(*kind)) {
            let table = table(rule, kind);
            for value in VALUES {
                for message in [
                    format!(r#"{{"a":{{"c":{value}}}}}"#),
                    format!(r#"{{"op":{value},"a":{{"c":1}}}}"#),
                    format!(r#" {{"a" : {{"b":"\n","c": {value} }}, "c":1}}"#),
                    format!(r#"{{"a":{value}}}"#),
                    value.to_owned(),
                ] {
                    let bytes = message.as_bytes();
                    let (ours, models) =
                        (consumer(&table, b"k", bytes), model(&table, b"k", bytes));
                    assert_eq!(ours, models, "{rule:?} {kind}: {message}");
                    compared += 1;
                }
            }
        }
    }
    assert!(compared > 5000, "{compared}");
}

#[test]
fn consumer_and_model_find_the_same_depth_and_the_same_key_too_much() {
    let table = table(Rule::Set, Kind::Jsonb);
    for (open, close) in [("[", "]"), ("{\"a\":[0,", "]}"), ("[\"]\\\"\",", "]")] {
        for depth in [1, 49, 50, 51, 99, 100, 101, 20_000] {
            let value = [&open.repeat(depth), "1", &close.repeat(depth)].concat();
            let message = format!(r#"{{"a":{{"c":{value}}}}}"#);
            let bytes = message.as_bytes();
            let judged = consumer(&table, b"k", bytes);
            assert_eq!(judged, model(&table, b"k", bytes), "{depth} times {open}");
            let deep = depth * open.matches(['[', '{']).count();
            let is_good =
                open.contains(':') && depth * 2 <= 100 || !open.contains(':') && depth <= 100;
            assert_eq!(judged.is_ok(), is_good, "{deep} deep: {open}");
        }
    }
    for length in [1, 2_000, 2_001, 9_000] {
        let key = "k".repeat(length);
        let judged = consumer(&table, key.as_bytes(), b"{}");
        assert_eq!(judged, model(&table, key.as_bytes(), b"{}"), "{length}");
        assert_eq!(judged.is_ok(), length <= 2_000, "{length}");
    }
}

#[test]
fn consumer_and_model_judge_every_key_alike() {
    for kind in kinds().filter(|kind| kind.is_for_keys()) {
        for from in ["@key", "@key.id", "id"] {
            let mut table = table(Rule::Set, Kind::Jsonb);
            table.keys[0].kind = kind;
            table.keys[0].from = path(from);
            for value in VALUES {
                let json = format!(r#"{{"id":{value}}}"#);
                let bare = value.trim_matches('"');
                for (key, value) in [(json.as_str(), "{}"), (bare, "{}"), ("k", &json)] {
                    let (key, value) = (key.as_bytes(), value.as_bytes());
                    let (ours, models) = (consumer(&table, key, value), model(&table, key, value));
                    let shown = String::from_utf8_lossy(key);
                    assert_eq!(ours, models, "{kind} at {from}: {shown}");
                }
            }
        }
    }
}
