//! A broker that lacks the end of a log leads it, and others write in its place: the offsets are the same, the updates are not. A group that
//! has committed beyond must not pass over them, whether it finds out at once or much later.

use super::Cluster;
use crate::pond::{Pond, Shape};
use crate::reading::Reading;
use millpond::kafka::admin::Admin;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(90);
/// Each question to the brokers ends by then.
const ANSWER: Duration = Duration::from_secs(10);
const APP: &str = "5eb5a37e-b458-11e3-ac11-000c2940e62c";
const ROWS: u128 = 20;
/// The two with the topic's replicas, by their ids; the third keeps the group, and the controllers' majority.
const REPLICAS: [(&str, i32); 2] = [("kafka-1", 2), ("kafka-2", 3)];

/// A log with two replicas, of which one is enough.
struct Trial {
    cluster: Cluster,
    pond: Pond,
    partition: i32,
}

impl Trial {
    fn begin() -> Self {
        let cluster = Cluster::begin();
        let shape = Shape {
            partitions: 4,
            shards: 1,
            brokers: Some(cluster.brokers.clone()),
            ..Shape::default()
        };
        let pond = Pond::without_init("unclean", &shape);
        let replicas = REPLICAS.map(|(_, id)| id.to_string()).join(":");
        let created = cluster.tell(
            "kafka-tool",
            &[
                "TopicCommand",
                "--bootstrap-server",
                &cluster.brokers,
                "--create",
                "--topic",
                &pond.topic,
                "--replica-assignment",
                &[replicas.as_str(); 4].join(","),
                "--config",
                "min.insync.replicas=1",
                "--config",
                "unclean.leader.election.enable=true",
            ],
        );
        assert!(created, "the topic is not created");
        pond.good(&["init"]);
        let partition = pond.partition_of(APP);
        Self {
            cluster,
            pond,
            partition,
        }
    }

    /// Updates that each count once under that name.
    fn write(&self, name: &str, count: u128) {
        let updates: Vec<_> = (0..count)
            .map(|number| {
                let row = uuid::Uuid::from_u128(number % ROWS).to_string();
                let update = format!(
                    r#"{{"app_id":"{APP}","subscription_id":"{row}","counts":{{"{name}":1}}}}"#
                );
                (row, update)
            })
            .collect();
        self.pond.produce_to(self.partition, &updates);
    }

    /// How many updates of that name took effect.
    fn counted(&self, name: &str) -> i64 {
        let sum =
            format!("SELECT COALESCE(sum((counts->>'{name}')::int8), 0)::int8 FROM subscription");
        self.pond.shard(0).query_one(&sum, &[]).unwrap().get(0)
    }

    fn end(&self) -> Option<i64> {
        let admin = Admin::connect(&self.pond.configuration().kafka).ok()?;
        let ends = admin.end_offsets(&self.pond.topic, ANSWER).ok()?;
        ends.get(usize::try_from(self.partition).ok()?).copied()
    }

    fn wait_for_end(&self, wanted: i64) {
        let what = format!("the log ends at {wanted}");
        self.pond
            .wait_for(&what, SOON, |_| self.end() == Some(wanted));
    }

    /// Whether a broker has all that its leader has.
    fn is_in_sync(&self, (_, id): (&str, i32)) -> bool {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &self.cluster.brokers)
            .create()
            .unwrap();
        let Ok(metadata) = consumer.fetch_metadata(Some(&self.pond.topic), ANSWER) else {
            return false;
        };
        let mut partitions = metadata.topics()[0].partitions().iter();
        partitions
            .any(|partition| partition.id() == self.partition && partition.isr().contains(&id))
    }

    fn committed(&self) -> Option<i64> {
        self.pond.committed()[usize::try_from(self.partition).unwrap()]
    }

    fn alarm(&self) -> f64 {
        let partition = self.partition.to_string();
        Reading::take(self.pond.admin_port).map_or(0.0, |now| {
            now.sum_of("millpond_partition_alarm", &[("partition", &partition)])
        })
    }
}

/// First while nobody reads, and the log grows beyond what was committed; then while a consumer runs, the other way round.
#[test]
fn what_is_written_in_place_of_a_log_that_was_cut_off_is_not_passed_over() {
    let trial = Trial::begin();
    let (pond, cluster) = (&trial.pond, &trial.cluster);
    let [(leader, _), (follower, _)] = REPLICAS;
    trial.write("a", 300);
    assert!(cluster.tell("kill", &[follower]));
    trial.write("b", 100);
    pond.catch_up();
    assert_eq!((trial.counted("b"), trial.committed()), (100, Some(400)));
    assert!(cluster.tell("kill", &[leader]));
    assert!(cluster.tell("start", &[follower]));
    trial.wait_for_end(300);
    trial.write("c", 250);

    let process = pond.start(&["run"], &[]);
    pond.wait_for("the cut is noticed", SOON, |_| trial.alarm() == 1.0);
    let ended = process.terminate(SOON);
    assert!(ended.stderr.contains("stands still"), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("truncation detected"),
        "{}",
        ended.stderr
    );
    assert_eq!((trial.counted("c"), trial.committed()), (0, Some(400)));

    pond.reconfigure("[consumer]", "[consumer]\non_lost_records = \"skip\"");
    let process = pond.start(&["run"], &[]);
    pond.wait_for("what came instead is applied", SOON, |_| {
        trial.counted("c") == 250 && trial.committed() == Some(550)
    });

    // Now the other one is behind, and the consumer is there.
    assert!(cluster.tell("start", &[leader]));
    trial.write("d", 100);
    pond.wait_for("both replicas have all", SOON, |_| {
        trial.is_in_sync(REPLICAS[0])
    });
    assert!(cluster.tell("kill", &[leader]));
    trial.write("e", 100);
    pond.wait_for("what will be lost is applied", SOON, |_| {
        trial.counted("e") == 100
    });
    assert!(cluster.tell("kill", &[follower]));
    assert!(cluster.tell("start", &[leader]));
    trial.wait_for_end(650);
    trial.write("f", 250);
    pond.wait_for("what came instead is applied", SOON, |_| {
        trial.counted("f") == 250 && trial.committed() == Some(900)
    });
    assert_eq!(trial.alarm(), 1.0, "somebody should see it");
    let ended = process.terminate(SOON);
    assert!(ended.status.success(), "{}", ended.stderr);
    let counts = ["a", "b", "c", "d", "e", "f"].map(|name| trial.counted(name));
    assert_eq!(counts, [300, 100, 250, 100, 100, 250]);
}
