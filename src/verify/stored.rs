//! The rows as Postgres holds them: streamed by `COPY … TO STDOUT`, read by hand, never all in memory.
//!
//! The format is Postgres' own (its manual, COPY, "Binary Format"): a header, then for each row a 16-bit count of fields
//! and each field as a 32-bit length (-1 for null) and its bytes, all big-endian; a count of -1 ends it.

use super::state::Columns;
use crate::{
    config::checked::PostgresAddress,
    ids::{AppId, Position, RowKey, SubscriptionId},
    sink::connect::{ConnectError, connect},
};
use std::{
    error::Error,
    io::{self, BufRead, Read},
    ops::Range,
};

/// The table's name and those of its columns.
pub(super) struct Shape {
    table: &'static str,
    app: &'static str,
    subscription: &'static str,
    parent: &'static str,
    device_type: &'static str,
    identifier: &'static str,
    tags: &'static str,
    counts: &'static str,
    incarnation: &'static str,
    leader_epoch: &'static str,
    offset: &'static str,
    updated_at: &'static str,
}

/// The one table that there is.
pub(super) const SUBSCRIPTION: Shape = Shape {
    table: "subscription",
    app: "app_id",
    subscription: "subscription_id",
    parent: "parent_id",
    device_type: "device_type",
    identifier: "identifier",
    tags: "tags",
    counts: "counts",
    incarnation: "source_incarnation",
    leader_epoch: "source_leader_epoch",
    offset: "source_offset",
    updated_at: "updated_at",
};

/// One row of the table.
pub(super) struct Stored<'a> {
    /// Its primary key.
    pub row: RowKey,
    /// The position of its newest update.
    pub fence: Position,
    /// The time of its newest update, in microseconds since 1970.
    pub updated_at_us: i64,
    /// What it holds.
    pub columns: Columns<'a>,
}

/// Why the rows can't be read.
#[derive(Debug, thiserror::Error)]
pub enum StoredError {
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
        source: Box<dyn Error + Send + Sync>,
    },
    /// The same for a table that the configuration describes.
    #[error(
        "table {table} at {address} can't be read; is it the database that `millpond init` prepared?"
    )]
    OfTable {
        /// The table's name.
        table: String,
        /// `host:port/dbname`.
        address: String,
        /// What the driver said.
        source: Box<dyn Error + Send + Sync>,
    },
}

/// Which rows to read.
pub(super) enum Selection<'a> {
    /// The whole table.
    All,
    /// Those of these keys that are there.
    Keys(&'a [RowKey]),
}

/// Hands every selected row to `each`, in the order in which Postgres gives them.
pub(super) fn read(
    address: &PostgresAddress,
    shape: &Shape,
    selection: &Selection<'_>,
    mut each: impl FnMut(&Stored<'_>),
) -> Result<(), StoredError> {
    let failed = |source: Box<dyn Error + Send + Sync>| StoredError::Read {
        table: shape.table,
        address: address.shown.clone(),
        source,
    };
    let mut client = connect(address, "millpond verify")?;
    let statement = shape.copy_statement(selection);
    let reader = client
        .copy_out(statement.as_str())
        .map_err(|error| failed(error.into()))?;
    let mut tuples = Tuples::begin(reader).map_err(|error| failed(error.into()))?;
    while let Some(tuple) = tuples.next().map_err(|error| failed(error.into()))? {
        each(
            &stored(&tuple)
                .ok_or_else(|| failed("a row of another form than was asked for".into()))?,
        );
    }
    Ok(())
}

const FIELDS: usize = 11;

impl Shape {
    /// The casts make the form of every field certain, whatever the columns' types are.
    fn copy_statement(&self, selection: &Selection<'_>) -> String {
        let columns: [(&str, &str); FIELDS] = [
            (self.app, "uuid"),
            (self.subscription, "uuid"),
            (self.incarnation, "int4"),
            (self.leader_epoch, "int4"),
            (self.offset, "int8"),
            (self.updated_at, "timestamptz"),
            (self.parent, "uuid"),
            (self.device_type, "text"),
            (self.identifier, "text"),
            (self.tags, "text"),
            (self.counts, "text"),
        ];
        let columns = columns
            .map(|(name, kind)| format!("{name}::{kind}"))
            .join(", ");
        let condition = match selection {
            Selection::All => String::new(),
            Selection::Keys(keys) => {
                let key =
                    |row: &RowKey| format!("('{}'::uuid, '{}'::uuid)", row.app, row.subscription);
                let keys = keys.iter().map(key).collect::<Vec<_>>().join(", ");
                format!(" WHERE ({}, {}) IN ({keys})", self.app, self.subscription)
            }
        };
        format!(
            "COPY (SELECT {columns} FROM {}{condition}) TO STDOUT (FORMAT binary)",
            self.table
        )
    }
}

/// The row of the fields that [`Shape::copy_statement`] asks for; `None` if they aren't those.
fn stored<'a>(tuple: &'a Tuple<'_>) -> Option<Stored<'a>> {
    let text = |field| std::str::from_utf8(tuple.field(field)?).ok();
    let uuid = |field| <[u8; 16]>::try_from(tuple.field(field)?).ok();
    let int4 = |field| Some(i32::from_be_bytes(tuple.field(field)?.try_into().ok()?));
    let int8 = |field| Some(i64::from_be_bytes(tuple.field(field)?.try_into().ok()?));
    Some(Stored {
        row: RowKey {
            app: AppId(uuid(0)?),
            subscription: SubscriptionId(uuid(1)?),
        },
        fence: Position {
            incarnation: int4(2)?,
            leader_epoch: int4(3)?,
            offset: int8(4)?,
        },
        updated_at_us: int8(5)?.saturating_add(POSTGRES_EPOCH_US),
        columns: Columns {
            parent: uuid(6).map(SubscriptionId),
            device_type: text(7),
            identifier: text(8),
            tags: text(9)?,
            counts: text(10)?,
        },
    })
}

/// Postgres counts from 2000, everybody else from 1970.
const POSTGRES_EPOCH_US: i64 = 946_684_800_000_000;

/// The rows of a binary COPY.
struct Tuples<R> {
    reader: R,
    bytes: Vec<u8>,
}

/// One row; its fields lie in the reader's buffer until the next.
struct Tuple<'a> {
    bytes: &'a [u8],
    fields: [Option<Range<usize>>; FIELDS],
}

