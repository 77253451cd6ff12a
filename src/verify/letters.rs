//! The dead letters of our topic and group: which messages were given up, and why.
//!
//! A letter belongs to a message by partition, offset and content. Offsets alone would not do: the dead letter topic
//! outlives a topic that is made anew, whose offsets begin at 0 again. The same letter may come more than once.

use crate::{
    dead::{Reason, header},
    ids::Partition,
    kafka::dead_letters::TRUNCATED,
};
use hashbrown::HashMap;
use xxhash_rust::xxh3::Xxh3Default;

/// The letters that no message has claimed yet.
#[derive(Default)]
pub(super) struct Letters {
    reasons: HashMap<Origin, Reasons>,
}

/// Where a letter comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Origin {
    partition: Partition,
    offset: i64,
    /// Of key and value; [`ANY_CONTENT`] where the letter's value was cut off, since the broker refused it whole.
    content: u64,
}

const ANY_CONTENT: u64 = 0;

/// A set of reasons: one bit for each, at its place in [`Reason::ALL`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Reasons(u16);

/// What a letter in the topic is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Of another topic or group.
    Foreign,
    /// Kept in [`Letters`].
    Ours,
    /// Its headers don't say where it comes from or why it is here.
    Unreadable,
}

impl Letters {
    /// Takes in one letter. `headers` are those of the letter; of a name that comes twice the last holds, since the
    /// original message's come first.
    pub fn add<'a>(
        &mut self,
        topic: &str,
        group: &str,
        headers: impl Iterator<Item = (&'a str, Option<&'a [u8]>)>,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Kind {
        let found = Headers::of(headers);
        if found.topic.is_some_and(|found| found != topic)
            || found.group.is_some_and(|found| found != group)
        {
            return Kind::Foreign;
        }
        let (Some(_), Some(partition), Some(offset), Some(reason)) =
            (found.topic, found.partition, found.offset, found.reason)
        else {
            return Kind::Unreadable;
        };
        let content = if found.truncated {
            ANY_CONTENT
        } else {
            content(key, value)
        };
        self.reasons
            .entry(Origin {
                partition,
                offset,
                content,
            })
            .or_default()
            .insert(reason);
        Kind::Ours
    }

    /// How many messages have letters.
    pub fn count(&self) -> u64 {
        u64::try_from(self.reasons.len()).expect("a length fits")
    }

    /// The reasons in this message's letters, which are then forgotten.
    pub fn take(
        &mut self,
        partition: Partition,
        offset: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Reasons {
        if self.reasons.is_empty() {
            return Reasons::default();
        }
        let mut all = Reasons::default();
        for content in [content(key, value), ANY_CONTENT] {
            if let Some(Reasons(found)) = self.reasons.remove(&Origin {
                partition,
                offset,
                content,
            }) {
                all.0 |= found;
            }
        }
        all
    }

    /// The letters that no message claimed.
    pub fn unclaimed(&self) -> impl Iterator<Item = (Partition, i64, Reasons)> {
        self.reasons
            .iter()
            .map(|(origin, reasons)| (origin.partition, origin.offset, *reasons))
    }
}

impl Reasons {
    /// Adds one.
    pub fn insert(&mut self, reason: Reason) {
        self.0 |= bit(reason);
    }

    /// Takes one out; whether it was there.
    pub fn remove(&mut self, reason: Reason) -> bool {
        let was_there = self.0 & bit(reason) != 0;
        self.0 &= !bit(reason);
        was_there
    }

    /// Each in turn.
    pub fn iter(self) -> impl Iterator<Item = Reason> {
        Reason::ALL
            .into_iter()
            .filter(move |reason| self.0 & bit(*reason) != 0)
    }
}

fn bit(reason: Reason) -> u16 {
    let place = Reason::ALL.iter().position(|other| *other == reason);
    1 << place.expect("all reasons are in the list of all")
}

/// What a letter's headers say; `None` for what they don't, or not legibly.
#[derive(Default)]
struct Headers<'a> {
    topic: Option<&'a str>,
    group: Option<&'a str>,
    partition: Option<Partition>,
    offset: Option<i64>,
    reason: Option<Reason>,
    truncated: bool,
}

