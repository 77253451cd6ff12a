//! Reads a log along with its growth, from its first record on, and compares at the end: for a log that does not keep its
//! records. What was dropped before it was read is an error, never silence.
//!
//! Memory holds the state of every row, where [`verify`](super::verify) holds a fingerprint: a row's fence is known only
//! at the end.

use super::{
    audit::Message,
    children,
    entry::show,
    judge::Judge,
    letters::Letters,
    report::{Difference, Example, Report},
    rules::Skips,
    run::{ANSWER_TIMEOUT, Topic, VerifyError, read_letters, show_found},
    state::{Digest, Names, State},
    stored::{SUBSCRIPTION, Selection, Stored, read},
};
use crate::{
    clock,
    config::{Config, checked::PartitionBy},
    dead::Reason,
    ids::{Partition, Position, RowKey, ShardIndex},
    kafka::{
        admin::Admin,
        reader::{ReadError, Reader, Span},
    },
};
use hashbrown::HashMap;
use std::time::{Duration, Instant};

/// Follows a topic. All rows must be made by it, and every update applied in the order of the log: no rule skips any.
pub struct Follower {
    config: Config,
    began: Instant,
    reader: Reader,
    model: Model,
}

impl Follower {
    /// Begins at the first record of every partition, which must be the first that there ever was.
    pub fn begin(config: &Config) -> Result<Self, VerifyError> {
        let admin = Admin::connect(&config.kafka)?;
        let topic = Topic::look(&admin, &config.kafka.topic)?;
        require_whole(&topic)?;
        let endless = |span: &Span| Span {
            end: Span::NO_END,
            ..*span
        };
        let spans: Vec<Span> = topic.spans.iter().map(endless).collect();
        Ok(Self {
            config: config.clone(),
            began: clock::now(),
            reader: Reader::open(&config.kafka, &topic.name, &spans)?,
            model: Model::new(config, spans.len()),
        })
    }

    /// Takes in what comes, until nothing came for `quiet` or so many messages did. How many there were in all.
    pub fn read_on(&mut self, quiet: Duration, messages_max: u64) -> Result<u64, VerifyError> {
        for _ in 0..messages_max {
            let message = match self.reader.next(quiet) {
                None | Some(Err(ReadError::Quiet { .. })) => break,
                Some(message) => message?,
            };
            let message = Message {
                partition: message.partition(),
                offset: message.offset(),
                leader_epoch: message.leader_epoch(),
                timestamp_ms: message.timestamp().milliseconds().unwrap_or(-1),
                key: message.key(),
                value: message.value(),
            };
            let expected = self.model.next[message.partition.index()];
            if message.offset != expected {
                return Err(VerifyError::Lost {
                    topic: self.config.kafka.topic.clone(),
                    partition: message.partition,
                    expected,
                    found: message.offset,
                });
            }
            self.model.message(&message);
        }
        Ok(self.model.messages)
    }

    /// Compares all rows of all shards, and all dead letters, with what was read; the group must have committed all of it.
    pub fn verdict(self) -> Result<Report, VerifyError> {
        let Self {
            config,
            began,
            model,
            ..
        } = self;
        let admin = Admin::connect(&config.kafka)?;
        require_committed(&admin, &config, &model.next)?;
        require_whole(&Topic::look(&admin, &config.kafka.dead_letter_topic)?)?;
        require_no_rules(&admin, &config)?;
        let (letters, unreadable) = read_letters(&admin, &config)?;
        let (mut report, mut names) = model.compare(&config, letters, &unreadable)?;
        children::compare(&config, &mut report)?;
        show_found(&config, &mut report.examples, &mut names)?;
        report.ok = report.differences() == 0 && report.rows_checked > 0;
        report.seconds = began.elapsed().as_secs_f64();
        Ok(report)
    }
}

/// Refuses a topic whose first records are gone.
fn require_whole(topic: &Topic) -> Result<(), VerifyError> {
    match topic.spans.iter().find(|span| span.start > 0) {
        None => Ok(()),
        Some(span) => Err(VerifyError::Lost {
            topic: topic.name.clone(),
            partition: span.partition,
            expected: 0,
            found: span.start,
        }),
    }
}

fn require_no_rules(admin: &Admin, config: &Config) -> Result<(), VerifyError> {
    if Skips::read(admin, config)?.is_empty() {
        return Ok(());
    }
    let topic = format!("{}.rules", config.kafka.topic);
    Err(VerifyError::HasRules { topic })
}

fn require_committed(admin: &Admin, config: &Config, next: &[i64]) -> Result<(), VerifyError> {
    let (group, topic) = (&config.kafka.group, &config.kafka.topic);
    let committed = admin.committed_offsets(group, topic, ANSWER_TIMEOUT)?;
    for ((partition, read), committed) in (0..).map(Partition).zip(next).zip(committed) {
        let committed = committed.unwrap_or(0);
        if committed < *read {
            return Err(VerifyError::Behind {
                group: group.clone(),
                partition,
                committed,
                read: *read,
            });
        }
    }
    Ok(())
}

/// What the messages so far make of all rows.
struct Model {
    judge: Judge,
    incarnation: i32,
    /// The next offset of each partition.
    next: Vec<i64>,
    messages: u64,
    names: Names,
    rows: HashMap<RowKey, Row>,
    /// Messages that need a letter.
    refused: Vec<Refused>,
}

