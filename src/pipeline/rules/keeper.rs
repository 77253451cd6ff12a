//! The thread that keeps the rules topic, round by round: read what is there, take orders, write, publish, tell.

use super::writer::Writer;
use crate::config::checked::Kafka;
use crate::ids::Partition;
use crate::kafka::KafkaError;
use crate::kafka::admin::Admin;
use crate::kafka::reader::{ReadError, Reader, Span};
use crate::observe::Registry;
use crate::rules::record::{EdgeKey, Record, RuleId};
use crate::rules::shared::Order;
use crate::rules::state::{Scope, State};
use crate::rules::table::Table;
use crate::rules::{Rules, topic_of};
use crate::sync::{AtomicBool, Ordering};
use crossbeam_channel::Sender;
use hashbrown::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a round waits for a record, and an order for its turn at most. rdkafka spends the last millisecond of a wait busy.
const WAIT: Duration = Duration::from_millis(100);
/// Between two rounds while records are on their way, whose reports are waited for too. Slept, as that may go on for as long as the
/// brokers are away.
const PAUSE_BUSY: Duration = Duration::from_millis(1);
/// Records of a round, so that a long topic holds no order up.
const READ_MAX: usize = 1000;
/// Each question to the brokers ends by then.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Before the topic is opened again after an error.
const OPEN_AGAIN: Duration = Duration::from_secs(1);
/// How often what each rule skipped is logged.
const TELL_INTERVAL: Duration = Duration::from_secs(60);

/// What the thread works with.
pub struct Keeper {
    kafka: Kafka,
    topic: String,
    incarnation: i32,
    rules: Arc<Rules>,
    registry: Arc<Registry>,
    reader: Reader,
    writer: Writer,
    state: State,
    /// The end of the topic at the start; none once it was told that it is read.
    first_end: Option<i64>,
    /// Something is not published yet.
    is_new: bool,
    /// Rules of which was told that they hold (false) or no longer do (true).
    told: HashMap<RuleId, bool>,
    /// How much each had skipped when that was last told.
    told_skipped: HashMap<RuleId, u64>,
    tell_due: Instant,
}

impl Keeper {
    /// Asks where the topic begins and ends, and begins to read.
    pub fn new(
        kafka: &Kafka,
        scope: Scope,
        rules: Arc<Rules>,
        registry: Arc<Registry>,
    ) -> Result<Self, KafkaError> {
        let topic = topic_of(&kafka.topic);
        let (start, end) = extent(kafka, &topic)?;
        Ok(Self {
            reader: open(kafka, &topic, start)?,
            writer: Writer::new(kafka, &topic)?,
            kafka: kafka.clone(),
            topic,
            incarnation: scope.incarnation,
            rules,
            registry,
            state: State::new(scope, start),
            first_end: Some(end),
            is_new: true,
            told: HashMap::new(),
            told_skipped: HashMap::new(),
            tell_due: crate::clock::now() + TELL_INTERVAL,
        })
    }

    /// The thread's work until it is told to stop. Says when what was there at the start is published.
    pub fn run(mut self, stop: &AtomicBool, is_read: &Sender<()>) {
        while !stop.load(Ordering::Acquire) {
            crate::fault::panic_point("rules");
            let is_busy = self.writer.is_busy() || self.is_new;
            if is_busy {
                std::thread::sleep(PAUSE_BUSY);
            }
            let wait = if is_busy { Duration::ZERO } else { WAIT };
            if let Err(error) = self.read(wait) {
                tracing::warn!(topic = self.topic, error = %error, "reading the rules; trying again");
                std::thread::sleep(OPEN_AGAIN);
                self.open_again();
            }
            while let Ok(order) = self.rules.ordered().try_recv() {
                self.obey(order);
            }
            self.writer.step();
            let first = self
                .first_end
                .is_some_and(|end| self.state.read_to() >= end);
            if self.is_new && (first || self.first_end.is_none()) {
                self.publish();
            }
            if first {
                self.first_end = None;
                let _ = is_read.send(());
            }
            if crate::clock::now() >= self.tell_due {
                self.tell_skipped();
            }
        }
    }

