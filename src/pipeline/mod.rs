//! The consumer as a whole, and the only room that knows all others: build, start, watch, drain, join.
//!
//! - [`checks`]: what must hold before anything is written: topic, tables, where offsets come from
//! - [`group`]: one core group: a Kafka client, its poller, its workers
//! - [`crew`]: the group's workers, also while their number changes
//! - [`control`]: what is changed while it runs, and by whom: the admin address ([`workers_api`]), SIGHUP ([`reload`])
//! - [`hot`]: who is hot, watched from beside
//! - [`rules`]: the rules topic, kept by a thread of its own
//! - [`progress`]: whether the group has caught up
//! - [`end`]: how the drain deadline is spent
//!
//! End, in this order: 1 the pollers are told to stop; they stop reading, drain, commit and leave the group, and drop their
//! lanes. 2 Workers end with their lanes; those that are stuck are told to give up. 3 Dead letters that wait are delivered. 4 The
//! thread of the rules topic ends.
//! Whatever misses its deadline is left behind: the process ends, and what it had in flight is read again.

#[cfg(all(test, not(feature = "loom")))]
mod admin_fuzz;
pub mod checks;
pub mod control;
pub mod crew;
pub mod end;
pub mod group;
pub mod hot;
pub mod progress;
pub mod reload;
pub mod rules;
pub mod workers_api;

use crate::config::Config;
use crate::ids::ShardIndex;
use crate::kafka::dead_letters::DeadLetters;
use crate::observe::page::board::Board;
use crate::observe::recorder::{ConnectionState, Registry, WorkerRecorder};
use crate::observe::summary::Summary;
use crate::observe::trace::Tracer;
use crate::poller::assignment::{Budget, Slots};
use crate::poller::{Ended, PollerShared};
use crate::rules::Rules;
use crate::sink::own::Writer;
use crate::sink::rate::WriteRates;
use crate::sync::{AtomicBool, Ordering, SignalFlag};
use crate::worker::SinkKind;
use crate::worker::apply::Shared;
use crate::worker::tunables::Tunables;
use checks::Checked;
use control::{Control, Running};
use end::{EndTimes, remaining};
use group::{Group, GroupStart};
use progress::Target;
use rules::RulesThread;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often the main thread looks at the others.
const WATCH_INTERVAL: Duration = Duration::from_millis(100);

/// What a run is to do besides its configuration.
#[derive(Clone)]
pub struct RunOptions {
    /// Where batches end.
    pub sink: SinkKind,
    /// The incident's consumer, for comparison: one statement a message, no fold. `None`: the real one.
    pub baseline: Option<BaselineLimit>,
    /// End once what was in the topic at the start is applied.
    pub until_caught_up: bool,
    /// Of a program that writes rows by its own statements.
    pub writer: Option<Arc<dyn Writer>>,
}

/// What the incident's consumer limits in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BaselineLimit {
    /// All messages of the process together: the incident's. One partition stalls all.
    Process,
    /// Each partition's: the first remedy alone.
    Partition,
}

/// Why a run failed, with what to do.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct RunError(pub String);

/// Runs the consumer until it is told to stop, has caught up, or can't go on. The registry shows what it does meanwhile.
pub fn run(
    config: &Arc<Config>,
    options: RunOptions,
    (registry, control, rules): (&Arc<Registry>, &Control, &Arc<Rules>),
    signal: &Arc<SignalFlag>,
) -> Result<Summary, RunError> {
    let Some(checked) = checks::wait_until_sound(config, options.sink, signal, registry)? else {
        return Ok(Summary::of(registry));
    };
    let dead_letters = DeadLetters::start(&config.kafka, registry.clone())
        .map_err(|error| RunError(format!("the dead letter producer can't start: {error}")))?;
    let target = options
        .until_caught_up
        .then(|| Target::read(config, options.sink))
        .transpose()?;
    let keeper = RulesThread::start(config, options.sink, rules, registry)?;
    let (giving_up, abandon) = crossbeam_channel::bounded(0);
    let stop = Arc::new(AtomicBool::new(false));
    let watcher = hot::Watcher::start(&config.hot, registry)?;
    let (groups, running) = start_groups(
        config,
        options,
        &checked,
        (registry, rules),
        &dead_letters,
        (&stop, abandon),
    )?;
    control.begin(running);
    let has_ended = || ended_by_itself(&groups, &keeper);
    let failure = watch(has_ended, registry, target, signal, &stop);
    control.end();
    let watcher = watcher.stop();
    registry.ready.store(false, Ordering::Relaxed);
    stop.store(true, Ordering::Release);
    let now = crate::clock::now();
    let end = EndTimes::of(config.consumer.drain_deadline);
    let give_up_by = now + end.give_up;
    let failures = join(groups, (now + end.leave, give_up_by), &giving_up, failure);
    drop(giving_up);
    keeper.stop(give_up_by);
    let undelivered = dead_letters.stop(remaining(give_up_by));
    if undelivered > 0 {
        tracing::warn!(
            undelivered,
            "dead letters were not delivered in time; their messages are read again"
        );
    }
    watcher.wait(give_up_by);
    match failures.is_empty() {
        true => Ok(Summary::of(registry)),
        false => Err(RunError(failures.join("; "))),
    }
}

