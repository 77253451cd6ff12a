//! The metrics of the consumer: what its threads have recorded, summed and labelled.

use super::catalogue::{self as names, Named};
use super::page::Page;
use crate::clock;
use crate::dead::Reason;
use crate::hot::By;
use crate::ids::ShardIndex;
use crate::observe::recorder::{
    ConnectionState, Histograms, PartitionRecorder, PollerRecorder, Registry, WorkerRecorder,
};
use crate::sync::Ordering;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A metric and its reading from a recorder.
type Read<Recorder, Value> = (Named, fn(&Recorder) -> Value);
/// The same, given the milliseconds since 1970. `None`: there is nothing to show.
type ReadSeconds<Recorder> = (Named, fn(&Recorder, i64) -> Option<f64>);

const OF_WORKERS: [Read<WorkerRecorder, u64>; 12] = [
    (names::MESSAGES, |of| of.messages.get()),
    (names::ROWS_WRITTEN, |of| of.rows_written.get()),
    (names::FOLDED, |of| of.folded.get()),
    (names::REPLAYED, |of| of.replayed.get()),
    (names::FOLDS_CUT, |of| of.folds_cut.get()),
    (names::SKIPPED, |of| of.skipped.get()),
    (names::DROPPED, |of| of.dropped_dead_epoch.get()),
    (names::UNKNOWN_KEYS, |of| of.unknown_keys.get()),
    (names::STATEMENTS, |of| of.statements.get()),
    (names::BATCHES, |of| of.batches.get()),
    (names::RETRIES, |of| of.retries.get()),
    (names::WRITE_RATE_WAITS, |of| of.rate_waits.get()),
];

const OF_POLLERS: [Read<PollerRecorder, u64>; 7] = [
    (names::RECEIVED_MESSAGES, |of| of.received.get()),
    (names::RECEIVED_BYTES, |of| of.received_bytes.get()),
    (names::COMMITS, |of| of.commits.get()),
    (names::COMMIT_FAILURES, |of| of.commit_failures.get()),
    (names::REBALANCES, |of| of.rebalances.get()),
    (names::SILENT_PARTITIONS, |of| of.silent.get()),
    (names::KAFKA_ERRORS, |of| of.errors.get()),
];

const OF_PARTITIONS: [Read<PartitionRecorder, i64>; 4] = [
    (names::LAG_MESSAGES, |of| of.lag_messages()),
    (names::IN_MEMORY_MESSAGES, |of| of.in_memory_messages.get()),
    (names::IN_MEMORY_BYTES, |of| of.in_memory_bytes.get()),
    (names::PARTITION_ALARM, |of| of.alarm.get()),
];

const OF_PARTITIONS_SECONDS: [ReadSeconds<PartitionRecorder>; 3] = [
    (names::TIME_LAG_SECONDS, |of, now_ms| {
        Some(of.time_lag_seconds(now_ms))
    }),
    (names::OLDEST_IN_MEMORY_SECONDS, |of, _| {
        match of.oldest_dispatched_ms.get() {
            0 => Some(0.0),
            dispatched_ms => Some(seconds(clock::running_ms() - dispatched_ms)),
        }
    }),
    (names::LAST_APPLIED_TIMESTAMP_SECONDS, |of, _| {
        match of.last_applied_timestamp_ms.get() {
            0 => None,
            applied_ms => Some(seconds(applied_ms)),
        }
    }),
];

const STATES: [(&str, ConnectionState); 3] = [
    ("idle", ConnectionState::Idle),
    ("busy", ConnectionState::Busy),
    ("down", ConnectionState::Down),
];

/// Upper bounds of the buckets of durations.
pub(super) const BOUNDS_US: [u64; 18] = [
    100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000,
    1_000_000, 2_000_000, 5_000_000, 10_000_000, 20_000_000, 60_000_000,
];

/// Upper bounds of the buckets of batches.
const BOUNDS_ROWS: [u64; 13] = [
    1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000,
];

/// What the consumer's threads have recorded.
#[derive(Debug)]
pub struct Consumer(pub Arc<Registry>);

impl Collector for Consumer {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page::new(encoder);
        let workers = self.0.workers.lock().clone();
        self.pollers(&mut page)?;
        self.partitions(&mut page)?;
        self.lanes(&mut page, &workers)?;
        self.shards(&mut page, &workers)?;
        let is_ready = self.0.ready.load(Ordering::Relaxed);
        page.gauge(names::READY, i64::from(is_ready))?;
        page.gauge(names::RULES_ACTIVE, self.0.rules_active.get())?;
        let reasons = Reason::ALL.iter().zip(&self.0.dead_letters);
        page.counters(
            names::DEAD_LETTERS,
            reasons.map(|(reason, count)| ([("reason", reason.as_str())], count.get())),
        )?;
        let pauses = self.0.changes.pause_us();
        page.histogram(
            names::WORKERS_CHANGE_PAUSE_SECONDS,
            &pauses,
            &BOUNDS_US,
            in_seconds,
        )?;
        histograms(&mut page, &self.0.histograms())
    }
}

impl Consumer {
    fn pollers(&self, page: &mut Page<'_>) -> fmt::Result {
        let pollers = || self.0.pollers.iter().enumerate();
        for (metric, read) in OF_POLLERS {
            let counts = pollers().map(|(group, poller)| ([("group", group)], read(poller)));
            page.counters(metric, counts)?;
        }
        let assigned =
            pollers().map(|(group, poller)| ([("group", group)], poller.partitions.get()));
        page.gauges(names::ASSIGNED_PARTITIONS, assigned)
    }

