//! The configuration as checked: every relation between keys holds, every limit is within its bounds, every unit is a
//! type. The rest of the program sees only this. Each limit says which accident it prevents.

use crate::partitioner::Partitioner;
use crate::table::Table;
use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

/// Everything that a command may need. Made only by [`super::load`].
#[derive(Clone, Debug)]
pub struct Config {
    /// The topic, its group, and how to reach the brokers.
    pub kafka: Kafka,
    /// Sorted by the start of their range; index = `ShardIndex`.
    pub shards: Vec<Shard>,
    /// App → shard → partition, from the shards' ranges.
    pub partitioner: Partitioner,
    /// The table that updates are applied to; `None` for the subscriptions.
    pub table: Option<Arc<Table>>,
    /// What `run` does with the stream.
    pub consumer: Consumer,
    /// Limits on what an update may do.
    pub rules: Rules,
    /// When a hot row or app is warned of.
    pub hot: Hot,
    /// The HTTP edge.
    pub ingest: Ingest,
    /// Health, metrics, and changes while running.
    pub admin: Admin,
    /// Logs and traces.
    pub telemetry: Telemetry,
}

/// The topic and its group.
#[derive(Clone)]
pub struct Kafka {
    /// `host:port`, separated by commas.
    pub brokers: String,
    /// The topic of updates.
    pub topic: String,
    /// The consumer group whose committed offsets say what is applied.
    pub group: String,
    /// How messages are spread over partitions.
    pub partition_by: PartitionBy,
    /// Raised by hand when the topic is made anew or repartitioned, so that new offsets are not taken for replays.
    pub incarnation: i32,
    /// Where a partition that was never seen begins.
    pub start: Start,
    /// What can't be applied goes here, with its reason.
    pub dead_letter_topic: String,
    /// Settings for librdkafka, in the order of the file; none of them undoes a guarantee.
    pub librdkafka: Vec<(String, String)>,
}

/// How messages are spread over partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartitionBy {
    /// By the partitioner's rule; a message elsewhere is a dead letter.
    App,
    /// The producer is trusted to keep a row on one partition. One shard only.
    Any,
}

/// Where a partition without a committed offset begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the oldest record.
    Earliest,
    /// At the end.
    Latest,
}

/// One Postgres.
#[derive(Clone, Debug)]
pub struct Shard {
    /// As logs, metrics and messages call it.
    pub name: String,
    /// The first bytes of `app_id` that it holds, both ends included.
    pub apps: (u8, u8),
    /// How to reach it, without the password.
    pub postgres: PostgresAddress,
    /// Lanes, and so connections, of this shard in each core group.
    pub workers: usize,
    /// Rows per second over the whole group; `None` for no bound. Keeps a spike in Kafka instead of in the database.
    pub write_rate_max: Option<u32>,
}

/// A Postgres connection string, checked and taken apart.
#[derive(Clone)]
pub struct PostgresAddress {
    /// Parsed by the driver; holds the password, so it is never printed.
    pub driver: postgres::Config,
    /// How the connection is encrypted and whose certificate is believed.
    pub tls: PostgresTls,
    /// `host:port/dbname`, for logs and errors.
    pub shown: String,
    /// Where the password stands, if in a file. Read for each connection, since it may be another one by then.
    pub password_file: Option<PathBuf>,
}

/// libpq's sslmode, with its meaning there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PostgresTls {
    /// Plain text; the default on loopback and on unix sockets only.
    Disable,
    /// Encrypted, any certificate; the default elsewhere.
    Require,
    /// The certificate is signed by the given root (or a system root).
    VerifyCa(Option<PathBuf>),
    /// As before, and it names the host.
    VerifyFull(Option<PathBuf>),
}

/// What `run` does with the stream.
#[derive(Clone, Debug)]
pub struct Consumer {
    /// The cores of each group; empty: one group, not pinned.
    pub core_groups: Vec<Vec<usize>>,
    /// Messages of one partition that may be in memory. Keeps a stuck row from filling memory, and its partition from
    /// stalling the others.
    pub in_memory_max_per_partition: u32,
    /// Bytes of messages in memory, per process, split over the assigned partitions. Keeps large messages from doing what
    /// many do.
    pub in_memory_bytes_max: u64,
    /// A larger message is a dead letter.
    pub message_max_bytes: usize,
    /// Rows of one statement. Bounds how long one statement holds its rows.
    pub batch_rows_max: usize,
    /// How long a worker waits for a fuller batch.
    pub batch_linger: Duration,
    /// How often offsets are committed, which bounds what is replayed after a crash.
    pub commit_interval: Duration,
    /// How long work in flight may take at shutdown.
    pub drain_deadline: Duration,
    /// How long work in flight may take when partitions move to another process.
    pub revoke_deadline: Duration,
    /// What an update of a row that is not there does.
    pub on_missing_row: OnMissingRow,
    /// What happens when records that were not yet read are gone.
    pub on_lost_records: OnLostRecords,
}

