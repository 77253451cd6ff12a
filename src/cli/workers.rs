//! `millpond workers`: how many workers a running consumer has, and another number of them.

use super::admin_client::AdminArgs;
use super::print_data;
use super::table::{Format, table};
use crate::pipeline::workers_api::{ChangedWorkers, NewWorkers, PATH, Workers};
use std::process::ExitCode;

/// Look at the workers of a running consumer, or change their number
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Print each shard's workers, what is configured, and the last change
    Get {
        #[command(flatten)]
        admin: AdminArgs,
        /// For people, or an object for programs
        #[arg(long, value_enum, default_value = "text")]
        format: Format,
    },
    /// Have another number of workers in each core group, while messages flow; prints how long workers stood still for it
    Set {
        /// How many, 1 to 64
        #[arg(value_name = "N")]
        workers: usize,
        /// Of this shard only
        #[arg(long, value_name = "NAME")]
        shard: Option<String>,
        #[command(flatten)]
        admin: AdminArgs,
    },
}

/// Runs the subcommand.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Get { admin, format } => {
            let client = admin.client()?;
            let workers: Workers = client.get(PATH)?;
            print_data(&match format {
                Format::Text => shown(&workers),
                Format::Json => serde_json::to_string(&workers)?,
            })?;
        }
        Command::Set {
            workers,
            shard,
            admin,
        } => {
            let client = admin.client()?;
            let done: ChangedWorkers = client.put(PATH, &NewWorkers { workers, shard })?;
            for change in &done.changes {
                print_data(&change.to_string())?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn shown(workers: &Workers) -> String {
    let lines = workers.shards.iter().flat_map(|shard| {
        let last = match &shard.last_change {
            None => "-".to_owned(),
            Some(last) if last.refused.is_some() => format!("{} refused", last.to),
            Some(last) => format!("{:.1} ms", last.pause_ms),
        };
        shard.groups.iter().map(move |group| {
            let waiting = group.lanes.iter().map(|lane| lane.depth).sum::<u64>();
            let parked = group.lanes.iter().map(|lane| lane.parked).sum::<i64>();
            let down = group.lanes.iter().filter(|lane| lane.connection == "down");
            vec![
                shard.shard.clone(),
                group.group.to_string(),
                shard
                    .configured
                    .map_or("-".to_owned(), |count| count.to_string()),
                group.workers.to_string(),
                waiting.to_string(),
                parked.to_string(),
                down.count().to_string(),
                last.clone(),
            ]
        })
    });
    table(
        "SHARD GROUP CONFIGURED WORKERS WAITING PARKED DOWN LAST-PAUSE",
        lines,
    )
}
