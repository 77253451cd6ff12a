//! What makes messages for such a table, and what looks into them.

use crate::child::Ended;
use crate::pond::{Pond, Shape};
use crate::spine::messages;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

const STOCK: &str = r#"
[table]
name = "stock"
delete = "tombstone"
[table.columns]
shelf = { key = "text", from = "@key.at.shelf" }
item = { key = "bigint", from = "@key.item" }
name = { set = "text", from = "item.name" }
price = { set = "numeric(8,2)", from = "item.price" }
weight = { set = "double precision", from = "item.weight" }
fresh = { set = "boolean" }
raw = { set = "jsonb" }
pieces = { add = "integer" }
value = { add = "numeric(12,3)", from = "worth.total" }
sold = { keep_max = "timestamptz", from = "at.sold" }
opened = { keep_min = "bigint", from = "at.opened" }
labels = { merge = "jsonb" }
"#;

/// By the values of some fields: how many messages.
type Counts = BTreeMap<Vec<String>, i64>;

/// Counts by what is grouped by.
fn counts(ended: &Ended, fields: &[&str]) -> Counts {
    assert!(ended.status.success(), "{}", ended.stderr);
    let lines = ended.stdout.lines().map(|line| {
        let group: Value = serde_json::from_str(line).unwrap();
        let text = |field: &&str| group[*field].as_str().unwrap_or("(none)").to_owned();
        let of = fields.iter().map(text).collect();
        (of, group["messages"].as_i64().unwrap())
    });
    lines.collect()
}

/// What the topic has, by row and by name.
fn sent(pond: &Pond) -> [Counts; 2] {
    let [mut by_row, mut by_name] = [const { Counts::new() }; 2];
    for update in pond.updates() {
        let key: Value = serde_json::from_str(update.key.as_deref().unwrap()).unwrap();
        let shelf = key["at"]["shelf"].as_str().unwrap().to_owned();
        let row = vec![shelf, key["item"].to_string()];
        *by_row.entry(row).or_insert(0) += 1;
        let value: Option<Value> = update
            .value
            .map(|text| serde_json::from_str(&text).unwrap());
        if let Some(name) = value
            .as_ref()
            .and_then(|value| value["item"]["name"].as_str())
        {
            *by_name.entry(vec![name.to_owned()]).or_insert(0) += 1;
        }
    }
    [by_row, by_name]
}

fn inspect(pond: &Pond, arguments: &[&str]) -> Ended {
    let all = ["inspect", "-e", "-J", "--top", "100000"];
    pond.command(&[&all, arguments].concat())
}

fn are_found_by_the_columns_names(pond: &Pond) {
    let [by_row, by_name] = sent(pond);
    let found = counts(
        &inspect(pond, &["--group-by", "row"]),
        &["@key.at.shelf", "@key.item"],
    );
    assert_eq!(found, by_row);
    let named = inspect(pond, &["--group-by", "name", "--where", "name", "~", "."]);
    assert_eq!(counts(&named, &["item.name"]), by_name);
    let hot = by_row.iter().max_by_key(|(_, count)| **count).unwrap();
    let (shelf, item) = (hot.0[0].as_str(), hot.0[1].as_str());
    let one = inspect(
        pond,
        &[
            "--where",
            "shelf",
            "=",
            shelf,
            "--where",
            "item",
            "=",
            item,
            "--group-by",
            "item",
        ],
    );
    assert_eq!(
        counts(&one, &["@key.item"]).into_values().sum::<i64>(),
        *hot.1
    );
}

fn are_refused_with_a_hint(pond: &Pond) {
    for (arguments, hint) in [
        (
            &[
                "inspect",
                "-e",
                "--app",
                "5eb5a37e-b458-11e3-ac11-000c2940e62c",
            ][..],
            "write --where COLUMN = VALUE",
        ),
        (
            &["inspect", "-e", "--group-by", "a."],
            "a column of stock or a PATH",
        ),
        (
            &["load", "--http", "http://127.0.0.1:1"],
            "--http is for subscriptions",
        ),
    ] {
        let refused = pond.command(arguments);
        assert_eq!(refused.status.code(), Some(2), "{}", refused.stderr);
        assert!(refused.stderr.contains(hint), "{}", refused.stderr);
    }
}

#[test]
fn generated_messages_are_applied_exactly_and_found_by_the_columns_names() {
    let shape = Shape {
        consumer: STOCK,
        ..Shape::default()
    };
    let pond = Pond::new("stock", &shape);
    let count = messages(20_000).to_string();
    let rows = ["--rows", "300", "--apps", "12", "--scenario", "hot"];
    let loaded = pond.load(&[&["--messages", &count][..], &rows].concat());
    assert_eq!(loaded["messages"].to_string(), count);
    let running = pond.start(&["run"], &[]);
    let hot = serde_json::json!({"shelf": "shelf 0", "item": "0"});
    pond.wait_for(
        "the hot row is named by its key",
        Duration::from_secs(60),
        |pond| {
            let Some((200, answer)) = pond.admin("/api/hot") else {
                return false;
            };
            let answer: Value = serde_json::from_str(&answer).unwrap();
            let shards = answer["shards"].as_array().unwrap().iter();
            let mut rows = shards.flat_map(|shard| shard["rows"].as_array().unwrap());
            rows.any(|row| row["key"] == hot)
        },
    );
    running.terminate(Duration::from_secs(60)).json();
    let summary = pond.catch_up();
    assert_eq!(summary["dead_lettered"], 0, "{summary}");
    let verdict = pond.assert_exact();
    assert_eq!(verdict["rows_checked"], 300, "{verdict}");
    assert_eq!(verdict["messages_read"].to_string(), count);
    let filled: i64 = (0..2)
        .map(|shard| {
            let sql = "SELECT count(*) FROM stock WHERE source_deleted OR name IS NOT NULL AND pieces <> 0 \
                 AND sold IS NOT NULL AND labels <> '{}'";
            pond.shard(shard).query_one(sql, &[]).unwrap().get::<_, i64>(0)
        })
        .sum();
    assert!(filled > 200, "{filled} rows have been filled or deleted");
    are_found_by_the_columns_names(&pond);
    are_refused_with_a_hint(&pond);
}
