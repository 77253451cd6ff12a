//! What each thread records about its own work. One writer per counter: a plain load and store, no read-modify-write,
//! nothing shared on the hot path. Readers (`/metrics`, the summary) sum over the threads.

use super::changes::WorkerChanges;
pub use super::counters::{Counter, Gauge, SharedCounter};
use super::page::board::Board;
use super::telemetry::Telemetry;
use crate::dead::Reason;
use crate::hot;
use crate::ids::{Partition, ShardIndex};
use crate::sync::{AtomicBool, Ordering};
use crossbeam_utils::CachePadded;
use hdrhistogram::Histogram;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;

/// The longest value that a histogram keeps apart: an hour, in microseconds. Longer ones count as an hour.
pub const HISTOGRAM_US_MAX: u64 = 3_600_000_000;

/// What a worker's connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionState {
    /// Waiting for messages.
    Idle,
    /// In a statement, or about to send one.
    Busy,
    /// No connection; the worker tries again.
    Down,
}

/// What one worker records. The worker is the only writer, but for `sent`.
#[derive(Debug)]
pub struct WorkerRecorder {
    /// The core group of the worker.
    pub group: usize,
    /// The shard that it writes to.
    pub shard: ShardIndex,
    /// Its lane's number within shard and group.
    pub lane: usize,
    /// Messages that the poller put into the lane (the poller is the one writer).
    pub sent: CachePadded<Counter>,
    /// Messages taken from the lane.
    pub taken: CachePadded<Counter>,
    /// Whether the lane is its own. Not before a worker that joins a running consumer has one, and not after its lane was taken
    /// away for good: then its counts still count, and what it does doesn't.
    on_duty: AtomicBool,
    /// When the batch that it is at was begun, by [`crate::clock::running_ms`]; 0 between batches.
    pub turn_began_ms: Gauge,
    /// What it waits for besides its statement, for people; empty for nothing.
    pub waits_for: Mutex<String>,
    /// Its last sign of life by [`crate::clock::running_ms`], or the end of the wait that it is in; 0 before it begins.
    pub alive_at_ms: Gauge,
    /// Messages finished: applied, replayed, skipped, refused or dead-lettered.
    pub messages: Counter,
    /// Rows written.
    pub rows_written: Counter,
    /// Messages that needed no row write of their own, because another of the same row and batch had it.
    pub folded: Counter,
    /// Messages that the fence showed to be applied already.
    pub replayed: Counter,
    /// Folds of which the fence let only the later part through.
    pub folds_cut: Counter,
    /// Messages that a rule or `on_missing_row` skipped.
    pub skipped: Counter,
    /// Messages dropped because their partition had been given up.
    pub dropped_dead_epoch: Counter,
    /// Keys in updates that the wire format doesn't know.
    pub unknown_keys: Counter,
    /// Statements sent.
    pub statements: Counter,
    /// Batches written.
    pub batches: Counter,
    /// Statements that had to be sent again.
    pub retries: Counter,
    /// Updates of rows that someone else holds locked, waiting for them.
    pub parked: Gauge,
    /// Nanoseconds in which `write_rate_max` held the worker back.
    pub rate_wait_ns: Counter,
    /// Statements that `write_rate_max` held back.
    pub rate_waits: Counter,
    /// Microseconds since the registry's start at which it last finished messages; 0 for never.
    pub finished_at_us: Gauge,
    /// A [`ConnectionState`].
    state: Gauge,
    /// Where it leaves its counts of hot rows and apps, about once a second.
    pub hot: hot::Shelf,
    /// Distributions; locked once a batch.
    pub histograms: Mutex<Histograms>,
}

/// Distributions that a worker records: one value a message, folded ones too.
#[derive(Debug, Clone)]
pub struct Histograms {
    /// Microseconds from dispatch to the statement's return.
    pub apply_us: Histogram<u64>,
    /// Microseconds from the Kafka timestamp to applied.
    pub end_to_end_us: Histogram<u64>,
    /// Rows of a batch.
    pub batch_rows: Histogram<u64>,
}

