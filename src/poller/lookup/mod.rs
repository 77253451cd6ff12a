//! Where partitions begin. Asked at each assign, beside the poll loop, which never waits for the group coordinator or a shard.
//!
//! A committed offset is where reading goes on. A look-up that fails is not "none": it is tried again. The configured start
//! is used only where the shard has never seen the partition; where it begins is then remembered before anything is applied.
//! If what lies between is gone from the log, the partition stops with an alarm.
//!
//! Two steps, so that a shard that is away keeps no partition of another waiting:
//! - here, on "mp-lookup-G": what Kafka knows; the same for all partitions of a question
//! - [`shard`], on "mp-lookup-G.S": what their shard knows; each shard's partitions are answered on their own
//! - [`decide`]: what follows from both

pub mod decide;
mod shard;

use crate::config::checked::Config;
use crate::fault;
use crate::ids::{Note, OffsetAndEpoch, Partition};
use crate::kafka::KafkaError;
use crate::kafka::admin::Admin;
use crate::kafka::consumer::Lookup;
use crate::observe::recorder::PartitionAlarm;
use crate::ready::ReadySet;
use crate::rules;
use crate::sink::connect::ConnectError;
use crate::sink::schema::{SchemaError, Source};
use crate::sync::{AtomicBool, Ordering};
use crate::vital;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use decide::Log;
use shard::{InKafka, Shards};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// Each question to the brokers ends by then; it is asked again.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Between two looks at the topic while nothing is asked. A partition that went silent is noticed within two of them.
const CHECK_INTERVAL: Duration = Duration::from_secs(15);
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
    /// The log's end as it was looked up: until the first fetch, nobody knows a newer one.
    pub end: i64,
    /// The group's committed offset, if it ever committed.
    pub committed: Option<i64>,
    /// Up to which leader epoch the log below `offset` was read; -1 if nobody knows.
    pub leader_epoch: i32,
    /// Whether it stands still instead of being read.
    pub stopped: bool,
    /// Why it stands still, or what was skipped.
    pub alarm: PartitionAlarm,
    /// What the last owner wrote beside its commit.
    pub before: Option<Note>,
    /// Nothing at or beyond this offset was dispatched by anybody, or ever will be by an owner before this one.
    pub frontier: i64,
    /// The end of the rules topic, as it was after the last owner's note was read.
    pub rules_end: i64,
}

impl Start {
    /// Where it begins, and up to which leader epoch the log below was read.
    pub fn place(&self) -> OffsetAndEpoch {
        OffsetAndEpoch {
            offset: self.offset,
            leader_epoch: self.leader_epoch,
        }
    }

    /// A partition that begins at `offset` of a log that ends at `end`, without further ado.
    fn at(partition: Partition, offset: i64, end: i64) -> Self {
        Self {
            partition,
            offset,
            end,
            committed: None,
            leader_epoch: -1,
            stopped: false,
            alarm: PartitionAlarm::None,
            before: None,
            frontier: offset,
            rules_end: 0,
        }
    }
}

/// What came of a question.
#[derive(Debug)]
pub enum Answer {
    /// These partitions begin here. Each shard's partitions come in an answer of their own.
    Begin {
        /// The question's number.
        number: u64,
        /// One for each partition that was asked for.
        starts: Vec<Start>,
    },
    /// Asked by nobody, from time to time: the end offset of each partition, by its number.
    Ends(Vec<i64>),
    /// Nothing may be written: what to do.
    Stop(String),
}

/// A question's number, and what is known of the partitions whose beginning is asked for.
pub(crate) type Question<T> = (u64, Vec<T>);

/// The poller's end of the look-up.
pub struct LookupClient {
    questions: Sender<Question<Partition>>,
    asked: u64,
    answers: Receiver<Answer>,
    stop: Arc<AtomicBool>,
    /// None where a test answers.
    thread: Option<JoinHandle<()>>,
}

