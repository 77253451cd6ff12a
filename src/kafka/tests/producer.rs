//! Sending: from any thread, what comes back when it can't be done, and that nothing is forgotten.

use super::{TIMEOUT, TUNING, broker, kafka};
use crate::config::checked::Kafka;
use crate::ids::Partition;
use crate::kafka::producer::{DeliveryError, Producer, Record, SendError, Tuning};
use std::sync::mpsc::{Receiver, channel};

type Report = (u32, Result<(Partition, i64), DeliveryError>);

fn producer(kafka: &Kafka, tuning: &Tuning) -> (Producer<u32>, Receiver<Report>) {
    let (report, reports) = channel();
    let on_delivery = move |value, result| report.send((value, result)).unwrap();
    let producer = Producer::new(kafka, "test", tuning, on_delivery).unwrap();
    (producer, reports)
}

fn record(topic: &str, partition: i32) -> Record<'_> {
    Record {
        topic,
        partition: Partition(partition),
        key: None,
        value: Some(b"value"),
        headers: &[],
        timestamp_ms: None,
    }
}

#[test]
fn any_thread_may_send() {
    let broker = broker("threads");
    broker.create(&broker.kafka.topic, 2, &[]);
    let (producer, reports) = producer(&broker.kafka, &TUNING);
    std::thread::scope(|scope| {
        for partition in 0..2 {
            let (producer, topic) = (&producer, &broker.kafka.topic);
            scope.spawn(move || {
                (0..100).for_each(|value| producer.send(&record(topic, partition), value).unwrap());
            });
        }
    });
    assert!(producer.flush(TIMEOUT));
    assert_eq!(
        reports
            .try_iter()
            .filter(|(_, result)| result.is_ok())
            .count(),
        200
    );
}

#[test]
fn a_full_queue_gives_the_value_back_and_a_drop_reports_the_rest() {
    let kafka = kafka("127.0.0.1:9".to_owned(), "any".to_owned());
    let tuning = Tuning {
        queue_records_max: 1,
        ..TUNING
    };
    let (producer, reports) = producer(&kafka, &tuning);
    producer.send(&record("any", 0), 1).unwrap();
    assert_eq!(
        producer.send(&record("any", 0), 2),
        Err((SendError::QueueFull, 2))
    );
    assert_eq!(producer.in_flight(), 1);
    drop(producer);
    let (value, result) = reports.recv().unwrap();
    assert!(
        value == 1 && matches!(result, Err(DeliveryError::NotAcknowledged(_))),
        "{result:?}"
    );
}

#[test]
fn a_record_that_is_too_large_or_for_no_partition_is_refused() {
    let broker = broker("refused");
    let topic = &broker.kafka.topic;
    broker.create(topic, 1, &[]);
    let (producer, reports) = producer(&broker.kafka, &TUNING);
    let large = vec![0; 20 << 20];
    let large = Record {
        value: Some(&large),
        ..record(topic, 0)
    };
    assert_eq!(producer.send(&large, 1), Err((SendError::TooLarge, 1)));

    assert_eq!(producer.topic_partitions(topic, TIMEOUT).unwrap(), Some(1));
    match producer.send(&record(topic, 5), 2) {
        Err((error, value)) => assert_eq!((error, value), (SendError::NoSuchPartition, 2)),
        // It was handed over before librdkafka had looked.
        Ok(()) => {
            producer.flush(TIMEOUT);
            let (value, result) = reports.recv().unwrap();
            assert!(
                value == 2 && matches!(result, Err(DeliveryError::NoSuchPartition(_))),
                "{result:?}"
            );
        }
    }
    assert_eq!(producer.broken(), None);
}
