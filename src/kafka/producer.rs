//! The idempotent producer. A record is durable only once its delivery was reported; the report comes on the thread that
//! polls, together with the value that the caller sent along.
//!
//! The partition is always the caller's: mixing in librdkafka's own partitioner would break the order of a row.

use super::bootstrap::Bootstrap;
use super::client::{self, KafkaError, client_config, propose, topic_leaders, topic_partitions};
use crate::config::checked::Kafka;
use crate::ids::Partition;
use crate::sync::{AtomicUsize, Ordering};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError as NativeError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext};
use std::time::Duration;

/// The largest record: the largest update (16 MiB) and room for headers.
const RECORD_BYTES_MAX: usize = (16 << 20) + (1 << 20);

/// Enough to take what the client has complained of.
const COMPLAINTS_POLL: Duration = Duration::from_millis(10);

/// How a producer trades delay and memory for rate. The user's own settings beat `linger` and `compression`.
#[derive(Clone, Copy, Debug)]
pub struct Tuning {
    /// How long a record waits for others to share its batch.
    pub linger: Duration,
    /// How batches are compressed.
    pub compression: Compression,
    /// How long to try to deliver a record before its failure is reported.
    pub delivery_timeout: Duration,
    /// Records that may wait for delivery. Bounds memory while the brokers are slow or away.
    pub queue_records_max: u32,
    /// Their bytes, for the same reason.
    pub queue_bytes_max: u64,
}

/// A codec of Kafka.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// As they are.
    None,
    /// Cheap.
    Lz4,
    /// Small.
    Zstd,
}

/// A record to send. `None` is Kafka's null.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// The topic.
    pub topic: &'a str,
    /// The partition; it must exist.
    pub partition: Partition,
    /// The key.
    pub key: Option<&'a [u8]>,
    /// The value.
    pub value: Option<&'a [u8]>,
    /// Names and values of the headers, in order.
    pub headers: &'a [(&'a str, Option<&'a [u8]>)],
    /// Milliseconds since 1970; `None` for now.
    pub timestamp_ms: Option<i64>,
}

/// Why a record was not taken. Nothing was sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// Poll, then again: as many records or bytes as may wait are waiting.
    #[error("the producer's queue is full: the brokers don't keep up, or are away")]
    QueueFull,
    /// Never again: the record is larger than any that is sent.
    #[error("the record is larger than {RECORD_BYTES_MAX} bytes")]
    TooLarge,
    /// Look at the topic: it is missing, or has fewer partitions.
    #[error("there is no such topic or partition")]
    NoSuchPartition,
    /// Make a new producer: this one is broken for good.
    #[error("the producer can't go on: {0}")]
    Broken(String),
}

/// Why a record was not delivered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeliveryError {
    /// Again: no acknowledgement came. The record may be in the log all the same.
    #[error("not acknowledged: {0}")]
    NotAcknowledged(String),
    /// Not as it is: the brokers refuse this record (its size, its timestamp). It is not in the log.
    #[error("refused by the brokers: {0}")]
    Refused(String),
    /// Look at the topic: it is missing, has fewer partitions, or may not be written to. It is not in the log.
    #[error("there is no such topic or partition, or no right to write: {0}")]
    NoSuchPartition(String),
}

/// What happens when a delivery is reported: the caller's value, and where the record is in the log.
pub type OnDelivery<T> = dyn Fn(T, Result<(Partition, i64), DeliveryError>) + Send + Sync;

struct Context<T> {
    on_delivery: Box<OnDelivery<T>>,
    complaints: client::Context,
    /// Handed over and not reported. librdkafka's own count has log lines in it.
    in_flight: AtomicUsize,
}

impl<T: Send + Sync> ClientContext for Context<T> {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        self.complaints.log(level, facility, line);
    }

    fn error(&self, error: NativeError, reason: &str) {
        self.complaints.error(error, reason);
    }
}

impl<T: Send + Sync> ProducerContext for Context<T> {
    type DeliveryOpaque = Box<T>;

    fn delivery(&self, result: &DeliveryResult<'_>, value: Box<T>) {
        let result = match result {
            Ok(message) => Ok((Partition(message.partition()), message.offset())),
            Err((error, _)) => Err(delivery_error(error)),
        };
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        (self.on_delivery)(*value, result);
    }
}

fn delivery_error(error: &NativeError) -> DeliveryError {
    let why = error
        .rdkafka_error_code()
        .map_or_else(|| error.to_string(), |code| code.to_string());
    match error.rdkafka_error_code() {
        Some(
            RDKafkaErrorCode::MessageSizeTooLarge
            | RDKafkaErrorCode::InvalidMessageSize
            | RDKafkaErrorCode::InvalidTimestamp
            | RDKafkaErrorCode::InvalidRecord,
        ) => DeliveryError::Refused(why),
        Some(
            RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownPartition
            | RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::TopicAuthorizationFailed,
        ) => DeliveryError::NoSuchPartition(why),
        _ => DeliveryError::NotAcknowledged(why),
    }
}

/// An idempotent producer. `T` goes with each record and comes back with its delivery report. Any thread may send; reports
/// come on the threads that call [`poll`](Self::poll) and [`flush`](Self::flush). Dropping it reports what was not delivered.
pub struct Producer<T: Send + Sync + 'static> {
    kafka: Kafka,
    native: BaseProducer<Context<T>>,
    bootstrap: Bootstrap,
}

