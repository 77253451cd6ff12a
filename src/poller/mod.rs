//! A poller: one OS thread per core group, pinned to the group's first core; the group's one Kafka client and its member of
//! the consumer group.
//!
//! Woken by librdkafka's callbacks (a queue is no longer empty, the group has an event), by completions (a partition that was
//! left unread has room again) and by shutdown; sleeps at most 100 ms. One round: serve the group's events → visit the
//! ready partitions in turn → flush the lanes → commit what is finished.
//!
//! While the number of lanes changes (`lanes/README.md`) it comes by each millisecond, and goes on as always.
//!
//! - [`assignment`]: one assigned partition: its queue, its slots, its limits
//! - [`lookup`]: where partitions begin; asked on threads of its own, so that the poll loop never waits
//! - [`receive`]: what a message in hand becomes
//! - [`progress`]: what is finished: committed, and shown
//! - `giving_up`: partitions on their way to somebody else
//! - [`ground`]: whether the log is still the one that was read
//! - [`tenure`]: how far an epoch may dispatch, and whether all rules are decided
//! - [`anew`]: partitions that are assigned anew, as they have gone silent or lost records
//! - `traced`: which rounds and commits are traced
//! - `close`: the end, step by step

pub mod anew;
pub mod assignment;
mod close;
mod giving_up;
pub mod ground;
pub mod lookup;
pub mod progress;
pub mod receive;
pub mod tenure;
mod traced;

use crate::config::checked::OnLostRecords;
use crate::dispatch::Dispatch;
use crate::fault;
use crate::ids::{EpochId, OffsetAndEpoch, Partition};
use crate::kafka::consumer::{Event, GroupConsumer};
use crate::kafka::dead_letters::DeadLetterSender;
use crate::kafka::member::Member;
use crate::observe::Registry;
use crate::observe::recorder::{PartitionAlarm, PollerRecorder};
use crate::partitioner::Partitioner;
use crate::ready::ReadySet;
use crate::rules::Rules;
use crate::sink::rate::{WriteRate, WriteRates};
use crate::sync::{AtomicBool, Ordering};
use crate::table::Table;
use anew::Silence;
use assignment::{Assigned, Budget, DeadEpoch, Slots};
use giving_up::Revoking;
use lookup::{Answer, LookupClient};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};
use traced::Tracing;

/// The longest sleep. Bounds how late a round is that nothing woke.
const SLEEP_MAX: Duration = Duration::from_millis(100);
/// While partitions drain, completions don't wake the poller; it looks this often.
const DRAIN_LOOK: Duration = Duration::from_millis(5);
/// While lanes change, workers stand still until the poller comes by.
const CHANGE_LOOK: Duration = Duration::from_millis(1);
/// How often the incident's consumer looks for room.
const PROCESS_LIMIT_LOOK: Duration = Duration::from_millis(1);
/// Messages that a partition may give in one visit, so that ready partitions are interleaved.
const QUANTUM: usize = 1024;

/// How a poller works.
#[derive(Clone, Debug)]
pub struct PollerSettings {
    /// Slots of a partition; another number while running counts from its next assignment on.
    pub in_memory_max_per_partition: Slots,
    /// The incident's consumer: slots of the whole process, shared by all partitions.
    pub in_memory_max_per_process: Option<u64>,
    /// A larger message is a dead letter.
    pub message_max_bytes: usize,
    /// How often offsets are committed; `None` for a throw-away group, which commits nothing.
    pub commit_interval: Option<Duration>,
    /// How long work in flight may take at shutdown.
    pub drain_deadline: Duration,
    /// How long the last commit of partitions that are given up may take.
    pub commit_deadline: Duration,
    /// How long work in flight may take when partitions move.
    pub revoke_deadline: Duration,
    /// What happens when records that were not yet read are gone.
    pub on_lost_records: OnLostRecords,
    /// Which shard a partition is of.
    pub partitioner: Arc<Partitioner>,
    /// The table that messages are for; `None` for the subscriptions.
    pub table: Option<Arc<Table>>,
    /// How far an epoch may dispatch.
    pub terms: tenure::Terms,
    /// Its epochs are named from here on; chosen so that no other poller's are.
    pub first_epoch: EpochId,
}

/// What a poller shares with the rest of the process.
#[derive(Clone)]
pub struct PollerShared {
    /// Gauges of partitions.
    pub registry: Arc<Registry>,
    /// The bytes that all partitions of the process share.
    pub budget: Arc<Budget>,
    /// Bounds on rows per second, which follow the assignment.
    pub rates: Arc<WriteRates>,
    /// What is to be skipped.
    pub rules: Arc<Rules>,
    /// Set when the process is to end.
    pub stop: Arc<AtomicBool>,
}

/// Why a poller ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was told to.
    Stopped,
    /// Going on would break a guarantee, or the client is of no more use: what to do.
    Failed(String),
}

