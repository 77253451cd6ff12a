//! The shape of `/api/status`: one JSON document, bounded whatever happens: partitions as columns, 180 samples of history, at
//! most [`LANES_MAX`] lanes, [`TOP_MAX`] rows and apps, [`RULES_MAX`] rules, [`super::findings::FINDINGS_MAX`] findings. Some 40 kB
//! at 720 partitions. All that the findings are made of stands in it, so that they can be checked by eye.
//!
//! Times ending in `_ms` are milliseconds; `at_ms` since 1970. Rates are over the last five seconds.

use serde::{Deserialize, Serialize};

/// Lanes that are shown, those of the first shards first.
pub const LANES_MAX: usize = 1024;
/// Rows that are shown, and as many apps.
pub const TOP_MAX: usize = 10;
/// Rules that are shown, the newest of those that are active.
pub const RULES_MAX: usize = 100;

/// Everything that the page shows.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Document {
    /// When it was made.
    pub at_ms: i64,
    /// Who answers.
    pub process: Process,
    /// The topic of updates.
    pub topic: String,
    /// The consumer group.
    pub group: String,
    /// Partitions of the topic.
    pub partitions_of_topic: usize,
    /// Whether every part is up; else why not.
    pub readiness: Readiness,
    /// Who may change rules and workers: `open`: whoever asks so; `token`: with `admin.token`; `here`: only from the machine
    /// that the process runs on.
    pub changes: String,
    /// The worst first.
    pub findings: Vec<Finding>,
    /// The whole process.
    pub now: Now,
    /// Those of this process, and of its peers that answer.
    pub partitions: Partitions,
    /// By the start of their ranges.
    pub shards: Vec<Shard>,
    /// One for each core group.
    pub pollers: Vec<Poller>,
    /// How long updates take.
    pub latency: Latency,
    /// The last 15 minutes.
    pub history: History,
    /// Rows and apps with most of the messages.
    pub hot: HotItems,
    /// Skip rules.
    pub rules: Rules,
    /// This process and those of `admin.peers`; empty where none are configured.
    pub processes: Vec<Peer>,
}

/// Who answers.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Process {
    /// Millpond's.
    pub version: String,
    /// Its name on the machine's network.
    pub host: String,
    /// Its id there.
    pub pid: u32,
    /// Since it began.
    pub uptime_s: u64,
    /// Cores that the machine lets it use.
    pub cores: usize,
    /// Bytes in RAM.
    pub rss_bytes: u64,
    /// Its threads.
    pub threads: u64,
}

/// As `/readyz`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Readiness {
    /// Whether every part is up.
    pub ready: bool,
    /// What is missing.
    pub why: String,
}

/// The process as a whole.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Now {
    /// Messages finished a second.
    pub messages_per_s: f64,
    /// Messages read from Kafka a second.
    pub received_per_s: f64,
    /// Rows written a second.
    pub rows_per_s: f64,
    /// Messages skipped a second.
    pub skipped_per_s: f64,
    /// Dead letters a second.
    pub dead_per_s: f64,
    /// The reason that most dead letters so far have, with their number; empty without any.
    pub dead_reason: String,
    /// Cores that the process keeps busy.
    pub cpu: f64,
    /// Share of connections without work, 0 to 1.
    pub idle: f64,
    /// Messages not yet applied.
    pub lag: i64,
    /// Age of the oldest of them by its Kafka timestamp.
    pub time_lag_s: f64,
    /// Messages in memory.
    pub in_memory: i64,
    /// Partitions that this process has.
    pub assigned: usize,
    /// Errors of the Kafka client in the last minute.
    pub kafka_errors: u64,
    /// Offset commits that failed in the last minute.
    pub commit_failures: u64,
}

/// Assigned partitions as columns of the same length, by number.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Partitions {
    /// Which one.
    pub number: Vec<usize>,
    /// Messages not yet applied.
    pub lag: Vec<i64>,
    /// Age of the oldest of them by its Kafka timestamp.
    pub time_lag_ms: Vec<i64>,
    /// How long the oldest message in memory has been there.
    pub oldest_ms: Vec<i64>,
    /// Messages in memory.
    pub in_memory: Vec<i64>,
    /// Why it stands still: 0 it doesn't, 1 records are gone from Kafka, 2 a record can't be read.
    pub alarm: Vec<i64>,
    /// Which of `processes` has it; empty where all are this process'.
    pub process: Vec<usize>,
}

