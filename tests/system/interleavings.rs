//! Other writers, refusals and crashes in every order that matters, on real Postgres.
//!
//! "Ours" is a worker's writing part with a connection of its own; "late" is what an old epoch's worker does when it comes to
//! life again, held open in a transaction where the order matters.

use crate::pond::{Pond, Sent, Shape};
use millpond::config::checked::OnMissingRow;
use millpond::dead::Reason;
use millpond::dispatch::Origin;
use millpond::ids::{Partition, Position, ShardIndex, SubscriptionId};
use millpond::observe::Registry;
use millpond::observe::recorder::WorkerRecorder;
use millpond::ready::ReadySet;
use millpond::sink::pool::ShardPool;
use millpond::sink::rate::WriteRates;
use millpond::sink::shape::SUBSCRIPTION;
use millpond::sink::shard::ShardConnection;
use millpond::update::{Place, decode};
use millpond::worker::apply::{Applier, Shared};
use millpond::worker::fold::{Folds, Outcome};
use millpond::worker::tunables::Tunables;
use std::sync::Arc;

use std::time::Duration;

mod links;

const APP: &str = "5eb5a37e-b458-11e3-ac11-000c2940e62c";
const ROW: &str = "f47ac10b-58cc-4372-a567-0e02b2c3d479";
/// Long enough for the other side to be waiting for a lock, shorter than its lock timeout.
const OVERLAP: Duration = Duration::from_millis(300);

fn one_shard(name: &str) -> Pond {
    Pond::new(
        name,
        &Shape {
            partitions: 1,
            shards: 1,
            ..Shape::default()
        },
    )
}

/// A worker's writing part.
struct Ours {
    applier: Applier,
    tunables: Arc<Tunables>,
    recorder: Arc<WorkerRecorder>,
    _abandon: crossbeam_channel::Sender<()>,
}

impl Ours {
    fn new(pond: &Pond) -> Self {
        let config = pond.configuration();
        let pool = ShardPool::new(&config.shards[0], 0).unwrap();
        let connection = ShardConnection::new(pool, &SUBSCRIPTION, 1);
        let recorder = Arc::new(WorkerRecorder::new(0, ShardIndex(0), 0));
        let (sender, abandon) = crossbeam_channel::bounded(0);
        let registry = Arc::new(Registry::new(1, vec![ShardIndex(0)], vec!["s0".to_owned()]));
        let shared = Shared {
            rates: Arc::new(WriteRates::new(std::iter::once(None), 12)),
            registry,
            abandon,
            tunables: Arc::default(),
        };
        let applier = Applier::new(
            connection,
            &SUBSCRIPTION,
            OnMissingRow::Insert,
            recorder.clone(),
            &shared,
        );
        Self {
            applier,
            tunables: shared.tunables,
            recorder,
            _abandon: sender,
        }
    }

