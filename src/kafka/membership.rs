//! How a core group's client is a member of the consumer group, and how it fetches: its settings.
//!
//! The classic protocol unless `group.protocol` says "consumer" (KIP-848; the broker then has the session's times and the assignor). With
//! `group.instance.id` a member is static: one that is back within the session has its partitions again without a rebalance.

use super::client::{client_config, propose};
use crate::config::checked::Kafka;
use rdkafka::config::ClientConfig;

/// One member of the consumer group.
#[derive(Clone, Debug)]
pub struct Membership {
    /// The consumer group.
    pub group: String,
    /// The core group, whose members differ in nothing else.
    pub number: usize,
    /// Partitions of the topic, which bounds what is fetched ahead for each.
    pub partitions: u32,
}

impl Membership {
    /// All settings of the client.
    pub(super) fn settings(&self, kafka: &Kafka) -> ClientConfig {
        let mut config = client_config(kafka, &format!("millpond-{}", self.number));
        config.set("group.id", &self.group);
        for (key, value) in fetch_settings(self.partitions) {
            propose(&mut config, key, value);
        }
        if config.get("group.protocol") != Some("consumer") {
            config.set("partition.assignment.strategy", "cooperative-sticky");
        }
        // Each core group is a member of its own, and two members of one id would shut each other out.
        if let Some(instance) = config.get("group.instance.id").map(str::to_owned) {
            config.set("group.instance.id", format!("{instance}-{}", self.number));
        }
        // Guarantees, so they are set last: we commit what is applied, from where we say.
        for (key, value) in [
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            ("auto.offset.reset", "error"),
            ("isolation.level", "read_committed"),
            ("enable.partition.eof", "false"),
        ] {
            config.set(key, value);
        }
        config
    }
}

/// Settings that a user may override.
fn fetch_settings(partitions: u32) -> [(&'static str, String); 6] {
    // What is fetched ahead is bounded by messages per partition, and then by what one more fetch brings: each such message takes
    // about 1.2 kB. The setting by bytes (queued.max.messages.kbytes) would lower the size of the whole response too. A fetch
    // smaller than a producer's batch would bring one partition at a time, hence the lower bound. With few partitions less is
    // in memory beside it, and 4,000 for each of 12 read a quarter slower than 10,000.
    let ahead = 144_000_u32.saturating_sub(2_000 * partitions).max(48_000) / partitions.max(1);
    let ahead = ahead.clamp(100, 10_000);
    let fetch = ((12 << 20) / partitions.max(1)).clamp(64 << 10, 1 << 20);
    [
        ("queued.min.messages", ahead.to_string()),
        ("fetch.message.max.bytes", fetch.to_string()),
        // The default of a second would stall a partition for that long each time that its queue is full.
        ("fetch.queue.backoff.ms", "10".to_owned()),
        ("fetch.wait.max.ms", "100".to_owned()),
        ("fetch.error.backoff.ms", "100".to_owned()),
        ("statistics.interval.ms", "0".to_owned()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Sources, load};

    fn settings(passed: &str) -> ClientConfig {
        let text = format!(
            "[kafka]\nbrokers = \"localhost:9092\"\n[kafka.librdkafka]\n{passed}\n\
             [[shard]]\nname = \"s\"\napps = \"00-ff\"\npostgres = \"host=localhost\"\n"
        );
        let kafka = load(&Sources::of_text(&text))
            .expect("a good configuration")
            .config
            .kafka;
        let membership = Membership {
            group: "g".to_owned(),
            number: 1,
            partitions: 12,
        };
        membership.settings(&kafka)
    }

    #[test]
    fn each_core_group_is_a_static_member_of_its_own() {
        let settings = settings("\"group.instance.id\" = \"box-7\"");
        assert_eq!(settings.get("group.instance.id"), Some("box-7-1"));
    }

    #[test]
    fn the_new_protocol_has_its_assignor_at_the_broker() {
        let strategy = "partition.assignment.strategy";
        assert_eq!(settings("").get(strategy), Some("cooperative-sticky"));
        assert_eq!(
            settings("\"group.protocol\" = \"consumer\"").get(strategy),
            None
        );
    }

    #[test]
    fn a_user_may_change_what_is_fetched_but_no_guarantee() {
        let settings = settings("\"fetch.wait.max.ms\" = 7");
        assert_eq!(settings.get("fetch.wait.max.ms"), Some("7"));
        assert_eq!(settings.get("enable.auto.commit"), Some("false"));
    }
}
