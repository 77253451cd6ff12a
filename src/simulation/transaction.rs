//! A shard's transactions that link rows to parents: the locks that they hold, for which others wait, and what they leave when
//! they commit. At each commit every parent's children are counted anew.

use super::database::{Database, Reply, RowWrite, Sent, SqlState, Statement, Stored};
use super::session::INCARNATION;
use super::truth::Truth;
use crate::fault;
use crate::ids::{Position, RowKey};
use crate::sink::shard::{Linked, Refusal};
use std::collections::{BTreeMap, BTreeSet};

/// What a deferred constraint says, at the commit.
const CHECK: SqlState = "23514";

/// What is locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Lock {
    /// A row, there or just being made.
    Row(RowKey),
    /// The count of a parent's children.
    Parent(RowKey),
}

/// A transaction. What it has written is nobody else's before it commits.
#[derive(Debug, Default)]
pub struct Transaction {
    locks: BTreeSet<Lock>,
    /// The rows that it has locked, as it leaves them.
    pub rows: BTreeMap<RowKey, Stored>,
    /// Updates that take effect with it.
    applied: Vec<usize>,
    /// The limit when its worker decided.
    children_max: Option<i32>,
    /// What it adds to parents' counts.
    changes: Vec<(RowKey, i32)>,
    /// A constraint that is checked at the commit doesn't hold.
    broken_constraint: Option<SqlState>,
}

/// What a commit did to links.
#[derive(Clone, Copy, Debug, Default)]
pub struct Links {
    /// Rows that had no parent.
    pub linked: usize,
    /// Rows that had another parent.
    pub moved: usize,
    /// Rows that have none any more.
    pub unlinked: usize,
    /// Links over the limit.
    pub refused: usize,
}

impl Database {
    /// A transaction begins.
    pub fn begin(&mut self) -> u64 {
        self.begun += 1;
        self.transactions.insert(self.begun, Transaction::default());
        self.begun
    }

    /// Ends a transaction without effect, if it is still there.
    pub fn abort(&mut self, transaction: u64) {
        self.transactions.remove(&transaction);
    }

    /// Ends the transactions whose connections are gone.
    pub fn abort_abandoned(&mut self) {
        for sent in self.late.extract_if(.., |sent| sent.transaction.is_some()) {
            self.transactions
                .retain(|number, _| Some(*number) != sent.transaction);
        }
    }

    /// Somebody locks the whole table, if no transaction is in the way, or lets it go.
    pub fn lock_table(&mut self, locks: bool) {
        self.table_locked = locks && self.transactions.is_empty();
    }

    /// The rows that a statement writes, or its transaction with it.
    pub fn written_by(&self, sent: &Sent) -> Vec<RowKey> {
        match (&sent.statement, sent.transaction) {
            (Statement::Commit(..), Some(own)) => {
                let open = self.transactions.get(&own);
                open.into_iter()
                    .flat_map(|own| own.rows.keys().copied())
                    .collect()
            }
            (statement, None) => statement.written().collect(),
            _ => Vec::new(),
        }
    }

    /// Whether a transaction holds the row locked.
    pub fn holds_row(&self, key: RowKey) -> bool {
        self.is_held(Lock::Row(key), None)
    }

    /// Whether a transaction holds the parent's count locked.
    pub fn holds_parent(&self, key: RowKey) -> bool {
        self.is_held(Lock::Parent(key), None)
    }

    fn is_held(&self, lock: Lock, but_by: Option<u64>) -> bool {
        let others = self.transactions.iter();
        let mut others = others.filter(|(number, _)| Some(**number) != but_by);
        others.any(|(_, transaction)| transaction.locks.contains(&lock))
    }

