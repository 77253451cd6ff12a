//! Turns counters into rates, 15 minutes of history and latency curves. Owned by the thread `mp-hot`, which calls
//! [`Sampler::look`] once a second, whether anybody looks at the page or not: who is woken wants to see what was.
//!
//! Memory: [`SAMPLES_MAX`] samples of 72 bytes and 8 more for each shard, twice (as sampled and as shown); and two states of
//! the delays' distributions, 0.9 MB together, whose difference is the last interval. Each interval it copies every worker's
//! distributions, for which a worker may wait some 50 µs.

use super::board::{Minute, Recent, ShardRates};
use super::document::{History, Latency};
use super::latency::{curve, since};
use crate::observe::process;
use crate::observe::recorder::{ConnectionState, Histograms, Registry, WorkerRecorder};
use crate::sync::Ordering;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Rates are over so many looks: few enough to see a change at once, enough that they don't jump with each batch.
const LOOKS: usize = 5;
/// Between two samples.
const STEP: Duration = Duration::from_secs(5);
/// 15 minutes of them.
pub const SAMPLES_MAX: usize = 180;
/// A minute of them, and the one that it began with.
const MINUTE_SAMPLES: usize = 13;
/// Half a minute: long enough that one batch makes no trend, short enough to see that something was mended.
const TREND_SAMPLES: usize = 7;
/// Looks come a little late at times; a sample is due so much earlier.
const SLACK: Duration = Duration::from_millis(500);

/// What is counted, at one moment.
#[derive(Clone, Debug)]
struct Totals {
    at: Instant,
    cpu: Duration,
    received: u64,
    dead: u64,
    refused_unseen: u64,
    /// Connections idle and all, now.
    idle: (usize, usize),
    shards: Vec<ShardTotals>,
}

#[derive(Clone, Copy, Debug, Default)]
struct ShardTotals {
    messages: u64,
    rows: u64,
    skipped: u64,
    rate_wait_ns: u64,
    workers: u64,
}

#[derive(Clone, Debug)]
struct Sample {
    at: Instant,
    at_ms: i64,
    lag: i64,
    time_lag_s: f64,
    messages_per_s: f64,
    cpu: f64,
    idle: f64,
    kafka_errors: u64,
    commit_failures: u64,
    lag_by_shard: Vec<i64>,
}

/// Samples a registry.
#[derive(Debug, Default)]
pub struct Sampler {
    totals: VecDeque<Totals>,
    samples: VecDeque<Sample>,
    history: Arc<History>,
    minute: Arc<Minute>,
    latency: Arc<Latency>,
    earlier: Option<(Instant, Histograms)>,
}

impl Sampler {
    /// Looks, and leaves what it saw on the registry's board.
    pub fn look(&mut self, registry: &Registry, now: Instant) {
        self.totals.push_back(Totals::of(registry, now));
        if self.totals.len() > LOOKS + 1 {
            self.totals.pop_front();
        }
        let mut recent = self.rates();
        let is_due = |last: &Sample| now.saturating_duration_since(last.at) + SLACK >= STEP;
        if self.samples.back().is_none_or(is_due) {
            self.sample(registry, &recent, now);
        }
        recent.history = self.history.clone();
        recent.minute = self.minute.clone();
        recent.latency = self.latency.clone();
        registry.page.show(recent);
    }

    /// From the oldest of the last looks to the newest.
    fn rates(&self) -> Recent {
        let (Some(first), Some(last)) = (self.totals.front(), self.totals.back()) else {
            return Recent::default();
        };
        let seconds = last.at.duration_since(first.at).as_secs_f64();
        let rate = |before: u64, after: u64| per_second(after.saturating_sub(before), seconds);
        let shards = first.shards.iter().zip(&last.shards).map(|(first, last)| {
            let waited_ns = last.rate_wait_ns.saturating_sub(first.rate_wait_ns);
            let waited = Duration::from_nanos(waited_ns).as_secs_f64();
            ShardRates {
                messages_per_s: rate(first.messages, last.messages),
                rows_per_s: rate(first.rows, last.rows),
                skipped_per_s: rate(first.skipped, last.skipped),
                held_back: ratio(waited, seconds * last.workers as f64).min(1.0),
            }
        });
        let (idle, all) = self.totals.iter().fold((0, 0), |(idle, all), totals| {
            (idle + totals.idle.0, all + totals.idle.1)
        });
        let cpu = last.cpu.saturating_sub(first.cpu).as_secs_f64();
        Recent {
            cpu: ratio(cpu, seconds),
            idle: ratio(idle as f64, all as f64),
            received_per_s: rate(first.received, last.received),
            dead_per_s: rate(first.dead, last.dead),
            refused_unseen_per_s: rate(first.refused_unseen, last.refused_unseen),
            shards: shards.collect(),
            ..Recent::default()
        }
    }

