//! Spans on their way to the collector: a bounded queue, and the thread `trace-export`, which sends them in batches.
//!
//! Woken by spans; ends when it is told to, after what is in the queue. Nobody waits for it: a span for which there is no room
//! is dropped and counted, and so is what the collector doesn't take.

use super::client::Client;
use crate::clock;
use crate::observe::log::Repeated;
use crate::sync::{Ordering, SignalCount};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use std::sync::Arc;
use std::thread::Builder;
use std::time::Duration;

/// Spans that may wait: what a busy process records within seconds, while the collector is slow.
const QUEUE_MAX: usize = 2048;
/// Spans of one request: OpenTelemetry's own default.
const BATCH_MAX: usize = 512;
/// How long a span waits for others.
const LINGER: Duration = Duration::from_secs(1);
/// At most one line about a collector that takes nothing in that time.
static FAILING: Repeated = Repeated::once_in(Duration::from_secs(60));

static EXPORTED: SignalCount = SignalCount::new(0);
static DROPPED: SignalCount = SignalCount::new(0);

/// Spans that the collector took.
pub fn exported() -> u64 {
    EXPORTED.load(Ordering::Relaxed)
}

/// Spans that were recorded and are lost: the queue was full, or the collector didn't take them.
pub fn dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// What comes to the thread.
enum Item {
    Span(Box<SpanData>),
    End,
}

/// The way to the thread.
#[derive(Clone, Debug)]
pub(super) struct Queue(Sender<Item>);

impl Queue {
    /// Takes the span, or drops it.
    pub(super) fn push(&self, span: SpanData) {
        match self.0.try_send(Item::Span(Box::new(span))) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                DROPPED.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// The thread, and how it is ended.
#[derive(Debug)]
pub(super) struct Export {
    queue: Queue,
    ended: Receiver<()>,
}

impl Export {
    /// Starts the thread, which inherits the caller's cores.
    pub(super) fn start(
        exporter: impl SpanExporter + 'static,
        client: Client,
        endpoint: &str,
    ) -> std::io::Result<Self> {
        let (queue, items) = bounded(QUEUE_MAX);
        let (ending, ended) = bounded(0);
        let endpoint: Arc<str> = endpoint.into();
        Builder::new()
            .name("trace-export".to_owned())
            .spawn(move || {
                run(&items, |batch| {
                    let count = batch.len() as u64;
                    match futures_executor::block_on(exporter.export(batch)) {
                        Ok(()) => {
                            EXPORTED.fetch_add(count, Ordering::Relaxed);
                        }
                        Err(error) => {
                            DROPPED.fetch_add(count, Ordering::Relaxed);
                            let why = client.take_failure().unwrap_or_else(|| error.to_string());
                            complain(&endpoint, count, &why);
                        }
                    }
                });
                drop(ending);
            })?;
        Ok(Self {
            queue: Queue(queue),
            ended,
        })
    }

    pub(super) fn queue(&self) -> Queue {
        self.queue.clone()
    }

    /// Sends what waits, that long at most.
    pub(super) fn stop(&self, within: Duration) {
        let deadline = clock::now() + within;
        let told = self.queue.0.send_deadline(Item::End, deadline);
        if told.is_err() || self.ended.recv_deadline(deadline) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!("the last spans could not be sent in time");
        }
    }
}

fn complain(endpoint: &str, spans: u64, why: &str) {
    if let Some(suppressed) = FAILING.due() {
        tracing::warn!(
            endpoint,
            spans,
            error = why,
            suppressed,
            "spans could not be sent and are dropped; is an OTLP/HTTP receiver there?"
        );
    }
}

fn run(items: &Receiver<Item>, mut export: impl FnMut(Vec<SpanData>)) {
    let mut is_open = true;
    while is_open {
        let Ok(first) = items.recv() else { return };
        let deadline = clock::now() + LINGER;
        let mut batch = Vec::new();
        let mut next = Ok(first);
        while let Ok(item) = next {
            match item {
                Item::Span(span) => batch.push(*span),
                Item::End => {
                    is_open = false;
                    break;
                }
            }
            if batch.len() >= BATCH_MAX {
                break;
            }
            next = items.recv_deadline(deadline);
        }
        if !batch.is_empty() {
            export(batch);
        }
    }
}
