//! One condition on a field: PATH OP VALUE.
//!
//! `=` and `!=` compare numbers as numbers, UUIDs in any spelling, everything else as text. `<` and `>` compare as numbers
//! what both sides read as numbers, else as text. `~` is a regular expression that is found anywhere. What isn't there is
//! unequal to everything, and fulfils nothing else.

use super::field::Field;
use regex::bytes::{Regex, RegexBuilder};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::cmp::Ordering;
use uuid::Uuid;

/// A compiled regular expression may take that much memory.
const REGEX_BYTES_MAX: usize = 1 << 20;

/// The operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Equal,
    Unequal,
    Below,
    Above,
    Like,
}

/// PATH OP VALUE.
#[derive(Debug)]
pub struct Condition {
    /// What is looked at.
    pub field: Field,
    operator: Operator,
    wanted: Wanted,
}

/// What a field is compared with, in all forms that it may be needed in.
#[derive(Debug)]
struct Wanted {
    text: String,
    /// Written in quotes: only ever text.
    is_text: bool,
    number: Option<Number>,
    id: Option<Uuid>,
    /// Of `~`.
    regex: Option<Regex>,
}

/// What a field holds.
#[derive(Debug)]
pub enum Found<'v> {
    /// It isn't there.
    Absent,
    /// JSON's null, a null key or a null header.
    Null,
    /// True or false.
    Bool(bool),
    /// A number, by its text.
    Number(Cow<'v, str>),
    /// Text, or bytes that need not be text.
    Text(Cow<'v, [u8]>),
    /// An object or an array, as its JSON text.
    Json(&'v str),
}

#[derive(Clone, Copy, Debug)]
enum Number {
    Whole(i64),
    Real(f64),
}

/// Bytes that a value must hold to fulfil a condition, unless it writes some of them otherwise.
#[derive(Debug, PartialEq, Eq)]
pub enum Trace {
    /// These.
    Exact(Vec<u8>),
    /// These hexadecimal digits, in upper case perhaps.
    Digits(Vec<u8>),
}

impl Condition {
    /// Reads it; says what is wrong, with an example that is right.
    pub fn parse(path: &str, operator: &str, value: &str) -> Result<Self, String> {
        let field = Field::parse(path).map_err(|error| error.to_string())?;
        Self::on(field, operator, value)
    }

    /// The same on a field that was read already.
    pub fn on(field: Field, operator: &str, value: &str) -> Result<Self, String> {
        let operator = match operator {
            "=" | "==" => Operator::Equal,
            "!=" => Operator::Unequal,
            "<" => Operator::Below,
            ">" => Operator::Above,
            "~" => Operator::Like,
            other => {
                return Err(format!(
                    "OP {other:?} is none of = != < > ~; write --where tags.first_name = Jon, or --where counts.sessions '>' 10 (the shell takes a bare > for a file)"
                ));
            }
        };
        let wanted = Wanted::parse(operator, value)?;
        Ok(Self {
            field,
            operator,
            wanted,
        })
    }

    /// Whether a UUID field has this value, however it is spelled.
    pub fn of_id(name: &str, id: [u8; 16]) -> Self {
        let id = Uuid::from_bytes(id);
        Self {
            field: Field::Json(vec![name.to_owned()]),
            operator: Operator::Equal,
            wanted: Wanted {
                text: id.to_string(),
                is_text: true,
                number: None,
                id: Some(id),
                regex: None,
            },
        }
    }

    /// Whether what the field holds fulfils it.
    pub fn holds(&self, found: &Found<'_>) -> bool {
        match self.operator {
            Operator::Equal => self.wanted.equals(found),
            Operator::Unequal => !self.wanted.equals(found),
            Operator::Below => self.wanted.compares(found) == Some(Ordering::Less),
            Operator::Above => self.wanted.compares(found) == Some(Ordering::Greater),
            Operator::Like => {
                let regex = self.wanted.regex.as_ref();
                let text = found.text();
                text.is_some_and(|text| regex.is_some_and(|regex| regex.is_match(&text)))
            }
        }
    }

    /// Whether it asks for what is not.
    pub fn is_negative(&self) -> bool {
        self.operator == Operator::Unequal
    }

    /// What a JSON value must hold to fulfil it; nothing where that can't be told.
    pub fn traces(&self) -> Vec<Trace> {
        let Field::Json(names) = &self.field else {
            return Vec::new();
        };
        if self.operator == Operator::Unequal {
            return Vec::new();
        }
        let mut traces = Vec::new();
        // A number may be an index, which leaves no trace.
        let named = names.iter().rfind(|name| name.parse::<usize>().is_err());
        traces.extend(named.map(|name| Trace::Exact(name.clone().into_bytes())));
        if self.operator == Operator::Equal {
            traces.extend(self.wanted.trace());
        }
        traces
    }
}

impl Wanted {
    fn parse(operator: Operator, value: &str) -> Result<Self, String> {
        let quoted: Option<String> = match value.starts_with('"') {
            true => serde_json::from_str(value).ok(),
            false => None,
        };
        let is_text = quoted.is_some();
        let text = quoted.unwrap_or_else(|| value.to_owned());
        let regex = match operator {
            Operator::Like => {
                let built = RegexBuilder::new(value).size_limit(REGEX_BYTES_MAX).build();
                Some(built.map_err(|error| {
                    format!(
                        "VALUE {value:?} is no regular expression: {error}\nwrite --where identifier ~ '@clothes\\.ly$'"
                    )
                })?)
            }
            _ => None,
        };
        Ok(Self {
            number: if is_text { None } else { Number::parse(&text) },
            id: Uuid::try_parse(&text).ok(),
            is_text,
            text,
            regex,
        })
    }

    fn equals(&self, found: &Found<'_>) -> bool {
        match found {
            Found::Absent => false,
            Found::Null => !self.is_text && self.text == "null",
            Found::Bool(value) => {
                !self.is_text && self.text == if *value { "true" } else { "false" }
            }
            Found::Number(text) => {
                let numbers = self.number.zip(Number::parse(text));
                numbers.is_some_and(|(own, other)| other.compare(own) == Some(Ordering::Equal))
            }
            Found::Text(text) => {
                **text == *self.text.as_bytes()
                    || self
                        .id
                        .is_some_and(|id| Uuid::try_parse_ascii(text) == Ok(id))
            }
            Found::Json(text) => *text == self.text,
        }
    }

    /// How what was found stands to this; `None` if they can't be compared.
    fn compares(&self, found: &Found<'_>) -> Option<Ordering> {
        let text = match found {
            Found::Number(text) => return Number::parse(text)?.compare(self.number?),
            Found::Text(text) => text,
            _ => return None,
        };
        let number = str::from_utf8(text).ok().and_then(Number::parse);
        match number.zip(self.number) {
            Some((other, own)) => other.compare(own),
            None => Some((**text).cmp(self.text.as_bytes())),
        }
    }

    fn trace(&self) -> Option<Trace> {
        if let Some(id) = self.id {
            // Every spelling has the first eight digits side by side.
            let digits = id.simple().to_string()[..8].to_owned();
            return Some(Trace::Digits(digits.into_bytes()));
        }
        let others = ["true", "false", "null", ""].contains(&self.text.as_str());
        // 10 may be written as 1e1; an object may be anything.
        let free = others || self.number.is_some();
        (!free).then(|| Trace::Exact(self.text.clone().into_bytes()))
    }
}

impl<'v> Found<'v> {
    /// What a picked place holds.
    pub fn of_json(raw: Option<&'v RawValue>) -> Self {
        let Some(text) = raw.map(RawValue::get) else {
            return Self::Absent;
        };
        match text.as_bytes().first() {
            Some(b'"') => Self::Text(unescaped(text)),
            Some(b'{' | b'[') => Self::Json(text),
            Some(b't') => Self::Bool(true),
            Some(b'f') => Self::Bool(false),
            Some(b'n') | None => Self::Null,
            Some(_) => Self::Number(Cow::Borrowed(text)),
        }
    }

    /// Bytes, or null.
    pub fn of_bytes(bytes: Option<&'v [u8]>) -> Self {
        bytes.map_or(Self::Null, |bytes| Self::Text(Cow::Borrowed(bytes)))
    }

    /// A number of the message.
    pub fn of_number(number: i64) -> Self {
        Self::Number(Cow::Owned(number.to_string()))
    }

    /// As text, to be searched or shown; `None` for null and what isn't there.
    pub fn text(&self) -> Option<Cow<'_, [u8]>> {
        match self {
            Self::Absent | Self::Null => None,
            Self::Bool(true) => Some(Cow::Borrowed(b"true")),
            Self::Bool(false) => Some(Cow::Borrowed(b"false")),
            Self::Number(text) => Some(Cow::Borrowed(text.as_bytes())),
            Self::Text(bytes) => Some(Cow::Borrowed(bytes)),
            Self::Json(text) => Some(Cow::Borrowed(text.as_bytes())),
        }
    }
}

/// What stands between the quotes. Lone surrogates, which are no text, leave it as it is written.
fn unescaped(quoted: &str) -> Cow<'_, [u8]> {
    let inside = &quoted[1..quoted.len() - 1];
    if memchr::memchr(b'\\', inside.as_bytes()).is_none() {
        return Cow::Borrowed(inside.as_bytes());
    }
    match serde_json::from_str::<String>(quoted) {
        Ok(text) => Cow::Owned(text.into_bytes()),
        Err(_) => Cow::Borrowed(inside.as_bytes()),
    }
}

impl Number {
    fn parse(text: &str) -> Option<Self> {
        if let Ok(whole) = text.parse() {
            return Some(Self::Whole(whole));
        }
        let real: f64 = text.parse().ok()?;
        real.is_finite().then_some(Self::Real(real))
    }

    fn compare(self, other: Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Whole(one), Self::Whole(other)) => Some(one.cmp(&other)),
            (one, other) => one.real().partial_cmp(&other.real()),
        }
    }

    /// Exact up to 2^53.
    fn real(self) -> f64 {
        match self {
            Self::Whole(whole) => whole as f64,
            Self::Real(real) => real,
        }
    }
}
