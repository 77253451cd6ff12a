//! Late writers of an old epoch, around the delete of a row.

use super::DEVICE;
use crate::pond::{Pond, Shape};
use millpond::config::checked::OnMissingRow;
use millpond::dispatch::Origin;
use millpond::ids::{Partition, Position, ShardIndex};
use millpond::observe::Registry;
use millpond::observe::recorder::WorkerRecorder;
use millpond::ready::ReadySet;
use millpond::sink::pool::ShardPool;
use millpond::sink::rate::WriteRates;
use millpond::sink::shape;
use millpond::sink::shard::ShardConnection;
use millpond::table::Table;
use millpond::update::{Content, decode_for};
use millpond::worker::apply::{Applier, Shared};
use millpond::worker::fold::{Folds, Outcome};
use std::sync::Arc;
use std::time::Duration;

/// Long enough for the other side to be waiting for a lock, shorter than its lock timeout.
const OVERLAP: Duration = Duration::from_millis(300);
const KEY: &[u8] = br#"{"site":"s","unit":1}"#;
const ROW: &str = "site, unit, labels, starts, state, source_incarnation, source_leader_epoch, source_offset, updated_at";

fn one_device(name: &str) -> Pond {
    let shape = Shape {
        partitions: 1,
        shards: 1,
        kafka: super::ANY,
        consumer: DEVICE,
        ..Shape::default()
    };
    Pond::new(name, &shape)
}

/// A worker's writing part.
struct Ours {
    applier: Applier,
    table: Arc<Table>,
    _abandon: crossbeam_channel::Sender<()>,
}

impl Ours {
    fn new(pond: &Pond) -> Self {
        let config = pond.configuration();
        let table = config.table.clone().unwrap();
        let shape = shape::of(Some(&table));
        let pool = ShardPool::new(&config.shards[0], 0).unwrap();
        let recorder = Arc::new(WorkerRecorder::new(0, ShardIndex(0), 0));
        let (sender, abandon) = crossbeam_channel::bounded(0);
        let shared = Shared {
            rates: Arc::new(WriteRates::new(std::iter::once(None), 12)),
            registry: Arc::new(Registry::new(1, vec![ShardIndex(0)], vec!["s0".to_owned()])),
            abandon,
            tunables: Arc::default(),
        };
        let connection = ShardConnection::new(pool, shape, 1);
        Self {
            applier: Applier::new(connection, shape, OnMissingRow::Insert, recorder, &shared),
            table,
            _abandon: sender,
        }
    }

    /// Applies updates of the one row as one batch, "" for a tombstone: which of them were applied now.
    fn apply(&mut self, updates: &[(i64, &str)]) -> Vec<bool> {
        let mut folds = Folds::for_messages(updates.len());
        for (number, (offset, value)) in updates.iter().enumerate() {
            let position = Position {
                incarnation: 1,
                leader_epoch: 0,
                offset: *offset,
            };
            let content = Content {
                key: KEY,
                value: value.as_bytes(),
            };
            let decoded = decode_for(&self.table, Vec::new(), content, (Partition(0), None));
            folds.add(decoded.unwrap(), (position, *offset, Partition(0)), number);
        }
        folds.sort();
        let ring = millpond::commit::Tracker::new(8).ring().clone();
        let origin = Arc::new(Origin::new(Partition(0), ring, Arc::new(ReadySet::new(1))));
        let origins = vec![&origin; updates.len()];
        assert_eq!(self.applier.apply(&mut folds, &origins), []);
        let is_applied = |outcome: &Outcome| matches!(outcome, Outcome::Applied);
        let is_decided =
            |outcome: &Outcome| matches!(outcome, Outcome::Applied | Outcome::Replayed);
        assert!(
            folds.outcomes.iter().all(is_decided),
            "{:?}",
            folds.outcomes
        );
        folds.outcomes.iter().map(is_applied).collect()
    }
}

