//! Words: a table that the configuration describes. Its columns, what an update does to each, where each is in a message, and
//! how a row of it is known to the rest of the program. The subscription table is none of these: it has a decoder of its own.
//!
//! Names are checked before a [`Table`] is made ([`is_name`]), so that they may stand in SQL, quoted.

mod kind;
mod number;
mod path;

pub use kind::{Kind, KindError};
pub use number::Number;
pub use path::{Path, Place};

use crate::ids::{AppId, RowKey, SubscriptionId};
use crate::update::Own;
use std::collections::BTreeMap;
use xxhash_rust::xxh3::xxh3_128;

/// A name has at most so many bytes: with the prefix of a statement's alias it still fits Postgres' 63.
pub const NAME_LENGTH_MAX: usize = 55;
/// Columns beside the key: each is a bit in a row's flags.
pub const COLUMNS_MAX: usize = 31;
/// Columns of the key.
pub const KEYS_MAX: usize = 8;
/// Columns that every table has for the fence and the like, so that no other may be called so.
pub const OWN_COLUMNS: [&str; 6] = [
    "source_incarnation",
    "source_leader_epoch",
    "source_offset",
    "source_deleted",
    "source_adopted",
    "updated_at",
];
/// Tables that are there already, for other purposes.
pub const OWN_TABLES: [&str; 4] = ["parent", "refused", "millpond_source", "millpond_partition"];

/// A table that updates are applied to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// Its key, in order.
    pub keys: Vec<KeyColumn>,
    /// The key column that decides the shard and the partition.
    pub shard_by: usize,
    /// The other columns; an update names them by their index here.
    pub columns: Vec<Column>,
    /// What deletes a row.
    pub deletes: Deletes,
    /// The program that reads the messages and writes the rows by itself; then the paths name nothing, and there are no columns.
    pub own: Option<Own>,
}

/// A column of the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyColumn {
    /// Its name.
    pub name: String,
    /// Its type, one of those that [`Kind::is_for_keys`].
    pub kind: Kind,
    /// Where it is.
    pub from: Path,
}

/// Another column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// What an update does to it.
    pub rule: Rule,
    /// Its type, one of those that the rule takes.
    pub kind: Kind,
    /// Where it is; always in the value.
    pub from: Path,
}

/// What an update does to a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Replaces it.
    Set,
    /// Replaces names of an object, or removes them.
    Merge,
    /// Adds to it.
    Add,
    /// Replaces it by what is larger.
    KeepMax,
    /// Replaces it by what is smaller.
    KeepMin,
}

/// What deletes a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deletes {
    /// Nothing; a tombstone is a dead letter.
    Never,
    /// A null value.
    Tombstones,
    /// A null value, or one that has one of these texts there.
    Marks {
        /// Where.
        field: Path,
        /// The texts; `true` and numbers as JSON spells them.
        values: Vec<String>,
    },
}

impl Rule {
    /// All rules and how the configuration spells them.
    pub const ALL: [(&'static str, Self); 5] = [
        ("set", Self::Set),
        ("merge", Self::Merge),
        ("add", Self::Add),
        ("keep_max", Self::KeepMax),
        ("keep_min", Self::KeepMin),
    ];

    /// Whether the rule can be applied to a column of that type.
    pub fn takes(self, kind: Kind) -> bool {
        match self {
            Self::Set => true,
            Self::Merge => kind == Kind::Jsonb,
            Self::Add => matches!(kind, Kind::Bigint | Kind::Integer | Kind::Numeric(_)),
            Self::KeepMax | Self::KeepMin => kind.is_ordered(),
        }
    }
}

impl Deletes {
    /// Whether rows are ever deleted.
    pub fn any(&self) -> bool {
        *self != Self::Never
    }
}

impl Table {
    /// Whether the Kafka key alone tells the row.
    pub fn is_keyed_by_kafka(&self) -> bool {
        self.keys.iter().all(|key| key.from.place == Place::Key)
    }

    /// A row's key for people, by column.
    pub fn shown(&self, values: &KeyValues) -> BTreeMap<String, String> {
        let shown = |(key, part): (&KeyColumn, &[u8])| {
            let text = match key.kind {
                Kind::Uuid => uuid::Uuid::from_slice(part).unwrap_or_default().to_string(),
                Kind::Bigint => part.try_into().map_or(0, i64::from_be_bytes).to_string(),
                Kind::Integer => part.try_into().map_or(0, i32::from_be_bytes).to_string(),
                _ => String::from_utf8_lossy(part).into_owned(),
            };
            (key.name.clone(), text)
        };
        self.keys.iter().zip(values.parts()).map(shown).collect()
    }

