//! `millpond init`: makes the topics and the tables. What is there already is compared, never changed.

use super::{ConfigArgs, print_data};
use crate::config::Config;
use crate::kafka::admin::Admin;
use crate::pipeline::checks;
use crate::sink::{connect, schema, shape};
use anyhow::{Context, bail};
use std::process::ExitCode;
use std::time::Duration;

/// Each question to the brokers ends by then.
const TIMEOUT: Duration = Duration::from_secs(15);
/// Partitions of the dead letter topic: enough to spread, few enough to read in one go.
const DEAD_LETTER_PARTITIONS_MAX: u32 = 12;

/// Make the topics and the tables on every shard; run again, it changes nothing
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    config: ConfigArgs,
}

/// Makes what is missing and says what it did.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let config = args.config.load()?.config;
    let admin = Admin::connect(&config.kafka)?;
    let partitions = config.partitioner.partitions();
    init_topic(&admin, &config.kafka.topic, partitions, Some(partitions))?;
    init_topic(
        &admin,
        &config.kafka.dead_letter_topic,
        partitions.min(DEAD_LETTER_PARTITIONS_MAX),
        None,
    )?;
    init_shards(&admin, &config)?;
    Ok(ExitCode::SUCCESS)
}

/// `needed`: how many partitions the topic must have if it is there already.
fn init_topic(
    admin: &Admin,
    topic: &str,
    partitions: u32,
    needed: Option<u32>,
) -> anyhow::Result<()> {
    match admin.topic_partitions(topic, TIMEOUT)? {
        None => {
            admin.create_topic(topic, partitions, &[], TIMEOUT)?;
            print_data(&format!("topic {topic}: made, {partitions} partitions"))
        }
        Some(found) if needed.is_some_and(|needed| needed != found) => bail!(
            "topic {topic} has {found} partitions, kafka.partitions says {partitions}; nothing was changed. Correct the \
             configuration, or drain the topic and make a new one with a raised kafka.incarnation"
        ),
        Some(found) => print_data(&format!("topic {topic}: there, {found} partitions")),
    }
}

fn init_shards(admin: &Admin, config: &Config) -> anyhow::Result<()> {
    let source = checks::source_now(admin, config)?;
    for shard in &config.shards {
        let of_shard = || format!("shard {} ({})", shard.name, shard.postgres.shown);
        let mut client =
            connect::connect(&shard.postgres, "millpond/init").with_context(of_shard)?;
        let made =
            schema::init(&mut client, &shape::SUBSCRIPTION, &source).with_context(of_shard)?;
        let tables = match made.tables.as_slice() {
            [] => "tables are there".to_owned(),
            tables => format!("made {}", tables.join(", ")),
        };
        print_data(&format!("{}: {tables}", of_shard()))?;
    }
    Ok(())
}
