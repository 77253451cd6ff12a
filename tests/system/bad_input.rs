//! Each reason of a dead letter: counted, kept whole, and the partition goes on.

use crate::pond::{Pond, Sent, Shape};

const APP: &str = "5eb5a37e-b458-11e3-ac11-000c2940e62c";
const ROW: &str = "f47ac10b-58cc-4372-a567-0e02b2c3d479";

fn value(fields: &str) -> String {
    format!(r#"{{"app_id":"{APP}","subscription_id":"{ROW}"{fields}}}"#)
}

/// A message and the reason with which it is refused; none for a good one.
struct Case {
    reason: &'static str,
    /// On the partition that the app belongs to.
    at_home: bool,
    key: Option<&'static str>,
    value: Option<String>,
}

impl Case {
    /// Every other kind of message comes with headers.
    fn headers(&self) -> Vec<(&'static str, &'static str)> {
        match self.reason.len() % 2 {
            0 => Vec::new(),
            _ => vec![("traceparent", "00-1-2-01"), ("empty", "")],
        }
    }
}

fn cases() -> Vec<Case> {
    let case = |reason, key, value| Case {
        reason,
        at_home: true,
        key,
        value,
    };
    let of_row = |reason, fields: &str| case(reason, Some(ROW), Some(value(fields)));
    let long = format!(r#","tags":{{"a":"{}"}}"#, "x".repeat(3000));
    vec![
        of_row(
            "",
            &format!(r#","tags":{{"first":1}},"counts":{{"n":{}}}"#, i64::MAX),
        ),
        case("empty", Some(ROW), Some(String::new())),
        case("tombstone", Some(ROW), None),
        case("not-json", Some(ROW), Some("{".to_owned())),
        case("missing-id", None, Some(value(""))),
        case("missing-id", Some(ROW), Some("{}".to_owned())),
        case("bad-id", Some("nonsense"), Some(value(""))),
        of_row("bad-id", r#","parent_id":7"#),
        case("key-mismatch", Some(APP), Some(value(""))),
        Case {
            at_home: false,
            ..of_row("wrong-partition", "")
        },
        of_row("bad-tags", r#","tags":{"a":[]}"#),
        of_row("bad-counts", r#","counts":{"a":1.5}"#),
        of_row("overflow", r#","tags":{"never":1},"counts":{"n":1}"#),
        of_row("bad-text", r#","tags":{"a":"\u0000"}"#),
        of_row("bad-text", r#","identifier":"\ud800""#),
        of_row("self-parent", &format!(r#","parent_id":"{ROW}""#)),
        of_row("too-large", &long),
        of_row("database", r#","tags":{"poison":1}"#),
        of_row("", r#","tags":{"last":true},"counts":{"n":-1}"#),
    ]
}

#[test]
fn every_reason_is_told_and_the_partition_goes_on() {
    let consumer = "message_max_bytes = 2000\n[ingest]\nbody_max_bytes = 2000";
    let pond = Pond::new(
        "reasons",
        &Shape {
            partitions: 2,
            shards: 1,
            consumer,
            ..Shape::default()
        },
    );
    let home = pond.partition_of(APP);
    let mut client = pond.shard(0);
    client
        .batch_execute("ALTER TABLE subscription ADD CHECK (NOT tags ? 'poison')")
        .unwrap();
    let cases = cases();
    let partition = |case: &Case| if case.at_home { home } else { 1 - home };
    for case in &cases {
        pond.produce(&[Sent {
            partition: partition(case),
            key: case.key,
            value: case.value.as_deref(),
            headers: &case.headers(),
        }]);
    }
    let summary = pond.catch_up();
    assert_eq!(summary["messages"], cases.len(), "{summary}");
    assert_eq!(summary["dead_lettered"], cases.len() - 2, "{summary}");
    let letters = pond.dead_letters();
    assert_eq!(letters.len(), cases.len() - 2);
    for letter in &letters {
        let offset: usize = letter.header("__dlq.errors.offset").parse().unwrap();
        let from: i32 = letter.header("__dlq.errors.partition").parse().unwrap();
        let origin = cases
            .iter()
            .filter(|case| partition(case) == from)
            .nth(offset)
            .unwrap();
        assert_eq!(letter.header("__dlq.errors.reason"), origin.reason);
        // Kept whole.
        for (name, value) in origin.headers() {
            assert_eq!(letter.header(name), value);
        }
        assert_eq!(
            (letter.key.as_deref(), &letter.value),
            (origin.key, &origin.value)
        );
    }
    let row = client
        .query_one("SELECT tags::text, counts::text FROM subscription", &[])
        .unwrap();
    assert_eq!(row.get::<_, String>(0), r#"{"last": true, "first": 1}"#);
    assert_eq!(
        row.get::<_, String>(1),
        format!(r#"{{"n": {}}}"#, i64::MAX - 1)
    );
    pond.assert_exact();
}
