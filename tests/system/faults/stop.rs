//! SIGTERM while something that the work in flight needs is away: the process ends within its drain deadline with exit code
//! 0, and the next one finds everything that it could not finish.

use super::locks::{lock_a_row, lock_the_table};
use super::trial::{Load, SOON, Trial, down, pond};
use crate::child::Process;
use crate::pond::Pond;
use crate::services::{Harm, Trouble};
use std::time::{Duration, Instant};

/// As configured below. A process manager kills what takes longer.
const DRAIN: Duration = Duration::from_secs(5);
/// A busy machine's, until we see that the process is gone.
const SEEN: Duration = Duration::from_millis(300);

fn stopping(name: &str) -> (Trial, Process) {
    let pond = pond(name, "drain_deadline_s = 5");
    Trial::running(pond, &Load::default())
}

/// SIGTERM; how long the end took.
pub fn ends_in_time(consumer: Process) -> Duration {
    let told = Instant::now();
    let ended = consumer.terminate(SOON);
    let took = told.elapsed();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    assert!(took < DRAIN + SEEN, "it took {took:?}: {}", ended.stderr);
    took
}

/// The fault is gone: another life finishes the work.
fn resume(mut trial: Trial, fault: &str, took: Duration) {
    let consumer = trial.pond.start(&["run"], &[]);
    let recovery = trial.recover();
    let observed = format!("ended {:.2} s after SIGTERM", took.as_secs_f64());
    trial.conclude(&format!("SIGTERM, {fault}"), &observed, recovery, consumer);
}

#[test]
fn sigterm_while_kafka_is_killed_ends_in_time() {
    let (trial, consumer) = stopping("stop-kafka-killed");
    let killed = Trouble::begin("kafka", Harm::Killed);
    std::thread::sleep(Duration::from_secs(1));
    let took = ends_in_time(consumer);
    killed.end();
    resume(trial, "kafka killed", took);
}

#[test]
fn sigterm_while_kafka_is_frozen_ends_in_time() {
    let (trial, consumer) = stopping("stop-kafka-frozen");
    let frozen = Trouble::begin("kafka", Harm::Frozen);
    std::thread::sleep(Duration::from_millis(500));
    let took = ends_in_time(consumer);
    frozen.end();
    resume(trial, "kafka frozen", took);
}

#[test]
fn sigterm_while_postgres_is_killed_ends_in_time() {
    let (trial, consumer) = stopping("stop-postgres-killed");
    let killed = Trouble::begin("postgres-1", Harm::Killed);
    trial.wait_for("its connections are down", |now| down(now, "s1") == 2.0);
    let took = ends_in_time(consumer);
    killed.end();
    resume(trial, "postgres killed", took);
}

#[test]
fn sigterm_while_postgres_is_frozen_ends_in_time() {
    let (trial, consumer) = stopping("stop-postgres-frozen");
    let frozen = Trouble::begin("postgres-1", Harm::Frozen);
    trial.wait_for("its lanes fill", |now| {
        now.sum_of("millpond_lane_depth", &[("shard", "s1")]) > 500.0
    });
    let took = ends_in_time(consumer);
    frozen.end();
    resume(trial, "postgres frozen", took);
}

#[test]
fn sigterm_while_a_row_is_locked_ends_in_time() {
    // Few rows, so that many updates wait for the one: one that adds to a count is among them, whose loss would show.
    let pond = pond("stop-row-locked", "drain_deadline_s = 5");
    let load = Load {
        rows: 200,
        ..Load::default()
    };
    let (trial, consumer) = Trial::running(pond, &load);
    let mut locker = trial.pond.shard(1);
    lock_a_row(&mut locker);
    trial.wait_for("updates wait", |now| {
        now.sum("millpond_parked") > Some(30.0)
    });
    let took = ends_in_time(consumer);
    locker.batch_execute("ROLLBACK").unwrap();
    resume(trial, "row locked", took);
}

#[test]
fn sigterm_while_a_table_is_locked_ends_in_time() {
    let (trial, consumer) = stopping("stop-table-locked");
    let mut locker = trial.pond.shard(1);
    lock_the_table(&mut locker);
    trial.wait_for("its lanes fill", |now| {
        now.sum_of("millpond_lane_depth", &[("shard", "s1")]) > 500.0
    });
    let took = ends_in_time(consumer);
    locker.batch_execute("ROLLBACK").unwrap();
    resume(trial, "table locked", took);
}

/// A server that is frozen accepts the connection and says nothing, so the start would wait for its first word for ever.
#[test]
fn sigterm_while_the_start_waits_for_a_frozen_postgres_ends_in_time() {
    let pond: Pond = pond("stop-start", "drain_deadline_s = 5");
    let frozen = Trouble::begin("postgres-1", Harm::Frozen);
    let consumer = pond.start(&["run"], &[]);
    pond.wait_for("it is up", SOON, |pond| pond.admin("/livez").is_some());
    std::thread::sleep(Duration::from_secs(1));
    let took = ends_in_time(consumer);
    frozen.end();
    println!(
        "SIGTERM at the start, postgres frozen: ended {:.2} s after",
        took.as_secs_f64()
    );
}
