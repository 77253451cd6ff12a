//! A model of a shard: rows, the table `refused`, locks, and what each statement does to them. The statements' own SQL is
//! held to the same by the tests against Postgres.

use super::topic::{POISON, Update};
use super::transaction::{Links, Transaction};
use super::truth::Truth;
use crate::fault;
use crate::ids::{AppId, Partition, Position, RowKey, SubscriptionId};
use crate::sink::shape::{Kind, SUBSCRIPTION};
use crate::sink::shard::{Linked, Refusal, Remembered, WriteBatch};
use crate::update::column;
use std::collections::{BTreeMap, BTreeSet};

/// What a strict database says of each row.
pub const NOT_NULL: SqlState = "23502";

/// A stored row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// Its fence; `None` only in models without one.
    pub fence: Option<Position>,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// Its counts.
    pub counts: BTreeMap<String, i64>,
    /// Its identifier.
    pub identifier: Option<String>,
    /// The row that it is linked to.
    pub parent: Option<RowKey>,
}

impl Stored {
    /// What an update can change.
    pub fn without_fence(&self) -> Self {
        Self {
            fence: None,
            ..self.clone()
        }
    }
}

/// One row of a write, as it was encoded.
#[derive(Clone, Debug, Default)]
pub struct RowWrite {
    key: Option<RowKey>,
    first: Option<Position>,
    last: Option<Position>,
    tags: Option<BTreeMap<String, Option<String>>>,
    strips: bool,
    counts: BTreeMap<String, i64>,
    guards: BTreeMap<String, (i64, i64)>,
    identifier: Option<Option<String>>,
    parent: Option<Option<RowKey>>,
}

/// What a worker sends.
#[derive(Clone, Debug)]
pub enum Statement {
    /// Rows that exist.
    Update(Vec<RowWrite>),
    /// Rows that don't.
    Insert(Vec<RowWrite>),
    /// Fences.
    Ask(Vec<RowKey>),
    /// Rows that nobody holds locked.
    Unlocked(Vec<RowKey>),
    /// A refused update.
    Refuse(Box<Refusal>),
    /// Updates refused before.
    Remembered(Partition, Vec<Position>),
    /// First in a transaction: rows, and whether they are made where they are missing.
    LockRows(Vec<RowKey>, bool),
    /// In a transaction: parents' counts.
    LockParents(Vec<RowKey>),
    /// In a transaction: what is added to counts, unless more than these would be there.
    ChangeChildren(Vec<(RowKey, i32)>, i32),
    /// The transaction's end, with what was refused.
    Commit(Vec<Refusal>),
    /// The transaction's end without effect.
    RollBack,
    /// Parents whose counts nobody holds locked.
    UnlockedParents(Vec<RowKey>),
}

/// A statement, and the transaction that it is part of.
#[derive(Clone, Debug)]
pub struct Sent {
    /// Its number at the shard; none for a statement on its own.
    pub transaction: Option<u64>,
    /// The statement.
    pub statement: Statement,
}

/// What comes back.
#[derive(Debug)]
pub enum Reply {
    /// How many rows.
    Written(u64),
    /// By row.
    Fences(Vec<Option<Position>>),
    /// By row.
    Unlocked(Vec<bool>),
    /// Whether the fence was moved.
    Moved(bool),
    /// Updates refused before.
    Refusals(Vec<Remembered>),
    /// By row.
    Rows(Vec<Option<Linked>>),
    /// By parent.
    Children(Vec<i32>),
    /// The transaction has taken effect.
    Committed(Links),
}

impl Reply {
    /// Whether something was written.
    pub fn has_written(&self) -> bool {
        matches!(
            self,
            Self::Written(1..) | Self::Moved(true) | Self::Committed(_)
        )
    }
}

