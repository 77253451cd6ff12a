//! Watches from outside while traffic is sent, and on until the consumer group has caught up: once a second what went in, what
//! waits in Kafka and for how long, and what each shard writes by its own count.
//!
//! Its caller runs it on a thread of its own (`load-watch`), which wakes up once a second.

use super::schedule::{Pace, Phase};
use super::tally::Tally;
use crate::clock;
use crate::config::Config;
use crate::kafka::KafkaError;
use crate::kafka::lag::{Looker, PartitionLag, Patience, Uncommitted};
use crate::observe::recorder::SharedCounter;
use crate::observe::summary::Quantiles;
use crate::sink::shape::SUBSCRIPTION;
use crate::sink::written::{Counter, Written, WrittenError};
use serde::Serialize;
use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);
/// How often a wait looks whether it is over.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// A look that takes longer makes its second a longer one.
const PATIENCE: Patience = Patience {
    answer: Duration::from_secs(5),
    timestamps: Duration::from_millis(800),
};
/// A group that begins has committed nothing yet.
const UNCOMMITTED: Uncommitted = Uncommitted::FromStart;

/// Why nothing can be watched.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The brokers don't answer.
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    /// A shard doesn't.
    #[error(transparent)]
    Written(#[from] WrittenError),
}

/// What is sent, and how.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    /// Messages that were sent so far.
    pub sent: &'a SharedCounter,
    /// What requests came to; `None` if messages go straight to Kafka.
    pub tally: Option<&'a Tally>,
    /// Tells the phase.
    pub pace: Pace,
}

/// About a second. The fields' names are its JSON keys; what nobody knows is null.
#[derive(Clone, Debug, Serialize)]
pub struct Second {
    /// Its end, from the beginning of the watch.
    pub seconds: f64,
    /// What part of the run it is, by the schedule; messages that are late come in a later one.
    pub phase: Phase,
    /// Messages sent a second.
    pub sent_per_s: f64,
    /// Messages a second that the edge said it has; null without the edge.
    pub accepted_per_s: Option<f64>,
    /// Delays of the requests that were answered in it; null without the edge.
    pub delay_us: Option<Quantiles>,
    /// Messages between the group's committed offsets and the end, over all partitions.
    pub queue_messages: Option<i64>,
    /// How old the first message is that is not committed, in the partition where it is oldest.
    pub time_lag_seconds: Option<f64>,
    /// The same by shard.
    pub shards: Vec<ShardSecond>,
    /// What could not be asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// A shard in that second.
#[derive(Clone, Debug, Serialize)]
pub struct ShardSecond {
    /// Its name.
    pub shard: String,
    /// Messages of its partitions that are not committed.
    pub lag_messages: Option<i64>,
    /// Those of the partition that has most.
    pub lag_messages_max: Option<i64>,
    /// The age of the oldest.
    pub time_lag_seconds: Option<f64>,
    /// Rows written a second, by Postgres' count, which is up to a second late for a session at work, and ten for an idle one.
    pub rows_per_s: Option<f64>,
}

/// A watch that is over.
#[derive(Clone, Debug, Serialize)]
pub struct Watched {
    /// Whether everything that was sent was committed in time.
    pub caught_up: bool,
    /// From the end of sending to that; null if it was not.
    pub caught_up_seconds: Option<f64>,
    /// The most that waited.
    pub queue_messages_max: i64,
    /// The longest that something waited.
    pub time_lag_seconds_max: f64,
    /// Every second.
    #[serde(skip)]
    pub seconds: Vec<Second>,
}

struct WatchedShard {
    name: String,
    counter: Counter,
    last: Option<Written>,
}

/// Where a second began.
struct Mark {
    at: Instant,
    sent: u64,
}

/// Asks brokers and shards.
pub struct Watcher {
    lags: Looker,
    partitions_per_shard: usize,
    shards: Vec<WatchedShard>,
}

impl Watcher {
    /// Connects to all that will be asked.
    pub fn connect(config: &Config) -> Result<Self, WatchError> {
        let watched = |shard: &crate::config::checked::Shard| {
            let mut counter = Counter::new(&shard.postgres, &SUBSCRIPTION);
            let last = Some(counter.read()?);
            Ok(WatchedShard {
                name: shard.name.clone(),
                counter,
                last,
            })
        };
        let shards = config.shards.iter().map(watched);
        Ok(Self {
            lags: Looker::connect(&config.kafka)?,
            partitions_per_shard: config.partitioner.partitions_per_shard() as usize,
            shards: shards.collect::<Result<_, WrittenError>>()?,
        })
    }

    /// Watches until all is sent and the group has caught up, or so long after all was sent, or until `go_on` answers `false`.
    /// `all_sent` tells the moment, once it is known; `each` is told each second.
    pub fn watch(
        mut self,
        source: Source<'_>,
        deadline: Duration,
        all_sent: impl Fn() -> Option<Instant>,
        go_on: impl Fn() -> bool,
        mut each: impl FnMut(&[Second]),
    ) -> Watched {
        let started = clock::now();
        let mut mark = Mark {
            at: started,
            sent: source.sent.get(),
        };
        let mut seconds = Vec::new();
        loop {
            wait_until(mark.at + SECOND, &go_on);
            // Asked before the look, which then sees all of it.
            let all_sent_at = all_sent();
            let (second, next) = self.look(source, started, &mark, all_sent_at.is_some());
            mark = next;
            let is_empty = second.queue_messages == Some(0);
            seconds.push(second);
            each(&seconds);
            let waited = all_sent_at.map(|at| clock::now().duration_since(at));
            if let Some(waited) = waited.filter(|_| is_empty) {
                return Watched::of(seconds, Some(waited));
            }
            if waited.is_some_and(|waited| waited >= deadline) || !go_on() {
                return Watched::of(seconds, None);
            }
        }
    }

