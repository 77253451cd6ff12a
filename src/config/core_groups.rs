//! `consumer.core_groups`: cpuset lists, as Linux spells them. A list like "0-3,8" is one group's cores.

use super::reader::Reader;

/// Linux' own limit on the numbers of cores that a mask can hold.
const CORE_MAX: usize = 1023;

/// The cores of each group; no core is in two of them.
pub(super) fn core_groups(read: &mut Reader<'_>) -> Vec<Vec<usize>> {
    const NAME: &str = "consumer.core_groups";
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for text in read.list(NAME) {
        let cores = match cores_of_list(&text) {
            Ok(cores) => cores,
            Err(allowed) => {
                read.refuse(NAME, format!("found \"{text}\", {allowed}"));
                continue;
            }
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

fn cores_of_list(text: &str) -> Result<Vec<usize>, String> {
    let allowed = || {
        format!(
            "allowed are numbers of cores (0 to {CORE_MAX}) and ranges, like \"0-3,8\", each once"
        )
    };
    let number = |text: &str| {
        text.trim()
            .parse::<usize>()
            .ok()
            .filter(|core| *core <= CORE_MAX)
            .ok_or_else(allowed)
    };
    let mut cores = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        if first > last || (first..=last).any(|core| cores.contains(&core)) {
            return Err(allowed());
        }
        cores.extend(first..=last);
    }
    Ok(cores)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpuset_list_names_cores_and_ranges() {
        assert_eq!(cores_of_list("0-3,8"), Ok(vec![0, 1, 2, 3, 8]));
        assert_eq!(cores_of_list("5"), Ok(vec![5]));
        for wrong in ["", "a", "3-1", "0-3,2", "1,", "0-", "1024", "-1", "0-3-5"] {
            assert!(cores_of_list(wrong).is_err(), "{wrong}");
        }
    }
}
