//! Why a message becomes a dead letter, and the headers that say so. Words only; `kafka::dead_letters` sends them.

use std::fmt;

/// The reason of a dead letter, as its `__dlq.errors.reason` header spells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(usize)]
pub enum Reason {
    /// A value of no bytes.
    Empty,
    /// A null value.
    Tombstone,
    /// Not a JSON object in UTF-8.
    NotJson,
    /// No key, or no `app_id` or `subscription_id`.
    MissingId,
    /// An id that is no UUID.
    BadId,
    /// The key names another subscription than the value.
    KeyMismatch,
    /// Not on the partition that the partitioner's rule gives its app.
    WrongPartition,
    /// `tags` is no object of strings, numbers and booleans.
    BadTags,
    /// `counts` is no object of 64-bit integers.
    BadCounts,
    /// What a column of a table of yours can't take.
    BadValue,
    /// A count would leave 64 bits.
    Overflow,
    /// Text that Postgres can't store: NUL, lone surrogates; or a text field that is none.
    BadText,
    /// A row that links to itself.
    SelfParent,
    /// More children than a parent may have.
    LinkLimit,
    /// Larger than `message_max_bytes`.
    TooLarge,
    /// Refused by Postgres; the SQLSTATE is in its own header.
    Database,
}

impl Reason {
    /// How many reasons there are.
    pub const COUNT: usize = 16;

    /// All of them, in order.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Empty,
        Self::Tombstone,
        Self::NotJson,
        Self::MissingId,
        Self::BadId,
        Self::KeyMismatch,
        Self::WrongPartition,
        Self::BadTags,
        Self::BadCounts,
        Self::BadValue,
        Self::Overflow,
        Self::BadText,
        Self::SelfParent,
        Self::LinkLimit,
        Self::TooLarge,
        Self::Database,
    ];

    /// As headers, metrics and the contract spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Tombstone => "tombstone",
            Self::NotJson => "not-json",
            Self::MissingId => "missing-id",
            Self::BadId => "bad-id",
            Self::KeyMismatch => "key-mismatch",
            Self::WrongPartition => "wrong-partition",
            Self::BadTags => "bad-tags",
            Self::BadCounts => "bad-counts",
            Self::BadValue => "bad-value",
            Self::Overflow => "overflow",
            Self::BadText => "bad-text",
            Self::SelfParent => "self-parent",
            Self::LinkLimit => "link-limit",
            Self::TooLarge => "too-large",
            Self::Database => "database",
        }
    }

    /// The reason that is spelled so.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == text)
    }

    /// Whether it depends on the row's state, so that only the consumer can tell (and the table `refused` remembers it).
    /// All others can be judged from the message alone.
    pub fn depends_on_row(self) -> bool {
        matches!(self, Self::Overflow | Self::LinkLimit | Self::Database)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Told when the broker has a message's dead letter; not told while it doesn't, however long that takes.
pub trait Receipt: Send {
    /// The dead letter is in Kafka.
    fn delivered(self: Box<Self>);
}

/// Names of the headers that a dead letter carries besides the original ones.
pub mod header {
    /// The topic that the message came from.
    pub const TOPIC: &str = "__dlq.errors.topic";
    /// Its partition there.
    pub const PARTITION: &str = "__dlq.errors.partition";
    /// Its offset there.
    pub const OFFSET: &str = "__dlq.errors.offset";
    /// The consumer group that refused it.
    pub const GROUP: &str = "__dlq.errors.group";
    /// A [`super::Reason`].
    pub const REASON: &str = "__dlq.errors.reason";
    /// Postgres' SQLSTATE, for `database` and `overflow`.
    pub const SQLSTATE: &str = "__dlq.errors.sqlstate";
    /// What was wrong, for people.
    pub const MESSAGE: &str = "__dlq.errors.message";
    /// How often it was replayed.
    pub const ATTEMPTS: &str = "__dlq.errors.attempts";
}
