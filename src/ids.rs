//! Words: the identifiers and positions that every room shares. Newtypes, so that two integers side by side can't be swapped.

use std::cmp::Ordering;
use std::fmt;
use uuid::Uuid;

/// A customer dataset: the 16 bytes of `app_id`. Its first byte picks the shard.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct AppId(pub [u8; 16]);

/// A subscription: the 16 bytes of `subscription_id`, which is also the Kafka key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
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

/// An offset of a partition, and the leader epoch up to which the log below it was read: one no lower than that of any record there. -1
/// where nobody knows. A log that was cut off since and written anew is known by it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OffsetAndEpoch {
    /// The offset.
    pub offset: i64,
    /// The leader epoch.
    pub leader_epoch: i32,
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

/// Byte by byte, in two instructions instead of a call: a batch is sorted by ids.
fn in_order(one: [u8; 16], other: [u8; 16]) -> Ordering {
    u128::from_be_bytes(one).cmp(&u128::from_be_bytes(other))
}

impl Ord for AppId {
    fn cmp(&self, other: &Self) -> Ordering {
        in_order(self.0, other.0)
    }
}

impl PartialOrd for AppId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for SubscriptionId {
    fn cmp(&self, other: &Self) -> Ordering {
        in_order(self.0, other.0)
    }
}

impl PartialOrd for SubscriptionId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

fn parse_uuid(text: &[u8]) -> Option<[u8; 16]> {
    usual_uuid(text).or_else(|| Uuid::try_parse_ascii(text).ok().map(Uuid::into_bytes))
}

/// Of a text with its four hyphens; `None` for all others. A message has three of them, so there is no branch and no look at a
/// table for each digit, as the crate has: the compiler makes a few instructions for sixteen of it.
fn usual_uuid(text: &[u8]) -> Option<[u8; 16]> {
    let text: &[u8; 36] = text.try_into().ok()?;
    if [text[8], text[13], text[18], text[23]] != *b"----" {
        return None;
    }
    let mut digits = [0; 32];
    digits[..8].copy_from_slice(&text[..8]);
    digits[8..12].copy_from_slice(&text[9..13]);
    digits[12..16].copy_from_slice(&text[14..18]);
    digits[16..20].copy_from_slice(&text[19..23]);
    digits[20..].copy_from_slice(&text[24..]);
    let mut are_digits = true;
    for digit in &mut digits {
        let decimal = digit.wrapping_sub(b'0');
        let letter = (*digit | 0x20).wrapping_sub(b'a');
        are_digits &= (decimal < 10) | (letter < 6);
        *digit = match decimal < 10 {
            true => decimal,
            false => letter.wrapping_add(10),
        };
    }
    let mut bytes = [0; 16];
    for (byte, pair) in bytes.iter_mut().zip(digits.as_chunks::<2>().0) {
        *byte = pair[0] << 4 | pair[1];
    }
    are_digits.then_some(bytes)
}

impl AppId {
    /// Parses any usual textual form of a UUID; `None` for anything else.
    pub fn parse(text: &[u8]) -> Option<Self> {
        parse_uuid(text).map(Self)
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
        parse_uuid(text).map(Self)
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
    fn ids_are_in_the_order_of_their_bytes() {
        let ids = [0, 1, 0x7f, 0x80, 0xff].map(|byte| {
            let [mut first, mut last] = [[3; 16]; 2];
            (first[0], last[15]) = (byte, byte);
            [first, last]
        });
        for one in ids.as_flattened() {
            for other in ids.as_flattened() {
                let expected = one.cmp(other);
                assert_eq!(AppId(*one).cmp(&AppId(*other)), expected);
                let of = |id| RowKey {
                    app: AppId([0; 16]),
                    subscription: SubscriptionId(id),
                };
                assert_eq!(of(*one).partial_cmp(&of(*other)), Some(expected));
            }
        }
    }

    /// Each byte of a good one in turn is each of all bytes, and each length is cut off.
    #[test]
    fn uuids_of_the_usual_form_are_what_the_crate_says() {
        let good = *b"f47ac10b-58cc-4372-A567-0E02b2c3d479";
        let judge = |text: &[u8]| {
            let expected = Uuid::try_parse_ascii(text).ok().map(Uuid::into_bytes);
            assert_eq!(parse_uuid(text), expected, "{}", text.escape_ascii());
            let is_usual = text.len() == good.len() && expected.is_some();
            assert_eq!(
                usual_uuid(text).is_some(),
                is_usual,
                "{}",
                text.escape_ascii()
            );
        };
        for at in 0..good.len() {
            judge(&good[..at]);
            for byte in 0..=u8::MAX {
                let mut text = good;
                text[at] = byte;
                judge(&text);
            }
        }
        judge(b"f47ac10b58cc4372a5670e02b2c3d479");
        judge(b"{f47ac10b-58cc-4372-a567-0e02b2c3d479}");
    }

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
