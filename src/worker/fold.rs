//! Folding: the updates of a batch that are for one row become one write, however many they are.
//!
//! A fold is a chain of messages in the order of their positions. It is not merged before it is encoded, so cutting it at a
//! fence is only beginning later in the chain.

use crate::fault;
use crate::ids::{Partition, Position, RowKey};
use crate::table::{Asked, KeyValues};
use crate::update::Update;
use hashbrown::{DefaultHashBuilder, HashTable};
use std::hash::BuildHasher;

/// What became of a message.
#[derive(Debug, Default)]
pub enum Outcome {
    /// Not decided yet.
    #[default]
    Open,
    /// In its row.
    Applied,
    /// It was in its row already.
    Replayed,
    /// A rule says so, or its row doesn't exist and the configuration says to make none.
    Skipped,
    /// Its partition is no longer ours.
    DeadEpoch,
    /// Its row is locked by somebody else; it waits.
    Parked,
    /// It can't be applied, ever.
    Dead(Box<Dead>),
}

/// Why a message can't be applied.
#[derive(Clone, Debug)]
pub struct Dead {
    /// The dead letter's reason.
    pub reason: crate::dead::Reason,
    /// Postgres' code.
    pub sqlstate: Option<String>,
    /// What was wrong, for people.
    pub message: String,
}

/// A decoded message of the batch.
#[derive(Debug)]
pub struct Message<'a> {
    /// What it does.
    pub update: Update<'a>,
    /// Where it stands in the source.
    pub position: Position,
    /// Its Kafka timestamp.
    pub timestamp_ms: i64,
    /// Its partition.
    pub partition: Partition,
    /// Its number in the batch, by which its outcome is noted.
    pub number: usize,
    /// Its link is over the limit: the rest of it is written.
    pub link_refused: bool,
    /// It came already, through an earlier epoch of its partition: it is not written again and shares the fate of its row.
    duplicate: bool,
    /// The next message of the same row.
    next: Option<usize>,
}

/// The messages of one row.
#[derive(Clone, Debug)]
pub struct Fold {
    /// The row.
    pub key: RowKey,
    /// The first message that is to be written.
    pub first: usize,
    /// The one with the highest position, which becomes the row's fence.
    pub top: usize,
    /// The last of the chain: `top`, or a duplicate behind it.
    pub last: usize,
    /// Whether one of its messages links the row or unlinks it.
    pub links: bool,
    /// The deliberately broken build writes from here instead.
    uncut_first: usize,
}

/// The messages of a batch, by row.
#[derive(Debug, Default)]
pub struct Folds<'a> {
    /// All decoded messages.
    pub messages: Vec<Message<'a>>,
    /// One for each row; after [`sort`](Self::sort) in the order of their keys.
    pub folds: Vec<Fold>,
    /// What became of each message of the batch, decoded or not.
    pub outcomes: Vec<Outcome>,
    has_deletes: bool,
    by_key: HashTable<usize>,
    hasher: DefaultHashBuilder,
}

impl Fold {
    fn of(key: RowKey, message: usize, links: bool) -> Self {
        Self {
            key,
            first: message,
            top: message,
            last: message,
            links,
            uncut_first: message,
        }
    }

    /// Whether it is a single message.
    pub fn is_single(&self) -> bool {
        self.first == self.last
    }
}

impl<'a> Folds<'a> {
    /// For a batch of that many messages, all open.
    pub fn for_messages(count: usize) -> Self {
        Self {
            messages: Vec::with_capacity(count),
            folds: Vec::with_capacity(count),
            outcomes: std::iter::repeat_with(Outcome::default)
                .take(count)
                .collect(),
            has_deletes: false,
            by_key: HashTable::with_capacity(count),
            hasher: DefaultHashBuilder::default(),
        }
    }

