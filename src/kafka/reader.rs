//! Reads spans of partitions outside any group: for verification and for looking into the stream. It never joins a group
//! and never commits, and it ends where its spans end.

use super::bootstrap::Bootstrap;
use super::client::{Context, KafkaError, client_config, passes, propose};
use super::native;
use crate::clock;
use crate::config::checked::Kafka;
use crate::ids::Partition;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError as NativeError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message as _, Timestamp as NativeTimestamp};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::{collections::HashMap, time::Duration};

/// How long a question about a partition's end may take.
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// What a fetch brings of each partition for those who want few records. A larger record comes all the same.
const FEW_BYTES: u32 = 64 << 10;

/// What to read of a partition: from `start` on, below `end`. `start >= end` reads nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The partition.
    pub partition: Partition,
    /// The first offset; the record must still be there, or a later one.
    pub start: i64,
    /// The first offset that is not read. Above the partition's end it is waited for; [`NO_END`](Self::NO_END) follows the
    /// partition as it grows.
    pub end: i64,
}

impl Span {
    /// An end that is never reached.
    pub const NO_END: i64 = i64::MAX;
}

/// Why there is no next message.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReadError {
    /// Again, or give up: nothing came within the timeout.
    #[error(
        "no record came from topic {topic} in {waited:?}; {unfinished} partitions are not at their end{why}"
    )]
    Quiet {
        /// The topic.
        topic: String,
        /// How long was waited.
        waited: Duration,
        /// Partitions that are not read to their end.
        unfinished: usize,
        /// What the client complained of meanwhile, after ": "; or nothing.
        why: String,
    },
    /// Begin later: the records at the start of a span are gone, by retention or truncation.
    #[error(
        "records of topic {topic} that should be read are gone: an offset is outside of its partition's log"
    )]
    Gone {
        /// The topic.
        topic: String,
    },
    /// Stop.
    #[error(transparent)]
    Kafka(#[from] KafkaError),
}

/// A record, borrowed from librdkafka.
pub struct Message<'a>(BorrowedMessage<'a>);

/// Whose clock stamped a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timestamp {
    /// Nobody's.
    None,
    /// The producer's. Milliseconds since 1970.
    Create(i64),
    /// The broker's. Milliseconds since 1970.
    LogAppend(i64),
}

impl Timestamp {
    /// Milliseconds since 1970, whoever stamped it.
    pub fn milliseconds(self) -> Option<i64> {
        match self {
            Self::None => None,
            Self::Create(milliseconds) | Self::LogAppend(milliseconds) => Some(milliseconds),
        }
    }
}

impl Message<'_> {
    /// The partition that it was read from.
    pub fn partition(&self) -> Partition {
        Partition(self.0.partition())
    }

    /// Its offset there.
    pub fn offset(&self) -> i64 {
        self.0.offset()
    }

    /// The leader epoch of its record batch; -1 where the format has none.
    pub fn leader_epoch(&self) -> i32 {
        native::leader_epoch(&self.0)
    }

    /// The id of the broker that it came from; -1 if nobody knows.
    pub fn broker(&self) -> i32 {
        native::broker(&self.0)
    }

    /// When it was stamped, and by whom.
    pub fn timestamp(&self) -> Timestamp {
        match self.0.timestamp() {
            NativeTimestamp::NotAvailable => Timestamp::None,
            NativeTimestamp::CreateTime(milliseconds) => Timestamp::Create(milliseconds),
            NativeTimestamp::LogAppendTime(milliseconds) => Timestamp::LogAppend(milliseconds),
        }
    }

    /// Its key; `None` for null.
    pub fn key(&self) -> Option<&[u8]> {
        self.0.key()
    }

    /// Its value; `None` for null.
    pub fn value(&self) -> Option<&[u8]> {
        self.0.payload()
    }

    /// Names and values of its headers, in order. One whose name is not UTF-8, which Kafka's protocol forbids, is left out.
    pub fn headers(&self) -> impl Iterator<Item = (&str, Option<&[u8]>)> {
        native::headers_of(&self.0)
            .filter_map(|(name, value)| Some((str::from_utf8(name).ok()?, value)))
    }
}

