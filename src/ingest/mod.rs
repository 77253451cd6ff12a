//! The HTTP edge: requests become updates in Kafka, and are answered once Kafka has them, so that no client waits for Postgres.
//!
//! ```text
//!   client ──PUT──> event loop ──request──> hand_over ──> librdkafka ──> Kafka
//!          <─200──   (edge-loop)     <──promise kept── edge-report <──acknowledged──┘
//! ```
//!
//! - `request`: from a request to its updates, or why not
//! - `refusal`: why not, as problem+json
//! - `hand_over`: to Kafka, and back to the request when all is acknowledged
//! - `reach`: which partitions take anything now; `watch`: the thread that asks Kafka for those that don't

mod hand_over;
mod reach;
mod refusal;
mod request;
mod watch;

use crate::clock;
use crate::config::Config;
use crate::config::checked::Acknowledge;
use crate::http::reactor::{Answer, Server, Setup, Tls};
use crate::http::{Limits, Request, Response, StatusCode};
use crate::kafka::client::KafkaError;
use crate::observe::edge::EdgeRecorder;
use crate::observe::metrics::Held;
use crate::observe::trace::Tracer;
use crate::sync::{AtomicBool, Ordering};
use crate::vital;
use crossbeam_channel::{Receiver, Sender, bounded};
use hand_over::HandOver;
use reach::Reaches;
use refusal::Refusal;
use request::{Rules, Updates};
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Event loops where the configuration leaves it open: one is enough for tens of thousands of requests a second, and
/// librdkafka's threads and the broker need cores too.
const THREADS_MAX: usize = 4;
/// Bytes of a head: a request line and some headers of a proxy's are far below it.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// How long a client may take for a head, and for a whole request.
const HEAD_DEADLINE: Duration = Duration::from_secs(10);
const REQUEST_DEADLINE: Duration = Duration::from_secs(15);
/// How long a connection may be idle between requests. Longer than what proxies keep theirs for, so that they close first.
const IDLE_DEADLINE: Duration = Duration::from_secs(60);
/// How long a client may take to read an answer.
const WRITE_DEADLINE: Duration = Duration::from_secs(10);
/// How long the reporting thread waits for the next report before it looks whether it should end.
const REPORT_WAIT: Duration = Duration::from_millis(100);

/// Why the edge can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address is taken, or not ours.
    #[error(
        "ingest.listen = {0}: can't listen there: {1}; choose another address or end what holds it"
    )]
    Listen(SocketAddr, std::io::Error),
    /// Certificate or key.
    #[error("ingest.tls_certificate_file, ingest.tls_key_file: {0}")]
    Tls(String),
    /// librdkafka's settings.
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    /// The system gives no thread.
    #[error("no thread: {0}")]
    Thread(std::io::Error),
}

/// A running edge.
pub struct Edge {
    server: Server,
    hand_over: Arc<HandOver>,
    reaches: Arc<Reaches>,
    report_end: Arc<AtomicBool>,
    reporter: JoinHandle<()>,
    watch_end: Sender<()>,
    /// What the watch ended with, if it did by itself.
    failure: Receiver<String>,
    watcher: JoinHandle<()>,
}

/// How an edge ended.
#[derive(Clone, Copy, Debug)]
pub struct Stopped {
    /// Connections that were cut at the deadline.
    pub cut: usize,
    /// Records of which Kafka was not heard.
    pub unreported: usize,
}

