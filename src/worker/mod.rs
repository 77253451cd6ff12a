//! A worker: one OS thread, one lane, one connection for life, all rows that hash to its lane.
//!
//! Runs on its core group's cores. Woken by batches in its lane; every 200 ms while a locked row waits. Ends when the poller
//! has dropped the lane and what was in it is finished, or when the process gives up on what is in flight.
//!
//! When the number of lanes changes, it hands over between two turns and waits for another duty (`lanes/README.md`).
//!
//! One turn: take what is there, up to `batch_rows_max` → drop dead epochs → decode → rules → fold by row → sort → write →
//! settle every slot. Nothing of a turn stays behind but parked rows, and what is left open when the worker is asked to hand
//! over while it waits.
//!
//! - [`fold`]: messages of one row become one write
//! - [`encode`]: folds become a statement's parameters
//! - [`apply`]: write, ask, cut, send again
//! - `links`: updates that link rows to parents, whose children are counted
//! - `locked`: which rows somebody else holds locked
//! - [`refuse`]: what the database refuses
//! - [`patience`]: waiting after errors
//! - [`parked`]: rows that somebody else holds locked
//! - [`duty`]: handing the lane over, and taking one
//! - [`tunables`]: what may change while it works
//! - [`settle`]: every slot to where its outcome says
//! - `applied`, `traced`: which updates are logged, which batches are traced

mod amount;
mod applied;
pub mod apply;
mod duty;
pub mod encode;
pub mod fold;
mod links;
mod locked;
pub mod parked;
pub mod patience;
pub mod refuse;
pub mod settle;
mod traced;
pub mod tunables;

use crate::dispatch::{Batch, Origin, Row};
use crate::hot;
use crate::ids::{Partition, Position, RowKey};
use crate::kafka::dead_letters::DeadLetterSender;
use crate::lanes::{LaneReceiver, Post};
use crate::observe::recorder::{ConnectionState, WorkerRecorder};
use crate::partitioner::Partitioner;
use crate::rules::{Rules, RulesView, table::Seen};
use crate::sink::shard::{ShardConnection, ShardSession};
use crate::table::{Asked, KeyValues, Table};
use crate::update::{
    Content, Incoming, Place, Rejection, Spares, Update, decode_for, decode_into, decode_own,
};
use applied::AppliedLog;
use apply::Applier;
use crossbeam_channel::RecvTimeoutError;
use fold::{Dead, Folds, Outcome};
use parked::Parking;
use settle::{Settler, complete_all};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};
use traced::Tracing;

/// How long an idle worker sleeps at most: parked rows are looked at this often.
const IDLE: Duration = Duration::from_millis(200);

/// Where a worker's batches end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SinkKind {
    /// In the shard.
    Postgres,
    /// Everything is done but sending the statement.
    Null,
    /// Nothing is even decoded.
    Discard,
}

/// How a worker works.
#[derive(Clone, Debug)]
pub struct WorkerSettings {
    /// Where batches end.
    pub sink: SinkKind,
    /// One statement a message, no fold: the consumer of the incident, for comparison.
    pub baseline: bool,
    /// Rows of one statement.
    pub batch_rows_max: usize,
    /// How long to wait for a fuller batch.
    pub batch_linger: Duration,
    /// The source's incarnation.
    pub incarnation: i32,
    /// Where messages belong; `None` trusts the producer.
    pub partitioner: Option<Arc<Partitioner>>,
    /// The table that messages are for; `None` for the subscriptions.
    pub table: Option<Arc<Table>>,
    /// What is to be skipped.
    pub rules: Arc<Rules>,
}

/// One worker, to be run on its thread.
pub struct Worker<S = ShardConnection> {
    post: Post,
    /// Its lane; none while it has no duty.
    lane: Option<LaneReceiver>,
    /// What it took from the lane and did not finish: what was left open, a batch that would have made the last turn too large.
    carried: VecDeque<Batch>,
    rules: RulesView,
    settings: WorkerSettings,
    applier: Applier<S>,
    /// What decoded updates leave to those to come.
    spares: Spares,
    parking: Parking,
    dead_letters: DeadLetterSender,
    hot: hot::Counting,
    log: AppliedLog,
    tracing: Tracing,
    recorder: Arc<WorkerRecorder>,
}

