//! Sends the messages of a run to Kafka: as fast as the brokers take them, or in an open loop, where each message has its
//! time and is stamped with it. Falling behind is measured, not made up for.

use super::schedule::{Pace, Schedule};
use super::traffic::{Message, Traffic};
use crate::clock;
use crate::config::checked::Kafka;
use crate::kafka::KafkaError;
use crate::kafka::producer::{Compression, DeliveryError, Producer, Record, SendError, Tuning};
use crate::observe::recorder::SharedCounter;
use parking_lot::Mutex;
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;

/// A message that is handed over later than this has missed its rate.
const BEHIND_MAX: Duration = Duration::from_millis(100);

/// How often delivery reports are taken and the caller is asked whether to go on, in messages: as fast as it goes, and at a
/// pace, where a round must not last long.
const ROUND: u64 = 100;
const ROUND_PACED: u64 = 10;
/// The same, for one message that is due much later.
const WAIT_STEP: Duration = Duration::from_millis(100);

/// What the producer may hold. Large, so that each of many partitions gets batches worth their cost.
const QUEUE_RECORDS_MAX: u32 = 500_000;
const QUEUE_BYTES_MAX: u64 = 256 << 20;

/// How long the brokers may take to tell about the topic.
const TOPIC_TIMEOUT: Duration = Duration::from_secs(10);

/// A producer sends nothing before it has its id, and librdkafka asks for that again after half a second only if no broker was
/// there at once.
const PRODUCER_ID: Duration = Duration::from_secs(1);

/// How long to take delivery reports while the producer's queue is full.
const QUEUE_FULL_POLL: Duration = Duration::from_millis(5);

/// A broker may be slow or away for a while; a message that it never took fails the run.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(300);

/// What came of a run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// Messages that the brokers have acknowledged.
    pub messages: u64,
    /// How many of them can't be applied.
    pub broken: u64,
    /// From the first message to the last acknowledgement.
    pub seconds: f64,
    /// Over those seconds.
    pub messages_per_s: f64,
    /// Bytes of keys and values.
    pub bytes: u64,
    /// Whether some message was handed over more than 100 ms after it was due.
    pub rate_missed: bool,
    /// The most that a message was late, in milliseconds.
    pub behind_ms_max: u64,
}

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Nothing was sent, or the brokers can't be asked.
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    /// There is no such topic.
    #[error("there is no topic {topic}; `millpond init` makes it")]
    NoTopic {
        /// The topic.
        topic: String,
    },
    /// The topic is not as configured, so messages would go to the wrong partitions.
    #[error("topic {topic} has {found} partitions, kafka.partitions says {expected}")]
    Partitions {
        /// The topic.
        topic: String,
        /// How many it has.
        found: u32,
        /// How many it should have.
        expected: u32,
    },
    /// The producer refused a message.
    #[error("message {number} was not sent: {error}")]
    NotSent {
        /// Its number in the run.
        number: u64,
        /// Why.
        error: SendError,
    },
    /// Some were handed over but not acknowledged.
    #[error("{count} messages were not delivered, the first because it was {error}")]
    NotDelivered {
        /// How many.
        count: u64,
        /// Why the first was not.
        error: DeliveryError,
    },
}

/// What delivery reports add up to.
#[derive(Default)]
struct Deliveries {
    delivered: SharedCounter,
    failed: SharedCounter,
    first_error: Mutex<Option<DeliveryError>>,
}

impl Deliveries {
    fn report(&self, error: Option<DeliveryError>) {
        match error {
            None => self.delivered.add(1),
            Some(error) => {
                self.failed.add(1);
                self.first_error.lock().get_or_insert(error);
            }
        }
    }

    fn failure(&self) -> Option<LoadError> {
        let error = self.first_error.lock().clone()?;
        Some(LoadError::NotDelivered {
            count: self.failed.get(),
            error,
        })
    }
}

