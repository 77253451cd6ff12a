//! The members' resident memory against the formula that the documentation states (src/config/README.md, "Memory").
//!
//! What a member held at its fullest counts, as an allocator keeps what it had: all of its partitions at their limit, and
//! fetched ahead whatever librdkafka may.

use super::{Members, Shared};
use crate::reading::Reading;
use millpond::config::Config;
use std::collections::HashMap;
use std::time::Duration;

const LOOK: Duration = Duration::from_millis(500);
const MIB: f64 = 1_048_576.0;
/// The formula's: for the process, for each worker, for each assigned partition, for each message that was fetched ahead.
const PROCESS: f64 = 25.0 * MIB;
const WORKER: f64 = 0.1 * MIB;
const PARTITION: f64 = 0.1 * MIB;
const FETCHED: f64 = 1200.0;
/// A message of the load at most, and what one in memory takes besides.
const MESSAGE: f64 = 200.0;
const IN_MEMORY: f64 = 1.2 * MESSAGE + 160.0;
/// What one more fetch brings.
const FETCH: f64 = 12.0 * MIB / MESSAGE;

/// Messages of a partition that are fetched ahead at most, by the count of partitions of the topic.
fn queued_min(partitions: u32) -> f64 {
    let all = (144_000.0 - 2_000.0 * f64::from(partitions)).max(48_000.0);
    (all / f64::from(partitions)).clamp(100.0, 10_000.0)
}

/// What a member may take that has had so many workers and partitions.
fn allowed(config: &Config, workers: f64, partitions: f64) -> f64 {
    let in_memory = f64::from(config.consumer.in_memory_max_per_partition) * partitions;
    let fetched = queued_min(config.partitioner.partitions()) * partitions + FETCH;
    PROCESS + WORKER * workers + PARTITION * partitions + IN_MEMORY * in_memory + FETCHED * fetched
}

/// Looks until it is over.
pub(super) fn watch(config: &Config, members: &Members, shared: &Shared) {
    // By process: the most workers and partitions that it had.
    let mut most: HashMap<u32, (f64, f64)> = HashMap::new();
    while !shared.is_over() {
        std::thread::sleep(LOOK);
        let now = members.lock().unwrap().clone();
        for (process, port) in now {
            // One that is stopped does not answer; its memory stays as it is.
            let Some(reading) = Reading::take(port) else {
                continue;
            };
            let read = |name| reading.sum(name).unwrap_or(0.0);
            let (workers, partitions) = most.entry(process).or_default();
            *workers = workers.max(read("millpond_workers"));
            *partitions = partitions.max(read("millpond_assigned_partitions"));
            let Some(resident) = resident_bytes(process) else {
                continue;
            };
            let allowed = allowed(config, *workers, *partitions);
            let mut share_max = shared.memory_share_max.lock().unwrap();
            *share_max = share_max.max(resident / allowed);
            if resident > allowed {
                shared.report(format!(
                    "process {process} takes {:.0} MiB, and the formula allows {:.0}",
                    resident / MIB,
                    allowed / MIB
                ));
            }
        }
    }
}

/// `None`: it is gone.
pub fn resident_bytes(process: u32) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse().ok()?;
    Some(kib * 1024.0)
}
