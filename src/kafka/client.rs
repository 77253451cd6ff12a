//! What all Kafka clients of this program share: settings, the log, the error. No client itself.
//!
//! Settings have three sources, in order: what a client proposes ([`propose`]), what the user passes through, and what
//! a guarantee rests on, which the client sets last.

use crate::config::checked::Kafka;
use parking_lot::Mutex;
use rdkafka::client::{Client, ClientContext};
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError as NativeError, RDKafkaErrorCode};
use std::time::Duration;

/// What went wrong between us and the brokers, by what the caller does next.
#[derive(Clone, Debug, thiserror::Error)]
pub enum KafkaError {
    /// Again later: the brokers can't be reached, did not answer in time, or don't let us in (yet: users and certificates
    /// are changed while programs run).
    #[error("Kafka at {brokers} {}: could not {doing}: {why}. {}", .obstacle.verdict(), .obstacle.advice())]
    Away {
        /// As configured.
        brokers: String,
        /// What kind of trouble it is.
        obstacle: Obstacle,
        /// What was asked for.
        doing: String,
        /// What librdkafka said last.
        why: String,
    },
    /// Stop: the brokers answered and refused; the same request will be refused again.
    #[error("Kafka at {brokers} refused: could not {doing}: {why}")]
    Refused {
        /// As configured.
        brokers: String,
        /// What was asked for.
        doing: String,
        /// The brokers' reason.
        why: String,
    },
    /// Stop: librdkafka doesn't take these settings. Nothing was sent.
    #[error(
        "librdkafka refused its settings: {why}. Correct [kafka.librdkafka] in the configuration"
    )]
    Settings {
        /// What it said.
        why: String,
    },
}

/// What is between us and an answer of the brokers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// Nothing was heard of them.
    Silence,
    /// They don't take the user or the password.
    Login,
    /// Encryption can't be agreed on, or their certificate is not believed.
    Trust,
}

/// OpenSSL's words for a certificate that is not believed.
const NOT_BELIEVED: &str = "certificate verify failed";

impl Obstacle {
    fn of(code: Option<RDKafkaErrorCode>, reason: &str) -> Self {
        match code {
            Some(RDKafkaErrorCode::Authentication) => Self::Login,
            Some(RDKafkaErrorCode::SSL) => Self::Trust,
            // Now and then a handshake's end is told as one of the transport, in OpenSSL's words.
            _ if reason.contains(NOT_BELIEVED) => Self::Trust,
            _ => Self::Silence,
        }
    }

    fn verdict(self) -> &'static str {
        match self {
            Self::Silence => "did not answer",
            Self::Login => "refuses the login",
            Self::Trust => "is not trusted",
        }
    }

    fn advice(self) -> &'static str {
        match self {
            Self::Silence => "Is it up, and is kafka.brokers right?",
            Self::Login => {
                "Check sasl.username, sasl.password and sasl.mechanism in [kafka.librdkafka]"
            }
            Self::Trust => {
                "Check security.protocol and ssl.ca.location in [kafka.librdkafka], and that the broker's certificate \
                 names the host that it is reached by"
            }
        }
    }
}

/// What a client said of its connections.
#[derive(Clone, Debug)]
pub struct Complaint {
    obstacle: Obstacle,
    /// In librdkafka's words.
    pub reason: String,
}

/// Errors that pass by themselves: of the network, of a cluster that is just moving a leader or a coordinator.
const PASSING: &[RDKafkaErrorCode] = &[
    RDKafkaErrorCode::AllBrokersDown,
    RDKafkaErrorCode::BrokerTransportFailure,
    RDKafkaErrorCode::Resolve,
    RDKafkaErrorCode::OperationTimedOut,
    RDKafkaErrorCode::TimedOutQueue,
    RDKafkaErrorCode::RequestTimedOut,
    RDKafkaErrorCode::NetworkException,
    RDKafkaErrorCode::BrokerNotAvailable,
    RDKafkaErrorCode::LeaderNotAvailable,
    RDKafkaErrorCode::NotLeaderForPartition,
    RDKafkaErrorCode::ReplicaNotAvailable,
    RDKafkaErrorCode::FencedLeaderEpoch,
    RDKafkaErrorCode::UnknownLeaderEpoch,
    RDKafkaErrorCode::CoordinatorLoadInProgress,
    RDKafkaErrorCode::CoordinatorNotAvailable,
    RDKafkaErrorCode::NotCoordinator,
    RDKafkaErrorCode::WaitingForCoordinator,
    RDKafkaErrorCode::NotController,
    RDKafkaErrorCode::Partial,
];

/// Whether the same request may succeed later.
pub(super) fn passes(code: RDKafkaErrorCode) -> bool {
    PASSING.contains(&code)
}

impl KafkaError {
    /// An error with its code. `last` is what the client said of its connections, which tells more than a timeout.
    pub(super) fn of_code(
        kafka: &Kafka,
        doing: &str,
        code: RDKafkaErrorCode,
        last: Option<Complaint>,
    ) -> Self {
        let (brokers, doing) = (kafka.brokers.clone(), doing.to_owned());
        if passes(code) {
            let last = last.unwrap_or_else(|| Complaint {
                obstacle: Obstacle::Silence,
                reason: code.to_string(),
            });
            Self::Away {
                brokers,
                obstacle: last.obstacle,
                doing,
                why: last.reason,
            }
        } else {
            Self::Refused {
                brokers,
                doing,
                why: code.to_string(),
            }
        }
    }

