//! Something is missing, away, or another one: a clear message that says what to do, or waiting.

use crate::pond::{Pond, Shape};
use crate::services::{Harm, Trouble};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

fn small() -> Shape {
    Shape {
        partitions: 4,
        ..Shape::default()
    }
}

/// `run` ends with 1 and says these words.
fn assert_refuses(pond: &Pond, words: &[&str]) {
    let ended = pond.start(&["run"], &[]).wait(SOON);
    assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
    for word in words {
        assert!(
            ended.stderr.contains(word),
            "{word:?} is not in:\n{}",
            ended.stderr
        );
    }
}

#[test]
fn a_missing_topic_is_named() {
    let pond = Pond::without_init("no-topic", &small());
    assert_refuses(&pond, &[&pond.topic, "is not there", "millpond init"]);
}

#[test]
fn other_partitions_than_configured_are_named() {
    let pond = Pond::new("partitions", &small());
    pond.reconfigure("partitions = 4", "partitions = 8");
    assert_refuses(&pond, &["has 4 partitions", "kafka.partitions says 8"]);
    let init = pond.command(&["init"]);
    assert_eq!(init.status.code(), Some(1));
    assert!(
        init.stderr.contains("nothing was changed"),
        "{}",
        init.stderr
    );
}

#[test]
fn missing_tables_and_other_columns_are_named() {
    let pond = Pond::new("tables", &small());
    pond.shard(1)
        .batch_execute("ALTER TABLE subscription ALTER counts TYPE json; DROP TABLE refused")
        .unwrap();
    assert_refuses(
        &pond,
        &[
            "shard s1",
            "subscription.counts is json, not jsonb",
            "table refused is missing",
        ],
    );
    let init = pond.command(&["init"]);
    assert_eq!(init.status.code(), Some(1), "what differs is never changed");
    assert!(
        init.stderr
            .contains("subscription.counts is json, not jsonb"),
        "{}",
        init.stderr
    );
}

#[test]
fn init_run_again_changes_nothing() {
    let pond = Pond::new("again", &small());
    let again = pond.command(&["init"]);
    assert!(again.status.success(), "{}", again.stderr);
    assert!(!again.stdout.contains("made"), "{}", again.stdout);
}

#[test]
fn a_topic_made_anew_is_refused_until_the_incarnation_is_raised() {
    let pond = Pond::new("anew", &small());
    pond.load(&["--messages", "1000", "--rows", "50"]);
    pond.catch_up();
    pond.delete_topics();
    assert!(
        pond.command(&["init"]).stderr.contains("made anew"),
        "init makes the topic, and says what it means"
    );
    assert_refuses(
        &pond,
        &["was deleted and made anew", "kafka.incarnation = 2"],
    );
    pond.reconfigure("partitions = 4", "partitions = 4\nincarnation = 2");
    let before: i64 = counts(&pond);
    pond.load(&["--messages", "1000", "--rows", "50"]);
    pond.catch_up();
    assert_ne!(
        counts(&pond),
        before,
        "low offsets of the new life are not taken for replays"
    );
    // An old configuration must not write any more.
    pond.reconfigure("incarnation = 2", "incarnation = 1");
    assert_refuses(&pond, &["kafka.incarnation = 2", "old configuration"]);
}

fn counts(pond: &Pond) -> i64 {
    let sum =
        "SELECT COALESCE(sum(value::int8), 0)::int8 FROM subscription, jsonb_each_text(counts)";
    (0..2)
        .map(|shard| {
            pond.shard(shard)
                .query_one(sum, &[])
                .unwrap()
                .get::<_, i64>(0)
        })
        .sum()
}

#[test]
fn another_map_of_shards_is_refused() {
    let pond = Pond::new("map", &small());
    pond.reconfigure("00-7f", "00-8f");
    pond.reconfigure("80-ff", "90-ff");
    assert_refuses(&pond, &["the map of apps to shards is another one"]);
}

/// One of two Postgres is away at the start, comes, and is killed and started again in the middle.
#[test]
fn postgres_away_at_the_start_and_later_is_waited_for() {
    let pond = Pond::new("postgres-away", &small());
    pond.load(&["--messages", "60000", "--rows", "3000"]);
    let away = Trouble::begin("postgres-1", Harm::Killed);
    let mut process = pond.start(&["run"], &[]);
    pond.wait_for("the admin address answers", SOON, |pond| {
        pond.admin("/livez")
            .is_some_and(|(status, _)| status == 200)
    });
    let (status, why) = pond.admin("/readyz").unwrap();
    assert_eq!(status, 503, "{why}");
    assert!(process.is_running());
    away.end();
    pond.wait_for("it becomes ready", SOON, |pond| {
        pond.admin("/readyz")
            .is_some_and(|(status, _)| status == 200)
    });
    let away = Trouble::begin("postgres-1", Harm::Killed);
    pond.load(&["--messages", "20000", "--rows", "3000", "--seed", "7"]);
    std::thread::sleep(Duration::from_secs(2));
    assert!(process.is_running());
    away.end();
    pond.wait_for("everything is applied", SOON * 2, |pond| {
        pond.metric("millpond_lag_messages") == Some(0.0)
    });
    assert!(process.terminate(SOON).status.success());
    pond.assert_exact();
}

#[test]
fn kafka_away_at_the_start_and_later_is_waited_for() {
    let pond = Pond::new("kafka-away", &small());
    pond.load(&["--messages", "20000", "--rows", "3000"]);
    let away = Trouble::begin("kafka", Harm::Killed);
    let mut process = pond.start(&["run"], &[]);
    std::thread::sleep(Duration::from_secs(2));
    assert!(process.is_running());
    away.end();
    pond.wait_for("everything is applied", SOON * 2, |pond| {
        pond.metric("millpond_lag_messages") == Some(0.0)
            && pond.metric("millpond_messages_total") == Some(20_000.0)
    });
    let away = Trouble::begin("kafka", Harm::Killed);
    std::thread::sleep(Duration::from_secs(1));
    assert!(process.is_running());
    away.end();
    pond.load(&["--messages", "20000", "--rows", "3000", "--seed", "7"]);
    pond.wait_for("the rest is applied", SOON * 2, |pond| {
        pond.metric("millpond_messages_total")
            .is_some_and(|messages| messages >= 40_000.0)
            && pond.metric("millpond_lag_messages") == Some(0.0)
    });
    assert!(process.terminate(SOON).status.success());
    pond.assert_exact();
}
