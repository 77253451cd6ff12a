//! What the brokers know of topics, offsets and groups, and the few changes that commands make to it. Calls block for at
//! most their timeout; nothing here joins a group, and looking at a topic never creates it.

use super::bootstrap::Bootstrap;
use super::client::{
    Complaint, Context, KafkaError, client_config, topic_missing, topic_partitions,
};
use super::native;
use crate::clock;
use crate::config::checked::Kafka;
use crate::ids::{Note, Partition};
use futures_executor::block_on;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError as NativeError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList, TopicPartitionListElem};
use std::{collections::BTreeMap, thread, time::Duration};

/// How long [`Admin::connect`] waits for a first answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long to wait before a question that failed for a passing reason is asked again.
const ASK_AGAIN_PAUSE: Duration = Duration::from_millis(200);

/// A connection for questions and changes. One thread at a time gets the best error messages out of it.
pub struct Admin {
    kafka: Kafka,
    /// Asks. It has no group, and as a consumer it doesn't have topics made by asking for them.
    asking: BaseConsumer<Context>,
    /// Changes.
    changing: AdminClient<Context>,
    /// Of each.
    bootstrap: [Bootstrap; 2],
}

impl Admin {
    /// Makes the clients and waits, 10 s at most, until a broker answered.
    pub fn connect(kafka: &Kafka) -> Result<Self, KafkaError> {
        let mut config = client_config(kafka, "millpond-admin");
        config.set("allow.auto.create.topics", "false");
        config.set("isolation.level", "read_committed");
        let doing = "connect";
        let settings = |error| KafkaError::of(kafka, doing, &error, None);
        let asking: BaseConsumer<Context> = config
            .create_with_context(Context::default())
            .map_err(settings)?;
        let changing = config
            .create_with_context(Context::default())
            .map_err(settings)?;
        let admin = Self {
            kafka: kafka.clone(),
            asking,
            changing,
            bootstrap: [Bootstrap::of(kafka), Bootstrap::of(kafka)],
        };
        admin
            .asking
            .fetch_metadata(Some(&kafka.topic), CONNECT_TIMEOUT)
            .map_err(|error| admin.error(doing, &error))?;
        Ok(admin)
    }

    /// The number of partitions of a topic; `None` if there is no such topic.
    pub fn topic_partitions(
        &self,
        topic: &str,
        timeout: Duration,
    ) -> Result<Option<u32>, KafkaError> {
        topic_partitions(self.asking.client(), topic, timeout)
            .map_err(|error| self.error(&format!("look at topic {topic}"), &error))
    }

    /// The topic's id, which changes when a topic is deleted and made anew; `None` if the brokers didn't tell in time.
    pub fn topic_id(&self, topic: &str, timeout: Duration) -> Option<String> {
        let metadata = self.asking.fetch_metadata(Some(topic), timeout).ok()?;
        let broker = metadata.brokers().first()?.id();
        native::topic_id(self.changing.inner(), broker, topic, timeout)
    }