impl<S: ShardSession> Worker<S> {
    /// Made by the pipeline; without a lane if it is to join a consumer that runs.
    pub fn new(
        (lane, post): (Option<LaneReceiver>, Post),
        settings: WorkerSettings,
        mut applier: Applier<S>,
        dead_letters: DeadLetterSender,
        recorder: Arc<WorkerRecorder>,
    ) -> Self {
        applier.patience.listen_to(post.question());
        let registry = applier.patience.registry();
        let log = AppliedLog::new(registry.clone(), recorder.clone());
        let tracing = Tracing::new(registry.telemetry.tracer.clone());
        Self {
            post,
            lane,
            carried: VecDeque::new(),
            rules: RulesView::new(settings.rules.clone()),
            settings,
            applier,
            spares: Spares::default(),
            parking: Parking::default(),
            dead_letters,
            hot: hot::Counting::new(crate::clock::now()),
            log,
            tracing,
            recorder,
        }
    }

    /// The thread's work, until the lane ends or the process gives up.
    pub fn run(mut self) {
        self.begin();
        while self.step() {}
        self.recorder.set_connection_state(ConnectionState::Down);
    }

    /// Before the first step: connects, however long it takes.
    pub fn begin(&mut self) {
        if self.settings.sink == SinkKind::Postgres {
            while !self.applier.connect() && !self.is_dismissed() {}
        }
    }

    /// One turn, or a wait for one. False when there will be no more.
    pub fn step(&mut self) -> bool {
        self.applier.patience.alive(IDLE);
        self.recorder
            .set_connection_state(self.applier.connection_state(self.settings.sink));
        if self.lane.is_none() {
            return self.wait_for_duty();
        }
        if self.post.hears_question() {
            self.hand_over();
            return true;
        }
        let mut turn = Vec::new();
        let ended = self.take(&mut turn);
        self.hot.hand_over(&self.recorder.hot, crate::clock::now());
        if !turn.is_empty() {
            self.turn(turn);
        }
        self.release_unlocked();
        let is_finished = ended && self.parking.is_empty();
        !is_finished && !self.applier.patience.has_given_up()
    }

    /// Takes the batches of one turn. True when the lane has ended.
    fn take(&mut self, turn: &mut Vec<Batch>) -> bool {
        let lane = self.lane.as_ref().expect("it is on duty");
        let first = match self.carried.pop_front() {
            Some(batch) => batch,
            None => match crate::clock::receive_within(&lane.batches, IDLE) {
                // It only wakes up: somebody has a question.
                Ok(batch) if batch.rows.is_empty() => return false,
                Ok(batch) => batch,
                Err(RecvTimeoutError::Timeout) => return false,
                Err(RecvTimeoutError::Disconnected) => {
                    // While a row is parked there is nothing to wait for but its lock.
                    if !self.parking.is_empty() {
                        self.applier.patience.rest(IDLE);
                    }
                    return true;
                }
            },
        };
        let mut rows = first.rows.len();
        turn.push(first);
        let until = crate::clock::now() + self.settings.batch_linger;
        while rows < self.settings.batch_rows_max {
            let carried = self.carried.pop_front();
            let next = carried.or_else(|| match self.settings.batch_linger.is_zero() {
                true => lane.batches.try_recv().ok(),
                false => lane.batches.recv_deadline(until).ok(),
            });
            let Some(next) = next.filter(|next| !next.rows.is_empty()) else {
                break;
            };
            if rows + next.rows.len() > self.settings.batch_rows_max {
                self.carried.push_front(next);
                break;
            }
            rows += next.rows.len();
            turn.push(next);
        }
        self.recorder
            .taken
            .add(turn.iter().map(|batch| batch.rows.len() as u64).sum());
        false
    }