/// Sends a run and waits until all of it is acknowledged. `go_on` is told how many messages were handed over so far, and
/// ends the run early by answering `false`.
pub fn send(
    kafka: &Kafka,
    traffic: &Traffic,
    pace: Pace,
    mut go_on: impl FnMut(u64) -> bool,
) -> Result<Summary, LoadError> {
    let deliveries = Arc::new(Deliveries::default());
    let reported = deliveries.clone();
    let producer = Producer::new(kafka, "millpond-load", &tuning(pace), move |(), result| {
        reported.report(result.err());
    })?;
    check_topic(kafka, &producer, traffic.partitions())?;

    if pace != Pace::Free {
        // Or the first delays would be those of the producer's own start.
        std::thread::sleep(PRODUCER_ID);
    }
    let schedule = Schedule::start(pace);
    let round = if pace == Pace::Free {
        ROUND
    } else {
        ROUND_PACED
    };
    let mut message = Message::default();
    let (mut broken, mut bytes, mut behind_max) = (0, 0, Duration::ZERO);
    for number in 0..traffic.options().messages {
        if number % round == 0 {
            producer.poll(Duration::ZERO);
            if deliveries.failed.get() > 0 || !go_on(number) {
                break;
            }
        }
        if !schedule.wait(number, WAIT_STEP, || go_on(number)) {
            break;
        }
        traffic.write(number, &mut message);
        hand_over(
            &producer,
            &kafka.topic,
            number,
            &message,
            schedule.timestamp_ms(number),
        )?;
        behind_max = behind_max.max(schedule.behind(number));
        broken += u64::from(message.broken.is_some());
        bytes += message.bytes();
    }
    while producer.in_flight() > 0 {
        producer.flush(Duration::from_secs(1));
    }
    if let Some(error) = deliveries.failure() {
        return Err(error);
    }
    let (messages, elapsed) = (
        deliveries.delivered.get(),
        clock::now().duration_since(schedule.started),
    );
    Ok(Summary {
        messages,
        broken,
        seconds: elapsed.as_secs_f64(),
        messages_per_s: Duration::from_secs(messages).div_duration_f64(elapsed),
        bytes,
        rate_missed: behind_max > BEHIND_MAX,
        behind_ms_max: u64::try_from(behind_max.as_millis()).unwrap_or(u64::MAX),
    })
}

fn tuning(pace: Pace) -> Tuning {
    Tuning {
        // At a fixed rate the delay is being measured, so it isn't lengthened for the sake of fuller batches.
        linger: Duration::from_millis(if pace == Pace::Free { 50 } else { 5 }),
        compression: Compression::Lz4,
        delivery_timeout: DELIVERY_TIMEOUT,
        queue_records_max: QUEUE_RECORDS_MAX,
        queue_bytes_max: QUEUE_BYTES_MAX,
    }
}

fn check_topic(kafka: &Kafka, producer: &Producer<()>, expected: u32) -> Result<(), LoadError> {
    let topic = kafka.topic.clone();
    match producer.topic_partitions(&topic, TOPIC_TIMEOUT)? {
        None => Err(LoadError::NoTopic { topic }),
        Some(found) if found != expected => Err(LoadError::Partitions {
            topic,
            found,
            expected,
        }),
        Some(_) => Ok(()),
    }
}

/// Waits for room in the producer's queue if need be.
fn hand_over(
    producer: &Producer<()>,
    topic: &str,
    number: u64,
    message: &Message,
    timestamp_ms: Option<i64>,
) -> Result<(), LoadError> {
    let record = Record {
        topic,
        partition: message.partition,
        key: Some(&message.key),
        value: message.value(),
        headers: &[],
        timestamp_ms,
    };
    loop {
        match producer.send(&record, ()) {
            Ok(()) => return Ok(()),
            Err((SendError::QueueFull, ())) => producer.poll(QUEUE_FULL_POLL),
            Err((error, ())) => return Err(LoadError::NotSent { number, error }),
        }
    }
}
