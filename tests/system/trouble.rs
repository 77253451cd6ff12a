//! A row, a shard or a limit in trouble slows only what it must.

use crate::pond::{Pond, Shape};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

fn one_shard(name: &str) -> Pond {
    Pond::new(
        name,
        &Shape {
            partitions: 4,
            shards: 1,
            ..Shape::default()
        },
    )
}

fn finished(pond: &Pond) -> f64 {
    pond.metric("millpond_messages_total").unwrap_or(0.0)
}

#[test]
fn a_locked_row_waits_alone_and_is_written_once_it_is_free() {
    let pond = one_shard("locked");
    pond.load(&["--messages", "2000", "--rows", "200"]);
    pond.catch_up();
    let mut locker = pond.shard(0);
    let mut lock = locker.transaction().unwrap();
    lock.execute(
        "SELECT 1 FROM subscription ORDER BY source_offset LIMIT 1 FOR UPDATE",
        &[],
    )
    .unwrap();
    pond.load(&["--messages", "20000", "--rows", "200", "--seed", "1"]);
    let process = pond.start(&["run"], &[]);
    pond.wait_for("all others are applied", SOON, |pond| {
        let parked = pond.metric("millpond_parked").unwrap_or(0.0);
        parked > 0.0 && finished(pond) + parked >= 20_000.0
    });
    assert!(
        pond.metric("millpond_lag_messages").unwrap() > 0.0,
        "what is behind the row is not committed"
    );
    lock.rollback().unwrap();
    pond.wait_for("the row is applied too", SOON, |pond| {
        finished(pond) >= 20_000.0 && pond.metric("millpond_lag_messages") == Some(0.0)
    });
    assert!(process.terminate(SOON).status.success());
    pond.assert_exact();
}

/// After a change of the schema the shard stops; once it is taken back, the rest is applied. How many letters that cost.
fn letters_until_it_stops(name: &str, change: &str, back: &str) -> u64 {
    let pond = one_shard(name);
    pond.load(&["--messages", "3000", "--rows", "300"]);
    pond.catch_up();
    let mut client = pond.shard(0);
    client.batch_execute(change).unwrap();
    pond.load(&["--messages", "10000", "--rows", "300", "--seed", "1"]);
    let process = pond.start(&["run"], &[]);
    pond.wait_for("the shard stops", SOON, |pond| {
        pond.metric("millpond_shard_up") == Some(0.0)
    });
    std::thread::sleep(Duration::from_secs(2));
    let (status, why) = pond.admin("/readyz").unwrap();
    assert_eq!(status, 503);
    assert!(why.contains("s0"), "{why}");
    client.batch_execute(back).unwrap();
    pond.wait_for("the rest is applied", SOON, |pond| {
        finished(pond) >= 10_000.0 && pond.metric("millpond_lag_messages") == Some(0.0)
    });
    assert!(process.terminate(SOON).status.success());
    pond.assert_exact()["dead_letters"].as_u64().unwrap()
}

#[test]
fn a_database_that_refuses_most_updates_stops_its_shard_instead_of_emptying_the_topic() {
    let change = "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
                  IF NEW.tags IS DISTINCT FROM OLD.tags THEN RAISE EXCEPTION 'no' USING ERRCODE = '23514'; END IF; \
                  RETURN NEW; END $$; \
                  CREATE TRIGGER refuse BEFORE UPDATE ON subscription FOR EACH ROW EXECUTE FUNCTION refuse()";
    let letters = letters_until_it_stops("breaker", change, "DROP TRIGGER refuse ON subscription");
    assert!(
        (1..1000).contains(&letters),
        "{letters} of 10,000 updates were refused"
    );
}

#[test]
fn a_row_that_cannot_even_be_marked_stops_its_shard() {
    let change = "ALTER TABLE subscription ADD CONSTRAINT never CHECK (false) NOT VALID";
    let back = "ALTER TABLE subscription DROP CONSTRAINT never";
    assert_eq!(letters_until_it_stops("unmarkable", change, back), 0);
}

#[test]
fn a_column_that_goes_away_stops_the_shard_and_says_why() {
    let pond = one_shard("columns");
    pond.load(&["--messages", "1000", "--rows", "100"]);
    let mut client = pond.shard(0);
    let process = pond.start(&["run"], &[]);
    pond.wait_for("everything is applied", SOON, |pond| {
        pond.metric("millpond_lag_messages") == Some(0.0)
    });
    client
        .batch_execute("ALTER TABLE subscription RENAME tags TO labels")
        .unwrap();
    pond.load(&["--messages", "1000", "--rows", "100", "--seed", "1"]);
    pond.wait_for("the shard stops", SOON, |pond| {
        pond.metric("millpond_shard_up") == Some(0.0)
    });
    client
        .batch_execute("ALTER TABLE subscription RENAME labels TO tags")
        .unwrap();
    pond.wait_for("everything is applied", SOON, |pond| {
        finished(pond) >= 2000.0 && pond.metric("millpond_lag_messages") == Some(0.0)
    });
    let ended = process.terminate(SOON);
    assert!(
        ended.stderr.contains("42703"),
        "the SQLSTATE is in the log: {}",
        ended.stderr
    );
    pond.assert_exact();
}

