//! What each span holds: `send T` of a record at the edge, `poll T` of a round that read messages, `process T` of a worker's
//! batch, `commit T` of offsets.

use super::context::SpanName;
use super::{Recording, Tracer};
use crate::clock;
use crate::ids::Partition;
use jiff::Timestamp;
use opentelemetry::trace::{
    Link, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{KeyValue, Value};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};
use std::sync::Arc;

/// Links of one span; more are only counted. OpenTelemetry's own default.
const LINKS_MAX: usize = 128;

/// Messages whose producers' spans are sampled.
#[derive(Debug, Default)]
pub struct Links {
    links: Vec<Linked>,
    beyond: u32,
}

/// A message and its producer's span.
#[derive(Clone, Copy, Debug)]
pub struct Linked {
    /// The producer's span.
    pub producer: SpanName,
    /// The message's partition.
    pub partition: Partition,
    /// Its offset.
    pub offset: i64,
    /// Its Kafka timestamp in milliseconds since 1970; -1 for none.
    pub timestamp_ms: i64,
}

impl Links {
    /// Remembers a message, as long as there is room.
    pub fn add(&mut self, linked: Linked) {
        match self.links.len() < LINKS_MAX {
            true => self.links.push(linked),
            false => self.beyond += 1,
        }
    }

    /// Whether no message was sampled.
    pub fn is_empty(&self) -> bool {
        self.links.is_empty()
    }

    /// `applied_ms`: when the messages were, if they were.
    fn into_spans(self, applied_ms: Option<i64>) -> SpanLinks {
        let link = |linked: Linked| {
            let mut attributes = vec![
                KeyValue::new(PARTITION, linked.partition.to_string()),
                KeyValue::new(OFFSET, linked.offset),
            ];
            let delay = applied_ms.and_then(|applied_ms| delay_s(linked.timestamp_ms, applied_ms));
            attributes.extend(delay.map(|delay_s| KeyValue::new(PRODUCED_TO_APPLIED, delay_s)));
            Link::new(context(&linked.producer, true), attributes, 0)
        };
        let mut links = SpanLinks::default();
        links.links = self.links.into_iter().map(link).collect();
        links.dropped_count = self.beyond;
        links
    }
}

const PARTITION: &str = "messaging.destination.partition.id";
const OFFSET: &str = "messaging.kafka.offset";
const MESSAGES: &str = "messaging.batch.message_count";
const ERROR: &str = "error.type";
/// From a message's Kafka timestamp to its being applied, in seconds; of a batch, of its oldest message.
const PRODUCED_TO_APPLIED: &str = "millpond.produced_to_applied";

/// What a worker did with a batch.
#[derive(Clone, Copy, Debug, Default)]
pub struct Processed<'a> {
    /// Messages in it.
    pub messages: usize,
    /// Those that were applied.
    pub applied: u64,
    /// Rows that were written for them.
    pub rows: u64,
    /// The oldest Kafka timestamp in it; -1 for none.
    pub oldest_ms: i64,
    /// The shard's name.
    pub shard: &'a str,
    /// The worker's lane.
    pub lane: usize,
}

/// A record that is on its way to Kafka.
#[derive(Debug)]
pub struct Send {
    name: SpanName,
    parent: Option<SpanName>,
    began: Timestamp,
    partition: Partition,
    key: String,
}

impl Send {
    /// What goes with the record.
    pub fn traceparent(&self) -> String {
        self.name.header()
    }
}

/// The records of one request, which are recorded.
#[derive(Clone, Copy, Debug)]
pub struct Sends {
    parent: Option<SpanName>,
    trace: [u8; 16],
}

impl Sends {
    /// One of them begins.
    pub fn begin(&self, partition: Partition, key: &str) -> Send {
        Send {
            name: SpanName::within(self.trace),
            parent: self.parent,
            began: clock::timestamp(),
            partition,
            key: key.to_owned(),
        }
    }
}

impl Tracer {
    /// Whether a request's records are recorded: as the client's span is, and without one by the ratio.
    pub fn begin_sends(&self, traceparent: Option<&[u8]>) -> Option<Sends> {
        let on = self.0.as_ref()?;
        let parent = traceparent
            .and_then(SpanName::parse)
            .filter(|_| on.follows_parent);
        match parent {
            Some(parent) => parent.is_sampled.then_some(Sends {
                parent: Some(parent),
                trace: parent.trace,
            }),
            None => self.is_drawn().then(|| Sends {
                parent: None,
                trace: SpanName::root().trace,
            }),
        }
    }