    /// Decodes, folds, writes and settles the batches of one turn.
    fn turn(&mut self, mut turn: Vec<Batch>) {
        self.recorder.turn_began_ms.set(crate::clock::running_ms());
        self.applier.patience.turn_begins();
        let mut left = Batch::default();
        self.recorder
            .set_connection_state(match self.settings.sink {
                SinkKind::Postgres if !self.applier.is_connected() => ConnectionState::Down,
                _ => ConnectionState::Busy,
            });
        if self.settings.sink == SinkKind::Discard {
            turn.iter_mut()
                .for_each(|batch| complete_all(batch, &self.recorder));
        } else {
            let written_before = self.recorder.rows_written.get();
            let traced = self.tracing.begins(&turn);
            let (outcomes, keys) = self.write(&turn);
            let mut settler = Settler {
                dead_letters: &self.dead_letters,
                parking: &mut self.parking,
                left: &mut left,
                recorder: &self.recorder,
                log: &mut self.log,
            };
            let written = self.recorder.rows_written.get() - written_before;
            let applied = settler.settle(&mut turn, outcomes, &keys, written);
            if let Some(traced) = traced {
                let shard = self.applier.patience.shard();
                self.tracing
                    .ends(traced, &self.recorder, shard, (applied, written));
            }
            self.recorder.folded.add(applied.saturating_sub(written));
            self.recorder
                .parked
                .set(i64::try_from(self.parking.messages()).unwrap_or(i64::MAX));
            self.applier.refusals.decided(applied);
        }
        self.recorder
            .finished_at_us
            .set(self.applier.patience.elapsed_us());
        self.applier.patience.turn_ends();
        self.recorder.turn_began_ms.set(0);
        if !left.rows.is_empty() {
            self.recorder.taken.take_back(left.rows.len() as u64);
            self.carried.push_front(left);
        }
        if let Some(lane) = &self.lane {
            turn.into_iter().for_each(|batch| lane.recycle(batch));
        }
    }

    /// What becomes of each message, and which row it is for.
    fn write(&mut self, turn: &[Batch]) -> (Vec<Outcome>, Vec<Option<RowKey>>) {
        let origins: Vec<&Arc<Origin>> = turn
            .iter()
            .flat_map(|batch| &batch.segments)
            .flat_map(|segment| segment.rows.clone().map(|_| &segment.origin))
            .collect();
        let mut keys = vec![None; origins.len()];
        self.rules.refresh();
        let mut folds = self.decode(turn, &origins, &mut keys);
        self.rules.count();
        if !self.settings.baseline {
            folds.sort();
        }
        self.recorder.batches.add(1);
        let rows = u64::try_from(folds.folds.len()).expect("few rows");
        self.recorder
            .histograms
            .lock()
            .batch_rows
            .saturating_record(rows.max(1));
        self.hot.sample(folds.messages.len(), folds.rows());
        if self.settings.table.is_some() {
            self.hot.name(folds.keys());
        }
        let begun = (crate::clock::now(), self.applier.patience.paused());
        if self.settings.sink == SinkKind::Null {
            self.applier.encode_only(&mut folds);
        } else if self.settings.baseline {
            let mut parked = Vec::new();
            for fold in std::mem::take(&mut folds.folds) {
                if parked.contains(&fold.key) {
                    folds.note(&fold, || Outcome::Parked);
                    continue;
                }
                folds.folds = vec![fold];
                parked.extend(self.applier.apply(&mut folds, &origins));
            }
        } else {
            self.applier.apply(&mut folds, &origins);
        }
        self.count_hot(begun);
        let Folds {
            messages, outcomes, ..
        } = folds;
        let lists = messages.into_iter().map(|message| message.update.changes);
        self.spares.keep(lists, self.settings.batch_rows_max);
        (outcomes, keys)
    }

    /// Counts the batch's rows and apps, with the time of writing it; waits for the write rate and after errors are not the
    /// database's.
    fn count_hot(&mut self, (begun, paused_before): (Instant, Duration)) {
        let now = crate::clock::now();
        let paused = self.applier.patience.paused() - paused_before;
        let database_time = match self.settings.sink {
            SinkKind::Postgres => now.saturating_duration_since(begun).saturating_sub(paused),
            SinkKind::Null | SinkKind::Discard => Duration::ZERO,
        };
        self.hot.count(database_time, now);
    }

