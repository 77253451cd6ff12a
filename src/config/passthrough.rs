//! Settings that go to librdkafka as they are: those that would undo a guarantee are refused with the reason. Whether
//! the others exist, and whether their values are right, only librdkafka knows; the command line asks it.

use super::file::Given;
use super::keys;
use super::problem::{Origin, Problem};
use super::reader::Reader;

const COMMITS: &str =
    "only Millpond commits, and only what is applied; librdkafka would commit what it delivered";
const STARTS: &str = "where a partition begins is `kafka.start`, used only where it was never seen; \
                      librdkafka would also use it after lost records, silently";
const ACKNOWLEDGED: &str =
    "an update counts as accepted once all in-sync replicas have it; with less it could be lost";
const BROKERS: &str = "give `kafka.brokers`";

/// Settings that Millpond needs as they are, and why.
const REFUSED: [(&str, &str); 15] = [
    ("enable.auto.commit", COMMITS),
    ("auto.commit.enable", COMMITS),
    ("enable.auto.offset.store", COMMITS),
    ("auto.offset.reset", STARTS),
    (
        "isolation.level",
        "updates of an aborted transaction must not be applied, so it is read_committed",
    ),
    (
        "enable.idempotence",
        "without it a retry can put an update in twice, or behind a later one",
    ),
    ("acks", ACKNOWLEDGED),
    ("request.required.acks", ACKNOWLEDGED),
    (
        "transactional.id",
        "updates and dead letters are sent outside of transactions",
    ),
    (
        "partitioner",
        "an app's partition follows from the shards' ranges; another rule would send rows to the wrong shard",
    ),
    (
        "enable.partition.eof",
        "ends of partitions would come between messages, with positions that can be wrong",
    ),
    (
        "partition.assignment.strategy",
        "with any but cooperative-sticky a rebalance would take all partitions, not only those that move",
    ),
    ("group.id", "give `kafka.group`"),
    ("bootstrap.servers", BROKERS),
    ("metadata.broker.list", BROKERS),
];

/// What the names of settings that are never shown have in them; librdkafka gets more of these from release to release.
const SECRET: [&str; 5] = [
    "password",
    "passphrase",
    "secret",
    "key.pem",
    "sasl.oauthbearer.config",
];

/// Whether the setting's value is never shown.
pub(super) fn is_secret(setting: &str) -> bool {
    SECRET.iter().any(|part| setting.contains(part))
}

/// All that are given, in the order in which they were.
pub(super) fn librdkafka(read: &mut Reader<'_>) -> Vec<(String, String)> {
    let mut passed = Vec::new();
    let written = read.written;
    for (name, setting) in &written.librdkafka {
        let full_name = format!("{}{name}", keys::LIBRDKAFKA);
        if let Some((_, reason)) = REFUSED.iter().find(|(refused, _)| refused == name) {
            let text = format!("{full_name} can't be set: {reason}");
            read.refuse_at(&setting.origin, text);
        }
        if is_secret(name) && !matches!(setting.origin, Origin::Environment(_)) {
            let variable = keys::environment_name(&full_name);
            let text = format!(
                "{full_name}: stands where others may read it; use the variable {variable}"
            );
            read.warnings.push(Problem::new(&setting.origin, text));
        }
        match &setting.value {
            Given::Text(value) | Given::Bare(value) => passed.push((name.clone(), value.clone())),
            Given::List(_) => {
                let text = format!(
                    "{full_name}: found a list, allowed is text, a number or a boolean; \
                     librdkafka's lists are one text with commas"
                );
                read.refuse_at(&setting.origin, text);
            }
        }
    }
    passed
}
