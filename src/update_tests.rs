//! What decoding accepts, and the reason with which it refuses.
#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use rand::{Rng, SeedableRng};

const APP: &str = "5eb5a37e-b458-11e3-ac11-000c2940e62c";
const ROW: &str = "f47ac10b-58cc-4372-a567-0e02b2c3d479";

fn place<'a>() -> Place<'a> {
    let subscription = SubscriptionId::parse(ROW.as_bytes()).unwrap();
    Place {
        subscription,
        partition: Partition(0),
        partitioner: None,
    }
}

fn with(fields: &str) -> String {
    format!(r#"{{"app_id":"{APP}","subscription_id":"{ROW}"{fields}}}"#)
}

fn reason(value: &str) -> Reason {
    decode(value.as_bytes(), &place()).unwrap_err().reason
}

fn tags(value: &str) -> Vec<(String, Option<String>)> {
    let update = decode(value.as_bytes(), &place()).unwrap();
    let tag = |change: &Change<'_>| match change {
        Change::Merge { name, value, .. } => (name.to_string(), value.map(str::to_owned)),
        other => panic!("{other:?} is no tag"),
    };
    update.changes.iter().map(tag).collect()
}

#[test]
fn an_update_with_everything_is_read() {
    let text = with(
        r#","tags":{"first_name":"Jon","vip":null,"level":1.50,"ok":true,"gone":""},"counts":{"sessions":-3},
            "parent_id":"{00000000-0000-0000-0000-000000000001}","device_type":"email","identifier":"aä@b.c","more":[1]"#,
    );
    let update = decode(text.as_bytes(), &place()).unwrap();
    assert_eq!(update.unknown_keys, 1);
    assert_eq!(update.key.app.to_string(), APP);
    let merge = |name: &'static str, value| Change::Merge {
        column: column::TAGS,
        name: name.into(),
        value,
    };
    let parent = std::array::from_fn(|at| u8::from(at == 15));
    let expected = [
        merge("first_name", Some("\"Jon\"")),
        merge("vip", None),
        merge("level", Some("1.50")),
        merge("ok", Some("true")),
        merge("gone", None),
        Change::Add {
            column: column::COUNTS,
            name: "sessions".into(),
            delta: -3,
        },
        Change::Set {
            column: column::PARENT,
            value: Some(SetValue::Uuid(parent)),
        },
        Change::Set {
            column: column::DEVICE_TYPE,
            value: Some(SetValue::Text("email".into())),
        },
        Change::Set {
            column: column::IDENTIFIER,
            value: Some(SetValue::Text("aä@b.c".into())),
        },
    ];
    assert_eq!(update.changes, expected);
}