    /// Whether a statement waits for another one's transaction. What it locks, it locks one after the other, and keeps meanwhile.
    pub fn must_wait(&mut self, sent: &Sent) -> bool {
        let wanted: Vec<Lock> = match (&sent.statement, sent.transaction) {
            (Statement::LockRows(keys, makes), _) => {
                // What another one is just making is not seen, so not waited for.
                let seen = |key: &&RowKey| *makes || self.rows.contains_key(key);
                keys.iter().filter(seen).copied().map(Lock::Row).collect()
            }
            (Statement::ChangeChildren(changes, _), _) => {
                let parents = changes.iter().map(|(parent, _)| *parent);
                parents.map(Lock::Parent).collect()
            }
            (Statement::LockParents(keys), _) => keys.iter().copied().map(Lock::Parent).collect(),
            (Statement::Update(writes), None) => {
                // What the fence holds back is not waited for.
                let mut due = writes.iter().filter(|write| self.is_due(write));
                return due.any(|write| self.holds_row(write.key()));
            }
            (Statement::Insert(writes), None) => {
                let mut missing = writes
                    .iter()
                    .map(RowWrite::key)
                    .filter(|key| !self.rows.contains_key(key));
                return missing.any(|key| self.holds_row(key));
            }
            (Statement::Refuse(refusal), None) => return self.holds_row(refusal.key),
            _ => return false,
        };
        let own = sent.transaction.expect("only a transaction locks");
        assert!(wanted.is_sorted(), "locked out of order: {wanted:?}");
        for lock in wanted {
            let by_somebody = match lock {
                Lock::Row(key) => self.locked.contains(&key),
                Lock::Parent(key) => self.locked_parents.contains(&key),
            };
            if by_somebody {
                return false;
            }
            if self.is_held(lock, Some(own)) {
                return true;
            }
            self.open(own).locks.insert(lock);
        }
        false
    }

    fn open(&mut self, transaction: u64) -> &mut Transaction {
        let open = self.transactions.get_mut(&transaction);
        open.expect("a statement follows in a transaction that has failed")
    }

    /// What a statement does in its transaction. An error ends the transaction.
    pub fn execute_within(
        &mut self,
        own: u64,
        statement: &Statement,
        truth: &mut Truth,
    ) -> Result<Reply, SqlState> {
        self.open(own);
        let result = match statement {
            Statement::LockRows(keys, makes) => self.lock_rows(own, keys, *makes),
            Statement::LockParents(keys) => self.lock_parents(own, keys),
            Statement::Update(writes) => self.update_locked(own, writes),
            Statement::ChangeChildren(changes, most) => self.change_children(own, changes, *most),
            Statement::Commit(refused) => self.commit(own, refused, truth),
            Statement::Remembered(..) => self.execute_alone(statement, truth),
            other => unreachable!("not in a transaction: {other:?}"),
        };
        if result.is_err() {
            self.abort(own);
        }
        result
    }

    fn lock_rows(&mut self, own: u64, keys: &[RowKey], makes: bool) -> Result<Reply, SqlState> {
        if self.strict && makes {
            // Constraints are checked on what is proposed, even where the row is there.
            return Err(super::database::NOT_NULL);
        }
        if self.table_locked || keys.iter().any(|key| self.locked.contains(key)) {
            return Err("55P03");
        }
        let mut found = Vec::with_capacity(keys.len());
        for key in keys {
            if !makes && !self.rows.contains_key(key) {
                found.push(None);
                continue;
            }
            let made = Stored {
                fence: Some(Position {
                    incarnation: INCARNATION,
                    leader_epoch: -1,
                    offset: -1,
                }),
                ..Stored::default()
            };
            let row = self.rows.get(key).cloned().unwrap_or(made);
            found.push(Some(Linked {
                fence: row.fence.expect("a stored row has one"),
                parent: row.parent,
            }));
            self.open(own).rows.insert(*key, row);
        }
        Ok(Reply::Rows(found))
    }

    fn lock_parents(&mut self, own: u64, parents: &[RowKey]) -> Result<Reply, SqlState> {
        if parents.iter().any(|key| self.locked_parents.contains(key)) {
            return Err("55P03");
        }
        assert!(!self.open(own).rows.is_empty(), "parents before rows");
        let counts = parents.iter().map(|key| self.children(*key));
        Ok(Reply::Children(counts.collect()))
    }

    fn change_children(
        &mut self,
        own: u64,
        changes: &[(RowKey, i32)],
        most: i32,
    ) -> Result<Reply, SqlState> {
        let mut parents = changes.iter().map(|(parent, _)| parent);
        if parents.any(|parent| self.locked_parents.contains(parent)) {
            return Err("55P03");
        }
        assert!(!self.open(own).rows.is_empty(), "parents before rows");
        let has_room =
            |(parent, by): &&(RowKey, i32)| *by <= 0 || self.children(*parent) + by <= most;
        let changed: Vec<(RowKey, i32)> = changes.iter().filter(has_room).copied().collect();
        let written = changed.len() as u64;
        self.open(own).changes.extend(changed);
        Ok(Reply::Written(written))
    }

