//! Members start, join and leave while one of the two Postgres says nothing. The other shard's partitions begin, move and go
//! on; those of the frozen one begin once it answers.

use super::stop::ends_in_time;
use super::trial::{Load, RATE, SOON, Trial, applied, pond};
use crate::pond::free_port;
use crate::reading::Reading;
use crate::services::{Harm, Trouble};

/// As many as each shard has.
const PARTITIONS: f64 = 6.0;

fn assigned(reading: &Reading) -> f64 {
    reading.sum("millpond_assigned_partitions").unwrap_or(0.0)
}

#[test]
fn partitions_of_a_shard_begin_and_move_while_the_other_is_frozen() {
    let load = Load {
        seconds: 20,
        ..Load::default()
    };
    // The Postgres is thawed before the pond is dropped, which it needs for that.
    let (mut trial, frozen) = (
        Trial::begin(pond("moves", "drain_deadline_s = 5"), &load),
        Trouble::begin("postgres-1", Harm::Frozen),
    );
    let port = free_port();
    let listen = format!("admin.listen=127.0.0.1:{port}");
    let first = trial.pond.start(&["run", "--set", &listen], &[]);
    let has_begun =
        |now: &Reading| assigned(now) == PARTITIONS && applied(now, "s0") > f64::from(RATE) / 3.0;
    trial.pond.wait_for("partitions begin", SOON, |_| {
        Reading::take(port).is_some_and(|now| has_begun(&now))
    });
    let second = trial.pond.start(&["run"], &[]);
    trial.wait_for("the second member has joined", |now| {
        now.sum("millpond_rebalances_total") > Some(0.0)
    });
    first.kill();
    trial.wait_for("all have moved to the second member", has_begun);
    ends_in_time(second);
    let third = trial.pond.start(&["run"], &[]);
    trial.wait_for("another life takes them", has_begun);
    assert_eq!(applied(&trial.reading(), "s1"), 0.0);
    frozen.end();
    trial.wait_for("the other shard's begin", |now| {
        assigned(now) == 2.0 * PARTITIONS
    });
    let recovery = trial.recover();
    let observed = "start, join, kill -9 and SIGTERM of members meanwhile";
    trial.conclude(
        "postgres frozen, partitions move",
        observed,
        recovery,
        third,
    );
}
