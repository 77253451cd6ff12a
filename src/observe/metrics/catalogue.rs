//! Every metric: its name, which ends with its unit, and its meaning. The `_total` of counters is added when they are
//! written. No label holds an app or a row.
//!
//! A section a set of labels.

/// A metric's name and meaning.
pub(super) type Named = (&'static str, &'static str);

// shard; counters.
pub(super) const MESSAGES: Named = (
    "millpond_messages",
    "Messages finished: applied, replayed, skipped or dead-lettered.",
);
pub(super) const ROWS_WRITTEN: Named = ("millpond_rows_written", "Rows written.");
pub(super) const FOLDED: Named = (
    "millpond_folded",
    "Messages that another one's row write covered.",
);
pub(super) const REPLAYED: Named = (
    "millpond_replayed",
    "Messages that the fence showed to be applied already.",
);
pub(super) const FOLDS_CUT: Named = (
    "millpond_folds_cut",
    "Folds of which the fence let only the later part through.",
);
pub(super) const SKIPPED: Named = (
    "millpond_skipped",
    "Messages that a rule or on_missing_row skipped.",
);
pub(super) const DROPPED: Named = (
    "millpond_dropped",
    "Messages dropped because their partition had been given up: its next owner reads them again.",
);
pub(super) const UNKNOWN_KEYS: Named = (
    "millpond_unknown_keys",
    "Keys in updates that the wire format does not know.",
);
pub(super) const STATEMENTS: Named = ("millpond_statements", "Statements sent.");
pub(super) const BATCHES: Named = ("millpond_batches", "Batches written.");
pub(super) const RETRIES: Named = ("millpond_retries", "Statements that had to be sent again.");
pub(super) const WRITE_RATE_WAITS: Named = (
    "millpond_write_rate_waits",
    "Statements that write_rate_max held back.",
);
pub(super) const WRITE_RATE_WAIT_SECONDS: Named = (
    "millpond_write_rate_wait_seconds",
    "Time in which write_rate_max held workers back, summed over them.",
);

// shard; gauges.
pub(super) const WORKERS: Named = (
    "millpond_workers",
    "Workers with a lane of their own, over all core groups of this process.",
);
pub(super) const WRITE_RATE_MAX: Named = (
    "millpond_write_rate_max",
    "Rows a second that the whole group may write to the shard; 0 for no bound.",
);
pub(super) const SHARD_UP: Named = (
    "millpond_shard_up",
    "1 if the shard can be written to, else 0.",
);
pub(super) const PARKED: Named = (
    "millpond_parked",
    "Updates of rows that someone else holds locked, waiting for them.",
);

pub(super) const HOT_ROW_SHARE: Named = (
    "millpond_hot_row_share",
    "What the row with the most messages has of the shard's, lately; which one it is, /api/hot says.",
);
pub(super) const HOT_APP_SHARE: Named = (
    "millpond_hot_app_share",
    "The same for the app with the most messages.",
);

// shard, state; gauge.
pub(super) const CONNECTIONS: Named = (
    "millpond_connections",
    "Connections to the shard by what they do: idle, busy, down.",
);

// shard, group, lane; gauge.
pub(super) const LANE_DEPTH: Named = ("millpond_lane_depth", "Messages waiting in the lane.");

// reason; counter.
pub(super) const DEAD_LETTERS: Named = (
    "millpond_dead_letters",
    "Messages that are in the dead letter topic.",
);

// group; counters.
pub(super) const RECEIVED_MESSAGES: Named =
    ("millpond_received_messages", "Messages read from Kafka.");
pub(super) const RECEIVED_BYTES: Named =
    ("millpond_received_bytes", "Bytes of their keys and values.");
pub(super) const COMMITS: Named = ("millpond_commits", "Offset commits sent.");
pub(super) const COMMIT_FAILURES: Named = (
    "millpond_commit_failures",
    "Offset commits that failed; they are sent again.",
);
pub(super) const REBALANCES: Named = ("millpond_rebalances", "Assignments and revocations served.");
pub(super) const SILENT_PARTITIONS: Named = (
    "millpond_silent_partitions",
    "Partitions that got no message although the broker had some, and were assigned anew.",
);
pub(super) const KAFKA_ERRORS: Named = (
    "millpond_kafka_errors",
    "Errors of the Kafka client and in partition queues.",
);

// group; gauge.
pub(super) const ASSIGNED_PARTITIONS: Named = (
    "millpond_assigned_partitions",
    "Partitions that this process has.",
);

