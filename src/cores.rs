//! Which cores a thread may use. Threads inherit the mask of the thread that makes them, librdkafka's too, so a core group is
//! started by a thread that already has the group's mask.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::{fs, io};

/// The highest number of a core that a mask can hold.
pub const CORE_MAX: usize = CpuSet::MAX_CPU - 1;

/// Where Linux tells of the nodes of memory.
const NODES: &str = "/sys/devices/system/node";

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

/// The cores of each NUMA node that this process may use, in the order of the nodes; nodes of which it may use none are left
/// out. All in one where the system tells of no nodes.
pub fn nodes() -> io::Result<Vec<Vec<usize>>> {
    let mask = sched_getaffinity(None)?;
    let allowed: Vec<usize> = (0..=CORE_MAX).filter(|core| mask.is_set(*core)).collect();
    let mut lists = Vec::new();
    for entry in fs::read_dir(NODES).into_iter().flatten() {
        let entry = entry?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("node"));
        if let Some(number) = number.and_then(|number| number.parse().ok()) {
            lists.push((number, fs::read_to_string(entry.path().join("cpulist"))?));
        }
    }
    Ok(within(lists, &allowed))
}

fn within(mut lists: Vec<(usize, String)>, allowed: &[usize]) -> Vec<Vec<usize>> {
    lists.sort_unstable();
    let of_node = |(_, list): (usize, String)| -> Vec<usize> {
        let cores = of_list(&list).unwrap_or_default();
        let usable = allowed.iter().filter(|core| cores.contains(core));
        usable.copied().collect()
    };
    let mut nodes: Vec<Vec<usize>> = lists.into_iter().map(of_node).collect();
    nodes.retain(|cores| !cores.is_empty());
    match nodes.is_empty() {
        true => vec![allowed.to_vec()],
        false => nodes,
    }
}

/// The cores that a list names as Linux spells it: "0-3,8". `None` if it is none, or names one twice.
pub fn of_list(text: &str) -> Option<Vec<usize>> {
    let number = |text: &str| {
        let number = text.trim().parse::<usize>().ok();
        number.filter(|core| *core <= CORE_MAX)
    };
    let mut cores = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        if first > last || (first..=last).any(|core| cores.contains(&core)) {
            return None;
        }
        cores.extend(first..=last);
    }
    Some(cores)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_names_cores_and_ranges() {
        assert_eq!(of_list("0-3,8"), Some(vec![0, 1, 2, 3, 8]));
        assert_eq!(of_list("5\n"), Some(vec![5]));
        for wrong in ["", "a", "3-1", "0-3,2", "1,", "0-", "1024", "-1", "0-3-5"] {
            assert_eq!(of_list(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_node_has_the_cores_that_may_be_used() {
        let lists = |lists: &[(usize, &str)]| {
            let lists = lists
                .iter()
                .map(|(number, list)| (*number, (*list).to_owned()));
            lists.collect::<Vec<_>>()
        };
        let all: Vec<usize> = (0..8).collect();
        let two = lists(&[(10, "4-7\n"), (2, "0-3\n")]);
        assert_eq!(within(two.clone(), &all), [[0, 1, 2, 3], [4, 5, 6, 7]]);
        assert_eq!(within(two.clone(), &[1, 6, 7]), [vec![1], vec![6, 7]]);
        // A node of memory alone, or one that this process is kept from.
        assert_eq!(within(two, &[5]), [[5]]);
        assert_eq!(within(lists(&[(0, "\n"), (1, "0-1\n")]), &[0, 1]), [[0, 1]]);
        assert_eq!(within(vec![], &[0, 1]), [[0, 1]]);
    }

    #[test]
    fn this_machine_has_a_node() {
        assert!(
            nodes()
                .expect("this system")
                .iter()
                .all(|cores| !cores.is_empty())
        );
    }
}
