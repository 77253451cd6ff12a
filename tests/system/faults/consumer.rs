//! The consumer is killed where it hurts most, or stands still until another member has its partitions.

use super::trial::{Load, RATE, SOON, Trial, pond};
use crate::child::Process;
use crate::pond::{Pond, Sent, free_port};
use crate::reading::Reading;
use millpond::kafka::admin::Admin;
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

const APP: &str = "5eb5a37e-b458-11e3-ac11-000c2940e62c";
const ROW: &str = "f47ac10b-58cc-4372-a567-0e02b2c3d479";
/// SIGABRT, by which a crash point ends the process.
const ABORTED: i32 = 6;
/// Every step after which something could be lost or done twice.
const POINTS: [&str; 8] = [
    "between-statements",
    "after-write",
    "before-refuse",
    "after-refuse",
    "before-dead-letter",
    "after-dead-letter",
    "before-commit",
    "after-commit",
];

/// An update that the table's check refuses, so that a life has something to refuse.
fn produce_poison(pond: &Pond) {
    let value = format!(r#"{{"app_id":"{APP}","subscription_id":"{ROW}","tags":{{"poison":1}}}}"#);
    pond.produce(&[Sent {
        partition: pond.partition_of(APP),
        key: Some(ROW),
        value: Some(&value),
        headers: &[],
    }]);
}

#[test]
fn a_consumer_killed_at_each_crash_point_loses_nothing_and_does_nothing_twice() {
    let pond = pond("crash-points", "");
    for shard in 0..2 {
        pond.shard(shard)
            .batch_execute("ALTER TABLE subscription ADD CHECK (NOT tags ? 'poison')")
            .unwrap();
    }
    let broken = 300;
    let load = Load {
        seconds: 10,
        rows: 20_000,
        broken,
    };
    let mut trial = Trial::begin(pond, &load);
    for point in POINTS {
        produce_poison(&trial.pond);
        let life = trial
            .pond
            .start(&["run"], &[("MILLPOND_TEST_CRASH", point)]);
        let ended = life.wait(SOON);
        assert_eq!(
            ended.status.signal(),
            Some(ABORTED),
            "{point}: {}",
            ended.stderr
        );
    }
    let consumer = trial.pond.start(&["run"], &[]);
    let recovery = trial.recover();
    let replayed = trial.reading().sum("millpond_replayed_total").unwrap();
    let letters = trial.pond.dead_letters();
    for reason in ["database", "bad-tags"] {
        let found = letters
            .iter()
            .any(|letter| letter.header("__dlq.errors.reason") == reason);
        assert!(found, "no dead letter for {reason}");
    }
    let observed = format!(
        "{} lives aborted, {replayed} replayed by the last",
        POINTS.len()
    );
    trial.conclude("consumer killed", &observed, recovery, consumer);
}

/// Two members: the first is stopped, the second takes its partitions over.
struct Zombie {
    zombie: Process,
    heir: Process,
    heir_port: u16,
    admin: Admin,
}

impl Zombie {
    /// The first member's rows are held back, so that it is stopped with its lanes full.
    fn begin(trial: &Trial) -> Self {
        let slow = ["shard.s0.write_rate_max=500", "shard.s1.write_rate_max=500"];
        let zombie = trial
            .pond
            .start(&["run", "--set", slow[0], "--set", slow[1]], &[]);
        trial.wait_for("its lanes are full", |now| {
            now.sum("millpond_lane_depth") > Some(1000.0)
        });
        zombie.signal("-STOP");
        let heir_port = free_port();
        let listen = format!("admin.listen=127.0.0.1:{heir_port}");
        Self {
            zombie,
            heir: trial.pond.start(&["run", "--set", &listen], &[]),
            heir_port,
            admin: Admin::connect(&trial.pond.configuration().kafka).unwrap(),
        }
    }

    /// Panics with what the heir said if it doesn't come to that.
    fn wait_for_heir(self, what: &str, condition: impl Fn(&Reading) -> bool) -> Self {
        let until = Instant::now() + SOON;
        while !Reading::take(self.heir_port).is_some_and(|now| condition(&now)) {
            if Instant::now() > until {
                panic!("{what}: not within {SOON:?}: {}", self.heir.kill().stderr);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        self
    }

    fn committed(&self, pond: &Pond) -> Vec<i64> {
        let group = pond.configuration().kafka.group;
        let offsets = self
            .admin
            .committed_offsets(&group, &pond.topic, SOON)
            .unwrap();
        offsets
            .into_iter()
            .map(|offset| offset.unwrap_or(0))
            .collect()
    }

    /// Committed offsets only rise during that time.
    fn assert_never_back(&self, pond: &Pond, time: Duration) {
        let (until, mut before) = (Instant::now() + time, self.committed(pond));
        while Instant::now() < until {
            let now = self.committed(pond);
            let back = before.iter().zip(&now).any(|(before, now)| now < before);
            assert!(
                !back,
                "committed offsets went back: {before:?}, then {now:?}"
            );
            before = now;
        }
    }
}

/// The zombie wakes in the middle of its batches, and believes that the partitions are its own. Its writes find fences above
/// them, and its commits are of a generation that is over.
#[test]
fn a_zombie_is_fenced_and_commits_nothing() {
    let load = Load {
        seconds: 9,
        ..Load::default()
    };
    let mut trial = Trial::begin(pond("zombie", ""), &load);
    let both = Zombie::begin(&trial);
    let both = both.wait_for_heir("all partitions are its own", |now| {
        now.sum("millpond_assigned_partitions") == Some(12.0)
    });
    // Past all that the zombie holds.
    let both = both.wait_for_heir("it has caught up", |now| {
        let behind = now.sum("millpond_lag_messages");
        behind < Some(f64::from(RATE)) && now.sum("millpond_messages_total") > Some(f64::from(RATE))
    });
    both.zombie.signal("-CONT");
    both.assert_never_back(&trial.pond, Duration::from_secs(2));
    let woken = trial.reading();
    let count = |name| woken.sum(name).unwrap();
    let (fenced, dropped) = (
        count("millpond_replayed_total"),
        count("millpond_dropped_total"),
    );
    assert!(fenced > 0.0, "the zombie's writes meet the fence");
    assert!(dropped > 0.0, "what it had not begun is dropped");
    // Both die at once: what is committed now is what the zombie may have spoiled.
    let Zombie { zombie, heir, .. } = both;
    zombie.kill();
    heir.kill();
    trial.assert_committed_is_applied();
    let last = trial.pond.start(&["run"], &[]);
    let recovery = trial.recover();
    let observed = format!("{fenced} updates fenced, {dropped} dropped, no commit went back");
    trial.conclude(
        "consumer stopped past its session",
        &observed,
        recovery,
        last,
    );
}
