//! Traces: spans of what was sampled, by OpenTelemetry's conventions for messaging, over OTLP/HTTP.
//!
//! A producer's trace ends with its `send`. Batches are polled and processed in traces of their own, with links to the sends: a
//! trace that stayed open until the last of its messages is applied would stay open for hours. Nothing is done for a message
//! that is not sampled, and nothing at all where no endpoint is given.
//!
//! - [`context`]: the header `traceparent`
//! - `settings`: where spans go and which are recorded
//! - [`spans`]: what each span holds
//! - `export`, `client`: the queue, the thread and its HTTP

mod client;
pub mod context;
mod export;
mod settings;
pub mod spans;

pub use context::{SpanName, TRACEPARENT};
pub use export::{dropped, exported};

use crate::config::checked::{Kafka, Telemetry};
use crate::observe::process;
use client::Client;
use export::{Export, Queue};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::{Protocol, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::{EnvResourceDetector, TelemetryResourceDetector};
use opentelemetry_sdk::trace::SpanExporter;
use settings::Settings;
use std::sync::Arc;
use std::time::Duration;

/// How long the end of the process waits for the collector.
const FLUSH_MAX: Duration = Duration::from_secs(1);

/// Traces can't be recorded as they should: a usage error.
#[derive(Debug, thiserror::Error)]
#[error("traces: {0}")]
pub struct TraceError(String);

/// The recording of spans, started and ended with the process.
#[derive(Debug)]
pub struct Traces {
    tracer: Tracer,
    export: Option<Export>,
}

impl Traces {
    /// Starts it, if there is an endpoint for spans. The thread inherits the caller's cores. `service` is the name where the
    /// environment gives none.
    ///
    /// # Errors
    /// One of OpenTelemetry's environment variables is wrong.
    pub fn start(telemetry: &Telemetry, kafka: &Kafka, service: &str) -> Result<Self, TraceError> {
        let settings = Settings::of(telemetry, |name| std::env::var(name).ok());
        let Some(settings) = settings.map_err(TraceError)? else {
            return Ok(Self {
                tracer: Tracer::default(),
                export: None,
            });
        };
        let client = Client::new(settings.timeout);
        let exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_http()
            .with_http_client(client.clone())
            .with_endpoint(&settings.endpoint)
            .with_protocol(Protocol::HttpBinary)
            .with_timeout(settings.timeout)
            .build();
        let mut exporter = exporter.map_err(|error| TraceError(error.to_string()))?;
        exporter.set_resource(&resource(&settings, service));
        let export = Export::start(exporter, client, &settings.endpoint)
            .map_err(|error| TraceError(format!("no thread: {error}")))?;
        tracing::info!(
            endpoint = settings.endpoint,
            sample_ratio = settings.ratio,
            "spans are recorded"
        );
        let tracer = Tracer(Some(Arc::new(Recording {
            queue: export.queue(),
            ratio: settings.ratio,
            follows_parent: settings.follows_parent,
            topic: kafka.topic.clone(),
            group: kafka.group.clone(),
            scope: InstrumentationScope::builder("millpond")
                .with_version(env!("CARGO_PKG_VERSION"))
                .build(),
        })));
        Ok(Self {
            tracer,
            export: Some(export),
        })
    }

    /// For those who record spans.
    pub fn tracer(&self) -> Tracer {
        self.tracer.clone()
    }

    /// Sends what waits, for a second at most.
    pub fn stop(self) {
        if let Some(export) = &self.export {
            export.stop(FLUSH_MAX);
        }
    }
}

/// Who sends the spans: ours, then what the environment says.
fn resource(settings: &Settings, service: &str) -> Resource {
    let resource = Resource::builder_empty()
        .with_attributes([
            KeyValue::new("service.name", service.to_owned()),
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("host.name", process::hostname()),
            KeyValue::new("process.pid", i64::from(std::process::id())),
        ])
        .with_detectors(&[
            Box::new(TelemetryResourceDetector),
            Box::new(EnvResourceDetector::new()),
        ]);
    match &settings.service {
        None => resource.build(),
        Some(name) => resource
            .with_attribute(KeyValue::new("service.name", name.clone()))
            .build(),
    }
}

/// Records spans, or does nothing. Any thread may have one.
#[derive(Clone, Debug, Default)]
pub struct Tracer(Option<Arc<Recording>>);

#[derive(Debug)]
struct Recording {
    queue: Queue,
    ratio: f64,
    follows_parent: bool,
    topic: String,
    group: String,
    scope: InstrumentationScope,
}

impl Tracer {
    /// Whether spans are recorded at all.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// The span that a header names, if what came with it is to be recorded.
    pub fn sampled_parent(&self, traceparent: &[u8]) -> Option<SpanName> {
        let follows = self.0.as_ref().is_some_and(|on| on.follows_parent);
        let name = SpanName::parse(traceparent).filter(|_| follows)?;
        name.is_sampled.then_some(name)
    }

    /// One thread's sampling by the ratio.
    pub fn sampler(&self) -> Sampler {
        Sampler {
            ratio: self.0.as_ref().map_or(0.0, |on| on.ratio),
            due: 0.0,
        }
    }

    /// Decides by the ratio alone, at random.
    fn is_drawn(&self) -> bool {
        let ratio = self.0.as_ref().map_or(0.0, |on| on.ratio);
        ratio > 0.0 && rand::random::<f64>() < ratio
    }
}

/// Takes one in so many, by counting: no random number where batches are decided about.
#[derive(Debug)]
pub struct Sampler {
    ratio: f64,
    due: f64,
}

impl Sampler {
    /// Whether this one is taken.
    pub fn takes(&mut self) -> bool {
        self.due += self.ratio;
        let takes = self.due >= 1.0;
        if takes {
            self.due -= 1.0;
        }
        takes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sampler_takes_its_share() {
        for (ratio, expected) in [(0.0, 0), (0.01, 10), (0.25, 250), (0.7, 700), (1.0, 1000)] {
            let mut sampler = Sampler { ratio, due: 0.0 };
            let taken = (0..1000).filter(|_| sampler.takes()).count();
            assert!(
                expected - taken.min(expected) <= 1 && taken <= expected,
                "{ratio}: {taken}"
            );
        }
    }

    #[test]
    fn nothing_is_sampled_where_nothing_is_recorded() {
        let off = Tracer::default();
        let sampled = SpanName::root().header();
        assert_eq!(off.sampled_parent(sampled.as_bytes()), None);
        assert!(!off.sampler().takes());
        assert!(off.begin_sends(Some(sampled.as_bytes())).is_none());
    }
}
