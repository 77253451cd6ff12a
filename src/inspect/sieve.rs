//! Which messages are wanted, and what their groups need to know: all conditions in the order of their price. Bytes that a
//! wanted value must hold are looked for before any JSON is read, and then only the places that are asked for.

use super::condition::{Condition, Found, Trace};
use super::field::Field;
use super::pick::{Picked, Picker};
use memchr::memmem::Finder;

/// A message, borrowed from wherever it was read.
#[derive(Clone, Copy, Debug)]
pub struct Record<'v> {
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Milliseconds since 1970.
    pub timestamp_ms: Option<i64>,
    /// Its key; `None` for null.
    pub key: Option<&'v [u8]>,
    /// Its value; `None` for null.
    pub value: Option<&'v [u8]>,
    /// Its headers; may be empty where no condition and no group looks at them.
    pub headers: &'v [(&'v str, Option<&'v [u8]>)],
}

/// A field, and where it is in what is picked.
#[derive(Debug)]
struct Looked {
    field: Field,
    place: Option<At>,
}

/// Where a place is in what was picked of a value, or of a key.
#[derive(Clone, Copy, Debug)]
enum At {
    Value(usize),
    Key(usize),
}

/// Conditions that must all hold, and fields that are taken out of what passes.
#[derive(Debug, Default)]
pub struct Sieve {
    /// On what needs no JSON.
    outside: Vec<Condition>,
    /// On places in the value.
    inside: Vec<(Condition, usize)>,
    traces: Traces,
    /// On places in the key.
    inside_key: Vec<(Condition, usize)>,
    taken: Vec<Looked>,
    picker: Picker,
    key_picker: Picker,
    needs_headers: bool,
}

/// Bytes without which a value is not wanted.
#[derive(Debug, Default)]
struct Traces {
    finders: Vec<Finder<'static>>,
    /// Some of them are hexadecimal digits.
    digits: bool,
}

/// A message that passed.
#[derive(Debug)]
pub struct Passed<'v> {
    record: Record<'v>,
    picked: Option<Picked<'v>>,
    picked_key: Option<Picked<'v>>,
}

impl Sieve {
    /// Lets through what fulfils all conditions.
    pub fn new(conditions: Vec<Condition>, taken: Vec<Field>) -> Self {
        let mut sieve = Self::default();
        for condition in conditions {
            sieve.needs_headers |= matches!(condition.field, Field::Header(_));
            match &condition.field {
                Field::Json(names) => {
                    for trace in condition.traces() {
                        sieve.traces.add(trace);
                    }
                    let place = sieve.picker.place(names);
                    sieve.inside.push((condition, place));
                }
                Field::InKey(names) => {
                    let place = sieve.key_picker.place(names);
                    sieve.inside_key.push((condition, place));
                }
                _ => sieve.outside.push(condition),
            }
        }
        for field in taken {
            sieve.needs_headers |= matches!(field, Field::Header(_));
            let place = match &field {
                Field::Json(names) => Some(At::Value(sieve.picker.place(names))),
                Field::InKey(names) => Some(At::Key(sieve.key_picker.place(names))),
                _ => None,
            };
            sieve.taken.push(Looked { field, place });
        }
        sieve
    }

    /// Whether records must come with their headers.
    pub fn needs_headers(&self) -> bool {
        self.needs_headers
    }

