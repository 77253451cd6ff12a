//! Two readings as what an operator wants to know: rates, lag and where it goes, shards, the worst partitions.

use super::readings::{HotItem, Metrics, Reading};
use crate::config::Config;
use std::collections::VecDeque;
use std::time::Instant;

/// Moments that are remembered: ten minutes, a moment a second.
const MOMENTS_MAX: usize = 600;

/// Where lag goes is told from the last so many seconds.
const TREND_SECONDS: f64 = 30.0;

/// The lag over time, as far as it was watched.
#[derive(Debug, Default)]
pub struct History(VecDeque<Moment>);

#[derive(Clone, Copy, Debug)]
struct Moment {
    at: Instant,
    lag: f64,
    time_lag: f64,
}

/// What changes a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trend {
    pub lag_per_s: f64,
    /// Seconds of delay a second: 1 is standing still.
    pub time_lag_per_s: f64,
}

/// A process at work.
#[derive(Debug, Default)]
pub struct View {
    pub version: Option<String>,
    pub up_seconds: Option<f64>,
    pub not_ready: Option<String>,
    pub cores_used: Option<f64>,
    pub memory_bytes: Option<f64>,
    pub threads: Option<f64>,
    pub partitions: f64,
    pub rules_active: usize,
    pub rules_skipped: u64,
    pub rates: Rates,
    pub lag: f64,
    pub time_lag: f64,
    pub trend: Option<Trend>,
    pub lag_history: Vec<f64>,
    pub shards: Vec<ShardView>,
    /// Those furthest behind first.
    pub partitions_behind: Vec<PartitionView>,
    pub apps: Vec<(String, HotItem)>,
    pub rows: Vec<(String, HotItem)>,
}

/// A second's; `None` before there are two readings, and across a restart.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rates {
    pub received: Option<f64>,
    pub finished: Option<f64>,
    pub rows: Option<f64>,
    pub folded: Option<f64>,
    pub skipped: Option<f64>,
    pub dead: Option<f64>,
    pub batches: Option<f64>,
    pub retries: Option<f64>,
}

#[derive(Debug)]
pub struct ShardView {
    pub name: String,
    /// `None`: this configuration knows no such shard.
    pub apps: Option<(u8, u8)>,
    pub is_up: bool,
    pub rows_per_s: Option<f64>,
    pub bound: Option<u32>,
    pub messages_per_s: Option<f64>,
    pub idle: f64,
    pub busy: f64,
    pub down: f64,
    pub queued: f64,
    pub lag: f64,
    pub time_lag: f64,
}

#[derive(Clone, Debug)]
pub struct PartitionView {
    pub partition: String,
    pub shard: String,
    pub lag: f64,
    pub time_lag: f64,
    pub in_memory: f64,
    pub oldest: f64,
    pub alarm: f64,
}

impl History {
    /// Remembers a reading's lag.
    pub fn add(&mut self, reading: &Reading) {
        if self.0.len() == MOMENTS_MAX {
            self.0.pop_front();
        }
        self.0.push_back(Moment {
            at: reading.at,
            lag: reading.metrics.sum("millpond_lag_messages").unwrap_or(0.0),
            time_lag: time_lag(&reading.metrics),
        });
    }

    /// `None` before a second has passed.
    fn trend(&self) -> Option<Trend> {
        let now = self.0.back()?;
        let passed = |then: &&Moment| now.at.duration_since(then.at).as_secs_f64();
        let then = self.0.iter().find(|then| passed(then) <= TREND_SECONDS)?;
        let seconds = passed(&then);
        (seconds >= 0.5).then(|| Trend {
            lag_per_s: (now.lag - then.lag) / seconds,
            time_lag_per_s: (now.time_lag - then.time_lag) / seconds,
        })
    }
}

/// Of the partition that is furthest behind.
fn time_lag(metrics: &Metrics) -> f64 {
    let each = metrics.each("millpond_time_lag_seconds");
    each.map(|series| series.value).fold(0.0, f64::max)
}

/// Two readings, the later one first; before there are two, one.
struct Pair<'r> {
    now: &'r Metrics,
    before: Option<(&'r Metrics, f64)>,
}

impl Pair<'_> {
    fn per_s(&self, name: &str) -> Option<f64> {
        self.difference(|metrics| metrics.sum(name))
    }

    fn per_s_of(&self, name: &str, shard: &str) -> Option<f64> {
        self.difference(|metrics| metrics.sum_of(name, "shard", shard))
    }

    /// A counter that fell began anew.
    fn difference(&self, read: impl Fn(&Metrics) -> Option<f64>) -> Option<f64> {
        let (before, seconds) = self.before?;
        let grown = read(self.now)? - read(before)?;
        (grown >= 0.0).then_some(grown / seconds)
    }
}

