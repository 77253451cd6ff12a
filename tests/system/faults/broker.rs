//! Kafka is killed, or stands still for longer than a session.

use super::trial::{Load, Trial, pond};
use crate::services::{Harm, Trouble};
use std::time::Duration;

#[test]
fn a_killed_broker_is_waited_for() {
    let (mut trial, consumer) = Trial::running(pond("kafka-killed", ""), &Load::default());
    let killed = Trouble::begin("kafka", Harm::Killed);
    // What was fetched ahead is still applied.
    std::thread::sleep(Duration::from_millis(500));
    let received = |trial: &Trial| trial.reading().sum("millpond_received_messages_total");
    let before = received(&trial);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(
        received(&trial),
        before,
        "nothing comes from a killed broker"
    );
    let start = killed.end();
    let recovery = trial.recover();
    let observed = format!(
        "0 messages in 2 s; its start took {:.1} s",
        start.as_secs_f64()
    );
    let ended = trial.conclude("kafka killed", &observed, recovery, consumer);
    assert!(
        ended.stderr.contains("kafka"),
        "the log says so: {}",
        ended.stderr
    );
}

/// The session ends on both sides: the consumer gives its partitions up, joins again and is given them anew.
#[test]
fn a_broker_frozen_past_the_session_gives_the_partitions_anew() {
    let (mut trial, consumer) = Trial::running(pond("kafka-frozen", ""), &Load::default());
    let rebalances = |trial: &Trial| trial.reading().sum("millpond_rebalances_total").unwrap();
    let before = rebalances(&trial);
    let frozen = Trouble::begin("kafka", Harm::Frozen);
    trial.wait_for("the session is over", |now| {
        now.sum("millpond_assigned_partitions") == Some(0.0)
    });
    frozen.end();
    trial.wait_for("the partitions are assigned anew", |now| {
        now.sum("millpond_assigned_partitions") == Some(12.0)
    });
    assert!(rebalances(&trial) >= before + 2.0, "lost, and assigned");
    let recovery = trial.recover();
    trial.conclude(
        "kafka frozen",
        "12 partitions lost and assigned anew",
        recovery,
        consumer,
    );
}
