//! The topic: a log for each partition, with gaps, aborted transactions and markers, that loses its beginning or its end; and
//! the updates that are written into it.

use super::world::{Chance, PARTITIONS, SHARDS};
use crate::clock::turned::BEGINNING_MS;
use crate::dead::Reason;
use crate::ids::{AppId, OffsetAndEpoch, Partition, RowKey, SubscriptionId};
use crate::partitioner::Partitioner;
use std::rc::Rc;
use std::sync::Arc;

/// A larger message is a dead letter.
pub const MESSAGE_BYTES_MAX: usize = 600;
/// A number of which two don't fit into 64 bits.
const LARGE: i64 = i64::MAX / 2 + 1;
/// What the database refuses to store as an identifier.
pub const POISON: &str = "poison";

/// What rows of each app are linked to; the first is one of the rows.
const PARENTS: [SubscriptionId; 2] = [SubscriptionId([1; 16]), SubscriptionId([9; 16])];
/// One update in so many links its row, or unlinks it.
const LINKS_ONCE_IN: u32 = 4;

/// What should become of an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It is applied, unless a sum would leave 64 bits.
    Good,
    /// It is refused by whoever reads it.
    Bad(Reason),
    /// The database refuses it, unless it is folded into one that isn't.
    Poisoned,
}