fn start_groups(
    config: &Arc<Config>,
    options: RunOptions,
    checked: &Checked,
    (registry, rules): (&Arc<Registry>, &Arc<Rules>),
    dead_letters: &DeadLetters,
    (stop, abandon): (&Arc<AtomicBool>, crossbeam_channel::Receiver<()>),
) -> Result<(Vec<Group>, Running), RunError> {
    let rates = Arc::new(write_rates(config));
    let slots = Slots::new(group::slots(config));
    let poller_shared = PollerShared {
        registry: registry.clone(),
        budget: Arc::new(Budget::new(config.consumer.in_memory_bytes_max)),
        rates: rates.clone(),
        rules: rules.clone(),
        stop: stop.clone(),
    };
    let worker_shared = Shared {
        rates,
        registry: registry.clone(),
        abandon,
        tunables: Arc::new(Tunables::new(config.rules.links_per_parent_max)),
    };
    let group_name = group_name(config, options.sink);
    let start = |number| {
        Group::start(GroupStart {
            number,
            config: config.clone(),
            options: options.clone(),
            group_name: group_name.clone(),
            slots: slots.clone(),
            source: checked.source.clone(),
            dead_letters: dead_letters.sender(),
            poller_shared: poller_shared.clone(),
            worker_shared: worker_shared.clone(),
        })
    };
    let groups = (0..config.consumer.core_groups.len().max(1)).map(start);
    let groups: Vec<Group> = groups.collect::<Result<_, _>>()?;
    let running = Running {
        crews: groups.iter().map(|group| group.crew().clone()).collect(),
        rates: poller_shared.rates,
        budget: poller_shared.budget,
        slots,
        tunables: worker_shared.tunables,
    };
    Ok((groups, running))
}

/// Joins the groups' pollers and workers, at most until their deadlines. What went wrong, besides what was known before.
fn join(
    groups: Vec<Group>,
    deadlines: (Instant, Instant),
    giving_up: &crossbeam_channel::Sender<()>,
    failure: Option<String>,
) -> Vec<String> {
    let mut failures: Vec<String> = failure.into_iter().collect();
    for group in groups {
        match group.join(deadlines, giving_up) {
            Ok(Ended::Stopped) => {}
            Ok(Ended::Failed(why)) => failures.push(why),
            Err(group::Stuck) => {
                tracing::warn!(
                    "a thread missed its deadline and is left behind; what it had in flight is read again"
                );
            }
        }
    }
    failures.dedup();
    failures
}

/// What has ended by itself.
fn ended_by_itself(groups: &[Group], keeper: &RulesThread) -> Option<String> {
    if keeper.has_ended() {
        return Some("the thread that keeps the rules topic ended by itself".to_owned());
    }
    let number = groups.iter().position(Group::has_ended)?;
    Some(format!("core group {number} ended by itself"))
}

/// Waits for a signal, for the target, or for a thread's end. `Some`: what ended by itself.
fn watch(
    has_ended: impl Fn() -> Option<String>,
    registry: &Registry,
    mut target: Option<Target>,
    signal: &SignalFlag,
    stop: &AtomicBool,
) -> Option<String> {
    let mut said_ready = false;
    loop {
        if signal.load(Ordering::Acquire) {
            tracing::info!("told to stop: finishing what is in flight");
            return None;
        }
        if let Some(what) = has_ended() {
            stop.store(true, Ordering::Release);
            return (!signal.load(Ordering::Acquire)).then_some(what);
        }
        let ready = is_ready(registry);
        registry.ready.store(ready, Ordering::Relaxed);
        if ready && !said_ready {
            said_ready = true;
            tracing::info!("ready: every connection is up");
        }
        if target
            .as_mut()
            .is_some_and(|target| target.is_reached(registry))
        {
            tracing::info!("caught up with what was in the topic at the start");
            return None;
        }
        std::thread::sleep(WATCH_INTERVAL);
    }
}

/// Whether every part is up: pollers poll, connections stand, no shard is down. A member that the group gave no partition is
/// ready to take one.
fn is_ready(registry: &Registry) -> bool {
    let polling = registry
        .pollers
        .iter()
        .all(|poller| poller.polled_at_ms.get() > 0);
    let up = registry
        .shards
        .iter()
        .all(|shard| !shard.down.load(Ordering::Relaxed));
    let is_connected =
        |worker: &Arc<WorkerRecorder>| worker.connection_state() != ConnectionState::Down;
    polling && up && registry.workers_on_duty().iter().all(is_connected)
}

/// The registry for a configuration; spans go to that tracer.
pub fn registry(config: &Config, tracer: Tracer) -> Arc<Registry> {
    let partitions =
        i32::try_from(config.partitioner.partitions()).expect("partitions fit Kafka's i32");
    let shards = (0..partitions).map(|at| {
        config
            .partitioner
            .shard_of_partition(crate::ids::Partition(at))
    });
    let names = config
        .shards
        .iter()
        .map(|shard| shard.name.clone())
        .collect();
    let mut registry = Registry::new(
        config.consumer.core_groups.len().max(1),
        shards.collect(),
        names,
    );
    registry.hot = hot::board(config);
    for (index, shard) in config.shards.iter().enumerate() {
        reload::show_bound(&registry, ShardIndex(index), shard.write_rate_max);
    }
    registry.telemetry.tracer = tracer;
    registry
        .telemetry
        .applied
        .set_every(config.telemetry.applied_sample);
    registry.page = Board::new(config);
    Arc::new(registry)
}

fn write_rates(config: &Config) -> WriteRates {
    let bounds = config.shards.iter().map(|shard| shard.write_rate_max);
    WriteRates::new(bounds, config.partitioner.partitions_per_shard())
}

/// Sinks that apply nothing read under a group of their own, which commits nothing.
fn group_name(config: &Config, sink: SinkKind) -> String {
    match sink {
        SinkKind::Postgres => config.kafka.group.clone(),
        SinkKind::Null | SinkKind::Discard => {
            format!(
                "{}.throw-away.{}.{}",
                config.kafka.group,
                std::process::id(),
                crate::clock::wall_ms()
            )
        }
    }
}
