//! When the group committed, when faults began and ended, and what follows from both: pauses and recoveries.
//!
//! A pause is the longest time in which nothing of some shard was committed although there was something to do. A recovery
//! counts from the end of a fault until all that was in the log by then is committed, whatever other faults there are.

use super::group::Group;
use super::{Looks, Shared};
use millpond::config::Config;
use millpond::ids::{Partition, ShardIndex};
use millpond::kafka::admin::Admin;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How often it is asked, which bounds how exactly a pause is known.
const LOOK: Duration = Duration::from_millis(100);
const ANSWER: Duration = Duration::from_secs(1);

struct Fault {
    kind: &'static str,
    began: Instant,
    ended: Option<Instant>,
    /// What was in the log when it had ended, by partition.
    target: Option<Vec<i64>>,
    recovered: Option<Instant>,
    is_late: bool,
}

/// What happened when.
pub struct Timeline {
    faults: Vec<Fault>,
    /// By shard: when something was committed, or there was nothing to do.
    moves: Vec<Vec<Instant>>,
    /// When the broker told last what is committed.
    pub answered: Instant,
}

/// By kind of fault: the longest pause and the longest recovery.
pub type Recoveries = BTreeMap<&'static str, (Duration, Duration)>;

impl Timeline {
    pub fn new(shards: usize) -> Self {
        let now = Instant::now();
        Self {
            faults: Vec::new(),
            moves: vec![vec![now]; shards],
            answered: now,
        }
    }

    pub fn begin(&mut self, kind: &'static str) -> usize {
        self.faults.push(Fault {
            kind,
            began: Instant::now(),
            ended: None,
            target: None,
            recovered: None,
            is_late: false,
        });
        self.faults.len() - 1
    }

    pub fn end(&mut self, fault: usize) {
        self.faults[fault].ended = Some(Instant::now());
    }

    pub fn begun_for(&self, fault: usize) -> Duration {
        self.faults[fault].began.elapsed()
    }

    pub fn still_for(&self, shard: usize) -> Duration {
        self.moves[shard].last().unwrap().elapsed()
    }

    pub fn has_recovered(&self) -> bool {
        let mut ended = self.faults.iter().filter(|fault| fault.ended.is_some());
        ended.all(|fault| fault.recovered.is_some())
    }

    pub fn recoveries(&self) -> Recoveries {
        let mut all = Recoveries::new();
        for fault in &self.faults {
            let recovered = fault.recovered.unwrap_or_else(Instant::now);
            let recovery = recovered - fault.ended.unwrap_or(recovered);
            let longest = all.entry(fault.kind).or_default();
            longest.0 = longest.0.max(self.longest_pause(fault.began, recovered));
            longest.1 = longest.1.max(recovery);
        }
        all
    }

    /// Of any shard, that has a part in this time.
    fn longest_pause(&self, from: Instant, to: Instant) -> Duration {
        let pauses = self.moves.iter().flat_map(|moves| moves.windows(2));
        let within = pauses.filter(|pause| pause[1] > from && pause[0] < to);
        within
            .map(|pause| pause[1] - pause[0])
            .max()
            .unwrap_or_default()
    }

    /// Takes note of what is committed and in the log now; `Some`: a fault that should have been got over by now.
    fn look(&mut self, committed: &[i64], ends: &[i64], recovery_max: Duration) -> Option<String> {
        let mut late = None;
        for fault in &mut self.faults {
            let Some(ended) = fault.ended.filter(|_| fault.recovered.is_none()) else {
                continue;
            };
            let target = fault.target.get_or_insert_with(|| ends.to_vec());
            if committed
                .iter()
                .zip(target)
                .all(|(at, target)| at >= target)
            {
                fault.recovered = Some(Instant::now());
            } else if ended.elapsed() > recovery_max && !fault.is_late {
                fault.is_late = true;
                late = Some(format!(
                    "{}: not all that was in the log at its end is committed {recovery_max:?} after it",
                    fault.kind
                ));
            }
        }
        late
    }
}

/// Asks until it is over.
pub(super) fn watch(config: &Config, looks: Looks, shared: &Shared) {
    let partitions = i32::try_from(config.partitioner.partitions()).unwrap();
    let mut group = Group::of(&config.kafka, partitions);
    let admin = Admin::connect(&config.kafka).unwrap();
    let shard_of = |partition| config.partitioner.shard_of_partition(Partition(partition));
    let mut before = vec![0; config.partitioner.partitions() as usize];
    while !shared.is_over() {
        std::thread::sleep(LOOK);
        let Some(committed) = group.committed(ANSWER) else {
            continue;
        };
        shared.timeline.lock().unwrap().answered = Instant::now();
        for (partition, (before, now)) in before.iter().zip(&committed).enumerate() {
            if now < before {
                shared.report(format!(
                    "what is committed of partition {partition} went back from {before} to {now}"
                ));
            }
        }
        // Asked for after what is committed, so never below it.
        let Ok(ends) = admin.end_offsets(&config.kafka.topic, ANSWER) else {
            continue;
        };
        for (partition, (now, end)) in committed.iter().zip(&ends).enumerate() {
            if now > end {
                shared.report(format!(
                    "partition {partition} is committed at {now} and ends at {end}"
                ));
            }
        }
        let mut timeline = shared.timeline.lock().unwrap();
        for shard in 0..timeline.moves.len() {
            let of_shard =
                (0..partitions).filter(|partition| shard_of(*partition) == ShardIndex(shard));
            let of_shard: Vec<usize> = of_shard.map(|at| usize::try_from(at).unwrap()).collect();
            let has_moved = of_shard.iter().any(|at| committed[*at] > before[*at]);
            let is_idle = of_shard.iter().all(|at| committed[*at] >= ends[*at]);
            if has_moved || is_idle {
                timeline.moves[shard].push(Instant::now());
            }
        }
        if let Some(late) = timeline.look(&committed, &ends, looks.recovery_max) {
            shared.report(late);
        }
        drop(timeline);
        before = committed;
    }
}
