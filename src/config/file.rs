//! The file's text, as dotted names with values and lines. Knows TOML, and no setting.

use super::problem::ConfigError;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A value as it was given, before anything is known of what it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Given {
    /// Text; from flags and environment everything is.
    Text(String),
    /// A number or boolean of the file; or, as the file spells it, what no setting is.
    Bare(String),
    /// A list of texts.
    List(Vec<String>),
}

impl std::fmt::Display for Given {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(text) if text.is_empty() => f.write_str("\"\""),
            Self::Text(text) | Self::Bare(text) => f.write_str(text),
            Self::List(list) => write!(f, "{list:?}"),
        }
    }
}

/// One value of the file.
#[derive(Debug)]
pub(super) struct Entry {
    /// Dotted; within a `[[shard]]` without a prefix.
    pub key: String,
    /// The value.
    pub value: Given,
    /// Of the key, from 1.
    pub line: usize,
}

/// One `[[shard]]`.
#[derive(Debug)]
pub(super) struct ShardTable {
    /// Of its header, from 1.
    pub line: usize,
    /// In the order of the file.
    pub entries: Vec<Entry>,
}

/// Everything in a file.
#[derive(Debug)]
pub(super) struct Content {
    /// All but the shards, in the order of the file.
    pub entries: Vec<Entry>,
    /// In the order of the file.
    pub shards: Vec<ShardTable>,
}

/// Takes the text apart; `path` is for messages. The error is of syntax, with line and column.
pub(super) fn parse(path: &str, text: &str) -> Result<Content, ConfigError> {
    let document = DeTable::parse(text).map_err(|error| {
        let (line, column) = line_and_column(text, error.span().map_or(0, |span| span.start));
        ConfigError::one(
            format!("{path}:{line}:{column}"),
            format!("not TOML: {}", error.message().replace('\n', "; ")),
        )
    })?;
    let mut content = Content {
        entries: Vec::new(),
        shards: Vec::new(),
    };
    for (key, value) in document.get_ref() {
        match value.get_ref() {
            DeValue::Array(tables) if key.get_ref() == "shard" => {
                content.shards = tables.iter().map(|table| shard(table, text)).collect();
            }
            _ => flatten(key.get_ref(), key, value, text, &mut content.entries),
        }
    }
    content.entries.sort_by_key(|entry| entry.line);
    Ok(content)
}

/// An element that is no table has no entries, so it will be found to have no name.
fn shard(table: &Spanned<DeValue>, text: &str) -> ShardTable {
    let mut entries = Vec::new();
    if let DeValue::Table(values) = table.get_ref() {
        for (key, value) in values {
            flatten(key.get_ref(), key, value, text, &mut entries);
        }
    }
    entries.sort_by_key(|entry| entry.line);
    let (line, _) = line_and_column(text, table.span().start);
    ShardTable { line, entries }
}

/// Tables within tables become dotted names, so that `security.protocol` needs no quotes.
fn flatten<K>(
    path: &str,
    key: &Spanned<K>,
    value: &Spanned<DeValue>,
    text: &str,
    entries: &mut Vec<Entry>,
) {
    if let DeValue::Table(values) = value.get_ref() {
        for (key, value) in values {
            flatten(
                &format!("{path}.{}", key.get_ref()),
                key,
                value,
                text,
                entries,
            );
        }
    } else {
        let (line, _) = line_and_column(text, key.span().start);
        entries.push(Entry {
            key: path.to_owned(),
            value: given(value, text),
            line,
        });
    }
}

fn given(value: &Spanned<DeValue>, text: &str) -> Given {
    let as_spelled = || Given::Bare(text[value.span()].to_owned());
    match value.get_ref() {
        DeValue::String(content) => Given::Text(content.clone().into_owned()),
        DeValue::Integer(integer) => i64::from_str_radix(integer.as_str(), integer.radix())
            .map_or_else(|_| as_spelled(), |whole| Given::Bare(whole.to_string())),
        DeValue::Array(elements) => elements
            .iter()
            .map(|element| element.get_ref().as_str().map(str::to_owned))
            .collect::<Option<Vec<_>>>()
            .map_or_else(as_spelled, Given::List),
        _ => as_spelled(),
    }
}

/// Both from 1; columns count characters.
fn line_and_column(text: &str, offset: usize) -> (usize, usize) {
    let before = &text[..offset];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (
        before.matches('\n').count() + 1,
        before[line_start..].chars().count() + 1,
    )
}

/// A list from a flag or the environment: as the file would spell it, or one element by itself.
pub(super) fn list_of_text(text: &str) -> Option<Vec<String>> {
    if text.is_empty() {
        return Some(Vec::new());
    }
    if !text.starts_with('[') {
        return Some(vec![text.to_owned()]);
    }
    match given(&DeValue::parse(text).ok()?, text) {
        Given::List(list) => Some(list),
        Given::Text(_) | Given::Bare(_) => None,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn names_values_and_lines_are_those_of_the_file() {
        let text = "[kafka]\ntopic = \"t\"\n\n[kafka.librdkafka]\nsecurity.protocol = \"ssl\"\n\
                    \"linger.ms\" = 5\n[consumer]\nbatch_rows_max = 1_000\n";
        let content = parse("f", text).unwrap();
        let entries: Vec<_> = content
            .entries
            .iter()
            .map(|entry| (entry.key.as_str(), entry.value.to_string(), entry.line))
            .collect();
        assert_eq!(
            entries,
            [
                ("kafka.topic", "t".to_owned(), 2),
                ("kafka.librdkafka.security.protocol", "ssl".to_owned(), 5),
                ("kafka.librdkafka.linger.ms", "5".to_owned(), 6),
                ("consumer.batch_rows_max", "1000".to_owned(), 8),
            ]
        );
    }

    #[test]
    fn each_shard_has_its_own_entries_and_the_line_of_its_header() {
        let content = parse("f", "\n[[shard]]\nname = \"a\"\n\n[[shard]]\nworkers = 2\n").unwrap();
        let lines: Vec<_> = content.shards.iter().map(|shard| shard.line).collect();
        assert_eq!(lines, [2, 5]);
        assert_eq!(content.shards[1].entries[0].key, "workers");
        assert_eq!(content.shards[1].entries[0].line, 6);
    }

    #[test]
    fn a_syntax_error_names_line_and_column() {
        let error = parse("millpond.toml", "[kafka]\ntopic = subscription").unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("millpond.toml:2:9: not TOML: "),
            "{error}"
        );
    }

    #[test]
    fn a_list_may_come_as_text() {
        let texts = |list: &[&str]| Some(list.iter().map(|text| (*text).to_owned()).collect());
        assert_eq!(list_of_text(""), texts(&[]));
        assert_eq!(list_of_text("0-3,8"), texts(&["0-3,8"]));
        assert_eq!(list_of_text(r#"["0-3", "4-7"]"#), texts(&["0-3", "4-7"]));
        assert_eq!(list_of_text("[0, 1]"), None);
        assert_eq!(list_of_text("[\"a\""), None);
    }
}
