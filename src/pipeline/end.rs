//! How the drain deadline is spent. A process manager kills what has not ended by then, so the drain itself gets only a part
//! of it: a broker or a shard that does not answer must not hold what comes after.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The most that is kept for what comes after the drain. Each step of it takes milliseconds where everything answers.
const AFTER_DRAIN_MAX: Duration = Duration::from_secs(4);

/// When each step of the end is over, from the moment at which the process was told to stop. What is not done by then is left
/// behind, which loses nothing: it is read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndTimes {
    /// Pollers stop waiting for work in flight.
    pub drain: Duration,
    /// Not a moment: how long their last commit may take.
    pub commit: Duration,
    /// Pollers have left the group.
    pub leave: Duration,
    /// Workers have given up, dead letters are delivered. The rest of the deadline is the admin server's.
    pub give_up: Duration,
}

impl EndTimes {
    /// For a drain deadline: a quarter of it, at most four seconds, is kept for what comes after the drain.
    pub fn of(drain_deadline: Duration) -> Self {
        let after = (drain_deadline / 4).min(AFTER_DRAIN_MAX);
        Self {
            drain: drain_deadline - after,
            commit: after / 4,
            leave: drain_deadline - after / 2,
            give_up: drain_deadline - after / 4,
        }
    }
}

/// Between two looks at a thread that is waited for.
const LOOK: Duration = Duration::from_millis(5);

/// Waits for a thread's end until then. Whether it has ended; if not, it is left behind.
pub fn has_ended_by(thread: &JoinHandle<()>, deadline: Instant) -> bool {
    while !thread.is_finished() && !remaining(deadline).is_zero() {
        std::thread::sleep(LOOK);
    }
    thread.is_finished()
}

/// How long it is until then.
pub fn remaining(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(crate::clock::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_has_its_time_and_the_last_ends_before_the_deadline() {
        for seconds in [1, 5, 25, 300] {
            let deadline = Duration::from_secs(seconds);
            let end = EndTimes::of(deadline);
            assert!(end.drain >= deadline * 3 / 4);
            assert!(end.drain + end.commit < end.leave);
            assert!(end.leave < end.give_up && end.give_up < deadline);
        }
    }
}
