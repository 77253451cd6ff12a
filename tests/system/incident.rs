//! The incident's traffic: one row gets nearly half of all messages.
//!
//! `MILLPOND_TEST_KILLS=10 MILLPOND_TEST_MESSAGES=2000000` is the full form.

use crate::pond::{Pond, SHARDS, Shape};
use crate::spine::{kills, messages, seed};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::time::Duration;

const ROWS: u64 = 20_000;
const SOON: Duration = Duration::from_secs(60);

/// Were what is folded into the parent's one write counted as finished before it is written, or written twice after a
/// crash, its row would be wrong: it is in every batch.
#[test]
fn clothesly_under_kill_9_leaves_every_row_exact() {
    let shape = Shape {
        consumer: "[rules]\nlinks_per_parent_max = 0\n",
        ..Shape::default()
    };
    let pond = Pond::new("incident", &shape);
    let (messages, rows) = (messages(120_000), ROWS.to_string());
    pond.load(&[
        "--scenario",
        "clothesly",
        "--messages",
        &messages.to_string(),
        "--rows",
        &rows,
    ]);
    let (seed, kills) = (seed(), kills(3));
    let mut random = SmallRng::seed_from_u64(seed);
    // Slowed down, so that all lives fit into the work.
    let slow = SHARDS.map(|shard| format!("shard.{shard}.write_rate_max={}", messages / 40));
    let mut replayed = 0.0;
    for kill in 1..=kills {
        let mut process = pond.start(&["run", "--set", &slow[0], "--set", &slow[1]], &[]);
        pond.wait_for("rows are written", SOON, |pond| {
            pond.metric("millpond_rows_written_total")
                .is_some_and(|rows| rows > 0.0)
        });
        std::thread::sleep(Duration::from_millis(random.random_range(0..1_500)));
        replayed += pond.metric("millpond_replayed_total").unwrap_or(0.0);
        assert!(process.is_running(), "it was killed while it worked");
        process.kill();
        if kill % 5 == 0 {
            // What is committed is applied, at every moment.
            pond.assert_exact();
        }
    }
    let summary = pond.catch_up();
    replayed += summary["replayed"].as_f64().unwrap();
    let verdict = pond.assert_exact();
    println!("seed {seed}: {kills} kills, {replayed} replayed\n{summary}\n{verdict}");
    assert_eq!(verdict["messages_read"], messages, "seed {seed}");
    assert!(replayed > 0.0, "seed {seed}: the kills did not bite");
    assert!(summary["folded"].as_f64() > Some(0.0), "{summary}");
}

#[test]
fn load_says_that_the_link_limit_must_be_off_and_is_silent_where_it_is() {
    let pond = Pond::new("limit-said", &Shape::default());
    let load = [
        "load",
        "--scenario",
        "clothesly",
        "--messages",
        "10",
        "--rows",
        "10",
    ];
    let said = pond.good(&load).stderr;
    assert!(said.contains("rules.links_per_parent_max = 0"), "{said}");
    let off = ["--set", "rules.links_per_parent_max=0"];
    let said = pond.good(&[&load[..], &off].concat()).stderr;
    assert!(!said.contains("links_per_parent_max"), "{said}");
}