impl View {
    /// Of the newest reading, and the one before it.
    pub fn of(now: &Reading, before: Option<&Reading>, history: &History, config: &Config) -> Self {
        let metrics = &now.metrics;
        let seconds = |before: &Reading| (now.at - before.at).as_secs_f64();
        let before = before.map(|before| (&before.metrics, seconds(before)));
        let pair = Pair {
            now: metrics,
            before: before.filter(|(_, seconds)| *seconds > 0.0),
        };
        let build = metrics.each("millpond_build_info").next();
        let started = metrics.sum("process_start_time_seconds");
        let hot = |pick: fn(&super::readings::HotShard) -> &Vec<HotItem>| {
            let shards = now.hot.shards.iter();
            let items =
                shards.flat_map(|of| pick(of).iter().map(|item| (of.shard.clone(), item.clone())));
            let mut items: Vec<(String, HotItem)> = items.collect();
            items.sort_by(|(_, one), (_, other)| {
                other.by_messages.per_s.total_cmp(&one.by_messages.per_s)
            });
            items
        };
        let active = now.rules.iter().filter(|rule| rule.state == "active");
        Self {
            version: build
                .and_then(|build| build.label("version"))
                .map(str::to_owned),
            up_seconds: started.map(|started| (now.wall_ms as f64 / 1e3 - started).max(0.0)),
            not_ready: now.not_ready.clone(),
            cores_used: pair.per_s("process_cpu_seconds_total"),
            memory_bytes: metrics.sum("process_resident_memory_bytes"),
            threads: metrics.sum("process_threads"),
            partitions: metrics.sum("millpond_assigned_partitions").unwrap_or(0.0),
            rules_active: active.count(),
            rules_skipped: now.rules.iter().map(|rule| rule.skipped).sum(),
            rates: rates(&pair),
            lag: metrics.sum("millpond_lag_messages").unwrap_or(0.0),
            time_lag: time_lag(metrics),
            trend: history.trend(),
            lag_history: history.0.iter().map(|moment| moment.lag).collect(),
            shards: shards(&pair, config),
            partitions_behind: partitions(metrics),
            apps: hot(|shard| &shard.apps),
            rows: hot(|shard| &shard.rows),
        }
    }
}

fn rates(pair: &Pair<'_>) -> Rates {
    Rates {
        received: pair.per_s("millpond_received_messages_total"),
        finished: pair.per_s("millpond_messages_total"),
        rows: pair.per_s("millpond_rows_written_total"),
        folded: pair.per_s("millpond_folded_total"),
        skipped: pair.per_s("millpond_skipped_total"),
        dead: pair.per_s("millpond_dead_letters_total"),
        batches: pair.per_s("millpond_batches_total"),
        retries: pair.per_s("millpond_retries_total"),
    }
}

fn shards(pair: &Pair<'_>, config: &Config) -> Vec<ShardView> {
    let metrics = pair.now;
    let names = metrics
        .each("millpond_shard_up")
        .filter_map(|series| series.label("shard"));
    let view = |name: &str| {
        let known = config.shards.iter().find(|shard| shard.name == name);
        let sum = |metric| metrics.sum_of(metric, "shard", name).unwrap_or(0.0);
        let own = |metric: &'static str| {
            metrics
                .each(metric)
                .filter(|series| series.label("shard") == Some(name))
        };
        let connections = |state| {
            let of = own("millpond_connections").filter(|of| of.label("state") == Some(state));
            of.map(|series| series.value).sum()
        };
        ShardView {
            name: name.to_owned(),
            apps: known.map(|shard| shard.apps),
            is_up: sum("millpond_shard_up") > 0.0,
            rows_per_s: pair.per_s_of("millpond_rows_written_total", name),
            bound: known.and_then(|shard| shard.write_rate_max),
            messages_per_s: pair.per_s_of("millpond_messages_total", name),
            idle: connections("idle"),
            busy: connections("busy"),
            down: connections("down"),
            queued: sum("millpond_lane_depth"),
            lag: sum("millpond_lag_messages"),
            time_lag: own("millpond_time_lag_seconds")
                .map(|series| series.value)
                .fold(0.0, f64::max),
        }
    };
    names.map(view).collect()
}

fn partitions(metrics: &Metrics) -> Vec<PartitionView> {
    let value = |metric: &'static str, partition: &str| {
        metrics
            .sum_of(metric, "partition", partition)
            .unwrap_or(0.0)
    };
    let alarms = metrics
        .each("millpond_partition_alarm")
        .filter(|alarm| alarm.value != 0.0);
    let alarms: Vec<(Option<&str>, f64)> = alarms
        .map(|alarm| (alarm.label("partition"), alarm.value))
        .collect();
    let alarm = |partition| {
        let own = alarms.iter().find(|(of, _)| *of == partition);
        own.map_or(0.0, |(_, alarm)| *alarm)
    };
    let mut behind: Vec<PartitionView> = metrics
        .each("millpond_time_lag_seconds")
        .filter_map(|series| {
            Some(PartitionView {
                partition: series.label("partition")?.to_owned(),
                shard: series.label("shard").unwrap_or("-").to_owned(),
                lag: 0.0,
                time_lag: series.value,
                in_memory: 0.0,
                oldest: 0.0,
                alarm: alarm(series.label("partition")),
            })
        })
        .collect();
    behind.sort_by(|one, other| {
        let by_alarm = other.alarm.total_cmp(&one.alarm);
        by_alarm.then_with(|| other.time_lag.total_cmp(&one.time_lag))
    });
    // No screen shows more of them; looking each up in a page of 720 partitions is not free.
    behind.truncate(50);
    for one in &mut behind {
        one.lag = value("millpond_lag_messages", &one.partition);
        one.in_memory = value("millpond_in_memory_messages", &one.partition);
        one.oldest = value("millpond_oldest_in_memory_seconds", &one.partition);
    }
    behind
}
