//! Words: the identifiers and positions that every room shares. Newtypes, so that two integers side by side can't be swapped.

use std::fmt;
use uuid::Uuid;

/// A customer dataset: the 16 bytes of `app_id`. Its first byte picks the shard.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AppId(pub [u8; 16]);

/// A subscription: the 16 bytes of `subscription_id`, which is also the Kafka key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriptionId(pub [u8; 16]);

/// The row's primary key. Ordered as Postgres orders `(uuid, uuid)`: byte by byte.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RowKey {
    /// The app that the row belongs to.
    pub app: AppId,
    /// The subscription within the app.
    pub subscription: SubscriptionId,
}

/// Kafka's partition number, from 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition(pub i32);

/// Index into the checked configuration's shards, which are sorted by the start of their range.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ShardIndex(pub usize);

/// Where an update stands in the source: the fence that is stored in the row and compared on write.
///
/// Compared as one value, incarnation first: a topic made anew and a truncated log reuse offsets, so an offset alone
/// would take new updates for replays.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Position {
    /// One life of the topic; raised by hand in the configuration.
    pub incarnation: i32,
    /// The leader epoch that Kafka stamped on the record; -1 where the message format has none.
    pub leader_epoch: i32,
    /// The record's offset.
    pub offset: i64,
}

impl AppId {
    /// Parses any usual textual form of a UUID; `None` for anything else.
    pub fn parse(text: &[u8]) -> Option<Self> {
        Uuid::try_parse_ascii(text)
            .ok()
            .map(|uuid| Self(*uuid.as_bytes()))
    }
}

impl SubscriptionId {
    /// The subscription of an email's own row: UUIDv5 of the app and the address in lower case.
    pub fn of_email(app: AppId, address: &str) -> Self {
        let namespace = Uuid::from_bytes(app.0);
        Self(Uuid::new_v5(&namespace, address.to_lowercase().as_bytes()).into_bytes())
    }

    /// Parses any usual textual form of a UUID; `None` for anything else.
    pub fn parse(text: &[u8]) -> Option<Self> {
        Uuid::try_parse_ascii(text)
            .ok()
            .map(|uuid| Self(*uuid.as_bytes()))
    }
}

impl fmt::Display for AppId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Uuid::from_bytes(self.0).fmt(f)
    }
}

impl fmt::Display for SubscriptionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Uuid::from_bytes(self.0).fmt(f)
    }
}

impl fmt::Debug for AppId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "app {self}")
    }
}

impl fmt::Debug for SubscriptionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "subscription {self}")
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "partition {}", self.0)
    }
}

impl Partition {
    /// As an index into tables with a place for each partition. Kafka never hands out a negative partition.
    pub fn index(self) -> usize {
        usize::try_from(self.0).expect("partitions are numbered from 0")
    }
}
