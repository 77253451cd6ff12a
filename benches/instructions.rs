//! Takes messages along their path in this process, without Kafka and Postgres, so that their instructions can be counted from
//! outside (`perf/instructions`): `instructions STAGE ROUNDS`, each round a batch of 1000 messages for 1000 rows. A stage is
//! the path up to there: `dispatch`, `decode`, `fold`, `encode`, and `settle`, which is all of it.

mod updates;

use millpond::commit::Tracker;
use millpond::dispatch::{Batch, Dispatch, Origin};
use millpond::hot::Counting;
use millpond::ids::{Partition, Position, ShardIndex};
use millpond::lanes::{LaneReceiver, Post};
use millpond::observe::recorder::WorkerRecorder;
use millpond::ready::ReadySet;
use millpond::sink::shape::SUBSCRIPTION;
use millpond::update::{Place, Spares, decode_into};
use millpond::worker::encode::Encoder;
use millpond::worker::fold::{Folds, Outcome};
use millpond::worker::settle::complete_all;
use std::sync::Arc;
use std::time::{Duration, Instant};
use updates::{Message, dispatch_all, messages};

const BATCH: usize = 1000;
const STAGES: [&str; 5] = ["dispatch", "decode", "fold", "encode", "settle"];

fn main() -> Result<(), String> {
    let arguments: Vec<String> = std::env::args().collect();
    // cargo test asks every bench to show that it runs.
    let (stage, rounds) = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [_, stage, rounds] => (stage, rounds.parse().map_err(|_| "ROUNDS is no number")?),
        _ => ("settle", 3),
    };
    let stage = STAGES.iter().position(|name| *name == stage);
    let stage = stage.ok_or_else(|| format!("a stage is one of {STAGES:?}"))?;
    let mut path = Path::new();
    for _ in 0..rounds {
        path.round(stage);
    }
    Ok(())
}

/// A partition, a lane, and what poller and worker have.
struct Path {
    messages: Vec<Message>,
    tracker: Tracker,
    origin: Arc<Origin>,
    dispatch: Dispatch,
    lane: (LaneReceiver, Post),
    recorder: Arc<WorkerRecorder>,
    spares: Spares,
    encoder: Encoder,
    hot: Counting,
    offset: i64,
    now: Instant,
}

impl Path {
    fn new() -> Self {
        let tracker = Tracker::new(8192);
        let recorder = Arc::new(WorkerRecorder::new(0, ShardIndex(0), 0));
        let (dispatch, lanes) = Dispatch::new(&[vec![recorder.clone()]], BATCH);
        let lane = lanes.into_iter().flatten().next().expect("one lane");
        let ready = Arc::new(ReadySet::new(1));
        let origin = Arc::new(Origin::new(Partition(0), tracker.ring().clone(), ready));
        let now = millpond::clock::now();
        Self {
            messages: messages(BATCH),
            tracker,
            origin,
            dispatch,
            lane,
            recorder,
            spares: Spares::default(),
            encoder: Encoder::new(&SUBSCRIPTION),
            hot: Counting::new(now),
            offset: 0,
            now,
        }
    }

    fn round(&mut self, stage: usize) {
        let place = (&mut self.tracker, &self.origin);
        dispatch_all(&mut self.dispatch, &self.messages, place, &mut self.offset);
        let batches: Vec<Batch> = self.lane.0.batches.try_iter().collect();
        for mut batch in batches {
            if stage > 0 {
                self.write(&batch, stage);
            }
            complete_all(&mut batch, &self.recorder);
            self.lane.0.recycle(batch);
        }
        self.tracker.advance();
    }

    fn write(&mut self, batch: &Batch, stage: usize) {
        let mut folds = Folds::for_messages(batch.rows.len());
        for (number, row) in batch.rows.iter().enumerate() {
            let place = Place {
                subscription: row.subscription,
                partition: Partition(0),
                partitioner: None,
            };
            let value = row.value(&batch.bytes);
            let update = decode_into(self.spares.take(), value, &place).expect("a good update");
            if stage < 2 {
                self.spares.keep(std::iter::once(update.changes), BATCH);
                continue;
            }
            let position = Position {
                incarnation: 1,
                leader_epoch: row.leader_epoch,
                offset: row.offset,
            };
            folds.add(update, (position, row.timestamp_ms, Partition(0)), number);
        }
        folds.sort();
        let all = folds.folds.clone();
        if stage > 2 {
            let encoded = self.encoder.encode(&folds, &all).map(|batch| batch.rows);
            assert_eq!(encoded, Ok(all.len()));
        }
        if stage > 3 {
            self.hot.sample(folds.messages.len(), folds.rows());
            self.hot.count(Duration::from_millis(7), self.now);
            all.iter()
                .for_each(|fold| folds.note(fold, || Outcome::Applied));
        }
        let lists = folds
            .messages
            .into_iter()
            .map(|message| message.update.changes);
        self.spares.keep(lists, BATCH);
    }
}