/// A shard.
#[derive(Default)]
pub struct Database {
    /// The table.
    pub rows: BTreeMap<RowKey, Stored>,
    /// What it remembers of refused updates.
    pub refused: BTreeMap<(Partition, Position), Remembered>,
    /// The table of parents: how many children each has.
    pub parents: BTreeMap<RowKey, i32>,
    /// Transactions that have not ended.
    pub transactions: BTreeMap<u64, Transaction>,
    /// Transactions that have begun.
    pub begun: u64,
    /// Rows that somebody holds locked.
    pub locked: BTreeSet<RowKey>,
    /// Parents whose counts somebody holds locked.
    pub locked_parents: BTreeSet<RowKey>,
    /// Somebody holds the whole table locked.
    pub table_locked: bool,
    /// It is not there.
    pub dead: bool,
    /// It refuses everything, until somebody acts.
    pub refusing: bool,
    /// It refuses every row, as after a change of the schema.
    pub strict: bool,
    /// In a transaction it checks constraints at the commit.
    pub defers: bool,
    /// It answers slowly.
    pub slow: bool,
    /// Where partitions began when it first saw them.
    pub seen: BTreeMap<usize, i64>,
    /// Statements whose connection is gone, and that may still take effect.
    pub late: Vec<Sent>,
}

impl Statement {
    /// The rows that are written, or locked to be written.
    pub fn written(&self) -> impl Iterator<Item = RowKey> + '_ {
        let (writes, locked, refusal) = match self {
            Self::Update(writes) | Self::Insert(writes) => (writes.as_slice(), &[][..], None),
            Self::LockRows(keys, _) => (&[][..], keys.as_slice(), None),
            Self::Refuse(refusal) => (&[][..], &[][..], Some(refusal.key)),
            _ => (&[][..], &[][..], None),
        };
        let keys = writes.iter().map(RowWrite::key);
        keys.chain(locked.iter().copied()).chain(refusal)
    }

    /// The rows that are written, and the newest update of each.
    pub fn positions(&self) -> impl Iterator<Item = (RowKey, Position)> + '_ {
        let (writes, refusal) = match self {
            Self::Update(writes) | Self::Insert(writes) => (writes.as_slice(), None),
            Self::Refuse(refusal) => (&[][..], Some((refusal.key, refusal.position))),
            _ => (&[][..], None),
        };
        let of_rows = writes.iter().map(|write| {
            let last = write.last.expect("a row has a position");
            (write.key(), last)
        });
        of_rows.chain(refusal)
    }
}

/// A database's refusal, as a SQLSTATE.
pub type SqlState = &'static str;

impl Database {
    /// What a statement does, all or nothing.
    pub fn execute(&mut self, sent: &Sent, truth: &mut Truth) -> Result<Reply, SqlState> {
        match sent.transaction {
            None => self.execute_alone(&sent.statement, truth),
            Some(own) => self.execute_within(own, &sent.statement, truth),
        }
    }

    /// What a statement does that is no part of a transaction, or is the same there.
    pub fn execute_alone(
        &mut self,
        statement: &Statement,
        truth: &mut Truth,
    ) -> Result<Reply, SqlState> {
        match statement {
            Statement::Update(writes) => self.update(writes, truth),
            Statement::Insert(writes) => self.insert(writes, truth),
            Statement::Ask(keys) => {
                let fences = keys.iter().map(|key| self.rows.get(key)?.fence);
                Ok(Reply::Fences(fences.collect()))
            }
            Statement::Unlocked(_) if self.table_locked => Err("55P03"),
            Statement::Unlocked(keys) => {
                let is_held = |key| self.rows.contains_key(key) && self.holds_row(*key);
                let unlocked = keys
                    .iter()
                    .map(|key| !self.locked.contains(key) && !is_held(key));
                Ok(Reply::Unlocked(unlocked.collect()))
            }
            Statement::UnlockedParents(keys) => {
                let is_held = |key| self.parents.contains_key(key) && self.holds_parent(*key);
                let unlocked = keys
                    .iter()
                    .map(|key| !self.locked_parents.contains(key) && !is_held(key));
                Ok(Reply::Unlocked(unlocked.collect()))
            }
            Statement::Refuse(refusal) => self.refuse(refusal, truth),
            Statement::Remembered(partition, positions) => {
                let found = positions
                    .iter()
                    .filter_map(|position| self.refused.get(&(*partition, *position)));
                Ok(Reply::Refusals(found.cloned().collect()))
            }
            other => unreachable!("not without a transaction: {other:?}"),
        }
    }

