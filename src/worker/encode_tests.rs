//! What folds become, of the subscription table and of another.

use super::*;
use crate::ids::{Partition, SubscriptionId};
use crate::sink::shape::SUBSCRIPTION;
use crate::update::{Place, column, decode};

const APP: &str = "5eb5a37e-b458-11e3-ac11-000c2940e62c";
const ROW: &str = "f47ac10b-58cc-4372-a567-0e02b2c3d479";

fn folds(updates: &[String]) -> Folds<'_> {
    let subscription = SubscriptionId::parse(ROW.as_bytes()).expect("a uuid");
    let place = Place {
        subscription,
        partition: Partition(0),
        partitioner: None,
    };
    let mut folds = Folds::for_messages(updates.len());
    for (number, text) in updates.iter().enumerate() {
        let offset = i64::try_from(number).expect("few");
        let position = Position {
            incarnation: 1,
            leader_epoch: 0,
            offset,
        };
        let update = decode(text.as_bytes(), &place).expect("a good update");
        folds.add(update, (position, offset, Partition(0)), number);
    }
    folds
}

fn updates(fields: &[&str]) -> Vec<String> {
    fields
        .iter()
        .map(|fields| format!(r#"{{"app_id":"{APP}","subscription_id":"{ROW}",{fields}}}"#))
        .collect()
}

fn merged_json(fields: &[&str], wanted: u8) -> String {
    let texts = updates(fields);
    let folds = folds(&texts);
    let mut merged = Merged::default();
    merged
        .merge(
            folds.encoded(&folds.folds[0]),
            wanted,
            SUBSCRIPTION.columns[usize::from(wanted)].kind,
        )
        .expect("sums within 64 bits");
    let mut out = Vec::new();
    match SUBSCRIPTION.columns[usize::from(wanted)].kind {
        Kind::Merge => object(&mut out, &merged.values, |out, value| {
            out.extend(value.unwrap_or("null").bytes())
        }),
        _ => object(&mut out, &merged.sums, |out, sum| integer(out, sum.total)),
    }
    String::from_utf8(out).expect("UTF-8")
}

#[test]
fn the_last_writer_of_a_tag_wins_and_a_removal_is_null() {
    let fields = [
        r#""tags":{"a":1,"b":"x"}"#,
        r#""tags":{"b":null,"c\"":true}"#,
        r#""tags":{"a":2}"#,
    ];
    assert_eq!(
        merged_json(&fields, column::TAGS),
        r#"{"a":2,"b":null,"c\"":true}"#
    );
}

#[test]
fn counts_are_summed_by_name() {
    let fields = [
        r#""counts":{"a":1,"b":5}"#,
        r#""counts":{"a":-3}"#,
        r#""tags":{"x":1}"#,
    ];
    assert_eq!(merged_json(&fields, column::COUNTS), r#"{"a":-2,"b":5}"#);
}

#[test]
fn many_names_are_found_again() {
    let tags: Vec<String> = (0..40)
        .map(|name| format!(r#""tags":{{"n{}":{name}}}"#, name % 20))
        .collect();
    let fields: Vec<&str> = tags.iter().map(String::as_str).collect();
    let merged: serde_json::Value =
        serde_json::from_str(&merged_json(&fields, column::TAGS)).expect("an object");
    let object = merged.as_object().expect("an object");
    assert_eq!(object.len(), 20);
    assert!((0..20).all(|name| object[&format!("n{name}")] == name + 20));
}

#[test]
fn sums_that_turn_back_are_guarded_and_sums_that_overflow_are_unfolded() {
    let texts = updates(&[r#""counts":{"a":5}"#, r#""counts":{"a":-3}"#]);
    let turning = folds(&texts);
    let touched_columns = touched(&SUBSCRIPTION, &turning, &turning.folds).expect("within 64 bits");
    assert_eq!(touched_columns.guards, 1 << column::COUNTS);
    let max = i64::MAX;
    let texts = updates(&[
        &format!(r#""counts":{{"a":{max}}}"#),
        r#""counts":{"a":1}"#,
        r#""counts":{"a":-9}"#,
    ]);
    let overflowing = folds(&texts);
    let mut encoder = Encoder::new(&SUBSCRIPTION);
    let refused = encoder.encode(&overflowing, &overflowing.folds).map(|_| ());
    assert_eq!(refused, Err(SumOverflow { index: 0 }));
}

#[test]
fn only_touched_columns_have_parameters() {
    let texts = updates(&[r#""tags":{"a":1}"#]);
    let folds = folds(&texts);
    let mut encoder = Encoder::new(&SUBSCRIPTION);
    let batch = encoder.encode(&folds, &folds.folds).expect("encodes");
    assert_eq!((batch.params.len(), batch.rows), (2 + FIXED + 1, 1));
}

#[cfg(not(feature = "loom"))]
mod of_another_table {
    use super::*;
    use crate::sink::shape;
    use crate::table::{Column, Deletes, KeyColumn, Kind as Type, Path, Rule, Table};
    use crate::update::{Content, decode_for};

    fn table() -> Table {
        let path = |text: &str| Path::parse(text).expect("a path");
        let column = |name: &str, rule, kind| Column {
            name: name.to_owned(),
            rule,
            kind,
            from: path(name),
        };
        Table {
            name: "encoded".to_owned(),
            keys: vec![KeyColumn {
                name: "id".to_owned(),
                kind: Type::Integer,
                from: path("@key"),
            }],
            shard_by: 0,
            columns: vec![
                column("n", Rule::Add, Type::Bigint),
                column("at", Rule::KeepMax, Type::Timestamptz),
                column("name", Rule::Set, Type::Text),
            ],
            deletes: Deletes::Tombstones,
            own: None,
        }
    }

    /// Those of one parameter.
    type Elements = Vec<Option<Vec<u8>>>;

    /// The parameters of these messages of one row, without those of position and time: their elements.
    fn encoded(values: &[&str]) -> (Touched, Vec<Elements>) {
        let table = table();
        let mut folds = Folds::for_messages(values.len());
        for (number, value) in values.iter().enumerate() {
            let offset = i64::try_from(number).expect("few");
            let position = Position {
                incarnation: 1,
                leader_epoch: 0,
                offset,
            };
            let content = Content {
                key: b"7",
                value: value.as_bytes(),
            };
            let decoded = decode_for(&table, Vec::new(), content, (Partition(0), None));
            folds.add(
                decoded.expect("a good message"),
                (position, offset, Partition(0)),
                number,
            );
        }
        let mut encoder = Encoder::new(shape::of(Some(&table)));
        let batch = encoder.encode(&folds, &folds.folds).expect("encodes");
        let owned = |element: Option<&[u8]>| element.map(<[u8]>::to_vec);
        let elements = |param: &ArrayParam| param.elements().into_iter().map(owned).collect();
        let params = batch
            .params
            .iter()
            .take(1)
            .chain(batch.params.iter().skip(1 + FIXED));
        (batch.touched, params.map(elements).collect())
    }

    fn bytes(value: &[u8]) -> Elements {
        vec![Some(value.to_vec())]
    }

    #[test]
    fn the_key_sums_and_what_stays_have_the_types_of_their_columns() {
        let values = [
            r#"{"n":5,"at":"2000-01-01T00:00:01Z","name":"a"}"#,
            r#"{"n":"-7","at":"1999-01-01T00:00:00Z"}"#,
        ];
        let (touched, params) = encoded(&values);
        assert_eq!(
            (touched.columns, touched.guards, touched.deletes),
            (0b111, 0b1, false)
        );
        let expected = [
            bytes(&7i32.to_be_bytes()),
            bytes(&(-2i64).to_be_bytes()),
            bytes(b"\x01[-2,5]"),
            bytes(&1_000_000i64.to_be_bytes()),
            bytes(b"a"),
        ];
        assert_eq!(params, expected);
    }

    #[test]
    fn a_delete_touches_no_column() {
        let (touched, params) = encoded(&[r#"{"n":5,"name":"a"}"#, ""]);
        assert_eq!((touched.columns, touched.deletes), (0, true));
        assert_eq!(params, [bytes(&7i32.to_be_bytes())]);
    }
}