/// Reads spans of a topic's partitions, interleaved as they come, each in order.
pub struct Reader {
    source: Source,
    unfinished: Unfinished,
}

/// Spans that are not read to their end; `start` is the next offset that may come.
type Unfinished = HashMap<Partition, Span>;

/// Where records come from. Apart from what is unfinished, so that a record may stay borrowed while that changes.
struct Source {
    kafka: Kafka,
    topic: String,
    consumer: BaseConsumer<Context>,
    bootstrap: Bootstrap,
}

impl Reader {
    /// Begins to read. Spans must be of different partitions that exist.
    pub fn open(kafka: &Kafka, topic: &str, spans: &[Span]) -> Result<Self, KafkaError> {
        Self::start(kafka, topic, spans, settings(kafka))
    }

    /// The same for a caller that takes only the first few records of each partition: fetches little at a time.
    pub fn open_for_few(kafka: &Kafka, topic: &str, spans: &[Span]) -> Result<Self, KafkaError> {
        let mut config = settings(kafka);
        config.set("fetch.message.max.bytes", FEW_BYTES.to_string());
        Self::start(kafka, topic, spans, config)
    }

    /// Goes on with other spans, by the same client; what is left of the earlier ones is not read any more.
    pub fn turn_to(&mut self, spans: &[Span]) -> Result<(), KafkaError> {
        let left: Vec<Partition> = self.unfinished.keys().copied().collect();
        for partition in left {
            self.leave(partition);
        }
        self.unfinished = self.source.assign(spans)?;
        Ok(())
    }

    fn start(
        kafka: &Kafka,
        topic: &str,
        spans: &[Span],
        config: ClientConfig,
    ) -> Result<Self, KafkaError> {
        let error = |error| KafkaError::of(kafka, &doing(topic), &error, None);
        let consumer: BaseConsumer<Context> = config
            .create_with_context(Context::default())
            .map_err(error)?;
        let source = Source {
            kafka: kafka.clone(),
            topic: topic.to_owned(),
            consumer,
            bootstrap: Bootstrap::of(kafka),
        };
        let unfinished = source.assign(spans)?;
        Ok(Self { source, unfinished })
    }

    /// The next record of any partition; `None` once all spans are read. Offsets that hold no record, at the end too, are
    /// passed over.
    pub fn next(&mut self, timeout: Duration) -> Option<Result<Message<'_>, ReadError>> {
        let Self { source, unfinished } = self;
        let deadline = clock::now() + timeout;
        while !unfinished.is_empty() {
            let left = deadline.saturating_duration_since(clock::now());
            let outcome = match source.consumer.poll(left) {
                Some(Ok(message)) if source.is_within(unfinished, &message) => {
                    return Some(Ok(Message(message)));
                }
                Some(Err(error)) => source.judge(unfinished, &error),
                None => {
                    source.bootstrap.keep(source.consumer.client());
                    match left.is_zero() {
                        true => Err(source.quiet(unfinished, timeout)),
                        false => Ok(()),
                    }
                }
                Some(Ok(_)) => Ok(()),
            };
            if let Err(error) = outcome {
                return Some(Err(error));
            }
        }
        None
    }

    /// No more of this partition: its span counts as read, and nothing of it is fetched any longer.
    pub fn leave(&mut self, partition: Partition) {
        self.source.leave(&mut self.unfinished, partition);
    }
}

impl Source {
    /// Begins to fetch the spans; those that have something to read.
    fn assign(&self, spans: &[Span]) -> Result<Unfinished, KafkaError> {
        let error = |error| KafkaError::of(&self.kafka, &doing(&self.topic), &error, None);
        let unfinished: Unfinished = spans
            .iter()
            .filter(|span| span.start < span.end)
            .map(|span| (span.partition, *span))
            .collect();
        let mut list = TopicPartitionList::with_capacity(unfinished.len());
        for span in unfinished.values() {
            list.add_partition_offset(&self.topic, span.partition.0, Offset::Offset(span.start))
                .map_err(error)?;
        }
        self.consumer.incremental_assign(&list).map_err(error)?;
        Ok(unfinished)
    }

