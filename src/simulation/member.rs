//! The group's member as its poller sees it: events, queues, commits. Reads the simulated logs and asks the simulated
//! coordinator.

use super::group::Reader;
use super::session::Turns;
use super::topic::{Entry, Log, Update};
use super::world::{Met, Shared, World};
use crate::clock;
use crate::ids::{OffsetAndEpoch, Partition};
use crate::kafka::consumer::{Commit, CommitError, Event};
use crate::kafka::member::{ClientError, ErrorCode, Member, Queue, Record};
use crate::ready::ReadySet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A member.
pub struct SimulatedMember<'t> {
    /// How others go on.
    pub turns: &'t Turns,
    /// Where it lives.
    pub world: Shared,
    /// Its number.
    pub member: usize,
    /// Its poller's marks.
    pub ready: Arc<ReadySet>,
}

/// A partition's queue.
pub struct SimulatedQueue {
    world: Shared,
    member: usize,
    partition: Partition,
    ready: Arc<ReadySet>,
}

/// What is read.
pub enum Read {
    /// A message.
    Message(Rc<Update>),
    /// An error, and where.
    Error(ErrorCode, i64),
    /// The log was cut off there.
    Cut(i64),
}

impl Member for SimulatedMember<'_> {
    type Queue = SimulatedQueue;

    fn poll_events(&self) -> Vec<Event> {
        self.turns.suspend(());
        let mut world = self.world.borrow_mut();
        let events = world.group.poll(self.member);
        for event in &events {
            world.tell(|| format!("member {} hears {event:?}", self.member));
            match event {
                Event::Revoked(_) => world.meet(Met::Revoked),
                Event::Lost(_) => world.meet(Met::Lost),
                _ => {}
            }
        }
        events
    }

    fn take_queue(&self, partition: Partition) -> SimulatedQueue {
        let mut world = self.world.borrow_mut();
        world.group.take_queue(self.member, partition.index());
        SimulatedQueue {
            world: self.world.clone(),
            member: self.member,
            partition,
            ready: self.ready.clone(),
        }
    }

    fn assign(&self, starts: &[(Partition, OffsetAndEpoch)]) -> Result<(), ClientError> {
        let mut world = self.world.borrow_mut();
        world.tell(|| format!("member {} begins {starts:?}", self.member));
        let leaders: Vec<i32> = world.topic.logs.iter().map(|log| log.epoch).collect();
        world.group.assign(self.member, starts, &leaders);
        Ok(())
    }

    fn validate(&self, partition: Partition, from: OffsetAndEpoch) -> Result<(), ClientError> {
        let mut world = self.world.borrow_mut();
        world.tell(|| format!("member {} asks about {partition:?} {from:?}", self.member));
        world.meet(Met::CutInDoubt);
        if world.chance.strikes(3) {
            return Err(ClientError::Seek("it has not begun yet".to_owned()));
        }
        world.group.validate(self.member, partition, from);
        Ok(())
    }

    fn awaits_answer(&self) -> bool {
        self.world.borrow().group.awaits_answer(self.member)
    }

    fn unassign(&self, partitions: &[Partition]) -> Result<(), ClientError> {
        let world = &mut *self.world.borrow_mut();
        world.tell(|| format!("member {} gives up {partitions:?}", self.member));
        for partition in partitions {
            let begun = &world.group.members[&self.member].begun;
            let next = begun.get(&partition.index()).and_then(|reader| reader.next);
            let (truth, logs) = (&world.truth, (&world.topic, &world.rules));
            if next.is_some_and(|next| truth.has_open_below(logs, partition.index(), next)) {
                world.meet(Met::GivenUpInFlight);
            }
        }
        world.group.unassign(self.member, partitions);
        Ok(())
    }

    fn commit(&self, commits: &[Commit]) -> Result<(), CommitError> {
        let world = &mut *self.world.borrow_mut();
        world.tell(|| format!("member {} commits {commits:?}", self.member));
        for commit in commits {
            let logs = (&world.topic, &world.rules);
            world
                .truth
                .check_commit(logs, commit.partition.index(), commit.place);
        }
        world.group.send_commit(self.member, commits);
        Ok(())
    }

    fn has_open_commits(&self) -> bool {
        self.world.borrow().group.has_open_commits(self.member)
    }

    fn commit_and_wait(&self, commits: &[Commit], within: Duration) -> Result<(), CommitError> {
        let deadline = clock::now() + within;
        let earlier = self.await_results(deadline);
        if self.has_open_commits() {
            return earlier;
        }
        self.commit(commits)?;
        earlier.and(self.await_results(deadline))
    }

    fn positions(&self) -> Result<Vec<(Partition, OffsetAndEpoch)>, ClientError> {
        let world = self.world.borrow();
        let begun = world.group.members[&self.member].begun.iter();
        let number = |at: usize| Partition(i32::try_from(at).expect("few"));
        let positions = begun.filter_map(|(at, reader)| Some((number(*at), reader.position?)));
        Ok(positions.collect())
    }

    fn end_offset(&self, partition: Partition) -> Option<i64> {
        Some(self.world.borrow().topic.logs[partition.index()].end())
    }

    fn close(self) {
        let mut world = self.world.borrow_mut();
        world.meet(Met::ClosedCleanly);
        world.group.leave(self.member);
    }
}

impl SimulatedMember<'_> {
    fn await_results(&self, deadline: Instant) -> Result<(), CommitError> {
        loop {
            if let Some(result) = self.world.borrow_mut().group.commit_results(self.member) {
                return result;
            }
            if clock::now() >= deadline {
                return Err(CommitError::unanswered());
            }
            self.turns.suspend(());
        }
    }
}

impl Queue for SimulatedQueue {
    type Record = Read;

