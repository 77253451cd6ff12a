//! What is recorded of changes of the number of workers: how long workers stood still for each, and each shard's last one.

use crate::ids::ShardIndex;
use hdrhistogram::Histogram;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The longest pause that is kept apart: a minute, in microseconds.
const PAUSE_US_MAX: u64 = 60_000_000;

/// One change of a shard's workers in one core group, done or refused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerChange {
    /// When, in milliseconds since 1970.
    pub at_ms: i64,
    /// The core group.
    pub group: usize,
    /// Workers before.
    pub from: usize,
    /// Workers asked for.
    pub to: usize,
    /// How long workers stood still for it, in milliseconds.
    pub pause_ms: f64,
    /// Why it was refused; then everything is as it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// All changes of this process.
#[derive(Debug)]
pub struct WorkerChanges {
    pause_us: Mutex<Histogram<u64>>,
    /// By shard.
    last: Mutex<Vec<Option<WorkerChange>>>,
}

impl WorkerChanges {
    /// None yet, for that many shards.
    pub fn new(shards: usize) -> Self {
        let pauses = Histogram::new_with_bounds(1, PAUSE_US_MAX, 3).expect("valid bounds");
        Self {
            pause_us: Mutex::new(pauses),
            last: Mutex::new(vec![None; shards]),
        }
    }

    /// Workers stood still for so long, for a change or for one that was refused.
    pub fn paused(&self, pause: Duration) {
        let us = u64::try_from(pause.as_micros()).unwrap_or(u64::MAX);
        self.pause_us.lock().saturating_record(us.max(1));
    }

    /// A change came to an end.
    pub fn ended(&self, shard: ShardIndex, change: WorkerChange) {
        self.last.lock()[shard.0] = Some(change);
    }

    /// The shard's last change.
    pub fn last(&self, shard: ShardIndex) -> Option<WorkerChange> {
        self.last.lock()[shard.0].clone()
    }

    /// All pauses, in microseconds.
    pub fn pause_us(&self) -> Histogram<u64> {
        self.pause_us.lock().clone()
    }
}
