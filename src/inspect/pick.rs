//! Takes a few places out of a JSON value and leaves the rest unread: no tree is built, nothing is copied.
//!
//! As on the wire, of a name that comes twice the last counts.

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;

/// The JSON text of each place, `None` where it isn't there.
pub type Picked<'v> = Vec<Option<&'v RawValue>>;

/// The places, as a tree of names.
#[derive(Debug, Default)]
pub struct Picker {
    root: Node,
    places: usize,
}

#[derive(Debug, Default)]
struct Node {
    /// The number of the place that is here.
    place: Option<usize>,
    children: Vec<(String, Node)>,
}

impl Picker {
    /// The number of the place in what is picked; the same for one that was asked for before.
    pub fn place(&mut self, names: &[String]) -> usize {
        let mut node = &mut self.root;
        for name in names {
            let found = node.children.iter().position(|(own, _)| own == name);
            let at = found.unwrap_or_else(|| {
                node.children.push((name.clone(), Node::default()));
                node.children.len() - 1
            });
            node = &mut node.children[at].1;
        }
        *node.place.get_or_insert_with(|| {
            self.places += 1;
            self.places - 1
        })
    }

    /// Whether there is no place to look at.
    pub fn is_empty(&self) -> bool {
        self.places == 0
    }

    /// Reads the value; `None` if it is not JSON.
    pub fn pick<'v>(&self, value: &'v [u8]) -> Option<Picked<'v>> {
        let mut picked = vec![None; self.places];
        let mut json = serde_json::Deserializer::from_slice(value);
        let at = At {
            node: &self.root,
            picked: &mut picked,
        };
        at.deserialize(&mut json).ok()?;
        json.end().ok()?;
        Some(picked)
    }
}

impl Node {
    /// An earlier value of the same name does not count.
    fn forget(&self, picked: &mut Picked<'_>) {
        if let Some(place) = self.place {
            picked[place] = None;
        }
        for (_, child) in &self.children {
            child.forget(picked);
        }
    }

    fn child(&self, name: &str) -> Option<&Self> {
        let found = self.children.iter().find(|(own, _)| own == name);
        found.map(|(_, node)| node)
    }
}

/// A node, and where what is found goes.
struct At<'p, 'v> {
    node: &'p Node,
    picked: &'p mut Picked<'v>,
}

impl<'v> DeserializeSeed<'v> for At<'_, 'v> {
    type Value = ();

    fn deserialize<D: Deserializer<'v>>(self, from: D) -> Result<(), D::Error> {
        self.node.forget(self.picked);
        let Some(place) = self.node.place else {
            return from.deserialize_any(self);
        };
        let raw = <&'v RawValue as serde::Deserialize>::deserialize(from)?;
        self.picked[place] = Some(raw);
        if self.node.children.is_empty() {
            return Ok(());
        }
        let mut json = serde_json::Deserializer::from_str(raw.get());
        json.deserialize_any(self).map_err(serde::de::Error::custom)
    }
}

impl<'v> Visitor<'v> for At<'_, 'v> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'v>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(child) = map.next_key_seed(Named(self.node))? {
            match child {
                Some(node) => map.next_value_seed(At {
                    node,
                    picked: self.picked,
                })?,
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'v>>(self, mut items: A) -> Result<(), A::Error> {
        for index in 0_usize.. {
            let child = match self.node.children.is_empty() {
                true => None,
                false => self.node.child(&index.to_string()),
            };
            let more = match child {
                Some(node) => {
                    let at = At {
                        node,
                        picked: self.picked,
                    };
                    items.next_element_seed(at)?.is_some()
                }
                None => items.next_element::<IgnoredAny>()?.is_some(),
            };
            if !more {
                break;
            }
        }
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// The child that a name stands for.
struct Named<'p>(&'p Node);

impl<'p, 'v> DeserializeSeed<'v> for Named<'p> {
    type Value = Option<&'p Node>;

    fn deserialize<D: Deserializer<'v>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_str(self)
    }
}

impl<'p> Visitor<'_> for Named<'p> {
    type Value = Option<&'p Node>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.child(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picked(paths: &[&str], value: &str) -> Option<Vec<Option<String>>> {
        let mut picker = Picker::default();
        for path in paths {
            let names: Vec<String> = path.split('.').map(str::to_owned).collect();
            picker.place(&names);
        }
        let picked = picker.pick(value.as_bytes())?;
        let text = |raw: Option<&RawValue>| raw.map(|raw| raw.get().to_owned());
        Some(picked.into_iter().map(text).collect())
    }

    fn some(texts: &[Option<&str>]) -> Option<Vec<Option<String>>> {
        Some(texts.iter().map(|text| text.map(str::to_owned)).collect())
    }

    #[test]
    fn places_are_found_at_any_depth_and_missing_ones_are_none() {
        let value = r#"{"a":1,"b":{"c":"x","d":[10,{"e":null}]},"\u0066":true}"#;
        let paths = ["a", "b.c", "b.d.1.e", "b.d.7", "f", "g.h", "a.b"];
        let expected = [
            Some("1"),
            Some("\"x\""),
            Some("null"),
            None,
            Some("true"),
            None,
            None,
        ];
        assert_eq!(picked(&paths, value), some(&expected));
    }

    #[test]
    fn a_place_inside_of_another_is_found_too() {
        let expected = [Some(r#"{"c":1}"#), Some("1")];
        assert_eq!(picked(&["b", "b.c"], r#"{"b":{"c":1}}"#), some(&expected));
    }

    #[test]
    fn of_a_name_that_comes_twice_the_last_counts() {
        let expected = [None, Some("2")];
        let value = r#"{"a":{"x":1},"b":1,"a":{"y":1},"b":2}"#;
        assert_eq!(picked(&["a.x", "b"], value), some(&expected));
    }

    #[test]
    fn what_is_no_json_is_told_apart() {
        for value in ["", "x", "{\"a\":1", "{\"a\":1} x", "\u{0}"] {
            assert_eq!(picked(&["a"], value), None, "{value}");
        }
        assert_eq!(picked(&["a"], "[1]"), some(&[None]));
        assert_eq!(picked(&["a"], "7"), some(&[None]));
    }
}
