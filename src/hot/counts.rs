//! What one worker knows of its rows and apps: a sketch for each of three weights, over a window that fades. And how a worker
//! comes by it at little cost. Pure: time is passed in.
//!
//! **Of a batch, at most [`SAMPLES`] messages are looked at**: every n-th, from a start that moves from batch to batch. What
//! a sampled message's row has in the batch is counted by its chance: a row of m messages has m/n of them sampled on average,
//! each standing for n messages, so its messages come out right on average, and a row that has many is off by n at most. It is
//! written once; where m < n it is met in m of n batches, so one that is met stands for n/m writes. Small batches are counted
//! whole. So a batch costs at most [`SAMPLES`] × 6 additions and a walk over its rows, be it of 1,000 rows or of one.
//!
//! **Database time** of a batch is shared over its messages, before folding: a row with a third of them is given a third of
//! the time. That is more than its one write cost: it says for whose messages the shard was busy. What is written is counted
//! by itself.

use super::sketch::Sketch;
use crate::ids::{AppId, RowKey};
use crate::table::KeyValues;
use hashbrown::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use xxhash_rust::xxh3::xxh3_64;

/// Messages of a batch that are looked at, at most. In ten seconds of ten batches a second and lane these are 6,400, of which
/// a row with a quarter of the messages has 1,600, give or take 35.
pub const SAMPLES: usize = 64;

/// After that long a message counts half.
pub const HALF_LIFE: Duration = Duration::from_secs(10);

/// Counters fade in steps of this at least: what came within it counts alike.
const FADE_STEP: Duration = Duration::from_millis(100);

/// What is faded below this part is forgotten: nobody asks for it, and numbers so small are slow.
const FORGOTTEN: f64 = 1e-9;

/// What a row or an app may be hot by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Messages.
    Messages,
    /// Row writes, of which a batch has one for a row.
    Writes,
    /// Nanoseconds of writing.
    DatabaseTime,
}

impl By {
    /// All of them; the number of each is its index.
    pub const ALL: [Self; 3] = [Self::Messages, Self::Writes, Self::DatabaseTime];
}

/// A sketch for each weight.
pub type Sketches<K> = [Sketch<K>; By::ALL.len()];

/// The window's length if everything in it counted alike: what the weights of a steady stream add up to.
pub fn window_seconds_max() -> f64 {
    HALF_LIFE.as_secs_f64() / std::f64::consts::LN_2
}

/// Rows and apps of one worker, or of several merged.
#[derive(Clone, Debug)]
pub struct Counts {
    pub(super) rows: Sketches<RowKey>,
    pub(super) apps: Sketches<AppId>,
    /// Seconds that were looked at, faded like everything else.
    pub(super) seconds: f64,
    /// The keys of rows that are known by a hash of them only.
    pub(super) names: HashMap<RowKey, Arc<KeyValues>>,
    as_of: Instant,
}

impl Counts {
    /// Nothing seen yet.
    pub fn new(now: Instant) -> Self {
        Self {
            rows: Default::default(),
            apps: Default::default(),
            seconds: 0.0,
            names: HashMap::new(),
            as_of: now,
        }
    }

    /// Lets everything fade up to now.
    pub fn fade_to(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.as_of);
        let factor = (-passed.as_secs_f64() / window_seconds_max()).exp();
        let factor = if factor < FORGOTTEN { 0.0 } else { factor };
        self.rows.iter_mut().for_each(|sketch| sketch.fade(factor));
        self.apps.iter_mut().for_each(|sketch| sketch.fade(factor));
        // The time that passed is in the window, too, and has faded meanwhile.
        self.seconds = self.seconds * factor + (1.0 - factor) * window_seconds_max();
        self.as_of = self.as_of.max(now);
    }

    /// Adds another lane's counts, which must have faded to the same moment.
    pub fn merge(&mut self, other: &Self) {
        for (own, other) in self.rows.iter_mut().zip(&other.rows) {
            own.merge(other);
        }
        for (own, other) in self.apps.iter_mut().zip(&other.apps) {
            own.merge(other);
        }
        self.seconds = self.seconds.max(other.seconds);
        let names = other.names.iter();
        self.names
            .extend(names.map(|(key, values)| (*key, values.clone())));
    }

    /// Forgets the keys of rows that have no counter any more.
    fn forget_names(&mut self) {
        if self.names.is_empty() {
            return;
        }
        let counters = self.rows.iter().flat_map(Sketch::counters);
        let counted: HashSet<RowKey> = counters.map(|counter| counter.key).collect();
        self.names.retain(|key, _| counted.contains(key));
    }

    fn add(&mut self, sample: &Sample, database_ns_per_message: f64) {
        let weights = [
            sample.messages,
            sample.writes,
            sample.messages * database_ns_per_message,
        ];
        for (by, weight) in weights.into_iter().enumerate() {
            if weight > 0.0 {
                self.rows[by].add(sample.key, weight);
                self.apps[by].add(sample.key.app, weight);
            }
        }
    }
}