    fn read(&mut self, wait: Duration) -> Result<(), ReadError> {
        for number in 0..READ_MAX {
            let wait = if number == 0 { wait } else { Duration::ZERO };
            let message = match self.reader.next(wait) {
                None | Some(Err(ReadError::Quiet { .. })) => return Ok(()),
                Some(message) => message?,
            };
            let at = message.offset();
            self.is_new = true;
            match Record::parse(message.key().unwrap_or_default(), message.value()) {
                Ok(record) => self.state.read(record, at),
                Err(why) => {
                    self.state.passed(at + 1);
                    tracing::error!(
                        topic = self.topic,
                        offset = at,
                        error = why,
                        "a record of the rules topic is not ours or of a later version; it is left out"
                    );
                }
            }
        }
        Ok(())
    }

    fn open_again(&mut self) {
        let opened = extent(&self.kafka, &self.topic).and_then(|(start, _)| {
            let from = self.state.read_to().max(start);
            Ok((open(&self.kafka, &self.topic, from)?, from))
        });
        match opened {
            Ok((reader, from)) => {
                self.reader = reader;
                self.state.passed(from);
            }
            Err(error) => tracing::warn!(error = %error, "the rules topic can't be read"),
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Begin(began) => {
                self.state.begin(began);
                self.is_new = true;
            }
            Order::End(partition, epoch) => {
                self.state.end(partition, epoch);
                self.is_new = true;
            }
            Order::Propose(partition, epoch, proposals) => {
                for proposal in proposals {
                    let key = EdgeKey {
                        rule: proposal.rule,
                        partition,
                        kind: proposal.kind,
                        incarnation: self.incarnation,
                        epoch,
                    };
                    self.writer.edge(key, proposal.offset);
                }
                crate::fault::crash_point("before-edge");
            }
            Order::Claimed(partition, epoch) => {
                for key in self.state.copied(partition, epoch) {
                    self.writer.forget(key);
                }
            }
            Order::Write(rule, answer) => self.writer.rule(rule, answer),
        }
    }

    fn publish(&mut self) {
        self.is_new = false;
        let now = crate::clock::timestamp();
        let table = self.state.table(now);
        self.tell_changes(&table);
        let active = i64::try_from(table.active(now)).unwrap_or(i64::MAX);
        self.registry.rules_active.set(active);
        self.rules.publish(table);
        let state = &self.state;
        self.writer
            .keep(|key| state.has(key.partition, key.epoch) && !state.has_edge(key));
    }

    /// A rule that begins or ends here is told once.
    fn tell_changes(&mut self, table: &Table) {
        for entry in &table.entries {
            let rule = &entry.rule;
            let has_ended = rule.removed.is_some();
            if entry.effective_at.is_none() || self.told.get(&rule.id) == Some(&has_ended) {
                continue;
            }
            self.told.insert(rule.id, has_ended);
            let (subscription, parent) = rule.target.ids();
            let what = match has_ended {
                false => "a rule holds in the partitions of this process",
                true => "a rule was removed and holds no longer in the partitions of this process",
            };
            tracing::info!(
                rule = %rule.id,
                app_id = %rule.target.app(),
                subscription_id = subscription.map(tracing::field::display),
                parent_id = parent.map(tracing::field::display),
                reason = rule.reason,
                author = rule.author,
                until = rule.until.map(tracing::field::display),
                skipped = entry.skipped.get(),
                "{what}"
            );
        }
    }

    fn tell_skipped(&mut self) {
        self.tell_due = crate::clock::now() + TELL_INTERVAL;
        let table = self.rules.table();
        let active = table.active(crate::clock::timestamp());
        self.registry
            .rules_active
            .set(i64::try_from(active).unwrap_or(i64::MAX));
        for entry in &table.entries {
            let (id, total) = (entry.rule.id, entry.skipped.get());
            let before = self.told_skipped.insert(id, total).unwrap_or(0);
            if total > before {
                tracing::info!(
                    rule = %id,
                    app_id = %entry.rule.target.app(),
                    reason = entry.rule.reason,
                    skipped = total - before,
                    skipped_in_all = total,
                    "a rule has skipped messages"
                );
            }
        }
    }
}

/// Where the topic begins and ends.
fn extent(kafka: &Kafka, topic: &str) -> Result<(i64, i64), KafkaError> {
    let admin = Admin::connect(kafka)?;
    let start = admin.start_offsets(topic, TIMEOUT)?;
    let end = admin.end_offsets(topic, TIMEOUT)?;
    let first = |offsets: Vec<i64>| offsets.first().copied().unwrap_or(0);
    Ok((first(start), first(end)))
}

fn open(kafka: &Kafka, topic: &str, from: i64) -> Result<Reader, KafkaError> {
    let span = Span {
        partition: Partition(0),
        start: from,
        end: Span::NO_END,
    };
    Reader::open(kafka, topic, &[span])
}
