//! The group consumer: membership, rebalances as events, partition queues, explicit start offsets, commits.
//!
//! Runs on its poller's thread only. Callbacks of librdkafka come while that thread polls; they record an event and return,
//! and the poller answers it when it is ready: librdkafka waits for `assign` or `unassign` meanwhile, so a revoked partition
//! can be drained while the others go on.

use super::bootstrap::Bootstrap;
use super::leader_epochs::{leader_epochs, set_leader_epochs};
use super::membership::Membership;
use super::native::{EventQueue, PartitionQueue, cached_end_offset};
use crate::config::checked::Kafka;
use crate::ids::{Note, OffsetAndEpoch, Partition};
use crate::observe::recorder::PartitionAlarm;
use crate::ready::ReadySet;
use crate::sync::{AtomicBool, AtomicUsize, Ordering};
use parking_lot::Mutex;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList, TopicPartitionListElem};
use rdkafka::types::RDKafkaRespErr;
use std::{cell::Cell, ffi::CString, mem, sync::Arc, time::Duration, time::Instant};

/// librdkafka's own thread answers at once, unless it ends.
const SEEK_TIMEOUT: Duration = Duration::from_secs(1);
/// While a commit is waited for, its result is looked for this often; it mostly wakes us.
const COMMIT_LOOK: Duration = Duration::from_millis(20);

/// What is committed of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Which one.
    pub partition: Partition,
    /// Everything below is finished.
    pub place: OffsetAndEpoch,
    /// What stands beside it.
    pub note: Note,
}

/// What the group or the client tells the poller.
#[derive(Debug)]
pub enum Event {
    /// These partitions are ours once they are assigned with their start offsets.
    Assigned(Vec<Partition>),
    /// These are to be given up, once drained.
    Revoked(Vec<Partition>),
    /// These belong to somebody else already.
    Lost(Vec<Partition>),
    /// An asynchronous commit came back: what the coordinator has now.
    Committed(Result<Vec<Commit>, CommitError>),
    /// The client told of an error; it goes on by itself.
    Error(KafkaError),
    /// Only a new client helps: why.
    Fatal(String),
}

/// Why a commit did not arrive.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct CommitError(KafkaError);

impl CommitError {
    /// What the coordinator answers to a member whose generation has passed.
    #[cfg(all(test, not(feature = "loom")))]
    pub(crate) fn stale() -> Self {
        Self(KafkaError::ConsumerCommit(
            RDKafkaErrorCode::IllegalGeneration,
        ))
    }

    /// What comes when no coordinator answers.
    #[cfg(all(test, not(feature = "loom")))]
    pub(crate) fn unanswered() -> Self {
        Self(KafkaError::ConsumerCommit(
            RDKafkaErrorCode::RequestTimedOut,
        ))
    }

    /// Whether it failed because the group rebalances: it succeeds afterwards.
    pub fn is_of_a_rebalance(&self) -> bool {
        matches!(
            self.0.rdkafka_error_code(),
            Some(
                RDKafkaErrorCode::RebalanceInProgress
                    | RDKafkaErrorCode::IllegalGeneration
                    | RDKafkaErrorCode::StaleMemberEpoch
            )
        )
    }
}

struct Context {
    events: Mutex<Vec<Event>>,
    /// Commits that were sent and have no result yet.
    commits_open: AtomicUsize,
    /// Set before the client is dropped: nobody answers events any more, so the callback does.
    closing: AtomicBool,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        super::client::log(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(error = %error, reason, "kafka client");
    }
}

impl ConsumerContext for Context {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        code: RDKafkaRespErr,
        list: &mut TopicPartitionList,
    ) {
        let partitions = list
            .elements()
            .iter()
            .map(|element| Partition(element.partition()))
            .collect();
        let event = if code == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            Event::Assigned(partitions)
        } else if consumer.assignment_lost() {
            Event::Lost(partitions)
        } else {
            Event::Revoked(partitions)
        };
        if !self.closing.load(Ordering::Acquire) {
            self.events.lock().push(event);
            return;
        }
        let answered = match event {
            Event::Assigned(_) => consumer.incremental_assign(list),
            _ => consumer.incremental_unassign(list),
        };
        if let Err(error) = answered {
            tracing::warn!(error = %error, "leaving the group");
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, offsets: &TopicPartitionList) {
        let result = match result {
            // Nothing to commit is no failure.
            Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::NoOffset)) => Ok(Vec::new()),
            Ok(()) => Ok(taken(offsets)),
            Err(error) => Err(CommitError(error)),
        };
        self.commits_open.fetch_sub(1, Ordering::Relaxed);
        self.events.lock().push(Event::Committed(result));
    }
}