    /// Creates a topic with the brokers' default replication. `false`: there is one of that name already, left as it was.
    pub fn create_topic(
        &self,
        name: &str,
        partitions: u32,
        config: &[(&str, &str)],
        timeout: Duration,
    ) -> Result<bool, KafkaError> {
        let doing = format!("create topic {name} with {partitions} partitions");
        let partitions = i32::try_from(partitions)
            .map_err(|_| self.error_of_code(&doing, RDKafkaErrorCode::InvalidPartitions))?;
        let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(-1));
        topic.config = config.to_vec();
        let answer = block_on(self.changing.create_topics([&topic], &options(timeout)));
        match self.one(&doing, answer)? {
            Ok(_) => Ok(true),
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => Ok(false),
            Err((_, code)) => Err(self.error_of_code(&doing, code)),
        }
    }

    /// Deletes a topic. `false`: there was none. Brokers go on deleting for a while after they answered.
    pub fn delete_topic(&self, name: &str, timeout: Duration) -> Result<bool, KafkaError> {
        let doing = format!("delete topic {name}");
        let answer = block_on(self.changing.delete_topics(&[name], &options(timeout)));
        match self.one(&doing, answer)? {
            Ok(_) => Ok(true),
            Err((
                _,
                RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic,
            )) => Ok(false),
            Err((_, code)) => Err(self.error_of_code(&doing, code)),
        }
    }

    /// A topic's settings as they hold, such as `cleanup.policy`; settings without a value are left out.
    pub fn topic_config(
        &self,
        topic: &str,
        timeout: Duration,
    ) -> Result<BTreeMap<String, String>, KafkaError> {
        let doing = format!("read the settings of topic {topic}");
        let answer = block_on(
            self.changing
                .describe_configs(&[ResourceSpecifier::Topic(topic)], &options(timeout)),
        );
        let entries = self
            .one(&doing, answer)?
            .map_err(|code| self.error_of_code(&doing, code))?
            .entries;
        Ok(entries
            .into_iter()
            .filter_map(|entry| Some((entry.name, entry.value?)))
            .collect())
    }

    /// The end offset of each partition, by partition number: what a reader of committed records can reach, so an open
    /// transaction holds it back.
    pub fn end_offsets(&self, topic: &str, timeout: Duration) -> Result<Vec<i64>, KafkaError> {
        self.offsets(topic, Offset::End, timeout)
    }

    /// The offset of the oldest record that each partition still has, by partition number.
    pub fn start_offsets(&self, topic: &str, timeout: Duration) -> Result<Vec<i64>, KafkaError> {
        self.offsets(topic, Offset::Beginning, timeout)
    }

    /// The offset of the first record of each partition that is stamped `timestamp_ms` (since 1970, not negative) or later;
    /// the end offset where there is none.
    pub fn offsets_at(
        &self,
        topic: &str,
        timestamp_ms: i64,
        timeout: Duration,
    ) -> Result<Vec<i64>, KafkaError> {
        let ends = self.end_offsets(topic, timeout)?;
        let found = self.offsets(topic, Offset::Offset(timestamp_ms), timeout)?;
        Ok(found
            .into_iter()
            .zip(ends)
            .map(|(offset, end)| if offset < 0 { end } else { offset })
            .collect())
    }

    /// One list-offsets request per broker, for all partitions. Where a timestamp has no record the answer is -1.
    fn offsets(&self, topic: &str, at: Offset, timeout: Duration) -> Result<Vec<i64>, KafkaError> {
        let doing = format!("list the offsets of topic {topic}");
        let failed = |error| self.error(&doing, &error);
        patiently(timeout, |left| {
            let mut list = self.all_partitions(topic, &doing, left)?;
            // librdkafka passes the offset on as the protocol's timestamp, where -1 means the end and -2 the beginning.
            list.set_all_offsets(at).map_err(failed)?;
            let answer = self.asking.offsets_for_times(list, left).map_err(failed)?;
            let raw = |offset: Offset| offset.to_raw().unwrap_or(-1);
            each_offset(&answer, raw).map_err(failed)
        })
    }

    /// What a group has committed for each partition, by partition number; `None` where it never did, so a group that
    /// doesn't exist has none anywhere. Doesn't join it.
    pub fn committed_offsets(
        &self,
        group: &str,
        topic: &str,
        timeout: Duration,
    ) -> Result<Vec<Option<i64>>, KafkaError> {
        self.committed(group, topic, timeout, |element| {
            if let Offset::Offset(offset) = element.offset() {
                Some(offset)
            } else {
                None
            }
        })
    }

    /// The notes beside what a group has committed of each partition; `None` where there is none.
    pub fn committed_notes(
        &self,
        group: &str,
        topic: &str,
        timeout: Duration,
    ) -> Result<Vec<Option<Note>>, KafkaError> {
        let texts = self.committed(group, topic, timeout, |element| {
            element.metadata().to_owned()
        })?;
        Ok(texts.iter().map(|text| Note::parse(text)).collect())
    }

    fn committed<T>(
        &self,
        group: &str,
        topic: &str,
        timeout: Duration,
        read: impl Fn(&TopicPartitionListElem<'_>) -> T,
    ) -> Result<Vec<T>, KafkaError> {
        let doing = format!("look up what group {group} has committed of topic {topic}");
        let mut config = client_config(&self.kafka, "millpond-admin");
        config.set("group.id", group);
        let member: BaseConsumer<Context> = config
            .create_with_context(Context::default())
            .map_err(|error| self.error(&doing, &error))?;
        let failed = |error| KafkaError::of(&self.kafka, &doing, &error, last_error(&member));
        patiently(timeout, |left| {
            let list = self.all_partitions(topic, &doing, left)?;
            let answer = member.committed_offsets(list, left).map_err(failed)?;
            let elements = answer.elements();
            let read = elements
                .iter()
                .map(|element| element.error().map(|()| read(element)));
            read.collect::<Result<_, _>>().map_err(failed)
        })
    }

    /// How many members a group has now, under either group protocol; 0 for one that doesn't exist.
    pub fn group_members(&self, group: &str, timeout: Duration) -> Result<usize, KafkaError> {
        let doing = format!("look at group {group}");
        patiently(timeout, |left| {
            native::group_members(self.changing.inner(), group, left)
                .map_err(|code| self.error_of_code(&doing, code))
        })
    }

    /// Deletes a group and its committed offsets; refused while it has members. `false`: there was none.
    pub fn delete_group(&self, group: &str, timeout: Duration) -> Result<bool, KafkaError> {
        let doing = format!("delete group {group}");
        let answer = block_on(self.changing.delete_groups(&[group], &options(timeout)));
        match self.one(&doing, answer)? {
            Ok(_) => Ok(true),
            Err((_, RDKafkaErrorCode::GroupIdNotFound)) => Ok(false),
            Err((_, code)) => Err(self.error_of_code(&doing, code)),
        }
    }

    /// Sets what a group has committed of these partitions, without joining it. The coordinator refuses while the group has
    /// members, so a consumer that starts meanwhile is never moved under its feet. Notes stay as they are.
    pub fn commit_offsets(
        &self,
        group: &str,
        topic: &str,
        offsets: &[(Partition, i64)],
    ) -> Result<(), KafkaError> {
        let notes = self.committed_notes(group, topic, CONNECT_TIMEOUT)?;
        let doing = format!("set what group {group} has committed of topic {topic}");
        let mut config = client_config(&self.kafka, "millpond-admin");
        config.set("group.id", group);
        config.set("enable.auto.commit", "false");
        let member: BaseConsumer<Context> = config
            .create_with_context(Context::default())
            .map_err(|error| self.error(&doing, &error))?;
        let failed = |error| KafkaError::of(&self.kafka, &doing, &error, last_error(&member));
        let mut list = TopicPartitionList::with_capacity(offsets.len());
        for (partition, offset) in offsets {
            let mut element = list.add_partition(topic, partition.0);
            element
                .set_offset(Offset::Offset(*offset))
                .map_err(failed)?;
            if let Some(note) = notes.get(partition.index()).copied().flatten() {
                element.set_metadata(note.to_string());
            }
        }
        member.commit(&list, CommitMode::Sync).map_err(failed)
    }

    /// Deletes the records of these partitions below the given offsets, for good.
    pub fn delete_records_below(
        &self,
        topic: &str,
        offsets: &[(Partition, i64)],
        timeout: Duration,
    ) -> Result<(), KafkaError> {
        let doing = format!("delete records of topic {topic}");
        let failed = |error| self.error(&doing, &error);
        let list = offset_list(topic, offsets).map_err(failed)?;
        let answer = block_on(self.changing.delete_records(&list, &options(timeout)));
        // Each partition is answered for by itself.
        each_offset(&answer.map_err(failed)?, |_| ()).map_err(failed)?;
        Ok(())
    }

    fn all_partitions(
        &self,
        topic: &str,
        doing: &str,
        timeout: Duration,
    ) -> Result<TopicPartitionList, KafkaError> {
        let Some(partitions) = self.topic_partitions(topic, timeout)? else {
            return Err(KafkaError::Refused {
                brokers: self.kafka.brokers.clone(),
                doing: doing.to_owned(),
                why: topic_missing(topic),
            });
        };
        let last = i32::try_from(partitions).expect("Kafka counts partitions in an i32") - 1;
        let mut list = TopicPartitionList::with_capacity(partitions as usize);
        list.add_partition_range(topic, 0, last);
        Ok(list)
    }

    /// The answer for the one thing that was asked for.
    fn one<T>(&self, doing: &str, answer: Result<Vec<T>, NativeError>) -> Result<T, KafkaError> {
        let mut answers = answer.map_err(|error| self.error(doing, &error))?;
        Ok(answers.pop().expect("an answer to each item of a request"))
    }

    fn error(&self, doing: &str, error: &NativeError) -> KafkaError {
        self.keep_brokers();
        KafkaError::of(&self.kafka, doing, error, last_error(&self.asking))
    }

    fn error_of_code(&self, doing: &str, code: RDKafkaErrorCode) -> KafkaError {
        self.keep_brokers();
        KafkaError::of_code(&self.kafka, doing, code, last_error(&self.asking))
    }

    fn keep_brokers(&self) {
        let [asking, changing] = &self.bootstrap;
        asking.keep(self.asking.client());
        changing.keep(self.changing.inner());
    }
}

