//! When each message of a run is due. The time of a message follows from its number and the pace alone, so whoever falls
//! behind moves nothing that is due later: delays count from the intended time, and none is omitted.

use crate::clock;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

/// How fast to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// As fast as it is taken.
    Free,
    /// So many messages a second.
    PerSecond(NonZeroU32),
    /// A campaign: a normal rate, many times that for a while, and the normal rate again.
    Spike(Spike),
}

/// A normal rate with a spike in the middle. Bounded by its caller so that its messages fit a u64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spike {
    /// Messages a second before and after.
    pub rate: NonZeroU32,
    /// How long it is calm before, and as long again after.
    pub calm_seconds: u32,
    /// How long the spike lasts.
    pub spike_seconds: u32,
}

/// What part of a run a moment is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// At the usual rate.
    Calm,
    /// At many times the usual rate.
    Spike,
    /// All is sent, not all is applied.
    Draining,
}

impl Spike {
    /// How many times the normal rate the spike is.
    pub const TIMES: u64 = 10;

    /// Messages of the whole run.
    pub fn messages(&self) -> u64 {
        2 * self.calm_messages() + self.spike_messages()
    }

    fn calm_messages(&self) -> u64 {
        u64::from(self.rate.get()) * u64::from(self.calm_seconds)
    }

    fn spike_messages(&self) -> u64 {
        u64::from(self.rate.get()) * Self::TIMES * u64::from(self.spike_seconds)
    }

    fn due(&self, number: u64) -> Duration {
        let (rate, calm, spike) = (
            u64::from(self.rate.get()),
            self.calm_messages(),
            self.spike_messages(),
        );
        let (begin_s, number, rate) = match number {
            _ if number < calm => (0, number, rate),
            _ if number < calm + spike => {
                (self.calm_seconds.into(), number - calm, rate * Self::TIMES)
            }
            _ => (
                u64::from(self.calm_seconds) + u64::from(self.spike_seconds),
                number - calm - spike,
                rate,
            ),
        };
        Duration::from_secs(begin_s) + at_rate(number, rate)
    }

    /// From the start of the run to the moment when the spike begins, and ends.
    pub fn span(&self) -> (Duration, Duration) {
        let begin = Duration::from_secs(self.calm_seconds.into());
        (
            begin,
            begin + Duration::from_secs(self.spike_seconds.into()),
        )
    }
}

fn at_rate(number: u64, rate: u64) -> Duration {
    let nanoseconds = u128::from(number) * 1_000_000_000 / u128::from(rate);
    Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
}

impl Pace {
    /// When a message is due, from the start; `None` for whenever it can be sent.
    pub fn due(&self, number: u64) -> Option<Duration> {
        match self {
            Self::Free => None,
            Self::PerSecond(rate) => Some(at_rate(number, rate.get().into())),
            Self::Spike(spike) => Some(spike.due(number)),
        }
    }

    /// What part of the run it is, that long after the start, while messages are being sent.
    pub fn phase(&self, since: Duration) -> Phase {
        match self {
            Self::Spike(spike) if (spike.span().0..spike.span().1).contains(&since) => Phase::Spike,
            _ => Phase::Calm,
        }
    }
}

/// A pace that has begun.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    pace: Pace,
    /// When message 0 is due.
    pub started: Instant,
    started_ms: i64,
}

impl Schedule {
    /// Begins now.
    pub fn start(pace: Pace) -> Self {
        Self {
            pace,
            started: clock::now(),
            started_ms: clock::wall_ms(),
        }
    }

    /// When a message is due; `None` for whenever it can be sent.
    pub fn due_at(&self, number: u64) -> Option<Instant> {
        Some(self.started + self.pace.due(number)?)
    }

    /// The same in milliseconds since 1970.
    pub fn timestamp_ms(&self, number: u64) -> Option<i64> {
        let due_ms = i64::try_from(self.pace.due(number)?.as_millis()).unwrap_or(i64::MAX);
        Some(self.started_ms.saturating_add(due_ms))
    }

    /// How long ago a message was due; 0 if it isn't yet, or needn't be.
    pub fn behind(&self, number: u64) -> Duration {
        self.due_at(number).map_or(Duration::ZERO, |due| {
            clock::now().saturating_duration_since(due)
        })
    }

    /// Waits until a message is due, in steps of at most `step`; asks before each whether to go on. `false`: told not to.
    pub fn wait(&self, number: u64, step: Duration, mut go_on: impl FnMut() -> bool) -> bool {
        let Some(due) = self.due_at(number) else {
            return true;
        };
        loop {
            // Shorter sleeps than a timer's tick come late together; those behind are then due at once.
            let left = due.saturating_duration_since(clock::now());
            if left.is_zero() {
                return true;
            }
            if !go_on() {
                return false;
            }
            clock::sleep(left.min(step));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(rate: u32) -> NonZeroU32 {
        NonZeroU32::new(rate).expect("not 0")
    }

    fn spike() -> Spike {
        Spike {
            rate: rate(200),
            calm_seconds: 3,
            spike_seconds: 10,
        }
    }

    #[test]
    fn a_fixed_rate_has_even_steps_that_do_not_drift() {
        let pace = Pace::PerSecond(rate(3));
        let due = |number| pace.due(number).expect("it has a time").as_nanos();
        assert_eq!((due(0), due(1), due(2)), (0, 333_333_333, 666_666_666));
        assert_eq!(due(3_000_000), 1_000_000_000_000_000);
        assert_eq!(Pace::Free.due(7), None);
    }

    #[test]
    fn a_spike_sends_in_each_second_what_its_phase_says() {
        let spike = spike();
        let mut by_second = [0_u64; 16];
        for number in 0..spike.messages() {
            let second = spike.due(number).as_secs();
            by_second[usize::try_from(second).expect("a small number")] += 1;
        }
        assert_eq!(by_second[..3], [200; 3]);
        assert_eq!(by_second[3..13], [2_000; 10]);
        assert_eq!(by_second[13..], [200; 3]);
        let due: Vec<Duration> = (0..spike.messages()).map(|n| spike.due(n)).collect();
        assert!(due.is_sorted());
        assert_eq!(spike.messages(), 21_200);
    }

    #[test]
    fn a_moment_of_the_spike_is_known_as_such() {
        let pace = Pace::Spike(spike());
        let phase = |ms| pace.phase(Duration::from_millis(ms));
        assert_eq!((phase(0), phase(2_999)), (Phase::Calm, Phase::Calm));
        assert_eq!((phase(3_000), phase(12_999)), (Phase::Spike, Phase::Spike));
        assert_eq!(phase(13_000), Phase::Calm);
        assert_eq!(Pace::PerSecond(rate(1)).phase(Duration::ZERO), Phase::Calm);
    }

    #[test]
    fn a_message_that_is_late_does_not_move_the_next_one() {
        clock::turned::stop();
        let schedule = Schedule::start(Pace::PerSecond(rate(1_000)));
        clock::turned::forward(Duration::from_millis(5));
        assert!(schedule.wait(2, Duration::from_secs(1), || true));
        assert_eq!(schedule.behind(2), Duration::from_millis(3));
        assert_eq!(schedule.behind(7), Duration::ZERO);
        assert_eq!(
            schedule.timestamp_ms(7),
            Some(clock::turned::BEGINNING_MS + 7)
        );
        assert!(!schedule.wait(9, Duration::from_secs(1), || false));
    }
}
