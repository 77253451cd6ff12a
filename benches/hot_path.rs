//! What one message costs on its way, stage by stage, without Kafka and Postgres: `ring`, `dispatch`, `decode`, `fold`,
//! `encode`, `hot`. Every figure is for one message: criterion's "elem/s" turned over is the time of one.
//!
//! `cargo bench --bench hot_path` measures, `cargo bench --bench hot_path -- --test` runs each once.

mod updates;

use criterion::measurement::WallTime;
use criterion::{
    BatchSize, BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main,
};
use millpond::commit::{Ring, Slot, Tracker};
use millpond::dispatch::{Dispatch, Origin};
use millpond::hot::Counting;
use millpond::ids::{Partition, Position, ShardIndex};
use millpond::lanes::{LaneReceiver, Post, lane_of};
use millpond::observe::recorder::WorkerRecorder;
use millpond::ready::ReadySet;
use millpond::sink::shape::SUBSCRIPTION;
use millpond::update::{Place, Update, decode};
use millpond::worker::encode::Encoder;
use millpond::worker::fold::Folds;
use millpond::worker::settle::complete_all;
use std::sync::Arc;
use std::time::Duration;
use std::{hint::black_box, thread};
use updates::{TYPICAL, claims, dispatch_all, messages, row, text};

criterion_group!(
    hot_path,
    ring,
    dispatch,
    decoding,
    folding,
    encoding,
    counting_hot
);
criterion_main!(hot_path);

/// Messages of a partition in memory, and of one round of the ring.
const IN_MEMORY: u16 = 8192;
const LANES: usize = 4;
/// Messages of a batch; of one partition's visit, too.
const BATCH: usize = 1000;

fn group<'c>(
    criterion: &'c mut Criterion,
    name: &str,
    messages: usize,
) -> BenchmarkGroup<'c, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Elements(messages as u64));
    group
}

/// Takes a slot for each message of a round, finishes all, and passes them.
fn ring(criterion: &mut Criterion) {
    let mut group = group(criterion, "ring", usize::from(IN_MEMORY));
    let mut tracker = Tracker::new(u32::from(IN_MEMORY));
    let mut offset = 0;
    group.bench_function("in order", |bencher| {
        bencher.iter(|| {
            for _ in 0..IN_MEMORY / 1024 {
                let slots: Vec<Slot> = claims(&mut tracker, &mut offset).take(1024).collect();
                finish(tracker.ring(), slots);
                tracker.advance();
            }
        });
    });
    group.bench_function("shuffled over 4 lanes", |bencher| {
        bencher.iter(|| {
            let mut lanes: [Vec<Slot>; LANES] = Default::default();
            for (number, slot) in claims(&mut tracker, &mut offset)
                .take(usize::from(IN_MEMORY))
                .enumerate()
            {
                lanes[lane_of(row(number), LANES)].push(slot);
            }
            lanes
                .into_iter()
                .rev()
                .for_each(|lane| finish(tracker.ring(), lane));
            tracker.advance();
        });
    });
    group.bench_function("finished by a second thread", |bencher| {
        let (to_finish, batches) = crossbeam_channel::unbounded::<Vec<Slot>>();
        let ring = tracker.ring().clone();
        thread::scope(|scope| {
            scope.spawn(move || batches.iter().for_each(|slots| finish(&ring, slots)));
            bencher.iter(|| {
                for _ in 0..IN_MEMORY / 1024 {
                    let slots = claims(&mut tracker, &mut offset).take(1024).collect();
                    to_finish.send(slots).expect("the thread waits for more");
                    tracker.advance();
                }
                while tracker.in_flight() > 0 {
                    tracker.advance();
                }
            });
            drop(to_finish);
        });
    });
}

fn finish(ring: &Ring, slots: Vec<Slot>) {
    // Nobody sleeps until there is room.
    let _ = ring.complete(slots);
}

/// The poller's part: a slot, the copy into the lane's open batch; and the worker's, as far as the hand-over goes.
fn dispatch(criterion: &mut Criterion) {
    let mut group = group(criterion, "dispatch", usize::from(IN_MEMORY));
    let recorders: Vec<_> = (0..LANES)
        .map(|lane| Arc::new(WorkerRecorder::new(0, ShardIndex(0), lane)))
        .collect();
    let (mut dispatch, receivers) = Dispatch::new(std::slice::from_ref(&recorders), BATCH);
    let mut tracker = Tracker::new(u32::from(IN_MEMORY));
    let ready = Arc::new(ReadySet::new(1));
    let origin = Arc::new(Origin::new(Partition(0), tracker.ring().clone(), ready));
    let messages = messages(usize::from(IN_MEMORY));
    let mut offset = 0;
    group.bench_function("copy, hand over, recycle", |bencher| {
        bencher.iter(|| {
            let place = (&mut tracker, &origin);
            dispatch_all(&mut dispatch, &messages, place, &mut offset);
            receivers[0].iter().zip(&recorders).for_each(empty_lane);
            tracker.advance();
        });
    });
}