    /// The second since `mark`, and where the next begins.
    fn look(
        &mut self,
        source: Source<'_>,
        started: Instant,
        mark: &Mark,
        is_all_sent: bool,
    ) -> (Second, Mark) {
        let next = Mark {
            at: clock::now(),
            sent: source.sent.get(),
        };
        let passed = next.at.duration_since(mark.at);
        let per_s = |count: u64| Duration::from_secs(count).div_duration_f64(passed);
        let lately = source.tally.map(Tally::lately);
        let middle = mark.at.duration_since(started) + passed / 2;
        let mut second = Second {
            seconds: next.at.duration_since(started).as_secs_f64(),
            phase: if is_all_sent {
                Phase::Draining
            } else {
                source.pace.phase(middle)
            },
            sent_per_s: per_s(next.sent - mark.sent),
            accepted_per_s: lately.map(|lately| per_s(lately.messages)),
            delay_us: lately.map(|lately| lately.delay_us),
            queue_messages: None,
            time_lag_seconds: None,
            shards: Vec::new(),
            trouble: None,
        };
        let rows = self.rows_per_s(&mut second.trouble);
        // The age that messages have now, not after the look.
        let now_ms = clock::wall_ms();
        let lags = self.lags.look(UNCOMMITTED, PATIENCE);
        let lags = lags.unwrap_or_else(|error| {
            second.trouble = Some(error.to_string());
            Vec::new()
        });
        let mut by_shard = lags.chunks(self.partitions_per_shard);
        for (shard, rows_per_s) in self.shards.iter().zip(rows) {
            let lags = by_shard.next().unwrap_or_default();
            second
                .shards
                .push(shard_second(&shard.name, lags, rows_per_s, now_ms));
        }
        second.queue_messages = sum(second.shards.iter().map(|shard| shard.lag_messages));
        second.time_lag_seconds = largest(second.shards.iter().map(|shard| shard.time_lag_seconds));
        (second, next)
    }

    fn rows_per_s(&mut self, trouble: &mut Option<String>) -> Vec<Option<f64>> {
        let mut read = |shard: &mut WatchedShard| {
            let now = match shard.counter.read() {
                Ok(now) => now,
                Err(error) => {
                    *trouble = Some(error.to_string());
                    return None;
                }
            };
            let last = shard.last.replace(now)?;
            Some(now.per_s_since(&last))
        };
        self.shards.iter_mut().map(&mut read).collect()
    }
}

fn wait_until(moment: Instant, go_on: impl Fn() -> bool) {
    loop {
        let left = moment.saturating_duration_since(clock::now());
        if left.is_zero() || !go_on() {
            return;
        }
        clock::sleep(left.min(LOOK_INTERVAL));
    }
}

/// A shard without partitions is one that could not be asked about.
fn shard_second(
    name: &str,
    lags: &[PartitionLag],
    rows_per_s: Option<f64>,
    now_ms: i64,
) -> ShardSecond {
    let each = || lags.iter().map(|lag| lag.lag(UNCOMMITTED));
    let time_lag = |lag: &PartitionLag| lag.time_lag(UNCOMMITTED, now_ms);
    let time_lags = lags.iter().map(|lag| Some(time_lag(lag)?.as_secs_f64()));
    ShardSecond {
        shard: name.to_owned(),
        lag_messages: sum(each()),
        lag_messages_max: each().flatten().max(),
        time_lag_seconds: largest(time_lags),
        rows_per_s,
    }
}

/// `None` without a value, or if one is unknown.
fn sum(mut values: impl Iterator<Item = Option<i64>>) -> Option<i64> {
    let first = values.next()??;
    values.try_fold(first, |sum, value| Some(sum + value?))
}

/// Of those that are known: the oldest message is at least that old.
fn largest(values: impl Iterator<Item = Option<f64>>) -> Option<f64> {
    values.flatten().max_by(f64::total_cmp)
}

impl Watched {
    fn of(seconds: Vec<Second>, caught_up: Option<Duration>) -> Self {
        let queues = seconds.iter().filter_map(|second| second.queue_messages);
        let time_lags = seconds.iter().map(|second| second.time_lag_seconds);
        Self {
            caught_up: caught_up.is_some(),
            caught_up_seconds: caught_up.map(|passed| passed.as_secs_f64()),
            queue_messages_max: queues.max().unwrap_or(0),
            time_lag_seconds_max: largest(time_lags).unwrap_or(0.0),
            seconds,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lag(committed: Option<i64>, end: i64, first_ms: Option<i64>) -> PartitionLag {
        PartitionLag {
            committed,
            start: 0,
            end,
            first_ms,
        }
    }

    #[test]
    fn a_shard_is_as_far_behind_as_its_partitions_together_and_as_old_as_its_oldest() {
        let lags = [
            lag(Some(90), 100, Some(9_000)),
            lag(None, 30, Some(4_000)),
            lag(Some(5), 5, None),
        ];
        let second = shard_second("a", &lags, Some(600.0), 10_000);
        assert_eq!(
            (second.lag_messages, second.lag_messages_max),
            (Some(40), Some(30))
        );
        assert_eq!(second.time_lag_seconds, Some(6.0));
        let unknown = shard_second("a", &[], None, 10_000);
        assert_eq!(
            (unknown.lag_messages, unknown.time_lag_seconds),
            (None, None)
        );
    }

    #[test]
    fn a_sum_is_unknown_when_a_part_is() {
        assert_eq!(sum([Some(1), Some(2)].into_iter()), Some(3));
        assert_eq!(sum([Some(1), None].into_iter()), None);
        assert_eq!(sum([].into_iter()), None);
    }
}
