//! Refusing an update that depends on its row's state: remembered in the table `refused` in the transaction that moves the
//! row's fence, so that neither a crash before its dead letter is sent nor the fence can swallow it.
//!
//! A breaker keeps a change of the schema (a new NOT NULL column, say) from emptying the topic into the dead letters: when
//! the database refuses a large share of recent updates, the shard stops and says why. Each update is still tried, so it goes on
//! by itself once the database takes them again; where the next one is bad itself, one a minute is refused all the same.

use super::apply::{Applier, note_dead};
use super::fold::{Dead, Fold, Folds, Message, Outcome};
use crate::dead::Reason;
use crate::fault;
use crate::ids::{Partition, Position};
use crate::sink::shard::{Refusal, ShardSession, SinkError};
use crate::sink::sqlstate::Verdict;
use crate::update::Change;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Refusals of the database that are needed before their share means anything.
const BREAKER_REFUSALS_MIN: u64 = 20;
/// The shard stops when more than one update in this many is refused by the database.
const BREAKER_SHARE: u64 = 5;
/// Recent updates that the share is taken of; older ones count half.
const BREAKER_WINDOW: u64 = 10_000;
/// Between two refusals while the shard is stopped: few enough in a night, soon enough for whoever has mended the schema.
const BREAKER_PROBE: Duration = Duration::from_secs(60);

/// How many of a worker's recent updates the database refused.
#[derive(Debug, Default)]
pub struct Refusals {
    updates: u64,
    refused: u64,
    last_refused: Option<Instant>,
}

impl Refusals {
    /// Counts updates that were decided.
    pub fn decided(&mut self, updates: u64) {
        self.updates += updates;
        if self.updates > BREAKER_WINDOW {
            self.updates /= 2;
            self.refused /= 2;
        }
    }

    fn refused(&mut self) {
        self.refused += 1;
        self.last_refused = Some(crate::clock::now());
    }

    /// Whether another update must not be refused now.
    fn would_trip(&self) -> bool {
        let too_many =
            self.refused >= BREAKER_REFUSALS_MIN && self.refused * BREAKER_SHARE > self.updates;
        let lately = |at: Instant| crate::clock::now().duration_since(at) < BREAKER_PROBE;
        too_many && self.last_refused.is_some_and(lately)
    }
}

impl<S: ShardSession> Applier<S> {
    /// Refuses the fold's one message. An error says that it is not refused now, and what to do before the write is tried
    /// again; it is never about the data.
    pub(super) fn refuse(
        &mut self,
        folds: &mut Folds<'_>,
        fold: &Fold,
        error: &SinkError,
    ) -> Result<(), SinkError> {
        let refusal = refusal(&folds.messages[fold.first], error);
        if refusal.reason == Reason::Database && self.refusals.would_trip() {
            let why = format!(
                "the database refuses more than one update in {BREAKER_SHARE}; only one a minute is refused until it \
                 takes them again. The last refusal"
            );
            return Err(for_somebody(&why, error));
        }
        let marked = self.mark_refused(folds, fold, refusal);
        marked.map_err(|error| match error.verdict {
            // Not even the fence can be moved: that is not about this update.
            Verdict::Data => for_somebody(
                "an update is refused, and its row can't be marked either",
                &error,
            ),
            _ => error,
        })
    }

    /// Moves the row's fence and remembers the refusal, unless that was done before.
    fn mark_refused(
        &mut self,
        folds: &mut Folds<'_>,
        fold: &Fold,
        refusal: Refusal,
    ) -> Result<(), SinkError> {
        fault::crash_point("before-refuse");
        if self.connection.refuse(&refusal)? {
            fault::crash_point("after-refuse");
            if refusal.reason == Reason::Database {
                self.refusals.refused();
            }
            let dead = Dead {
                reason: refusal.reason,
                sqlstate: refusal.sqlstate,
                message: refusal.message,
            };
            note_dead(folds, fold.first, dead);
            return Ok(());
        }
        // The fence stands at or above this update, so it was decided before. (A replay can raise the same error again:
        // Postgres checks constraints of the row that an INSERT proposes before it looks for the one that is there.)
        folds.note(fold, || Outcome::Replayed);
        self.remember_refused(folds, &[fold.first])
    }

    /// Among messages that the fence covers, finds those that were refused by an earlier life: their dead letters may not
    /// have been sent.
    pub(super) fn remember_refused(
        &mut self,
        folds: &mut Folds<'_>,
        covered: &[usize],
    ) -> Result<(), SinkError> {
        let mut by_partition: BTreeMap<Partition, BTreeMap<Position, usize>> = BTreeMap::new();
        for index in covered {
            let message = &folds.messages[*index];
            by_partition
                .entry(message.partition)
                .or_default()
                .insert(message.position, *index);
        }
        for (partition, by_position) in by_partition {
            let positions: Vec<Position> = by_position.keys().copied().collect();
            for remembered in self.connection.remembered(partition, &positions)? {
                let dead = Dead {
                    reason: remembered.reason,
                    sqlstate: remembered.sqlstate,
                    message: remembered.message,
                };
                note_dead(folds, by_position[&remembered.position], dead);
            }
        }
        Ok(())
    }
}

/// The shard is down until somebody acts.
fn for_somebody(why: &str, error: &SinkError) -> SinkError {
    SinkError {
        verdict: Verdict::ShardDown,
        message: format!("{why}: {error}"),
        ..error.clone()
    }
}

/// What is remembered of a message that the database refused with this error.
fn refusal(message: &Message<'_>, error: &SinkError) -> Refusal {
    let adds = message
        .update
        .changes
        .iter()
        .any(|change| matches!(change, Change::Add { .. } | Change::Amount { .. }));
    // Numeric value out of range.
    let overflow = adds && error.sqlstate.as_deref() == Some("22003");
    Refusal {
        key: message.update.key,
        values: message.update.values.clone(),
        partition: message.partition,
        position: message.position,
        timestamp_ms: message.timestamp_ms,
        reason: if overflow {
            Reason::Overflow
        } else {
            Reason::Database
        },
        sqlstate: error.sqlstate.clone(),
        message: error.message.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_bad_updates_among_many_do_not_trip_the_breaker() {
        let mut refusals = Refusals::default();
        for _ in 0..1000 {
            refusals.decided(100);
            (0..10).for_each(|_| refusals.refused());
        }
        assert!(!refusals.would_trip());
    }

    #[test]
    fn a_database_that_refuses_everything_trips_it_soon() {
        let mut refusals = Refusals::default();
        let tripped_after = (0..1000).take_while(|_| {
            refusals.decided(1);
            refusals.refused();
            !refusals.would_trip()
        });
        assert_eq!(tripped_after.count(), 19);
    }

    #[test]
    fn while_it_is_tripped_one_a_minute_is_refused() {
        crate::clock::turned::stop();
        let mut refusals = Refusals::default();
        (0..20).for_each(|_| refusals.refused());
        assert!(refusals.would_trip());
        crate::clock::turned::forward(BREAKER_PROBE);
        assert!(!refusals.would_trip());
        refusals.refused();
        assert!(refusals.would_trip());
    }
}
