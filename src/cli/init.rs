//! `millpond init`: makes the topics and the tables. What is there already is compared, never changed.

use super::{ConfigArgs, UsageError, print_data, print_note};
use crate::clock;
use crate::config::Config;
use crate::kafka::admin::Admin;
use crate::pipeline::checks;
use crate::rules;
use crate::sink::{catalogue, connect, schema, shape};
use anyhow::{Context, bail, ensure};
use std::process::ExitCode;
use std::time::Duration;

/// Each question to the brokers ends by then.
const TIMEOUT: Duration = Duration::from_secs(15);
/// Between two looks at a topic that was just made.
const KNOWN_LOOK: Duration = Duration::from_millis(50);
/// Partitions of the dead letter topic: enough to spread, few enough to read in one go.
const DEAD_LETTER_PARTITIONS_MAX: u32 = 12;
/// The largest update (`message_max_bytes` is at most 16 MiB) with its headers, so that no dead letter must be cut.
const DEAD_LETTER_BYTES_MAX: &str = "17825792";

/// Make the topics and the tables on every shard; run again, it changes nothing
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    config: ConfigArgs,
    /// Print what a table of yours lacks of Millpond's own columns, as statements; makes nothing else
    #[arg(long)]
    adopt: bool,
    /// Run the statements that --adopt prints
    #[arg(long, requires = "adopt")]
    apply: bool,
}

/// Makes what is missing and says what it did.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let config = args.config.load()?.config;
    if args.adopt {
        adopt(&config, args.apply)?;
        return Ok(ExitCode::SUCCESS);
    }
    make(&config, print_data)?;
    Ok(ExitCode::SUCCESS)
}

/// Makes what is missing, and tells `say` of each thing.
pub(crate) fn make(
    config: &Config,
    say: impl Fn(&str) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let admin = Admin::connect(&config.kafka)?;
    let partitions = config.partitioner.partitions();
    let updates = Topic {
        name: &config.kafka.topic,
        partitions,
        settings: &[],
    };
    say(&init_topic(&admin, &updates, true)?)?;
    if let Some(warning) = checks::compaction_warning(&admin, updates.name) {
        print_note(&warning);
    }
    let dead_letters = Topic {
        name: &config.kafka.dead_letter_topic,
        partitions: partitions.min(DEAD_LETTER_PARTITIONS_MAX),
        settings: &[("max.message.bytes", DEAD_LETTER_BYTES_MAX)],
    };
    say(&init_topic(&admin, &dead_letters, false)?)?;
    let rules = Topic {
        name: &rules::topic_of(&config.kafka.topic),
        partitions: 1,
        settings: &[("cleanup.policy", "compact")],
    };
    say(&init_topic(&admin, &rules, false)?)?;
    ensure!(
        admin.topic_partitions(rules.name, TIMEOUT)? == Some(1),
        "topic {} has more than one partition; rules are in order in one only. Delete it and run `millpond init` again",
        rules.name
    );
    init_shards(&admin, config, say)
}

/// Prints, and runs if it is asked to, what gives a table that is there the columns of the fence.
fn adopt(config: &Config, applies: bool) -> anyhow::Result<()> {
    let shape = shape::of(config.table.as_deref());
    ensure!(
        config.table.is_some(),
        UsageError("--adopt is for a table of yours: the configuration has no [table]".to_owned())
    );
    let mut left = 0;
    for shard in &config.shards {
        let of_shard = || format!("shard {} ({})", shard.name, shard.postgres.shown);
        let mut client =
            connect::connect(&shard.postgres, "millpond/init").with_context(of_shard)?;
        let statements = catalogue::adoption(&mut client, shape).with_context(of_shard)?;
        if statements.is_empty() {
            print_note(&format!("{}: nothing to adopt", of_shard()));
        }
        for statement in statements {
            print_data(&format!("{statement};"))?;
            if applies {
                client.batch_execute(&statement).with_context(of_shard)?;
                print_note(&format!("{}: done", of_shard()));
            } else {
                left += 1;
            }
        }
    }
    if left > 0 {
        print_note(
            "nothing was changed; --apply runs these statements, then `millpond init` makes the rest",
        );
    }
    Ok(())
}

/// A topic as it is to be made.
struct Topic<'a> {
    name: &'a str,
    partitions: u32,
    settings: &'a [(&'a str, &'a str)],
}

/// Makes the topic if it isn't there; what it found or did. `strict`: one that is there must have the same partitions.
fn init_topic(admin: &Admin, topic: &Topic<'_>, strict: bool) -> anyhow::Result<String> {
    let Topic {
        name,
        partitions,
        settings,
    } = topic;
    match admin.topic_partitions(name, TIMEOUT)? {
        None => {
            admin.create_topic(name, *partitions, settings, TIMEOUT)?;
            wait_until_known(admin, name)?;
            Ok(format!("topic {name}: made, {partitions} partitions"))
        }
        Some(found) if strict && found != *partitions => bail!(
            "topic {name} has {found} partitions, kafka.partitions says {partitions}; nothing was changed. Correct the \
             configuration, or drain the topic and make a new one with a raised kafka.incarnation"
        ),
        Some(found) => Ok(format!("topic {name}: there, {found} partitions")),
    }
}

/// Brokers learn of a new topic a moment after it was made, and the next question may go to any of them.
fn wait_until_known(admin: &Admin, name: &str) -> anyhow::Result<()> {
    let deadline = clock::now() + TIMEOUT;
    while admin.topic_partitions(name, TIMEOUT)?.is_none() {
        ensure!(
            clock::now() < deadline,
            "topic {name} was made, but the brokers don't know it after {} s; look at their log, and run `millpond init` again",
            TIMEOUT.as_secs()
        );
        std::thread::sleep(KNOWN_LOOK);
    }
    Ok(())
}

fn init_shards(
    admin: &Admin,
    config: &Config,
    say: impl Fn(&str) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let source = checks::source_now(admin, config)?;
    for shard in &config.shards {
        let of_shard = || format!("shard {} ({})", shard.name, shard.postgres.shown);
        let mut client =
            connect::connect(&shard.postgres, "millpond/init").with_context(of_shard)?;
        for topic in schema::topics_before(&mut client, &source).with_context(of_shard)? {
            let group = &config.kafka.group;
            let left = checks::left_behind(admin, group, &topic)?;
            ensure!(
                left == 0,
                "{}: its rows come from topic {topic} too, which holds {left} messages that group {group} has not applied, and \
                 never would under the raised kafka.incarnation; no table was changed. Drain it with the old configuration \
                 (`millpond run --until-caught-up`), or delete it if they may be lost",
                of_shard()
            );
        }
        let shape = shape::of(config.table.as_deref());
        let made = schema::init(&mut client, shape, &source).with_context(of_shard)?;
        let tables = match made.tables.as_slice() {
            [] => "tables are there".to_owned(),
            tables => format!("made {}", tables.join(", ")),
        };
        say(&format!("{}: {tables}", of_shard()))?;
    }
    Ok(())
}
