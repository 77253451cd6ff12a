//! The log of some partitions, read along: which messages wait for their row, and which for a letter.

use millpond::config::Config;
use millpond::ids::{AppId, Partition, Position, RowKey, SubscriptionId};
use millpond::kafka::KafkaError;
use millpond::kafka::reader::{ReadError, Reader, Span};
use serde_json::Value;
use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant};
use xxhash_rust::xxh3::xxh3_64;

/// How long at most one turn reads, so that rows are looked at in between.
const TURN: Duration = Duration::from_millis(500);

/// A message that was not compared yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    pub partition: i32,
    pub position: Position,
    /// `None`: it makes no row whatever the database says, so it must become a dead letter.
    pub row: Option<RowKey>,
}

/// What was read and not compared.
pub struct Log {
    reader: Reader,
    config: Config,
    one_row_in: u64,
    first: i32,
    /// By partition, from `first` on; by offset.
    waiting: Vec<BTreeMap<i64, Waiting>>,
}

impl Log {
    /// Begins at the first record of each of these partitions.
    pub fn open(
        config: &Config,
        partitions: Range<i32>,
        one_row_in: u64,
    ) -> Result<Self, KafkaError> {
        let span = |partition| Span {
            partition: Partition(partition),
            start: 0,
            end: Span::NO_END,
        };
        let spans: Vec<Span> = partitions.clone().map(span).collect();
        Ok(Self {
            reader: Reader::open(&config.kafka, &config.kafka.topic, &spans)?,
            config: config.clone(),
            one_row_in,
            first: partitions.start,
            waiting: spans.iter().map(|_| BTreeMap::new()).collect(),
        })
    }

    /// Takes in what there is by now. `Err`: the log can't be followed any more.
    pub fn read_on(&mut self) -> Result<(), ReadError> {
        let until = Instant::now() + TURN;
        while Instant::now() < until {
            let message = match self.reader.next(Duration::ZERO) {
                None | Some(Err(ReadError::Quiet { .. })) => return Ok(()),
                Some(message) => message?,
            };
            let partition = message.partition();
            let waiting = Waiting {
                partition: partition.0,
                position: Position {
                    incarnation: self.config.kafka.incarnation,
                    leader_epoch: message.leader_epoch(),
                    offset: message.offset(),
                },
                row: row_of(&self.config, partition, message.key(), message.value()),
            };
            let is_in_sample = waiting
                .row
                .is_none_or(|row| xxh3_64(&row.subscription.0).is_multiple_of(self.one_row_in));
            if is_in_sample {
                let index = usize::try_from(partition.0 - self.first).unwrap();
                self.waiting[index].insert(waiting.position.offset, waiting);
            }
        }
        Ok(())
    }

    /// Takes out what lies below the committed offsets.
    pub fn take_committed(&mut self, committed: &[i64]) -> Vec<Waiting> {
        let mut taken = Vec::new();
        for (partition, waiting) in (self.first..).zip(&mut self.waiting) {
            let committed = committed[usize::try_from(partition).unwrap()];
            let above = waiting.split_off(&committed);
            taken.extend(std::mem::replace(waiting, above).into_values());
        }
        taken
    }

    /// Puts back what could not be compared now.
    pub fn put_back(&mut self, taken: Vec<Waiting>) {
        for waiting in taken {
            let index = usize::try_from(waiting.partition - self.first).unwrap();
            self.waiting[index].insert(waiting.position.offset, waiting);
        }
    }
}

/// The row that a message is for, if it names one and came to its partition. Deliberately less strict than the consumer:
/// what is wrong with the rest of a message shows in the dead letters.
fn row_of(
    config: &Config,
    partition: Partition,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
) -> Option<RowKey> {
    let subscription = SubscriptionId::parse(key?)?;
    let value: Value = serde_json::from_slice(value?).ok()?;
    let app = AppId::parse(value["app_id"].as_str()?.as_bytes())?;
    let own = SubscriptionId::parse(value["subscription_id"].as_str()?.as_bytes())?;
    let is_here = own == subscription && config.partitioner.partition_of(app) == partition;
    is_here.then_some(RowKey { app, subscription })
}