    /// The message, if it is wanted.
    pub fn pass<'v>(&self, record: Record<'v>) -> Option<Passed<'v>> {
        let mut outside = self.outside.iter();
        if !outside.all(|one| holds_outside(one, &record)) {
            return None;
        }
        let mut picked_key = None;
        if !self.key_picker.is_empty() {
            picked_key = self.key_picker.pick(record.key.unwrap_or_default());
            if !hold(&self.inside_key, picked_key.as_ref()) {
                return None;
            }
        }
        if self.picker.is_empty() {
            return Some(Passed {
                record,
                picked: None,
                picked_key,
            });
        }
        let value = record.value.unwrap_or_default();
        if !self.traces.may_be_in(value) {
            return None;
        }
        let picked = self.picker.pick(value);
        hold(&self.inside, picked.as_ref()).then_some(Passed {
            record,
            picked,
            picked_key,
        })
    }

    /// The fields to be taken, and what a message that passed has there; `None` of a place in a value that is no JSON.
    pub fn taken<'p>(
        &'p self,
        passed: &'p Passed<'_>,
    ) -> impl Iterator<Item = (&'p Field, Option<Found<'p>>)> {
        self.taken.iter().map(|looked| {
            let found = match looked.place {
                Some(At::Value(place)) => {
                    let picked = passed.picked.as_ref();
                    picked.map(|picked| Found::of_json(picked[place]))
                }
                Some(At::Key(place)) => {
                    let picked = passed.picked_key.as_ref();
                    picked.map(|picked| Found::of_json(picked[place]))
                }
                None => Some(found_outside(&looked.field, &passed.record)),
            };
            (&looked.field, found)
        })
    }
}

/// Whether all conditions hold on what was picked; of what is no JSON nothing was.
fn hold(conditions: &[(Condition, usize)], picked: Option<&Picked<'_>>) -> bool {
    let at = |place: usize| picked.and_then(|picked| picked[place]);
    let mut conditions = conditions.iter();
    conditions.all(|(condition, place)| condition.holds(&Found::of_json(at(*place))))
}

/// One of several headers of a name is enough, and for `!=` none may be equal.
fn holds_outside(condition: &Condition, record: &Record<'_>) -> bool {
    let Field::Header(name) = &condition.field else {
        return condition.holds(&found_outside(&condition.field, record));
    };
    let mut named = record
        .headers
        .iter()
        .filter(|(own, _)| own == name)
        .peekable();
    if named.peek().is_none() {
        return condition.holds(&Found::Absent);
    }
    let holds = |(_, value): &(&str, Option<&[u8]>)| condition.holds(&Found::of_bytes(*value));
    match condition.is_negative() {
        true => named.all(holds),
        false => named.any(holds),
    }
}

fn found_outside<'v>(field: &Field, record: &Record<'v>) -> Found<'v> {
    match field {
        Field::Json(_) | Field::InKey(_) => Found::Absent,
        Field::Header(name) => {
            let last = record.headers.iter().rev().find(|(own, _)| own == name);
            last.map_or(Found::Absent, |(_, value)| Found::of_bytes(*value))
        }
        Field::Key => Found::of_bytes(record.key),
        Field::Value => Found::of_bytes(record.value),
        Field::Size => {
            let size = record.value.map(|value| i64::try_from(value.len()));
            Found::of_number(size.map_or(-1, |size| size.unwrap_or(i64::MAX)))
        }
        Field::Timestamp => record.timestamp_ms.map_or(Found::Absent, Found::of_number),
        Field::Partition => Found::of_number(record.partition.into()),
        Field::Offset => Found::of_number(record.offset),
    }
}

impl Traces {
    fn add(&mut self, trace: Trace) {
        let bytes = match trace {
            Trace::Exact(bytes) => bytes,
            Trace::Digits(bytes) => {
                self.digits = true;
                bytes
            }
        };
        self.finders.push(Finder::new(&bytes).into_owned());
    }

    /// `false`: surely not wanted. A value that may spell them otherwise, with escapes or in upper case, is let through.
    fn may_be_in(&self, value: &[u8]) -> bool {
        let holds_all = || {
            self.finders
                .iter()
                .all(|finder| finder.find(value).is_some())
        };
        holds_all()
            || memchr::memchr(b'\\', value).is_some()
            || (self.digits && has_upper_case_digits(value))
    }
}

/// Goes over all bytes, so that the compiler takes many at a time.
fn has_upper_case_digits(value: &[u8]) -> bool {
    let found = value.iter().fold(0, |found, byte| {
        found | u8::from(byte.wrapping_sub(b'A') < 6)
    });
    found != 0
}
