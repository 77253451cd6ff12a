//! The status line of `run`: how fast, how far behind, and who is hot, in one log line now and then.

use super::Registry;
use crate::clock;
use crate::hot::{By, Picture, ShardPicture};
use crate::sync::Ordering;
use std::fmt::Write;
use std::time::{Duration, Instant};

/// Between two lines.
const INTERVAL: Duration = Duration::from_secs(10);

/// What is still to be applied of the partitions that this process has.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Backlog {
    /// How many there are.
    pub partitions: usize,
    /// All their lag.
    pub lag_messages: i64,
    /// All their messages in memory.
    pub in_memory_messages: i64,
    /// The longest time lag.
    pub time_lag_seconds: f64,
}

impl Backlog {
    /// As of now.
    pub fn now(registry: &Registry) -> Self {
        let now_ms = clock::wall_ms();
        let mut all = Self::default();
        let partitions = registry.partitions.iter();
        for partition in partitions.filter(|of| of.assigned.load(Ordering::Relaxed)) {
            all.partitions += 1;
            all.lag_messages += partition.lag_messages();
            all.in_memory_messages += partition.in_memory_messages.get();
            all.time_lag_seconds = all.time_lag_seconds.max(partition.time_lag_seconds(now_ms));
        }
        all
    }
}

impl std::fmt::Display for Backlog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} partitions, lag {} messages, {:.1} s",
            self.partitions, self.lag_messages, self.time_lag_seconds
        )
    }
}

/// What the last line counted from.
#[derive(Debug)]
pub struct Status {
    at: Instant,
    finished: u64,
    rows_written: u64,
}

/// What a line says.
#[derive(Debug, PartialEq)]
struct Line {
    messages_per_s: u64,
    rows_per_s: u64,
    lag_messages: i64,
    time_lag_seconds: f64,
    in_memory_messages: i64,
    hot: String,
}

impl Status {
    /// Counts from now.
    pub fn new(registry: &Registry) -> Self {
        Self {
            at: clock::now(),
            finished: registry.finished(),
            rows_written: registry.sum(|worker| worker.rows_written.get()),
        }
    }

    /// Writes a line if one is due.
    pub fn look(&mut self, registry: &Registry, now: Instant) {
        if now.saturating_duration_since(self.at) < INTERVAL {
            return;
        }
        let line = self.line(registry, now);
        tracing::info!(
            messages_per_s = line.messages_per_s,
            rows_per_s = line.rows_per_s,
            lag_messages = line.lag_messages,
            time_lag_seconds = line.time_lag_seconds,
            in_memory_messages = line.in_memory_messages,
            hot = line.hot,
            "status"
        );
    }

    fn line(&mut self, registry: &Registry, now: Instant) -> Line {
        let before = std::mem::replace(
            self,
            Self {
                at: now,
                ..Self::new(registry)
            },
        );
        // Counts are sums over workers, of which some may be gone.
        let seconds = self.at.duration_since(before.at).as_secs_f64();
        let backlog = Backlog::now(registry);
        Line {
            messages_per_s: rate(self.finished.saturating_sub(before.finished), seconds),
            rows_per_s: rate(
                self.rows_written.saturating_sub(before.rows_written),
                seconds,
            ),
            lag_messages: backlog.lag_messages,
            time_lag_seconds: (backlog.time_lag_seconds * 10.0).round() / 10.0,
            in_memory_messages: backlog.in_memory_messages,
            hot: hottest(&registry.shard_names, &registry.hot.picture()),
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a positive rate of what was counted in 64 bits; `as` ends at the bounds"
)]
fn rate(count: u64, seconds: f64) -> u64 {
    (count as f64 / seconds.max(1e-3)).round() as u64
}

/// The hottest row and app of each shard with their shares of its messages: `a: row APP/SUBSCRIPTION 31 %, app APP 35 %; …`.
fn hottest(names: &[String], picture: &Picture) -> String {
    let mut text = String::new();
    for (name, shard) in names.iter().zip(&picture.shards) {
        write_hottest(&mut text, name, shard).expect("a string can be written to");
    }
    text
}

fn write_hottest(text: &mut String, name: &str, shard: &ShardPicture) -> std::fmt::Result {
    let (Some(row), Some(app)) = (shard.hottest_row(), shard.hottest_app()) else {
        return Ok(());
    };
    let separator = if text.is_empty() { "" } else { "; " };
    write!(
        text,
        "{separator}{name}: row {}/{} {:.0} %, app {} {:.0} %",
        row.key.app,
        row.key.subscription,
        row.by(By::Messages).share * 100.0,
        app.key,
        app.by(By::Messages).share * 100.0,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Partition, ShardIndex};
    use crate::observe::recorder::WorkerRecorder;
    use std::sync::Arc;

    #[test]
    fn a_line_counts_since_the_last_one_and_sums_over_assigned_partitions() {
        let shards = vec![ShardIndex(0), ShardIndex(0), ShardIndex(0)];
        let registry = Registry::new(1, shards, vec!["a".to_owned()]);
        let worker = Arc::new(WorkerRecorder::new(0, ShardIndex(0), 0));
        registry.workers.lock().push(worker.clone());
        worker.messages.add(1000);
        let mut status = Status::new(&registry);
        worker.messages.add(500);
        worker.rows_written.add(300);
        for (number, end_offset) in [(0, 30), (1, 12), (2, 1000)] {
            let partition = registry.partition(Partition(number));
            partition.assigned.store(number < 2, Ordering::Relaxed);
            partition.watermark.set(10);
            partition.end_offset.set(end_offset);
            partition.in_memory_messages.set(4);
        }
        registry
            .partition(Partition(1))
            .oldest_timestamp_ms
            .set(clock::wall_ms() - 60_000);
        let line = status.line(&registry, status.at + Duration::from_secs(10));
        assert_eq!((line.messages_per_s, line.rows_per_s), (50, 30));
        assert_eq!((line.lag_messages, line.in_memory_messages), (22, 8));
        assert!((60.0..61.0).contains(&line.time_lag_seconds));
        assert_eq!(line.hot, "");
        let next = status.line(&registry, status.at + Duration::from_secs(10));
        assert_eq!(next.messages_per_s, 0);
    }
}
