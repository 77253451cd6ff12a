//! Each kind of difference is found, and what the log cannot tell is not called one.

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

/// A topic of two partitions over the shards a (00-7f) and b (80-ff), so that the app above is on partition 0.
fn config(more_kafka: &str, more: &str) -> Config {
    let shard = |name: &str, apps: &str| {
        format!(
            "[[shard]]\nname = \"{name}\"\napps = \"{apps}\"\npostgres = \"host=127.0.0.1 user=u dbname=d\"\n"
        )
    };
    let (a, b) = (shard("a", "00-7f"), shard("b", "80-ff"));
    let text = format!("[kafka]\npartitions = 2\ntopic = \"updates\"\n{more_kafka}\n{a}{b}{more}");
    load(&Sources::of_text(&text))
        .expect("a good configuration")
        .config
}

fn row_key() -> RowKey {
    RowKey {
        app: AppId::parse(APP.as_bytes()).expect("a UUID"),
        subscription: SubscriptionId::parse(ROW.as_bytes()).expect("a UUID"),
    }
}

fn value(fields: &str) -> String {
    format!(r#"{{"app_id":"{APP}","subscription_id":"{ROW}"{fields}}}"#)
}

/// One comparison, built up call by call.
struct Case {
    config: Config,
    extent: Extent,
    letters: Letters,
    rows: Vec<(ShardIndex, Position, String, String)>,
    messages: Vec<(i64, String)>,
}

impl Case {
    fn new(committed: i64) -> Self {
        Self {
            config: config("", ""),
            extent: Extent {
                start: 0,
                committed,
            },
            letters: Letters::default(),
            rows: Vec::new(),
            messages: Vec::new(),
        }
    }

    fn with_config(mut self, more_kafka: &str, more: &str) -> Self {
        self.config = config(more_kafka, more);
        self
    }

    fn with_start(mut self, start: i64) -> Self {
        self.extent.start = start;
        self
    }

    /// The row, as the right shard holds it.
    fn row(mut self, offset: i64, tags: &str, counts: &str) -> Self {
        let fence = Position {
            incarnation: 1,
            leader_epoch: 0,
            offset,
        };
        self.rows
            .push((ShardIndex(0), fence, tags.to_owned(), counts.to_owned()));
        self
    }

    fn update(self, offset: i64, fields: &str) -> Self {
        self.message(offset, &value(fields))
    }

    fn message(mut self, offset: i64, value: &str) -> Self {
        self.messages.push((offset, value.to_owned()));
        self
    }

    fn letter(mut self, offset: i64, reason: Reason, value: &str) -> Self {
        let headers = [
            (header::TOPIC, "updates".to_owned()),
            (header::PARTITION, "0".to_owned()),
            (header::OFFSET, offset.to_string()),
            (header::REASON, reason.to_string()),
        ];
        let headers = headers
            .iter()
            .map(|(name, value)| (*name, Some(value.as_bytes())));
        self.letters.add(
            "updates",
            "group",
            headers,
            Some(ROW.as_bytes()),
            Some(value.as_bytes()),
        );
        self
    }

    fn report(self) -> Report {
        let mut audit = Audit::new(&self.config, vec![self.extent; 2], self.letters);
        for (shard, fence, tags, counts) in &self.rows {
            let columns = Columns {
                parent: None,
                device_type: None,
                identifier: None,
                tags,
                counts,
            };
            let stored = Stored {
                row: row_key(),
                fence: *fence,
                updated_at_us: TIME_MS * 1000,
                columns,
            };
            audit.row(*shard, &stored).expect("no newer incarnation");
        }
        for (offset, value) in &self.messages {
            audit.message(&Message {
                partition: Partition(0),
                offset: *offset,
                leader_epoch: 0,
                timestamp_ms: TIME_MS,
                key: Some(ROW.as_bytes()),
                value: Some(value.as_bytes()),
            });
        }
        audit.finish().0
    }

    /// (rows_checked, unverifiable) and the differences by kind.
    fn result(self) -> ((u64, u64), Vec<Difference>) {
        let report = self.report();
        let differences = report
            .examples
            .iter()
            .map(|example| example.difference)
            .collect::<Vec<_>>();
        assert_eq!(
            report.differences(),
            differences.len() as u64,
            "every difference is counted in its field"
        );
        ((report.rows_checked, report.unverifiable), differences)
    }
}

const NOTHING: Vec<Difference> = Vec::new();

#[test]
fn a_row_is_compared_at_its_own_fence() {
    let two = |committed| {
        let case = Case::new(committed).update(0, r#","tags":{"a":1},"counts":{"c":1}"#);
        case.update(1, r#","tags":{"a":"x"},"counts":{"c":2}"#)
    };
    assert_eq!(
        two(2).row(1, r#"{"a": "x"}"#, r#"{"c": 3}"#).result(),
        ((1, 0), NOTHING)
    );
    assert_eq!(
        two(1).row(0, r#"{"a": 1.0}"#, r#"{"c": 1}"#).result(),
        ((1, 0), NOTHING)
    );
    assert_eq!(
        two(0).row(1, r#"{"a": "x"}"#, r#"{"c": 3}"#).result(),
        ((1, 0), NOTHING)
    );
}

#[test]
fn an_update_taken_twice_or_not_at_all_is_a_mismatch() {
    for count in [1, 4] {
        let case = Case::new(2)
            .update(0, r#","counts":{"c":1}"#)
            .update(1, r#","counts":{"c":2}"#);
        let case = case.row(1, "{}", &format!(r#"{{"c": {count}}}"#));
        assert_eq!(
            case.result(),
            ((1, 0), vec![Difference::Mismatched]),
            "{count}"
        );
    }
}

#[test]
fn a_row_of_a_form_that_no_update_makes_is_a_mismatch() {
    let case = Case::new(1).update(0, "").row(0, "[]", "{}");
    assert_eq!(case.result(), ((1, 0), vec![Difference::Mismatched]));
}

#[test]
fn a_fence_where_the_log_has_no_update_of_the_row_is_a_mismatch() {
    let case = Case::new(1).update(0, "").row(5, "{}", "{}");
    assert_eq!(case.result(), ((1, 0), vec![Difference::Mismatched]));
}

#[test]
fn a_fence_below_a_committed_update_is_missing_once_and_an_uncommitted_one_is_not() {
    let case = |committed| {
        Case::new(committed)
            .update(0, "")
            .update(1, "")
            .update(2, "")
            .row(0, "{}", "{}")
    };
    assert_eq!(case(3).result(), ((1, 0), vec![Difference::Missing]));
    assert_eq!(case(2).result(), ((1, 0), vec![Difference::Missing]));
    assert_eq!(case(1).result(), ((1, 0), NOTHING));
}

#[test]
fn an_absent_row_is_missing_below_the_committed_offset() {
    assert_eq!(
        Case::new(1).update(0, "").result(),
        ((0, 0), vec![Difference::Missing])
    );
    assert_eq!(Case::new(0).update(0, "").result(), ((0, 0), NOTHING));
}

#[test]
fn a_row_that_no_update_made_is_extra() {
    assert_eq!(
        Case::new(0).row(0, "{}", "{}").result(),
        ((1, 0), vec![Difference::Extra])
    );
}

#[test]
fn a_row_on_another_shard_than_its_apps_is_extra_and_missing_on_its_own() {
    let mut case = Case::new(1).update(0, "").row(0, "{}", "{}");
    case.rows[0].0 = ShardIndex(1);
    assert_eq!(
        case.result(),
        ((1, 0), vec![Difference::Extra, Difference::Missing])
    );
}

#[test]
fn a_row_without_its_beginning_in_the_log_is_unverifiable_but_its_fence_still_counts() {
    let case = |committed| {
        Case::new(committed)
            .with_start(4)
            .update(4, "")
            .update(5, "")
    };
    assert_eq!(
        case(5).row(4, r#"{"from": "before"}"#, "{}").result(),
        ((0, 1), NOTHING)
    );
    assert_eq!(
        case(6).row(4, "{}", "{}").result(),
        ((0, 1), vec![Difference::Missing])
    );
}

#[test]
fn rows_of_a_former_incarnation_are_unverifiable_and_those_that_lived_on_may_hold_more() {
    let later = |row: Case| row.with_config("incarnation = 2", "");
    let former = later(Case::new(0).row(90, r#"{"a": 1}"#, "{}"));
    assert_eq!(former.result(), ((0, 1), NOTHING));
    for (tags, expected) in [
        (r#"{"a": 1}"#, (1, 0)),
        (r#"{"a": 1, "former": 2}"#, (0, 1)),
    ] {
        let mut lived_on = later(
            Case::new(1)
                .update(0, r#","tags":{"a":1}"#)
                .row(0, tags, "{}"),
        );
        lived_on.rows[0].1.incarnation = 2;
        assert_eq!(lived_on.result(), (expected, NOTHING), "{tags}");
    }
}

#[test]
fn a_row_of_a_later_incarnation_is_an_error() {
    let mut audit = Audit::new(
        &config("", ""),
        vec![
            Extent {
                start: 0,
                committed: 0
            };
            2
        ],
        Letters::default(),
    );
    let columns = Columns {
        parent: None,
        device_type: None,
        identifier: None,
        tags: "{}",
        counts: "{}",
    };
    let fence = Position {
        incarnation: 3,
        leader_epoch: 0,
        offset: 0,
    };
    let stored = Stored {
        row: row_key(),
        fence,
        updated_at_us: 0,
        columns,
    };
    let expected = NewerIncarnation {
        row: row_key(),
        incarnation: 3,
    };
    assert_eq!(audit.row(ShardIndex(0), &stored), Err(expected));
}

#[test]
fn where_updates_make_no_rows_nothing_is_missing_and_nothing_verifiable() {
    let skip = "[consumer]\non_missing_row = \"skip\"\n";
    assert_eq!(
        Case::new(1).with_config("", skip).update(0, "").result(),
        ((0, 0), NOTHING)
    );
    let present = Case::new(1)
        .with_config("", skip)
        .update(0, "")
        .row(-1, "{}", "{}");
    assert_eq!(present.result(), ((0, 1), NOTHING));
    let latest = Case::new(1)
        .with_config("start = \"latest\"", "")
        .update(0, "");
    assert_eq!(latest.result(), ((0, 0), NOTHING));
}

#[test]
fn a_bad_message_needs_its_letter_once_it_is_committed() {
    let bad = |committed| Case::new(committed).message(0, "x");
    assert_eq!(
        bad(1).result(),
        ((0, 0), vec![Difference::DeadLetterMissing])
    );
    assert_eq!(bad(0).result(), ((0, 0), NOTHING));
    assert_eq!(
        bad(1).letter(0, Reason::NotJson, "x").result(),
        ((0, 0), NOTHING)
    );
    assert_eq!(
        bad(0).letter(0, Reason::NotJson, "x").result(),
        ((0, 0), NOTHING)
    );
    let wrong_reason = vec![
        Difference::DeadLetterMissing,
        Difference::DeadLetterUnexpected,
    ];
    assert_eq!(
        bad(1).letter(0, Reason::BadId, "x").result(),
        ((0, 0), wrong_reason)
    );
}

#[test]
fn a_letter_of_a_good_message_or_of_none_is_unexpected() {
    let unexpected = || vec![Difference::DeadLetterUnexpected];
    let good = Case::new(1)
        .update(0, "")
        .row(0, "{}", "{}")
        .letter(0, Reason::BadTags, &value(""));
    assert_eq!(good.result(), ((1, 0), unexpected()));
    assert_eq!(
        Case::new(0).letter(7, Reason::BadTags, "x").result(),
        ((0, 0), unexpected())
    );
    let deleted = Case::new(0).with_start(8).letter(7, Reason::BadTags, "x");
    assert_eq!(deleted.result(), ((0, 0), NOTHING));
    let of_a_former_topic =
        Case::new(0)
            .with_config("incarnation = 2", "")
            .letter(7, Reason::BadTags, "x");
    assert_eq!(of_a_former_topic.result(), ((0, 0), NOTHING));
}

#[test]
fn what_the_database_refused_only_moves_the_fence() {
    let second = r#","tags":{"a":2}"#;
    let case = || {
        Case::new(2)
            .update(0, r#","tags":{"a":1}"#)
            .update(1, second)
    };
    let refused = || case().letter(1, Reason::Database, &value(second));
    assert_eq!(
        refused().row(1, r#"{"a": 1}"#, "{}").result(),
        ((1, 0), NOTHING)
    );
    assert_eq!(
        refused().row(1, r#"{"a": 2}"#, "{}").result(),
        ((1, 0), vec![Difference::Mismatched])
    );
    assert_eq!(
        refused().row(0, r#"{"a": 1}"#, "{}").result(),
        ((1, 0), vec![Difference::Missing])
    );
    let never_made = Case::new(1)
        .update(0, second)
        .letter(0, Reason::Database, &value(second));
    assert_eq!(never_made.result(), ((0, 0), NOTHING));
}

#[test]
fn an_overflow_needs_its_letter_and_a_letter_its_overflow() {
    let (most, one_more) = (
        r#","counts":{"c":9223372036854775807}"#,
        r#","counts":{"c":1},"tags":{"t":1}"#,
    );
    let overflow = || {
        Case::new(2).update(0, most).update(1, one_more).row(
            1,
            "{}",
            r#"{"c": 9223372036854775807}"#,
        )
    };
    assert_eq!(
        overflow()
            .letter(1, Reason::Overflow, &value(one_more))
            .result(),
        ((1, 0), NOTHING)
    );
    assert_eq!(
        overflow().result(),
        ((1, 0), vec![Difference::DeadLetterMissing])
    );
    let none = Case::new(1)
        .update(0, most)
        .row(0, "{}", r#"{"c": 9223372036854775807}"#);
    let none = none.letter(0, Reason::Overflow, &value(most));
    assert_eq!(
        none.result(),
        ((1, 0), vec![Difference::DeadLetterUnexpected])
    );
}

#[test]
fn a_link_over_the_limit_leaves_the_rest_of_its_update() {
    let link = r#","parent_id":"00000000-0000-0000-0000-000000000001","tags":{"t":1}"#;
    let case = Case::new(1).update(0, link).row(0, r#"{"t": 1}"#, "{}");
    assert_eq!(
        case.letter(0, Reason::LinkLimit, &value(link)).result(),
        ((1, 0), NOTHING)
    );
    let no_link =
        Case::new(1)
            .update(0, "")
            .row(0, "{}", "{}")
            .letter(0, Reason::LinkLimit, &value(""));
    assert_eq!(
        no_link.result(),
        ((1, 0), vec![Difference::DeadLetterUnexpected])
    );
}

#[test]
fn an_update_that_comes_after_its_rows_fence_from_below_is_a_mismatch() {
    let case = Case::new(3)
        .update(2, "")
        .row(2, "{}", "{}")
        .update(1, "")
        .update(0, "");
    assert_eq!(case.result(), ((1, 0), vec![Difference::Mismatched]));
}
