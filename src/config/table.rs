//! `[table]`: another table than the subscriptions, from written to checked.

use super::checked::{Kafka, OnMissingRow, PartitionBy};
use super::file::Given;
use super::keys::{self, COLUMN_KEYS};
use super::problem::{Origin, nearest};
use super::reader::Reader;
use super::written::WrittenColumn;
use crate::table::{
    COLUMNS_MAX, Column, Deletes, KEYS_MAX, KeyColumn, Kind, NAME_LENGTH_MAX, OWN_COLUMNS,
    OWN_TABLES, Path, Place, Rule, Table, is_name,
};

/// What a column may be.
enum Role {
    Key,
    Of(Rule),
}

/// One column, read.
enum Read {
    Key(KeyColumn),
    Other(Column),
}

/// The table; `None` for the subscriptions, and where there are problems.
pub(super) fn table(read: &mut Reader<'_>) -> Option<Table> {
    let written = read.written;
    let name = "table.name";
    let text = read.text(name);
    if text.is_empty() {
        only_with_a_name(read);
        return None;
    }
    if !is_name(&text) {
        read.refuse(name, format!("found {text}, {}", allowed_names()));
    }
    if OWN_TABLES.contains(&text.as_str()) {
        let text = format!("found {text}, which is a table of millpond's own; name another");
        read.refuse(name, text);
    }
    let (mut keys, mut columns) = (Vec::new(), Vec::new());
    for column in &written.columns {
        match one(read, column) {
            Some(Read::Key(key)) => keys.push(key),
            Some(Read::Other(column)) => columns.push(column),
            None => {}
        }
    }
    let without_key = !written.columns.iter().any(|column| column.has("key"));
    if without_key {
        let text = "no column is the key; add to [table.columns] at least one like \
                    id = { key = \"uuid\", from = \"@key\" }";
        read.refuse(name, text);
    }
    for (count, most, what) in [
        (keys.len(), KEYS_MAX, "columns of the key"),
        (columns.len(), COLUMNS_MAX, "columns beside the key"),
    ] {
        if count > most {
            read.refuse(name, format!("found {count} {what}, allowed are {most}"));
        }
    }
    Some(Table {
        name: text,
        shard_by: shard_by(read, &keys),
        deletes: deletes(read, &keys),
        keys,
        columns,
        own: None,
    })
}

/// What says something about a table that has no name.
fn only_with_a_name(read: &mut Reader<'_>) {
    let written = read.written;
    if let Some(column) = written.columns.first() {
        let text = format!(
            "table.columns.{}: there is no table.name, and the table subscription has columns of its own; add name = \"…\" to [table]",
            column.name
        );
        read.refuse_at(&column.origin, text);
    }
    for key in ["shard_by", "delete", "delete_field", "delete_values"] {
        let name = format!("table.{key}");
        if written.setting(&name).origin != Origin::Default {
            let text = written.setting(&name).value.to_string();
            if !["", "[]", "never", "\"\""].contains(&text.as_str()) {
                read.refuse(&name, "there is no table.name; add name = \"…\" to [table]");
            }
        }
    }
}

fn allowed_names() -> String {
    format!("allowed are 1 to {NAME_LENGTH_MAX} of a-z, 0-9 and _, not a digit first")
}

/// One column; of one that is wrong the first thing is told.
fn one(read: &mut Reader<'_>, column: &WrittenColumn) -> Option<Read> {
    parse(column)
        .map_err(|(origin, text)| read.refuse_at(origin, text))
        .ok()
}

/// What is wrong, and where that was written.
type Wrong<'w> = (&'w Origin, String);

fn parse(column: &WrittenColumn) -> Result<Read, Wrong<'_>> {
    let place = format!("{}{}", keys::COLUMNS, column.name);
    let wrong = |text: String| Err((&column.origin, format!("{place}{text}")));
    if !is_name(&column.name) {
        return wrong(format!(": found {}, {}", column.name, allowed_names()));
    }
    if OWN_COLUMNS.contains(&column.name.as_str()) {
        return wrong(": this column is millpond's own; leave it out".to_owned());
    }
    let (mut role, mut from) = (None, None);
    for (key, setting) in &column.entries {
        let name = format!("{place}.{key}");
        let at = |text: String| (&setting.origin, text);
        let Given::Text(text) = &setting.value else {
            return Err(at(format!(
                "{name}: found {}, allowed is text in quotes",
                setting.value
            )));
        };
        if key == "from" {
            from = Some(path(&name, text).map_err(at)?);
        } else if role.is_some() {
            return Err(at(format!(
                "{name}: the column has a rule already; keep one of them"
            )));
        } else {
            role = Some(role_and_kind(&name, key, text).map_err(at)?);
        }
    }
    let Some((role, kind)) = role else {
        let rules = &COLUMN_KEYS[1..].join(", ");
        return wrong(format!(
            ": nothing says what an update does to it; add one of {rules}"
        ));
    };
    let by_name = Path {
        place: Place::Value,
        names: vec![column.name.clone()],
    };
    let (name, from) = (column.name.clone(), from.unwrap_or(by_name));
    match role {
        Role::Key => Ok(Read::Key(KeyColumn { name, kind, from })),
        Role::Of(_) if from.place == Place::Key => wrong(format!(
            ".from: found {from}, allowed for a column that is not of the key is a path in the value"
        )),
        Role::Of(rule) => Ok(Read::Other(Column {
            name,
            rule,
            kind,
            from,
        })),
    }
}

