//! `millpond rewind`: moves the group's offsets back.

use super::table::table;
use super::{ConfigArgs, UsageError, moment, print_data, print_note};
use crate::config::Config;
use crate::kafka::admin::Admin;
use crate::rewind::{self, Move, RewindError};
use std::process::ExitCode;

/// Move the group's committed offsets back to a point in time, for a database that lost its newest writes
///
/// Stop the consumer, restore the database, rewind, start the consumer: it reads again from there, and the fences of the
/// rows refuse what the database did not lose. TIME is compared with Kafka's timestamps of the messages, which lie before
/// the writes: choose it well before the moment that the database was restored to. Too early costs time and nothing else; too
/// late leaves updates out. Messages on the way that can't be applied become dead letters once more. Nothing is moved forward, a partition without a committed offset stays as it is, and records that
/// the log no longer has can't be read again. Moves nothing without --apply.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    config: ConfigArgs,
    /// The first record at this time or later: RFC 3339, or how long ago, as -2h
    #[arg(long, value_name = "TIME", value_parser = moment::parse, allow_hyphen_values = true)]
    to: i64,
    /// The partitions of this shard only
    #[arg(long, value_name = "NAME")]
    shard: Option<String>,
    /// Move them; otherwise it is only shown
    #[arg(long)]
    apply: bool,
}

/// Shows what moves, and moves it if asked to.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let config = args.config.load()?.config;
    let admin = Admin::connect(&config.kafka)?;
    let group = &config.kafka.group;
    if args.apply {
        rewind::refuse_while_running(&admin, &config)?;
    } else if let Err(error) = rewind::refuse_while_running(&admin, &config) {
        print_note(&format!("--apply would be refused now: {error}"));
    }
    let moves = rewind::moves(&admin, &config, args.to, args.shard.as_deref());
    let moves = moves.map_err(|error| match error {
        RewindError::NoShard { .. } => UsageError(error.to_string()).into(),
        other => anyhow::Error::from(other),
    })?;
    let header = "PARTITION SHARD FROM TO MESSAGES NOTE";
    print_data(&table(
        header,
        moves.iter().map(|found| cells(&config, found)),
    ))?;
    let moving = moves.iter().filter(|found| found.to().is_some()).count();
    let at = moment::show(args.to);
    if moving == 0 {
        print_note(&format!(
            "nothing to move: group {group} stands at or before {at} everywhere"
        ));
    } else if args.apply {
        rewind::apply(&admin, &config, &moves)?;
        print_note(&format!(
            "group {group}: {moving} partitions moved back to {at}"
        ));
    } else {
        print_note(&format!(
            "group {group}: {moving} partitions would move back to {at}; nothing was moved, --apply does it"
        ));
    }
    Ok(ExitCode::SUCCESS)
}

fn cells(config: &Config, found: &Move) -> Vec<String> {
    let shard = config.partitioner.shard_of_partition(found.partition);
    let shard = config.shards.get(shard.0);
    let or_dash =
        |value: Option<i64>| value.map_or_else(|| "-".to_owned(), |value| value.to_string());
    let messages = found.to().zip(found.committed).map(|(to, from)| from - to);
    vec![
        found.partition.to_string(),
        shard.map_or_else(|| "-".to_owned(), |shard| shard.name.clone()),
        or_dash(found.committed),
        or_dash(found.to()),
        or_dash(messages),
        note(found).to_owned(),
    ]
}

fn note(found: &Move) -> &'static str {
    match (found.committed, found.to()) {
        (None, _) => "nothing committed",
        (Some(_), None) => "stays: never forward",
        (Some(_), Some(_)) if found.may_lack_records() => {
            "the log begins here: older records of that time may be gone"
        }
        (Some(_), Some(_)) => "",
    }
}