impl Default for Histograms {
    fn default() -> Self {
        let microseconds =
            || Histogram::new_with_bounds(1, HISTOGRAM_US_MAX, 3).expect("valid bounds");
        Self {
            apply_us: microseconds(),
            end_to_end_us: microseconds(),
            batch_rows: Histogram::new_with_bounds(1, 1_000_000, 3).expect("valid bounds"),
        }
    }
}

impl Histograms {
    /// Adds another thread's values.
    pub fn merge(&mut self, other: &Self) {
        self.apply_us += &other.apply_us;
        self.end_to_end_us += &other.end_to_end_us;
        self.batch_rows += &other.batch_rows;
    }
}

impl WorkerRecorder {
    /// All zero.
    pub fn new(group: usize, shard: ShardIndex, lane: usize) -> Self {
        Self {
            group,
            shard,
            lane,
            sent: CachePadded::default(),
            taken: CachePadded::default(),
            on_duty: AtomicBool::new(true),
            turn_began_ms: Gauge::default(),
            waits_for: Mutex::default(),
            alive_at_ms: Gauge::default(),
            messages: Counter::default(),
            rows_written: Counter::default(),
            folded: Counter::default(),
            replayed: Counter::default(),
            folds_cut: Counter::default(),
            skipped: Counter::default(),
            dropped_dead_epoch: Counter::default(),
            unknown_keys: Counter::default(),
            statements: Counter::default(),
            batches: Counter::default(),
            retries: Counter::default(),
            parked: Gauge::default(),
            rate_wait_ns: Counter::default(),
            rate_waits: Counter::default(),
            finished_at_us: Gauge::default(),
            state: Gauge::default(),
            hot: hot::Shelf::default(),
            histograms: Mutex::default(),
        }
    }

    /// Messages waiting in the lane.
    pub fn lane_depth(&self) -> u64 {
        self.sent.get().saturating_sub(self.taken.get())
    }

    /// Whether the lane is its own.
    pub fn is_on_duty(&self) -> bool {
        self.on_duty.load(Ordering::Acquire)
    }

    /// Gives it a lane of its own, or takes it away.
    pub fn set_on_duty(&self, on_duty: bool) {
        self.on_duty.store(on_duty, Ordering::Release);
    }

    /// What it is at, and for how long, for people.
    pub fn doing(&self) -> String {
        let (group, lane) = (self.group, self.lane);
        let waits_for = self.waits_for.lock().clone();
        let waits_for = match waits_for.as_str() {
            "" => "its statement has not returned",
            other => other,
        };
        match self.turn_began_ms.get() {
            0 if self.connection_state() == ConnectionState::Down => {
                format!("lane {lane} of core group {group} has no connection yet; {waits_for}")
            }
            0 => format!("lane {lane} of core group {group} is between two batches"),
            began_ms => {
                let seconds =
                    milliseconds_as_seconds((crate::clock::running_ms() - began_ms).max(0));
                format!(
                    "lane {lane} of core group {group} has been at one batch for {seconds:.1} s; {waits_for}"
                )
            }
        }
    }

    /// What the connection is doing.
    pub fn connection_state(&self) -> ConnectionState {
        match self.state.get() {
            0 => ConnectionState::Down,
            1 => ConnectionState::Idle,
            _ => ConnectionState::Busy,
        }
    }

    /// Says what the connection is doing.
    pub fn set_connection_state(&self, state: ConnectionState) {
        self.state.set(match state {
            ConnectionState::Down => 0,
            ConnectionState::Idle => 1,
            ConnectionState::Busy => 2,
        });
    }
}

