//! Each reason of a dead letter: counted, kept whole, and the partition goes on.

use crate::pond::{Pond, Sent, Shape};
use std::collections::BTreeMap;

const APP: &str = "5eb5a37e-b458-11e3-ac11-000c2940e62c";
const ROW: &str = "f47ac10b-58cc-4372-a567-0e02b2c3d479";

fn value(fields: &str) -> String {
    format!(r#"{{"app_id":"{APP}","subscription_id":"{ROW}"{fields}}}"#)
}

#[test]
fn every_reason_is_told_and_the_partition_goes_on() {
    let shape = Shape {
        partitions: 2,
        shards: 1,
        consumer: "message_max_bytes = 2000\n[ingest]\nbody_max_bytes = 2000",
        ..Shape::default()
    };
    let pond = Pond::new("reasons", &shape);
    let home = pond.partition_of(APP);
    let max = i64::MAX;
    let long = format!(r#","tags":{{"a":"{}"}}"#, "x".repeat(3000));
    let mut client = pond.shard(0);
    client
        .batch_execute("ALTER TABLE subscription ADD CHECK (NOT tags ? 'poison')")
        .unwrap();
    let key = Some(ROW.to_owned());
    let cases: Vec<(&str, i32, Option<String>, Option<String>)> = vec![
        (
            "",
            home,
            key.clone(),
            Some(value(&format!(
                r#","tags":{{"first":1}},"counts":{{"n":{max}}}"#
            ))),
        ),
        ("empty", home, key.clone(), Some(String::new())),
        ("tombstone", home, key.clone(), None),
        ("not-json", home, key.clone(), Some("{".to_owned())),
        ("missing-id", home, None, Some(value(""))),
        ("missing-id", home, key.clone(), Some("{}".to_owned())),
        ("bad-id", home, Some("nonsense".to_owned()), Some(value(""))),
        (
            "bad-id",
            home,
            key.clone(),
            Some(value(r#","parent_id":7"#)),
        ),
        ("key-mismatch", home, Some(APP.to_owned()), Some(value(""))),
        ("wrong-partition", 1 - home, key.clone(), Some(value(""))),
        (
            "bad-tags",
            home,
            key.clone(),
            Some(value(r#","tags":{"a":[]}"#)),
        ),
        (
            "bad-counts",
            home,
            key.clone(),
            Some(value(r#","counts":{"a":1.5}"#)),
        ),
        (
            "overflow",
            home,
            key.clone(),
            Some(value(r#","tags":{"never":1},"counts":{"n":1}"#)),
        ),
        (
            "bad-text",
            home,
            key.clone(),
            Some(value(r#","tags":{"a":"\u0000"}"#)),
        ),
        (
            "bad-text",
            home,
            key.clone(),
            Some(value(r#","identifier":"\ud800""#)),
        ),
        (
            "self-parent",
            home,
            key.clone(),
            Some(value(&format!(r#","parent_id":"{ROW}""#))),
        ),
        ("too-large", home, key.clone(), Some(value(&long))),
        (
            "database",
            home,
            key.clone(),
            Some(value(r#","tags":{"poison":1}"#)),
        ),
        (
            "",
            home,
            key.clone(),
            Some(value(r#","tags":{"last":true},"counts":{"n":-1}"#)),
        ),
    ];
    for (_, partition, key, value) in &cases {
        let sent = Sent {
            partition: *partition,
            key: key.as_deref(),
            value: value.as_deref(),
        };
        pond.produce(&[sent]);
    }
    let mut expected: BTreeMap<&str, usize> = BTreeMap::new();
    for (reason, ..) in cases.iter().filter(|(reason, ..)| !reason.is_empty()) {
        *expected.entry(reason).or_default() += 1;
    }
    let summary = pond.catch_up();
    assert_eq!(summary["messages"], cases.len(), "{summary}");
    assert_eq!(summary["dead_lettered"], cases.len() - 2, "{summary}");
    let letters = pond.dead_letters();
    let mut found: BTreeMap<&str, usize> = BTreeMap::new();
    for letter in &letters {
        *found
            .entry(letter.header("__dlq.errors.reason"))
            .or_default() += 1;
        // Kept whole: the original key and value.
        let offset: usize = letter.header("__dlq.errors.offset").parse().unwrap();
        let partition: i32 = letter.header("__dlq.errors.partition").parse().unwrap();
        let origin = cases
            .iter()
            .filter(|case| case.1 == partition)
            .nth(offset)
            .unwrap();
        assert_eq!((&letter.key, &letter.value), (&origin.2, &origin.3));
        assert_eq!(letter.header("__dlq.errors.reason"), origin.0);
    }
    assert_eq!(found, expected);
    let row = client
        .query_one("SELECT tags::text, counts::text FROM subscription", &[])
        .unwrap();
    assert_eq!(row.get::<_, String>(0), r#"{"last": true, "first": 1}"#);
    assert_eq!(row.get::<_, String>(1), format!(r#"{{"n": {}}}"#, max - 1));
    pond.assert_exact();
}