/// A row after its last update so far.
struct Row {
    fence: Position,
    updated_at_us: i64,
    state: State,
}

struct Refused {
    partition: Partition,
    offset: i64,
    reason: Reason,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
}

impl Model {
    fn new(config: &Config, partitions: usize) -> Self {
        let by_app = config.kafka.partition_by == PartitionBy::App;
        Self {
            judge: Judge {
                message_bytes_max: config.consumer.message_max_bytes,
                partitioner: by_app.then(|| config.partitioner.clone()),
            },
            incarnation: config.kafka.incarnation,
            next: vec![0; partitions],
            messages: 0,
            names: Names::default(),
            rows: HashMap::new(),
            refused: Vec::new(),
        }
    }

    fn message(&mut self, message: &Message<'_>) {
        self.messages += 1;
        self.next[message.partition.index()] = message.offset + 1;
        let judged = self
            .judge
            .judge(message.partition, message.key, message.value);
        let refused = match judged {
            Err(reason) => Some(reason),
            Ok(update) => {
                let fence = Position {
                    incarnation: self.incarnation,
                    leader_epoch: message.leader_epoch,
                    offset: message.offset,
                };
                let row = self.rows.entry(update.row).or_insert_with(|| Row {
                    fence,
                    updated_at_us: 0,
                    state: State::default(),
                });
                row.fence = fence;
                row.updated_at_us = message.timestamp_ms.saturating_mul(1000);
                // A refused update moves the fence all the same.
                let applied = row.state.apply(update, false, &mut self.names);
                applied.is_err().then_some(Reason::Overflow)
            }
        };
        if let Some(reason) = refused {
            self.refused.push(Refused {
                partition: message.partition,
                offset: message.offset,
                reason,
                key: message.key.map(<[u8]>::to_vec),
                value: message.value.map(<[u8]>::to_vec),
            });
        }
    }

    fn compare(
        mut self,
        config: &Config,
        letters: Letters,
        unreadable: &[(Partition, i64)],
    ) -> Result<(Report, Names), VerifyError> {
        let mut report = Report {
            messages_read: self.messages,
            ..Report::default()
        };
        self.compare_letters(letters, &mut report);
        for (partition, offset) in unreadable {
            report.letter_unreadable(*partition, *offset);
        }
        for (index, shard) in config.shards.iter().enumerate() {
            read(&shard.postgres, &SUBSCRIPTION, &Selection::All, |stored| {
                self.compare_row(config, ShardIndex(index), stored, &mut report);
            })?;
        }
        self.compare_rest(config, &mut report);
        Ok((report, self.names))
    }

    /// The rows that no shard holds.
    fn compare_rest(&self, config: &Config, report: &mut Report) {
        for (row, model) in &self.rows {
            let shard = config.partitioner.shard_of(row.app);
            let model = model.show(&self.names);
            report.differ(in_row(Difference::Missing, *row, shard, model));
        }
    }

    /// Each stored row takes its model along, so that those that remain are missing.
    fn compare_row(
        &mut self,
        config: &Config,
        shard: ShardIndex,
        stored: &Stored<'_>,
        report: &mut Report,
    ) {
        report.rows_checked += 1;
        let right = config.partitioner.shard_of(stored.row.app);
        let model = if shard == right {
            self.rows.remove(&stored.row)
        } else {
            None
        };
        let Some(model) = model else {
            let model = "no row on this shard: no update made one".to_owned();
            report.differ(in_row(Difference::Extra, stored.row, shard, model));
            return;
        };
        let digest = State::of(&stored.columns, &mut self.names)
            .map_or(Digest::IMPOSSIBLE, |state| {
                state.digest(stored.updated_at_us)
            });
        let difference = if stored.fence < model.fence {
            Difference::Missing
        } else if stored.fence > model.fence || digest != model.state.digest(model.updated_at_us) {
            Difference::Mismatched
        } else {
            return;
        };
        let model = model.show(&self.names);
        report.differ(in_row(difference, stored.row, shard, model));
    }

    fn compare_letters(&self, mut letters: Letters, report: &mut Report) {
        report.dead_letters = letters.count();
        for refused in &self.refused {
            let (partition, offset) = (refused.partition, refused.offset);
            let (key, value) = (refused.key.as_deref(), refused.value.as_deref());
            let mut found = letters.take(partition, offset, key, value);
            if !found.remove(refused.reason) {
                report.letter_missing(partition, offset, refused.reason);
            }
            for reason in found.iter() {
                report.letter_unexpected(partition, offset, reason);
            }
        }
        for (partition, offset, reasons) in letters.unclaimed() {
            for reason in reasons.iter() {
                report.letter_unexpected(partition, offset, reason);
            }
        }
    }
}

impl Row {
    fn show(&self, names: &Names) -> String {
        show(self.fence, self.updated_at_us, &self.state.show(names))
    }
}

fn in_row(difference: Difference, row: RowKey, shard: ShardIndex, model: String) -> Example {
    Example {
        difference,
        row: Some((row, shard)),
        partition: None,
        offset: None,
        model,
        found: String::new(),
    }
}

#[cfg(test)]
#[path = "follow_tests.rs"]
mod tests;
