//! What a poller asks of Kafka, apart from how librdkafka does it: the simulation puts a group of its own in its place. Each
//! call here is the one of the same name there, where its doc is.

use super::consumer::{Commit, CommitError, Event, GroupConsumer, cut_in};
use super::native::{Message, PartitionQueue};
use crate::ids::{OffsetAndEpoch, Partition};
use std::time::Duration;

pub use rdkafka::error::KafkaError as ClientError;
pub use rdkafka::types::RDKafkaErrorCode as ErrorCode;

/// A member of the consumer group: [`GroupConsumer`].
pub trait Member {
    /// One partition's queue.
    type Queue: Queue;

    /// See [`GroupConsumer::poll_events`].
    fn poll_events(&self) -> Vec<Event>;
    /// See [`GroupConsumer::take_queue`].
    fn take_queue(&self, partition: Partition) -> Self::Queue;
    /// See [`GroupConsumer::assign`].
    fn assign(&self, starts: &[(Partition, OffsetAndEpoch)]) -> Result<(), ClientError>;
    /// See [`GroupConsumer::validate`].
    fn validate(&self, partition: Partition, from: OffsetAndEpoch) -> Result<(), ClientError>;
    /// See [`GroupConsumer::awaits_answer`].
    fn awaits_answer(&self) -> bool;
    /// See [`GroupConsumer::unassign`].
    fn unassign(&self, partitions: &[Partition]) -> Result<(), ClientError>;
    /// See [`GroupConsumer::commit`].
    fn commit(&self, commits: &[Commit]) -> Result<(), CommitError>;
    /// See [`GroupConsumer::has_open_commits`].
    fn has_open_commits(&self) -> bool;
    /// See [`GroupConsumer::commit_and_wait`].
    fn commit_and_wait(&self, commits: &[Commit], within: Duration) -> Result<(), CommitError>;
    /// See [`GroupConsumer::positions`].
    fn positions(&self) -> Result<Vec<(Partition, OffsetAndEpoch)>, ClientError>;
    /// See [`GroupConsumer::end_offset`].
    fn end_offset(&self, partition: Partition) -> Option<i64>;
    /// See [`GroupConsumer::close`].
    fn close(self);
}

/// The queue of one partition: [`PartitionQueue`].
pub trait Queue {
    /// What is read.
    type Record: Record;

    /// See [`PartitionQueue::read`].
    fn read(&mut self, most: usize) -> impl ExactSizeIterator<Item = Self::Record>;
}

/// A message, or an error in its place: [`Message`].
pub trait Record {
    /// See [`Message::error`].
    fn error(&self) -> Option<ErrorCode>;
    /// See [`Message::offset`].
    fn offset(&self) -> i64;
    /// See [`Message::key`].
    fn key(&self) -> Option<&[u8]>;
    /// See [`Message::value`].
    fn value(&self) -> Option<&[u8]>;
    /// See [`Message::leader_epoch`].
    fn leader_epoch(&self) -> i32;
    /// See [`Message::timestamp_ms`].
    fn timestamp_ms(&self) -> i64;
    /// See [`Message::for_each_header`].
    fn for_each_header(&self, each: impl FnMut(&[u8], Option<&[u8]>));
    /// Of an error: where the log was cut off, if that is what it tells.
    fn cut_at(&self) -> Option<i64>;
}

impl Member for GroupConsumer {
    type Queue = PartitionQueue;

    fn poll_events(&self) -> Vec<Event> {
        self.poll_events()
    }
    fn take_queue(&self, partition: Partition) -> PartitionQueue {
        self.take_queue(partition)
    }
    fn assign(&self, starts: &[(Partition, OffsetAndEpoch)]) -> Result<(), ClientError> {
        self.assign(starts)
    }
    fn validate(&self, partition: Partition, from: OffsetAndEpoch) -> Result<(), ClientError> {
        self.validate(partition, from)
    }
    fn awaits_answer(&self) -> bool {
        self.awaits_answer()
    }
    fn unassign(&self, partitions: &[Partition]) -> Result<(), ClientError> {
        self.unassign(partitions)
    }
    fn commit(&self, commits: &[Commit]) -> Result<(), CommitError> {
        self.commit(commits)
    }
    fn has_open_commits(&self) -> bool {
        self.has_open_commits()
    }
    fn commit_and_wait(&self, commits: &[Commit], within: Duration) -> Result<(), CommitError> {
        self.commit_and_wait(commits, within)
    }
    fn positions(&self) -> Result<Vec<(Partition, OffsetAndEpoch)>, ClientError> {
        self.positions()
    }
    fn end_offset(&self, partition: Partition) -> Option<i64> {
        self.end_offset(partition)
    }
    fn close(self) {
        self.close();
    }
}

impl Queue for PartitionQueue {
    type Record = Message;

    fn read(&mut self, most: usize) -> impl ExactSizeIterator<Item = Message> {
        self.read(most)
    }
}

impl Record for Message {
    fn error(&self) -> Option<ErrorCode> {
        self.error()
    }
    fn offset(&self) -> i64 {
        self.offset()
    }
    fn key(&self) -> Option<&[u8]> {
        self.key()
    }
    fn value(&self) -> Option<&[u8]> {
        self.value()
    }
    fn leader_epoch(&self) -> i32 {
        self.leader_epoch()
    }
    fn timestamp_ms(&self) -> i64 {
        self.timestamp_ms()
    }
    fn for_each_header(&self, each: impl FnMut(&[u8], Option<&[u8]>)) {
        self.for_each_header(each);
    }
    fn cut_at(&self) -> Option<i64> {
        cut_in(&String::from_utf8_lossy(self.value()?))
    }
}
