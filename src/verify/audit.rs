//! Compares: takes in every row of Postgres, then every message of the log, and tells what differs.
//!
//! Each row is rebuilt from its messages up to its own fence, and compared there; later messages can only show that its
//! fence is too low. So memory holds a fingerprint of every row, and the state of those rows alone that are between
//! their first message and their fence.

use super::{
    entry::{Entry, Refused, Verdict},
    judge::{Change, Judge, Update},
    letters::{Letters, Reasons},
    report::{Difference, Example, Report},
    rules::Skips,
    state::Names,
    stored::Stored,
};
use crate::{
    config::checked::{Config, OnMissingRow, PartitionBy, Start},
    dead::Reason,
    ids::{Partition, Position, RowKey, ShardIndex},
    partitioner::Partitioner,
};
use hashbrown::{HashMap, HashSet};

/// The incarnation of a topic that never was another. Rows of a later one may be older than their topic.
const FIRST_INCARNATION: i32 = 1;

/// One message of the log.
#[derive(Clone, Copy)]
pub(super) struct Message<'a> {
    /// Where it was read.
    pub partition: Partition,
    /// Its offset there.
    pub offset: i64,
    /// The leader epoch of its batch.
    pub leader_epoch: i32,
    /// Kafka's timestamp, in milliseconds since 1970.
    pub timestamp_ms: i64,
    /// `None` for a null.
    pub key: Option<&'a [u8]>,
    /// `None` for a null.
    pub value: Option<&'a [u8]>,
}

/// Where one partition's log begins, and how far the group has come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extent {
    /// The offset of the oldest record.
    pub start: i64,
    /// The first offset that the group has not finished; 0 if it never committed.
    pub committed: i64,
}

/// A row carries a later incarnation of the topic than the configured one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NewerIncarnation {
    /// The row.
    pub row: RowKey,
    /// Its incarnation.
    pub incarnation: i32,
}

/// The comparison so far.
pub(super) struct Audit {
    judge: Judge,
    partitioner: Partitioner,
    shard_names: Vec<String>,
    partition_by: PartitionBy,
    incarnation: i32,
    /// Every update from the first record on makes its row if there is none: the log alone decides which rows there are.
    log_decides: bool,
    /// By partition.
    extents: Vec<Extent>,
    letters: Letters,
    skips: Skips,
    names: Names,
    rows: HashMap<RowKey, Entry>,
    missing: HashSet<RowKey>,
    report: Report,
}

impl Audit {
    /// Ready for the rows. `extents` has a place for each partition; `letters` are all that there are.
    pub fn new(config: &Config, extents: Vec<Extent>, letters: Letters) -> Self {
        let by_app = config.kafka.partition_by == PartitionBy::App;
        let inserts = config.consumer.on_missing_row == OnMissingRow::Insert;
        Self {
            judge: Judge {
                message_bytes_max: config.consumer.message_max_bytes,
                partitioner: by_app.then(|| config.partitioner.clone()),
            },
            partitioner: config.partitioner.clone(),
            shard_names: config
                .shards
                .iter()
                .map(|shard| shard.name.clone())
                .collect(),
            partition_by: config.kafka.partition_by,
            incarnation: config.kafka.incarnation,
            log_decides: inserts && config.kafka.start == Start::Earliest,
            extents,
            report: Report {
                dead_letters: letters.count(),
                ..Report::default()
            },
            letters,
            skips: Skips::default(),
            names: Names::default(),
            rows: HashMap::new(),
            missing: HashSet::new(),
        }
    }

    /// With the rules.
    pub fn skipping(mut self, skips: Skips) -> Self {
        self.skips = skips;
        self
    }

    /// Takes in a row that a shard holds. All rows come before the first message.
    pub fn row(&mut self, shard: ShardIndex, stored: &Stored<'_>) -> Result<(), NewerIncarnation> {
        let (row, incarnation) = (stored.row, stored.fence.incarnation);
        if incarnation > self.incarnation {
            return Err(NewerIncarnation { row, incarnation });
        }
        let right = self.partitioner.shard_of(row.app);
        if shard != right {
            self.report.rows_checked += 1;
            let right = &self.shard_names[right.0];
            let model = format!("on shard {right}, which its app belongs to, if anywhere");
            self.differ_in_row(Difference::Extra, row, shard, None, model);
            return Ok(());
        }
        let verifiable =
            self.log_decides && incarnation == self.incarnation && self.log_has_beginning_of(row);
        let entry = Entry::new(stored, verifiable, &mut self.names);
        self.rows.insert(row, entry);
        Ok(())
    }

    /// Takes in a message. Those of one partition come in the order of their offsets.
    pub fn message(&mut self, message: &Message<'_>) {
        self.report.messages_read += 1;
        let letters = self.letters.take(
            message.partition,
            message.offset,
            message.key,
            message.value,
        );
        match self
            .judge
            .judge(message.partition, message.key, message.value)
        {
            Ok(update) => self.good(message, update, letters),
            Err(reason) => self.bad(message, reason, letters),
        }
    }

    fn bad(&mut self, message: &Message<'_>, reason: Reason, mut letters: Reasons) {
        if !letters.remove(reason) {
            self.check_letter_not_due(message, reason);
        }
        self.expect_no_letters(message, letters);
    }

