//! The table's shape: key columns, and for every other column what an update does to it. Fold and statement work from this;
//! besides `update.rs` only this file knows the words tags, counts and subscription.

use crate::update::column;

/// What an update does to a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// jsonb object; values replace by name, null removes.
    Merge,
    /// jsonb object of integers; values are added by name.
    Add,
    /// The value replaces what is there.
    Set(SetType),
}

/// The type of a column that is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetType {
    /// uuid
    Uuid,
    /// text
    Text,
}

/// A column besides the key and the fence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name in the table.
    pub name: &'static str,
    /// What an update does to it.
    pub kind: Kind,
}

/// A table that updates are applied to. Its fence columns are `source_incarnation`, `source_leader_epoch`,
/// `source_offset`, and the newest update's time is in `updated_at`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// The table's name.
    pub table: &'static str,
    /// The primary key, both uuid.
    pub keys: [&'static str; 2],
    /// The other columns; an update names them by their index here.
    pub columns: &'static [Column],
    /// The set column that holds the key of another row of the same app, whose children are counted in the table `parent`.
    pub link: u8,
}

/// The subscription table.
pub static SUBSCRIPTION: Shape = Shape {
    table: "subscription",
    keys: ["app_id", "subscription_id"],
    columns: &[
        Column {
            name: "tags",
            kind: Kind::Merge,
        },
        Column {
            name: "counts",
            kind: Kind::Add,
        },
        Column {
            name: "parent_id",
            kind: Kind::Set(SetType::Uuid),
        },
        Column {
            name: "device_type",
            kind: Kind::Set(SetType::Text),
        },
        Column {
            name: "identifier",
            kind: Kind::Set(SetType::Text),
        },
    ],
    link: column::PARENT,
};

// Updates name columns by number; the numbers and the shape must agree.
const _: () = {
    assert!(matches!(
        SUBSCRIPTION.columns[column::TAGS as usize].kind,
        Kind::Merge
    ));
    assert!(matches!(
        SUBSCRIPTION.columns[column::COUNTS as usize].kind,
        Kind::Add
    ));
    assert!(matches!(
        SUBSCRIPTION.columns[column::PARENT as usize].kind,
        Kind::Set(SetType::Uuid)
    ));
    assert!(matches!(
        SUBSCRIPTION.columns[column::DEVICE_TYPE as usize].kind,
        Kind::Set(SetType::Text)
    ));
    assert!(matches!(
        SUBSCRIPTION.columns[column::IDENTIFIER as usize].kind,
        Kind::Set(SetType::Text)
    ));
};
