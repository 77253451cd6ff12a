//! A Kafka cluster inside this process, for demonstrations: librdkafka's mock, which speaks the real protocol on loopback.
//!
//! Not for figures, and not for logs that are read later: a partition keeps [`PARTITION_BYTES_MAX`] and drops its oldest
//! batches to take newer ones. It makes no topics on request and knows nothing of describing groups.

use super::client::{Context, KafkaError};
use super::native;
use rdkafka::admin::AdminClient;
use rdkafka::config::ClientConfig;
use rdkafka::error::KafkaError as NativeError;

/// What a partition keeps, in bytes of record batches as they were sent (librdkafka's `rd_kafka_mock_partition_init`).
pub const PARTITION_BYTES_MAX: u64 = 5 << 20;

/// One broker with its topics, which end when this is dropped.
pub struct MockCluster {
    /// The client that the cluster lives in.
    _owner: AdminClient<Context>,
    brokers: String,
}

impl MockCluster {
    /// Starts a broker on a free port of loopback, with these topics and their partitions.
    pub fn start(topics: &[(&str, u32)]) -> Result<Self, KafkaError> {
        let refused = |doing: &str, error: &NativeError| KafkaError::Refused {
            brokers: "a mock cluster in this process".to_owned(),
            doing: doing.to_owned(),
            why: error.to_string(),
        };
        let owner: AdminClient<Context> = ClientConfig::new()
            .set("test.mock.num.brokers", "1")
            .create_with_context(Context::default())
            .map_err(|error| refused("start it", &error))?;
        native::begin_mock_groups_at_once(owner.inner());
        let cluster = owner
            .inner()
            .mock_cluster()
            .expect("a client that was made with one");
        for (topic, partitions) in topics {
            let partitions = i32::try_from(*partitions).expect("partitions fit Kafka's i32");
            cluster
                .create_topic(topic, partitions, 1)
                .map_err(|error| refused(&format!("make topic {topic}"), &error))?;
        }
        let brokers = cluster.bootstrap_servers();
        drop(cluster);
        Ok(Self {
            _owner: owner,
            brokers,
        })
    }

    /// Where it listens, as `kafka.brokers` wants it.
    pub fn brokers(&self) -> &str {
        &self.brokers
    }
}
