//! Hands updates over to Kafka, and tells each request when all of its own are acknowledged.
//!
//! Before anything is handed over there is room for all of a request's records, and their partition is within reach; else
//! the answer is 503 and nothing was produced. From the first record on the outcome is Kafka's, and where no acknowledgement
//! comes it is unknown: 504.

use super::reach::Reaches;
use super::refusal::Refusal;
use super::request::Message;
use crate::clock;
use crate::config::checked::{Ingest, Kafka};
use crate::http::StatusCode;
use crate::http::reactor::{Later, Promise, promise};
use crate::ids::Partition;
use crate::kafka::client::KafkaError;
use crate::kafka::producer::{Compression, DeliveryError, Producer, Record, SendError, Tuning};
use crate::observe::trace::spans::{Send, Sends};
use crate::observe::trace::{TRACEPARENT, Tracer};
use crate::sync::{AtomicUsize, Ordering};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;

/// How long a record waits for others of its partition, to share its batch and with it the request to the broker. It is part of
/// every answer's delay, and so short; with many connections over many partitions a longer one is worth it (README.md, `linger.ms`).
const LINGER: Duration = Duration::from_millis(1);
/// Bytes that records may hold for each one of `ingest.in_flight_max`, so that the count is met first: their limit is a body
/// and its ids. librdkafka allocates what is used.
const RECORD_BYTES: u64 = 4096;

/// How a request's records ended.
pub type Outcome = Result<(), String>;

/// One request's records on their way.
struct Ticket {
    waiting: AtomicUsize,
    /// Why one was not acknowledged.
    failure: Mutex<Option<String>>,
    promise: Mutex<Option<Promise<Outcome>>>,
}

impl Ticket {
    /// One of them is reported, or was not taken.
    fn report(&self, result: Outcome) {
        if let Err(why) = result {
            *self.failure.lock() = Some(why);
        }
        if self.waiting.fetch_sub(1, Ordering::AcqRel) == 1
            && let Some(promise) = self.promise.lock().take()
        {
            promise.keep(self.failure.lock().take().map_or(Ok(()), Err));
        }
    }
}

/// What comes back with a record's delivery report.
struct Handed {
    ticket: Arc<Ticket>,
    partition: Partition,
    /// Its span, if it is recorded.
    span: Option<Box<Send>>,
}

/// The way to Kafka, shared by all threads.
pub struct HandOver {
    producer: Producer<Handed>,
    topic: String,
    reaches: Arc<Reaches>,
    in_flight_max: usize,
    /// Places taken for records, handed over or about to be.
    in_flight: Arc<AtomicUsize>,
    tracer: Tracer,
}

impl HandOver {
    /// Makes the producer; it connects by itself.
    pub fn new(
        kafka: &Kafka,
        ingest: &Ingest,
        (reaches, tracer): (Arc<Reaches>, Tracer),
    ) -> Result<Self, KafkaError> {
        let places = u32::try_from(ingest.in_flight_max).expect("bounded by the configuration");
        let tuning = Tuning {
            linger: LINGER,
            compression: Compression::Lz4,
            delivery_timeout: ingest.delivery_timeout,
            // librdkafka counts a record until it is done with all reports of a batch, and by then its place may be another's.
            // With the places alone it could refuse the second record of a request whose first it took.
            queue_records_max: places.saturating_mul(2),
            queue_bytes_max: (u64::from(places) * RECORD_BYTES).max(64 << 20),
        };
        let in_flight = Arc::new(AtomicUsize::new(0));
        let (for_reports, places) = (reaches.clone(), in_flight.clone());
        let for_spans = tracer.clone();
        let producer = Producer::new(kafka, "millpond-ingest", &tuning, move |handed, result| {
            let Handed {
                ticket,
                partition,
                span,
            } = handed;
            if let Some(span) = span {
                end(&for_spans, *span, &result);
            }
            for_reports.reported(partition, result.is_ok(), clock::wall_ms());
            places.fetch_sub(1, Ordering::Relaxed);
            ticket.report(
                result
                    .map(|_| ())
                    .map_err(|error: DeliveryError| error.to_string()),
            );
        })?;
        Ok(Self {
            producer,
            topic: kafka.topic.clone(),
            reaches,
            in_flight_max: ingest.in_flight_max,
            in_flight,
            tracer,
        })
    }

