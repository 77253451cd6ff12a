//! How new the rows of a shard are: fence and time of their newest update. For commands that look before they act; the
//! workers ask over their own connections.

use super::connect::{Client, ConnectError, connect};
use super::params::{key_params, typed_keys};
use super::shape::Shape;
use crate::config::checked::PostgresAddress;
use crate::ids::{Position, RowKey};

/// Rows asked for at once. Bounds how long one statement takes.
const ROWS_PER_QUESTION: usize = 1000;

/// The newest update that a row holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Its position, the row's fence.
    pub fence: Position,
    /// Its Kafka timestamp, in milliseconds since 1970.
    pub updated_at_ms: i64,
}

/// Why rows could not be asked for.
#[derive(Debug, thiserror::Error)]
pub enum StandingError {
    /// There is no connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The statement failed, or the connection broke.
    #[error(
        "table {table} at {address} can't be read; is it the database that `millpond init` prepared?"
    )]
    Read {
        /// The table's name.
        table: &'static str,
        /// `host:port/dbname`.
        address: String,
        /// What the driver said.
        source: postgres::Error,
    },
}

/// How new each of these rows is, in their order; `None` for one that doesn't exist. Locks nothing.
pub fn standings(
    address: &PostgresAddress,
    shape: &Shape,
    keys: &[RowKey],
) -> Result<Vec<Option<Standing>>, StandingError> {
    let mut client = connect(address, "millpond dead")?;
    let mut found = Vec::with_capacity(keys.len());
    for keys in keys.chunks(ROWS_PER_QUESTION) {
        let asked = ask(&mut client, shape, keys);
        found.extend(asked.map_err(|source| StandingError::Read {
            table: shape.name,
            address: address.shown.clone(),
            source,
        })?);
    }
    Ok(found)
}

fn ask(
    client: &mut Client,
    shape: &Shape,
    keys: &[RowKey],
) -> Result<Vec<Option<Standing>>, postgres::Error> {
    let columns = "t.source_incarnation, t.source_leader_epoch, t.source_offset, \
         (extract(epoch FROM t.updated_at) * 1000)::int8";
    let rows = look(client, shape, keys, columns)?;
    let standing = |row: &postgres::Row| {
        Some(Standing {
            fence: Position {
                incarnation: row.get::<_, Option<i32>>(0)?,
                leader_epoch: row.get(1),
                offset: row.get(2),
            },
            updated_at_ms: row.get(3),
        })
    };
    Ok(rows.iter().map(standing).collect())
}

/// These columns of table `t` for each key, in their order; NULL for a row that doesn't exist. Locks nothing.
pub(super) fn look(
    client: &mut Client,
    shape: &Shape,
    keys: &[RowKey],
    columns: &str,
) -> Result<Vec<postgres::Row>, postgres::Error> {
    let sql = format!(
        "SELECT {columns} FROM {} LEFT JOIN {} AS t ON {} ORDER BY e.number",
        shape.asked(),
        shape.table,
        shape.is_the_row()
    );
    let (apps, subscriptions) = key_params(keys);
    client.query_typed(&sql, &typed_keys(&apps, &subscriptions))
}
