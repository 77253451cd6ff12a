//! What a group has committed, asked again and again by one client that never joins it.

use millpond::config::checked::Kafka;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::time::{Duration, Instant};

/// A client that had no answer for so long is replaced: it may have forgotten all brokers.
const SILENT: Duration = Duration::from_secs(10);

/// A client for one question.
pub struct Group {
    kafka: Kafka,
    consumer: BaseConsumer,
    partitions: TopicPartitionList,
    answered: Instant,
}

impl Group {
    pub fn of(kafka: &Kafka, partitions: i32) -> Self {
        let mut list = TopicPartitionList::new();
        list.add_partition_range(&kafka.topic, 0, partitions - 1);
        Self {
            kafka: kafka.clone(),
            consumer: consumer(kafka),
            partitions: list,
            answered: Instant::now(),
        }
    }

    /// By partition; 0 where nothing ever was. `None`: the broker didn't tell all of it in that time.
    pub fn committed(&mut self, within: Duration) -> Option<Vec<i64>> {
        if self.answered.elapsed() > SILENT {
            self.consumer = consumer(&self.kafka);
            self.answered = Instant::now();
        }
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
        self.answered = Instant::now();
        Some(offsets)
    }
}

fn consumer(kafka: &Kafka) -> BaseConsumer {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &kafka.brokers)
        .set("group.id", &kafka.group)
        .set("enable.auto.commit", "false")
        .set("reconnect.backoff.max.ms", "500");
    config.create().unwrap()
}
