//! JSON as the model reads it: the members of an object as raw text, and the one spelling of each value.
//!
//! Not a tree: every value stays text until somebody asks for it, so that numbers keep all their digits and text that
//! nobody uses may hold anything. serde_json says what is JSON; what the text means is said here.

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;
use std::{borrow::Cow, fmt};

/// One `"name": value` of an object.
#[derive(Debug)]
pub(super) struct Member<'a> {
    /// As [`text`] gives it.
    pub name: Cow<'a, str>,
    /// The value's JSON text, without blanks around it.
    pub value: &'a str,
}

/// The members of a JSON object in their order; `None` when `json` is no object.
pub(super) fn members(json: &str) -> Option<Vec<Member<'_>>> {
    serde_json::from_str(json)
        .ok()
        .map(|Members(members)| members)
}

/// As [`members`], sorted by name, and of a name that comes twice only the last.
pub(super) fn last_members(json: &str) -> Option<Vec<Member<'_>>> {
    let mut members = members(json)?;
    members.reverse();
    members.sort_by(|one, other| one.name.cmp(&other.name));
    members.dedup_by(|later, kept| later.name == kept.name);
    Some(members)
}

/// The text of a JSON string. Panics unless `json` is a valid one.
///
/// With a lone surrogate it is no text at all, and comes as it is written: see [`has_lone_surrogate`].
pub(super) fn text(json: &str) -> Cow<'_, str> {
    let inside = json
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
        .expect("a JSON string");
    if !inside.contains('\\') {
        return Cow::Borrowed(inside);
    }
    serde_json::from_str(json).map_or(Cow::Borrowed(inside), Cow::Owned)
}

/// Whether there is an escape for half of a surrogate pair: it may be good JSON, but is no text in Rust or Postgres.
/// Looks for nothing else, so `json` may be anything.
pub(super) fn has_lone_surrogate(json: &str) -> bool {
    let mut rest = json;
    while let Some((_, escape)) = rest.split_once('\\') {
        rest = match code_unit(escape) {
            Some(0xd800..=0xdbff) => {
                let next = escape[5..].strip_prefix('\\').unwrap_or_default();
                if !matches!(code_unit(next), Some(0xdc00..=0xdfff)) {
                    return true;
                }
                &next[5..]
            }
            Some(0xdc00..=0xdfff) => return true,
            // Past the escaped character, which may be a backslash.
            _ => escape.strip_prefix('\\').unwrap_or(escape),
        };
    }
    false
}

/// The unit of UTF-16 in an escape like `u00e9`; `None` for other escapes.
fn code_unit(escape: &str) -> Option<u16> {
    let digits = escape.strip_prefix('u')?.get(..4)?;
    let is_hexadecimal = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_hexadecimal
        .then(|| u16::from_str_radix(digits, 16).ok())
        .flatten()
}

