//! `millpond run`: the consumer.

use super::reload::reload_at_hangup;
use super::{ConfigArgs, UsageError, print_data, stop_at_signals};
use crate::config::{Config, Value};
use crate::http::{Routes, Server};
use crate::observe::gate::Gate;
use crate::observe::hot::with_hot;
use crate::observe::log::api::with_log;
use crate::observe::notify::Notifier;
use crate::observe::page::with_page;
use crate::observe::summary::Summary;
use crate::observe::trace::Traces;
use crate::observe::{Registry, admin, log, process, summary};
use crate::pipeline::control::Control;
use crate::pipeline::workers_api::with_workers;
use crate::pipeline::{self, BaselineLimit, RunOptions};
use crate::sink::connect::CONNECTION_FILES;
use crate::sync::{Ordering, SignalFlag};
use crate::worker::SinkKind;
use anyhow::Context;
use signal_hook::iterator::Handle;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// How long the admin server's open answers may take at the end.
pub(super) const ADMIN_STOP: Duration = Duration::from_secs(1);

/// Files that are open beside those of groups and shards: the log, the admin address and its clients, the producers of dead letters
/// and rules.
const FILES_BESIDE: usize = 80;
/// A Kafka client with some brokers, and what its threads are woken by.
const FILES_OF_GROUP: usize = 40;
/// Connections that look things up.
const FILES_OF_SHARD: usize = 3 * CONNECTION_FILES;

/// Of an environment that names a process manager who is none.
pub(super) const CANT_NOTIFY: &str =
    "NOTIFY_SOCKET names no socket of a process manager; unset it where there is none";

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
    /// The incident's consumer, for comparison: one statement a message, no fold, and one limit in memory for the whole
    /// process; or a limit for each partition, as the first remedy alone
    #[arg(long, value_enum, value_name = "LIMIT", num_args = 0..=1, require_equals = true,
        default_missing_value = "process")]
    baseline: Option<Baseline>,
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

#[derive(Clone, Copy, clap::ValueEnum)]
enum Baseline {
    Process,
    Partition,
}

/// Runs until it is told to stop, and prints the summary.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let loaded = args.config.load()?;
    let config = Arc::new(loaded.config);
    log::start(&config.telemetry)?;
    // A second one ends at once, which loses nothing.
    let signal = stop_at_signals()?;
    let options = RunOptions {
        sink: match args.sink {
            Sink::Postgres => SinkKind::Postgres,
            Sink::Null => SinkKind::Null,
            Sink::Discard => SinkKind::Discard,
        },
        baseline: args.baseline.map(|limit| match limit {
            Baseline::Process => BaselineLimit::Process,
            Baseline::Partition => BaselineLimit::Partition,
        }),
        until_caught_up: args.until_caught_up,
        writer: None,
    };
    let (sources, histogram_log) = (args.config, args.histogram_log);
    let around = Around {
        values: loaded.values,
        begin: |control| reload_at_hangup(sources, control),
        end: |hangups: Handle, registry: &Registry| {
            hangups.close();
            if let Some(path) = &histogram_log {
                summary::write_histogram_log(path, registry)
                    .with_context(|| format!("writing {}", path.display()))?;
            }
            Ok(())
        },
    };
    let done = consume(&config, options, around, &signal)?;
    print_data(&serde_json::to_string(&done)?)?;
    Ok(ExitCode::SUCCESS)
}

/// What a consumer has around it: who changes its settings while it runs, and what is left to do at its end.
pub(crate) struct Around<B, E> {
    /// The settings as they were merged.
    pub values: Vec<Value>,
    /// Before it starts.
    pub begin: B,
    /// After it has ended, well or not.
    pub end: E,
}

/// Runs a consumer until it is told to stop or has caught up, with its admin address, traces, and word to a process manager.
pub(crate) fn consume<H>(
    config: &Arc<Config>,
    options: RunOptions,
    around: Around<
        impl FnOnce(Arc<Control>) -> anyhow::Result<H>,
        impl FnOnce(H, &Registry) -> anyhow::Result<()>,
    >,
    signal: &Arc<SignalFlag>,
) -> anyhow::Result<Summary> {
    make_room_for_files(config)?;
    // Before anything is pinned, so that its thread runs on any core.
    let traces = Traces::start(&config.telemetry, &config.kafka, "millpond");
    let traces = traces.map_err(|error| UsageError(error.to_string()))?;
    let registry = pipeline::registry(config, traces.tracer());
    let control = Arc::new(Control::new(&registry, around.values));
    let began = (around.begin)(control.clone())?;
    let rules = pipeline::rules::rules(options.sink);
    let gate = Gate::new(config.admin.token.clone());
    let routes = admin::consumer_routes(&registry);
    let routes = with_workers(routes, &control, &gate);
    let routes = pipeline::rules::api::routes(routes, &gate, &rules);
    let routes = with_log(routes, &registry, &gate);
    let routes = with_page(routes, &registry, &rules, &gate);
    let routes = with_hot(routes, &registry, gate);
    let admin = start_admin(config, routes)?;
    tracing::info!(address = %admin.address(), "admin address");
    let told_to_stop = signal.clone();
    let is_stopping = move || told_to_stop.load(Ordering::Relaxed);
    let notifier = Notifier::start(admin::consumer_watched(&registry, is_stopping));
    let notifier = notifier.context(CANT_NOTIFY)?;
    let done = pipeline::run(config, options, (&registry, &control, &rules), signal);
    notifier.stop();
    (around.end)(began, &registry)?;
    admin.stop(ADMIN_STOP);
    traces.stop();
    Ok(done?)
}

/// Raises this process' limit of open files to what it may need.
fn make_room_for_files(config: &Config) -> anyhow::Result<()> {
    let workers: usize = config.shards.iter().map(|shard| shard.workers).sum();
    let of_group = FILES_OF_GROUP + workers * CONNECTION_FILES;
    let groups = config.consumer.core_groups.len().max(1);
    let wanted = (FILES_BESIDE + config.shards.len() * FILES_OF_SHARD + groups * of_group) as u64;
    let allowed = process::raise_file_limit(wanted);
    anyhow::ensure!(
        allowed >= wanted,
        "{allowed} files may be open, and this configuration may need {wanted}: raise the limit (ulimit -n, LimitNOFILE)"
    );
    Ok(())
}

/// Serves what a consumer shows at `admin.listen`.
pub(super) fn start_admin(config: &Config, routes: Routes) -> anyhow::Result<Server> {
    admin::start(config.admin.listen, routes).with_context(|| {
        format!(
            "admin.listen = {}: can't listen there; choose another address or end what holds it",
            config.admin.listen
        )
    })
}
