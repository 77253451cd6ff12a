//! Which links are made: pure, given what the locked rows and parents hold.

use super::super::fold::{Fold, Folds};
use crate::ids::{Partition, Position, RowKey};
use std::collections::{BTreeMap, BTreeSet};

/// A row that is to be written, with its parent before.
#[derive(Clone, Debug)]
pub struct Child {
    /// Its updates.
    pub fold: Fold,
    /// The row that it is linked to.
    pub parent: Option<RowKey>,
}

/// What comes of a batch's links.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// What is added to the children of each parent that gains or loses some, in the order of their keys.
    pub changes: Vec<(RowKey, i32)>,
    /// Some parent gains children and loses others, so that it has more in between than before and after.
    pub turns: bool,
    /// The messages whose link is over the limit, with the parent that has no room, as numbers into `Folds::messages`.
    pub refused: Vec<(usize, RowKey)>,
}

/// All rows that these are linked to or want to be, in the order of their keys.
pub fn parents(folds: &Folds<'_>, children: &[Child]) -> Vec<RowKey> {
    let mut parents: Vec<RowKey> = Vec::with_capacity(2 * children.len());
    for child in children {
        parents.extend(child.parent);
        parents.extend(
            folds
                .linking(&child.fold)
                .filter_map(|at| wanted(folds, at)),
        );
    }
    parents.sort_unstable();
    parents.dedup();
    parents
}

/// Decides link by link, in the order of partition and position. `counts` has the children of all [`parents`], of which a parent
/// may have `most`. Without counts and with as many as there can be, it tells what changes where there is room.
pub fn decide(
    folds: &Folds<'_>,
    children: &[Child],
    counts: &BTreeMap<RowKey, i32>,
    most: i32,
) -> Decision {
    let mut links: Vec<(Partition, Position, usize, usize)> = Vec::with_capacity(children.len());
    for (index, child) in children.iter().enumerate() {
        links.extend(folds.linking(&child.fold).map(|at| {
            let message = &folds.messages[at];
            (message.partition, message.position, index, at)
        }));
    }
    links.sort_unstable();
    let mut current: Vec<Option<RowKey>> = children.iter().map(|child| child.parent).collect();
    let mut after = counts.clone();
    let (mut gain, mut lose) = (BTreeSet::new(), BTreeSet::new());
    let mut refused = Vec::new();
    for (_, _, index, at) in links {
        let wanted = wanted(folds, at);
        if wanted == current[index] {
            continue;
        }
        if let Some(parent) = wanted {
            let count = after.entry(parent).or_default();
            if *count >= most {
                refused.push((at, parent));
                continue;
            }
            *count += 1;
            gain.insert(parent);
        }
        if let Some(parent) = current[index] {
            lose.insert(parent);
            *after.entry(parent).or_default() -= 1;
        }
        current[index] = wanted;
    }
    let changes = after
        .into_iter()
        .map(|(parent, count)| (parent, count - counts.get(&parent).copied().unwrap_or(0)))
        .filter(|(_, change)| *change != 0)
        .collect();
    Decision {
        changes,
        turns: !gain.is_disjoint(&lose),
        refused,
    }
}

