//! The room against a broker: the real one that MILLPOND_TEST_KAFKA names, else librdkafka's own in this process. What only
//! a real broker has is tested there only.
#![expect(clippy::unwrap_used, reason = "tests")]

use super::KafkaError;
use super::admin::Admin;
use super::client::client_config;
use super::dead_letters::{DeadLetter, DeadLetters, Receipt, TRUNCATED};
use super::producer::{Compression, Producer, Record, Tuning};
use super::reader::{ReadError, Reader, Span, Timestamp};
use crate::config::checked::{Kafka, PartitionBy, Start};
use crate::dead::Reason;
use crate::ids::{Partition, ShardIndex};
use crate::observe::Registry;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer as _};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

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

#[test]
fn a_record_is_read_as_it_was_sent() {
    let broker = broker("as-sent");
    let kafka = &broker.kafka;
    broker.create(&kafka.topic, 3, &[]);
    let values: [Option<&[u8]>; 4] = [Some(b"one"), Some(b""), None, Some(&[7; 100_000])];
    assert_eq!(produce(kafka, 1, &values), [0, 1, 2, 3]);

    let mut reader = Reader::open(kafka, &kafka.topic, &[span(1, 0, 4), span(2, 5, 5)]).unwrap();
    for (number, value) in values.iter().enumerate() {
        let message = reader.next(TIMEOUT).unwrap().unwrap();
        let number_i64 = i64::try_from(number).unwrap();
        assert_eq!(
            (message.partition(), message.offset()),
            (Partition(1), number_i64)
        );
        assert_eq!(message.value(), *value);
        assert_eq!(message.key(), (number > 0).then_some(&b"key"[..]));
        assert_eq!(
            message.timestamp(),
            Timestamp::Create(1_700_000_000_000 + number_i64)
        );
        let headers: Vec<_> = message.headers().collect();
        let sent = [
            ("first", Some(&b"1"[..])),
            ("null", None),
            ("empty", Some(b"")),
        ];
        assert_eq!(headers, sent[..number.min(3)]);
        if broker.is_real() {
            assert_eq!(message.leader_epoch(), 0);
        }
    }
    assert!(reader.next(TIMEOUT).is_none());
}

#[test]
fn a_reader_ends_at_the_ends_of_its_spans() {
    let broker = broker("spans");
    let kafka = &broker.kafka;
    broker.create(&kafka.topic, 2, &[]);
    produce(
        kafka,
        0,
        &[Some(b"a0"), Some(b"a1"), Some(b"a2"), Some(b"a3")],
    );
    produce(kafka, 1, &[Some(b"b0"), Some(b"b1")]);

    let mut found = read_values(kafka, &kafka.topic, &[span(0, 1, 3), span(1, 0, 1)]);
    found.sort();
    let value = |text: &str| Some(text.as_bytes().to_vec());
    assert_eq!(
        found,
        [
            (0, 1, value("a1")),
            (0, 2, value("a2")),
            (1, 0, value("b0"))
        ]
    );
}

#[test]
fn a_reader_says_what_it_still_waits_for() {
    let broker = broker("waits");
    let kafka = &broker.kafka;
    broker.create(&kafka.topic, 1, &[]);
    produce(kafka, 0, &[Some(b"only")]);
    let mut reader = Reader::open(kafka, &kafka.topic, &[span(0, 0, 2)]).unwrap();
    assert!(reader.next(TIMEOUT).unwrap().is_ok());
    let quiet = reader.next(Duration::from_secs(1)).unwrap().err().unwrap();
    assert!(
        matches!(quiet, ReadError::Quiet { unfinished: 1, .. }),
        "{quiet}"
    );
    reader.leave(Partition(0));
    assert!(reader.next(TIMEOUT).is_none());
}

#[test]
fn a_reader_refuses_offsets_that_are_gone() {
    let broker = broker("gone");
    let kafka = &broker.kafka;
    broker.create(&kafka.topic, 1, &[]);
    produce(kafka, 0, &[Some(b"only")]);
    let mut reader = Reader::open(kafka, &kafka.topic, &[span(0, 1_000, 2_000)]).unwrap();
    let gone = reader.next(TIMEOUT).unwrap().err().unwrap();
    assert!(matches!(gone, ReadError::Gone { .. }), "{gone}");
}

#[test]
fn a_reader_passes_over_gaps_at_the_end() {
    let broker = broker("gaps");
    if !broker.is_real() {
        return;
    }
    let kafka = &broker.kafka;
    broker.create(&kafka.topic, 1, &[]);
    produce(kafka, 0, &[Some(b"kept")]);
    let mut config = client_config(kafka, "test");
    config.set("transactional.id", &kafka.topic);
    let aborting: BaseProducer = config.create().unwrap();
    aborting.init_transactions(TIMEOUT).unwrap();
    aborting.begin_transaction().unwrap();
    let record = BaseRecord::to(&kafka.topic)
        .partition(0)
        .payload("aborted")
        .key("key");
    aborting.send(record).unwrap();
    aborting.flush(TIMEOUT).unwrap();

    // An open transaction holds the end back.
    let admin = Admin::connect(kafka).unwrap();
    assert_eq!(admin.end_offsets(&kafka.topic, TIMEOUT).unwrap(), [1]);
    aborting.abort_transaction(TIMEOUT).unwrap();
    // Brokers write the marker behind the aborted record after they answered.
    let deadline = Instant::now() + TIMEOUT;
    while admin.end_offsets(&kafka.topic, TIMEOUT).unwrap() != [3] {
        assert!(Instant::now() < deadline, "the transaction ends");
    }
    let found = read_values(kafka, &kafka.topic, &[span(0, 0, 3)]);
    assert_eq!(found, [(0, 0, Some(b"kept".to_vec()))]);
}

