//! The room against a broker: the real one that MILLPOND_TEST_KAFKA names, else librdkafka's own in this process. What only
//! a real broker has is tested there only.
#![expect(clippy::unwrap_used, reason = "tests")]

mod admin;
mod bootstrap;
mod consumer;
mod dead_letters;
mod producer;
mod reader;

use super::admin::Admin;
use super::producer::{Compression, Producer, Record, Tuning};
use super::reader::{Reader, Span};
use crate::config::checked::{Kafka, PartitionBy, Start};
use crate::ids::Partition;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use std::{sync::mpsc, time::Duration};

const TIMEOUT: Duration = Duration::from_secs(20);

/// A broker and a topic of its own for one test.
struct Broker {
    mock: Option<MockCluster<'static, DefaultProducerContext>>,
    kafka: Kafka,
}

fn kafka(brokers: String, topic: String) -> Kafka {
    Kafka {
        brokers,
        dead_letter_topic: format!("{topic}.dlq"),
        group: format!("{topic}-group"),
        topic,
        partition_by: PartitionBy::App,
        incarnation: 1,
        start: Start::Earliest,
        librdkafka: vec![],
    }
}

fn broker(test: &str) -> Broker {
    let topic = format!("{test}-{}", crate::clock::wall_ms());
    match std::env::var("MILLPOND_TEST_KAFKA") {
        Ok(brokers) => Broker {
            mock: None,
            kafka: kafka(brokers, topic),
        },
        Err(_) => {
            let mock = MockCluster::new(1).unwrap();
            Broker {
                kafka: kafka(mock.bootstrap_servers(), topic),
                mock: Some(mock),
            }
        }
    }
}

impl Broker {
    fn create(&self, topic: &str, partitions: u32, config: &[(&str, &str)]) {
        match &self.mock {
            Some(mock) => mock
                .create_topic(topic, i32::try_from(partitions).unwrap(), 1)
                .unwrap(),
            None => {
                let admin = Admin::connect(&self.kafka).unwrap();
                assert!(
                    admin
                        .create_topic(topic, partitions, config, TIMEOUT)
                        .unwrap()
                );
            }
        }
    }

    fn is_real(&self) -> bool {
        self.mock.is_none()
    }
}

const TUNING: Tuning = Tuning {
    linger: Duration::ZERO,
    compression: Compression::Zstd,
    delivery_timeout: TIMEOUT,
    queue_records_max: 1000,
    queue_bytes_max: 64 << 20,
};

/// Sends these to the partition and waits; returns their offsets.
fn produce(kafka: &Kafka, partition: i32, values: &[Option<&[u8]>]) -> Vec<i64> {
    let (report, reports) = mpsc::channel();
    let producer = Producer::new(kafka, "test", &TUNING, move |number: usize, result| {
        report.send((number, result)).unwrap();
    })
    .unwrap();
    for (number, value) in values.iter().enumerate() {
        let headers = [
            ("first", Some(&b"1"[..])),
            ("null", None),
            ("empty", Some(b"")),
        ];
        let record = Record {
            topic: &kafka.topic,
            partition: Partition(partition),
            key: (number > 0).then_some(&b"key"[..]),
            value: *value,
            headers: &headers[..number.min(3)],
            timestamp_ms: Some(1_700_000_000_000 + i64::try_from(number).unwrap()),
        };
        producer.send(&record, number).unwrap();
    }
    assert!(producer.flush(TIMEOUT));
    assert_eq!(producer.in_flight(), 0);
    let mut offsets = vec![-1; values.len()];
    for (number, result) in reports.try_iter() {
        let (delivered_to, offset) = result.unwrap();
        assert_eq!(delivered_to, Partition(partition));
        offsets[number] = offset;
    }
    offsets
}

fn span(partition: i32, start: i64, end: i64) -> Span {
    Span {
        partition: Partition(partition),
        start,
        end,
    }
}

fn read_values(kafka: &Kafka, topic: &str, spans: &[Span]) -> Vec<(i32, i64, Option<Vec<u8>>)> {
    let mut reader = Reader::open(kafka, topic, spans).unwrap();
    let mut found = vec![];
    while let Some(message) = reader.next(TIMEOUT) {
        let message = message.unwrap();
        found.push((
            message.partition().0,
            message.offset(),
            message.value().map(<[u8]>::to_vec),
        ));
    }
    found
}
