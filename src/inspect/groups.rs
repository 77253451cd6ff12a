//! Counts by key, in bounded memory: exact up to a number of keys, and beyond it a Misra-Gries summary, as in
//! src/hot/sketch.rs: with the table full, the median weight is taken from every entry, and those that have none left, half of
//! them at least, make room. What is shown of an entry is not its weight but what was counted since it came in, so one that
//! came in before the first such step stays exact; a later one is too low by no more than the medians taken before it came.

use hashbrown::HashMap;

/// Keys that are counted exactly. Each takes some 150 bytes.
pub const KEYS_MAX: usize = 1_000_000;

/// A longer key is cut, so that a million of them are no danger.
pub const KEY_BYTES_MAX: usize = 256;

/// What is known of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Count {
    /// Messages.
    pub messages: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
    /// The lowest Kafka timestamp, in milliseconds since 1970.
    pub first_ms: Option<i64>,
    /// The highest.
    pub last_ms: Option<i64>,
    /// How many messages may be missing.
    pub missed_max: u64,
}

struct Entry {
    weight: u64,
    count: Count,
}

/// The table.
pub struct Groups {
    entries: HashMap<Box<[u8]>, Entry>,
    keys_max: usize,
    missed: u64,
    messages: u64,
    bytes: u64,
}

impl Default for Groups {
    fn default() -> Self {
        Self::with_keys_max(KEYS_MAX)
    }
}

impl Groups {
    fn with_keys_max(keys_max: usize) -> Self {
        Self {
            entries: HashMap::new(),
            keys_max,
            missed: 0,
            messages: 0,
            bytes: 0,
        }
    }

    /// Counts a message.
    pub fn add(&mut self, key: &[u8], bytes: u64, timestamp_ms: Option<i64>) {
        self.messages += 1;
        self.bytes += bytes;
        let key = &key[..key.len().min(KEY_BYTES_MAX)];
        if let Some(entry) = self.entries.get_mut(key) {
            entry.weight += 1;
            entry.count.add(bytes, timestamp_ms);
            return;
        }
        if self.entries.len() >= self.keys_max {
            self.make_room();
        }
        let entry = Entry {
            weight: 1,
            count: Count {
                messages: 1,
                bytes,
                first_ms: timestamp_ms,
                last_ms: timestamp_ms,
                missed_max: self.missed,
            },
        };
        self.entries.insert(key.into(), entry);
    }

    fn make_room(&mut self) {
        let mut weights: Vec<u64> = self.entries.values().map(|entry| entry.weight).collect();
        let middle = weights.len() / 2;
        let (_, median, _) = weights.select_nth_unstable(middle);
        let median = *median;
        self.missed += median;
        self.entries.retain(|_, entry| {
            entry.weight = entry.weight.saturating_sub(median);
            entry.weight > 0
        });
    }

    /// All messages that were counted.
    pub fn messages(&self) -> u64 {
        self.messages
    }

    /// Bytes of their keys and values.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many messages a key may have that is not in the table any more; 0: the table is exact.
    pub fn missed_max(&self) -> u64 {
        self.missed
    }

    /// How many keys are in the table.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Every key, those with the most messages first.
    pub fn heaviest(&self) -> Vec<(&[u8], &Count)> {
        let entries = self.entries.iter();
        let mut all: Vec<(&[u8], &Count)> =
            entries.map(|(key, entry)| (&**key, &entry.count)).collect();
        all.sort_unstable_by(|(one_key, one), (other_key, other)| {
            let by_count = other.messages.cmp(&one.messages);
            by_count.then_with(|| one_key.cmp(other_key))
        });
        all
    }
}

impl Count {
    fn add(&mut self, bytes: u64, timestamp_ms: Option<i64>) {
        self.messages += 1;
        self.bytes += bytes;
        let Some(now_ms) = timestamp_ms else {
            return;
        };
        self.first_ms = Some(self.first_ms.map_or(now_ms, |first| first.min(now_ms)));
        self.last_ms = Some(self.last_ms.map_or(now_ms, |last| last.max(now_ms)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap as Exact;

    #[test]
    fn up_to_the_bound_everything_is_exact() {
        let mut groups = Groups::with_keys_max(3);
        for (key, bytes, at) in [
            ("a", 5, Some(30)),
            ("b", 1, None),
            ("a", 7, Some(10)),
            ("c", 1, Some(1)),
        ] {
            groups.add(key.as_bytes(), bytes, at);
        }
        let a = Count {
            messages: 2,
            bytes: 12,
            first_ms: Some(10),
            last_ms: Some(30),
            missed_max: 0,
        };
        let all = groups.heaviest();
        assert_eq!(all[0], (b"a".as_slice(), &a));
        let rest: Vec<&[u8]> = all[1..].iter().map(|(key, _)| *key).collect();
        assert_eq!(rest, [b"b", b"c"]);
        assert_eq!(
            (groups.messages(), groups.bytes(), groups.missed_max()),
            (4, 14, 0)
        );
    }

    #[test]
    fn beyond_it_a_count_is_never_too_high_and_too_low_by_what_is_said_at_most() {
        let mut groups = Groups::with_keys_max(20);
        let mut exact: Exact<Vec<u8>, u64> = Exact::new();
        let mut state = 7_u64;
        for _ in 0..50_000 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let random = state >> 40;
            // A third of all is of five keys, the rest of thousands.
            let key = match random % 3 {
                0 => format!("heavy {}", random / 3 % 5),
                _ => format!("light {}", random / 3 % 5_000),
            };
            groups.add(key.as_bytes(), 1, None);
            *exact.entry(key.into_bytes()).or_default() += 1;
        }
        assert!(groups.missed_max() > 0);
        let found: Exact<Vec<u8>, Count> = groups
            .heaviest()
            .into_iter()
            .map(|(key, count)| (key.to_vec(), count.clone()))
            .collect();
        assert!(found.len() <= 20);
        for (key, truth) in exact {
            match found.get(&key) {
                Some(count) => {
                    assert!(count.messages <= truth);
                    assert!(truth <= count.messages + count.missed_max);
                }
                None => assert!(truth <= groups.missed_max()),
            }
        }
        // Each step takes the median from half of the table at least.
        assert!(groups.missed_max() <= 50_000 * 2 / 20);
    }

    #[test]
    fn a_long_key_is_cut() {
        let mut groups = Groups::default();
        groups.add(&[b'x'; 1_000], 1, None);
        assert_eq!(groups.heaviest()[0].0.len(), KEY_BYTES_MAX);
    }
}
