//! Records on their way to the rules topic. An edge is sent until it was read back: nobody knows of one that failed whether
//! it is there, and a partition waits for it. A rule is sent once: who asked for it hears what came of it.

use crate::config::checked::Kafka;
use crate::ids::Partition;
use crate::kafka::KafkaError;
use crate::kafka::producer::{Compression, DeliveryError, Producer, Record as ToSend, Tuning};
use crate::rules::record::{EdgeKey, Record, Rule};
use crossbeam_channel::{Receiver, Sender};
use std::time::{Duration, Instant};

/// Before an edge that failed is sent again.
const RETRY: Duration = Duration::from_millis(500);
/// A record that was not acknowledged by then has failed.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(5);

/// What a delivery report says: which record, and what came of it.
type Report = (u64, Result<(), DeliveryError>);

/// An edge that nobody has read back yet.
struct Edge {
    key: EdgeKey,
    offset: i64,
    /// The number under which it is on its way.
    sent: Option<u64>,
    /// When it is to be sent again.
    due: Instant,
}

/// What is on its way.
pub struct Writer {
    kafka: Kafka,
    topic: String,
    producer: Producer<u64>,
    reports: Receiver<Report>,
    /// Records sent so far.
    sent: u64,
    edges: Vec<Edge>,
    rules: Vec<(u64, Sender<Result<(), String>>)>,
}

impl Writer {
    /// Nothing is on its way.
    pub fn new(kafka: &Kafka, topic: &str) -> Result<Self, KafkaError> {
        let (producer, reports) = producer(kafka)?;
        Ok(Self {
            kafka: kafka.clone(),
            topic: topic.to_owned(),
            producer,
            reports,
            sent: 0,
            edges: Vec::new(),
            rules: Vec::new(),
        })
    }

    /// Writes a rule, and answers.
    pub fn rule(&mut self, rule: Rule, answer: Sender<Result<(), String>>) {
        match self.send(&Record::Rule(rule)) {
            Ok(number) => self.rules.push((number, answer)),
            Err(why) => {
                let _ = answer.send(Err(why));
            }
        }
    }

    /// Writes an edge, until [`keep`](Self::keep) says that it is there.
    pub fn edge(&mut self, key: EdgeKey, offset: i64) {
        self.edges.push(Edge {
            key,
            offset,
            sent: None,
            due: crate::clock::now(),
        });
    }

    /// Deletes an edge that nobody needs. One that stays costs a few bytes.
    pub fn forget(&mut self, key: EdgeKey) {
        let _ = self.send(&Record::Edge(key, None));
    }

    /// Whether edges are on their way.
    pub fn is_busy(&self) -> bool {
        !self.edges.is_empty() || !self.rules.is_empty()
    }

    /// Goes on with those edges alone.
    pub fn keep(&mut self, is_needed: impl Fn(&EdgeKey) -> bool) {
        self.edges.retain(|edge| is_needed(&edge.key));
    }

    /// Takes delivery reports, and sends what is due.
    pub fn step(&mut self) {
        self.producer.poll(Duration::ZERO);
        while let Ok((number, result)) = self.reports.try_recv() {
            self.reported(number, result);
        }
        let now = crate::clock::now();
        for at in 0..self.edges.len() {
            let edge = &self.edges[at];
            if edge.sent.is_some() || edge.due > now {
                continue;
            }
            let record = Record::Edge(edge.key, Some(edge.offset));
            match self.send(&record) {
                Ok(number) => self.edges[at].sent = Some(number),
                Err(why) => self.again(at, &why),
            }
        }
        if let Some(why) = self.producer.broken() {
            self.replace(&why);
        }
    }

    fn reported(&mut self, number: u64, result: Result<(), DeliveryError>) {
        if let Some(at) = self.rules.iter().position(|(sent, _)| *sent == number) {
            let (_, answer) = self.rules.swap_remove(at);
            // Nobody waits any more if it took too long.
            let _ = answer.send(result.map_err(|error| error.to_string()));
            return;
        }
        let is_this = |edge: &Edge| edge.sent == Some(number);
        if let (Err(error), Some(at)) = (result, self.edges.iter().position(is_this)) {
            self.again(at, &error.to_string());
        }
    }

    fn again(&mut self, at: usize, why: &str) {
        let edge = &mut self.edges[at];
        tracing::warn!(
            topic = self.topic,
            rule = %edge.key.rule,
            partition = edge.key.partition.0,
            error = why,
            "where a rule begins or ends can't be written; the partition waits, and it is sent again"
        );
        (edge.sent, edge.due) = (None, crate::clock::now() + RETRY);
    }

    fn send(&mut self, record: &Record) -> Result<u64, String> {
        self.sent += 1;
        let (key, value) = record.write();
        let record = ToSend {
            topic: &self.topic,
            partition: Partition(0),
            key: Some(key.as_bytes()),
            value: value.as_deref().map(str::as_bytes),
            headers: &[],
            timestamp_ms: None,
        };
        match self.producer.send(&record, self.sent) {
            Ok(()) => Ok(self.sent),
            Err((error, _)) => Err(error.to_string()),
        }
    }

    /// A broken producer never delivers again.
    fn replace(&mut self, why: &str) {
        match producer(&self.kafka) {
            Err(error) => tracing::error!(error = %error, "making another producer for the rules"),
            Ok((producer, reports)) => {
                tracing::warn!(error = why, "the producer of the rules is replaced");
                (self.producer, self.reports) = (producer, reports);
                for edge in &mut self.edges {
                    (edge.sent, edge.due) = (None, crate::clock::now());
                }
                for (_, answer) in self.rules.drain(..) {
                    let _ = answer.send(Err(why.to_owned()));
                }
            }
        }
    }
}

fn producer(kafka: &Kafka) -> Result<(Producer<u64>, Receiver<Report>), KafkaError> {
    let tuning = Tuning {
        linger: Duration::ZERO,
        compression: Compression::None,
        delivery_timeout: DELIVERY_TIMEOUT,
        queue_records_max: 100_000,
        queue_bytes_max: 64 << 20,
    };
    let (report, reports) = crossbeam_channel::unbounded();
    let on_delivery = move |number, result: Result<_, DeliveryError>| {
        let _ = report.send((number, result.map(|_| ())));
    };
    Ok((
        Producer::new(kafka, "millpond-rules", &tuning, on_delivery)?,
        reports,
    ))
}
