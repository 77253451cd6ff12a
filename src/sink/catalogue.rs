//! A table that the configuration describes, and what Postgres' catalogue says of it: made if it is missing, else compared. Each
//! difference says what mends it.

use super::shape::{Column, Kind, Shape};
use postgres::GenericClient;
use std::collections::BTreeMap;
use std::fmt::Write;

/// Fence and time, which every table has.
const OWN: [(&str, &str); 4] = [
    ("source_incarnation", "integer"),
    ("source_leader_epoch", "integer"),
    ("source_offset", "bigint"),
    ("updated_at", "timestamp with time zone"),
];
/// Of a table whose rows are deleted.
const DELETED: (&str, &str) = ("source_deleted", "boolean");

/// Of a table that was there before Millpond: the rows that were, too. Only `verify` asks for it.
const ADOPTED: &str = "source_adopted";

/// A column as it is.
struct Found {
    kind: String,
    not_null: bool,
    /// Whether an INSERT may leave it out although it is NOT NULL.
    has_default: bool,
}

/// The statement that makes the table.
pub(super) fn create(shape: &Shape) -> String {
    let mut sql = format!("CREATE TABLE {} (", shape.table);
    for key in shape.keys {
        write!(sql, "{} {} NOT NULL, ", key.sql, key.kind).expect("writing to a string");
    }
    for column in shape.columns {
        let (kind, beginning) = (type_of(column), beginning(column));
        write!(sql, "{} {kind}{beginning}, ", column.sql).expect("writing to a string");
    }
    for (name, kind) in OWN {
        write!(sql, "{name} {kind} NOT NULL, ").expect("writing to a string");
    }
    if shape.deletes {
        let (name, kind) = DELETED;
        write!(sql, "{name} {kind} NOT NULL DEFAULT false, ").expect("writing to a string");
    }
    // Room in each page keeps updates of a row within it (HOT), which spares the indexes.
    write!(
        sql,
        "PRIMARY KEY ({})) WITH (fillfactor = 70)",
        shape.key_columns()
    )
    .expect("writing to a string");
    sql
}

fn type_of(column: &Column) -> String {
    match column.kind {
        Kind::Merge | Kind::Add => "jsonb".to_owned(),
        Kind::Set(of) | Kind::Sum(of) | Kind::Max(of) | Kind::Min(of) => of.in_catalogue(),
    }
}

fn beginning(column: &Column) -> &'static str {
    match column.kind {
        Kind::Merge | Kind::Add => " NOT NULL DEFAULT '{}'",
        Kind::Sum(_) => " NOT NULL DEFAULT 0",
        Kind::Set(_) | Kind::Max(_) | Kind::Min(_) => "",
    }
}

/// Whether the table is there.
pub(super) fn is_there(
    client: &mut impl GenericClient,
    shape: &Shape,
) -> Result<bool, postgres::Error> {
    let row = client.query_one("SELECT to_regclass($1) IS NOT NULL", &[&shape.table])?;
    Ok(row.get(0))
}

/// What makes the fence's columns in a table that is there without them, with a fence below all others in every row that is there
/// or that somebody else makes: a statement for each thing to do. None where there is nothing to do, or no table.
pub fn adoption(
    client: &mut impl GenericClient,
    shape: &Shape,
) -> Result<Vec<String>, postgres::Error> {
    if shape.is_preset() || !is_there(client, shape)? {
        return Ok(Vec::new());
    }
    let found = columns(client, shape)?;
    let lowest = ["0", "-1", "-1", "'epoch'"];
    let own = OWN
        .iter()
        .zip(lowest)
        .map(|((name, kind), lowest)| (*name, *kind, lowest));
    let (deleted, kind) = DELETED;
    let deleted = shape.deletes.then_some((deleted, kind, "false"));
    let missing = own
        .chain(deleted)
        .filter(|(name, ..)| !found.contains_key(*name));
    let added: Vec<String> = missing
        .map(|(name, kind, lowest)| format!("ADD COLUMN {name} {kind} NOT NULL DEFAULT {lowest}"))
        .collect();
    let mut statements = Vec::new();
    let mut added = added;
    if !found.contains_key(OWN[0].0) {
        // Of rows that are there now the log doesn't tell everything; of those that are made later it does.
        added.push(format!(
            "ADD COLUMN {ADOPTED} boolean NOT NULL DEFAULT true"
        ));
        added.push(format!("ALTER COLUMN {ADOPTED} SET DEFAULT false"));
    }
    if !added.is_empty() {
        // With constants as defaults no row is touched, however many there are.
        statements.push(format!("ALTER TABLE {} {}", shape.table, added.join(", ")));
    }
    if !has_unique_index(client, shape)? {
        statements.push(format!(
            "CREATE UNIQUE INDEX CONCURRENTLY ON {} ({})",
            shape.table,
            shape.key_columns()
        ));
    }
    Ok(statements)
}

