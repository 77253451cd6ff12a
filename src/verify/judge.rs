//! Judges one message by itself: an update, or the reason why it must be a dead letter.
//!
//! Written from the description of the wire format alone, beside the consumer's decoder and not from it: where the two
//! disagree, one of them is wrong. What depends on the row (a count that overflows) is [`super::state`]'s to say.

use super::{
    json::{Member, has_lone_surrogate, last_members, members, text},
    state::Value,
};
use crate::{
    dead::Reason,
    ids::{AppId, Partition, RowKey, SubscriptionId},
    partitioner::Partitioner,
};
use std::borrow::Cow;

/// A tag's number has at most this many characters, and a power of ten of at most 1000 either way.
const NUMBER_CHARACTERS_MAX: usize = 128;

/// A good message: what it does to its row.
#[derive(Debug)]
pub(super) struct Update<'a> {
    /// The row that it is for.
    pub row: RowKey,
    /// The parent's link.
    pub parent: Change<SubscriptionId>,
    /// The kind of device.
    pub device_type: Change<Cow<'a, str>>,
    /// The device's address.
    pub identifier: Change<Cow<'a, str>>,
    /// Each name once; `None` removes the tag.
    pub tags: Vec<(Cow<'a, str>, Option<Value>)>,
    /// Each name once; the number is added.
    pub counts: Vec<(Cow<'a, str>, i64)>,
}

/// What an update does to one column.
#[derive(Debug, PartialEq)]
pub(super) enum Change<T> {
    /// Nothing.
    Leave,
    /// Sets it to null.
    Clear,
    /// Sets it.
    Set(T),
}

/// The limits that a message is judged by.
pub(super) struct Judge {
    /// Key and value together.
    pub message_bytes_max: usize,
    /// Which partition each app belongs on; `None` where any will do.
    pub partitioner: Option<Partitioner>,
}

impl Judge {
    /// The update, or the first thing that is wrong in the order: size, value there, key, UTF-8, lone surrogates, JSON, ids,
    /// key against value, partition, tags, counts, parent, texts.
    pub fn judge<'a>(
        &self,
        partition: Partition,
        key: Option<&[u8]>,
        value: Option<&'a [u8]>,
    ) -> Result<Update<'a>, Reason> {
        if key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len) > self.message_bytes_max {
            return Err(Reason::TooLarge);
        }
        let value = value.ok_or(Reason::Tombstone)?;
        if value.is_empty() {
            return Err(Reason::Empty);
        }
        let key = SubscriptionId::parse(key.ok_or(Reason::MissingId)?).ok_or(Reason::BadId)?;
        let value = std::str::from_utf8(value).map_err(|_| Reason::NotJson)?;
        if has_lone_surrogate(value) {
            return Err(Reason::BadText);
        }
        let fields = Fields::of(value).ok_or(Reason::NotJson)?;

        let row = fields.row()?;
        if key != row.subscription {
            return Err(Reason::KeyMismatch);
        }
        if self
            .partitioner
            .as_ref()
            .is_some_and(|rule| rule.partition_of(row.app) != partition)
        {
            return Err(Reason::WrongPartition);
        }
        let tags = fields.tags()?;
        let counts = fields.counts()?;
        let parent = fields.parent(row.subscription)?;

        let tags = tags
            .into_iter()
            .map(|tag| Ok((storable(tag.name)?, tag_change(tag.value)?)));
        let counts = counts
            .into_iter()
            .map(|(name, add)| Ok((storable(name)?, add)));
        Ok(Update {
            row,
            parent,
            tags: tags.collect::<Result<_, Reason>>()?,
            counts: counts.collect::<Result<_, Reason>>()?,
            device_type: text_change(fields.device_type)?,
            identifier: text_change(fields.identifier)?,
        })
    }
}

/// The fields that mean something, as JSON text. Of a field that comes twice, the last.
#[derive(Default)]
struct Fields<'a> {
    app: Option<&'a str>,
    subscription: Option<&'a str>,
    parent: Option<&'a str>,
    device_type: Option<&'a str>,
    identifier: Option<&'a str>,
    tags: Option<&'a str>,
    counts: Option<&'a str>,
}

