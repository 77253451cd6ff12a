//! How many rows a shard has written, by Postgres' own count: for measurements from outside. Every session hands its counts
//! over about once a second while it works, and after ten seconds when it has nothing to do any more.

use super::connect::{Client, ConnectError, connect};
use super::shape::Shape;
use crate::config::checked::PostgresAddress;
use std::time::Duration;

/// A count that waits for a server in trouble is given up, and the connection with it.
const SESSION: &str = "SET statement_timeout = '2s'";

/// Why there is no count.
#[derive(Debug, thiserror::Error)]
pub enum WrittenError {
    /// There is no connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The statement failed, or the connection broke.
    #[error("the statistics of {address} can't be read: {source}")]
    Read {
        /// `host:port/dbname`.
        address: String,
        /// What the driver said.
        source: postgres::Error,
    },
    /// Postgres has no statistics of it.
    #[error("there is no table {table} at {address}; `millpond init` makes it")]
    NoTable {
        /// The table's name.
        table: &'static str,
        /// `host:port/dbname`.
        address: String,
    },
}

/// The counter at a moment of the server's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Rows inserted or updated since the server's statistics began.
    pub rows: u64,
    /// Since 1970.
    pub at: Duration,
}

impl Written {
    /// Rows a second since an earlier reading; 0 if the statistics were reset.
    pub fn per_s_since(&self, earlier: &Self) -> f64 {
        let passed = self.at.saturating_sub(earlier.at);
        let rows = self.rows.saturating_sub(earlier.rows);
        if passed.is_zero() {
            0.0
        } else {
            Duration::from_secs(rows).div_duration_f64(passed)
        }
    }
}

/// Reads the counter of one shard over a connection of its own.
pub struct Counter {
    address: PostgresAddress,
    table: &'static str,
    client: Option<Client>,
}

impl Counter {
    /// Connects when it is first read.
    pub fn new(address: &PostgresAddress, shape: &Shape) -> Self {
        Self {
            address: address.clone(),
            table: shape.table,
            client: None,
        }
    }

    /// The counter now. After an error the next reading connects anew.
    pub fn read(&mut self) -> Result<Written, WrittenError> {
        let failed = |source| WrittenError::Read {
            address: self.address.shown.clone(),
            source,
        };
        let mut client = match self.client.take() {
            Some(client) => client,
            None => {
                let mut client = connect(&self.address, "millpond load")?;
                client.batch_execute(SESSION).map_err(failed)?;
                client
            }
        };
        let written = ask(&mut client, self.table).map_err(failed)?;
        self.client = Some(client);
        written.ok_or_else(|| WrittenError::NoTable {
            table: self.table,
            address: self.address.shown.clone(),
        })
    }
}

/// `None`: there is no such table.
fn ask(client: &mut Client, table: &str) -> Result<Option<Written>, postgres::Error> {
    let sql = "SELECT n_tup_ins + n_tup_upd, (extract(epoch FROM clock_timestamp()) * 1000000)::int8 \
         FROM pg_stat_user_tables WHERE relid = to_regclass($1)";
    let row = client.query_opt(sql, &[&table])?;
    let number =
        |row: &postgres::Row, column| u64::try_from(row.get::<_, i64>(column)).unwrap_or(0);
    Ok(row.map(|row| Written {
        rows: number(&row, 0),
        at: Duration::from_micros(number(&row, 1)),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_a_second_go_by_the_servers_clock_and_are_never_negative() {
        let written = |rows, ms| Written {
            rows,
            at: Duration::from_millis(ms),
        };
        assert_eq!(written(900, 3_500).per_s_since(&written(300, 2_000)), 400.0);
        assert_eq!(written(10, 3_500).per_s_since(&written(300, 2_000)), 0.0);
        assert_eq!(written(300, 2_000).per_s_since(&written(300, 2_000)), 0.0);
    }
}
