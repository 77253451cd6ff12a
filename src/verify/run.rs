//! Runs a verification: asks Kafka how far everything is, then reads the dead letters, the rows and the log, in this order.

use super::{
    audit::{Audit, Extent, Message, NewerIncarnation},
    children,
    entry::show,
    letters::{Kind, Letters},
    report::{Difference, Example, Report},
    rules::Skips,
    state::{Names, State},
    stored::{SUBSCRIPTION, Selection, Stored, StoredError, read},
    table,
};
use crate::{
    clock,
    config::Config,
    ids::{Partition, RowKey, ShardIndex},
    kafka::{
        KafkaError,
        admin::Admin,
        reader::{ReadError, Reader, Span},
    },
};
use std::time::Duration;

/// How long the brokers may take for an answer.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long no record may come before the end is reached.
pub(super) const RECORD_TIMEOUT: Duration = Duration::from_secs(60);

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// Stop the consumer and try again.
    #[error(
        "group {group} has {members} members; stop them first: rows that change while they are read prove nothing"
    )]
    Busy {
        /// The group.
        group: String,
        /// How many members it has.
        members: usize,
    },
    /// The configuration is not the one that the rows were written under.
    #[error(
        "row app_id={} subscription_id={} was written under incarnation {found}, but kafka.incarnation is {configured}; \
         set it to {found} if the topic is that one",
        row.app, row.subscription
    )]
    NewerIncarnation {
        /// The row.
        row: RowKey,
        /// The row's incarnation.
        found: i32,
        /// The configured one.
        configured: i32,
    },
    /// The configuration is not the topic's.
    #[error("topic {topic} does not exist; `millpond init` makes it")]
    NoTopic {
        /// Its name.
        topic: String,
    },
    /// The configuration is not the topic's.
    #[error(
        "topic {topic} has {found} partitions, but kafka.partitions is {configured}; set it to {found}"
    )]
    Partitions {
        /// Its name.
        topic: String,
        /// How many it has.
        found: u32,
        /// How many it should have.
        configured: u32,
    },
    /// Only a topic that is read from its first record on can be followed.
    #[error(
        "partition {partition} of topic {topic} went on at offset {found}, but {expected} was the next one: what lies between \
         was dropped before it was read, so nothing is proven"
    )]
    Lost {
        /// The topic.
        topic: String,
        /// The partition.
        partition: Partition,
        /// The next offset to be read.
        expected: i64,
        /// The one that came.
        found: i64,
    },
    /// The consumer has not finished what was read.
    #[error(
        "group {group} has committed {committed} of partition {partition}, which was read up to {read}; let it catch up first"
    )]
    Behind {
        /// The group.
        group: String,
        /// The partition.
        partition: Partition,
        /// The committed offset; 0 for none.
        committed: i64,
        /// The next offset to be read.
        read: i64,
    },
    /// Nobody knows what it would skip.
    #[error("a record of topic {topic} can't be read, about the {offset}th: {why}")]
    Rules {
        /// The topic.
        topic: String,
        /// Its place.
        offset: i64,
        /// What is wrong.
        why: String,
    },
    /// What is followed was judged without rules.
    #[error(
        "topic {topic} has rules; what a rule skips can't be judged here. Of subscriptions `millpond verify` can; of other tables, \
         and while a topic is followed, go without rules"
    )]
    HasRules {
        /// The rules topic.
        topic: String,
    },
    /// Kafka is away or refuses.
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    /// The log could not be read to its end.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A shard could not be read.
    #[error(transparent)]
    Stored(#[from] StoredError),
}

/// Compares all rows of all shards with the log. A difference is no error: it is in the report.
///
/// Memory: some 200 bytes for each row at the most, and 100 to 400 more for each that is between its first message and its
/// fence.
pub fn verify(config: &Config) -> Result<Report, VerifyError> {
    if let Some(table) = &config.table {
        return table::verify(config, table);
    }
    let began = clock::now();
    let admin = Admin::connect(&config.kafka)?;
    refuse_while_running(&admin, config)?;

    let topic = Topic::look(&admin, &config.kafka.topic)?;
    topic.require_partitions(config)?;
    let extents = extents(&admin, config, &topic)?;
    let (letters, unreadable) = read_letters(&admin, config)?;
    let skips = Skips::read(&admin, config)?;
    let mut audit = Audit::new(config, extents, letters).skipping(skips);
    for (partition, offset) in unreadable {
        audit.unreadable_letter(partition, offset);
    }
    read_rows(config, &mut audit)?;
    read_log(config, &topic, &mut audit)?;

    let (mut report, mut names) = audit.finish();
    children::compare(config, &mut report)?;
    show_found(config, &mut report.examples, &mut names)?;
    refuse_while_running(&admin, config)?;
    report.ok = report.differences() == 0 && report.rows_checked > 0;
    report.seconds = began.elapsed().as_secs_f64();
    Ok(report)
}

pub(super) fn refuse_while_running(admin: &Admin, config: &Config) -> Result<(), VerifyError> {
    let group = config.kafka.group.clone();
    match admin.group_members(&group, ANSWER_TIMEOUT)? {
        0 => Ok(()),
        members => Err(VerifyError::Busy { group, members }),
    }
}

/// What a topic holds now.
pub(super) struct Topic {
    /// Its name.
    pub name: String,
    /// How many there are.
    pub partitions: u32,
    /// All that is in them.
    pub spans: Vec<Span>,
}

