//! Updates that link rows to parents: one transaction, in which the children of each parent are counted. The page beside this
//! file has the steps and why they are right.

mod decide;

use super::apply::{Applier, note_dead};
use super::fold::{Dead, Fold, Folds, Outcome};
use crate::config::checked::OnMissingRow;
use crate::dead::Reason;
use crate::fault;
use crate::ids::RowKey;
use crate::sink::shard::{Refusal, ShardSession, SinkError};
use crate::sink::sqlstate::Verdict;
use decide::{Child, Decision};
use hashbrown::HashMap;
use std::collections::BTreeMap;

/// How a transaction ended that did not fail.
enum Done {
    /// Every message has an outcome; so many rows were written.
    Written(usize),
    /// Nothing was written: the sums of this row's fold leave 64 bits, so its updates must be written one by one.
    Unfold(RowKey),
    /// Nothing was written: a parent has no room for all, so the children must be counted first.
    NoRoom,
}

/// The parents that rows of the last transactions were waiting for. Rows that are set aside since a parent is locked wait for it.
pub(super) type AwaitedParents = HashMap<RowKey, Vec<RowKey>>;

impl<S: ShardSession> Applier<S> {
    /// Writes one part of which some updates link. `Ok`: each of its messages has an outcome.
    pub(super) fn write_links(
        &mut self,
        folds: &mut Folds<'_>,
        part: &[Fold],
    ) -> Result<(), SinkError> {
        let mut open = part.to_vec();
        while !open.is_empty() {
            let taken = self.hold_back(open.len());
            if self.patience.is_exhausted() {
                self.give_back(open.len(), taken.as_ref());
                return Ok(());
            }
            match self.transact(folds, &open) {
                Ok(Done::Written(rows)) => {
                    self.give_back(open.len() - rows, taken.as_ref());
                    return Ok(());
                }
                Ok(Done::Unfold(key)) => {
                    self.give_back(open.len(), taken.as_ref());
                    self.connection.roll_back();
                    let (alone, others): (Vec<Fold>, Vec<Fold>) =
                        open.into_iter().partition(|fold| fold.key == key);
                    open = others;
                    for single in folds.unfolded(&alone[0]) {
                        self.write_unfolded(folds, single)?;
                    }
                }
                Ok(Done::NoRoom) => {
                    self.give_back(open.len(), taken.as_ref());
                    self.connection.roll_back();
                    self.counts_first = true;
                }
                Err(error) => {
                    self.connection.roll_back();
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    fn transact(&mut self, folds: &mut Folds<'_>, part: &[Fold]) -> Result<Done, SinkError> {
        let children = self.lock_rows(folds, part)?;
        self.remember_awaited(folds, &children);
        let (decision, is_settled) = self.decide(folds, part, &children)?;
        for message in &mut folds.messages {
            message.link_refused = false;
        }
        for (message, _) in &decision.refused {
            folds.messages[*message].link_refused = true;
        }
        let open: Vec<Fold> = children.into_iter().map(|child| child.fold).collect();
        if !open.is_empty() {
            let batch = match self.encoder.encode(folds, &open) {
                Ok(batch) => batch,
                Err(overflow) => return Ok(Done::Unfold(open[overflow.index].key)),
            };
            let (rows, written) = (batch.rows as u64, self.connection.update(batch)?);
            if written != rows {
                return Err(moved_under_lock(rows, written));
            }
        }
        let limit = self.tunables.links_per_parent_max();
        if !decision.changes.is_empty() {
            let most = if is_settled { i32::MAX } else { most(limit) };
            let changed = self.connection.change_children(&decision.changes, most)?;
            let changes = decision.changes.len() as u64;
            if changed < changes && is_settled {
                return Err(moved_under_lock(changes, changed));
            }
            if changed < changes {
                return Ok(Done::NoRoom);
            }
        }
        fault::crash_point("before-links");
        let refusals = refusals(folds, &decision, limit);
        let remembered: &[Refusal] = match fault::mutant("link-refused-not-remembered") {
            true => &[],
            false => &refusals,
        };
        self.connection.commit_links(remembered)?;
        fault::crash_point("after-links");
        self.counts_first = !decision.refused.is_empty();
        self.recorder.statements.add(1);
        self.recorder.rows_written.add(open.len() as u64);
        self.has_also_written(decision.changes.len());
        for fold in &open {
            folds.note(fold, || Outcome::Applied);
        }
        for ((message, _), refusal) in decision.refused.iter().zip(refusals) {
            let dead = Dead {
                reason: refusal.reason,
                sqlstate: None,
                message: refusal.message,
            };
            note_dead(folds, *message, dead);
        }
        Ok(Done::Written(open.len()))
    }

    /// Step 2, or what goes before step 4 where there is likely room for all: what changes, and whether that is settled.
    fn decide(
        &mut self,
        folds: &Folds<'_>,
        part: &[Fold],
        children: &[Child],
    ) -> Result<(Decision, bool), SinkError> {
        let decision = decide::decide(folds, children, &BTreeMap::new(), i32::MAX);
        if !decision.turns && (!self.counts_first || decision.changes.is_empty()) {
            self.lock_anew_if_broken(part, &[])?;
            return Ok((decision, false));
        }
        let parents = decide::parents(folds, children);
        let counts = self.connection.lock_parents(&parents)?;
        self.lock_anew_if_broken(part, &parents)?;
        let counts = parents.iter().copied().zip(counts).collect();
        let limit = self.tunables.links_per_parent_max();
        let decision = decide::decide(folds, children, &counts, most(limit));
        Ok((decision, true))
    }

    /// Step 1: what is left to write, with the parent that each row has.
    fn lock_rows(&mut self, folds: &mut Folds<'_>, part: &[Fold]) -> Result<Vec<Child>, SinkError> {
        let keys = keys_of(part);
        let makes_missing = self.makes_missing();
        let mut rows = self
            .connection
            .lock_rows(&keys, makes_missing && self.makes_rows)?;
        if makes_missing && !self.makes_rows && rows.iter().any(Option::is_none) {
            // Locks are taken in the order of keys.
            self.connection.roll_back();
            rows = self.connection.lock_rows(&keys, true)?;
        }
        let (mut children, mut replayed) = (Vec::with_capacity(part.len()), Vec::new());
        for (fold, row) in part.iter().zip(rows) {
            let Some(row) = row else {
                folds.note(fold, || Outcome::Skipped);
                continue;
            };
            let (below, above) = folds.cut(fold, row.fence);
            self.recorder
                .folds_cut
                .add(u64::from(!below.is_empty() && above.is_some()));
            replayed.extend(below);
            children.extend(above.map(|fold| Child {
                fold,
                parent: row.parent,
            }));
        }
        self.note_replays(folds, &replayed)?;
        Ok(children)
    }

    /// For the tests of a broken build: what was read is used, but under other locks than it was read under.
    fn lock_anew_if_broken(&mut self, part: &[Fold], parents: &[RowKey]) -> Result<(), SinkError> {
        if fault::mutant("link-outside-its-lock") {
            self.connection.roll_back();
            let makes_missing = self.makes_missing();
            self.connection.lock_rows(&keys_of(part), makes_missing)?;
            self.connection.lock_parents(parents)?;
        }
        Ok(())
    }

    fn makes_missing(&self) -> bool {
        self.on_missing_row == OnMissingRow::Insert
    }

    fn remember_awaited(&mut self, folds: &Folds<'_>, children: &[Child]) {
        self.awaited.clear();
        for child in children {
            let parents = decide::parents(folds, std::slice::from_ref(child));
            self.awaited.insert(child.fold.key, parents);
        }
    }
}

/// Children that a parent may have.
fn most(limit: Option<u32>) -> i32 {
    limit.map_or(i32::MAX, |limit| i32::try_from(limit).unwrap_or(i32::MAX))
}

fn keys_of(part: &[Fold]) -> Vec<RowKey> {
    part.iter().map(|fold| fold.key).collect()
}

/// What is remembered of the links that are over the limit.
fn refusals(folds: &Folds<'_>, decision: &Decision, limit: Option<u32>) -> Vec<Refusal> {
    let refusal = |(message, parent): &(usize, RowKey)| {
        let message = &folds.messages[*message];
        Refusal {
            key: message.update.key,
            values: None,
            partition: message.partition,
            position: message.position,
            timestamp_ms: message.timestamp_ms,
            reason: Reason::LinkLimit,
            sqlstate: None,
            message: format!(
                "parent {} has {} children, which is rules.links_per_parent_max; the link was not made, the rest of the \
                 update was applied",
                parent.subscription,
                limit.unwrap_or_default(),
            ),
        }
    };
    decision.refused.iter().map(refusal).collect()
}

/// Something else changes rows that we hold locked: a trigger, or a rule.
fn moved_under_lock(rows: u64, written: u64) -> SinkError {
    SinkError {
        verdict: Verdict::ShardDown,
        sqlstate: None,
        message: format!(
            "of {rows} locked rows only {written} could be written; is there a trigger on the table that holds writes back?"
        ),
        sql: String::new(),
    }
}
