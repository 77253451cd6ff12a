//! Conditions one by one, and the sieve against a reading of the whole value.

#![expect(clippy::unwrap_used, reason = "tests")]

use super::sieve::Record;
use super::*;
use proptest::prelude::*;
use serde_json::Value;

const ID: &str = "5eb5a37e-b458-11e3-ac11-000c2940e62c";

fn record(value: &str) -> Record<'_> {
    Record {
        partition: 3,
        offset: 17,
        timestamp_ms: Some(5_000),
        key: Some(b"k1"),
        value: Some(value.as_bytes()),
        headers: &[("h", Some(b"1")), ("h", Some(b"2")), ("n", None)],
    }
}

fn passes(path: &str, operator: &str, wanted: &str, value: &str) -> bool {
    let condition = Condition::parse(path, operator, wanted).unwrap();
    let sieve = Sieve::new(vec![condition], Vec::new());
    sieve.pass(record(value)).is_some()
}

#[test]
fn each_operator_means_what_the_manual_says() {
    let upper = ID.to_uppercase();
    let value = &format!(
        r#"{{"app_id":"{upper}","tags":{{"a.b":"x","n":10,"t":"10","e":"Jos\u00e9","z":null,"v":true}},"big":9007199254740993,"list":[1,{{"k":"v"}}]}}"#
    );
    for (path, operator, wanted, expected) in [
        ("app_id", "=", ID, true),
        ("app_id", "!=", ID, false),
        ("app_id", "=", "5eb5a37e-b458-11e3-ac11-000c2940e62d", false),
        ("tags.\"a.b\"", "=", "x", true),
        ("tags.a.b", "=", "x", false),
        ("tags.n", "=", "10", true),
        ("tags.n", "=", "1e1", true),
        ("tags.n", "=", "\"10\"", false),
        ("tags.t", "=", "\"10\"", true),
        ("tags.t", "=", "10.0", false),
        ("tags.t", ">", "9", true),
        ("tags.n", "<", "9", false),
        ("tags.n", ">", "x", false),
        ("tags.e", "=", "José", true),
        ("tags.e", "~", "^Jos.$", true),
        ("tags.e", "~", "jos", false),
        ("tags.e", "~", "(?i)jos", true),
        ("tags.z", "=", "null", true),
        ("tags.z", "~", ".", false),
        ("tags.v", "=", "true", true),
        ("tags.none", "=", "null", false),
        ("tags.none", "!=", "x", true),
        ("tags.none", "<", "x", false),
        ("big", ">", "9007199254740992", true),
        ("list.1.k", "=", "v", true),
        ("key", "=", "k1", true),
        ("value", "~", "big", true),
        ("size", ">", "100", true),
        ("timestamp", "=", "5000", true),
        ("partition", "=", "3", true),
        ("offset", "<", "18", true),
        ("header.h", "=", "1", true),
        ("header.h", "!=", "1", false),
        ("header.n", "=", "null", true),
        ("header.none", "=", "1", false),
        ("header.none", "!=", "1", true),
    ] {
        assert_eq!(
            passes(path, operator, wanted, value),
            expected,
            "{path} {operator} {wanted}"
        );
    }
}

#[test]
fn a_bad_condition_is_refused_with_one_that_is_right() {
    for (path, operator, value) in [("tags..x", "=", "1"), ("a", "=>", "1"), ("a", "~", "(")] {
        let error = Condition::parse(path, operator, value).unwrap_err();
        assert!(error.contains("write "), "{error}");
    }
}

#[test]
fn what_is_no_json_has_no_places_and_passes_where_none_is_asked_for() {
    for value in ["", "no", "{\"a\":"] {
        assert!(!passes("a", "=", "1", value));
        assert!(passes("a", "!=", "1", value));
        assert!(passes("key", "=", "k1", value));
    }
}

/// JSON with the words of the conditions in it, some of them written with escapes.
fn values() -> impl Strategy<Value = String> {
    let text = prop_oneof![
        Just("\"Jon\"".to_owned()),
        Just("\"J\\u006fn\"".to_owned()),
        Just(format!("\"{ID}\"")),
        Just(format!("\"{}\"", ID.to_uppercase())),
        Just(format!("\"{}\"", ID.replace('-', ""))),
        Just("1".to_owned()),
        Just("1.0".to_owned()),
        Just("null".to_owned()),
    ];
    let name = prop_oneof![Just("a"), Just("\\u0061"), Just("b"), Just("J")];
    let flat = prop::collection::vec((name.clone(), text), 0..4);
    let shown = |pairs: Vec<(&str, String)>| {
        let pairs: Vec<String> = pairs.iter().map(|(k, v)| format!("\"{k}\":{v}")).collect();
        format!("{{{}}}", pairs.join(","))
    };
    prop::collection::vec((name, flat.prop_map(shown)), 0..3).prop_map(shown)
}

proptest! {
    /// Looking for bytes first, and reading only some places, changes nothing.
    #[test]
    fn the_sieve_finds_what_a_reading_of_all_finds(
        value in values(),
        first in prop_oneof![Just("a"), Just("b")],
        second in prop_oneof![Just("a"), Just("J")],
        wanted in prop_oneof![Just("Jon"), Just(ID), Just("1"), Just("null")],
    ) {
        let tree: Value = serde_json::from_str(&value).unwrap();
        let expected = match &tree[first][second] {
            Value::String(text) if wanted == ID => text.replace('-', "").eq_ignore_ascii_case(&ID.replace('-', "")),
            Value::String(text) => text == wanted,
            Value::Number(number) => wanted == "1" && number.as_f64() == Some(1.0),
            Value::Null => wanted == "null" && tree[first].get(second).is_some(),
            _ => false,
        };
        prop_assert_eq!(passes(&format!("{first}.{second}"), "=", wanted, &value), expected);
        prop_assert_eq!(passes(&format!("{first}.{second}"), "!=", wanted, &value), !expected);
    }
}
