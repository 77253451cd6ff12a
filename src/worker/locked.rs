//! Finding out which rows somebody else holds locked, so that these wait and the others go on. A row waits also for a parent
//! whose children can't be counted now.

use super::apply::Applier;
use super::fold::{Fold, Folds, Outcome};
use super::links::AwaitedParents;
use crate::ids::RowKey;
use crate::sink::shard::{ShardSession, SinkError};
use crate::table::Asked;
use hashbrown::HashSet;

impl<S: ShardSession> Applier<S> {
    /// Finds out which rows are locked; notes their messages as parked and returns the other folds.
    pub(super) fn set_locked_aside(
        &mut self,
        folds: &mut Folds<'_>,
        part: Vec<Fold>,
        error: &SinkError,
        parked: &mut Vec<RowKey>,
    ) -> Vec<Fold> {
        let rows: Vec<Asked<'_>> = part.iter().map(|fold| folds.asked(fold)).collect();
        let unlocked = match self.connection.unlocked(&rows) {
            Ok(unlocked) => unlocked,
            // The whole table is locked, or the connection broke.
            Err(error) => {
                self.patience.wait(&error);
                return part;
            }
        };
        let awaiting = self.locked_parents(&part, &unlocked);
        if unlocked.iter().all(|unlocked| *unlocked) && awaiting.is_empty() {
            // The lock is gone again, or it is one that isn't on a row.
            self.patience.wait(error);
            return part;
        }
        let mut free = Vec::with_capacity(part.len());
        for (fold, unlocked) in part.into_iter().zip(unlocked) {
            let parents = awaiting.get(&fold.key);
            if unlocked && parents.is_none() {
                free.push(fold);
            } else {
                tracing::warn!(
                    shard = %self.patience.shard(),
                    app_id = %fold.key.app,
                    subscription_id = %fold.key.subscription,
                    is_parent = parents.is_some(),
                    "the row, or its parent's count, is locked by another session; its updates wait, others go on"
                );
                folds.note(&fold, || Outcome::Parked);
                parked.push(fold.key);
            }
        }
        self.awaiting.extend(awaiting);
        free
    }

    /// Those of the rows that are not locked themselves, but some of whose parents are: with all their parents.
    fn locked_parents(&mut self, part: &[Fold], unlocked: &[bool]) -> AwaitedParents {
        let rows = part.iter().zip(unlocked).filter(|(_, unlocked)| **unlocked);
        let rows: Vec<RowKey> = rows.map(|(fold, _)| fold.key).collect();
        let mut awaited = std::mem::take(&mut self.awaited);
        awaited.retain(|row, parents| !parents.is_empty() && rows.contains(row));
        let free = self.free_parents(&awaited);
        awaited.retain(|_, parents| !parents.iter().all(|parent| free.contains(parent)));
        awaited
    }

    /// Which of all these parents' counts nobody else holds locked; none when the shard can't be asked.
    fn free_parents(&mut self, awaited: &AwaitedParents) -> HashSet<RowKey> {
        let mut parents: Vec<RowKey> = awaited.values().flatten().copied().collect();
        parents.sort_unstable();
        parents.dedup();
        if parents.is_empty() {
            return HashSet::new();
        }
        let unlocked = self.connection.unlocked_parents(&parents);
        let unlocked = unlocked.unwrap_or_else(|_| vec![false; parents.len()]);
        let free = parents.into_iter().zip(unlocked);
        free.filter(|(_, unlocked)| *unlocked)
            .map(|(parent, _)| parent)
            .collect()
    }

    /// Which of these rows, that were set aside, wait for nobody any more; none when the shard can't be asked.
    pub fn unlocked(&mut self, rows: &[Asked<'_>]) -> Vec<bool> {
        let Ok(mut unlocked) = self.connection.unlocked(rows) else {
            return vec![false; rows.len()];
        };
        let mut awaiting = std::mem::take(&mut self.awaiting);
        awaiting.retain(|row, _| rows.iter().any(|asked| asked.key == *row));
        let free = self.free_parents(&awaiting);
        awaiting.retain(|_, parents| !parents.iter().all(|parent| free.contains(parent)));
        for (row, unlocked) in rows.iter().zip(&mut unlocked) {
            *unlocked &= !awaiting.contains_key(&row.key);
        }
        self.awaiting = awaiting;
        unlocked
    }
}