#[test]
fn the_last_of_two_keys_wins() {
    assert_eq!(
        tags(&with(r#","tags":{"a":1},"tags":{"b":2,"b":3}"#)),
        [("b".to_owned(), Some("3".to_owned()))]
    );
    assert_eq!(
        tags(&with(r#","tags":{"a":1,"\u0061":2}"#)),
        [("a".to_owned(), Some("2".to_owned()))]
    );
}

#[test]
fn what_is_no_json_object_is_refused() {
    for value in ["nonsense", "[]", "1", r#"{"a":1"#, r#"{"a":01}"#] {
        assert_eq!(reason(value), Reason::NotJson, "{value}");
    }
    assert_eq!(
        decode(b"\xff{}", &place()).unwrap_err().reason,
        Reason::NotJson
    );
}

#[test]
fn ids_are_needed_and_checked() {
    assert_eq!(reason("{}"), Reason::MissingId);
    assert_eq!(
        reason(&format!(r#"{{"app_id":null,"subscription_id":"{ROW}"}}"#)),
        Reason::MissingId
    );
    assert_eq!(
        reason(&format!(r#"{{"app_id":7,"subscription_id":"{ROW}"}}"#)),
        Reason::BadId
    );
    assert_eq!(
        reason(&format!(r#"{{"app_id":"x","subscription_id":"{ROW}"}}"#)),
        Reason::BadId
    );
    assert_eq!(
        reason(&format!(
            r#"{{"app_id":"{APP}","subscription_id":"{APP}"}}"#
        )),
        Reason::KeyMismatch
    );
    assert_eq!(reason(&with(r#","parent_id":"x""#)), Reason::BadId);
    assert_eq!(
        reason(&with(&format!(r#","parent_id":"{ROW}""#))),
        Reason::SelfParent
    );
    let upper = ROW.to_uppercase();
    let braced = format!(r#"{{"app_id":"{APP}","subscription_id":"{{{upper}}}"}}"#);
    assert!(decode(braced.as_bytes(), &place()).is_ok());
}

#[test]
fn a_message_on_another_partition_than_its_apps_is_refused() {
    let partitioner = Partitioner::new(8, 1, [0; 256]);
    let home = partitioner.partition_of(AppId::parse(APP.as_bytes()).unwrap());
    for partition in 0..8 {
        let place = Place {
            partition: Partition(partition),
            partitioner: Some(&partitioner),
            ..place()
        };
        let text = with("");
        let found = decode(text.as_bytes(), &place);
        assert_eq!(found.is_ok(), Partition(partition) == home);
    }
}

#[test]
fn tags_are_scalars() {
    for tags in [
        "[]",
        "null",
        r#"{"a":{}}"#,
        r#"{"a":[1]}"#,
        r#"{"a":1e999}"#,
        r#"{"a":1e-1001}"#,
        r#"{"a":0e99999999999}"#,
    ] {
        assert_eq!(
            reason(&with(&format!(r#","tags":{tags}"#))),
            Reason::BadTags,
            "{tags}"
        );
    }
    let long = "1".repeat(129);
    assert_eq!(
        reason(&with(&format!(r#","tags":{{"a":{long}}}"#))),
        Reason::BadTags
    );
}

#[test]
fn counts_are_64_bit_integers() {
    for counts in [
        "[]",
        "null",
        r#"{"a":1.0}"#,
        r#"{"a":"1"}"#,
        r#"{"a":1e3}"#,
        r#"{"a":9223372036854775808}"#,
    ] {
        assert_eq!(
            reason(&with(&format!(r#","counts":{counts}"#))),
            Reason::BadCounts,
            "{counts}"
        );
    }
    assert!(
        decode(
            with(r#","counts":{"a":-9223372036854775808}"#).as_bytes(),
            &place()
        )
        .is_ok()
    );
}

#[test]
fn text_that_postgres_cannot_store_is_refused() {
    for fields in [
        r#","tags":{"a":"x\u0000"}"#,
        r#","tags":{"a\u0000":1}"#,
        r#","tags":{"a":"\ud800"}"#,
        r#","tags":{"\udc00\ud800":1}"#,
        r#","counts":{"\u0000":1}"#,
        r#","tags":{"\u0000":1},"counts":{"c":1}"#,
        r#","identifier":"\u0000""#,
        r#","device_type":7"#,
    ] {
        assert_eq!(reason(&with(fields)), Reason::BadText, "{fields}");
    }
    // A backslash before the u, and a whole pair, are fine.
    let fine = tags(&with(
        r#","tags":{"a":"\\u0000\\ud800","b":"\ud83d\ude00"}"#,
    ));
    assert_eq!(fine[0].1.as_deref(), Some(r#""\\u0000\\ud800""#));
}

#[test]
fn what_is_wrong_with_a_text_is_said_when_all_else_is_right() {
    let nul = r#","tags":{"a":"\u0000"}"#;
    for (fields, expected) in [
        (r#","counts":{"c":1.5}"#, Reason::BadCounts),
        (r#","parent_id":"x""#, Reason::BadId),
        (r#","identifier":"\u0000""#, Reason::BadText),
    ] {
        assert_eq!(reason(&with(&format!("{nul}{fields}"))), expected);
    }
}

/// What serde_json alone makes of an object.
fn entries_of(raw: &str) -> Option<Vec<Change<'_>>> {
    let mut changes = Vec::new();
    let named = (Reason::BadTags, "tags");
    read_entries(raw, column::TAGS, named, false, &mut changes).ok()?;
    Some(changes)
}

#[test]
fn the_usual_shape_is_read_without_serde_json() {
    for fields in [
        "",
        r#","tags":{"first_name":"Jon"}"#,
        r#","tags": {"level": -3, "vip": null, "name": "Jö"}, "counts":{"sessions":1}, "parent_id": null, "more":true"#,
    ] {
        let text = with(fields);
        assert!(plain::is_plain(text.as_bytes()), "{text}");
        assert!(Fields::plain(&text).is_some(), "{text}");
    }
    for fields in [
        r#","tags":{"a":1.5}"#,
        r#","more":[1]"#,
        r#","tags":{"a":{"b":{}}}"#,
    ] {
        assert_eq!(Fields::plain(&with(fields)), None, "{fields}");
    }
    for unusual in ["a\nb", "a\\b", "\u{1f}"] {
        assert!(!plain::is_plain(unusual.as_bytes()), "{unusual:?}");
    }
}

#[test]
fn what_is_read_without_serde_json_is_read_as_serde_json_reads_it() {
    const PIECES: [&str; 28] = [
        "{",
        "}",
        "{",
        "}",
        ":",
        ":",
        ",",
        ",",
        "\"",
        "\"a\"",
        "\"tags\"",
        "\"app_id\"",
        "\"ä\"",
        " ",
        "1",
        "0",
        "-",
        "-7",
        "00",
        "1.5",
        "1e3",
        "true",
        "false",
        "null",
        "nul",
        "[",
        "\"b\":2",
        "\"b\":\"x\"",
    ];
    let mut random = rand::rngs::SmallRng::seed_from_u64(7);
    let good =
        with(r#","tags":{"a":"b","n":-12,"t":true},"counts":{"c":1},"parent_id":null,"x":{"y":0}"#);
    let (mut read, mut left) = (0, 0);
    for _ in 0..200_000 {
        // A text that is nearly right, or one of a few pieces.
        let mut text = match random.random_bool(0.5) {
            true => good.clone(),
            false => "{\"a\":}".to_owned(),
        };
        for _ in 0..random.random_range(0..4) {
            let places: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
            if places.is_empty() {
                break;
            }
            let from = random.random_range(0..places.len());
            let until = (from + random.random_range(0..3)).min(places.len() - 1);
            let piece = PIECES[random.random_range(0..PIECES.len())];
            text.replace_range(places[from]..places[until], piece);
        }
        if !plain::is_plain(text.as_bytes()) {
            continue;
        }
        match Fields::plain(&text) {
            Some(fields) => {
                assert_eq!(Fields::any(&text), Ok(fields), "{text}");
                read += 1;
            }
            None => left += 1,
        }
        let mut changes = Vec::new();
        let push =
            |name, raw| push_entry(&mut changes, 0, (column::TAGS, Cow::Borrowed(name), raw));
        if plain::object(&text, push).is_some() {
            assert_eq!(entries_of(&text), Some(changes), "{text}");
        }
    }
    assert!(read > 20_000 && left > 20_000, "{read} read, {left} left");
}
