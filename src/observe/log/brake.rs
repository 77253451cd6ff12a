//! A brake for all warnings and errors: of those that come from one place in the code only so many are written within a time,
//! and then a line says how many were not. Whatever repeats for ever (a broker that is away, librdkafka's own complaints) stays
//! readable and leaves room for the others.

use super::repeated::lapsed;
use crate::clock;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::time::{Duration, Instant};
use tracing::callsite::Identifier;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

/// The time within which lines are counted.
const PERIOD: Duration = Duration::from_secs(10);
/// Lines of one place within that time: what many partitions have to say at once is written.
const LINES_MAX: u64 = 200;

/// Counts, by place.
pub(super) struct Brake(Mutex<Option<HashMap<Identifier, Counted>>>);

/// The process' brake; the writer thread looks after it.
pub(super) static BRAKE: Brake = Brake(Mutex::new(None));

struct Counted {
    place: (&'static str, u32),
    began: Instant,
    lines: u64,
}

/// What was not written of a place.
#[derive(Debug, PartialEq, Eq)]
struct Suppressed {
    place: (&'static str, u32),
    lines: u64,
}

impl Brake {
    /// Whether a line of that place is to be written now.
    fn admits(&self, id: Identifier, place: (&'static str, u32), now: Instant) -> bool {
        let mut places = self.0.lock();
        let counted = places
            .get_or_insert_default()
            .entry(id)
            .or_insert_with(|| Counted {
                place,
                began: now,
                lines: 0,
            });
        counted.lines += 1;
        counted.lines <= LINES_MAX
    }

    /// What was not written in the periods that are over.
    fn ended(&self, now: Instant) -> Vec<Suppressed> {
        let mut suppressed = Vec::new();
        if let Some(places) = &mut *self.0.lock() {
            places.retain(|_, counted| {
                let is_over = lapsed(counted.began, now, PERIOD);
                if is_over && counted.lines > LINES_MAX {
                    suppressed.push(Suppressed {
                        place: counted.place,
                        lines: counted.lines - LINES_MAX,
                    });
                }
                !is_over
            });
        }
        suppressed
    }

    /// Says what was not written.
    pub(super) fn tell(&self) {
        for Suppressed {
            place: (module, line),
            lines,
        } in self.ended(clock::now())
        {
            tracing::warn!(
                suppressed = lines,
                like = format!("{module}:{line}"),
                "warnings or errors that repeat were not written"
            );
        }
    }
}

/// The brake as a part of the subscriber.
pub(super) struct BrakeLayer;

impl<S: Subscriber> Layer<S> for BrakeLayer {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let metadata = event.metadata();
        if *metadata.level() > Level::WARN {
            return true;
        }
        let place = (
            metadata.module_path().unwrap_or(metadata.target()),
            metadata.line().unwrap_or(0),
        );
        BRAKE.admits(metadata.callsite(), place, clock::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing::callsite::Callsite;

    #[test]
    fn what_repeats_is_written_so_often_and_then_counted() {
        struct Place;
        impl Callsite for Place {
            fn set_interest(&self, _: tracing::subscriber::Interest) {}
            fn metadata(&self) -> &tracing::Metadata<'_> {
                unreachable!("nobody asks")
            }
        }
        static PLACE: Place = Place;
        let brake = Brake(Mutex::new(None));
        let begin = clock::now();
        let admits = |s: u64| {
            let now = begin + Duration::from_secs(s);
            brake.admits(Identifier(&PLACE), ("place", 7), now)
        };
        assert!((0..LINES_MAX).all(|_| admits(0)));
        assert!(!admits(1) && !admits(9));
        assert_eq!(brake.ended(begin + Duration::from_secs(9)), []);
        let told = Suppressed {
            place: ("place", 7),
            lines: 2,
        };
        assert_eq!(brake.ended(begin + PERIOD), [told]);
        assert!(admits(11));
        assert_eq!(brake.ended(begin + PERIOD * 3), []);
    }
}
