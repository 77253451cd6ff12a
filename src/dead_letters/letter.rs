//! One dead letter as it lies in its topic: the message that was given up, and what its headers say about it.

use crate::dead::{Reason, header};
use crate::ids::{AppId, Partition, SubscriptionId};
use crate::kafka::dead_letters::{PREFIX, TRUNCATED};
use crate::kafka::reader::Message;
use serde::Serialize;
use std::fmt;
use std::str::FromStr;
use xxhash_rust::xxh3::xxh3_128;

/// A record's place in a topic, written `PARTITION:OFFSET`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The partition.
    pub partition: Partition,
    /// The offset there.
    pub offset: i64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.partition, self.offset)
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.parse::<i64>().ok().filter(|number| *number >= 0);
        text.split_once(':')
            .and_then(|(partition, offset)| {
                Some(Self {
                    partition: Partition(i32::try_from(number(partition)?).ok()?),
                    offset: number(offset)?,
                })
            })
            .ok_or_else(|| format!("{text:?} is no place; write PARTITION:OFFSET, such as 3:120"))
    }
}

/// A dead letter, with everything that it holds.
#[derive(Clone, Debug)]
pub struct Letter {
    /// Where it lies in the dead letter topic.
    pub place: Place,
    /// The timestamp of the message that was given up, in milliseconds since 1970; `None` if it had none.
    pub timestamp_ms: Option<i64>,
    /// The message's key; `None` for null.
    pub key: Option<Vec<u8>>,
    /// The message's value; `None` for null.
    pub value: Option<Vec<u8>>,
    /// The message's headers, then those that say why it is here.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Letter {
    /// Takes a record of the dead letter topic.
    pub fn of(message: &Message<'_>) -> Self {
        Self {
            place: Place {
                partition: message.partition(),
                offset: message.offset(),
            },
            timestamp_ms: message.timestamp().milliseconds(),
            key: message.key().map(Into::into),
            value: message.value().map(Into::into),
            headers: message
                .headers()
                .map(|(name, value)| (name.to_owned(), value.map(Into::into)))
                .collect(),
        }
    }

    /// What a header says. Of a name that comes twice the last holds: the original message's come first.
    pub fn says(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().rfind(|(own, _)| own == name)?;
        str::from_utf8(value.as_deref()?).ok()
    }

    /// Where the message was read; `None` if the headers don't say.
    pub fn origin(&self) -> Option<Place> {
        Some(Place {
            partition: Partition(self.says(header::PARTITION)?.parse().ok()?),
            offset: self.says(header::OFFSET)?.parse().ok()?,
        })
    }

    /// Why it was given up; `None` for a reason that this version doesn't know.
    pub fn reason(&self) -> Option<Reason> {
        self.says(header::REASON).and_then(Reason::parse)
    }