/// What the discard sink does.
fn empty_lane(((lane, _), recorder): (&(LaneReceiver, Post), &Arc<WorkerRecorder>)) {
    for mut batch in lane.batches.try_iter() {
        complete_all(&mut batch, recorder);
        lane.recycle(batch);
    }
}

const COUNTS_AND_SETS: &str = r#""tags":{"plan":"team","level":17,"vip":null},"counts":{"sessions":1,"purchases":2},"device_type":"android","identifier":"token-0123456789abcdef""#;
const ESCAPES: &str =
    r#""tags":{"last_page":"a \"quoted\" title","name":"Jos\u00e9 \ud83d\ude00"}"#;

fn decoding(criterion: &mut Criterion) {
    let mut group = group(criterion, "decode", 1);
    for (name, fields) in [
        ("typical", TYPICAL),
        ("counts and sets", COUNTS_AND_SETS),
        ("escapes", ESCAPES),
    ] {
        let text = text(fields, 7);
        group.bench_function(name, |bencher| {
            bencher.iter(|| decode(black_box(text.as_bytes()), &place(7)).is_ok());
        });
    }
}

/// How a batch's messages are spread over rows: of ten in a row, so many are for the first one.
const SPREADS: [(&str, usize); 2] = [("1000 rows", 0), ("30 % to one row", 3)];

fn folding(criterion: &mut Criterion) {
    let mut group = group(criterion, "fold", BATCH);
    for (name, hot_of_ten) in SPREADS {
        let rows = rows(hot_of_ten);
        let texts: Vec<String> = rows.iter().map(|row| text(TYPICAL, *row)).collect();
        let updates = updates(&texts, &rows);
        group.bench_function(name, |bencher| {
            bencher.iter_batched(
                || updates.clone(),
                |updates| folded(updates).folds.len(),
                BatchSize::LargeInput,
            );
        });
    }
}

fn encoding(criterion: &mut Criterion) {
    let mut group = group(criterion, "encode", BATCH);
    for (name, hot_of_ten) in SPREADS {
        let rows = rows(hot_of_ten);
        let texts: Vec<String> = rows.iter().map(|row| text(TYPICAL, *row)).collect();
        let folds = folded(updates(&texts, &rows));
        let mut encoder = Encoder::new(&SUBSCRIPTION);
        group.bench_function(name, |bencher| {
            bencher.iter(|| encoder.encode(&folds, &folds.folds).map(|batch| batch.rows));
        });
    }
}

/// Sampling a batch's rows and apps, and counting them: by messages, writes and time.
fn counting_hot(criterion: &mut Criterion) {
    let mut group = group(criterion, "hot", BATCH);
    for (name, hot_of_ten) in SPREADS {
        let rows = rows(hot_of_ten);
        let texts: Vec<String> = rows.iter().map(|row| text(TYPICAL, *row)).collect();
        let mut updates = updates(&texts, &rows);
        // Of many batches, so that rows are ever other ones and counters are dropped.
        let batches: Vec<Folds<'_>> = (0..64)
            .map(|batch: u8| {
                for (update, row) in updates.iter_mut().zip(&rows) {
                    update.key.app.0[0] = update.key.subscription.0[0];
                    update.key.subscription.0[1] = if *row == 0 { 0 } else { batch };
                }
                folded(updates.clone())
            })
            .collect();
        let begin = millpond::clock::now();
        let mut counting = Counting::new(begin);
        let mut turn = 0;
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                turn = (turn + 1) % batches.len();
                let folds = &batches[turn];
                counting.sample(folds.messages.len(), folds.rows());
                counting.count(Duration::from_millis(7), begin);
            });
        });
    }
}

/// The row of each message of a batch, by number.
fn rows(hot_of_ten: usize) -> Vec<usize> {
    (0..BATCH)
        .map(|number| if number % 10 < hot_of_ten { 0 } else { number })
        .collect()
}

fn updates<'t>(texts: &'t [String], rows: &[usize]) -> Vec<Update<'t>> {
    texts
        .iter()
        .zip(rows)
        .map(|(text, row)| decode(text.as_bytes(), &place(*row)).expect("a good update"))
        .collect()
}

fn folded(updates: Vec<Update<'_>>) -> Folds<'_> {
    let mut folds = Folds::for_messages(updates.len());
    for (number, (update, offset)) in updates.into_iter().zip(0..).enumerate() {
        let position = Position {
            incarnation: 1,
            leader_epoch: 0,
            offset,
        };
        folds.add(update, (position, offset, Partition(0)), number);
    }
    folds.sort();
    folds
}

fn place(number: usize) -> Place<'static> {
    Place {
        subscription: row(number),
        partition: Partition(0),
        partitioner: None,
    }
}