/// The commits of a list that the coordinator took.
fn taken(offsets: &TopicPartitionList) -> Vec<Commit> {
    let elements = offsets.elements();
    let places = elements.iter().zip(places(offsets));
    let taken = places.filter(|(element, _)| element.error().is_ok());
    taken
        .filter_map(|(element, place)| {
            Some(Commit {
                partition: Partition(element.partition()),
                place: place?,
                note: Note::parse(element.metadata())?,
            })
        })
        .collect()
}

/// The offsets of a list with their leader epochs; `None` for those that are none.
fn places(list: &TopicPartitionList) -> Vec<Option<OffsetAndEpoch>> {
    let elements = list.elements();
    let elements = elements.iter().zip(leader_epochs(list));
    let places = elements.map(|(element, leader_epoch)| match element.offset() {
        Offset::Offset(offset) => Some(OffsetAndEpoch {
            offset,
            leader_epoch,
        }),
        _ => None,
    });
    places.collect()
}

/// What librdkafka waits for before the group can go on. It asks for one thing at a time.
enum Awaited {
    Assign,
    Unassign(Vec<Partition>),
}

/// One member of the consumer group.
pub struct GroupConsumer {
    // Dropped in this order: the queue handle before its client.
    events: EventQueue,
    client: Arc<BaseConsumer<Context>>,
    bootstrap: Bootstrap,
    topic: String,
    topic_c: CString,
    ready: Arc<ReadySet>,
    awaited: Cell<Option<Awaited>>,
}

impl GroupConsumer {
    /// Makes the client and joins the group. librdkafka's threads inherit the calling thread's cores.
    pub fn join(
        kafka: &Kafka,
        membership: &Membership,
        ready: Arc<ReadySet>,
    ) -> Result<Self, KafkaError> {
        let config = membership.settings(kafka);
        let context = Context {
            events: Mutex::default(),
            commits_open: AtomicUsize::new(0),
            closing: AtomicBool::new(false),
        };
        let client: Arc<BaseConsumer<Context>> = Arc::new(config.create_with_context(context)?);
        let events = EventQueue::of(&client, ready.clone());
        client.subscribe(&[&kafka.topic])?;
        let topic_c = CString::new(kafka.topic.as_str()).expect("a topic name holds no NUL");
        Ok(Self {
            events,
            client,
            bootstrap: Bootstrap::of(kafka),
            topic: kafka.topic.clone(),
            topic_c,
            ready,
            awaited: Cell::new(None),
        })
    }

    /// Serves the consumer queue until it is empty and hands over what was recorded. Also what keeps the membership alive.
    pub fn poll_events(&self) -> Vec<Event> {
        self.bootstrap.keep(self.client.client());
        // `poll` returns after each event, so None does not mean empty. The bound keeps a storm from starving the messages.
        for _ in 0..1000 {
            self.serve(Duration::ZERO);
            if self.events.len() == 0 {
                break;
            }
        }
        let events = mem::take(&mut *self.client.context().events.lock());
        for event in &events {
            match event {
                Event::Assigned(_) => self.awaited.set(Some(Awaited::Assign)),
                Event::Revoked(partitions) | Event::Lost(partitions) => {
                    self.awaited
                        .set(Some(Awaited::Unassign(partitions.clone())));
                }
                Event::Committed(_) | Event::Error(_) | Event::Fatal(_) => {}
            }
        }
        events
    }

    /// Serves one event of the consumer queue, waiting for it that long; what it tells is recorded.
    fn serve(&self, wait: Duration) {
        if let Some(Err(error)) = self.client.poll(wait) {
            let event = match self.client.client().fatal_error() {
                Some((_, why)) => Event::Fatal(why),
                None => Event::Error(error),
            };
            self.client.context().events.lock().push(event);
        }
    }

    /// Takes the partition's queue off the consumer's. Before [`assign`](Self::assign), at every assign.
    pub fn take_queue(&self, partition: Partition) -> PartitionQueue {
        PartitionQueue::take(&self.client, &self.topic_c, partition, self.ready.clone())
    }

