//! The lanes' counts as one picture, by shard: the heaviest rows and apps with their shares.

use super::counts::{By, Counts, Sketches};
use super::sketch::Sketch;
use super::{Identities, Shelf};
use crate::ids::{AppId, RowKey, ShardIndex};
use crate::table::{KeyValues, Table};
use hashbrown::{HashMap, HashSet};
use parking_lot::Mutex;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Instant;

/// The most that anybody can ask for, of each weight.
pub const TOP_MAX: usize = 100;

/// Less than this in the window is nothing.
const MESSAGES_MIN: f64 = 1.0;

/// What an item has of one weight.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Part {
    /// The part of the shard's, from 0 to 1. Never too high, but for the sampling; too low by the shard's
    /// [`share_error_max`](ShardPicture::share_error_max) at most.
    pub share: f64,
    /// A second: messages, writes, or seconds of database time.
    pub per_s: f64,
}

/// A row or an app.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hot<K> {
    /// Which one.
    pub key: K,
    parts: [Part; By::ALL.len()],
}

impl<K> Hot<K> {
    /// What it has of a weight.
    pub fn by(&self, by: By) -> Part {
        self.parts[by as usize]
    }
}

/// One shard.
#[derive(Clone, Debug, Default)]
pub struct ShardPicture {
    /// Messages in the window, newer ones counting more.
    pub window_messages: f64,
    /// A second: messages, writes, seconds of database time; by the number of [`By`].
    pub per_s: [f64; By::ALL.len()],
    /// How much too low a share may be, by the number of [`By`].
    pub share_error_max: [f64; By::ALL.len()],
    /// The first [`TOP_MAX`] by each weight, most messages first.
    pub rows: Vec<Hot<RowKey>>,
    /// The same.
    pub apps: Vec<Hot<AppId>>,
    /// The keys of rows that are known by a hash of them only.
    pub names: HashMap<RowKey, Arc<KeyValues>>,
}

/// All shards, by their number. Empty before the first look.
#[derive(Debug, Default)]
pub struct Picture {
    /// One for each shard.
    pub shards: Vec<ShardPicture>,
}

impl Picture {
    /// Of the copies that workers left, each with its shard.
    pub fn of<'s>(
        shards: usize,
        shelves: impl Iterator<Item = (ShardIndex, &'s Shelf)>,
        now: Instant,
    ) -> Self {
        let mut merged: Vec<Counts> = (0..shards).map(|_| Counts::new(now)).collect();
        for (ShardIndex(shard), shelf) in shelves {
            // Held for the copy only.
            let copy = shelf.lock().clone();
            if let Some(mut counts) = copy {
                counts.fade_to(now);
                merged[shard].merge(&counts);
            }
        }
        Self {
            shards: merged.iter().map(ShardPicture::of).collect(),
        }
    }
}

impl ShardPicture {
    /// Of counts that have faded to now.
    pub fn of(counts: &Counts) -> Self {
        let totals = counts.rows.each_ref().map(Sketch::total);
        let window_messages = totals[By::Messages as usize];
        if window_messages < MESSAGES_MIN || counts.seconds <= 0.0 {
            return Self::default();
        }
        let missed = |by: usize| {
            let of_rows = share(counts.rows[by].missed(), counts.rows[by].total());
            let of_apps = share(counts.apps[by].missed(), counts.apps[by].total());
            of_rows.max(of_apps)
        };
        let [messages, writes, nanoseconds] = totals.map(|total| total / counts.seconds);
        Self {
            window_messages,
            per_s: [messages, writes, nanoseconds / 1e9],
            share_error_max: std::array::from_fn(missed),
            rows: heaviest(&counts.rows, counts.seconds),
            apps: heaviest(&counts.apps, counts.seconds),
            names: counts.names.clone(),
        }
    }

    /// The row with the most messages.
    pub fn hottest_row(&self) -> Option<&Hot<RowKey>> {
        self.rows.first()
    }

    /// The app with the most messages.
    pub fn hottest_app(&self) -> Option<&Hot<AppId>> {
        self.apps.first()
    }
}

/// Those that are among the first `count` by any weight, most messages first.
pub fn top<K: Copy + Eq + Hash>(hot: &[Hot<K>], count: usize) -> Vec<Hot<K>> {
    let mut chosen = HashSet::new();
    for by in By::ALL {
        let mut with_some: Vec<&Hot<K>> = hot.iter().filter(|of| of.by(by).share > 0.0).collect();
        with_some.sort_by(|one, other| other.by(by).share.total_cmp(&one.by(by).share));
        chosen.extend(with_some.iter().take(count).map(|of| of.key));
    }
    let chosen = hot.iter().filter(|of| chosen.contains(&of.key));
    chosen.copied().collect()
}

fn heaviest<K: Copy + Eq + Hash>(sketches: &Sketches<K>, seconds: f64) -> Vec<Hot<K>> {
    let keys: HashSet<K> = sketches
        .iter()
        .flat_map(Sketch::counters)
        .map(|counter| counter.key)
        .collect();
    let unit = [1.0, 1.0, 1e-9];
    let part = |key: &K, by: usize| {
        let weight = sketches[by].weight(key);
        Part {
            share: share(weight, sketches[by].total()),
            per_s: weight * unit[by] / seconds,
        }
    };
    let hot = |key| Hot {
        parts: std::array::from_fn(|by| part(&key, by)),
        key,
    };
    let mut all: Vec<Hot<K>> = keys.into_iter().map(hot).collect();
    let shares = |of: &Hot<K>| of.parts.map(|part| part.share);
    all.sort_by(|one, other| shares(other).partial_cmp(&shares(one)).expect("no NaN"));
    top(&all, TOP_MAX)
}

/// 0 of nothing.
fn share(weight: f64, total: f64) -> f64 {
    if total > 0.0 { weight / total } else { 0.0 }
}

/// Where the newest picture hangs, and who can say who a row is.
#[derive(Debug, Default)]
pub struct Board {
    picture: Mutex<Arc<Picture>>,
    /// Who rows are; nobody knows by default.
    pub identities: Identities,
    /// What the columns of a row's key are called; `None` for subscriptions, and where nobody said it.
    pub table: Option<Arc<Table>>,
}

impl Board {
    /// With somebody to ask who a row is.
    pub fn new(identities: Identities) -> Self {
        Self {
            identities,
            ..Self::default()
        }
    }

    /// Of a table that the configuration describes.
    #[must_use]
    pub fn of_table(self, table: Option<Arc<Table>>) -> Self {
        Self { table, ..self }
    }

    /// The newest picture.
    pub fn picture(&self) -> Arc<Picture> {
        self.picture.lock().clone()
    }

    /// Hangs up a new one.
    pub fn show(&self, picture: Picture) {
        *self.picture.lock() = Arc::new(picture);
    }
}
