//! What updates make of a row, and when two rows are one.

use super::*;
use crate::{ids::Partition, verify::judge::Judge};
use proptest::prelude::*;
use std::collections::BTreeMap;

const IDS: &str = r#""app_id":"5eb5a37e-b458-11e3-ac11-000c2940e62c","subscription_id":"f47ac10b-58cc-4372-a567-0e02b2c3d479""#;
const KEY: &[u8] = b"f47ac10b-58cc-4372-a567-0e02b2c3d479";
const PARENT: &str = "00000000-0000-0000-0000-000000000001";

/// Applies an update with these further fields, which begin with a comma.
fn apply(
    state: &mut State,
    names: &mut Names,
    fields: &str,
    link_refused: bool,
) -> Result<(), Overflow> {
    let judge = Judge {
        message_bytes_max: usize::MAX,
        partitioner: None,
    };
    let value = format!("{{{IDS}{fields}}}");
    let update = judge.judge(Partition(0), Some(KEY), Some(value.as_bytes()));
    state.apply(update.expect("a good update"), link_refused, names)
}

fn state_after(updates: &[&str]) -> String {
    let (mut state, mut names) = (State::default(), Names::default());
    for update in updates {
        apply(&mut state, &mut names, update, false).expect("no overflow");
    }
    state.show(&names)
}

fn row(tags: &str, counts: &str, names: &mut Names) -> Result<State, String> {
    State::of(
        &Columns {
            parent: None,
            device_type: None,
            identifier: None,
            tags,
            counts,
        },
        names,
    )
}

#[test]
fn an_update_without_anything_leaves_an_empty_row() {
    assert_eq!(
        state_after(&[""]),
        "parent_id=null device_type=null identifier=null tags={} counts={}"
    );
}

#[test]
fn the_last_writer_of_a_tag_wins_and_null_or_nothing_removes_it() {
    let updates = [
        r#","tags":{"a":"x","b":1.50,"c":true,"d":"old"}"#,
        r#","tags":{"a":null,"b":"","d":"new","never":null}"#,
    ];
    assert!(
        state_after(&updates).contains(r#"tags={"c": true, "d": "new"}"#),
        "{}",
        state_after(&updates)
    );
}

#[test]
fn counts_are_added_and_stay_at_zero() {
    let updates = [r#","counts":{"a":5,"b":-2}"#, r#","counts":{"a":-5,"c":0}"#];
    assert!(
        state_after(&updates).contains(r#"counts={"a": 0, "b": -2, "c": 0}"#),
        "{}",
        state_after(&updates)
    );
}

#[test]
fn a_parent_is_left_set_and_cleared() {
    let set = format!(r#","parent_id":"{PARENT}""#);
    assert!(state_after(&[&set, ""]).contains(PARENT));
    assert!(state_after(&[&set, r#","parent_id":null"#]).contains("parent_id=null"));
}

#[test]
fn texts_are_left_set_and_cleared() {
    let set = r#","device_type":"email","identifier":"a@b.c""#;
    assert!(state_after(&[set, ""]).contains(r#"device_type="email" identifier="a@b.c""#));
    let after = state_after(&[set, r#","device_type":"","identifier":null"#]);
    assert!(after.contains(r#"device_type="" identifier=null"#));
}

#[test]
fn an_overflow_leaves_the_whole_row_as_it_was() {
    let (mut state, mut names) = (State::default(), Names::default());
    apply(
        &mut state,
        &mut names,
        r#","counts":{"a":9223372036854775807}"#,
        false,
    )
    .expect("fits");
    let before = state.clone();
    let overflow = r#","tags":{"t":1},"device_type":"x","counts":{"z":1,"a":1}"#;
    assert_eq!(
        apply(&mut state, &mut names, overflow, false),
        Err(Overflow)
    );
    assert_eq!(state, before);
    apply(&mut state, &mut names, r#","counts":{"a":-1}"#, false).expect("fits");
}

#[test]
fn a_refused_link_leaves_the_rest_of_its_update() {
    let (mut state, mut names) = (State::default(), Names::default());
    let fields = format!(r#","parent_id":"{PARENT}","tags":{{"t":1}}"#);
    apply(&mut state, &mut names, &fields, true).expect("no overflow");
    assert!(state.show(&names).starts_with("parent_id=null"));
    assert!(state.show(&names).contains(r#"{"t": 1e0}"#));
}

#[test]
fn a_row_that_no_update_makes_is_told_apart() {
    let mut names = Names::default();
    for (tags, counts) in [
        ("[]", "{}"),
        ("{}", "5"),
        ("{}", r#"{"a": 1.5}"#),
        ("{}", r#"{"a": "1"}"#),
    ] {
        assert!(row(tags, counts, &mut names).is_err(), "{tags} {counts}");
    }
    let nested = row(r#"{"t": {"a": 1}}"#, "{}", &mut names).expect("readable");
    assert_ne!(nested.digest(0), State::default().digest(0));
}

#[test]
fn the_digest_tells_columns_and_kinds_apart() {
    let mut names = Names::default();
    let shapes = [
        "",
        r#","device_type":"x""#,
        r#","identifier":"x""#,
        r#","device_type":"""#,
        r#","tags":{"x":"1"}"#,
        r#","tags":{"x":1}"#,
        r#","tags":{"x":true}"#,
        r#","tags":{"x":"true"}"#,
        r#","counts":{"x":1}"#,
        r#","counts":{"x":0}"#,
        r#","counts":{"y":1}"#,
        &format!(r#","parent_id":"{PARENT}""#),
    ];
    let mut digests: Vec<Digest> = shapes
        .iter()
        .map(|fields| {
            let mut state = State::default();
            apply(&mut state, &mut names, fields, false).expect("no overflow");
            state.digest(7)
        })
        .collect();
    digests.push(State::default().digest(8));
    for (index, digest) in digests.iter().enumerate() {
        assert!(
            !digests[..index].contains(digest),
            "{:?}",
            shapes.get(index)
        );
    }
}

proptest! {
    /// The second opinion: one map of tags and one of counts, written again from scratch, and read as Postgres' columns.
    #[test]
    fn a_row_is_equal_to_what_plain_maps_make_of_its_updates(
        updates in proptest::collection::vec((0..4usize, 0..6usize, -3..4i64), 0..20),
    ) {
        let values = ["null", "\"\"", "\"v\"", "1e1", "false", "10.0"];
        let (mut state, mut names) = (State::default(), Names::default());
        let (mut tags, mut counts) = (BTreeMap::new(), BTreeMap::new());
        for (name, value, add) in updates {
            let fields = format!(r#","tags":{{"n{name}":{}}},"counts":{{"n{name}":{add}}}"#, values[value]);
            apply(&mut state, &mut names, &fields, false).expect("no overflow");
            if value < 2 { tags.remove(&name) } else { tags.insert(name, values[value]) };
            *counts.entry(name).or_insert(0) += add;
        }
        let object = |members: Vec<String>| format!("{{{}}}", members.join(", "));
        let tags = object(tags.iter().rev().map(|(name, value)| format!(r#""n{name}": {value}"#)).collect());
        let counts = object(counts.iter().map(|(name, sum)| format!(r#""n{name}": {sum}"#)).collect());
        let expected = row(&tags, &counts, &mut names).expect("readable");
        prop_assert_eq!(&state, &expected);
        prop_assert_eq!(state.digest(1), expected.digest(1));
    }
}
