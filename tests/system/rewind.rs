//! The group's offsets are moved back: a database that lost a tail gets it again.

use crate::pond::{Pond, Shape};
use millpond::ids::Partition;
use millpond::kafka::admin::Admin;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

fn pond(name: &str) -> Pond {
    Pond::new(
        name,
        &Shape {
            partitions: 4,
            ..Shape::default()
        },
    )
}

fn on_each_shard(pond: &Pond, sql: &str) {
    for shard in 0..2 {
        pond.shard(shard).batch_execute(sql).unwrap();
    }
}

/// A database is restored to an hour ago, and the group has committed what it lost. After a rewind every update takes effect
/// once: those that were lost are applied, those that were not are refused by the fences.
#[test]
fn a_database_that_lost_a_tail_gets_it_back() {
    let pond = pond("rewind");
    pond.load(&["--messages", "3000", "--rows", "300", "--broken", "11"]);
    pond.catch_up();
    on_each_shard(
        &pond,
        "CREATE TABLE subscription_kept AS TABLE subscription; CREATE TABLE refused_kept AS TABLE refused",
    );
    let before_the_tail = jiff::Timestamp::now().to_string();
    std::thread::sleep(Duration::from_millis(10));
    pond.load(&[
        "--messages",
        "2000",
        "--rows",
        "400",
        "--broken",
        "22",
        "--seed",
        "9",
    ]);
    pond.catch_up();
    pond.assert_exact();
    on_each_shard(
        &pond,
        "TRUNCATE subscription, refused; INSERT INTO subscription TABLE subscription_kept; \
         INSERT INTO refused TABLE refused_kept",
    );
    assert_eq!(pond.verify()["ok"], false, "the tail is lost");

    let committed_before = pond.committed();
    let dry = pond.good(&["rewind", "--to", &before_the_tail]);
    assert!(dry.stderr.contains("nothing was moved"), "{}", dry.stderr);
    assert_eq!(pond.committed(), committed_before);
    let moved = pond.good(&["rewind", "--to", &before_the_tail, "--apply"]);
    println!("{}{}", moved.stdout, moved.stderr);
    let summary = pond.catch_up();
    assert_eq!(
        (&summary["messages"], &summary["replayed"]),
        (&2000.into(), &0.into()),
        "exactly the tail is read again: {summary}"
    );
    assert_eq!(pond.committed(), committed_before);
    pond.assert_exact();

    // Far too early costs time and nothing else.
    pond.good(&["rewind", "--to", "-1d", "--apply"]);
    assert_eq!(pond.committed(), [Some(0); 4]);
    let summary = pond.catch_up();
    assert_eq!(
        (&summary["messages"], &summary["rows_written"]),
        (&5000.into(), &0.into()),
        "{summary}"
    );
    pond.assert_exact();
}

#[test]
fn offsets_move_back_only_of_the_shard_that_is_meant_and_not_under_a_running_consumer() {
    let pond = pond("rewind-shard");
    let nothing = pond.good(&["rewind", "--to", "-1h", "--apply"]);
    assert!(
        nothing.stdout.contains("nothing committed"),
        "{}",
        nothing.stdout
    );
    pond.load(&["--messages", "1000", "--rows", "100"]);
    pond.catch_up();
    let all = pond.committed();
    for (arguments, words) in [
        (
            &["rewind", "--to", "-1h", "--shard", "s7"][..],
            "the configured ones are s0, s1",
        ),
        (&["rewind", "--to", "2h"], "write -2h"),
    ] {
        let ended = pond.command(arguments);
        assert_eq!(ended.status.code(), Some(2), "{arguments:?}");
        assert!(ended.stderr.contains(words), "{}", ended.stderr);
    }
    let ahead = pond.good(&["rewind", "--to", "2100-01-01T00:00:00Z", "--apply"]);
    assert!(ahead.stderr.contains("nothing to move"), "{}", ahead.stderr);
    pond.good(&["rewind", "--to", "-1h", "--shard", "s1", "--apply"]);
    assert_eq!(pond.committed(), [all[0], all[1], Some(0), Some(0)]);
    pond.good(&["rewind", "--to", "2100-01-01T00:00:00Z", "--apply"]);
    assert_eq!(pond.committed()[2], Some(0), "never forward");

    let process = pond.start(&["run"], &[]);
    pond.wait_for("everything is applied", SOON, |_| pond.committed() == all);
    let refused = pond.command(&["rewind", "--to", "-1h", "--apply"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        refused.stderr.contains("has 1 members"),
        "{}",
        refused.stderr
    );
    // The coordinator would refuse it too, were the question asked too early.
    let kafka = pond.configuration().kafka;
    let offsets = [(Partition(0), 0)];
    let admin = Admin::connect(&kafka).unwrap();
    let error = admin
        .commit_offsets(&kafka.group, &kafka.topic, &offsets)
        .unwrap_err();
    assert!(error.to_string().contains("UnknownMemberId"), "{error}");
    assert!(process.terminate(SOON).status.success());
    assert_eq!(pond.committed(), all);
    pond.assert_exact();
}
