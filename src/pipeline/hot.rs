//! The thread `mp-hot`: once a second it makes the picture of hot rows and apps, warns of those that have too much, and samples
//! what the status page shows; every ten seconds it writes the status line. Runs on any core, beside the core groups; wakes by its own clock.
//!
//! Ends within a look once it is told to, but for warnings that wait for a shard to say who a row is, at most
//! [`IDENTITY_WAIT`]. Nobody waits for it longer than the process' end allows.

use super::RunError;
use super::end::has_ended_by;
use crate::config::Config;
use crate::config::checked;
use crate::fault;
use crate::hot::warnings::{Due, Subject, Warnings};
use crate::hot::{Board, Identities, Identity, LOOK_INTERVAL, Picture, rule_for_app, rule_for_row};
use crate::ids::{RowKey, ShardIndex};
use crate::observe::Registry;
use crate::observe::page::sampler::Sampler;
use crate::observe::recorder::WorkerRecorder;
use crate::observe::status::Status;
use crate::sink::identity::identities;
use crate::sink::shape;
use crate::vital;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long the warnings of one look wait for shards to say who the rows are.
const IDENTITY_WAIT: Duration = Duration::from_secs(2);

/// The running thread. It ends when this is dropped, too.
pub struct Watcher {
    /// Never sent on: dropped to say that it is over.
    going_on: Sender<()>,
    thread: JoinHandle<()>,
}

/// A thread that was told to end.
pub struct Ending(JoinHandle<()>);

impl Watcher {
    /// Starts to look.
    pub fn start(config: &checked::Hot, registry: &Arc<Registry>) -> Result<Self, RunError> {
        let (going_on, over) = crossbeam_channel::bounded(0);
        let warnings = Warnings::new(config.warn_share, config.warn_app_share);
        let registry = registry.clone();
        let thread = vital::spawn("mp-hot", move || watch(&registry, warnings, &over))
            .map_err(|error| RunError(format!("no thread for hot rows: {error}")))?;
        Ok(Self { going_on, thread })
    }

    /// Tells it to end.
    pub fn stop(self) -> Ending {
        drop(self.going_on);
        Ending(self.thread)
    }
}

impl Ending {
    /// Waits for its end until then, and leaves it behind if it hasn't come.
    pub fn wait(self, until: Instant) {
        has_ended_by(&self.0, until);
    }
}

/// The board for a configuration: who a row is, its shard is asked.
pub fn board(config: &Config) -> Board {
    let addresses = config.shards.iter().map(|shard| shard.postgres.clone());
    let addresses: Vec<_> = addresses.collect();
    let shape = shape::of(config.table.as_deref());
    let ask = move |ShardIndex(shard): ShardIndex, keys: &[RowKey]| {
        identities(&addresses[shard], shape, keys).map_err(|error| error.to_string())
    };
    Board::new(Identities::new(config.shards.len(), Arc::new(ask))).of_table(config.table.clone())
}

fn watch(registry: &Registry, mut warnings: Warnings, over: &Receiver<()>) {
    let mut status = Status::new(registry);
    let mut sampler = Sampler::default();
    sampler.look(registry, crate::clock::now());
    while over.recv_timeout(LOOK_INTERVAL) == Err(RecvTimeoutError::Timeout) {
        fault::panic_point("hot");
        let now = crate::clock::now();
        let workers: Vec<Arc<WorkerRecorder>> = registry.workers.lock().clone();
        let shelves = workers.iter().map(|worker| (worker.shard, &worker.hot));
        let picture = Picture::of(registry.shards.len(), shelves, now);
        let due = warnings.due(&picture, now);
        registry.hot.show(picture);
        status.look(registry, now);
        sampler.look(registry, now);
        // One deadline for all: the next look is not to be late by more.
        let until = now + IDENTITY_WAIT;
        due.iter().for_each(|due| warn(registry, due, until));
    }
}

fn warn(registry: &Registry, due: &Due, until: Instant) {
    let shard = registry.shard_names[due.shard.0].as_str();
    let share = (due.messages.share * 1e3).round() / 1e3;
    let messages_per_s = due.messages.per_s.round();
    match due.subject {
        Subject::Row(key) => {
            let identity = identity(registry, due.shard, key, until);
            let identity = identity.as_ref();
            tracing::warn!(
                shard,
                app_id = %key.app,
                subscription_id = %key.subscription,
                share,
                messages_per_s,
                identifier_hash = identity.and_then(Identity::identifier_hash),
                parent_id = identity.and_then(|of| of.parent).map(|id| id.to_string()),
                rule = rule_for_row(&key),
                suppressed = due.suppressed,
                "one row has a large share of its shard's messages; `rule` would skip its updates"
            );
        }
        Subject::App(app) => tracing::warn!(
            shard,
            app_id = %app,
            share,
            messages_per_s,
            rule = rule_for_app(&app),
            suppressed = due.suppressed,
            "one app has a large share of its shard's messages; `rule` would skip its updates"
        ),
    }
}

fn identity(
    registry: &Registry,
    shard: ShardIndex,
    key: RowKey,
    until: Instant,
) -> Option<Identity> {
    let known = registry.hot.identities.of(shard, &[key], until);
    known.identities.into_iter().next().flatten()
}