/// Whether it is deleted, its starts, state, labels and offset.
fn row(pond: &Pond) -> (bool, i32, Option<String>, String, i64) {
    let sql = "SELECT source_deleted, starts, state, labels::text, source_offset FROM device";
    let row = pond.shard(0).query_one(sql, &[]).unwrap();
    (row.get(0), row.get(1), row.get(2), row.get(3), row.get(4))
}

fn gone(offset: i64) -> (bool, i32, Option<String>, String, i64) {
    (true, 0, None, "{}".to_owned(), offset)
}

/// Ours applies updates while a late writer has done this in an open transaction, which commits once ours waits for it.
fn apply_behind(pond: &Pond, late: &str, updates: &[(i64, &str)]) -> Vec<bool> {
    let mut client = pond.shard(0);
    let mut open = client.transaction().unwrap();
    open.batch_execute(late).unwrap();
    std::thread::scope(|scope| {
        let ours = scope.spawn(|| Ours::new(pond).apply(updates));
        std::thread::sleep(OVERLAP);
        assert!(!ours.is_finished(), "it waits for the late writer");
        open.commit().unwrap();
        ours.join().unwrap()
    })
}

const STARTS: &str = r#"{"starts":1}"#;
const STATE: &str = r#"{"state":"new"}"#;
const DELETE: &str = "";

#[test]
fn a_late_writer_that_makes_the_row_while_it_is_deleted_leaves_it_deleted() {
    let pond = one_device("late-make");
    let insert = format!(
        "INSERT INTO device ({ROW}) VALUES ('s', 1, '{{\"old\": 1}}', 7, 'old', 1, 0, 5, now())"
    );
    let applied = apply_behind(&pond, &insert, &[(5, STARTS), (6, DELETE)]);
    assert_eq!(applied, [false, true]);
    assert_eq!(row(&pond), gone(6));
}

#[test]
fn a_late_writer_that_comes_after_a_delete_does_not_bring_the_row_back() {
    let pond = one_device("late-back");
    // Neither where there was a row, nor where the delete is the first thing that is known of it.
    for (first, offset) in [(vec![(3, STARTS), (4, DELETE)], 4), (vec![(9, DELETE)], 9)] {
        Ours::new(&pond).apply(&first);
        assert_eq!(row(&pond), gone(offset));
        let late = Ours::new(&pond).apply(&[(2, STARTS), (3, STATE)]);
        assert_eq!(late, [false, false]);
        assert_eq!(row(&pond), gone(offset));
        pond.shard(0).batch_execute("DELETE FROM device").unwrap();
    }
}

#[test]
fn a_late_delete_does_not_take_what_came_after_it() {
    let pond = one_device("late-delete");
    Ours::new(&pond).apply(&[(3, STARTS), (4, DELETE), (5, STARTS), (6, STATE)]);
    let lives = (false, 1, Some("new".to_owned()), "{}".to_owned(), 6);
    assert_eq!(row(&pond), lives);
    assert_eq!(
        Ours::new(&pond).apply(&[(3, STARTS), (4, DELETE)]),
        [false, false]
    );
    assert_eq!(row(&pond), lives);
    // All of it again, as after a crash.
    let again = Ours::new(&pond).apply(&[
        (3, STARTS),
        (4, DELETE),
        (5, STARTS),
        (6, STATE),
        (7, STARTS),
    ]);
    assert_eq!(again, [false, false, false, false, true]);
    assert_eq!(
        row(&pond),
        (false, 2, Some("new".to_owned()), "{}".to_owned(), 7)
    );
}

#[test]
fn a_late_writer_that_deletes_in_the_middle_of_a_write_has_its_part_cut_off() {
    let pond = one_device("late-middle");
    Ours::new(&pond).apply(&[(1, r#"{"starts":5,"labels":{"a":1}}"#), (2, STATE)]);
    let delete = "UPDATE device SET source_deleted = true, starts = 0, state = NULL, labels = '{}', source_offset = 4";
    let applied = apply_behind(&pond, delete, &[(3, STARTS), (4, DELETE), (5, STARTS)]);
    assert_eq!(applied, [false, false, true]);
    assert_eq!(row(&pond), (false, 1, None, "{}".to_owned(), 5));
}
