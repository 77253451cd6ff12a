//! What is changed while the consumer runs. Whoever asks (the admin address, SIGHUP) does so on his own thread; one change at
//! a time.

use super::crew::{Crew, Joining, join_by};
use crate::config::Value;
use crate::ids::ShardIndex;
use crate::lanes::WORKERS_MAX;
use crate::observe::Registry;
use crate::observe::changes::WorkerChange;
use crate::poller::assignment::{Budget, Slots};
use crate::sink::rate::WriteRates;
use crate::worker::tunables::Tunables;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;

/// How long a change waits for the one before it.
const TURN_MAX: Duration = Duration::from_secs(10);

/// The parts of a running consumer that can change.
pub struct Running {
    /// The workers of each core group.
    pub crews: Vec<Arc<Crew>>,
    /// Bounds on rows per second.
    pub rates: Arc<WriteRates>,
    /// Bytes in memory.
    pub budget: Arc<Budget>,
    /// Slots of a partition.
    pub slots: Slots,
    /// Limits of the workers.
    pub tunables: Arc<Tunables>,
}

/// Changes a consumer while it runs.
pub struct Control {
    pub(super) registry: Arc<Registry>,
    pub(super) running: Mutex<Option<Arc<Running>>>,
    /// The configuration as it was read last, but for what needs a restart. Held while something changes.
    pub(super) values: Mutex<Vec<Value>>,
}

/// A change of workers that was asked for, by shard and core group.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct ShardChange {
    /// The shard's name.
    pub shard: String,
    /// What became of it.
    #[serde(flatten)]
    pub change: WorkerChange,
}

/// Nothing was changed, nor tried.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum ControlError {
    /// What was asked for can't be.
    #[error("{0}")]
    Bad(String),
    /// Perhaps later.
    #[error("{0}")]
    NotNow(String),
}

impl Control {
    /// For a consumer that is about to run with these values.
    pub fn new(registry: &Arc<Registry>, values: Vec<Value>) -> Self {
        Self {
            registry: registry.clone(),
            running: Mutex::new(None),
            values: Mutex::new(values),
        }
    }

    /// The consumer runs.
    pub(super) fn begin(&self, running: Running) {
        *self.running.lock() = Some(Arc::new(running));
    }

    /// It is about to end. A change that is under way learns that from its poller.
    pub(super) fn end(&self) {
        *self.running.lock() = None;
    }

    pub(super) fn running(&self) -> Result<Arc<Running>, ControlError> {
        let running = self.running.lock().clone();
        running.ok_or_else(|| {
            let why = "the consumer is starting or stopping; ask again once it is ready";
            ControlError::NotNow(why.to_owned())
        })
    }

    /// The shard of that name.
    pub(super) fn shard(&self, name: &str) -> Result<ShardIndex, ControlError> {
        let names = &self.registry.shard_names;
        let found = names.iter().position(|known| known == name);
        found.map(ShardIndex).ok_or_else(|| {
            ControlError::Bad(format!(
                "there is no shard {name:?}; there is {}",
                names.join(" ")
            ))
        })
    }

    /// Gives a shard, or each of them, another number of workers in every core group. A core group that refuses keeps what it
    /// has, and the others are changed all the same.
    pub fn set_workers(
        &self,
        shard: Option<&str>,
        workers: usize,
    ) -> Result<Vec<ShardChange>, ControlError> {
        let shards = match shard {
            Some(name) => vec![self.shard(name)?],
            None => (0..self.registry.shard_names.len())
                .map(ShardIndex)
                .collect(),
        };
        if !(1..=WORKERS_MAX).contains(&workers) {
            return Err(ControlError::Bad(format!(
                "workers: found {workers}, allowed are 1 to {WORKERS_MAX}; each is a connection in each core group"
            )));
        }
        let running = self.running()?;
        let Some(_turn) = self.values.try_lock_for(TURN_MAX) else {
            let why = "another change is under way; ask again";
            return Err(ControlError::NotNow(why.to_owned()));
        };
        Ok(self.change_workers(&running, &shards, workers))
    }

    /// The same, for whoever has the turn. All new workers connect at the same time; then one crew after the other changes.
    pub(super) fn change_workers(
        &self,
        running: &Running,
        shards: &[ShardIndex],
        workers: usize,
    ) -> Vec<ShardChange> {
        let crews = || {
            let crews_of = |shard: &ShardIndex| {
                let shard = *shard;
                running.crews.iter().map(move |crew| (shard, crew))
            };
            shards.iter().flat_map(crews_of)
        };
        let joining: Vec<Result<Joining, String>> = crews()
            .map(|(shard, crew)| crew.begin_joining(shard, workers))
            .collect();
        let by = join_by();
        let changes = crews().zip(joining).map(|((shard, crew), joining)| {
            let change = crew.change(shard, workers, joining, by);
            ShardChange {
                shard: self.registry.shard_names[shard.0].clone(),
                change,
            }
        });
        let changes = changes.collect();
        running
            .crews
            .iter()
            .for_each(|crew| crew.wait_until_ended());
        changes
    }
}

impl std::fmt::Display for ShardChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let WorkerChange {
            group,
            from,
            to,
            pause_ms,
            refused,
            ..
        } = &self.change;
        write!(f, "shard {}, core group {group}: ", self.shard)?;
        match refused {
            Some(why) => write!(f, "stays at {from} workers: {why}"),
            None if from == to => write!(f, "has {to} workers already"),
            None => write!(f, "{from} -> {to} workers, pause {pause_ms:.1} ms"),
        }
    }
}
