//! What must hold before anything is written: the topic is there with the configured partitions, every shard has the tables
//! and rows of its own apps only, and the offsets in them come from this topic. Kafka away: wait, and say so.

use super::RunError;
use crate::config::Config;
use crate::config::checked::Shard;
use crate::kafka::KafkaError;
use crate::kafka::admin::Admin;
use crate::kafka::lag::{self, Uncommitted};
use crate::observe::Registry;
use crate::rules;
use crate::sink::connect::connect;
use crate::sink::schema::{SchemaError, Source, check_apps, check_source, check_tables};
use crate::sink::shape::{self, Shape};
use crate::sync::{Ordering, SignalFlag};
use crate::vital;
use crate::worker::SinkKind;
use crossbeam_channel::RecvTimeoutError;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Each question ends by then.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How long shards may take to answer at the start. One that takes longer is away.
const SHARD_WAIT: Duration = Duration::from_secs(5);
/// How often the signal is looked at meanwhile.
const SIGNAL_LOOK: Duration = Duration::from_millis(50);
/// Between two tries.
const RETRY: Duration = Duration::from_millis(500);
/// Between two lines about the same wait.
const SAY_INTERVAL: Duration = Duration::from_secs(10);

/// What was found.
#[derive(Clone, Debug)]
pub struct Checked {
    /// Where offsets come from; `None` for a sink that stores none.
    pub source: Option<Source>,
}

/// Why a check didn't pass.
enum Trouble {
    Away(String),
    Wrong(String),
}

/// Waits for Kafka, and checks it and every shard. A shard that is away is not waited for: none of its partitions begins
/// before it was checked. `None`: told to stop meanwhile.
pub fn wait_until_sound(
    config: &Arc<Config>,
    sink: SinkKind,
    signal: &Arc<SignalFlag>,
    registry: &Arc<Registry>,
) -> Result<Option<Checked>, RunError> {
    let (of_topic, waiting) = (config.clone(), registry.clone());
    let check = move || {
        let found = source(&of_topic);
        waiting.page.wait_for(match &found {
            Err(Trouble::Away(why)) => why,
            _ => "",
        });
        found
    };
    let Some(source) = patiently(signal, check)? else {
        return Ok(None);
    };
    if sink != SinkKind::Postgres {
        return Ok(Some(Checked { source: None }));
    }
    let checked = Checked {
        source: Some(source.clone()),
    };
    Ok(check_shards(config, &source, signal)?.then_some(checked))
}

/// Checks all shards at once, each on a thread of its own ("mp-check"), which is left behind if its shard never says a word.
/// Whether to go on: not if told to stop meanwhile.
fn check_shards(config: &Config, source: &Source, signal: &SignalFlag) -> Result<bool, RunError> {
    let (say, said) = crossbeam_channel::bounded(config.shards.len());
    for (at, shard) in config.shards.iter().enumerate() {
        let (shard, source, say) = (shard.clone(), source.clone(), say.clone());
        let shape = shape::of(config.table.as_deref());
        check_thread(move || say.send((at, check_shard(&shard, shape, &source))))?;
    }
    let mut silent: Vec<usize> = (0..config.shards.len()).collect();
    let deadline = crate::clock::now() + SHARD_WAIT;
    while !silent.is_empty() && crate::clock::now() < deadline {
        if signal.load(Ordering::Acquire) {
            return Ok(false);
        }
        let Ok((at, found)) = said.recv_timeout(SIGNAL_LOOK) else {
            continue;
        };
        silent.retain(|shard| *shard != at);
        match found {
            Ok(()) => {}
            Err(Trouble::Wrong(why)) => return Err(RunError(why)),
            Err(Trouble::Away(why)) => {
                tracing::warn!(error = why, "its partitions begin once it answers");
            }
        }
    }
    for at in silent {
        let Shard { name, postgres, .. } = &config.shards[at];
        tracing::warn!(
            error = format!(
                "shard {name}: Postgres at {} does not answer",
                postgres.shown
            ),
            "its partitions begin once it answers"
        );
    }
    Ok(true)
}

fn check_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<(), RunError> {
    vital::spawn("mp-check", work)
        .map(drop)
        .map_err(|error| RunError(format!("no thread for checks: {error}")))
}

/// Tries until it passes, is found wrong, or the process is told to stop. On a thread of its own ("mp-check"), since the thread
/// that hears the signal must not wait for an answer.
fn patiently<T: Send + 'static>(
    signal: &Arc<SignalFlag>,
    check: impl Fn() -> Result<T, Trouble> + Send + 'static,
) -> Result<Option<T>, RunError> {
    let (say, said) = crossbeam_channel::bounded(1);
    let until = signal.clone();
    check_thread(move || say.send(try_again(&until, check)))?;
    while !signal.load(Ordering::Acquire) {
        match said.recv_timeout(SIGNAL_LOOK) {
            Ok(found) => return found,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                return Err(RunError("a check panicked".to_owned()));
            }
        }
    }
    Ok(None)
}

fn try_again<T>(
    signal: &SignalFlag,
    check: impl Fn() -> Result<T, Trouble>,
) -> Result<Option<T>, RunError> {
    let mut said: Option<Instant> = None;
    while !signal.load(Ordering::Acquire) {
        match check() {
            Ok(found) => return Ok(Some(found)),
            Err(Trouble::Wrong(why)) => return Err(RunError(why)),
            Err(Trouble::Away(why)) => {
                if said.is_none_or(|at| at.elapsed() >= SAY_INTERVAL) {
                    said = Some(crate::clock::now());
                    tracing::warn!(error = why, "waiting; trying again until it answers");
                }
                std::thread::sleep(RETRY);
            }
        }
    }
    Ok(None)
}

