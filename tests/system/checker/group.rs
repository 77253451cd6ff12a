//! What a group has committed, asked again and again by one client that never joins it.

use millpond::config::checked::Kafka;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::time::Duration;

/// A client for one question.
pub struct Group {
    consumer: BaseConsumer,
    partitions: TopicPartitionList,
}

impl Group {
    pub fn of(kafka: &Kafka, partitions: i32) -> Self {
        let consumer = ClientConfig::new()
            .set("bootstrap.servers", &kafka.brokers)
            .set("group.id", &kafka.group)
            .set("enable.auto.commit", "false")
            .set("reconnect.backoff.max.ms", "500")
            .create()
            .unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition_range(&kafka.topic, 0, partitions - 1);
        Self {
            consumer,
            partitions: list,
        }
    }

    /// By partition; 0 where nothing ever was. `None`: the broker didn't tell all of it in that time.
    pub fn committed(&self, within: Duration) -> Option<Vec<i64>> {
        // Nothing is fetched; what the client complains of is taken off its queue.
        let _ = self.consumer.poll(Duration::ZERO);
        let list = self.partitions.clone();
        let answer = self.consumer.committed_offsets(list, within).ok()?;
        let mut offsets = vec![0; answer.count()];
        for element in answer.elements() {
            element.error().ok()?;
            if let Offset::Offset(offset) = element.offset() {
                *offsets.get_mut(usize::try_from(element.partition()).ok()?)? = offset;
            }
        }
        Some(offsets)
    }
}
