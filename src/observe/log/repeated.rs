//! A brake for a line that would repeat, where it is written.

use crate::clock;
use parking_lot::Mutex;
use std::time::{Duration, Instant};

/// A brake for a line that would repeat: of those within a time one is written, and the next one says how many were not.
///
/// ```
/// use millpond::observe::log::Repeated;
/// static AWAY: Repeated = Repeated::once_in(std::time::Duration::from_secs(10));
/// if let Some(suppressed) = AWAY.due() {
///     tracing::warn!(suppressed, "the shard is away");
/// }
/// ```
#[derive(Debug)]
pub struct Repeated {
    pause: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    written: Option<Instant>,
    suppressed: u64,
}

impl Repeated {
    /// At most one line in that time.
    pub const fn once_in(pause: Duration) -> Self {
        Self {
            pause,
            state: Mutex::new(State {
                written: None,
                suppressed: 0,
            }),
        }
    }

    /// `Some` if a line is to be written now: how many were not since the last one.
    pub fn due(&self) -> Option<u64> {
        self.due_at(clock::now())
    }

    fn due_at(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock();
        if state
            .written
            .is_some_and(|written| !lapsed(written, now, self.pause))
        {
            state.suppressed += 1;
            return None;
        }
        state.written = Some(now);
        Some(std::mem::take(&mut state.suppressed))
    }
}

/// Whether that much time has passed.
pub(super) fn lapsed(since: Instant, now: Instant, time: Duration) -> bool {
    now.saturating_duration_since(since) >= time
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_line_says_how_often_it_was_not_written() {
        let brake = Repeated::once_in(Duration::from_secs(10));
        let begin = clock::now();
        let due = |s| brake.due_at(begin + Duration::from_secs(s));
        assert_eq!(
            [due(0), due(1), due(9), due(10), due(11), due(30)],
            [Some(0), None, None, Some(2), None, Some(1)]
        );
    }
}