    /// Adds a message behind the others of its row. Messages of a row come in order, but one that came through an earlier
    /// epoch too may come again.
    ///
    /// A message of another row that is known by the same identity is not taken: it stays open, and so comes again in the next
    /// turn (`table/README.md`).
    pub fn add(&mut self, update: Update<'a>, place: (Position, i64, Partition), number: usize) {
        let (key, links) = (update.key, update.link().is_some());
        let (position, timestamp_ms, partition) = place;
        let index = self.messages.len();
        let mut duplicate = false;
        let hash = self.hasher.hash_one(key);
        if let Some(fold) = self.by_key.find(hash, |fold| self.folds[*fold].key == key) {
            let fold = &mut self.folds[*fold];
            if self.messages[fold.first].update.values != update.values {
                return;
            }
            duplicate = position <= self.messages[fold.top].position;
            self.messages[fold.last].next = Some(index);
            fold.last = index;
            fold.links |= links;
            if !duplicate {
                fold.top = index;
            }
        } else {
            let fold = self.folds.len();
            self.folds.push(Fold::of(key, index, links));
            let (folds, hasher) = (&self.folds, &self.hasher);
            self.by_key
                .insert_unique(hash, fold, |fold| hasher.hash_one(folds[*fold].key));
        }
        self.has_deletes |= update.deletes();
        self.messages.push(Message {
            update,
            position,
            timestamp_ms,
            partition,
            number,
            link_refused: false,
            duplicate,
            next: None,
        });
    }

    /// Adds a message as a fold of its own, whatever its row: the baseline.
    pub fn add_unfolded(
        &mut self,
        update: Update<'a>,
        place: (Position, i64, Partition),
        number: usize,
    ) {
        let (position, timestamp_ms, partition) = place;
        let index = self.messages.len();
        self.folds
            .push(Fold::of(update.key, index, update.link().is_some()));
        self.messages.push(Message {
            update,
            position,
            timestamp_ms,
            partition,
            number,
            link_refused: false,
            duplicate: false,
            next: None,
        });
    }

    /// Sorts the folds by key, which is the order in which rows are locked. No message may be added afterwards.
    pub fn sort(&mut self) {
        self.by_key.clear();
        let first = self.messages.first();
        match first.is_some_and(|message| message.update.values.is_some()) {
            false => self.folds.sort_unstable_by_key(|fold| fold.key),
            true => {
                let values = |fold: &Fold| &self.messages[fold.first].update.values;
                self.folds.sort_unstable_by(|a, b| values(a).cmp(values(b)));
            }
        }
    }

    /// The key of the fold's row, where it is not `fold.key` itself.
    pub fn values(&self, fold: &Fold) -> Option<&KeyValues> {
        self.messages[fold.first].update.values.as_deref()
    }