    /// How the row with these encoded values is known.
    pub fn row_key(&self, values: &KeyValues) -> RowKey {
        let kinds = self.keys.iter().map(|key| key.kind);
        let parts: Vec<(Kind, &[u8])> = kinds.zip(values.parts()).collect();
        let shard = parts[self.shard_by];
        let mut rest = parts;
        if rest.len() > 1 {
            rest.remove(self.shard_by);
        }
        RowKey {
            app: AppId(identity(&[shard])),
            subscription: SubscriptionId(identity(&rest)),
        }
    }
}

/// A single uuid is its own identity.
fn identity(parts: &[(Kind, &[u8])]) -> [u8; 16] {
    match parts {
        [(Kind::Uuid, uuid)] => (*uuid).try_into().expect("16 bytes"),
        [(_, part)] => xxh3_128(part).to_be_bytes(),
        _ => {
            let mut values = KeyValues::default();
            parts.iter().for_each(|(_, part)| values.push(part));
            xxh3_128(&values.0).to_be_bytes()
        }
    }
}

/// The values of a row's key, encoded one after the other: the length in four bytes, big endian, and the value as Postgres'
/// binary form has it. Equal values are equal bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyValues(Vec<u8>);

impl KeyValues {
    /// Appends a value.
    pub fn push(&mut self, value: &[u8]) {
        let length = u32::try_from(value.len()).expect("a message is far below 4 GiB");
        self.0.extend(length.to_be_bytes());
        self.0.extend(value);
    }

    /// The values in order.
    pub fn parts(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.0.as_slice();
        std::iter::from_fn(move || {
            let (length, bytes) = rest.split_first_chunk()?;
            let length = usize::try_from(u32::from_be_bytes(*length)).expect("64 bits");
            let (part, others) = bytes.split_at(length);
            rest = others;
            Some(part)
        })
    }
}

/// A row that a shard is asked about.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// How it is known.
    pub key: RowKey,
    /// Its key where that is not `key` itself.
    pub values: Option<&'a KeyValues>,
}

impl Asked<'_> {
    /// The values of the key's columns, in Postgres' binary form.
    pub fn parts(&self) -> Vec<&[u8]> {
        match self.values {
            Some(values) => values.parts().collect(),
            None => vec![&self.key.app.0, &self.key.subscription.0],
        }
    }
}

/// Whether it may be a table's or a column's name: what Postgres takes and gives back as it is.
pub fn is_name(text: &str) -> bool {
    let legal = |c: char| c.is_ascii_lowercase() || c == '_';
    (1..=NAME_LENGTH_MAX).contains(&text.len())
        && text.starts_with(legal)
        && text.chars().all(|c| legal(c) || c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(kinds: &[Kind], shard_by: usize) -> Table {
        let key = |kind: &Kind| KeyColumn {
            name: "k".to_owned(),
            kind: *kind,
            from: Path::parse("@key").expect("a path"),
        };
        Table {
            name: "t".to_owned(),
            keys: kinds.iter().map(key).collect(),
            shard_by,
            columns: Vec::new(),
            deletes: Deletes::Never,
            own: None,
        }
    }

    fn values(parts: &[&[u8]]) -> KeyValues {
        let mut values = KeyValues::default();
        parts.iter().for_each(|part| values.push(part));
        values
    }

    #[test]
    fn values_are_read_back_and_where_one_ends_counts() {
        let both = values(&[b"ab", b"", b"c"]);
        assert_eq!(both.parts().collect::<Vec<_>>(), [&b"ab"[..], b"", b"c"]);
        assert_ne!(values(&[b"a", b"bc"]), values(&[b"ab", b"c"]));
    }

    #[test]
    fn uuids_are_known_by_themselves_and_all_else_by_a_hash() {
        let of_uuids = table(&[Kind::Uuid, Kind::Uuid], 0);
        let row = of_uuids.row_key(&values(&[&[7; 16], &[9; 16]]));
        assert_eq!((row.app.0, row.subscription.0), ([7; 16], [9; 16]));
        let alone = table(&[Kind::Uuid], 0).row_key(&values(&[&[7; 16]]));
        assert_eq!((alone.app.0, alone.subscription.0), ([7; 16], [7; 16]));
        let mixed = table(&[Kind::Bigint, Kind::Text], 1);
        let shown = table(&[Kind::Integer], 0).shown(&values(&[&(-5i32).to_be_bytes()]));
        assert_eq!(shown["k"], "-5");
        let row = mixed.row_key(&values(&[&5i64.to_be_bytes(), b"north"]));
        assert_eq!(row.app.0, xxh3_128(b"north").to_be_bytes());
        let of_number = xxh3_128(&5i64.to_be_bytes()).to_be_bytes();
        assert_eq!(row.subscription.0, of_number);
        let text = table(&[Kind::Text], 0).row_key(&values(&[b"sixteen bytes ok"]));
        assert_eq!(text.app.0, xxh3_128(b"sixteen bytes ok").to_be_bytes());
    }

    #[test]
    fn names_are_what_postgres_gives_back_as_it_is() {
        for name in ["account", "_a1", "order", &"a".repeat(NAME_LENGTH_MAX)] {
            assert!(is_name(name), "{name}");
        }
        for name in [
            "",
            "1a",
            "Account",
            "a-b",
            "a.b",
            "a\"b",
            "a b",
            "ä",
            &"a".repeat(NAME_LENGTH_MAX + 1),
        ] {
            assert!(!is_name(name), "{name}");
        }
    }
}
