//! Where partitions begin. Asked at each assign, on a thread of its own ("mp-lookup"), so that the poll loop never waits for
//! the group coordinator or a shard.
//!
//! A committed offset is where reading goes on. A look-up that fails is not "none": it is tried again. The configured start
//! is used only where the shard has never seen the partition; where it begins is then remembered before anything is applied.
//! If what lies between is gone from the log, the partition stops with an alarm.

use crate::config::checked::{Config, OnLostRecords, Start as ConfiguredStart};
use crate::ids::{Partition, ShardIndex};
use crate::kafka::KafkaError;
use crate::kafka::admin::Admin;
use crate::kafka::consumer::Lookup;
use crate::observe::recorder::PartitionAlarm;
use crate::ready::ReadySet;
use crate::sink::connect::{ConnectError, connect};
use crate::sink::schema::{
    SchemaError, Source, check_source, remember_partitions, seen_partitions,
};
use crate::sync::{AtomicBool, Ordering};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

/// Each question to the brokers ends by then; it is asked again.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Between two looks at the topic while nothing is asked.
const CHECK_INTERVAL: Duration = Duration::from_secs(60);
/// Tries for each line about them.
const TRIES_PER_LINE: u32 = 20;
/// Between two tries.
const RETRY: Duration = Duration::from_millis(500);

/// Where a partition begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// Which one.
    pub partition: Partition,
    /// The first offset to be read; everything below counts as finished.
    pub offset: i64,
    /// The group's committed offset, if it ever committed.
    pub committed: Option<i64>,
    /// Whether it stands still instead of being read.
    pub stopped: bool,
    /// Why it stands still, or what was skipped.
    pub alarm: PartitionAlarm,
}

impl Start {
    /// A partition that begins at `offset` without further ado.
    fn at(partition: Partition, offset: i64) -> Self {
        Self {
            partition,
            offset,
            committed: None,
            stopped: false,
            alarm: PartitionAlarm::None,
        }
    }
}

/// What came of a question.
#[derive(Debug)]
pub enum Answer {
    /// These partitions begin here.
    Begin {
        /// The question's number.
        number: u64,
        /// One for each partition that was asked for.
        starts: Vec<Start>,
    },
    /// Nothing may be written: what to do.
    Stop(String),
}

/// Partitions whose beginning is asked for, with the question's number.
type Question = (u64, Vec<Partition>);

/// The poller's end of the look-up.
pub struct LookupClient {
    questions: Sender<Question>,
    asked: u64,
    answers: Receiver<Answer>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

/// What the look-up needs to know of the configuration.
pub struct LookupSettings {
    /// The whole configuration.
    pub config: Arc<Config>,
    /// Where offsets come from; compared with what the shards remember. `None` for a throw-away group: it begins at the
    /// oldest record and asks no shard.
    pub source: Option<Source>,
}

impl LookupClient {
    /// Starts the thread. It inherits the calling thread's cores.
    pub fn start(
        group: usize,
        lookup: Lookup,
        settings: LookupSettings,
        ready: Arc<ReadySet>,
    ) -> std::io::Result<Self> {
        // One question is open at a time, and one more for each time that its partitions were lost meanwhile.
        let (questions, asked) = crossbeam_channel::unbounded();
        let (answer, answers) = crossbeam_channel::unbounded();
        let stop = Arc::new(AtomicBool::new(false));
        let thread = Builder::new().name(format!("mp-lookup-{group}")).spawn({
            let stop = stop.clone();
            move || {
                let say = |found: Answer| {
                    let _ = answer.send(found);
                    ready.wake();
                };
                serve(&lookup, &settings, &asked, &stop, say);
            }
        })?;
        Ok(Self {
            questions,
            asked: 0,
            answers,
            stop,
            thread,
        })
    }

    /// Asks where partitions begin; the poller is woken when the answer is there.
    pub fn ask(&mut self, partitions: Vec<Partition>) {
        // A thread that has ended has said why, in an answer.
        let _ = self.questions.send((self.asked, partitions));
        self.asked += 1;
    }

    /// The number that the next question will have.
    pub fn next_number(&self) -> u64 {
        self.asked
    }

    /// An answer that has come.
    pub fn answer(&self) -> Option<Answer> {
        self.answers.try_recv().ok()
    }

