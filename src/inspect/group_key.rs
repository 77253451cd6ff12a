//! The key of a group: what its messages have in the fields that they are grouped by, after the bucket of time if there is
//! one, as bytes that can be compared and read back.

use super::condition::Found;
use uuid::Uuid;

/// Bytes of a text in a key; the rest is cut.
const TEXT_BYTES_MAX: usize = 180;

/// One field of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// A UUID, whatever its spelling was.
    Id(Uuid),
    /// Text, or a number's, a boolean's, an object's text.
    Text(String),
    /// JSON's null, a null key or a null header.
    Null,
    /// It isn't there.
    Absent,
    /// The value is no JSON.
    NotJson,
}

/// Writes a key; the buffer is used again for each message.
#[derive(Debug, Default)]
pub struct KeyWriter(Vec<u8>);

impl KeyWriter {
    /// Begins a key, with the beginning of its bucket if there are any.
    pub fn begin(&mut self, bucket_ms: Option<i64>) {
        self.0.clear();
        if let Some(bucket_ms) = bucket_ms {
            self.0.extend(bucket_ms.to_be_bytes());
        }
    }

    /// Adds a field; `None`: the value is no JSON.
    pub fn add(&mut self, found: Option<&Found<'_>>, is_id: bool) {
        let Some(found) = found else {
            return self.0.push(b'x');
        };
        let Some(text) = found.text() else {
            let tag = if matches!(found, Found::Null) {
                b'n'
            } else {
                b'a'
            };
            return self.0.push(tag);
        };
        let id = if is_id {
            Uuid::try_parse_ascii(&text).ok()
        } else {
            None
        };
        if let Some(id) = id {
            self.0.push(b'u');
            self.0.extend(id.as_bytes());
            return;
        }
        let cut = &text[..text.len().min(TEXT_BYTES_MAX)];
        self.0.push(b't');
        self.0.push(u8::try_from(cut.len()).unwrap_or(u8::MAX));
        self.0.extend(cut);
    }

    /// The key.
    pub fn key(&self) -> &[u8] {
        &self.0
    }
}

/// Reads what a [`KeyWriter`] wrote: the bucket, and the fields.
pub fn read(key: &[u8], has_bucket: bool) -> (Option<i64>, Vec<Part>) {
    let (bucket, mut rest) = match has_bucket.then(|| key.split_first_chunk()).flatten() {
        Some((bytes, rest)) => (Some(i64::from_be_bytes(*bytes)), rest),
        None => (None, key),
    };
    let mut parts = Vec::new();
    while let Some((tag, after)) = rest.split_first() {
        let (part, left) = match tag {
            b'u' => match after.split_first_chunk() {
                Some((bytes, left)) => (Part::Id(Uuid::from_bytes(*bytes)), left),
                None => break,
            },
            b't' => {
                let size = after.first().map_or(0, |size| usize::from(*size));
                let text = after.get(1..).unwrap_or_default();
                let (text, left) = text.split_at(size.min(text.len()));
                (Part::Text(String::from_utf8_lossy(text).into_owned()), left)
            }
            b'n' => (Part::Null, after),
            b'a' => (Part::Absent, after),
            _ => (Part::NotJson, after),
        };
        parts.push(part);
        rest = left;
    }
    (bucket, parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::borrow::Cow;

    fn text(text: &str) -> Found<'_> {
        Found::Text(Cow::Borrowed(text.as_bytes()))
    }

    #[test]
    fn a_key_is_read_back_as_it_was_written() {
        let id = "5eb5a37e-b458-11e3-ac11-000c2940e62c";
        let upper = id.to_uppercase();
        let mut writer = KeyWriter::default();
        writer.begin(Some(-5));
        writer.add(Some(&text(&upper)), true);
        writer.add(Some(&text("")), false);
        writer.add(Some(&Found::Null), false);
        writer.add(Some(&Found::Absent), true);
        writer.add(Some(&text("no id")), true);
        writer.add(None, false);
        let (bucket, parts) = read(writer.key(), true);
        assert_eq!(bucket, Some(-5));
        let expected = [
            Part::Id(Uuid::try_parse(id).expect("a uuid")),
            Part::Text(String::new()),
            Part::Null,
            Part::Absent,
            Part::Text("no id".to_owned()),
            Part::NotJson,
        ];
        assert_eq!(parts, expected);
    }

    #[test]
    fn a_long_text_is_cut_and_what_follows_is_whole() {
        let long = "x".repeat(5_000);
        let mut writer = KeyWriter::default();
        writer.begin(None);
        writer.add(Some(&text(&long)), false);
        writer.add(Some(&text("y")), false);
        let (_, parts) = read(writer.key(), false);
        assert_eq!(parts[0], Part::Text("x".repeat(TEXT_BYTES_MAX)));
        assert_eq!(parts[1], Part::Text("y".to_owned()));
        assert!(writer.key().len() < super::super::groups::KEY_BYTES_MAX);
    }
}
