//! Every setting there is: its dotted name, unit and default. What a value may be, and why, stands where it is read:
//! `check` and `shard`. The names are also those of flags and, upper-cased, of environment variables.

/// One setting.
#[derive(Debug)]
pub(super) struct Key {
    /// Section and key, as `consumer.batch_rows_max`; of a shard's settings the key alone.
    pub name: &'static str,
    /// What a number counts; empty where there is nothing to count.
    pub unit: &'static str,
    /// As a flag would give it.
    pub default: &'static str,
    /// Whether the value is never shown.
    pub secret: bool,
}

const fn key(name: &'static str, unit: &'static str, default: &'static str) -> Key {
    Key {
        name,
        unit,
        default,
        secret: false,
    }
}

const fn secret(name: &'static str, default: &'static str) -> Key {
    Key {
        name,
        unit: "",
        default,
        secret: true,
    }
}

/// Where nobody gives it, it follows from the topic's name.
pub(super) const DEAD_LETTER_TOPIC: &str = "kafka.dead_letter_topic";

/// Settings below it are librdkafka's.
pub(super) const LIBRDKAFKA: &str = "kafka.librdkafka.";

/// Settings below it are columns of the table, each with its own few: `table.columns.NAME.KEY`.
pub(super) const COLUMNS: &str = "table.columns.";

/// What may be said of a column: where it is, then its rules.
pub(super) const COLUMN_KEYS: [&str; 7] =
    ["from", "key", "set", "add", "keep_max", "keep_min", "merge"];

/// All settings but the shards' and librdkafka's, in the order in which they are shown.
pub(super) const KEYS: [Key; 49] = [
    key("kafka.brokers", "", "127.0.0.1:9092"),
    key("kafka.topic", "", "subscription-updates"),
    key("kafka.group", "", "millpond"),
    key("kafka.partitions", "partitions", "720"),
    key("kafka.partition_by", "", "app"),
    key("kafka.incarnation", "", "1"),
    key("kafka.start", "", "earliest"),
    key(DEAD_LETTER_TOPIC, "", ""),
    key("table.name", "", ""),
    key("table.shard_by", "", ""),
    key("table.delete", "", "never"),
    key("table.delete_field", "", ""),
    key("table.delete_values", "", "[]"),
    key("consumer.core_groups", "cores", "[]"),
    key("consumer.in_memory_max_per_partition", "messages", "8192"),
    key("consumer.in_memory_bytes_max", "bytes", "256MiB"),
    key("consumer.message_max_bytes", "bytes", "262144"),
    key("consumer.batch_rows_max", "rows", "1000"),
    key("consumer.batch_linger_ms", "ms", "0"),
    key("consumer.commit_interval_ms", "ms", "500"),
    key("consumer.drain_deadline_s", "s", "25"),
    key("consumer.revoke_deadline_s", "s", "5"),
    key("consumer.on_missing_row", "", "insert"),
    key("consumer.on_lost_records", "", "stop"),
    key("rules.links_per_parent_max", "children", "1000"),
    key("hot.warn_share", "of messages", "0.25"),
    key("hot.warn_app_share", "of messages", "0.5"),
    key("ingest.listen", "", "127.0.0.1:8080"),
    secret("ingest.tokens", "[]"),
    key("ingest.body_max_bytes", "bytes", "65536"),
    key("ingest.acknowledge", "", "broker"),
    key("ingest.threads", "threads", "0"),
    key("ingest.connections_max", "connections", "16384"),
    key("ingest.in_flight_max", "records", "100000"),
    key("ingest.delivery_timeout_s", "s", "10"),
    key("ingest.tags_max", "names", "100"),
    key("ingest.name_max_bytes", "bytes", "128"),
    key("ingest.value_max_bytes", "bytes", "1024"),
    key("ingest.tls_certificate_file", "", ""),
    key("ingest.tls_key_file", "", ""),
    key("ingest.admin_listen", "", "127.0.0.1:9465"),
    key("admin.listen", "", "127.0.0.1:9464"),
    secret("admin.token", ""),
    key("admin.peers", "", "[]"),
    key("telemetry.log", "", "json"),
    key("telemetry.level", "", ""),
    key("telemetry.applied_sample", "updates", "1000"),
    key("telemetry.otlp_endpoint", "", ""),
    key("telemetry.sample_ratio", "of messages", "0.01"),
];

/// Settings of each shard but its name. Their full name is `shard.NAME.KEY`.
pub(super) const SHARD_KEYS: [Key; 7] = [
    key("apps", "", ""),
    secret("postgres", ""),
    secret("postgres_password", ""),
    key("postgres_password_file", "", ""),
    key("postgres_password_env", "", ""),
    key("workers", "lanes", "4"),
    key("write_rate_max", "rows/s", "0"),
];

/// The setting with that full name, which must exist.
pub(super) fn named(name: &str) -> &'static Key {
    let shard_key = name
        .strip_prefix("shard.")
        .and_then(|rest| rest.split_once('.'))
        .map(|(_, key)| key);
    let found = match shard_key {
        Some(shard_key) => SHARD_KEYS.iter().find(|key| key.name == shard_key),
        None => KEYS.iter().find(|key| key.name == name),
    };
    found.expect("every setting that is read is in the tables above")
}

/// The full name of a shard's setting.
pub(super) fn of_shard(shard: &str, key: &str) -> String {
    format!("shard.{shard}.{key}")
}

/// The environment variable of a setting: `MILLPOND_`, then the name in upper case with `_` for all else.
pub(super) fn environment_name(name: &str) -> String {
    let upper = |c: char| {
        if c.is_ascii_alphanumeric() {
            c.to_ascii_uppercase()
        } else {
            '_'
        }
    };
    "MILLPOND_".chars().chain(name.chars().map(upper)).collect()
}
