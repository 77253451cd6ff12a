//! `millpond lag`: how far the group is behind, in messages and in time, as kafka-consumer-groups shows it and by shard.

use super::table::{Format, table};
use super::{ConfigArgs, print_data, print_note};
use crate::clock;
use crate::config::Config;
use crate::kafka::lag::{self, Looker, Patience, Uncommitted};
use anyhow::ensure;
use serde::Serialize;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

const PATIENCE: Patience = Patience {
    answer: Duration::from_secs(15),
    timestamps: Duration::from_secs(3),
};

/// Show how far the group is behind: messages, and time since the first message that it has not committed
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    config: ConfigArgs,
    /// A line for each shard and one for all, instead of one for each partition
    #[arg(short, long)]
    summary: bool,
    /// Again every so many seconds, until interrupted
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2")]
    watch: Option<u32>,
    /// For people, or an array for programs
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

/// One partition. The fields' names are its JSON keys; `None` is what nobody knows.
#[derive(Clone, Debug, Serialize)]
struct PartitionLag {
    group: String,
    topic: String,
    partition: usize,
    current_offset: Option<i64>,
    log_end_offset: i64,
    lag: Option<i64>,
    time_lag_seconds: Option<f64>,
    shard: String,
}

/// What the partitions of a shard add up to, or those of all.
#[derive(Debug, PartialEq, Serialize)]
struct ShardLag {
    group: String,
    topic: String,
    /// `None` for all shards.
    shard: Option<String>,
    partitions: usize,
    /// Partitions of which nothing was ever committed; they count as without lag.
    partitions_unknown: usize,
    lag: i64,
    lag_max: i64,
    time_lag_seconds_max: Option<f64>,
}

/// Prints the lag, once or until interrupted.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let config = args.config.load()?.config;
    let mut looker = Looker::connect(&config.kafka)?;
    loop {
        let shown = look(&config, &mut looker).and_then(|lags| show(&lags, &args));
        match (shown, args.watch) {
            (shown, None) => {
                print_data(&shown?)?;
                return Ok(ExitCode::SUCCESS);
            }
            (Ok(text), Some(_)) => print_data(&text)?,
            (Err(error), Some(_)) => print_note(&format!("{error:#}")),
        }
        thread::sleep(Duration::from_secs(
            args.watch.unwrap_or_default().max(1).into(),
        ));
    }
}

fn look(config: &Config, looker: &mut Looker) -> anyhow::Result<Vec<PartitionLag>> {
    let kafka = &config.kafka;
    let looked = looker.look(Uncommitted::Unknown, PATIENCE)?;
    ensure!(
        looked.iter().any(|lag| lag.committed.is_some()),
        "group {} has committed nothing of topic {} at {}; is kafka.group right, and did `millpond run` ever run?",
        kafka.group,
        kafka.topic,
        kafka.brokers
    );
    let now_ms = clock::wall_ms();
    let shown = |(partition, looked): (usize, &lag::PartitionLag)| PartitionLag {
        group: kafka.group.clone(),
        topic: kafka.topic.clone(),
        partition,
        current_offset: looked.committed,
        log_end_offset: looked.end,
        lag: looked.lag(Uncommitted::Unknown),
        time_lag_seconds: looked
            .time_lag(Uncommitted::Unknown, now_ms)
            .map(|lag| lag.as_secs_f64()),
        shard: shard_name(config, partition),
    };
    Ok(looked.iter().enumerate().map(shown).collect())
}

/// A topic with other partitions than configured has some that no shard owns.
fn shard_name(config: &Config, partition: usize) -> String {
    let shard = partition / config.partitioner.partitions_per_shard() as usize;
    config
        .shards
        .get(shard)
        .map_or_else(|| "-".to_owned(), |shard| shard.name.clone())
}

fn show(lags: &[PartitionLag], args: &Args) -> anyhow::Result<String> {
    let shards = by_shard(lags);
    Ok(match (args.format, args.summary) {
        (Format::Json, false) => serde_json::to_string(lags)?,
        (Format::Json, true) => serde_json::to_string(&shards)?,
        (Format::Text, false) => {
            let header = "GROUP TOPIC PARTITION CURRENT-OFFSET LOG-END-OFFSET LAG TIME-LAG SHARD";
            table(header, lags.iter().map(partition_cells))
        }
        (Format::Text, true) => {
            let header = "GROUP TOPIC SHARD PARTITIONS UNKNOWN LAG LAG-MAX TIME-LAG-MAX";
            table(header, shards.iter().map(shard_cells))
        }
    })
}

