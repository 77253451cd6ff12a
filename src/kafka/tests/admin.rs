//! Topics, offsets and groups as the brokers tell them, and errors that say where and why.

use super::{TIMEOUT, broker, kafka, produce};
use crate::kafka::KafkaError;
use crate::kafka::admin::Admin;
use crate::kafka::client::client_config;
use rdkafka::consumer::{BaseConsumer, Consumer};
use std::time::{Duration, Instant};

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
