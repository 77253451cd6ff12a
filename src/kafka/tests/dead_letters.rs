//! Dead letters: what they carry, and that they are kept until the broker has them.

use super::{TIMEOUT, broker, kafka, read_values, span};
use crate::config::checked::Kafka;
use crate::dead::{Reason, Receipt};
use crate::ids::{Partition, ShardIndex};
use crate::kafka::admin::Admin;
use crate::kafka::dead_letters::{DeadLetter, DeadLetters, TRUNCATED};
use crate::kafka::reader::Reader;
use crate::observe::Registry;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

struct Told(mpsc::Sender<i64>, i64);

impl Receipt for Told {
    fn delivered(self: Box<Self>) {
        self.0.send(self.1).unwrap();
    }
}

fn letter(offset: i64, value: Option<&[u8]>, told: &mpsc::Sender<i64>) -> DeadLetter {
    DeadLetter {
        partition: Partition(7),
        offset,
        timestamp_ms: 1_700_000_000_000,
        key: Some(b"key".as_slice().into()),
        value: value.map(Into::into),
        headers: vec![
            ("traceparent".to_owned(), Some(b"00-1".as_slice().into())),
            (
                "__dlq.errors.reason".to_owned(),
                Some(b"old".as_slice().into()),
            ),
            (
                "__dlq.errors.attempts".to_owned(),
                Some(b"2".as_slice().into()),
            ),
        ],
        reason: Reason::Database,
        sqlstate: Some("22003".to_owned()),
        message: "out of range".to_owned(),
        receipt: Box::new(Told(told.clone(), offset)),
    }
}

fn registry() -> Arc<Registry> {
    Arc::new(Registry::new(
        1,
        vec![ShardIndex(0); 8],
        vec!["a".to_owned()],
    ))
}

fn headers_of(kafka: &Kafka, partition: i32, offset: i64) -> Vec<(String, String)> {
    let topic = &kafka.dead_letter_topic;
    let mut reader = Reader::open(kafka, topic, &[span(partition, offset, offset + 1)]).unwrap();
    let message = reader.next(TIMEOUT).unwrap().unwrap();
    let text = |value: Option<&[u8]>| String::from_utf8(value.unwrap().to_vec()).unwrap();
    message
        .headers()
        .map(|(name, value)| (name.to_owned(), text(value)))
        .collect()
}

#[test]
fn dead_letters_wait_for_their_topic_and_then_arrive_in_order() {
    let broker = broker("dead");
    let kafka = &broker.kafka;
    let registry = registry();
    let dead = DeadLetters::start(kafka, registry.clone()).unwrap();
    let (told, receipts) = mpsc::channel();
    let sender = dead.sender();
    for (offset, value) in (0..).zip([Some(&b"zero"[..]), None, Some(b"")]) {
        sender.send(letter(offset, value, &told));
    }
    assert!(
        receipts.recv_timeout(Duration::from_secs(1)).is_err(),
        "there is no topic"
    );
    broker.create(&kafka.dead_letter_topic, 4, &[]);
    let delivered: Vec<i64> = (0..3)
        .map(|_| receipts.recv_timeout(TIMEOUT).unwrap())
        .collect();
    assert_eq!(delivered, [0, 1, 2]);
    assert_eq!(registry.dead_letters[Reason::Database as usize].get(), 3);
    assert_eq!(dead.stop(TIMEOUT), 0);

    let found = read_values(kafka, &kafka.dead_letter_topic, &[span(3, 0, 3)]);
    assert_eq!(
        found,
        [
            (3, 0, Some(b"zero".to_vec())),
            (3, 1, None),
            (3, 2, Some(vec![]))
        ]
    );
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(
        headers_of(kafka, 3, 0),
        [
            header("traceparent", "00-1"),
            header("__dlq.errors.topic", &kafka.topic),
            header("__dlq.errors.partition", "7"),
            header("__dlq.errors.offset", "0"),
            header("__dlq.errors.group", &kafka.group),
            header("__dlq.errors.reason", "database"),
            header("__dlq.errors.message", "out of range"),
            header("__dlq.errors.attempts", "2"),
            header("__dlq.errors.sqlstate", "22003"),
        ]
    );
}

#[test]
fn a_dead_letter_that_is_too_large_for_the_topic_is_cut() {
    let broker = broker("cut");
    if !broker.is_real() {
        return;
    }
    let kafka = &broker.kafka;
    broker.create(
        &kafka.dead_letter_topic,
        1,
        &[("max.message.bytes", "200000")],
    );
    let dead = DeadLetters::start(kafka, registry()).unwrap();
    let (told, receipts) = mpsc::channel();
    // Random enough that no compression makes it small.
    let large: Vec<u8> = (0..75_000_u64)
        .flat_map(|n| xxhash_rust::xxh3::xxh3_64(&n.to_le_bytes()).to_le_bytes())
        .collect();
    let huge = vec![7; 20 << 20];
    for (offset, value) in (0..).zip([&b"small"[..], &large, b"small too", &huge]) {
        dead.sender().send(letter(offset, Some(value), &told));
    }
    let mut delivered: Vec<i64> = (0..4)
        .map(|_| receipts.recv_timeout(TIMEOUT).unwrap())
        .collect();
    delivered.sort_unstable();
    assert_eq!(delivered, [0, 1, 2, 3]);
    assert_eq!(dead.stop(TIMEOUT), 0);

    let admin = Admin::connect(kafka).unwrap();
    let ends = admin
        .end_offsets(&kafka.dead_letter_topic, TIMEOUT)
        .unwrap();
    let found = read_values(kafka, &kafka.dead_letter_topic, &[span(0, 0, ends[0])]);
    let cut = found
        .iter()
        .find(|(_, _, value)| value.as_ref().unwrap()[..] == large[..64 << 10])
        .unwrap();
    assert!(headers_of(kafka, 0, cut.1).contains(&(TRUNCATED.to_owned(), "600000".to_owned())));
}

#[test]
fn letters_that_can_not_be_delivered_are_counted_at_the_stop() {
    let kafka = kafka("127.0.0.1:9".to_owned(), "any".to_owned());
    let dead = DeadLetters::start(&kafka, registry()).unwrap();
    let (told, receipts) = mpsc::channel();
    dead.sender().send(letter(1, None, &told));
    dead.sender().send(letter(2, None, &told));
    let begin = Instant::now();
    assert_eq!(dead.stop(Duration::from_secs(4)), 2);
    assert!(begin.elapsed() < Duration::from_secs(6));
    assert!(receipts.try_recv().is_err());
}