impl<'a> Fields<'a> {
    fn of(json: &'a str) -> Option<Self> {
        let mut fields = Self::default();
        for Member { name, value } in members(json)? {
            let field = match name.as_ref() {
                "app_id" => &mut fields.app,
                "subscription_id" => &mut fields.subscription,
                "parent_id" => &mut fields.parent,
                "device_type" => &mut fields.device_type,
                "identifier" => &mut fields.identifier,
                "tags" => &mut fields.tags,
                "counts" => &mut fields.counts,
                _ => continue,
            };
            *field = Some(value);
        }
        Some(fields)
    }

    /// The app's id is judged first.
    fn row(&self) -> Result<RowKey, Reason> {
        let app = present(self.app)?;
        let app = string(app).and_then(|text| AppId::parse(text.as_bytes()));
        Ok(RowKey {
            app: app.ok_or(Reason::BadId)?,
            subscription: subscription_id(present(self.subscription)?)?,
        })
    }

    fn tags(&self) -> Result<Vec<Member<'a>>, Reason> {
        let Some(json) = self.tags else {
            return Ok(Vec::new());
        };
        let tags = last_members(json).ok_or(Reason::BadTags)?;
        if tags.iter().all(|tag| may_be_tag(tag.value)) {
            Ok(tags)
        } else {
            Err(Reason::BadTags)
        }
    }

    fn counts(&self) -> Result<Vec<(Cow<'a, str>, i64)>, Reason> {
        let Some(json) = self.counts else {
            return Ok(Vec::new());
        };
        let counts = last_members(json).ok_or(Reason::BadCounts)?.into_iter();
        // Rust reads the integers that JSON has: no fraction, no exponent, within 64 bits.
        counts
            .map(|count| {
                Ok((
                    count.name,
                    count.value.parse().map_err(|_| Reason::BadCounts)?,
                ))
            })
            .collect()
    }

    fn parent(&self, own: SubscriptionId) -> Result<Change<SubscriptionId>, Reason> {
        match self.parent {
            None => Ok(Change::Leave),
            Some("null") => Ok(Change::Clear),
            Some(json) => match subscription_id(json)? {
                parent if parent == own => Err(Reason::SelfParent),
                parent => Ok(Change::Set(parent)),
            },
        }
    }
}

fn present(field: Option<&str>) -> Result<&str, Reason> {
    field
        .filter(|json| *json != "null")
        .ok_or(Reason::MissingId)
}

/// The text of `json` if it is a string.
fn string(json: &str) -> Option<Cow<'_, str>> {
    json.starts_with('"').then(|| text(json))
}

fn subscription_id(json: &str) -> Result<SubscriptionId, Reason> {
    string(json)
        .and_then(|text| SubscriptionId::parse(text.as_bytes()))
        .ok_or(Reason::BadId)
}

fn may_be_tag(json: &str) -> bool {
    match json.as_bytes()[0] {
        b'{' | b'[' => false,
        b'"' | b't' | b'f' | b'n' => true,
        _ => {
            let power = json.split(['e', 'E']).nth(1).unwrap_or("0");
            let power = power.trim_start_matches(['+', '-', '0']);
            json.len() <= NUMBER_CHARACTERS_MAX
                && (power.len() < 4 || power == "1000")
                && json.parse().is_ok_and(f64::is_finite)
        }
    }
}

fn tag_change(json: &str) -> Result<Option<Value>, Reason> {
    if json.starts_with('"') {
        let text = storable(text(json))?;
        return Ok((!text.is_empty()).then(|| Value::text(&text)));
    }
    Ok((json != "null").then(|| Value::plain(json)))
}

fn text_change(json: Option<&str>) -> Result<Change<Cow<'_, str>>, Reason> {
    match json {
        None => Ok(Change::Leave),
        Some("null") => Ok(Change::Clear),
        Some(json) => storable(string(json).ok_or(Reason::BadText)?).map(Change::Set),
    }
}

/// Postgres stores everything but NUL.
fn storable(text: Cow<'_, str>) -> Result<Cow<'_, str>, Reason> {
    if text.contains('\0') {
        Err(Reason::BadText)
    } else {
        Ok(text)
    }
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
