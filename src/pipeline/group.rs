//! One core group: its Kafka client, poller, lanes and workers. It is built by the poller's own thread, under the group's
//! mask of cores, so that librdkafka's threads, the look-up and the workers inherit it; then the poller pins itself.

use super::crew::Crew;
use super::end::{EndTimes, remaining};
use super::{BaselineLimit, RunError, RunOptions};
use crate::config::Config;
use crate::cores;
use crate::dispatch::Dispatch;
use crate::ids::{EpochId, ShardIndex};
use crate::kafka::consumer::GroupConsumer;
use crate::kafka::dead_letters::DeadLetterSender;
use crate::kafka::membership::Membership;
use crate::observe::recorder::WorkerRecorder;
use crate::poller::assignment::Slots;
use crate::poller::lookup::{LookupClient, LookupSettings};
use crate::poller::tenure::{AHEAD_MIN, Terms};
use crate::poller::{Ended, Poller, PollerSettings, PollerShared};
use crate::ready::ReadySet;
use crate::sink::schema::Source;
use crate::worker::apply::Shared;
use crossbeam_channel::{Receiver, Sender};
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Instant;

/// A lane gets its rows in batches of this part of a statement's, so that a worker can fill its statements well.
const BATCHES_PER_STATEMENT: usize = 4;
/// Few messages are smaller.
const SMALL_MESSAGE_BYTES: u64 = 128;
/// A partition has at least so many slots, unless it is configured to have fewer.
const SLOTS_MIN: u32 = 64;

/// Everything that a group is built from.
pub struct GroupStart {
    /// Which one.
    pub number: usize,
    /// The whole configuration.
    pub config: Arc<Config>,
    /// What the run is to do.
    pub options: RunOptions,
    /// The consumer group.
    pub group_name: String,
    /// Slots of a partition.
    pub slots: Slots,
    /// Where offsets come from.
    pub source: Option<Source>,
    /// Where dead letters go.
    pub dead_letters: DeadLetterSender,
    /// What pollers share.
    pub poller_shared: PollerShared,
    /// What workers share.
    pub worker_shared: Shared,
}

/// A running core group.
pub struct Group {
    poller: JoinHandle<()>,
    ended: Receiver<Ended>,
    crew: Arc<Crew>,
}

/// A thread did not end in time.
#[derive(Debug)]
pub struct Stuck;

impl Group {
    /// Builds and starts a group; returns once its client and threads exist.
    pub fn start(start: GroupStart) -> Result<Self, RunError> {
        let number = start.number;
        let (built, building) = crossbeam_channel::bounded(1);
        let (end, ended) = crossbeam_channel::bounded(1);
        let poller = Builder::new()
            .name(format!("mp-poll-{number}"))
            .spawn(move || match build(start) {
                Ok((poller, crew)) => {
                    let _ = built.send(Ok(crew));
                    let _ = end.send(poller.run());
                }
                Err(error) => {
                    let _ = built.send(Err(error));
                }
            })
            .map_err(|error| RunError(format!("core group {number}: no thread: {error}")))?;
        let crew = building
            .recv()
            .map_err(|_| RunError(format!("core group {number} panicked while it was built")))??;
        Ok(Self {
            poller,
            ended,
            crew,
        })
    }

    /// Its workers.
    pub fn crew(&self) -> &Arc<Crew> {
        &self.crew
    }

    /// Whether the poller has ended, or a worker has before it: its lane would wait for ever.
    pub fn has_ended(&self) -> bool {
        self.poller.is_finished() || self.crew.has_lost_one()
    }

    /// Waits until `poller_by` for the poller, and until `workers_by` for the workers: those that are still there when the
    /// poller has ended are told to give up.
    pub fn join(
        self,
        (poller_by, workers_by): (Instant, Instant),
        giving_up: &Sender<()>,
    ) -> Result<Ended, Stuck> {
        let Ok(ended) = self.ended.recv_timeout(remaining(poller_by)) else {
            let panicked = self.poller.is_finished();
            return if panicked {
                Ok(Ended::Failed("a poller panicked".to_owned()))
            } else {
                Err(Stuck)
            };
        };
        match self.crew.give_up(workers_by, giving_up) {
            true => Ok(ended),
            false => Err(Stuck),
        }
    }
}

