//! The thread "mp-dead", one a process: takes what can't be applied and writes it to the dead letter topic, at least once.
//!
//! Letters wake it; while some are on their way it also polls for delivery reports every few milliseconds. A letter is kept
//! until the broker has it, then its receipt completes its slot. Failure is tried again for ever: the offset can't be
//! committed meanwhile, so nothing is lost, and the log says why. Letters in memory are bounded by those slots.

use super::client::{KafkaError, topic_missing};
use super::producer::{Compression, DeliveryError, Producer, Record, SendError, Tuning};
use crate::clock;
use crate::config::checked::Kafka;
use crate::dead::{Reason, Receipt, header};
use crate::fault;
use crate::ids::Partition;
use crate::observe::{Registry, log::Repeated};
use crate::vital;
use crossbeam_channel::{Receiver, Sender, unbounded};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use std::{borrow::Cow, sync::Arc, thread};

/// Header of a letter that was too large for the topic, so that its key, its value or its headers were cut: the original length of
/// the value in bytes.
pub const TRUNCATED: &str = "__dlq.errors.truncated";

/// How the names of our headers begin.
pub const PREFIX: &str = "__dlq.errors.";
/// What is kept of the key, of the value and of the original headers together, each, when the brokers refuse a letter.
const CUT_BYTES: usize = 64 << 10;
/// What is kept of the explanation; Postgres may quote a whole value in it.
const MESSAGE_CHARS_MAX: usize = 1000;
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(10);
const LOG_INTERVAL: Duration = Duration::from_secs(10);
const LOOK_UP_TIMEOUT: Duration = Duration::from_secs(1);
/// When librdkafka gives a letter back; it is sent again then.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(30);
/// How often delivery reports are looked for while letters are on their way.
const POLL: Duration = Duration::from_millis(5);
/// How often librdkafka's log is emptied while there is nothing to do.
const IDLE: Duration = Duration::from_secs(1);

/// A message that can't be applied, and why.
pub struct DeadLetter {
    /// Where it was read.
    pub partition: Partition,
    /// Its offset there.
    pub offset: i64,
    /// Its timestamp in milliseconds since 1970; -1 for none.
    pub timestamp_ms: i64,
    /// Its key; `None` for null.
    pub key: Option<Box<[u8]>>,
    /// Its value; `None` for null.
    pub value: Option<Box<[u8]>>,
    /// Its headers, in order.
    pub headers: Vec<(String, Option<Box<[u8]>>)>,
    /// Why it can't be applied.
    pub reason: Reason,
    /// What Postgres called it.
    pub sqlstate: Option<String>,
    /// What was wrong, for people.
    pub message: String,
    /// Whom to tell.
    pub receipt: Box<dyn Receipt>,
}

/// Hands letters to the thread, from any other.
#[derive(Clone)]
pub struct DeadLetterSender(Sender<Order>);

impl DeadLetterSender {
    /// Never blocks: a letter takes no more memory than its message did, and those are bounded. After
    /// [`DeadLetters::stop`] the letter is dropped with its receipt, so its offset is not committed.
    pub fn send(&self, letter: DeadLetter) {
        // The channel is closed only after a stop.
        let _ = self.0.send(Order::Deliver(Box::new(letter)));
    }
}

/// A sender without a thread, and the letters that were sent with it.
#[cfg(all(test, not(feature = "loom")))]
pub(crate) fn collected() -> (DeadLetterSender, impl FnMut() -> Option<DeadLetter>) {
    let (sender, orders) = unbounded();
    let next = move || match orders.try_recv() {
        Ok(Order::Deliver(letter)) => Some(*letter),
        _ => None,
    };
    (DeadLetterSender(sender), next)
}

/// The thread, as its owner holds it.
pub struct DeadLetters {
    sender: DeadLetterSender,
    thread: thread::JoinHandle<usize>,
}

enum Order {
    Deliver(Box<DeadLetter>),
    StopBy(Instant),
}

impl DeadLetters {
    /// Starts the thread. It doesn't wait for the brokers or the topic.
    pub fn start(kafka: &Kafka, registry: Arc<Registry>) -> Result<Self, KafkaError> {
        let (sender, orders) = unbounded();
        let mut desk = Desk::new(kafka, registry, orders)?;
        let thread =
            vital::spawn("mp-dead", move || desk.run()).expect("the system gives a thread");
        Ok(Self {
            sender: DeadLetterSender(sender),
            thread,
        })
    }

    /// A sender for another thread.
    pub fn sender(&self) -> DeadLetterSender {
        self.sender.clone()
    }