    /// Fetching begins at these offsets. Also answers [`Event::Assigned`]: with those of its partitions whose beginning is
    /// known, maybe with none; the others follow.
    pub fn assign(&self, starts: &[(Partition, OffsetAndEpoch)]) -> Result<(), KafkaError> {
        let awaited = self.awaited.take();
        self.awaited
            .set(awaited.filter(|awaited| !matches!(awaited, Awaited::Assign)));
        self.client.incremental_assign(&self.list(starts)?)
    }

    /// Reads a partition that is assigned from there again, after the broker was asked whether its log was cut off below since.
    /// If it was, an error comes in place of the messages: [`cut_in`] tells where. What was read and is still in the queue
    /// does not come any more.
    pub fn validate(&self, partition: Partition, from: OffsetAndEpoch) -> Result<(), KafkaError> {
        let list = self.list(&[(partition, from)])?;
        let sought = self.client.seek_partitions(list, SEEK_TIMEOUT)?;
        sought
            .elements()
            .iter()
            .try_for_each(TopicPartitionListElem::error)
    }

    /// Whether the group waits for an answer, maybe to an event that nobody has seen yet. Whatever is unassigned then, librdkafka takes
    /// for it.
    pub fn awaits_answer(&self) -> bool {
        let awaited = self.awaited.take();
        let is_awaited = awaited.is_some();
        self.awaited.set(awaited);
        let events = self.client.context().events.lock();
        let mut events = events.iter();
        let is_question = |event: &Event| match event {
            Event::Assigned(_) | Event::Revoked(_) | Event::Lost(_) => true,
            Event::Committed(_) | Event::Error(_) | Event::Fatal(_) => false,
        };
        is_awaited || events.any(is_question)
    }

    /// Answers [`Event::Revoked`] and [`Event::Lost`]. Queues of these partitions must be dropped before.
    pub fn unassign(&self, partitions: &[Partition]) -> Result<(), KafkaError> {
        self.awaited.set(None);
        let assigned = self.client.assignment()?;
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for partition in partitions {
            // One that never began is not the client's, which would refuse to give it up.
            if assigned.find_partition(&self.topic, partition.0).is_some() {
                list.add_partition(&self.topic, partition.0);
            }
        }
        self.client.incremental_unassign(&list)
    }

