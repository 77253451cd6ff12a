//! Three brokers, of which one after the other is killed and comes back: leaders, the group's coordinator and the controller move.
//! They are this test's own; the shards are those of all.

use crate::faults::trial::{Load, Trial};
use crate::pond::{Pond, Shape};
use crate::services::directory;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

const BROKERS: [&str; 3] = ["kafka", "kafka-1", "kafka-2"];
/// How long a broker is away: more than a session, so that everybody has to notice.
const AWAY: Duration = Duration::from_secs(4);
/// One that came back follows again before the next one goes.
const FOLLOWS: Duration = Duration::from_secs(3);

/// Ended when dropped.
struct Cluster {
    directory: PathBuf,
    brokers: String,
}

impl Cluster {
    fn begin() -> Self {
        let directory = directory().join("cluster");
        let mut cluster = Self {
            directory,
            brokers: String::new(),
        };
        assert!(cluster.tell("up", &["--shards", "0", "--brokers", "3"]));
        let environment = std::fs::read_to_string(cluster.directory.join("env")).unwrap();
        let brokers = environment
            .lines()
            .find_map(|line| line.strip_prefix("export MILLPOND_TEST_KAFKA="));
        brokers.unwrap().clone_into(&mut cluster.brokers);
        cluster
    }

    fn tell(&self, verb: &str, more: &[&str]) -> bool {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/services");
        let mut command = Command::new(script);
        command.arg(verb).arg(&self.directory).args(more);
        command.status().unwrap().success()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.tell("down", &[]);
    }
}

#[test]
fn each_of_three_brokers_may_go_and_come_back() {
    let cluster = Cluster::begin();
    let shape = Shape {
        brokers: Some(cluster.brokers.clone()),
        ..Shape::default()
    };
    let load = Load {
        seconds: 30,
        ..Load::default()
    };
    let (mut trial, consumer) = Trial::running(Pond::new("cluster", &shape), &load);
    let mut errors = Vec::new();
    for broker in BROKERS {
        let before = trial.reading().sum_of("millpond_kafka_errors_total", &[]);
        assert!(cluster.tell("kill", &[broker]), "{broker}");
        std::thread::sleep(AWAY);
        // The other two lead what it led.
        trial.wait_for("both shards go on without it", |now| {
            now.sum_of("millpond_kafka_errors_total", &[]) > before
        });
        for shard in ["s0", "s1"] {
            let so_far = crate::faults::trial::applied(&trial.reading(), shard);
            trial.wait_for("both shards go on without it", |now| {
                crate::faults::trial::applied(now, shard) > so_far + 500.0
            });
        }
        errors.push(trial.reading().sum_of("millpond_kafka_errors_total", &[]) - before);
        assert!(cluster.tell("start", &[broker]), "{broker}");
        std::thread::sleep(FOLLOWS);
    }
    let recovery = trial.recover();
    let observed = format!("{errors:?} errors told by the client, one broker after the other");
    trial.conclude(
        "each of three brokers killed",
        &observed,
        recovery,
        consumer,
    );
}
