//! The tables on a shard, and its memory of where its rows' offsets come from.
//!
//! Offsets mean something only together with the topic's id, its partition count and the map of apps to shards. The table
//! `millpond_source` remembers them with the incarnation; when what is found differs, nothing may be written.

use super::catalogue;
use super::connect::with_causes;
use super::shape::{Kind, SetType, Shape};
use crate::ids::Partition;
use postgres::error::SqlState;
use postgres::{Client, GenericClient};
use std::collections::BTreeMap;
use std::fmt::Write;

/// The version of the tables beside the rows' own.
const SCHEMA_VERSION: i32 = 2;

/// Where offsets come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The topic's name.
    pub topic: String,
    /// Kafka's id of this life of the topic.
    pub topic_id: String,
    /// Raised by hand when the topic is made anew or repartitioned.
    pub incarnation: i32,
    /// Partitions of the topic.
    pub partitions: i32,
    /// A fingerprint of the map of apps to shards and partitions.
    pub shard_map: i64,
}

/// Why a shard can't be written to. All but the first need somebody to act.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// Postgres is away or refused the question, in its words; try again.
    #[error("{0}")]
    Postgres(String),
    /// Tables are missing or of another shape.
    #[error(
        "the tables are not what millpond needs: {0}. `millpond init` makes what is missing; what differs is yours to change"
    )]
    Shape(String),
    /// The offsets in the rows come from somewhere else.
    #[error("{0}")]
    Source(String),
}

impl From<postgres::Error> for SchemaError {
    fn from(error: postgres::Error) -> Self {
        let said = with_causes(&error);
        Self::Postgres(match error.code() {
            Some(code) if *code == SqlState::INSUFFICIENT_PRIVILEGE => {
                format!(
                    "{said} (SQLSTATE 42501): a grant is missing, src/sink/README.md has all of them"
                )
            }
            _ => said,
        })
    }
}

/// What `init` did on a shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Made {
    /// Tables that were made now.
    pub tables: Vec<String>,
    /// Whether the source was written down now.
    pub source: bool,
}

type Expected = BTreeMap<&'static str, Vec<(String, &'static str, bool)>>;

/// Tables with their columns. Of a table that the configuration describes, `catalogue` knows more.
fn expected(shape: &Shape) -> Expected {
    let mut tables = beside_the_rows();
    if shape.is_preset() {
        tables.extend(subscriptions(shape));
    }
    tables
}

fn column(name: &str, kind: &'static str, not_null: bool) -> (String, &'static str, bool) {
    (name.to_owned(), kind, not_null)
}

fn subscriptions(shape: &Shape) -> Expected {
    let keys = shape.keys.iter();
    let mut rows: Vec<_> = keys.map(|key| column(key.name, "uuid", true)).collect();
    for each in shape.columns {
        rows.push(match each.kind {
            Kind::Set(SetType::Uuid) => column(each.name, "uuid", false),
            Kind::Set(_) => column(each.name, "text", false),
            _ => column(each.name, "jsonb", true),
        });
    }
    rows.extend([
        column("source_incarnation", "int4", true),
        column("source_leader_epoch", "int4", true),
        column("source_offset", "int8", true),
        column("updated_at", "timestamptz", true),
    ]);
    let parents = vec![
        column("app_id", "uuid", true),
        column("parent_id", "uuid", true),
        column("children", "int4", true),
    ];
    BTreeMap::from([(shape.name, rows), ("parent", parents)])
}

fn beside_the_rows() -> Expected {
    BTreeMap::from([
        (
            "refused",
            vec![
                column("incarnation", "int4", true),
                column("partition", "int4", true),
                column("source_leader_epoch", "int4", true),
                column("source_offset", "int8", true),
                column("reason", "text", true),
                column("sqlstate", "text", false),
                column("message", "text", true),
                column("refused_at", "timestamptz", true),
            ],
        ),
        (
            "millpond_source",
            vec![
                column("topic", "text", true),
                column("topic_id", "text", true),
                column("incarnation", "int4", true),
                column("partitions", "int4", true),
                column("shard_map", "int8", true),
                column("schema_version", "int4", true),
            ],
        ),
        (
            "millpond_partition",
            vec![
                column("topic", "text", true),
                column("incarnation", "int4", true),
                column("partition", "int4", true),
                column("first_offset", "int8", true),
                column("seen_at", "timestamptz", true),
            ],
        ),
    ])
}