/// An update as it was meant, and as it was written. Its counts hold its own name once, so that what took effect twice shows.
#[derive(Debug)]
pub struct Update {
    /// Its number in the run.
    pub number: usize,
    /// What should become of it.
    pub kind: Kind,
    /// Its row.
    pub row: RowKey,
    /// Where it was written: partition, leader epoch, offset.
    pub at: (Partition, i32, i64),
    /// Tags that it sets, or removes.
    pub tags: Vec<(&'static str, Option<String>)>,
    /// Counts that it adds to, besides its own.
    pub counts: Vec<(&'static str, i64)>,
    /// What it sets the identifier to.
    pub identifier: Option<Option<String>>,
    /// What it links its row to, or unlinks it.
    pub parent: Option<Option<SubscriptionId>>,
    /// The message's key.
    pub key: Option<Vec<u8>>,
    /// The message's value.
    pub value: Option<Vec<u8>>,
}

/// What stands at an offset.
#[derive(Clone, Debug)]
pub enum Entry {
    /// A message.
    Message(Rc<Update>),
    /// A message of a transaction that was aborted.
    Aborted,
    /// Nothing that a consumer sees: a transaction's marker, or what was compacted away.
    Nothing,
}

/// The log of a partition. Offsets are indexes.
#[derive(Debug, Default)]
pub struct Log {
    /// From offset 0 on, those that are gone too.
    pub entries: Vec<Entry>,
    /// The first offset that is still there.
    pub first: i64,
    /// The leader epoch of what is written now.
    pub epoch: i32,
    /// The leader epochs of the entries.
    epochs: Vec<i32>,
    /// Where its end was cut off, and the leader epoch from then on.
    cuts: Vec<(i64, i32)>,
}

impl Log {
    /// The next offset.
    pub fn end(&self) -> i64 {
        i64::try_from(self.entries.len()).expect("small")
    }

    /// What stands at an offset.
    pub fn at(&self, offset: i64) -> Option<&Entry> {
        self.entries.get(usize::try_from(offset).ok()?)
    }

    /// Adds an entry.
    fn push(&mut self, entry: Entry) {
        self.entries.push(entry);
        self.epochs.push(self.epoch);
    }

    /// A leader takes over that has only so many entries: those that are gone.
    pub fn cut(&mut self, keeps: usize) -> Vec<Entry> {
        self.epoch += 1;
        self.epochs.truncate(keeps);
        let gone = self.entries.split_off(keeps);
        self.cuts.push((self.end(), self.epoch));
        gone
    }

    /// The leader epoch of the entry below an offset; -1 if there is none.
    pub fn epoch_below(&self, offset: i64) -> i32 {
        let below = usize::try_from(offset - 1).ok();
        let epoch = below.and_then(|below| self.epochs.get(below));
        epoch.copied().unwrap_or(-1)
    }

    /// Where the log of that leader epoch ends, as a broker tells it.
    pub fn end_of(&self, leader_epoch: i32) -> i64 {
        let end = self.epochs.partition_point(|epoch| *epoch <= leader_epoch);
        i64::try_from(end).expect("small")
    }

    /// Whether it was cut off below there since it was read.
    pub fn was_cut_below(&self, place: OffsetAndEpoch) -> bool {
        let mut cuts = self.cuts.iter();
        cuts.any(|(at, epoch)| *at < place.offset && *epoch > place.leader_epoch)
    }
}

/// All partitions.
pub struct Topic {
    /// By partition.
    pub logs: Vec<Log>,
    /// Which app is on which partition.
    pub partitioner: Arc<Partitioner>,
    /// By partition: its app.
    apps: Vec<AppId>,
    /// Rows of each partition.
    rows: usize,
}

impl Topic {
    /// Empty logs for a world with that many rows in each partition.
    pub fn new(rows: usize) -> Self {
        let shard_of_byte = std::array::from_fn(|byte| u16::from(byte >= 0x80));
        let [partitions, shards] =
            [PARTITIONS, SHARDS].map(|count| u32::try_from(count).expect("few"));
        let partitioner = Partitioner::new(partitions, shards, shard_of_byte);
        let app_of = |partition: usize| {
            (0..=u8::MAX)
                .map(|byte| AppId([byte; 16]))
                .find(|app| partitioner.partition_of(*app).index() == partition)
                .expect("256 apps are on all partitions")
        };
        Self {
            logs: (0..PARTITIONS).map(|_| Log::default()).collect(),
            apps: (0..PARTITIONS).map(app_of).collect(),
            partitioner: Arc::new(partitioner),
            rows,
        }
    }

    /// The partition of an app that the run uses.
    pub fn partition_of(&self, app: AppId) -> usize {
        self.partitioner.partition_of(app).index()
    }

    /// Writes something to a partition; an update gets this number.
    pub fn write(
        &mut self,
        partition: usize,
        number: usize,
        chance: &mut Chance,
    ) -> Option<Rc<Update>> {
        let other = self.apps[(partition + 1) % PARTITIONS];
        let row = RowKey {
            app: self.apps[partition],
            subscription: SubscriptionId(
                [u8::try_from(chance.of(1..=self.rows)).expect("few"); 16],
            ),
        };
        let log = &mut self.logs[partition];
        if chance.once_in(40) {
            log.epoch += 1;
        }
        let entry = match chance.of(0..=19) {
            0 => Entry::Nothing,
            1 => Entry::Aborted,
            _ => {
                let at = (
                    Partition(i32::try_from(partition).expect("few")),
                    log.epoch,
                    log.end(),
                );
                let mut update = Update::new(number, row, at, chance);
                update.spell(other, chance);
                Entry::Message(Rc::new(update))
            }
        };
        log.push(entry.clone());
        match entry {
            Entry::Message(update) => Some(update),
            Entry::Aborted | Entry::Nothing => None,
        }
    }
}

impl Update {
    fn new(number: usize, row: RowKey, at: (Partition, i32, i64), chance: &mut Chance) -> Self {
        let kind = match chance.of(0..=49) {
            0 => Kind::Bad(Reason::Tombstone),
            1 => Kind::Bad(Reason::NotJson),
            2 => Kind::Bad(Reason::WrongPartition),
            3 => Kind::Bad(Reason::TooLarge),
            4 => Kind::Bad(Reason::BadCounts),
            5 => Kind::Bad(Reason::SelfParent),
            6 => Kind::Poisoned,
            _ => Kind::Good,
        };
        let mut tags = vec![("last", Some(number.to_string()))];
        if chance.once_in(3) {
            let value = (!chance.once_in(3)).then(|| number.to_string());
            tags.push((["vip", "name"][chance.of(0..=1)], value));
        }
        let mut counts = Vec::new();
        if chance.once_in(3) {
            let delta = i64::try_from(chance.of(0..=9)).expect("small") - 4;
            counts.push(("sessions", delta));
        }
        if chance.once_in(10) {
            counts.push(("large", if chance.once_in(2) { LARGE } else { -LARGE }));
        }
        let identifier = match kind {
            Kind::Poisoned => Some(Some(POISON.to_owned())),
            _ => chance
                .once_in(5)
                .then(|| (!chance.once_in(4)).then(|| number.to_string())),
        };
        let parent = match kind {
            Kind::Bad(Reason::SelfParent) => Some(Some(row.subscription)),
            _ => chance.once_in(LINKS_ONCE_IN).then(|| {
                let first = chance.once_in(3) && row.subscription != PARENTS[0];
                (!chance.once_in(3)).then_some(PARENTS[usize::from(!first)])
            }),
        };
        Self {
            number,
            kind,
            row,
            at,
            tags,
            counts,
            identifier,
            parent,
            key: Some(row.subscription.to_string().into_bytes()),
            value: None,
        }
    }

    /// The row that it links its row to.
    pub fn parent_row(&self) -> Option<RowKey> {
        let app = self.row.app;
        let parent = self.parent.flatten();
        parent.map(|subscription| RowKey { app, subscription })
    }

    /// The name of its own count.
    pub fn own_count(number: usize) -> String {
        format!("u{number}")
    }

    /// The number of the update whose own count this is.
    pub fn of_own_count(name: &str) -> Option<usize> {
        name.strip_prefix('u')?.parse().ok()
    }

    fn spell(&mut self, other: AppId, chance: &mut Chance) {
        let app = match self.kind {
            Kind::Bad(Reason::WrongPartition) => other,
            _ => self.row.app,
        };
        let tags: serde_json::Map<_, _> = self
            .tags
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone().into()))
            .collect();
        let own = match self.kind {
            Kind::Bad(Reason::BadCounts) => "much".into(),
            _ => 1.into(),
        };
        let mut counts = serde_json::Map::from_iter([(Self::own_count(self.number), own)]);
        counts.extend(
            self.counts
                .iter()
                .map(|(name, delta)| ((*name).to_owned(), (*delta).into())),
        );
        let mut value = serde_json::json!({
            "app_id": app.to_string(),
            "subscription_id": self.row.subscription.to_string(),
            "tags": tags,
            "counts": counts,
        });
        if let Some(identifier) = &self.identifier {
            value["identifier"] = identifier.clone().into();
        }
        if let Some(parent) = self.parent {
            value["parent_id"] = parent.map(|parent| parent.to_string()).into();
        }
        if self.kind == Kind::Bad(Reason::TooLarge) {
            value["unknown"] = "x".repeat(MESSAGE_BYTES_MAX).into();
        }
        self.value = match self.kind {
            Kind::Bad(Reason::Tombstone) => None,
            Kind::Bad(Reason::NotJson) => Some(b"{".to_vec()),
            _ => Some(value.to_string().into_bytes()),
        };
        if chance.once_in(4)
            && let Some(key) = &mut self.key
        {
            key.make_ascii_uppercase();
        }
    }

    /// When it was written, as Kafka tells.
    pub fn timestamp_ms(&self) -> i64 {
        BEGINNING_MS + i64::try_from(self.number).expect("small")
    }
}
