//! What an update does: to which columns of which row.

use super::Decoded;
use crate::ids::{RowKey, SubscriptionId};
use crate::table::KeyValues;
use std::borrow::Cow;

/// The columns that an update may touch, by their number in the table's shape.
pub mod column {
    /// `tags`: merged by name.
    pub const TAGS: u8 = 0;
    /// `counts`: added by name.
    pub const COUNTS: u8 = 1;
    /// `parent_id`: set.
    pub const PARENT: u8 = 2;
    /// `device_type`: set.
    pub const DEVICE_TYPE: u8 = 3;
    /// `identifier`: set.
    pub const IDENTIFIER: u8 = 4;
}

/// What an update does to one column of its row.
#[derive(Clone, Debug, PartialEq)]
pub enum Change<'a> {
    /// Sets a name of a merged column to a JSON scalar, or removes it.
    Merge {
        /// Which column.
        column: u8,
        /// The name within it.
        name: Cow<'a, str>,
        /// The value's JSON text; `None` removes the name.
        value: Option<&'a str>,
    },
    /// Adds to a name of an added column.
    Add {
        /// Which column.
        column: u8,
        /// The name within it.
        name: Cow<'a, str>,
        /// What to add.
        delta: i64,
    },
    /// Replaces a set column.
    Set {
        /// Which column.
        column: u8,
        /// The value; `None` for NULL.
        value: Option<SetValue<'a>>,
    },
    /// Adds to a number, or is compared with it.
    Amount {
        /// Which column.
        column: u8,
        /// All digits; of a time, microseconds since 1970.
        digits: i64,
        /// How many of them are behind the point.
        scale: u8,
    },
    /// Deletes the row; the only change of its update.
    Delete,
    /// What a program's own reader made of the message; the only change of its update.
    Own(Decoded),
}

/// A value of a set column.
#[derive(Clone, Debug, PartialEq)]
pub enum SetValue<'a> {
    /// For a uuid column.
    Uuid([u8; 16]),
    /// For a text column, and for those whose values are sent as text.
    Text(Cow<'a, str>),
    /// For a column of whole numbers; of a time, microseconds since 1970.
    Whole(i64),
    /// For a jsonb column.
    Json(&'a str),
}

/// A decoded message.
#[derive(Clone, Debug, PartialEq)]
pub struct Update<'a> {
    /// How the row is known.
    pub key: RowKey,
    /// Its key where that is not `key` itself: of a table that the configuration describes.
    pub values: Option<Box<KeyValues>>,
    /// What happens to its columns. A name comes once for each column.
    pub changes: Vec<Change<'a>>,
    /// Keys that the wire format doesn't know; they were left out.
    pub unknown_keys: u32,
}

impl Update<'_> {
    /// The row that this one is linked to from now on, `Some(None)` for none; `None` if the update leaves the link alone.
    pub fn link(&self) -> Option<Option<SubscriptionId>> {
        if self.values.is_some() {
            return None;
        }
        self.changes.iter().find_map(|change| match change {
            Change::Set {
                column: column::PARENT,
                value,
            } => Some(match value {
                Some(SetValue::Uuid(parent)) => Some(SubscriptionId(*parent)),
                _ => None,
            }),
            _ => None,
        })
    }

    /// Whether it deletes its row.
    pub fn deletes(&self) -> bool {
        matches!(self.changes.first(), Some(Change::Delete))
    }
}
