//! Links to parents: exactly as many children as allowed, exactly counted, whatever dies.

use crate::pond::{Pond, Shape};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::time::Duration;

const APP: &str = "5eb5a37e-b458-11e3-ac11-000c2940e62c";
const WORKS: Duration = Duration::from_secs(60);
const LIMIT: i64 = 50;

fn pond(name: &str) -> Pond {
    Pond::new(
        name,
        &Shape {
            partitions: 4,
            shards: 1,
            workers: 8,
            consumer: "batch_rows_max = 40\ncommit_interval_ms = 50\n[rules]\nlinks_per_parent_max = 50",
            ..Shape::default()
        },
    )
}

fn child(number: u32) -> String {
    format!("00000000-0000-4000-8000-{number:012x}")
}

fn parent(number: u32) -> String {
    format!("ffffffff-0000-4000-8000-{number:012x}")
}

/// Produces updates of one app, each with these fields for that row.
fn produce(pond: &Pond, updates: &[(u32, String)]) {
    let partition = pond.partition_of(APP);
    let values: Vec<(String, String)> = updates
        .iter()
        .map(|(number, fields)| {
            let id = child(*number);
            let value = format!(
                r#"{{"app_id":"{APP}","subscription_id":"{id}","counts":{{"n":1}}{fields}}}"#
            );
            (id, value)
        })
        .collect();
    pond.produce_to(partition, &values);
}

fn link_to(number: u32) -> String {
    format!(r#","parent_id":"{}""#, parent(number))
}

/// Lives that die at each point of the second path and somewhere else, then one that catches up.
fn run_with_kills(pond: &Pond) {
    for point in ["before-links", "after-links"] {
        let process = pond.start(&["run"], &[("MILLPOND_TEST_CRASH", point)]);
        let ended = process.wait(WORKS);
        assert!(!ended.status.success(), "it dies at {point}");
    }
    let process = pond.start(&["run"], &[]);
    pond.wait_for("something is written", WORKS, |pond| {
        pond.metric("millpond_messages_total")
            .is_some_and(|messages| messages > 10.0)
    });
    process.kill();
    pond.catch_up();
}

/// Children of each parent, by its number, as the rows say.
fn children(pond: &Pond) -> Vec<(String, i64)> {
    let sql = "SELECT parent_id::text, count(*) FROM subscription WHERE parent_id IS NOT NULL GROUP BY 1 ORDER BY 1";
    let rows = pond.shard(0).query(sql, &[]).unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

#[test]
fn the_limit_is_reached_exactly_and_every_refused_link_is_a_dead_letter() {
    let pond = pond("link-limit");
    let updates: Vec<(u32, String)> = (0..1000).map(|number| (number, link_to(1))).collect();
    produce(&pond, &updates);
    run_with_kills(&pond);
    assert_eq!(children(&pond), [(parent(1), LIMIT)]);
    let verdict = pond.assert_exact();
    assert_eq!(verdict["parents_checked"], 1, "{verdict}");
    let letters = pond.dead_letters();
    let mut refused: Vec<&str> = letters
        .iter()
        .inspect(|letter| assert_eq!(letter.header("__dlq.errors.reason"), "link-limit"))
        .map(|letter| letter.header("__dlq.errors.offset"))
        .collect();
    refused.sort_unstable();
    refused.dedup();
    assert_eq!(refused.len(), 950, "one for each update, at least once");
    // The rest of a refused update takes effect, once.
    let rows = pond.shard(0).query_one(
        "SELECT count(*) FROM subscription WHERE counts = '{\"n\": 1}'",
        &[],
    );
    assert_eq!(rows.unwrap().get::<_, i64>(0), 1000);
}

#[test]
fn links_that_come_and_go_in_eight_lanes_are_counted_exactly() {
    let pond = pond("link-churn");
    let seed: u64 = rand::random();
    let mut random = SmallRng::seed_from_u64(seed);
    let updates: Vec<(u32, String)> = (0..6000)
        .map(|_| {
            let fields = match random.random_range(0..10) {
                0..5 => link_to(random.random_range(1..=3)),
                5..7 => r#","parent_id":null"#.to_owned(),
                _ => String::new(),
            };
            (random.random_range(0..400), fields)
        })
        .collect();
    produce(&pond, &updates);
    run_with_kills(&pond);
    let verdict = pond.verify();
    assert_eq!(verdict["ok"], true, "seed {seed}: {verdict}");
    let children = children(&pond);
    assert_eq!(children.len(), 3, "seed {seed}: {children:?}");
    assert!(
        children.iter().all(|(_, count)| *count <= LIMIT),
        "seed {seed}: {children:?}"
    );
}

#[test]
fn a_wrong_count_is_noticed() {
    let pond = pond("link-miscount");
    produce(
        &pond,
        &[(1, link_to(1)), (2, link_to(1)), (3, String::new())],
    );
    pond.catch_up();
    pond.assert_exact();
    let corrupt = |sql: &str| pond.shard(0).batch_execute(sql).unwrap();
    corrupt("UPDATE parent SET children = 3");
    let verdict = pond.verify();
    assert_eq!(verdict["children_mismatched"], 1, "{verdict}");
    assert_eq!(verdict["ok"], false);
    corrupt("DELETE FROM parent");
    assert_eq!(pond.verify()["children_mismatched"], 1);
}

#[test]
fn a_parent_that_somebody_holds_locked_stops_its_own_children_only() {
    let pond = pond("link-locked");
    produce(&pond, &[(1, link_to(1)), (2, link_to(2))]);
    pond.catch_up();
    let mut locker = pond.shard(0);
    let mut lock = locker.transaction().unwrap();
    let one = format!(
        "SELECT 1 FROM parent WHERE parent_id = '{}' FOR UPDATE",
        parent(1)
    );
    lock.execute(&one, &[]).unwrap();
    let updates: Vec<(u32, String)> = (10..90)
        .map(|number| (number, link_to(1 + number % 2)))
        .collect();
    produce(&pond, &updates);
    let consumer = pond.start(&["run"], &[]);
    pond.wait_for("the other parent's children are linked", WORKS, |pond| {
        children(pond) == [(parent(1), 1), (parent(2), 41)]
    });
    pond.wait_for("those of the locked one wait", WORKS, |pond| {
        pond.metric("millpond_parked") == Some(40.0)
    });
    lock.rollback().unwrap();
    pond.wait_for("then they are linked, too", WORKS, |pond| {
        children(pond) == [(parent(1), 41), (parent(2), 41)]
    });
    consumer.terminate(WORKS);
    pond.assert_exact();
}
