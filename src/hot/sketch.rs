//! Who has most of a stream, in bounded memory: a weighted Misra-Gries summary with batched decrements, as Anderson and others
//! describe it ("A High-Performance Algorithm for Identifying Frequent Items in Data Streams", 2017; the frequent items of
//! Apache DataSketches are of the kind). Written here because that crate's counts are whole numbers that never fade.
//!
//! A fixed number of counters. An item that has one adds to it, a new one takes a free one. When none is free, the median m of
//! all counters is taken from each, those that reach 0 are dropped (half of them at least), and `missed` grows by m. Hence:
//!
//! - A counter is at most its item's true weight, since weight is only taken from it.
//! - It is at least the true weight minus `missed`: an item lost at most m at each such step, with or without a counter.
//! - `missed` is at most 2/[`CAPACITY`] of all weight: each step takes m from at least half of the counters, so the weight
//!   that is gone is at least `missed` times half of [`CAPACITY`]. So an item above that share always has a counter.
//! - All of it is linear. Multiplying counters, `missed` and the total by one factor (a window that fades), and adding two
//!   sketches up (two lanes), keep every line above true.
//!
//! Adding is one look-up; dropping half of the counters costs some microseconds, at most once in `CAPACITY / 2` new items.
//! Nothing is allocated after the start: the table never holds more than it was made for, and is filled anew when counters
//! are dropped, so that it holds no traces of them.

use hashbrown::{DefaultHashBuilder, HashTable};
use std::hash::{BuildHasher, Hash};

/// Counters of a sketch. Shares down to 2 in so many are sure to be seen, and are exact to that much.
pub const CAPACITY: usize = 224;

/// An item with what is known of its weight.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Counter<K> {
    /// The item.
    pub key: K,
    /// At most its true weight, and less by [`Sketch::missed`] at most.
    pub weight: f64,
}

/// The heaviest items of a stream, all weights positive.
#[derive(Clone, Debug)]
pub struct Sketch<K> {
    counters: HashTable<Counter<K>>,
    hasher: DefaultHashBuilder,
    missed: f64,
    total: f64,
}

impl<K: Copy + Eq + Hash> Default for Sketch<K> {
    fn default() -> Self {
        Self {
            counters: HashTable::with_capacity(CAPACITY),
            hasher: DefaultHashBuilder::default(),
            missed: 0.0,
            total: 0.0,
        }
    }
}

impl<K: Copy + Eq + Hash> Sketch<K> {
    /// Adds to an item's weight.
    pub fn add(&mut self, key: K, weight: f64) {
        self.total += weight;
        self.count(key, weight);
    }

    fn count(&mut self, key: K, weight: f64) {
        let hash = self.hasher.hash_one(key);
        if let Some(counter) = self.counters.find_mut(hash, |counter| counter.key == key) {
            counter.weight += weight;
            return;
        }
        if self.counters.len() == CAPACITY {
            self.drop_the_lighter_half();
        }
        self.insert(Counter { key, weight });
    }

    fn insert(&mut self, counter: Counter<K>) {
        let hasher = &self.hasher;
        let hash = hasher.hash_one(counter.key);
        self.counters
            .insert_unique(hash, counter, |counter| hasher.hash_one(counter.key));
    }

    fn drop_the_lighter_half(&mut self) {
        let mut weights = [0.0; CAPACITY];
        for (weight, counter) in weights.iter_mut().zip(&self.counters) {
            *weight = counter.weight;
        }
        let (_, median, _) = weights.select_nth_unstable_by(CAPACITY / 2, f64::total_cmp);
        let median = *median;
        self.missed += median;
        let Some(any) = self.counters.iter().next().copied() else {
            return;
        };
        let mut kept = [any; CAPACITY];
        let mut kept_count = 0;
        for counter in self.counters.iter().filter(|of| of.weight > median) {
            kept[kept_count] = Counter {
                weight: counter.weight - median,
                ..*counter
            };
            kept_count += 1;
        }
        self.counters.clear();
        for counter in &kept[..kept_count] {
            self.insert(*counter);
        }
    }

    /// Adds everything that another sketch saw.
    pub fn merge(&mut self, other: &Self) {
        for counter in &other.counters {
            self.count(counter.key, counter.weight);
        }
        self.total += other.total;
        self.missed += other.missed;
    }

    /// Lets all weights fade to that part of what they were, from 0 (nothing was ever seen) to 1.
    pub fn fade(&mut self, factor: f64) {
        self.total *= factor;
        self.missed *= factor;
        self.counters
            .iter_mut()
            .for_each(|counter| counter.weight *= factor);
        if factor == 0.0 {
            self.counters.clear();
        }
    }

    /// The weight of everything that was added.
    pub fn total(&self) -> f64 {
        self.total
    }

