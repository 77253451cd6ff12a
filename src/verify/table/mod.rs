//! Verifies a table that the configuration describes: every row against what the log makes of it up to its own fence.
//!
//! A model of its own: it knows the table's description, and shares nothing with what decodes, folds and writes. All rows are in
//! memory meanwhile, some hundred bytes each.

#[cfg(test)]
mod agreement_tests;
mod meaning;
mod state;
mod stored;

use super::letters::Letters;
use super::report::{Difference, Example, Report};
use super::rules::Skips;
use super::run::{RECORD_TIMEOUT, Topic, VerifyError, extents, read_letters, refuse_while_running};
use crate::config::Config;
use crate::config::checked::PartitionBy;
use crate::dead::Reason;
use crate::ids::{Partition, Position, ShardIndex};
use crate::kafka::admin::Admin;
use crate::kafka::reader;
use crate::table::Table;
use hashbrown::HashMap;
use meaning::{Effect, Key, Reader};
use state::State;
use stored::Stored;

/// A row, and how far the model is with it.
#[derive(Default)]
struct Row {
    /// On each shard that has it.
    stored: Vec<(ShardIndex, Stored)>,
    state: Option<State>,
    /// The last message that took effect, and its time.
    last: Option<(Position, i64)>,
    partition: Option<Partition>,
    /// The first message that is below the committed offset, and above the fence.
    missing: Option<(Partition, i64)>,
}

/// The comparison under way.
struct Audit<'c> {
    config: &'c Config,
    table: &'c Table,
    reader: Reader<'c>,
    /// Start and committed offset of each partition.
    extents: Vec<(i64, i64)>,
    letters: Letters,
    rows: HashMap<Key, Row>,
    defaults: Vec<bool>,
    report: Report,
}

/// A message of the log.
struct Message<'a> {
    partition: Partition,
    position: Position,
    timestamp_ms: i64,
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
}

/// Compares all rows of all shards with the log.
pub(super) fn verify(config: &Config, table: &Table) -> Result<Report, VerifyError> {
    let began = crate::clock::now();
    let admin = Admin::connect(&config.kafka)?;
    refuse_while_running(&admin, config)?;
    if !Skips::read(&admin, config)?.is_empty() {
        let topic = crate::rules::topic_of(&config.kafka.topic);
        return Err(VerifyError::HasRules { topic });
    }
    let topic = Topic::look(&admin, &config.kafka.topic)?;
    topic.require_partitions(config)?;
    let by_app = config.kafka.partition_by == PartitionBy::App;
    let (letters, unreadable) = read_letters(&admin, config)?;
    let extents = extents(&admin, config, &topic)?;
    let mut audit = Audit {
        config,
        table,
        reader: Reader {
            table,
            partitioner: by_app.then_some(&config.partitioner),
            bytes_max: config.consumer.message_max_bytes,
        },
        extents: extents
            .iter()
            .map(|extent| (extent.start, extent.committed))
            .collect(),
        report: Report {
            dead_letters: letters.count(),
            ..Report::default()
        },
        letters,
        rows: HashMap::new(),
        defaults: Vec::new(),
    };
    for (partition, offset) in unreadable {
        audit.differ(
            Difference::DeadLetterUnexpected,
            Some((partition, offset)),
            "",
            "a letter whose headers don't say where it comes from",
        );
    }
    audit.read_rows()?;
    audit.read_log(&topic)?;
    let mut report = audit.finish();
    refuse_while_running(&admin, config)?;
    report.ok = report.differences() == 0 && report.rows_checked > 0;
    report.seconds = began.elapsed().as_secs_f64();
    Ok(report)
}

