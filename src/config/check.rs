//! From written to checked: each setting by itself, then the relations between them. Bounds stand beside the field that
//! they are for, with the accident that they prevent; messages repeat it.

use super::checked::{
    Admin, Config, Consumer, Hot, Ingest, Kafka, LogForm, OnLostRecords, OnMissingRow, PartitionBy,
    Rules, Start, Telemetry,
};
use super::core_groups::core_groups;
use super::ingest::ingest;
use super::keys;
use super::passthrough::librdkafka;
use super::problem::{ConfigError, Problem};
use super::reader::Reader;
use super::shard;
use super::table;
use super::written::Written;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// The configuration and its warnings. `environment` is where `postgres_password_env` looks.
pub(super) fn check(
    written: &Written,
    environment: &[(String, String)],
) -> Result<(Config, Vec<Problem>), ConfigError> {
    let mut read = Reader::new(written);
    let kafka = kafka(&mut read);
    let partitions = read.whole(
        "kafka.partitions",
        1..=100_000,
        "more than a cluster bears; 720 divides evenly by many counts of shards and consumers",
    );
    let table = table::table(&mut read);
    let consumer = consumer(&mut read);
    let rules = rules(&mut read);
    let hot = hot(&mut read);
    let ingest = ingest(&mut read);
    let admin = admin(&mut read);
    let telemetry = telemetry(&mut read);
    let shards = shard::shards(&mut read, environment);
    read.finish()?;

    let partitioner = shard::partitioner(&mut read, &shards, partitions);
    relations_of_kafka(&mut read, &kafka, &consumer, shards.len());
    relations_of_sizes(&mut read, &consumer, &ingest);
    if let Some(table) = &table {
        table::relations(&mut read, table, &kafka, consumer.on_missing_row);
    }
    read.finish()?;

    let config = Config {
        kafka,
        shards,
        partitioner: partitioner.expect("without problems there is one"),
        table: table.map(Arc::new),
        consumer,
        rules,
        hot,
        ingest,
        admin,
        telemetry,
    };
    Ok((config, read.warnings))
}

fn kafka(read: &mut Reader<'_>) -> Kafka {
    let topic = read.parsed("kafka.topic", topic_name);
    // It may follow from the topic, and then the topic's problem would be told twice.
    let dead_letter_topic = topic
        .as_ref()
        .and_then(|_| read.parsed(keys::DEAD_LETTER_TOPIC, topic_name));
    Kafka {
        brokers: read.parsed("kafka.brokers", brokers).unwrap_or_default(),
        topic: topic.unwrap_or_default(),
        group: read.parsed("kafka.group", group).unwrap_or_default(),
        partition_by: read.choice(
            "kafka.partition_by",
            [("app", PartitionBy::App), ("any", PartitionBy::Any)],
        ),
        incarnation: read.whole(
            "kafka.incarnation",
            1..=i64::from(i32::MAX),
            "it is stored in each row, as a 32-bit number that only grows",
        ),
        start: read.choice(
            "kafka.start",
            [("earliest", Start::Earliest), ("latest", Start::Latest)],
        ),
        dead_letter_topic: dead_letter_topic.unwrap_or_default(),
        librdkafka: librdkafka(read),
    }
}

fn brokers(text: &str) -> Result<String, String> {
    let legal = |broker: &str| {
        let address = broker.trim();
        let port = address.rsplit_once(':').map(|(_, port)| port);
        let has_host = !address.is_empty() && !address.starts_with(':');
        has_host && !address.contains(' ') && port.is_none_or(|port| port.parse::<u16>().is_ok())
    };
    if text.split(',').all(legal) {
        Ok(text.to_owned())
    } else {
        Err("allowed is host:port, several separated by commas".to_owned())
    }
}

fn topic_name(text: &str) -> Result<String, String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if (1..=249).contains(&text.len()) && text.chars().all(legal) && text != "." && text != ".." {
        Ok(text.to_owned())
    } else {
        Err("allowed by Kafka are 1 to 249 of a-z, A-Z, 0-9, '.', '_' and '-'".to_owned())
    }
}