    /// Hands a request's messages over, in order. `Err`: nothing was.
    pub fn hand_over(
        &self,
        messages: &[Message],
        traceparent: Option<&[u8]>,
    ) -> Result<Later<Outcome>, Refusal> {
        let partition = messages[0].partition;
        let now_ms = clock::wall_ms();
        self.reaches
            .check(partition, now_ms)
            .map_err(|why| away(&why))?;
        let taken = self.in_flight.fetch_add(messages.len(), Ordering::Relaxed);
        if taken + messages.len() > self.in_flight_max {
            self.in_flight.fetch_sub(messages.len(), Ordering::Relaxed);
            return Err(full(taken, self.in_flight_max));
        }
        let (promise, later) = promise();
        let ticket = Arc::new(Ticket {
            waiting: AtomicUsize::new(messages.len()),
            failure: Mutex::new(None),
            promise: Mutex::new(Some(promise)),
        });
        let spans = self.tracer.begin_sends(traceparent);
        for (at, message) in messages.iter().enumerate() {
            let Err(error) = self.send(message, &ticket, (spans, traceparent), now_ms) else {
                continue;
            };
            let unsent = messages.len() - at;
            self.in_flight.fetch_sub(unsent, Ordering::Relaxed);
            if at == 0 {
                return Err(refused(&error));
            }
            for _ in 0..unsent {
                ticket.report(Err(error.to_string()));
            }
            break;
        }
        Ok(later)
    }

    fn send(
        &self,
        message: &Message,
        ticket: &Arc<Ticket>,
        (spans, traceparent): (Option<Sends>, Option<&[u8]>),
        now_ms: i64,
    ) -> Result<(), SendError> {
        let partition = message.partition;
        let key = message.subscription.to_string();
        let span = spans.map(|spans| Box::new(spans.begin(partition, &key)));
        let own = span.as_ref().map(|span| span.traceparent());
        // A span that is recorded comes between the client's and the consumer's.
        let header = own.as_deref().map(str::as_bytes).or(traceparent);
        let header = header.map(|value| (TRACEPARENT, Some(value)));
        let record = Record {
            topic: &self.topic,
            partition,
            key: Some(key.as_bytes()),
            value: Some(&message.value),
            headers: header.as_slice(),
            timestamp_ms: None,
        };
        let ticket = ticket.clone();
        self.reaches.handed_over(partition, now_ms);
        let handed = Handed {
            ticket,
            partition,
            span,
        };
        let sent = self.producer.send(&record, handed);
        sent.map_err(|(error, handed)| {
            self.reaches.taken_back(partition);
            if let Some(span) = handed.span {
                let why = error.to_string();
                self.tracer.sent(*span, Err(("not-sent", &why)));
            }
            error
        })
    }

    /// Reports deliveries on this thread for that long.
    pub fn report(&self, within: Duration) {
        self.producer.poll(within);
    }

    /// Waits until everything is reported, that long at most. Whether it is.
    pub fn flush(&self, within: Duration) -> bool {
        self.producer.flush(within)
    }

    /// Records handed over and not yet reported.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// The way itself, to be looked after.
    pub(super) fn leaders(&self, within: Duration) -> Result<Option<Vec<bool>>, KafkaError> {
        self.producer.topic_leaders(&self.topic, within)
    }

    /// Why nothing can be handed over any more, ever.
    pub(super) fn broken(&self) -> Option<String> {
        self.producer.broken()
    }
}

/// The record's delivery is reported: its span ends.
fn end(tracer: &Tracer, span: Send, result: &Result<(Partition, i64), DeliveryError>) {
    let (kind, error) = match result {
        Ok((_, offset)) => return tracer.sent(span, Ok(*offset)),
        Err(error @ DeliveryError::NotAcknowledged(_)) => ("not-acknowledged", error),
        Err(error @ DeliveryError::Refused(_)) => ("refused", error),
        Err(error @ DeliveryError::NoSuchPartition(_)) => ("no-such-partition", error),
    };
    tracer.sent(span, Err((kind, &error.to_string())));
}

fn away(why: &str) -> Refusal {
    let detail = format!("Kafka takes nothing now: {why}. Nothing was sent; try again");
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "broker-away", detail)
}

fn full(in_flight: usize, limit: usize) -> Refusal {
    let detail = format!(
        "{in_flight} updates wait for Kafka, and ingest.in_flight_max is {limit}. Nothing was sent; try again"
    );
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "queue-full", detail).beyond(limit)
}

/// The producer took nothing of the request.
fn refused(error: &SendError) -> Refusal {
    match error {
        SendError::QueueFull => {
            let detail = "too many bytes wait for Kafka. Nothing was sent; try again";
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "queue-full", detail)
        }
        error => away(&error.to_string()),
    }
}
