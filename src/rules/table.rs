//! What holds now, for those who decide: immutable, made anew at each change. A message costs up to four look-ups by hash,
//! and nothing while no rule holds anywhere.

use super::record::{EdgeKind, Rule, RuleId, Target};
use crate::ids::{AppId, EpochId, Partition, RowKey, SubscriptionId};
use crate::sync::{AtomicU64, Ordering};
use hashbrown::{HashMap, HashSet};
use jiff::Timestamp;
use std::sync::Arc;

/// Offsets of a partition in which a rule holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first.
    pub from: i64,
    /// The first in which it no longer holds; `None` while it does.
    pub to: Option<i64>,
}

/// How many messages a rule has skipped in this process. Added to once a batch.
#[derive(Debug, Default)]
pub struct Skipped(AtomicU64);

/// A rule with what is known of it.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The rule.
    pub rule: Rule,
    /// Where it holds.
    pub spans: HashMap<Partition, Span>,
    /// How much it has skipped here.
    pub skipped: Arc<Skipped>,
    /// Partitions of this process in which it is not decided yet from where on it holds, or no longer does.
    pub undecided: Vec<Partition>,
    /// When it was first decided in all partitions of this process; `None` before, and where this process has none.
    pub effective_at: Option<Timestamp>,
}

/// An edge that an epoch has to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lacking {
    /// The rule.
    pub rule: RuleId,
    /// Which end.
    pub kind: EdgeKind,
    /// What the epoch before has decided, which stays; `None`: nothing is decided yet.
    pub known: Option<i64>,
}

/// A partition of this process.
#[derive(Clone, Debug)]
pub struct Tenure {
    /// The epoch that began it.
    pub epoch: EpochId,
    /// What it has written and read back.
    pub own: HashSet<(RuleId, EdgeKind)>,
    /// What it has to write.
    pub lacking: Vec<Lacking>,
}

/// A message, as far as rules look at it.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// Where it was read.
    pub partition: Partition,
    /// Its offset.
    pub offset: i64,
    /// Its Kafka timestamp; -1 for none.
    pub timestamp_ms: i64,
    /// Its row.
    pub row: RowKey,
    /// The row that it links to.
    pub parent: Option<SubscriptionId>,
}

/// All rules, and where they hold.
#[derive(Debug, Default)]
pub struct Table {
    /// By id.
    pub entries: Vec<Entry>,
    /// Partitions of this process whose beginning is known to the reader of the rules topic.
    pub tenures: HashMap<Partition, Tenure>,
    by_app: HashMap<AppId, Vec<usize>>,
    by_row: HashMap<RowKey, Vec<usize>>,
    by_parent: HashMap<RowKey, Vec<usize>>,
}

impl Skipped {
    /// More were skipped.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// How many so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Table {
    /// Of these rules and partitions.
    pub fn new(entries: Vec<Entry>, tenures: HashMap<Partition, Tenure>) -> Self {
        let mut table = Self {
            tenures,
            ..Self::default()
        };
        for (number, entry) in entries.iter().enumerate() {
            if entry.spans.is_empty() {
                continue;
            }
            match entry.rule.target {
                Target::App(app) => table.by_app.entry(app).or_default().push(number),
                Target::Row(row) => table.by_row.entry(row).or_default().push(number),
                Target::Parent(row) => table.by_parent.entry(row).or_default().push(number),
            }
        }
        table.entries = entries;
        table
    }

    /// Whether no rule holds anywhere, or ever did.
    pub fn skips_nothing(&self) -> bool {
        self.by_app.is_empty() && self.by_row.is_empty() && self.by_parent.is_empty()
    }

    /// The number of a rule that skips the message.
    pub fn skips(&self, seen: &Seen) -> Option<usize> {
        let link = seen.parent.map(|subscription| RowKey {
            app: seen.row.app,
            subscription,
        });
        let named = [
            self.by_app.get(&seen.row.app),
            self.by_row.get(&seen.row),
            self.by_parent.get(&seen.row),
            link.and_then(|link| self.by_parent.get(&link)),
        ];
        let mut numbers = named.into_iter().flatten().flatten();
        numbers
            .find(|number| self.entries[**number].holds(seen))
            .copied()
    }

    /// The rule of that name.
    pub fn find(&self, id: RuleId) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.rule.id == id)
    }

    /// How many rules may still skip what comes now.
    pub fn active(&self, now: Timestamp) -> usize {
        let active = |entry: &&Entry| entry.rule.is_active(now);
        self.entries.iter().filter(active).count()
    }
}

impl Entry {
    fn holds(&self, seen: &Seen) -> bool {
        let span = self.spans.get(&seen.partition);
        span.is_some_and(|span| {
            span.from <= seen.offset && span.to.is_none_or(|to| seen.offset < to)
        }) && self.rule.is_within(seen.timestamp_ms)
    }
}