fn group(text: &str) -> Result<String, String> {
    if (1..=249).contains(&text.len()) && !text.chars().any(char::is_control) {
        Ok(text.to_owned())
    } else {
        Err("allowed is a name of 1 to 249 bytes".to_owned())
    }
}

fn consumer(read: &mut Reader<'_>) -> Consumer {
    Consumer {
        core_groups: core_groups(read),
        in_memory_max_per_partition: read.whole(
            "consumer.in_memory_max_per_partition",
            1..=1_048_576,
            "a slot is kept for each, and all of them are replayed after a crash",
        ),
        in_memory_bytes_max: read.bytes(
            "consumer.in_memory_bytes_max",
            1 << 20..=1 << 40,
            "with less, partitions hold one message each; more than a machine has is no bound",
        ),
        message_max_bytes: read.bytes(
            "consumer.message_max_bytes",
            1 << 10..=16 << 20,
            "with less, ordinary updates are dead letters; a larger one holds its whole batch up",
        ),
        batch_rows_max: read.whole(
            "consumer.batch_rows_max",
            1..=30_000,
            "a statement holds its rows until it ends, and more rows make it no cheaper",
        ),
        batch_linger: milliseconds(
            read,
            "consumer.batch_linger_ms",
            0..=1000,
            "each update waits that long",
        ),
        commit_interval: milliseconds(
            read,
            "consumer.commit_interval_ms",
            10..=60_000,
            "more often loads the brokers, less often replays more after a crash",
        ),
        drain_deadline: seconds(
            read,
            "consumer.drain_deadline_s",
            1..=300,
            "what ends processes does not wait longer: systemd 90 s, Kubernetes 30 s",
        ),
        revoke_deadline: seconds(
            read,
            "consumer.revoke_deadline_s",
            1..=60,
            "the group waits for it at each rebalance, and Kafka drops members that take minutes",
        ),
        on_missing_row: read.choice(
            "consumer.on_missing_row",
            [
                ("insert", OnMissingRow::Insert),
                ("skip", OnMissingRow::Skip),
            ],
        ),
        on_lost_records: read.choice(
            "consumer.on_lost_records",
            [("stop", OnLostRecords::Stop), ("skip", OnLostRecords::Skip)],
        ),
    }
}

fn milliseconds(
    read: &mut Reader<'_>,
    name: &str,
    bounds: std::ops::RangeInclusive<i64>,
    why: &str,
) -> Duration {
    Duration::from_millis(read.whole(name, bounds, why))
}

pub(super) fn seconds(
    read: &mut Reader<'_>,
    name: &str,
    bounds: std::ops::RangeInclusive<i64>,
    why: &str,
) -> Duration {
    Duration::from_secs(read.whole(name, bounds, why))
}

fn rules(read: &mut Reader<'_>) -> Rules {
    let links = read.whole(
        "rules.links_per_parent_max",
        0..=i64::from(i32::MAX),
        "children are counted in 32 bits; 0 is no limit",
    );
    Rules {
        links_per_parent_max: Some(links).filter(|links| *links > 0),
    }
}

fn hot(read: &mut Reader<'_>) -> Hot {
    let why = "it is the share of its shard's messages above which one is warned of; 0 is never";
    Hot {
        warn_share: read.ratio("hot.warn_share", why),
        warn_app_share: read.ratio("hot.warn_app_share", why),
    }
}

pub(super) fn listen(read: &mut Reader<'_>, name: &str) -> SocketAddr {
    read.parsed(name, |text| {
        text.parse()
            .map_err(|_| "allowed is ADDRESS:PORT, like 127.0.0.1:8080 or [::]:8080".to_owned())
    })
    .unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)))
}

fn admin(read: &mut Reader<'_>) -> Admin {
    Admin {
        listen: listen(read, "admin.listen"),
        token: read.secret("admin.token"),
        peers: peers(read),
    }
}

/// Each is asked every second while somebody looks at the status page.
const PEERS_MAX: usize = 64;

