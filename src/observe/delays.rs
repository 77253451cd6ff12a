//! One distribution of delays: the answers of the edge, and what tools measure from outside.

use super::recorder::HISTOGRAM_US_MAX;
use super::summary::Quantiles;
use hdrhistogram::Histogram;
use std::time::Duration;

/// Delays from a microsecond to an hour, each kept to three digits. Longer ones count as an hour.
#[derive(Debug)]
pub struct Delays(Histogram<u64>);

impl Default for Delays {
    fn default() -> Self {
        Self(Histogram::new_with_bounds(1, HISTOGRAM_US_MAX, 3).expect("bounds that are right"))
    }
}

impl Delays {
    /// One more.
    pub fn record(&mut self, delay: Duration) {
        let us = u64::try_from(delay.as_micros()).unwrap_or(u64::MAX);
        self.0.saturating_record(us);
    }

    /// In microseconds.
    pub fn quantiles(&self) -> Quantiles {
        Quantiles::of(&self.0)
    }

    /// The distribution itself, in microseconds.
    pub fn histogram(&self) -> &Histogram<u64> {
        &self.0
    }

    /// As if none had been recorded.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_are_told_in_microseconds_and_forgotten() {
        let mut delays = Delays::default();
        for milliseconds in 1..=1_000 {
            delays.record(Duration::from_millis(milliseconds));
        }
        let told = delays.quantiles();
        assert_eq!(told.count, 1_000);
        assert!((499_000..502_000).contains(&told.p50), "{told:?}");
        assert!((999_000..1_002_000).contains(&told.max), "{told:?}");
        delays.clear();
        assert_eq!((delays.quantiles().count, delays.quantiles().p99), (0, 0));
        delays.record(Duration::from_secs(100_000));
        assert!(delays.quantiles().max >= HISTOGRAM_US_MAX);
    }
}