fn primary_key(shape: &Shape, table: &str) -> String {
    match table {
        "parent" => "app_id, parent_id".to_owned(),
        "refused" => "incarnation, partition, source_leader_epoch, source_offset".to_owned(),
        "millpond_source" => "topic".to_owned(),
        "millpond_partition" => "topic, incarnation, partition".to_owned(),
        _ => shape.key_columns(),
    }
}

fn create(shape: &Shape, table: &str, columns: &[(String, &'static str, bool)]) -> String {
    let mut sql = format!("CREATE TABLE {table} (");
    for (name, kind, not_null) in columns {
        let default = if name.ends_with("_at") && table != shape.name {
            " DEFAULT now()"
        } else {
            ""
        };
        let null = if *not_null { " NOT NULL" } else { "" };
        write!(sql, "{name} {kind}{null}{default}, ").expect("writing to a string");
    }
    // Room in each page keeps updates of a row within it (HOT), which spares the indexes.
    let options = if table == shape.name || table == "parent" {
        " WITH (fillfactor = 70)"
    } else {
        ""
    };
    write!(sql, "PRIMARY KEY ({})){options}", primary_key(shape, table))
        .expect("writing to a string");
    sql
}

/// Makes the tables that are missing and writes the source down. What is there already is compared, never changed.
pub fn init(client: &mut Client, shape: &Shape, source: &Source) -> Result<Made, SchemaError> {
    let mut transaction = client.transaction()?;
    // Two inits at once: the second waits for the first.
    transaction.batch_execute("SELECT pg_advisory_xact_lock(7809447731)")?;
    let mut made = Made::default();
    let present = present_columns(&mut transaction)?;
    for (table, columns) in expected(shape) {
        if !present.contains_key(table) {
            transaction.batch_execute(&create(shape, table, &columns))?;
            made.tables.push(table.to_owned());
        }
    }
    if !shape.is_preset() && !catalogue::is_there(&mut transaction, shape)? {
        transaction.batch_execute(&catalogue::create(shape))?;
        made.tables.push(shape.name.to_owned());
    }
    check_tables(&mut transaction, shape)?;
    if remembered(&mut transaction, &source.topic)?.is_none() {
        write_source(&mut transaction, source)?;
        made.source = true;
    }
    check_source(&mut transaction, shape, source)?;
    transaction.commit()?;
    Ok(made)
}

/// Compares the tables with what is needed.
pub fn check_tables(client: &mut impl GenericClient, shape: &Shape) -> Result<(), SchemaError> {
    let present = present_columns(client)?;
    let mut wrong = Vec::new();
    for (table, columns) in expected(shape) {
        let Some(found) = present.get(table) else {
            wrong.push(format!("table {table} is missing"));
            continue;
        };
        for (name, kind, not_null) in columns {
            match found.get(&name) {
                None => wrong.push(format!("column {table}.{name} ({kind}) is missing")),
                Some((type_found, _)) if type_found != kind => {
                    wrong.push(format!("column {table}.{name} is {type_found}, not {kind}"));
                }
                Some((_, not_null_found)) if *not_null_found && !not_null => {
                    wrong.push(format!(
                        "column {table}.{name} is NOT NULL, but updates may leave it empty"
                    ));
                }
                Some(_) => {}
            }
        }
    }
    match shape.link {
        Some(_) if present.contains_key(shape.name) => {
            wrong.extend(other_primary_key(client, shape)?);
        }
        Some(_) => {}
        None => wrong.extend(catalogue::differences(client, shape)?),
    }
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(SchemaError::Shape(wrong.join("; ")))
    }
}

fn other_primary_key(
    client: &mut impl GenericClient,
    shape: &Shape,
) -> Result<Option<String>, postgres::Error> {
    let key = client.query_opt(
        "SELECT array_agg(a.attname::text ORDER BY array_position(i.indkey::int2[], a.attnum)) FROM pg_index i \
         JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY(i.indkey) \
         WHERE i.indisprimary AND i.indrelid = to_regclass($1) GROUP BY i.indexrelid",
        &[&shape.table],
    )?;
    let key: Vec<String> = key.map(|row| row.get(0)).unwrap_or_default();
    let (found, needed) = (key.join(", "), shape.key_columns());
    let differs = || {
        format!(
            "the primary key of {} is ({found}), not ({needed})",
            shape.name
        )
    };
    Ok((found != needed).then(differs))
}

type Columns = BTreeMap<String, (String, bool)>;

fn present_columns(
    client: &mut impl GenericClient,
) -> Result<BTreeMap<String, Columns>, postgres::Error> {
    let rows = client.query(
        "SELECT c.relname::text, a.attname::text, t.typname::text, a.attnotnull FROM pg_class c \
         JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
         JOIN pg_type t ON t.oid = a.atttypid \
         WHERE pg_table_is_visible(c.oid) AND c.relkind IN ('r', 'p')",
        &[],
    )?;
    let mut tables: BTreeMap<String, Columns> = BTreeMap::new();
    for row in rows {
        tables
            .entry(row.get(0))
            .or_default()
            .insert(row.get(1), (row.get(2), row.get(3)));
    }
    Ok(tables)
}

fn remembered(
    client: &mut impl GenericClient,
    topic: &str,
) -> Result<Option<Source>, postgres::Error> {
    let row = client.query_opt(
        "SELECT topic, topic_id, incarnation, partitions, shard_map FROM millpond_source WHERE topic = $1",
        &[&topic],
    )?;
    Ok(row.map(|row| Source {
        topic: row.get(0),
        topic_id: row.get(1),
        incarnation: row.get(2),
        partitions: row.get(3),
        shard_map: row.get(4),
    }))
}

fn write_source(client: &mut impl GenericClient, source: &Source) -> Result<(), postgres::Error> {
    let Source {
        topic,
        topic_id,
        incarnation,
        partitions,
        shard_map,
    } = source;
    client.execute(
        "INSERT INTO millpond_source (topic, topic_id, incarnation, partitions, shard_map, schema_version) \
         VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (topic) DO UPDATE SET topic_id = $2, incarnation = $3, \
         partitions = $4, shard_map = $5 WHERE millpond_source.incarnation < $3",
        &[topic, topic_id, incarnation, partitions, shard_map, &SCHEMA_VERSION],
    )?;
    Ok(())
}

/// Compares where offsets come from with what the shard remembers. A raised incarnation is written down: the operator has
/// said that the old topic is drained.
pub fn check_source(
    client: &mut impl GenericClient,
    shape: &Shape,
    source: &Source,
) -> Result<(), SchemaError> {
    check_other_topics(client, shape, source)?;
    let Some(before) = remembered(client, &source.topic)? else {
        let message = format!(
            "this shard has never seen topic {}. Run `millpond init` first",
            source.topic
        );
        return Err(SchemaError::Source(message));
    };
    if before.incarnation < source.incarnation {
        return Ok(write_source(client, source)?);
    }
    if before.incarnation > source.incarnation {
        return Err(SchemaError::Source(format!(
            "rows here were written under kafka.incarnation = {}, and this process has {}. It runs with an old \
             configuration: set it to {}",
            before.incarnation, source.incarnation, before.incarnation
        )));
    }
    let mut differs = Vec::new();
    if before.topic_id != source.topic_id {
        differs.push(format!(
            "its id was {}, now it is {}: it was deleted and made anew",
            before.topic_id, source.topic_id
        ));
    }
    if before.partitions != source.partitions {
        differs.push(format!(
            "it had {} partitions, now {}",
            before.partitions, source.partitions
        ));
    }
    if before.shard_map != source.shard_map {
        differs.push("the map of apps to shards is another one".to_owned());
    }
    if differs.is_empty() {
        return Ok(());
    }
    Err(SchemaError::Source(format!(
        "topic {} is not the one whose offsets the rows here hold: {}. New updates would be taken for replays. If the old \
         topic was drained, set kafka.incarnation = {}; else bring the old one back",
        source.topic,
        differs.join("; "),
        before.incarnation + 1
    )))
}

/// Fences don't tell topics apart: where there are rows, a topic needs an incarnation above that of every other one.
fn check_other_topics(
    client: &mut impl GenericClient,
    shape: &Shape,
    source: &Source,
) -> Result<(), SchemaError> {
    let newer = client.query_opt(
        "SELECT topic, incarnation FROM millpond_source WHERE topic <> $1 AND incarnation >= $2 \
         ORDER BY incarnation DESC LIMIT 1",
        &[&source.topic, &source.incarnation],
    )?;
    let Some(row) = newer else { return Ok(()) };
    // Not asked together: a table that somebody has locked would hold the usual answer too.
    let rows = format!("SELECT FROM {} LIMIT 1", shape.table);
    if client.query_opt(&rows, &[])?.is_none() {
        return Ok(());
    }
    let (topic, incarnation): (String, i32) = (row.get(0), row.get(1));
    Err(SchemaError::Source(format!(
        "rows here may come from topic {topic} under kafka.incarnation = {incarnation}, and this process has topic {} under \
         {}: its updates would be taken for replays. If topic {topic} was drained, set kafka.incarnation = {}; else this is \
         an old configuration",
        source.topic,
        source.incarnation,
        incarnation + 1
    )))
}

/// Other topics whose updates came here under lower incarnations; none where the tables are not made yet.
pub fn topics_before(client: &mut Client, source: &Source) -> Result<Vec<String>, SchemaError> {
    let there: bool = client
        .query_one("SELECT to_regclass('millpond_source') IS NOT NULL", &[])?
        .get(0);
    if !there {
        return Ok(Vec::new());
    }
    let rows = client.query(
        "SELECT topic FROM millpond_source WHERE topic <> $1 AND incarnation < $2 ORDER BY topic",
        &[&source.topic, &source.incarnation],
    )?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Looks for rows of apps that belong to another shard: what a move left behind. Two looks into the primary key's index.
/// A table that somebody has locked is not waited for, and passes.
pub fn check_apps(
    client: &mut Client,
    shape: &Shape,
    (first, last): (u8, u8),
) -> Result<(), SchemaError> {
    let Some(app) = shape.app else { return Ok(()) };
    let table = shape.table;
    let below = format!("{first:02x}000000-0000-0000-0000-000000000000");
    let above = format!("{last:02x}ffffff-ffff-ffff-ffff-ffffffffffff");
    let sql = format!(
        "(SELECT {app}::text FROM {table} WHERE {app} < '{below}' ORDER BY {app} LIMIT 1) UNION ALL \
         (SELECT {app}::text FROM {table} WHERE {app} > '{above}' ORDER BY {app} DESC LIMIT 1) LIMIT 1"
    );
    let mut transaction = client.transaction()?;
    transaction.batch_execute("SET LOCAL lock_timeout = '500ms'")?;
    let found = match transaction.query_opt(&sql, &[]) {
        Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
            tracing::warn!(
                table,
                "locked by somebody: whether it has rows of apps that belong to another shard is not checked"
            );
            None
        }
        found => found?,
    };
    transaction.rollback()?;
    let Some(row) = found else { return Ok(()) };
    Err(SchemaError::Source(format!(
        "the table {} has rows of apps outside {first:02x}-{last:02x}, as {}. Updates of theirs go to another shard now \
         and would not find them: copy these rows{} there, then delete them here",
        shape.name,
        row.get::<_, String>(0),
        match shape.link {
            Some(_) => " and those of the table parent",
            None => "",
        }
    )))
}

/// The partitions whose beginning was ever fixed here, with the offset.
pub fn seen_partitions(
    client: &mut Client,
    source: &Source,
) -> Result<BTreeMap<Partition, i64>, SchemaError> {
    let rows = client.query(
        "SELECT partition, first_offset FROM millpond_partition WHERE topic = $1 AND incarnation = $2",
        &[&source.topic, &source.incarnation],
    )?;
    Ok(rows
        .iter()
        .map(|row| (Partition(row.get(0)), row.get(1)))
        .collect())
}

/// Fixes where partitions begin, before their first message is applied.
pub fn remember_partitions(
    client: &mut Client,
    source: &Source,
    firsts: &[(Partition, i64)],
) -> Result<(), SchemaError> {
    let (partitions, offsets): (Vec<i32>, Vec<i64>) =
        firsts.iter().map(|(at, offset)| (at.0, *offset)).unzip();
    client.execute(
        "INSERT INTO millpond_partition (topic, incarnation, partition, first_offset) \
         SELECT $1, $2, * FROM unnest($3::int4[], $4::int8[]) ON CONFLICT DO NOTHING",
        &[&source.topic, &source.incarnation, &partitions, &offsets],
    )?;
    Ok(())
}