/// What the look-up needs to know of the configuration.
#[derive(Clone)]
pub struct LookupSettings {
    /// The whole configuration.
    pub config: Arc<Config>,
    /// Where offsets come from; compared with what the shards remember. `None` for a throw-away group: it begins at the
    /// oldest record and asks no shard.
    pub source: Option<Source>,
}

impl LookupClient {
    /// Starts the threads. They inherit the calling thread's cores.
    pub fn start(
        group: usize,
        lookup: Lookup,
        settings: LookupSettings,
        ready: Arc<ReadySet>,
    ) -> std::io::Result<Self> {
        // One question for each rebalance that comes while a shard is away, a few bytes a partition.
        let (questions, asked) = crossbeam_channel::unbounded();
        let (answer, answers) = crossbeam_channel::unbounded();
        let mouth = Mouth { answer, ready };
        let stop = Arc::new(AtomicBool::new(false));
        let shards = match &settings.source {
            Some(source) => Shards::start(group, &settings.config, source, &stop, &mouth)?,
            None => Shards::default(),
        };
        let side = KafkaSide {
            lookup,
            settings,
            shards,
            stop: stop.clone(),
            mouth,
        };
        let thread = vital::spawn(format!("mp-lookup-{group}"), move || side.serve(&asked))?;
        Ok(Self {
            questions,
            asked: 0,
            answers,
            stop,
            thread: Some(thread),
        })
    }

    /// A client whose questions a test takes and answers.
    #[cfg(all(test, not(feature = "loom")))]
    pub(crate) fn without_threads() -> (Self, Receiver<Question<Partition>>, Sender<Answer>) {
        let (questions, asked) = crossbeam_channel::unbounded();
        let (answer, answers) = crossbeam_channel::unbounded();
        let client = Self {
            questions,
            asked: 0,
            answers,
            stop: Arc::new(AtomicBool::new(false)),
            thread: None,
        };
        (client, asked, answer)
    }

    /// Asks where partitions begin; the poller is woken when an answer is there. The question's number.
    pub fn ask(&mut self, partitions: Vec<Partition>) -> u64 {
        self.asked += 1;
        // A thread that has ended has said why, in an answer.
        let _ = self.questions.send((self.asked, partitions));
        self.asked
    }

    /// An answer that has come.
    pub fn answer(&self) -> Option<Answer> {
        self.answers.try_recv().ok()
    }

    /// Ends the threads, after the try that they are at. One that waits for a shard's word is left behind: it holds nothing
    /// that others need.
    pub fn stop(self) {
        self.stop.store(true, Ordering::Release);
        drop(self.questions);
        if self.thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the look-up thread has panicked");
        }
    }
}

/// Says answers to the poller.
#[derive(Clone)]
struct Mouth {
    answer: Sender<Answer>,
    ready: Arc<ReadySet>,
}

impl Mouth {
    fn say(&self, answer: Answer) {
        let _ = self.answer.send(answer);
        self.ready.wake();
    }
}

/// What the thread that asks Kafka works with.
struct KafkaSide {
    lookup: Lookup,
    settings: LookupSettings,
    shards: Shards,
    stop: Arc<AtomicBool>,
    mouth: Mouth,
}

impl KafkaSide {
    /// The thread's work: asks Kafka and hands over to the shards; between questions it looks from time to time whether the
    /// topic is still the same, and where it ends.
    fn serve(&self, asked: &Receiver<Question<Partition>>) {
        loop {
            let found = match asked.recv_timeout(CHECK_INTERVAL) {
                Ok((number, partitions)) => {
                    fault::panic_point("look-up");
                    self.answer(number, &partitions)
                }
                Err(RecvTimeoutError::Timeout) => Some(self.look_at_topic()),
                Err(RecvTimeoutError::Disconnected) => None,
            };
            match found {
                Some(Ok(Some(answer))) => self.mouth.say(answer),
                Some(Ok(None)) => {}
                Some(Err(why)) => self.mouth.say(Answer::Stop(why)),
                None => return,
            }
        }
    }