    /// A transaction's worker decides about its links now, unless it has already.
    pub fn decides(&mut self, transaction: u64, children_max: i32) {
        let transaction = self.open(transaction);
        transaction.children_max.get_or_insert(children_max);
    }

    fn children(&self, parent: RowKey) -> i32 {
        self.parents.get(&parent).copied().unwrap_or(0)
    }

    fn update_locked(&mut self, own: u64, writes: &[RowWrite]) -> Result<Reply, SqlState> {
        let mut written = 0;
        for write in writes {
            let row = self.open(own).rows.get(&write.key()).cloned();
            let row =
                row.unwrap_or_else(|| panic!("{:?} is written without its lock", write.key()));
            if row.fence >= write.first() && !fault::mutant("fence-off") {
                continue;
            }
            written += 1;
            match self.applied_to(write, row) {
                Ok(after) => {
                    let transaction = self.open(own);
                    transaction.rows.insert(write.key(), after);
                    transaction.applied.extend(write.numbers());
                }
                Err(CHECK) if self.defers => self.open(own).broken_constraint = Some(CHECK),
                Err(state) => return Err(state),
            }
        }
        Ok(Reply::Written(written))
    }

    fn commit(
        &mut self,
        own: u64,
        refused: &[Refusal],
        truth: &mut Truth,
    ) -> Result<Reply, SqlState> {
        let transaction = self.transactions.remove(&own).expect("it is open");
        if let Some(state) = transaction.broken_constraint {
            return Err(state);
        }
        let mut links = Links {
            refused: refused.len(),
            ..Links::default()
        };
        for number in &transaction.applied {
            truth.apply(*number);
        }
        for refusal in refused {
            truth.refuse_link(truth.number_of(refusal));
        }
        for refusal in refused {
            self.remember_link(refusal, &transaction, truth);
        }
        for lock in &transaction.locks {
            if let Lock::Parent(parent) = lock {
                self.parents.entry(*parent).or_default();
            }
        }
        for (parent, change) in &transaction.changes {
            assert!(
                transaction.locks.contains(&Lock::Parent(*parent)),
                "the children of {parent:?} are counted without its lock"
            );
            let children = self.parents.get_mut(parent).expect("it was locked");
            *children += change;
            assert!(
                *change < 0 || Some(*children) <= transaction.children_max,
                "{parent:?} has {children} children, over the limit"
            );
        }
        for (key, row) in transaction.rows {
            let before = self.rows.get(&key).and_then(|row| row.parent);
            match (before, row.parent) {
                (None, Some(_)) => links.linked += 1,
                (Some(_), None) => links.unlinked += 1,
                (before, after) => links.moved += usize::from(before != after),
            }
            self.rows.insert(key, row);
        }
        self.check_children();
        Ok(Reply::Committed(links))
    }

    /// A link is refused: there must be a cause, the rest of its update takes effect, and it is remembered once.
    fn remember_link(&mut self, refusal: &Refusal, transaction: &Transaction, truth: &Truth) {
        let number = truth.number_of(refusal);
        let parent = truth.updates[number].parent_row();
        let parent = parent.expect("an update that links has a parent");
        let mut others = transaction.applied.to_vec();
        others.retain(|other| truth.updates[*other].parent_row() == Some(parent));
        others.retain(|other| !truth.fates[*other].link_refused);
        let others = i32::try_from(others.len()).expect("few");
        assert!(
            Some(self.children(parent) + others) >= transaction.children_max,
            "the link of update {number} is refused, though there is room"
        );
        self.remember(refusal);
    }

    /// Every parent has as many children as are counted.
    pub fn check_children(&self) {
        let mut children: BTreeMap<RowKey, i32> = BTreeMap::new();
        for parent in self.rows.values().filter_map(|row| row.parent) {
            *children.entry(parent).or_default() += 1;
        }
        for parent in children.keys().chain(self.parents.keys()) {
            let (counted, rows) = (self.children(*parent), children.get(parent).copied());
            assert_eq!(
                counted,
                rows.unwrap_or(0),
                "counted children of {parent:?}, and rows that name it"
            );
        }
    }
}
