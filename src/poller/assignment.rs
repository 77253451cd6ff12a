//! One assigned partition: its queue, its slots and bytes, how far it is. And what all partitions of a process share.

use super::PollerSettings;
use super::ground::Ground;
use super::lookup::Start;
use super::tenure::Tenure;
use crate::commit::Tracker;
use crate::dispatch::Origin;
use crate::ids::{OffsetAndEpoch, Partition};
use crate::kafka::member::Queue;
use crate::kafka::native::PartitionQueue;
use crate::observe::recorder::PartitionRecorder;
use crate::ready::ReadySet;
use crate::sync::{AtomicU64, Ordering};
use std::collections::VecDeque;
use std::sync::Arc;

/// The bytes that messages in memory may take, split evenly over the assigned partitions of all core groups. Bytes of epochs
/// that were given up count until their last batch is gone.
#[derive(Debug)]
pub struct Budget {
    bytes_max: AtomicU64,
    assigned: AtomicU64,
    dead_bytes: AtomicU64,
}

impl Budget {
    /// A budget of that many bytes.
    pub fn new(bytes_max: u64) -> Self {
        Self {
            bytes_max: AtomicU64::new(bytes_max),
            assigned: AtomicU64::new(0),
            dead_bytes: AtomicU64::new(0),
        }
    }

    /// Another number of bytes, while running. What is in memory beyond it leaves as it is finished.
    pub fn set_bytes_max(&self, bytes_max: u64) {
        self.bytes_max.store(bytes_max, Ordering::Relaxed);
    }

    /// What one partition may hold now.
    pub fn share(&self) -> u64 {
        let alive = self
            .bytes_max
            .load(Ordering::Relaxed)
            .saturating_sub(self.dead_bytes.load(Ordering::Relaxed));
        alive / self.assigned.load(Ordering::Relaxed).max(1)
    }

    /// Partitions came or went.
    pub fn assigned_changed(&self, by: i64) {
        if by >= 0 {
            self.assigned
                .fetch_add(by.unsigned_abs(), Ordering::Relaxed);
        } else {
            self.assigned
                .fetch_sub(by.unsigned_abs(), Ordering::Relaxed);
        }
    }
}

/// A number of slots that may change while running.
#[derive(Clone, Debug)]
pub struct Slots(Arc<AtomicU64>);

impl Slots {
    /// So many for now.
    pub fn new(slots: u32) -> Self {
        Self(Arc::new(AtomicU64::new(slots.into())))
    }

    /// How many there are to be now.
    pub fn now(&self) -> u32 {
        u32::try_from(self.0.load(Ordering::Relaxed)).expect("set from 32 bits")
    }

    /// Another number from now on.
    pub fn set(&self, slots: u32) {
        self.0.store(slots.into(), Ordering::Relaxed);
    }
}

/// An epoch that was given up while batches still hold its messages.
#[derive(Debug)]
pub struct DeadEpoch {
    origin: Arc<Origin>,
    bytes: u64,
}

impl DeadEpoch {
    /// Whether a batch still holds its messages; if not, its bytes are given back.
    pub fn is_held(&self, budget: &Budget) -> bool {
        let held = Arc::strong_count(&self.origin) > 1;
        if !held {
            budget.dead_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        }
        held
    }
}

/// An assigned partition in one epoch.
pub struct Assigned<Q: Queue = PartitionQueue> {
    /// Which one.
    pub partition: Partition,
    /// Its slots.
    pub tracker: Tracker,
    /// What its messages carry.
    pub origin: Arc<Origin>,
    /// Its queue.
    pub queue: Q,
    /// Messages that were read and found no room. They hold no slot.
    pub held: VecDeque<Q::Record>,
    /// The offset that was last sent to be committed.
    pub committed: i64,
    /// It stands still, with an alarm: it is not read any more.
    pub stopped: bool,
    /// It stands at records that are gone and goes on behind them, once what was read before is finished.
    pub skips_gap: bool,
    /// Where its log was cut off, if it goes on there.
    cut_at: Option<i64>,
    /// What its beginning stands on.
    pub ground: Ground,
    /// It counts for what this process may write to its shard.
    pub may_write: bool,
    /// How far it may be dispatched.
    pub tenure: Tenure,
    /// Where the log ended when it was looked up.
    end_at_start: i64,
    /// Everything below is finished: where reading began, then as far as it went. -1 where that is not known.
    finished: i64,
    /// Mean size of the messages of the last read; 0 before the first.
    message_bytes: u64,
    /// The consumer's position means something: no error came since the last message.
    position_is_trusted: bool,
}

