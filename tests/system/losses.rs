//! Records are gone from the log before they were read: their partition stands still with an alarm until somebody has decided,
//! or goes on behind them. The others go on.

use crate::pond::{Pond, Shape};
use crate::reading::Reading;
use millpond::ids::Partition;
use millpond::kafka::admin::Admin;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);
/// Each question to the broker ends by then.
const ANSWER: Duration = Duration::from_secs(10);

fn pond(name: &str, consumer: &'static str) -> Pond {
    let shape = Shape {
        partitions: 4,
        shards: 1,
        consumer,
        ..Shape::default()
    };
    Pond::new(name, &shape)
}

fn ends(pond: &Pond) -> Vec<i64> {
    let admin = Admin::connect(&pond.configuration().kafka).unwrap();
    admin.end_offsets(&pond.topic, ANSWER).unwrap()
}

/// Partition 0 loses its records below the offset, as if they had been kept for too short a time.
fn lose(pond: &Pond, below: i64) {
    let admin = Admin::connect(&pond.configuration().kafka).unwrap();
    let lost = [(Partition(0), below)];
    admin
        .delete_records_below(&pond.topic, &lost, ANSWER)
        .unwrap();
}

fn of_partition_0(now: &Reading, metric: &str) -> f64 {
    now.sum_of(metric, &[("partition", "0")])
}

fn lag(now: &Reading) -> f64 {
    now.sum("millpond_lag_messages").unwrap_or(f64::MAX)
}

/// Waits until nothing is left to do, except maybe in partition 0.
fn wait_for_the_others(pond: &Pond) {
    pond.wait_for("the others are applied", SOON, |pond| {
        Reading::take(pond.admin_port).is_some_and(|now| {
            let assigned = now.sum("millpond_assigned_partitions") == Some(4.0);
            let own = of_partition_0(&now, "millpond_lag_messages");
            assigned && of_partition_0(&now, "millpond_partition_alarm") == 1.0 && lag(&now) == own
        })
    });
}

#[test]
fn records_lost_while_nobody_read_stop_their_partition_in_each_life_until_somebody_decides() {
    let pond = pond("losses", "");
    pond.load(&["--messages", "4000", "--rows", "300"]);
    pond.catch_up();
    pond.load(&["--messages", "4000", "--rows", "300", "--seed", "7"]);
    let committed = pond.committed();
    let gap = committed[0].unwrap() + 100;
    lose(&pond, gap);
    for _life in 0..2 {
        let process = pond.start(&["run"], &[]);
        wait_for_the_others(&pond);
        let ended = process.terminate(SOON);
        assert!(ended.stderr.contains("stands still"), "{}", ended.stderr);
    }
    let (now, ends) = (pond.committed(), ends(&pond));
    assert_eq!(now[0], committed[0], "nothing is committed past the gap");
    assert!(now[1..].iter().flatten().eq(&ends[1..]), "{now:?} {ends:?}");
    pond.reconfigure("[consumer]", "[consumer]\non_lost_records = \"skip\"");
    let applied = pond.catch_up();
    assert_eq!(applied["messages"], ends[0] - gap);
}

#[test]
fn records_lost_while_it_runs_are_skipped_where_that_is_configured() {
    let pond = pond(
        "losses-skip",
        "in_memory_max_per_partition = 64\non_lost_records = \"skip\"",
    );
    pond.load(&["--messages", "4000", "--rows", "300"]);
    pond.catch_up();
    let mut locker = pond.shard(0);
    locker
        .batch_execute("BEGIN; LOCK TABLE subscription")
        .unwrap();
    // Little is fetched ahead, so that most of what follows is still in Kafka alone.
    let little = [
        "-X",
        "queued.min.messages=1",
        "-X",
        "fetch.message.max.bytes=1000",
    ];
    let process = pond.start(&[&["run"], &little[..]].concat(), &[]);
    pond.load(&["--messages", "200000", "--rows", "300", "--seed", "7"]);
    pond.wait_for("all partitions are full", SOON, |pond| {
        pond.metric("millpond_in_memory_messages") == Some(4.0 * 64.0)
    });
    let ends = ends(&pond);
    lose(&pond, ends[0] - 10);
    locker.batch_execute("ROLLBACK").unwrap();
    pond.wait_for("the rest is applied", SOON, |pond| {
        pond.metric("millpond_lag_messages") == Some(0.0)
    });
    let now = Reading::take(pond.admin_port).unwrap();
    assert_eq!(of_partition_0(&now, "millpond_partition_alarm"), 1.0);
    let applied = now.sum("millpond_messages_total").unwrap();
    assert!(
        (150_000.0..200_000.0).contains(&applied),
        "{applied} applied"
    );
    let ended = process.terminate(SOON);
    assert!(
        ended.stderr.contains("going on behind them"),
        "{}",
        ended.stderr
    );
    assert!(pond.committed().iter().flatten().eq(&ends));
}