/// Runs on the poller's thread.
fn build(start: GroupStart) -> Result<(Poller, Arc<Crew>), RunError> {
    let config = start.config.clone();
    let cores = config.consumer.core_groups.get(start.number);
    if let Some(cores) = cores {
        cores::confine(cores)
            .map_err(|error| RunError(format!("core group {}: {error}", start.number)))?;
    }
    let ready = Arc::new(ReadySet::new(config.partitioner.partitions() as usize));
    let membership = Membership {
        group: start.group_name.clone(),
        number: start.number,
        partitions: config.partitioner.partitions(),
    };
    let consumer = GroupConsumer::join(&config.kafka, &membership, ready.clone())
        .map_err(|error| RunError(format!("the Kafka client can't be made: {error}")))?;
    let recorders = recorders(&config, start.number);
    start
        .poller_shared
        .registry
        .workers
        .lock()
        .extend(recorders.iter().flatten().cloned());
    let (dispatch, lanes) = Dispatch::new(
        &recorders,
        config
            .consumer
            .batch_rows_max
            .div_ceil(BATCHES_PER_STATEMENT),
    );
    let cores_of_workers = cores.map(|cores| cores_of_workers(cores));
    if let (Some([poller, ..]), Some(workers)) = (cores.map(Vec::as_slice), &cores_of_workers) {
        tracing::info!(core_group = start.number, poller, workers = ?workers, "cores");
    }
    if let Some(cores) = &cores_of_workers {
        cores::confine(cores)
            .map_err(|error| RunError(format!("core group {}: {error}", start.number)))?;
    }
    let crew = Crew::new(&start, cores_of_workers, dispatch.changer(), ready.clone())?;
    for (recorder, (lane, post)) in recorders.iter().flatten().zip(lanes.into_iter().flatten()) {
        crew.start(recorder, (Some(lane), post))?;
    }
    let settings = LookupSettings {
        config: config.clone(),
        source: start.source.clone(),
    };
    let lookup = LookupClient::start(start.number, consumer.lookup(), settings, ready.clone())
        .map_err(|error| RunError(format!("no thread for look-ups: {error}")))?;
    if let Some([first, ..]) = cores.map(Vec::as_slice)
        && !cores::pin(*first)
    {
        tracing::warn!(
            core = *first,
            "the poller can't be pinned; it runs on any core of its group"
        );
    }
    let woken = ready.clone();
    start.poller_shared.rules.wake_by(move || woken.wake());
    let recorder = start.poller_shared.registry.pollers[start.number].clone();
    let settings = poller_settings(&config, &start.options, start.slots);
    let poller = Poller::new(
        (consumer, ready),
        dispatch,
        lookup,
        start.dead_letters,
        settings,
        start.poller_shared,
        recorder,
    );
    Ok((poller, Arc::new(crew)))
}

/// Workers leave the first core to the poller, where there is another.
fn cores_of_workers(cores: &[usize]) -> Vec<usize> {
    match cores {
        [_, others @ ..] if !others.is_empty() => others.to_vec(),
        all => all.to_vec(),
    }
}

fn recorders(config: &Config, group: usize) -> Vec<Vec<Arc<WorkerRecorder>>> {
    let of_shard = |(index, workers): (usize, usize)| {
        (0..workers)
            .map(|lane| Arc::new(WorkerRecorder::new(group, ShardIndex(index), lane)))
            .collect()
    };
    config
        .shards
        .iter()
        .map(|shard| shard.workers)
        .enumerate()
        .map(of_shard)
        .collect()
}

/// Slots of a partition: no more than its part of the bytes could hold if all messages were small, since a slot takes memory.
pub fn slots(config: &Config) -> u32 {
    let part = config.consumer.in_memory_bytes_max / u64::from(config.partitioner.partitions());
    let small = u32::try_from(part / SMALL_MESSAGE_BYTES).unwrap_or(u32::MAX);
    config
        .consumer
        .in_memory_max_per_partition
        .min(small.max(SLOTS_MIN))
}

fn poller_settings(config: &Config, options: &RunOptions, slots: Slots) -> PollerSettings {
    let consumer = &config.consumer;
    let end = EndTimes::of(consumer.drain_deadline);
    PollerSettings {
        in_memory_max_per_partition: slots,
        in_memory_max_per_process: (options.baseline == Some(BaselineLimit::Process))
            .then(|| u64::from(consumer.in_memory_max_per_partition)),
        message_max_bytes: consumer.message_max_bytes,
        commit_interval: (options.sink == crate::worker::SinkKind::Postgres)
            .then_some(consumer.commit_interval),
        drain_deadline: end.drain,
        commit_deadline: end.commit,
        revoke_deadline: consumer.revoke_deadline,
        on_lost_records: consumer.on_lost_records,
        partitioner: Arc::new(config.partitioner.clone()),
        table: config.table.clone(),
        terms: Terms {
            incarnation: config.kafka.incarnation,
            ahead_min: AHEAD_MIN,
        },
        first_epoch: EpochId(rand::random()),
    }
}
