//! The workers of one core group: their threads, and the pools that their connections come from. It makes the first ones on the
//! poller's thread, and those that join later on the thread of whoever asks for them; each takes the group's mask of cores itself.

use super::RunError;
use super::group::GroupStart;
use crate::config::Config;
use crate::config::checked::PartitionBy;
use crate::cores;
use crate::ids::ShardIndex;
use crate::kafka::dead_letters::DeadLetterSender;
use crate::lanes::change::{Changed, Changer, LaneChange, Refused};
use crate::lanes::{JoiningLane, LaneReceiver, Post, joining_lane};
use crate::observe::changes::WorkerChange;
use crate::observe::recorder::{ConnectionState, WorkerRecorder};
use crate::ready::ReadySet;
use crate::sink::own::Writer;
use crate::sink::pool::ShardPool;
use crate::sink::shape;
use crate::sink::shard::ShardConnection;
use crate::worker::apply::{Applier, Shared};
use crate::worker::{Worker, WorkerSettings};
use crossbeam_channel::RecvTimeoutError;
use parking_lot::Mutex;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

/// How long the connections of new workers may take, before anybody stands still.
const JOIN_MAX: Duration = Duration::from_secs(10);
/// How often it is looked whether they stand.
const JOIN_LOOK: Duration = Duration::from_millis(2);
/// A change is tried so often: a worker may just be at a large batch.
const TRIES: usize = 4;
/// Between two tries workers work, so that a change that can't be has cost them little.
const BETWEEN_TRIES: Duration = Duration::from_millis(300);
/// The poller answers well within this time, or something is wrong with it.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// How long workers that are dismissed may take to close their connections. Nobody waits for them but who asked.
const END_MAX: Duration = Duration::from_secs(2);
/// How often workers that are still there are told again to give up.
const GIVE_UP_AGAIN: Duration = Duration::from_millis(2);

/// The workers of one core group.
pub struct Crew {
    number: usize,
    config: Arc<Config>,
    settings: WorkerSettings,
    /// Of a program that writes by its own statements.
    writer: Option<Arc<dyn Writer>>,
    dead_letters: DeadLetterSender,
    shared: Shared,
    /// The workers' cores, if they are pinned.
    cores: Option<Vec<usize>>,
    /// By shard, what the workers' own are made from; they connect to nothing themselves.
    pools: Vec<ShardPool>,
    changer: Changer,
    ready: Arc<ReadySet>,
    threads: Mutex<Vec<WorkerThread>>,
}

struct WorkerThread {
    recorder: Arc<WorkerRecorder>,
    thread: JoinHandle<()>,
}

/// Workers that are about to join: connected, but without a duty.
pub struct Joining(Vec<JoiningLane>);

impl Crew {
    /// Nobody yet. The pools' threads inherit the calling thread's cores.
    pub fn new(
        start: &GroupStart,
        cores: Option<Vec<usize>>,
        changer: Changer,
        ready: Arc<ReadySet>,
    ) -> Result<Self, RunError> {
        let config = start.config.clone();
        let pools = config.shards.iter().map(|shard| {
            ShardPool::new(shard, start.number)
                .map_err(|error| RunError(format!("shard {}: {error}", shard.name)))
        });
        Ok(Self {
            number: start.number,
            settings: settings(start),
            writer: start.options.writer.clone(),
            dead_letters: start.dead_letters.clone(),
            shared: start.worker_shared.clone(),
            cores,
            pools: pools.collect::<Result<_, _>>()?,
            changer,
            ready,
            threads: Mutex::default(),
            config,
        })
    }

    /// Starts a worker's thread.
    pub fn start(
        &self,
        recorder: &Arc<WorkerRecorder>,
        (lane, post): (Option<LaneReceiver>, Post),
    ) -> Result<(), RunError> {
        let ShardIndex(shard) = recorder.shard;
        let incarnation = self.config.kafka.incarnation;
        let shape = shape::of(self.config.table.as_deref());
        let connection = ShardConnection::new(self.pools[shard].another(), shape, incarnation)
            .with_writer(self.writer.clone());
        let applier = Applier::new(
            connection,
            shape,
            self.config.consumer.on_missing_row,
            recorder.clone(),
            &self.shared,
        );
        let (settings, letters) = (self.settings.clone(), self.dead_letters.clone());
        let worker = Worker::new((lane, post), settings, applier, letters, recorder.clone());
        let cores = self.cores.clone();
        let thread = Builder::new()
            .name(format!("mp-w{}.{shard}.{}", self.number, recorder.lane))
            .spawn(move || {
                if let Some(Err(error)) = cores.as_deref().map(cores::confine) {
                    tracing::warn!(%error, "a worker is not on its group's cores");
                }
                worker.run();
            })
            .map_err(|error| RunError(format!("no thread for a worker: {error}")))?;
        let recorder = recorder.clone();
        self.threads.lock().push(WorkerThread { recorder, thread });
        Ok(())
    }