fn peers(read: &mut Reader<'_>) -> Vec<String> {
    let name = "admin.peers";
    let peers = read.list(name);
    if peers.len() > PEERS_MAX {
        let text = format!(
            "found {}, allowed are {PEERS_MAX}: each is asked every second while somebody looks",
            peers.len()
        );
        read.refuse(name, text);
    }
    let is_address = |peer: &String| {
        let parts = peer.rsplit_once(':');
        let legal = |c: char| c.is_ascii_alphanumeric() || ".-_[]:".contains(c);
        parts.is_some_and(|(host, port)| {
            !host.is_empty()
                && host.chars().all(legal)
                && port.parse::<u16>().is_ok_and(|port| port > 0)
        })
    };
    if let Some(wrong) = peers.iter().find(|peer| !is_address(peer)) {
        read.refuse(
            name,
            format!("found {wrong:?}, allowed is host:port, the admin address of another process"),
        );
    }
    peers
}

fn telemetry(read: &mut Reader<'_>) -> Telemetry {
    let endpoint = read.parsed("telemetry.otlp_endpoint", |text| {
        if text.is_empty() || text.starts_with("http://") || text.starts_with("https://") {
            Ok(text.to_owned())
        } else {
            Err(
                "allowed is a URL that begins with http:// or https://, or \"\" for none"
                    .to_owned(),
            )
        }
    });
    Telemetry {
        log: read.choice(
            "telemetry.log",
            [("json", LogForm::Json), ("text", LogForm::Text)],
        ),
        level: read.text("telemetry.level"),
        applied_sample: read.whole(
            "telemetry.applied_sample",
            0..=1_000_000_000,
            "one applied update in so many is logged, 0 for none",
        ),
        otlp_endpoint: endpoint.filter(|text| !text.is_empty()),
        sample_ratio: read.ratio(
            "telemetry.sample_ratio",
            "it is the share of messages that is traced",
        ),
    }
}

fn relations_of_kafka(read: &mut Reader<'_>, kafka: &Kafka, consumer: &Consumer, shards: usize) {
    if kafka.dead_letter_topic == kafka.topic {
        read.refuse(
            keys::DEAD_LETTER_TOPIC,
            "is the topic of updates, so each dead letter would be read and refused again, for ever; \
             name another",
        );
    }
    if kafka.partition_by == PartitionBy::Any && shards > 1 {
        read.refuse(
            "kafka.partition_by",
            format!(
                "found any, but there are {shards} shards: a partition must belong to one; \
                 say \"app\", or keep one shard"
            ),
        );
    }
    let poll_interval = kafka
        .librdkafka
        .iter()
        .find(|(name, _)| name == "max.poll.interval.ms")
        .and_then(|(_, value)| value.parse().ok())
        .map(Duration::from_millis);
    if poll_interval.is_some_and(|interval| interval < consumer.revoke_deadline * 2) {
        read.refuse(
            "consumer.revoke_deadline_s",
            format!(
                "found {}, more than half of librdkafka's max.poll.interval.ms, after which Kafka \
                 drops the member; lower the one or raise the other",
                consumer.revoke_deadline.as_secs()
            ),
        );
    }
}

fn relations_of_sizes(read: &mut Reader<'_>, consumer: &Consumer, ingest: &Ingest) {
    let found = |read: &Reader<'_>, name: &str| format!("{name} ({})", read.found(name));
    let message_max = u64::try_from(consumer.message_max_bytes).expect("64 bits");
    if message_max > consumer.in_memory_bytes_max {
        let text = format!(
            "found {}, more than {}: one message must fit; lower the one or raise the other",
            read.found("consumer.message_max_bytes"),
            found(read, "consumer.in_memory_bytes_max")
        );
        read.refuse("consumer.message_max_bytes", text);
    }
    if ingest.body_max_bytes > consumer.message_max_bytes {
        let text = format!(
            "found {}, more than {}: an update that was accepted would become a dead letter; \
             lower the one or raise the other",
            read.found("ingest.body_max_bytes"),
            found(read, "consumer.message_max_bytes")
        );
        read.refuse("ingest.body_max_bytes", text);
    }
}
