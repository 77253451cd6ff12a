//! One row's state: what updates make of it, and one form in which the model's and Postgres' can be compared.
//!
//! Kept small, since there may be one for each of ten million rows: names are numbers, values one short text each.

use super::{
    json::{Member, decimal, last_members, text},
    judge::{Change, Update},
};
use crate::ids::SubscriptionId;
use hashbrown::HashMap;
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_128;

/// A count would leave 64 bits.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Overflow;

/// A fingerprint of a whole row. Rows that are equal have the same one; others don't, but for one chance in 2^128.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Digest(u128);

impl Digest {
    /// Of a row that no update could have made: equal to no state's.
    pub const IMPOSSIBLE: Self = Self(0);
}

/// The names of tags and counts, each once.
#[derive(Default)]
pub(super) struct Names {
    numbers: HashMap<Arc<str>, Name>,
    names: Vec<Arc<str>>,
}

/// A name's number in [`Names`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name(u32);

/// A JSON value in one spelling: a string as `"` and its text, a number as a decimal, anything else as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Value(Box<str>);

/// What a row holds, but for its fence and its time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    parent: Option<SubscriptionId>,
    device_type: Option<Box<str>>,
    identifier: Option<Box<str>>,
    /// Sorted by name number, each once.
    tags: Vec<(Name, Value)>,
    /// Sorted by name number, each once.
    counts: Vec<(Name, i64)>,
}

/// A row's columns as Postgres gives them.
pub(super) struct Columns<'a> {
    /// `parent_id`.
    pub parent: Option<SubscriptionId>,
    /// `device_type`.
    pub device_type: Option<&'a str>,
    /// `identifier`.
    pub identifier: Option<&'a str>,
    /// `tags` as JSON text.
    pub tags: &'a str,
    /// `counts` as JSON text.
    pub counts: &'a str,
}

impl State {
    /// The row as Postgres holds it; what is wrong with it when no update could have made it so.
    pub fn of(columns: &Columns<'_>, names: &mut Names) -> Result<Self, String> {
        let members = |json, column| {
            last_members(json).ok_or_else(|| format!("{column} is {json}, not an object"))
        };
        let mut state = Self {
            parent: columns.parent,
            device_type: columns.device_type.map(Box::from),
            identifier: columns.identifier.map(Box::from),
            ..Self::default()
        };
        for Member { name, value } in members(columns.tags, "tags")? {
            let value = if value.starts_with('"') {
                Value::text(&text(value))
            } else {
                Value::plain(value)
            };
            state.tags.push((names.number(&name), value));
        }
        for Member { name, value } in members(columns.counts, "counts")? {
            let sum = value
                .parse()
                .map_err(|_| format!("count {name} is {value}"))?;
            state.counts.push((names.number(&name), sum));
        }
        state.tags.sort_by_key(|(name, _)| *name);
        state.counts.sort_by_key(|(name, _)| *name);
        Ok(state)
    }

    /// Does what the update says, all of it or nothing; without its link if that was refused.
    pub fn apply(
        &mut self,
        update: Update<'_>,
        link_refused: bool,
        names: &mut Names,
    ) -> Result<(), Overflow> {
        self.add(&update.counts, names)?;
        for (name, value) in update.tags {
            let name = names.number(&name);
            let place = self.tags.binary_search_by_key(&name, |(name, _)| *name);
            match (place, value) {
                (Ok(place), Some(value)) => self.tags[place].1 = value,
                (Ok(place), None) => drop(self.tags.remove(place)),
                (Err(place), Some(value)) => self.tags.insert(place, (name, value)),
                (Err(_), None) => {}
            }
        }
        if !link_refused {
            set(&mut self.parent, update.parent);
        }
        set(&mut self.device_type, update.device_type);
        set(&mut self.identifier, update.identifier);
        Ok(())
    }

