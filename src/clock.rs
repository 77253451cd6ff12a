//! The one door to the clocks, and to waiting. Durations come from the monotonic clock; wall time is only shown and compared
//! with Kafka's timestamps, never used to decide anything.
//!
//! In tests a thread may turn its clock by hand ([`turned`]): then time passes only as it is told to, and nobody waits.

#[cfg(test)]
use crossbeam_channel::TryRecvError;
use crossbeam_channel::{Receiver, RecvTimeoutError};
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Now, on the monotonic clock.
pub fn now() -> Instant {
    #[cfg(test)]
    if let Some(now) = turned::now() {
        return now;
    }
    Instant::now()
}

/// Now, in milliseconds since 1970, as Kafka stamps its records. 0 for a clock set before that.
pub fn wall_ms() -> i64 {
    #[cfg(test)]
    if let Some(wall_ms) = turned::wall_ms() {
        return wall_ms;
    }
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// How long this process has been going on, in milliseconds, and never 0. Unlike [`wall_ms`] it never jumps.
pub fn running_ms() -> i64 {
    static BEGAN: OnceLock<Instant> = OnceLock::new();
    let began = *BEGAN.get_or_init(Instant::now);
    let running = now().saturating_duration_since(began);
    i64::try_from(running.as_millis())
        .unwrap_or(i64::MAX)
        .max(1)
}

/// Now, as a point in time with microseconds, for log lines.
pub fn timestamp() -> jiff::Timestamp {
    jiff::Timestamp::now()
}

/// Does nothing for that long.
pub fn sleep(duration: Duration) {
    #[cfg(test)]
    if turned::now().is_some() {
        return;
    }
    std::thread::sleep(duration);
}

/// What comes within that time.
pub fn receive_within<T>(from: &Receiver<T>, within: Duration) -> Result<T, RecvTimeoutError> {
    #[cfg(test)]
    if turned::now().is_some() {
        return from.try_recv().map_err(|error| match error {
            TryRecvError::Empty => RecvTimeoutError::Timeout,
            TryRecvError::Disconnected => RecvTimeoutError::Disconnected,
        });
    }
    from.recv_timeout(within)
}

/// A clock that is turned by hand; each thread has its own.
#[cfg(test)]
pub mod turned {
    use std::cell::Cell;
    use std::time::{Duration, Instant};

    thread_local! {
        static CLOCK: Cell<Option<(Instant, Duration)>> = const { Cell::new(None) };
    }

    /// What a turned clock shows at its beginning, in milliseconds since 1970.
    pub const BEGINNING_MS: i64 = 1_700_000_000_000;

    /// From now on this thread's clock stands still.
    pub fn stop() {
        CLOCK.set(Some((Instant::now(), Duration::ZERO)));
    }

    /// Turns this thread's clock forward.
    pub fn forward(by: Duration) {
        let (beginning, passed) = CLOCK.get().expect("the clock was stopped before");
        CLOCK.set(Some((beginning, passed + by)));
    }

    pub(super) fn now() -> Option<Instant> {
        CLOCK.get().map(|(beginning, passed)| beginning + passed)
    }

    pub(super) fn wall_ms() -> Option<i64> {
        let (_, passed) = CLOCK.get()?;
        Some(BEGINNING_MS + i64::try_from(passed.as_millis()).expect("not that far"))
    }
}