    fn good(&mut self, message: &Message<'_>, update: Update<'_>, mut letters: Reasons) {
        let at = (message.partition, message.offset);
        if self.skips.skip(at, message.timestamp_ms, &update) {
            // As if it were not there.
            self.report.skipped += 1;
            self.expect_no_letters(message, letters);
            return;
        }
        let refused = Refused {
            all: letters.remove(Reason::Database),
            overflow: letters.remove(Reason::Overflow),
            link: matches!(update.parent, Change::Set(_)) && letters.remove(Reason::LinkLimit),
        };
        self.expect_no_letters(message, letters);

        let row = update.row;
        let position = Position {
            incarnation: self.incarnation,
            leader_epoch: message.leader_epoch,
            offset: message.offset,
        };
        match self.rows.get_mut(&row) {
            Some(entry) if position <= entry.fence() => {
                let step = entry.step(message, position, update, &refused, &mut self.names);
                let overflow_disputed = step.overflows != refused.overflow;
                if self.incarnation > FIRST_INCARNATION
                    && (step.difference.is_some() || overflow_disputed)
                {
                    entry.give_up();
                    return;
                }
                match (step.overflows, refused.overflow) {
                    (true, false) => self.check_letter_not_due(message, Reason::Overflow),
                    (false, true) => {
                        let (partition, offset) = (message.partition, message.offset);
                        self.report
                            .letter_unexpected(partition, offset, Reason::Overflow);
                    }
                    _ => {}
                }
                if let Some(model) = step.difference {
                    let shard = self.partitioner.shard_of(row.app);
                    self.differ_in_row(Difference::Mismatched, row, shard, Some(message), model);
                }
            }
            Some(_) => self.check_not_due(row, message),
            // What the database refused may not even have been able to make its row.
            None if refused.all => {}
            None => self.check_not_due(row, message),
        }
    }

    /// An update that its row does not hold must not be below the committed offset.
    fn check_not_due(&mut self, row: RowKey, message: &Message<'_>) {
        if self.log_decides && self.is_committed(message) && self.missing.insert(row) {
            let shard = self.partitioner.shard_of(row.app);
            let model =
                "has the update at this offset, which is below the committed one".to_owned();
            self.differ_in_row(Difference::Missing, row, shard, Some(message), model);
        }
    }

    /// A message that needs a letter and has none must not be below the committed offset.
    fn check_letter_not_due(&mut self, message: &Message<'_>, reason: Reason) {
        if self.is_committed(message) {
            self.report
                .letter_missing(message.partition, message.offset, reason);
        }
    }

    fn expect_no_letters(&mut self, message: &Message<'_>, letters: Reasons) {
        for reason in letters.iter() {
            self.report
                .letter_unexpected(message.partition, message.offset, reason);
        }
    }

    /// A letter, here by its own place, that does not say where it comes from.
    pub fn unreadable_letter(&mut self, partition: Partition, offset: i64) {
        self.report.letter_unreadable(partition, offset);
    }

    fn differ_in_row(
        &mut self,
        difference: Difference,
        row: RowKey,
        shard: ShardIndex,
        message: Option<&Message<'_>>,
        model: String,
    ) {
        let by_app = self.partition_by == PartitionBy::App;
        self.report.differ(Example {
            difference,
            row: Some((row, shard)),
            partition: message
                .map(|message| message.partition)
                .or_else(|| by_app.then(|| self.partitioner.partition_of(row.app))),
            offset: message.map(|message| message.offset),
            model,
            found: String::new(),
        });
    }

    fn is_committed(&self, message: &Message<'_>) -> bool {
        message.offset < self.extents[message.partition.index()].committed
    }

    /// Whether the row's first update can't have been deleted with the beginning of its log.
    fn log_has_beginning_of(&self, row: RowKey) -> bool {
        match self.partition_by {
            PartitionBy::App => {
                self.extents[self.partitioner.partition_of(row.app).index()].start == 0
            }
            PartitionBy::Any => self.extents.iter().all(|extent| extent.start == 0),
        }
    }

    /// The result, after the last message; `ok` and `seconds` are the caller's to set.
    pub fn finish(mut self) -> (Report, Names) {
        let rows = std::mem::take(&mut self.rows);
        for (row, entry) in &rows {
            match entry.verdict(&self.names) {
                Verdict::Unknown => self.report.unverifiable += 1,
                Verdict::Settled => self.report.rows_checked += 1,
                Verdict::Differs(difference, model) => {
                    self.report.rows_checked += 1;
                    let shard = self.partitioner.shard_of(row.app);
                    self.differ_in_row(difference, *row, shard, None, model);
                }
            }
        }
        let unclaimed: Vec<_> = self.letters.unclaimed().collect();
        for (partition, offset, reasons) in unclaimed {
            // The log deleted its message, or its topic was another one.
            let of_the_past = self.incarnation > FIRST_INCARNATION
                || self
                    .extent(partition)
                    .is_some_and(|extent| offset < extent.start);
            for reason in reasons.iter().filter(|_| !of_the_past) {
                self.report.letter_unexpected(partition, offset, reason);
            }
        }
        (self.report, self.names)
    }

    /// `None` for a partition that the topic does not have; a letter may name any.
    fn extent(&self, Partition(partition): Partition) -> Option<&Extent> {
        usize::try_from(partition)
            .ok()
            .and_then(|index| self.extents.get(index))
    }
}

#[cfg(test)]
#[path = "audit_tests.rs"]
mod tests;