impl Tuple<'_> {
    fn field(&self, field: usize) -> Option<&[u8]> {
        self.fields[field].clone().map(|range| &self.bytes[range])
    }
}

impl<R: BufRead> Tuples<R> {
    fn begin(mut reader: R) -> io::Result<Self> {
        let mut header = [0; 19];
        reader.read_exact(&mut header)?;
        if !header.starts_with(b"PGCOPY\n\xff\r\n\0") {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let extension = u32::from_be_bytes([header[15], header[16], header[17], header[18]]);
        io::copy(&mut (&mut reader).take(extension.into()), &mut io::sink())?;
        Ok(Self {
            reader,
            bytes: Vec::new(),
        })
    }

    /// `None` at the end.
    fn next(&mut self) -> io::Result<Option<Tuple<'_>>> {
        let mut count = [0; 2];
        self.reader.read_exact(&mut count)?;
        match i16::from_be_bytes(count) {
            -1 => return Ok(None),
            count if usize::try_from(count) == Ok(FIELDS) => {}
            _ => return Err(io::ErrorKind::InvalidData.into()),
        }
        self.bytes.clear();
        let mut fields = [const { None }; FIELDS];
        for field in &mut fields {
            let mut length = [0; 4];
            self.reader.read_exact(&mut length)?;
            // A negative length is a null.
            let Ok(length) = usize::try_from(i32::from_be_bytes(length)) else {
                continue;
            };
            let begin = self.bytes.len();
            self.bytes.resize(begin + length, 0);
            self.reader.read_exact(&mut self.bytes[begin..])?;
            *field = Some(begin..begin + length);
        }
        Ok(Some(Tuple {
            bytes: &self.bytes,
            fields,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header with an extension, a row whose first field is null and whose others hold their own number, the end.
    fn copied() -> Vec<u8> {
        let mut bytes = b"PGCOPY\n\xff\r\n\0".to_vec();
        bytes.extend([0, 0, 0, 0, 0, 0, 0, 3, 7, 7, 7]);
        bytes.extend([0, 11]);
        bytes.extend((-1i32).to_be_bytes());
        for field in 1..11u8 {
            bytes.extend([0, 0, 0, 1, field]);
        }
        bytes.extend((-1i16).to_be_bytes());
        bytes
    }

    /// The fields of every row, or the error that came instead.
    fn fields(bytes: &[u8]) -> io::Result<Vec<Vec<Option<Vec<u8>>>>> {
        let mut tuples = Tuples::begin(bytes)?;
        let mut rows = Vec::new();
        while let Some(tuple) = tuples.next()? {
            let field = |field| tuple.field(field).map(<[u8]>::to_vec);
            rows.push((0..FIELDS).map(field).collect());
        }
        Ok(rows)
    }

    #[test]
    fn rows_are_read_as_postgres_documents_them() {
        let expected = (0..11u8)
            .map(|field| (field > 0).then(|| vec![field]))
            .collect();
        assert_eq!(fields(&copied()).ok(), Some(vec![expected]));
    }

    #[test]
    fn a_copy_that_breaks_off_is_an_error_and_not_the_end() {
        let whole = copied();
        for length in 0..whole.len() {
            assert!(fields(&whole[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn keys_are_asked_for_by_name() {
        let row = RowKey {
            app: AppId([1; 16]),
            subscription: SubscriptionId([2; 16]),
        };
        let statement = SUBSCRIPTION.copy_statement(&Selection::Keys(&[row]));
        let condition = "WHERE (app_id, subscription_id) IN (('01010101-0101-0101-0101-010101010101'::uuid, \
            '02020202-0202-0202-0202-020202020202'::uuid))";
        assert!(statement.contains(condition), "{statement}");
    }
}