/// A line for each shard, in the order of their partitions, and one for all.
fn by_shard(lags: &[PartitionLag]) -> Vec<ShardLag> {
    let mut shards: Vec<ShardLag> = lags
        .chunk_by(|one, next| one.shard == next.shard)
        .map(|lags| sum(lags, Some(&lags[0].shard)))
        .collect();
    shards.push(sum(lags, None));
    shards
}

fn sum(lags: &[PartitionLag], shard: Option<&String>) -> ShardLag {
    let known = || lags.iter().filter_map(|lag| lag.lag);
    ShardLag {
        group: lags[0].group.clone(),
        topic: lags[0].topic.clone(),
        shard: shard.cloned(),
        partitions: lags.len(),
        partitions_unknown: lags.iter().filter(|lag| lag.lag.is_none()).count(),
        lag: known().sum(),
        lag_max: known().max().unwrap_or(0),
        time_lag_seconds_max: lags
            .iter()
            .filter_map(|lag| lag.time_lag_seconds)
            .max_by(f64::total_cmp),
    }
}

fn partition_cells(lag: &PartitionLag) -> Vec<String> {
    vec![
        lag.group.clone(),
        lag.topic.clone(),
        lag.partition.to_string(),
        or_dash(lag.current_offset),
        lag.log_end_offset.to_string(),
        or_dash(lag.lag),
        or_dash(lag.time_lag_seconds.map(|seconds| format!("{seconds:.1}s"))),
        lag.shard.clone(),
    ]
}

fn shard_cells(lag: &ShardLag) -> Vec<String> {
    vec![
        lag.group.clone(),
        lag.topic.clone(),
        lag.shard.clone().unwrap_or_else(|| "(all)".to_owned()),
        lag.partitions.to_string(),
        lag.partitions_unknown.to_string(),
        lag.lag.to_string(),
        lag.lag_max.to_string(),
        or_dash(
            lag.time_lag_seconds_max
                .map(|seconds| format!("{seconds:.1}s")),
        ),
    ]
}

fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lag(partition: usize, current: Option<i64>, time: Option<f64>, shard: &str) -> PartitionLag {
        PartitionLag {
            group: "g".to_owned(),
            topic: "t".to_owned(),
            partition,
            current_offset: current,
            log_end_offset: 100,
            lag: current.map(|current| 100 - current),
            time_lag_seconds: time,
            shard: shard.to_owned(),
        }
    }

    #[test]
    fn what_nobody_knows_is_a_dash_in_text_and_null_in_json() {
        let lags = [lag(0, Some(40), Some(1.25), "a"), lag(1, None, None, "b")];
        let text = table(
            "GROUP TOPIC PARTITION CURRENT-OFFSET LOG-END-OFFSET LAG TIME-LAG SHARD",
            lags.iter().map(partition_cells),
        );
        assert_eq!(
            text,
            "GROUP  TOPIC  PARTITION  CURRENT-OFFSET  LOG-END-OFFSET  LAG  TIME-LAG  SHARD\n\
             g      t      0          40              100             60   1.2s      a\n\
             g      t      1          -               100             -    -         b"
        );
        let json = serde_json::to_value(&lags[1]).expect("it is written");
        assert_eq!(json["time_lag_seconds"], serde_json::Value::Null);
        assert_eq!(json["log_end_offset"], 100);
    }

    #[test]
    fn the_summary_adds_up_each_shard_and_all() {
        let lags = [
            lag(0, Some(40), Some(1.5), "a"),
            lag(1, None, None, "a"),
            lag(2, Some(90), Some(7.0), "b"),
        ];
        let found: Vec<_> = by_shard(&lags)
            .into_iter()
            .map(|sum| {
                (
                    sum.shard,
                    sum.partitions,
                    sum.partitions_unknown,
                    sum.lag,
                    sum.lag_max,
                    sum.time_lag_seconds_max,
                )
            })
            .collect();
        let shard = |name: &str| Some(name.to_owned());
        assert_eq!(
            found,
            [
                (shard("a"), 2, 1, 60, 60, Some(1.5)),
                (shard("b"), 1, 0, 10, 10, Some(7.0)),
                (None, 3, 1, 70, 60, Some(7.0)),
            ]
        );
    }
}
