//! After a batch is written: every message's slot goes where its outcome says. Completed, handed to the dead letters (who
//! complete it once the broker has the letter), kept with a parked row, or left for another turn.

use super::applied::AppliedLog;
use super::fold::{Dead, Outcome};
use super::parked::Parking;
use crate::dispatch::{Batch, Headers, OpenSlot, Origin, Row};
use crate::ids::RowKey;
use crate::kafka::dead_letters::{DeadLetter, DeadLetterSender};
use crate::observe::recorder::WorkerRecorder;
use std::{sync::Arc, time::Instant};

/// What the outcomes of a batch add up to.
#[derive(Debug, Default)]
struct Tally {
    finished: u64,
    applied: u64,
    replayed: u64,
    skipped: u64,
    dead_epoch: u64,
}

/// Settles batches in the order in which they were numbered.
pub struct Settler<'w> {
    /// Where dead letters go.
    pub dead_letters: &'w DeadLetterSender,
    /// Where parked rows wait.
    pub parking: &'w mut Parking,
    /// Where those go that are left open, in order.
    pub left: &'w mut Batch,
    /// What is counted.
    pub recorder: &'w WorkerRecorder,
    /// What is logged.
    pub log: &'w mut AppliedLog,
}

impl Settler<'_> {
    /// Empties the batches, which wrote so many rows. `outcomes` has one for each message, in order; `keys` the row of each
    /// message that was decoded.
    pub fn settle(
        &mut self,
        batches: &mut [Batch],
        outcomes: Vec<Outcome>,
        keys: &[Option<RowKey>],
        rows_written: u64,
    ) -> u64 {
        let mut tally = Tally::default();
        let mut outcomes = outcomes.into_iter().zip(keys);
        let (now, wall_ms) = (crate::clock::now(), crate::clock::wall_ms());
        self.log.turn_ends(now, rows_written);
        for Batch {
            bytes,
            rows,
            segments,
        } in batches
        {
            let mut rows = rows.drain(..);
            for segment in segments.drain(..) {
                let mut completed = Vec::with_capacity(segment.rows.len());
                let mut applied_at = Vec::with_capacity(segment.rows.len());
                for row in rows.by_ref().take(segment.rows.len()) {
                    let (outcome, key) = outcomes.next().expect("an outcome for each message");
                    self.log.settled(&outcome, *key, &row, &segment);
                    match outcome {
                        Outcome::Dead(dead) => {
                            tally.finished += 1;
                            crate::fault::crash_point("before-dead-letter");
                            let letter = dead_letter(&segment.origin, row, bytes, *dead);
                            self.dead_letters.send(letter);
                            continue;
                        }
                        Outcome::Parked => {
                            let key = key.expect("a parked message was decoded");
                            self.parking
                                .park(key, &segment.origin, segment.dispatched, row, bytes);
                            continue;
                        }
                        Outcome::Open => {
                            let (origin, at) = (&segment.origin, segment.dispatched);
                            self.left.adopt(origin, at, row, bytes);
                            continue;
                        }
                        Outcome::Applied => {
                            tally.applied += 1;
                            applied_at.push(row.timestamp_ms);
                        }
                        Outcome::Replayed => tally.replayed += 1,
                        Outcome::Skipped => tally.skipped += 1,
                        Outcome::DeadEpoch => tally.dead_epoch += 1,
                    }
                    tally.finished += 1;
                    completed.push(row.slot);
                }
                segment.origin.complete(completed);
                self.record_delays(now.duration_since(segment.dispatched), wall_ms, &applied_at);
            }
        }
        self.record(&tally);
        tally.applied
    }

    fn record_delays(&self, apply: std::time::Duration, wall_ms: i64, applied_at: &[i64]) {
        if applied_at.is_empty() {
            return;
        }
        let mut histograms = self.recorder.histograms.lock();
        let apply_us = u64::try_from(apply.as_micros()).unwrap_or(u64::MAX).max(1);
        histograms
            .apply_us
            .saturating_record_n(apply_us, applied_at.len() as u64);
        for timestamp_ms in applied_at.iter().filter(|timestamp_ms| **timestamp_ms >= 0) {
            // A producer's clock may be ahead of ours.
            let delay_ms = (wall_ms - timestamp_ms).max(0).unsigned_abs();
            histograms
                .end_to_end_us
                .saturating_record(delay_ms.saturating_mul(1000).max(1));
        }
    }

    fn record(&self, tally: &Tally) {
        self.recorder.messages.add(tally.finished);
        self.recorder.replayed.add(tally.replayed);
        self.recorder.skipped.add(tally.skipped);
        self.recorder.dropped_dead_epoch.add(tally.dead_epoch);
    }
}

/// Finishes every message of a batch as it is: the discard sink.
pub fn complete_all(batch: &mut Batch, recorder: &WorkerRecorder) {
    let now: Instant = crate::clock::now();
    let mut rows = batch.rows.drain(..);
    for segment in batch.segments.drain(..) {
        let count = segment.rows.len();
        segment
            .origin
            .complete(rows.by_ref().take(count).map(|row| row.slot));
        let apply_us =
            u64::try_from(now.duration_since(segment.dispatched).as_micros()).unwrap_or(u64::MAX);
        recorder
            .histograms
            .lock()
            .apply_us
            .saturating_record_n(apply_us.max(1), count as u64);
        recorder.messages.add(count as u64);
    }
}

fn dead_letter(origin: &Arc<Origin>, row: Row, bytes: &[u8], dead: Dead) -> DeadLetter {
    DeadLetter {
        partition: origin.partition,
        offset: row.offset,
        timestamp_ms: row.timestamp_ms,
        key: unless_empty(row.key(bytes)),
        value: unless_empty(row.value(bytes)),
        headers: Headers::read(row.headers(bytes)),
        reason: dead.reason,
        sqlstate: dead.sqlstate,
        message: dead.message,
        receipt: OpenSlot::boxed(origin.clone(), row.slot),
    }
}

/// Only a null key and a null value are without bytes in a lane.
fn unless_empty(bytes: &[u8]) -> Option<Box<[u8]>> {
    (!bytes.is_empty()).then(|| bytes.into())
}
