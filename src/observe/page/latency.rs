//! Distributions as curves on a logarithmic axis of 1/(1−p), as HDR plots have them.

use super::document::Curve;
use hdrhistogram::Histogram;

/// Five points a decade: 50 % lies between the second and the third.
const POINTS_PER_DECADE: i32 = 5;
/// Up to 99.9999 %.
const POINTS_MAX: i32 = 6 * POINTS_PER_DECADE;

/// The curve of a distribution in microseconds.
pub fn curve(histogram: &Histogram<u64>) -> Curve {
    let count = histogram.len();
    let share_above = |point: i32| 10_f64.powf(-f64::from(point) / f64::from(POINTS_PER_DECADE));
    let points = (0..=POINTS_MAX).map(share_above);
    // Counts are far below 2^53.
    let points = points.take_while(|share| count as f64 * share >= 1.0);
    Curve {
        count,
        max_us: histogram.max(),
        us: points
            .map(|share| histogram.value_at_quantile(1.0 - share))
            .collect(),
    }
}

/// What came since an earlier state of the same distribution.
pub fn since(now: &Histogram<u64>, earlier: &Histogram<u64>) -> Histogram<u64> {
    let mut new = now.clone();
    match new.subtract(earlier) {
        Ok(()) => new,
        // Not a later state of the same: all of it is new.
        Err(_) => now.clone(),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn of(values: impl Iterator<Item = u64>) -> Histogram<u64> {
        let mut histogram = Histogram::new_with_bounds(1, 3_600_000_000, 3).unwrap();
        values.for_each(|value| histogram.record(value).unwrap());
        histogram
    }

    #[test]
    fn a_curve_ends_where_there_are_no_values_left() {
        let curve_of = |count| curve(&of(1..=count));
        let thousand = curve_of(1000);
        assert_eq!((thousand.count, thousand.max_us), (1000, 1000));
        // 1, 10, 100 and 1000 in a thousand, five steps each.
        assert_eq!(thousand.us.len(), 16);
        assert_eq!(thousand.us[5], 900);
        assert_eq!(thousand.us[10], 990);
        assert_eq!(thousand.us[15], 999);
        assert_eq!(curve_of(1).us.len(), 1);
        assert!(curve_of(0).us.is_empty());
    }

    #[test]
    fn an_interval_has_only_what_came_in_it() {
        let earlier = of(1..=100);
        let now = of((1..=100).chain([5000, 6000]));
        let new = since(&now, &earlier);
        assert_eq!(new.len(), 2);
        assert!(new.value_at_quantile(0.0) >= 4990);
        assert_eq!(since(&earlier, &now).len(), 100, "never less than nothing");
    }
}
