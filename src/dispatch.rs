//! From the poller to the lanes: a message gets a slot, its bytes are copied into the open batch of its row's lane, and
//! batches are flushed at the end of each round.
//!
//! The batches' own queues, and how their number changes, are the room `lanes`.

use crate::commit::{Ring, Slot};
use crate::dead::Receipt;
use crate::fault;
use crate::ids::{Partition, ShardIndex, SubscriptionId};
use crate::lanes::change::{Changer, Changes};
use crate::lanes::{self, Lane, LaneReceiver, Post, lane_of};
use crate::observe::recorder::WorkerRecorder;
use crate::ready::ReadySet;
use std::{ops::Range, sync::Arc, time::Instant};

/// A recycled batch keeps at most this much memory; a burst of large messages must not stay resident.
const KEPT_BYTES_MAX: usize = 1 << 18;
/// One assigned partition and epoch, as a message carries it: where its slot is given back.
#[derive(Debug)]
pub struct Origin {
    /// The partition.
    pub partition: Partition,
    ring: Arc<Ring>,
    ready: Arc<ReadySet>,
}

impl Origin {
    /// For the partition whose slots are in `ring`, with the poller that sleeps at `ready`.
    pub fn new(partition: Partition, ring: Arc<Ring>, ready: Arc<ReadySet>) -> Self {
        Self {
            partition,
            ring,
            ready,
        }
    }

    /// Finishes messages, and wakes the poller if it waits for room.
    pub fn complete(&self, slots: impl IntoIterator<Item = Slot>) {
        if self.ring.complete(slots) {
            self.ready.mark(self.partition);
        }
    }

    /// Whether the partition is still ours.
    pub fn is_live(&self) -> bool {
        self.ring.is_live()
    }

    /// Says that the partition is no longer ours.
    pub fn kill(&self) {
        self.ring.kill();
    }
}

/// The slot of a message that left its batch: completed when its dead letter is in Kafka.
pub struct OpenSlot {
    origin: Arc<Origin>,
    slot: Slot,
}

impl OpenSlot {
    /// The slot of a message of that partition and epoch.
    pub fn boxed(origin: Arc<Origin>, slot: Slot) -> Box<Self> {
        Box::new(Self { origin, slot })
    }
}

impl Receipt for OpenSlot {
    fn delivered(self: Box<Self>) {
        fault::crash_point("after-dead-letter");
        self.origin.complete([self.slot]);
    }
}

/// A message in a batch.
#[derive(Debug)]
pub struct Row {
    /// The right to finish it.
    pub slot: Slot,
    /// Its leader epoch; -1 for none.
    pub leader_epoch: i32,
    /// Its offset.
    pub offset: i64,
    /// Its Kafka timestamp in milliseconds since 1970; -1 for none.
    pub timestamp_ms: i64,
    /// The subscription that its key names.
    pub subscription: SubscriptionId,
    /// Where its bytes begin in the batch: key, value, headers.
    start: u32,
    key_length: u32,
    value_length: u32,
    headers_length: u32,
}

impl Row {
    /// The key as it was spelled.
    pub fn key<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        &bytes[self.range(0, self.key_length)]
    }

    /// The value.
    pub fn value<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        &bytes[self.range(self.key_length, self.value_length)]
    }

    /// The headers, as [`Headers`] wrote them.
    pub fn headers<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        &bytes[self.range(self.key_length + self.value_length, self.headers_length)]
    }

    /// Whether it has headers.
    pub fn has_headers(&self) -> bool {
        self.headers_length > 0
    }

    /// Bytes of key, value and headers.
    pub fn length(&self) -> u32 {
        self.key_length + self.value_length + self.headers_length
    }

    fn range(&self, skip: u32, length: u32) -> Range<usize> {
        let start = (self.start + skip) as usize;
        start..start + length as usize
    }
}

/// Messages in a row that came from one partition in one round.
#[derive(Debug)]
pub struct Segment {
    /// Where their slots are given back.
    pub origin: Arc<Origin>,
    /// When they were dispatched.
    pub dispatched: Instant,
    /// Which rows of the batch they are.
    pub rows: Range<usize>,
}