impl Edge {
    /// Listens, and answers from then on: 503 until Kafka is found.
    pub fn start(
        config: &Config,
        recorder: &Arc<EdgeRecorder>,
        tracer: &Tracer,
    ) -> Result<Self, StartError> {
        let ingest = &config.ingest;
        let tls = ingest.tls.as_ref();
        let tls = tls.map(|(certificate, key)| Tls::load(certificate, key));
        let tls = tls.transpose().map_err(StartError::Tls)?;
        let reaches = Arc::new(Reaches::new(config.partitioner.partitions()));
        let hand_over = Arc::new(HandOver::new(
            &config.kafka,
            ingest,
            (reaches.clone(), tracer.clone()),
        )?);
        let report_end = Arc::new(AtomicBool::new(false));
        let (for_reporter, until) = (hand_over.clone(), report_end.clone());
        let reporter = spawn("edge-report", move || {
            while !until.load(Ordering::Relaxed) {
                for_reporter.report(REPORT_WAIT);
            }
        })?;
        let (watch_end, ended) = bounded(0);
        let (fail, failure) = bounded(1);
        let (way, partitions) = (hand_over.clone(), reaches.clone());
        let watcher = spawn("edge-watch", move || {
            if let Err(why) = watch::watch(&way, &partitions, &ended) {
                // There is room for one, and nobody who waits for it.
                let _ = fail.send(why);
            }
        })?;
        let started = Server::start(setup(config, recorder, &hand_over, tls));
        let server = started.map_err(|error| StartError::Listen(ingest.listen, error))?;
        Ok(Self {
            server,
            hand_over,
            reaches,
            report_end,
            reporter,
            watch_end,
            failure,
            watcher,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Why it can't go on, if it can't.
    pub fn failure(&self, within: Duration) -> Option<String> {
        self.failure.recv_timeout(within).ok()
    }

    /// Tells what it holds now, also when it is stopping.
    pub fn held(&self) -> impl Fn() -> Held + Clone + Send + Sync + 'static {
        let (connections, hand_over) = (self.server.connections(), self.hand_over.clone());
        let reaches = self.reaches.clone();
        move || Held {
            connections: connections(),
            in_flight: hand_over.in_flight(),
            unreachable: reaches.unreachable(clock::wall_ms()),
        }
    }

    /// Takes no further request, answers those that are under way, and waits for Kafka, all within that time.
    pub fn stop(self, within: Duration) -> Stopped {
        let deadline = clock::now() + within;
        let cut = self.server.stop(within);
        let left = |deadline: Instant| deadline.saturating_duration_since(clock::now());
        self.hand_over.flush(left(deadline));
        let unreported = self.hand_over.in_flight();
        self.report_end.store(true, Ordering::Relaxed);
        drop(self.watch_end);
        for thread in [self.reporter, self.watcher] {
            thread.join().expect("the edge's threads don't panic");
        }
        Stopped { cut, unreported }
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, StartError> {
    vital::spawn(name, work).map_err(StartError::Thread)
}

fn setup(
    config: &Config,
    recorder: &Arc<EdgeRecorder>,
    hand_over: &Arc<HandOver>,
    tls: Option<Tls>,
) -> Setup {
    let ingest = &config.ingest;
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let desk = Desk {
        rules: Rules {
            ingest: ingest.clone(),
            message_max_bytes: config.consumer.message_max_bytes,
            partitioner: config.partitioner.clone(),
        },
        hand_over: hand_over.clone(),
        recorder: recorder.clone(),
    };
    let (recorder, body_bytes_max) = (recorder.clone(), ingest.body_max_bytes);
    Setup {
        listen: ingest.listen,
        limits: Limits {
            connections_max: ingest.connections_max,
            head_bytes_max: HEAD_BYTES_MAX,
            body_bytes_max: ingest.body_max_bytes,
            head_deadline: HEAD_DEADLINE,
            request_deadline: REQUEST_DEADLINE,
            idle_deadline: IDLE_DEADLINE,
            write_deadline: WRITE_DEADLINE,
        },
        threads: ingest.threads.unwrap_or(cores.min(THREADS_MAX)),
        name: "edge",
        tls,
        screen: Box::new(request::screen),
        handler: Box::new(move |request| desk.answer(&request)),
        refuse: Box::new(move |status, line| {
            recorder.refused(status);
            let refusal = Refusal::of_protocol(status, line);
            match status {
                StatusCode::PAYLOAD_TOO_LARGE => refusal.beyond(body_bytes_max).response(),
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => {
                    refusal.beyond(HEAD_BYTES_MAX).response()
                }
                _ => refusal.response(),
            }
        }),
    }
}

/// Where requests are taken.
struct Desk {
    rules: Rules,
    hand_over: Arc<HandOver>,
    recorder: Arc<EdgeRecorder>,
}

impl Desk {
    fn answer(&self, request: &Request) -> Answer {
        let began = clock::now();
        let handed = self.rules.read(request).and_then(|updates| {
            let traceparent = request::traceparent(request.headers());
            let later = self.hand_over.hand_over(&updates.messages, traceparent)?;
            Ok((updates, later))
        });
        let (updates, later) = match handed {
            Ok(handed) => handed,
            Err(refusal) => {
                self.recorder.refused(refusal.status);
                return Answer::Now(refusal.response());
            }
        };
        if self.rules.ingest.acknowledge == Acknowledge::Queue {
            self.recorder.answered(StatusCode::ACCEPTED, began);
            return Answer::Now(success(StatusCode::ACCEPTED, &updates));
        }
        let recorder = self.recorder.clone();
        Answer::Later(Box::pin(async move {
            // A promise is broken by nobody but a producer that is gone.
            let outcome = later.await.unwrap_or(Err("the edge ended".to_owned()));
            let status = match outcome {
                Ok(()) => StatusCode::OK,
                Err(_) => StatusCode::GATEWAY_TIMEOUT,
            };
            recorder.answered(status, began);
            match outcome {
                Ok(()) => success(status, &updates),
                Err(why) => unknown(&why).response(),
            }
        }))
    }
}

fn success(status: StatusCode, updates: &Updates) -> Response {
    let body = match updates.parent {
        None => "{\"success\":true}".to_owned(),
        Some(parent) => format!("{{\"success\":true,\"id\":\"{parent}\"}}"),
    };
    Response::new(status, "application/json", body)
}

fn unknown(why: &str) -> Refusal {
    let detail = format!(
        "Kafka did not say in time that it has all of the update ({why}); it may have it. Sent again, tags come out the same \
         and counts may be added twice"
    );
    Refusal::new(StatusCode::GATEWAY_TIMEOUT, "outcome-unknown", detail)
}
