//! Sends letters again, as new updates at the end of the log.

use super::{Fate, Planned};
use crate::config::checked::Kafka;
use crate::dead::header;
use crate::ids::Partition;
use crate::kafka::KafkaError;
use crate::kafka::producer::{Compression, DeliveryError, Producer, Record, SendError, Tuning};
use std::sync::mpsc;
use std::time::Duration;

/// When librdkafka gives a letter up.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(60);
/// How long to wait for all, a little more than for one.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(70);
/// How long to wait for room in the producer's queue before trying again.
const POLL: Duration = Duration::from_millis(20);

const TUNING: Tuning = Tuning {
    linger: Duration::from_millis(5),
    compression: Compression::Lz4,
    delivery_timeout: DELIVERY_TIMEOUT,
    queue_records_max: 10_000,
    queue_bytes_max: 64 << 20,
};

/// What came of a letter that was to be sent: where it is now, or why it may not be there.
pub type Sent = Result<(Partition, i64), String>;

/// Sends those letters of a plan that are to be sent, in its order, and waits until the brokers have them. The outcomes are
/// in the order of the plan, `None` for a letter that is not to be sent.
///
/// A letter that was not acknowledged may be in the log all the same. The header that counts attempts is raised by one; all
/// original headers are kept, and the time is now: it is a new update.
pub fn replay(kafka: &Kafka, plan: &[Planned]) -> Result<Vec<Option<Sent>>, KafkaError> {
    let (report, reports) = mpsc::channel();
    let producer = Producer::new(kafka, "millpond-replay", &TUNING, move |number, result| {
        // The receiver outlives the producer.
        let _ = report.send((number, result));
    })?;
    let mut outcomes: Vec<Option<Sent>> = plan
        .iter()
        .map(|planned| {
            planned
                .is_sent()
                .then(|| Err("no answer came; it may be in the log".to_owned()))
        })
        .collect();
    for (number, planned) in plan.iter().enumerate() {
        if let Fate::Send(partition) = planned.fate
            && let Err(error) = send(&producer, kafka, planned, partition, number)
        {
            outcomes[number] = Some(Err(format!("not sent: {error}")));
        }
    }
    producer.flush(FLUSH_TIMEOUT);
    for (number, result) in reports.try_iter() {
        let said = |error: DeliveryError| error.to_string();
        outcomes[number] = Some(result.map_err(said));
    }
    Ok(outcomes)
}

fn send(
    producer: &Producer<usize>,
    kafka: &Kafka,
    planned: &Planned,
    partition: Partition,
    number: usize,
) -> Result<(), SendError> {
    let letter = &planned.letter;
    let attempts = (letter.attempts() + 1).to_string();
    let mut headers: Vec<(&str, Option<&[u8]>)> = letter.original_headers().collect();
    headers.push((header::ATTEMPTS, Some(attempts.as_bytes())));
    let record = Record {
        topic: &kafka.topic,
        partition,
        key: letter.key.as_deref(),
        value: letter.value.as_deref(),
        headers: &headers,
        timestamp_ms: None,
    };
    loop {
        match producer.send(&record, number) {
            // Room comes at the latest when what waits is given up.
            Err((SendError::QueueFull, _)) => producer.poll(POLL),
            sent => return sent.map_err(|(error, _)| error),
        }
    }
}