    /// Delivers what was sent before and ends the thread, within `deadline` and two seconds for what is going on then.
    /// Returns how many letters were not delivered; their offsets stay uncommitted, so the next run meets them again.
    pub fn stop(self, deadline: Duration) -> usize {
        // A thread that panicked tells when it is joined.
        let _ = self.sender.0.send(Order::StopBy(clock::now() + deadline));
        self.thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// A letter that the broker doesn't have yet.
struct Held {
    letter: Box<DeadLetter>,
    /// The brokers refused it as it is, so it goes cut and stamped anew.
    cut: bool,
}

type Report = (u64, Result<(), DeliveryError>);

/// What the thread owns.
struct Desk {
    kafka: Kafka,
    registry: Arc<Registry>,
    orders: Receiver<Order>,
    producer: Producer<u64>,
    reports: Receiver<Report>,
    /// Partitions of the dead letter topic, once known.
    partitions: Option<u32>,
    /// All letters that the broker doesn't have, by order of arrival.
    held: BTreeMap<u64, Held>,
    /// Those of them that librdkafka doesn't have either.
    unsent: BTreeSet<u64>,
    arrived: u64,
    backoff: Duration,
    again_at: Instant,
    failing: Repeated,
}

impl Desk {
    fn new(
        kafka: &Kafka,
        registry: Arc<Registry>,
        orders: Receiver<Order>,
    ) -> Result<Self, KafkaError> {
        let (producer, reports) = producer(kafka)?;
        Ok(Self {
            kafka: kafka.clone(),
            registry,
            orders,
            producer,
            reports,
            partitions: None,
            held: BTreeMap::new(),
            unsent: BTreeSet::new(),
            arrived: 0,
            backoff: BACKOFF_MIN,
            again_at: clock::now(),
            failing: Repeated::once_in(LOG_INTERVAL),
        })
    }

    /// Works until told to stop, then until nothing is held or the deadline has passed. Returns how many are still held.
    fn run(&mut self) -> usize {
        let mut stop_by = None;
        loop {
            stop_by = stop_by.or(self.take_orders(stop_by.is_some()));
            if clock::now() >= self.again_at {
                self.send_all();
            }
            self.producer.poll(if self.held.is_empty() {
                Duration::ZERO
            } else {
                POLL
            });
            self.take_reports();
            if stop_by.is_some_and(|by| self.held.is_empty() || clock::now() >= by) {
                return self.held.len();
            }
        }
    }

    /// Takes what was ordered; waits for it if there is nothing else to do.
    fn take_orders(&mut self, stopping: bool) -> Option<Instant> {
        let wait = if self.held.is_empty() && !stopping {
            IDLE
        } else {
            Duration::ZERO
        };
        let mut next = self.orders.recv_timeout(wait).ok();
        while let Some(order) = next {
            match order {
                Order::StopBy(deadline) => return Some(deadline),
                Order::Deliver(letter) => {
                    fault::panic_point("dead-letter");
                    self.held.insert(self.arrived, Held { letter, cut: false });
                    self.unsent.insert(self.arrived);
                    self.arrived += 1;
                }
            }
            next = self.orders.try_recv().ok();
        }
        None
    }

    /// Hands letters to librdkafka in order of arrival, until all are there or one is not taken.
    fn send_all(&mut self) {
        if self.unsent.is_empty() {
            return;
        }
        let Some(partitions) = self.partitions.or_else(|| self.look_up_partitions()) else {
            return;
        };
        while let Some(number) = self.unsent.first().copied() {
            let held = self.held.get_mut(&number).expect("what is unsent is held");
            match send(&self.producer, &self.kafka, partitions, held, number) {
                Ok(()) => {
                    self.unsent.remove(&number);
                }
                Err(SendError::QueueFull) => return,
                Err(SendError::TooLarge) if !held.cut => held.cut = true,
                Err(SendError::Broken(why)) => return self.replace_producer(&why),
                Err(error) => {
                    self.partitions = None;
                    return self.back_off(&error.to_string());
                }
            }
        }
    }

    fn look_up_partitions(&mut self) -> Option<u32> {
        let topic = self.kafka.dead_letter_topic.clone();
        match self.producer.topic_partitions(&topic, LOOK_UP_TIMEOUT) {
            Ok(Some(partitions)) => self.partitions = Some(partitions),
            Ok(None) => self.back_off(&topic_missing(&topic)),
            Err(error) => self.back_off(&error.to_string()),
        }
        self.partitions
    }

    fn take_reports(&mut self) {
        while let Ok((number, result)) = self.reports.try_recv() {
            match result {
                Ok(()) => self.delivered(number),
                Err(error) => self.failed(number, &error),
            }
        }
    }

    fn delivered(&mut self, number: u64) {
        // A producer that was replaced may have delivered it before.
        let Some(held) = self.held.remove(&number) else {
            return;
        };
        self.unsent.remove(&number);
        self.backoff = BACKOFF_MIN;
        self.registry.dead_letters[held.letter.reason as usize].add(1);
        held.letter.receipt.delivered();
    }

    fn failed(&mut self, number: u64, error: &DeliveryError) {
        let Some(held) = self.held.get_mut(&number) else {
            return;
        };
        self.unsent.insert(number);
        match error {
            DeliveryError::Refused(_) if !held.cut => held.cut = true,
            DeliveryError::NoSuchPartition(_) => {
                self.partitions = None;
                self.back_off(&error.to_string());
            }
            DeliveryError::Refused(_) | DeliveryError::NotAcknowledged(_) => {
                self.back_off(&error.to_string())
            }
        }
    }

    /// A broken producer takes and delivers nothing any more; what it held goes out again, some of it twice.
    fn replace_producer(&mut self, why: &str) {
        self.back_off(why);
        match producer(&self.kafka) {
            Ok((producer, reports)) => {
                self.take_reports();
                (self.producer, self.reports) = (producer, reports);
                self.unsent = self.held.keys().copied().collect();
            }
            Err(error) => self.back_off(&error.to_string()),
        }
    }

    fn back_off(&mut self, why: &str) {
        let now = clock::now();
        if now >= self.again_at {
            self.again_at = now + self.backoff;
            self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
        }
        if let Some(suppressed) = self.failing.due() {
            let (topic, waiting) = (&self.kafka.dead_letter_topic, self.held.len());
            tracing::warn!(
                topic,
                waiting,
                suppressed,
                error = why,
                "dead letters can't be written; trying again"
            );
        }
    }
}

fn producer(kafka: &Kafka) -> Result<(Producer<u64>, Receiver<Report>), KafkaError> {
    let tuning = Tuning {
        linger: POLL,
        compression: Compression::Lz4,
        delivery_timeout: DELIVERY_TIMEOUT,
        queue_records_max: 10_000,
        queue_bytes_max: 64 << 20,
    };
    let (report, reports) = unbounded();
    let on_delivery = move |number, result: Result<_, DeliveryError>| {
        // The desk is gone only when nobody cares any more.
        let _ = report.send((number, result.map(|_| ())));
    };
    Ok((
        Producer::new(kafka, "millpond-dead", &tuning, on_delivery)?,
        reports,
    ))
}

fn send(
    producer: &Producer<u64>,
    kafka: &Kafka,
    partitions: u32,
    held: &Held,
    number: u64,
) -> Result<(), SendError> {
    let letter = &held.letter;
    let kept = |bytes: &'_ [u8]| {
        if held.cut {
            bytes.len().min(CUT_BYTES)
        } else {
            bytes.len()
        }
    };
    let headers = headers(kafka, held);
    let headers: Vec<(&str, Option<&[u8]>)> = headers
        .iter()
        .map(|(name, value)| (*name, value.as_deref()))
        .collect();
    let partition = letter.partition.index() % partitions as usize;
    let record = Record {
        topic: &kafka.dead_letter_topic,
        partition: Partition(i32::try_from(partition).expect("below the topic's partitions")),
        key: letter.key.as_deref().map(|key| &key[..kept(key)]),
        value: letter.value.as_deref().map(|value| &value[..kept(value)]),
        headers: &headers,
        timestamp_ms: (!held.cut && letter.timestamp_ms > 0).then_some(letter.timestamp_ms),
    };
    producer.send(&record, number).map_err(|(error, _)| error)
}

type Header<'a> = (&'a str, Option<Cow<'a, [u8]>>);

/// The original headers, but for those of an earlier life as a dead letter, then ours.
fn headers<'a>(kafka: &'a Kafka, held: &'a Held) -> Vec<Header<'a>> {
    let letter = &held.letter;
    let text = |text: String| Some(Cow::Owned(text.into_bytes()));
    let borrowed = |text: &'a str| Some(Cow::Borrowed(text.as_bytes()));
    let original = |(name, value): &'a (String, Option<Box<[u8]>>)| {
        (name.as_str(), value.as_deref().map(Cow::Borrowed))
    };
    let attempts = letter
        .headers
        .iter()
        .rfind(|(name, _)| name == header::ATTEMPTS);
    let attempts = attempts
        .and_then(|(_, value)| value.as_deref())
        .unwrap_or(b"0");