#[test]
fn updates_of_rows_that_do_not_exist_can_be_skipped() {
    let shape = Shape {
        partitions: 4,
        shards: 1,
        consumer: "on_missing_row = \"skip\"",
        ..Shape::default()
    };
    let pond = Pond::new("skip", &shape);
    pond.load(&["--messages", "1000", "--rows", "100"]);
    let summary = pond.catch_up();
    assert_eq!(
        (&summary["skipped"], &summary["rows_written"]),
        (&1000.into(), &0.into()),
        "{summary}"
    );
}

#[test]
fn the_write_rate_is_a_bound_over_all_lanes() {
    let pond = one_shard("rate");
    pond.load(&["--messages", "6000", "--rows", "6000"]);
    let summary = pond
        .command(&[
            "run",
            "--until-caught-up",
            "--set",
            "shard.s0.write_rate_max=2000",
        ])
        .json();
    let (rows, seconds) = (
        summary["rows_written"].as_f64().unwrap(),
        summary["seconds"].as_f64().unwrap(),
    );
    // One burst of a tenth of a second, and a batch for each of the two lanes, may pass at once.
    assert!(
        rows <= 2000.0 * (seconds + 0.1) + 2000.0,
        "{rows} rows in {seconds} s"
    );
    pond.assert_exact();
}

#[test]
fn the_baseline_is_slow_and_exact() {
    let pond = one_shard("baseline");
    pond.load(&["--messages", "3000", "--rows", "300", "--broken", "20"]);
    let summary = pond
        .command(&["run", "--until-caught-up", "--baseline"])
        .json();
    assert_eq!(
        (&summary["folded"], &summary["rows_written"]),
        (&0.into(), &2980.into()),
        "{summary}"
    );
    pond.assert_exact();
}

#[test]
fn sinks_that_apply_nothing_commit_nothing() {
    let pond = one_shard("sinks");
    pond.load(&["--messages", "5000", "--rows", "300"]);
    for sink in ["null", "discard"] {
        let summary = pond
            .command(&["run", "--until-caught-up", "--sink", sink])
            .json();
        assert_eq!(summary["messages"], 5000, "{summary}");
    }
    let rows: i64 = pond
        .shard(0)
        .query_one("SELECT count(*) FROM subscription", &[])
        .unwrap()
        .get(0);
    assert_eq!(rows, 0);
    assert_eq!(pond.catch_up()["messages"], 5000);
    pond.assert_exact();
}

#[test]
fn a_process_that_is_told_to_stop_finishes_what_is_in_flight() {
    let pond = one_shard("sigterm");
    pond.load(&["--messages", "40000", "--rows", "4000"]);
    let slow = pond.start(&["run", "--set", "shard.s0.write_rate_max=8000"], &[]);
    pond.wait_for("it works", SOON, |pond| finished(pond) > 1000.0);
    let first = slow.terminate(Duration::from_secs(30)).json();
    let second = pond.catch_up();
    let total = first["messages"].as_u64().unwrap() + second["messages"].as_u64().unwrap();
    assert_eq!(
        (total, &second["replayed"]),
        (40_000, &0.into()),
        "nothing is read twice after an orderly end"
    );
    pond.assert_exact();
}

/// The client never fetches one partition, and says nothing about it.
#[test]
fn a_partition_that_went_silent_is_noticed_and_read() {
    let pond = one_shard("silent");
    pond.load(&["--messages", "10000", "--rows", "300"]);
    let mutant = ("MILLPOND_TEST_MUTANT", "a-partition-goes-silent");
    let process = pond.start(&["run"], &[mutant]);
    pond.wait_for("it is assigned anew", SOON, |pond| {
        pond.metric("millpond_silent_partitions_total") == Some(1.0)
    });
    pond.wait_for("everything is applied", SOON, |pond| {
        finished(pond) >= 10_000.0 && pond.metric("millpond_lag_messages") == Some(0.0)
    });
    let ended = process.terminate(SOON);
    assert!(
        ended.stderr.contains("no message comes"),
        "{}",
        ended.stderr
    );
    pond.assert_exact();
}
