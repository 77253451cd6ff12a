//! A worker's spans: one of a batch in which a message is sampled by its producer, or that the ratio takes.

use crate::dispatch::{Batch, Headers};
use crate::observe::recorder::WorkerRecorder;
use crate::observe::trace::spans::{Linked, Links, Processed};
use crate::observe::trace::{Sampler, TRACEPARENT, Tracer};
use jiff::Timestamp;

/// Decides of each batch whether it is recorded.
pub struct Tracing {
    tracer: Tracer,
    sampler: Sampler,
}

/// A batch that is.
pub struct Traced {
    began: Timestamp,
    links: Links,
    messages: usize,
    oldest_ms: i64,
}

impl Tracing {
    /// For one worker.
    pub fn new(tracer: Tracer) -> Self {
        Self {
            sampler: tracer.sampler(),
            tracer,
        }
    }

    /// A batch is about to be worked on.
    pub fn begins(&mut self, turn: &[Batch]) -> Option<Traced> {
        if !self.tracer.is_on() {
            return None;
        }
        let mut links = Links::default();
        turn.iter().for_each(|batch| self.look(batch, &mut links));
        if links.is_empty() && !self.sampler.takes() {
            return None;
        }
        let rows = || turn.iter().flat_map(|batch| &batch.rows);
        let times = rows().map(|row| row.timestamp_ms);
        Some(Traced {
            began: crate::clock::timestamp(),
            links,
            messages: rows().count(),
            oldest_ms: times.filter(|time| *time >= 0).min().unwrap_or(-1),
        })
    }

    /// Looks for messages that their producers sampled.
    fn look(&self, batch: &Batch, links: &mut Links) {
        for (at, row) in batch.rows.iter().enumerate() {
            if !row.has_headers() {
                continue;
            }
            let header = Headers::find(row.headers(&batch.bytes), TRACEPARENT.as_bytes());
            let Some(producer) = header.and_then(|value| self.tracer.sampled_parent(value)) else {
                continue;
            };
            let mut segments = batch.segments.iter();
            let segment = segments.find(|segment| segment.rows.contains(&at));
            links.add(Linked {
                producer,
                partition: segment.expect("each row is of a segment").origin.partition,
                offset: row.offset,
                timestamp_ms: row.timestamp_ms,
            });
        }
    }

    /// It is done: so many messages were applied, so many rows written.
    pub fn ends(
        &self,
        traced: Traced,
        recorder: &WorkerRecorder,
        shard: &str,
        (applied, rows): (u64, u64),
    ) {
        let done = Processed {
            messages: traced.messages,
            applied,
            rows,
            oldest_ms: traced.oldest_ms,
            shard,
            lane: recorder.lane,
        };
        self.tracer.processed(traced.began, traced.links, &done);
    }
}