impl Topic {
    pub fn require_partitions(&self, config: &Config) -> Result<(), VerifyError> {
        let (found, configured) = (self.partitions, config.partitioner.partitions());
        let topic = self.name.clone();
        match found == configured {
            true => Ok(()),
            false => Err(VerifyError::Partitions {
                topic,
                found,
                configured,
            }),
        }
    }

    pub fn look(admin: &Admin, name: &str) -> Result<Self, VerifyError> {
        let partitions = admin.topic_partitions(name, ANSWER_TIMEOUT)?;
        let partitions = partitions.ok_or_else(|| VerifyError::NoTopic {
            topic: name.to_owned(),
        })?;
        let starts = admin.start_offsets(name, ANSWER_TIMEOUT)?;
        let ends = admin.end_offsets(name, ANSWER_TIMEOUT)?;
        let spans = (0..).map(Partition).zip(starts.into_iter().zip(ends));
        Ok(Self {
            name: name.to_owned(),
            partitions,
            spans: spans
                .map(|(partition, (start, end))| Span {
                    partition,
                    start,
                    end,
                })
                .collect(),
        })
    }
}

pub(super) fn extents(
    admin: &Admin,
    config: &Config,
    topic: &Topic,
) -> Result<Vec<Extent>, VerifyError> {
    let committed = admin.committed_offsets(&config.kafka.group, &topic.name, ANSWER_TIMEOUT)?;
    let extent = |(span, committed): (&Span, Option<i64>)| Extent {
        start: span.start,
        committed: committed.unwrap_or(0),
    };
    Ok(topic.spans.iter().zip(committed).map(extent).collect())
}

/// All dead letters, and where those lie that don't say where they come from.
pub(super) fn read_letters(
    admin: &Admin,
    config: &Config,
) -> Result<(Letters, Vec<(Partition, i64)>), VerifyError> {
    let topic = Topic::look(admin, &config.kafka.dead_letter_topic)?;
    let mut reader = Reader::open(&config.kafka, &topic.name, &topic.spans)?;
    let (mut letters, mut unreadable) = (Letters::default(), Vec::new());
    while let Some(letter) = reader.next(RECORD_TIMEOUT) {
        let letter = letter?;
        let (origin, group) = (&config.kafka.topic, &config.kafka.group);
        match letters.add(
            origin,
            group,
            letter.headers(),
            letter.key(),
            letter.value(),
        ) {
            Kind::Ours | Kind::Foreign => {}
            Kind::Unreadable => unreadable.push((letter.partition(), letter.offset())),
        }
    }
    Ok((letters, unreadable))
}

fn read_rows(config: &Config, audit: &mut Audit) -> Result<(), VerifyError> {
    for (index, shard) in config.shards.iter().enumerate() {
        let mut newer = None;
        read(&shard.postgres, &SUBSCRIPTION, &Selection::All, |stored| {
            if let Err(found) = audit.row(ShardIndex(index), stored) {
                newer.get_or_insert(found);
            }
        })?;
        if let Some(NewerIncarnation { row, incarnation }) = newer {
            let configured = config.kafka.incarnation;
            return Err(VerifyError::NewerIncarnation {
                row,
                found: incarnation,
                configured,
            });
        }
    }
    Ok(())
}

fn read_log(config: &Config, topic: &Topic, audit: &mut Audit) -> Result<(), VerifyError> {
    let mut reader = Reader::open(&config.kafka, &topic.name, &topic.spans)?;
    while let Some(message) = reader.next(RECORD_TIMEOUT) {
        let message = message?;
        audit.message(&Message {
            partition: message.partition(),
            offset: message.offset(),
            leader_epoch: message.leader_epoch(),
            timestamp_ms: message.timestamp().milliseconds().unwrap_or(-1),
            key: message.key(),
            value: message.value(),
        });
    }
    Ok(())
}

/// Reads the rows of the examples once more, to show what Postgres has: the audit kept only fingerprints.
pub(super) fn show_found(
    config: &Config,
    examples: &mut [Example],
    names: &mut Names,
) -> Result<(), VerifyError> {
    for (index, shard) in config.shards.iter().enumerate() {
        let here = |example: &Example| {
            let of_row = example.difference != Difference::Children;
            let row = example.row.filter(|_| of_row);
            row.filter(|(_, shard)| *shard == ShardIndex(index))
        };
        let keys: Vec<RowKey> = examples
            .iter()
            .filter_map(here)
            .map(|(row, _)| row)
            .collect();
        if keys.is_empty() {
            continue;
        }
        let place = format!("on shard {}", shard.name);
        for example in examples
            .iter_mut()
            .filter(|example| here(example).is_some())
        {
            example.found = format!("no row {place}");
        }
        read(
            &shard.postgres,
            &SUBSCRIPTION,
            &Selection::Keys(&keys),
            |stored| {
                let line = show_stored(stored, names);
                for example in examples.iter_mut() {
                    if here(example).is_some_and(|(row, _)| row == stored.row) {
                        example.found = format!("{place}: {line}");
                    }
                }
            },
        )?;
    }
    Ok(())
}

fn show_stored(stored: &Stored<'_>, names: &mut Names) -> String {
    let state = State::of(&stored.columns, names).map_or_else(|why| why, |state| state.show(names));
    show(stored.fence, stored.updated_at_us, &state)
}
