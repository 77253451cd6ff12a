//! An HDR histogram as a native one of Prometheus: buckets that grow by a constant factor, of which only those with values
//! are sent (prometheus.io/docs/specs/native_histograms).

use hdrhistogram::Histogram;
use prometheus_client::encoding::{NativeHistogram, NativeHistogramBuckets};

/// Eight buckets for each doubling, each 9 % wider than the one before: what client libraries take by default. From a
/// microsecond to an hour that is 256 buckets at most.
const SCHEMA: i32 = 3;
const BUCKETS_PER_DOUBLING: f64 = 8.0;
/// Values up to here are in a bucket of their own, for 0. The least that the format allows.
const ZERO_THRESHOLD: f64 = f64::from_bits(0x37f0_0000_0000_0000);

/// Buckets by their numbers: number i has the values in (2^((i-1)/8), 2^(i/8)].
#[derive(Debug, Default)]
pub(super) struct Buckets {
    zeros: u64,
    /// Runs of neighbouring buckets: distance from the end of the run before (of the first: its number), and length.
    spans: Vec<(i32, u32)>,
    /// The first bucket's count, then of each how much it differs from the one before.
    deltas: Vec<i64>,
}

impl Buckets {
    /// Sorts the values, of which `scale` makes those that the metric has, into buckets.
    pub(super) fn of(histogram: &Histogram<u64>, scale: fn(u64) -> f64) -> Self {
        let mut buckets = Self::default();
        let mut counts: Vec<(i32, u64)> = Vec::new();
        for step in histogram.iter_recorded() {
            let count = step.count_since_last_iteration();
            let value = scale(histogram.lowest_equivalent(step.value_iterated_to()));
            if value <= ZERO_THRESHOLD {
                buckets.zeros += count;
                continue;
            }
            let number = number_of(value);
            match counts.last_mut() {
                Some((last, sum)) if *last == number => *sum += count,
                _ => counts.push((number, count)),
            }
        }
        buckets.lay_out(&counts);
        buckets
    }

    fn lay_out(&mut self, counts: &[(i32, u64)]) {
        let (mut next, mut before) = (0, 0_i64);
        for (number, count) in counts {
            match self.spans.last_mut() {
                Some((_, length)) if *number == next => *length += 1,
                _ => self.spans.push((number - next, 1)),
            }
            next = number + 1;
            let count = i64::try_from(*count).unwrap_or(i64::MAX);
            self.deltas.push(count - before);
            before = count;
        }
    }

    /// As the encoder wants it.
    pub(super) fn native(&self) -> NativeHistogram<'_> {
        NativeHistogram {
            schema: SCHEMA,
            zero_threshold: ZERO_THRESHOLD,
            zero_count: self.zeros,
            negative: NativeHistogramBuckets {
                spans: &[],
                deltas: &[],
            },
            positive: NativeHistogramBuckets {
                spans: &self.spans,
                deltas: &self.deltas,
            },
            created: None,
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "an hour and a million rows have small logarithms"
)]
fn number_of(value: f64) -> i32 {
    (value.log2() * BUCKETS_PER_DOUBLING).ceil() as i32
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn as_is(value: u64) -> f64 {
        value as f64
    }

    #[test]
    fn a_bucket_ends_with_its_bound_and_runs_are_told_by_their_distance() {
        let mut histogram = Histogram::new_with_bounds(1, 1_000_000, 3).unwrap();
        // Buckets 0, 8, 16 and 160.
        for value in [0, 0, 1, 2, 4, 4, 4, 1_000_000] {
            histogram.record(value).unwrap();
        }
        let buckets = Buckets::of(&histogram, as_is);
        assert_eq!(buckets.zeros, 2);
        assert_eq!(buckets.spans, [(0, 1), (7, 1), (7, 1), (143, 1)]);
        assert_eq!(buckets.deltas, [1, 0, 2, -2]);
        assert_eq!(number_of(1_000_000.0), 160);
        let (below, at) = (
            number_of(2.0_f64.powf(0.375) - 1e-9),
            number_of(2.0_f64.powf(0.375) + 1e-9),
        );
        assert_eq!((below, at), (3, 4));
        assert_eq!(ZERO_THRESHOLD, 2.0_f64.powi(-128));
    }

    #[test]
    fn neighbours_are_one_run_and_counts_add_up() {
        let mut histogram = Histogram::new_with_bounds(1, 3_600_000_000, 3).unwrap();
        (1..=10_000).for_each(|us| histogram.record(us).unwrap());
        let buckets = Buckets::of(&histogram, |us| us as f64 / 1e6);
        let length: u32 = buckets.spans.iter().map(|(_, length)| length).sum();
        assert_eq!(length as usize, buckets.deltas.len());
        let counts = buckets.deltas.iter().scan(0, |count, delta| {
            *count += delta;
            Some(*count)
        });
        assert_eq!(counts.sum::<i64>(), 10_000);
        assert!(buckets.spans.len() < 10, "{:?}", buckets.spans);
        assert_eq!(buckets.spans[0].0, number_of(1e-6));
    }
}
