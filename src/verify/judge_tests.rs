//! What the judge says of each kind of message, and of which fault it speaks when there are several.

use super::*;

const APP: &str = "5eb5a37e-b458-11e3-ac11-000c2940e62c";
const ROW: &str = "f47ac10b-58cc-4372-a567-0e02b2c3d479";
const OTHER: &str = "00000000-0000-0000-0000-000000000001";
const PARTITIONS: u32 = 8;

fn judge() -> Judge {
    let partitioner = Partitioner::new(PARTITIONS, 1, [0; 256]);
    Judge {
        message_bytes_max: 1000,
        partitioner: Some(partitioner),
    }
}

fn home() -> Partition {
    let app = AppId::parse(APP.as_bytes()).expect("a UUID");
    judge().partitioner.expect("given").partition_of(app)
}

fn reason_of(key: Option<&str>, value: &str) -> Option<Reason> {
    let judged = judge().judge(home(), key.map(str::as_bytes), Some(value.as_bytes()));
    judged.err()
}

/// A value with both ids and these further fields, which begin with a comma.
fn value(fields: &str) -> String {
    format!(r#"{{"app_id":"{APP}","subscription_id":"{ROW}"{fields}}}"#)
}

fn reason_with(fields: &str) -> Option<Reason> {
    reason_of(Some(ROW), &value(fields))
}

#[test]
fn a_message_with_ids_alone_is_good() {
    assert_eq!(reason_with(""), None);
}

#[test]
fn uuids_are_good_in_any_usual_form() {
    let forms = [
        ROW.to_uppercase(),
        ROW.replace('-', ""),
        format!("{{{ROW}}}"),
        format!("urn:uuid:{ROW}"),
    ];
    for form in forms {
        let value = format!(r#"{{"app_id":"{APP}","subscription_id":"{form}"}}"#);
        assert_eq!(reason_of(Some(ROW), &value), None, "{form}");
        assert_eq!(reason_of(Some(&form), &value), None, "{form}");
    }
}

#[test]
fn size_is_judged_before_the_value_and_the_value_before_the_key() {
    let judge = judge();
    let large = [b'x'; 1001];
    let reason = |key: Option<&[u8]>, value: Option<&[u8]>| judge.judge(home(), key, value).err();
    assert_eq!(reason(None, Some(&large)), Some(Reason::TooLarge));
    assert_eq!(reason(Some(&large), None), Some(Reason::TooLarge));
    assert_eq!(
        reason(Some(b"k"), Some(&large[..1000])),
        Some(Reason::TooLarge)
    );
    assert_eq!(reason(Some(b"k"), Some(&large[..999])), Some(Reason::BadId));
    assert_eq!(reason(None, None), Some(Reason::Tombstone));
    assert_eq!(reason(None, Some(b"")), Some(Reason::Empty));
    assert_eq!(reason(None, Some(b"x")), Some(Reason::MissingId));
    assert_eq!(reason(Some(b""), Some(b"x")), Some(Reason::BadId));
    assert_eq!(
        reason(Some(ROW.as_bytes()), Some(b"\xff{}")),
        Some(Reason::NotJson)
    );
}

#[test]
fn what_is_no_json_object_is_not_json() {
    for value in ["x", " ", "[]", "null", "{}x", "{\"a\":1,}", "\u{feff}{}"] {
        assert_eq!(
            reason_of(Some(ROW), value),
            Some(Reason::NotJson),
            "{value}"
        );
    }
    assert_eq!(reason_of(Some(ROW), " {} "), Some(Reason::MissingId));
}

#[test]
fn ids_are_missing_when_absent_or_null_and_bad_when_no_uuid() {
    let reason = |app: &str, row: &str| {
        let value = format!(r#"{{"app_id":{app},"subscription_id":{row}}}"#);
        reason_of(Some(ROW), &value)
    };
    let (app, row) = (format!("\"{APP}\""), format!("\"{ROW}\""));
    assert_eq!(reason("null", &row), Some(Reason::MissingId));
    assert_eq!(reason(&app, "null"), Some(Reason::MissingId));
    assert_eq!(reason("null", "5"), Some(Reason::MissingId));
    assert_eq!(reason("5", "null"), Some(Reason::BadId));
    for bad in ["5", "\"\"", "\"x\"", "[]", "true"] {
        assert_eq!(reason(bad, &row), Some(Reason::BadId), "{bad}");
        assert_eq!(reason(&app, bad), Some(Reason::BadId), "{bad}");
    }
    assert_eq!(
        reason(&app, &format!("\"{OTHER}\"")),
        Some(Reason::KeyMismatch)
    );
}

#[test]
fn an_app_elsewhere_than_its_partition_is_wrong_only_where_a_rule_says_so() {
    let elsewhere = Partition((home().0 + 1) % 8);
    let message = value("");
    let reason = |judge: &Judge| {
        let judged = judge.judge(elsewhere, Some(ROW.as_bytes()), Some(message.as_bytes()));
        judged.err()
    };
    let mut judge = judge();
    assert_eq!(reason(&judge), Some(Reason::WrongPartition));
    judge.partitioner = None;
    assert_eq!(reason(&judge), None);
}

#[test]
fn tags_are_strings_finite_numbers_booleans_and_null() {
    let digits = |count: usize| "1".repeat(count);
    for good in [
        "\"x\"",
        "\"\"",
        "null",
        "true",
        "1.5e3",
        "-0",
        "1e-400",
        &digits(128),
    ] {
        assert_eq!(
            reason_with(&format!(r#","tags":{{"t":{good}}}"#)),
            None,
            "{good}"
        );
    }
    for bad in ["{}", "[]", "1e400", "-1e999", &digits(129)] {
        let reason = reason_with(&format!(r#","tags":{{"t":{bad}}}"#));
        assert_eq!(reason, Some(Reason::BadTags), "{bad}");
    }
    for bad in ["null", "[]", "\"x\"", "5"] {
        let reason = reason_with(&format!(r#","tags":{bad}"#));
        assert_eq!(reason, Some(Reason::BadTags), "{bad}");
    }
}

#[test]
fn counts_are_whole_numbers_of_64_bits() {
    for good in [
        "0",
        "-0",
        "5",
        "-9223372036854775808",
        "9223372036854775807",
    ] {
        assert_eq!(
            reason_with(&format!(r#","counts":{{"c":{good}}}"#)),
            None,
            "{good}"
        );
    }
    for bad in [
        "9223372036854775808",
        "1.0",
        "1e2",
        "\"5\"",
        "null",
        "true",
        "{}",
    ] {
        let reason = reason_with(&format!(r#","counts":{{"c":{bad}}}"#));
        assert_eq!(reason, Some(Reason::BadCounts), "{bad}");
    }
    assert_eq!(reason_with(r#","counts":null"#), Some(Reason::BadCounts));
}

#[test]
fn a_parent_is_another_subscription() {
    let own = ROW.to_uppercase();
    assert_eq!(
        reason_with(&format!(r#","parent_id":"{own}""#)),
        Some(Reason::SelfParent)
    );
    assert_eq!(reason_with(&format!(r#","parent_id":"{OTHER}""#)), None);
    assert_eq!(reason_with(r#","parent_id":null"#), None);
    assert_eq!(reason_with(r#","parent_id":7"#), Some(Reason::BadId));
}

#[test]
fn nul_is_bad_wherever_it_is_used() {
    let text = r"x\u0000y";
    for place in [
        format!(r#","tags":{{"{text}":1}}"#),
        format!(r#","tags":{{"{text}":null}}"#),
        format!(r#","tags":{{"t":"{text}"}}"#),
        format!(r#","counts":{{"{text}":1}}"#),
        format!(r#","device_type":"{text}""#),
        format!(r#","identifier":"{text}""#),
    ] {
        assert_eq!(reason_with(&place), Some(Reason::BadText), "{place}");
    }
    let unused = format!(r#","other":"{text}","{text}":1,"nested":{{"{text}":["{text}"]}}"#);
    assert_eq!(reason_with(&unused), None, "{unused}");
}

#[test]
fn a_lone_surrogate_is_bad_anywhere_even_where_the_json_is_broken() {
    for value in [
        value(r#","other":["\ud800"]"#),
        value(r#","\ud800":1"#),
        value(r#","tags":5,"tags":{"a":"\udc00","a":1}"#),
        r#"{"app_id":"\ud800"}"#.to_owned(),
        r#"{"a":"\ud800"#.to_owned(),
    ] {
        assert_eq!(
            reason_of(Some(ROW), &value),
            Some(Reason::BadText),
            "{value}"
        );
    }
}

#[test]
fn a_text_field_is_a_string_or_null() {
    assert_eq!(reason_with(r#","device_type":5"#), Some(Reason::BadText));
    assert_eq!(reason_with(r#","identifier":{}"#), Some(Reason::BadText));
    assert_eq!(reason_with(r#","identifier":null"#), None);
}

#[test]
fn of_several_faults_the_first_in_the_order_is_named() {
    let faults = [
        (r#","tags":5"#.to_owned(), Reason::BadTags),
        (r#","counts":5"#.to_owned(), Reason::BadCounts),
        (format!(r#","parent_id":"{ROW}""#), Reason::SelfParent),
        (r#","device_type":5"#.to_owned(), Reason::BadText),
    ];
    for first in 0..faults.len() {
        let fields: String = faults[first..]
            .iter()
            .rev()
            .map(|(text, _)| text.as_str())
            .collect();
        assert_eq!(reason_with(&fields), Some(faults[first].1), "{fields}");
    }
    let nul = r#","tags":{"\u0000":"x"},"counts":{"c":"x"}"#;
    assert_eq!(reason_with(nul), Some(Reason::BadCounts));
}

#[test]
fn of_a_key_that_comes_twice_the_last_wins_everywhere() {
    let message = value(
        r#","tags":5,"tags":{"a":{},"b":"\u0000","a":1,"b":"x"},"counts":{"c":"x","c":2},"device_type":5,"device_type":null"#,
    );
    let judge = judge();
    let update = judge.judge(home(), Some(ROW.as_bytes()), Some(message.as_bytes()));
    let update = update.expect("good, since only the last of each counts");
    let tags = [
        ("a".into(), Some(Value::plain("1"))),
        ("b".into(), Some(Value::text("x"))),
    ];
    assert_eq!(update.tags, tags);
    assert_eq!(update.counts, [("c".into(), 2)]);
    assert_eq!(update.device_type, Change::Clear);
    assert_eq!(update.identifier, Change::Leave);
}
