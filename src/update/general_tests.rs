//! Messages for tables of all kinds, good and bad.

use super::*;
use crate::table::{Column, Rule};
use crate::update::SetValue;

fn path(text: &str) -> Path {
    Path::parse(text).expect("a path")
}

fn column(name: &str, rule: Rule, kind: &str, from: &str) -> Column {
    Column {
        name: name.to_owned(),
        rule,
        kind: Kind::parse(kind).expect("a type"),
        from: path(from),
    }
}

fn key(name: &str, kind: &str, from: &str) -> KeyColumn {
    KeyColumn {
        name: name.to_owned(),
        kind: Kind::parse(kind).expect("a type"),
        from: path(from),
    }
}

/// Each rule once, and each type that a value can be read as.
fn account() -> Table {
    Table {
        name: "account".to_owned(),
        keys: vec![
            key("tenant", "text", "@key.tenant"),
            key("number", "bigint", "@key.number"),
        ],
        shard_by: 0,
        columns: vec![
            column("owner", Rule::Set, "text", "owner.name"),
            column("balance", Rule::Add, "numeric(8,2)", "amount"),
            column("labels", Rule::Merge, "jsonb", "labels"),
            column("seen", Rule::KeepMax, "timestamptz", "at"),
            column("least", Rule::KeepMin, "integer", "n"),
            column("flag", Rule::Set, "boolean", "flag"),
            column("raw", Rule::Set, "jsonb", "raw"),
        ],
        deletes: Deletes::Marks {
            field: path("op"),
            values: vec!["d".to_owned(), "true".to_owned()],
        },
        own: None,
    }
}

const KEY: &str = r#"{"tenant":"north","number":7}"#;

fn decoded<'a>(table: &Table, key: &'a str, value: &'a str) -> Result<Update<'a>, Rejection> {
    judge_for(table, Some(key.as_bytes()), Some(value.as_bytes()), 10_000)?;
    let content = Content {
        key: key.as_bytes(),
        value: value.as_bytes(),
    };
    decode_for(table, Vec::new(), content, (Partition(0), None))
}

fn changes(value: &str) -> Vec<Change<'_>> {
    let decoded = decoded(&account(), KEY, value);
    decoded.expect("a good message").changes
}

fn reason(value: &str) -> Option<Reason> {
    let decoded = decoded(&account(), KEY, value);
    decoded.err().map(|rejection| rejection.reason)
}