impl<Q: Queue> Assigned<Q> {
    /// A new epoch that begins at `start`.
    pub fn new(
        start: &Start,
        queue: Q,
        tenure: Tenure,
        settings: &PollerSettings,
        ready: &Arc<ReadySet>,
    ) -> Self {
        let tracker = Tracker::new(settings.in_memory_max_per_partition.now());
        let origin = Origin::new(start.partition, tracker.ring().clone(), ready.clone());
        Self {
            partition: start.partition,
            origin: Arc::new(origin),
            tracker,
            queue,
            held: VecDeque::new(),
            // A log that was cut off below what was committed begins there, and that is committed: else the next owner
            // would pass over what is written in between.
            committed: start
                .committed
                .filter(|committed| start.stopped || *committed <= start.offset)
                .unwrap_or(-1),
            stopped: start.stopped,
            skips_gap: false,
            cut_at: None,
            ground: Ground::of(start),
            may_write: true,
            tenure,
            end_at_start: start.end,
            // What is gone below the start of one that stands still is not finished: somebody has to decide.
            finished: match start.stopped {
                true => start.committed.unwrap_or(-1),
                false => start.offset,
            },
            message_bytes: 0,
            position_is_trusted: false,
        }
    }

    /// Whether a message of that many bytes may come into memory. One message always may.
    pub fn has_room(tracker: &Tracker, bytes: u64, share: u64) -> bool {
        tracker.in_flight() == 0 || (tracker.free() > 0 && tracker.bytes() + bytes <= share)
    }

    /// How many messages to read: as many as probably find room, as those that don't are in memory and in no limit.
    pub fn readable(&self, share: u64) -> usize {
        let (tracker, size) = (&self.tracker, self.message_bytes.max(1));
        if !Self::has_room(tracker, size, share) {
            return 0;
        }
        let by_bytes = share.saturating_sub(tracker.bytes()) / size;
        usize::try_from(tracker.free().min(by_bytes.max(1))).unwrap_or(usize::MAX)
    }

    /// Whether there is no room for another message, so that a completion will wake the poller.
    pub fn waits_for_room(&mut self, share: u64) -> bool {
        let size = self.message_bytes.max(1);
        self.tracker
            .wait_for_room(|tracker| Self::has_room(tracker, size, share))
    }

    /// So many messages with so many bytes were received.
    pub fn has_read(&mut self, messages: u64, bytes: u64) {
        self.message_bytes = bytes.checked_div(messages).unwrap_or(self.message_bytes);
    }

    /// A message was received: the consumer's position is its offset + 1.
    pub fn received_message(&mut self, offset: i64, leader_epoch: i32) {
        let offset = offset + 1;
        self.ground.read_up_to(OffsetAndEpoch {
            offset,
            leader_epoch,
        });
        self.position_is_trusted = true;
    }

    /// An error was received in place of a message: the consumer's position may have moved past what was not read.
    pub fn received_error(&mut self) {
        self.position_is_trusted = false;
    }

    /// The consumer's position. It counts as finished when nothing is in memory.
    pub fn reached(&mut self, position: OffsetAndEpoch) {
        self.tracker.advance();
        if self.position_is_trusted && self.tracker.in_flight() == 0 && self.held.is_empty() {
            self.finished = self.finished.max(position.offset);
            self.ground.read_up_to(position);
        }
    }

    /// The log was cut off there, and is to be read from there on: what was finished behind it is gone.
    pub fn goes_back_to(&mut self, cut: i64) {
        self.cut_at = Some(cut);
    }

    /// Everything below this offset is finished.
    pub fn finished(&self) -> i64 {
        let watermark = self.tracker.watermark().unwrap_or(self.finished);
        let finished = if self.tracker.in_flight() == 0 {
            watermark.max(self.finished)
        } else {
            watermark
        };
        self.cut_at.map_or(finished, |cut| finished.min(cut))
    }

    /// The last commit did not arrive.
    pub fn commit_again(&mut self) {
        self.committed = -1;
    }

    /// Gives the epoch up.
    pub fn into_dead(self, budget: &Budget) -> DeadEpoch {
        self.origin.kill();
        let bytes = self.tracker.bytes();
        budget.dead_bytes.fetch_add(bytes, Ordering::Relaxed);
        DeadEpoch {
            origin: self.origin,
            bytes,
        }
    }

    /// Shows how far the partition is. Before the first fetch, and where nothing is fetched, its lag is that of the start: 0
    /// would say that all is done.
    pub fn update_gauges(&self, gauges: &PartitionRecorder, end_offset: Option<i64>) {
        let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        gauges
            .in_memory_messages
            .set(number(self.tracker.in_flight()));
        gauges.in_memory_bytes.set(number(self.tracker.bytes()));
        gauges.watermark.set(self.finished());
        gauges
            .end_offset
            .set(end_offset.unwrap_or(self.end_at_start));
        gauges
            .last_applied_timestamp_ms
            .set(self.tracker.applied_timestamp_ms().max(0));
        let oldest = self.tracker.oldest();
        gauges
            .oldest_timestamp_ms
            .set(oldest.map_or(0, |claim| claim.timestamp_ms.max(0)));
        gauges
            .oldest_dispatched_ms
            .set(oldest.map_or(0, |claim| claim.dispatched_ms));
    }
}
