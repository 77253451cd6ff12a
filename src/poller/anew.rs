//! Partitions that are given up and assigned anew, though they don't move: those that have gone silent, and those whose next
//! records are gone, where the configuration says to go on behind them.
//!
//! Silent: the broker has records, there is room for these, and none comes. Nobody knows every way in which a Kafka client gets
//! there, and without an error nothing else would notice. The look-up thread asks the brokers for the end offsets from time to
//! time; a partition is silent if it got no further between two looks. At one offset it is assigned anew only once: what lies
//! behind may be nothing but the marks of a transaction, which are never delivered.

use super::Poller;
use super::assignment::Assigned;
use crate::ids::Partition;
use crate::kafka::member::{Member, Queue};

/// What the looks at a partition have found. Offsets below which everything was finished then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Silence {
    /// Of the last look, if nothing was in memory and there were records.
    heard_up_to: Option<i64>,
    /// Of the last time that it was assigned anew.
    assigned_anew_at: Option<i64>,
}

impl Silence {
    /// A look at a partition that has nothing in memory and is finished up to `finished`; `None` for any other. True if it
    /// is to be assigned anew.
    fn look(&mut self, finished: Option<i64>, end: i64) -> bool {
        let waiting = finished.filter(|finished| *finished < end);
        let is_silent = waiting.is_some() && waiting == self.heard_up_to;
        self.heard_up_to = waiting;
        if !is_silent || self.assigned_anew_at == waiting {
            return false;
        }
        self.assigned_anew_at = waiting;
        true
    }
}

impl<M: Member> Poller<M> {
    /// Looks for silent partitions, with the brokers' end offsets.
    pub(super) fn look_for_silence(&mut self, ends: &[i64]) -> Result<(), String> {
        for (index, end) in ends.iter().enumerate() {
            let idle = self.assigned[index]
                .as_ref()
                .filter(|assigned| is_idle(assigned));
            let finished = idle.map(|assigned| assigned.finished());
            let partition = Partition(i32::try_from(index).expect("partitions fit Kafka's i32"));
            if !self.silence[index].look(finished, *end) {
                continue;
            }
            if !self.assign_anew(partition)? {
                self.silence[index] = Silence::default();
                continue;
            }
            self.recorder.silent.add(1);
            tracing::warn!(
                partition = partition.0,
                finished,
                end,
                "no message comes although the broker has some: the partition is assigned anew"
            );
        }
        Ok(())
    }

    /// Goes on behind records that are gone, once what was read before is finished, and where that is can be committed: behind
    /// the end of a log that was cut off, the next look-up knows nothing else.
    pub(super) fn go_on_behind_gaps(&mut self) -> Result<(), String> {
        let never_commits = self.settings.commit_interval.is_none();
        let assigned = self.assigned.iter().flatten();
        let at_gap = assigned.filter(|assigned| {
            let may_commit = assigned.tenure.may_commit() || never_commits;
            let is_at_gap = assigned.skips_gap && has_nothing(assigned) && may_commit;
            // One that has said its last was not given up, as partitions moved just then.
            is_at_gap || assigned.tenure.has_ended()
        });
        let at_gap: Vec<Partition> = at_gap.map(|assigned| assigned.partition).collect();
        for partition in at_gap {
            self.assign_anew(partition)?;
        }
        Ok(())
    }

    /// False while partitions move: the client would take this one for its answer to the group. To be tried again.
    fn assign_anew(&mut self, partition: Partition) -> Result<bool, String> {
        if self.consumer.awaits_answer() {
            return Ok(false);
        }
        self.commit_and_wait(&[partition]);
        // The wait serves the client's events as well.
        if self.consumer.awaits_answer() {
            return Ok(false);
        }
        self.give_up(&[partition]);
        self.unassign(&[partition])?;
        self.look_up(vec![partition]);
        Ok(true)
    }
}

/// Whether a message could come at once.
fn is_idle<Q: Queue>(assigned: &Assigned<Q>) -> bool {
    !assigned.stopped && has_nothing(assigned)
}

/// Whether nothing of it is in memory.
fn has_nothing<Q: Queue>(assigned: &Assigned<Q>) -> bool {
    assigned.held.is_empty() && assigned.tracker.in_flight() == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_looks_without_progress_make_it_silent_and_one_offset_only_once() {
        let mut silence = Silence::default();
        assert!(!silence.look(Some(5), 9), "it may be on its way");
        assert!(silence.look(Some(5), 9));
        assert!(!silence.look(Some(5), 9) && !silence.look(Some(5), 12));
        assert!(!silence.look(Some(7), 12));
        assert!(silence.look(Some(7), 12));
    }

    #[test]
    fn a_partition_that_is_read_to_its_end_or_busy_is_not_silent() {
        let mut silence = Silence::default();
        for _ in 0..3 {
            assert!(!silence.look(Some(9), 9));
            assert!(!silence.look(None, 9));
        }
        assert!(!silence.look(Some(5), 9));
        assert!(!silence.look(None, 9), "it has something in memory now");
        assert!(
            !silence.look(Some(5), 9),
            "so the first look counts no more"
        );
    }
}