    /// Whether the row is there, and its fence lets the write pass.
    pub fn is_due(&self, write: &RowWrite) -> bool {
        let row = self.rows.get(&write.key());
        row.is_some_and(|row| row.fence < write.first || fault::mutant("fence-off"))
    }

    fn update(&mut self, writes: &[RowWrite], truth: &mut Truth) -> Result<Reply, SqlState> {
        let mut changed = Vec::new();
        for write in writes {
            let key = write.key();
            assert!(write.parent.is_none(), "{key:?} is linked without a lock");
            if !self.is_due(write) {
                continue;
            }
            if self.table_locked {
                return Err("55P03");
            }
            // The new row is computed before the old one's lock is waited for.
            let after = self.applied_to(write, self.rows[&key].clone())?;
            if self.locked.contains(&key) {
                return Err("55P03");
            }
            changed.push((key, after, write));
        }
        Ok(self.store(changed, truth))
    }

    fn insert(&mut self, writes: &[RowWrite], truth: &mut Truth) -> Result<Reply, SqlState> {
        if self.table_locked {
            return Err("55P03");
        }
        let mut made = Vec::new();
        for write in writes {
            let key = write.key();
            assert!(write.parent.is_none(), "{key:?} is linked without a lock");
            // Constraints are checked on what is proposed, even where the row is there.
            let row = self.applied_to(write, Stored::default())?;
            if !self.rows.contains_key(&key) {
                made.push((key, row, write));
            }
        }
        Ok(self.store(made, truth))
    }

    /// The row afterwards.
    pub fn applied_to(&self, write: &RowWrite, row: Stored) -> Result<Stored, SqlState> {
        let row = write.applied_to(row)?;
        if self.strict { Err(NOT_NULL) } else { Ok(row) }
    }

    fn store(&mut self, rows: Vec<(RowKey, Stored, &RowWrite)>, truth: &mut Truth) -> Reply {
        let written = rows.len() as u64;
        for (key, row, write) in rows {
            write.numbers().for_each(|number| truth.apply(number));
            self.rows.insert(key, row);
        }
        Reply::Written(written)
    }

    fn refuse(&mut self, refusal: &Refusal, truth: &mut Truth) -> Result<Reply, SqlState> {
        if self.table_locked {
            return Err("55P03");
        }
        // The row is locked before its fence is looked at.
        if self.locked.contains(&refusal.key) {
            return Err("55P03");
        }
        let position = Some(refusal.position);
        if self
            .rows
            .get(&refusal.key)
            .is_some_and(|row| row.fence >= position)
        {
            return Ok(Reply::Moved(false));
        }
        let row = self.rows.entry(refusal.key).or_default();
        row.fence = position;
        let number = truth.number_of(refusal);
        let fate = &mut truth.fates[number];
        assert!(!fate.applied, "update {number} is refused, but took effect");
        fate.refused = true;
        fate.struck = refusal.sqlstate.as_deref() == Some(NOT_NULL);
        self.remember(refusal);
        Ok(Reply::Moved(true))
    }

    /// Puts an update into the table `refused`, unless it is there.
    pub fn remember(&mut self, refusal: &Refusal) {
        let remembered = Remembered {
            position: refusal.position,
            reason: refusal.reason,
            sqlstate: refusal.sqlstate.clone(),
            message: refusal.message.clone(),
        };
        self.refused
            .entry((refusal.partition, refusal.position))
            .or_insert(remembered);
    }
}

impl RowWrite {
    /// Its row.
    pub fn key(&self) -> RowKey {
        self.key.expect("a row has a key")
    }

    /// The position of its oldest update.
    pub fn first(&self) -> Option<Position> {
        self.first
    }