/// A number's one spelling: `1e2`, `100` and `100.0` are all `1e2`, and every zero is `0`.
///
/// Sign, digits without zeros at either end, `e`, power of ten. Panics unless `json` is a valid JSON number.
pub(super) fn decimal(json: &str) -> String {
    let (sign, size) = json
        .strip_prefix('-')
        .map_or(("", json), |size| ("-", size));
    let (mantissa, exponent) = size.split_once(['e', 'E']).unwrap_or((size, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all = [whole, fraction].concat();
    let leading = all.trim_start_matches('0');
    let digits = leading.trim_end_matches('0');
    if digits.is_empty() {
        return "0".to_owned();
    }
    // Nothing that Postgres stores comes near these ends.
    let out_of_range = if exponent.starts_with('-') {
        i128::MIN / 2
    } else {
        i128::MAX / 2
    };
    let exponent = exponent.parse().unwrap_or(out_of_range);
    let power = exponent - length(fraction) + length(leading) - length(digits);
    format!("{sign}{digits}e{power}")
}

fn length(text: &str) -> i128 {
    i128::try_from(text.len()).expect("a text's length fits")
}

struct Members<'a>(Vec<Member<'a>>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
                let mut members = Vec::new();
                while let Some((name, value)) = map.next_entry::<&RawValue, &RawValue>()? {
                    members.push(Member {
                        name: text(name.get()),
                        value: value.get(),
                    });
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use proptest::prelude::*;

    fn pairs(members: Vec<Member<'_>>) -> Vec<(String, String)> {
        members
            .into_iter()
            .map(|member| (member.name.into_owned(), member.value.to_owned()))
            .collect()
    }

    #[test]
    fn members_keep_the_raw_text_of_their_values() {
        let found =
            pairs(members(r#" { "a" : 1.50 , "\u0062":{"x":[1]}, "\ud800":"\ud800" } "#).unwrap());
        let expected = [
            ("a".to_owned(), "1.50".to_owned()),
            ("b".to_owned(), r#"{"x":[1]}"#.to_owned()),
            (r"\ud800".to_owned(), r#""\ud800""#.to_owned()),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn what_is_no_object_has_no_members() {
        for json in [
            "",
            " ",
            "1",
            "[]",
            "null",
            "\"{}\"",
            "{",
            "{}{}",
            "{\"a\":}",
            "{'a':1}",
            "{\"a\":01}",
            "{a:1}",
        ] {
            assert!(members(json).is_none(), "{json}");
        }
    }

    #[test]
    fn of_a_name_that_comes_twice_the_last_is_kept() {
        let found = pairs(last_members(r#"{"b":1,"a":2,"\u0061":3,"c":4,"a":5,"b":6}"#).unwrap());
        let values: Vec<&str> = found.iter().map(|(_, value)| value.as_str()).collect();
        assert_eq!(values, ["5", "6", "4"]);
    }

    #[test]
    fn text_is_unescaped() {
        assert_eq!(text(r#""a\nb\u0000\ud83d\ude00""#), "a\nb\0😀");
        assert_eq!(text(r#""a""#), "a");
    }

    #[test]
    fn lone_surrogates_are_found_wherever_they_are() {
        for lone in [
            r"\ud800",
            r"\uDC00",
            r"\ud800\ud800",
            r"\ud800x",
            r"\udc00\ud800",
            r"\\\udfff",
            r"\ud83d\n",
        ] {
            for json in [
                format!(r#"["{lone}"]"#),
                format!(r#"{{"a":{{"x{lone}y":1}}}}"#),
            ] {
                assert!(has_lone_surrogate(&json), "{json}");
            }
        }
        for whole in [
            r"\ud83d\ude00",
            r"\\ud800",
            r"\u00e9",
            r"\ue000\ud7ff",
            r#"\"\/\b"#,
            "😀",
        ] {
            let json = format!(r#"["{whole}"]"#);
            assert!(!has_lone_surrogate(&json), "{json}");
        }
    }

    #[test]
    fn spellings_of_one_number_are_one_decimal() {
        for (spellings, expected) in [
            (
                &["0", "-0", "0.000", "-0e5", "0E+99999999999999999999"][..],
                "0",
            ),
            (&["100", "1e2", "1E+2", "100.0", "0.1e3", "1000e-1"], "1e2"),
            (&["-1.5", "-15e-1", "-0.0150e2"], "-15e-1"),
            (
                &["123456789012345678901234567890"],
                "12345678901234567890123456789e1",
            ),
        ] {
            for spelling in spellings {
                assert_eq!(decimal(spelling), expected, "{spelling}");
            }
        }
    }

    proptest! {
        /// Two decimals are one exactly when, scaled to whole numbers, they are equal.
        #[test]
        fn decimals_are_equal_exactly_when_the_numbers_are(
            one in (-2000..2000i128, 0..6u32), other in (-2000..2000i128, 0..6u32), as_fraction: bool,
        ) {
            let spell = |(mantissa, places): (i128, u32)| if as_fraction {
                let scale = 10i128.pow(places);
                let sign = if mantissa < 0 { "-" } else { "" };
                let size = mantissa.abs();
                format!("{sign}{}.{:0width$}0", size / scale, size % scale, width = places as usize)
            } else {
                format!("{mantissa}E-{places}")
            };
            let scaled = |(mantissa, places): (i128, u32)| mantissa * 10i128.pow(6 - places);
            prop_assert_eq!(decimal(&spell(one)) == decimal(&spell(other)), scaled(one) == scaled(other));
            prop_assert_eq!(decimal(&spell(one)), decimal(&format!("{}e-6", scaled(one))));
        }

        /// serde_json's own tree, in which the last of two names wins too, is the second opinion.
        #[test]
        fn last_members_agree_with_a_tree(names in proptest::collection::vec("[ab\"\\\\é]{0,2}", 0..8)) {
            let fields: Vec<String> = names.iter().enumerate()
                .map(|(index, name)| format!("{}:{index}", serde_json::to_string(name).unwrap()))
                .collect();
            let json = format!("{{{}}}", fields.join(","));
            let tree: std::collections::BTreeMap<String, serde_json::Value> = serde_json::from_str(&json).unwrap();
            let expected: Vec<_> = tree.into_iter().map(|(name, value)| (name, value.to_string())).collect();
            prop_assert_eq!(pairs(last_members(&json).unwrap()), expected);
        }

        /// A string without lone surrogates is what serde_json can read.
        #[test]
        fn a_text_has_no_lone_surrogate_exactly_when_it_can_be_read(text in r"(\\(ud8ff|udc00|u0041|\\|n)|[a-z]){0,6}") {
            let json = format!("\"{text}\"");
            prop_assert_eq!(has_lone_surrogate(&json), serde_json::from_str::<String>(&json).is_err());
        }
    }
}
