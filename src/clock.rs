//! The one door to the clocks. Durations come from the monotonic clock; wall time is only shown and compared with
//! Kafka's timestamps, never used to decide anything.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Now, on the monotonic clock.
pub fn now() -> Instant {
    Instant::now()
}

/// Now, in milliseconds since 1970, as Kafka stamps its records. 0 for a clock set before that.
pub fn wall_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Now, as a point in time with microseconds, for log lines.
pub fn timestamp() -> jiff::Timestamp {
    jiff::Timestamp::now()
}
