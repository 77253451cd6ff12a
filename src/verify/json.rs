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
    /// Without quotes and escapes; `None` when it holds a lone surrogate, which no text of Rust's or Postgres' can.
    pub name: Option<Cow<'a, str>>,
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
    members.dedup_by(|later, kept| later.name.is_some() && later.name == kept.name);
    Some(members)
}

/// The text of a JSON string; `None` when it holds a lone surrogate. Panics unless `json` is a valid JSON string.
pub(super) fn text(json: &str) -> Option<Cow<'_, str>> {
    let inside = json
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
        .expect("a JSON string");
    if !inside.contains('\\') {
        return Some(Cow::Borrowed(inside));
    }
    serde_json::from_str(json).ok().map(Cow::Owned)
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

    fn pairs(members: Vec<Member<'_>>) -> Vec<(Option<String>, String)> {
        members
            .into_iter()
            .map(|member| (member.name.map(Cow::into_owned), member.value.to_owned()))
            .collect()
    }

    #[test]
    fn members_keep_the_raw_text_of_their_values() {
        let found =
            pairs(members(r#" { "a" : 1.50 , "\u0062":{"x":[1]}, "\ud800":"\ud800" } "#).unwrap());
        let expected = [
            (Some("a".to_owned()), "1.50".to_owned()),
            (Some("b".to_owned()), r#"{"x":[1]}"#.to_owned()),
            (None, r#""\ud800""#.to_owned()),
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
    fn text_is_unescaped_and_refuses_lone_surrogates_only() {
        assert_eq!(text(r#""a\nb\u0000\ud83d\ude00""#).unwrap(), "a\nb\0😀");
        for lone in [
            r#""\ud800""#,
            r#""\udc00""#,
            r#""\ud800\ud800""#,
            r#""\ud800x""#,
            r#""\udc00\ud800""#,
        ] {
            assert_eq!(text(lone), None, "{lone}");
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
            let expected: Vec<_> = tree.into_iter().map(|(name, value)| (Some(name), value.to_string())).collect();
            prop_assert_eq!(pairs(last_members(&json).unwrap()), expected);
        }
    }
}
