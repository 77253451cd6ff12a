//! `consumer.core_groups`: cpuset lists, as Linux spells them. A list like "0-3,8" is one group's cores.

use super::reader::Reader;
use crate::cores;

/// A group for each NUMA node.
const AUTO: &str = "auto";

/// The cores of each group; no core is in two of them.
pub(super) fn core_groups(read: &mut Reader<'_>) -> Vec<Vec<usize>> {
    const NAME: &str = "consumer.core_groups";
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let lists = read.list(NAME);
    if lists == [AUTO] {
        return cores::nodes().unwrap_or_else(|error| {
            read.refuse(
                NAME,
                format!("the machine's NUMA nodes can't be read: {error}"),
            );
            Vec::new()
        });
    }
    for text in lists {
        let Some(cores) = cores::of_list(&text) else {
            let allowed = format!(
                "allowed are numbers of cores (0 to {}) and ranges, like \"0-3,8\", each once; or \"{AUTO}\" alone",
                cores::CORE_MAX
            );
            read.refuse(NAME, format!("found \"{text}\", {allowed}"));
            continue;
        };
        if let Some(core) = cores
            .iter()
            .find(|core| groups.iter().any(|group| group.contains(core)))
        {
            read.refuse(
                NAME,
                format!(
                    "core {core} is in two groups; groups that share a core slow each other, \
                     so give it to one"
                ),
            );
        }
        groups.push(cores);
    }
    groups
}