/// What differs between the table and what is needed of it.
pub(super) fn differences(
    client: &mut impl GenericClient,
    shape: &Shape,
) -> Result<Vec<String>, postgres::Error> {
    let (name, table) = (shape.name, shape.table);
    if !is_there(client, shape)? {
        return Ok(vec![format!("table {name} is missing")]);
    }
    let found = columns(client, shape)?;
    let mut wrong = Vec::new();
    for (column, kind, more) in needed(shape) {
        match found.get(column) {
            None => wrong.push(format!(
                "column {name}.{column} is missing (ALTER TABLE {table} ADD COLUMN \"{column}\" {kind}{more})"
            )),
            Some(found) if found.kind != kind => wrong.push(format!(
                "column {name}.{column} is {}, and the configuration says {kind}: correct the one or the other",
                found.kind
            )),
            Some(found) if is_of_the_fence(column) && !found.not_null => wrong.push(format!(
                "column {name}.{column} may be NULL, which no fence can be compared with (UPDATE the rows that have none as \
                 `init --adopt` would; ALTER TABLE {table} ALTER COLUMN {column} SET NOT NULL)"
            )),
            Some(_) => {}
        }
    }
    let is_always_given = |column: &str| {
        let is_own = OWN.iter().any(|(own, _)| *own == column);
        let is_key = shape.keys.iter().any(|key| key.name == column);
        let mut others = shape.columns.iter();
        is_own || is_key || others.any(|other| other.name == column && !beginning(other).is_empty())
    };
    for (column, found) in &found {
        if found.not_null && !found.has_default && !is_always_given(column) {
            wrong.push(format!(
                "column {name}.{column} is NOT NULL without a default, and an update may leave it out \
                 (ALTER TABLE {table} ALTER COLUMN \"{column}\" DROP NOT NULL, or SET DEFAULT …)"
            ));
        }
    }
    wrong.extend(misjudging(shape, &found));
    if !has_unique_index(client, shape)? {
        wrong.push(format!(
            "there is no unique index on exactly the key columns of {name}, without which a row could be made twice \
             (CREATE UNIQUE INDEX CONCURRENTLY ON {table} ({}))",
            shape.key_columns()
        ));
    }
    Ok(wrong)
}

/// Columns of the right type whose NULLs or defaults would take part in what their rule makes of numbers and names.
fn misjudging(shape: &Shape, found: &BTreeMap<String, Found>) -> Vec<String> {
    let (name, table) = (shape.name, shape.table);
    let wrong = |column: &Column| {
        let (is, sql) = (found.get(column.name)?, column.sql);
        let (kind, column) = (column.kind, column.name);
        match kind {
            Kind::Max(_) | Kind::Min(_) if is.has_default => Some(format!(
                "column {name}.{column} has a default, with which every number would be compared (ALTER TABLE {table} ALTER \
                 COLUMN {sql} DROP DEFAULT)"
            )),
            Kind::Merge if !is.not_null => Some(format!(
                "column {name}.{column} may be NULL, to which nothing can be merged (UPDATE {table} SET {sql} = '{{}}' \
                 WHERE {sql} IS NULL; ALTER TABLE {table} ALTER COLUMN {sql} SET DEFAULT '{{}}', ALTER COLUMN {sql} \
                 SET NOT NULL)"
            )),
            _ => None,
        }
    };
    shape.columns.iter().filter_map(wrong).collect()
}

fn is_of_the_fence(column: &str) -> bool {
    let mut own = OWN.iter().chain([&DELETED]);
    own.any(|(name, _)| *name == column)
}

/// Name, type and what else is said of each column where it is made.
fn needed(shape: &Shape) -> Vec<(&'static str, String, &'static str)> {
    let keys = shape.keys.iter();
    let keys = keys.map(|key| (key.name, key.kind.in_catalogue(), " NOT NULL"));
    let columns = shape.columns.iter();
    let columns = columns.map(|column| (column.name, type_of(column), beginning(column)));
    let own = OWN
        .iter()
        .map(|(name, kind)| (*name, (*kind).to_owned(), " NOT NULL"));
    let (deleted, kind) = DELETED;
    let deleted = (deleted, kind.to_owned(), " NOT NULL DEFAULT false");
    let deleted = shape.deletes.then_some(deleted);
    keys.chain(columns).chain(own).chain(deleted).collect()
}

fn columns(
    client: &mut impl GenericClient,
    shape: &Shape,
) -> Result<BTreeMap<String, Found>, postgres::Error> {
    let rows = client.query(
        "SELECT attname::text, format_type(atttypid, atttypmod), attnotnull, \
         atthasdef OR attidentity <> '' FROM pg_attribute \
         WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped",
        &[&shape.table],
    )?;
    let found = |row: &postgres::Row| Found {
        kind: row.get(1),
        not_null: row.get(2),
        has_default: row.get(3),
    };
    Ok(rows.iter().map(|row| (row.get(0), found(row))).collect())
}

/// One that ON CONFLICT takes: valid, at once, on all rows, on exactly these columns in any order.
fn has_unique_index(
    client: &mut impl GenericClient,
    shape: &Shape,
) -> Result<bool, postgres::Error> {
    let keys: Vec<&str> = shape.keys.iter().map(|key| key.name).collect();
    let row = client.query_one(
        "SELECT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = to_regclass($1) AND i.indisunique AND i.indisvalid \
         AND i.indimmediate AND i.indpred IS NULL AND i.indexprs IS NULL AND i.indnkeyatts = cardinality($2::text[]) \
         AND (SELECT array_agg(a.attname::text ORDER BY a.attname) FROM pg_attribute a WHERE a.attrelid = i.indrelid \
         AND a.attnum = ANY((i.indkey::int2[])[0:i.indnkeyatts - 1])) \
         = (SELECT array_agg(k ORDER BY k COLLATE \"C\") FROM unnest($2::text[]) AS k))",
        &[&shape.table, &keys],
    )?;
    Ok(row.get(0))
}