    fn read(&mut self, most: usize) -> impl ExactSizeIterator<Item = Read> {
        let at = self.partition.index();
        let (read, is_empty) = self.world.borrow_mut().read(self.member, at, most);
        if !is_empty {
            // The queue was empty only for a moment.
            self.ready.mark(self.partition);
        }
        read.into_iter()
    }
}

impl World {
    /// Reads a member's partition: what comes, and whether there is no more.
    fn read(&mut self, member: usize, partition: usize, most: usize) -> (Vec<Read>, bool) {
        let most = if self.chance.once_in(3) {
            self.chance.of(0..=most)
        } else {
            most
        };
        let strikes = self.chance.strikes(60);
        let (log, chance) = (&self.topic.logs[partition], &mut self.chance);
        let membership = self.group.members.get_mut(&member).expect("it is there");
        let reader = membership
            .begun
            .get_mut(&partition)
            .expect("a queue is the member's");
        let Some(mut next) = reader.next.filter(|_| !reader.broken) else {
            return (Vec::new(), true);
        };
        let (is_asked, error) = (reader.leader.is_none(), error_at(reader, log));
        if let Some(error) = error {
            if is_asked && matches!(error, Read::Cut(_)) {
                self.meet(Met::CutFoundLate);
            }
            self.meet(Met::Stopped);
            return (vec![error], true);
        }
        let mut read = Vec::new();
        let mut gaps = [0; 2];
        while let Some(entry) = log.at(next) {
            match entry {
                Entry::Message(_) if read.len() >= most => break,
                Entry::Message(update) => read.push(Read::Message(update.clone())),
                Entry::Aborted => gaps[0] += 1,
                Entry::Nothing => gaps[1] += 1,
            }
            next += 1;
        }
        if reader.next != Some(next) {
            reader.leader_epoch = log.epoch_below(next);
        }
        reader.next = Some(next);
        if !read.is_empty() {
            reader.position = Some(OffsetAndEpoch {
                offset: next,
                leader_epoch: reader.leader_epoch,
            });
        }
        let is_empty = next >= log.end();
        if strikes {
            let place = chance.of(0..=read.len());
            let offset = reader.position.map_or(0, |position| position.offset);
            read.insert(
                place,
                Read::Error(ErrorCode::BrokerTransportFailure, offset),
            );
            self.meet(Met::FetchError);
        }
        self.met[Met::Aborted as usize] += gaps[0];
        self.met[Met::Gap as usize] += gaps[1];
        self.count_deliveries(&read);
        self.tell(|| {
            let offsets: Vec<i64> = read.iter().map(Record::offset).collect();
            format!("member {member} reads {offsets:?} of partition {partition}")
        });
        (read, is_empty)
    }

    fn count_deliveries(&mut self, read: &[Read]) {
        for record in read {
            if let Read::Message(update) = record {
                let fate = &mut self.truth.fates[update.number];
                fate.delivered += 1;
                if fate.delivered > 1 {
                    self.met[Met::DuplicateDelivery as usize] += 1;
                }
            }
        }
    }
}

/// What the client finds wrong where it is to read on: it asks a leader that is new to it, and the broker has no such offset.
fn error_at(reader: &mut Reader, log: &Log) -> Option<Read> {
    let next = reader.next?;
    let must_ask = reader.leader != Some(log.epoch) && reader.leader_epoch >= 0;
    let ends = log.end_of(reader.leader_epoch);
    let is_cut = must_ask && ends < next;
    if !is_cut && (log.first..=log.end()).contains(&next) {
        reader.leader = Some(log.epoch);
        return None;
    }
    // Its position may be past what was not read.
    let (offset, leader_epoch) = (log.end().max(next), reader.leader_epoch);
    reader.broken = true;
    reader.position = Some(OffsetAndEpoch {
        offset,
        leader_epoch,
    });
    Some(match is_cut {
        true => Read::Cut(ends),
        false => Read::Error(ErrorCode::AutoOffsetReset, next),
    })
}

impl Record for Read {
    fn error(&self) -> Option<ErrorCode> {
        match self {
            Self::Message(_) => None,
            Self::Error(error, _) => Some(*error),
            Self::Cut(_) => Some(ErrorCode::LogTruncation),
        }
    }

    fn offset(&self) -> i64 {
        match self {
            Self::Message(update) => update.at.2,
            Self::Error(_, offset) | Self::Cut(offset) => *offset,
        }
    }

    fn key(&self) -> Option<&[u8]> {
        match self {
            Self::Message(update) => update.key.as_deref(),
            Self::Error(..) | Self::Cut(_) => None,
        }
    }

    fn value(&self) -> Option<&[u8]> {
        match self {
            Self::Message(update) => update.value.as_deref(),
            Self::Error(..) | Self::Cut(_) => None,
        }
    }

    fn leader_epoch(&self) -> i32 {
        match self {
            Self::Message(update) => update.at.1,
            Self::Error(..) | Self::Cut(_) => -1,
        }
    }

    fn timestamp_ms(&self) -> i64 {
        match self {
            Self::Message(update) => update.timestamp_ms(),
            Self::Error(..) | Self::Cut(_) => -1,
        }
    }

    fn for_each_header(&self, mut each: impl FnMut(&[u8], Option<&[u8]>)) {
        if let Self::Message(update) = self {
            each(
                NUMBER.as_bytes(),
                Some(update.number.to_string().as_bytes()),
            );
        }
    }

    fn cut_at(&self) -> Option<i64> {
        match self {
            Self::Cut(at) => Some(*at),
            Self::Message(_) | Self::Error(..) => None,
        }
    }
}

/// The header with the update's number, by which its dead letter is known.
pub const NUMBER: &str = "number";
