//! The fields of a value and the entries of an object: by `plain` where the text is of the usual shape, by serde_json otherwise.

use super::{Change, Rejection, has_lone_surrogate, plain};
use crate::dead::Reason;
use serde::de::{Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::{borrow::Cow, fmt};

/// The top level of a value, each field still as JSON text. A key that comes twice: the last wins.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Fields<'a> {
    pub app_id: Option<&'a str>,
    pub subscription_id: Option<&'a str>,
    pub tags: Option<&'a str>,
    pub counts: Option<&'a str>,
    pub parent_id: Option<&'a str>,
    pub device_type: Option<&'a str>,
    pub identifier: Option<&'a str>,
    pub unknown_keys: u32,
}

impl<'a> Fields<'a> {
    /// Of a text of the usual shape.
    pub fn plain(text: &'a str) -> Option<Self> {
        let mut fields = Self::default();
        plain::object(text, |name, raw| match fields.field(name) {
            Some(field) => *field = Some(raw),
            None => fields.unknown_keys += 1,
        })?;
        Some(fields)
    }

    /// Of any text.
    pub fn any(text: &'a str) -> Result<Self, Rejection> {
        let fields = serde_json::from_str(text);
        if has_lone_surrogate(text.as_bytes()) {
            return Err(Rejection::new(
                Reason::BadText,
                "the value holds half of a surrogate pair",
            ));
        }
        fields.map_err(|error| {
            let message = format!("the value is no JSON object: {error}");
            Rejection::new(Reason::NotJson, message)
        })
    }

    fn field(&mut self, name: &str) -> Option<&mut Option<&'a str>> {
        Some(match name {
            "app_id" => &mut self.app_id,
            "subscription_id" => &mut self.subscription_id,
            "tags" => &mut self.tags,
            "counts" => &mut self.counts,
            "parent_id" => &mut self.parent_id,
            "device_type" => &mut self.device_type,
            "identifier" => &mut self.identifier,
            _ => return None,
        })
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Of;
        impl<'de> Visitor<'de> for Of {
            type Value = Fields<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut fields = Fields::default();
                while let Some(Text(key)) = map.next_key()? {
                    match fields.field(&key) {
                        Some(field) => *field = Some(map.next_value::<&RawValue>()?.get()),
                        None => {
                            fields.unknown_keys += 1;
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                Ok(fields)
            }
        }
        deserializer.deserialize_map(Of)
    }
}

/// A JSON string, borrowed unless it holds escapes.
pub(super) struct Text<'a>(pub Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Of;
        impl<'de> Visitor<'de> for Of {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Of)
    }
}

/// Appends the entries of a JSON object in order, as merges: names unescaped, values as JSON text.
pub(super) struct Entries<'c, 'a> {
    pub column: u8,
    pub changes: &'c mut Vec<Change<'a>>,
}

impl<'de> DeserializeSeed<'de> for Entries<'_, 'de> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Entries<'_, 'de> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { column, changes } = self;
        let start = changes.len();
        while let Some((Text(name), raw)) = map.next_entry::<Text<'de>, &'de RawValue>()? {
            push_entry(changes, start, (column, name, raw.get()));
        }
        Ok(())
    }
}

/// A name that comes twice: the last wins. Few names, so looking through them is cheapest.
pub(super) fn push_entry<'a>(
    changes: &mut Vec<Change<'a>>,
    start: usize,
    (column, new, raw): (u8, Cow<'a, str>, &'a str),
) {
    let before = changes[start..].iter_mut().find_map(|change| match change {
        Change::Merge { name, value, .. } if *name == new => Some(value),
        _ => None,
    });
    match before {
        Some(value) => *value = Some(raw),
        None => changes.push(Change::Merge {
            column,
            name: new,
            value: Some(raw),
        }),
    }
}
