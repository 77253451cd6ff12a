//! Logs what became of updates: of the applied ones one in N with its weight, and all of those that somebody watches. The
//! weights of all lines of applied updates add up to the applied updates.

use super::fold::Outcome;
use crate::dispatch::{Row, Segment};
use crate::ids::RowKey;
use crate::observe::Registry;
use crate::observe::log::applied::Watched;
use crate::observe::recorder::WorkerRecorder;
use crate::sync::Ordering;
use std::sync::Arc;
use std::time::Instant;

/// A worker's own.
pub struct AppliedLog {
    registry: Arc<Registry>,
    recorder: Arc<WorkerRecorder>,
    /// One in so many is logged; 0 for none.
    every: u64,
    /// The one that comes when this is 0 is logged; without sampling it takes an age to get there.
    left: u64,
    /// As of this turn.
    watched: Vec<Watched>,
    /// When this turn's statements had returned.
    now: Instant,
    /// Rows that this turn wrote.
    rows: u64,
}

impl AppliedLog {
    /// For the worker of that recorder.
    pub fn new(registry: Arc<Registry>, recorder: Arc<WorkerRecorder>) -> Self {
        Self {
            registry,
            recorder,
            every: 0,
            left: u64::MAX,
            watched: Vec::new(),
            now: crate::clock::now(),
            rows: 0,
        }
    }

    /// Before the messages of a turn that wrote so many rows.
    pub fn turn_ends(&mut self, now: Instant, rows: u64) {
        (self.now, self.rows) = (now, rows);
        let applied = &self.registry.telemetry.applied;
        if applied.every() != self.every {
            self.every = applied.every();
            self.left = self.every.wrapping_sub(1);
        }
        self.watched = applied.watched();
    }

    /// A message of the turn is settled.
    #[inline]
    pub fn settled(
        &mut self,
        outcome: &Outcome,
        key: Option<RowKey>,
        row: &Row,
        segment: &Segment,
    ) {
        if self.watched.is_empty() {
            if matches!(outcome, Outcome::Applied) {
                self.count(key, row, segment);
            }
            return;
        }
        self.compare(outcome, key, row, segment);
    }

    #[inline]
    fn count(&mut self, key: Option<RowKey>, row: &Row, segment: &Segment) {
        if self.left > 0 {
            self.left -= 1;
            return;
        }
        self.left = self.every.wrapping_sub(1);
        self.log("update applied", self.every, key, row, segment);
    }

    #[cold]
    fn compare(&mut self, outcome: &Outcome, key: Option<RowKey>, row: &Row, segment: &Segment) {
        let mut watched = self.watched.iter();
        let watched = key.and_then(|key| watched.find(|one| one.target.is(&key)));
        let what = match outcome {
            Outcome::Applied => "update applied",
            Outcome::Replayed => "update not applied: it was already",
            Outcome::Skipped => "update skipped",
            Outcome::Dead(_) => "update is a dead letter",
            Outcome::Open | Outcome::DeadEpoch | Outcome::Parked => return,
        };
        match watched {
            Some(watched) => {
                watched.logged.fetch_add(1, Ordering::Relaxed);
                self.log(what, 1, key, row, segment);
            }
            None if matches!(outcome, Outcome::Applied) => self.count(key, row, segment),
            None => {}
        }
    }

    #[cold]
    fn log(&self, what: &str, weight: u64, key: Option<RowKey>, row: &Row, segment: &Segment) {
        let elapsed = self.now.saturating_duration_since(segment.dispatched);
        tracing::info!(
            app_id = key.map(|key| tracing::field::display(key.app)),
            subscription_id = %row.subscription,
            partition = segment.origin.partition.0,
            offset = row.offset,
            shard = self.registry.shard_names[self.recorder.shard.0],
            lane = self.recorder.lane,
            rows = self.rows,
            elapsed_us = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX),
            weight,
            "{what}"
        );
    }
}