impl<'a> Headers<'a> {
    fn of(headers: impl Iterator<Item = (&'a str, Option<&'a [u8]>)>) -> Self {
        let mut found = Self::default();
        for (name, value) in headers {
            let text = value.and_then(|value| std::str::from_utf8(value).ok());
            match name {
                header::TOPIC => found.topic = text,
                header::GROUP => found.group = text,
                header::PARTITION => {
                    found.partition = text.and_then(|text| text.parse().ok()).map(Partition)
                }
                header::OFFSET => found.offset = text.and_then(|text| text.parse().ok()),
                header::REASON => found.reason = text.and_then(Reason::parse),
                TRUNCATED => found.truncated = true,
                _ => {}
            }
        }
        found
    }
}

/// A fingerprint of key and value in which a null is not an empty one.
fn content(key: Option<&[u8]>, value: Option<&[u8]>) -> u64 {
    let mut hash = Xxh3Default::new();
    for part in [key, value] {
        hash.update(
            &part
                .map_or(u64::MAX, |part| part.len() as u64)
                .to_le_bytes(),
        );
        hash.update(part.unwrap_or_default());
    }
    hash.digest()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Option<&[u8]> = Some(b"key");
    const VALUE: Option<&[u8]> = Some(b"value");

    fn add(letters: &mut Letters, headers: &[(&str, &str)]) -> Kind {
        let headers = headers
            .iter()
            .map(|(name, value)| (*name, Some(value.as_bytes())));
        letters.add("updates", "group", headers, KEY, VALUE)
    }

    fn letter(offset: &str, reason: &str) -> Vec<(&'static str, String)> {
        let fields = [
            (header::TOPIC, "updates"),
            (header::GROUP, "group"),
            (header::PARTITION, "3"),
            (header::OFFSET, offset),
            (header::REASON, reason),
        ];
        fields.map(|(name, value)| (name, value.to_owned())).into()
    }

    fn borrowed<'a>(headers: &'a [(&'a str, String)]) -> Vec<(&'a str, &'a str)> {
        headers
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect()
    }

    fn reasons(letters: &mut Letters, offset: i64, value: Option<&[u8]>) -> Vec<Reason> {
        letters
            .take(Partition(3), offset, KEY, value)
            .iter()
            .collect()
    }

    #[test]
    fn a_letter_is_found_by_its_message_and_only_once() {
        let mut letters = Letters::default();
        for _duplicate in 0..2 {
            assert_eq!(
                add(&mut letters, &borrowed(&letter("7", "bad-id"))),
                Kind::Ours
            );
        }
        assert_eq!(letters.count(), 1);
        assert_eq!(reasons(&mut letters, 8, VALUE), []);
        assert_eq!(
            reasons(&mut letters, 7, None),
            [],
            "of a former topic's message"
        );
        assert_eq!(reasons(&mut letters, 7, VALUE), [Reason::BadId]);
        assert_eq!(reasons(&mut letters, 7, VALUE), []);
    }

    #[test]
    fn a_letter_that_was_cut_off_belongs_to_its_offset() {
        let mut letters = Letters::default();
        let mut cut_off = letter("7", "too-large");
        cut_off.push((TRUNCATED, "2000000".to_owned()));
        add(&mut letters, &borrowed(&cut_off));
        assert_eq!(
            reasons(&mut letters, 7, Some(b"value and more")),
            [Reason::TooLarge]
        );
    }

    #[test]
    fn letters_of_others_are_foreign_and_those_without_an_origin_unreadable() {
        let mut letters = Letters::default();
        let good = letter("7", "bad-id");
        for (name, value, expected) in [
            (header::TOPIC, "other", Kind::Foreign),
            (header::GROUP, "other", Kind::Foreign),
            (header::OFFSET, "x", Kind::Unreadable),
            (header::REASON, "no-such-reason", Kind::Unreadable),
        ] {
            // The last of two headers holds: the first may be the original message's own.
            let mut headers = borrowed(&good);
            headers.push((name, value));
            assert_eq!(add(&mut letters, &headers), expected, "{name}");
        }
        assert_eq!(add(&mut letters, &[]), Kind::Unreadable);
        assert_eq!(letters.count(), 0);
    }
}