/// Where the topic's offsets come from, as Kafka tells.
fn source(config: &Config) -> Result<Source, Trouble> {
    let kafka = &config.kafka;
    let admin = Admin::connect(kafka).map_err(|error| match error {
        KafkaError::Settings { .. } => Trouble::Wrong(error.to_string()),
        KafkaError::Away { .. } | KafkaError::Refused { .. } => Trouble::Away(error.to_string()),
    })?;
    let source = source_of(&admin, config)?;
    if let Some(warning) = compaction_warning(&admin, &kafka.topic) {
        tracing::warn!(topic = kafka.topic, "{warning}");
    }
    Ok(source)
}

/// What to say of a topic that is compacted; `None` also where we may not read its settings.
pub fn compaction_warning(admin: &Admin, topic: &str) -> Option<String> {
    let settings = admin.topic_config(topic, TIMEOUT).ok()?;
    let policy = settings.get("cleanup.policy")?;
    policy.contains("compact").then(|| {
        format!(
            "topic {topic} has cleanup.policy={policy}: compaction keeps only the last update of each row, and an update is a \
             change, so whatever is compacted before it is read is lost. Set cleanup.policy=delete"
        )
    })
}

fn source_of(admin: &Admin, config: &Config) -> Result<Source, Trouble> {
    let kafka = &config.kafka;
    let partitions = config.partitioner.partitions();
    match admin.topic_partitions(&kafka.topic, TIMEOUT) {
        Err(error) => return Err(Trouble::Away(error.to_string())),
        Ok(None) => {
            return Err(Trouble::Wrong(format!(
                "topic {} is not there. Run `millpond init` to make it, or correct kafka.topic",
                kafka.topic
            )));
        }
        Ok(Some(found)) if found != partitions => {
            return Err(Trouble::Wrong(format!(
                "topic {} has {found} partitions, kafka.partitions says {partitions}. An app's partition depends on the \
                 count: correct kafka.partitions, or, if the topic was repartitioned, drain it and go on with a new topic \
                 and a raised kafka.incarnation",
                kafka.topic
            )));
        }
        Ok(Some(_)) => {}
    }
    check_rules_topic(admin, &kafka.topic)?;
    let Some(topic_id) = admin.topic_id(&kafka.topic, TIMEOUT) else {
        return Err(Trouble::Away(format!(
            "the brokers don't tell the id of topic {}",
            kafka.topic
        )));
    };
    Ok(Source {
        topic: kafka.topic.clone(),
        topic_id,
        incarnation: kafka.incarnation,
        partitions: i32::try_from(partitions).expect("partitions fit Kafka's i32"),
        shard_map: config.partitioner.shard_map_hash(),
    })
}

/// Without the rules nobody knows what to skip; and one that is not compacted grows for ever, or forgets.
fn check_rules_topic(admin: &Admin, topic: &str) -> Result<(), Trouble> {
    let name = rules::topic_of(topic);
    match admin.topic_partitions(&name, TIMEOUT) {
        Err(error) => Err(Trouble::Away(error.to_string())),
        Ok(Some(1)) => Ok(()),
        Ok(Some(found)) => Err(Trouble::Wrong(format!(
            "topic {name} has {found} partitions; rules are in order in one only. Delete it and run `millpond init`"
        ))),
        Ok(None) => Err(Trouble::Wrong(format!(
            "topic {name} is not there. Run `millpond init` to make it"
        ))),
    }
}

/// Where the topic's offsets come from; for `init`, right after it made the topic.
pub fn source_now(admin: &Admin, config: &Config) -> Result<Source, RunError> {
    source_of(admin, config).map_err(|trouble| match trouble {
        Trouble::Away(why) | Trouble::Wrong(why) => RunError(why),
    })
}

/// Updates of another topic that the group began with and has not applied.
pub fn left_behind(admin: &Admin, group: &str, topic: &str) -> Result<i64, KafkaError> {
    if admin.topic_partitions(topic, TIMEOUT)?.is_none() {
        return Ok(0);
    }
    let partitions = lag::offsets(admin, group, topic, TIMEOUT)?;
    if partitions.iter().all(|of| of.committed.is_none()) {
        return Ok(0);
    }
    let behind = partitions
        .iter()
        .filter_map(|of| of.behind(Uncommitted::FromStart));
    Ok(behind.map(|offsets| offsets.end - offsets.start).sum())
}

fn check_shard(shard: &Shard, shape: &Shape, source: &Source) -> Result<(), Trouble> {
    let named = |why: String| format!("shard {}: {why}", shard.name);
    let mut client = connect(&shard.postgres, "millpond/check")
        .map_err(|error| Trouble::Away(named(error.to_string())))?;
    check_tables(&mut client, shape)
        .and_then(|()| check_apps(&mut client, shape, shard.apps))
        .and_then(|()| check_source(&mut client, shape, source))
        .map_err(|error| match error {
            SchemaError::Postgres(why) => Trouble::Away(named(why)),
            wrong => Trouble::Wrong(named(wrong.to_string())),
        })
}