impl<T: Send + Sync + 'static> Producer<T> {
    /// Makes the client; it connects by itself, and goes on trying.
    pub fn new(
        kafka: &Kafka,
        client_id: &str,
        tuning: &Tuning,
        on_delivery: impl Fn(T, Result<(Partition, i64), DeliveryError>) + Send + Sync + 'static,
    ) -> Result<Self, KafkaError> {
        let mut config = client_config(kafka, client_id);
        propose(
            &mut config,
            "linger.ms",
            tuning.linger.as_millis().to_string(),
        );
        let codec = match tuning.compression {
            Compression::None => "none",
            Compression::Lz4 => "lz4",
            Compression::Zstd => "zstd",
        };
        propose(&mut config, "compression.type", codec);
        config.set(
            "queue.buffering.max.messages",
            tuning.queue_records_max.to_string(),
        );
        config.set(
            "queue.buffering.max.kbytes",
            (tuning.queue_bytes_max / 1024).max(1).to_string(),
        );
        config.set("message.max.bytes", RECORD_BYTES_MAX.to_string());
        config.set(
            "delivery.timeout.ms",
            tuning.delivery_timeout.as_millis().to_string(),
        );
        config.set("enable.idempotence", "true");
        // A misspelt topic is an error, not a new topic.
        config.set("allow.auto.create.topics", "false");
        let context = Context {
            on_delivery: Box::new(on_delivery),
            complaints: client::Context::default(),
            in_flight: AtomicUsize::new(0),
        };
        let native = config
            .create_with_context(context)
            .map_err(|error| KafkaError::of(kafka, "make a producer", &error, None))?;
        Ok(Self {
            kafka: kafka.clone(),
            native,
            bootstrap: Bootstrap::of(kafka),
        })
    }

    /// Hands a record over, or gives `value` back with the reason. Never blocks; the record's bytes are copied.
    pub fn send(&self, record: &Record<'_>, value: T) -> Result<(), (SendError, T)> {
        let mut native =
            BaseRecord::<[u8], [u8], Box<T>>::with_opaque_to(record.topic, Box::new(value))
                .partition(record.partition.0);
        native.key = record.key;
        native.payload = record.value;
        native.timestamp = record.timestamp_ms;
        if !record.headers.is_empty() {
            let headers = OwnedHeaders::new_with_capacity(record.headers.len());
            let add = |headers: OwnedHeaders, (key, value): &(&str, Option<&[u8]>)| {
                headers.insert(Header { key, value: *value })
            };
            native.headers = Some(record.headers.iter().fold(headers, add));
        }
        // Counted before it can be reported.
        let in_flight = &self.native.context().in_flight;
        in_flight.fetch_add(1, Ordering::Relaxed);
        self.native.send(native).map_err(|(error, native)| {
            in_flight.fetch_sub(1, Ordering::Relaxed);
            (self.send_error(&error), *native.delivery_opaque)
        })
    }

    fn send_error(&self, error: &NativeError) -> SendError {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::QueueFull) => SendError::QueueFull,
            Some(RDKafkaErrorCode::MessageSizeTooLarge) => SendError::TooLarge,
            Some(
                RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::UnknownPartition
                | RDKafkaErrorCode::UnknownTopicOrPartition,
            ) => SendError::NoSuchPartition,
            _ => SendError::Broken(self.broken().unwrap_or_else(|| error.to_string())),
        }
    }

    /// Reports deliveries on this thread, for the whole of `timeout`; with 0 at most one batch of them.
    pub fn poll(&self, timeout: Duration) {
        self.bootstrap.keep(self.native.client());
        self.native.poll(timeout);
    }

    /// Waits until every record is delivered or has failed, `deadline` at most. `false`: some are still waiting.
    pub fn flush(&self, deadline: Duration) -> bool {
        self.native.flush(deadline).is_ok()
    }

    /// Records that were handed over and not yet reported.
    pub fn in_flight(&self) -> usize {
        self.native.context().in_flight.load(Ordering::Relaxed)
    }

    /// The number of partitions of a topic; `None` if there is no such topic. Blocks for a round trip, `timeout` at most.
    pub fn topic_partitions(
        &self,
        topic: &str,
        timeout: Duration,
    ) -> Result<Option<u32>, KafkaError> {
        topic_partitions(self.native.client(), topic, timeout)
            .map_err(|error| self.topic_error(topic, &error))
    }

    /// Whether each partition of a topic has a leader; `None` if there is no such topic. Blocks like
    /// [`topic_partitions`](Self::topic_partitions).
    pub fn topic_leaders(
        &self,
        topic: &str,
        timeout: Duration,
    ) -> Result<Option<Vec<bool>>, KafkaError> {
        topic_leaders(self.native.client(), topic, timeout)
            .map_err(|error| self.topic_error(topic, &error))
    }

    fn topic_error(&self, topic: &str, error: &NativeError) -> KafkaError {
        // Complaints wait in the queue of reports.
        self.poll(COMPLAINTS_POLL);
        let last = self.native.context().complaints.take_last_error();
        KafkaError::of(&self.kafka, &format!("look at topic {topic}"), error, last)
    }

    /// Why this producer can't go on, if it can't; only a new one helps.
    pub fn broken(&self) -> Option<String> {
        self.native
            .client()
            .fatal_error()
            .map(|(code, why)| format!("{code}: {why}"))
    }
}
