//! What the checker is there for is noticed while it happens, and a sound consumer gives it nothing to say.

use super::{Checker, Looks, Members};
use crate::child::Process;
use crate::pond::{Pond, Shape};
use crate::reading::Reading;
use std::time::Duration;

/// What is waited for happens by then, or never.
const SOON: Duration = Duration::from_secs(60);
const LOOKS: Looks = Looks {
    one_row_in: 1,
    recovery_max: SOON,
};
const UPDATES: u64 = 5000;

fn one_partition(name: &str) -> Pond {
    let shape = Shape {
        partitions: 1,
        shards: 1,
        consumer: "commit_interval_ms = 50",
        ..Shape::default()
    };
    let pond = Pond::new(name, &shape);
    pond.load(&["--messages", "1000", "--rows", "100"]);
    pond.catch_up();
    pond
}

/// A row is locked by somebody else, so its update is unfinished while those behind it are applied. Runs `then` with the
/// consumer at that point, the lock held.
fn while_a_row_is_locked(pond: &Pond, mutant: &[(&str, &str)], then: impl FnOnce(&Process)) {
    let mut locker = pond.shard(0);
    let mut lock = locker.transaction().unwrap();
    let lock_a_row = "SELECT 1 FROM subscription ORDER BY source_offset LIMIT 1 FOR UPDATE";
    lock.execute(lock_a_row, &[]).unwrap();
    pond.load(&[
        "--messages",
        &UPDATES.to_string(),
        "--rows",
        "100",
        "--seed",
        "1",
    ]);
    let consumer = pond.start(&["run"], mutant);
    pond.wait_for("the others are applied", SOON, |pond| {
        let messages = pond.metric("millpond_messages_total");
        messages.is_some_and(|messages| messages > 4500.0)
    });
    then(&consumer);
    lock.rollback().unwrap();
    assert!(consumer.terminate(SOON).status.success());
}

#[test]
fn a_sound_consumer_gives_the_checker_nothing_to_say() {
    let pond = one_partition("checker-sound");
    pond.load(&[
        "--messages",
        "500",
        "--rows",
        "100",
        "--broken",
        "50",
        "--seed",
        "7",
    ]);
    let members = Members::default();
    let checker = Checker::watch(&pond, LOOKS, members.clone());
    while_a_row_is_locked(&pond, &[], |consumer| {
        members
            .lock()
            .unwrap()
            .insert(consumer.id(), pond.admin_port);
        std::thread::sleep(Duration::from_secs(1));
    });
    pond.catch_up();
    let all = 1500 + UPDATES;
    pond.wait_for("all is compared", SOON, |_| checker.compared() == all);
    let findings = checker.end();
    assert!(findings.wrong.is_empty(), "{:#?}", findings.wrong);
    assert!(findings.memory_share_max > 0.0, "memory was looked at");
    println!(
        "memory: at most {:.2} of the formula",
        findings.memory_share_max
    );
    pond.assert_exact();
}

#[test]
fn a_commit_of_the_highest_instead_of_the_prefix_is_noticed_while_it_runs() {
    let pond = one_partition("checker-highest");
    let checker = Checker::watch(&pond, LOOKS, Members::default());
    let mutant = [("MILLPOND_TEST_MUTANT", "commit-highest")];
    while_a_row_is_locked(&pond, &mutant, |_| {
        pond.wait_for("the checker notices", SOON, |_| !checker.wrong().is_empty());
    });
    let wrong = checker.end().wrong;
    let is_ahead = |line: &String| line.contains("committed, but no dead letter, and not applied");
    assert!(wrong.iter().all(is_ahead), "{wrong:#?}");
}

#[test]
fn what_goes_back_and_what_does_not_come_back_is_noticed() {
    let pond = one_partition("checker-back");
    let looks = Looks {
        recovery_max: Duration::from_secs(1),
        ..LOOKS
    };
    let checker = Checker::watch(&pond, looks, Members::default());
    pond.wait_for("all is compared", SOON, |_| checker.compared() == 1000);
    let fault = checker.fault_begins("a consumer that never comes back");
    pond.load(&["--messages", "10", "--rows", "100"]);
    checker.fault_ends(fault);
    pond.good(&["rewind", "--to", "-1d", "--apply"]);
    pond.shard(0)
        .batch_execute("UPDATE subscription SET source_offset = source_offset - 1")
        .unwrap();
    for what in [
        "is committed 1s after it",
        "what is committed of partition 0 went back",
        "the fence of row",
    ] {
        pond.wait_for(what, SOON, |_| {
            checker.wrong().iter().any(|line| line.contains(what))
        });
    }
}

#[test]
fn readings_of_a_members_memory_are_of_that_process() {
    let own = super::memory::resident_bytes(std::process::id()).unwrap();
    assert!(own > 1_048_576.0, "{own}");
    assert!(Reading::take(0).is_none());
}