    /// An error of rust-rdkafka. See [`of_code`](Self::of_code).
    pub(super) fn of(
        kafka: &Kafka,
        doing: &str,
        error: &NativeError,
        last: Option<Complaint>,
    ) -> Self {
        match error {
            // The value is left out: it may be a password.
            NativeError::ClientConfig(_, why, key, _) => Self::Settings {
                why: format!("{key}: {why}"),
            },
            NativeError::ClientCreation(why) => Self::Settings { why: why.clone() },
            other => match other.rdkafka_error_code() {
                Some(code) => Self::of_code(kafka, doing, code, last),
                None => Self::Refused {
                    brokers: kafka.brokers.clone(),
                    doing: doing.to_owned(),
                    why: other.to_string(),
                },
            },
        }
    }
}

/// Settings of every client: how to reach the brokers, and what the user passes through.
pub fn client_config(kafka: &Kafka, client_id: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("client.id", client_id);
    // A broker that vanished without a word is noticed, and one that came back is tried again soon.
    config.set("socket.keepalive.enable", "true");
    config.set("reconnect.backoff.max.ms", "2000");
    for (key, value) in &kafka.librdkafka {
        config.set(key, value);
    }
    config.set("bootstrap.servers", &kafka.brokers);
    config.set_log_level(RDKafkaLogLevel::Info);
    config
}

/// Sets what the user did not.
pub fn propose(config: &mut ClientConfig, key: &str, value: impl Into<String>) {
    if config.get(key).is_none() {
        config.set(key, value);
    }
}

/// The version of librdkafka that is linked in, such as "2.12.1".
pub fn library_version() -> String {
    rdkafka::util::get_rdkafka_version().1
}

/// The number of partitions of a topic; `None` if there is no such topic. Blocks for a round trip, `timeout` at most.
pub(super) fn topic_partitions<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    timeout: Duration,
) -> Result<Option<u32>, NativeError> {
    let leaders = topic_leaders(client, topic, timeout)?;
    let count = |leaders: Vec<bool>| {
        u32::try_from(leaders.len()).expect("Kafka counts partitions in an i32")
    };
    Ok(leaders.map(count))
}

/// Whether each partition of a topic has a leader; `None` if there is no such topic.
pub(super) fn topic_leaders<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    timeout: Duration,
) -> Result<Option<Vec<bool>>, NativeError> {
    let metadata = client.fetch_metadata(Some(topic), timeout)?;
    let found = metadata
        .topics()
        .first()
        .expect("the one topic that was asked for");
    match found.error().map(RDKafkaErrorCode::from) {
        None => {
            let mut leaders = vec![false; found.partitions().len()];
            for partition in found.partitions() {
                let at = usize::try_from(partition.id()).ok();
                if let Some(has_leader) = at.and_then(|at| leaders.get_mut(at)) {
                    *has_leader = partition.leader() >= 0;
                }
            }
            Ok(Some(leaders))
        }
        Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
            Ok(None)
        }
        Some(code) => Err(NativeError::MetadataFetch(code)),
    }
}

/// What to tell about a topic that isn't there.
pub(super) fn topic_missing(topic: &str) -> String {
    format!("there is no topic {topic}. `millpond init` creates the configured ones")
}

/// Sends librdkafka's log and errors to ours, and keeps the last error for messages. For clients without a context of their own.
#[derive(Debug, Default)]
pub struct Context {
    last_error: Mutex<Option<Complaint>>,
}

impl Context {
    /// What the client last complained of, once.
    pub fn take_last_error(&self) -> Option<Complaint> {
        self.last_error.lock().take()
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        log(level, facility, line);
    }

    fn error(&self, error: NativeError, reason: &str) {
        tracing::info!(target: "librdkafka", error = %error, "{reason}");
        // That all are down says less than why the last one is.
        let code = error.rdkafka_error_code();
        let summary = code == Some(RDKafkaErrorCode::AllBrokersDown);
        let mut last = self.last_error.lock();
        if !summary || last.is_none() {
            *last = Some(Complaint {
                obstacle: Obstacle::of(code, reason),
                reason: reason.to_owned(),
            });
        }
    }
}

impl ConsumerContext for Context {}

/// Passes a line of librdkafka's log on to ours, under the target "librdkafka".
pub(super) fn log(level: RDKafkaLogLevel, facility: &str, line: &str) {
    match level {
        // One table of settings serves consumers and producers; each names the other's settings in a warning.
        RDKafkaLogLevel::Warning if facility == "CONFWARN" => {
            tracing::debug!(target: "librdkafka", facility, "{line}");
        }
        RDKafkaLogLevel::Emerg
        | RDKafkaLogLevel::Alert
        | RDKafkaLogLevel::Critical
        | RDKafkaLogLevel::Error => tracing::error!(target: "librdkafka", facility, "{line}"),
        RDKafkaLogLevel::Warning => tracing::warn!(target: "librdkafka", facility, "{line}"),
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
            tracing::info!(target: "librdkafka", facility, "{line}");
        }
        RDKafkaLogLevel::Debug => tracing::debug!(target: "librdkafka", facility, "{line}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_that_is_not_believed_is_told_from_silence_whatever_the_code() {
        let transport = Some(RDKafkaErrorCode::BrokerTransportFailure);
        let openssl =
            "sasl_ssl://k:9/bootstrap: error:0A000086:SSL routines::certificate verify failed";
        assert_eq!(Obstacle::of(transport, openssl), Obstacle::Trust);
        let ended = "ssl://k:9/1: error:0A000126:SSL routines::unexpected eof while reading";
        assert_eq!(Obstacle::of(transport, ended), Obstacle::Silence);
        let code = Some(RDKafkaErrorCode::SSL);
        assert_eq!(Obstacle::of(code, "SSL handshake failed"), Obstacle::Trust);
    }
}