    /// Kafka has the record at that offset, or the kind of error and its text.
    pub fn sent(&self, send: Send, outcome: Result<i64, (&'static str, &str)>) {
        let Some(on) = &self.0 else { return };
        let mut span = on.span("send", "send", SpanKind::Producer, send.began);
        span.span_context = context(&send.name, false);
        if let Some(parent) = send.parent {
            span.parent_span_id = SpanId::from_bytes(parent.span);
            span.parent_span_is_remote = true;
        }
        span.attributes.extend([
            KeyValue::new(PARTITION, send.partition.to_string()),
            KeyValue::new("messaging.kafka.message.key", send.key),
        ]);
        match outcome {
            Ok(offset) => span.attributes.push(KeyValue::new(OFFSET, offset)),
            Err((kind, why)) => fail(&mut span, kind, why),
        }
        on.queue.push(span);
    }

    /// A round read so many messages.
    pub fn polled(&self, began: Timestamp, messages: u64, links: Links) {
        let Some(on) = &self.0 else { return };
        let mut span = on.span("poll", "receive", SpanKind::Client, began);
        span.attributes
            .push(KeyValue::new(MESSAGES, count(messages)));
        span.attributes.push(on.group());
        span.links = links.into_spans(None);
        on.queue.push(span);
    }

    /// A worker is done with a batch.
    pub fn processed(&self, began: Timestamp, links: Links, done: &Processed<'_>) {
        let Some(on) = &self.0 else { return };
        let mut span = on.span("process", "process", SpanKind::Consumer, began);
        let now_ms = clock::wall_ms();
        let lane = i64::try_from(done.lane).unwrap_or(i64::MAX);
        let attributes: [(&'static str, Value); 5] = [
            (MESSAGES, count(done.messages as u64).into()),
            ("millpond.applied", count(done.applied).into()),
            ("millpond.rows", count(done.rows).into()),
            ("millpond.shard", done.shard.to_owned().into()),
            ("millpond.lane", lane.into()),
        ];
        let attributes = attributes.into_iter();
        span.attributes
            .extend(attributes.map(|(name, value)| KeyValue::new(name, value)));
        let delay = delay_s(done.oldest_ms, now_ms).filter(|_| done.applied > 0);
        span.attributes
            .extend(delay.map(|delay_s| KeyValue::new(PRODUCED_TO_APPLIED, delay_s)));
        span.attributes.push(on.group());
        span.links = links.into_spans(Some(now_ms));
        on.queue.push(span);
    }

    /// Offsets of so many partitions were committed, or not: the error's text.
    pub fn committed(&self, began: Timestamp, partitions: usize, error: Option<&str>) {
        let Some(on) = &self.0 else { return };
        let mut span = on.span("commit", "settle", SpanKind::Client, began);
        let partitions = KeyValue::new("millpond.partitions", count(partitions as u64));
        span.attributes.extend([partitions, on.group()]);
        if let Some(why) = error {
            fail(&mut span, "commit-failed", why);
        }
        on.queue.push(span);
    }
}

impl Recording {
    /// A span of its own trace, which ends now.
    fn span(
        &self,
        operation: &'static str,
        kind_of_operation: &'static str,
        span_kind: SpanKind,
        began: Timestamp,
    ) -> SpanData {
        SpanData {
            span_context: context(&SpanName::root(), false),
            parent_span_id: SpanId::INVALID,
            parent_span_is_remote: false,
            span_kind,
            name: format!("{operation} {}", self.topic).into(),
            start_time: began.into(),
            end_time: clock::timestamp().into(),
            attributes: vec![
                KeyValue::new("messaging.system", "kafka"),
                KeyValue::new("messaging.destination.name", self.topic.clone()),
                KeyValue::new("messaging.operation.name", operation),
                KeyValue::new("messaging.operation.type", kind_of_operation),
            ],
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: self.scope.clone(),
        }
    }

    fn group(&self) -> KeyValue {
        KeyValue::new(
            "messaging.consumer.group.name",
            Arc::<str>::from(self.group.as_str()),
        )
    }
}

fn fail(span: &mut SpanData, kind: &'static str, why: &str) {
    span.attributes.push(KeyValue::new(ERROR, kind));
    span.status = Status::error(why.to_owned());
}

fn context(name: &SpanName, is_remote: bool) -> SpanContext {
    SpanContext::new(
        TraceId::from_bytes(name.trace),
        SpanId::from_bytes(name.span),
        TraceFlags::SAMPLED,
        is_remote,
        TraceState::NONE,
    )
}

fn count(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A producer's clock may be ahead of ours.
fn delay_s(timestamp_ms: i64, applied_ms: i64) -> Option<f64> {
    let delay_ms = u32::try_from((applied_ms - timestamp_ms).max(0)).unwrap_or(u32::MAX);
    (timestamp_ms >= 0).then(|| f64::from(delay_ms) / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_beyond_the_limit_are_counted() {
        let mut links = Links::default();
        assert!(links.is_empty());
        for offset in 0..130 {
            links.add(Linked {
                producer: SpanName::root(),
                partition: Partition(3),
                offset,
                timestamp_ms: if offset == 0 { -1 } else { 1_000 },
            });
        }
        let spans = links.into_spans(Some(3_500));
        assert_eq!((spans.links.len(), spans.dropped_count), (128, 2));
        let delay = |at: usize| {
            let attributes = &spans.links[at].attributes;
            let delay = attributes
                .iter()
                .find(|one| one.key.as_str() == PRODUCED_TO_APPLIED);
            delay.map(|one| one.value.clone())
        };
        assert_eq!((delay(0), delay(1)), (None, Some(Value::F64(2.5))));
    }
}
