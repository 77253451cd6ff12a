//! Deliberately broken builds are noticed. Each story is told twice: the whole build ends exact, the broken one does not.

use crate::pond::{Pond, Shape};
use std::time::Duration;

const WORKS: Duration = Duration::from_secs(60);

fn mutant(name: &'static str) -> Vec<(&'static str, &'static str)> {
    if name.is_empty() {
        Vec::new()
    } else {
        vec![("MILLPOND_TEST_MUTANT", name)]
    }
}

/// A life that writes and is killed before it commits, then another that catches up. Whether every row is right then.
fn killed_before_its_commit(name: &str, broken: &'static str, scenario: &str) -> bool {
    // Small batches first, large ones after: a fold of the second life reaches across the fence of the first.
    let shape = Shape {
        consumer: "commit_interval_ms = 60000\nbatch_rows_max = 50",
        ..Shape::default()
    };
    let pond = Pond::new(name, &shape);
    pond.load(&[
        "--messages",
        "60000",
        "--rows",
        "4000",
        "--scenario",
        scenario,
    ]);
    let slow = [
        "--set",
        "shard.s0.write_rate_max=4000",
        "--set",
        "shard.s1.write_rate_max=4000",
    ];
    let process = pond.start(&[&["run"], &slow[..]].concat(), &mutant(broken));
    pond.wait_for("rows are written", WORKS, |pond| {
        pond.metric("millpond_rows_written_total")
            .is_some_and(|rows| rows > 4000.0)
    });
    process.kill();
    pond.reconfigure("batch_rows_max = 50", "batch_rows_max = 1000");
    let soon = [
        "run",
        "--until-caught-up",
        "--set",
        "consumer.commit_interval_ms=500",
    ];
    pond.start(&soon, &mutant(broken)).wait(WORKS * 2).json();
    pond.verify()["ok"] == true
}

#[test]
fn a_fence_that_is_off_is_noticed() {
    assert!(killed_before_its_commit("fence-on", "", "uniform"));
    assert!(!killed_before_its_commit(
        "fence-off",
        "fence-off",
        "uniform"
    ));
}

#[test]
fn a_fold_that_is_not_cut_at_the_fence_is_noticed() {
    assert!(killed_before_its_commit("fold-cut", "", "hot"));
    assert!(!killed_before_its_commit(
        "fold-not-cut",
        "fold-not-cut",
        "hot"
    ));
}

/// One row is locked by somebody else, so its update is unfinished while everything behind it is applied; then the process is
/// killed. Whether every row is right after another life.
fn killed_while_a_row_is_locked(name: &str, broken: &'static str) -> bool {
    let pond = Pond::new(
        name,
        &Shape {
            partitions: 1,
            shards: 1,
            ..Shape::default()
        },
    );
    pond.load(&["--messages", "1000", "--rows", "100"]);
    pond.catch_up();
    let mut locker = pond.shard(0);
    let mut lock = locker.transaction().unwrap();
    lock.execute(
        "SELECT 1 FROM subscription ORDER BY source_offset LIMIT 1 FOR UPDATE",
        &[],
    )
    .unwrap();
    pond.load(&["--messages", "5000", "--rows", "100", "--seed", "1"]);
    let process = pond.start(
        &["run", "--set", "consumer.commit_interval_ms=50"],
        &mutant(broken),
    );
    pond.wait_for("the others are applied", WORKS, |pond| {
        pond.metric("millpond_messages_total")
            .is_some_and(|messages| messages > 4500.0)
    });
    // Long enough for a commit.
    std::thread::sleep(Duration::from_secs(1));
    process.kill();
    lock.rollback().unwrap();
    pond.start(&["run", "--until-caught-up"], &mutant(broken))
        .wait(WORKS)
        .json();
    pond.verify()["ok"] == true
}

#[test]
fn a_commit_of_the_highest_instead_of_the_prefix_is_noticed() {
    assert!(killed_while_a_row_is_locked("prefix", ""));
    assert!(!killed_while_a_row_is_locked("highest", "commit-highest"));
}

/// Writes stand still while half of the partitions move to another member, past the revoke deadline. Once writes go on, how many
/// messages of given-up partitions the first member drops.
fn dropped_after_a_missed_deadline(name: &str, broken: &'static str) -> f64 {
    let pond = Pond::new(
        name,
        &Shape {
            shards: 1,
            consumer: "revoke_deadline_s = 1",
            ..Shape::default()
        },
    );
    let mut locker = pond.shard(0);
    let mut lock = locker.transaction().unwrap();
    lock.batch_execute("LOCK TABLE subscription").unwrap();
    pond.load(&["--messages", "20000", "--rows", "5000"]);
    let first = pond.start(&["run"], &mutant(broken));
    pond.wait_for("messages are in memory", WORKS, |pond| {
        pond.metric("millpond_in_memory_messages")
            .is_some_and(|messages| messages >= 20_000.0)
    });
    let second = pond.start(
        &["run", "--set", "admin.listen=127.0.0.1:0"],
        &mutant(broken),
    );
    pond.wait_for("half of the partitions have moved", WORKS, |pond| {
        pond.metric("millpond_in_memory_messages")
            .is_some_and(|messages| messages < 15_000.0)
    });
    lock.rollback().unwrap();
    pond.wait_for("what is left is finished", WORKS, |pond| {
        pond.metric("millpond_in_memory_messages") == Some(0.0)
            && pond.metric("millpond_lane_depth") == Some(0.0)
    });
    std::thread::sleep(Duration::from_secs(1));
    let dropped = pond
        .metric("millpond_dropped_total")
        .expect("the first member is up");
    first.terminate(WORKS);
    second.terminate(WORKS);
    pond.command(&["run", "--until-caught-up"]).json();
    // Late writes of the dead epoch are harmless, by the fence, whether they were dropped or not.
    pond.assert_exact();
    dropped
}

#[test]
fn dead_epochs_that_are_not_dropped_are_noticed() {
    assert!(dropped_after_a_missed_deadline("dead-epochs", "") > 0.0);
    assert!(dropped_after_a_missed_deadline("undead-epochs", "dead-epochs-not-dropped") == 0.0);
}
