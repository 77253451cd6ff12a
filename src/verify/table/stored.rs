//! The rows of such a table as Postgres holds them, each value as text.

use super::meaning::Key;
use crate::config::checked::PostgresAddress;
use crate::ids::Position;
use crate::sink::connect::connect;
use crate::table::{Kind, Table};
use crate::verify::stored::StoredError;
use std::error::Error;

/// Rows fetched at a time.
const ROWS: usize = 5000;

/// A row.
pub(super) struct Stored {
    pub key: Key,
    /// The position of its newest update.
    pub fence: Position,
    /// The time of its newest update, in milliseconds since 1970.
    pub updated_at_ms: i64,
    pub deleted: bool,
    /// Whether it was there before the first message.
    pub adopted: bool,
    /// In the order of the table's columns.
    pub columns: Vec<Option<String>>,
}

/// Hands every row to `each`; which columns have defaults.
pub(super) fn read(
    address: &PostgresAddress,
    table: &Table,
    mut each: impl FnMut(Stored),
) -> Result<Vec<bool>, StoredError> {
    let failed = |source: Box<dyn Error + Send + Sync>| StoredError::OfTable {
        table: table.name.clone(),
        address: address.shown.clone(),
        source,
    };
    let mut client = connect(address, "millpond verify")?;
    let mut transaction = client.transaction().map_err(|error| failed(error.into()))?;
    let mut run = || -> Result<Vec<bool>, Box<dyn Error + Send + Sync>> {
        let defaults = transaction.query(
            "SELECT attname::text FROM pg_attribute WHERE attrelid = to_regclass($1) AND atthasdef",
            &[&format!("\"{}\"", table.name)],
        )?;
        let defaults: Vec<String> = defaults.iter().map(|row| row.get(0)).collect();
        let knows_adopted = defaults.iter().any(|name| name == "source_adopted");
        let select = select(table, knows_adopted);
        let cursor = format!("DECLARE stored NO SCROLL CURSOR FOR {select}");
        transaction.batch_execute(&cursor)?;
        let fetch = format!("FETCH {ROWS} FROM stored");
        loop {
            let rows = transaction.query(fetch.as_str(), &[])?;
            let keys = table.keys.len();
            for row in &rows {
                each(Stored {
                    key: (0..keys).map(|at| row.get(at)).collect(),
                    fence: Position {
                        incarnation: row.get(keys),
                        leader_epoch: row.get(keys + 1),
                        offset: row.get(keys + 2),
                    },
                    updated_at_ms: row.get(keys + 3),
                    deleted: row.get(keys + 4),
                    adopted: row.get(keys + 5),
                    columns: (0..table.columns.len())
                        .map(|at| row.get(keys + 6 + at))
                        .collect(),
                });
            }
            if rows.len() < ROWS {
                break;
            }
        }
        let has_default = |name: &String| defaults.contains(name);
        let columns = table.columns.iter();
        Ok(columns.map(|column| has_default(&column.name)).collect())
    };
    run().map_err(failed)
}

fn select(table: &Table, knows_adopted: bool) -> String {
    let as_text = |(name, kind): (&str, Kind)| match kind {
        Kind::Timestamptz => format!("(extract(epoch FROM \"{name}\")::numeric * 1000000)::text"),
        Kind::Date => format!("to_char(\"{name}\", 'YYYY-MM-DD')"),
        _ => format!("\"{name}\"::text"),
    };
    let keys = table.keys.iter().map(|key| as_text((&key.name, key.kind)));
    let columns = table.columns.iter();
    let columns = columns.map(|column| as_text((&column.name, column.kind)));
    let fence = [
        "source_incarnation",
        "source_leader_epoch",
        "source_offset",
        "(extract(epoch FROM updated_at) * 1000)::bigint",
        if table.deletes.any() {
            "source_deleted"
        } else {
            "false"
        },
        if knows_adopted {
            "source_adopted"
        } else {
            "false"
        },
    ];
    let all: Vec<String> = keys
        .chain(fence.map(str::to_owned))
        .chain(columns)
        .collect();
    format!("SELECT {} FROM \"{}\"", all.join(", "), table.name)
}