/// What an update of a row that is not there does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnMissingRow {
    /// Makes the row.
    Insert,
    /// Nothing; it is counted as skipped.
    Skip,
}

/// What happens when records that were not yet read are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnLostRecords {
    /// The partition stops with an alarm.
    Stop,
    /// It goes on behind the gap, with an alarm.
    Skip,
}

/// Limits on what an update may do.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Children of one parent; `None` for no limit.
    pub links_per_parent_max: Option<u32>,
}

/// When a hot row or app is warned of. Keeps one customer's mistake from growing for days before somebody sees it.
#[derive(Clone, Debug)]
pub struct Hot {
    /// The share of its shard's messages above which a row is, from 0 to 1; 0 for never.
    pub warn_share: f64,
    /// The same for an app.
    pub warn_app_share: f64,
}

/// The HTTP edge.
#[derive(Clone, Debug)]
pub struct Ingest {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Accepted bearer tokens; empty accepts all, on loopback only.
    pub tokens: Vec<Secret>,
    /// Larger bodies are refused.
    pub body_max_bytes: usize,
    /// When a request is answered.
    pub acknowledge: Acknowledge,
    /// Threads that serve connections; `None` for one a core, 4 at most.
    pub threads: Option<usize>,
    /// Connections at a time.
    pub connections_max: usize,
    /// Records handed over and not yet acknowledged.
    pub in_flight_max: usize,
    /// How long Kafka has to acknowledge a record before the answer is 504.
    pub delivery_timeout: Duration,
    /// Names that an update may have in its tags, and as many in its counts.
    pub tags_max: usize,
    /// Bytes of such a name.
    pub name_max_bytes: usize,
    /// Bytes of a tag's value, as JSON.
    pub value_max_bytes: usize,
    /// Certificate and key in PEM; plain text without.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Where its health and metrics are.
    pub admin_listen: SocketAddr,
}

/// When the edge answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acknowledge {
    /// After the broker has the message.
    Broker,
    /// Once it is in the producer's queue.
    Queue,
}

/// Health, metrics, and changes while running.
#[derive(Clone, Debug)]
pub struct Admin {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Needed to change anything when not on loopback.
    pub token: Option<Secret>,
    /// Admin addresses of the group's other processes, `host:port`, for the status page.
    pub peers: Vec<String>,
}

/// Logs and traces.
#[derive(Clone, Debug)]
pub struct Telemetry {
    /// The form of log lines.
    pub log: LogForm,
    /// What is logged, in the syntax of `RUST_LOG`; empty: what that says.
    pub level: String,
    /// One applied update in so many is logged; 0 for none.
    pub applied_sample: u64,
    /// Where traces go; `None` for nowhere.
    pub otlp_endpoint: Option<String>,
    /// The share of messages that is traced, 0 to 1.
    pub sample_ratio: f64,
}

/// The form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogForm {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// A value that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(hidden)")
    }
}

/// Settings of librdkafka may hold passwords, so none of them is printed.
impl std::fmt::Debug for Kafka {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            brokers,
            topic,
            group,
            ..
        } = self;
        write!(f, "topic {topic} at {brokers} as group {group}")
    }
}

impl PostgresAddress {
    /// What the driver needs, with the password that the file holds now.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn driver_now(&self) -> std::io::Result<postgres::Config> {
        let mut driver = self.driver.clone();
        if let Some(file) = &self.password_file {
            driver.password(password_in(&std::fs::read_to_string(file)?));
        }
        Ok(driver)
    }
}

/// A password file's content without the newline at its end.
pub(super) fn password_in(content: &str) -> &str {
    content.trim_end_matches(['\r', '\n'])
}

impl std::fmt::Debug for PostgresAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({:?})", self.shown, self.tls)
    }
}