/// A shard, as this process sees it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Shard {
    /// As configured.
    pub name: String,
    /// First bytes of its apps' ids: `80–ff`.
    pub apps: String,
    /// Whether it can be written to.
    pub up: bool,
    /// Why not, or what broke its connections last.
    pub why: String,
    /// Its first partition, and how many it has.
    pub partitions: (usize, usize),
    /// How many of these this process has.
    pub here: usize,
    /// How many of these have messages whose time lag counts as behind.
    pub behind: usize,
    /// Messages not yet applied.
    pub lag: i64,
    /// By how much that grew a second, over the last half minute; 0 while that is not known.
    pub lag_per_s: f64,
    /// Age of the oldest of them.
    pub time_lag_s: f64,
    /// The partition that has it.
    pub oldest_partition: usize,
    /// Messages finished a second.
    pub messages_per_s: f64,
    /// Rows written a second.
    pub rows_per_s: f64,
    /// Rows a second that the whole group may write; 0 for no bound.
    pub bound: u32,
    /// The part of that which this process has.
    pub bound_here: f64,
    /// Share of the workers' time in which the bound held them back.
    pub held_back: f64,
    /// Connections idle, busy, down.
    pub connections: [usize; 3],
    /// Messages that wait for rows that somebody else holds locked.
    pub parked: i64,
    /// Workers in each core group.
    pub workers: usize,
    /// What the worker that has been longest at one batch is at; empty where none is at one for long.
    pub longest: String,
    /// Each lane: core group, number, depth, connection (0 idle, 1 busy, 2 down), parked messages, ms at its batch.
    pub lanes: Vec<[i64; 6]>,
}

/// The poller of a core group.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Poller {
    /// Since it asked Kafka last; 0 before it begins.
    pub silent_ms: i64,
    /// Partitions that it has.
    pub partitions: i64,
    /// Assignments and revocations so far.
    pub rebalances: u64,
}

/// Distributions of durations.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Latency {
    /// How long the last interval was.
    pub interval_s: f64,
    /// From dispatch to the statement's return, in the last interval.
    pub apply: Curve,
    /// The same since the process began.
    pub apply_run: Curve,
    /// From the Kafka timestamp to applied, in the last interval.
    pub end_to_end: Curve,
    /// The same since the process began.
    pub end_to_end_run: Curve,
}

/// A distribution by percentiles.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Curve {
    /// Values.
    pub count: u64,
    /// The largest, in microseconds.
    pub max_us: u64,
    /// Item k: the value of which a share of 10^(-k/5) is larger, in microseconds. It ends where less than one value would be.
    pub us: Vec<u64>,
}

/// Columns of the same length, the oldest first.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct History {
    /// Between two samples.
    pub step_ms: i64,
    /// Of each sample.
    pub at_ms: Vec<i64>,
    /// As in [`Now`].
    pub lag: Vec<i64>,
    /// As in [`Now`].
    pub time_lag_s: Vec<f64>,
    /// As in [`Now`].
    pub messages_per_s: Vec<f64>,
    /// As in [`Now`].
    pub cpu: Vec<f64>,
    /// As in [`Now`].
    pub idle: Vec<f64>,
}

/// The heaviest by messages.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct HotItems {
    /// Share of its shard's messages from which on a row is a finding; 0 for never.
    pub row_share: f64,
    /// The same for an app.
    pub app_share: f64,
    /// Rows.
    pub rows: Vec<HotItem>,
    /// Apps.
    pub apps: Vec<HotItem>,
}

/// A row or an app.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct HotItem {
    /// Number of its shard.
    pub shard: usize,
    /// The app.
    pub app: String,
    /// The row; empty for an app.
    pub subscription: String,
    /// Share of its shard's messages, 0 to 1.
    pub share: f64,
    /// Messages a second.
    pub messages_per_s: f64,
    /// Share of its shard's database time.
    pub database_share: f64,
    /// The command that would skip it.
    pub rule: String,
}

/// Skip rules.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Rules {
    /// How many may still skip what comes.
    pub active: usize,
    /// The newest of them.
    pub shown: Vec<ShownRule>,
}

/// A rule that is active.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ShownRule {
    /// Its name.
    pub id: String,
    /// The app.
    pub app: String,
    /// The row, of a rule for one; else empty.
    pub subscription: String,
    /// The parent, of a rule for one; else empty.
    pub parent: String,
    /// Why.
    pub reason: String,
    /// Who made it.
    pub author: String,
    /// When.
    pub created_at: String,
    /// Its end time; empty without one.
    pub until: String,
    /// Messages that it has skipped in this process.
    pub skipped: u64,
    /// Partitions of this process in which it is not decided yet.
    pub undecided: usize,
}

/// A process of the group.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Peer {
    /// Its admin address; empty for the one that answers.
    pub address: String,
    /// Why it can't be shown; empty where it can.
    pub error: String,
    /// Who it is.
    pub process: Process,
    /// What it does.
    pub now: Now,
    /// Its worst finding's level.
    pub level: Level,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Somebody has to do something now.
    Bad,
    /// Somebody should look.
    Warn,
    /// Good to know.
    Info,
    /// All is well.
    #[default]
    Good,
}

/// A plain sentence, its cause, and what to do.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// The same as long as it is about the same.
    pub id: String,
    /// How bad it is.
    pub level: Level,
    /// What is the case.
    pub what: String,
    /// Why, as far as the figures show it.
    pub why: String,
    /// What to do, in this order.
    pub steps: Vec<Step>,
    /// Whom a rule would skip, where one would help: app, and row or nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<(String, String)>,
}

/// One thing to do.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// In words.
    pub say: String,
    /// As a command; empty where there is none.
    pub run: String,
}