    /// Applies updates of the one row as one batch: what became of each.
    fn apply(&mut self, updates: &[(i64, &str)]) -> Vec<Outcome> {
        let values: Vec<String> = updates
            .iter()
            .map(|(_, fields)| {
                format!(r#"{{"app_id":"{APP}","subscription_id":"{ROW}",{fields}}}"#)
            })
            .collect();
        let subscription = SubscriptionId::parse(ROW.as_bytes()).unwrap();
        let place = Place {
            subscription,
            partition: Partition(0),
            partitioner: None,
        };
        let mut folds = Folds::for_messages(values.len());
        for (number, ((offset, _), value)) in updates.iter().zip(&values).enumerate() {
            let position = Position {
                incarnation: 1,
                leader_epoch: 0,
                offset: *offset,
            };
            let update = decode(value.as_bytes(), &place).unwrap();
            folds.add(update, (position, *offset, Partition(0)), number);
        }
        folds.sort();
        let ring = millpond::commit::Tracker::new(8).ring().clone();
        let origin = Arc::new(Origin::new(Partition(0), ring, Arc::new(ReadySet::new(1))));
        let origins = vec![&origin; values.len()];
        let parked = self.applier.apply(&mut folds, &origins);
        assert_eq!(parked, []);
        folds.outcomes
    }
}

fn applied(outcomes: &[Outcome]) -> Vec<bool> {
    outcomes
        .iter()
        .map(|outcome| matches!(outcome, Outcome::Applied))
        .collect()
}

fn row(pond: &Pond) -> (String, String, i64) {
    let row = pond
        .shard(0)
        .query_one(
            "SELECT tags::text, counts::text, source_offset FROM subscription",
            &[],
        )
        .unwrap();
    (row.get(0), row.get(1), row.get(2))
}

const ONE: &str = r#""counts":{"n":1}"#;

/// Ours applies updates while a late writer has done this in an open transaction, which commits once ours waits for it.
fn apply_behind(pond: &Pond, late: &str, updates: &[(i64, &str)]) -> (Vec<Outcome>, Ours) {
    let mut client = pond.shard(0);
    let mut open = client.transaction().unwrap();
    open.batch_execute(late).unwrap();
    std::thread::scope(|scope| {
        let ours = scope.spawn(|| {
            let mut ours = Ours::new(pond);
            let outcomes = ours.apply(updates);
            (outcomes, ours)
        });
        std::thread::sleep(OVERLAP);
        assert!(!ours.is_finished(), "it waits for the late writer");
        open.commit().unwrap();
        ours.join().unwrap()
    })
}

#[test]
fn a_late_writer_that_inserts_the_missing_row_first_loses_nothing_of_the_newer_update() {
    let pond = one_shard("late-insert");
    let insert = format!(
        "INSERT INTO subscription (app_id, subscription_id, tags, counts, source_incarnation, source_leader_epoch, \
         source_offset, updated_at) VALUES ('{APP}', '{ROW}', '{{\"old\": 1}}', '{{\"n\": 1}}', 1, 0, 5, now())"
    );
    let updates = [(5, ONE), (6, r#""tags":{"new":2},"counts":{"n":1}"#)];
    let (outcomes, _) = apply_behind(&pond, &insert, &updates);
    assert!(
        matches!(outcomes[..], [Outcome::Replayed, Outcome::Applied]),
        "{outcomes:?}"
    );
    assert_eq!(
        row(&pond),
        (r#"{"new": 2, "old": 1}"#.into(), r#"{"n": 2}"#.into(), 6)
    );
}

#[test]
fn a_late_writer_that_moves_the_row_in_the_middle_of_a_write_has_its_part_cut_off() {
    let pond = one_shard("late-move");
    Ours::new(&pond).apply(&[(3, ONE)]);
    let update = "UPDATE subscription SET counts = '{\"n\": 3}', source_offset = 5";
    let (outcomes, ours) = apply_behind(&pond, update, &[(4, ONE), (5, ONE), (6, ONE)]);
    assert_eq!(applied(&outcomes), [false, false, true], "{outcomes:?}");
    assert_eq!(ours.recorder.folds_cut.get(), 1);
    assert_eq!(row(&pond), ("{}".into(), r#"{"n": 4}"#.into(), 6));
}

#[test]
fn a_late_writer_that_comes_after_changes_nothing() {
    let pond = one_shard("late-after");
    Ours::new(&pond).apply(&[(4, ONE), (5, ONE), (6, r#""tags":{"new":1}"#)]);
    let before = row(&pond);
    let mut late = Ours::new(&pond);
    assert_eq!(
        applied(&late.apply(&[(4, r#""tags":{"new":0},"counts":{"n":1}"#), (5, ONE)])),
        [false, false]
    );
    assert_eq!(row(&pond), before);
    assert_eq!(late.recorder.rows_written.get(), 0);
}

#[test]
fn an_older_leader_epoch_is_late_whatever_its_offset() {
    let pond = one_shard("late-epoch");
    Ours::new(&pond).apply(&[(9, ONE)]);
    pond.shard(0)
        .execute(
            "UPDATE subscription SET source_leader_epoch = 2, source_offset = 4",
            &[],
        )
        .unwrap();
    assert_eq!(applied(&Ours::new(&pond).apply(&[(10, ONE)])), [false]);
    assert_eq!(row(&pond).1, r#"{"n": 1}"#);
}

fn reasons(outcomes: &[Outcome]) -> Vec<Option<Reason>> {
    let reason = |outcome: &Outcome| {
        if let Outcome::Dead(dead) = outcome {
            Some(dead.reason)
        } else {
            None
        }
    };
    outcomes.iter().map(reason).collect()
}

#[test]
fn an_overflow_between_good_updates_of_a_row_is_refused_alone() {
    let pond = one_shard("overflow");
    let near = format!(r#""counts":{{"n":{}}}"#, i64::MAX - 1);
    Ours::new(&pond).apply(&[(1, &near)]);
    let mut ours = Ours::new(&pond);
    // Together they come to -3: only their order shows that the second one alone leaves 64 bits.
    let outcomes = ours.apply(&[
        (2, ONE),
        (3, r#""tags":{"never":1},"counts":{"n":1}"#),
        (4, r#""counts":{"n":-5}"#),
    ]);
    assert_eq!(
        reasons(&outcomes),
        [None, Some(Reason::Overflow), None],
        "{outcomes:?}"
    );
    assert_eq!(
        row(&pond),
        ("{}".into(), format!(r#"{{"n": {}}}"#, i64::MAX - 5), 4)
    );
    // Another life finds in the table what it can't find in the row.
    let again = Ours::new(&pond).apply(&[(2, ONE), (3, ONE), (4, ONE)]);
    assert_eq!(
        reasons(&again),
        [None, Some(Reason::Overflow), None],
        "{again:?}"
    );
}

#[test]
fn sums_that_overflow_in_memory_are_written_one_by_one() {
    let pond = one_shard("sums");
    let max = format!(r#""counts":{{"n":{}}}"#, i64::MAX);
    let outcomes = Ours::new(&pond).apply(&[(1, &max), (2, ONE), (3, r#""tags":{"last":1}"#)]);
    assert_eq!(
        reasons(&outcomes),
        [None, Some(Reason::Overflow), None],
        "{outcomes:?}"
    );
    assert_eq!(
        row(&pond),
        (
            r#"{"last": 1}"#.into(),
            format!(r#"{{"n": {}}}"#, i64::MAX),
            3
        )
    );
}

#[test]
fn a_data_error_between_good_updates_of_a_row_is_refused_alone() {
    let pond = one_shard("data-error");
    pond.shard(0)
        .batch_execute("ALTER TABLE subscription ADD CHECK (NOT tags ? 'poison')")
        .unwrap();
    let outcomes = Ours::new(&pond).apply(&[
        (1, r#""tags":{"poison":1}"#),
        (2, ONE),
        (3, r#""tags":{"poison":2}"#),
    ]);
    assert_eq!(
        reasons(&outcomes),
        [Some(Reason::Database), None, Some(Reason::Database)],
        "{outcomes:?}"
    );
    let sqlstate = |outcome: &Outcome| {
        if let Outcome::Dead(dead) = outcome {
            dead.sqlstate.clone()
        } else {
            None
        }
    };
    assert_eq!(sqlstate(&outcomes[0]).as_deref(), Some("23514"));
    assert_eq!(row(&pond), ("{}".into(), r#"{"n": 1}"#.into(), 3));
}

/// A refused update between good ones, and a crash after each step of refusing it. Whatever the moment: once another life has
/// caught up, every row is exact and the refused updates are in the dead letter topic.
#[test]
fn a_crash_after_each_step_of_a_refusal_loses_neither_updates_nor_dead_letters() {
    for point in [
        "after-write",
        "before-refuse",
        "after-refuse",
        "before-dead-letter",
        "after-dead-letter",
    ] {
        let pond = one_shard(&format!("crash-{point}"));
        pond.shard(0)
            .batch_execute("ALTER TABLE subscription ADD CHECK (NOT tags ? 'poison')")
            .unwrap();
        let near = format!(r#""counts":{{"n":{}}}"#, i64::MAX - 1);
        let fields = [
            &near,
            ONE,
            ONE,
            r#""tags":{"poison":1},"counts":{"n":-9}"#,
            r#""counts":{"n":-5}"#,
            r#""tags":{"last":1}"#,
        ];
        let values = fields
            .map(|fields| format!(r#"{{"app_id":"{APP}","subscription_id":"{ROW}",{fields}}}"#));
        let sent = values.each_ref().map(|value| Sent {
            partition: 0,
            key: Some(ROW),
            value: Some(value),
            headers: &[],
        });
        pond.produce(&sent);
        let crashed = pond.start(
            &["run", "--until-caught-up"],
            &[("MILLPOND_TEST_CRASH", point)],
        );
        let ended = crashed.wait(Duration::from_secs(60));
        assert!(
            !ended.status.success() && ended.status.code().is_none(),
            "{point}: it did not crash: {ended:?}"
        );
        pond.catch_up();
        let verdict = pond.assert_exact();
        assert_eq!(verdict["dead_letters_missing"], 0, "{point}: {verdict}");
        let letters = pond.dead_letters();
        for (reason, offset) in [("overflow", "2"), ("database", "3")] {
            let found = letters.iter().any(|letter| {
                letter.header("__dlq.errors.reason") == reason
                    && letter.header("__dlq.errors.offset") == offset
            });
            assert!(found, "{point}: no dead letter for {reason}");
        }
        let count = format!(r#"{{"n": {}}}"#, i64::MAX - 5);
        assert_eq!(row(&pond), (r#"{"last": 1}"#.into(), count, 5), "{point}");
    }
}