    /// Ends the thread, after the try that it is at.
    pub fn stop(self) {
        self.stop.store(true, Ordering::Release);
        drop(self.questions);
        if self.thread.join().is_err() {
            tracing::error!("the look-up thread has panicked");
        }
    }
}

/// The thread's work: answers questions, and between them looks from time to time whether the topic is still the same.
fn serve(
    lookup: &Lookup,
    settings: &LookupSettings,
    asked: &Receiver<Question>,
    stop: &AtomicBool,
    say: impl Fn(Answer),
) {
    loop {
        match asked.recv_timeout(CHECK_INTERVAL) {
            Ok((number, partitions)) => match look_up(lookup, settings, &partitions, stop) {
                Some(Ok(starts)) => say(Answer::Begin { number, starts }),
                Some(Err(why)) => say(Answer::Stop(why)),
                None => return,
            },
            Err(RecvTimeoutError::Timeout) => {
                if let Err(Trouble::Stop(why)) = check_from_time_to_time(settings) {
                    say(Answer::Stop(why));
                }
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

fn check_from_time_to_time(settings: &LookupSettings) -> Result<(), Trouble> {
    match &settings.source {
        Some(source) => check_topic(&Admin::connect(&settings.config.kafka)?, source),
        None => Ok(()),
    }
}

/// Why a look-up didn't succeed.
enum Trouble {
    /// Try again.
    Away(String),
    /// Somebody must act.
    Stop(String),
}

impl From<KafkaError> for Trouble {
    fn from(error: KafkaError) -> Self {
        Self::Away(error.to_string())
    }
}

impl From<ConnectError> for Trouble {
    fn from(error: ConnectError) -> Self {
        Self::Away(error.to_string())
    }
}

impl From<SchemaError> for Trouble {
    fn from(error: SchemaError) -> Self {
        match error {
            SchemaError::Postgres(error) => Self::Away(error.to_string()),
            SchemaError::Shape(why) | SchemaError::Source(why) => Self::Stop(why),
        }
    }
}

/// Tries until it has an answer: where the partitions begin, or why nothing may be written. `None`: told to stop.
fn look_up(
    lookup: &Lookup,
    settings: &LookupSettings,
    partitions: &[Partition],
    stop: &AtomicBool,
) -> Option<Result<Vec<Start>, String>> {
    let mut tries = 0;
    while !stop.load(Ordering::Acquire) {
        let found = match &settings.source {
            Some(source) => starts(lookup, settings, source, partitions),
            None => oldest(settings, partitions),
        };
        match found {
            Ok(starts) => return Some(Ok(starts)),
            Err(Trouble::Stop(why)) => return Some(Err(why)),
            Err(Trouble::Away(why)) => {
                if tries % TRIES_PER_LINE == 0 {
                    tracing::warn!(
                        error = why,
                        "looking up where partitions begin; trying again"
                    );
                }
                tries += 1;
                std::thread::sleep(RETRY);
            }
        }
    }
    None
}

/// A throw-away group begins at the oldest record.
fn oldest(settings: &LookupSettings, partitions: &[Partition]) -> Result<Vec<Start>, Trouble> {
    let kafka = &settings.config.kafka;
    let firsts = Admin::connect(kafka)?.start_offsets(&kafka.topic, TIMEOUT)?;
    let starts = partitions
        .iter()
        .map(|partition| Start::at(*partition, firsts[partition.index()]));
    Ok(starts.collect())
}

fn starts(
    lookup: &Lookup,
    settings: &LookupSettings,
    source: &Source,
    partitions: &[Partition],
) -> Result<Vec<Start>, Trouble> {
    let kafka = &settings.config.kafka;
    let admin = Admin::connect(kafka)?;
    check_topic(&admin, source)?;
    let committed = lookup
        .committed(partitions, TIMEOUT)
        .map_err(|error| Trouble::Away(error.to_string()))?;
    let firsts = admin.start_offsets(&kafka.topic, TIMEOUT)?;
    let ends = admin.end_offsets(&kafka.topic, TIMEOUT)?;
    let mut starts = Vec::new();
    for (shard, at) in settings.config.shards.iter().zip(0..) {
        let partitioner = &settings.config.partitioner;
        let own =
            |partition: Partition| partitioner.shard_of_partition(partition) == ShardIndex(at);
        if !partitions.iter().any(|partition| own(*partition)) {
            continue;
        }
        let mut client = connect(&shard.postgres, "millpond/lookup")?;
        check_source(&mut client, source)?;
        let seen = seen_partitions(&mut client, source)?;
        let mut fixed = Vec::new();
        for (partition, committed) in committed.iter().filter(|(partition, _)| own(*partition)) {
            let log = Log {
                first: firsts[partition.index()],
                end: ends[partition.index()],
            };
            let known = Known {
                committed: *committed,
                first_seen: seen.get(partition).copied(),
            };
            let start = decide(
                *partition,
                known,
                log,
                settings.config.kafka.start,
                settings.config.consumer.on_lost_records,
            );
            if known.first_seen.is_none() {
                fixed.push((*partition, start.offset));
            }
            starts.push(start);
        }
        remember_partitions(&mut client, source, &fixed)?;
    }
    starts.iter().for_each(say_alarm);
    Ok(starts)
}

/// Another topic under the same name must not be read: its offsets would pass for old ones.
fn check_topic(admin: &Admin, source: &Source) -> Result<(), Trouble> {
    let Some(id) = admin.topic_id(&source.topic, TIMEOUT) else {
        return Err(Trouble::Away(format!(
            "the brokers don't tell the id of topic {}",
            source.topic
        )));
    };
    let partitions = admin.topic_partitions(&source.topic, TIMEOUT)?;
    if id != source.topic_id
        || partitions.and_then(|count| i32::try_from(count).ok()) != Some(source.partitions)
    {
        return Err(Trouble::Stop(format!(
            "topic {} was deleted, made anew or repartitioned while this process ran. Start it again: it then says what \
             to do",
            source.topic
        )));
    }
    Ok(())
}

/// What the group and the shard know of a partition.
#[derive(Clone, Copy, Debug)]
struct Known {
    committed: Option<i64>,
    first_seen: Option<i64>,
}

/// What the log of a partition holds: offsets from `first` up to, not including, `end`.
#[derive(Clone, Copy, Debug)]
struct Log {
    first: i64,
    end: i64,
}

/// Where a partition begins, and whether anything between there and where it should begin is gone.
fn decide(
    partition: Partition,
    known: Known,
    log: Log,
    configured: ConfiguredStart,
    on_lost_records: OnLostRecords,
) -> Start {
    let wanted = match known {
        Known {
            committed: Some(committed),
            ..
        } => committed,
        // Its commits are gone (the group was deleted, or they expired): reading from its beginning again is harmless.
        Known {
            first_seen: Some(first),
            ..
        } => first,
        Known { .. } => match configured {
            ConfiguredStart::Earliest => log.first,
            ConfiguredStart::Latest => log.end,
        },
    };
    let offset = wanted.clamp(log.first, log.end);
    let lost = offset != wanted;
    Start {
        partition,
        offset,
        committed: known.committed,
        stopped: lost && on_lost_records == OnLostRecords::Stop,
        alarm: if lost {
            PartitionAlarm::RecordsLost
        } else {
            PartitionAlarm::None
        },
    }
}

fn say_alarm(start: &Start) {
    if start.alarm == PartitionAlarm::None {
        return;
    }
    let partition = start.partition.0;
    let offset = start.offset;
    if start.stopped {
        tracing::error!(
            partition,
            offset,
            committed = start.committed,
            "the partition stands still: the log no longer holds what comes after the committed offset. Bring the records \
             back, or set consumer.on_lost_records = \"skip\" and restart to go on at this offset"
        );
    } else {
        tracing::error!(
            partition,
            offset,
            committed = start.committed,
            "records are gone; going on behind them"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: Log = Log {
        first: 100,
        end: 500,
    };

    fn start(committed: Option<i64>, first_seen: Option<i64>) -> (i64, bool) {
        let known = Known {
            committed,
            first_seen,
        };
        let start = decide(
            Partition(0),
            known,
            LOG,
            ConfiguredStart::Latest,
            OnLostRecords::Stop,
        );
        assert_eq!(start.stopped, start.alarm == PartitionAlarm::RecordsLost);
        (start.offset, start.stopped)
    }

    #[test]
    fn reading_goes_on_at_the_committed_offset() {
        assert_eq!(start(Some(300), Some(0)), (300, false));
        assert_eq!(start(Some(500), Some(0)), (500, false));
    }

    #[test]
    fn the_configured_start_is_only_for_a_partition_that_was_never_seen() {
        assert_eq!(start(None, None), (500, false));
        assert_eq!(start(None, Some(200)), (200, false));
    }

    #[test]
    fn records_that_are_gone_stop_the_partition() {
        assert_eq!(start(Some(99), Some(0)), (100, true));
        assert_eq!(start(None, Some(0)), (100, true));
        // The log ends before what was committed: it was truncated or made anew.
        assert_eq!(start(Some(501), Some(0)), (500, true));
    }

    #[test]
    fn skipping_goes_on_behind_the_gap_with_an_alarm() {
        let known = Known {
            committed: Some(7),
            first_seen: Some(0),
        };
        let start = decide(
            Partition(0),
            known,
            LOG,
            ConfiguredStart::Earliest,
            OnLostRecords::Skip,
        );
        assert_eq!(
            (start.offset, start.stopped, start.alarm),
            (100, false, PartitionAlarm::RecordsLost)
        );
    }
}