    /// `Ok(None)`: the shards will answer. `None`: told to stop.
    fn answer(
        &self,
        number: u64,
        partitions: &[Partition],
    ) -> Option<Result<Option<Answer>, String>> {
        let Some(source) = &self.settings.source else {
            let starts = patiently("Kafka", &self.stop, || oldest(&self.settings, partitions))?;
            return Some(starts.map(|starts| Some(Answer::Begin { number, starts })));
        };
        let known = patiently("Kafka", &self.stop, || {
            in_kafka(&self.lookup, &self.settings, source, partitions)
        })?;
        Some(known.map(|known| {
            self.shards.ask(number, known);
            None
        }))
    }

    fn look_at_topic(&self) -> Result<Option<Answer>, String> {
        let Some(source) = &self.settings.source else {
            return Ok(None);
        };
        match ends(&self.settings, source) {
            Ok(ends) => Ok(Some(Answer::Ends(ends))),
            Err(Trouble::Stop(why)) => Err(why),
            // It is asked again.
            Err(Trouble::Away(_)) => Ok(None),
        }
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
            SchemaError::Postgres(why) => Self::Away(why),
            SchemaError::Shape(why) | SchemaError::Source(why) => Self::Stop(why),
        }
    }
}

/// Tries until there is an answer: what was found, or why nothing may be written. `None`: told to stop.
fn patiently<T>(
    whom: &str,
    stop: &AtomicBool,
    ask: impl Fn() -> Result<T, Trouble>,
) -> Option<Result<T, String>> {
    let mut tries = 0;
    while !stop.load(Ordering::Acquire) {
        match ask() {
            Ok(found) => return Some(Ok(found)),
            Err(Trouble::Stop(why)) => return Some(Err(why)),
            Err(Trouble::Away(why)) => {
                if tries % TRIES_PER_LINE == 0 {
                    tracing::warn!(
                        asked = whom,
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
    let admin = Admin::connect(kafka)?;
    let firsts = admin.start_offsets(&kafka.topic, TIMEOUT)?;
    let ends = admin.end_offsets(&kafka.topic, TIMEOUT)?;
    let starts = partitions.iter().map(|partition| {
        let at = partition.index();
        Start::at(*partition, firsts[at], ends[at])
    });
    Ok(starts.collect())
}

fn in_kafka(
    lookup: &Lookup,
    settings: &LookupSettings,
    source: &Source,
    partitions: &[Partition],
) -> Result<Vec<InKafka>, Trouble> {
    let admin = Admin::connect(&settings.config.kafka)?;
    check_topic(&admin, source)?;
    let committed = lookup
        .committed(partitions, TIMEOUT)
        .map_err(|error| Trouble::Away(error.to_string()))?;
    let firsts = admin.start_offsets(&source.topic, TIMEOUT)?;
    let ends = admin.end_offsets(&source.topic, TIMEOUT)?;
    // After the notes: what a last owner writes from now on is not decided (src/rules/README.md).
    let rules = admin.end_offsets(&rules::topic_of(&source.topic), TIMEOUT)?;
    let known = committed
        .into_iter()
        .map(|(partition, committed, note)| InKafka {
            partition,
            committed,
            note: note.filter(|note| note.incarnation == source.incarnation),
            rules_end: rules.first().copied().unwrap_or(0),
            log: Log {
                first: firsts[partition.index()],
                end: ends[partition.index()],
            },
        });
    Ok(known.collect())
}

/// Whether the topic is still the same, and its end offsets.
fn ends(settings: &LookupSettings, source: &Source) -> Result<Vec<i64>, Trouble> {
    let admin = Admin::connect(&settings.config.kafka)?;
    check_topic(&admin, source)?;
    Ok(admin.end_offsets(&source.topic, TIMEOUT)?)
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