    fn partitions(&self, page: &mut Page<'_>) -> fmt::Result {
        let mut assigned = Vec::new();
        for (number, partition) in self.0.partitions.iter().enumerate() {
            if partition.assigned.load(Ordering::Relaxed) {
                let shard = self.name(self.0.shard_of_partition[number]);
                assigned.push(([("partition", number)], [("shard", shard)], partition));
            }
        }
        for (metric, read) in OF_PARTITIONS {
            let values = assigned.iter();
            let values = values.map(|&(number, shard, of)| ((number, shard), read(of)));
            page.gauges(metric, values)?;
        }
        let now_ms = clock::wall_ms();
        for (metric, read) in OF_PARTITIONS_SECONDS {
            let values = assigned.iter();
            let values = values
                .filter_map(|&(number, shard, of)| Some(((number, shard), read(of, now_ms)?)));
            page.gauges(metric, values)?;
        }
        Ok(())
    }

    fn lanes(&self, page: &mut Page<'_>, workers: &[Arc<WorkerRecorder>]) -> fmt::Result {
        let on_duty = workers.iter().filter(|worker| worker.is_on_duty());
        let depths = on_duty.map(|worker| {
            let shard = [("shard", self.name(worker.shard))];
            let lane = [("group", worker.group), ("lane", worker.lane)];
            ((shard, lane), worker.lane_depth())
        });
        page.gauges(names::LANE_DEPTH, depths)
    }

    fn shards(&self, page: &mut Page<'_>, workers: &[Arc<WorkerRecorder>]) -> fmt::Result {
        let shards = || {
            let numbers = (0..self.0.shards.len()).map(ShardIndex);
            numbers.map(|shard| ([("shard", self.name(shard))], shard))
        };
        let of = |shard| workers.iter().filter(move |worker| worker.shard == shard);
        for (metric, read) in OF_WORKERS {
            let sum = |shard| of(shard).map(|worker| read(worker)).sum::<u64>();
            page.counters(metric, shards().map(|(label, shard)| (label, sum(shard))))?;
        }
        let waited = shards().map(|(label, shard)| {
            let waited_ns = of(shard).map(|worker| worker.rate_wait_ns.get()).sum();
            (label, Duration::from_nanos(waited_ns).as_secs_f64())
        });
        page.counters(names::WRITE_RATE_WAIT_SECONDS, waited)?;
        let counts = shards().map(|(label, shard)| {
            let on_duty = of(shard).filter(|worker| worker.is_on_duty());
            (label, i64::try_from(on_duty.count()).unwrap_or(i64::MAX))
        });
        page.gauges(names::WORKERS, counts)?;
        let parked = shards().map(|(label, shard)| {
            let parked = of(shard).map(|worker| worker.parked.get());
            (label, parked.sum::<i64>())
        });
        page.gauges(names::PARKED, parked)?;
        let up = shards().map(|(label, shard)| {
            let down = self.0.shards[shard.0].down.load(Ordering::Relaxed);
            (label, i64::from(!down))
        });
        page.gauges(names::SHARD_UP, up)?;
        let bounds =
            shards().map(|(label, shard)| (label, self.0.shards[shard.0].write_rate_max.get()));
        page.gauges(names::WRITE_RATE_MAX, bounds)?;
        self.hot(page)?;
        let connections = shards().flat_map(|(label, shard)| {
            STATES.map(|(name, state)| {
                let count = of(shard)
                    .filter(|worker| worker.is_on_duty() && worker.connection_state() == state);
                ((label, [("state", name)]), count.count())
            })
        });
        page.gauges(names::CONNECTIONS, connections)
    }

    /// Only shares: which row or app it is, no label may say.
    fn hot(&self, page: &mut Page<'_>) -> fmt::Result {
        let picture = self.0.hot.picture();
        let shards = || self.0.shard_names.iter().zip(&picture.shards);
        let rows = shards().map(|(name, shard)| {
            let hottest = shard.hottest_row().map(|row| row.by(By::Messages));
            (
                [("shard", name.as_str())],
                hottest.unwrap_or_default().share,
            )
        });
        page.gauges(names::HOT_ROW_SHARE, rows)?;
        let apps = shards().map(|(name, shard)| {
            let hottest = shard.hottest_app().map(|app| app.by(By::Messages));
            (
                [("shard", name.as_str())],
                hottest.unwrap_or_default().share,
            )
        });
        page.gauges(names::HOT_APP_SHARE, apps)
    }

    fn name(&self, shard: ShardIndex) -> &str {
        &self.0.shard_names[shard.0]
    }
}

fn histograms(page: &mut Page<'_>, all: &Histograms) -> fmt::Result {
    page.histogram(names::APPLY_SECONDS, &all.apply_us, &BOUNDS_US, in_seconds)?;
    page.histogram(
        names::END_TO_END_SECONDS,
        &all.end_to_end_us,
        &BOUNDS_US,
        in_seconds,
    )?;
    // Exact up to 2^53 rows.
    let rows = |rows| rows as f64;
    page.histogram(names::BATCH_ROWS, &all.batch_rows, &BOUNDS_ROWS, rows)
}

pub(super) fn in_seconds(microseconds: u64) -> f64 {
    Duration::from_micros(microseconds).as_secs_f64()
}

/// 0 for a time that a clock set back has made negative.
fn seconds(milliseconds: i64) -> f64 {
    Duration::from_millis(u64::try_from(milliseconds).unwrap_or(0)).as_secs_f64()
}