    fn sample(&mut self, registry: &Registry, recent: &Recent, now: Instant) {
        let now_ms = crate::clock::wall_ms();
        let mut lag_by_shard = vec![0; registry.shards.len()];
        let mut time_lag_s = 0.0_f64;
        let owned = registry.partitions.iter().zip(&registry.shard_of_partition);
        for (partition, shard) in owned {
            if partition.assigned.load(Ordering::Relaxed) {
                lag_by_shard[shard.0] += partition.lag_messages();
                time_lag_s = time_lag_s.max(partition.time_lag_seconds(now_ms));
            }
        }
        let pollers = || registry.pollers.iter();
        self.samples.push_back(Sample {
            at: now,
            at_ms: now_ms,
            lag: lag_by_shard.iter().sum(),
            time_lag_s,
            messages_per_s: recent.messages_per_s(),
            cpu: recent.cpu,
            idle: recent.idle,
            kafka_errors: pollers().map(|poller| poller.errors.get()).sum(),
            commit_failures: pollers().map(|poller| poller.commit_failures.get()).sum(),
            lag_by_shard,
        });
        if self.samples.len() > SAMPLES_MAX {
            self.samples.pop_front();
        }
        self.history = Arc::new(self.columns());
        self.minute = Arc::new(self.last_minute());
        self.latency = Arc::new(self.curves(registry, now));
    }

    fn columns(&self) -> History {
        let samples = || self.samples.iter();
        History {
            step_ms: i64::try_from(STEP.as_millis()).expect("seconds"),
            at_ms: samples().map(|sample| sample.at_ms).collect(),
            lag: samples().map(|sample| sample.lag).collect(),
            time_lag_s: samples().map(|of| rounded(of.time_lag_s)).collect(),
            messages_per_s: samples().map(|of| of.messages_per_s.round()).collect(),
            cpu: samples().map(|of| rounded(of.cpu)).collect(),
            idle: samples().map(|of| rounded(of.idle)).collect(),
        }
    }

    fn last_minute(&self) -> Minute {
        let ago = |samples: usize| self.samples.len().saturating_sub(samples);
        let (begin, turn) = (ago(MINUTE_SAMPLES), ago(TREND_SAMPLES));
        let (Some(first), Some(before), Some(last)) = (
            self.samples.get(begin),
            self.samples.get(turn),
            self.samples.back(),
        ) else {
            return Minute::default();
        };
        let seconds = last.at.duration_since(before.at).as_secs_f64();
        let lags = before.lag_by_shard.iter().zip(&last.lag_by_shard);
        Minute {
            // Exact up to 2^53 messages.
            lag_per_s: lags
                .map(|(before, last)| ratio((last - before) as f64, seconds))
                .collect(),
            kafka_errors: last.kafka_errors - first.kafka_errors,
            commit_failures: last.commit_failures - first.commit_failures,
        }
    }

    fn curves(&mut self, registry: &Registry, now: Instant) -> Latency {
        let all = registry.histograms();
        let (interval, apply, end_to_end) = match &self.earlier {
            Some((at, earlier)) => (
                now.saturating_duration_since(*at),
                since(&all.apply_us, &earlier.apply_us),
                since(&all.end_to_end_us, &earlier.end_to_end_us),
            ),
            None => {
                let interval = now.saturating_duration_since(registry.started);
                (interval, all.apply_us.clone(), all.end_to_end_us.clone())
            }
        };
        let latency = Latency {
            interval_s: rounded(interval.as_secs_f64()),
            apply: curve(&apply),
            apply_run: curve(&all.apply_us),
            end_to_end: curve(&end_to_end),
            end_to_end_run: curve(&all.end_to_end_us),
        };
        self.earlier = Some((now, all));
        latency
    }
}

