//! The bound on rows per second that a shard is written with, over the whole group: each process takes the part that its
//! partitions are of the shard's.
//!
//! The generic cell rate algorithm: one atomic holds the time at which the bucket would be full again. A batch takes all its
//! rows at once and is told how long to wait.

use crate::ids::ShardIndex;
use crate::sync::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// A burst may be this long ahead of the rate, so that batches need not be spread.
const BURST: Duration = Duration::from_millis(100);

/// The bound of one shard in this process.
#[derive(Debug)]
pub struct WriteRate {
    /// 0 for no bound.
    rows_per_second: AtomicU64,
    partitions_of_shard: u32,
    /// Partitions of this shard that this process has.
    assigned: AtomicUsize,
    began: Instant,
    /// Nanoseconds since `began` at which what was taken so far is paid off.
    paid_off_ns: AtomicU64,
}

impl WriteRate {
    /// A bound over the whole group for a shard with that many partitions; 0 for none until one is set.
    pub fn new(rows_per_second: u32, partitions_of_shard: u32) -> Self {
        Self {
            rows_per_second: AtomicU64::new(rows_per_second.into()),
            partitions_of_shard,
            assigned: AtomicUsize::new(0),
            began: crate::clock::now(),
            paid_off_ns: AtomicU64::new(0),
        }
    }

    /// Another bound from now on, while running; 0 for none.
    pub fn set_rows_per_second(&self, rows_per_second: u32) {
        self.rows_per_second
            .store(rows_per_second.into(), Ordering::Relaxed);
    }

    /// Tells how many of the shard's partitions this process has now.
    pub fn assigned_changed(&self, by: isize) {
        if by >= 0 {
            self.assigned
                .fetch_add(by.unsigned_abs(), Ordering::Relaxed);
        } else {
            self.assigned
                .fetch_sub(by.unsigned_abs(), Ordering::Relaxed);
        }
    }

    /// Takes the right to write that many rows and returns how long to wait before writing them.
    pub fn take(&self, rows: usize) -> Duration {
        self.take_at(rows, crate::clock::now().duration_since(self.began))
    }

    fn take_at(&self, rows: usize, now: Duration) -> Duration {
        let rows_per_second = self.rows_per_second.load(Ordering::Relaxed);
        if rows_per_second == 0 {
            return Duration::ZERO;
        }
        let now_ns = nanoseconds(now);
        // With no partition left, what is still written are remains of the last one.
        let assigned = self.assigned.load(Ordering::Relaxed).max(1) as u64;
        let cost_ns = (rows as u64)
            .saturating_mul(1_000_000_000)
            .saturating_mul(u64::from(self.partitions_of_shard))
            / (rows_per_second * assigned);
        let mut paid_off_ns = self.paid_off_ns.load(Ordering::Relaxed);
        loop {
            let after = paid_off_ns.max(now_ns).saturating_add(cost_ns);
            match self.paid_off_ns.compare_exchange_weak(
                paid_off_ns,
                after,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => {
                    return Duration::from_nanos(after.saturating_sub(now_ns))
                        .saturating_sub(BURST);
                }
                Err(current) => paid_off_ns = current,
            }
        }
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The bounds of all shards; `None` where a shard never gets one.
#[derive(Debug)]
pub struct WriteRates(pub Vec<Option<WriteRate>>);

impl WriteRates {
    /// The shard's bound.
    pub fn of(&self, shard: ShardIndex) -> Option<&WriteRate> {
        self.0[shard.0].as_ref()
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;

    #[test]
    fn over_any_time_no_more_rows_pass_than_the_rate_and_one_burst() {
        let rate = WriteRate::new(1000, 24);
        rate.assigned_changed(24);
        let (mut now, mut rows) = (Duration::ZERO, 0);
        while now < Duration::from_secs(10) {
            now += rate.take_at(70, now);
            rows += 70;
        }
        assert!(
            (10_000..=10_000 + 100 + 70).contains(&rows),
            "{rows} rows in 10 s"
        );
    }

    #[test]
    fn a_bound_comes_and_goes_while_running() {
        let rate = WriteRate::new(0, 24);
        rate.assigned_changed(24);
        let second = Duration::from_secs(1);
        assert_eq!(rate.take_at(1_000_000, second), Duration::ZERO);
        rate.set_rows_per_second(1000);
        assert_eq!(rate.take_at(2000, second), 2 * second - BURST);
        rate.set_rows_per_second(0);
        assert_eq!(rate.take_at(1_000_000, second), Duration::ZERO);
    }

    #[test]
    fn a_process_takes_the_part_of_its_partitions() {
        let rate = WriteRate::new(1000, 24);
        rate.assigned_changed(24);
        rate.assigned_changed(-18);
        let (mut now, mut rows) = (Duration::ZERO, 0);
        while now < Duration::from_secs(10) {
            now += rate.take_at(10, now);
            rows += 10;
        }
        assert!(
            (2500..=2500 + 25 + 10).contains(&rows),
            "{rows} rows in 10 s"
        );
    }
}