    /// Sends the offsets to the group coordinator; the result comes as [`Event::Committed`].
    pub fn commit(&self, commits: &[Commit]) -> Result<(), CommitError> {
        let places: Vec<_> = commits
            .iter()
            .map(|commit| (commit.partition, commit.place))
            .collect();
        let list = self.list(&places).map_err(CommitError)?;
        for (mut element, commit) in list.elements().into_iter().zip(commits) {
            element.set_metadata(commit.note.to_string());
        }
        self.events
            .commit(&self.client, &list)
            .map_err(|code| CommitError(KafkaError::ConsumerCommit(code)))?;
        let open = &self.client.context().commits_open;
        open.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Whether a commit was sent and has no result yet.
    pub fn has_open_commits(&self) -> bool {
        self.client.context().commits_open.load(Ordering::Relaxed) > 0
    }

    /// Waits for the results of earlier commits, then commits and waits for that; at most so long altogether: librdkafka's own
    /// synchronous commit waits for a coordinator that is away until the session is over, or longer. At revoke and close only.
    pub fn commit_and_wait(&self, commits: &[Commit], within: Duration) -> Result<(), CommitError> {
        let deadline = crate::clock::now() + within;
        let earlier = self.await_results(deadline);
        if self.has_open_commits() {
            return earlier;
        }
        self.commit(commits)?;
        earlier.and(self.await_results(deadline))
    }

    /// Waits until no commit is open: the last error among the results.
    fn await_results(&self, deadline: Instant) -> Result<(), CommitError> {
        let mut result = Ok(());
        loop {
            let mut events = self.client.context().events.lock();
            for event in events.extract_if(.., |event| matches!(event, Event::Committed(_))) {
                if let Event::Committed(Err(error)) = event {
                    result = Err(error);
                }
            }
            drop(events);
            if !self.has_open_commits() {
                return result;
            }
            if crate::clock::now() >= deadline {
                let code = RDKafkaErrorCode::OperationTimedOut;
                return Err(CommitError(KafkaError::ConsumerCommit(code)));
            }
            self.serve(COMMIT_LOOK);
        }
    }

    /// The offset behind the last message read from each assigned partition, and its leader epoch; past control records too, of
    /// which librdkafka tells none (-1). A partition of which nothing was read yet is left out.
    pub fn positions(&self) -> Result<Vec<(Partition, OffsetAndEpoch)>, KafkaError> {
        let list = self.client.position()?;
        let positions = list.elements();
        let known = positions
            .iter()
            .zip(places(&list))
            .filter_map(|(at, place)| Some((Partition(at.partition()), place?)));
        Ok(known.collect())
    }

    /// The partition's end offset as of its last fetch; `None` before the first.
    pub fn end_offset(&self, partition: Partition) -> Option<i64> {
        cached_end_offset(&self.client, &self.topic_c, partition)
    }

    /// For the thread that looks offsets up.
    pub fn lookup(&self) -> Lookup {
        Lookup {
            client: self.client.clone(),
            topic: self.topic.clone(),
        }
    }

    /// Leaves the group. May block for as long as the coordinator takes; the caller sets a deadline. All partition queues
    /// must be dropped before.
    pub fn close(self) {
        self.client.context().closing.store(true, Ordering::Release);
        // In the middle of a rebalance librdkafka would wait for our answer before it lets the client go.
        let answered = match self.awaited.take() {
            None => Ok(()),
            Some(Awaited::Assign) => self.assign(&[]),
            Some(Awaited::Unassign(partitions)) => self.unassign(&partitions),
        };
        if let Err(error) = answered {
            tracing::warn!(error = %error, "leaving the group in the middle of a rebalance");
        }
        let Self { events, client, .. } = self;
        drop(events);
        drop(client);
    }

    fn list(
        &self,
        places: &[(Partition, OffsetAndEpoch)],
    ) -> Result<TopicPartitionList, KafkaError> {
        let mut list = TopicPartitionList::with_capacity(places.len());
        for (partition, place) in places {
            list.add_partition_offset(&self.topic, partition.0, Offset::Offset(place.offset))?;
        }
        set_leader_epochs(
            &mut list,
            places.iter().map(|(_, place)| place.leader_epoch),
        );
        Ok(list)
    }
}

/// Whether an error in a partition's queue means that records are gone or can't be read. Others pass by themselves.
pub fn stops_partition(error: RDKafkaErrorCode) -> PartitionAlarm {
    match error {
        RDKafkaErrorCode::AutoOffsetReset
        | RDKafkaErrorCode::OffsetOutOfRange
        | RDKafkaErrorCode::LogTruncation => PartitionAlarm::RecordsLost,
        RDKafkaErrorCode::BadMessage
        | RDKafkaErrorCode::BadCompression
        | RDKafkaErrorCode::InvalidMessage
        | RDKafkaErrorCode::NotImplemented => PartitionAlarm::Unreadable,
        _ => PartitionAlarm::None,
    }
}

/// Where a log was cut off, by the text that stands in place of its messages; `None` where it tells of something else. librdkafka
/// has it nowhere else (`rd_kafka_toppar_handle_OffsetForLeaderEpoch`).
pub fn cut_in(explanation: &str) -> Option<i64> {
    let (_, cut) = explanation.split_once("truncation detected at ")?;
    let (_, end) = cut.split_once("broker end offset is ")?;
    let digits = end.split(|byte: char| !byte.is_ascii_digit()).next()?;
    digits.parse().ok()
}

/// What a group has committed of a partition, and what stands beside it.
pub type Committed = (Partition, Option<OffsetAndEpoch>, Option<Note>);

/// Looks offsets up in the name of a [`GroupConsumer`], on another thread than its poller's.
pub struct Lookup {
    client: Arc<BaseConsumer<Context>>,
    topic: String,
}

impl Lookup {
    /// The group's committed offset of each of these partitions, with its note; `None` where it never committed.
    pub fn committed(
        &self,
        partitions: &[Partition],
        timeout: Duration,
    ) -> Result<Vec<Committed>, KafkaError> {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for partition in partitions {
            list.add_partition(&self.topic, partition.0);
        }
        let answer = self.client.committed_offsets(list, timeout)?;
        let mut committed = Vec::with_capacity(partitions.len());
        for (element, place) in answer.elements().iter().zip(places(&answer)) {
            element.error()?;
            let note = Note::parse(element.metadata());
            committed.push((Partition(element.partition()), place, note));
        }
        Ok(committed)
    }
}
