//! A poller's spans: of a round that read a message that is sampled by its producer, or that the ratio takes; and of commits.

use crate::dispatch::Headers;
use crate::ids::Partition;
use crate::kafka::member::Record;
use crate::observe::trace::spans::{Linked, Links};
use crate::observe::trace::{Sampler, TRACEPARENT, Tracer};
use jiff::Timestamp;

/// Decides of each round and each commit whether it is recorded.
pub struct Tracing {
    tracer: Tracer,
    rounds: Sampler,
    commits: Sampler,
    /// When the round began, and what was received before it.
    round: Option<(Timestamp, u64)>,
    links: Links,
    /// The commit that is under way: since when, of how many partitions.
    commit: Option<(Timestamp, usize)>,
}

impl Tracing {
    /// For one poller.
    pub fn new(tracer: Tracer) -> Self {
        Self {
            rounds: tracer.sampler(),
            commits: tracer.sampler(),
            tracer,
            round: None,
            links: Links::default(),
            commit: None,
        }
    }

    /// A round begins; so many messages were received before it.
    pub fn round_begins(&mut self, received: u64) {
        if self.tracer.is_on() {
            self.round = Some((crate::clock::timestamp(), received));
        }
    }

    /// A message with headers is received.
    pub fn receives(&mut self, headers: &Headers, partition: Partition, message: &impl Record) {
        if !self.tracer.is_on() {
            return;
        }
        let header = headers.get(TRACEPARENT.as_bytes());
        if let Some(producer) = header.and_then(|value| self.tracer.sampled_parent(value)) {
            self.links.add(Linked {
                producer,
                partition,
                offset: message.offset(),
                timestamp_ms: message.timestamp_ms(),
            });
        }
    }

    /// The round ends; so many messages were received so far.
    pub fn round_ends(&mut self, received: u64) {
        let Some((began, before)) = self.round.take().filter(|(_, before)| *before < received)
        else {
            return;
        };
        let is_taken = self.rounds.takes();
        if is_taken || !self.links.is_empty() {
            let links = std::mem::take(&mut self.links);
            self.tracer.polled(began, received - before, links);
        }
    }

    /// Offsets of so many partitions are sent to the broker.
    pub fn commit_begins(&mut self, partitions: usize) {
        if self.commit.is_none() && self.tracer.is_on() && self.commits.takes() {
            self.commit = Some((crate::clock::timestamp(), partitions));
        }
    }

    /// The broker has them, or why not.
    pub fn commit_ends(&mut self, error: Option<&dyn std::error::Error>) {
        if let Some((began, partitions)) = self.commit.take() {
            let why = error.map(ToString::to_string);
            self.tracer.committed(began, partitions, why.as_deref());
        }
    }
}
