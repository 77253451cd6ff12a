//! What was followed is held against the rows: equal, behind, otherwise, absent, too many; and against the letters.

use super::*;
use crate::{
    config::{Sources, load},
    dead::header,
    ids::{AppId, SubscriptionId},
    verify::state::Columns,
};

const APP: &str = "5eb5a37e-b458-11e3-ac11-000c2940e62c";
const ROW: &str = "f47ac10b-58cc-4372-a567-0e02b2c3d479";
const TIME_MS: i64 = 1_700_000_000_123;

/// One shard and partition.
fn config() -> Config {
    let text = "[kafka]\npartitions = 1\ntopic = \"updates\"\n\
        [[shard]]\nname = \"a\"\napps = \"00-ff\"\npostgres = \"host=127.0.0.1 user=u dbname=d\"\n";
    load(&Sources::of_text(text))
        .expect("a good configuration")
        .config
}

/// A model after these values, at offsets 0, 1, ….
fn model(values: &[String]) -> Model {
    let mut model = Model::new(&config(), 1);
    for (offset, value) in (0..).zip(values) {
        model.message(&Message {
            partition: Partition(0),
            offset,
            leader_epoch: 0,
            timestamp_ms: TIME_MS,
            key: Some(ROW.as_bytes()),
            value: Some(value.as_bytes()),
        });
    }
    model
}

fn update(fields: &str) -> String {
    format!(r#"{{"app_id":"{APP}","subscription_id":"{ROW}"{fields}}}"#)
}

/// Two good updates of one row.
fn two() -> Model {
    model(&[
        update(r#","tags":{"a":"x"},"counts":{"c":1}"#),
        update(r#","counts":{"c":2}"#),
    ])
}

/// The differences where Postgres holds these rows: offset, tags and counts of each.
fn differences(mut model: Model, rows: &[(i64, &str, &str)]) -> Vec<Difference> {
    let config = config();
    let mut report = Report::default();
    for (offset, tags, counts) in rows {
        let stored = Stored {
            row: RowKey {
                app: AppId::parse(APP.as_bytes()).expect("a UUID"),
                subscription: SubscriptionId::parse(ROW.as_bytes()).expect("a UUID"),
            },
            fence: Position {
                incarnation: 1,
                leader_epoch: 0,
                offset: *offset,
            },
            updated_at_us: TIME_MS * 1000,
            columns: Columns {
                parent: None,
                device_type: None,
                identifier: None,
                tags,
                counts,
            },
        };
        model.compare_row(&config, ShardIndex(0), &stored, &mut report);
    }
    model.compare_rest(&config, &mut report);
    report
        .examples
        .iter()
        .map(|example| example.difference)
        .collect()
}

#[test]
fn a_row_must_hold_all_of_its_updates_and_nothing_else() {
    use Difference::{Extra, Mismatched, Missing};
    let right = (1, r#"{"a": "x"}"#, r#"{"c": 3}"#);
    assert_eq!(differences(two(), &[right]), []);
    assert_eq!(differences(two(), &[]), [Missing]);
    let behind = (0, r#"{"a": "x"}"#, r#"{"c": 1}"#);
    assert_eq!(differences(two(), &[behind]), [Missing]);
    let twice = (1, r#"{"a": "x"}"#, r#"{"c": 5}"#);
    assert_eq!(differences(two(), &[twice]), [Mismatched]);
    let ahead = (2, r#"{"a": "x"}"#, r#"{"c": 3}"#);
    assert_eq!(differences(two(), &[ahead]), [Mismatched]);
    assert_eq!(differences(model(&[]), &[right]), [Extra]);
}

/// The differences between the model's letters and one letter of that offset and reason for a value that is no JSON.
fn letter_differences(model: &Model, letter: Option<(&str, Reason)>) -> Vec<Difference> {
    let mut letters = Letters::default();
    if let Some((offset, reason)) = letter {
        let headers = [
            (header::TOPIC, "updates"),
            (header::PARTITION, "0"),
            (header::OFFSET, offset),
            (header::REASON, reason.as_str()),
        ];
        let headers = headers.map(|(name, value)| (name, Some(value.as_bytes())));
        let key = Some(ROW.as_bytes());
        letters.add("updates", "millpond", headers.into_iter(), key, Some(b"{"));
    }
    let mut report = Report::default();
    model.compare_letters(letters, &mut report);
    report
        .examples
        .iter()
        .map(|example| example.difference)
        .collect()
}

#[test]
fn a_refused_message_must_have_its_letter_and_no_other_message_any() {
    use Difference::{DeadLetterMissing, DeadLetterUnexpected};
    let bad = model(&["{".to_owned()]);
    assert_eq!(letter_differences(&bad, Some(("0", Reason::NotJson))), []);
    assert_eq!(letter_differences(&bad, None), [DeadLetterMissing]);
    assert_eq!(
        letter_differences(&bad, Some(("0", Reason::BadTags))),
        [DeadLetterMissing, DeadLetterUnexpected]
    );
    assert_eq!(
        letter_differences(&two(), Some(("1", Reason::Database))),
        [DeadLetterUnexpected]
    );
}
