//! Messages that only somebody else's program can read: which row one is for, and what it does to it, are that program's to say.
//! Nothing here looks into either; the face that such a program sees is `library.rs`.

use super::general::check_home;
use super::{Change, Content, Rejection, Update, storable};
use crate::ids::Partition;
use crate::partitioner::Partitioner;
use crate::table::{KeyValues, Kind, Table};
use std::any::Any;
use std::borrow::Cow;
use std::fmt::{self, Debug, Formatter};
use std::sync::Arc;

/// A message as a worker has it.
#[derive(Clone, Copy, Debug)]
pub struct Incoming<'a> {
    /// Key and value.
    pub content: Content<'a>,
    /// Its headers, as the dispatch wrote them.
    pub headers: &'a [u8],
    /// Its partition.
    pub partition: Partition,
    /// Its offset.
    pub offset: i64,
    /// Its Kafka timestamp in milliseconds since 1970; -1 for none.
    pub timestamp_ms: i64,
}

/// One value of a row's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyPart<'a> {
    /// Of a `uuid` column.
    Uuid([u8; 16]),
    /// Of a `text` column.
    Text(Cow<'a, str>),
    /// Of a `bigint` column.
    Bigint(i64),
    /// Of an `integer` column.
    Integer(i32),
}

/// What reads messages. Both answers depend on nothing but what is given, since a replay has to be judged the same.
pub trait Reader: Send + Sync {
    /// The row that the message is for, by the columns of its key. Asked on the poller's thread, and again on the worker's.
    fn row<'m>(&self, content: Content<'m>) -> Result<Vec<KeyPart<'m>>, Rejection>;

    /// What it does to that row.
    fn update(&self, message: &Incoming<'_>) -> Result<Decoded, Rejection>;
}

/// A program's reader. Two are equal if they are one.
#[derive(Clone)]
pub struct Own(pub Arc<dyn Reader>);

/// What a program's reader made of a message. Two are equal if they are one.
#[derive(Clone)]
pub struct Decoded(pub Arc<dyn Any + Send + Sync>);

impl Own {
    /// The encoded key of the message's row.
    pub(super) fn row(&self, table: &Table, content: Content<'_>) -> Result<KeyValues, Rejection> {
        let parts = self.0.row(content)?;
        // A fence found under another key would be no fence.
        assert_eq!(
            parts.len(),
            table.keys.len(),
            "a row's key has one part for each of its columns"
        );
        let mut values = KeyValues::default();
        for (part, column) in parts.iter().zip(&table.keys) {
            let name = &column.name;
            assert_eq!(part.kind(), column.kind, "of the key column {name}");
            match part {
                KeyPart::Uuid(uuid) => values.push(uuid),
                KeyPart::Bigint(number) => values.push(&number.to_be_bytes()),
                KeyPart::Integer(number) => values.push(&number.to_be_bytes()),
                KeyPart::Text(text) => {
                    storable(text, name)?;
                    values.push(text.as_bytes());
                }
            }
        }
        Ok(values)
    }
}

impl KeyPart<'_> {
    fn kind(&self) -> Kind {
        match self {
            Self::Uuid(_) => Kind::Uuid,
            Self::Text(_) => Kind::Text,
            Self::Bigint(_) => Kind::Bigint,
            Self::Integer(_) => Kind::Integer,
        }
    }
}

/// Decodes a message that `judge_for` has let through, with memory that an earlier update has left.
pub fn decode_own<'a>(
    (table, own): (&Table, &Own),
    mut changes: Vec<Change<'a>>,
    message: &Incoming<'a>,
    partitioner: Option<&Partitioner>,
) -> Result<Update<'a>, Rejection> {
    let values = message.content.key_values(table)?;
    let key = table.row_key(&values);
    check_home(table, key, message.partition, partitioner)?;
    changes.push(Change::Own(own.0.update(message)?));
    Ok(Update {
        key,
        values: Some(Box::new(values)),
        changes,
        unknown_keys: 0,
    })
}

impl Debug for Own {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("a program")
    }
}

impl PartialEq for Own {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Own {}

impl Debug for Decoded {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("what a program decoded")
    }
}

impl PartialEq for Decoded {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}