// partition, shard; gauges, only of partitions that this process has.
pub(super) const LAG_MESSAGES: Named = (
    "millpond_lag_messages",
    "Messages between the watermark and the partition's end.",
);
pub(super) const TIME_LAG_SECONDS: Named = (
    "millpond_time_lag_seconds",
    "Now minus the Kafka timestamp of the first message not yet applied; 0 without lag.",
);
pub(super) const LAST_APPLIED_TIMESTAMP_SECONDS: Named = (
    "millpond_last_applied_timestamp_seconds",
    "Kafka timestamp of the newest applied message, since 1970; not there before the first.",
);
pub(super) const OLDEST_IN_MEMORY_SECONDS: Named = (
    "millpond_oldest_in_memory_seconds",
    "How long the oldest message in memory has been there; 0 without one.",
);
pub(super) const IN_MEMORY_MESSAGES: Named = ("millpond_in_memory_messages", "Messages in memory.");
pub(super) const IN_MEMORY_BYTES: Named = (
    "millpond_in_memory_bytes",
    "Bytes of the messages in memory.",
);
pub(super) const PARTITION_ALARM: Named = (
    "millpond_partition_alarm",
    "Why the partition stands still: 0 it does not, 1 records are lost, 2 a batch is unreadable.",
);

// No labels; gauges.
pub(super) const READY: Named = ("millpond_ready", "1 while /readyz answers 200, else 0.");
pub(super) const RULES_ACTIVE: Named = (
    "millpond_rules_active",
    "Rules that may still skip what comes.",
);

// No labels; histograms.
pub(super) const APPLY_SECONDS: Named = (
    "millpond_apply_seconds",
    "From dispatch to the statement's return, one value a message.",
);
pub(super) const END_TO_END_SECONDS: Named = (
    "millpond_end_to_end_seconds",
    "From the Kafka timestamp to applied, one value a message.",
);
pub(super) const BATCH_ROWS: Named = ("millpond_batch_rows", "Rows of a batch.");

pub(super) const WORKERS_CHANGE_PAUSE_SECONDS: Named = (
    "millpond_workers_change_pause_seconds",
    "How long workers stood still for a change of their number, one value a shard, core group and try.",
);

// thread; counter.
pub(super) const THREAD_CPU_SECONDS: Named = (
    "millpond_thread_cpu_seconds",
    "Processor time of the running threads of a name.",
);

// status; a counter. The edge's.
pub(super) const INGEST_REQUESTS: Named = ("millpond_ingest_requests", "Requests answered.");

// No labels; gauges and a histogram. The edge's.
pub(super) const INGEST_CONNECTIONS: Named =
    ("millpond_ingest_connections", "Connections of clients.");
pub(super) const INGEST_IN_FLIGHT: Named = (
    "millpond_ingest_in_flight_records",
    "Records handed over to Kafka and not yet acknowledged.",
);
pub(super) const INGEST_UNREACHABLE: Named = (
    "millpond_ingest_unreachable_partitions",
    "Partitions whose requests are answered 503, since Kafka acknowledges nothing.",
);
pub(super) const INGEST_ANSWER_SECONDS: Named = (
    "millpond_ingest_answer_seconds",
    "From a request's last byte to its answer, of requests handed over to Kafka.",
);

// version; info.
pub(super) const BUILD: Named = ("millpond_build", "The version.");

// No labels; counters.
pub(super) const LOG_LINES_DROPPED: Named = (
    "millpond_log_lines_dropped",
    "Log lines dropped since stderr was slower than they came, or took none.",
);
pub(super) const SPANS_EXPORTED: Named =
    ("millpond_spans_exported", "Spans that the collector took.");
pub(super) const SPANS_DROPPED: Named = (
    "millpond_spans_dropped",
    "Spans that are lost since the collector was slow, or did not take them.",
);

// No labels. Dashboards of any program know these names, so they have no prefix of ours.
pub(super) const PROCESS_CPU_SECONDS: Named = ("process_cpu_seconds", "Processor time.");
pub(super) const PROCESS_START_TIME_SECONDS: Named = (
    "process_start_time_seconds",
    "When the process began, since 1970.",
);
pub(super) const PROCESS_RESIDENT_MEMORY_BYTES: Named =
    ("process_resident_memory_bytes", "Memory in RAM.");
pub(super) const PROCESS_VIRTUAL_MEMORY_BYTES: Named =
    ("process_virtual_memory_bytes", "Memory that is mapped.");
pub(super) const PROCESS_RESIDENT_MEMORY_PEAK_BYTES: Named = (
    "process_resident_memory_peak_bytes",
    "The most memory in RAM so far.",
);
pub(super) const PROCESS_THREADS: Named = ("process_threads", "Threads.");
pub(super) const PROCESS_OPEN_FDS: Named = ("process_open_fds", "Open files and sockets.");
pub(super) const PROCESS_MAX_FDS: Named = ("process_max_fds", "As many may be open.");