    /// How many workers a shard has.
    pub fn count(&self, shard: ShardIndex) -> usize {
        let registry = &self.shared.registry;
        let workers = registry.workers_on_duty();
        let ours = |worker: &&Arc<WorkerRecorder>| self.is_ours(worker, shard);
        workers.iter().filter(ours).count()
    }

    fn is_ours(&self, worker: &WorkerRecorder, shard: ShardIndex) -> bool {
        worker.group == self.number && worker.shard == shard
    }

    /// Which core group it is.
    pub fn number(&self) -> usize {
        self.number
    }

    /// Whether a worker has ended that nobody dismissed: its lane would wait for ever.
    pub fn has_lost_one(&self) -> bool {
        let threads = self.threads.lock();
        let mut lost = threads.iter().filter(|one| one.thread.is_finished());
        lost.any(|one| one.recorder.is_on_duty())
    }

    /// Step 0 of a change: starts the workers that are missing. They connect meanwhile.
    pub fn begin_joining(&self, shard: ShardIndex, workers: usize) -> Result<Joining, String> {
        self.forget_ended();
        let mut lanes = Vec::new();
        for lane in self.count(shard)..workers {
            let recorder = self.recorder(shard, lane)?;
            let (joining, post) = joining_lane(&recorder);
            self.start(&recorder, (None, post))
                .map_err(|RunError(why)| why)?;
            lanes.push(joining);
        }
        Ok(Joining(lanes))
    }

    /// The lane's recorder: the one that it had before, if its last worker has ended, so that each has one writer and their
    /// number stays small.
    fn recorder(&self, shard: ShardIndex, lane: usize) -> Result<Arc<WorkerRecorder>, String> {
        let threads = self.threads.lock();
        let mut recorders = threads.iter().map(|one| &one.recorder);
        if recorders.any(|of| self.is_ours(of, shard) && of.lane == lane) {
            return Err(format!(
                "the worker that lane {lane} of core group {} had before still waits for its shard to say goodbye; try again later",
                self.number
            ));
        }
        let mut all = self.shared.registry.workers.lock();
        let before = all
            .iter()
            .find(|of| self.is_ours(of, shard) && of.lane == lane);
        if let Some(before) = before {
            before.set_connection_state(ConnectionState::Down);
            before.turn_began_ms.set(0);
            return Ok(before.clone());
        }
        let recorder = Arc::new(WorkerRecorder::new(self.number, shard, lane));
        recorder.set_on_duty(false);
        all.push(recorder.clone());
        Ok(recorder)
    }

    /// The rest of a change: waits until the new workers are connected, then has the poller move the lanes.
    pub fn change(
        &self,
        shard: ShardIndex,
        workers: usize,
        joining: Result<Joining, String>,
        by: Instant,
    ) -> WorkerChange {
        let before = self.count(shard);
        let mut change = WorkerChange {
            at_ms: crate::clock::wall_ms(),
            group: self.number,
            from: before,
            to: workers,
            pause_ms: 0.0,
            refused: None,
        };
        if before != workers {
            let changed = joining.and_then(|Joining(lanes)| {
                self.wait_until_connected(shard, workers, by)?;
                self.move_lanes(shard, workers, lanes, &mut change.pause_ms)
            });
            match changed {
                Ok(changed) => self.say_changed(shard, workers, &changed),
                Err(why) => {
                    tracing::warn!(
                        shard = self.name(shard),
                        group = self.number,
                        workers = before,
                        asked = workers,
                        why,
                        "the number of workers stays as it is"
                    );
                    change.refused = Some(why);
                }
            }
        }
        let registry = &self.shared.registry;
        registry.changes.ended(shard, change.clone());
        change
    }

    fn say_changed(&self, shard: ShardIndex, workers: usize, changed: &Changed) {
        tracing::info!(
            shard = self.name(shard),
            group = self.number,
            from = changed.before,
            workers,
            moved = changed.moved,
            pause_us = u64::try_from(changed.pause.as_micros()).unwrap_or(u64::MAX),
            "another number of workers"
        );
    }

    fn name(&self, shard: ShardIndex) -> &str {
        &self.shared.registry.shard_names[shard.0]
    }

