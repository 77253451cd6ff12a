//! `millpond log`: whose applied updates a running consumer logs without sampling, over its admin address.

use super::admin_client::AdminArgs;
use super::table::{Format, table};
use super::{UsageError, moment, print_data};
use crate::observe::log::api::{Asked, Logged, PATH, Shown, during, target};
use jiff::SignedDuration;
use std::process::ExitCode;

/// Have a running consumer log all updates of an app or a row, for a while
///
/// Of applied updates one in telemetry.applied_sample is logged. Of what is watched here, each is, with weight 1, and those that
/// were skipped or replayed too. It ends by itself; each process of a group has its own.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Log all updates of an app, a subscription, or a subscription of an app from now on
    Watch {
        #[command(flatten)]
        whose: Whose,
        /// For how long, such as 30s, 10m or 2h; a day at most
        #[arg(long = "for", value_name = "TIME", default_value = "10m")]
        during: String,
        #[arg(long, value_enum, default_value = "text")]
        format: Format,
        #[command(flatten)]
        admin: AdminArgs,
    },
    /// Print what is watched, until when, and how many lines that made
    List {
        #[arg(long, value_enum, default_value = "text")]
        format: Format,
        #[command(flatten)]
        admin: AdminArgs,
    },
    /// Watch it no longer
    Unwatch {
        #[command(flatten)]
        whose: Whose,
        #[arg(long, value_enum, default_value = "text")]
        format: Format,
        #[command(flatten)]
        admin: AdminArgs,
    },
}

#[derive(clap::Args)]
#[group(required = true, multiple = true)]
struct Whose {
    /// The app
    #[arg(long, value_name = "APP_ID")]
    app: Option<String>,
    /// The subscription; without --app of whatever app
    #[arg(long, value_name = "SUBSCRIPTION_ID")]
    subscription: Option<String>,
}

impl Whose {
    /// Checked here already, since it is the arguments that are wrong.
    fn check(&self) -> Result<(), UsageError> {
        target(self.app.as_deref(), self.subscription.as_deref())
            .map(|_| ())
            .map_err(UsageError)
    }
}

/// Asks the consumer, and prints what it answers.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Watch {
            whose,
            during,
            format,
            admin,
        } => {
            whose.check()?;
            let for_s = seconds(&during).map_err(|why| UsageError(format!("--for: {why}")))?;
            let asked = Asked {
                app_id: whose.app,
                subscription_id: whose.subscription,
                for_s: Some(for_s),
            };
            let shown: Shown = admin.client()?.put(PATH, &asked)?;
            print_data(&match format {
                Format::Json => serde_json::to_string(&shown)?,
                Format::Text => text(&[shown]),
            })?;
        }
        Command::List { format, admin } => print(&admin.client()?.get(PATH)?, format)?,
        Command::Unwatch {
            whose,
            format,
            admin,
        } => {
            whose.check()?;
            let app = whose.app.map(|id| format!("app_id={id}"));
            let subscription = whose.subscription.map(|id| format!("subscription_id={id}"));
            let query: Vec<String> = app.into_iter().chain(subscription).collect();
            let path = format!("{PATH}?{}", query.join("&"));
            print(&admin.client()?.delete(&path)?, format)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn print(logged: &Logged, format: Format) -> anyhow::Result<()> {
    print_data(&match format {
        Format::Json => serde_json::to_string(logged)?,
        Format::Text => text(&logged.watched),
    })
}

fn text(watched: &[Shown]) -> String {
    let or_any = |id: &Option<String>| id.clone().unwrap_or_else(|| "any".to_owned());
    let lines = watched.iter().map(|one| {
        vec![
            or_any(&one.app_id),
            or_any(&one.subscription_id),
            one.until.clone(),
            one.logged.to_string(),
        ]
    });
    table("APP SUBSCRIPTION UNTIL LOGGED", lines)
}

/// Reads `10m`.
fn seconds(text: &str) -> Result<u64, String> {
    let time = moment::span(text).unwrap_or(SignedDuration::ZERO).as_secs();
    let time = u64::try_from(time).ok().filter(|seconds| *seconds > 0);
    match time.map(|seconds| during(Some(seconds))) {
        Some(Ok(during)) => Ok(during.as_secs()),
        _ => Err(format!(
            "{text} is no time from 1s to 1d; write it as 30s, 10m or 2h"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_a_unit_and_a_day_at_most() {
        assert_eq!(seconds("10m"), Ok(600));
        assert_eq!(seconds("1h30m"), Ok(5400));
        assert_eq!(seconds("1d"), Ok(86_400));
        for bad in ["10", "", "-1m", "25h", "soon", "0s"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
