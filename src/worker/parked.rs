//! Rows that somebody else holds locked: their messages wait here, in order, with their slots, while the lane goes on. A row's
//! slots hold its partition's watermark, and once they fill the partition's limit the partition stops. No other does.

use crate::dispatch::{Batch, Origin, Row};
use crate::ids::RowKey;
use crate::update::Content;
use hashbrown::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often locked rows are looked at. One question for all of them, which waits for no lock.
const RETRY: Duration = Duration::from_millis(200);

/// The parked rows of one worker.
#[derive(Debug, Default)]
pub struct Parking {
    rows: HashMap<RowKey, Batch>,
    looked_at: Option<Instant>,
}

impl Parking {
    /// Whether no row waits.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Messages that wait.
    pub fn messages(&self) -> usize {
        self.rows.values().map(|batch| batch.rows.len()).sum()
    }

    /// Whether updates of this row must wait behind parked ones.
    pub fn holds(&self, key: &RowKey) -> bool {
        !self.rows.is_empty() && self.rows.contains_key(key)
    }

    /// Takes a message that has to wait, behind those of its row that wait already.
    pub fn park(
        &mut self,
        key: RowKey,
        origin: &Arc<Origin>,
        dispatched: Instant,
        row: Row,
        bytes: &[u8],
    ) {
        self.rows
            .entry(key)
            .or_default()
            .adopt(origin, dispatched, row, bytes);
    }

    /// The rows, if it is time to look at them.
    pub fn due(&mut self) -> Vec<RowKey> {
        let now = crate::clock::now();
        if self.rows.is_empty()
            || self
                .looked_at
                .is_some_and(|at| now.duration_since(at) < RETRY)
        {
            return Vec::new();
        }
        self.looked_at = Some(now);
        let mut rows: Vec<RowKey> = self.rows.keys().copied().collect();
        // As everywhere, rows are locked in the order of their keys.
        rows.sort_unstable();
        rows
    }

    /// Key and value of the first message that waits for a row.
    pub fn first(&self, key: &RowKey) -> Option<Content<'_>> {
        let batch = self.rows.get(key)?;
        let row = batch.rows.first()?;
        Some(Content {
            key: row.key(&batch.bytes),
            value: row.value(&batch.bytes),
        })
    }

    /// Takes all rows out, to be handed over.
    pub fn hand_over(&mut self) -> Vec<(RowKey, Batch)> {
        self.looked_at = None;
        self.rows.drain().collect()
    }

    /// Takes rows over that were parked elsewhere. They are looked at soon.
    pub fn take_over(&mut self, rows: Vec<(RowKey, Batch)>) {
        self.rows.extend(rows);
    }

    /// Takes a row's messages out, to be written.
    pub fn release(&mut self, key: &RowKey) -> Option<Batch> {
        self.rows.remove(key)
    }
}