/// The row that a linking message links to; `None` if it unlinks.
fn wanted(folds: &Folds<'_>, message: usize) -> Option<RowKey> {
    let update = &folds.messages[message].update;
    let subscription = update.link().flatten()?;
    Some(RowKey {
        app: update.key.app,
        subscription,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{AppId, SubscriptionId};
    use crate::update::{Change, SetValue, Update, column};
    use proptest::prelude::*;

    fn row(number: u8) -> RowKey {
        RowKey {
            app: AppId([7; 16]),
            subscription: SubscriptionId([number; 16]),
        }
    }

    /// Updates of rows, in the order of their offsets: (row, parent or none).
    fn folds(links: &[(u8, Option<u8>)]) -> Folds<'static> {
        let mut folds = Folds::for_messages(links.len());
        for (number, (child, parent)) in links.iter().enumerate() {
            let value = parent.map(|parent| SetValue::Uuid([parent; 16]));
            let update = Update {
                values: None,
                key: row(*child),
                changes: vec![Change::Set {
                    column: column::PARENT,
                    value,
                }],
                unknown_keys: 0,
            };
            let position = Position {
                incarnation: 1,
                leader_epoch: 0,
                offset: i64::try_from(number).expect("few"),
            };
            folds.add(update, (position, 0, Partition(3)), number);
        }
        folds.sort();
        folds
    }

    fn children(folds: &Folds<'_>, before: &BTreeMap<u8, u8>) -> Vec<Child> {
        let child = |fold: &Fold| Child {
            fold: fold.clone(),
            parent: before
                .get(&fold.key.subscription.0[0])
                .map(|parent| row(*parent)),
        };
        folds.folds.iter().map(child).collect()
    }

    #[test]
    fn the_limit_is_reached_in_the_order_of_offsets_and_not_passed() {
        let folds = folds(&[
            (9, Some(100)),
            (1, Some(100)),
            (5, Some(100)),
            (3, Some(100)),
        ]);
        let children = children(&folds, &BTreeMap::new());
        let counts = BTreeMap::from([(row(100), 1)]);
        let decision = decide(&folds, &children, &counts, 3);
        assert_eq!(decision.changes, [(row(100), 2)]);
        assert_eq!(decision.refused, [(2, row(100)), (3, row(100))]);
        let unlimited = decide(&folds, &children, &counts, i32::MAX);
        assert_eq!(unlimited.changes, [(row(100), 4)]);
    }

    #[test]
    fn a_place_that_was_left_is_free_for_the_next() {
        let folds = folds(&[(2, Some(100)), (1, None), (3, Some(100)), (3, Some(101))]);
        let children = children(&folds, &BTreeMap::from([(1, 100)]));
        let counts = BTreeMap::from([(row(100), 1), (row(101), 0)]);
        let decision = decide(&folds, &children, &counts, 1);
        assert_eq!(decision.refused, [(0, row(100))]);
        assert!(decision.turns, "one leaves the parent, another one comes");
        assert_eq!(decision.changes, [(row(100), -1), (row(101), 1)]);
    }

    #[test]
    fn a_link_that_is_there_already_takes_no_place() {
        let folds = folds(&[(1, Some(100)), (1, Some(100))]);
        let children = children(&folds, &BTreeMap::from([(1, 100)]));
        let counts = BTreeMap::from([(row(100), 1)]);
        assert_eq!(decide(&folds, &children, &counts, 1), Decision::default());
    }

    /// How many of these rows have that parent.
    fn count(rows: &BTreeMap<u8, u8>, parent: u8) -> i32 {
        let children = rows.values().filter(|of| **of == parent);
        i32::try_from(children.count()).expect("few")
    }

    /// The same of all parents that the tests below have.
    fn counts(rows: &BTreeMap<u8, u8>) -> BTreeMap<RowKey, i32> {
        (100..104)
            .map(|parent| (row(parent), count(rows, parent)))
            .collect()
    }

    proptest! {
        /// Whatever the links: counts stay the number of children, and below the limit where they were.
        #[test]
        fn counts_follow_the_rows(
            before in proptest::collection::btree_map(0_u8..12, 100_u8..104, 0..12),
            links in proptest::collection::vec((0_u8..12, proptest::option::of(100_u8..104)), 1..40),
            limit in 1_i32..6,
        ) {
            let folds = folds(&links);
            let children = children(&folds, &before);
            let counts = counts(&before);
            let decision = decide(&folds, &children, &counts, limit);
            let mut rows = before.clone();
            for (number, (child, parent)) in links.iter().enumerate() {
                if decision.refused.iter().any(|(at, _)| *at == number) {
                    continue;
                }
                match parent {
                    Some(parent) => rows.insert(*child, *parent),
                    None => rows.remove(child),
                };
            }
            for parent in 100..104 {
                let change = decision.changes.iter().find(|(of, _)| *of == row(parent));
                let after = counts[&row(parent)] + change.map_or(0, |(_, change)| *change);
                prop_assert_eq!(after, count(&rows, parent));
                let most = counts[&row(parent)].max(limit);
                prop_assert!(after <= most);
            }
        }

        /// Where no parent turns, what is decided without counts is what is decided with them, if all get in.
        #[test]
        fn room_for_what_is_added_is_room_for_each_link(
            before in proptest::collection::btree_map(0_u8..12, 100_u8..104, 0..12),
            links in proptest::collection::vec((0_u8..12, proptest::option::of(100_u8..104)), 1..20),
            limit in 1_i32..9,
        ) {
            let folds = folds(&links);
            let children = children(&folds, &before);
            let counts = counts(&before);
            let blind = decide(&folds, &children, &BTreeMap::new(), i32::MAX);
            let has_room = |(parent, by): &(RowKey, i32)| *by <= 0 || counts[parent] + by <= limit;
            if !blind.turns && blind.changes.iter().all(has_room) {
                prop_assert_eq!(blind, decide(&folds, &children, &counts, limit));
            }
        }
    }
}