#[test]
fn topics_and_offsets_are_as_the_broker_knows_them() {
    let broker = broker("admin");
    let kafka = &broker.kafka;
    let admin = Admin::connect(kafka).unwrap();
    assert_eq!(admin.topic_partitions(&kafka.topic, TIMEOUT).unwrap(), None);
    let missing = admin.end_offsets(&kafka.topic, TIMEOUT).unwrap_err();
    assert!(missing.to_string().contains("`millpond init`"), "{missing}");
    assert_eq!(
        admin.topic_partitions(&kafka.topic, TIMEOUT).unwrap(),
        None,
        "looking doesn't create"
    );

    broker.create(&kafka.topic, 12, &[("retention.ms", "987654321")]);
    assert_eq!(
        admin.topic_partitions(&kafka.topic, TIMEOUT).unwrap(),
        Some(12)
    );
    produce(kafka, 5, &[Some(b"x"), Some(b"y"), Some(b"z")]);
    let mut ends = vec![0; 12];
    assert_eq!(admin.start_offsets(&kafka.topic, TIMEOUT).unwrap(), ends);
    ends[5] = 3;
    assert_eq!(admin.end_offsets(&kafka.topic, TIMEOUT).unwrap(), ends);
    assert_eq!(
        admin
            .committed_offsets(&kafka.group, &kafka.topic, TIMEOUT)
            .unwrap(),
        [None; 12]
    );
    if !broker.is_real() {
        return;
    }
    let mut at = ends.clone();
    at[5] = 2;
    assert_eq!(
        admin
            .offsets_at(&kafka.topic, 1_700_000_000_002, TIMEOUT)
            .unwrap(),
        at
    );
    assert_eq!(
        admin
            .offsets_at(&kafka.topic, 1_800_000_000_000, TIMEOUT)
            .unwrap(),
        ends
    );
    let config = admin.topic_config(&kafka.topic, TIMEOUT).unwrap();
    assert_eq!(config["retention.ms"], "987654321");
    assert!(
        !admin.create_topic(&kafka.topic, 12, &[], TIMEOUT).unwrap(),
        "it is there already"
    );
    let refused = admin
        .create_topic("a bad name", 1, &[], TIMEOUT)
        .unwrap_err();
    assert!(matches!(refused, KafkaError::Refused { .. }), "{refused}");
    assert!(admin.topic_id(&kafka.topic, TIMEOUT).is_some());
    assert!(admin.delete_topic(&kafka.topic, TIMEOUT).unwrap());
    assert!(!admin.delete_topic("never-there", TIMEOUT).unwrap());
}

#[test]
fn a_group_is_seen_without_joining_it() {
    let broker = broker("group");
    if !broker.is_real() {
        return;
    }
    for protocol in ["classic", "consumer"] {
        let mut kafka = broker.kafka.clone();
        kafka.topic = format!("{}-{protocol}", kafka.topic);
        kafka.group = format!("{}-{protocol}", kafka.group);
        broker.create(&kafka.topic, 2, &[]);
        produce(&kafka, 1, &[Some(b"x"), Some(b"y")]);
        let admin = Admin::connect(&kafka).unwrap();
        assert_eq!(admin.group_members(&kafka.group, TIMEOUT).unwrap(), 0);
        assert!(
            !admin.delete_group(&kafka.group, TIMEOUT).unwrap(),
            "there is none"
        );

        let mut config = client_config(&kafka, "test");
        config
            .set("group.id", &kafka.group)
            .set("group.protocol", protocol)
            .set("auto.offset.reset", "earliest");
        let member: BaseConsumer = config.create().unwrap();
        member.subscribe(&[&kafka.topic]).unwrap();
        let deadline = Instant::now() + TIMEOUT;
        let message = loop {
            assert!(Instant::now() < deadline, "the member gets its messages");
            if let Some(Ok(message)) = member.poll(Duration::from_millis(100)) {
                break message;
            }
        };
        member
            .commit_message(&message, rdkafka::consumer::CommitMode::Sync)
            .unwrap();
        assert_eq!(
            admin.group_members(&kafka.group, TIMEOUT).unwrap(),
            1,
            "{protocol}"
        );
        assert_eq!(
            admin
                .committed_offsets(&kafka.group, &kafka.topic, TIMEOUT)
                .unwrap(),
            [None, Some(1)]
        );
        drop(message);
        drop(member);
        assert_eq!(
            admin.group_members(&kafka.group, TIMEOUT).unwrap(),
            0,
            "{protocol}"
        );
        assert!(admin.delete_group(&kafka.group, TIMEOUT).unwrap());
    }
}

#[test]
fn a_broker_that_is_away_is_named() {
    let mut kafka = kafka("127.0.0.1:9".to_owned(), "any".to_owned());
    kafka.librdkafka = vec![(
        "socket.connection.setup.timeout.ms".to_owned(),
        "1000".to_owned(),
    )];
    let error = Admin::connect(&kafka).err().unwrap();
    assert!(matches!(error, KafkaError::Away { .. }));
    let text = error.to_string();
    assert!(
        text.contains("Kafka at 127.0.0.1:9 did not answer") && text.contains("refused"),
        "{text}"
    );
}

#[test]
fn a_setting_that_librdkafka_does_not_know_is_named() {
    let mut kafka = kafka("127.0.0.1:9".to_owned(), "any".to_owned());
    kafka.librdkafka = vec![("no.such.setting".to_owned(), "secret".to_owned())];
    let text = Admin::connect(&kafka).err().unwrap().to_string();
    assert!(
        text.contains("no.such.setting") && !text.contains("secret"),
        "{text}"
    );
}

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