    let mut headers: Vec<Header<'a>> = letter
        .headers
        .iter()
        .filter(|(name, _)| !name.starts_with(PREFIX))
        .map(original)
        .collect();
    let bytes: usize = headers
        .iter()
        .map(|(name, value)| name.len() + value.as_ref().map_or(0, |value| value.len()))
        .sum();
    let too_long =
        |part: &Option<Box<[u8]>>| part.as_ref().is_some_and(|part| part.len() > CUT_BYTES);
    let cut = held.cut && (bytes > CUT_BYTES || too_long(&letter.key) || too_long(&letter.value));
    if held.cut && bytes > CUT_BYTES {
        headers.clear();
    }
    headers.extend([
        (header::TOPIC, borrowed(&kafka.topic)),
        (header::PARTITION, text(letter.partition.to_string())),
        (header::OFFSET, text(letter.offset.to_string())),
        (header::GROUP, borrowed(&kafka.group)),
        (header::REASON, borrowed(letter.reason.as_str())),
        (
            header::MESSAGE,
            text(letter.message.chars().take(MESSAGE_CHARS_MAX).collect()),
        ),
        (header::ATTEMPTS, Some(Cow::Borrowed(attempts))),
    ]);
    headers.extend(
        letter
            .sqlstate
            .as_deref()
            .map(|sqlstate| (header::SQLSTATE, borrowed(sqlstate))),
    );
    if cut {
        let length = letter.value.as_ref().map_or(0, |value| value.len());
        headers.push((TRUNCATED, text(length.to_string())));
    }
    headers
}
