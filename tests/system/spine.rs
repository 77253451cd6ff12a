//! Everything is applied, exactly, whatever is killed.

use crate::pond::{Pond, Shape};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use std::time::Duration;

/// MILLPOND_TEST_MESSAGES asks for the full form: 5,000,000.
pub fn messages(usual: u64) -> u64 {
    std::env::var("MILLPOND_TEST_MESSAGES")
        .map_or(usual, |text| text.parse().expect("a number of messages"))
}

/// MILLPOND_TEST_KILLS asks for the full form: 20.
pub fn kills(usual: u64) -> u64 {
    std::env::var("MILLPOND_TEST_KILLS")
        .map_or(usual, |text| text.parse().expect("a number of kills"))
}

/// Of this run, unless one is given.
pub fn seed() -> u64 {
    std::env::var("MILLPOND_TEST_SEED").map_or_else(
        |_| rand::rng().random(),
        |text| text.parse().expect("a seed"),
    )
}

fn two_core_groups(name: &str) -> Pond {
    let shape = Shape {
        partitions: 24,
        consumer: "core_groups = [\"0\", \"1\"]",
        ..Shape::default()
    };
    Pond::new(name, &shape)
}

fn load(pond: &Pond, messages: u64) -> u64 {
    let (count, rows, broken) = (
        messages.to_string(),
        (messages / 5).to_string(),
        messages / 500,
    );
    pond.load(&[
        "--messages",
        &count,
        "--rows",
        &rows,
        "--apps",
        "1000",
        "--broken",
        &broken.to_string(),
    ]);
    broken
}

#[test]
fn two_core_groups_apply_everything_and_dead_letter_what_is_broken() {
    let pond = two_core_groups("spine");
    let messages = messages(400_000);
    let broken = load(&pond, messages);
    let summary = pond.catch_up();
    println!("{summary}");
    assert_eq!(summary["messages"], messages);
    assert_eq!(summary["dead_lettered"], broken);
    let verdict = pond.assert_exact();
    println!("{verdict}");
    assert_eq!(
        (
            &verdict["mismatched"],
            &verdict["missing"],
            &verdict["extra"]
        ),
        (&0.into(), &0.into(), &0.into())
    );
    assert_eq!(verdict["dead_letters"], broken);
    let lag: Value = pond.command(&["lag", "--format", "json"]).json();
    let lags: Vec<&Value> = lag
        .as_array()
        .unwrap()
        .iter()
        .map(|partition| &partition["lag"])
        .collect();
    assert!(lags.iter().all(|lag| **lag == 0), "{lags:?}");
}

/// A process that is killed between a write and its commit leaves rows whose updates come again. Were the fence wrong, counts
/// would be added twice; were the watermark wrong, updates would be missing.
#[test]
fn kill_9_at_random_moments_leaves_every_row_exact() {
    let pond = two_core_groups("killed");
    let messages = messages(400_000);
    let broken = load(&pond, messages);
    let seed = seed();
    let mut random = SmallRng::seed_from_u64(seed);
    let (mut replayed, mut folds_cut) = (0.0, 0.0);
    let (kills, full) = (kills(8), messages >= 5_000_000);
    for killed in 1..=kills {
        // Slowed down, so that twenty lives fit into the work; the first ones are killed earliest.
        let rate = format!("shard.s0.write_rate_max={}", messages / 60);
        let mut process = pond.start(&["run", "--set", &rate], &[]);
        pond.wait_for("rows are written", Duration::from_secs(60), |pond| {
            pond.metric("millpond_rows_written_total")
                .is_some_and(|rows| rows > 0.0)
        });
        std::thread::sleep(Duration::from_millis(
            random.random_range(0..if full { 3000 } else { 700 }),
        ));
        replayed += pond.metric("millpond_replayed_total").unwrap_or(0.0);
        folds_cut += pond.metric("millpond_folds_cut_total").unwrap_or(0.0);
        assert!(process.is_running(), "it was killed while it worked");
        process.kill();
        if killed % 4 == 0 {
            // What is committed is applied, at every moment.
            let verdict = pond.verify();
            assert_eq!(
                verdict["ok"], true,
                "seed {seed}, after {killed} kills: {verdict}"
            );
        }
    }
    let summary = pond.catch_up();
    replayed += summary["replayed"].as_f64().unwrap();
    folds_cut += summary["folds_cut"].as_f64().unwrap();
    println!(
        "seed {seed}: kills {kills}, replayed {replayed}, folds cut by the fence {folds_cut}\n{summary}"
    );
    let verdict = pond.assert_exact();
    assert_eq!(verdict["dead_letters"], broken, "seed {seed}: {verdict}");
    assert!(
        replayed > 0.0 && folds_cut > 0.0,
        "seed {seed}: the kills did not bite"
    );
}