/// Asks again while the brokers are away or just changing roles. `ask` is told how much of the timeout is left.
fn patiently<T>(
    timeout: Duration,
    ask: impl Fn(Duration) -> Result<T, KafkaError>,
) -> Result<T, KafkaError> {
    let deadline = clock::now() + timeout;
    loop {
        let answer = ask(deadline.saturating_duration_since(clock::now()));
        let later = clock::now() + ASK_AGAIN_PAUSE;
        if !matches!(answer, Err(KafkaError::Away { .. })) || later >= deadline {
            return answer;
        }
        thread::sleep(ASK_AGAIN_PAUSE);
    }
}

fn offset_list(
    topic: &str,
    offsets: &[(Partition, i64)],
) -> Result<TopicPartitionList, NativeError> {
    let mut list = TopicPartitionList::with_capacity(offsets.len());
    for (partition, offset) in offsets {
        list.add_partition_offset(topic, partition.0, Offset::Offset(*offset))?;
    }
    Ok(list)
}

/// The offset of each element, in their order.
fn each_offset<T>(
    list: &TopicPartitionList,
    convert: impl Fn(Offset) -> T,
) -> Result<Vec<T>, NativeError> {
    let elements = list.elements();
    elements
        .iter()
        .map(|element| element.error().map(|()| convert(element.offset())))
        .collect()
}

fn options(timeout: Duration) -> AdminOptions {
    // The brokers answer when it is done everywhere, or a little before we stop waiting.
    AdminOptions::new()
        .request_timeout(Some(timeout))
        .operation_timeout(Some(timeout.mul_f32(0.9)))
}

/// What the client has complained of since it was last asked. Errors wait in its queue, each for a poll of its own.
fn last_error(consumer: &BaseConsumer<Context>) -> Option<Complaint> {
    for _ in 0..100 {
        consumer.poll(Duration::ZERO);
    }
    consumer.context().take_last_error()
}
