//! `millpond ingest`: the HTTP edge.

use super::run::{ADMIN_STOP, CANT_NOTIFY};
use super::{ConfigArgs, UsageError, for_subscriptions_only, print_data, stop_at_signals};
use crate::http::{Method, Routes};
use crate::ingest::{Edge, Stopped};
use crate::observe::edge::EdgeRecorder;
use crate::observe::metrics::{self, Held, Metrics};
use crate::observe::notify::{Notifier, Watched};
use crate::observe::trace::Traces;
use crate::observe::{admin, log, process};
use crate::sync::{AtomicBool, Ordering, SignalFlag};
use anyhow::{Context, anyhow};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// How often it is looked whether to end.
const LOOK: Duration = Duration::from_millis(100);
/// Files besides connections: Kafka's, the log's, epoll's.
const FILES_BESIDE: usize = 256;

/// Take updates over HTTP into Kafka, until told to stop (SIGTERM, SIGINT)
///
/// PUT /api/v1/players/{subscription_id} with {"app_id", "tags", "counts", "mirror_to"}, and PUT
/// /api/v1/players/{subscription_id}/email with {"app_id", "email"}. Answers 200 once Kafka has the update, 503 before anything
/// was sent, 504 where nobody knows; every refusal is application/problem+json with its reason. The limits are [ingest] in the
/// configuration. Health and metrics are at ingest.admin_listen.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    config: ConfigArgs,
}

/// Runs until it is told to stop, and prints how many answers there were by status.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let config = args.config.load()?.config;
    for_subscriptions_only(&config, "ingest")?;
    log::start(&config.telemetry)?;
    let traces = Traces::start(&config.telemetry, &config.kafka, "millpond-ingest");
    let traces = traces.map_err(|error| UsageError(error.to_string()))?;
    let signal = stop_at_signals()?;
    raise_file_limit(config.ingest.connections_max);
    let recorder = Arc::new(EdgeRecorder::default());
    let edge = Edge::start(&config, &recorder, &traces.tracer())?;
    tracing::info!(listens = "ingest", address = %edge.address(), "listening");
    let stopping = Arc::new(AtomicBool::new(false));
    let routes = routes(&edge, &recorder, &stopping);
    let listen = config.ingest.admin_listen;
    let admin = admin::start(listen, routes).with_context(|| {
        format!("ingest.admin_listen = {listen}: can't listen there; choose another address or end what holds it")
    })?;
    tracing::info!(listens = "admin", address = %admin.address(), "listening");
    let notifier = notifier(&edge, &recorder, &signal)?;
    let failure = loop {
        if signal.load(Ordering::Relaxed) {
            break None;
        }
        if let Some(why) = edge.failure(LOOK) {
            break Some(why);
        }
    };
    stopping.store(true, Ordering::Relaxed);
    let Stopped { cut, unreported } = edge.stop(config.consumer.drain_deadline);
    notifier.stop();
    admin.stop(ADMIN_STOP);
    traces.stop();
    if cut + unreported > 0 {
        tracing::warn!(
            cut,
            unreported,
            "the deadline came first: connections cut, updates whose outcome is unknown"
        );
    }
    let answers = recorder.answers().filter(|(_, count)| *count > 0);
    let answers: serde_json::Map<String, serde_json::Value> = answers
        .map(|(status, count)| (status.to_string(), count.into()))
        .collect();
    print_data(
        &serde_json::json!({ "answers": answers, "cut": cut, "unreported": unreported })
            .to_string(),
    )?;
    match failure {
        None => Ok(ExitCode::SUCCESS),
        Some(why) => Err(anyhow!(why)),
    }
}

fn routes(edge: &Edge, recorder: &Arc<EdgeRecorder>, stopping: &Arc<AtomicBool>) -> Routes {
    let (held, stopping) = (edge.held(), stopping.clone());
    let (now, recorder) = (held.clone(), recorder.clone());
    let metrics = Metrics::new().with(metrics::Edge { recorder, held });
    Routes::new()
        .with(Method::GET, "/livez", |_| admin::health(Ok(())))
        .with(Method::GET, "/readyz", move |_| {
            admin::health(ready(now(), stopping.load(Ordering::Relaxed)))
        })
        .with(Method::GET, "/metrics", move |request| {
            admin::scrape(request, &metrics)
        })
}

/// What a process manager is told. An edge that found no Kafka yet has begun all the same: it answers 503.
fn notifier(
    edge: &Edge,
    recorder: &Arc<EdgeRecorder>,
    signal: &Arc<SignalFlag>,
) -> anyhow::Result<Notifier> {
    let (held, recorder, signal) = (edge.held(), recorder.clone(), signal.clone());
    let status = move || {
        let Held {
            connections,
            in_flight,
            unreachable,
        } = held();
        let answers: u64 = recorder.answers().map(|(_, count)| count).sum();
        format!(
            "{connections} connections, {answers} answers, {in_flight} records in flight, {unreachable} partitions out of reach"
        )
    };
    let watched = Watched {
        ready: Box::new(|| Ok(())),
        live: Box::new(|| Ok(())),
        stopping: Box::new(move || signal.load(Ordering::Relaxed)),
        status: Box::new(status),
    };
    Notifier::start(watched).context(CANT_NOTIFY)
}

/// Whether requests should be sent here.
fn ready(held: Held, stopping: bool) -> Result<(), String> {
    match held.unreachable {
        _ if stopping => Err("not ready: stopping".to_owned()),
        0 => Ok(()),
        partitions => Err(format!(
            "not ready: Kafka takes nothing for {partitions} partitions"
        )),
    }
}

/// Each connection is a file. What the system doesn't allow is said, not fatal: fewer may come.
fn raise_file_limit(connections_max: usize) {
    let wanted = (connections_max + FILES_BESIDE) as u64;
    let allowed = process::raise_file_limit(wanted);
    if allowed < wanted {
        tracing::warn!(
            allowed,
            wanted,
            "fewer files may be open than ingest.connections_max needs; raise the limit (ulimit -n, LimitNOFILE)"
        );
    }
}