    /// Whether the record is of an unfinished span. It moves that span on, and ends it with its last record or the first
    /// one behind it.
    fn is_within(&self, unfinished: &mut Unfinished, message: &BorrowedMessage<'_>) -> bool {
        let partition = Partition(message.partition());
        let Some(span) = unfinished.get_mut(&partition) else {
            return false;
        };
        let within = message.offset() < span.end;
        span.start = message.offset() + 1;
        if span.start >= span.end {
            self.leave(unfinished, partition);
        }
        within
    }

    fn leave(&self, unfinished: &mut Unfinished, partition: Partition) {
        if unfinished.remove(&partition).is_none() {
            return;
        }
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_partition(&self.topic, partition.0);
        if let Err(error) = self.consumer.incremental_unassign(&list) {
            // Its records are passed over anyway.
            tracing::debug!(%partition, error = %error, "a partition that was read goes on being fetched");
        }
    }

    fn judge(&self, unfinished: &mut Unfinished, error: &NativeError) -> Result<(), ReadError> {
        match (error, error.rdkafka_error_code()) {
            (NativeError::PartitionEOF(partition), _) => {
                self.reached_end(unfinished, Partition(*partition))
            }
            (_, Some(RDKafkaErrorCode::AutoOffsetReset)) => Err(ReadError::Gone {
                topic: self.topic.clone(),
            }),
            (_, Some(code)) if passes(code) => Ok(()),
            _ => Err(self.error(error).into()),
        }
    }

    /// The log ends here for now. What lies between the last record and the span's end may be gaps, or not written yet.
    fn reached_end(
        &self,
        unfinished: &mut Unfinished,
        partition: Partition,
    ) -> Result<(), ReadError> {
        let Some(span) = unfinished.get(&partition) else {
            return Ok(());
        };
        if span.end == Span::NO_END {
            return Ok(());
        }
        let watermarks = self
            .consumer
            .fetch_watermarks(&self.topic, partition.0, END_TIMEOUT);
        let (_, end) = watermarks.map_err(|error| self.error(&error))?;
        if end >= span.end {
            self.leave(unfinished, partition);
        }
        Ok(())
    }

    fn error(&self, error: &NativeError) -> KafkaError {
        KafkaError::of(
            &self.kafka,
            &doing(&self.topic),
            error,
            self.consumer.context().take_last_error(),
        )
    }

    fn quiet(&self, unfinished: &Unfinished, waited: Duration) -> ReadError {
        let why = self
            .consumer
            .context()
            .take_last_error()
            .map(|last| format!(": {}", last.reason))
            .unwrap_or_default();
        ReadError::Quiet {
            topic: self.topic.clone(),
            waited,
            unfinished: unfinished.len(),
            why,
        }
    }
}

fn doing(topic: &str) -> String {
    format!("read topic {topic}")
}

fn settings(kafka: &Kafka) -> ClientConfig {
    let mut config = client_config(kafka, "millpond-reader");
    // The default is a second for each time that a queue is full.
    propose(&mut config, "fetch.queue.backoff.ms", "5");
    propose(&mut config, "check.crcs", "true");
    // Never subscribed with and never committed to; librdkafka wants a group before it assigns partitions, and the
    // configured one needs no further rights.
    config.set("group.id", &kafka.group);
    for (key, value) in [
        ("enable.auto.commit", "false"),
        ("enable.auto.offset.store", "false"),
        ("auto.offset.reset", "error"),
        ("isolation.level", "read_committed"),
        ("enable.partition.eof", "true"),
    ] {
        config.set(key, value);
    }
    config
}
