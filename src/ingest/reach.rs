//! Whether Kafka takes updates, by partition: what would only wait is refused at once, before anything is handed over.
//!
//! A partition is out of reach when it has acknowledged nothing for a second though something waits, or when an
//! acknowledgement failed, or Kafka doesn't answer [`super::watch`] at all. From the second and third state it comes back when
//! Kafka names its leader.

use crate::ids::Partition;
use crate::sync::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

/// How long a partition may acknowledge nothing: far beyond a slow broker's answer, and soon enough that few requests are
/// handed over to one that is gone.
const SILENCE_MS_MAX: i64 = 1000;

/// What is known of a partition. Any thread reads and writes it; each part alone is right, and nothing rests on two.
#[derive(Debug)]
struct Reach {
    /// Records handed over and not yet reported.
    waiting: AtomicUsize,
    /// When the first of them came, or the last was acknowledged, in milliseconds since 1970.
    progress_ms: AtomicI64,
    /// A record failed, or Kafka was not heard of yet.
    lost: AtomicBool,
}

/// All partitions of the topic.
#[derive(Debug)]
pub struct Reaches(Vec<Reach>);

impl Reaches {
    /// Of so many partitions, of none of which anything was heard.
    pub fn new(partitions: u32) -> Self {
        let reach = |_| Reach {
            waiting: AtomicUsize::new(0),
            progress_ms: AtomicI64::new(0),
            lost: AtomicBool::new(true),
        };
        Self((0..partitions).map(reach).collect())
    }

    /// Whether records for the partition would be acknowledged soon, as far as can be told; else why not.
    pub fn check(&self, partition: Partition, now_ms: i64) -> Result<(), String> {
        let reach = &self.0[partition.index()];
        if reach.lost.load(Ordering::Relaxed) {
            return Err(format!("partition {partition} is out of reach"));
        }
        let silent_ms = now_ms - reach.progress_ms.load(Ordering::Relaxed);
        if reach.waiting.load(Ordering::Relaxed) > 0 && silent_ms > SILENCE_MS_MAX {
            return Err(format!(
                "partition {partition} has acknowledged nothing for {:.1} s",
                Duration::from_millis(silent_ms.unsigned_abs()).as_secs_f64()
            ));
        }
        Ok(())
    }

    /// A record is handed over.
    pub fn handed_over(&self, partition: Partition, now_ms: i64) {
        let reach = &self.0[partition.index()];
        if reach.waiting.fetch_add(1, Ordering::Relaxed) == 0 {
            reach.progress_ms.store(now_ms, Ordering::Relaxed);
        }
    }

    /// A record was not taken after all.
    pub fn taken_back(&self, partition: Partition) {
        self.0[partition.index()]
            .waiting
            .fetch_sub(1, Ordering::Relaxed);
    }

    /// A record was reported.
    pub fn reported(&self, partition: Partition, acknowledged: bool, now_ms: i64) {
        let reach = &self.0[partition.index()];
        match acknowledged {
            true => reach.progress_ms.store(now_ms, Ordering::Relaxed),
            false => reach.lost.store(true, Ordering::Relaxed),
        }
        self.taken_back(partition);
    }

    /// Kafka named a leader for it, or none.
    pub fn found(&self, partition: usize, has_leader: bool) {
        self.0[partition].lost.store(!has_leader, Ordering::Relaxed);
    }

    /// How many partitions there are.
    pub fn partitions(&self) -> usize {
        self.0.len()
    }

    /// How many partitions can't be written to now.
    pub fn unreachable(&self, now_ms: i64) -> usize {
        let partitions = (0_i32..).zip(&self.0).map(|(number, _)| Partition(number));
        partitions
            .filter(|partition| self.check(*partition, now_ms).is_err())
            .count()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    const P: Partition = Partition(1);

    fn found() -> Reaches {
        let reaches = Reaches::new(2);
        (0..2).for_each(|partition| reaches.found(partition, true));
        reaches
    }

    #[test]
    fn before_kafka_is_heard_of_nothing_is_taken() {
        let reaches = Reaches::new(2);
        assert_eq!(reaches.unreachable(0), 2);
        reaches.found(1, true);
        assert_eq!(reaches.check(P, 0), Ok(()));
        assert_eq!(reaches.unreachable(0), 1);
    }

    #[test]
    fn silence_counts_only_while_something_waits_and_ends_with_an_acknowledgement() {
        let reaches = found();
        assert_eq!(reaches.check(P, 50_000), Ok(()));
        reaches.handed_over(P, 50_000);
        reaches.handed_over(P, 50_900);
        assert_eq!(reaches.check(P, 51_000), Ok(()));
        let why = reaches.check(P, 51_200).unwrap_err();
        assert_eq!(why, "partition 1 has acknowledged nothing for 1.2 s");
        assert_eq!(reaches.check(Partition(0), 51_200), Ok(()));
        reaches.reported(P, true, 51_300);
        assert_eq!(reaches.check(P, 52_000), Ok(()));
        reaches.reported(P, true, 51_400);
        assert_eq!(reaches.check(P, 99_000), Ok(()));
    }

    #[test]
    fn a_failure_holds_until_kafka_names_a_leader() {
        let reaches = found();
        reaches.handed_over(P, 0);
        reaches.reported(P, false, 10);
        assert!(reaches.check(P, 20).is_err());
        reaches.found(1, true);
        assert_eq!(reaches.check(P, 20), Ok(()));
    }
}
