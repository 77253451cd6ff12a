//! The metrics of the HTTP edge.

use super::catalogue as names;
use super::consumer::{BOUNDS_US, in_seconds};
use super::page::Page;
use crate::observe::edge::EdgeRecorder;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use std::fmt;
use std::sync::Arc;

/// What the edge holds at a moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Held {
    /// Connections that are open.
    pub connections: usize,
    /// Records handed over and not yet acknowledged.
    pub in_flight: usize,
    /// Partitions that can't be written to.
    pub unreachable: usize,
}

/// What its threads have recorded, and what it holds.
pub struct Edge<F> {
    /// Its answers.
    pub recorder: Arc<EdgeRecorder>,
    /// Asked at each scrape.
    pub held: F,
}

impl<F> fmt::Debug for Edge<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Edge").finish_non_exhaustive()
    }
}

impl<F: Fn() -> Held + Send + Sync + 'static> Collector for Edge<F> {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page::new(encoder);
        let answers = self.recorder.answers().filter(|(status, _)| *status != 0);
        page.counters(
            names::INGEST_REQUESTS,
            answers.map(|(status, count)| ([("status", status.to_string())], count)),
        )?;
        let held = (self.held)();
        for (metric, value) in [
            (names::INGEST_CONNECTIONS, held.connections),
            (names::INGEST_IN_FLIGHT, held.in_flight),
            (names::INGEST_UNREACHABLE, held.unreachable),
        ] {
            page.gauge(metric, i64::try_from(value).unwrap_or(i64::MAX))?;
        }
        let answer_us = self.recorder.answer_us();
        page.histogram(
            names::INGEST_ANSWER_SECONDS,
            &answer_us,
            &BOUNDS_US,
            in_seconds,
        )
    }
}
