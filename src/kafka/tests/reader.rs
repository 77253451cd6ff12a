//! Reading spans: what comes back, where it ends, and what it says when it can't go on.

use super::{TIMEOUT, broker, produce, read_values, span};
use crate::ids::Partition;
use crate::kafka::admin::Admin;
use crate::kafka::client::client_config;
use crate::kafka::reader::{ReadError, Reader, Timestamp};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use std::time::{Duration, Instant};

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
        let sent = [
            ("first", Some(&b"1"[..])),
            ("null", None),
            ("empty", Some(b"")),
        ];
        let headers: Vec<_> = message.headers().collect();
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
fn a_reader_turns_to_other_spans_and_reads_nothing_else() {
    let broker = broker("turns");
    let kafka = &broker.kafka;
    broker.create(&kafka.topic, 2, &[]);
    produce(kafka, 0, &[Some(b"a0"), Some(b"a1"), Some(b"a2")]);
    produce(kafka, 1, &[Some(b"b0"), Some(b"b1")]);

    let mut reader = Reader::open(kafka, &kafka.topic, &[span(0, 0, 3)]).unwrap();
    let next = |reader: &mut Reader| {
        let message = reader.next(TIMEOUT)?.unwrap();
        Some((message.partition().0, message.offset()))
    };
    assert_eq!(next(&mut reader), Some((0, 0)));
    // The rest of the first span has been fetched by now.
    reader.turn_to(&[span(1, 1, 2)]).unwrap();
    assert_eq!(next(&mut reader), Some((1, 1)));
    assert_eq!(next(&mut reader), None);
    reader.turn_to(&[span(0, 0, 1)]).unwrap();
    assert_eq!(next(&mut reader), Some((0, 0)));
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