    /// How often it was replayed before.
    pub fn attempts(&self) -> u32 {
        let said = self.says(header::ATTEMPTS);
        said.and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    /// The length of the original value, where the brokers refused it whole and this is only its beginning.
    pub fn cut_from(&self) -> Option<&str> {
        self.says(TRUNCATED)
    }

    /// The headers that the message had before it became a letter.
    pub fn original_headers(&self) -> impl Iterator<Item = (&str, Option<&[u8]>)> {
        self.headers
            .iter()
            .filter(|(name, _)| !name.starts_with(PREFIX))
            .map(|(name, value)| (name.as_str(), value.as_deref()))
    }

    /// The app that the value names, if it names one legibly.
    pub fn app(&self) -> Option<AppId> {
        let value: serde_json::Value = serde_json::from_slice(self.value.as_deref()?).ok()?;
        AppId::parse(value.get("app_id")?.as_str()?.as_bytes())
    }

    /// What it takes in memory, about.
    pub fn bytes(&self) -> usize {
        let length = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
        let headers = self.headers.iter();
        let headers: usize = headers
            .map(|(name, value)| name.len() + length(value))
            .sum();
        size_of::<Self>() + length(&self.key) + length(&self.value) + headers
    }

    /// A fingerprint of key and value in which a null is not an empty one.
    pub fn content(&self) -> u128 {
        let mut bytes = Vec::new();
        for part in [&self.key, &self.value] {
            let length = part.as_ref().map_or(u64::MAX, |part| part.len() as u64);
            bytes.extend(length.to_le_bytes());
            bytes.extend(part.iter().flatten());
        }
        xxh3_128(&bytes)
    }

    /// What a list shows of it.
    pub fn summary(&self) -> Summary {
        let text = |name| self.says(name).map(str::to_owned);
        let origin = self.origin();
        let subscription = self.key.as_deref().and_then(SubscriptionId::parse);
        Summary {
            partition: self.place.partition.0,
            offset: self.place.offset,
            timestamp_ms: self.timestamp_ms,
            source_topic: text(header::TOPIC),
            source_partition: origin.map(|origin| origin.partition.0),
            source_offset: origin.map(|origin| origin.offset),
            group: text(header::GROUP),
            reason: text(header::REASON),
            sqlstate: text(header::SQLSTATE),
            attempts: self.attempts(),
            app_id: self.app().map(|app| app.to_string()),
            subscription_id: subscription.map(|subscription| subscription.to_string()),
            message: text(header::MESSAGE),
        }
    }
}

/// What a list shows of a letter. The fields' names are its JSON keys; `None` is what the letter doesn't say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// The letter's partition in the dead letter topic.
    pub partition: i32,
    /// Its offset there.
    pub offset: i64,
    /// The timestamp of the message, in milliseconds since 1970.
    pub timestamp_ms: Option<i64>,
    /// The topic that the message came from.
    pub source_topic: Option<String>,
    /// Its partition there.
    pub source_partition: Option<i32>,
    /// Its offset there.
    pub source_offset: Option<i64>,
    /// The group that gave it up.
    pub group: Option<String>,
    /// Why, as the header spells it.
    pub reason: Option<String>,
    /// Postgres' code.
    pub sqlstate: Option<String>,
    /// How often it was replayed before.
    pub attempts: u32,
    /// The app that the value names.
    pub app_id: Option<String>,
    /// The subscription that the key names.
    pub subscription_id: Option<String>,
    /// What was wrong, for people.
    pub message: Option<String>,
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn letter(headers: &[(&str, &str)], value: &str) -> Letter {
        let owned =
            |(name, value): &(&str, &str)| ((*name).to_owned(), Some(value.as_bytes().to_vec()));
        Letter {
            place: "0:0".parse().unwrap(),
            timestamp_ms: None,
            key: None,
            value: Some(value.as_bytes().to_vec()),
            headers: headers.iter().map(owned).collect(),
        }
    }

    #[test]
    fn a_place_is_written_as_it_is_read() {
        let place: Place = "3:120".parse().unwrap();
        assert_eq!((place.partition.0, place.offset), (3, 120));
        assert_eq!(place.to_string(), "3:120");
        for bad in ["3", "3:", ":1", "-1:2", "1:-2", "a:b", "3000000000:1"] {
            assert!(bad.parse::<Place>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_last_of_two_headers_holds_and_ours_are_not_original() {
        let letter = letter(
            &[
                ("traceparent", "00-1-2-01"),
                (header::OFFSET, "7"),
                (header::PARTITION, "1"),
                (header::OFFSET, "9"),
            ],
            "{}",
        );
        assert_eq!(letter.origin(), Some("1:9".parse().unwrap()));
        let original: Vec<_> = letter.original_headers().map(|(name, _)| name).collect();
        assert_eq!(original, ["traceparent"]);
        assert_eq!(letter.attempts(), 0);
        assert_eq!(letter.reason(), None);
    }

    #[test]
    fn the_app_is_told_even_where_the_update_is_bad() {
        let app = "5eb5a37e-b458-11e3-ac11-000c2940e62c";
        let bad_tags = letter(&[], &format!(r#"{{"app_id":"{app}","tags":[]}}"#));
        assert_eq!(bad_tags.app(), AppId::parse(app.as_bytes()));
        for without in ["{", "{}", r#"{"app_id":7}"#, "[]"] {
            assert_eq!(letter(&[], without).app(), None, "{without}");
        }
    }
}