    fn add(
        &mut self,
        counts: &[(impl AsRef<str>, i64)],
        names: &mut Names,
    ) -> Result<(), Overflow> {
        let mut sums = Vec::with_capacity(counts.len());
        for (name, add) in counts {
            let name = names.number(name.as_ref());
            let place = self.counts.binary_search_by_key(&name, |(name, _)| *name);
            let sum = place.map_or(0, |place| self.counts[place].1);
            sums.push((name, sum.checked_add(*add).ok_or(Overflow)?));
        }
        for (name, sum) in sums {
            match self.counts.binary_search_by_key(&name, |(name, _)| *name) {
                Ok(place) => self.counts[place].1 = sum,
                Err(place) => self.counts.insert(place, (name, sum)),
            }
        }
        Ok(())
    }

    /// The fingerprint of the state with its time, in microseconds since 1970.
    pub fn digest(&self, updated_at_us: i64) -> Digest {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend(updated_at_us.to_le_bytes());
        bytes.extend(self.parent.map_or([0; 17], |parent| {
            let mut marked = [1; 17];
            marked[1..].copy_from_slice(&parent.0);
            marked
        }));
        for text in [&self.device_type, &self.identifier] {
            match text {
                None => bytes.push(0),
                Some(text) => {
                    bytes.push(1);
                    extend_with_text(&mut bytes, text);
                }
            }
        }
        bytes.extend(self.tags.len().to_le_bytes());
        for (Name(name), Value(value)) in &self.tags {
            bytes.extend(name.to_le_bytes());
            extend_with_text(&mut bytes, value);
        }
        for (Name(name), sum) in &self.counts {
            bytes.extend(name.to_le_bytes());
            bytes.extend(sum.to_le_bytes());
        }
        Digest(xxh3_128(&bytes))
    }

    /// For people: one line, names sorted.
    pub fn show(&self, names: &Names) -> String {
        let parent = self.parent.map_or_else(null, |parent| parent.to_string());
        let device_type = self.device_type.as_deref().map_or_else(null, quoted);
        let identifier = self.identifier.as_deref().map_or_else(null, quoted);
        let tag = |(name, value): &(Name, Value)| {
            format!("{}: {}", quoted(names.name(*name)), value.show())
        };
        let count = |(name, sum): &(Name, i64)| format!("{}: {sum}", quoted(names.name(*name)));
        let tags = listed(self.tags.iter().map(tag));
        let counts = listed(self.counts.iter().map(count));
        format!(
            "parent_id={parent} device_type={device_type} identifier={identifier} tags={tags} counts={counts}"
        )
    }
}

fn null() -> String {
    "null".to_owned()
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn listed(members: impl Iterator<Item = String>) -> String {
    let mut members: Vec<String> = members.collect();
    members.sort();
    format!("{{{}}}", members.join(", "))
}

fn set<T, U: Into<T>>(column: &mut Option<T>, change: Change<U>) {
    match change {
        Change::Leave => {}
        Change::Clear => *column = None,
        Change::Set(value) => *column = Some(value.into()),
    }
}

fn extend_with_text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend(text.len().to_le_bytes());
    bytes.extend(text.as_bytes());
}

impl Value {
    /// A string.
    pub fn text(text: &str) -> Self {
        Self(["\"", text].concat().into())
    }

    /// Any other JSON value.
    pub fn plain(json: &str) -> Self {
        match json.as_bytes()[0] {
            b'-' | b'0'..=b'9' => Self(decimal(json).into()),
            _ => Self(json.into()),
        }
    }

    fn show(&self) -> String {
        self.0
            .strip_prefix('"')
            .map_or_else(|| self.0.to_string(), quoted)
    }
}

impl Names {
    fn number(&mut self, name: &str) -> Name {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        let number = Name(u32::try_from(self.names.len()).expect("memory ends before u32 does"));
        let name: Arc<str> = name.into();
        self.numbers.insert(Arc::clone(&name), number);
        self.names.push(name);
        number
    }

    fn name(&self, Name(number): Name) -> &str {
        &self.names[usize::try_from(number).expect("a u32 is an index")]
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