/// What a poller records about itself.
#[derive(Debug, Default)]
pub struct PollerRecorder {
    /// Messages read from Kafka.
    pub received: Counter,
    /// Bytes of their keys and values.
    pub received_bytes: Counter,
    /// Microseconds since the registry's start at which the first message came; 0 for never.
    pub first_message_at_us: Gauge,
    /// Messages that became dead letters before they reached a lane.
    pub dead_lettered: Counter,
    /// Offset commits sent.
    pub commits: Counter,
    /// Offset commits that failed; they are sent again.
    pub commit_failures: Counter,
    /// Assignments and revocations served.
    pub rebalances: Counter,
    /// Partitions that had gone silent and were assigned anew.
    pub silent: Counter,
    /// Errors in partition queues and of the client.
    pub errors: Counter,
    /// When the consumer queue was last polled, by [`crate::clock::running_ms`]; 0 for never.
    pub polled_at_ms: Gauge,
    /// Partitions assigned now.
    pub partitions: Gauge,
}

/// What is known of one partition. Written by the poller that has it; values of a partition that this process doesn't have
/// are stale, and `assigned` says so.
#[derive(Debug, Default)]
pub struct PartitionRecorder {
    /// Whether this process has the partition.
    pub assigned: AtomicBool,
    /// Why the partition stands still, or stood still: 0 no, else an alarm (see [`PartitionAlarm`]).
    pub alarm: Gauge,
    /// Messages in memory.
    pub in_memory_messages: Gauge,
    /// Their bytes.
    pub in_memory_bytes: Gauge,
    /// The next offset that may be committed; -1 for unknown.
    pub watermark: Gauge,
    /// The broker's end offset as of the last fetch, else as it was looked up at the start; -1 for unknown.
    pub end_offset: Gauge,
    /// Kafka timestamp (ms) of the first message not yet applied; 0 where nothing is in memory.
    pub oldest_timestamp_ms: Gauge,
    /// When that message was dispatched, by [`crate::clock::running_ms`]; 0 where nothing is in memory.
    pub oldest_dispatched_ms: Gauge,
    /// Kafka timestamp (ms) of the newest applied message; 0 for none yet.
    pub last_applied_timestamp_ms: Gauge,
}

/// Why a partition stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i64)]
pub enum PartitionAlarm {
    /// It doesn't.
    None = 0,
    /// Records that were not yet read are gone upstream.
    RecordsLost = 1,
    /// A record batch can't be read (checksum, decompression).
    Unreadable = 2,
}

impl PartitionRecorder {
    /// Messages between the watermark and the end; 0 while either is unknown.
    pub fn lag_messages(&self) -> i64 {
        let (watermark, end) = (self.watermark.get(), self.end_offset.get());
        if watermark < 0 || end < 0 {
            0
        } else {
            (end - watermark).max(0)
        }
    }

    /// Seconds between now and the Kafka timestamp of the first message not yet applied; 0 without lag.
    pub fn time_lag_seconds(&self, now_ms: i64) -> f64 {
        let oldest = match self.oldest_timestamp_ms.get() {
            0 if self.lag_messages() > 0 => self.last_applied_timestamp_ms.get(),
            oldest => oldest,
        };
        if oldest == 0 {
            0.0
        } else {
            milliseconds_as_seconds((now_ms - oldest).max(0))
        }
    }
}

fn milliseconds_as_seconds(milliseconds: i64) -> f64 {
    Duration::from_millis(milliseconds.unsigned_abs()).as_secs_f64()
}

/// What is known of one shard.
#[derive(Debug, Default)]
pub struct ShardRecorder {
    /// Rows a second that the whole group may write to it; 0 for no bound.
    pub write_rate_max: Gauge,
    /// Whether the shard refuses to be written to (schema, rights, breaker); its lanes wait.
    pub down: AtomicBool,
    /// Why it is down, or what broke its connections last, for people.
    pub why: Mutex<String>,
}