    fn wait_until_connected(
        &self,
        shard: ShardIndex,
        workers: usize,
        by: Instant,
    ) -> Result<(), String> {
        let is_joining = |one: &&WorkerThread| {
            !one.recorder.is_on_duty()
                && self.is_ours(&one.recorder, shard)
                && one.recorder.lane < workers
        };
        loop {
            let threads = self.threads.lock();
            let away = threads
                .iter()
                .filter(is_joining)
                .find(|one| one.recorder.connection_state() == ConnectionState::Down);
            let Some(away) = away else { return Ok(()) };
            if away.thread.is_finished() || crate::clock::now() >= by {
                return Err(format!(
                    "a new worker could not connect within {JOIN_MAX:?}: {}",
                    away.recorder.doing()
                ));
            }
            drop(threads);
            std::thread::sleep(JOIN_LOOK);
        }
    }

    /// Has the poller move the lanes, and tries again while a worker is busy. Adds up how long workers stood still.
    fn move_lanes(
        &self,
        shard: ShardIndex,
        workers: usize,
        mut joining: Vec<JoiningLane>,
        pause_ms: &mut f64,
    ) -> Result<Changed, String> {
        let mut paused = |pause: Duration| {
            self.shared.registry.changes.paused(pause);
            *pause_ms += pause.as_secs_f64() * 1000.0;
        };
        for left in (0..TRIES).rev() {
            let (reply, replied) = crossbeam_channel::bounded(1);
            let change = LaneChange {
                shard,
                workers,
                joining,
                reply,
            };
            self.changer.ask(change).map_err(|refused| refused.why)?;
            self.ready.wake();
            match replied.recv_timeout(ANSWER_MAX) {
                Ok(Ok(changed)) => {
                    paused(changed.pause);
                    return Ok(changed);
                }
                Ok(Err(Refused {
                    why,
                    pause,
                    joining: again,
                })) => {
                    paused(pause);
                    if left == 0 {
                        return Err(format!("tried {TRIES} times: {why}"));
                    }
                    joining = again;
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err("the consumer is stopping".to_owned());
                }
                Err(RecvTimeoutError::Timeout) => {
                    return Err(format!(
                        "the poller of core group {} has not answered within {ANSWER_MAX:?}; look again whether it has done \
                         it since",
                        self.number
                    ));
                }
            }
            std::thread::sleep(BETWEEN_TRIES);
        }
        unreachable!("the last try returns")
    }

    /// Dismissed workers end by themselves; who asked learns of it if it is quick.
    pub fn wait_until_ended(&self) {
        let by = crate::clock::now() + END_MAX;
        while self.forget_ended() && crate::clock::now() < by {
            std::thread::sleep(JOIN_LOOK);
        }
    }

    /// Forgets those that were dismissed and have ended; whether others were dismissed.
    fn forget_ended(&self) -> bool {
        let mut threads = self.threads.lock();
        threads.retain(|one| one.recorder.is_on_duty() || !one.thread.is_finished());
        threads.iter().any(|one| !one.recorder.is_on_duty())
    }

    /// Tells workers that are still there to give up, at most until then. Whether all have ended. Those without a lane have
    /// nothing in flight, and nobody waits for them.
    pub fn give_up(&self, by: Instant, giving_up: &crossbeam_channel::Sender<()>) -> bool {
        let mut threads = self.threads.lock();
        threads.retain(|one| one.recorder.is_on_duty());
        for one in &*threads {
            // Each tells one worker at most; those that are not waiting don't listen.
            while !one.thread.is_finished() && crate::clock::now() < by {
                let _ = giving_up.try_send(());
                std::thread::sleep(GIVE_UP_AGAIN);
            }
        }
        threads.iter().all(|one| one.thread.is_finished())
    }
}

/// When new workers must be connected.
pub fn join_by() -> Instant {
    crate::clock::now() + JOIN_MAX
}

fn settings(start: &GroupStart) -> WorkerSettings {
    let config = &start.config;
    let partitioner =
        (config.kafka.partition_by == PartitionBy::App).then(|| config.partitioner.clone());
    WorkerSettings {
        sink: start.options.sink,
        baseline: start.options.baseline.is_some(),
        batch_rows_max: config.consumer.batch_rows_max,
        batch_linger: config.consumer.batch_linger,
        incarnation: config.kafka.incarnation,
        partitioner: partitioner.map(Arc::new),
        table: config.table.clone(),
        rules: start.poller_shared.rules.clone(),
    }
}
