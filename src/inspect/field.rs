//! What of a message a filter or a group looks at, as the user writes it: a place in the JSON value, or something beside it.

use crate::table::{Path, Place, Table};
use std::fmt;

/// Something that a message has, or lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Field {
    /// A place in the value, read as JSON: names from the outside in; a number also counts into an array, from 0.
    Json(Vec<String>),
    /// The same in the key.
    InKey(Vec<String>),
    /// The headers of that name.
    Header(String),
    /// The key's bytes.
    Key,
    /// All of the value's bytes.
    Value,
    /// Bytes of the value; -1 for null, as kcat counts.
    Size,
    /// Kafka's timestamp in milliseconds since 1970.
    Timestamp,
    /// The partition's number.
    Partition,
    /// The offset.
    Offset,
}

/// Why a PATH can't be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "PATH {path:?} {why}; write it as tags.first_name, as tags.\"name.with.dots\", as header.traceparent, as @key.id in a key that is JSON, or one of key value size timestamp partition offset"
)]
pub struct BadPath {
    path: String,
    why: &'static str,
}

impl Field {
    /// Reads a PATH. A first name in quotes is always one of JSON: `"key"` is no message's key.
    pub fn parse(path: &str) -> Result<Self, BadPath> {
        let bad = |why| BadPath {
            path: path.to_owned(),
            why,
        };
        match path {
            "key" => return Ok(Self::Key),
            "value" => return Ok(Self::Value),
            "size" => return Ok(Self::Size),
            "timestamp" => return Ok(Self::Timestamp),
            "partition" => return Ok(Self::Partition),
            "offset" => return Ok(Self::Offset),
            "header" => return Err(bad("names no header")),
            _ => {}
        }
        if let Some(name) = path.strip_prefix("header.") {
            // Names of headers may have dots: all that follows is one.
            return match unquoted(name) {
                "" => Err(bad("names no header")),
                name => Ok(Self::Header(name.to_owned())),
            };
        }
        match path.strip_prefix("@key") {
            Some("") => Ok(Self::Key),
            Some(rest) if rest.starts_with('.') => names(&rest[1..]).map(Self::InKey).map_err(bad),
            _ => names(path).map(Self::Json).map_err(bad),
        }
    }

    /// Reads a PATH that may also be the name of one of the table's columns; in quotes it is none.
    pub fn of_table(path: &str, table: Option<&Table>) -> Result<Self, BadPath> {
        let column = table.and_then(|table| {
            let keys = table.keys.iter().map(|key| (&key.name, &key.from));
            let columns = table
                .columns
                .iter()
                .map(|column| (&column.name, &column.from));
            let mut all = keys.chain(columns);
            all.find(|(name, _)| *name == path)
        });
        match column {
            Some((_, from)) => Ok(Self::at(from)),
            None => Self::parse(path),
        }
    }

    /// What is at a column's path.
    pub fn at(from: &Path) -> Self {
        match (from.place, from.names.is_empty()) {
            (Place::Key, true) => Self::Key,
            (Place::Key, false) => Self::InKey(from.names.clone()),
            (Place::Value, _) => Self::Json(from.names.clone()),
        }
    }

    /// Whether its values are UUIDs, which have several spellings.
    pub fn is_id(&self) -> bool {
        let Self::Json(names) = self else {
            return false;
        };
        let [name] = names.as_slice() else {
            return false;
        };
        ["app_id", "subscription_id", "parent_id"].contains(&name.as_str())
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Json(names) => f.write_str(&names.join(".")),
            Self::InKey(names) => write!(f, "@key.{}", names.join(".")),
            Self::Header(name) => write!(f, "header.{name}"),
            Self::Key => f.write_str("key"),
            Self::Value => f.write_str("value"),
            Self::Size => f.write_str("size"),
            Self::Timestamp => f.write_str("timestamp"),
            Self::Partition => f.write_str("partition"),
            Self::Offset => f.write_str("offset"),
        }
    }
}

fn unquoted(name: &str) -> &str {
    let inside = name
        .strip_prefix('"')
        .and_then(|name| name.strip_suffix('"'));
    inside.unwrap_or(name)
}

fn names(path: &str) -> Result<Vec<String>, &'static str> {
    let mut names = Vec::new();
    let mut rest = path;
    loop {
        let name = if let Some(quoted) = rest.strip_prefix('"') {
            let end = quoted.find('"').ok_or("has a quote that is not closed")?;
            rest = &quoted[end + 1..];
            &quoted[..end]
        } else {
            let end = rest.find('.').unwrap_or(rest.len());
            let name = &rest[..end];
            rest = &rest[end..];
            if name.contains('"') {
                return Err("has a quote inside of a name");
            }
            if name.is_empty() {
                return Err("has an empty name");
            }
            name
        };
        names.push(name.to_owned());
        match rest.strip_prefix('.') {
            Some(next) => rest = next,
            None if rest.is_empty() => return Ok(names),
            None => return Err("has something between a quote and the next dot"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn json(names: &[&str]) -> Field {
        Field::Json(names.iter().map(|name| (*name).to_owned()).collect())
    }

    #[test]
    fn a_path_is_names_with_dots_and_a_quoted_name_may_have_dots_of_its_own() {
        for (path, expected) in [
            ("app_id", json(&["app_id"])),
            ("tags.first_name", json(&["tags", "first_name"])),
            ("tags.\"a.b\"", json(&["tags", "a.b"])),
            ("\"tags\".x", json(&["tags", "x"])),
            ("\"key\"", json(&["key"])),
            ("tags.\"\"", json(&["tags", ""])),
            ("key", Field::Key),
            ("header.a.b", Field::Header("a.b".to_owned())),
            ("header.\"a\"", Field::Header("a".to_owned())),
            ("@key", Field::Key),
            (
                "@key.a.\"b.c\"",
                Field::InKey(vec!["a".to_owned(), "b.c".to_owned()]),
            ),
        ] {
            assert_eq!(Field::parse(path), Ok(expected), "{path}");
        }
    }

    #[test]
    fn a_bad_path_is_refused_with_an_example() {
        for path in [
            "", ".", "tags.", "tags..x", "tags.\"x", "a\"b\"", "\"a\"b", "header", "header.",
            "@key.",
        ] {
            let error = Field::parse(path).unwrap_err().to_string();
            assert!(error.contains("tags.first_name"), "{path}: {error}");
        }
    }
}