/// Everything that is recorded in this process, by owner.
#[derive(Debug)]
pub struct Registry {
    /// When the process began to work.
    pub started: std::time::Instant,
    /// One for each lane that has or had a worker: a lane that comes back goes on with its counts.
    pub workers: Mutex<Vec<Arc<WorkerRecorder>>>,
    /// Changes of the number of workers.
    pub changes: WorkerChanges,
    /// One for each core group.
    pub pollers: Vec<Arc<PollerRecorder>>,
    /// One for each partition of the topic.
    pub partitions: Vec<PartitionRecorder>,
    /// One for each shard.
    pub shards: Vec<ShardRecorder>,
    /// Names of the shards, in order.
    pub shard_names: Vec<String>,
    /// The shard of each partition.
    pub shard_of_partition: Vec<ShardIndex>,
    /// Rules that may still skip what comes.
    pub rules_active: Gauge,
    /// Messages that became dead letters, by reason; counted when the dead letter is in Kafka.
    pub dead_letters: [SharedCounter; Reason::COUNT],
    /// The newest picture of hot rows and apps.
    pub hot: hot::Board,
    /// What goes out beside metrics.
    pub telemetry: Telemetry,
    /// What the status page shows besides.
    pub page: Board,
    /// Whether every configured part is up and partitions are served: `/readyz`.
    pub ready: AtomicBool,
}

impl Registry {
    /// For a topic and shards of that many parts; all zero.
    pub fn new(
        groups: usize,
        shard_of_partition: Vec<ShardIndex>,
        shard_names: Vec<String>,
    ) -> Self {
        let partitions = shard_of_partition
            .iter()
            .map(|_| PartitionRecorder::default())
            .collect::<Vec<_>>();
        for partition in &partitions {
            partition.watermark.set(-1);
            partition.end_offset.set(-1);
        }
        Self {
            started: crate::clock::now(),
            workers: Mutex::default(),
            changes: WorkerChanges::new(shard_names.len()),
            pollers: (0..groups).map(|_| Arc::default()).collect(),
            partitions,
            shards: shard_names
                .iter()
                .map(|_| ShardRecorder::default())
                .collect(),
            shard_names,
            shard_of_partition,
            rules_active: Gauge::default(),
            dead_letters: Default::default(),
            hot: hot::Board::default(),
            telemetry: Telemetry::default(),
            page: Board::default(),
            ready: AtomicBool::new(false),
        }
    }

    /// The partition's recorder.
    pub fn partition(&self, partition: Partition) -> &PartitionRecorder {
        &self.partitions[partition.index()]
    }

    /// The workers that have a lane now.
    pub fn workers_on_duty(&self) -> Vec<Arc<WorkerRecorder>> {
        let workers = self.workers.lock();
        let on_duty = workers.iter().filter(|worker| worker.is_on_duty());
        on_duty.cloned().collect()
    }

    /// Microseconds since the start.
    pub fn elapsed_us(&self) -> i64 {
        i64::try_from(self.started.elapsed().as_micros()).unwrap_or(i64::MAX)
    }

    /// From the first message received to the last one finished; zero before.
    pub fn worked(&self) -> Duration {
        let firsts = self
            .pollers
            .iter()
            .map(|poller| poller.first_message_at_us.get());
        let first = firsts.filter(|at| *at > 0).min().unwrap_or(0);
        let lasts = self.workers.lock();
        let last = lasts
            .iter()
            .map(|worker| worker.finished_at_us.get())
            .max()
            .unwrap_or(0);
        Duration::from_micros(u64::try_from(last - first).unwrap_or(0))
    }

    /// All workers' distributions in one.
    pub fn histograms(&self) -> Histograms {
        let mut all = Histograms::default();
        for worker in self.workers.lock().iter() {
            all.merge(&worker.histograms.lock());
        }
        all
    }

    /// The sum of a counter over all workers.
    pub fn sum(&self, counter: impl Fn(&WorkerRecorder) -> u64) -> u64 {
        self.workers
            .lock()
            .iter()
            .map(|worker| counter(worker))
            .sum()
    }

    /// Messages finished, whatever became of them.
    pub fn finished(&self) -> u64 {
        let before_lanes = self.pollers.iter().map(|poller| poller.dead_lettered.get());
        self.sum(|worker| worker.messages.get()) + before_lanes.sum::<u64>()
    }

    /// Messages that became dead letters.
    pub fn dead_lettered(&self) -> u64 {
        self.dead_letters.iter().map(SharedCounter::get).sum()
    }
}