    /// The updates that it is made of.
    pub fn numbers(&self) -> impl Iterator<Item = usize> + '_ {
        let names = self.counts.keys();
        names.filter_map(|name| Update::of_own_count(name))
    }

    /// The row afterwards.
    fn applied_to(&self, mut row: Stored) -> Result<Stored, SqlState> {
        if let Some(tags) = &self.tags {
            for (name, value) in tags {
                match value {
                    Some(value) => drop(row.tags.insert(name.clone(), value.clone())),
                    None => {
                        assert!(self.strips, "a removal needs its flag");
                        row.tags.remove(name);
                    }
                }
            }
        }
        for (name, (lowest, highest)) in &self.guards {
            let stored = row.counts.get(name).copied().unwrap_or(0);
            if stored.checked_add(*lowest).is_none() || stored.checked_add(*highest).is_none() {
                return Err("22003");
            }
        }
        for (name, delta) in &self.counts {
            let sum = row.counts.entry(name.clone()).or_default();
            *sum = sum.checked_add(*delta).ok_or("22003")?;
        }
        if let Some(identifier) = &self.identifier {
            if identifier.as_deref() == Some(POISON) {
                return Err("23514");
            }
            row.identifier.clone_from(identifier);
        }
        if let Some(parent) = self.parent {
            row.parent = parent;
        }
        row.fence = self.last;
        Ok(row)
    }

    /// Reads the rows of a batch back.
    pub fn read(batch: &WriteBatch, incarnation: i32) -> Vec<Self> {
        let columns: Vec<Vec<Option<&[u8]>>> =
            batch.params.iter().map(|param| param.elements()).collect();
        (0..batch.rows)
            .map(|row| {
                let mut values = columns.iter().map(|column| column[row]);
                Self::read_row(&mut values, batch, incarnation)
            })
            .collect()
    }

    fn read_row<'v>(
        values: &mut impl Iterator<Item = Option<&'v [u8]>>,
        batch: &WriteBatch,
        incarnation: i32,
    ) -> Self {
        let mut next = || values.next().expect("a value for each parameter");
        let [app, subscription] = [next(), next()].map(|id| fixed(id));
        let mut position = || Position {
            incarnation,
            leader_epoch: i32::from_be_bytes(fixed(next())),
            offset: i64::from_be_bytes(fixed(next())),
        };
        let (first, last) = (position(), position());
        next();
        let flags = u32::from_be_bytes(fixed(next()));
        let mut read = Self {
            key: Some(RowKey {
                app: AppId(app),
                subscription: SubscriptionId(subscription),
            }),
            first: Some(first),
            last: Some(last),
            ..Self::default()
        };
        for (index, column) in SUBSCRIPTION.columns.iter().enumerate() {
            if !batch.touched.has(index) {
                continue;
            }
            let (value, flag) = (next(), flags >> index & 1 == 1);
            match column.kind {
                Kind::Merge => (read.tags, read.strips) = (value.map(json), flag),
                Kind::Add => read.counts = value.map(json).unwrap_or_default(),
                Kind::Set(_) if flag && index == usize::from(column::IDENTIFIER) => {
                    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
                    read.identifier = Some(value.map(text));
                }
                Kind::Set(_) if flag && index == usize::from(column::PARENT) => {
                    let row = |id: &[u8]| RowKey {
                        app: AppId(app),
                        subscription: SubscriptionId(fixed(Some(id))),
                    };
                    read.parent = Some(value.map(row));
                }
                Kind::Set(_) => {}
                Kind::Sum(_) | Kind::Max(_) | Kind::Min(_) => {
                    unreachable!("no subscription has any")
                }
            }
            if batch.touched.has_guard(index) {
                read.guards = next().map(json).unwrap_or_default();
            }
        }
        read
    }
}

fn fixed<const N: usize>(value: Option<&[u8]>) -> [u8; N] {
    value
        .expect("never null")
        .try_into()
        .expect("of that length")
}

fn json<T: serde::de::DeserializeOwned>(jsonb: &[u8]) -> T {
    serde_json::from_slice(&jsonb[1..]).expect("the encoder writes JSON")
}