    /// Decodes and folds. What can't be decoded, is dead, or waits behind a parked update has its outcome already.
    fn decode<'t>(
        &mut self,
        turn: &'t [Batch],
        origins: &[&Arc<Origin>],
        keys: &mut [Option<RowKey>],
    ) -> Folds<'t> {
        let mut folds = Folds::for_messages(origins.len());
        let mut unknown_keys = 0;
        let rows = turn
            .iter()
            .flat_map(|batch| batch.rows.iter().map(|row| (row, &*batch.bytes)));
        for (number, ((row, bytes), origin)) in rows.zip(origins).enumerate() {
            if !origin.is_live() && !crate::fault::mutant("dead-epochs-not-dropped") {
                folds.outcomes[number] = Outcome::DeadEpoch;
                continue;
            }
            match self.decode_one(row, bytes, origin.partition) {
                Err(rejection) => {
                    let dead = Dead {
                        reason: rejection.reason,
                        sqlstate: None,
                        message: rejection.message,
                    };
                    folds.outcomes[number] = Outcome::Dead(Box::new(dead));
                }
                Ok(update) => {
                    keys[number] = Some(update.key);
                    unknown_keys += u64::from(update.unknown_keys);
                    let at = (origin.partition, row.offset, row.timestamp_ms);
                    if self.rules.is_active() && self.rules.skips(&seen(&update, at)) {
                        folds.outcomes[number] = Outcome::Skipped;
                        continue;
                    }
                    if self.parking.holds(&update.key) {
                        folds.outcomes[number] = Outcome::Parked;
                        continue;
                    }
                    let (incarnation, leader_epoch) = (self.settings.incarnation, row.leader_epoch);
                    let position = Position {
                        incarnation,
                        leader_epoch,
                        offset: row.offset,
                    };
                    let place = (position, row.timestamp_ms, origin.partition);
                    match self.settings.baseline {
                        true => folds.add_unfolded(update, place, number),
                        false => folds.add(update, place, number),
                    }
                }
            }
        }
        self.recorder.unknown_keys.add(unknown_keys);
        folds
    }

    fn decode_one<'t>(
        &mut self,
        row: &Row,
        bytes: &'t [u8],
        partition: Partition,
    ) -> Result<Update<'t>, Rejection> {
        let partitioner = self.settings.partitioner.as_deref();
        let changes = self.spares.take();
        if let Some(table) = &self.settings.table {
            let content = Content {
                key: row.key(bytes),
                value: row.value(bytes),
            };
            if let Some(own) = &table.own {
                let message = Incoming {
                    content,
                    headers: row.headers(bytes),
                    partition,
                    offset: row.offset,
                    timestamp_ms: row.timestamp_ms,
                };
                return decode_own((table, own), changes, &message, partitioner);
            }
            return decode_for(table, changes, content, (partition, partitioner));
        }
        let place = Place {
            subscription: row.subscription,
            partition,
            partitioner,
        };
        decode_into(changes, row.value(bytes), &place)
    }

    /// Writes the messages of parked rows that nobody holds locked any more.
    fn release_unlocked(&mut self) {
        let due = self.parking.due();
        if due.is_empty() {
            return;
        }
        let values = |key: &RowKey| {
            let table = self.settings.table.as_deref()?;
            self.parking.first(key)?.key_values(table).ok()
        };
        let values: Vec<Option<KeyValues>> = due.iter().map(values).collect();
        let asked = due.iter().zip(&values).map(|(key, values)| Asked {
            key: *key,
            values: values.as_ref(),
        });
        let unlocked = self.applier.unlocked(&asked.collect::<Vec<_>>());
        for (key, _) in due.iter().zip(unlocked).filter(|(_, unlocked)| *unlocked) {
            if let Some(batch) = self.parking.release(key) {
                self.turn(vec![batch]);
            }
        }
    }
}

/// What rules look at.
fn seen(update: &Update<'_>, (partition, offset, timestamp_ms): (Partition, i64, i64)) -> Seen {
    Seen {
        partition,
        offset,
        timestamp_ms,
        row: update.key,
        parent: update.link().flatten(),
    }
}
