//! A message as bytes: a readable line, kcat's format, or kcat's JSON.

use crate::kafka::reader::{Message, Timestamp};
use jiff::Timestamp as Moment;
use serde::Serialize;
use serde::ser::{SerializeSeq, Serializer};
use std::borrow::Cow;
use std::io::{self, Write};

/// How messages are written.
#[derive(Debug, PartialEq, Eq)]
pub enum Form {
    /// Time, place, key, value and headers, on one line whatever is in them.
    Line,
    /// As kcat's `-f` says.
    Format(Vec<Piece>),
    /// As kcat's `-J` writes.
    Json,
}

/// A piece of a format.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    /// As it is.
    Bytes(Vec<u8>),
    /// `%s`
    Value,
    /// `%S`: -1 for null.
    ValueSize,
    /// `%R`: as four bytes, highest first; -1 for null.
    ValueSizeBinary,
    /// `%k`
    Key,
    /// `%K`: -1 for null.
    KeySize,
    /// `%T`: milliseconds since 1970; -1 for none.
    Timestamp,
    /// `%h`: name=value, with commas.
    Headers,
    /// `%t`
    Topic,
    /// `%p`
    Partition,
    /// `%o`
    Offset,
}

/// Reads kcat's format; says what is wrong, with one that is right.
pub fn parse_format(format: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut text = Vec::new();
    let mut rest = format.chars();
    while let Some(char) = rest.next() {
        match char {
            '\\' => text.push(escaped(&mut rest)),
            '%' => {
                let piece = match rest.next() {
                    Some('%') => {
                        text.push(b'%');
                        continue;
                    }
                    Some(letter) => piece(letter),
                    None => None,
                };
                let piece = piece.ok_or_else(|| {
                    format!(
                        "-f {format:?} has a % that stands for nothing; there are %s %S %R %k %K %T %h %t %p %o %%, as in -f '%p %o %k %s\\n'"
                    )
                })?;
                if !text.is_empty() {
                    pieces.push(Piece::Bytes(std::mem::take(&mut text)));
                }
                pieces.push(piece);
            }
            other => text.extend(other.encode_utf8(&mut [0; 4]).bytes()),
        }
    }
    if !text.is_empty() {
        pieces.push(Piece::Bytes(text));
    }
    Ok(pieces)
}

fn piece(letter: char) -> Option<Piece> {
    Some(match letter {
        's' => Piece::Value,
        'S' => Piece::ValueSize,
        'R' => Piece::ValueSizeBinary,
        'k' => Piece::Key,
        'K' => Piece::KeySize,
        'T' => Piece::Timestamp,
        'h' => Piece::Headers,
        't' => Piece::Topic,
        'p' => Piece::Partition,
        'o' => Piece::Offset,
        _ => return None,
    })
}

/// What follows a backslash: `\n \t \r \0 \xHH`, and any other byte for itself.
fn escaped(rest: &mut std::str::Chars<'_>) -> u8 {
    match rest.next() {
        Some('n') => b'\n',
        Some('t') => b'\t',
        Some('r') => b'\r',
        Some('0') => 0,
        Some('x') => {
            let digits = rest.as_str();
            let count = digits
                .bytes()
                .take(2)
                .take_while(u8::is_ascii_hexdigit)
                .count();
            *rest = digits[count..].chars();
            u8::from_str_radix(&digits[..count], 16).unwrap_or(b'x')
        }
        Some(other) => u8::try_from(other).unwrap_or(b'?'),
        None => b'\\',
    }
}

impl Form {
    /// Writes the message, with its line's end.
    pub fn write(&self, to: &mut dyn Write, topic: &str, message: &Message<'_>) -> io::Result<()> {
        match self {
            Self::Line => write_line(to, message),
            Self::Format(pieces) => pieces
                .iter()
                .try_for_each(|piece| piece.write(to, topic, message)),
            Self::Json => {
                serde_json::to_writer(&mut *to, &Json::of(topic, message))?;
                to.write_all(b"\n")
            }
        }
    }
}

impl Piece {
    fn write(&self, to: &mut dyn Write, topic: &str, message: &Message<'_>) -> io::Result<()> {
        match self {
            Self::Bytes(bytes) => to.write_all(bytes),
            Self::Value => to.write_all(message.value().unwrap_or_default()),
            Self::ValueSize => write!(to, "{}", size(message.value())),
            Self::ValueSizeBinary => {
                let size = i32::try_from(size(message.value())).unwrap_or(i32::MAX);
                to.write_all(&size.to_be_bytes())
            }
            Self::Key => to.write_all(message.key().unwrap_or_default()),
            Self::KeySize => write!(to, "{}", size(message.key())),
            Self::Timestamp => {
                write!(to, "{}", message.timestamp().milliseconds().unwrap_or(-1))
            }
            Self::Headers => {
                for (index, (name, value)) in message.headers().enumerate() {
                    let comma = if index > 0 { "," } else { "" };
                    write!(to, "{comma}{name}=")?;
                    to.write_all(value.unwrap_or(b"NULL"))?;
                }
                Ok(())
            }
            Self::Topic => to.write_all(topic.as_bytes()),
            Self::Partition => write!(to, "{}", message.partition()),
            Self::Offset => write!(to, "{}", message.offset()),
        }
    }
}