impl Totals {
    fn of(registry: &Registry, now: Instant) -> Self {
        let mut shards = vec![ShardTotals::default(); registry.shards.len()];
        let mut idle = (0, 0);
        for worker in registry.workers.lock().iter() {
            shards[worker.shard.0].add(worker);
            if worker.is_on_duty() {
                let is_idle = worker.connection_state() == ConnectionState::Idle;
                idle = (idle.0 + usize::from(is_idle), idle.1 + 1);
            }
        }
        let pollers = || registry.pollers.iter();
        Self {
            at: now,
            cpu: process::cpu(),
            received: pollers().map(|poller| poller.received.get()).sum(),
            dead: registry.dead_lettered(),
            refused_unseen: pollers().map(|poller| poller.dead_lettered.get()).sum(),
            idle,
            shards,
        }
    }
}

impl ShardTotals {
    fn add(&mut self, worker: &WorkerRecorder) {
        self.messages += worker.messages.get();
        self.rows += worker.rows_written.get();
        self.skipped += worker.skipped.get();
        self.rate_wait_ns += worker.rate_wait_ns.get();
        self.workers += u64::from(worker.is_on_duty());
    }
}

impl Recent {
    /// Messages finished a second.
    pub fn messages_per_s(&self) -> f64 {
        let in_lanes: f64 = self.shards.iter().map(|shard| shard.messages_per_s).sum();
        in_lanes + self.refused_unseen_per_s
    }
}

/// Exact up to 2^53.
fn per_second(count: u64, seconds: f64) -> f64 {
    ratio(count as f64, seconds)
}

/// 0 of nothing.
fn ratio(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

/// More digits would only be noise, and bytes.
pub(super) fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Partition, ShardIndex};

    fn registry() -> (Registry, Arc<WorkerRecorder>) {
        let registry = Registry::new(1, vec![ShardIndex(0)], vec!["a".to_owned()]);
        let worker = Arc::new(WorkerRecorder::new(0, ShardIndex(0), 0));
        registry.workers.lock().push(worker.clone());
        registry.partition(Partition(0)).watermark.set(0);
        let assigned = &registry.partition(Partition(0)).assigned;
        assigned.store(true, Ordering::Relaxed);
        (registry, worker)
    }

    #[test]
    fn rates_are_over_the_last_five_seconds() {
        let (registry, worker) = registry();
        worker.set_connection_state(ConnectionState::Idle);
        let mut sampler = Sampler::default();
        let begin = crate::clock::now();
        for second in 0..=20 {
            sampler.look(&registry, begin + Duration::from_secs(second));
            worker.messages.add(if second < 10 { 1000 } else { 100 });
            worker.rows_written.add(10);
            worker.rate_wait_ns.add(250_000_000);
        }
        let recent = registry.page.recent();
        let [shard] = recent.shards[..] else {
            panic!("one shard")
        };
        assert_eq!((shard.messages_per_s, shard.rows_per_s), (100.0, 10.0));
        assert_eq!((shard.held_back, recent.idle), (0.25, 1.0));
        assert_eq!(recent.history.at_ms.len(), 5);
    }

    #[test]
    fn the_last_half_minute_shows_how_lag_grows_and_history_is_bounded() {
        let (registry, worker) = registry();
        let mut sampler = Sampler::default();
        let begin = crate::clock::now();
        for second in 0..1000 {
            let end = if second < 900 { 0 } else { (second - 900) * 70 };
            registry.partition(Partition(0)).end_offset.set(end);
            worker.histograms.lock().apply_us.saturating_record(1000);
            let at = Duration::from_secs(second.unsigned_abs());
            sampler.look(&registry, begin + at);
        }
        let recent = registry.page.recent();
        assert_eq!(recent.minute.lag_per_s, [70.0]);
        assert_eq!(recent.history.lag.len(), SAMPLES_MAX);
        assert_eq!(recent.history.lag.last(), Some(&(95 * 70)));
        assert_eq!(recent.latency.apply.count, 5);
        assert_eq!(recent.latency.apply_run.count, 996);
    }
}