    /// How much too low a counter may be, and the most that an item without one weighs.
    pub fn missed(&self) -> f64 {
        self.missed
    }

    /// The items that have a counter, in no order.
    pub fn counters(&self) -> impl Iterator<Item = &Counter<K>> {
        self.counters.iter()
    }

    /// What is known of an item's weight; 0 for one without a counter.
    pub fn weight(&self, key: &K) -> f64 {
        let hash = self.hasher.hash_one(key);
        let found = self.counters.find(hash, |counter| counter.key == *key);
        found.map_or(0.0, |counter| counter.weight)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    /// What happens to a sketch, and to exact counts beside it.
    #[derive(Clone, Debug)]
    enum Operation {
        Add(u16, u16),
        /// So many new items, which only the light ones of an earlier time are.
        Crowd(u16),
        Fade(f64),
        /// Another sketch, of which this one takes everything.
        Merge(Vec<(u16, u16)>),
    }

    fn operations() -> impl Strategy<Value = Vec<Operation>> {
        // Few items are heavy, many are light.
        let key = prop_oneof![0..8_u16, 0..2000_u16];
        let item = (key, 1..500_u16);
        let items = prop::collection::vec(item.clone(), 0..800);
        let operation = prop_oneof![
            60 => item.prop_map(|(key, weight)| Operation::Add(key, weight)),
            4 => (0..2000_u16).prop_map(Operation::Crowd),
            4 => (0.3..1.0).prop_map(Operation::Fade),
            2 => items.prop_map(Operation::Merge),
        ];
        prop::collection::vec(operation, 1..400)
    }

    #[derive(Default)]
    struct Exact(HashMap<u16, f64>);

    impl Exact {
        fn add(&mut self, key: u16, weight: f64) {
            *self.0.entry(key).or_default() += weight;
        }
    }

    fn apply(operation: &Operation, sketch: &mut Sketch<u16>, exact: &mut Exact) {
        let mut both = |sketch: &mut Sketch<u16>, key: u16, weight: f64| {
            sketch.add(key, weight);
            exact.add(key, weight);
        };
        match operation {
            Operation::Add(key, weight) => both(sketch, *key, f64::from(*weight)),
            Operation::Crowd(from) => {
                (*from..from + 300).for_each(|key| both(sketch, key, 1.0));
            }
            Operation::Fade(factor) => {
                sketch.fade(*factor);
                exact.0.values_mut().for_each(|weight| *weight *= factor);
            }
            Operation::Merge(items) => {
                let mut other = Sketch::default();
                for (key, weight) in items {
                    both(&mut other, *key, f64::from(*weight));
                }
                sketch.merge(&other);
            }
        }
    }

    fn assert_bounds(sketch: &Sketch<u16>, exact: &Exact) {
        let total: f64 = exact.0.values().sum();
        // Floating point: sums in another order.
        let close = total * 1e-9;
        assert!((sketch.total() - total).abs() <= close);
        let half = (CAPACITY / 2) as f64;
        assert!(sketch.missed() <= total / half + close, "the bound");
        assert!(sketch.counters().count() <= CAPACITY);
        for (key, weight) in &exact.0 {
            let known = sketch.weight(key);
            assert!(
                known <= weight + close,
                "{key}: counted {known} of {weight}"
            );
            assert!(
                known + sketch.missed() >= weight - close,
                "{key}: counted {known} of {weight}, missed at most {}",
                sketch.missed()
            );
            if *weight > total / half + close {
                assert!(known > 0.0, "{key} is above the bound and has no counter");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn counters_keep_to_their_bounds_through_any_additions_fadings_and_merges(
            operations in operations()
        ) {
            let (mut sketch, mut exact) = (Sketch::default(), Exact::default());
            for operation in &operations {
                apply(operation, &mut sketch, &mut exact);
            }
            assert_bounds(&sketch, &exact);
        }
    }

    #[test]
    fn the_table_never_grows() {
        let mut sketch = Sketch::default();
        let before = sketch.counters.capacity();
        for number in 0..100_000_u32 {
            sketch.add(number, f64::from(number % 7 + 1));
            assert_eq!(sketch.counters.capacity(), before);
        }
    }

    #[test]
    fn a_heavy_item_stands_out_of_a_crowd_of_new_ones() {
        let mut sketch = Sketch::default();
        for number in 0..100_000_u32 {
            sketch.add(if number % 10 < 3 { 0 } else { number }, 1.0);
        }
        let share = sketch.weight(&0) / sketch.total();
        assert!((0.29..=0.30).contains(&share), "{share}");
    }

    #[test]
    fn what_has_faded_wholly_is_gone() {
        let mut sketch = Sketch::default();
        sketch.add(1, 5.0);
        sketch.fade(0.0);
        assert_eq!((sketch.total(), sketch.counters().count()), (0.0, 0));
    }
}
