//! The way back for a client that has forgotten all brokers.
//!
//! A broker that is just starting may answer with topics and without a single broker. librdkafka (2.10 to 2.13 at the least,
//! confluentinc/librdkafka issue 5301) takes that for the cluster: it drops every broker, those of `bootstrap.servers` too, asks
//! nobody any more, and tells no error. The client would idle for ever, in good health by its own word.

use super::native::{add_brokers, has_learned_brokers};
use crate::clock;
use crate::config::checked::Kafka;
use parking_lot::Mutex;
use rdkafka::client::{Client, ClientContext};
use std::ffi::CString;
use std::time::{Duration, Instant};

/// Between two looks at a client that knows its brokers.
const LOOK: Duration = Duration::from_secs(1);
/// While it knows none, twice as long each time and so long at most: librdkafka remembers what it is told, so each time costs
/// a few bytes.
const LOOK_MAX: Duration = Duration::from_secs(30);

/// The configured brokers, and when to look whether the client knows any. Whoever serves the client calls
/// [`keep`](Self::keep) now and then.
pub(super) struct Bootstrap {
    brokers: CString,
    next: Mutex<(Instant, Duration)>,
}

impl Bootstrap {
    pub(super) fn of(kafka: &Kafka) -> Self {
        Self {
            brokers: CString::new(kafka.brokers.as_str()).expect("checked with the configuration"),
            next: Mutex::new((clock::now() + LOOK, LOOK)),
        }
    }

    /// Names the configured brokers again to a client that knows none. Harmless where it is only not connected yet.
    pub(super) fn keep<C: ClientContext>(&self, client: &Client<C>) {
        let Some(mut next) = self.next.try_lock() else {
            return;
        };
        let (due, wait) = *next;
        let now = clock::now();
        if now < due {
            return;
        }
        let wait = if has_learned_brokers(client) {
            LOOK
        } else {
            add_brokers(client, &self.brokers);
            (wait * 2).min(LOOK_MAX)
        };
        *next = (now + wait, wait);
    }
}