impl Audit<'_> {
    fn read_rows(&mut self) -> Result<(), VerifyError> {
        for (index, shard) in self.config.shards.iter().enumerate() {
            let rows = &mut self.rows;
            let read = stored::read(&shard.postgres, self.table, |stored| {
                let row = rows.entry(stored.key.clone()).or_default();
                row.stored.push((ShardIndex(index), stored));
            });
            self.defaults = read?;
        }
        Ok(())
    }

    fn read_log(&mut self, topic: &Topic) -> Result<(), VerifyError> {
        let mut log = reader::Reader::open(&self.config.kafka, &topic.name, &topic.spans)?;
        while let Some(message) = log.next(RECORD_TIMEOUT) {
            let message = message?;
            self.message(&Message {
                partition: message.partition(),
                position: Position {
                    incarnation: self.config.kafka.incarnation,
                    leader_epoch: message.leader_epoch(),
                    offset: message.offset(),
                },
                timestamp_ms: message.timestamp().milliseconds().unwrap_or(-1),
                key: message.key(),
                value: message.value(),
            });
        }
        Ok(())
    }

    fn message(&mut self, message: &Message<'_>) {
        let Message { partition, .. } = *message;
        self.report.messages_read += 1;
        let offset = message.position.offset;
        let is_committed = offset < self.extents[partition.index()].1;
        let letters = self
            .letters
            .take(partition, offset, message.key, message.value);
        let (key, effect) = match self.reader.read(partition, message.key, message.value) {
            Ok(read) => read,
            Err(reason) => {
                let mut letters = letters;
                if !letters.remove(reason) && is_committed {
                    self.report.letter_missing(partition, offset, reason);
                }
                for other in letters.iter() {
                    self.report.letter_unexpected(partition, offset, other);
                }
                return;
            }
        };
        let by_row = |reason: Reason| matches!(reason, Reason::Overflow | Reason::Database);
        for other in letters.iter().filter(|reason| !by_row(*reason)) {
            self.report.letter_unexpected(partition, offset, other);
        }
        let is_refused = letters.iter().any(by_row);
        self.apply(message, key, effect, (is_refused, is_committed));
    }

    fn apply(
        &mut self,
        message: &Message<'_>,
        key: Key,
        effect: Effect,
        (is_refused, is_committed): (bool, bool),
    ) {
        let place = (message.partition, message.position.offset);
        let row = self.rows.entry(key).or_default();
        row.partition = Some(message.partition);
        let fence = row.stored.first().map(|(_, stored)| stored.fence);
        if fence.is_none_or(|fence| message.position > fence) {
            if is_committed {
                row.missing.get_or_insert(place);
            }
            // A row that is not there may have been deleted, and then purged: what its messages make of it tells.
            let may_be_purged = fence.is_none() && self.table.deletes.any();
            if !(may_be_purged && is_committed) {
                return;
            }
        }
        let new = || State::new(self.table, self.table.deletes.any());
        let state = row.state.get_or_insert_with(new);
        if !is_refused {
            // What the model can't hold differs from all that is stored.
            if state.apply(self.table, effect).is_none() {
                row.missing.get_or_insert(place);
            }
            if !self.table.deletes.any() {
                state.deleted = false;
            }
        }
        row.last = Some((message.position, message.timestamp_ms.max(0)));
    }

    fn finish(mut self) -> Report {
        for (key, row) in std::mem::take(&mut self.rows) {
            self.compare(&key, &row);
        }
        let left: Vec<_> = self.letters.unclaimed().collect();
        for (partition, offset, reasons) in left {
            let (start, _) = self.extents[partition.index()];
            // A letter of a message that is gone upstream explains itself.
            if offset >= start {
                for reason in reasons.iter() {
                    self.report.letter_unexpected(partition, offset, reason);
                }
            }
        }
        self.report
    }

    fn compare(&mut self, key: &Key, row: &Row) {
        let named = self.named(key);
        let is_purged =
            row.stored.is_empty() && row.state.as_ref().is_some_and(|state| state.deleted);
        if let Some(place) = row.missing.filter(|_| !is_purged) {
            let found = match row.stored.first() {
                Some((_, stored)) => format!("the row at {:?}", stored.fence),
                None => "no row".to_owned(),
            };
            let model = format!("{named}: an update that is committed");
            self.differ(Difference::Missing, Some(place), &model, &found);
            return;
        }
        let Some((shard, stored)) = row.stored.first() else {
            return;
        };
        let home = row
            .partition
            .map(|partition| self.config.partitioner.shard_of_partition(partition));
        if row.stored.len() > 1 || home.is_some_and(|home| home != *shard) {
            let found = format!("{named} on shard {}", self.config.shards[shard.0].name);
            self.differ(Difference::Extra, None, "one row, on its own shard", &found);
            return;
        }
        let is_ours = stored.fence.incarnation == self.config.kafka.incarnation;
        let begins = |partition: Partition| self.extents[partition.index()].0 == 0;
        let is_whole = match row.partition {
            Some(partition) => begins(partition),
            None => self.extents.iter().all(|(start, _)| *start == 0),
        };
        if !is_ours || !is_whole || stored.adopted {
            self.report.unverifiable += 1;
            return;
        }
        let Some((state, (position, at_ms))) = row.state.as_ref().zip(row.last) else {
            self.differ(
                Difference::Extra,
                None,
                "no row",
                &format!("{named}: no update makes it"),
            );
            return;
        };
        self.report.rows_checked += 1;
        let differs = match (position == stored.fence, at_ms == stored.updated_at_ms) {
            (false, _) => Some(format!("its fence is {:?}, not {position:?}", stored.fence)),
            (_, false) => Some(format!(
                "updated_at is {} ms, not {at_ms}",
                stored.updated_at_ms
            )),
            _ if state.deleted != stored.deleted => Some(format!("deleted: {}", stored.deleted)),
            _ => state.differs(self.table, &stored.columns, &self.defaults),
        };
        if let Some(differs) = differs {
            let place = row.partition.map(|partition| (partition, position.offset));
            self.differ(Difference::Mismatched, place, &named, &differs);
        }
    }

    fn named(&self, key: &Key) -> String {
        let columns = self.table.keys.iter().zip(key);
        let columns: Vec<String> = columns
            .map(|(column, text)| format!("{}={text}", column.name))
            .collect();
        columns.join(" ")
    }

    fn differ(
        &mut self,
        difference: Difference,
        place: Option<(Partition, i64)>,
        model: &str,
        found: &str,
    ) {
        self.report.differ(Example {
            difference,
            row: None,
            partition: place.map(|(partition, _)| partition),
            offset: place.map(|(_, offset)| offset),
            model: model.to_owned(),
            found: found.to_owned(),
        });
    }
}
