//! `millpond demo`: everything at once, with nothing installed, and the proof that it was right.

mod progress;
mod services;

use super::load::{COUNTS_SHARE, Scenario};
use super::run::{ADMIN_STOP, start_admin};
use super::{
    UsageError, config, init, key_and_value, print_data, print_note, stop_at_signals, verify,
};
use crate::clock;
use crate::config::checked::{Config, LogForm};
use crate::config::{Sources, load};
use crate::demo::Demo;
use crate::load::{Traffic, TrafficOptions, broken};
use crate::observe::admin::consumer_routes;
use crate::observe::gate::Gate;
use crate::observe::hot::with_hot;
use crate::observe::log::api::with_log;
use crate::observe::page::with_page;
use crate::observe::trace::Tracer;
use crate::observe::{log, summary::Summary};
use crate::pipeline;
use crate::sync::{Ordering, SignalFlag};
use crate::worker::SinkKind;
use anyhow::{Context, bail};
use progress::{Goal, Line};
use services::Services;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// Ten to twenty seconds on two cores.
const MESSAGES: u64 = 300_000;
/// More messages a second than any machine sends; a run by time has so many to choose from.
const MESSAGES_PER_SECOND_MAX: u64 = 1_000_000;
/// One message of so many can't be applied, so that dead letters are seen.
const BROKEN_EVERY: u64 = 1000;
/// Enough that a row gets some fifteen updates, and apps are on every partition.
const ROWS: u32 = 20_000;
const APPS: u32 = 200;
/// All choices of the traffic follow from it.
const SEED: u64 = 1;
/// Steps are told by the command itself.
const LOG_FILTER: &str = "warn,librdkafka=error,rdkafka=error";
/// How often a demonstration that stays up looks for a signal.
const KEEP_INTERVAL: Duration = Duration::from_millis(50);

/// Everything on this machine, with nothing installed: Kafka, Postgres, traffic, the consumer; then compare every row
///
/// Kafka is librdkafka's mock cluster in this process, Postgres a private server of two databases, whose binaries are
/// fetched where none are installed. Prints the summary of `run` and the verdict of `verify`; exits with 0 only if every
/// row is right. A signal ends the traffic early, a second one everything at once. Leaves nothing behind.
#[derive(clap::Args)]
pub struct Args {
    /// How messages are spread over rows
    #[arg(long, value_enum, default_value = "uniform")]
    scenario: Scenario,
    /// How many messages [default: 300000, or as many as --seconds takes]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    messages: Option<u64>,
    /// How long to send messages
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u32).range(1..))]
    seconds: Option<u32>,
    /// Stay up afterwards, until a signal (Ctrl-C), and say where everything is
    #[arg(long)]
    keep: bool,
    /// Use this Kafka; topics of a new name are made there, and removed at the end
    #[arg(long, value_name = "BROKERS")]
    kafka: Option<String>,
    /// Use this Postgres, a URL or keywords; databases of a new name are made there, and removed at the end
    #[arg(long, value_name = "URL")]
    postgres: Option<String>,
    /// Pass a setting to librdkafka [repeatable]
    #[arg(short = 'X', value_name = "NAME=VALUE", value_parser = key_and_value)]
    librdkafka: Vec<(String, String)>,
}