#[test]
fn each_column_is_read_from_its_path_by_its_rule() {
    let value = r#"{"owner":{"name":"A \"B\""},"amount":"12.50","labels":{"x":1.5,"y":null},
        "at":"2024-05-06T07:08:09.5Z","n":-3,"flag":true,"raw":{"a":[1, null]},"more":1}"#;
    let merge = |name, value| Change::Merge {
        column: 2,
        name: Cow::Borrowed(name),
        value,
    };
    let set = |column, value| Change::Set {
        column,
        value: Some(value),
    };
    assert_eq!(
        changes(value),
        [
            set(0, SetValue::Text(Cow::Borrowed(r#"A "B""#))),
            Change::Amount {
                column: 1,
                digits: 1250,
                scale: 2
            },
            merge("x", Some("1.5")),
            merge("y", None),
            Change::Amount {
                column: 3,
                digits: 1_714_979_289_500_000,
                scale: 0
            },
            Change::Amount {
                column: 4,
                digits: -3,
                scale: 0
            },
            set(5, SetValue::Text(Cow::Borrowed("true"))),
            set(6, SetValue::Json(r#"{"a":[1, null]}"#)),
        ]
    );
}

#[test]
fn what_is_absent_changes_nothing_and_null_changes_what_is_set() {
    assert_eq!(changes("{}"), []);
    assert_eq!(changes(r#"{"owner":null}"#), []);
    assert_eq!(changes(r#"{"owner":"x","other":{"name":1}}"#), []);
    let nulls = r#"{"owner":{"name":null},"amount":null,"labels":null,"at":null}"#;
    assert_eq!(
        changes(nulls),
        [Change::Set {
            column: 0,
            value: None
        }]
    );
}

#[test]
fn the_last_of_two_equal_names_counts() {
    let amount = |digits| Change::Amount {
        column: 1,
        digits,
        scale: 0,
    };
    assert_eq!(changes(r#"{"amount":1,"amount":2}"#), [amount(2)]);
}

#[test]
fn what_a_column_cannot_take_is_a_dead_letter() {
    for bad in [
        r#"{"amount":0.001}"#,
        r#"{"amount":1e2}"#,
        r#"{"amount":1000000}"#,
        r#"{"amount":true}"#,
        r#"{"n":2147483648}"#,
        r#"{"n":1.0}"#,
        r#"{"at":"yesterday"}"#,
        r#"{"at":5}"#,
        r#"{"flag":"true"}"#,
        r#"{"owner":{"name":5}}"#,
        r#"{"labels":[]}"#,
        r#"{"labels":{"a":{}}}"#,
        r#"{"labels":{"a":1e2000}}"#,
    ] {
        assert_eq!(reason(bad), Some(Reason::BadValue), "{bad}");
    }
    for bad in [
        r#"{"owner":{"name":"\u0000"}}"#,
        r#"{"labels":{"a":"\u0000"}}"#,
        r#"{"labels":{"\u0000":1}}"#,
        r#"{"x":"\ud800"}"#,
    ] {
        assert_eq!(reason(bad), Some(Reason::BadText), "{bad}");
    }
    for bad in ["[]", "1", "{", r#"{"amount":1}x"#] {
        assert_eq!(reason(bad), Some(Reason::NotJson), "{bad}");
    }
    assert_eq!(reason(""), Some(Reason::Empty));
}

#[test]
fn a_row_is_named_by_its_key_however_that_is_spelled() {
    let row = |key| decoded(&account(), key, "{}").expect("a good message");
    let (one, other) = (row(KEY), row(r#"{"number":"7", "tenant":"nor\u0074h"}"#));
    assert_eq!((one.key, &one.values), (other.key, &other.values));
    let next = row(r#"{"tenant":"north","number":8}"#);
    assert_eq!(one.key.app, next.key.app);
    assert_ne!(one.key.subscription, next.key.subscription);
    let judged = judge_for(&account(), Some(KEY.as_bytes()), Some(b"{}"), 100);
    let lane = judged.expect("a good key").subscription;
    assert_eq!(lane, one.key.subscription);
}

#[test]
fn a_key_that_names_no_row_is_a_dead_letter() {
    let reason = |key| decoded(&account(), key, "{}").err().map(|bad| bad.reason);
    assert_eq!(reason(""), Some(Reason::MissingId));
    assert_eq!(reason(r#"{"tenant":"a"}"#), Some(Reason::MissingId));
    assert_eq!(
        reason(r#"{"tenant":"a","number":null}"#),
        Some(Reason::MissingId)
    );
    assert_eq!(reason(r#"{"tenant":1,"number":1}"#), Some(Reason::BadId));
    assert_eq!(
        reason(r#"{"tenant":"a","number":1.5}"#),
        Some(Reason::BadId)
    );
    assert_eq!(reason("north"), Some(Reason::NotJson));
    let whole = Table {
        keys: vec![key("id", "uuid", "@key")],
        ..account()
    };
    let id = "5EB5A37E-b458-11e3-ac11-000c2940e62c";
    let row = decoded(&whole, id, "{}").expect("a good message").key;
    assert_eq!(row.app.0, row.subscription.0);
    assert_eq!(row.app.to_string(), id.to_lowercase());
}

#[test]
fn rows_are_deleted_by_what_the_table_says() {
    assert_eq!(
        changes(r#"{"op":"d","amount":"nonsense"}"#),
        [Change::Delete]
    );
    assert_eq!(changes(r#"{"op":true}"#), [Change::Delete]);
    assert_eq!(changes(r#"{"op":"u"}"#), []);
    let without = |table: &Table, value: Option<&'static [u8]>| {
        let judged = judge_for(table, Some(KEY.as_bytes()), value, 100);
        let value = judged.map_err(|bad| bad.reason)?.value;
        let content = Content {
            key: KEY.as_bytes(),
            value,
        };
        let decoded = decode_for(table, Vec::new(), content, (Partition(0), None));
        Ok(decoded.expect("was judged").deletes())
    };
    // Some converters write it as JSON.
    let tombstone = |table: &Table| {
        let deletes = without(table, None);
        assert_eq!(without(table, Some(b"null")), deletes);
        deletes
    };
    assert_eq!(tombstone(&account()), Ok(true));
    let never = Table {
        deletes: Deletes::Never,
        ..account()
    };
    assert_eq!(tombstone(&never), Err(Reason::Tombstone));
    // Of a row whose key is in the value, a tombstone says nothing.
    let in_value = Table {
        keys: vec![key("id", "text", "id")],
        ..account()
    };
    assert_eq!(tombstone(&in_value), Err(Reason::Tombstone));
}

#[test]
fn a_message_elsewhere_than_its_row_is_a_dead_letter() {
    let table = account();
    let partitioner = Partitioner::new(12, 1, [0; 256]);
    let content = Content {
        key: KEY.as_bytes(),
        value: b"{}",
    };
    let on = |partition| decode_for(&table, Vec::new(), content, (partition, Some(&partitioner)));
    let good: Vec<Partition> = (0..12)
        .map(Partition)
        .filter(|at| on(*at).is_ok())
        .collect();
    let row = on(good[0]).expect("good").key;
    assert_eq!(good, [partitioner.partition_of(row.app)]);
    let elsewhere = Partition((good[0].0 + 1) % 12);
    let reason = on(elsewhere).err().map(|bad| bad.reason);
    assert_eq!(reason, Some(Reason::WrongPartition));
}
