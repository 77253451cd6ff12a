//! The table's shape: key columns, and for every other column what an update does to it. Fold and statement work from this;
//! besides `update.rs` only this file knows the words tags, counts and subscription. [`of`] makes the shape of a table that the
//! configuration describes.

use crate::table::{self, Rule, Table};
use crate::update::column;
use parking_lot::Mutex;

pub use crate::table::Kind as SetType;

/// What an update does to a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// jsonb object; values replace by name, null removes.
    Merge,
    /// jsonb object of integers; values are added by name.
    Add,
    /// The value replaces what is there.
    Set(SetType),
    /// The value is added to what is there.
    Sum(SetType),
    /// The larger of the two stays.
    Max(SetType),
    /// The smaller of the two stays.
    Min(SetType),
}

/// A column of the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// Its name in the table.
    pub name: &'static str,
    /// The same as SQL spells it.
    pub sql: &'static str,
    /// Its type.
    pub kind: SetType,
}

/// A column besides the key and the fence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name in the table.
    pub name: &'static str,
    /// The same as SQL spells it.
    pub sql: &'static str,
    /// What a statement calls its parameter; no other name of the statement is this.
    pub alias: &'static str,
    /// What a statement calls its guard.
    pub guard: &'static str,
    /// What an update does to it.
    pub kind: Kind,
}

/// A table that updates are applied to. Its fence columns are `source_incarnation`, `source_leader_epoch`,
/// `source_offset`, and the newest update's time is in `updated_at`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// The table's name.
    pub name: &'static str,
    /// The same as SQL spells it.
    pub table: &'static str,
    /// The primary key.
    pub keys: &'static [Key],
    /// The other columns; an update names them by their index here.
    pub columns: &'static [Column],
    /// The set column that holds the key of another row of the same app, whose children are counted in the table `parent`.
    pub link: Option<u8>,
    /// The key column, spelled for SQL, that holds a uuid whose first byte picks the shard, and by which the rows are in order.
    pub app: Option<&'static str>,
    /// Whether rows are deleted: then the table has the column `source_deleted`.
    pub deletes: bool,
    /// Whether it only has the fences of rows that a program writes by its own statements.
    pub is_own: bool,
}

impl Shape {
    /// Whether it is the subscription table, and not one that the configuration or a program describes.
    pub const fn is_preset(&self) -> bool {
        // Only its rows link to each other.
        self.link.is_some()
    }
}

const fn key(name: &'static str) -> Key {
    Key {
        name,
        sql: name,
        kind: SetType::Uuid,
    }
}

const fn column(name: &'static str, guard: &'static str, kind: Kind) -> Column {
    Column {
        name,
        sql: name,
        alias: name,
        guard,
        kind,
    }
}

/// The subscription table.
pub static SUBSCRIPTION: Shape = Shape {
    name: "subscription",
    table: "subscription",
    keys: &[key("app_id"), key("subscription_id")],
    columns: &[
        column("tags", "tags_guard", Kind::Merge),
        column("counts", "counts_guard", Kind::Add),
        column("parent_id", "", Kind::Set(SetType::Uuid)),
        column("device_type", "", Kind::Set(SetType::Text)),
        column("identifier", "", Kind::Set(SetType::Text)),
    ],
    link: Some(column::PARENT),
    app: Some("app_id"),
    deletes: false,
    is_own: false,
};

/// Shapes live as long as the process, as connections and threads hold them; so one is made for each table, once.
static MADE: Mutex<Vec<(Table, &'static Shape)>> = Mutex::new(Vec::new());

/// The shape of the table, or of the subscriptions.
pub fn of(table: Option<&Table>) -> &'static Shape {
    let Some(table) = table else {
        return &SUBSCRIPTION;
    };
    let mut made = MADE.lock();
    if let Some((_, shape)) = made.iter().find(|(known, _)| known == table) {
        return shape;
    }
    let shape: &'static Shape = Box::leak(Box::new(shape_of(table)));
    made.push((table.clone(), shape));
    shape
}

/// All names were checked (`table::is_name`): between quotes they are what they stand for, behind a prefix they are no words of SQL.
fn shape_of(table: &Table) -> Shape {
    let kept = |text: String| -> &'static str { Box::leak(text.into_boxed_str()) };
    let quoted = |name: &str| {
        assert!(table::is_name(name), "a name that was not checked: {name}");
        kept(format!("\"{name}\""))
    };
    let keys: Vec<Key> = table
        .keys
        .iter()
        .map(|key| Key {
            name: kept(key.name.clone()),
            sql: quoted(&key.name),
            kind: key.kind,
        })
        .collect();
    let columns = table.columns.iter().map(|column| Column {
        name: kept(column.name.clone()),
        sql: quoted(&column.name),
        alias: kept(format!("c_{}", column.name)),
        guard: kept(format!("g_{}", column.name)),
        kind: match column.rule {
            Rule::Set => Kind::Set(column.kind),
            Rule::Merge => Kind::Merge,
            Rule::Add => Kind::Sum(column.kind),
            Rule::KeepMax => Kind::Max(column.kind),
            Rule::KeepMin => Kind::Min(column.kind),
        },
    });
    let by_app = table.shard_by == 0 && keys[0].kind == SetType::Uuid;
    Shape {
        name: kept(table.name.clone()),
        table: quoted(&table.name),
        columns: Box::leak(columns.collect()),
        link: None,
        app: by_app.then_some(keys[0].sql),
        deletes: table.deletes.any(),
        is_own: table.own.is_some(),
        keys: Box::leak(keys.into_boxed_slice()),
    }
}

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