/// Runs it and prints what came of it.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    log::start_with(LogForm::Text, "", LOG_FILTER)?;
    let signal = stop_at_signals()?;
    let is_told_to_stop = || signal.load(Ordering::Relaxed);
    let Some(mut services) = Services::start(&args, print_note, is_told_to_stop)? else {
        bail!("told to stop before anything was sent");
    };
    let config = configuration(&args, &services)?;
    services.make_room(&config)?;
    init::make(&config, |_| Ok(()))?;
    let registry = pipeline::registry(&config, Tracer::default());
    let gate = Gate::new(config.admin.token.clone());
    let rules = pipeline::rules::rules(SinkKind::Postgres);
    let routes = with_hot(consumer_routes(&registry), &registry, gate.clone());
    let routes = with_log(routes, &registry, &gate);
    let routes = pipeline::rules::api::routes(routes, &gate, &rules);
    let routes = with_page(routes, &registry, &rules, &gate);
    let admin = start_admin(&config, routes)?;
    print_note(&format!("status page: http://{}/status", admin.address()));
    let mut demo = Demo::start(&config, &registry, &rules)?;
    send(&args, &config, &mut demo, services.lag_max(), &signal)?;
    let summary = if args.keep {
        Summary::of(&registry)
    } else {
        demo.stop_consumer()?
    };
    let report = demo.verdict()?;
    print_data(&serde_json::to_string(&summary)?)?;
    let code = verify::print(&report)?;
    if args.keep {
        say_where(&services, &config)?;
        while !is_told_to_stop() {
            std::thread::sleep(KEEP_INTERVAL);
        }
        demo.stop_consumer()?;
    }
    admin.stop(ADMIN_STOP);
    Ok(code)
}

fn configuration(args: &Args, services: &Services) -> anyhow::Result<Arc<Config>> {
    let sources = Sources {
        librdkafka: args.librdkafka.clone(),
        ..Sources::of_text(&services.configuration())
    };
    let loaded = load(&sources).map_err(|error| UsageError(error.to_string()))?;
    config::ask_librdkafka(&loaded)?;
    Ok(Arc::new(loaded.config))
}

/// Sends the traffic and waits until all of it is applied.
fn send(
    args: &Args,
    config: &Config,
    demo: &mut Demo,
    lag_max: u64,
    signal: &SignalFlag,
) -> anyhow::Result<()> {
    let lasts = args
        .seconds
        .map(|seconds| Duration::from_secs(seconds.into()));
    let messages = match (args.messages, args.seconds) {
        (Some(messages), _) => messages,
        (None, Some(seconds)) => u64::from(seconds) * MESSAGES_PER_SECOND_MAX,
        (None, None) => MESSAGES,
    };
    let traffic = traffic(args.scenario, messages, config);
    let mut line = Line::new(lasts.map_or(Goal::Messages(messages), Goal::Lasts));
    let ends = lasts.map(|lasts| clock::now() + lasts);
    demo.load(&traffic, lag_max, |progress| {
        line.show(progress);
        let is_over = ends.is_some_and(|ends| clock::now() >= ends);
        !is_over && !signal.load(Ordering::Relaxed)
    })?;
    demo.catch_up(|progress| line.show(progress))?;
    line.finish();
    Ok(())
}

/// What is sent.
fn traffic(scenario: Scenario, messages: u64, config: &Config) -> Traffic {
    let options = TrafficOptions {
        seed: SEED,
        scenario: scenario.into(),
        messages,
        apps: APPS,
        rows: ROWS,
        linked: None,
        counts_share: COUNTS_SHARE,
        broken: messages / BROKEN_EVERY,
        broken_reasons: broken::reasons(config.kafka.partition_by, &config.partitioner),
        value_bytes_max: config.consumer.message_max_bytes,
        value_bytes_min: 0,
    };
    Traffic::new(options, config.partitioner.clone())
}

/// For people who want to look around.
fn say_where(services: &Services, config: &Config) -> anyhow::Result<()> {
    let kafka = &config.kafka;
    print_note(&format!(
        "staying up until Ctrl-C. Kafka: {}, topic {}",
        kafka.brokers, kafka.topic
    ));
    for shard in &config.shards {
        print_note(&format!("shard {}: {}", shard.name, shard.postgres.shown));
    }
    if let Some(server) = &services.server {
        let file = server.directory().join("millpond.toml");
        let doing = || format!("writing {}", file.display());
        // A setting of librdkafka may be a password.
        let mut options = OpenOptions::new();
        let options = options.write(true).create_new(true).mode(0o600);
        let mut written = options.open(&file).with_context(doing)?;
        written
            .write_all(services.configuration().as_bytes())
            .with_context(doing)?;
        print_note(&format!(
            "its configuration, for `millpond lag` and others: --config {}",
            file.display()
        ));
    }
    Ok(())
}
