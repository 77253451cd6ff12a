//! `millpond verify`: whether every row is what its updates make of it.

use super::{ConfigArgs, UsageError, print_data, print_note};
use crate::config::checked::OnMissingRow;
use crate::verify::{Report, verify};
use anyhow::{Context, ensure};
use std::process::ExitCode;

/// Read the topic again, compute what every row should be, and compare with Postgres
///
/// Prints one line of JSON, and the first differences on stderr. Exits with 1 on any difference, or when nothing was
/// checked. Refuses while the group has members. Changes nothing.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    config: ConfigArgs,
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let config = args.config.load()?.config;
    let skips = config.consumer.on_missing_row == OnMissingRow::Skip;
    ensure!(
        config.table.is_none() || !skips,
        UsageError(
            "with consumer.on_missing_row = \"skip\" rows come from elsewhere, so the log can't judge a table of [table]"
                .to_owned()
        )
    );
    print(&verify(&config)?)
}

/// Prints a report, its differences for people; the exit code that it stands for.
pub(super) fn print(report: &Report) -> anyhow::Result<ExitCode> {
    for example in &report.examples {
        print_note(&example.to_string());
    }
    let more = report
        .differences()
        .saturating_sub(report.examples.len() as u64);
    if more > 0 {
        print_note(&format!("and {more} more differences"));
    }
    if report.rows_checked == 0 {
        print_note("no row was checked, so nothing is proven");
    }
    print_data(&serde_json::to_string(report).context("the report can't be written as JSON")?)?;
    Ok(if report.ok {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