    /// The fold's row, to be asked about.
    pub fn asked(&self, fold: &Fold) -> Asked<'_> {
        Asked {
            key: fold.key,
            values: self.values(fold),
        }
    }

    /// Whether one of the messages deletes its row.
    pub fn has_deletes(&self) -> bool {
        self.has_deletes
    }

    /// The folds in two lists that are to be written one after the other: those that end with the row's delete, and those
    /// that hold none. A row that lives on behind its delete is in both.
    pub fn by_delete(&self) -> (Vec<Fold>, Vec<Fold>) {
        let mut deleting = Vec::new();
        let mut others = Vec::with_capacity(self.folds.len());
        for fold in &self.folds {
            let (until_delete, rest) = self.split_behind_delete(fold);
            deleting.extend(until_delete);
            others.extend(rest);
        }
        (deleting, others)
    }

    fn split_behind_delete(&self, fold: &Fold) -> (Option<Fold>, Option<Fold>) {
        let is_delete = |index: &usize| {
            let message = &self.messages[*index];
            message.update.deletes() && !message.duplicate
        };
        let Some(last) = self.chain(fold).filter(is_delete).last() else {
            return (None, Some(fold.clone()));
        };
        let Some(next) = self.after(last, fold.last).filter(|_| last != fold.top) else {
            return (Some(fold.clone()), None);
        };
        let until_delete = Fold {
            top: last,
            last,
            ..fold.clone()
        };
        let rest = Fold {
            first: next,
            uncut_first: next,
            ..fold.clone()
        };
        (Some(until_delete), Some(rest))
    }

    /// Whether the fold ends with its row's delete. Of one that [`by_delete`](Self::by_delete) made, or a part of it.
    pub fn is_deleting(&self, fold: &Fold) -> bool {
        self.top(fold).update.deletes()
    }

    /// The position of the first message that is to be written.
    pub fn first_position(&self, fold: &Fold) -> Position {
        self.messages[fold.first].position
    }

    /// The message whose position becomes the row's fence.
    pub fn top(&self, fold: &Fold) -> &Message<'a> {
        &self.messages[fold.top]
    }

    /// The fold's messages in order, as numbers into `messages`.
    pub fn chain(&self, fold: &Fold) -> impl Iterator<Item = usize> + '_ {
        self.chain_from(fold.first, fold.last)
    }

    /// Each fold's row with its count of messages. In the baseline a row may come again.
    pub fn rows(&self) -> impl Iterator<Item = (RowKey, usize)> + '_ {
        self.folds.iter().map(|fold| match fold.is_single() {
            true => (fold.key, 1),
            false => (fold.key, self.chain(fold).count()),
        })
    }

    /// What is encoded: the chain, but for the deliberately broken build.
    pub fn encoded(&self, fold: &Fold) -> impl Iterator<Item = &Message<'a>> + '_ {
        let first = if fault::mutant("fold-not-cut") {
            fold.uncut_first
        } else {
            fold.first
        };
        self.chain_from(first, fold.last)
            .map(|index| &self.messages[index])
            .filter(|message| !message.duplicate)
    }

    /// Each fold's row with its key, where that is not the row's own identity.
    pub fn keys(&self) -> impl Iterator<Item = (RowKey, &KeyValues)> {
        let key = |fold: &Fold| {
            Some((
                fold.key,
                self.messages[fold.first].update.values.as_deref()?,
            ))
        };
        self.folds.iter().filter_map(key)
    }

    /// Those of the fold's messages that link its row or unlink it, as numbers into `messages`.
    pub fn linking(&self, fold: &Fold) -> impl Iterator<Item = usize> + '_ {
        self.chain(fold).filter(|index| {
            let message = &self.messages[*index];
            !message.duplicate && message.update.link().is_some()
        })
    }

    fn chain_from(&self, first: usize, last: usize) -> impl Iterator<Item = usize> + '_ {
        std::iter::successors(Some(first), move |index| self.after(*index, last))
    }

    fn after(&self, index: usize, last: usize) -> Option<usize> {
        self.messages[index].next.filter(|_| index != last)
    }

    /// Cuts the fold behind the fence: what lies at or below it is applied already. Returns the messages that were cut off
    /// and what is left of the fold.
    pub fn cut(&self, fold: &Fold, fence: Position) -> (Vec<usize>, Option<Fold>) {
        let (covered, left): (Vec<usize>, Vec<usize>) = self
            .chain(fold)
            .partition(|index| self.messages[*index].position <= fence);
        let left = left.first().map(|first| Fold {
            first: *first,
            ..fold.clone()
        });
        (covered, left)
    }

    /// One fold for each message of the fold, in order.
    pub fn unfolded(&self, fold: &Fold) -> Vec<Fold> {
        self.chain(fold)
            .map(|index| {
                let links = self.messages[index].update.link().is_some();
                Fold::of(fold.key, index, links)
            })
            .collect()
    }

    /// Notes what became of all of the fold's messages that are still open.
    pub fn note(&mut self, fold: &Fold, outcome: impl Fn() -> Outcome) {
        let mut next = Some(fold.first);
        while let Some(index) = next {
            self.outcomes[self.messages[index].number] = outcome();
            next = self.after(index, fold.last);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{AppId, SubscriptionId};

    fn update(row: u8) -> Update<'static> {
        let key = RowKey {
            app: AppId([0; 16]),
            subscription: SubscriptionId([row; 16]),
        };
        Update {
            key,
            values: None,
            changes: Vec::new(),
            unknown_keys: 0,
        }
    }

    fn at(offset: i64) -> Position {
        Position {
            incarnation: 1,
            leader_epoch: 0,
            offset,
        }
    }

    fn folds_of(messages: &[(u8, i64)]) -> Folds<'static> {
        let mut folds = Folds::for_messages(messages.len());
        for (number, (row, offset)) in messages.iter().enumerate() {
            folds.add(update(*row), (at(*offset), 0, Partition(0)), number);
        }
        folds.sort();
        folds
    }

    fn offsets(folds: &Folds<'_>, fold: &Fold) -> Vec<i64> {
        folds
            .chain(fold)
            .map(|index| folds.messages[index].position.offset)
            .collect()
    }

    #[test]
    fn messages_of_a_row_are_chained_in_order_and_rows_sorted() {
        let folds = folds_of(&[(7, 1), (3, 2), (7, 3), (7, 5), (3, 9)]);
        let chains: Vec<_> = folds
            .folds
            .iter()
            .map(|fold| offsets(&folds, fold))
            .collect();
        assert_eq!(chains, [vec![2, 9], vec![1, 3, 5]]);
    }

    #[test]
    fn an_offset_that_came_already_is_not_written_again_and_shares_the_fate_of_its_row() {
        let mut folds = folds_of(&[(7, 4), (7, 5), (7, 4), (7, 6), (7, 5)]);
        let fold = folds.folds[0].clone();
        let encoded = folds.encoded(&fold).map(|message| message.position.offset);
        assert_eq!(encoded.collect::<Vec<_>>(), [4, 5, 6]);
        assert_eq!(folds.top(&fold).position, at(6));
        folds.note(&fold, || Outcome::Parked);
        let parked = |outcome: &Outcome| matches!(outcome, Outcome::Parked);
        assert!(folds.outcomes.iter().all(parked));
    }

    #[test]
    fn rows_of_one_identity_are_not_taken_for_each_other() {
        let of_row = |text: &str| {
            let mut values = KeyValues::default();
            values.push(text.as_bytes());
            Update {
                values: Some(Box::new(values)),
                ..update(1)
            }
        };
        let mut folds = Folds::for_messages(3);
        for (number, (row, offset)) in [("a", 1), ("b", 2), ("a", 3)].into_iter().enumerate() {
            folds.add(of_row(row), (at(offset), 0, Partition(0)), number);
        }
        let fold = folds.folds[0].clone();
        assert_eq!((folds.folds.len(), offsets(&folds, &fold)), (1, vec![1, 3]));
        folds.note(&fold, || Outcome::Applied);
        let is_open = |outcome: &Outcome| matches!(outcome, Outcome::Open);
        let open: Vec<bool> = folds.outcomes.iter().map(is_open).collect();
        assert_eq!(open, [false, true, false]);
    }

    #[test]
    fn a_row_that_lives_on_behind_its_delete_is_written_twice() {
        let delete = |offset: i64| (offset % 2 == 0).then_some(crate::update::Change::Delete);
        let split = |messages: &[(u8, i64)]| {
            let mut folds = Folds::for_messages(messages.len());
            for (number, (row, offset)) in messages.iter().enumerate() {
                let changes = delete(*offset).into_iter().collect();
                let update = Update {
                    changes,
                    ..update(*row)
                };
                folds.add(update, (at(*offset), 0, Partition(0)), number);
            }
            folds.sort();
            let shown = |list: Vec<Fold>| -> Vec<Vec<i64>> {
                list.iter().map(|fold| offsets(&folds, fold)).collect()
            };
            let (deleting, others) = folds.by_delete();
            assert!(deleting.iter().all(|fold| folds.is_deleting(fold)));
            (shown(deleting), shown(others))
        };
        assert_eq!(split(&[(1, 1), (2, 3)]), (vec![], vec![vec![1], vec![3]]));
        assert_eq!(split(&[(1, 1), (1, 2)]), (vec![vec![1, 2]], vec![]));
        assert_eq!(
            split(&[(1, 1), (1, 2), (1, 3), (1, 4), (1, 5), (2, 7)]),
            (vec![vec![1, 2, 3, 4]], vec![vec![5], vec![7]])
        );
        // What came already shares the fate of what is newest.
        assert_eq!(
            split(&[(1, 1), (1, 2), (1, 1)]),
            (vec![vec![1, 2, 1]], vec![])
        );
    }

    #[test]
    fn a_cut_leaves_what_lies_above_the_fence() {
        let folds = folds_of(&[(7, 4), (7, 5), (7, 8)]);
        let fold = &folds.folds[0];
        let (covered, left) = folds.cut(fold, at(5));
        assert_eq!(covered.len(), 2);
        assert_eq!(offsets(&folds, &left.expect("one is left")), [8]);
        assert!(folds.cut(fold, at(8)).1.is_none());
        assert_eq!(
            offsets(&folds, &folds.cut(fold, at(3)).1.expect("all are left")),
            [4, 5, 8]
        );
    }
}
