//! Offsets that no update has: markers of transactions, aborted updates, what compaction took out. The group gets past them:
//! the lag is 0 everywhere, and the rows are what the updates that are left make of them.

use crate::pond::{Pond, Sent, Shape};
use millpond::kafka::admin::Admin;
use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::Value;
use std::time::Duration;

const APP: &str = "5eb5a37e-b458-11e3-ac11-000c2940e62c";
const ANSWER: Duration = Duration::from_secs(10);
/// The broker rolls a segment, and cleans it, within this time.
const COMPACTED: Duration = Duration::from_secs(20);
/// The cleaner of the tests' broker looks for work once a second.
const CLEANER_PAUSE: Duration = Duration::from_secs(2);
const ROWS: u128 = 20;

fn shape() -> Shape {
    Shape {
        partitions: 4,
        shards: 1,
        ..Shape::default()
    }
}

fn row(number: u128) -> String {
    uuid::Uuid::from_u128(number % ROWS).to_string()
}

fn update(number: u128) -> String {
    let row = row(number);
    format!(r#"{{"app_id":"{APP}","subscription_id":"{row}","counts":{{"n":1}}}}"#)
}

/// The sum of all counts.
fn counted(pond: &Pond) -> i64 {
    let sum = "SELECT COALESCE(sum((counts->>'n')::int8), 0)::int8 FROM subscription";
    pond.shard(0).query_one(sum, &[]).unwrap().get(0)
}

fn assert_no_lag(pond: &Pond) {
    let lag = pond.command(&["lag", "--format", "json"]).json();
    let lags: Vec<&Value> = lag
        .as_array()
        .unwrap()
        .iter()
        .map(|of| &of["lag"])
        .collect();
    // Partitions that nothing was sent to have no committed offset, so no lag either.
    assert!(lags.iter().all(|lag| **lag == 0 || lag.is_null()), "{lag}");
    assert!(lags.contains(&&Value::from(0)), "{lag}");
}

/// Every third transaction is aborted, and the last one: the partition ends with records that nobody gets.
#[test]
fn aborted_updates_are_not_applied_and_their_markers_are_no_lag() {
    let pond = Pond::new("transactions", &shape());
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", pond.configuration().kafka.brokers)
        .set("transactional.id", &pond.topic)
        .create()
        .unwrap();
    producer.init_transactions(ANSWER).unwrap();
    let partition = pond.partition_of(APP);
    let mut committed = 0;
    for transaction in 0..30_u128 {
        producer.begin_transaction().unwrap();
        for number in 0..50 {
            let (key, value) = (row(number), update(number));
            let record = BaseRecord::to(&pond.topic)
                .partition(partition)
                .key(&key)
                .payload(&value);
            producer.send(record).map_err(|(error, _)| error).unwrap();
        }
        if transaction % 3 == 2 {
            // What was not sent yet would not leave a gap.
            producer.flush(ANSWER).unwrap();
            producer.abort_transaction(ANSWER).unwrap();
        } else {
            producer.commit_transaction(ANSWER).unwrap();
            committed += 50;
        }
    }
    let summary = pond.catch_up();
    assert_eq!(summary["messages"], committed, "{summary}");
    assert_eq!(counted(&pond), committed);
    assert_no_lag(&pond);
    pond.assert_exact();
}

/// Records that a reader gets from the topic.
fn left(pond: &Pond) -> u64 {
    let report = pond
        .command(&["run", "--until-caught-up", "--sink", "discard"])
        .json();
    report["messages"].as_u64().unwrap()
}

#[test]
fn a_compacted_topic_is_warned_of_and_read_past_its_gaps() {
    let pond = Pond::without_init("compacted", &shape());
    let kafka = pond.configuration().kafka;
    let settings = [
        ("cleanup.policy", "compact"),
        ("segment.ms", "200"),
        ("min.cleanable.dirty.ratio", "0.01"),
    ];
    let admin = Admin::connect(&kafka).unwrap();
    assert!(
        admin
            .create_topic(&pond.topic, 4, &settings, ANSWER)
            .unwrap()
    );
    let init = pond.command(&["init"]);
    assert!(init.status.success(), "{}", init.stderr);
    let partition = pond.partition_of(APP);
    let produce = |numbers: std::ops::Range<u128>, tombstones: bool| {
        let updates: Vec<_> = numbers
            .map(|number| (row(number), update(number)))
            .collect();
        let sent = updates.iter().map(|(key, value)| Sent {
            partition,
            key: Some(key.as_str()),
            value: (!tombstones).then_some(value.as_str()),
            headers: &[],
        });
        pond.produce(&sent.collect::<Vec<_>>());
    };
    produce(0..60, false);
    produce(0..5, true);
    // The newest segment is never compacted, so something is sent after it is due.
    let sent = 60 + 5;
    let mut more = 0;
    pond.wait_for("the broker compacts the topic", COMPACTED, |pond| {
        std::thread::sleep(Duration::from_millis(500));
        produce(10..11, false);
        more += 1;
        left(pond) < sent / 2 + more
    });
    // Nothing changes any more once the cleaner has been through what was sent last.
    pond.wait_for("the cleaner is done", COMPACTED, |pond| {
        let before = left(pond);
        std::thread::sleep(CLEANER_PAUSE);
        left(pond) == before
    });
    let process = pond.start(&["run", "--until-caught-up"], &[]);
    let ended = process.wait(Duration::from_secs(30));
    let summary = ended.json();
    assert!(
        summary["messages"].as_u64().unwrap() < sent + more,
        "{summary}"
    );
    assert!(ended.stderr.contains("cleanup.policy"), "{}", ended.stderr);
    assert_no_lag(&pond);
    let verdict = pond.assert_exact();
    assert_eq!(verdict["messages_read"], summary["messages"], "{verdict}");
}