/// One poller, to be run on its thread.
pub struct Poller<M: Member = GroupConsumer> {
    consumer: M,
    ready: Arc<ReadySet>,
    dispatch: Dispatch,
    lookup: LookupClient,
    dead_letters: DeadLetterSender,
    settings: PollerSettings,
    shared: PollerShared,
    recorder: Arc<PollerRecorder>,
    /// By partition.
    assigned: Vec<Option<Box<Assigned<M::Queue>>>>,
    /// By partition.
    silence: Vec<Silence>,
    revoking: VecDeque<Revoking>,
    dead_epochs: Vec<DeadEpoch>,
    commits_due: Instant,
    gauges_due: Instant,
    sweep_due: Instant,
    /// By partition: the question that tells where it begins, until it does or the partition is given up.
    asked: Vec<Option<u64>>,
    /// Epochs begun so far.
    epochs: u64,
    /// The version of the rules that was looked at.
    rules_seen: u64,
    /// The headers of the message in hand.
    headers: crate::dispatch::Headers,
    /// Partitions to be visited in this round.
    visits: Vec<Partition>,
    tracing: Tracing,
}

impl<M: Member> Poller<M> {
    /// Made on the poller's own thread, by the pipeline.
    pub fn new(
        (consumer, ready): (M, Arc<ReadySet>),
        dispatch: Dispatch,
        lookup: LookupClient,
        dead_letters: DeadLetterSender,
        settings: PollerSettings,
        shared: PollerShared,
        recorder: Arc<PollerRecorder>,
    ) -> Self {
        let partitions = settings.partitioner.partitions() as usize;
        let tracing = Tracing::new(shared.registry.telemetry.tracer.clone());
        let now = crate::clock::now();
        Self {
            consumer,
            ready,
            dispatch,
            lookup,
            dead_letters,
            settings,
            shared,
            recorder,
            assigned: (0..partitions).map(|_| None).collect(),
            asked: vec![None; partitions],
            silence: vec![Silence::default(); partitions],
            revoking: VecDeque::new(),
            dead_epochs: Vec::new(),
            commits_due: now,
            gauges_due: now,
            sweep_due: now,
            epochs: 0,
            rules_seen: 0,
            headers: crate::dispatch::Headers::default(),
            visits: Vec::new(),
            tracing,
        }
    }

    /// The thread's work, until it is told to stop or can't go on. Leaves the group before it returns.
    pub fn run(mut self) -> Ended {
        self.ready.owned_by_this_thread();
        let ended = loop {
            match self.round() {
                Ok(busy) => self.rest(busy),
                Err(ended) => break ended,
            }
        };
        self.close();
        ended
    }

    /// One round. Whether there may be more to do at once.
    pub fn round(&mut self) -> Result<bool, Ended> {
        if self.shared.stop.load(Ordering::Acquire) {
            return Err(Ended::Stopped);
        }
        self.serve_group().map_err(Ended::Failed)?;
        self.follow_rules();
        self.tracing.round_begins(self.recorder.received.get());
        self.dispatch.change_lanes();
        let mut busy = false;
        let mut visits = std::mem::take(&mut self.visits);
        self.ready.take(&mut visits);
        // A moving start, so that no partition is always the first to find room.
        let start = if visits.is_empty() {
            0
        } else {
            usize::try_from(self.recorder.received.get()).unwrap_or(0) % visits.len()
        };
        for at in 0..visits.len() {
            busy |= self.visit(visits[(start + at) % visits.len()]);
            if self.dispatch.is_changing() {
                self.dispatch.change_lanes();
            }
        }
        self.visits = visits;
        self.dispatch.flush();
        self.tracing.round_ends(self.recorder.received.get());
        self.give_up_drained();
        if self.commit_when_due() {
            self.go_on_behind_gaps().map_err(Ended::Failed)?;
        }
        Ok(busy)
    }

    /// Between two rounds.
    fn rest(&self, busy: bool) {
        if self.settings.in_memory_max_per_process.is_some() {
            // The incident's consumer: whatever is finished may make room for any partition, so it looks at all.
            std::thread::sleep(PROCESS_LIMIT_LOOK);
            self.mark_all();
        } else if !busy {
            self.ready.sleep(self.sleep_max());
        }
    }

    fn sleep_max(&self) -> Duration {
        if self.dispatch.is_changing() {
            CHANGE_LOOK
        } else if self.revoking.is_empty() {
            SLEEP_MAX
        } else {
            DRAIN_LOOK
        }
    }

    fn mark_all(&self) {
        for assigned in self.assigned.iter().flatten() {
            self.ready.mark(assigned.partition);
        }
    }