fn path(name: &str, text: &str) -> Result<Path, String> {
    Path::parse(text).ok_or_else(|| {
        format!(
            "{name}: found {text}, allowed is a path of names with dots between them, as owner.name, in the value; \
             @key, or @key.name in a Kafka key that is JSON"
        )
    })
}

/// What `key = "type"` makes of a column.
fn role_and_kind(name: &str, key: &str, text: &str) -> Result<(Role, Kind), String> {
    let rule = Rule::ALL.iter().find(|(spelled, _)| *spelled == key);
    let role = match (key, rule) {
        ("key", _) => Role::Key,
        (_, Some((_, rule))) => Role::Of(*rule),
        _ => {
            let advice = match nearest(key, COLUMN_KEYS.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("allowed are {}", COLUMN_KEYS.join(", ")),
            };
            return Err(format!("`{name}` is no setting; {advice}"));
        }
    };
    let kind = kind(&role, text).map_err(|allowed| format!("{name}: found {text}, {allowed}"))?;
    Ok((role, kind))
}

/// The type, if the role takes it; else what is allowed.
fn kind(role: &Role, text: &str) -> Result<Kind, String> {
    let takes = |kind: Kind| match role {
        Role::Key => kind.is_for_keys(),
        Role::Of(rule) => rule.takes(kind),
    };
    if let Ok(kind) = Kind::parse(text)
        && takes(kind)
    {
        return Ok(kind);
    }
    let named = Kind::names().filter(|name| Kind::parse(name).is_ok_and(takes));
    let mut allowed: Vec<&str> = named.collect();
    if allowed.contains(&"numeric") {
        allowed.push("numeric(digits,digits behind the point)");
    }
    let advice = match nearest(text, Kind::names()).filter(|near| allowed.contains(near)) {
        Some(near) => format!("; did you mean {near}?"),
        None => String::new(),
    };
    Err(format!("allowed is {}{advice}", allowed.join(", ")))
}

/// Which of the key columns decides the shard; the first where none is named.
fn shard_by(read: &mut Reader<'_>, keys: &[KeyColumn]) -> usize {
    let name = "table.shard_by";
    let text = read.text(name);
    if text.is_empty() {
        return 0;
    }
    let named = keys.iter().position(|key| key.name == text);
    if named.is_none() {
        let near = nearest(&text, keys.iter().map(|key| key.name.as_str()));
        let advice = match near {
            Some(near) => format!("did you mean {near}?"),
            None => "name one of them".to_owned(),
        };
        let text = format!(
            "found {text}, which is no column of the key: all updates of a row must be on one partition; {advice}"
        );
        read.refuse(name, text);
    }
    named.unwrap_or(0)
}

fn deletes(read: &mut Reader<'_>, keys: &[KeyColumn]) -> Deletes {
    let word = read.text("table.delete");
    let field = read.text("table.delete_field");
    let values = read.list("table.delete_values");
    if !["never", "tombstone", "field"].contains(&word.as_str()) {
        let text = format!("found {word}, allowed is \"never\", \"tombstone\" or \"field\"");
        read.refuse("table.delete", text);
    }
    if word != "field" && !field.is_empty() {
        read.refuse(
            "table.delete_field",
            format!("table.delete is {word}; say \"field\" there, or leave this out"),
        );
    }
    let deletes = match word.as_str() {
        "tombstone" => Deletes::Tombstones,
        "field" => marks(read, &field, values),
        _ => Deletes::Never,
    };
    let in_value = keys.iter().find(|key| key.from.place == Place::Value);
    if let (Deletes::Tombstones, Some(key)) = (&deletes, in_value) {
        let text = format!(
            "found tombstone, but the key column {} is at {} in the value, and a tombstone has none; take it from @key, or say \"field\"",
            key.name, key.from
        );
        read.refuse("table.delete", text);
    }
    deletes
}

fn marks(read: &mut Reader<'_>, field: &str, values: Vec<String>) -> Deletes {
    let path = Path::parse(field).filter(|path| path.place == Place::Value);
    if path.is_none() {
        let text =
            format!("found \"{field}\", allowed is a path in the value, as op or meta.deleted");
        read.refuse("table.delete_field", text);
    }
    if values.is_empty() {
        let text = "found none; say at which values a row is deleted, as [\"d\"] or [\"true\"]";
        read.refuse("table.delete_values", text);
    }
    match path {
        Some(field) => Deletes::Marks { field, values },
        None => Deletes::Never,
    }
}

/// What the table asks of other settings.
pub(super) fn relations(
    read: &mut Reader<'_>,
    table: &Table,
    kafka: &Kafka,
    on_missing_row: OnMissingRow,
) {
    if table.deletes.any() && on_missing_row == OnMissingRow::Skip {
        let text = "found skip, but table.delete deletes rows, and a deleted row's place stays: a later update would fill it. \
                    Say \"insert\", or delete = \"never\"";
        read.refuse("consumer.on_missing_row", text);
    }
    if kafka.partition_by == PartitionBy::Any && table.shard_by != 0 {
        let text = "is of no use with kafka.partition_by = \"any\", where the producer chooses the partition; leave it out";
        read.warn("table.shard_by", text);
    }
}
