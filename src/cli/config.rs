//! `millpond config`: check, show, example.

use super::{ConfigArgs, UsageError, paths, print_data};
use crate::config::checked::{Config, Kafka, Shard};
use crate::config::{ConfigError, EXAMPLE, Loaded, Problem, apps_shown, table};
use crate::kafka::admin::Admin;
use crate::kafka::client::client_config;
use crate::sink::connect::connect;
use crate::sink::{schema, shape};
use anyhow::{Context, bail, ensure};
use std::process::ExitCode;
use std::time::Duration;

/// Check or show the configuration, or print an example
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Say what is wrong with the configuration, or what it amounts to and "ok"
    Check {
        #[command(flatten)]
        config: ConfigArgs,
        /// Also try Kafka and every shard, and count connections against max_connections
        #[arg(long)]
        connect: bool,
    },
    /// Print every value with its unit and where it came from; secrets are hidden
    Show(ConfigArgs),
    /// Print a commented configuration file
    Example,
}

/// Runs the subcommand. Problems of the configuration are [`UsageError`]s; those of Kafka and the shards are not.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Check { config, connect } => {
            let config = config.load()?.config;
            print_data(&summary(&config))?;
            if connect {
                try_all(&config)?;
            }
            print_data("ok")?;
        }
        Command::Show(config) => print_data(&table(&config.load()?.values))?,
        Command::Example => print_data(EXAMPLE.trim_end())?,
    }
    Ok(ExitCode::SUCCESS)
}

fn summary(config: &Config) -> String {
    let kafka = &config.kafka;
    let mut text = format!(
        "topic {}, {} partitions, group {}, at {}",
        kafka.topic,
        config.partitioner.partitions(),
        kafka.group,
        kafka.brokers
    );
    for shard in &config.shards {
        text.push_str(&format!(
            "\nshard {}: apps {}, {} partitions, {} connections, at {}",
            shard.name,
            apps_shown(shard.apps),
            config.partitioner.partitions_per_shard(),
            connections(config, shard),
            shard.postgres.shown
        ));
    }
    text
}

/// The most that one process opens: one for each lane, and one for what is asked beside them.
fn connections(config: &Config, shard: &Shard) -> usize {
    config.consumer.core_groups.len().max(1) * shard.workers + 1
}

/// Tries everything before it fails, so that one run finds all that is away.
fn try_all(config: &Config) -> anyhow::Result<()> {
    let mut failures = Vec::new();
    let kafka = try_kafka(config);
    let paths = config.table.iter().map(|table| paths::look(config, table));
    let shards = config
        .shards
        .iter()
        .map(|shard| try_shard(config, shard).with_context(|| format!("shard {}", shard.name)));
    for tried in std::iter::once(kafka).chain(shards).chain(paths) {
        match tried {
            Ok(found) => print_data(&found)?,
            Err(error) => failures.push(format!("{error:#}")),
        }
    }
    ensure!(failures.is_empty(), "{}", failures.join("\n"));
    Ok(())
}

fn try_kafka(config: &Config) -> anyhow::Result<String> {
    const TIMEOUT: Duration = Duration::from_secs(5);
    let kafka = &config.kafka;
    let expected = config.partitioner.partitions();
    let admin = Admin::connect(kafka)?;
    match admin.topic_partitions(&kafka.topic, TIMEOUT)? {
        None => bail!(
            "there is no topic {} at {}; `millpond init` makes it",
            kafka.topic,
            kafka.brokers
        ),
        Some(found) if found != expected => bail!(
            "topic {} has {found} partitions, kafka.partitions says {expected}; set it to {found}, or repartition \
             under a new kafka.incarnation",
            kafka.topic
        ),
        Some(found) => Ok(format!(
            "kafka: topic {} has {found} partitions",
            kafka.topic
        )),
    }
}

fn try_shard(config: &Config, shard: &Shard) -> anyhow::Result<String> {
    const ASK: &str = "SELECT current_setting('server_version'), current_setting('max_connections')::int, \
        current_setting('superuser_reserved_connections')::int \
            + coalesce(current_setting('reserved_connections', true)::int, 0)";
    let mut client = connect(&shard.postgres, "millpond config check")?;
    let row = client.query_one(ASK, &[])?;
    if config.table.is_some() {
        schema::check_tables(&mut client, shape::of(config.table.as_deref()))?;
    }
    let version: &str = row.get(0);
    let (most, reserved): (i32, i32) = (row.get(1), row.get(2));
    let needed = connections(config, shard);
    ensure!(
        usize::try_from(most - reserved).is_ok_and(|free| needed <= free),
        "each process needs {needed} connections, but max_connections is {most} and {reserved} of them are reserved; \
         lower workers or raise max_connections"
    );
    Ok(format!(
        "shard {}: Postgres {version}, each process needs {needed} connections of {most} less {reserved} reserved",
        shard.name
    ))
}

/// Refuses settings that librdkafka doesn't know, or whose values it doesn't take. Its own words hold the value, which
/// may be a password, so they are not repeated.
pub(super) fn ask_librdkafka(loaded: &Loaded) -> Result<(), UsageError> {
    let kafka = &loaded.config.kafka;
    let is_refused = |setting: &(String, String)| {
        let alone = Kafka {
            librdkafka: vec![setting.clone()],
            ..kafka.clone()
        };
        client_config(&alone, "millpond")
            .create_native_config()
            .is_err()
    };
    let problems: Vec<Problem> = kafka
        .librdkafka
        .iter()
        .filter(|setting| is_refused(setting))
        .map(|(name, _)| loaded.librdkafka_refused(name))
        .collect();
    if problems.is_empty() {
        Ok(())
    } else {
        Err(UsageError(ConfigError { problems }.to_string()))
    }
}
