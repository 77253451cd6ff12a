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

/// One assignment of a partition to a process: no two epochs of a topic have the same.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EpochId(pub u64);

/// What an epoch writes beside the offset that it commits. The coordinator takes a commit only from the partition's owner, so
/// the note that stands there is the owner's, or the last owner's. Read and argued about in src/rules/README.md.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Note {
    /// The life of the topic that it is about.
    pub incarnation: i32,
    /// Who wrote it.
    pub epoch: EpochId,
    /// No message at or beyond this offset was dispatched by this epoch or one before it.
    pub ceiling: i64,
}

impl Note {
    /// Reads what [`Display`](fmt::Display) wrote; `None` for anything else, as offsets that another tool moved have no note.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.strip_prefix("millpond ")?.split(' ');
        let mut part = |name| parts.next()?.strip_prefix(name);
        let note = Self {
            incarnation: part("incarnation=")?.parse().ok()?,
            epoch: EpochId::parse(part("epoch=")?)?,
            ceiling: part("ceiling=")?.parse().ok()?,
        };
        parts.next().is_none().then_some(note)
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            incarnation,
            epoch,
            ceiling,
        } = self;
        write!(
            f,
            "millpond incarnation={incarnation} epoch={epoch} ceiling={ceiling}"
        )
    }
}

impl EpochId {
    /// Reads 16 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let is_hex = text.len() == 16 && text.bytes().all(|digit| digit.is_ascii_hexdigit());
        is_hex.then(|| u64::from_str_radix(text, 16).ok().map(Self))?
    }
}

impl fmt::Display for EpochId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for EpochId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "epoch {self}")
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_read_as_it_was_written_and_nothing_else_is_one() {
        let note = Note {
            incarnation: 3,
            epoch: EpochId(0xff),
            ceiling: 1 << 40,
        };
        assert_eq!(Note::parse(&note.to_string()), Some(note));
        for other in [
            "",
            "millpond",
            "millpond incarnation=1 epoch=ff ceiling=1",
            "millpond incarnation=1 epoch=00000000000000ff ceiling=1 more",
            "incarnation=1 epoch=00000000000000ff ceiling=1",
        ] {
            assert_eq!(Note::parse(other), None, "{other}");
        }
    }
}