fn size(bytes: Option<&[u8]>) -> i64 {
    bytes.map_or(-1, |bytes| i64::try_from(bytes.len()).unwrap_or(i64::MAX))
}

fn write_line(to: &mut dyn Write, message: &Message<'_>) -> io::Result<()> {
    match message
        .timestamp()
        .milliseconds()
        .map(Moment::from_millisecond)
    {
        Some(Ok(moment)) => write!(to, "{}", moment.strftime("%Y-%m-%dT%H:%M:%S.%3fZ"))?,
        _ => to.write_all(b"-")?,
    }
    write!(to, "  {}/{}  ", message.partition(), message.offset())?;
    write_visible(to, message.key())?;
    to.write_all(b"  ")?;
    write_visible(to, message.value())?;
    for (name, value) in message.headers() {
        to.write_all(b"  ")?;
        write_visible(to, Some(name.as_bytes()))?;
        to.write_all(b"=")?;
        write_visible(to, value)?;
    }
    to.write_all(b"\n")
}

/// On one line, and without what a terminal would obey.
fn write_visible(to: &mut dyn Write, bytes: Option<&[u8]>) -> io::Result<()> {
    let Some(bytes) = bytes else {
        return to.write_all(b"(null)");
    };
    for chunk in bytes.utf8_chunks() {
        let mut plain = chunk.valid();
        while let Some(at) = plain.find(char::is_control) {
            to.write_all(&plain.as_bytes()[..at])?;
            let mut rest = plain[at..].chars();
            if let Some(control) = rest.next() {
                write!(to, "{}", control.escape_default())?;
            }
            plain = rest.as_str();
        }
        to.write_all(plain.as_bytes())?;
        for byte in chunk.invalid() {
            write!(to, "\\x{byte:02x}")?;
        }
    }
    Ok(())
}

/// kcat's JSON. Bytes that are not UTF-8 become U+FFFD.
#[derive(Serialize)]
struct Json<'m> {
    topic: &'m str,
    partition: i32,
    offset: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    tstype: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ts: Option<i64>,
    broker: i32,
    #[serde(skip_serializing_if = "Headers::is_empty")]
    headers: Headers<'m>,
    key: Option<Cow<'m, str>>,
    payload: Option<Cow<'m, str>>,
}

/// Names and values in turn, in one array.
struct Headers<'m>(Vec<(&'m str, Option<&'m [u8]>)>);

impl Headers<'_> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for Headers<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut array = to.serialize_seq(Some(self.0.len() * 2))?;
        for (name, value) in &self.0 {
            array.serialize_element(name)?;
            array.serialize_element(&value.map(String::from_utf8_lossy))?;
        }
        array.end()
    }
}

impl<'m> Json<'m> {
    fn of(topic: &'m str, message: &'m Message<'_>) -> Self {
        let (tstype, ts) = match message.timestamp() {
            Timestamp::None => (None, None),
            Timestamp::Create(ts) => (Some("create"), Some(ts)),
            Timestamp::LogAppend(ts) => (Some("logappend"), Some(ts)),
        };
        Self {
            topic,
            partition: message.partition().0,
            offset: message.offset(),
            tstype,
            ts,
            broker: message.broker(),
            headers: Headers(message.headers().collect()),
            key: message.key().map(String::from_utf8_lossy),
            payload: message.value().map(String::from_utf8_lossy),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_format_is_read_as_kcat_reads_it() {
        let bytes = |text: &[u8]| Piece::Bytes(text.to_vec());
        let expected = [
            Piece::Partition,
            bytes(b" 100% \t\x41\\ "),
            Piece::Value,
            bytes(b"\n"),
        ];
        assert_eq!(parse_format(r"%p 100%% \t\x41\\ %s\n").unwrap(), expected);
        for bad in ["%", "%q", "x %"] {
            let error = parse_format(bad).unwrap_err();
            assert!(error.contains(r"-f '%p %o %k %s\n'"), "{error}");
        }
    }

    #[test]
    fn a_line_stays_one_and_a_terminal_obeys_nothing_in_it() {
        let mut line = Vec::new();
        write_visible(&mut line, Some(b"a\nb\x1b[2Jc\xff\xc3\xa9")).unwrap();
        write_visible(&mut line, None).unwrap();
        let text = String::from_utf8(line).unwrap();
        assert_eq!(text, "a\\nb\\u{1b}[2Jc\\xff\u{e9}(null)");
    }
}
