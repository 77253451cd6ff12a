//! Three brokers, of which one after the other is killed and comes back: leaders, the group's coordinator and the controller move.
//! They are this test's own; the shards are those of all.
//!
//! - [`unclean`]: a broker that lacks the end of a log leads it

use crate::faults::trial::{Load, RATE, Trial, applied};
use crate::pond::{Pond, SHARDS, Shape};
use crate::services;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

mod unclean;

const BROKERS: [&str; 3] = ["kafka", "kafka-1", "kafka-2"];
/// How long a broker is away: more than a session, so that everybody has to notice.
const AWAY: Duration = Duration::from_secs(4);
/// One that came back follows again before the next one goes.
const FOLLOWS: Duration = Duration::from_secs(1);

/// Two clusters at once would be too much for a small machine.
static ALONE: Mutex<()> = Mutex::new(());

/// Ended when dropped; one at a time.
struct Cluster {
    directory: PathBuf,
    brokers: String,
    _alone: MutexGuard<'static, ()>,
}

impl Cluster {
    fn begin() -> Self {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let directory = services::directory().join("cluster");
        let mut cluster = Self {
            directory,
            brokers: String::new(),
            _alone: alone,
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
        let mut command = services::tell(&self.directory, verb);
        command.args(more).status().unwrap().success()
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
        seconds: 40,
        ..Load::default()
    };
    let (mut trial, consumer) = Trial::running(Pond::new("cluster", &shape), &load);
    let all = f64::from(RATE * load.seconds);
    for broker in BROKERS {
        assert!(cluster.tell("kill", &[broker]), "{broker}");
        std::thread::sleep(AWAY);
        // The other two lead what it led.
        for shard in SHARDS {
            let so_far = applied(&trial.reading(), shard);
            let what = format!("{shard} goes on without {broker}");
            trial.wait_for(&what, |now| {
                // On a slow machine the load may be over before the last broker goes.
                let is_over = SHARDS.map(|shard| applied(now, shard)).iter().sum::<f64>() >= all;
                applied(now, shard) > so_far + 500.0 || is_over
            });
        }
        assert!(cluster.tell("start", &[broker]), "{broker}");
        std::thread::sleep(FOLLOWS);
    }
    let recovery = trial.recover();
    let observed = format!("{AWAY:?} without each, and both shards went on");
    trial.conclude(
        "each of three brokers killed",
        &observed,
        recovery,
        consumer,
    );
}
