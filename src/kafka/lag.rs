//! How far the group is behind, asked from outside: how many messages it has not committed, and how old the first of them is.

use super::admin::Admin;
use super::client::KafkaError;
use super::reader::{ReadError, Reader, Span};
use crate::clock;
use crate::config::checked::Kafka;
use crate::ids::Partition;
use std::collections::HashMap;
use std::ops::Range;
use std::time::Duration;

/// One partition, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionLag {
    /// What the group has committed; `None` if it never did.
    pub committed: Option<i64>,
    /// The oldest record that is still there.
    pub start: i64,
    /// Where the next record will be.
    pub end: i64,
    /// The Kafka timestamp of the first record that is not committed, in milliseconds since 1970; `None` without such a
    /// record, and where it was not found in time.
    pub first_ms: Option<i64>,
}

/// What is known of a partition of which nothing was ever committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Uncommitted {
    /// Nothing.
    Unknown,
    /// All that it holds is still to be applied.
    FromStart,
}

/// How long a look may take.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For each question to the brokers.
    pub answer: Duration,
    /// For the timestamps of first records, of all partitions together.
    pub timestamps: Duration,
}

impl PartitionLag {
    /// Messages that are not committed.
    pub fn lag(&self, uncommitted: Uncommitted) -> Option<i64> {
        let begin = self.begin(uncommitted)?;
        Some((self.end - begin).max(0))
    }

    /// How old the first message is that is not committed: 0 without one, or for one from the future; `None` if nobody knows.
    pub fn time_lag(&self, uncommitted: Uncommitted, now_ms: i64) -> Option<Duration> {
        match self.lag(uncommitted) {
            Some(0) => Some(Duration::ZERO),
            _ => {
                let age_ms = u64::try_from(now_ms - self.first_ms?).unwrap_or(0);
                Some(Duration::from_millis(age_ms))
            }
        }
    }

    /// What is still there of what is not committed; `None` without such a record, and if nobody knows.
    pub fn behind(&self, uncommitted: Uncommitted) -> Option<Range<i64>> {
        let begin = self.begin(uncommitted)?.max(self.start);
        (begin < self.end).then_some(begin..self.end)
    }

    fn begin(&self, uncommitted: Uncommitted) -> Option<i64> {
        match (self.committed, uncommitted) {
            (None, Uncommitted::Unknown) => None,
            (None, Uncommitted::FromStart) => Some(self.start),
            (Some(committed), _) => Some(committed),
        }
    }
}

/// Looks at the configured topic and group, any number of times by the same two clients.
pub struct Looker {
    kafka: Kafka,
    admin: Admin,
    /// Begun when there is first a lag, and anew after an error.
    reader: Option<Reader>,
}

impl Looker {
    /// Waits until a broker answered, as [`Admin::connect`] does.
    pub fn connect(kafka: &Kafka) -> Result<Self, KafkaError> {
        Ok(Self {
            kafka: kafka.clone(),
            admin: Admin::connect(kafka)?,
            reader: None,
        })
    }

    /// Asks about every partition.
    pub fn look(
        &mut self,
        uncommitted: Uncommitted,
        patience: Patience,
    ) -> Result<Vec<PartitionLag>, KafkaError> {
        let kafka = &self.kafka;
        let mut lags = offsets(&self.admin, &kafka.group, &kafka.topic, patience.answer)?;
        let span = |(partition, lag): (i32, &PartitionLag)| {
            let behind = lag.behind(uncommitted)?;
            Some(Span {
                partition: Partition(partition),
                start: behind.start,
                end: behind.end,
            })
        };
        let behind: Vec<Span> = (0..).zip(&lags).filter_map(span).collect();
        if behind.is_empty() {
            return Ok(lags);
        }
        let mut reader = match self.reader.take() {
            Some(mut reader) => {
                reader.turn_to(&behind)?;
                reader
            }
            None => Reader::open_for_few(kafka, &kafka.topic, &behind)?,
        };
        for (partition, first_ms) in first_timestamps(&mut reader, patience.timestamps)? {
            lags[partition.index()].first_ms = Some(first_ms);
        }
        // Nothing is fetched until the next look.
        reader.turn_to(&[])?;
        self.reader = Some(reader);
        Ok(lags)
    }
}

/// Asks about every partition of a topic, without timestamps.
pub fn offsets(
    admin: &Admin,
    group: &str,
    topic: &str,
    timeout: Duration,
) -> Result<Vec<PartitionLag>, KafkaError> {
    // Committed first: what is committed meanwhile can only make the lag look larger, never negative.
    let committed = admin.committed_offsets(group, topic, timeout)?;
    let ends = admin.end_offsets(topic, timeout)?;
    let starts = admin.start_offsets(topic, timeout)?;
    let lag = |((committed, start), end)| PartitionLag {
        committed,
        start,
        end,
        first_ms: None,
    };
    let zipped = committed.into_iter().zip(starts).zip(ends);
    Ok(zipped.map(lag).collect())
}

/// The Kafka timestamp of the first record of each span, as far as they are found in time.
fn first_timestamps(
    reader: &mut Reader,
    within: Duration,
) -> Result<HashMap<Partition, i64>, KafkaError> {
    let mut found = HashMap::new();
    let deadline = clock::now() + within;
    loop {
        let message = match reader.next(deadline.saturating_duration_since(clock::now())) {
            None | Some(Err(ReadError::Quiet { .. })) => return Ok(found),
            // Retention was faster: its partition stays unknown, the others go on.
            Some(Err(ReadError::Gone { .. })) => continue,
            Some(Err(ReadError::Kafka(error))) => return Err(error),
            Some(Ok(message)) => message,
        };
        let partition = message.partition();
        if let Some(first_ms) = message.timestamp().milliseconds() {
            found.insert(partition, first_ms);
        }
        reader.leave(partition);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(committed: Option<i64>, first_ms: Option<i64>) -> PartitionLag {
        PartitionLag {
            committed,
            start: 30,
            end: 100,
            first_ms,
        }
    }

    #[test]
    fn a_partition_that_was_never_committed_is_unknown_or_all_behind() {
        let lag = |committed, uncommitted| partition(committed, None).lag(uncommitted);
        assert_eq!(lag(None, Uncommitted::Unknown), None);
        assert_eq!(lag(None, Uncommitted::FromStart), Some(70));
        assert_eq!(lag(Some(90), Uncommitted::FromStart), Some(10));
        assert_eq!(lag(Some(101), Uncommitted::Unknown), Some(0));
    }

    #[test]
    fn time_lag_is_the_age_of_the_first_message_and_0_without_one() {
        let time_lag = |committed, first_ms| {
            partition(committed, first_ms).time_lag(Uncommitted::FromStart, 5_000)
        };
        assert_eq!(time_lag(Some(100), None), Some(Duration::ZERO));
        assert_eq!(
            time_lag(Some(99), Some(3_500)),
            Some(Duration::from_millis(1_500))
        );
        assert_eq!(time_lag(Some(99), Some(6_000)), Some(Duration::ZERO));
        assert_eq!(time_lag(Some(99), None), None);
    }
}
