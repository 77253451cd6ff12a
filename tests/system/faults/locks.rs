//! Somebody else holds a row or a table locked: a migration, a long transaction, a person with a console.

use super::trial::{Load, RATE, SOON, Trial, pond};
use crate::reading::Reading;
use postgres::Client;
use std::time::Duration;

/// How long the lock is held once its harm was seen.
const HELD: Duration = Duration::from_secs(3);

/// Locks some row until the client's transaction ends; the row's app.
pub fn lock_a_row(client: &mut Client) -> String {
    client.batch_execute("BEGIN").unwrap();
    let row = client
        .query_one(
            "SELECT app_id::text FROM subscription LIMIT 1 FOR UPDATE",
            &[],
        )
        .unwrap();
    row.get(0)
}

/// Locks the table until the client's transaction ends.
pub fn lock_the_table(client: &mut Client) {
    client
        .batch_execute("BEGIN; LOCK TABLE subscription")
        .unwrap();
}

#[test]
fn a_locked_row_stops_its_partition_and_none_other() {
    let pond = pond("row-locked", "in_memory_max_per_partition = 512");
    let load = Load {
        seconds: 9,
        ..Load::default()
    };
    let (mut trial, consumer) = Trial::running(pond, &load);
    let mut locker = trial.pond.shard(1);
    let app = lock_a_row(&mut locker);
    let partition = trial.pond.partition_of(&app).to_string();
    let own = [("partition", partition.as_str())];
    let lag = |now: &Reading| now.sum_of("millpond_lag_messages", &own);
    trial.wait_for("its partition is full", |now| {
        now.sum_of("millpond_in_memory_messages", &own) >= 512.0
    });
    let before = trial.reading();
    std::thread::sleep(HELD);
    let now = trial.reading();
    assert!(now.sum("millpond_parked") > Some(0.0), "its updates wait");
    assert!(
        lag(&now) > lag(&before),
        "nothing more of its partition is read: {} and {}",
        lag(&before),
        lag(&now)
    );
    let others = now.sum("millpond_lag_messages").unwrap() - lag(&now);
    assert!(
        others < f64::from(RATE),
        "the other eleven go on: {others} behind"
    );
    let waited = lag(&now);
    locker.batch_execute("ROLLBACK").unwrap();
    let recovery = trial.recover();
    let observed =
        format!("its partition {waited} messages behind, the other 11 together {others}");
    trial.conclude("row locked", &observed, recovery, consumer);
}

#[test]
fn a_locked_table_stops_its_shard_only() {
    let (mut trial, consumer) = Trial::running(pond("table-locked", ""), &Load::default());
    let mut locker = trial.pond.shard(1);
    lock_the_table(&mut locker);
    let before = super::trial::applied(&trial.reading(), "s1");
    let other = trial.applied_within("s0", HELD);
    let after = super::trial::applied(&trial.reading(), "s1");
    assert_eq!(after, before, "nothing is written to a locked table");
    assert!(
        other > f64::from(RATE) / 8.0 * HELD.as_secs_f64(),
        "s0 applied {other}"
    );
    locker.batch_execute("ROLLBACK").unwrap();
    let recovery = trial.recover();
    let observed = format!("SQLSTATE 55P03; s1 applied 0 in {HELD:?}");
    let ended = trial.conclude("table locked", &observed, recovery, consumer);
    assert!(
        ended.stderr.contains(r#""sqlstate":"55P03""#),
        "{}",
        ended.stderr
    );
}

/// The lock of a session that is killed goes with it, so what waits behind it goes on by itself.
#[test]
fn a_lock_whose_holder_is_killed_is_gone() {
    let (mut trial, consumer) = Trial::running(pond("locker-killed", ""), &Load::default());
    let mut locker = trial.pond.shard(1);
    let pid: i32 = locker
        .query_one("SELECT pg_backend_pid()", &[])
        .unwrap()
        .get(0);
    lock_a_row(&mut locker);
    trial.pond.wait_for("updates wait", SOON, |pond| {
        pond.metric("millpond_parked") > Some(0.0)
    });
    let mut other = trial.pond.shard(1);
    other
        .execute("SELECT pg_terminate_backend($1)", &[&pid])
        .unwrap();
    let recovery = trial.recover();
    trial.conclude("locker killed", "updates parked", recovery, consumer);
}
