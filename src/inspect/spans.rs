//! Where to begin and where to end in each partition, from what kcat's `-o` knows.

use crate::config::checked::{Kafka, Start};
use crate::ids::Partition;
use crate::kafka::KafkaError;
use crate::kafka::admin::Admin;
use crate::kafka::reader::Span;
use std::time::Duration;

/// How long each question to the brokers may take.
const ANSWER: Duration = Duration::from_secs(15);

/// Where a partition is begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// At its oldest record.
    Beginning,
    /// At its end.
    End,
    /// At what the group has committed; where it never did, where the consumer would begin.
    Stored,
    /// At that offset.
    Offset(i64),
    /// So many before its end.
    Last(i64),
    /// At the first record of that time or a later one, in milliseconds since 1970.
    Time(i64),
}

/// What to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// Where to begin.
    pub from: From,
    /// Where to end: before the first record of that time or a later one, and at the partition's end at the latest.
    pub until_ms: Option<i64>,
    /// Whether to end where the partition ends now.
    pub to_end: bool,
    /// Only these partitions; empty for all.
    pub partitions: Vec<Partition>,
}

/// Why there are no spans.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SpansError {
    /// The brokers.
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    /// There is no such partition.
    #[error("topic {topic} has no partition {partition}; it has 0 to {last}")]
    NoPartition {
        /// The topic.
        topic: String,
        /// What was asked for.
        partition: Partition,
        /// The last that there is.
        last: usize,
    },
}

/// The spans, one for each partition that is read. Offsets outside of the log begin at its nearest end.
pub fn spans(admin: &Admin, kafka: &Kafka, range: &Range) -> Result<Vec<Span>, SpansError> {
    let topic = &kafka.topic;
    let ends = admin.end_offsets(topic, ANSWER)?;
    let starts = admin.start_offsets(topic, ANSWER)?;
    let begins = begins(admin, kafka, range.from, &starts, &ends)?;
    let until = match range.until_ms {
        Some(until_ms) => Some(admin.offsets_at(topic, until_ms.max(0), ANSWER)?),
        None => None,
    };
    let span = |at: usize| Span {
        partition: Partition(i32::try_from(at).unwrap_or(i32::MAX)),
        start: begins[at].clamp(starts[at], ends[at]),
        end: match &until {
            Some(until) => until[at].min(ends[at]),
            None if range.to_end => ends[at],
            None => Span::NO_END,
        },
    };
    if range.partitions.is_empty() {
        return Ok((0..ends.len()).map(span).collect());
    }
    let mut partitions = range.partitions.clone();
    partitions.sort_unstable();
    partitions.dedup();
    let wanted = partitions.into_iter().map(|partition| {
        let at = usize::try_from(partition.0).ok();
        let at = at.filter(|at| *at < ends.len());
        at.map(span).ok_or_else(|| SpansError::NoPartition {
            topic: topic.clone(),
            partition,
            last: ends.len().saturating_sub(1),
        })
    });
    wanted.collect()
}

fn begins(
    admin: &Admin,
    kafka: &Kafka,
    from: From,
    starts: &[i64],
    ends: &[i64],
) -> Result<Vec<i64>, KafkaError> {
    let topic = &kafka.topic;
    Ok(match from {
        From::Beginning => starts.to_vec(),
        From::End => ends.to_vec(),
        From::Offset(offset) => vec![offset; ends.len()],
        From::Last(count) => ends.iter().map(|end| end.saturating_sub(count)).collect(),
        From::Time(at_ms) => admin.offsets_at(topic, at_ms.max(0), ANSWER)?,
        From::Stored => {
            let never = match kafka.start {
                Start::Earliest => starts,
                Start::Latest => ends,
            };
            let committed = admin.committed_offsets(&kafka.group, topic, ANSWER)?;
            let zipped = committed.into_iter().zip(never);
            zipped.map(|(own, never)| own.unwrap_or(*never)).collect()
        }
    })
}