/// A row of a batch with what it stands for.
#[derive(Clone, Copy, Debug)]
struct Sample {
    key: RowKey,
    messages: f64,
    writes: f64,
}

/// A worker's counts, and where it is with them. Owned by the worker's thread.
#[derive(Debug)]
pub struct Counting {
    counts: Counts,
    /// Of the batch that is being written.
    samples: Vec<Sample>,
    batch_messages: usize,
    batches: u64,
    handed_over: Instant,
}

impl Counting {
    /// For one worker.
    pub fn new(now: Instant) -> Self {
        Self {
            counts: Counts::new(now),
            samples: Vec::with_capacity(SAMPLES + 1),
            batch_messages: 0,
            batches: 0,
            handed_over: now,
        }
    }

    /// Looks at a batch before it is written: its rows, each with its count of messages, which add up to `messages`.
    pub fn sample(&mut self, messages: usize, rows: impl Iterator<Item = (RowKey, usize)>) {
        self.samples.clear();
        self.batch_messages = messages;
        let step = messages.div_ceil(SAMPLES).max(1);
        let start = xxh3_64(&self.batches.to_le_bytes()) % step as u64;
        self.batches += 1;
        // The number of the next sampled message, counted from the row that we are at.
        let mut next = usize::try_from(start).expect("below a batch's messages");
        for (key, row_messages) in rows {
            let Some(beyond) = row_messages.checked_sub(next + 1) else {
                next -= row_messages;
                continue;
            };
            let sampled = beyond / step + 1;
            next = next + sampled * step - row_messages;
            self.samples.push(Sample {
                key,
                messages: (sampled * step) as f64,
                writes: (step as f64 / row_messages as f64).max(1.0),
            });
        }
    }

    /// The keys of the rows of a batch that was looked at just now, where a row is known by a hash of its key.
    pub fn name<'f>(&mut self, rows: impl Iterator<Item = (RowKey, &'f KeyValues)>) {
        let names = &mut self.counts.names;
        let sampled = self.samples.iter().map(|sample| sample.key);
        let mut missing: HashSet<RowKey> = sampled.filter(|key| !names.contains_key(key)).collect();
        for (key, values) in rows {
            if missing.is_empty() {
                return;
            }
            if missing.remove(&key) {
                names.insert(key, Arc::new(values.clone()));
            }
        }
    }

    /// Counts the batch that was looked at last, now that it is written.
    pub fn count(&mut self, database_time: Duration, now: Instant) {
        if now.saturating_duration_since(self.counts.as_of) >= FADE_STEP {
            self.counts.fade_to(now);
        }
        let per_message = database_time.as_nanos() as f64 / self.batch_messages.max(1) as f64;
        for sample in self.samples.drain(..) {
            self.counts.add(&sample, per_message);
        }
    }

    /// Leaves a copy for readers, about once a second. One who is reading the last copy is not waited for.
    pub fn hand_over(&mut self, shelf: &super::Shelf, now: Instant) {
        if now.saturating_duration_since(self.handed_over) < super::LOOK_INTERVAL {
            return;
        }
        self.counts.forget_names();
        if let Some(mut shelf) = shelf.try_lock() {
            *shelf = Some(Box::new(self.counts.clone()));
            self.handed_over = now;
        }
    }

    /// What was counted so far.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }
}
