//! `millpond run`: the consumer.

use super::{ConfigArgs, print_data, stop_at_signals};
use crate::config::Config;
use crate::observe::{admin, gate::Gate, log, summary};
use crate::pipeline::{self, RunOptions};
use crate::worker::SinkKind;
use anyhow::Context;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// How long the admin server's open answers may take at the end.
pub(super) const ADMIN_STOP: Duration = Duration::from_secs(1);

/// Apply the topic to the shards, until told to stop (SIGTERM, SIGINT)
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    config: ConfigArgs,
    /// End once everything that was in the topic at the start is applied and committed, by the whole group
    #[arg(long)]
    until_caught_up: bool,
    /// Where batches end: `null` does everything but send the statement, `discard` does not even decode; both read under
    /// a throw-away group and commit nothing
    #[arg(long, value_enum, default_value = "postgres")]
    sink: Sink,
    /// One statement a message, no fold, one limit in memory for the whole process: the incident's consumer
    #[arg(long)]
    baseline: bool,
    /// Write an HdrHistogram log of the delays to this file at the end
    #[arg(long, value_name = "FILE")]
    histogram_log: Option<PathBuf>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Sink {
    Postgres,
    Null,
    Discard,
}

/// Runs until it is told to stop, and prints the summary.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let config = Arc::new(args.config.load()?.config);
    log::start(config.telemetry.log)?;
    // A second one ends at once, which loses nothing.
    let signal = stop_at_signals()?;
    let options = RunOptions {
        sink: match args.sink {
            Sink::Postgres => SinkKind::Postgres,
            Sink::Null => SinkKind::Null,
            Sink::Discard => SinkKind::Discard,
        },
        baseline: args.baseline,
        until_caught_up: args.until_caught_up,
    };
    let registry = pipeline::registry(&config);
    let rules = pipeline::rules::rules(options.sink);
    let admin = start_admin(&config, &registry, &rules)?;
    tracing::info!(address = %admin.address(), "admin address");
    let done = pipeline::run(&config, options, (&registry, &rules), &signal);
    if let Some(path) = &args.histogram_log {
        summary::write_histogram_log(path, &registry)
            .with_context(|| format!("writing {}", path.display()))?;
    }
    admin.stop(ADMIN_STOP);
    print_data(&serde_json::to_string(&done?)?)?;
    Ok(ExitCode::SUCCESS)
}

/// Serves what a consumer shows at `admin.listen`.
pub(super) fn start_admin(
    config: &Config,
    registry: &Arc<crate::observe::Registry>,
    rules: &Arc<crate::rules::Rules>,
) -> anyhow::Result<crate::http::Server> {
    let gate = Gate::new(config.admin.token.clone());
    let routes = admin::consumer_routes(registry);
    let routes = pipeline::rules::api::routes(routes, &gate, rules);
    admin::start(config.admin.listen, routes).with_context(|| {
        format!(
            "admin.listen = {}: can't listen there; choose another address or end what holds it",
            config.admin.listen
        )
    })
}
