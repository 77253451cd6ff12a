//! Where the thread `mp-hot` leaves what it has sampled, for those who ask for the page; and what of the configuration the page
//! shows. A reader holds a lock only to copy a pointer, and none that a poller or worker takes.

use super::document::{History, Latency};
use crate::config::Config;
use crate::observe::process;
use parking_lot::Mutex;
use std::sync::Arc;

/// What the configuration says of it.
#[derive(Debug, Default)]
pub struct About {
    /// The topic of updates.
    pub topic: String,
    /// The consumer group.
    pub group: String,
    /// By shard, the first bytes of its apps' ids.
    pub apps: Vec<(u8, u8)>,
    /// From which share of its shard's messages on a row is hot.
    pub row_share: f64,
    /// The same for an app.
    pub app_share: f64,
    /// The machine's name.
    pub host: String,
    /// Admin addresses of the group's other processes.
    pub peers: Vec<String>,
}

/// What was sampled last. Rates are over the last few seconds.
#[derive(Debug, Default)]
pub struct Recent {
    /// Cores that the process keeps busy.
    pub cpu: f64,
    /// Share of connections without work.
    pub idle: f64,
    /// Messages read from Kafka a second.
    pub received_per_s: f64,
    /// Messages that became dead letters, a second.
    pub dead_per_s: f64,
    /// Those of them that never reached a lane.
    pub refused_unseen_per_s: f64,
    /// By shard.
    pub shards: Vec<ShardRates>,
    /// Of each of the last 15 minutes' samples.
    pub history: Arc<History>,
    /// Of the last interval and of the run.
    pub latency: Arc<Latency>,
    /// Over the last minute.
    pub minute: Arc<Minute>,
}

/// Rates of a shard.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ShardRates {
    /// Messages finished a second.
    pub messages_per_s: f64,
    /// Rows written a second.
    pub rows_per_s: f64,
    /// Messages skipped a second.
    pub skipped_per_s: f64,
    /// Share of the workers' time in which the write rate held them back.
    pub held_back: f64,
}

/// What happened in the last minute, or since the beginning if that was later.
#[derive(Debug, Default)]
pub struct Minute {
    /// By shard, by how much its lag grew a second, in the last half of it.
    pub lag_per_s: Vec<f64>,
    /// Errors of the Kafka client.
    pub kafka_errors: u64,
    /// Offset commits that failed.
    pub commit_failures: u64,
}

/// The meeting place.
#[derive(Debug, Default)]
pub struct Board {
    /// What the configuration says.
    pub about: About,
    recent: Mutex<Arc<Recent>>,
    /// What the start waits for; empty for nothing.
    waits_for: Mutex<String>,
}

impl Board {
    /// For a configuration.
    pub fn new(config: &Config) -> Self {
        Self {
            about: About {
                topic: config.kafka.topic.clone(),
                group: config.kafka.group.clone(),
                apps: config.shards.iter().map(|shard| shard.apps).collect(),
                row_share: config.hot.warn_share,
                app_share: config.hot.warn_app_share,
                host: process::hostname(),
                peers: config.admin.peers.clone(),
            },
            ..Self::default()
        }
    }

    /// What was sampled last.
    pub fn recent(&self) -> Arc<Recent> {
        self.recent.lock().clone()
    }

    /// Leaves a new sample.
    pub fn show(&self, recent: Recent) {
        *self.recent.lock() = Arc::new(recent);
    }

    /// What the start waits for.
    pub fn waits_for(&self) -> String {
        self.waits_for.lock().clone()
    }

    /// The start waits for that; `""`: no longer.
    pub fn wait_for(&self, what: &str) {
        what.clone_into(&mut self.waits_for.lock());
    }
}