/// Messages of one lane: their bytes in one buffer, rows as spans of it.
#[derive(Debug, Default)]
pub struct Batch {
    /// Keys, values and headers.
    pub bytes: Vec<u8>,
    /// The messages, in the order of dispatch: of one partition, in the order of their offsets.
    pub rows: Vec<Row>,
    /// The rows by where they came from.
    pub segments: Vec<Segment>,
}

/// A message that is about to be dispatched.
#[derive(Debug)]
pub struct Arrival<'a> {
    /// The row that it is for.
    pub subscription: SubscriptionId,
    /// Its offset.
    pub offset: i64,
    /// Its leader epoch; -1 for none.
    pub leader_epoch: i32,
    /// Its Kafka timestamp; -1 for none.
    pub timestamp_ms: i64,
    /// Its key as it was spelled.
    pub key: &'a [u8],
    /// Its value.
    pub value: &'a [u8],
    /// Its headers.
    pub headers: &'a Headers,
}

/// A message's headers in one buffer: for each its name's length, its value's length (-1 for null), name, value.
#[derive(Debug, Default)]
pub struct Headers(Vec<u8>);

impl Headers {
    /// Empties it and keeps its memory.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Appends a header.
    pub fn push(&mut self, name: &[u8], value: Option<&[u8]>) {
        let length =
            |bytes: &[u8]| i32::try_from(bytes.len()).expect("a message is far below 2 GiB");
        self.0.extend(length(name).to_le_bytes());
        self.0.extend(value.map_or(-1, length).to_le_bytes());
        self.0.extend(name);
        self.0.extend(value.unwrap_or_default());
    }

    /// Bytes of all headers, lengths included.
    pub fn length(&self) -> usize {
        self.0.len()
    }

    /// Name and value of each header.
    pub fn to_vec(&self) -> Vec<(String, Option<Box<[u8]>>)> {
        Self::read(&self.0)
    }

    /// The value of the first header of that name that is not null.
    pub fn get(&self, name: &[u8]) -> Option<&[u8]> {
        Self::find(&self.0, name)
    }

    /// The same in what was written.
    pub fn find<'a>(bytes: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
        let mut all = Self::each(bytes);
        all.find_map(|(own, value)| value.filter(|_| own == name))
    }

    /// Reads back what was written: name and value of each header.
    pub fn read(bytes: &[u8]) -> Vec<(String, Option<Box<[u8]>>)> {
        let owned = |(name, value): (&[u8], Option<&[u8]>)| {
            let name = String::from_utf8_lossy(name).into_owned();
            (name, value.map(Into::into))
        };
        Self::each(bytes).map(owned).collect()
    }

    fn each(mut bytes: &[u8]) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        let length = |at: &[u8]| i32::from_le_bytes(at[..4].try_into().expect("4 bytes"));
        std::iter::from_fn(move || {
            if bytes.is_empty() {
                return None;
            }
            let name_length = usize::try_from(length(bytes)).expect("a name has a length");
            let value_length = usize::try_from(length(&bytes[4..])).ok();
            let (name, rest) = bytes[8..].split_at(name_length);
            let (value, rest) = rest.split_at(value_length.unwrap_or(0));
            bytes = rest;
            Some((name, value_length.map(|_| value)))
        })
    }
}

impl Batch {
    fn push(
        &mut self,
        origin: &Arc<Origin>,
        dispatched: Instant,
        slot: Slot,
        arrival: &Arrival<'_>,
    ) {
        let length =
            |bytes: &[u8]| u32::try_from(bytes.len()).expect("a message is far below 4 GiB");
        let start = length(&self.bytes);
        self.bytes.extend_from_slice(arrival.key);
        self.bytes.extend_from_slice(arrival.value);
        self.bytes.extend_from_slice(&arrival.headers.0);
        self.rows.push(Row {
            slot,
            leader_epoch: arrival.leader_epoch,
            offset: arrival.offset,
            timestamp_ms: arrival.timestamp_ms,
            subscription: arrival.subscription,
            start,
            key_length: length(arrival.key),
            value_length: length(arrival.value),
            headers_length: length(&arrival.headers.0),
        });
        self.extend_segment(origin, dispatched);
    }

    /// Takes over a row of another batch, whose bytes are given.
    pub fn adopt(&mut self, origin: &Arc<Origin>, dispatched: Instant, row: Row, bytes: &[u8]) {
        let start = length(&self.bytes);
        self.bytes
            .extend_from_slice(&bytes[row.range(0, row.length())]);
        self.rows.push(Row { start, ..row });
        self.extend_segment(origin, dispatched);
    }

