//! Which cores a thread may use. Threads inherit the mask of the thread that makes them, librdkafka's too, so a core group is
//! started by a thread that already has the group's mask.

use rustix::thread::{CpuSet, sched_setaffinity};
use std::io;

/// Lets the calling thread, and every thread that it makes from now on, run on these cores only.
pub fn confine(cores: &[usize]) -> io::Result<()> {
    let mut set = CpuSet::new();
    for core in cores {
        set.set(*core);
    }
    sched_setaffinity(None, &set).map_err(|error| {
        let hint = "consumer.core_groups names cores that this process may not use; see `taskset -p` and the cgroup's cpuset";
        io::Error::new(error.kind(), format!("cores {cores:?}: {error} ({hint})"))
    })
}

/// Pins the calling thread to one core. False where the system refuses.
pub fn pin(core: usize) -> bool {
    core_affinity::set_for_current(core_affinity::CoreId { id: core })
}