    /// Serves the consumer queue and the answers of the look-up.
    fn serve_group(&mut self) -> Result<(), String> {
        self.recorder.polled_at_ms.set(crate::clock::running_ms());
        for event in self.consumer.poll_events() {
            match event {
                Event::Assigned(partitions) => {
                    self.recorder.rebalances.add(1);
                    tracing::info!(partitions = partitions.len(), "partitions are assigned");
                    self.ask_where_to_begin(partitions)?;
                }
                Event::Revoked(partitions) => {
                    self.recorder.rebalances.add(1);
                    tracing::info!(
                        partitions = partitions.len(),
                        "partitions are revoked; finishing what is in flight"
                    );
                    self.begin_no_more(&partitions);
                    self.write_no_more(&partitions);
                    self.revoking
                        .push_back(Revoking::drains(partitions, self.settings.revoke_deadline));
                }
                Event::Lost(partitions) => {
                    self.recorder.rebalances.add(1);
                    tracing::warn!(
                        partitions = partitions.len(),
                        "partitions are lost to another member"
                    );
                    self.begin_no_more(&partitions);
                    self.give_up(&partitions);
                    self.revoking.push_back(Revoking::given_up(partitions));
                }
                Event::Committed(Ok(commits)) => {
                    fault::crash_point("after-commit");
                    self.tracing.commit_ends(None);
                    self.committed(&commits);
                }
                Event::Committed(Err(error)) => self.commit_failed(&error),
                Event::Fatal(why) => return Err(format!("the Kafka client can't go on: {why}")),
                Event::Error(error) => {
                    self.recorder.errors.add(1);
                    tracing::warn!(error = %error, "kafka consumer");
                }
            }
        }
        while let Some(answer) = self.lookup.answer() {
            match answer {
                Answer::Begin { number, mut starts } => {
                    // What was given up meanwhile, or is asked for anew, does not begin.
                    starts.retain(|start| {
                        self.asked[start.partition.index()]
                            .take_if(|asked| *asked == number)
                            .is_some()
                            || fault::mutant("stale-epoch-accepted")
                    });
                    self.begin(&starts)?;
                }
                Answer::Ends(ends) => self.look_for_silence(&ends)?,
                Answer::Stop(why) => return Err(why),
            }
        }
        Ok(())
    }

    /// Asks where the partitions begin. The group needn't wait for that: each is assigned to the client once its shard has
    /// answered, so that a shard that is away holds neither the group nor the partitions of another.
    fn ask_where_to_begin(&mut self, partitions: Vec<Partition>) -> Result<(), String> {
        self.look_up(partitions);
        self.assign(&[])
    }

    fn look_up(&mut self, partitions: Vec<Partition>) {
        let indexes: Vec<usize> = partitions
            .iter()
            .map(|partition| partition.index())
            .collect();
        let number = self.lookup.ask(partitions);
        for index in indexes {
            self.asked[index] = Some(number);
        }
    }

    /// Partitions that wait for their beginning don't begin.
    fn begin_no_more(&mut self, partitions: &[Partition]) {
        for partition in partitions {
            self.asked[partition.index()] = None;
        }
    }

    /// Partitions that are to be given up have no part of the write rate any more: what is in flight is finished with the rest.
    fn write_no_more(&mut self, partitions: &[Partition]) {
        for partition in partitions {
            let assigned = self.assigned[partition.index()].as_mut();
            if assigned.is_some_and(|assigned| std::mem::take(&mut assigned.may_write)) {
                self.rate_of(*partition).partition_goes();
            }
        }
    }

    fn rate_of(&self, partition: Partition) -> &WriteRate {
        let shard = self.settings.partitioner.shard_of_partition(partition);
        self.shared.rates.share_of(shard)
    }

    /// Makes rings for newly assigned partitions, takes their queues, and lets fetching begin.
    fn begin(&mut self, starts: &[lookup::Start]) -> Result<(), String> {
        for start in starts {
            let queue = self.consumer.take_queue(start.partition);
            let tenure = self.new_tenure(start);
            let assigned = Assigned::new(start, queue, tenure, &self.settings, &self.ready);
            let gauges = self.shared.registry.partition(start.partition);
            assigned.update_gauges(gauges, None);
            self.assigned[start.partition.index()] = Some(Box::new(assigned));
            self.shared.budget.assigned_changed(1);
            self.rate_of(start.partition).partition_comes();
            if start.alarm != PartitionAlarm::None {
                gauges.alarm.set(start.alarm as i64);
            }
            gauges.assigned.store(true, Ordering::Relaxed);
            // Messages may be in the queue before the callback could see it turn from empty.
            self.ready.mark(start.partition);
        }
        self.count_assigned();
        let mut places: Vec<_> = starts
            .iter()
            .map(|start| (start.partition, start.place()))
            .collect();
        if fault::mutant("a-partition-goes-silent") {
            let was_silenced =
                |partition: &Partition| self.silence[partition.index()] != Silence::default();
            places.retain(|(partition, _)| *partition != Partition(0) || was_silenced(partition));
        }
        self.assign(&places)
    }

    fn assign(&self, starts: &[(Partition, OffsetAndEpoch)]) -> Result<(), String> {
        self.consumer
            .assign(starts)
            .map_err(|error| format!("assigning partitions failed: {error}"))
    }

    fn count_assigned(&self) {
        let count = self.assigned.iter().flatten().count();
        self.recorder
            .partitions
            .set(i64::try_from(count).unwrap_or(i64::MAX));
    }
}