    fn extend_segment(&mut self, origin: &Arc<Origin>, dispatched: Instant) {
        match self.segments.last_mut() {
            Some(last) if Arc::ptr_eq(&last.origin, origin) && last.dispatched == dispatched => {
                last.rows.end += 1;
            }
            _ => {
                let end = self.rows.len();
                self.segments.push(Segment {
                    origin: origin.clone(),
                    dispatched,
                    rows: end - 1..end,
                });
            }
        }
    }

    /// An empty batch with room for as much: growing it bit by bit would copy it several times. Rows vary in size, and a little
    /// too few bytes would double them.
    pub(crate) fn as_large_again(&self) -> Self {
        Self {
            bytes: Vec::with_capacity(self.bytes.len() + self.bytes.len() / 16),
            rows: Vec::with_capacity(self.rows.len()),
            segments: Vec::with_capacity(self.segments.len()),
        }
    }

    /// Gives memory back that it doesn't need, if that is worth a copy.
    pub(crate) fn shrink(&mut self) {
        if self.bytes.capacity() > self.bytes.len() / 8 * 9 {
            self.bytes.shrink_to_fit();
        }
        if self.rows.capacity() > self.rows.len() / 8 * 9 {
            self.rows.shrink_to_fit();
        }
        self.segments.shrink_to_fit();
    }

    /// Empties it for use again, and gives memory beyond the usual back.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(KEPT_BYTES_MAX);
        self.rows.clear();
        self.segments.clear();
    }
}

fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("a batch is far below 4 GiB")
}

/// The lanes of one core group, by shard. Owned by the poller.
#[derive(Debug)]
pub struct Dispatch {
    shards: Vec<Vec<Lane>>,
    /// A lane's open batch is sent when it has this many rows.
    batch_rows_max: usize,
    changes: Changes,
}

impl Dispatch {
    /// Lanes for these workers, shard by shard, and the workers' ends in the same order. A batch is sent when it has
    /// `batch_rows_max` rows, or at the next flush.
    pub fn new(
        workers: &[Vec<Arc<WorkerRecorder>>],
        batch_rows_max: usize,
    ) -> (Self, Vec<Vec<(LaneReceiver, Post)>>) {
        let lane = |recorder: &Arc<WorkerRecorder>| {
            let (lane, receiver, post) = lanes::lane(recorder);
            (lane, (receiver, post))
        };
        let (shards, ends) = workers
            .iter()
            .map(|shard| shard.iter().map(lane).unzip())
            .unzip();
        let dispatch = Self {
            shards,
            batch_rows_max,
            changes: Changes::default(),
        };
        (dispatch, ends)
    }

    /// Copies a message into the open batch of its row's lane.
    pub fn dispatch(
        &mut self,
        shard: ShardIndex,
        origin: &Arc<Origin>,
        dispatched: Instant,
        slot: Slot,
        arrival: &Arrival<'_>,
    ) {
        let lanes = &mut self.shards[shard.0];
        let number = lane_of(arrival.subscription, lanes.len());
        let lane = &mut lanes[number];
        lane.open.push(origin, dispatched, slot, arrival);
        if lane.open.rows.len() >= self.batch_rows_max {
            lane.flush();
        }
    }

    /// Sends every open batch: nothing may wait in one while the poller sleeps.
    pub fn flush(&mut self) {
        for lane in self.shards.iter_mut().flatten() {
            if !lane.open.rows.is_empty() {
                lane.flush();
            }
        }
    }

    /// For those who change the number of lanes while running.
    pub fn changer(&self) -> Changer {
        self.changes.changer()
    }

    /// Goes on with a change of lanes that was asked for. To be called often: workers may stand still meanwhile.
    pub fn change_lanes(&mut self) {
        self.changes.go_on(&mut self.shards, self.batch_rows_max);
    }

    /// Whether workers stand still until the change goes on.
    pub fn is_changing(&self) -> bool {
        self.changes.is_under_way()
    }

    /// From now on the lanes stay as they are.
    pub fn change_no_more(&mut self) {
        self.changes.end(&self.shards);
    }
}

#[cfg(all(test, not(feature = "loom")))]
#[path = "dispatch_tests.rs"]
mod tests;
